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

// Generator is a text-generating model with its cache. It runs one call at a time: a second one fails with ErrBusy.
type Generator struct {
	*handle[*C.optimize_generator_t]
}

// GeneratorOptions are the options of Context.NewGenerator.
type GeneratorOptions struct {
	Threads          uint32 // 0 for the context's
	RoundActivations bool   // faster with block-quantized weights, less exact
	Execution        Execution
}

// NewGenerator loads a model for generation, with its tokenizer. It fails with ErrUnsupported if the model is not a
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
	options := o.c(&m)
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

// c returns the options in their C form.
func (o *GeneratorOptions) c(m *memory) C.optimize_generator_options_t {
	if o == nil {
		o = &GeneratorOptions{}
	}
	return C.optimize_generator_options_t{
		struct_size:       C.sizeof_optimize_generator_options_t,
		threads:           C.uint32_t(o.Threads),
		round_activations: flag(o.RoundActivations),
		provider:          C.int32_t(o.Execution.Provider),
		device_id:         C.uint32_t(o.Execution.DeviceID),
		engine_cache:      m.textOrNil(o.Execution.EngineCache),
		kernels:           C.int32_t(o.Execution.Kernels),
		precision:         C.int32_t(o.Execution.Precision),
	}
}

// FinishReason is the reason why a text ends.
type FinishReason int32

// The reasons why a text ends.
const (
	FinishNone      FinishReason = C.OPTIMIZE_FINISH_NONE      // the text continues
	FinishEOS       FinishReason = C.OPTIMIZE_FINISH_EOS       // the model generated an end-of-sequence token
	FinishLength    FinishReason = C.OPTIMIZE_FINISH_LENGTH    // a limit was reached
	FinishStop      FinishReason = C.OPTIMIZE_FINISH_STOP      // a stop string was generated
	FinishCancelled FinishReason = C.OPTIMIZE_FINISH_CANCELLED // OnToken requested the end
)

var finishReasons = map[string]FinishReason{
	"eos": FinishEOS, "length": FinishLength, "stop": FinishStop, "cancelled": FinishCancelled,
}

// UnmarshalText reads the name used in reports.
func (r *FinishReason) UnmarshalText(name []byte) error {
	reason, known := finishReasons[string(name)]
	if !known {
		return fmt.Errorf("optimize: no finish reason is called %q", name)
	}
	*r = reason
	return nil
}

// Written is a token, as it is generated.
type Written struct {
	Row          int
	Token        int64
	Text         string       // final text: whole characters, no part of a stop string; often empty
	Logprob      float32      // log-probability of the token, if requested; otherwise 0
	FinishReason FinishReason // set for the last token of a row

	Uncertainty // for an ensemble; otherwise all 0
}

// Uncertainty is the disagreement of the members of an ensemble about a token.
type Uncertainty struct {
	Entropy           float64 `json:"entropy"`            // entropy of the combined distribution, in nats
	MutualInformation float64 `json:"mutual_information"` // part of it caused by disagreement, in nats
	Agreement         float64 `json:"agreement"`          // fraction of the members that would choose this token
}

// GenerateOptions are the options of Generator.Generate, Run and Append. The zero value takes the most probable token
// each time, and generates at most 256.
type GenerateOptions struct {
	MaxNewTokens      uint32   // maximum number of tokens to generate per row; 0 with MaxLength 0 for 256
	MaxLength         uint32   // maximum number of tokens per row, including the prompt; 0 for no limit
	TopK              uint32   // sample from this many most probable tokens; 0 for all
	Temperature       float32  // logits are divided by it before sampling; 0 always takes the most probable token
	TopP              float32  // sample from the most probable tokens that together have this probability; 0 for all
	MinP              float32  // sample from tokens at least this many times as probable as the best one; 0 for all
	RepetitionPenalty float32  // above 1, tokens of prompt and text become less probable; 0 disables it
	PresencePenalty   float32  // subtracted from the logits of tokens already generated; 0 disables it
	FrequencyPenalty  float32  // subtracted for each occurrence of a token already generated; 0 disables it
	NoRepeatNgramSize uint32   // no sequence of this many tokens appears twice; 0 disables it
	Logprobs          uint32   // 0 for none, n for each token and the n - 1 most probable ones
	Seed              uint64   // the same seed gives the same text
	Stop              []string // strings that end a row's text and are not part of it
	Rendered          bool     // prompts already contain special tokens, like those of Model.RenderChat
	IgnoreEOS         bool     // continue after end-of-sequence tokens
	StopTokens        []int64  // ids of tokens that end a row's text and are not part of it
	ModelSampling     bool     // sample with the settings that the model recommends, in place of those that are 0

	// OnToken is called for every token, on the goroutine that made the call. Returning false ends all rows. If it
	// panics, they end too, and the panic continues when the call has ended.
	OnToken func(Written) bool
}

// Generation is the generated text of one row.
type Generation struct {
	Text         string       `json:"text"`     // without stop string and special tokens
	Tokens       []int64      `json:"tokens"`   // including the one that ended the text
	Logprobs     []Logprobs   `json:"logprobs"` // one per token, if requested
	FinishReason FinishReason `json:"finish_reason"`
	PromptTokens int          `json:"prompt_tokens"` // tokens in the row before these

	Uncertainty     []Uncertainty `json:"uncertainty"`      // one per token, if an ensemble generated it
	MeanUncertainty *Uncertainty  `json:"mean_uncertainty"` // their mean; otherwise nil
}

// Logprob is a token and the natural logarithm of its probability.
type Logprob struct {
	Token   int64   `json:"token"`
	Logprob float32 `json:"logprob"`
}

// Logprobs are the log-probabilities at one position.
type Logprobs struct {
	Chosen Logprob   `json:"chosen"` // of the token that was chosen
	Top    []Logprob `json:"top"`    // of the most probable tokens, best first
}

// Generate generates a text after each prompt. Earlier rows are dropped.
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

// Append appends text to a row (0 for a conversation; this creates it), to be read by the next Run. Of the options,
// only Rendered matters.
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

// Run continues all rows: only new tokens are computed. It returns the text generated by this call.
func (g *Generator) Run(ctx context.Context, o *GenerateOptions) ([]Generation, error) {
	return g.write(ctx, o, func(
		c *C.optimize_generator_t, options *C.optimize_generate_options_t, call *C.optimize_call_t,
		report **C.optimize_buffer_t, e errorOut,
	) status {
		return C.optimize_generator_run(c, options, call, report, e)
	})
}

// Reset drops all rows.
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

// c returns the options in their C form, except for OnToken.
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
