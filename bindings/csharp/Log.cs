// Log messages and counters of the library.

using System;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>Level of a log message.</summary>
    public enum LogLevel
    {
        /// <summary>Errors, after which something has failed.</summary>
        Error = 1,

        /// <summary>Warnings: something works, but not as well as possible.</summary>
        Warning = 2,

        /// <summary>Events: a model was loaded, a session was created.</summary>
        Info = 3,

        /// <summary>Details for developers, including those of ONNX Runtime.</summary>
        Debug = 4,
    }

    /// <summary>Log callback, which receives the log messages of the whole process, on any thread, also on several
    /// threads at once. The target is the library that the message comes from: "optimize" or "onnxruntime". Exceptions
    /// that the callback throws are ignored.</summary>
    public delegate void LogFunction(LogLevel level, string target, string message);

    /// <summary>Format of the text that Context.CountersText returns.</summary>
    public enum CountersFormat
    {
        /// <summary>A JSON object with the values of Counters.</summary>
        Json = 0,

        /// <summary>The text format of Prometheus.</summary>
        Prometheus = 1,
    }

    /// <summary>Counters of all models, sessions and threads of the process since its start, as they were when
    /// Context.Counters returned them. They are never reset.</summary>
    public sealed class Counters
    {
        private readonly Native.Counters raw;

        internal Counters(Native.Counters raw) { this.raw = raw; }

        /// <summary>Number of models that were loaded from files or memory.</summary>
        public ulong ModelsLoaded { get { return raw.ModelsLoaded; } }

        /// <summary>Sum of the sizes of the models in ModelsLoaded, in bytes. Mapped weights count, even if they were
        /// never read.</summary>
        public ulong BytesLoaded { get { return raw.BytesLoaded; } }

        /// <summary>Time that the loading of models took, in seconds.</summary>
        public double LoadSeconds { get { return raw.LoadSeconds; } }

        /// <summary>Number of sessions that were created, including those of generators, embedders and
        /// techniques.</summary>
        public ulong SessionsCreated { get { return raw.SessionsCreated; } }

        /// <summary>Time that the creation of sessions took, in seconds.</summary>
        public double SessionSeconds { get { return raw.SessionSeconds; } }

        /// <summary>Number of runs of sessions that ended, including failed ones.</summary>
        public ulong Runs { get { return raw.Runs; } }

        /// <summary>Number of runs that failed, including cancelled ones.</summary>
        public ulong FailedRuns { get { return raw.FailedRuns; } }

        /// <summary>Time that runs took, in seconds, summed over threads.</summary>
        public double RunSeconds { get { return raw.RunSeconds; } }

        /// <summary>Number of runs that are now in progress.</summary>
        public ulong ActiveRuns { get { return raw.ActiveRuns; } }

        /// <summary>Number of calls that now wait for another call of the same TensorRT engine to end.</summary>
        public ulong WaitingCalls { get { return raw.WaitingCalls; } }

        /// <summary>Number of tokens that the models of generators have read: those of prompts, and generated
        /// ones.</summary>
        public ulong ReadTokens { get { return raw.ReadTokens; } }

        /// <summary>Number of tokens that generators have generated.</summary>
        public ulong GeneratedTokens { get { return raw.GeneratedTokens; } }
    }

    public sealed partial class Context
    {
        /// <summary>Delegate that the library calls with log messages; null without a log callback. The field keeps the
        /// garbage collector from collecting the delegate.</summary>
        private Native.LogFn log;

        /// <summary>Returns the counters of the process, which are the same for all contexts.</summary>
        public Counters Counters()
        {
            var raw = new Native.Counters { StructSize = SizeOf<Native.Counters>() };
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_context_counters(this, ref raw, out error), error);
            return new Counters(raw);
        }

        /// <summary>Returns the counters of the process as JSON or in the text format of Prometheus. Throws
        /// Status.InvalidArgument for an unknown format.</summary>
        public string CountersText(CountersFormat format = CountersFormat.Json)
        {
            BufferHandle text;
            ErrorHandle error;
            OptimizeException.Check(
                Native.optimize_context_counters_text(this, (int)format, out text, out error), error);
            return text.Take();
        }

        /// <summary>Returns a delegate for the library that calls a log callback.</summary>
        private static Native.LogFn Receiver(LogFunction function)
        {
            return (userData, level, target, message) =>
            {
                try
                {
                    function((LogLevel)level, Utf8.Read(target), Utf8.Read(message));
                }
                catch (Exception)
                {
                    // An exception must not unwind through the library.
                }
            };
        }
    }

    internal static partial class Native
    {
        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate void LogFn(IntPtr userData, int level, IntPtr target, IntPtr message);

        [StructLayout(LayoutKind.Sequential)]
        internal struct Counters
        {
            internal uint StructSize, Reserved;
            internal ulong ModelsLoaded, BytesLoaded;
            internal double LoadSeconds;
            internal ulong SessionsCreated;
            internal double SessionSeconds;
            internal ulong Runs, FailedRuns;
            internal double RunSeconds;
            internal ulong ActiveRuns, WaitingCalls, ReadTokens, GeneratedTokens;
        }

        [DllImport(Library)] internal static extern int optimize_context_counters(
            Context context, ref Counters counters, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_context_counters_text(
            Context context, int format, out BufferHandle text, out ErrorHandle error);
    }
}
