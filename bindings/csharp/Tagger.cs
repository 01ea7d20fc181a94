// Token classification: texts to labelled spans.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;

namespace Optimize
{
    /// <summary>How the tokens of an entity become one span.</summary>
    public enum Aggregation
    {
        /// <summary>Adjacent tokens of one class.</summary>
        Simple = 0,

        /// <summary>Each token, with its label as it is.</summary>
        None = 1,

        /// <summary>Words, by their first tokens.</summary>
        First = 2,

        /// <summary>Words, by the mean scores of their tokens.</summary>
        Average = 3,

        /// <summary>Words, by their tokens with the highest scores.</summary>
        Max = 4,
    }

    /// <summary>Options of Context.CreateTagger.</summary>
    public sealed class TaggerOptions
    {
        /// <summary>Tokenizer; null for the model's own.</summary>
        [AllowNull, MaybeNull] public Tokenizer Tokenizer { get; set; }

        /// <summary>Number of threads; 0 for the context's.</summary>
        public uint Threads { get; set; }

        /// <summary>Texts per run; 0 for 8.</summary>
        public uint BatchSize { get; set; }

        /// <summary>Tokens of a window; 0 for the model's limit, up to 512. Longer texts are read in several.</summary>
        public uint MaxLength { get; set; }

        /// <summary>Tokens by which the windows of a long text overlap; 0 for a quarter of a window.</summary>
        public uint Stride { get; set; }

        /// <summary>How tokens become spans.</summary>
        public Aggregation Aggregation { get; set; }

        /// <summary>Return spans with the label "O" too.</summary>
        public bool KeepOutside { get; set; }

        /// <summary>Provider and device; null for the CPU.</summary>
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

    /// <summary>A part of a text with a label. Offsets count UTF-16 units, as those of a string.</summary>
    public sealed class Span
    {
        internal Span(string label, float score, int start, int end)
        {
            Label = label;
            Score = score;
            Start = start;
            End = end;
        }

        /// <summary>The class of the entity, or with Aggregation.None the label of the token.</summary>
        public string Label { get; private set; }

        /// <summary>Probability of the label.</summary>
        public float Score { get; private set; }

        /// <summary>Index of the first character in the text.</summary>
        public int Start { get; private set; }

        /// <summary>Index after the last character.</summary>
        public int End { get; private set; }
    }

    /// <summary>Turns texts into labelled spans: named entities, parts of speech. Any number of threads may use it at the
    /// same time.</summary>
    public sealed partial class Tagger : Handle
    {
        internal Tagger() { }

        /// <summary>Returns the spans of each text, in the order of the text.</summary>
        public IList<IList<Span>> Tag(IList<string> texts, [AllowNull] Call call = null)
        {
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
        /// <summary>Loads a model for token classification.</summary>
        public Tagger CreateTagger(
            Model model, [AllowNull] TaggerOptions options = null, [AllowNull] Call call = null)
        {
            options = options ?? new TaggerOptions();
            Tagger tagger = null;
            using (var scratch = new Scratch())
            {
                var given = options.ToNative(scratch);
                var tokenizer = options.Tokenizer ?? new Tokenizer(); // NULL to the library
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
