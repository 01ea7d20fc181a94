// Models, and the options of functions that use them.

using System;
using System.Collections.Generic;
using System.Text;

namespace Optimize
{
    /// <summary>Whether weights use 7 of their 8 bits, which x86 processors without VNNI require.</summary>
    public enum ReduceRange
    {
        /// <summary>By the present processor.</summary>
        Auto = 0,

        /// <summary>7 bits: for models that will run on processors without VNNI.</summary>
        On = 1,

        /// <summary>8 bits.</summary>
        Off = 2,
    }

    /// <summary>The form of a quantized model. Dynamic: int8 weights; activations are quantized at run time.
    /// WeightOnly: block-quantized weights of 2, 4 or 8 bits; activations stay float. Static: int8 weights;
    /// activations with scales from calibration data.</summary>
    public enum QuantizeType
    {
        /// <summary>int8 weights; activations are quantized at run time. Needs no data. Weights without an integer
        /// kernel (Conv, LSTM ...) are stored in 8 bits and computed in float.</summary>
        Dynamic = 0,

        /// <summary>Weights in blocks of 2, 4 or 8 bits, each with its scale; activations stay float. Weights that no
        /// block operator supports are stored in 4 or 8 bits and computed in float.</summary>
        WeightOnly = 1,

        /// <summary>int8 weights; activations are quantized with scales from calibration data.</summary>
        Static = 2,
    }

    /// <summary>How the codes of block-quantized weights are chosen. Auto: GPTQ with calibration data, else
    /// RTN.</summary>
    public enum Algorithm
    {
        /// <summary>GPTQ with calibration data, otherwise RTN.</summary>
        Auto = 0,

        /// <summary>Round to nearest, with a search for scale and zero point.</summary>
        Rtn = 1,

        /// <summary>Half-quadratic quantization.</summary>
        Hqq = 2,

        /// <summary>Compensates the error of each weight in the following ones. Needs calibration data.</summary>
        Gptq = 3,

        /// <summary>Scales inputs by the magnitude of activations. Needs calibration data.</summary>
        Awq = 4,
    }

    /// <summary>How static quantization determines the range of an activation.</summary>
    public enum CalibrationMethod
    {
        /// <summary>From the minimum to the maximum value.</summary>
        MinMax = 0,

        /// <summary>Between percentiles, without the outermost values.</summary>
        Percentile = 1,

        /// <summary>The range whose quantized histogram has the smallest divergence.</summary>
        Entropy = 2,

        /// <summary>The range with the smallest squared error.</summary>
        Mse = 3,
    }

    /// <summary>Type in which scales of blocks are stored. Sessions convert them to float32. Uint8: one byte, times a
    /// float32 factor per row.</summary>
    public enum ScaleType
    {
        /// <summary>One byte, times a float32 factor per row.</summary>
        Uint8 = 0,

        /// <summary>Two bytes.</summary>
        Float16 = 1,

        /// <summary>Four bytes.</summary>
        Float32 = 2,
    }

    /// <summary>Options of Context.Quantize.</summary>
    public sealed class QuantizeOptions
    {
        /// <summary>Kind of quantization.</summary>
        public QuantizeType Type { get; set; }

        /// <summary>Bits per weight: 8, weight-only also 4 or 2; 0 for 8, weight-only 4.</summary>
        public uint Bits { get; set; }

        /// <summary>Use of 7 bits for weights.</summary>
        public ReduceRange ReduceRange { get; set; }

        /// <summary>One scale for a whole weight instead of one per output channel.</summary>
        public bool PerTensor { get; set; }

        /// <summary>Keep embedding tables in float.</summary>
        public bool KeepEmbeddings { get; set; }

        /// <summary>Number of threads; 0 for the context's.</summary>
        public uint Threads { get; set; }

        /// <summary>Weight-only: elements of a row that share a scale, 16 to 256; 0 for 32.</summary>
        public uint BlockSize { get; set; }

        /// <summary>Weight-only: no zero points; zero is the middle code.</summary>
        public bool Symmetric { get; set; }

        /// <summary>Weight-only: storage of scales.</summary>
        public ScaleType ScaleType { get; set; }

        /// <summary>Weight-only: 4 quantizes activations to 8 bits block by block, which is fast; 1 keeps them float;
        /// 0 for 4.</summary>
        public uint AccuracyLevel { get; set; }

        /// <summary>Weights with fewer elements are skipped; 0 for 1024.</summary>
        public ulong MinElements { get; set; }

        /// <summary>Globs of node and weight names; none for all nodes.</summary>
        [AllowNull, MaybeNull] public IList<string> Include { get; set; }

        /// <summary>Globs of names to skip; takes precedence over Include.</summary>
        [AllowNull, MaybeNull] public IList<string> Exclude { get; set; }

        /// <summary>Weight-only: <c>GLOB=BITS</c> or <c>GLOB=BITS/BLOCK</c>, other bits for matches.</summary>
        [AllowNull, MaybeNull] public IList<string> Overrides { get; set; }

        /// <summary>Weight-only: calibration text (GPTQ); null for none.</summary>
        [AllowNull, MaybeNull] public string Calibration { get; set; }

        /// <summary>Windows of the calibration text; 0 for 16.</summary>
        public uint CalibrationWindows { get; set; }

        /// <summary>Window length in tokens; 0 for 512, or the model's maximum.</summary>
        public uint CalibrationLength { get; set; }

        /// <summary>Folder for the quantized weights until they are saved; null for the system's.</summary>
        [AllowNull, MaybeNull] public string ScratchFolder { get; set; }

        /// <summary>Weight-only: how codes are chosen.</summary>
        public Algorithm Algorithm { get; set; }

        /// <summary>Static: how activation ranges are determined.</summary>
        public CalibrationMethod CalibrationMethod { get; set; }

        /// <summary>Static: per cent of values that CalibrationMethod.Percentile keeps; 0 for 99.99.</summary>
        public double Percentile { get; set; }

        /// <summary>Static: fraction of the activation range moved into the weights, 0 to 1.</summary>
        public double SmoothQuant { get; set; }

        /// <summary>Limit of the quality loss: Kullback-Leibler divergence in nats for models with logits, otherwise
        /// 1 - mean cosine; 0 for no limit.</summary>
        public double MaxQualityLoss { get; set; }

        /// <summary>Maximum size of the result in bytes; 0 for no limit.</summary>
        public ulong TargetSize { get; set; }

        /// <summary>Keep in float what is not faster when quantized, measured on this machine.</summary>
        public bool NeverSlower { get; set; }

        /// <summary>Calibration data other than text: values of inputs by name, whose first dimension counts
        /// samples.</summary>
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

    /// <summary>Options of Context.Benchmark.</summary>
    public sealed class BenchmarkOptions
    {
        /// <summary>Converts texts to inputs; null generates inputs from the model's signature.</summary>
        [AllowNull, MaybeNull] public Tokenizer Tokenizer { get; set; }

        /// <summary>Number of timed rounds; 0 for 50.</summary>
        public uint Runs { get; set; }

        /// <summary>Number of warm-up rounds; 0 for 5.</summary>
        public uint Warmup { get; set; }

        /// <summary>Number of threads; 0 for the context's. With 1, CPU time is measured.</summary>
        public uint Threads { get; set; }

        /// <summary>Rows of the timed input; 0 for 1.</summary>
        public uint BatchSize { get; set; }

        /// <summary>Tokens of each timed row; 0 for the length of the texts, or 128 without texts.</summary>
        public uint SequenceLength { get; set; }

        /// <summary>Time limit of the timed rounds, at least 5 of which run; 0 for 30000.</summary>
        public uint MaxMilliseconds { get; set; }

        /// <summary>Seed of generated inputs and of the bootstrap.</summary>
        public uint Seed { get; set; }

        /// <summary>Texts for the comparison; none for built-in sentences. Needs a tokenizer.</summary>
        [AllowNull, MaybeNull] public IList<string> Texts { get; set; }

        /// <summary>Each "NAME:2x3x4", for inputs with dynamic sizes.</summary>
        [AllowNull, MaybeNull] public IList<string> Shapes { get; set; }

        /// <summary>Each "NAME:1,2,3", for inputs for which random numbers are unsuitable.</summary>
        [AllowNull, MaybeNull] public IList<string> Values { get; set; }

        /// <summary>Values of inputs by name, instead of texts and generated values: the first dimension counts
        /// samples.</summary>
        [AllowNull, MaybeNull] public IDictionary<string, Tensor> Inputs { get; set; }

        /// <summary>Trust the models' authors: engines embedded in a model contain code.</summary>
        public bool TrustEngines { get; set; }

        /// <summary>Provider and device; null for the CPU.</summary>
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

    /// <summary>Where Model.Save writes weights: Auto is in the .onnx file up to 1 GiB, next to it above.</summary>
    public enum ExternalData
    {
        /// <summary>In the .onnx file up to 1 GiB, above that in a file next to it.</summary>
        Auto = 0,

        /// <summary>In the .onnx file; LIMIT_EXCEEDED above 2 GiB.</summary>
        Never = 1,

        /// <summary>In a file next to the .onnx file.</summary>
        Always = 2,
    }

    /// <summary>A loaded or created model. It is immutable.</summary>
    public sealed partial class Model : Handle
    {
        internal Model() { }

        /// <summary>The JSON of docs/report.md, if a technique made this model; otherwise null.</summary>
        public Report Report { get; internal set; }

        /// <summary>Loads the tokenizer.json next to the model; throws Status.NotFound if there is none.</summary>
        public Tokenizer LoadTokenizer()
        {
            Tokenizer tokenizer;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_model_tokenizer(this, out tokenizer, out error), error);
            return tokenizer;
        }

        /// <summary>Returns a conversation in the text format that the model was trained on, by its chat template: a
        /// prompt for Rendered. Throws Status.NotFound if the model has no template.</summary>
        public string RenderChat(params Message[] messages) { return RenderChat(Message.ToJson(messages)); }

        /// <summary>The same for messages in JSON, which may have more keys: [{"role": "user", "content": "..."},
        /// ...].</summary>
        public string RenderChat(string messages)
        {
            BufferHandle rendered;
            ErrorHandle error;
            int status = Native.optimize_model_render_chat(this, Utf8.Bytes(messages), out rendered, out error);
            OptimizeException.Check(status, error);
            return rendered.Take();
        }

        /// <summary>Returns a conversation in the text format of the model, with tools and other options.</summary>
        public string ApplyChatTemplate(IEnumerable<Message> messages, [AllowNull] ChatOptions options = null)
        {
            return ApplyChatTemplate(Message.ToJson(messages), options);
        }

        /// <summary>The same for messages in JSON, which may have more keys, such as "tool_calls".</summary>
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

        /// <summary>Returns the inputs of a run.</summary>
        public IList<ValueInfo> Inputs()
        {
            return ValueInfo.All(this, Native.optimize_model_input_count(this),
                (UIntPtr index, ref Native.ValueInfo info, out ErrorHandle error) =>
                    Native.optimize_model_input(this, index, ref info, out error));
        }

        /// <summary>Returns the outputs of a run.</summary>
        public IList<ValueInfo> Outputs()
        {
            return ValueInfo.All(this, Native.optimize_model_output_count(this),
                (UIntPtr index, ref Native.ValueInfo info, out ErrorHandle error) =>
                    Native.optimize_model_output(this, index, ref info, out error));
        }

        /// <summary>Returns the content of the model as the JSON of docs/report.md.</summary>
        public Report Inspect()
        {
            BufferHandle report;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_model_inspect(this, out report, out error), error);
            return new Report(report);
        }

        /// <summary>Saves a model atomically: until it is complete and on disk, an existing file is kept. Returns
        /// JSON: {"files": [{"path", "bytes", "sha256"}]}. Packed is one file in which zeros take almost no space,
        /// and which only this library reads.</summary>
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
