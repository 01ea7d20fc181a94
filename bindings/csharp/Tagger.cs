// Taggers, which find labelled spans in texts (token classification).

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>Rule by which the tokens of a text become spans.</summary>
    public enum Aggregation
    {
        /// <summary>Adjacent tokens of one class become a span, whose score is the mean of the scores of the
        /// tokens.</summary>
        Simple = 0,

        /// <summary>Each token is a span, with its label as it is.</summary>
        None = 1,

        /// <summary>A word has the class of its first token; adjacent words of one class become a span.</summary>
        First = 2,

        /// <summary>A word has the class with the highest mean score over its tokens; adjacent words of one class
        /// become a span.</summary>
        Average = 3,

        /// <summary>A word has the class of its token with the highest score; adjacent words of one class become a
        /// span.</summary>
        Max = 4,
    }

    /// <summary>Options of Context.CreateTagger.</summary>
    public sealed class TaggerOptions
    {
        /// <summary>Tokenizer of the texts; null for that of the model.</summary>
        [AllowNull, MaybeNull] public Tokenizer Tokenizer { get; set; }

        /// <summary>Number of threads; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Number of texts per run; 0 for 8.</summary>
        public uint BatchSize { get; set; }

        /// <summary>Number of tokens of a window, including special tokens; 0 for the limit for texts in the model's
        /// files, or else the number of positions of the model, up to 512. Longer texts are divided into overlapping
        /// windows.</summary>
        public uint MaxLength { get; set; }

        /// <summary>Number of tokens by which the windows of a long text overlap; 0 for a quarter of a
        /// window.</summary>
        public uint Stride { get; set; }

        /// <summary>Rule by which tokens become spans.</summary>
        public Aggregation Aggregation { get; set; }

        /// <summary>Whether spans with the label "O", which belong to no entity, are returned as well.</summary>
        public bool KeepOutside { get; set; }

        /// <summary>Execution provider, device, kernels and precision; null for the defaults of Execution.</summary>
        [AllowNull, MaybeNull] public Execution Execution { get; set; }

        internal Native.TaggerOptions ToNative(Scratch scratch)
        {
            var execution = Execution ?? new Execution();
            return new Native.TaggerOptions
            {
                StructSize = Handle.SizeOf<Native.TaggerOptions>(),
                Threads = Threads,
                BatchSize = BatchSize,
                MaxLength = MaxLength,
                Stride = Stride,
                Aggregation = (int)Aggregation,
                KeepOutside = KeepOutside ? 1u : 0,
                Provider = (int)execution.Provider,
                DeviceId = execution.DeviceId,
                Kernels = (int)execution.Kernels,
                EngineCache = scratch.Text(execution.EngineCache),
                Precision = (int)execution.Precision,
            };
        }
    }

    /// <summary>A labelled part of a text. Start and End count UTF-16 code units, like the indices of a
    /// string.</summary>
    public sealed class Span
    {
        internal Span(string label, float score, int start, int end)
        {
            Label = label;
            Score = score;
            Start = start;
            End = end;
        }

        /// <summary>Class of the entity, for example "PER": the label without the prefix "B-" or "I-". With
        /// Aggregation.None it is the label of the token, for example "B-PER".</summary>
        public string Label { get; private set; }

        /// <summary>Probability of the label: the mean over the tokens or words of the span.</summary>
        public float Score { get; private set; }

        /// <summary>Index of the first UTF-16 code unit of the span in the text.</summary>
        public int Start { get; private set; }

        /// <summary>Index after the last UTF-16 code unit of the span in the text.</summary>
        public int End { get; private set; }
    }

    /// <summary>A tagger, which finds labelled spans in texts, such as named entities or parts of speech. Any number
    /// of threads may use it at the same time.</summary>
    public sealed partial class Tagger : Handle
    {
        internal Tagger() { }

        /// <summary>Returns a list of spans for each text, in the order of the text; empty for a text without spans.
        /// Throws Status.InvalidArgument if there are no texts, Status.Unsupported if the output does not have the
        /// shape [texts, tokens, labels], Status.InvalidModel if the model names another number of labels than it has,
        /// and Status.Runtime if a score is not a number or ONNX Runtime fails.</summary>
        public IList<IList<Span>> Tag(IList<string> texts, [AllowNull] Call call = null)
        {
            Need(texts, "texts");
            SpansHandle found = null;
            using (var scratch = new Scratch())
            {
                IntPtr given = scratch.Texts(texts);
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_tagger_tag(
                    this, given, (UIntPtr)texts.Count, ref native, out found, out error));
            }
            var all = new List<IList<Span>>();
            using (found)
                for (int text = 0; text < texts.Count; text++) all.Add(Spans(found, text, Utf8.Bytes(texts[text])));
            return all;
        }

        private static IList<Span> Spans(SpansHandle found, int text, byte[] bytes)
        {
            var spans = new List<Span>();
            var count = (ulong)Native.optimize_spans_count(found, (UIntPtr)text);
            for (ulong i = 0; i < count; i++)
            {
                var span = new Native.Span { StructSize = SizeOf<Native.Span>() };
                ErrorHandle error;
                OptimizeException.Check(
                    Native.optimize_spans_get(found, (UIntPtr)text, (UIntPtr)i, ref span, out error), error);
                Func<ulong, int> index = offset => System.Text.Encoding.UTF8.GetCharCount(bytes, 0, (int)offset);
                spans.Add(new Span(Utf8.Read(span.Label), span.Score, index(span.Start), index(span.End)));
            }
            return spans;
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr tagger) { Native.optimize_tagger_free(tagger); }
    }

    internal sealed class SpansHandle : Handle
    {
        internal SpansHandle() { }

        protected override void Free(IntPtr spans) { Native.optimize_spans_free(spans); }
    }

    public sealed partial class Context
    {
        /// <summary>Creates a tagger of a model for token classification, which may be disposed of before the tagger.
        /// Throws Status.Unsupported if the model has no logits for tokens or does not name its labels, Status.NotFound
        /// if there is no tokenizer, Status.InvalidArgument if options do not fit the model, and otherwise the same as
        /// CreateSession.</summary>
        public Tagger CreateTagger(
            Model model, [AllowNull] TaggerOptions options = null, [AllowNull] Call call = null)
        {
            Need(model, "model");
            options = options ?? new TaggerOptions();
            Tagger tagger = null;
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                var tokenizer = options.Tokenizer ?? new Tokenizer(); // without a handle: NULL for the library
                Call.Run(call, (ref Native.Call native, out ErrorHandle error) => Native.optimize_tagger_new(
                    this, model, tokenizer, ref given, ref native, out tagger, out error));
            }
            return tagger;
        }
    }

    internal static partial class Native
    {
        [StructLayout(LayoutKind.Sequential)]
        internal struct TaggerOptions
        {
            internal uint StructSize, Threads, BatchSize, MaxLength, Stride;
            internal int Aggregation;
            internal uint KeepOutside;
            internal int Provider;
            internal uint DeviceId;
            internal int Kernels;
            internal IntPtr EngineCache;
            internal int Precision;
            internal uint Reserved;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct Span
        {
            internal uint StructSize;
            internal float Score;
            internal IntPtr Label;
            internal ulong Start, End;
        }

        [DllImport(Library)] internal static extern int optimize_tagger_new(
            Context context, Model model, Tokenizer tokenizer, ref TaggerOptions options, ref Call call,
            out Tagger tagger, out ErrorHandle error);
        [DllImport(Library)] internal static extern int optimize_tagger_tag(
            Tagger tagger, IntPtr texts, UIntPtr count, ref Call call, out SpansHandle spans, out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_tagger_free(IntPtr tagger);
        [DllImport(Library)] internal static extern UIntPtr optimize_spans_count(SpansHandle spans, UIntPtr text);
        [DllImport(Library)] internal static extern int optimize_spans_get(
            SpansHandle spans, UIntPtr text, UIntPtr index, ref Span span, out ErrorHandle error);
        [DllImport(Library)] internal static extern void optimize_spans_free(IntPtr spans);
    }
}
