// Runs that write outputs to memory of the program.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>An array of the program to which Session.RunInto writes an output, with its type and shape.</summary>
    public sealed class Output
    {
        internal DType Type;
        internal Array Elements;
        internal long[] Dims;
        internal long Size;

        private Output() { }

        /// <summary>Returns an output that is written to an array of numbers, in row-major order.
        /// <paramref name="dims"/> are the sizes of its dimensions in this run, whose product must be the length of the
        /// array. Throws ArgumentException if T is not an element type, or is bool: use the other overload with
        /// DType.Bool.</summary>
        public static Output To<T>(T[] elements, params long[] dims) where T : struct
        {
            if (typeof(T) == typeof(bool)) throw new ArgumentException("use byte[] and DType.Bool");
            Handle.Need(elements, "elements");
            var size = elements.LongLength * Tensor.SizeOfElement<T>();
            return new Output { Type = Tensor.TypeOf<T>(), Elements = elements, Dims = dims, Size = size };
        }

        /// <summary>Returns an output of any type except String whose elements are written to an array of bytes, in
        /// row-major order. <paramref name="dims"/> are the sizes of its dimensions in this run.</summary>
        public static Output To(DType type, byte[] data, params long[] dims)
        {
            Handle.Need(data, "data");
            return new Output { Type = type, Elements = data, Dims = dims, Size = data.LongLength };
        }
    }

    public sealed partial class Session
    {
        /// <summary>Runs the model like Run, and writes the outputs that are in <paramref name="outputs"/>, by name, to
        /// arrays of the program instead of new tensors. Each output must have an array of its own; after an exception,
        /// the content of the arrays is undefined. Throws Status.InvalidArgument if type, shape or size of an Output do
        /// not fit, Status.Unsupported for an output of strings, and otherwise the same as Run.</summary>
        public void RunInto(
            IDictionary<string, Tensor> inputs, IDictionary<string, Output> outputs, [AllowNull] Call call = null)
        {
            Need(inputs, "inputs");
            Need(outputs, "outputs");
            var names = new List<string>(inputs.Keys);
            var tensors = new IntPtr[inputs.Count];
            var places = new List<Native.Output>();
            var held = new List<Tensor>();
            var pins = new List<GCHandle>();
            using (var scratch = new Scratch())
            {
                try
                {
                    for (int i = 0; i < names.Count; i++)
                    {
                        bool holds = false;
                        inputs[names[i]].DangerousAddRef(ref holds);
                        held.Add(inputs[names[i]]);
                        tensors[i] = held[i].DangerousGetHandle();
                    }
                    foreach (var output in outputs)
                    {
                        pins.Add(GCHandle.Alloc(output.Value.Elements, GCHandleType.Pinned));
                        pins.Add(GCHandle.Alloc(output.Value.Dims, GCHandleType.Pinned));
                        places.Add(new Native.Output
                        {
                            StructSize = SizeOf<Native.Output>(),
                            DType = (int)output.Value.Type,
                            Name = scratch.Text(output.Key),
                            Dims = pins[pins.Count - 1].AddrOfPinnedObject(),
                            Rank = (ulong)output.Value.Dims.Length,
                            Data = pins[pins.Count - 2].AddrOfPinnedObject(),
                            Size = (ulong)output.Value.Size,
                        });
                    }
                    IntPtr inputNames = scratch.Texts(names);
                    var raw = places.ToArray();
                    Call.Run(call, (ref Native.Call native, out ErrorHandle error) =>
                        Native.optimize_session_run_into(this, inputNames, tensors, (UIntPtr)tensors.Length, raw,
                            (UIntPtr)raw.Length, ref native, out error));
                }
                finally
                {
                    foreach (var pin in pins) pin.Free();
                    foreach (var tensor in held) tensor.DangerousRelease();
                }
            }
        }
    }

    internal static partial class Native
    {
        [StructLayout(LayoutKind.Sequential)]
        internal struct Output
        {
            internal uint StructSize;
            internal int DType;
            internal IntPtr Name, Dims;
            internal ulong Rank;
            internal IntPtr Data;
            internal ulong Size;
        }

        [DllImport(Library)] internal static extern int optimize_session_run_into(
            Session session, IntPtr inputNames, IntPtr[] inputs, UIntPtr inputCount,
            [In, Out] Output[] outputs, UIntPtr outputCount, ref Call call, out ErrorHandle error);
    }
}
