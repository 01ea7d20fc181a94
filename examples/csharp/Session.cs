// Sessions: a model made ready to run.

using System;
using System.Collections.Generic;

namespace Optimize
{
    /// <summary>How much ONNX Runtime rewrites the graph before it runs it.</summary>
    public enum OptimizationLevel { Default = 0, Disabled = 1, Basic = 2, Extended = 3 }

    /// <summary>Options of Context.CreateSession.</summary>
    public sealed class SessionOptions
    {
        /// <summary>For the work of one node; 0 is as the context says.</summary>
        public uint Threads { get; set; }

        public OptimizationLevel OptimizationLevel { get; set; }

        /// <summary>Less memory and a faster start, slower runs. Does nothing for models with weights in blocks of
        /// a few bits.</summary>
        public bool DisablePrepacking { get; set; }

        /// <summary>Faster with weights in blocks of a few bits, not as exact.</summary>
        public bool RoundActivations { get; set; }

        /// <summary>The model's maker is trusted: engines that are ready in it are code.</summary>
        public bool TrustEngines { get; set; }

        /// <summary>What it runs on; null is the processor.</summary>
        public Execution Execution { get; set; }

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
            };
        }
    }

    /// <summary>A model, or a TensorRT engine of one, made ready to run. It takes one run at a time: a second one meanwhile
    /// throws Status.Busy. Make one for each thread that runs; they share the model's weights.</summary>
    public sealed partial class Session : Handle
    {
        internal Session() { }

        /// <summary>What a run must feed.</summary>
        public IList<ValueInfo> Inputs()
        {
            return ValueInfo.All(this, Native.optimize_session_input_count(this),
                (UIntPtr index, ref Native.ValueInfo info, out ErrorHandle error) =>
                    Native.optimize_session_input(this, index, ref info, out error));
        }

        /// <summary>What a run gives.</summary>
        public IList<ValueInfo> Outputs()
        {
            return ValueInfo.All(this, Native.optimize_session_output_count(this),
                (UIntPtr index, ref Native.ValueInfo info, out ErrorHandle error) =>
                    Native.optimize_session_output(this, index, ref info, out error));
        }

        /// <summary>Runs the model and gives the outputs that are named, or all of them.</summary>
        public IDictionary<string, Tensor> Run(
            IDictionary<string, Tensor> inputs, IList<string> outputs = null, Call call = null)
        {
            outputs = outputs ?? OutputNames();
            var names = new List<string>(inputs.Keys);
            var tensors = new IntPtr[inputs.Count];
            var results = new IntPtr[outputs.Count];
            var held = new List<Tensor>();
            using (var scratch = new Scratch())
            {
                try
                {
                    // In an array P/Invoke does not hold the handles for us.
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
