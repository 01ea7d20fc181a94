// Tokenizers, which convert text to token ids and back.

using System;
using System.Collections.Generic;

namespace Optimize
{
    /// <summary>Encoded texts: three int64 tensors of shape [texts, length of the longest row], padded on the
    /// right.</summary>
    public sealed class Tokens : IDisposable
    {
        internal Tokens(Tensor ids, Tensor attentionMask, Tensor typeIds)
        {
            Ids = ids;
            AttentionMask = attentionMask;
            TypeIds = typeIds;
        }

        /// <summary>Ids of the tokens.</summary>
        public Tensor Ids { get; private set; }

        /// <summary>Attention mask: 1 for tokens, 0 for padding.</summary>
        public Tensor AttentionMask { get; private set; }

        /// <summary>Segment ids of BERT (token_type_ids).</summary>
        public Tensor TypeIds { get; private set; }

        /// <summary>Returns the tensors for a run of a session, by name: those of input_ids, attention_mask and
        /// token_type_ids that occur in <paramref name="wanted"/>, which is the result of Session.Inputs. The tensors
        /// belong to this object.</summary>
        public IDictionary<string, Tensor> Inputs(IEnumerable<ValueInfo> wanted)
        {
            var inputs = new Dictionary<string, Tensor>();
            foreach (var input in wanted)
            {
                if (input.Name == "input_ids") inputs[input.Name] = Ids;
                if (input.Name == "attention_mask") inputs[input.Name] = AttentionMask;
                if (input.Name == "token_type_ids") inputs[input.Name] = TypeIds;
            }
            return inputs;
        }

        /// <summary>Disposes of the three tensors.</summary>
        public void Dispose()
        {
            Ids.Dispose();
            AttentionMask.Dispose();
            TypeIds.Dispose();
        }
    }

    /// <summary>A tokenizer, which encodes text to token ids and decodes token ids to text. It is immutable.</summary>
    public sealed partial class Tokenizer : Handle
    {
        internal Tokenizer() { }

        /// <summary>Loads a tokenizer from tokenizer.json, or from the folder that contains it, with the settings of
        /// the files next to it, such as tokenizer_config.json. Throws Status.NotFound if there is no tokenizer.json,
        /// and Status.InvalidModel if a file is damaged or describes a tokenizer that is not supported.</summary>
        public static Tokenizer Load(string path)
        {
            Tokenizer tokenizer;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_tokenizer_load(Utf8.Bytes(path), out tokenizer, out error), error);
            return tokenizer;
        }

        /// <summary>Number of tokens in the vocabulary, including added tokens.</summary>
        public int VocabularySize { get { return (int)Native.optimize_tokenizer_vocabulary_size(this); } }

        /// <summary>Encodes texts to token ids, one row per text. Rows of more than <paramref name="maxLength"/> tokens
        /// are truncated; 0 means no limit. <paramref name="specialTokens"/> states whether special tokens, such as
        /// [CLS] or &lt;s&gt;, are added. Throws Status.InvalidArgument if there are no texts, or if the limit leaves
        /// no room for the special tokens, and Status.LimitExceeded if a text is too long.</summary>
        public Tokens Encode(IList<string> texts, bool specialTokens = true, uint maxLength = 0)
        {
            Need(texts, "texts");
            using (var scratch = new Scratch())
            {
                var options = new Native.EncodeOptions
                {
                    StructSize = SizeOf<Native.EncodeOptions>(),
                    NoSpecialTokens = specialTokens ? 0 : 1u,
                    MaxLength = maxLength,
                };
                UIntPtr[] sizes;
                var list = scratch.Prompts(texts, out sizes);
                Tensor ids, mask, types;
                ErrorHandle error;
                OptimizeException.Check(Native.optimize_tokenizer_encode(this, list, sizes, (UIntPtr)texts.Count,
                    ref options, out ids, out mask, out types, out error), error);
                return new Tokens(ids, mask, types);
            }
        }

        /// <summary>Decodes token ids, and returns the text. <paramref name="specialTokens"/> states whether the text
        /// of special tokens is included. Throws Status.InvalidArgument for a negative id or one of more than 32
        /// bits.</summary>
        public string Decode(long[] ids, bool specialTokens = false)
        {
            Need(ids, "ids");
            var options = new Native.DecodeOptions
            {
                StructSize = SizeOf<Native.DecodeOptions>(),
                KeepSpecialTokens = specialTokens ? 1u : 0,
            };
            BufferHandle text;
            ErrorHandle error;
            OptimizeException.Check(Native.optimize_tokenizer_decode(
                this, ids, (UIntPtr)ids.Length, ref options, out text, out error), error);
            return text.Take();
        }

        /// <inheritdoc/>
        protected override void Free(IntPtr tokenizer) { Native.optimize_tokenizer_free(tokenizer); }
    }
}
