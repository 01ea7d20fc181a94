// TensorRT engines.

using System;
using System.Collections.Generic;

namespace Optimize
{
    /// <summary>Lowest precision in which the nodes of an engine compute.</summary>
    public enum Precision
    {
        /// <summary>fp32: the types of the model.</summary>
        Fp32 = 0,

        /// <summary>float16 for matrix products, convolutions and the nodes around them. Needs ONNX Runtime, which
        /// measures the error.</summary>
        Fp16 = 1,

        /// <summary>bfloat16 for the same nodes as Fp16. Needs ONNX Runtime, which measures the error.</summary>
        Bf16 = 2,

        /// <summary>8-bit integers for matrix products and convolutions with a weight. Needs ONNX Runtime, which
        /// measures ranges of activations and the error.</summary>
        Int8 = 3,

        /// <summary>float8 (e4m3) for the same nodes as Int8. Needs ONNX Runtime, like Int8.</summary>
        Fp8 = 4,
    }

    /// <summary>Library that builds an engine.</summary>
    public enum TensorRtBackend
    {
        /// <summary>TensorRT if the library and a device are available, otherwise TensorRT-RTX, otherwise ONNX
        /// Runtime's provider. The report gives the reason.</summary>
        Auto = 0,

        /// <summary>TensorRT 11, which builds for the device of this machine.</summary>
        Nvinfer = 1,

        /// <summary>TensorRT-RTX 1, which needs no device.</summary>
        Rtx = 2,

        /// <summary>ONNX Runtime's TensorRT provider, which writes a model that contains engines.</summary>
        OnnxRuntime = 3,
    }

    /// <summary>Options of Context.BuildTensorRt. Properties that are 0 or null have their defaults. A profile is a
    /// range of shapes of the inputs.</summary>
    public sealed class TensorRtOptions
    {
        /// <summary>Precision of the engine.</summary>
        public Precision Precision { get; set; }

        /// <summary>Library that builds the engine.</summary>
        public TensorRtBackend Backend { get; set; }

        /// <summary>Builder optimization level plus 1: 1 to 6 for TensorRT's levels 0 to 5; 0 for TensorRT's
        /// default.</summary>
        public uint OptimizationLevel { get; set; }

        /// <summary>Batch size, if it is dynamic in the model; 0 leaves it to the profiles.</summary>
        public ulong BatchSize { get; set; }

        /// <summary>Sequence length, if it is dynamic in the model; 0 leaves it to the profiles.</summary>
        public ulong SequenceLength { get; set; }

        /// <summary>Minimum, optimal and maximum sizes of dimensions, such as "batch=1:8:32,sequence=128"; or
        /// null.</summary>
        [AllowNull, MaybeNull] public string Dimensions { get; set; }

        /// <summary>Minimum shapes of inputs, such as "ids:1x16,mask:1x16"; or null.</summary>
        [AllowNull, MaybeNull] public string MinShapes { get; set; }

        /// <summary>Optimal shapes of inputs, for which TensorRT tunes the engine; or null.</summary>
        [AllowNull, MaybeNull] public string OptShapes { get; set; }

        /// <summary>Maximum shapes of inputs; or null.</summary>
        [AllowNull, MaybeNull] public string MaxShapes { get; set; }

        /// <summary>Several profiles as JSON, instead of single shapes, which optimize_tensorrt_options_t in optimize.h
        /// describes; or null.</summary>
        [AllowNull, MaybeNull] public string Profiles { get; set; }

        /// <summary>Folder of TensorRT's libraries; null searches for them.</summary>
        [AllowNull, MaybeNull] public string Library { get; set; }

        /// <summary>Path of TensorRT's timing cache; or null.</summary>
        [AllowNull, MaybeNull] public string TimingCache { get; set; }

        /// <summary>Maximum device memory for TensorRT's workspace in bytes; 0 for no limit.</summary>
        public ulong Workspace { get; set; }

        /// <summary>Maximum error of an output relative to fp32; as many nodes stay fp32 as this requires. 0 for 0.01
        /// (Fp16), 0.08 (Bf16) and 0.15 (Int8 and Fp8).</summary>
        public double MaxError { get; set; }

        /// <summary>TensorRT-RTX: compute capabilities for which to build, such as 89 for 8.9; null for
        /// all.</summary>
        [AllowNull, MaybeNull] public int[] ComputeCapabilities { get; set; }

        /// <summary>Whether the engine also runs with later versions of TensorRT.</summary>
        public bool VersionCompatible { get; set; }

        /// <summary>Whether the engine runs on all devices from Ampere on.</summary>
        public bool HardwareCompatible { get; set; }

        /// <summary>Whether the weights are stripped from the engine.</summary>
        public bool Strip { get; set; }

        /// <summary>Whether the weights can be replaced later (refit).</summary>
        public bool Refit { get; set; }

        /// <summary>Whether weights with a 2:4 pattern are used as sparse weights.</summary>
        public bool Sparsity { get; set; }

        /// <summary>Whether the engine keeps detailed information on layers, for profilers.</summary>
        public bool Detailed { get; set; }

        /// <summary>Whether TensorFloat-32 is disabled.</summary>
        public bool NoTf32 { get; set; }

        /// <summary>Whether the engine is built even if the existing one matches the options.</summary>
        public bool Force { get; set; }

        /// <summary>Whether an existing engine that does not match throws Status.Mismatch, instead of being
        /// replaced.</summary>
        public bool RefuseMismatch { get; set; }

        /// <summary>Number of threads of the measurements; 0 uses that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Int8 and Fp8: path of the calibration data, a text or tensors for the inputs (X.safetensors);
        /// null for built-in sentences or generated numbers.</summary>
        [AllowNull, MaybeNull] public string Calibration { get; set; }

        /// <summary>Names of nodes, or of operators, that stay fp32; null for none.</summary>
        [AllowNull, MaybeNull] public IList<string> KeepFp32 { get; set; }

        /// <summary>Whether only the graph for the engine is written, as an .onnx file, and no engine is built. Neither
        /// TensorRT nor a device is needed then.</summary>
        public bool GraphOnly { get; set; }
    }

    /// <summary>Options of Context.OpenTensorRt, Context.CreateEngine and Context.BenchmarkEngine. Trust is required:
    /// without it, the calls throw Status.Untrusted.</summary>
    public sealed class TensorRtOpenOptions
    {
        /// <summary>Whether you trust the source of the engine, which contains executable code.</summary>
        public bool Trust { get; set; }

        /// <summary>Index of the device, from 0.</summary>
        public uint DeviceId { get; set; }

        /// <summary>SHA-256 of the model from which the engine must have been built, as 64 hexadecimal digits; null
        /// accepts any model.</summary>
        [AllowNull, MaybeNull] public string ModelSha256 { get; set; }

        /// <summary>Folder of TensorRT's libraries; null searches for them.</summary>
        [AllowNull, MaybeNull] public string Library { get; set; }

        internal Native.TensorRtOpenOptions ToNative(Scratch scratch)
        {
            return new Native.TensorRtOpenOptions
            {
                StructSize = Handle.SizeOf<Native.TensorRtOpenOptions>(),
                Trust = Trust ? 1u : 0,
                DeviceId = DeviceId,
                ModelSha256 = scratch.Text(ModelSha256),
                LibraryFolder = scratch.Text(Library),
            };
        }
    }

    public sealed partial class Context
    {
        /// <summary>Creates a session of an engine file on a device. ONNX Runtime is not needed. Throws
        /// Status.Untrusted if Trust is false or there is no manifest next to the file; Status.InvalidModel if the file
        /// does not match its manifest or is not an engine; and Status.Mismatch if it belongs to another model, version
        /// or device. Also throws Status.BackendMissing if TensorRT is not found; Status.DeviceMissing if there is no
        /// such device; and Status.Backend if TensorRT cannot use the engine.</summary>
        public Session OpenTensorRt(string path, [AllowNull] TensorRtOpenOptions options = null,
            [AllowNull] Call call = null)
        {
            Session session = null;
            using (var scratch = new Scratch())
            {
                var raw = (options ?? new TensorRtOpenOptions()).ToNative(scratch);
                IntPtr cPath = scratch.Text(path);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_tensorrt_open(
                    this, cPath, ref raw, ref native, out session, out error));
            }
            return session;
        }

        /// <summary>Creates a session of the TensorRT engine of a package on a device. Runs check the shape contract,
        /// like those of CreateSession for a package. The package may be disposed of before the session. Throws
        /// Status.NotFound if the package has no engine, Status.Unsupported if the package is a single file, and
        /// otherwise the same as OpenTensorRt.</summary>
        public Session CreateEngine(Package package, [AllowNull] TensorRtOpenOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(package, "package");
            Session session = null;
            using (var scratch = new Scratch())
            {
                var raw = (options ?? new TensorRtOpenOptions()).ToNative(scratch);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_package_engine(
                    this, package, ref raw, ref native, out session, out error));
            }
            return session;
        }

        /// <summary>Compares a TensorRT engine file with the model from which it was built, like Benchmark.
        /// <paramref name="engine"/> selects the device of the engine. Returns the JSON of docs/report.md. Throws
        /// Status.Untrusted if Trust of <paramref name="engine"/> is false, Status.Mismatch if the engine was built
        /// from another model, and otherwise the same as OpenTensorRt.</summary>
        public Report BenchmarkEngine(
            Model original, string path, TensorRtOpenOptions engine, [AllowNull] BenchmarkOptions options = null,
                [AllowNull] Call call = null)
        {
            Need(original, "original");
            options = options ?? new BenchmarkOptions();
            BufferHandle report = null;
            using (var scratch = new Scratch())
            {
                var opening = (engine ?? new TensorRtOpenOptions()).ToNative(scratch);
                var raw = options.ToNative(scratch);
                var tokenizer = options.Tokenizer ?? new Tokenizer(); // without a handle: NULL for the library
                IntPtr cPath = scratch.Text(path);
                Call.Run(call, (ref Native.Call native,
                    out ErrorHandle error) => Native.optimize_model_benchmark_engine(
                    this, original, cPath, tokenizer, ref opening, ref raw, ref native, out report, out error));
            }
            return new Report(report);
        }

        /// <summary>Builds a TensorRT engine of a model and writes it to a path, X.engine or a folder, with a manifest
        /// next to it. An existing engine that matches model, library and options is kept. Returns the JSON of
        /// docs/report.md. Throws Status.BackendMissing if TensorRT is not found; Status.DeviceMissing if the backend
        /// needs a device and there is none; Status.Unsupported for an unsupported version of TensorRT or operator; and
        /// Status.InvalidArgument if a dynamic dimension of an input has no range. Also throws Status.GateNotMet if
        /// MaxError cannot be met; Status.Mismatch as RefuseMismatch describes; and Status.Backend if TensorRT
        /// fails.</summary>
        public Report BuildTensorRt(Model model, string path, [AllowNull] TensorRtOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(model, "model");
            options = options ?? new TensorRtOptions();
            var devices = options.ComputeCapabilities ?? new int[0];
            var pinned = System.Runtime.InteropServices.GCHandle.Alloc(
                devices, System.Runtime.InteropServices.GCHandleType.Pinned);
            BufferHandle report = null;
            try
            {
                using (var scratch = new Scratch())
                {
                    Native.TensorRtOptions raw = Raw(options, scratch);
                    raw.ComputeCapabilities = devices.Length == 0 ? IntPtr.Zero : pinned.AddrOfPinnedObject();
                    raw.ComputeCapabilityCount = (ulong)devices.Length;
                    IntPtr cPath = scratch.Text(path);
                    Call.Run(call, (ref Native.Call native,
                        out ErrorHandle error) => Native.optimize_model_build_tensorrt(
                        this, model, cPath, ref raw, ref native, out report, out error));
                }
            }
            finally
            {
                pinned.Free();
            }
            return new Report(report);
        }

        /// <summary>Checks whether an engine file can be used on this machine and, if <paramref name="model"/> is not
        /// null, whether it was built from that model. Returns the manifest of the engine as JSON.
        /// <paramref name="trust"/> states that you trust the source of the engine, which contains executable code.
        /// Throws Status.Untrusted if <paramref name="trust"/> is false or there is no manifest; Status.InvalidModel if
        /// the file does not match its manifest or is not an engine; and Status.Mismatch if it belongs to another
        /// model, version or device. Also throws Status.BackendMissing if TensorRT is not found, and
        /// Status.DeviceMissing if there is no device.</summary>
        public Report CheckTensorRt(string path, Model model, bool trust, [AllowNull] Call call = null)
        {
            BufferHandle manifest = null;
            using (var scratch = new Scratch())
            {
                model = model ?? new Model(); // without a handle: NULL for the library
                IntPtr cPath = scratch.Text(path);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_tensorrt_check(
                    this, cPath, model, trust ? 1u : 0, ref native, out manifest, out error));
            }
            return new Report(manifest);
        }

        private static Native.TensorRtOptions Raw(TensorRtOptions options, Scratch scratch)
        {
            return new Native.TensorRtOptions
            {
                StructSize = SizeOf<Native.TensorRtOptions>(),
                Precision = (int)options.Precision,
                Backend = (int)options.Backend,
                OptimizationLevel = options.OptimizationLevel,
                BatchSize = options.BatchSize,
                SequenceLength = options.SequenceLength,
                Dimensions = scratch.Text(options.Dimensions),
                MinShapes = scratch.Text(options.MinShapes),
                OptShapes = scratch.Text(options.OptShapes),
                MaxShapes = scratch.Text(options.MaxShapes),
                Profiles = scratch.Text(options.Profiles),
                LibraryFolder = scratch.Text(options.Library),
                TimingCache = scratch.Text(options.TimingCache),
                Workspace = options.Workspace,
                MaxError = options.MaxError,
                VersionCompatible = options.VersionCompatible ? 1u : 0,
                HardwareCompatible = options.HardwareCompatible ? 1u : 0,
                Strip = options.Strip ? 1u : 0,
                Refit = options.Refit ? 1u : 0,
                Sparsity = options.Sparsity ? 1u : 0,
                Detailed = options.Detailed ? 1u : 0,
                NoTf32 = options.NoTf32 ? 1u : 0,
                Force = options.Force ? 1u : 0,
                RefuseMismatch = options.RefuseMismatch ? 1u : 0,
                Threads = options.Threads,
                Calibration = scratch.Text(options.Calibration),
                KeepFp32 = scratch.Texts(options.KeepFp32),
                KeepFp32Count = Scratch.Count(options.KeepFp32),
                GraphOnly = options.GraphOnly ? 1u : 0,
            };
        }
    }
}
