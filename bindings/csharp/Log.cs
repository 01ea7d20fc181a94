// Messages and counters of the library.

using System;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>The importance of a message.</summary>
    public enum LogLevel
    {
        /// <summary>Something failed.</summary>
        Error = 1,

        /// <summary>Something works, but not as it could.</summary>
        Warning = 2,

        /// <summary>Events: a model was loaded, a session was created.</summary>
        Info = 3,

        /// <summary>Details for developers, with those of ONNX Runtime.</summary>
        Debug = 4,
    }

    /// <summary>Receives the messages of the whole process, on any thread, also on several at once. The target is
    /// "optimize" or "onnxruntime". What it throws is lost.</summary>
    public delegate void LogFunction(LogLevel level, string target, string message);

    /// <summary>Form of Context.CountersText.</summary>
    public enum CountersFormat
    {
        /// <summary>A JSON object.</summary>
        Json = 0,

        /// <summary>The text format of Prometheus.</summary>
        Prometheus = 1,
    }

    /// <summary>What the library has done in this process so far, and what it is doing.</summary>
    public sealed class Counters
    {
        private readonly Native.Counters raw;

        internal Counters(Native.Counters raw) { this.raw = raw; }

        /// <summary>Models that were loaded.</summary>
        public ulong ModelsLoaded { get { return raw.ModelsLoaded; } }

        /// <summary>Size of these models.</summary>
        public ulong BytesLoaded { get { return raw.BytesLoaded; } }

        /// <summary>Seconds that loading took.</summary>
        public double LoadSeconds { get { return raw.LoadSeconds; } }

        /// <summary>Sessions that were created.</summary>
        public ulong SessionsCreated { get { return raw.SessionsCreated; } }

        /// <summary>Seconds that creating sessions took.</summary>
        public double SessionSeconds { get { return raw.SessionSeconds; } }

        /// <summary>Runs of sessions, failed ones included.</summary>
        public ulong Runs { get { return raw.Runs; } }

        /// <summary>Runs that failed or were cancelled.</summary>
        public ulong FailedRuns { get { return raw.FailedRuns; } }

        /// <summary>Seconds that runs took, summed over threads.</summary>
        public double RunSeconds { get { return raw.RunSeconds; } }

        /// <summary>Runs that are in progress now.</summary>
        public ulong ActiveRuns { get { return raw.ActiveRuns; } }

        /// <summary>Calls that wait for another call of the same engine now.</summary>
        public ulong WaitingCalls { get { return raw.WaitingCalls; } }

        /// <summary>Tokens that the models of generators have read.</summary>
        public ulong ReadTokens { get { return raw.ReadTokens; } }

        /// <summary>Tokens that generators have generated.</summary>
        public ulong GeneratedTokens { get { return raw.GeneratedTokens; } }
    }

    public sealed partial class Context
    {
        /// <summary>The delegate that the library calls; it lives as long as this object.</summary>
        private Native.LogFn log;

        /// <summary>Returns the counters of the process.</summary>
        public Counters Counters()
        {
            var raw = new Native.Counters { StructSize = SizeOf<Native.Counters>() };
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_context_counters(this, ref raw, out error), error);
            return new Counters(raw);
        }

        /// <summary>Returns the counters of the process as JSON or for Prometheus.</summary>
        public string CountersText(CountersFormat format = CountersFormat.Json)
        {
            BufferHandle text;
            ErrorHandle error;
            OptimizeException.Check(
                Native.optimize_context_counters_text(this, (int)format, out text, out error), error);
            return text.Take();
        }

        /// <summary>Returns a callback for the library that calls a function.</summary>
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
                    // must not unwind through the library
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
