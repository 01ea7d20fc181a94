// The library liboptimize for .NET, which makes trained models smaller and faster, and runs them.
//
//     using (var context = Context.Create())
//     using (var model = context.Load("model.onnx"))
//     using (var small = context.Quantize(model))
//         small.Save("small.onnx");
//
// The files of this folder are one library: see README.md for how to build it.
//
// Rules for all classes:
//
//   Errors   A call that fails throws an OptimizeException, with Status, Message and Place. "Throws Status.NotFound"
//            in a comment stands for an OptimizeException with this Status. A call stopped by its CancellationToken
//            throws OperationCanceledException, so that a task around it counts as cancelled.
//   Calls    Long functions take a Call: a CancellationToken, a timeout, an IProgress. A CancellationToken
//            converts to a Call. Functions whose name ends with Async return a task, which runs on a separate
//            thread.
//   null     Null is accepted where [AllowNull] or the documentation says so, and selects the default. Fields of
//            options that are 0 have their defaults.
//   Dispose  Dispose frees memory at once that the finalizer would free later. Objects may be disposed of in any
//            order. An object that another thread disposes of during a call is freed when the call ends.
//   Threads  Any number of threads may use an object at once, with one exception: a Generator runs one call at a
//            time.

using System;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Threading;

namespace Optimize
{
    /// <summary>Status of a call. The numbers never change.</summary>
    public enum Status
    {
        /// <summary>Success.</summary>
        Ok = 0,

        /// <summary>An argument is out of range, or contradicts another one.</summary>
        InvalidArgument = 1,

        /// <summary>A handle has another type, or was freed.</summary>
        InvalidHandle = 2,

        /// <summary>A file, tensor, input or name does not exist.</summary>
        NotFound = 3,

        /// <summary>Reading or writing a file failed.</summary>
        IO = 4,

        /// <summary>The file is damaged, or is not a valid model.</summary>
        InvalidModel = 5,

        /// <summary>The request is valid, but this version does not support it.</summary>
        Unsupported = 6,

        /// <summary>A limit of this library is exceeded.</summary>
        LimitExceeded = 7,

        /// <summary>ONNX Runtime was not found or is too old.</summary>
        RuntimeMissing = 8,

        /// <summary>ONNX Runtime refused the model, or a run failed.</summary>
        Runtime = 9,

        /// <summary>The call was stopped by a callback. A CancellationToken leads to OperationCanceledException
        /// instead.</summary>
        Cancelled = 10,

        /// <summary>The timeout of the call expired.</summary>
        Timeout = 11,

        /// <summary>The handle accepts one call at a time and is in use.</summary>
        Busy = 12,

        /// <summary>A quality or speed limit was not met.</summary>
        GateNotMet = 13,

        /// <summary>A defect of this library caused the failure. The process can continue.</summary>
        Internal = 14,

        /// <summary>TensorRT or an execution provider was not found, is too old, or is not supported by this build of
        /// the library.</summary>
        BackendMissing = 15,

        /// <summary>No NVIDIA driver or no device was found.</summary>
        DeviceMissing = 16,

        /// <summary>TensorRT refused the model, or a build or run failed.</summary>
        Backend = 17,

        /// <summary>The file belongs to another model, library or device.</summary>
        Mismatch = 18,

        /// <summary>The file contains executable code, and its source was not marked as trusted.</summary>
        Untrusted = 19,
    }

    /// <summary>An exception of a call that failed. "Throws Status.NotFound" in the documentation of a member stands
    /// for an OptimizeException with this Status.</summary>
    public sealed class OptimizeException : Exception
    {
        internal OptimizeException(Status status, string message, string place)
            : base(place.Length == 0 ? message : place + ": " + message)
        {
            Status = status;
            Place = place;
        }

        /// <summary>Status of the failure.</summary>
        public Status Status { get; private set; }

        /// <summary>Place where the error occurred, such as a file, node or argument, outermost first; "" if there is
        /// none. Message begins with it.</summary>
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

    /// <summary>An object of the library. P/Invoke counts the calls that use the object, so that Dispose frees it after
    /// the last of them.</summary>
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

        internal static uint SizeOf<T>() { return (uint)Marshal.SizeOf<T>(); }

        /// <summary>Throws if a required argument is null. The check must come before P/Invoke, which would throw only
        /// after it has counted a use of the arguments before this one.</summary>
        internal static void Need(object argument, string name)
        {
            if (argument == null) throw new ArgumentNullException(name);
        }
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

        /// <summary>Name of the stage, for example "quantize".</summary>
        public string Stage { get; private set; }

        /// <summary>Work of the stage that is done, in the unit of the stage: optimize_progress_fn in optimize.h lists
        /// the units.</summary>
        public ulong Done { get; private set; }

        /// <summary>Total work of the stage in its unit; 0 if it is unknown.</summary>
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

    /// <summary>Progress, timeout and cancellation of a call. A CancellationToken converts to it.</summary>
    public sealed partial class Call
    {
        /// <summary>Token that ends the call with OperationCanceledException.</summary>
        public CancellationToken Cancellation { get; set; }

        /// <summary>Timeout, after which the call throws Status.Timeout; zero for no timeout.</summary>
        public TimeSpan Timeout { get; set; }

        /// <summary>Progress callback, called on the thread that makes the call, at most 20 times per second, and for
        /// the first report of each stage and the one in which all work is done; null for none. An exception ends the
        /// call, which throws it.</summary>
        [AllowNull, MaybeNull] public IProgress<Progress> Progress { get; set; }

        /// <summary>Returns the settings of a call that the token ends.</summary>
        public static implicit operator Call(CancellationToken token) { return new Call { Cancellation = token }; }

        internal delegate int Body(ref Native.Call call, out ErrorHandle error);

        /// <summary>Makes a call of the library with the settings of <paramref name="call"/>. Throws the exception of
        /// a callback, otherwise that of the status.</summary>
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

        // Returns the timeout in milliseconds, rounded up, because 0 means no timeout.
        private static uint Milliseconds(TimeSpan timeout)
        {
            if (timeout < TimeSpan.Zero) throw new ArgumentOutOfRangeException("Timeout");
            return (uint)Math.Min(Math.Ceiling(timeout.TotalMilliseconds), uint.MaxValue);
        }
    }

    /// <summary>Options of Context.Create.</summary>
    public sealed class ContextOptions
    {
        /// <summary>Default number of threads of all calls; 0 for all processors.</summary>
        public uint Threads { get; set; }

        /// <summary>Path of the ONNX Runtime library; null for that in ORT_DYLIB_PATH, or else a search of the default
        /// places.</summary>
        [AllowNull, MaybeNull] public string RuntimeLibrary { get; set; }

        /// <summary>Log callback, which receives messages until the context is disposed of; null for no
        /// messages.</summary>
        [AllowNull, MaybeNull] public LogFunction Log { get; set; }

        /// <summary>Highest level of the messages that Log receives. The default is Warning.</summary>
        public LogLevel LogLevel { get; set; } = LogLevel.Warning;

        /// <summary>Maximum memory in bytes of models that are loaded from memory and of sessions, beyond which calls
        /// throw Status.LimitExceeded; 0 for no limit. optimize_context_options_t in optimize.h says what is
        /// counted.</summary>
        public ulong MemoryLimit { get; set; }
    }

    /// <summary>A context, which holds the ONNX Runtime library, the default number of threads, the log callback and
    /// the memory limit. A program usually has one context. Objects that were created with a context remain usable
    /// after it is disposed of.</summary>
    public sealed partial class Context : Handle
    {
        internal Context() { }

        /// <summary>Creates a context. ONNX Runtime is opened when it is first needed.</summary>
        public static Context Create([AllowNull] ContextOptions options = null)
        {
            options = options ?? new ContextOptions();
            using (var scratch = new Scratch())
            {
                var log = options.Log == null ? null : Receiver(options.Log);
                var native = new Native.ContextOptions
                {
                    StructSize = SizeOf<Native.ContextOptions>(),
                    Threads = options.Threads,
                    RuntimeLibrary = scratch.Text(options.RuntimeLibrary),
                    Log = log == null ? IntPtr.Zero : Marshal.GetFunctionPointerForDelegate(log),
                    LogLevel = (int)options.LogLevel,
                    MemoryLimit = options.MemoryLimit,
                };
                Context context;
                ErrorHandle error;
                OptimizeException.Check(Native.optimize_context_new(ref native, out context, out error), error);
                context.log = log;
                return context;
            }
        }

        /// <summary>Version of the library as one number: major * 10000 + minor * 100 + patch.</summary>
        public static uint LibraryVersionNumber { get { return Native.optimize_version_number(); } }

        /// <summary>Version of the library, for example "0.1.0".</summary>
        public static string LibraryVersion { get { return Utf8.Read(Native.optimize_version()); } }

        /// <summary>Opens ONNX Runtime, if it is not open yet, and returns its version, for example "1.32.0". Throws
        /// Status.RuntimeMissing if ONNX Runtime is not found.</summary>
        public string RuntimeVersion()
        {
            IntPtr version;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_context_runtime_version(this, out version, out error), error);
            var text = Utf8.Read(version);
            GC.KeepAlive(this); // the text lives as long as this
            return text;
        }

        /// <summary>Loads an .onnx or .gguf file, a packed file, a checkpoint, an exported folder, a package, or the
        /// manifest of an ensemble. Weights that are used as they are stored are mapped and not read; others are
        /// converted. Throws Status.NotFound if there is no such file, Status.InvalidModel for a damaged one, and
        /// Status.Unsupported for a format, an architecture or a type of weights that is not supported.</summary>
        public Model Load(string path, [AllowNull] Call call = null)
        {
            var bytes = Utf8.Bytes(path);
            Model model = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) =>
                Native.optimize_model_load(this, bytes, ref native, out model, out error));
            return model;
        }

        /// <summary>Loads a model from a copy of the bytes of an .onnx file without external data, a packed file, a
        /// .gguf file or a package in one file.</summary>
        public Model Load(byte[] file, [AllowNull] Call call = null)
        {
            Model model = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_load_memory(
                this, file, (UIntPtr)file.Length, ref native, out model, out error));
            return model;
        }

        /// <summary>Returns a quantized copy of a model; the original is unchanged. The report is in Model.Report.
        /// Throws Status.Unsupported if there is nothing to quantize, Status.GateNotMet if no result meets
        /// MaxQualityLoss, TargetSize or NeverSlower, and Status.InvalidArgument for options that do not fit the
        /// Type.</summary>
        public Model Quantize(Model model, [AllowNull] QuantizeOptions options = null, [AllowNull] Call call = null)
        {
            Need(model, "model");
            options = options ?? new QuantizeOptions();
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                Model result = null;
                BufferHandle report = null;
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_quantize(
                    this, model, ref given, ref native, out result, out report, out error));
                result.Report = new Report(report);
                return result;
            }
        }

        /// <summary>Estimates the result of Quantize with the same options, without quantizing. Returns the JSON of
        /// docs/report.md: nodes, bytes, seconds and memory. MaxQualityLoss, TargetSize, NeverSlower and calibration
        /// data are ignored. Throws Status.Unsupported if there is nothing to quantize, and Status.InvalidArgument for
        /// static quantization, whose result depends on calibration data.</summary>
        public Report Plan(Model model, [AllowNull] QuantizeOptions options = null)
        {
            Need(model, "model");
            using (var scratch = new Scratch())
            {
                var given = (options ?? new QuantizeOptions()).ToNative(scratch);
                BufferHandle report;
                ErrorHandle error;
                OptimizeException.Check(Native.optimize_model_plan(this, model, ref given, out report, out error),
                    error);
                return new Report(report);
            }
        }

        /// <summary>Returns a pruned copy of a model; the original is unchanged. The report is in Model.Report. Throws
        /// Status.InvalidArgument if a target matches nothing, Status.Unsupported if no weight could be pruned, and
        /// Status.GateNotMet if no sparsity meets TargetSize or TargetSpeedup.</summary>
        public Model Prune(Model model, [AllowNull] PruneOptions options = null, [AllowNull] Call call = null)
        {
            Need(model, "model");
            options = options ?? new PruneOptions();
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                Model result = null;
                BufferHandle report = null;
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_prune(
                    this, model, ref given, ref native, out result, out report, out error));
                result.Report = new Report(report);
                return result;
            }
        }

        /// <summary>Compares two models: speed, load time, memory, size, and outputs. Returns the JSON of
        /// docs/report.md.</summary>
        public Report Benchmark(Model original, Model result, [AllowNull] BenchmarkOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(original, "original");
            Need(result, "result");
            options = options ?? new BenchmarkOptions();
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                var tokenizer = options.Tokenizer ?? new Tokenizer(); // NULL to the library
                BufferHandle report = null;
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_benchmark(
                    this, original, result, tokenizer, ref given, ref native, out report, out error));
                return new Report(report);
            }
        }

        /// <summary>Creates a session of a model, which may be disposed of before the session. Throws
        /// Status.RuntimeMissing if ONNX Runtime is not found, Status.Runtime if it refuses the model, and
        /// Status.BackendMissing or Status.DeviceMissing if the provider or the device cannot be used.</summary>
        public Session CreateSession(Model model, [AllowNull] SessionOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(model, "model");
            Session session = null;
            using (var scratch = new Scratch())
            {
                var given = (options ?? new SessionOptions()).ToNative(scratch);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_session_new(
                    this, model, ref given, ref native, out session, out error));
            }
            return session;
        }

        /// <summary>Creates a generator of a decoder with its tokenizer. Throws Status.Unsupported if the model is
        /// not a decoder.</summary>
        public Generator CreateGenerator(Model model, [AllowNull] GeneratorOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(model, "model");
            Generator generator = null;
            using (var scratch = new Scratch())
            {
                var given = (options ?? new GeneratorOptions()).ToNative(scratch);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_generator_new(
                    this, model, ref given, ref native, out generator, out error));
            }
            return generator;
        }

        /// <summary>Creates a generator that combines the distributions of the members of an ensemble. Throws
        /// Status.Unsupported if they do not generate text.</summary>
        public Generator CreateGenerator(Ensemble ensemble, [AllowNull] GeneratorOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(ensemble, "ensemble");
            Generator generator = null;
            using (var scratch = new Scratch())
            {
                var given = (options ?? new GeneratorOptions()).ToNative(scratch);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_ensemble_generator(
                    this, ensemble, ref given, ref native, out generator, out error));
            }
            return generator;
        }

        /// <summary>Fits the weights of the members of an ensemble of decoders to a text, and returns an ensemble with
        /// these weights. The report is in Ensemble.Report. Throws Status.Unsupported for methods without
        /// weights.</summary>
        public Ensemble Fit(Ensemble ensemble, string text, [AllowNull] FitOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(ensemble, "ensemble");
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
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_ensemble_fit(this,
                ensemble,
                bytes, (UIntPtr)bytes.Length, ref given, ref native, out fitted, out report, out error));
            fitted.Report = new Report(report);
            return fitted;
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr context)
        {
            Native.optimize_context_free(context);
            GC.KeepAlive(log); // nothing calls it any more
        }
    }
}
