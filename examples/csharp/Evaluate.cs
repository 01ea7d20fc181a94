// What a model is worth on data.

using System;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>What Context.Evaluate measures, and what the data are for it.</summary>
    public enum EvaluateTask
    {
        /// <summary>What the model is for.</summary>
        Default = 0,

        /// <summary>How well a language model foresees the data, which are plain text.</summary>
        Perplexity = 1,

        /// <summary>How alike two models embed the data, one text a line.</summary>
        Embedding = 2,

        /// <summary>How often a classifier is right. The data are rows of a label and a text, TSV or CSV.</summary>
        Classification = 3,

        /// <summary>How well a linear classifier does on the embeddings. The data are as for Classification.</summary>
        Probe = 4,
    }

    /// <summary>Where the token that begins a text stands, for models whose tokenizer puts one.</summary>
    public enum Bos { EveryWindow = 0, FirstWindow = 1, Never = 2 }

    /// <summary>Options of Context.Evaluate. What a task does not need is passed over.</summary>
    public sealed class EvaluateOptions
    {
        public EvaluateTask Task { get; set; }

        /// <summary>A model to compare with on the same data; null measures one alone.</summary>
        public Model Against { get; set; }

        /// <summary>Null is the one that belongs to the model.</summary>
        public Tokenizer Tokenizer { get; set; }

        /// <summary>0 is as the context says.</summary>
        public uint Threads { get; set; }

        /// <summary>Perplexity: tokens of a window; 0 is what the model takes, up to 512.</summary>
        public uint ContextLength { get; set; }

        /// <summary>Perplexity: tokens from one window to the next; 0 is half of the context length.</summary>
        public uint Stride { get; set; }

        /// <summary>Perplexity.</summary>
        public Bos Bos { get; set; }

        /// <summary>Perplexity: tokens of the text to read; 0 is all.</summary>
        public ulong MaxTokens { get; set; }

        /// <summary>Other tasks: lines or rows to use; 0 is all.</summary>
        public ulong MaxTexts { get; set; }

        /// <summary>Other tasks: tokens after which a text is cut; 0 is what the model takes, up to 512.</summary>
        public uint MaxLength { get; set; }

        /// <summary>Other tasks: texts in one run; 0 is 1.</summary>
        public uint BatchSize { get; set; }

        /// <summary>Probe: of the split into training and test.</summary>
        public ulong Seed { get; set; }

        /// <summary>Probe: share of the texts that is kept for the test; 0 is 0.2.</summary>
        public double TestShare { get; set; }

        /// <summary>Probe: weight of the penalty on large weights; 0 is 0.5.</summary>
        public double Penalty { get; set; }

        /// <summary>What it runs on; null is the processor.</summary>
        public Execution Execution { get; set; }

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
            };
        }
    }

    public sealed partial class Context
    {
        /// <summary>Measures what a model is worth on data, the content of a file, alone or against another. Gives the
        /// JSON of docs/report.md.</summary>
        public string Evaluate(Model model, string data, EvaluateOptions options = null, Call call = null)
        {
            if (data == null) throw new ArgumentNullException("data");
            options = options ?? new EvaluateOptions();
            var bytes = Utf8.BytesWithoutEnd(data);
            var against = options.Against ?? new Model(); // NULL to the library
            var tokenizer = options.Tokenizer ?? new Tokenizer(); // this too
            BufferHandle report = null;
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_model_evaluate(this,
                    model, against, tokenizer, bytes, (UIntPtr)bytes.Length, ref given, ref native, out report, out error));
            }
            return report.Take();
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
        }

        [DllImport(Library)] internal static extern int optimize_model_evaluate(
            Context context, Model model, Model against, Tokenizer tokenizer, byte[] data, UIntPtr size,
            ref EvaluateOptions options, ref Call call, out BufferHandle report, out ErrorHandle error);
    }
}
