// Embedders, which compute vectors of texts, and classifiers, which compute scores of classes for texts.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>Options of Context.CreateEmbedder.</summary>
    public sealed class EmbedderOptions
    {
        /// <summary>Tokenizer of the texts; null for that of the model.</summary>
        [AllowNull, MaybeNull] public Tokenizer Tokenizer { get; set; }

        /// <summary>Number of threads; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Number of texts per run; 0 for 8.</summary>
        public uint BatchSize { get; set; }

        /// <summary>Number of tokens after which a text is truncated; 0 for the limit for texts in the model's files,
        /// or else the number of positions of the model, up to 512.</summary>
        public uint MaxLength { get; set; }

        /// <summary>Number of elements to keep of each vector, its first ones; 0 for truncate_dim in the model's files,
        /// or else all.</summary>
        public uint Dimensions { get; set; }

        /// <summary>Whether vectors are normalized to length 1, even if the model does not ask for it.</summary>
        public bool Normalize { get; set; }

        /// <summary>Text that precedes every text, empty for none; null for the default prompt of the model.</summary>
        [AllowNull, MaybeNull] public string Prompt { get; set; }

        /// <summary>Name of a prompt of the model, such as "query"; null for none. Only one of Prompt and PromptName
        /// may be set.</summary>
        [AllowNull, MaybeNull] public string PromptName { get; set; }

        /// <summary>Execution provider, device, kernels and precision; null for the defaults of Execution.</summary>
        [AllowNull, MaybeNull] public Execution Execution { get; set; }

        internal Native.EmbedderOptions ToNative(Scratch scratch)
        {
            var execution = Execution ?? new Execution();
            return new Native.EmbedderOptions
            {
                StructSize = Handle.SizeOf<Native.EmbedderOptions>(),
                Threads = Threads,
                BatchSize = BatchSize,
                MaxLength = MaxLength,
                Dimensions = Dimensions,
                Normalize = Normalize ? 1u : 0,
                Prompt = scratch.Text(Prompt),
                PromptName = scratch.Text(PromptName),
                Provider = (int)execution.Provider,
                DeviceId = execution.DeviceId,
                EngineCache = scratch.Text(execution.EngineCache),
                Kernels = (int)execution.Kernels,
                Precision = (int)execution.Precision,
            };
        }
    }

    /// <summary>An embedder, which computes vectors of texts. Any number of threads may use it at the same
    /// time.</summary>
    public sealed partial class Embedder : Handle
    {
        internal Embedder() { }

        /// <summary>Returns the vectors of texts, a float32 tensor of shape [texts, width]. Throws
        /// Status.InvalidArgument if there are no texts, if a text has no tokens, or if Dimensions of the options is
        /// larger than the width of the model's vectors.</summary>
        public Tensor Embed(IList<string> texts, [AllowNull] Call call = null)
        {
            Need(texts, "texts");
            Tensor vectors = null;
            using (var scratch = new Scratch())
            {
                var given = scratch.Texts(texts);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_embedder_embed(
                    this, given, (UIntPtr)texts.Count, ref native, out vectors, out error));
            }
            return vectors;
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr embedder) { Native.optimize_embedder_free(embedder); }
    }

    /// <summary>Function that turns the logits of a classifier into scores.</summary>
    public enum ScoreFunction
    {
        /// <summary>The function of the model: none if its output contains scores already, otherwise the one that its
        /// files select, which is softmax by default, or sigmoid for a single class or multi-label
        /// classification.</summary>
        Auto = 0,

        /// <summary>Softmax: the scores of a text are at least 0, and their sum is 1.</summary>
        Softmax = 1,

        /// <summary>Sigmoid: each score is between 0 and 1.</summary>
        Sigmoid = 2,

        /// <summary>No function: the scores are the values of the model's output.</summary>
        None = 3,
    }

    /// <summary>Options of Context.CreateClassifier.</summary>
    public sealed class ClassifierOptions
    {
        /// <summary>Tokenizer of the texts; null for that of the model.</summary>
        [AllowNull, MaybeNull] public Tokenizer Tokenizer { get; set; }

        /// <summary>Number of threads; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Number of texts per run; 0 for 8.</summary>
        public uint BatchSize { get; set; }

        /// <summary>Number of tokens after which a text or pair is truncated; 0 for the limit for texts in the model's
        /// files, or else the number of positions of the model, up to 512.</summary>
        public uint MaxLength { get; set; }

        /// <summary>Function that turns logits into scores.</summary>
        public ScoreFunction ScoreFunction { get; set; }

        /// <summary>Execution provider, device, kernels and precision; null for the defaults of Execution.</summary>
        [AllowNull, MaybeNull] public Execution Execution { get; set; }

        internal Native.ClassifierOptions ToNative(Scratch scratch)
        {
            var execution = Execution ?? new Execution();
            return new Native.ClassifierOptions
            {
                StructSize = Handle.SizeOf<Native.ClassifierOptions>(),
                Threads = Threads,
                BatchSize = BatchSize,
                MaxLength = MaxLength,
                ScoreFunction = (int)ScoreFunction,
                Provider = (int)execution.Provider,
                DeviceId = execution.DeviceId,
                Kernels = (int)execution.Kernels,
                EngineCache = scratch.Text(execution.EngineCache),
                Precision = (int)execution.Precision,
            };
        }
    }

    /// <summary>A classifier, which computes scores of classes for texts or pairs of texts. Any number of threads may
    /// use it at the same time.</summary>
    public sealed partial class Classifier : Handle
    {
        internal Classifier() { }

        /// <summary>Returns the labels of the classes, by index. A class without a name in the model's configuration
        /// has its index as label. The list is empty if the model does not give the number of its classes.</summary>
        public IList<string> Labels()
        {
            var labels = new List<string>();
            var count = (ulong)Native.optimize_classifier_label_count(this);
            for (ulong i = 0; i < count; i++)
                labels.Add(Utf8.Read(Native.optimize_classifier_label(this, (UIntPtr)i)));
            return labels;
        }

        /// <summary>Returns the scores of texts, a float32 tensor of shape [texts, classes]. If
        /// <paramref name="second"/> is not null, row i has the scores of the pair of text i and second text i. Throws
        /// Status.InvalidArgument if there are no texts, and ArgumentException if the numbers of texts and second texts
        /// differ.</summary>
        public Tensor Classify(IList<string> texts, [AllowNull] IList<string> second = null,
            [AllowNull] Call call = null)
        {
            Need(texts, "texts");
            if (second != null && second.Count != texts.Count)
                throw new ArgumentException("the numbers of texts and of second texts differ", "second");
            Tensor scores = null;
            using (var scratch = new Scratch())
            {
                IntPtr given = scratch.Texts(texts), pairs = scratch.Texts(second);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_classifier_classify(
                    this, given, pairs, (UIntPtr)texts.Count, ref native, out scores, out error));
            }
            return scores;
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr classifier) { Native.optimize_classifier_free(classifier); }
    }

    public sealed partial class Context
    {
        /// <summary>Creates an embedder of a model, which may be disposed of before the embedder. Throws
        /// Status.Unsupported if the model has no output with vectors, Status.NotFound if there is no tokenizer or no
        /// prompt with the name PromptName, Status.InvalidArgument if both Prompt and PromptName are set, and otherwise
        /// the same as CreateSession.</summary>
        public Embedder CreateEmbedder(Model model, [AllowNull] EmbedderOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(model, "model");
            options = options ?? new EmbedderOptions();
            Embedder embedder = null;
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                var tokenizer = options.Tokenizer ?? new Tokenizer(); // without a handle: NULL for the library
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_embedder_new(
                    this, model, tokenizer, ref given, ref native, out embedder, out error));
            }
            return embedder;
        }

        /// <summary>Creates a classifier of a model, which may be disposed of before the classifier. Throws
        /// Status.Unsupported if the model is not a classifier of texts, or if ScoreFunction is Auto and the model's
        /// files name an unknown function; Status.NotFound if there is no tokenizer; and otherwise the same as
        /// CreateSession.</summary>
        public Classifier CreateClassifier(Model model, [AllowNull] ClassifierOptions options = null,
            [AllowNull] Call call = null)
        {
            Need(model, "model");
            options = options ?? new ClassifierOptions();
            Classifier classifier = null;
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                var tokenizer = options.Tokenizer ?? new Tokenizer(); // without a handle: NULL for the library
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_classifier_new(
                    this, model, tokenizer, ref given, ref native, out classifier, out error));
            }
            return classifier;
        }
    }

    internal static partial class Native
    {
        [StructLayout(LayoutKind.Sequential)]
        internal struct EmbedderOptions
        {
            internal uint StructSize, Threads, BatchSize, MaxLength, Dimensions, Normalize;
            internal IntPtr Prompt, PromptName;
            internal int Provider;
            internal uint DeviceId;
            internal IntPtr EngineCache;
            internal int Kernels, Precision;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct ClassifierOptions
        {
            internal uint StructSize, Threads, BatchSize, MaxLength;
            internal int ScoreFunction, Provider;
            internal uint DeviceId;
            internal int Kernels;
            internal IntPtr EngineCache;
            internal int Precision;
            internal uint Reserved;
        }

        [DllImport(Library)] internal static extern int optimize_embedder_new(
            Context context, Model model, Tokenizer tokenizer, ref EmbedderOptions options, ref Call call,
            out Embedder embedder, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_embedder_embed(
            Embedder embedder, IntPtr texts, UIntPtr count, ref Call call, out Tensor vectors, out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_embedder_free(IntPtr embedder);
        [DllImport(Library)] internal static extern int optimize_classifier_new(
            Context context, Model model, Tokenizer tokenizer, ref ClassifierOptions options, ref Call call,
            out Classifier classifier, out ErrorHandle error);
        [DllImport(Library)] internal static extern UIntPtr optimize_classifier_label_count(Classifier classifier);
        [DllImport(Library)] internal static extern IntPtr optimize_classifier_label(
            Classifier classifier, UIntPtr index);
        [DllImport(Library)] internal static extern int optimize_classifier_classify(
            Classifier classifier, IntPtr texts, IntPtr secondTexts, UIntPtr count, ref Call call, out Tensor scores,
            out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_classifier_free(IntPtr classifier);
    }
}
