package optimize

// #include <optimize.h>
import "C"

import "context"

// Aggregation is how the tokens of an entity become one span.
type Aggregation int32

// The aggregations.
const (
	AggregationSimple  Aggregation = C.OPTIMIZE_AGGREGATION_SIMPLE  // adjacent tokens of one class
	AggregationNone    Aggregation = C.OPTIMIZE_AGGREGATION_NONE    // each token, with its label as it is
	AggregationFirst   Aggregation = C.OPTIMIZE_AGGREGATION_FIRST   // words, by their first tokens
	AggregationAverage Aggregation = C.OPTIMIZE_AGGREGATION_AVERAGE // words, by the mean scores of their tokens
	AggregationMax     Aggregation = C.OPTIMIZE_AGGREGATION_MAX     // words, by their tokens with the highest scores
)

// Tagger turns texts into labelled spans: named entities, parts of speech. Any number of goroutines may use it at once.
type Tagger struct {
	*handle[*C.optimize_tagger_t]
}

// TaggerOptions are the options of Context.NewTagger.
type TaggerOptions struct {
	Tokenizer   *Tokenizer // nil for the model's own
	Threads     uint32     // 0 for the context's
	BatchSize   uint32     // texts per run; 0 for 8
	MaxLength   uint32     // tokens of a window; 0 for the model's limit, up to 512; longer texts are read in several
	Stride      uint32     // tokens by which windows overlap; 0 for a quarter of a window
	Aggregation Aggregation
	KeepOutside bool // return spans with the label "O" too
	Execution   Execution
}

// Span is a part of a text with a label: text[Start:End].
type Span struct {
	Label string
	Score float32
	Start int
	End   int
}

// NewTagger loads a model for token classification.
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

// Tag returns the spans of each text, in the order of the text.
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
