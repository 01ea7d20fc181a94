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
// accepts one call at a time: a concurrent call fails with ErrBusy.
type Generator struct {
	*handle[*C.optimize_generator_t]
}

// GeneratorOptions are the options of Context.NewGenerator.
type GeneratorOptions struct {
	Threads          uint32 // number of threads; 0 for that of the context
	RoundActivations bool   // whether activations of block-quantized products have 8 bits: faster, less exact
	Execution        Execution
	Draft            *Model // draft model with every token of the model; nil for none; may be closed afterwards
	DraftLookup      bool   // whether tokens are drafted by prompt look-up
	DraftMax         uint32 // maximum number of drafted tokens per run of the model; 0 for 8
	KVCacheType      KVCacheType
}

// NewGenerator creates a generator of a decoder with its tokenizer. It fails with ErrUnsupported if the model is not a
// decoder.
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

// c returns the options as a C struct, and a function that releases the draft model.
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
	FinishCancelled FinishReason = C.OPTIMIZE_FINISH_CANCELLED // OnToken returned false
)

var finishReasons = map[string]FinishReason{
	"eos": FinishEOS, "length": FinishLength, "stop": FinishStop, "cancelled": FinishCancelled,
}

// UnmarshalText sets the finish reason from its name in reports.
func (r *FinishReason) UnmarshalText(name []byte) error {
	reason, known := finishReasons[string(name)]
	if !known {
		return fmt.Errorf("optimize: no finish reason is called %q", name)
	}
	*r = reason
	return nil
}

// Written is a generated token, as OnToken receives it.
type Written struct {
	Row          int
	Token        int64
	Text         string       // text that this token completes, without any part of a stop string; may be empty
	Logprob      float32      // log-probability of the token, if requested; otherwise 0
	FinishReason FinishReason // finish reason of the row; FinishNone before its last token

	Uncertainty // measures of an ensemble; otherwise all 0
}

// Uncertainty is the disagreement of the members of an ensemble about a token.
type Uncertainty struct {
	Entropy           float64 `json:"entropy"`            // entropy of the combined distribution, in nats
	MutualInformation float64 `json:"mutual_information"` // part of the entropy from disagreement, in nats
	Agreement         float64 `json:"agreement"`          // weight of the members that rank the token first
}

// GenerateOptions are the options of Generator.Generate, Run and Append. The zero value selects the most probable token
// each time, and ends after at most 256 new tokens. TopK above 1, TopP and MinP need a Temperature above 0 or
// ModelSampling; without, the call fails with ErrInvalidArgument.
type GenerateOptions struct {
	MaxNewTokens      uint32   // maximum number of new tokens per row; 0 for no limit, or 256 if MaxLength is 0, too
	MaxLength         uint32   // maximum number of tokens per row, including the prompt; 0 for no limit
	TopK              uint32   // sampling: number of most probable tokens to sample from; 0 for all
	Temperature       float32  // sampling temperature, by which logits are divided; 0 selects the most probable token
	TopP              float32  // sampling: total probability of the most probable tokens to sample from; 0 for all
	MinP              float32  // sampling: minimum probability relative to that of the most probable token; 0 for all
	RepetitionPenalty float32  // above 1, tokens of the prompt and the text become less probable; 0 disables it
	PresencePenalty   float32  // number subtracted from the logits of tokens in the generated text; 0 disables it
	FrequencyPenalty  float32  // number subtracted for each occurrence of a token in the generated text; 0 disables it
	NoRepeatNgramSize uint32   // length of token sequences that must not occur twice; 0 allows repetitions
	Logprobs          uint32   // log-probabilities to return: 0 for none, n for each token and the n - 1 most probable
	Seed              uint64   // seed of sampling; on one machine, the same seed gives the same text
	Stop              []string // strings that end the text of a row and are not part of it
	Rendered          bool     // whether prompts already contain their special tokens, like those of Model.RenderChat
	IgnoreEOS         bool     // whether generation continues after end-of-text tokens
	StopTokens        []int64  // ids of tokens that end the text of a row and are not part of it
	ModelSampling     bool     // whether to sample, with the settings that the model recommends for fields that are 0

	// OnToken is called for every generated token, on the goroutine that made the call; nil for no calls. A return
	// value of false ends all rows. A panic also ends them, and continues when the call has ended.
	OnToken func(Written) bool
}

// Generation is the generated text of a row.
type Generation struct {
	Text         string       `json:"text"`     // text of the row, without stop string and special tokens
	Tokens       []int64      `json:"tokens"`   // ids of the generated tokens, including the one that ended the text
	Logprobs     []Logprobs   `json:"logprobs"` // log-probabilities of each token, if requested
	FinishReason FinishReason `json:"finish_reason"`
	PromptTokens int          `json:"prompt_tokens"` // number of tokens in the row before the generated ones

	Uncertainty     []Uncertainty `json:"uncertainty"`      // measures of each token, if an ensemble generated it
	MeanUncertainty *Uncertainty  `json:"mean_uncertainty"` // means of the measures; nil without an ensemble

	Draft *Drafted `json:"draft"` // numbers of runs and of drafted tokens; nil without a draft
}

// Drafted are the numbers of runs and of drafted tokens of a generation.
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
	Chosen Logprob   `json:"chosen"` // token that was generated
	Top    []Logprob `json:"top"`    // most probable tokens, best first
}

// Generate generates text after each prompt, and returns one Generation per prompt, in their order. Previous rows are
// discarded. It fails with ErrInvalidArgument if there are no prompts, if a prompt is empty or longer than the limit of
// the model, or if the model has no tokenizer.
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

// Append appends text to a row, for example a message of a conversation to row 0, which is created if there are no
// rows. The next Run reads the text. Of the options, only Rendered is used. It fails with ErrNotFound if there is no
// such row.
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

// Run generates text in all rows, without processing earlier tokens again. It returns the text that this call
// generates, one Generation per row. It fails with ErrInvalidArgument if a row is empty or has reached the limit of the
// model.
func (g *Generator) Run(ctx context.Context, o *GenerateOptions) ([]Generation, error) {
	return g.write(ctx, o, func(
		c *C.optimize_generator_t, options *C.optimize_generate_options_t, call *C.optimize_call_t,
		report **C.optimize_buffer_t, e errorOut,
	) status {
		return C.optimize_generator_run(c, options, call, report, e)
	})
}

// Reset discards all rows of the generator.
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

// tokens is the user data of the C callback.
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
