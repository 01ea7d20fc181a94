// liboptimize for .NET: make trained models smaller and faster, and run them.
//
//     using (var context = Context.Create())
//     using (var model = context.Load("model.onnx"))
//     using (var small = context.Quantize(model))
//         small.Save("small.onnx");
//
// Copy this folder into a project, without its programs (Chat, Quantize, Tests, GeneratorTests) and what only they
// use (Json, Tap). It needs no package, and Mono, .NET Framework 4.6 or any newer .NET on a 64-bit system, which
// must find liboptimize.so: beside the program, or in LD_LIBRARY_PATH. With Mono: mcs Quantize.cs Optimize.cs
// Model.cs … && mono Quantize.exe MODEL OUTPUT
//
// Rules that hold for all classes:
//
//   Errors   OptimizeException says what (Status, Message) and where (Place). A call that was stopped through its
//            CancellationToken throws OperationCanceledException, so a task around it counts as cancelled.
//   Calls    What may take long takes a Call: a CancellationToken, a timeout, an IProgress. A CancellationToken
//            may stand in its place. All calls are synchronous and bound to no thread: wrap them in Task.Run.
//   Dispose  frees at once what the finalizer would free in its own time. Objects may be disposed of in any
//            order. What another thread disposes of during a call is freed when the call ends.
//   Threads  Any number of threads may use a Context, Model, Tensor or Tokenizer at once. A Session or Generator
//            takes one call at a time.

using System;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using System.Threading;

namespace Optimize
{
    /// <summary>What a call answers; the numbers never change.</summary>
    public enum Status
    {
        Ok = 0, InvalidArgument = 1, InvalidHandle = 2, NotFound = 3, IO = 4, InvalidModel = 5, Unsupported = 6,
        LimitExceeded = 7, RuntimeMissing = 8, Runtime = 9, Cancelled = 10, Timeout = 11, Busy = 12, GateNotMet = 13,
        Internal = 14, BackendMissing = 15, DeviceMissing = 16, Backend = 17, Mismatch = 18, Untrusted = 19,
    }

    /// <summary>What the library says about a failed call.</summary>
    public sealed class OptimizeException : Exception
    {
        internal OptimizeException(Status status, string message, string place)
            : base(place.Length == 0 ? message : place + ": " + message)
        {
            Status = status;
            Place = place;
        }

        /// <summary>Of which sort it is.</summary>
        public Status Status { get; private set; }

        /// <summary>Where: file, node, tensor or argument, outermost first; "" if the message says it all.</summary>
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

    /// <summary>An object of the library. P/Invoke counts the calls that use it: it is freed after the last.</summary>
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

        /// <summary>The function of the library that frees this.</summary>
        protected abstract void Free(IntPtr pointer);

        internal static uint SizeOf<T>() { return (uint)Marshal.SizeOf(typeof(T)); }
    }

    /// <summary>How far a call is.</summary>
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

        /// <summary>0 if it is not known.</summary>
        public ulong Total { get; private set; }
    }

    /// <summary>Keeps what the callbacks of a call throw, which must not unwind through the library, until the call
    /// has ended.</summary>
    internal sealed class Caught
    {
        private ExceptionDispatchInfo thrown;

        /// <summary>What a C callback answers for a function that says whether to go on.</summary>
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

    /// <summary>What every long call takes besides its options. A CancellationToken may stand for one.</summary>
    public sealed class Call
    {
        /// <summary>Ends the call with OperationCanceledException.</summary>
        public CancellationToken Cancellation { get; set; }

        /// <summary>Ends the call with Status.Timeout; zero is none.</summary>
        public TimeSpan Timeout { get; set; }

        /// <summary>Told at most 20 times a second, on the thread that makes the call.</summary>
        public IProgress<Progress> Progress { get; set; }

        public static implicit operator Call(CancellationToken token) { return new Call { Cancellation = token }; }

        internal delegate int Body(ref Native.Call call, out ErrorHandle error);

        /// <summary>Makes a call of the library under the conditions of <paramref name="call"/>. What its callbacks
        /// threw wins.</summary>
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
            GC.KeepAlive(report); // the library knew its address

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
        /// <summary>For every call that does not say otherwise; 0 is all processors.</summary>
        public uint Threads { get; set; }

        /// <summary>Path of the ONNX Runtime library; null looks where liboptimize looks.</summary>
        public string RuntimeLibrary { get; set; }
    }

    /// <summary>Where calls find ONNX Runtime and the number of threads. One per program is usual.</summary>
    public sealed partial class Context : Handle
    {
        internal Context() { }

        /// <summary>Makes a context. ONNX Runtime is not opened before something runs.</summary>
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
        public static string LibraryVersion { get { return Utf8.Read(Native.optimize_version()); } }

        /// <summary>Opens ONNX Runtime, if it is not open yet, and gives its version.</summary>
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

        /// <summary>Makes a smaller model of one, which stays. The report is in Model.Report.</summary>
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

        /// <summary>Makes a model with fewer weights of one, which stays. The report is in Model.Report.</summary>
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

        /// <summary>Measures two models side by side: speed, load time, memory, size, and how close the outputs
        /// are. Gives the JSON of docs/report.md.</summary>
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

        /// <summary>Makes a model ready to run.</summary>
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

        /// <summary>Makes a decoder ready to write, with the tokenizer that belongs to it. Status.Unsupported if the
        /// model is no decoder.</summary>
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

        /// <summary>Makes the members of an ensemble ready to write one text together. Status.Unsupported if they do not
        /// write text.</summary>
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

        /// <summary>Finds the weights with which the members foretell a text best, and gives the ensemble with them.
        /// What was found is in Ensemble.Report.</summary>
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
