// liboptimize for .NET: make trained models smaller and faster, and run them.
//
//     using (var context = Context.Create())
//     using (var model = context.Load("model.onnx"))
//     using (var small = context.Quantize(model))
//         small.Save("small.onnx");
//
// The files of this folder are one library. It needs no package, only Mono, .NET Framework 4.6 or any newer .NET on a
// 64-bit system, which must find liboptimize.so next to the program or in LD_LIBRARY_PATH. With Mono:
//
//     mcs -target:library -out:Optimize.dll *.cs
//     mcs -r:Optimize.dll Program.cs && mono Program.exe
//
// Rules for all classes:
//
//   Errors   OptimizeException has the description (Status, Message) and the place (Place). A call stopped by its
//            CancellationToken throws OperationCanceledException, so a task around it counts as cancelled.
//   Calls    Long functions take a Call: a CancellationToken, a timeout, an IProgress. A CancellationToken
//            converts to a Call. All calls are synchronous and not bound to a thread: wrap them in Task.Run.
//   Dispose  frees memory at once that the finalizer would free later. Objects may be disposed of in any order.
//            An object that another thread disposes of during a call is freed when the call ends.
//   Threads  Any number of threads may use a Context, Model, Tensor or Tokenizer at once. A Session or Generator
//            runs one call at a time.

using System;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Threading;

namespace Optimize
{
    /// <summary>The result of a call; the numbers never change.</summary>
    public enum Status
    {
        Ok = 0, InvalidArgument = 1, InvalidHandle = 2, NotFound = 3, IO = 4, InvalidModel = 5, Unsupported = 6,
        LimitExceeded = 7, RuntimeMissing = 8, Runtime = 9, Cancelled = 10, Timeout = 11, Busy = 12, GateNotMet = 13,
        Internal = 14, BackendMissing = 15, DeviceMissing = 16, Backend = 17, Mismatch = 18, Untrusted = 19,
    }

    /// <summary>The library's description of a failed call.</summary>
    public sealed class OptimizeException : Exception
    {
        internal OptimizeException(Status status, string message, string place)
            : base(place.Length == 0 ? message : place + ": " + message)
        {
            Status = status;
            Place = place;
        }

        /// <summary>Kind of the failure.</summary>
        public Status Status { get; private set; }

        /// <summary>File, node, tensor or argument, outermost first; "" if the message is sufficient.</summary>
        public string Place { get; private set; }

        internal static void Check(int status, ErrorHandle error)
        {
            using (error)
            {
                if (status == 0) return;
                var message = Utf8.Read(Native.optimize_error_message(error));
                throw new OptimizeException((Status)status, message, Utf8.Read(Native.optimize_error_place(error)));
            }
        }
    }

    /// <summary>An object of the library. P/Invoke counts the calls that use it: it is freed after the last
    /// one.</summary>
    public abstract class Handle : SafeHandle
    {
        internal Handle() : base(IntPtr.Zero, true) { }

        /// <inheritdoc/>
        public override bool IsInvalid { get { return handle == IntPtr.Zero; } }

        /// <inheritdoc/>
        protected override bool ReleaseHandle()
        {
            Free(handle);
            return true;
        }

        /// <summary>Frees the object with the library's function.</summary>
        protected abstract void Free(IntPtr pointer);

        internal static uint SizeOf<T>() { return (uint)Marshal.SizeOf(typeof(T)); }
    }

    /// <summary>Progress of a call.</summary>
    public struct Progress
    {
        internal Progress(string stage, ulong done, ulong total) : this()
        {
            Stage = stage;
            Done = done;
            Total = total;
        }

        public string Stage { get; private set; }
        public ulong Done { get; private set; }

        /// <summary>Total number of steps; 0 if unknown.</summary>
        public ulong Total { get; private set; }
    }

    /// <summary>Keeps exceptions of a call's callbacks, which must not unwind through the library, until the call has
    /// ended.</summary>
    internal sealed class Caught
    {
        private ExceptionDispatchInfo thrown;

        /// <summary>Runs a function that returns whether to continue, and returns the C callback's result.</summary>
        internal int Guard(Func<bool> function)
        {
            try
            {
                if (thrown == null && function()) return 0;
            }
            catch (Exception e)
            {
                thrown = ExceptionDispatchInfo.Capture(e);
            }
            return 1;
        }

        internal void Rethrow()
        {
            if (thrown != null) thrown.Throw();
        }
    }

    /// <summary>Settings of a long call besides its options. A CancellationToken converts to it.</summary>
    public sealed class Call
    {
        /// <summary>Ends the call with OperationCanceledException.</summary>
        public CancellationToken Cancellation { get; set; }

        /// <summary>Ends the call with Status.Timeout; zero for no timeout.</summary>
        public TimeSpan Timeout { get; set; }

        /// <summary>Called at most 20 times per second, on the thread that makes the call.</summary>
        public IProgress<Progress> Progress { get; set; }

        public static implicit operator Call(CancellationToken token) { return new Call { Cancellation = token }; }

        internal delegate int Body(ref Native.Call call, out ErrorHandle error);

        /// <summary>Makes a call of the library with the settings of <paramref name="call"/>. An exception of its
        /// callbacks takes precedence.</summary>
        internal static void Run(Call call, Body body, Caught caught = null)
        {
            (call ?? new Call()).Run(body, caught ?? new Caught());
        }

        private void Run(Body body, Caught caught)
        {
            Cancellation.ThrowIfCancellationRequested();
            var native = new Native.Call
            {
                StructSize = Handle.SizeOf<Native.Call>(),
                TimeoutMs = Milliseconds(Timeout),
            };
            Native.ProgressFn report = (userData, stage, done, total) => caught.Guard(() =>
            {
                Progress.Report(new Progress(Utf8.Read(stage), done, total));
                return !Cancellation.IsCancellationRequested;
            });
            if (Progress != null) native.Progress = Marshal.GetFunctionPointerForDelegate(report);

            int status;
            ErrorHandle error;
            if (!Cancellation.CanBeCanceled) status = body(ref native, out error);
            else status = RunCancellable(ref native, body, out error);
            GC.KeepAlive(report); // the library has its address

            using (error)
            {
                caught.Rethrow();
                try
                {
                    OptimizeException.Check(status, error);
                }
                catch (OptimizeException e) when (e.Status == Status.Cancelled && Cancellation.IsCancellationRequested)
                {
                    throw new OperationCanceledException(e.Message, e, Cancellation);
                }
            }
        }

        private int RunCancellable(ref Native.Call native, Body body, out ErrorHandle error)
        {
            CancelHandle cancel;
            OptimizeException.Check(Native.optimize_cancel_new(out cancel, out error), error);
            using (cancel)
            using (Cancellation.Register(() => Fire(cancel)))
            {
                native.Cancel = cancel.DangerousGetHandle(); // lives until the end of this block
                return body(ref native, out error);
            }
        }

        private static void Fire(CancelHandle cancel)
        {
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_cancel_fire(cancel, out error), error);
        }

        // Rounded up, because 0 would be no timeout.
        private static uint Milliseconds(TimeSpan timeout)
        {
            if (timeout < TimeSpan.Zero) throw new ArgumentOutOfRangeException("Timeout");
            return (uint)Math.Min(Math.Ceiling(timeout.TotalMilliseconds), uint.MaxValue);
        }
    }

    /// <summary>Options of Context.Create.</summary>
    public sealed class ContextOptions
    {
        /// <summary>Default number of threads of all calls; 0 for all cores.</summary>
        public uint Threads { get; set; }

        /// <summary>Path of the ONNX Runtime library; null searches the default places.</summary>
        public string RuntimeLibrary { get; set; }
    }

    /// <summary>Settings of calls: the ONNX Runtime library and the number of threads. A program usually needs
    /// one.</summary>
    public sealed partial class Context : Handle
    {
        internal Context() { }

        /// <summary>Makes a context. ONNX Runtime is opened when something runs.</summary>
        public static Context Create(ContextOptions options = null)
        {
            options = options ?? new ContextOptions();
            using (var scratch = new Scratch())
            {
                var native = new Native.ContextOptions
                {
                    StructSize = SizeOf<Native.ContextOptions>(),
                    Threads = options.Threads,
                    RuntimeLibrary = scratch.Text(options.RuntimeLibrary),
                };
                Context context;
                ErrorHandle error;
                OptimizeException.Check(Native.optimize_context_new(ref native, out context, out error), error);
                return context;
            }
        }

        /// <summary>The version of liboptimize, e.g. "0.1.0".</summary>
        /// <summary>Version of the library as one number: major * 10000 + minor * 100 + patch.</summary>
        public static uint LibraryVersionNumber { get { return Native.optimize_version_number(); } }

        /// <summary>Version of the library, for example "0.1.0".</summary>
        public static string LibraryVersion { get { return Utf8.Read(Native.optimize_version()); } }

        /// <summary>Opens ONNX Runtime, if it is not open yet, and returns its version.</summary>
        public string RuntimeVersion()
        {
            IntPtr version;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_context_runtime_version(this, out version, out error), error);
            var text = Utf8.Read(version);
            GC.KeepAlive(this); // the text lives as long as this
            return text;
        }

        /// <summary>Loads an .onnx or .gguf file, a checkpoint folder or an exported folder. Weights are mapped,
        /// not read.</summary>
        public Model Load(string path, Call call = null)
        {
            var bytes = Utf8.Bytes(path);
            Model model = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) =>
                Native.optimize_model_load(this, bytes, ref native, out model, out error));
            return model;
        }

        /// <summary>Loads a model from a copy of the bytes of an .onnx file without external data.</summary>
        public Model Load(byte[] file, Call call = null)
        {
            Model model = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_load_memory(
                this, file, (UIntPtr)file.Length, ref native, out model, out error));
            return model;
        }

        /// <summary>Returns a new, smaller model; the original stays unchanged. The report is in
        /// Model.Report.</summary>
        public Model Quantize(Model model, QuantizeOptions options = null, Call call = null)
        {
            options = options ?? new QuantizeOptions();
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                Model result = null;
                BufferHandle report = null;
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_quantize(
                    this, model, ref given, ref native, out result, out report, out error));
                result.Report = report.Take();
                return result;
            }
        }

        /// <summary>Returns a new model with fewer weights; the original stays unchanged. The report is in
        /// Model.Report.</summary>
        public Model Prune(Model model, PruneOptions options = null, Call call = null)
        {
            options = options ?? new PruneOptions();
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                Model result = null;
                BufferHandle report = null;
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_prune(
                    this, model, ref given, ref native, out result, out report, out error));
                result.Report = report.Take();
                return result;
            }
        }

        /// <summary>Compares two models: speed, load time, memory, size, and how close the outputs are. Returns the
        /// JSON of docs/report.md.</summary>
        public string Benchmark(Model original, Model result, BenchmarkOptions options = null, Call call = null)
        {
            options = options ?? new BenchmarkOptions();
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                var tokenizer = options.Tokenizer ?? new Tokenizer(); // NULL to the library
                BufferHandle report = null;
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_benchmark(
                    this, original, result, tokenizer, ref given, ref native, out report, out error));
                return report.Take();
            }
        }

        /// <summary>Loads a model for running.</summary>
        public Session CreateSession(Model model, SessionOptions options = null, Call call = null)
        {
            Session session = null;
            using (var scratch = new Scratch())
            {
                var given = (options ?? new SessionOptions()).ToNative(scratch);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_session_new(
                    this, model, ref given, ref native, out session, out error));
            }
            return session;
        }

        /// <summary>Loads a model for generation, with its tokenizer. Throws Status.Unsupported if the model is not a
        /// decoder.</summary>
        public Generator CreateGenerator(Model model, GeneratorOptions options = null, Call call = null)
        {
            Generator generator = null;
            using (var scratch = new Scratch())
            {
                var given = (options ?? new GeneratorOptions()).ToNative(scratch);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_generator_new(
                    this, model, ref given, ref native, out generator, out error));
            }
            return generator;
        }

        /// <summary>Loads the members of an ensemble for generating one text together. Throws Status.Unsupported if
        /// they do not generate text.</summary>
        public Generator CreateGenerator(Ensemble ensemble, GeneratorOptions options = null, Call call = null)
        {
            Generator generator = null;
            using (var scratch = new Scratch())
            {
                var given = (options ?? new GeneratorOptions()).ToNative(scratch);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_ensemble_generator(
                    this, ensemble, ref given, ref native, out generator, out error));
            }
            return generator;
        }

        /// <summary>Finds the weights with which the members predict a text best, and returns the ensemble with them.
        /// The figures are in Ensemble.Report.</summary>
        public Ensemble Fit(Ensemble ensemble, string text, FitOptions options = null, Call call = null)
        {
            options = options ?? new FitOptions();
            var given = new Native.FitOptions
            {
                StructSize = SizeOf<Native.FitOptions>(),
                Threads = options.Threads,
                ContextLength = options.ContextLength,
                Stride = options.Stride,
                MaxTokens = options.MaxTokens,
            };
            var bytes = Utf8.BytesWithoutEnd(text);
            Ensemble fitted = null;
            BufferHandle report = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_ensemble_fit(this, ensemble,
                bytes, (UIntPtr)bytes.Length, ref given, ref native, out fitted, out report, out error));
            fitted.Report = report.Take();
            return fitted;
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr context) { Native.optimize_context_free(context); }
    }
}
