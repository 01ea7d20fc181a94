package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
)

// EvaluateTask is the task of Context.Evaluate. It determines the format of the data.
type EvaluateTask int32

// The evaluation tasks. The data of EvaluatePerplexity are plain text, and those of EvaluateEmbedding have one text per
// line. Those of EvaluateClassification and EvaluateProbe are rows with a label and a text, as TSV or CSV.
// EvaluateProbe trains a linear classifier on the embeddings of the texts.
const (
	EvaluateDefault        EvaluateTask = C.OPTIMIZE_EVALUATE_DEFAULT        // task that fits the model
	EvaluatePerplexity     EvaluateTask = C.OPTIMIZE_EVALUATE_PERPLEXITY     // perplexity of a language model
	EvaluateEmbedding      EvaluateTask = C.OPTIMIZE_EVALUATE_EMBEDDING      // similarity of two models' embeddings
	EvaluateClassification EvaluateTask = C.OPTIMIZE_EVALUATE_CLASSIFICATION // accuracy of a classifier
	EvaluateProbe          EvaluateTask = C.OPTIMIZE_EVALUATE_PROBE          // accuracy of a classifier of embeddings
)

// Bos is the position of the beginning-of-sequence token, for models whose tokenizer has one.
type Bos int32

// The positions of the beginning-of-sequence token.
const (
	BosEveryWindow Bos = C.OPTIMIZE_BOS_EVERY_WINDOW // at the start of every window, as in llama.cpp
	BosFirstWindow Bos = C.OPTIMIZE_BOS_FIRST_WINDOW // at the start of the text only, as in transformers
	BosNever       Bos = C.OPTIMIZE_BOS_NEVER        // nowhere
)

// EvaluateOptions are the options of Context.Evaluate. Options that a task does not use are ignored. The default of
// MaxLength is that of EmbedderOptions.
type EvaluateOptions struct {
	Task          EvaluateTask
	Against       *Model     // changed model, which is compared with the model on the same data; nil for none
	Tokenizer     *Tokenizer // tokenizer of the data; nil for that of the model
	Threads       uint32     // number of threads; 0 for that of the context
	ContextLength uint32     // perplexity: number of tokens per window; 0 for the limit of the model, up to 512
	Stride        uint32     // perplexity: number of tokens between the starts of two windows; 0 for half a window
	Bos           Bos        // perplexity: position of the beginning-of-sequence token
	MaxTokens     uint64     // perplexity: maximum number of tokens of the text to use; 0 for all
	MaxTexts      uint64     // other tasks: maximum number of lines or rows to use; 0 for all
	MaxLength     uint32     // other tasks: maximum tokens of a text; 0 for the default of EmbedderOptions
	BatchSize     uint32     // other tasks: number of texts per run; 0 for 1
	Seed          uint64     // probe: seed of the split into training set and test set
	TestShare     float64    // probe: share of the texts of each class in the test set, below 1; 0 for 0.2
	Penalty       float64    // probe: L2 penalty on the weights of the linear classifier; 0 for 0.5, negative for none
	Execution     Execution
}

// EvaluateReport is the result of an evaluation: the main fields of docs/report.md, and all of them in JSON.
type EvaluateReport struct {
	Input   *File      `json:"input"`   // model
	Output  *File      `json:"output"`  // model Against; nil without it
	Seconds float64    `json:"seconds"` // duration of the evaluation
	Quality Evaluation `json:"quality"` // results

	JSON json.RawMessage `json:"-"` // whole report
}

// Evaluation has the results of a task. Fields that do not apply to the task, or to the number of models, are nil, and
// Verdict is "". Of two models, the original is the argument model of Context.Evaluate, and the result is Against.
type Evaluation struct {
	Task     string   `json:"task"` // "perplexity", "embedding", "classification" or "probe"
	Figures           // results of the model, if it is the only one
	Original *Figures `json:"original"` // results of the original, if there are two models
	Result   *Figures `json:"result"`   // results of the result, if there are two models

	// Fields of the perplexities of two models: the perplexity of the result divided by that of the original, a verdict
	// on this ratio, the mean divergence KL(original ‖ result) of the distributions of the next token in nats, and the
	// share of tokens for which both models rank the same token first.
	Ratio         *Interval `json:"ratio"`
	Verdict       string    `json:"verdict"` // "worse", "better", "no difference" or "too little text"
	KL            *Interval `json:"kl"`
	Top1Agreement *float64  `json:"top1_agreement"`

	// Fields of the embeddings of two models: mean, 1st percentile and minimum over the texts of the cosine of both
	// models' vectors, and the share of texts whose nearest other text is the same in both models.
	Cosine      *float64 `json:"cosine"`
	CosineP1    *float64 `json:"cosine_p1"`
	CosineMin   *float64 `json:"cosine_min"`
	NearestKept *float64 `json:"nearest_kept"`

	// Fields of two classifiers: the share of texts with the same class, and the accuracy of the result minus that of
	// the original, from -1 to 1. For EvaluateProbe, Agreement is nil.
	Agreement      *float64  `json:"agreement"`
	AccuracyChange *Interval `json:"accuracy_change"`
}

// Figures are the results of one model: the first group is for perplexity, the second for classification and probe. The
// fields of the other group are nil.
type Figures struct {
	Perplexity  *float64 `json:"perplexity"`    // exp(NLL)
	NLL         *float64 `json:"nll"`           // mean negative log-likelihood in nats per token
	BitsPerByte *float64 `json:"bits_per_byte"` // NLL in bits per byte of text
	Tokens      *int     `json:"tokens"`        // number of scored tokens

	Accuracy     *float64 `json:"accuracy"`      // share of correct classes
	AccuracyLow  *float64 `json:"accuracy_low"`  // lower end of the 95 % interval of the accuracy
	AccuracyHigh *float64 `json:"accuracy_high"` // upper end
	MacroF1      *float64 `json:"macro_f1"`      // mean of the F1 scores of the classes
	Samples      *int     `json:"samples"`       // number of texts
}

// Interval is a number with its 95 % interval, whose ends are nil if there are too few data.
type Interval struct {
	Value *float64 `json:"value"`
	Low   *float64 `json:"low"`
	High  *float64 `json:"high"`
}

// Evaluate evaluates a model on data, the UTF-8 content of a file in the format of the task. With Against, it compares
// the two models on the data. The task EvaluateEmbedding requires Against.
//
// It fails with ErrNotFound if there is no tokenizer, and with ErrInvalidArgument if the data do not have the format of
// the task, if options do not fit the model, or if the two models cannot be compared. It also fails with ErrUnsupported
// if a model does not support the task; with ErrLimitExceeded above 64 MiB of data; and otherwise like NewSession.
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
	text := m.keep(C.CString(data)) // C.CString copies the whole string: the size is passed, so NUL may occur in it
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
