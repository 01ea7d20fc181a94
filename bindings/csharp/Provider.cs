// Execution providers.

using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>Execution provider. Auto is for requests: TensorRT, else CUDA, else the CPU.</summary>
    public enum Provider { Cpu = 0, Cuda = 1, TensorRt = 2, Auto = 3 }

    /// <summary>Kernels of a session on the CPU. Auto: those of this library for groups of nodes that are faster with
    /// them, ONNX Runtime's for the others.</summary>
    public enum Kernels { Auto = 0, Stock = 1 }

    /// <summary>Precision of products of float32 inputs and constant float32 weights on the CPU.</summary>
    public enum SessionPrecision { Fp32 = 0, Bf16 = 1, Int8 = 2 }

    /// <summary>Selects where sessions run; part of the options of functions that create sessions. An unavailable
    /// provider throws Status.BackendMissing or Status.DeviceMissing; it is never replaced by another.</summary>
    public class Execution
    {
        public Provider Provider { get; set; }

        public Kernels Kernels { get; set; }

        /// <summary>Any but Fp32 needs the kernels of this library.</summary>
        public SessionPrecision Precision { get; set; }

        /// <summary>Index of the GPU, from 0.</summary>
        public uint DeviceId { get; set; }

        /// <summary>TensorRT: absolute path of the engine cache folder; null for none.</summary>
        public string EngineCache { get; set; }
    }

    public sealed partial class Context
    {
        /// <summary>Returns the providers that sessions can run on, best first, as JSON: a list of provider,
        /// device_id, available and, if it is not, status and reason.</summary>
        public string Providers(uint deviceId = 0)
        {
            BufferHandle json;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_context_providers(this, deviceId, out json, out error), error);
            return json.Take();
        }
    }

    public sealed partial class Session
    {
        /// <summary>The provider on which it runs.</summary>
        public Provider Provider { get { return (Provider)Native.optimize_session_provider(this); } }

        /// <summary>Returns where it runs, as JSON: provider, device_id, nodes, groups, kernels_unused, passed_over
        /// and weights_copied.</summary>
        public string Placement()
        {
            BufferHandle json;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_session_placement(this, out json, out error), error);
            return json.Take();
        }
    }

    public sealed partial class Generator
    {
        /// <summary>Returns where its models run, as JSON: a list with one entry per model, like
        /// Session.Placement.</summary>
        public string Placement()
        {
            BufferHandle json;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_generator_placement(this, out json, out error), error);
            return json.Take();
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
