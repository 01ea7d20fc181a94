// What sessions run on.

using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>What sessions run on. Auto is to ask with: TensorRT, else CUDA, else the processor.</summary>
    public enum Provider { Cpu = 0, Cuda = 1, TensorRt = 2, Auto = 3 }

    /// <summary>Where sessions run, in the options of all that makes some. A provider that is asked for and cannot be had
    /// throws Status.BackendMissing or Status.DeviceMissing; another one never takes its place.</summary>
    public class Execution
    {
        public Provider Provider { get; set; }

        /// <summary>Number of the device, from 0.</summary>
        public uint DeviceId { get; set; }

        /// <summary>TensorRT: absolute path of a folder for engines; null keeps none.</summary>
        public string EngineCache { get; set; }
    }

    public sealed partial class Context
    {
        /// <summary>What sessions can run on here, best first, as JSON: a list of provider, device_id, available and, if
        /// it is not, status and reason.</summary>
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
        /// <summary>What it runs on.</summary>
        public Provider Provider { get { return (Provider)Native.optimize_session_provider(this); } }

        /// <summary>Where it runs, as JSON: provider, device_id, nodes, passed_over and weights_copied.</summary>
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
        /// <summary>Where its models run, as JSON: a list with an entry for each, as Session.Placement gives it.</summary>
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
