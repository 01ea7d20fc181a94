// Evaluation of models on data.

using System;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>The task of Context.Evaluate, and its data.</summary>
    public enum EvaluateTask
    {
        /// <summary>The model's own task.</summary>
        Default = 0,

        /// <summary>How well a language model predicts the data, which are plain text.</summary>
        Perplexity = 1,

        /// <summary>Similarity of two models' embeddings of the data, one text per line.</summary>
        Embedding = 2,

        /// <summary>Accuracy of a classifier. The data are rows of a label and a text, TSV or CSV.</summary>
        Classification = 3,

        /// <summary>Accuracy of a linear classifier on the embeddings. The data are as for Classification.</summary>
        Probe = 4,
    }

    /// <summary>Where the beginning-of-sequence token is inserted, for models whose tokenizer adds one.</summary>
    public enum Bos
    {
        /// <summary>At the start of every window, as in llama.cpp.</summary>
        EveryWindow = 0,

        /// <summary>At the start of the text only, as in the documentation of transformers.</summary>
        FirstWindow = 1,

        /// <summary>Never.</summary>
        Never = 2,
    }

    /// <summary>Options of Context.Evaluate. Options that a task does not use are ignored.</summary>
    public sealed class EvaluateOptions
    {
        /// <summary>Evaluation task.</summary>
        public EvaluateTask Task { get; set; }

        /// <summary>A second model for a comparison on the same data; null for none.</summary>
        [AllowNull, MaybeNull] public Model Against { get; set; }

        /// <summary>Tokenizer; null for the model's own.</summary>
        [AllowNull, MaybeNull] public Tokenizer Tokenizer { get; set; }

        /// <summary>Number of threads; 0 for the context's.</summary>
        public uint Threads { get; set; }

        /// <summary>Perplexity: window length in tokens; 0 for the model's maximum, up to 512.</summary>
        public uint ContextLength { get; set; }

        /// <summary>Perplexity: distance of windows in tokens; 0 for half of the context length.</summary>
        public uint Stride { get; set; }

        /// <summary>Perplexity: where the beginning-of-sequence token is inserted.</summary>
        public Bos Bos { get; set; }

        /// <summary>Perplexity: tokens of the text to read; 0 for all.</summary>
        public ulong MaxTokens { get; set; }

        /// <summary>Other tasks: number of lines or rows to use; 0 for all.</summary>
        public ulong MaxTexts { get; set; }

        /// <summary>Other tasks: maximum text length in tokens; 0 for the model's maximum, up to 512.</summary>
        public uint MaxLength { get; set; }

        /// <summary>Other tasks: texts per run; 0 for 1.</summary>
        public uint BatchSize { get; set; }

        /// <summary>Probe: seed of the split into training and test.</summary>
        public ulong Seed { get; set; }

        /// <summary>Probe: fraction of the texts held out for the test; 0 for 0.2.</summary>
        public double TestShare { get; set; }

        /// <summary>Probe: weight of the penalty on large weights; 0 for 0.5.</summary>
        public double Penalty { get; set; }

        /// <summary>Provider and device; null for the CPU.</summary>
        [AllowNull, MaybeNull] public Execution Execution { get; set; }

        internal Native.EvaluateOptions ToNative(Scratch scratch)
        {
            return new Native.EvaluateOptions
            {
                StructSize = Handle.SizeOf<Native.EvaluateOptions>(),
                Task = (int)Task,
                Threads = Threads,
                ContextLength = ContextLength,
                Stride = Stride,
                Bos = (int)Bos,
                MaxLength = MaxLength,
                BatchSize = BatchSize,
                MaxTokens = MaxTokens,
                MaxTexts = MaxTexts,
                Seed = Seed,
                TestShare = TestShare,
                Penalty = Penalty,
                Provider = Execution == null ? 0 : (int)Execution.Provider,
                DeviceId = Execution == null ? 0 : Execution.DeviceId,
                EngineCache = scratch.Text(Execution == null ? null : Execution.EngineCache),
                Kernels = Execution == null ? 0 : (int)Execution.Kernels,
                Precision = Execution == null ? 0 : (int)Execution.Precision,
            };
        }
    }

    public sealed partial class Context
    {
        /// <summary>Measures a model on data (the content of a file), alone or against another model. Returns the
        /// JSON of docs/report.md.</summary>
        public Report Evaluate(Model model, string data, [AllowNull] EvaluateOptions options = null,
            [AllowNull] Call call = null)
        {
            if (data == null) throw new ArgumentNullException("data");
            options = options ?? new EvaluateOptions();
            var bytes = Utf8.BytesWithoutEnd(data);
            var against = options.Against ?? new Model(); // NULL to the library
            var tokenizer = options.Tokenizer ?? new Tokenizer(); // NULL to the library
            BufferHandle report = null;
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_evaluate(this,
                    model, against, tokenizer, bytes, (UIntPtr)bytes.Length, ref given, ref native, out report,
                        out error));
            }
            return new Report(report);
        }
    }

    internal static partial class Native
    {
        [StructLayout(LayoutKind.Sequential)]
        internal struct EvaluateOptions
        {
            internal uint StructSize;
            internal int Task;
            internal uint Threads, ContextLength, Stride;
            internal int Bos;
            internal uint MaxLength, BatchSize;
            internal ulong MaxTokens, MaxTexts, Seed;
            internal double TestShare, Penalty;
            internal int Provider;
            internal uint DeviceId;
            internal IntPtr EngineCache;
            internal int Kernels, Precision;
        }

        [DllImport(Library)] internal static extern int optimize_model_evaluate(
            Context context, Model model, Model against, Tokenizer tokenizer, byte[] data, UIntPtr size,
            ref EvaluateOptions options, ref Call call, out BufferHandle report, out ErrorHandle error);
    }
}
