// Generators: models that generate text.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace Optimize
{
    /// <summary>Whether a model thinks before it answers.</summary>
    public enum Thinking
    {
        /// <summary>The default of the template.</summary>
        Template = 0,

        /// <summary>The model thinks.</summary>
        On = 1,

        /// <summary>The model answers at once.</summary>
        Off = 2,
    }

    /// <summary>Options of Model.ApplyChatTemplate.</summary>
    public sealed class ChatOptions
    {
        /// <summary>Leave out the beginning of the answer, which otherwise ends the prompt.</summary>
        public bool NoGenerationPrompt { get; set; }

        /// <summary>Tools that the model may call, a JSON list of their schemas; null for none.</summary>
        [AllowNull, MaybeNull] public string Tools { get; set; }

        /// <summary>Further variables of the template, a JSON object; null for none.</summary>
        [AllowNull, MaybeNull] public string Variables { get; set; }

        /// <summary>Whether the model thinks before it answers.</summary>
        public Thinking Thinking { get; set; }
    }

    /// <summary>A message of a conversation.</summary>
    public sealed class Message
    {
        /// <summary>Makes a message.</summary>
        public Message(string role, string content)
        {
            Role = role;
            Content = content;
        }

        /// <summary>"system", "user", "assistant", or another role that the model's template supports.</summary>
        public string Role { get; private set; }

        /// <summary>Text of the message.</summary>
        public string Content { get; private set; }

        internal static string ToJson(IEnumerable<Message> messages)
        {
            var json = new StringBuilder("[");
            foreach (var message in messages)
            {
                if (json.Length > 1) json.Append(',');
                AppendText(json.Append("{\"role\":"), message.Role);
                AppendText(json.Append(",\"content\":"), message.Content);
                json.Append('}');
            }
            return json.Append(']').ToString();
        }

        private static void AppendText(StringBuilder json, string text)
        {
            json.Append('"');
            foreach (char c in text)
            {
                if (c < ' ') json.Append("\\u").Append(((int)c).ToString("x4"));
                else if (c == '"' || c == '\\') json.Append('\\').Append(c);
                else json.Append(c);
            }
            json.Append('"');
        }
    }

    /// <summary>The reason why a text ends: the model generated an end-of-sequence token, a limit was reached, a stop
    /// string was generated, or OnToken requested the end. None: the text continues.</summary>
    public enum FinishReason
    {
        /// <summary>The text has not ended.</summary>
        None = 0,

        /// <summary>The model generated an end-of-text token.</summary>
        Eos = 1,

        /// <summary>A limit was reached.</summary>
        Length = 2,

        /// <summary>A stop string or a stop token was found.</summary>
        Stop = 3,

        /// <summary>The callback requested to stop.</summary>
        Cancelled = 4,
    }

    /// <summary>A token, as it is generated.</summary>
    public struct Written
    {
        internal Written(IntPtr written) : this()
        {
            var native = Marshal.PtrToStructure<Native.Written>(written);
            Row = native.Row;
            Token = native.Token;
            Text = Utf8.Read(native.Text, (long)native.TextSize);
            Logprob = native.Logprob;
            FinishReason = (FinishReason)native.FinishReason;
            Entropy = native.Entropy;
            MutualInformation = native.MutualInformation;
            Agreement = native.Agreement;
        }

        /// <summary>Index of the row.</summary>
        public uint Row { get; private set; }

        /// <summary>Id of the token.</summary>
        public long Token { get; private set; }

        /// <summary>Final text: whole characters, no part of a stop string. Often empty.</summary>
        public string Text { get; private set; }

        /// <summary>Log-probability of the token, if requested; otherwise 0.</summary>
        public float Logprob { get; private set; }

        /// <summary>Set for the last token of a row.</summary>
        public FinishReason FinishReason { get; private set; }

        /// <summary>For an ensemble: entropy of the combined distribution, in nats; otherwise 0.</summary>
        public double Entropy { get; private set; }

        /// <summary>For an ensemble: part of the entropy caused by disagreement, in nats; otherwise 0.</summary>
        public double MutualInformation { get; private set; }

        /// <summary>For an ensemble: fraction of the members that would choose this token; otherwise 0.</summary>
        public double Agreement { get; private set; }
    }

    /// <summary>Options of Context.CreateGenerator.</summary>
    public sealed class GeneratorOptions
    {
        /// <summary>Number of threads; 0 for the context's.</summary>
        public uint Threads { get; set; }

        /// <summary>Faster with block-quantized weights, less exact.</summary>
        public bool RoundActivations { get; set; }

        /// <summary>Provider and device; null for the CPU.</summary>
        [AllowNull, MaybeNull] public Execution Execution { get; set; }

        internal Native.GeneratorOptions ToNative(Scratch scratch)
        {
            return new Native.GeneratorOptions
            {
                StructSize = Handle.SizeOf<Native.GeneratorOptions>(),
                Threads = Threads,
                RoundActivations = RoundActivations ? 1u : 0,
                Provider = Execution == null ? 0 : (int)Execution.Provider,
                DeviceId = Execution == null ? 0 : Execution.DeviceId,
                EngineCache = scratch.Text(Execution == null ? null : Execution.EngineCache),
                Kernels = Execution == null ? 0 : (int)Execution.Kernels,
                Precision = Execution == null ? 0 : (int)Execution.Precision,
            };
        }
    }

    /// <summary>Options of Generator.Generate, Run and Append. By default, the most probable token each time, at most
    /// 256 of them.</summary>
    public sealed class GenerateOptions
    {
        /// <summary>Maximum number of tokens to generate per row; 0 with MaxLength 0 for 256.</summary>
        public uint MaxNewTokens { get; set; }

        /// <summary>Maximum number of tokens per row, including the prompt; 0 for no limit.</summary>
        public uint MaxLength { get; set; }

        /// <summary>Sample from this many most probable tokens; 0 for all.</summary>
        public uint TopK { get; set; }

        /// <summary>Logits are divided by it before sampling; 0 always takes the most probable token.</summary>
        public float Temperature { get; set; }

        /// <summary>Sample from the most probable tokens that together have this probability; 0 for all.</summary>
        public float TopP { get; set; }

        /// <summary>Sample from tokens at least this many times as probable as the most probable; 0 for
        /// all.</summary>
        public float MinP { get; set; }

        /// <summary>Above 1, tokens of prompt and text become less probable; 0 disables it.</summary>
        public float RepetitionPenalty { get; set; }

        /// <summary>Subtracted from the logits of tokens already generated; 0 disables it.</summary>
        public float PresencePenalty { get; set; }

        /// <summary>Subtracted for each occurrence of a token already generated; 0 disables it.</summary>
        public float FrequencyPenalty { get; set; }

        /// <summary>No sequence of this many tokens appears twice; 0 disables it.</summary>
        public uint NoRepeatNgramSize { get; set; }

        /// <summary>0 for none, n for each token and the n - 1 most probable ones.</summary>
        public uint Logprobs { get; set; }

        /// <summary>The same seed gives the same text.</summary>
        public ulong Seed { get; set; }

        /// <summary>Strings that end a row's text and are not part of it.</summary>
        [AllowNull, MaybeNull] public IList<string> Stop { get; set; }

        /// <summary>Called for every token on the thread that makes the call. Returning false ends all rows. An
        /// exception ends them too, and is thrown by the call; the text generated so far can be continued.</summary>
        [AllowNull, MaybeNull] public Func<Written, bool> OnToken { get; set; }

        /// <summary>Prompts already contain special tokens, like those of Model.RenderChat.</summary>
        public bool Rendered { get; set; }

        /// <summary>Continue after end-of-sequence tokens.</summary>
        public bool IgnoreEos { get; set; }

        /// <summary>Ids of tokens that end a row's text and are not part of it.</summary>
        [AllowNull, MaybeNull] public IList<long> StopTokens { get; set; }

        internal GenerateOptions Copy() { return (GenerateOptions)MemberwiseClone(); }

        /// <summary>Sample with the settings that the model recommends, in place of those that are 0.</summary>
        public bool ModelSampling { get; set; }

        internal Native.GenerateOptions ToNative(Scratch scratch)
        {
            return new Native.GenerateOptions
            {
                StructSize = Handle.SizeOf<Native.GenerateOptions>(),
                MaxNewTokens = MaxNewTokens,
                MaxLength = MaxLength,
                TopK = TopK,
                Temperature = Temperature,
                TopP = TopP,
                MinP = MinP,
                RepetitionPenalty = RepetitionPenalty,
                PresencePenalty = PresencePenalty,
                FrequencyPenalty = FrequencyPenalty,
                NoRepeatNgramSize = NoRepeatNgramSize,
                Logprobs = Logprobs,
                Seed = Seed,
                Stop = scratch.Texts(Stop),
                StopCount = Scratch.Count(Stop),
                Rendered = Rendered ? 1u : 0,
                IgnoreEos = IgnoreEos ? 1u : 0,
                StopTokens = scratch.Ids(StopTokens),
                StopTokenCount = Scratch.Count(StopTokens),
                ModelSampling = ModelSampling ? 1u : 0,
            };
        }
    }

    /// <summary>A text-generating model with its cache. It runs one call at a time: a second one throws
    /// Status.Busy.</summary>
    public sealed partial class Generator : Handle
    {
        internal Generator() { }

        /// <summary>Generates a text after each prompt; earlier rows are dropped. Returns JSON: {"generations":
        /// [{"text", "tokens", "logprobs", "finish_reason", "prompt_tokens"}]}.</summary>
        public Report Generate(IList<string> prompts, [AllowNull] GenerateOptions options = null,
            [AllowNull] Call call = null)
        {
            using (var scratch = new Scratch())
            {
                UIntPtr[] sizes;
                var list = scratch.Prompts(prompts, out sizes);
                return Write(options, call, scratch,
                    (ref Native.GenerateOptions given, ref Native.Call native, out BufferHandle report,
                        out ErrorHandle error) => Native.optimize_generator_generate(this, list, sizes,
                            (UIntPtr)sizes.Length, ref given, ref native, out report, out error));
            }
        }

        /// <summary>Appends text to a row (0 for a conversation; this creates it), to be read by the next Run. Of the
        /// options, only Rendered matters.</summary>
        public void Append(uint row, string text, [AllowNull] GenerateOptions options = null)
        {
            using (var scratch = new Scratch())
            {
                var given = (options ?? new GenerateOptions()).ToNative(scratch);
                var bytes = Utf8.Bytes(text);
                ErrorHandle error;
                int status = Native.optimize_generator_append(
                    this, (UIntPtr)row, bytes, (UIntPtr)(bytes.Length - 1), ref given, out error);
                OptimizeException.Check(status, error);
            }
        }

        /// <summary>Continues all rows; only new tokens are computed. Returns the text generated by this call, like
        /// Generate.</summary>
        public Report Run([AllowNull] GenerateOptions options = null, [AllowNull] Call call = null)
        {
            using (var scratch = new Scratch())
                return Write(options, call, scratch,
                    (ref Native.GenerateOptions given, ref Native.Call native, out BufferHandle report,
                        out ErrorHandle error) => Native.optimize_generator_run(
                            this, ref given, ref native, out report, out error));
        }

        /// <summary>Drops all rows.</summary>
        public void Reset()
        {
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_generator_reset(this, out error), error);
        }

        private delegate int Writer(ref Native.GenerateOptions options, ref Native.Call call, out BufferHandle report,
            out ErrorHandle error);

        private static Report Write(GenerateOptions options, Call call, Scratch scratch, Writer write)
        {
            options = options ?? new GenerateOptions();
            var given = options.ToNative(scratch);
            var onToken = options.OnToken;
            var caught = new Caught();
            Native.TokenFn tell = (userData, written) => caught.Guard(() => onToken(new Written(written)));
            if (onToken != null) given.OnToken = Marshal.GetFunctionPointerForDelegate(tell);
            BufferHandle report = null;
            Call.Run(call, (ref Native.Call native, out ErrorHandle error) =>
                write(ref given, ref native, out report, out error), caught);
            GC.KeepAlive(tell); // the library has its address
            return new Report(report);
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr generator) { Native.optimize_generator_free(generator); }
    }
}
