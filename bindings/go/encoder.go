package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"fmt"
)

// Embedder computes vectors of texts. Any number of goroutines may use it at the same time.
type Embedder struct {
	*handle[*C.optimize_embedder_t]
}

// EmbedderOptions are the options of Context.NewEmbedder. The default of MaxLength is the limit for texts in the
// model's files, or else the number of positions of the model, up to 512. The default of Dimensions is truncate_dim in
// the model's files, or else all elements. At most one of Prompt and PromptName may be set.
type EmbedderOptions struct {
	Tokenizer  *Tokenizer // tokenizer of the texts; nil for that of the model
	Threads    uint32     // number of threads; 0 for that of the context
	BatchSize  uint32     // number of texts per run; 0 for 8
	MaxLength  uint32     // tokens after which a text is truncated; 0 for the limit in the model's files, or up to 512
	Dimensions uint32     // first elements of each vector to keep; 0 for truncate_dim in the model's files, or all
	Normalize  bool       // whether vectors are normalized to length 1, even if the model does not ask for it
	Prompt     *string    // text that precedes every text, "" for none; nil for the default prompt of the model
	PromptName string     // name of a prompt of the model, such as "query", instead of Prompt; "" for none
	Execution  Execution
}

// NewEmbedder creates an embedder of a model, which may be closed before the embedder. It fails with ErrUnsupported if
// the model has no output with vectors, with ErrNotFound if there is no tokenizer or no prompt with the name
// PromptName, with ErrInvalidArgument if both Prompt and PromptName are set, and otherwise like NewSession.
func (c *Context) NewEmbedder(ctx context.Context, model *Model, o *EmbedderOptions) (*Embedder, error) {
	if o == nil {
		o = &EmbedderOptions{}
	}
	held, err := c.encoding(model, o.Tokenizer)
	if err != nil {
		return nil, err
	}
	defer held.release()
	var m memory
	defer m.free()
	options := C.optimize_embedder_options_t{
		struct_size:  C.sizeof_optimize_embedder_options_t,
		threads:      C.uint32_t(o.Threads),
		batch_size:   C.uint32_t(o.BatchSize),
		max_length:   C.uint32_t(o.MaxLength),
		dimensions:   C.uint32_t(o.Dimensions),
		normalize:    flag(o.Normalize),
		prompt:       m.optional(o.Prompt),
		prompt_name:  m.textOrNil(o.PromptName),
		provider:     C.int32_t(o.Execution.Provider),
		device_id:    C.uint32_t(o.Execution.DeviceID),
		engine_cache: m.textOrNil(o.Execution.EngineCache),
		kernels:      C.int32_t(o.Execution.Kernels),
		precision:    C.int32_t(o.Execution.Precision),
	}
	var embedder *C.optimize_embedder_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_embedder_new(held.context, held.model, held.tokenizer, &options, call, &embedder, e)
	})
	if err != nil {
		return nil, err
	}
	return &Embedder{own(embedder, func(e *C.optimize_embedder_t) { C.optimize_embedder_free(e) })}, nil
}

// Embed returns the vectors of texts, a float32 tensor of shape [texts, width]. It fails with ErrInvalidArgument if
// there are no texts, if a text has no tokens, or if Dimensions is larger than the width of the model's vectors.
func (e *Embedder) Embed(ctx context.Context, texts []string) (*Tensor, error) {
	embedder, err := e.acquire()
	if err != nil {
		return nil, err
	}
	defer e.release()
	var m memory
	defer m.free()
	var vectors *C.optimize_tensor_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_embedder_embed(embedder, m.texts(texts), C.size_t(len(texts)), call, &vectors, e)
	})
	if err != nil {
		return nil, err
	}
	return newTensor(vectors), nil
}

// ScoreFunction is the function that turns the logits of a classifier into scores.
type ScoreFunction int32

// The score functions. ScoreFunctionAuto applies none if the output of the model contains scores already, and otherwise
// the function that the files of the model select: by default softmax, and sigmoid for a single class or multi-label
// classification.
const (
	ScoreFunctionAuto    ScoreFunction = C.OPTIMIZE_SCORE_FUNCTION_AUTO    // the function of the model
	ScoreFunctionSoftmax ScoreFunction = C.OPTIMIZE_SCORE_FUNCTION_SOFTMAX // softmax: the scores of a text sum to 1
	ScoreFunctionSigmoid ScoreFunction = C.OPTIMIZE_SCORE_FUNCTION_SIGMOID // sigmoid: each score is between 0 and 1
	ScoreFunctionNone    ScoreFunction = C.OPTIMIZE_SCORE_FUNCTION_NONE    // none: the scores are the output of the model
)

// Classifier computes scores of classes for texts or pairs of texts. Any number of goroutines may use it at the same
// time.
type Classifier struct {
	*handle[*C.optimize_classifier_t]
}

// ClassifierOptions are the options of Context.NewClassifier. The default of MaxLength is that of EmbedderOptions.
type ClassifierOptions struct {
	Tokenizer     *Tokenizer // tokenizer of the texts; nil for that of the model
	Threads       uint32     // number of threads; 0 for that of the context
	BatchSize     uint32     // number of texts per run; 0 for 8
	MaxLength     uint32     // tokens after which a text or pair is truncated; 0 for the default of EmbedderOptions
	ScoreFunction ScoreFunction
	Execution     Execution
}

// NewClassifier creates a classifier of a model, which may be closed before the classifier. It fails with
// ErrUnsupported if the model is not a classifier of texts, or if its files name an unknown score function and
// ScoreFunction is ScoreFunctionAuto; with ErrNotFound if there is no tokenizer; and otherwise like NewSession.
func (c *Context) NewClassifier(ctx context.Context, model *Model, o *ClassifierOptions) (*Classifier, error) {
	if o == nil {
		o = &ClassifierOptions{}
	}
	held, err := c.encoding(model, o.Tokenizer)
	if err != nil {
		return nil, err
	}
	defer held.release()
	var m memory
	defer m.free()
	options := C.optimize_classifier_options_t{
		struct_size:    C.sizeof_optimize_classifier_options_t,
		threads:        C.uint32_t(o.Threads),
		batch_size:     C.uint32_t(o.BatchSize),
		max_length:     C.uint32_t(o.MaxLength),
		score_function: C.int32_t(o.ScoreFunction),
		provider:       C.int32_t(o.Execution.Provider),
		device_id:      C.uint32_t(o.Execution.DeviceID),
		kernels:        C.int32_t(o.Execution.Kernels),
		engine_cache:   m.textOrNil(o.Execution.EngineCache),
		precision:      C.int32_t(o.Execution.Precision),
	}
	var classifier *C.optimize_classifier_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_classifier_new(held.context, held.model, held.tokenizer, &options, call, &classifier, e)
	})
	if err != nil {
		return nil, err
	}
	return &Classifier{own(classifier, func(c *C.optimize_classifier_t) { C.optimize_classifier_free(c) })}, nil
}

// Labels returns the labels of the classes, by index. A class without a name in the model's configuration has its index
// as label. The list is empty if the model does not give the number of its classes.
func (c *Classifier) Labels() ([]string, error) {
	classifier, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	labels := make([]string, C.optimize_classifier_label_count(classifier))
	for i := range labels {
		labels[i] = C.GoString(C.optimize_classifier_label(classifier, C.size_t(i)))
	}
	return labels, nil
}

// Classify returns the scores of texts, a float32 tensor of shape [texts, classes]. It fails with ErrInvalidArgument if
// there are no texts.
func (c *Classifier) Classify(ctx context.Context, texts []string) (*Tensor, error) {
	return c.classify(ctx, texts, nil)
}

// ClassifyPairs returns the scores of pairs of texts, a float32 tensor of shape [pairs, classes]. Pair i consists of
// texts[i] and second[i]. It fails with ErrInvalidArgument if there are no texts, or if the lengths of texts and second
// differ.
func (c *Classifier) ClassifyPairs(ctx context.Context, texts, second []string) (*Tensor, error) {
	if len(texts) != len(second) {
		return nil, fmt.Errorf("optimize: %d texts, but %d second texts: %w", len(texts), len(second), ErrInvalidArgument)
	}
	return c.classify(ctx, texts, second)
}

func (c *Classifier) classify(ctx context.Context, texts, second []string) (*Tensor, error) {
	classifier, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var m memory
	defer m.free()
	var scores *C.optimize_tensor_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_classifier_classify(classifier, m.texts(texts), m.texts(second), C.size_t(len(texts)), call,
			&scores, e)
	})
	if err != nil {
		return nil, err
	}
	return newTensor(scores), nil
}

// encoding holds the C handles from which an encoder is created. They stay valid until release is called.
type encoding struct {
	context   *C.optimize_context_t
	model     *C.optimize_model_t
	tokenizer *C.optimize_tokenizer_t
	release   func()
}

func (c *Context) encoding(model *Model, tokenizer *Tokenizer) (e encoding, err error) {
	if e.context, err = c.acquire(); err != nil {
		return e, err
	}
	if e.model, err = model.acquire(); err != nil {
		c.release()
		return e, err
	}
	e.release = func() {
		model.release()
		c.release()
	}
	if tokenizer == nil {
		return e, nil
	}
	if e.tokenizer, err = tokenizer.acquire(); err != nil {
		e.release()
		return e, err
	}
	release := e.release
	e.release = func() {
		tokenizer.release()
		release()
	}
	return e, nil
}
