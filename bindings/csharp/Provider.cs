// Execution providers.

using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>Execution provider of a session.</summary>
    public enum Provider
    {
        /// <summary>The CPU.</summary>
        Cpu = 0,

        /// <summary>An NVIDIA GPU, with the CUDA kernels of ONNX Runtime; nodes without such a kernel run on the
        /// CPU.</summary>
        Cuda = 1,

        /// <summary>An NVIDIA GPU, with TensorRT engines that are built for parts of the graph; other nodes run as with
        /// Cuda.</summary>
        TensorRt = 2,

        /// <summary>The first of TensorRT, CUDA and the CPU with which the session can be created. This value occurs
        /// only in options: a session reports the provider that it uses.</summary>
        Auto = 3,
    }

    /// <summary>Kernels that run the nodes of a session on the CPU.</summary>
    public enum Kernels
    {
        /// <summary>This library's kernels for groups of nodes that are faster with them, and ONNX Runtime's kernels
        /// for all other nodes. For this, liboptimize.so is registered with ONNX Runtime as an execution provider:
        /// see docs/provider.md.</summary>
        Auto = 0,

        /// <summary>ONNX Runtime's kernels only, as in programs without this library.</summary>
        Stock = 1,
    }

    /// <summary>Precision of matrix products of float32 inputs and constant float32 weights on the CPU.</summary>
    public enum SessionPrecision
    {
        /// <summary>float32.</summary>
        Fp32 = 0,

        /// <summary>bfloat16, with sums in float32. It halves the memory of weights.</summary>
        Bf16 = 1,

        /// <summary>int8: weights have a scale for each output column, and inputs have a scale for each row, which is
        /// computed in each run.</summary>
        Int8 = 2,
    }

    /// <summary>Element type of the KV cache of a decoder.</summary>
    public enum KvCacheType
    {
        /// <summary>float32, or the type of the model if it declares another one.</summary>
        Float32 = 0,

        /// <summary>bfloat16: half the memory. Keys and values are rounded to 8 significant bits.</summary>
        Bfloat16 = 1,
    }

    /// <summary>Execution provider, device, kernels and precision of sessions. Calls with a provider that is not
    /// available throw Status.BackendMissing or Status.DeviceMissing; only Provider.Auto selects another provider
    /// then.</summary>
    public class Execution
    {
        /// <summary>Execution provider of the sessions.</summary>
        public Provider Provider { get; set; }

        /// <summary>Kernels that run the nodes of the model on the CPU.</summary>
        public Kernels Kernels { get; set; }

        /// <summary>Precision of matrix products with constant float32 weights on the CPU. With any value but Fp32,
        /// calls throw Status.BackendMissing if this library's kernels cannot be used.</summary>
        public SessionPrecision Precision { get; set; }

        /// <summary>Index of the device, from 0; 0 for the CPU.</summary>
        public uint DeviceId { get; set; }

        /// <summary>TensorRT: absolute path of a folder that caches engines; null for none.</summary>
        [AllowNull, MaybeNull] public string EngineCache { get; set; }
    }

    public sealed partial class Context
    {
        /// <summary>Returns the execution providers, best first, as JSON: a list of objects with provider, device_id,
        /// available and, if the provider is not available on the device with the index <paramref name="deviceId"/>,
        /// status and reason. The object of the CPU also has kernels, whether this library's kernels can be used, and
        /// otherwise kernels_unused, the reason. Throws Status.RuntimeMissing if ONNX Runtime is not found.</summary>
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
        /// <summary>Execution provider of the session, which is never Auto.</summary>
        public Provider Provider { get { return (Provider)Native.optimize_session_provider(this); } }

        /// <summary>Returns the provider, the device and the kernels that run the session as a JSON object: provider,
        /// device_id and, if they apply, nodes, groups, kernels_unused, passed_over and weights_copied, which
        /// docs/report.md describes.</summary>
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
        /// <summary>Returns the placements of the models of the generator as JSON: a list with one object per model,
        /// like that of Session.Placement. It may be called during another call.</summary>
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
