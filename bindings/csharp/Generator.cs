// Generators: models that generate text.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace Optimize
{
    /// <summary>Use of the reasoning of a model before its answer, for chat templates with the variable
    /// enable_thinking.</summary>
    public enum Thinking
    {
        /// <summary>The default of the template is used.</summary>
        Template = 0,

        /// <summary>The model thinks before it answers.</summary>
        On = 1,

        /// <summary>The model answers without thinking.</summary>
        Off = 2,
    }

    /// <summary>Options of Model.ApplyChatTemplate.</summary>
    public sealed class ChatOptions
    {
        /// <summary>Whether the beginning of the answer, which otherwise ends the prompt, is left out.</summary>
        public bool NoGenerationPrompt { get; set; }

        /// <summary>Tools that the model may call, a JSON list of their schemas, {"type": "function", "function":
        /// {...}}; null for none.</summary>
        [AllowNull, MaybeNull] public string Tools { get; set; }

        /// <summary>Further variables of the template, a JSON object; null for none.</summary>
        [AllowNull, MaybeNull] public string Variables { get; set; }

        /// <summary>Use of the reasoning of the model before its answer, which sets the variable
        /// enable_thinking.</summary>
        public Thinking Thinking { get; set; }
    }

    /// <summary>A message of a conversation.</summary>
    public sealed class Message
    {
        /// <summary>Creates a message with a role and a text.</summary>
        public Message(string role, string content)
        {
            Role = role;
            Content = content;
        }

        /// <summary>Role: "system", "user", "assistant", or another role that the chat template supports.</summary>
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

    /// <summary>Reason why the text of a row ended.</summary>
    public enum FinishReason
    {
        /// <summary>The text has not ended.</summary>
        None = 0,

        /// <summary>The model generated an end-of-text token.</summary>
        Eos = 1,

        /// <summary>A maximum length was reached.</summary>
        Length = 2,

        /// <summary>A stop string or a stop token was found.</summary>
        Stop = 3,

        /// <summary>The token callback returned false or threw an exception.</summary>
        Cancelled = 4,
    }

    /// <summary>A generated token, as the token callback receives it.</summary>
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

        /// <summary>Text that this token completes: whole characters that later tokens cannot change, without any
        /// part of a stop string. It may be empty.</summary>
        public string Text { get; private set; }

        /// <summary>Log-probability of the token, if log-probabilities were requested; otherwise 0.</summary>
        public float Logprob { get; private set; }

        /// <summary>Finish reason of the row; None before its last token.</summary>
        public FinishReason FinishReason { get; private set; }

        /// <summary>Ensembles: entropy of the combined distribution, in nats; otherwise 0.</summary>
        public double Entropy { get; private set; }

        /// <summary>Ensembles: part of the entropy that comes from disagreement between the members, in nats;
        /// otherwise 0.</summary>
        public double MutualInformation { get; private set; }

        /// <summary>Ensembles: sum of the weights of the members that rank this token first; otherwise 0.</summary>
        public double Agreement { get; private set; }
    }

    /// <summary>Options of Context.CreateGenerator. A generator with a draft (Draft or DraftLookup) has a single row;
    /// an ensemble cannot have a draft.</summary>
    public sealed class GeneratorOptions
    {
        /// <summary>Number of threads; 0 for that of the context.</summary>
        public uint Threads { get; set; }

        /// <summary>Whether the activations of block-quantized matrix products are rounded to 8 bits, which is faster
        /// and less exact.</summary>
        public bool RoundActivations { get; set; }

        /// <summary>Execution provider, device, kernels and precision; null for the defaults of Execution.</summary>
        [AllowNull, MaybeNull] public Execution Execution { get; set; }

        /// <summary>Draft model for speculative decoding: a smaller decoder, whose vocabulary has every token of the
        /// model. The model verifies the tokens that it drafts, several in one run. Null for none. The draft model may
        /// be disposed of before the generator.</summary>
        [AllowNull, MaybeNull] public Model Draft { get; set; }

        /// <summary>Whether tokens are drafted by prompt look-up: the drafted tokens are those that followed the
        /// longest earlier occurrence of the last tokens. Draft drafts where nothing is found.</summary>
        public bool DraftLookup { get; set; }

        /// <summary>Maximum number of drafted tokens per run of the model, at most 64; 0 for 8.</summary>
        public uint DraftMax { get; set; }

        /// <summary>Element type of the KV cache. With any value but Float32, Status.BackendMissing is thrown if this
        /// library's kernels cannot be used, and Status.Unsupported if the model has no cache that they read and
        /// write.</summary>
        public KvCacheType KvCacheType { get; set; }

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
                Draft = scratch.Handle(Draft),
                DraftLookup = DraftLookup ? 1u : 0,
                DraftMax = DraftMax,
                KvCacheType = (int)KvCacheType,
            };
        }
    }

    /// <summary>Options of Generator.Generate, Run and Append. By default, generation selects the most probable token
    /// each time, and ends after at most 256 new tokens. TopK above 1, TopP and MinP need a Temperature above 0 or
    /// ModelSampling; without these, the call throws Status.InvalidArgument.</summary>
    public sealed class GenerateOptions
    {
        /// <summary>Maximum number of new tokens per row; 0 for no limit, or for 256 if MaxLength is also 0.</summary>
        public uint MaxNewTokens { get; set; }

        /// <summary>Maximum number of tokens per row, including the prompt; 0 for no limit.</summary>
        public uint MaxLength { get; set; }

        /// <summary>Sampling: number of most probable tokens among which the next token is sampled; 0 for
        /// all.</summary>
        public uint TopK { get; set; }

        /// <summary>Sampling temperature, by which logits are divided; 0 selects the most probable token each
        /// time.</summary>
        public float Temperature { get; set; }

        /// <summary>Sampling: total probability of the most probable tokens among which the next token is sampled; 0
        /// for all.</summary>
        public float TopP { get; set; }

        /// <summary>Sampling: minimum probability of a token, relative to that of the most probable token; 0 for
        /// all.</summary>
        public float MinP { get; set; }

        /// <summary>Repetition penalty: a value above 1 makes tokens that occur in the prompt or the generated text
        /// less probable; 1 disables it. 0 selects that of generation_config.json, or 1 without one.</summary>
        public float RepetitionPenalty { get; set; }

        /// <summary>Presence penalty, which is subtracted from the logits of tokens that occur in the generated text;
        /// 0 disables it.</summary>
        public float PresencePenalty { get; set; }

        /// <summary>Frequency penalty, which is subtracted from the logit of a token for each occurrence in the
        /// generated text; 0 disables it.</summary>
        public float FrequencyPenalty { get; set; }

        /// <summary>Length of token sequences that must not occur twice; 0 allows repetitions.</summary>
        public uint NoRepeatNgramSize { get; set; }

        /// <summary>Log-probabilities to return: 0 for none, n for those of each generated token and of the n - 1
        /// most probable tokens.</summary>
        public uint Logprobs { get; set; }

        /// <summary>Seed of sampling. The same seed gives the same text for the same prompts, options, model and
        /// machine.</summary>
        public ulong Seed { get; set; }

        /// <summary>Strings that end the text of a row and are not part of it; null for none.</summary>
        [AllowNull, MaybeNull] public IList<string> Stop { get; set; }

        /// <summary>Token callback, called for every generated token, on the thread that makes the call; null for none.
        /// A return value of false ends all rows. If it throws, all rows end, and the call throws the exception; Run
        /// can then continue the texts.</summary>
        [AllowNull, MaybeNull] public Func<Written, bool> OnToken { get; set; }

        /// <summary>Whether prompts already contain their special tokens, like those of Model.RenderChat.</summary>
        public bool Rendered { get; set; }

        /// <summary>Whether generation continues after end-of-text tokens.</summary>
        public bool IgnoreEos { get; set; }

        /// <summary>Ids of tokens that end the text of a row and are not part of it; null for none.</summary>
        [AllowNull, MaybeNull] public IList<long> StopTokens { get; set; }

        internal GenerateOptions Copy() { return (GenerateOptions)MemberwiseClone(); }

        /// <summary>Whether to sample. Temperature, TopK, TopP, MinP, RepetitionPenalty and NoRepeatNgramSize then have
        /// the values that the model recommends (generation_config.json), if they are 0.</summary>
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

    /// <summary>A generator: a decoder, or an ensemble of decoders, with the rows of text that it has read and
    /// generated so far. It accepts one call at a time: a concurrent call of any method but Placement throws
    /// Status.Busy.</summary>
    public sealed partial class Generator : Handle
    {
        internal Generator() { }

        /// <summary>Generates text after each prompt; previous rows are discarded. Returns JSON: {"generations":
        /// [{"text", "tokens", "logprobs", "finish_reason", "prompt_tokens"}]}, which Report.Generations reads. Throws
        /// Status.InvalidArgument if there are no prompts, if a prompt is empty or longer than the limit of the model,
        /// if the model has no tokenizer, or if the generator has a draft and there are several prompts. Also throws
        /// Status.Unsupported if the generator has a draft and the model outputs the logits of the last token only;
        /// Status.Busy during another call; and Status.Runtime if ONNX Runtime fails.</summary>
        public Report Generate(IList<string> prompts, [AllowNull] GenerateOptions options = null,
            [AllowNull] Call call = null)
        {
            if (prompts == null) throw new ArgumentNullException("prompts");
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

        /// <summary>Appends text to the row with the index <paramref name="row"/>, for example a message of a
        /// conversation to row 0. If there are no rows, row 0 is created. The next Run reads the text. Of the options,
        /// only Rendered has an effect. Throws Status.NotFound if the row does not exist, and Status.Busy during
        /// another call.</summary>
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

        /// <summary>Continues the text of all rows, without processing earlier tokens again. Returns JSON like that of
        /// Generate, for the new tokens. Throws Status.InvalidArgument if a row is empty or has reached the limit of
        /// the model, and otherwise the same as Generate.</summary>
        public Report Run([AllowNull] GenerateOptions options = null, [AllowNull] Call call = null)
        {
            using (var scratch = new Scratch())
                return Write(options, call, scratch,
                    (ref Native.GenerateOptions given, ref Native.Call native, out BufferHandle report,
                        out ErrorHandle error) => Native.optimize_generator_run(
                            this, ref given, ref native, out report, out error));
        }

        /// <summary>Discards all rows of the generator, which can then be used for another text. Throws Status.Busy
        /// during another call.</summary>
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
            GC.KeepAlive(tell); // the library calls the delegate until here
            return new Report(report);
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr generator) { Native.optimize_generator_free(generator); }
    }
}
