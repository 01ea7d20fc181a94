package optimize

// #include <optimize.h>
import "C"

import "context"

// Aggregation is the rule by which the tokens of a text become spans.
type Aggregation int32

// The aggregation rules. With the last three, adjacent words of one class become a span. AggregationAverage takes the
// mean of the scores of each class over the tokens of the word.
const (
	AggregationSimple  Aggregation = C.OPTIMIZE_AGGREGATION_SIMPLE  // adjacent tokens of one class become a span
	AggregationNone    Aggregation = C.OPTIMIZE_AGGREGATION_NONE    // each token is a span, with its label as it is
	AggregationFirst   Aggregation = C.OPTIMIZE_AGGREGATION_FIRST   // a word has the class of its first token
	AggregationAverage Aggregation = C.OPTIMIZE_AGGREGATION_AVERAGE // a word has the class of the highest mean score
	AggregationMax     Aggregation = C.OPTIMIZE_AGGREGATION_MAX     // a word has the class of its best token
)

// Tagger finds labelled spans in texts, such as named entities or parts of speech. Any number of goroutines may use it
// at the same time.
type Tagger struct {
	*handle[*C.optimize_tagger_t]
}

// TaggerOptions are the options of Context.NewTagger. A text of more than MaxLength tokens is divided into windows,
// which overlap by Stride tokens. The default of MaxLength is that of EmbedderOptions.
type TaggerOptions struct {
	Tokenizer   *Tokenizer // tokenizer of the texts; nil for that of the model
	Threads     uint32     // number of threads; 0 for that of the context
	BatchSize   uint32     // number of texts per run; 0 for 8
	MaxLength   uint32     // tokens of a window, including special tokens; 0 for the default of EmbedderOptions
	Stride      uint32     // number of tokens by which windows overlap; 0 for a quarter of MaxLength
	Aggregation Aggregation
	KeepOutside bool // whether spans with the label "O", which belong to no entity, are returned as well
	Execution   Execution
}

// Span is a labelled part of a text. Label is the class of the entity, for example "PER", without the prefix "B-" or
// "I-"; with AggregationNone it is the label of the token, for example "B-PER".
type Span struct {
	Label string  // class of the entity, or label of the token
	Score float32 // probability of the label: the mean over the tokens or words of the span
	Start int     // offset of the first byte of the span in the text
	End   int     // offset after the last byte of the span: the span is text[Start:End]
}

// NewTagger creates a tagger of a model for token classification, which may be closed before the tagger. It fails with
// ErrUnsupported if the model has no logits for tokens or does not name its labels, with ErrNotFound if there is no
// tokenizer, with ErrInvalidArgument if options do not fit the model, and otherwise like NewSession.
func (c *Context) NewTagger(ctx context.Context, model *Model, o *TaggerOptions) (*Tagger, error) {
	if o == nil {
		o = &TaggerOptions{}
	}
	held, err := c.encoding(model, o.Tokenizer)
	if err != nil {
		return nil, err
	}
	defer held.release()
	var m memory
	defer m.free()
	options := C.optimize_tagger_options_t{
		struct_size:  C.sizeof_optimize_tagger_options_t,
		threads:      C.uint32_t(o.Threads),
		batch_size:   C.uint32_t(o.BatchSize),
		max_length:   C.uint32_t(o.MaxLength),
		stride:       C.uint32_t(o.Stride),
		aggregation:  C.int32_t(o.Aggregation),
		keep_outside: flag(o.KeepOutside),
		provider:     C.int32_t(o.Execution.Provider),
		device_id:    C.uint32_t(o.Execution.DeviceID),
		kernels:      C.int32_t(o.Execution.Kernels),
		engine_cache: m.textOrNil(o.Execution.EngineCache),
		precision:    C.int32_t(o.Execution.Precision),
	}
	var tagger *C.optimize_tagger_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_tagger_new(held.context, held.model, held.tokenizer, &options, call, &tagger, e)
	})
	if err != nil {
		return nil, err
	}
	return &Tagger{own(tagger, func(t *C.optimize_tagger_t) { C.optimize_tagger_free(t) })}, nil
}

// Tag returns the spans of each text, in the order of the text; nil for a text without spans. It fails with
// ErrInvalidArgument if there are no texts, with ErrUnsupported if the output does not have the shape [texts, tokens,
// labels], with ErrInvalidModel if the model names another number of labels than it has, and with ErrRuntime if a score is not a number or ONNX Runtime fails.
func (t *Tagger) Tag(ctx context.Context, texts []string) ([][]Span, error) {
	tagger, err := t.acquire()
	if err != nil {
		return nil, err
	}
	defer t.release()
	var m memory
	defer m.free()
	var found *C.optimize_spans_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_tagger_tag(tagger, m.texts(texts), C.size_t(len(texts)), call, &found, e)
	})
	if err != nil {
		return nil, err
	}
	defer C.optimize_spans_free(found)
	spans := make([][]Span, len(texts))
	for text := range spans {
		for i := C.size_t(0); i < C.optimize_spans_count(found, C.size_t(text)); i++ {
			span := C.optimize_span_t{struct_size: C.sizeof_optimize_span_t}
			err := try(func(e errorOut) status { return C.optimize_spans_get(found, C.size_t(text), i, &span, e) })
			if err != nil {
				return nil, err
			}
			one := Span{C.GoString(span.label), float32(span.score), int(span.start), int(span.end)}
			spans[text] = append(spans[text], one)
		}
	}
	return spans, nil
}
