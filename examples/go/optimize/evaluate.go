package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
)

// EvaluateTask is what Context.Evaluate measures.
type EvaluateTask int32

// What to evaluate, and what the data are for it.
const (
	EvaluateDefault        EvaluateTask = C.OPTIMIZE_EVALUATE_DEFAULT        // what the model is for
	EvaluatePerplexity     EvaluateTask = C.OPTIMIZE_EVALUATE_PERPLEXITY     // how well it foresees plain text
	EvaluateEmbedding      EvaluateTask = C.OPTIMIZE_EVALUATE_EMBEDDING      // how alike two models embed lines
	EvaluateClassification EvaluateTask = C.OPTIMIZE_EVALUATE_CLASSIFICATION // how often rows of label and text are right
	EvaluateProbe          EvaluateTask = C.OPTIMIZE_EVALUATE_PROBE          // how well a linear classifier does on embeddings
)

// Bos says where the token that begins a text stands, for models whose tokenizer puts one.
type Bos int32

// Where the token that begins a text stands.
const (
	BosEveryWindow Bos = C.OPTIMIZE_BOS_EVERY_WINDOW // as llama.cpp has it
	BosFirstWindow Bos = C.OPTIMIZE_BOS_FIRST_WINDOW // as the documentation of transformers has it
	BosNever       Bos = C.OPTIMIZE_BOS_NEVER
)

// EvaluateOptions are the options of Context.Evaluate. What a task does not need is passed over.
type EvaluateOptions struct {
	Task          EvaluateTask
	Against       *Model     // to compare with on the same data; nil measures one model alone
	Tokenizer     *Tokenizer // nil is the one that belongs to the model
	Threads       uint32     // 0 is as the context says
	ContextLength uint32     // perplexity: tokens of a window; 0 is what the model takes, up to 512
	Stride        uint32     // perplexity: tokens from one window to the next; 0 is half of the context length
	Bos           Bos        // perplexity
	MaxTokens     uint64     // perplexity: tokens of the text to read; 0 is all
	MaxTexts      uint64     // other tasks: lines or rows to use; 0 is all
	MaxLength     uint32     // other tasks: tokens after which a text is cut; 0 is what the model takes, up to 512
	BatchSize     uint32     // other tasks: texts in one run; 0 is 1
	Seed          uint64     // probe: of the split into training and test
	TestShare     float64    // probe: share of the texts that is kept for the test; 0 is 0.2
	Penalty       float64    // probe: weight of the penalty on large weights; 0 is 0.5
	Execution     Execution
}

// EvaluateReport is what a model is worth on data: the main fields of docs/report.md, and in JSON all of them.
type EvaluateReport struct {
	Input   *File      `json:"input"`
	Output  *File      `json:"output"` // nil if the model was measured alone
	Seconds float64    `json:"seconds"`
	Quality Evaluation `json:"quality"`

	JSON json.RawMessage `json:"-"`
}

// Evaluation holds the figures of a task. Those of other tasks are nil.
type Evaluation struct {
	Task     string   `json:"task"` // "perplexity", "embedding", "classification" or "probe"
	Figures           // of a model that was measured alone
	Original *Figures `json:"original"` // of each model, where two were
	Result   *Figures `json:"result"`

	// Perplexity of two models: that of the result over that of the original, and how far apart they are.
	Ratio         *Interval `json:"ratio"`
	Verdict       string    `json:"verdict"` // "worse", "better", "no difference" or "too little text"
	KL            *Interval `json:"kl"`
	Top1Agreement *float64  `json:"top1_agreement"`

	// Embeddings of two models.
	Cosine      *float64 `json:"cosine"`
	CosineP1    *float64 `json:"cosine_p1"`
	CosineMin   *float64 `json:"cosine_min"`
	NearestKept *float64 `json:"nearest_kept"`

	// Classes that two models give, and the change of their accuracy; of probes the change alone.
	Agreement      *float64  `json:"agreement"`
	AccuracyChange *Interval `json:"accuracy_change"`
}

// Figures are those of one model. Those of other tasks are nil.
type Figures struct {
	Perplexity  *float64 `json:"perplexity"`
	NLL         *float64 `json:"nll"` // nats a token
	BitsPerByte *float64 `json:"bits_per_byte"`
	Tokens      *int     `json:"tokens"`

	Accuracy     *float64 `json:"accuracy"`
	AccuracyLow  *float64 `json:"accuracy_low"` // low and high are the ends of the 95 % interval
	AccuracyHigh *float64 `json:"accuracy_high"`
	MacroF1      *float64 `json:"macro_f1"`
	Samples      *int     `json:"samples"`
}

// Interval is a figure with the ends of its 95 % interval, which are nil where there is too little to say.
type Interval struct {
	Value *float64 `json:"value"`
	Low   *float64 `json:"low"`
	High  *float64 `json:"high"`
}

// Evaluate measures what a model is worth on data (the content of a file), alone or against another.
func (c *Context) Evaluate(ctx context.Context, model *Model, data string, o *EvaluateOptions) (*EvaluateReport, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	original, err := model.acquire()
	if err != nil {
		return nil, err
	}
	defer model.release()
	if o == nil {
		o = &EvaluateOptions{}
	}
	var against *C.optimize_model_t
	if o.Against != nil {
		if against, err = o.Against.acquire(); err != nil {
			return nil, err
		}
		defer o.Against.release()
	}
	var tokenizer *C.optimize_tokenizer_t
	if o.Tokenizer != nil {
		if tokenizer, err = o.Tokenizer.acquire(); err != nil {
			return nil, err
		}
		defer o.Tokenizer.release()
	}
	var m memory
	defer m.free()
	options := C.optimize_evaluate_options_t{
		struct_size:    C.sizeof_optimize_evaluate_options_t,
		task:           C.int32_t(o.Task),
		threads:        C.uint32_t(o.Threads),
		context_length: C.uint32_t(o.ContextLength),
		stride:         C.uint32_t(o.Stride),
		bos:            C.int32_t(o.Bos),
		max_length:     C.uint32_t(o.MaxLength),
		batch_size:     C.uint32_t(o.BatchSize),
		max_tokens:     C.uint64_t(o.MaxTokens),
		max_texts:      C.uint64_t(o.MaxTexts),
		seed:           C.uint64_t(o.Seed),
		test_share:     C.double(o.TestShare),
		penalty:        C.double(o.Penalty),
		provider:       C.int32_t(o.Execution.Provider),
		device_id:      C.uint32_t(o.Execution.DeviceID),
		engine_cache:   m.textOrNil(o.Execution.EngineCache),
	}
	text := m.keep(C.CString(data)) // a NUL inside is data as any other
	var buffer *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_model_evaluate(context, original, against, tokenizer, text, C.size_t(len(data)), &options,
			call, &buffer, e)
	})
	if err != nil {
		return nil, err
	}
	report := &EvaluateReport{JSON: take(buffer)}
	return report, json.Unmarshal(report.JSON, report)
}
