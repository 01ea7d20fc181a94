package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
)

// EvaluateTask is the task of Context.Evaluate.
type EvaluateTask int32

// The evaluation tasks and their data.
const (
	EvaluateDefault        EvaluateTask = C.OPTIMIZE_EVALUATE_DEFAULT        // the model's own task
	EvaluatePerplexity     EvaluateTask = C.OPTIMIZE_EVALUATE_PERPLEXITY     // prediction of plain text
	EvaluateEmbedding      EvaluateTask = C.OPTIMIZE_EVALUATE_EMBEDDING      // similarity of two models' embeddings of lines
	EvaluateClassification EvaluateTask = C.OPTIMIZE_EVALUATE_CLASSIFICATION // accuracy on rows of label and text
	EvaluateProbe          EvaluateTask = C.OPTIMIZE_EVALUATE_PROBE          // linear classifier on embeddings
)

// Bos is where the beginning-of-sequence token is inserted, for models whose tokenizer adds one.
type Bos int32

// The positions of the beginning-of-sequence token.
const (
	BosEveryWindow Bos = C.OPTIMIZE_BOS_EVERY_WINDOW // like llama.cpp
	BosFirstWindow Bos = C.OPTIMIZE_BOS_FIRST_WINDOW // like the documentation of transformers
	BosNever       Bos = C.OPTIMIZE_BOS_NEVER
)

// EvaluateOptions are the options of Context.Evaluate. Options that a task does not use are ignored.
type EvaluateOptions struct {
	Task          EvaluateTask
	Against       *Model     // second model for a comparison on the same data; nil for none
	Tokenizer     *Tokenizer // nil for the model's own
	Threads       uint32     // 0 for the context's
	ContextLength uint32     // perplexity: window length in tokens; 0 for the model's maximum, up to 512
	Stride        uint32     // perplexity: distance of windows in tokens; 0 for half of the context length
	Bos           Bos        // perplexity: where the beginning-of-sequence token is inserted
	MaxTokens     uint64     // perplexity: tokens of the text to read; 0 for all
	MaxTexts      uint64     // other tasks: number of lines or rows to use; 0 for all
	MaxLength     uint32     // other tasks: maximum text length in tokens; 0 for the model's maximum, up to 512
	BatchSize     uint32     // other tasks: texts per run; 0 for 1
	Seed          uint64     // probe: seed of the split into training and test
	TestShare     float64    // probe: fraction of the texts held out for the test; 0 for 0.2
	Penalty       float64    // probe: weight of the penalty on large weights; 0 for 0.5
	Execution     Execution
}

// EvaluateReport is the result of an evaluation: the main fields of docs/report.md, and all of them in JSON.
type EvaluateReport struct {
	Input   *File      `json:"input"`
	Output  *File      `json:"output"` // nil if the model was measured alone
	Seconds float64    `json:"seconds"`
	Quality Evaluation `json:"quality"`

	JSON json.RawMessage `json:"-"`
}

// Evaluation has the figures of a task. Those of other tasks are nil.
type Evaluation struct {
	Task     string   `json:"task"` // "perplexity", "embedding", "classification" or "probe"
	Figures           // figures of a single model
	Original *Figures `json:"original"` // figures of each of two models
	Result   *Figures `json:"result"`

	// Perplexity of two models: the result's divided by the original's, and their divergence.
	Ratio         *Interval `json:"ratio"`
	Verdict       string    `json:"verdict"` // "worse", "better", "no difference" or "too little text"
	KL            *Interval `json:"kl"`
	Top1Agreement *float64  `json:"top1_agreement"`

	// Embeddings of two models.
	Cosine      *float64 `json:"cosine"`
	CosineP1    *float64 `json:"cosine_p1"`
	CosineMin   *float64 `json:"cosine_min"`
	NearestKept *float64 `json:"nearest_kept"`

	// Agreement of two classifiers, and the change of their accuracy; for probes, only the change.
	Agreement      *float64  `json:"agreement"`
	AccuracyChange *Interval `json:"accuracy_change"`
}

// Figures are those of one model. Those of other tasks are nil.
type Figures struct {
	Perplexity  *float64 `json:"perplexity"`
	NLL         *float64 `json:"nll"` // nats per token
	BitsPerByte *float64 `json:"bits_per_byte"`
	Tokens      *int     `json:"tokens"`

	Accuracy     *float64 `json:"accuracy"`
	AccuracyLow  *float64 `json:"accuracy_low"` // low and high are the ends of the 95 % interval
	AccuracyHigh *float64 `json:"accuracy_high"`
	MacroF1      *float64 `json:"macro_f1"`
	Samples      *int     `json:"samples"`
}

// Interval is a figure with its 95 % interval, whose ends are nil if there are too few data.
type Interval struct {
	Value *float64 `json:"value"`
	Low   *float64 `json:"low"`
	High  *float64 `json:"high"`
}

// Evaluate measures a model on data (the content of a file), alone or against another model.
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
		kernels:        C.int32_t(o.Execution.Kernels),
		precision:      C.int32_t(o.Execution.Precision),
	}
	text := m.keep(C.CString(data)) // a NUL inside is ordinary data
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
