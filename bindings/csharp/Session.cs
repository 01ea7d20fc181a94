// Sessions, which run models.

using System;
using System.Collections.Generic;

namespace Optimize
{
    /// <summary>Level of the optimizations that ONNX Runtime applies to the graph when it creates a session.</summary>
    public enum OptimizationLevel
    {
        /// <summary>All optimizations, including changes of tensor layout for this processor.</summary>
        Default = 0,

        /// <summary>No optimization.</summary>
        Disabled = 1,

        /// <summary>Constant folding and removal of redundant nodes.</summary>
        Basic = 2,

        /// <summary>Basic optimizations and node fusion.</summary>
        Extended = 3,
    }

    /// <summary>Options of Context.CreateSession.</summary>
    public sealed class SessionOptions
    {
        /// <summary>Number of threads for the work of one node; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Level of the graph optimizations.</summary>
        public OptimizationLevel OptimizationLevel { get; set; }

        /// <summary>Whether the reordering of weights for this processor is disabled: the session takes less memory and
        /// is created faster, but runs are slower. Ignored for models with block-quantized weights.</summary>
        public bool DisablePrepacking { get; set; }

        /// <summary>Whether the activations of block-quantized matrix products are rounded to 8 bits, which is faster
        /// and less exact.</summary>
        public bool RoundActivations { get; set; }

        /// <summary>Whether you trust the source of the model. Engines inside a model contain executable code; if
        /// false, such a model leads to Status.Untrusted on a device.</summary>
        public bool TrustEngines { get; set; }

        /// <summary>Execution provider, device, kernels and precision; null for the defaults of Execution.</summary>
        [AllowNull, MaybeNull] public Execution Execution { get; set; }

        internal Native.SessionOptions ToNative(Scratch scratch)
        {
            return new Native.SessionOptions
            {
                StructSize = Handle.SizeOf<Native.SessionOptions>(),
                Threads = Threads,
                OptimizationLevel = (int)OptimizationLevel,
                DisablePrepacking = DisablePrepacking ? 1u : 0,
                RoundActivations = RoundActivations ? 1u : 0,
                TrustEngines = TrustEngines ? 1u : 0,
                Provider = Execution == null ? 0 : (int)Execution.Provider,
                DeviceId = Execution == null ? 0 : Execution.DeviceId,
                EngineCache = scratch.Text(Execution == null ? null : Execution.EngineCache),
                Kernels = Execution == null ? 0 : (int)Execution.Kernels,
                Precision = Execution == null ? 0 : (int)Execution.Precision,
            };
        }
    }

    /// <summary>A session, which runs a model or a TensorRT engine. Any number of threads may run a session at the same
    /// time; the runs of an engine wait for one another.</summary>
    public sealed partial class Session : Handle
    {
        internal Session() { }

        /// <summary>Returns names, types and shapes of the inputs that a run requires.</summary>
        public IList<ValueInfo> Inputs()
        {
            return ValueInfo.All(this, Native.optimize_session_input_count(this),
                (UIntPtr index, ref Native.ValueInfo info, out ErrorHandle error) =>
                    Native.optimize_session_input(this, index, ref info, out error));
        }

        /// <summary>Returns names, types and shapes of the outputs of the model.</summary>
        public IList<ValueInfo> Outputs()
        {
            return ValueInfo.All(this, Native.optimize_session_output_count(this),
                (UIntPtr index, ref Native.ValueInfo info, out ErrorHandle error) =>
                    Native.optimize_session_output(this, index, ref info, out error));
        }

        /// <summary>Runs the model with the tensors of <paramref name="inputs"/>, by name, and returns by name the
        /// outputs with the names <paramref name="outputs"/>, or all outputs if that is null. Throws Status.NotFound
        /// for an input or output that the model does not have, and Status.InvalidArgument if an input is missing, if
        /// its type or shape does not fit, or if an output is named twice. Also throws Status.Unsupported for an output
        /// that is not a tensor; and Status.Runtime if ONNX Runtime fails.</summary>
        public IDictionary<string, Tensor> Run(
            IDictionary<string, Tensor> inputs, [AllowNull] IList<string> outputs = null, [AllowNull] Call call = null)
        {
            Need(inputs, "inputs");
            outputs = outputs ?? OutputNames();
            var names = new List<string>(inputs.Keys);
            var tensors = new IntPtr[inputs.Count];
            var results = new IntPtr[outputs.Count];
            var held = new List<Tensor>();
            using (var scratch = new Scratch())
            {
                try
                {
                    // P/Invoke does not keep the handles in an array alive, as it does with a handle argument.
                    for (int i = 0; i < names.Count; i++)
                    {
                        bool holds = false;
                        inputs[names[i]].DangerousAddRef(ref holds);
                        held.Add(inputs[names[i]]);
                        tensors[i] = held[i].DangerousGetHandle();
                    }
                    IntPtr inputNames = scratch.Texts(names), outputNames = scratch.Texts(outputs);
                    Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_session_run(
                        this, inputNames, tensors, (UIntPtr)tensors.Length, outputNames, (UIntPtr)results.Length,
                        ref native, results, out error));
                }
                finally
                {
                    foreach (var tensor in held) tensor.DangerousRelease();
                }
            }
            var named = new Dictionary<string, Tensor>();
            for (int i = 0; i < results.Length; i++) named[outputs[i]] = new Tensor(results[i]);
            return named;
        }

        private IList<string> OutputNames()
        {
            var names = new List<string>();
            foreach (var output in Outputs()) names.Add(output.Name);
            return names;
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr session) { Native.optimize_session_free(session); }
    }
}
