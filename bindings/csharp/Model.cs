// Models, and the options of quantizing and benchmarks.

using System;
using System.Collections.Generic;
using System.Text;

namespace Optimize
{
    /// <summary>Use of only 7 of 8 bits for weights, because sums of 8-bit products can saturate on x86 processors
    /// without VNNI.</summary>
    public enum ReduceRange
    {
        /// <summary>7 bits if the processor of this machine requires it.</summary>
        Auto = 0,

        /// <summary>7 bits, for models that will run on x86 processors without VNNI.</summary>
        On = 1,

        /// <summary>8 bits.</summary>
        Off = 2,
    }

    /// <summary>Kind of quantization.</summary>
    public enum QuantizeType
    {
        /// <summary>int8 weights; activations are quantized in each run. Needs no data. Weights of operators without
        /// an integer kernel (Conv, LSTM ...) are stored in 8 bits, and used in float.</summary>
        Dynamic = 0,

        /// <summary>Weights of 2, 4 or 8 bits in blocks with one scale each; activations are float, and matrix products
        /// round them to 8 bits unless AccuracyLevel is 1. Weights that no block operator supports are stored in 4 or 8
        /// bits, and used in float.</summary>
        WeightOnly = 1,

        /// <summary>int8 weights; activations are quantized with scales from calibration data.</summary>
        Static = 2,
    }

    /// <summary>Algorithm that chooses the codes (the quantized values) of block-quantized weights.</summary>
    public enum Algorithm
    {
        /// <summary>GPTQ with calibration data, otherwise RTN.</summary>
        Auto = 0,

        /// <summary>Round to nearest, with a search for the best scale and zero point of each block.</summary>
        Rtn = 1,

        /// <summary>Half-quadratic quantization.</summary>
        Hqq = 2,

        /// <summary>GPTQ: compensates the error of each weight by changing the following weights. Needs calibration
        /// data.</summary>
        Gptq = 3,

        /// <summary>AWQ: scales the inputs of weights by the magnitude of their activations. Needs calibration
        /// data.</summary>
        Awq = 4,
    }

    /// <summary>Method by which static quantization determines the range of an activation from calibration
    /// data.</summary>
    public enum CalibrationMethod
    {
        /// <summary>The range from the minimum to the maximum value.</summary>
        MinMax = 0,

        /// <summary>The range between two percentiles, without the outermost values.</summary>
        Percentile = 1,

        /// <summary>The range whose quantized histogram has the smallest divergence.</summary>
        Entropy = 2,

        /// <summary>The range with the smallest squared error.</summary>
        Mse = 3,
    }

    /// <summary>Element type in which the file stores the scales of blocks. Sessions convert scales to
    /// float32.</summary>
    public enum ScaleType
    {
        /// <summary>uint8, times a float32 factor per row.</summary>
        Uint8 = 0,

        /// <summary>float16.</summary>
        Float16 = 1,

        /// <summary>float32.</summary>
        Float32 = 2,
    }

    /// <summary>Options of Context.Quantize and Context.Plan. Properties that are 0 or null have their
    /// defaults.</summary>
    public sealed class QuantizeOptions
    {
        /// <summary>Kind of quantization.</summary>
        public QuantizeType Type { get; set; }

        /// <summary>Bits per weight: 8, or for weight-only also 4 or 2. 0 is 8, or for weight-only 4.</summary>
        public uint Bits { get; set; }

        /// <summary>Use of 7 bits for weights.</summary>
        public ReduceRange ReduceRange { get; set; }

        /// <summary>Whether a weight has one scale instead of one per output channel.</summary>
        public bool PerTensor { get; set; }

        /// <summary>Whether embedding tables stay float.</summary>
        public bool KeepEmbeddings { get; set; }

        /// <summary>Number of threads; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Weight-only: number of consecutive elements of a row that share a scale: 16, 32, 64, 128 or 256;
        /// 0 for 32.</summary>
        public uint BlockSize { get; set; }

        /// <summary>Weight-only: whether blocks have no zero points. Those of 8 bits never have zero points.</summary>
        public bool Symmetric { get; set; }

        /// <summary>Weight-only: type of the scales.</summary>
        public ScaleType ScaleType { get; set; }

        /// <summary>Weight-only: accuracy_level of MatMulNBits. 4 rounds activations to 8 bits per block, which is
        /// faster; 1 keeps them float32; 0 for 4.</summary>
        public uint AccuracyLevel { get; set; }

        /// <summary>Minimum number of elements of a weight to quantize; 0 for 1024.</summary>
        public ulong MinElements { get; set; }

        /// <summary>Globs of the names of nodes and weights to quantize; null for all nodes.</summary>
        [AllowNull, MaybeNull] public IList<string> Include { get; set; }

        /// <summary>Globs of the names of nodes and weights to leave unchanged, even if Include matches them; null
        /// for none.</summary>
        [AllowNull, MaybeNull] public IList<string> Exclude { get; set; }

        /// <summary>Weight-only: texts <c>GLOB=BITS</c> or <c>GLOB=BITS/BLOCK</c>, which set other bits and another
        /// block size for matching nodes and weights; the first match counts. Null for none.</summary>
        [AllowNull, MaybeNull] public IList<string> Overrides { get; set; }

        /// <summary>Calibration text, for which the model must have a tokenizer; null for none. With a text,
        /// Algorithm.Auto selects GPTQ for weight-only quantization.</summary>
        [AllowNull, MaybeNull] public string Calibration { get; set; }

        /// <summary>Number of windows of the calibration text; 0 for 16.</summary>
        public uint CalibrationWindows { get; set; }

        /// <summary>Number of tokens per window; 0 for 512, or the limit of the model if it is less.</summary>
        public uint CalibrationLength { get; set; }

        /// <summary>Folder of the temporary file with the quantized weights; null for the system's temporary
        /// folder.</summary>
        [AllowNull, MaybeNull] public string ScratchFolder { get; set; }

        /// <summary>Weight-only: algorithm that chooses the codes.</summary>
        public Algorithm Algorithm { get; set; }

        /// <summary>Static: method that determines the ranges of activations.</summary>
        public CalibrationMethod CalibrationMethod { get; set; }

        /// <summary>Static: percentage of the values of an activation that CalibrationMethod.Percentile keeps; 0 for
        /// 99.99.</summary>
        public double Percentile { get; set; }

        /// <summary>Static and dynamic: alpha of SmoothQuant, from 0 to 1, which moves outliers of activations into
        /// the weights; 0 disables it.</summary>
        public double SmoothQuant { get; set; }

        /// <summary>Maximum loss of each judged output (docs/report.md): mean Kullback-Leibler divergence in nats for
        /// logits, 1 - mean cosine for other outputs; 0 for no limit. Needs ONNX Runtime.</summary>
        public double MaxQualityLoss { get; set; }

        /// <summary>Maximum size of the result in bytes, for which the bits of each weight are chosen, from Bits up; 0
        /// for no limit. Needs ONNX Runtime.</summary>
        public ulong TargetSize { get; set; }

        /// <summary>Whether the speed is compared with products or tables of one shape (static: nodes of one operator)
        /// in float, and those that are slower quantized stay float. If a static result is still slower than the
        /// original, the call throws Status.GateNotMet. Needs ONNX Runtime.</summary>
        public bool NeverSlower { get; set; }

        /// <summary>Calibration tensors by the name of the input, instead of Calibration; null for none. The first
        /// dimension of each tensor counts samples.</summary>
        [AllowNull, MaybeNull] public IDictionary<string, Tensor> CalibrationTensors { get; set; }

        internal Native.QuantizeOptions ToNative(Scratch scratch)
        {
            return new Native.QuantizeOptions
            {
                StructSize = Handle.SizeOf<Native.QuantizeOptions>(),
                Type = (int)Type,
                Bits = Bits,
                ReduceRange = (int)ReduceRange,
                PerTensor = PerTensor ? 1u : 0,
                KeepEmbeddings = KeepEmbeddings ? 1u : 0,
                Threads = Threads,
                BlockSize = BlockSize,
                Symmetric = Symmetric ? 1u : 0,
                ScaleType = (int)ScaleType,
                AccuracyLevel = AccuracyLevel,
                MinElements = MinElements,
                Include = scratch.Texts(Include),
                IncludeCount = Scratch.Count(Include),
                Exclude = scratch.Texts(Exclude),
                ExcludeCount = Scratch.Count(Exclude),
                Overrides = scratch.Texts(Overrides),
                OverrideCount = Scratch.Count(Overrides),
                Calibration = scratch.Text(Calibration),
                CalibrationSize = Calibration == null ? 0 : (ulong)Encoding.UTF8.GetByteCount(Calibration),
                CalibrationWindows = CalibrationWindows,
                CalibrationLength = CalibrationLength,
                ScratchFolder = scratch.Text(ScratchFolder),
                Algorithm = (int)Algorithm,
                CalibrationMethod = (int)CalibrationMethod,
                Percentile = Percentile,
                SmoothQuant = SmoothQuant,
                MaxQualityLoss = MaxQualityLoss,
                TargetSize = TargetSize,
                NeverSlower = NeverSlower ? 1u : 0u,
                CalibrationNames = scratch.Texts(CalibrationTensors == null ? null : CalibrationTensors.Keys),
                CalibrationTensors = scratch.Handles(CalibrationTensors == null ? null : CalibrationTensors.Values),
                CalibrationTensorCount = CalibrationTensors == null ? 0 : (ulong)CalibrationTensors.Count,
            };
        }
    }

    /// <summary>Options of Context.Benchmark and Context.BenchmarkEngine. Properties that are 0 or null have their
    /// defaults.</summary>
    public sealed class BenchmarkOptions
    {
        /// <summary>Tokenizer of the texts; with null, inputs are generated instead of texts.</summary>
        [AllowNull, MaybeNull] public Tokenizer Tokenizer { get; set; }

        /// <summary>Number of timed rounds; 0 for 50.</summary>
        public uint Runs { get; set; }

        /// <summary>Number of warm-up rounds; 0 for 5.</summary>
        public uint Warmup { get; set; }

        /// <summary>Number of threads; 0 for that of the context. With 1 thread on the CPU, processor time is
        /// measured.</summary>
        public uint Threads { get; set; }

        /// <summary>Batch size of the timed input; 0 for 1.</summary>
        public uint BatchSize { get; set; }

        /// <summary>Number of tokens of each row of the timed input; 0 for the length of Texts, up to 512, or 128 for
        /// built-in texts and generated inputs.</summary>
        public uint SequenceLength { get; set; }

        /// <summary>Time limit of the timed rounds in milliseconds; 0 for 30000. At least 5 rounds run.</summary>
        public uint MaxMilliseconds { get; set; }

        /// <summary>Seed of generated inputs and of the bootstrap.</summary>
        public uint Seed { get; set; }

        /// <summary>Texts on which the models are compared, for which Tokenizer is required; null for built-in
        /// sentences.</summary>
        [AllowNull, MaybeNull] public IList<string> Texts { get; set; }

        /// <summary>Shapes of generated inputs, each "NAME:2x3x4", for inputs with dynamic dimensions; null for
        /// none.</summary>
        [AllowNull, MaybeNull] public IList<string> Shapes { get; set; }

        /// <summary>Values of generated inputs, for inputs that cannot be random numbers; null for none. Each is
        /// "NAME:1,2,3", with one number for each element, or "NAME:1", with one number for all elements.</summary>
        [AllowNull, MaybeNull] public IList<string> Values { get; set; }

        /// <summary>Tensors for the inputs of the models, by name, instead of texts and generated inputs; null for
        /// none. The first dimension of each tensor counts samples.</summary>
        [AllowNull, MaybeNull] public IDictionary<string, Tensor> Inputs { get; set; }

        /// <summary>Whether you trust the source of the models. Engines inside a model contain executable code; if
        /// false, such a model leads to Status.Untrusted on a device.</summary>
        public bool TrustEngines { get; set; }

        /// <summary>Execution provider, device, kernels and precision; null for the defaults of Execution.</summary>
        [AllowNull, MaybeNull] public Execution Execution { get; set; }

        internal Native.BenchmarkOptions ToNative(Scratch scratch)
        {
            return new Native.BenchmarkOptions
            {
                StructSize = Handle.SizeOf<Native.BenchmarkOptions>(),
                Runs = Runs,
                Warmup = Warmup,
                Threads = Threads,
                BatchSize = BatchSize,
                SequenceLength = SequenceLength,
                MaxMilliseconds = MaxMilliseconds,
                Seed = Seed,
                Texts = scratch.Texts(Texts),
                TextCount = Scratch.Count(Texts),
                Shapes = scratch.Texts(Shapes),
                ShapeCount = Scratch.Count(Shapes),
                Values = scratch.Texts(Values),
                ValueCount = Scratch.Count(Values),
                Provider = Execution == null ? 0 : (int)Execution.Provider,
                DeviceId = Execution == null ? 0 : Execution.DeviceId,
                EngineCache = scratch.Text(Execution == null ? null : Execution.EngineCache),
                Kernels = Execution == null ? 0 : (int)Execution.Kernels,
                Precision = Execution == null ? 0 : (int)Execution.Precision,
                TrustEngines = TrustEngines ? 1u : 0,
                InputNames = scratch.Texts(Inputs == null ? null : Inputs.Keys),
                InputTensors = scratch.Handles(Inputs == null ? null : Inputs.Values),
                InputCount = Inputs == null ? 0 : (ulong)Inputs.Count,
            };
        }
    }

    /// <summary>Place where Model.Save stores the weights.</summary>
    public enum ExternalData
    {
        /// <summary>In the .onnx file up to 1 GiB, above that in a file next to it.</summary>
        Auto = 0,

        /// <summary>In the .onnx file; saving throws Status.LimitExceeded above 2 GiB.</summary>
        Never = 1,

        /// <summary>In a file next to the .onnx file.</summary>
        Always = 2,
    }

    /// <summary>A loaded or created model. It is immutable. Files from which a model was loaded are memory-mapped: they
    /// must not be overwritten while the model, or an object created from it, exists.</summary>
    public sealed partial class Model : Handle
    {
        internal Model() { }

        /// <summary>Report of the technique that returned this model, the JSON of docs/report.md; null for other
        /// models.</summary>
        public Report Report { get; internal set; }

        /// <summary>Returns the tokenizer of the model. Throws Status.NotFound if the model has none.</summary>
        public Tokenizer LoadTokenizer()
        {
            Tokenizer tokenizer;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_model_tokenizer(this, out tokenizer, out error), error);
            return tokenizer;
        }

        /// <summary>Returns a conversation rendered with the chat template of the model. The text contains special
        /// tokens: set GenerateOptions.Rendered when you pass it to a generator. Throws the same as
        /// ApplyChatTemplate.</summary>
        public string RenderChat(params Message[] messages) { return RenderChat(Message.ToJson(messages)); }

        /// <summary>Returns a conversation rendered with the chat template of the model. The messages are JSON,
        /// [{"role": "user", "content": "..."}, ...], and may have more keys. Throws the same as
        /// ApplyChatTemplate.</summary>
        public string RenderChat(string messages)
        {
            BufferHandle rendered;
            ErrorHandle error;
            int status = Native.optimize_model_render_chat(this, Utf8.Bytes(messages), out rendered, out error);
            OptimizeException.Check(status, error);
            return rendered.Take();
        }

        /// <summary>Returns a conversation rendered with the chat template of the model, with tools and other options.
        /// Throws Status.NotFound if the model has no chat template, and Status.InvalidArgument if Tools or Variables
        /// are not JSON of the documented form, or if the template refuses the conversation. Also throws
        /// Status.InvalidModel if the template has an error, and Status.Unsupported if it uses a feature of Jinja that
        /// is not supported.</summary>
        public string ApplyChatTemplate(IEnumerable<Message> messages, [AllowNull] ChatOptions options = null)
        {
            return ApplyChatTemplate(Message.ToJson(messages), options);
        }

        /// <summary>Returns a conversation rendered like the other overload does. The messages are JSON, [{"role":
        /// "user", "content": "..."}, ...], and may have more keys, such as "tool_calls". Also throws
        /// Status.InvalidArgument if the messages are not JSON of this form.</summary>
        public string ApplyChatTemplate(string messages, [AllowNull] ChatOptions options = null)
        {
            options = options ?? new ChatOptions();
            using (var scratch = new Scratch())
            {
                var given = new Native.ChatOptions
                {
                    StructSize = SizeOf<Native.ChatOptions>(),
                    NoGenerationPrompt = options.NoGenerationPrompt ? 1u : 0,
                    Tools = scratch.Text(options.Tools),
                    Variables = scratch.Text(options.Variables),
                    Thinking = (int)options.Thinking,
                };
                BufferHandle prompt;
                ErrorHandle error;
                int status = Native.optimize_model_apply_chat_template(
                    this, Utf8.Bytes(messages), ref given, out prompt, out error);
                OptimizeException.Check(status, error);
                return prompt.Take();
            }
        }

        /// <summary>Returns names, types and shapes of the inputs that a run requires.</summary>
        public IList<ValueInfo> Inputs()
        {
            return ValueInfo.All(this, Native.optimize_model_input_count(this),
                (UIntPtr index, ref Native.ValueInfo info, out ErrorHandle error) =>
                    Native.optimize_model_input(this, index, ref info, out error));
        }

        /// <summary>Returns names, types and shapes of the outputs of the model.</summary>
        public IList<ValueInfo> Outputs()
        {
            return ValueInfo.All(this, Native.optimize_model_output_count(this),
                (UIntPtr index, ref Native.ValueInfo info, out ErrorHandle error) =>
                    Native.optimize_model_output(this, index, ref info, out error));
        }

        /// <summary>Returns a description of the model as the JSON of docs/report.md, without reading its
        /// weights.</summary>
        public Report Inspect()
        {
            BufferHandle report;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_model_inspect(this, out report, out error), error);
            return new Report(report);
        }

        /// <summary>Saves the model atomically: an existing file is replaced only when the new one is complete and on
        /// disk. Returns JSON: {"files": [{"path", "bytes", "sha256"}]}. With <paramref name="packed"/>, the file
        /// stores a zero in one bit, and only this library reads the file. Throws Status.NotFound if the folder of the
        /// path does not exist, Status.IO if a file cannot be written, and Status.InvalidArgument for a packed file
        /// with ExternalData.Always.</summary>
        public Report Save(
            string path, ExternalData externalData = ExternalData.Auto, [AllowNull] Call call = null,
                bool packed = false)
        {
            var bytes = Utf8.Bytes(path);
            var options = new Native.SaveOptions
            {
                StructSize = SizeOf<Native.SaveOptions>(),
                ExternalData = (int)externalData,
                Packed = packed ? 1u : 0,
            };
            BufferHandle report = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_save(
                this, bytes, ref options, ref native, out report, out error));
            return new Report(report);
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr model) { Native.optimize_model_free(model); }
    }
}
