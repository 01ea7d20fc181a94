package optimize

// #include <optimize.h>
// typedef const optimize_written_t written_token;
// int32_t optimize_go_token(void *user_data, written_token *written);
import "C"

import (
	"context"
	"encoding/json"
	"fmt"
	"unsafe"
)

// Generator is a decoder, or an ensemble of decoders, with the rows of text that it has read and generated so far. It
// accepts one call at a time: a concurrent call of any method but Placement and Close fails with ErrBusy.
type Generator struct {
	*handle[*C.optimize_generator_t]
}

// GeneratorOptions are the options of Context.NewGenerator, Context.NewEnsembleGenerator and Package.Generator. Draft,
// DraftLookup and DraftMax are for speculative decoding, in which the model verifies several drafted tokens in one run.
// Prompt look-up drafts the tokens that followed the longest earlier occurrence of the last tokens. A generator with a
// draft has a single row; an ensemble cannot have a draft.
type GeneratorOptions struct {
	Threads          uint32 // number of threads; 0 for that of the context
	RoundActivations bool   // whether activations of block-quantized products are rounded to 8 bits: faster, less exact
	Execution        Execution
	Draft            *Model // smaller decoder that drafts tokens; it must have every token of the model; nil for none
	DraftLookup      bool   // whether tokens are drafted by prompt look-up
	DraftMax         uint32 // maximum number of drafted tokens per run of the model, at most 64; 0 for 8
	KVCacheType      KVCacheType
}

// NewGenerator creates a generator of a decoder with its tokenizer. The model and the draft model may be closed before
// the generator. It fails with ErrUnsupported if a model is not a decoder or cannot have the KV cache of KVCacheType,
// with ErrInvalidArgument if the vocabulary of the draft model lacks tokens of the model, and otherwise like
// NewSession.
func (c *Context) NewGenerator(ctx context.Context, model *Model, o *GeneratorOptions) (*Generator, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	raw, err := model.acquire()
	if err != nil {
		return nil, err
	}
	defer model.release()
	var m memory
	defer m.free()
	options, release, err := o.c(&m)
	if err != nil {
		return nil, err
	}
	defer release()
	var generator *C.optimize_generator_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_generator_new(context, raw, &options, call, &generator, e)
	})
	if err != nil {
		return nil, err
	}
	return newGenerator(generator), nil
}

func newGenerator(generator *C.optimize_generator_t) *Generator {
	return &Generator{own(generator, func(g *C.optimize_generator_t) { C.optimize_generator_free(g) })}
}

// c returns the options as a C struct, and a function that ends the use of the draft model.
func (o *GeneratorOptions) c(m *memory) (options C.optimize_generator_options_t, release func(), err error) {
	if o == nil {
		o = &GeneratorOptions{}
	}
	options = C.optimize_generator_options_t{
		struct_size:       C.sizeof_optimize_generator_options_t,
		threads:           C.uint32_t(o.Threads),
		round_activations: flag(o.RoundActivations),
		provider:          C.int32_t(o.Execution.Provider),
		device_id:         C.uint32_t(o.Execution.DeviceID),
		engine_cache:      m.textOrNil(o.Execution.EngineCache),
		kernels:           C.int32_t(o.Execution.Kernels),
		precision:         C.int32_t(o.Execution.Precision),
		draft_lookup:      flag(o.DraftLookup),
		draft_max:         C.uint32_t(o.DraftMax),
		kv_cache_type:     C.int32_t(o.KVCacheType),
	}
	if o.Draft == nil {
		return options, func() {}, nil
	}
	options.draft, err = o.Draft.acquire()
	return options, o.Draft.release, err
}

// FinishReason is the reason why the text of a row ended.
type FinishReason int32

// The finish reasons.
const (
	FinishNone      FinishReason = C.OPTIMIZE_FINISH_NONE      // the text has not ended
	FinishEOS       FinishReason = C.OPTIMIZE_FINISH_EOS       // the model generated an end-of-text token
	FinishLength    FinishReason = C.OPTIMIZE_FINISH_LENGTH    // a maximum length was reached
	FinishStop      FinishReason = C.OPTIMIZE_FINISH_STOP      // a stop string or a stop token was found
	FinishCancelled FinishReason = C.OPTIMIZE_FINISH_CANCELLED // OnToken returned false, or panicked
)

var finishReasons = map[string]FinishReason{
	"eos": FinishEOS, "length": FinishLength, "stop": FinishStop, "cancelled": FinishCancelled,
}

// UnmarshalText sets the finish reason from its name in reports: "eos", "length", "stop" or "cancelled". It fails for
// any other name.
func (r *FinishReason) UnmarshalText(name []byte) error {
	reason, known := finishReasons[string(name)]
	if !known {
		return fmt.Errorf("optimize: no finish reason is called %q", name)
	}
	*r = reason
	return nil
}

// Written is a generated token, as GenerateOptions.OnToken receives it.
type Written struct {
	Row          int          // index of the row
	Token        int64        // id of the token
	Text         string       // text that this token completes, without any part of a stop string; may be empty
	Logprob      float32      // log-probability of the token; 0 if GenerateOptions.Logprobs is 0
	FinishReason FinishReason // finish reason of the row; FinishNone before its last token

	Uncertainty // disagreement of the members of an ensemble; all 0 without an ensemble
}

// Uncertainty is the disagreement of the members of an ensemble about a token.
type Uncertainty struct {
	Entropy           float64 `json:"entropy"`            // entropy of the combined distribution, in nats
	MutualInformation float64 `json:"mutual_information"` // part of Entropy that comes from disagreement, in nats
	Agreement         float64 `json:"agreement"`          // sum of the weights of the members that rank the token first
}

// GenerateOptions are the options of Generator.Generate, Run and Append. The zero value selects the most probable token
// each time, and ends after at most 256 new tokens. TopK above 1, TopP and MinP need a Temperature above 0 or
// ModelSampling; without these, the call fails with ErrInvalidArgument.
type GenerateOptions struct {
	MaxNewTokens      uint32   // maximum number of new tokens per row; 0 for no limit, or for 256 if MaxLength is also 0
	MaxLength         uint32   // maximum number of tokens per row, including the prompt; 0 for no limit
	TopK              uint32   // sampling: number of most probable tokens to sample from; 0 for all tokens
	Temperature       float32  // sampling temperature, by which logits are divided; 0 selects the most probable token
	TopP              float32  // sampling: total probability of the most probable tokens to sample from; 0 for all tokens
	MinP              float32  // sampling: minimum probability relative to that of the most probable token; 0 for all
	RepetitionPenalty float32  // penalty above 1 that makes tokens of the prompt and the text less probable; 0 selects the model's, 1 none
	PresencePenalty   float32  // number subtracted from the logits of tokens in the generated text; 0 disables it
	FrequencyPenalty  float32  // number subtracted for each occurrence of a token in the generated text; 0 disables it
	NoRepeatNgramSize uint32   // length of token sequences that must not occur twice; 0 allows repetitions
	Logprobs          uint32   // log-probabilities to return: 0 for none, n for each token and the n - 1 most probable
	Seed              uint64   // seed of sampling; for equal prompts, options, model and machine, it determines the text
	Stop              []string // strings that end the text of a row and are not part of it
	Rendered          bool     // whether prompts already contain their special tokens, like those of Model.RenderChat
	IgnoreEOS         bool     // whether generation continues after end-of-text tokens
	StopTokens        []int64  // ids of tokens that end the text of a row and are not part of it
	ModelSampling     bool     // whether to sample; fields that are 0 have the values that the model's files recommend

	// OnToken is called for every generated token, on the goroutine that made the call; nil for no calls. A return
	// value of false ends all rows. A panic also ends all rows, and continues when the call has ended.
	OnToken func(Written) bool
}

// Generation is the generated text of a row.
type Generation struct {
	Text         string       `json:"text"`          // generated text, without stop string and special tokens
	Tokens       []int64      `json:"tokens"`        // ids of the generated tokens, including the one that ended the text
	Logprobs     []Logprobs   `json:"logprobs"`      // log-probabilities at each of Tokens; nil if not requested
	FinishReason FinishReason `json:"finish_reason"` // reason why the text ended
	PromptTokens int          `json:"prompt_tokens"` // number of tokens in the row before the generated ones

	Uncertainty     []Uncertainty `json:"uncertainty"`      // disagreement about each of Tokens; nil without an ensemble
	MeanUncertainty *Uncertainty  `json:"mean_uncertainty"` // means over Tokens; nil without an ensemble

	Draft *Drafted `json:"draft"` // success of the draft; nil without a draft
}

// Drafted has the numbers of runs of the model and of drafted tokens of a generation.
type Drafted struct {
	Steps      int     `json:"steps"`      // number of runs of the model, of which the first one reads the prompt
	Drafted    int     `json:"drafted"`    // number of drafted tokens that were verified
	Accepted   int     `json:"accepted"`   // number of drafted tokens that were accepted
	Acceptance float64 `json:"acceptance"` // fraction of the drafted tokens that were accepted; 0 if none were drafted
}

// Logprob is a token and the natural logarithm of its probability.
type Logprob struct {
	Token   int64   `json:"token"`
	Logprob float32 `json:"logprob"`
}

// Logprobs are the log-probabilities at one position of a text.
type Logprobs struct {
	Chosen Logprob   `json:"chosen"` // generated token
	Top    []Logprob `json:"top"`    // GenerateOptions.Logprobs - 1 most probable tokens, the most probable first
}

// Generate generates text after each prompt, and returns one Generation per prompt, in the order of the prompts. Each
// prompt becomes a row; previous rows are discarded.
//
// It fails with ErrInvalidArgument if there are no prompts, if a prompt is empty or longer than the limit of the model,
// if the model has no tokenizer, or if the generator has a draft and there are several prompts. It fails with
// ErrUnsupported if the generator has a draft and the model outputs the logits of the last token only, with ErrBusy
// during another call, and with ErrRuntime if ONNX Runtime fails.
func (g *Generator) Generate(ctx context.Context, prompts []string, o *GenerateOptions) ([]Generation, error) {
	var m memory
	defer m.free()
	texts, sizes := m.prompts(prompts)
	return g.write(ctx, o, func(
		c *C.optimize_generator_t, options *C.optimize_generate_options_t, call *C.optimize_call_t,
		report **C.optimize_buffer_t, e errorOut,
	) status {
		return C.optimize_generator_generate(c, texts, &sizes[0], C.size_t(len(prompts)), options, call, report, e)
	})
}

// Append appends text to the row with the index row, for example a message of a conversation to row 0. If there are no
// rows, row 0 is created. The next Run reads the text. Of the options, only Rendered has an effect. It fails with
// ErrNotFound if the row does not exist, and with ErrBusy during another call.
func (g *Generator) Append(row int, text string, o *GenerateOptions) error {
	c, err := g.acquire()
	if err != nil {
		return err
	}
	defer g.release()
	var m memory
	defer m.free()
	options := o.c(&m)
	bytes := addressable([]byte(text))
	return try(func(e errorOut) status {
		return C.optimize_generator_append(c, C.size_t(row), (*C.char)(unsafe.Pointer(&bytes[0])), C.size_t(len(text)),
			&options, e)
	})
}

// Run continues the text of all rows, without processing earlier tokens again. It returns the text that this call
// generates, one Generation per row. It fails with ErrInvalidArgument if a row is empty or has reached the limit of the
// model, and otherwise like Generate.
func (g *Generator) Run(ctx context.Context, o *GenerateOptions) ([]Generation, error) {
	return g.write(ctx, o, func(
		c *C.optimize_generator_t, options *C.optimize_generate_options_t, call *C.optimize_call_t,
		report **C.optimize_buffer_t, e errorOut,
	) status {
		return C.optimize_generator_run(c, options, call, report, e)
	})
}

// Reset discards all rows of the generator, which can then be used for another text. It fails with ErrBusy during
// another call.
func (g *Generator) Reset() error {
	c, err := g.acquire()
	if err != nil {
		return err
	}
	defer g.release()
	return try(func(e errorOut) status { return C.optimize_generator_reset(c, e) })
}

type writeFunc = func(
	*C.optimize_generator_t, *C.optimize_generate_options_t, *C.optimize_call_t, **C.optimize_buffer_t, errorOut,
) status

func (g *Generator) write(ctx context.Context, o *GenerateOptions, write writeFunc) ([]Generation, error) {
	c, err := g.acquire()
	if err != nil {
		return nil, err
	}
	defer g.release()
	var m memory
	defer m.free()
	options := o.c(&m)
	if o != nil && o.OnToken != nil {
		t := &tokens{tell: o.OnToken}
		defer t.goOn()
		data, forget := userData(t)
		defer forget()
		options.user_data = data
		options.on_token = C.optimize_token_fn(C.optimize_go_token)
	}
	var buffer *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return write(c, &options, call, &buffer, e)
	})
	if err != nil {
		return nil, err
	}
	var report struct{ Generations []Generation }
	err = json.Unmarshal(take(buffer), &report)
	return report.Generations, err
}

// c returns the options as a C struct, without OnToken.
func (o *GenerateOptions) c(m *memory) C.optimize_generate_options_t {
	if o == nil {
		o = &GenerateOptions{}
	}
	return C.optimize_generate_options_t{
		struct_size:          C.sizeof_optimize_generate_options_t,
		max_new_tokens:       C.uint32_t(o.MaxNewTokens),
		max_length:           C.uint32_t(o.MaxLength),
		top_k:                C.uint32_t(o.TopK),
		temperature:          C.float(o.Temperature),
		top_p:                C.float(o.TopP),
		min_p:                C.float(o.MinP),
		repetition_penalty:   C.float(o.RepetitionPenalty),
		presence_penalty:     C.float(o.PresencePenalty),
		frequency_penalty:    C.float(o.FrequencyPenalty),
		no_repeat_ngram_size: C.uint32_t(o.NoRepeatNgramSize),
		logprobs:             C.uint32_t(o.Logprobs),
		seed:                 C.uint64_t(o.Seed),
		stop:                 m.texts(o.Stop),
		stop_count:           C.uint64_t(len(o.Stop)),
		rendered:             flag(o.Rendered),
		ignore_eos:           flag(o.IgnoreEOS),
		stop_tokens:          m.ids(o.StopTokens),
		stop_token_count:     C.uint64_t(len(o.StopTokens)),
		model_sampling:       flag(o.ModelSampling),
	}
}

// tokens is the user data of the token callback, which C calls.
type tokens struct {
	caught
	tell func(Written) bool
}

//export optimize_go_token
func optimize_go_token(userData unsafe.Pointer, written *C.written_token) (stop C.int32_t) {
	t := valueOf(userData).(*tokens)
	defer t.catch(&stop)
	more := t.tell(Written{
		Row:          int(written.row),
		Token:        int64(written.token),
		Text:         string(unsafe.Slice((*byte)(unsafe.Pointer(written.text)), int(written.text_size))),
		Logprob:      float32(written.logprob),
		FinishReason: FinishReason(written.finish_reason),
		Uncertainty: Uncertainty{
			Entropy:           float64(written.entropy),
			MutualInformation: float64(written.mutual_information),
			Agreement:         float64(written.agreement),
		},
	})
	if !more {
		return 1
	}
	return 0
}
