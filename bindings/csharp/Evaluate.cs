// Evaluation of models on data.

using System;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>Evaluation task of Context.Evaluate. It determines the format of the data.</summary>
    public enum EvaluateTask
    {
        /// <summary>The task that fits the model: perplexity for text generation, embedding for embedding models,
        /// classification for classifiers.</summary>
        Default = 0,

        /// <summary>Perplexity of a language model on plain text.</summary>
        Perplexity = 1,

        /// <summary>Similarity of two models' embeddings of texts, one per line.</summary>
        Embedding = 2,

        /// <summary>Accuracy of a classifier. The data are rows with a label and a text, as TSV or CSV.</summary>
        Classification = 3,

        /// <summary>Accuracy of a linear classifier that is trained on the model's embeddings. The data have the
        /// format of Classification.</summary>
        Probe = 4,
    }

    /// <summary>Position of the beginning-of-sequence token, for models whose tokenizer has one.</summary>
    public enum Bos
    {
        /// <summary>At the start of every window, as in llama.cpp.</summary>
        EveryWindow = 0,

        /// <summary>At the start of the text only, as in the documentation of transformers.</summary>
        FirstWindow = 1,

        /// <summary>Nowhere: the token is not inserted.</summary>
        Never = 2,
    }

    /// <summary>Options of Context.Evaluate. Options that a task does not use are ignored.</summary>
    public sealed class EvaluateOptions
    {
        /// <summary>Evaluation task.</summary>
        public EvaluateTask Task { get; set; }

        /// <summary>Changed model, which is compared with the model on the same data; null for none.</summary>
        [AllowNull, MaybeNull] public Model Against { get; set; }

        /// <summary>Tokenizer of the data; null for that of the model.</summary>
        [AllowNull, MaybeNull] public Tokenizer Tokenizer { get; set; }

        /// <summary>Number of threads; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Perplexity: number of tokens per window; 0 for the limit of the model, up to 512.</summary>
        public uint ContextLength { get; set; }

        /// <summary>Perplexity: number of tokens between the starts of two windows; 0 for half of the context
        /// length.</summary>
        public uint Stride { get; set; }

        /// <summary>Perplexity: position of the beginning-of-sequence token.</summary>
        public Bos Bos { get; set; }

        /// <summary>Perplexity: maximum number of tokens of the text to use; 0 for all.</summary>
        public ulong MaxTokens { get; set; }

        /// <summary>Other tasks: maximum number of lines or rows to use; 0 for all.</summary>
        public ulong MaxTexts { get; set; }

        /// <summary>Other tasks: number of tokens after which a text is truncated; 0 for the limit for texts in the
        /// model's files, or else the number of positions of the model, up to 512.</summary>
        public uint MaxLength { get; set; }

        /// <summary>Other tasks: number of texts per run; 0 for 1.</summary>
        public uint BatchSize { get; set; }

        /// <summary>Probe: seed of the split into training set and test set.</summary>
        public ulong Seed { get; set; }

        /// <summary>Probe: share of the texts of each class in the test set, below 1; 0 for 0.2.</summary>
        public double TestShare { get; set; }

        /// <summary>Probe: L2 penalty on the weights of the linear classifier; 0 for 0.5, negative for none.
        /// </summary>
        public double Penalty { get; set; }

        /// <summary>Execution provider, device, kernels and precision; null for the defaults of Execution.</summary>
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
        /// <summary>Evaluates a model on data, the content of a file in the format of the task. If Against of the
        /// options is not null, which EvaluateTask.Embedding requires, both models are compared on the data. Returns
        /// the JSON of docs/report.md. Throws Status.NotFound if there is no tokenizer, and Status.InvalidArgument if
        /// the data do not have the format of the task, if options do not fit the model, or if the models cannot be
        /// compared. Also throws Status.Unsupported if a model does not support the task; Status.LimitExceeded above 64
        /// MiB of data; and otherwise the same as CreateSession.</summary>
        public Report Evaluate(Model model, string data, [AllowNull] EvaluateOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(model, "model");
            if (data == null) throw new ArgumentNullException("data");
            options = options ?? new EvaluateOptions();
            var bytes = Utf8.BytesWithoutEnd(data);
            // Objects without a handle are NULL for the library.
            var against = options.Against ?? new Model();
            var tokenizer = options.Tokenizer ?? new Tokenizer();
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
