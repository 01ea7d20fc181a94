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
//            in a comment stands for an OptimizeException with this Status. Comments list the statuses that have a
//            particular cause. Every call can also throw InvalidArgument, LimitExceeded and Internal; one with a Call
//            also Timeout; one that reads or writes files also IO; one that runs a model also the statuses of
//            Context.CreateSession. A call that its CancellationToken stops throws OperationCanceledException, so that
//            a task around it counts as cancelled.
//   Misuse   A null argument that must not be null throws ArgumentNullException or NullReferenceException. A text with
//            NUL or an unpaired surrogate throws ArgumentException. A call with an object that was disposed of throws
//            ObjectDisposedException.
//   Calls    Methods that can take long have a parameter of type Call: a CancellationToken, a timeout, an IProgress. A
//            CancellationToken converts to a Call. Methods whose name ends with Async return a task, which runs on a
//            separate thread.
//   null     Null is accepted where [AllowNull] or the documentation says so, and selects the default. Properties of
//            options that are 0 have their defaults.
//   Dispose  Dispose frees memory at once that the finalizer would free later. Objects may be disposed of in any
//            order, and more than once. An object that another thread disposes of during a call is freed when the
//            call ends.
//   Threads  Any number of threads may use an object at the same time, with one exception: a Generator accepts one
//            call at a time.

using System;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Threading;

namespace Optimize
{
    /// <summary>Status of a call. Later versions add values at the end, and do not change these.</summary>
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

        /// <summary>Reading or writing a file failed, or a callback that reads or writes one.</summary>
        IO = 4,

        /// <summary>The file is damaged, or is not a valid model.</summary>
        InvalidModel = 5,

        /// <summary>The request is valid, but this version does not support it.</summary>
        Unsupported = 6,

        /// <summary>A limit of this library or the memory limit of the context is exceeded, or there is too little
        /// memory.</summary>
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

        /// <summary>TensorRT, an execution provider or this library's kernels were not found, are too old, or are not
        /// supported by this build of the library.</summary>
        BackendMissing = 15,

        /// <summary>No NVIDIA driver was found, or not the requested device.</summary>
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
        /// none. Message begins with the place.</summary>
        public string Place { get; private set; }

        /// <summary>Throws an OptimizeException for a status other than Ok, and disposes of the error.</summary>
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

        /// <summary>Frees the object with the function of the library for its type.</summary>
        protected abstract void Free(IntPtr pointer);

        internal static uint SizeOf<T>() { return (uint)Marshal.SizeOf<T>(); }

        /// <summary>Throws ArgumentNullException if a required argument is null. The check must come before P/Invoke,
        /// which also throws, but never ends the uses of the arguments before the null that it has counted by then:
        /// these objects would never be freed.</summary>
        internal static void Need(object argument, string name)
        {
            if (argument == null) throw new ArgumentNullException(name);
        }
    }

    /// <summary>Progress of a call, as Call.Progress receives it.</summary>
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

    /// <summary>Keeper of the exception of a callback, which must not unwind through the library, until the call has
    /// ended.</summary>
    internal sealed class Caught
    {
        private ExceptionDispatchInfo thrown;

        /// <summary>Runs a function that returns whether to continue, and keeps its exception. Returns the result of
        /// the C callback: 0 to continue, or 1 to end the call. After an exception, the function is not run
        /// again.</summary>
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

        /// <summary>Throws the exception that Guard kept, if there is one.</summary>
        internal void Rethrow()
        {
            if (thrown != null) thrown.Throw();
        }
    }

    /// <summary>Progress, timeout and cancellation of a call. A CancellationToken converts to a Call.</summary>
    public sealed partial class Call
    {
        /// <summary>Token that ends the call with OperationCanceledException.</summary>
        public CancellationToken Cancellation { get; set; }

        /// <summary>Timeout, after which the call throws Status.Timeout; zero for no timeout. With a negative timeout,
        /// the call throws ArgumentOutOfRangeException.</summary>
        public TimeSpan Timeout { get; set; }

        /// <summary>Progress callback, called on the thread that makes the call; null for none. It is called at most 20
        /// times per second, and in addition for the first report of each stage and when all work of a stage is done.
        /// If it throws, the call ends, and throws the exception.</summary>
        [AllowNull, MaybeNull] public IProgress<Progress> Progress { get; set; }

        /// <summary>Returns a Call with this token, and without timeout and progress callback.</summary>
        public static implicit operator Call(CancellationToken token) { return new Call { Cancellation = token }; }

        internal delegate int Body(ref Native.Call call, out ErrorHandle error);

        /// <summary>Makes a call of the library with the settings of <paramref name="call"/>. Throws the exception that
        /// a callback threw, or else an OptimizeException or OperationCanceledException for the status.</summary>
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
            GC.KeepAlive(report); // the library calls the delegate until here

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
                native.Cancel = cancel.DangerousGetHandle(); // valid until the end of this block
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
        /// <summary>Number of threads of calls whose options do not set it; 0 for one per physical core in sessions,
        /// and one per logical processor in other work, such as quantizing.</summary>
        public uint Threads { get; set; }

        /// <summary>Path of the ONNX Runtime library; null for the path in ORT_DYLIB_PATH, or else a search next to
        /// this library and the program and in the system's library path.</summary>
        [AllowNull, MaybeNull] public string RuntimeLibrary { get; set; }

        /// <summary>Log callback, which receives messages until the context is disposed of; null for no
        /// messages.</summary>
        [AllowNull, MaybeNull] public LogFunction Log { get; set; }

        /// <summary>Most detailed level of the messages that Log receives. The default is Warning.</summary>
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

        /// <summary>Creates a context. ONNX Runtime is opened when it is first needed: loading and saving, for example,
        /// do not need it.</summary>
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
        /// Status.RuntimeMissing if ONNX Runtime is not found or is too old, and Status.InvalidArgument if the process
        /// has already opened another one than RuntimeLibrary.</summary>
        public string RuntimeVersion()
        {
            IntPtr version;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_context_runtime_version(this, out version, out error), error);
            var text = Utf8.Read(version);
            GC.KeepAlive(this); // the context owns the memory that was read
            return text;
        }

        /// <summary>Loads a model from an .onnx, .gguf or packed file, a Hugging Face checkpoint, a folder with an
        /// .onnx file, a package, or the manifest of an ensemble. Weights are memory-mapped and not read, except those
        /// that must be converted, which are written to an unlinked temporary file. Throws Status.NotFound if there is
        /// no such file, Status.InvalidModel for a damaged file, and Status.Unsupported for a format, an architecture
        /// or a type of weights that is not supported.</summary>
        public Model Load(string path, [AllowNull] Call call = null)
        {
            var bytes = Utf8.Bytes(path);
            Model model = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) =>
                Native.optimize_model_load(this, bytes, ref native, out model, out error));
            return model;
        }

        /// <summary>Loads a model from a copy of the bytes of an .onnx file without external data, a packed file, a
        /// .gguf file or a package in one file. Throws Status.InvalidArgument for a model with external data,
        /// Status.InvalidModel for a damaged model, Status.LimitExceeded for an .onnx file above 2 GiB, and
        /// Status.Unsupported like Load for a path.</summary>
        public Model Load(byte[] file, [AllowNull] Call call = null)
        {
            Need(file, "file");
            Model model = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_load_memory(
                this, file, (UIntPtr)file.Length, ref native, out model, out error));
            return model;
        }

        /// <summary>Returns a quantized copy of a model; the original is unchanged. The report is in Model.Report.
        /// Throws Status.Unsupported if there is nothing to quantize, and Status.GateNotMet if no result meets
        /// MaxQualityLoss, TargetSize or NeverSlower. Also throws Status.InvalidArgument if options do not fit the
        /// Type, or if the Type or the Algorithm needs calibration data and there are none, and Status.NotFound if
        /// there is a calibration text but no tokenizer.</summary>
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
        /// docs/report.md: nodes, bytes, and estimated time and memory of Quantize. MaxQualityLoss, TargetSize,
        /// NeverSlower and calibration data are ignored. Throws Status.Unsupported if there is nothing to quantize, and
        /// Status.InvalidArgument for static quantization, whose result depends on calibration data.</summary>
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
        /// Status.InvalidArgument if an entry of TargetModules or Overrides matches nothing, or if options contradict
        /// each other or the method. Also throws Status.NotFound if there is a calibration text but no tokenizer;
        /// Status.Unsupported if no weight could be pruned; and Status.GateNotMet if no sparsity meets TargetSize or
        /// TargetSpeedup.</summary>
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
        /// docs/report.md, which Report.Benchmark reads. Throws Status.InvalidArgument if the models have different
        /// inputs or outputs, and otherwise the same as CreateSession and Session.Run.</summary>
        public Report Benchmark(Model original, Model result, [AllowNull] BenchmarkOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(original, "original");
            Need(result, "result");
            options = options ?? new BenchmarkOptions();
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                var tokenizer = options.Tokenizer ?? new Tokenizer(); // without a handle: NULL for the library
                BufferHandle report = null;
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_benchmark(
                    this, original, result, tokenizer, ref given, ref native, out report, out error));
                return new Report(report);
            }
        }

        /// <summary>Creates a session of a model, which may be disposed of before the session. Throws
        /// Status.RuntimeMissing if ONNX Runtime is not found, and Status.Runtime, InvalidModel or Unsupported if ONNX
        /// Runtime refuses the model. Also throws Status.BackendMissing or DeviceMissing if the provider, the kernels
        /// or the device of the options cannot be used; and Status.Untrusted if a model that contains engines is to run
        /// on a device and TrustEngines is false.</summary>
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

        /// <summary>Creates a generator of a decoder with its tokenizer. The model and the draft model may be disposed
        /// of before the generator. Throws Status.Unsupported if a model is not a decoder or cannot have the KV cache
        /// of KvCacheType, Status.InvalidArgument if the vocabulary of the draft model lacks tokens of the model, and
        /// otherwise the same as CreateSession.</summary>
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

        /// <summary>Creates a generator that combines the distributions of the members of an ensemble for every token.
        /// The ensemble may be disposed of before the generator. Throws Status.Unsupported if the members do not
        /// generate text, Status.InvalidArgument if the options have a draft, and otherwise the same as
        /// CreateSession.</summary>
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
        /// these weights, with the report in Ensemble.Report; the original is unchanged. Throws Status.Unsupported if
        /// the method has no weights or the members are not decoders with one vocabulary, Status.NotFound if no member
        /// has a tokenizer, and Status.InvalidArgument if the text is too short.</summary>
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
            GC.KeepAlive(log); // optimize_context_free has ended all calls of the delegate
        }
    }
}
