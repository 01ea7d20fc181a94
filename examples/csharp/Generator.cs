// Generators: decoders that write text.

using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

namespace Optimize
{
    /// <summary>A message of a conversation.</summary>
    public sealed class Message
    {
        public Message(string role, string content)
        {
            Role = role;
            Content = content;
        }

        /// <summary>"system", "user", "assistant", or what else the model's template knows.</summary>
        public string Role { get; private set; }

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

    /// <summary>Why a text ends: the model wrote an end-of-sequence token, a limit was reached, a stop string came
    /// up, or OnToken asked for it. None: it goes on.</summary>
    public enum FinishReason { None = 0, Eos = 1, Length = 2, Stop = 3, Cancelled = 4 }

    /// <summary>A token as it is written.</summary>
    public struct Written
    {
        internal Written(IntPtr written) : this()
        {
            var native = (Native.Written)Marshal.PtrToStructure(written, typeof(Native.Written));
            Row = native.Row;
            Token = native.Token;
            Text = Utf8.Read(native.Text, (long)native.TextSize);
            Logprob = native.Logprob;
            FinishReason = (FinishReason)native.FinishReason;
            Entropy = native.Entropy;
            MutualInformation = native.MutualInformation;
            Agreement = native.Agreement;
        }

        public uint Row { get; private set; }
        public long Token { get; private set; }

        /// <summary>What is certain now: whole characters, nothing of a stop string. Often empty.</summary>
        public string Text { get; private set; }

        /// <summary>Of the token, if Logprobs were asked for; else 0.</summary>
        public float Logprob { get; private set; }

        /// <summary>Not None with the last token of a row.</summary>
        public FinishReason FinishReason { get; private set; }

        /// <summary>Of an ensemble: entropy of the combined distribution, in nats; else 0.</summary>
        public double Entropy { get; private set; }

        /// <summary>Of an ensemble: how much of the entropy is disagreement, in nats; else 0.</summary>
        public double MutualInformation { get; private set; }

        /// <summary>Of an ensemble: share of the members that would take this token; else 0.</summary>
        public double Agreement { get; private set; }
    }

    /// <summary>Options of Context.CreateGenerator.</summary>
    public sealed class GeneratorOptions
    {
        /// <summary>0 is as the context says.</summary>
        public uint Threads { get; set; }

        /// <summary>Faster with weights in blocks of a few bits, not as exact.</summary>
        public bool RoundActivations { get; set; }

        /// <summary>What it runs on; null is the processor.</summary>
        public Execution Execution { get; set; }

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
            };
        }
    }

    /// <summary>Options of Generator.Generate, Run and Append. By default the most probable token each time, at most
    /// 256 of them.</summary>
    public sealed class GenerateOptions
    {
        /// <summary>Most tokens to write in each row; 0 with MaxLength 0 is 256.</summary>
        public uint MaxNewTokens { get; set; }

        /// <summary>Most tokens in each row, the prompt included; 0 is no such limit.</summary>
        public uint MaxLength { get; set; }

        /// <summary>Draw among this many most probable tokens; 0 is all.</summary>
        public uint TopK { get; set; }

        /// <summary>0: always the most probable token; else logits are divided by it before the draw.</summary>
        public float Temperature { get; set; }

        /// <summary>Draw among the most probable tokens that together have this probability; 0 is all.</summary>
        public float TopP { get; set; }

        /// <summary>Draw among tokens at least this many times as probable as the most probable; 0 is all.</summary>
        public float MinP { get; set; }

        /// <summary>Above 1, tokens of prompt and text become less probable; 0 is off.</summary>
        public float RepetitionPenalty { get; set; }

        /// <summary>Taken off the logits of tokens already written; 0 is off.</summary>
        public float PresencePenalty { get; set; }

        /// <summary>Taken off the logits of tokens already written, for each time; 0 is off.</summary>
        public float FrequencyPenalty { get; set; }

        /// <summary>No sequence of this many tokens appears twice; 0 is off.</summary>
        public uint NoRepeatNgramSize { get; set; }

        /// <summary>0 is without, n gives that of each token and of the n - 1 most probable ones.</summary>
        public uint Logprobs { get; set; }

        /// <summary>The same seed gives the same text.</summary>
        public ulong Seed { get; set; }

        /// <summary>Strings that end a row's text and are no part of it.</summary>
        public IList<string> Stop { get; set; }

        /// <summary>Called for every token on the thread that makes the call. Returning false ends all rows. What it
        /// throws ends them too, and comes out of the call; what was written until then can be gone on with.</summary>
        public Func<Written, bool> OnToken { get; set; }

        /// <summary>Prompts have their special tokens in them already: what Model.RenderChat gives.</summary>
        public bool Rendered { get; set; }

        /// <summary>Go on after end-of-sequence tokens.</summary>
        public bool IgnoreEos { get; set; }

        /// <summary>Ids of tokens that end a row's text and are no part of it.</summary>
        public IList<long> StopTokens { get; set; }

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
            };
        }
    }

    /// <summary>A decoder made ready to write text, with what it has read so far. It takes one call at a time: a
    /// second one meanwhile throws Status.Busy.</summary>
    public sealed partial class Generator : Handle
    {
        internal Generator() { }

        /// <summary>Writes a text after each prompt; what was read before is dropped. Gives JSON: {"generations":
        /// [{"text", "tokens", "logprobs", "finish_reason", "prompt_tokens"}]}.</summary>
        public string Generate(IList<string> prompts, GenerateOptions options = null, Call call = null)
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

        /// <summary>Appends text to a row (0 for a conversation; this makes it), to be read by the next Run. Of the
        /// options only Rendered matters.</summary>
        public void Append(uint row, string text, GenerateOptions options = null)
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

        /// <summary>Writes on in all rows; only what is new is computed. Gives what was written now, as Generate
        /// does.</summary>
        public string Run(GenerateOptions options = null, Call call = null)
        {
            using (var scratch = new Scratch())
                return Write(options, call, scratch,
                    (ref Native.GenerateOptions given, ref Native.Call native, out BufferHandle report,
                        out ErrorHandle error) => Native.optimize_generator_run(
                            this, ref given, ref native, out report, out error));
        }

        /// <summary>Forgets all rows.</summary>
        public void Reset()
        {
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_generator_reset(this, out error), error);
        }

        private delegate int Writer(ref Native.GenerateOptions options, ref Native.Call call, out BufferHandle report,
            out ErrorHandle error);

        private static string Write(GenerateOptions options, Call call, Scratch scratch, Writer write)
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
            GC.KeepAlive(tell); // the library knew its address
            return report.Take();
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr generator) { Native.optimize_generator_free(generator); }
    }
}
