// Access to the elements of tensors without a copy.

using System;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>A view of the elements of a tensor, without a copy. The memory is valid until the view is disposed of,
    /// also if the tensor is disposed of earlier, and must not be written.</summary>
    public sealed class TensorView : IDisposable
    {
        private Tensor tensor;

        internal TensorView(Tensor tensor)
        {
            bool held = false;
            tensor.DangerousAddRef(ref held);
            this.tensor = tensor;
            Pointer = Native.optimize_tensor_data(tensor);
            Size = checked((long)Native.optimize_tensor_size(tensor));
        }

        /// <summary>Ends the use of the tensor by a view of which nobody has disposed.</summary>
        ~TensorView() { Release(); }

        /// <summary>Address of the first element; zero for a tensor of strings or without elements, and after
        /// Dispose.</summary>
        public IntPtr Pointer { get; private set; }

        /// <summary>Size of all elements in bytes; 0 for a tensor of strings and after Dispose.</summary>
        public long Size { get; private set; }

        /// <summary>Returns the element at a position in row-major order, from 0. Throws InvalidOperationException if T
        /// does not correspond to the type of the tensor, ArgumentOutOfRangeException if there is no such position, and
        /// ObjectDisposedException after Dispose.</summary>
        public T At<T>(long index) where T : struct
        {
            if (tensor == null) throw new ObjectDisposedException("TensorView");
            Tensor.Match<T>(tensor.DType);
            int size = Tensor.SizeOfElement<T>();
            if (index < 0 || index >= Size / size) throw new ArgumentOutOfRangeException("index");
            var address = new IntPtr(Pointer.ToInt64() + index * size);
            if (typeof(T) == typeof(bool)) return (T)(object)(Marshal.ReadByte(address) != 0); // Marshal reads 4 bytes
            return Marshal.PtrToStructure<T>(address);
        }

        /// <summary>Ends the use of the tensor by the view, whose memory must not be used afterwards.</summary>
        public void Dispose()
        {
            Release();
            GC.SuppressFinalize(this);
        }

        private void Release()
        {
            if (tensor == null) return;
            Pointer = IntPtr.Zero;
            Size = 0;
            tensor.DangerousRelease();
            tensor = null;
        }

#if NET8_0_OR_GREATER
        /// <summary>Returns the elements in row-major order, without a copy. The span must not be used after Dispose.
        /// Throws InvalidOperationException if T does not correspond to the type of the tensor (Half to Float16), and
        /// ObjectDisposedException after Dispose.</summary>
        public unsafe ReadOnlySpan<T> Span<T>() where T : unmanaged
        {
            ObjectDisposedException.ThrowIf(tensor == null, this);
            Tensor.Match<T>(tensor.DType);
            return new ReadOnlySpan<T>((void*)Pointer, checked((int)(Size / sizeof(T))));
        }
#endif
    }

    public sealed partial class Tensor
    {
        /// <summary>Returns a view of the elements, without a copy. The caller disposes of it.</summary>
        public TensorView View() { return new TensorView(this); }

        internal static int SizeOfElement<T>() where T : struct
        {
            return typeof(T) == typeof(bool) ? 1 : Marshal.SizeOf<T>();
        }

        internal static void Match<T>(DType has)
        {
            var type = TypeOf<T>();
            if (type != has) throw new InvalidOperationException("the tensor holds " + has + ", not " + type);
        }

#if NET8_0_OR_GREATER
        /// <summary>Returns a tensor with a copy of elements, like From for an array.</summary>
        public static unsafe Tensor From<T>(ReadOnlySpan<T> elements, params long[] dims) where T : unmanaged
        {
            fixed (T* data = elements)
            {
                T none;
                Tensor tensor;
                ErrorHandle error;
                OptimizeException.Check(Native.optimize_tensor_new((int)TypeOf<T>(), dims, (UIntPtr)dims.Length,
                    (IntPtr)(data == null ? &none : data), (UIntPtr)((ulong)elements.Length * (ulong)sizeof(T)),
                        out tensor,
                    out error), error);
                return tensor;
            }
        }
#endif
    }
}
