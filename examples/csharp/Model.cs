// Models, and the options of what is done to them.

using System;
using System.Collections.Generic;
using System.Text;

namespace Optimize
{
    /// <summary>Whether weights use 7 of their 8 bits, as x86 processors without VNNI need it.</summary>
    public enum ReduceRange { Auto = 0, On = 1, Off = 2 }

    /// <summary>The form of a quantized model. Dynamic: int8 weights; activations are quantized as they come.
    /// WeightOnly: weights in blocks of 2, 4 or 8 bits, each with its scale; activations stay float. Static: int8 weights;
    /// scales of activations are found on calibration data.</summary>
    public enum QuantizeType { Dynamic = 0, WeightOnly = 1, Static = 2 }

    /// <summary>How the values of weights in blocks are chosen. Auto: GPTQ with calibration data, else RTN.</summary>
    public enum Algorithm { Auto = 0, Rtn = 1, Hqq = 2, Gptq = 3, Awq = 4 }

    /// <summary>How static quantization finds the range of an activation.</summary>
    public enum CalibrationMethod { MinMax = 0, Percentile = 1, Entropy = 2, Mse = 3 }

    /// <summary>How the scales of blocks are stored. Sessions see float32 all the same. Uint8: one byte, times a float32
    /// factor for each row.</summary>
    public enum ScaleType { Uint8 = 0, Float16 = 1, Float32 = 2 }

    /// <summary>Options of Context.Quantize.</summary>
    public sealed class QuantizeOptions
    {
        public QuantizeType Type { get; set; }

        /// <summary>Of a weight: 8, weight-only also 4 or 2; 0 is 8, weight-only 4.</summary>
        public uint Bits { get; set; }

        public ReduceRange ReduceRange { get; set; }

        /// <summary>One scale for a whole weight instead of one per output channel.</summary>
        public bool PerTensor { get; set; }

        /// <summary>Leave embedding tables in float.</summary>
        public bool KeepEmbeddings { get; set; }

        /// <summary>0 is as the context says.</summary>
        public uint Threads { get; set; }

        /// <summary>Weight-only: elements of a row that share a scale, 16 to 256; 0 is 32.</summary>
        public uint BlockSize { get; set; }

        /// <summary>Weight-only: zero is the middle code, instead of a zero point for each block.</summary>
        public bool Symmetric { get; set; }

        public ScaleType ScaleType { get; set; }

        /// <summary>Weight-only: 4 rounds activations to 8 bits block by block, the fast way; 1 leaves them float; 0 is
        /// 4.</summary>
        public uint AccuracyLevel { get; set; }

        /// <summary>Weights with fewer elements are left; 0 is 1024.</summary>
        public ulong MinElements { get; set; }

        /// <summary>Globs over node and weight names; without any, all nodes.</summary>
        public IList<string> Include { get; set; }

        /// <summary>Globs over what to leave as it is; wins over Include.</summary>
        public IList<string> Exclude { get; set; }

        /// <summary>Weight-only: <c>GLOB=BITS</c> or <c>GLOB=BITS/BLOCK</c>, other bits for what matches.</summary>
        public IList<string> Overrides { get; set; }

        /// <summary>Weight-only: a text on which layers are to give what they gave (GPTQ); null is none.</summary>
        public string Calibration { get; set; }

        /// <summary>Windows of the calibration text; 0 is 16.</summary>
        public uint CalibrationWindows { get; set; }

        /// <summary>Tokens of a window; 0 is 512, or as many as the model takes.</summary>
        public uint CalibrationLength { get; set; }

        /// <summary>For the quantized weights until they are saved; null is the system's.</summary>
        public string ScratchFolder { get; set; }

        /// <summary>Weight-only.</summary>
        public Algorithm Algorithm { get; set; }

        /// <summary>Static.</summary>
        public CalibrationMethod CalibrationMethod { get; set; }

        /// <summary>Static: per cent of values that CalibrationMethod.Percentile keeps; 0 is 99.99.</summary>
        public double Percentile { get; set; }

        /// <summary>Static: how much of the spread of activations moves into the weights, 0 to 1.</summary>
        public double SmoothQuant { get; set; }

        /// <summary>The most that may be lost: Kullback-Leibler divergence in nats for models with logits, else 1 - mean
        /// cosine; 0 is no limit.</summary>
        public double MaxQualityLoss { get; set; }

        /// <summary>Bytes the result may have; 0 is no limit.</summary>
        public ulong TargetSize { get; set; }

        /// <summary>Leave in float what is not faster quantized, measured here.</summary>
        public bool NeverSlower { get; set; }

        /// <summary>Calibration data that is no text: values of inputs by name, whose first dimension counts
        /// samples.</summary>
        public IDictionary<string, Tensor> CalibrationTensors { get; set; }

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
        /// <summary>Makes inputs of texts; null generates them from the model's signature.</summary>
        public Tokenizer Tokenizer { get; set; }

        /// <summary>Timed rounds; 0 is 50.</summary>
        public uint Runs { get; set; }

        /// <summary>Rounds before the timed ones; 0 is 5.</summary>
        public uint Warmup { get; set; }

        /// <summary>0 is as the context says; with 1, processor time is measured.</summary>
        public uint Threads { get; set; }

        /// <summary>Rows of the timed input; 0 is 1.</summary>
        public uint BatchSize { get; set; }

        /// <summary>Tokens of each timed row; 0 is the length of the texts, or 128 without any.</summary>
        public uint SequenceLength { get; set; }

        /// <summary>After which the timed rounds end, but not before 5 of them; 0 is 30000.</summary>
        public uint MaxMilliseconds { get; set; }

        /// <summary>Of generated inputs and of the bootstrap.</summary>
        public uint Seed { get; set; }

        /// <summary>To compare the models on; without any, built-in sentences. Needs a tokenizer.</summary>
        public IList<string> Texts { get; set; }

        /// <summary>Each "NAME:2x3x4", for inputs whose sizes the model leaves open.</summary>
        public IList<string> Shapes { get; set; }

        /// <summary>Each "NAME:1,2,3", for inputs that random numbers do not suit.</summary>
        public IList<string> Values { get; set; }

        /// <summary>Values of inputs by name, in place of texts and of generated numbers: the first dimension counts the
        /// samples.</summary>
        public IDictionary<string, Tensor> Inputs { get; set; }

        /// <summary>The models' makers are trusted: engines that are ready in a model are code.</summary>
        public bool TrustEngines { get; set; }

        /// <summary>What it runs on; null is the processor.</summary>
        public Execution Execution { get; set; }

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
                TrustEngines = TrustEngines ? 1u : 0,
                InputNames = scratch.Texts(Inputs == null ? null : Inputs.Keys),
                InputTensors = scratch.Handles(Inputs == null ? null : Inputs.Values),
                InputCount = Inputs == null ? 0 : (ulong)Inputs.Count,
            };
        }
    }

    /// <summary>Where Model.Save puts weights: Auto is in the .onnx file up to 1 GiB, beside it above.</summary>
    public enum ExternalData { Auto = 0, Never = 1, Always = 2 }

    /// <summary>A loaded or made model. It is immutable.</summary>
    public sealed class Model : Handle
    {
        internal Model() { }

        /// <summary>The JSON of docs/report.md, if a technique made this model; else null.</summary>
        public string Report { get; internal set; }

        /// <summary>Loads the tokenizer.json beside the model; Status.NotFound if there is none.</summary>
        public Tokenizer LoadTokenizer()
        {
            Tokenizer tokenizer;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_model_tokenizer(this, out tokenizer, out error), error);
            return tokenizer;
        }

        /// <summary>A conversation as the text the model was trained on, by its chat template: a prompt that is
        /// Rendered. Status.NotFound if the model has no template.</summary>
        public string RenderChat(params Message[] messages) { return RenderChat(Message.ToJson(messages)); }

        /// <summary>The same for messages in JSON, which may have more in them:
        /// [{"role": "user", "content": "..."}, ...].</summary>
        public string RenderChat(string messages)
        {
            BufferHandle rendered;
            ErrorHandle error;
            int status = Native.optimize_model_render_chat(this, Utf8.Bytes(messages), out rendered, out error);
            OptimizeException.Check(status, error);
            return rendered.Take();
        }

        /// <summary>What a run must feed.</summary>
        public IList<ValueInfo> Inputs()
        {
            return ValueInfo.All(this, Native.optimize_model_input_count(this),
                (UIntPtr index, ref Native.ValueInfo info, out ErrorHandle error) =>
                    Native.optimize_model_input(this, index, ref info, out error));
        }

        /// <summary>What a run gives.</summary>
        public IList<ValueInfo> Outputs()
        {
            return ValueInfo.All(this, Native.optimize_model_output_count(this),
                (UIntPtr index, ref Native.ValueInfo info, out ErrorHandle error) =>
                    Native.optimize_model_output(this, index, ref info, out error));
        }

        /// <summary>What is inside, as the JSON of docs/report.md.</summary>
        public string Inspect()
        {
            BufferHandle report;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_model_inspect(this, out report, out error), error);
            return report.Take();
        }

        /// <summary>Saves a model, atomically: until it is complete and on the disk, what was at the path stays.
        /// Gives JSON: {"files": [{"path", "bytes", "sha256"}]}. Packed is one file in which zeros take next to nothing,
        /// and which only this library reads.</summary>
        public string Save(
            string path, ExternalData externalData = ExternalData.Auto, Call call = null, bool packed = false)
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
            return report.Take();
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr model) { Native.optimize_model_free(model); }
    }
}
