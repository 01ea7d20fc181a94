package optimize

// #include <optimize.h>
import "C"

// Tokenizer encodes text to token ids and decodes token ids to text. It is immutable.
type Tokenizer struct {
	*handle[*C.optimize_tokenizer_t]
}

// LoadTokenizer loads a tokenizer from tokenizer.json, or from the folder that contains it, with the settings of the
// files next to it, such as tokenizer_config.json. It fails with ErrNotFound if there is no tokenizer.json, and with
// ErrInvalidModel if a file is damaged or describes a tokenizer that is not supported.
func LoadTokenizer(path string) (*Tokenizer, error) {
	var m memory
	defer m.free()
	var tokenizer *C.optimize_tokenizer_t
	err := try(func(e errorOut) status {
		return C.optimize_tokenizer_load(m.text(path), &tokenizer, e)
	})
	if err != nil {
		return nil, err
	}
	return newTokenizer(tokenizer), nil
}

func newTokenizer(tokenizer *C.optimize_tokenizer_t) *Tokenizer {
	return &Tokenizer{own(tokenizer, func(t *C.optimize_tokenizer_t) { C.optimize_tokenizer_free(t) })}
}

// EncodeOptions are the options of Tokenizer.Encode.
type EncodeOptions struct {
	NoSpecialTokens bool   // whether no special tokens, such as [CLS] or <s>, are added
	MaxLength       uint32 // number of tokens, with special tokens, after which a row is truncated; 0 for no limit
}

// Encoding has encoded texts: three int64 tensors of shape [texts, length of the longest row], padded on the right.
type Encoding struct {
	IDs           *Tensor // token ids
	AttentionMask *Tensor // attention mask: 1 for tokens, 0 for padding
	TypeIDs       *Tensor // segment ids of BERT (token_type_ids)
}

// Inputs returns the tensors for a run of a session, by name: those of input_ids, attention_mask and token_type_ids
// that occur in wanted, which is the result of Session.Inputs. The tensors belong to the Encoding.
func (e *Encoding) Inputs(wanted []ValueInfo) map[string]*Tensor {
	all := map[string]*Tensor{"input_ids": e.IDs, "attention_mask": e.AttentionMask, "token_type_ids": e.TypeIDs}
	inputs := map[string]*Tensor{}
	for _, input := range wanted {
		if tensor := all[input.Name]; tensor != nil {
			inputs[input.Name] = tensor
		}
	}
	return inputs
}

// Close closes the three tensors. It always returns nil.
func (e *Encoding) Close() error {
	for _, t := range []*Tensor{e.IDs, e.AttentionMask, e.TypeIDs} {
		t.Close()
	}
	return nil
}

// Encode encodes texts to token ids, one row per text. It fails with ErrInvalidArgument if there are no texts, or if
// MaxLength leaves no room for the special tokens, and with ErrLimitExceeded if a text is too long.
func (t *Tokenizer) Encode(texts []string, o *EncodeOptions) (*Encoding, error) {
	tokenizer, err := t.acquire()
	if err != nil {
		return nil, err
	}
	defer t.release()
	if o == nil {
		o = &EncodeOptions{}
	}
	options := C.optimize_encode_options_t{
		struct_size:       C.sizeof_optimize_encode_options_t,
		no_special_tokens: flag(o.NoSpecialTokens),
		max_length:        C.uint32_t(o.MaxLength),
	}
	var m memory
	defer m.free()
	list, sizes := m.prompts(texts)
	var ids, mask, types *C.optimize_tensor_t
	err = try(func(e errorOut) status {
		return C.optimize_tokenizer_encode(tokenizer, list, &sizes[0], C.size_t(len(texts)), &options,
			&ids, &mask, &types, e)
	})
	if err != nil {
		return nil, err
	}
	return &Encoding{newTensor(ids), newTensor(mask), newTensor(types)}, nil
}

// DecodeOptions are the options of Tokenizer.Decode.
type DecodeOptions struct {
	KeepSpecialTokens bool // whether the text of special tokens is included; otherwise, it is left out
}

// Decode decodes token ids to text. It fails with ErrInvalidArgument for a negative id or one of more than 32 bits.
func (t *Tokenizer) Decode(ids []int64, o *DecodeOptions) (string, error) {
	tokenizer, err := t.acquire()
	if err != nil {
		return "", err
	}
	defer t.release()
	if o == nil {
		o = &DecodeOptions{}
	}
	options := C.optimize_decode_options_t{
		struct_size:         C.sizeof_optimize_decode_options_t,
		keep_special_tokens: flag(o.KeepSpecialTokens),
	}
	list := addressable(ids)
	var text *C.optimize_buffer_t
	err = try(func(e errorOut) status {
		return C.optimize_tokenizer_decode(tokenizer, (*C.int64_t)(&list[0]), C.size_t(len(ids)), &options, &text, e)
	})
	if err != nil {
		return "", err
	}
	return string(take(text)), nil
}

// VocabularySize returns the number of tokens in the vocabulary, including added tokens; 0 if the tokenizer is closed
// or nil.
func (t *Tokenizer) VocabularySize() int {
	tokenizer, err := t.acquire()
	if err != nil {
		return 0
	}
	defer t.release()
	return int(C.optimize_tokenizer_vocabulary_size(tokenizer))
}
