// Execution providers.

using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>Execution provider. Auto is for requests: TensorRT, else CUDA, else the CPU.</summary>
    public enum Provider
    {
        /// <summary>The CPU.</summary>
        Cpu = 0,

        /// <summary>An NVIDIA GPU, with the kernels of ONNX Runtime.</summary>
        Cuda = 1,

        /// <summary>An NVIDIA GPU, with engines that TensorRT builds of parts of the graph; other nodes run on
        /// CUDA.</summary>
        TensorRt = 2,

        /// <summary>The first available of TensorRT, CUDA and CPU. Only for requests: a session reports the provider it
        /// uses.</summary>
        Auto = 3,
    }

    /// <summary>Kernels of a session on the CPU. Auto: those of this library for groups of nodes that are faster with
    /// them, ONNX Runtime's for the others.</summary>
    public enum Kernels
    {
        /// <summary>Those of this library for groups of nodes that are faster with them, ONNX Runtime's for the others.
        /// The file liboptimize.so is registered with ONNX Runtime as an execution provider: see
        /// docs/provider.md.</summary>
        Auto = 0,

        /// <summary>Those of ONNX Runtime only, as in programs without this library.</summary>
        Stock = 1,
    }

    /// <summary>Precision of products of float32 inputs and constant float32 weights on the CPU.</summary>
    public enum SessionPrecision
    {
        /// <summary>float32.</summary>
        Fp32 = 0,

        /// <summary>bfloat16 with float32 sums, where the processor multiplies bfloat16 faster than float32.</summary>
        Bf16 = 1,

        /// <summary>int8: weights with a scale for each output column, inputs with one for each row, computed at run
        /// time.</summary>
        Int8 = 2,
    }

    /// <summary>Selects where sessions run; part of the options of functions that create sessions. An unavailable
    /// provider throws Status.BackendMissing or Status.DeviceMissing; it is never replaced by another.</summary>
    public class Execution
    {
        /// <summary>Execution provider. A requested provider that is not available returns BACKEND_MISSING or
        /// DEVICE_MISSING with ONNX Runtime's own reason; another provider never replaces it.</summary>
        public Provider Provider { get; set; }

        /// <summary>Kernels on the CPU.</summary>
        public Kernels Kernels { get; set; }

        /// <summary>Any but Fp32 needs the kernels of this library.</summary>
        public SessionPrecision Precision { get; set; }

        /// <summary>Index of the GPU, from 0.</summary>
        public uint DeviceId { get; set; }

        /// <summary>TensorRT: absolute path of the engine cache folder; null for none.</summary>
        [AllowNull, MaybeNull] public string EngineCache { get; set; }
    }

    public sealed partial class Context
    {
        /// <summary>Returns the providers that sessions can run on, best first, as JSON: a list of provider,
        /// device_id, available and, if it is not, status and reason.</summary>
        public Report Providers(uint deviceId = 0)
        {
            BufferHandle json;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_context_providers(this, deviceId, out json, out error), error);
            return new Report(json);
        }
    }

    public sealed partial class Session
    {
        /// <summary>The provider on which it runs.</summary>
        public Provider Provider { get { return (Provider)Native.optimize_session_provider(this); } }

        /// <summary>Returns where it runs, as JSON: provider, device_id, nodes, groups, kernels_unused, passed_over
        /// and weights_copied.</summary>
        public Report Placement()
        {
            BufferHandle json;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_session_placement(this, out json, out error), error);
            return new Report(json);
        }
    }

    public sealed partial class Generator
    {
        /// <summary>Returns where its models run, as JSON: a list with one entry per model, like
        /// Session.Placement.</summary>
        public Report Placement()
        {
            BufferHandle json;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_generator_placement(this, out json, out error), error);
            return new Report(json);
        }
    }

    internal static partial class Native
    {
        [DllImport(Library)] internal static extern int optimize_context_providers(
            Context context, uint deviceId, out BufferHandle json, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_session_provider(Session session);
        [DllImport(Library)] internal static extern int optimize_session_placement(
            Session session, out BufferHandle json, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_generator_placement(
            Generator generator, out BufferHandle json, out ErrorHandle error);
    }
}
