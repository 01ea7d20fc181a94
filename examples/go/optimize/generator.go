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

// Generator is a decoder made ready to write text, with what it has read so far. It takes one call at a time: a
// second one meanwhile fails with ErrBusy.
type Generator struct {
	*handle[*C.optimize_generator_t]
}

// GeneratorOptions are the options of Context.NewGenerator.
type GeneratorOptions struct {
	Threads          uint32 // 0 is as the context says
	RoundActivations bool   // faster with weights in blocks of a few bits, not as exact
	Execution        Execution
}

// NewGenerator makes a decoder ready to write, with the tokenizer that belongs to it. It fails with ErrUnsupported
// if the model is no decoder.
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

// c gives the options in the form C takes.
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
	}
}

// FinishReason is why a text ends.
type FinishReason int32

// Why a text ends.
const (
	FinishNone      FinishReason = C.OPTIMIZE_FINISH_NONE      // it goes on
	FinishEOS       FinishReason = C.OPTIMIZE_FINISH_EOS       // the model wrote an end-of-sequence token
	FinishLength    FinishReason = C.OPTIMIZE_FINISH_LENGTH    // a limit was reached
	FinishStop      FinishReason = C.OPTIMIZE_FINISH_STOP      // a stop string came up
	FinishCancelled FinishReason = C.OPTIMIZE_FINISH_CANCELLED // OnToken asked to stop
)

var finishReasons = map[string]FinishReason{
	"eos": FinishEOS, "length": FinishLength, "stop": FinishStop, "cancelled": FinishCancelled,
}

// UnmarshalText takes the name that reports use.
func (r *FinishReason) UnmarshalText(name []byte) error {
	reason, known := finishReasons[string(name)]
	if !known {
		return fmt.Errorf("optimize: no finish reason is called %q", name)
	}
	*r = reason
	return nil
}

// Written is a token as it is written.
type Written struct {
	Row          int
	Token        int64
	Text         string       // what is certain now: whole characters, nothing of a stop string; often empty
	Logprob      float32      // of the token, if Logprobs were asked for; else 0
	FinishReason FinishReason // not FinishNone with the last token of a row

	Uncertainty // of an ensemble; else all 0
}

// Uncertainty is what the members of an ensemble thought of a token.
type Uncertainty struct {
	Entropy           float64 `json:"entropy"`            // of the combined distribution, in nats
	MutualInformation float64 `json:"mutual_information"` // how much of it is disagreement, in nats
	Agreement         float64 `json:"agreement"`          // share of the members that would take this token
}

// GenerateOptions are the options of Generator.Generate, Run and Append. The zero value takes the most probable
// token each time, at most 256 of them.
type GenerateOptions struct {
	MaxNewTokens      uint32   // most tokens to write in each row; 0 with MaxLength 0 is 256
	MaxLength         uint32   // most tokens in each row, the prompt included; 0 is no such limit
	TopK              uint32   // draw among this many most probable tokens; 0 is all
	Temperature       float32  // 0 is always the most probable token; else logits are divided by it before the draw
	TopP              float32  // draw among the most probable tokens that together have this probability; 0 is all
	MinP              float32  // draw among tokens at least this many times as probable as the most probable; 0 is all
	RepetitionPenalty float32  // above 1, tokens of prompt and text become less probable; 0 is off
	PresencePenalty   float32  // taken off the logits of tokens already written; 0 is off
	FrequencyPenalty  float32  // taken off the logits of tokens already written, for each time; 0 is off
	NoRepeatNgramSize uint32   // no sequence of this many tokens appears twice; 0 is off
	Logprobs          uint32   // 0 is without, n gives that of each token and of the n - 1 most probable ones
	Seed              uint64   // the same seed gives the same text
	Stop              []string // end a row's text and are no part of it
	Rendered          bool     // prompts have their special tokens in them already: what Model.RenderChat gives
	IgnoreEOS         bool     // go on after end-of-sequence tokens
	StopTokens        []int64  // ids of tokens that end a row's text and are no part of it

	// OnToken is called for every token, on the goroutine that made the call. Returning false ends all rows. If
	// it panics they end too, and the panic goes on when the call has ended.
	OnToken func(Written) bool
}

// Generation is what was written in one row.
type Generation struct {
	Text         string       `json:"text"`     // without stop string and special tokens
	Tokens       []int64      `json:"tokens"`   // the one that ended the text included
	Logprobs     []Logprobs   `json:"logprobs"` // one for each token, if asked for
	FinishReason FinishReason `json:"finish_reason"`
	PromptTokens int          `json:"prompt_tokens"` // in the row before these

	Uncertainty     []Uncertainty `json:"uncertainty"`      // one for each token, if an ensemble wrote it
	MeanUncertainty *Uncertainty  `json:"mean_uncertainty"` // their mean; else nil
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

// Generate writes a text after each prompt. What the generator had read before is dropped.
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

// Append appends text to a row (0 for a conversation; this makes it), to be read by the next Run. Of the options
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

// Run writes on in all rows: only what is new is computed. It gives what was written now.
func (g *Generator) Run(ctx context.Context, o *GenerateOptions) ([]Generation, error) {
	return g.write(ctx, o, func(
		c *C.optimize_generator_t, options *C.optimize_generate_options_t, call *C.optimize_call_t,
		report **C.optimize_buffer_t, e errorOut,
	) status {
		return C.optimize_generator_run(c, options, call, report, e)
	})
}

// Reset forgets all rows.
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

// c gives the options in the form C takes, but for OnToken.
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
	}
}

// tokens is what the C callback reaches through its user data.
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
