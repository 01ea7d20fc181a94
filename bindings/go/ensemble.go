package optimize

// #include <stdlib.h>
// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
	"unsafe"
)

// EnsembleMethod is the method by which the outputs of the members are combined.
type EnsembleMethod int32

// The methods of combination. EnsembleMean averages probabilities, normalized embeddings or numeric outputs.
// EnsembleProduct raises each probability to the power of its weight times the number of members. EnsembleContrastive
// gives 0 to tokens to which the first member gives less than a tenth of its maximum probability. EnsembleMax,
// EnsembleMedian and EnsembleContrastive use no weights: Weights are an error with them.
const (
	EnsembleMean        EnsembleMethod = C.OPTIMIZE_ENSEMBLE_MEAN        // mean, with Weights if they are given
	EnsembleWeighted    EnsembleMethod = C.OPTIMIZE_ENSEMBLE_WEIGHTED    // mean with Weights, which are required
	EnsembleLogits      EnsembleMethod = C.OPTIMIZE_ENSEMBLE_LOGITS      // softmax of the weighted mean of the logits
	EnsembleProduct     EnsembleMethod = C.OPTIMIZE_ENSEMBLE_PRODUCT     // normalized product of the probabilities
	EnsembleMax         EnsembleMethod = C.OPTIMIZE_ENSEMBLE_MAX         // maximum probability of each token, normalized
	EnsembleMedian      EnsembleMethod = C.OPTIMIZE_ENSEMBLE_MEDIAN      // median probability of each token, normalized
	EnsembleVote        EnsembleMethod = C.OPTIMIZE_ENSEMBLE_VOTE        // weights of the members that rank a token first
	EnsembleContrastive EnsembleMethod = C.OPTIMIZE_ENSEMBLE_CONTRASTIVE // first member's probabilities / second's
	EnsembleRerank      EnsembleMethod = C.OPTIMIZE_ENSEMBLE_RERANK      // text with the best score from all members
	EnsembleConcat      EnsembleMethod = C.OPTIMIZE_ENSEMBLE_CONCAT      // concatenated embeddings, scaled by weights
)

// EnsembleTask is the task of the members of an ensemble.
type EnsembleTask int32

// The tasks of an ensemble.
const (
	EnsembleAsMembers EnsembleTask = C.OPTIMIZE_ENSEMBLE_AS_MEMBERS // task that is detected from the members
	EnsembleGenerate  EnsembleTask = C.OPTIMIZE_ENSEMBLE_GENERATE
	EnsembleEmbed     EnsembleTask = C.OPTIMIZE_ENSEMBLE_EMBED
	EnsembleClassify  EnsembleTask = C.OPTIMIZE_ENSEMBLE_CLASSIFY
	EnsembleNumbers   EnsembleTask = C.OPTIMIZE_ENSEMBLE_NUMBERS
)

// EnsembleOptions are the options of NewEnsemble.
type EnsembleOptions struct {
	Method                     EnsembleMethod
	Task                       EnsembleTask
	Gate                       bool      // whether to use only the first member where all rank the same token first
	AllowDifferentVocabularies bool      // whether vocabularies may differ; tokens are then combined by their text
	Candidates                 uint32    // rerank: number of texts that each member generates; 0 for 1
	LengthPenalty              float64   // rerank: power of the length that divides scores; 0 for 1, negative for 0
	Weights                    []float64 // weights of the members, at least 0, one per member; none for equal weights
	Temperatures               []float64 // temperatures above 0, one per member, which divide its logits; none for 1
}

// Ensemble is a list of models with a method that combines their outputs. It is immutable.
type Ensemble struct {
	*handle[*C.optimize_ensemble_t]
}

func newEnsemble(e *C.optimize_ensemble_t) *Ensemble {
	return &Ensemble{own(e, func(e *C.optimize_ensemble_t) { C.optimize_ensemble_free(e) })}
}

// NewEnsemble creates an ensemble of models, which may be closed before the ensemble. It fails with ErrInvalidArgument
// if there are fewer than two models, if the models have different tasks, if their vocabularies differ and
// AllowDifferentVocabularies is false, or if the options do not fit the models.
func NewEnsemble(models []*Model, o *EnsembleOptions) (*Ensemble, error) {
	if o == nil {
		o = &EnsembleOptions{}
	}
	var m memory
	defer m.free()
	list, release, err := m.models(models)
	if err != nil {
		return nil, err
	}
	defer release()
	options := C.optimize_ensemble_options_t{
		struct_size:                  C.sizeof_optimize_ensemble_options_t,
		method:                       C.int32_t(o.Method),
		task:                         C.int32_t(o.Task),
		gate:                         flag(o.Gate),
		allow_different_vocabularies: flag(o.AllowDifferentVocabularies),
		candidates:                   C.uint32_t(o.Candidates),
		length_penalty:               C.double(o.LengthPenalty),
		weights:                      m.doubles(o.Weights),
		weight_count:                 C.uint64_t(len(o.Weights)),
		temperatures:                 m.doubles(o.Temperatures),
		temperature_count:            C.uint64_t(len(o.Temperatures)),
	}
	var ensemble *C.optimize_ensemble_t
	err = try(func(e errorOut) status {
		return C.optimize_ensemble_new(list, C.size_t(len(models)), &options, &ensemble, e)
	})
	if err != nil {
		return nil, err
	}
	return newEnsemble(ensemble), nil
}

// LoadEnsemble loads an ensemble and its members from a manifest: the file ensemble.json, or a folder that contains it.
// It fails with ErrNotFound if there is no manifest, and with ErrInvalidModel if the manifest is damaged or has a newer
// version, or if the size of a member differs from that in the manifest. Errors of Load for a member are returned.
func LoadEnsemble(path string) (*Ensemble, error) {
	var m memory
	defer m.free()
	name := m.text(path)
	var ensemble *C.optimize_ensemble_t
	if err := try(func(e errorOut) status { return C.optimize_ensemble_load(name, &ensemble, e) }); err != nil {
		return nil, err
	}
	return newEnsemble(ensemble), nil
}

// Save writes a manifest, ensemble.json with the paths of the members, to a folder, which is created if necessary. The
// members are not copied. It fails with ErrInvalidArgument if a member exists only in memory. For members that do not
// generate text, it also fails like Fuse, because loading the manifest as a model fuses them.
func (n *Ensemble) Save(folder string) error {
	c, err := n.acquire()
	if err != nil {
		return err
	}
	defer n.release()
	var m memory
	defer m.free()
	name := m.text(folder)
	return try(func(e errorOut) status { return C.optimize_ensemble_save(c, name, e) })
}

// EnsembleInfo is the description of an ensemble.
type EnsembleInfo struct {
	Method       string    `json:"method"`       // name of the method, such as "mean"
	Task         string    `json:"task"`         // name of the task, such as "generate"
	Members      []string  `json:"members"`      // paths of the members; "" for a model made in memory
	Weights      []float64 `json:"weights"`      // weights of the members, whose sum is 1
	Temperatures []float64 `json:"temperatures"` // temperatures of the members
	Notes        []string  `json:"notes"`        // unexpected properties of the members, such as a truncated vocabulary
}

// Inspect returns a description of the ensemble.
func (n *Ensemble) Inspect() (*EnsembleInfo, error) {
	c, err := n.acquire()
	if err != nil {
		return nil, err
	}
	defer n.release()
	var buffer *C.optimize_buffer_t
	if err := try(func(e errorOut) status { return C.optimize_ensemble_inspect(c, &buffer, e) }); err != nil {
		return nil, err
	}
	info := &EnsembleInfo{}
	return info, json.Unmarshal(take(buffer), info)
}

// FitOptions are the options of Context.Fit.
type FitOptions struct {
	Threads       uint32 // number of threads; 0 for that of the context
	ContextLength uint32 // number of tokens per window; 0 for the limit of the members, up to 512
	Stride        uint32 // number of tokens between the starts of two windows; 0 for half of a window
	MaxTokens     uint64 // number of tokens of the text to read; 0 for 8192
}

// Fit is the result of Context.Fit. Losses are mean negative log-likelihoods (NLL) of the text, in nats per token.
type Fit struct {
	Weights   []float64 `json:"weights"`    // fitted weights, whose sum is 1
	MemberNLL []float64 `json:"member_nll"` // loss of each member alone
	EqualNLL  float64   `json:"equal_nll"`  // loss of the ensemble with equal weights
	FittedNLL float64   `json:"fitted_nll"` // loss of the ensemble with the fitted weights
	Gap       float64   `json:"gap"`        // upper bound of FittedNLL minus its minimum over all weights
	Tokens    int       `json:"tokens"`     // number of tokens that the weights were fitted to
}

// Fit fits the weights of the members of an ensemble of decoders to a text, and returns an ensemble with these weights,
// and the losses. The original is unchanged. It fails with ErrUnsupported if the method has no weights or the members
// are not decoders with one vocabulary, with ErrNotFound if no member has a tokenizer, and with ErrInvalidArgument if
// the text is too short.
func (c *Context) Fit(ctx context.Context, ensemble *Ensemble, text string, o *FitOptions) (*Ensemble, *Fit, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, nil, err
	}
	defer c.release()
	n, err := ensemble.acquire()
	if err != nil {
		return nil, nil, err
	}
	defer ensemble.release()
	if o == nil {
		o = &FitOptions{}
	}
	options := C.optimize_fit_options_t{
		struct_size:    C.sizeof_optimize_fit_options_t,
		threads:        C.uint32_t(o.Threads),
		context_length: C.uint32_t(o.ContextLength),
		stride:         C.uint32_t(o.Stride),
		max_tokens:     C.uint64_t(o.MaxTokens),
	}
	bytes := addressable([]byte(text))
	var fitted *C.optimize_ensemble_t
	var buffer *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		data := (*C.char)(unsafe.Pointer(&bytes[0]))
		return C.optimize_ensemble_fit(context, n, data, C.size_t(len(text)), &options, call, &fitted, &buffer, e)
	})
	if err != nil {
		return nil, nil, err
	}
	fit := &Fit{}
	return newEnsemble(fitted), fit, json.Unmarshal(take(buffer), fit)
}

// Fuse returns a model that contains all members as branches and combines their outputs, and a report. The logits of a
// fused decoder are the logarithms of the combined probabilities. It fails with ErrUnsupported if the members cannot be
// fused.
func (n *Ensemble) Fuse(ctx context.Context) (*Model, *Report, error) {
	c, err := n.acquire()
	if err != nil {
		return nil, nil, err
	}
	defer n.release()
	return made(ctx, func(
		call *C.optimize_call_t, result **C.optimize_model_t, report **C.optimize_buffer_t, e errorOut,
	) status {
		return C.optimize_ensemble_fuse(c, call, result, report, e)
	})
}

// NewEnsembleGenerator creates a generator that combines the distributions of the members for every token. The ensemble
// may be closed before the generator. It fails with ErrUnsupported if the members do not generate text, with
// ErrInvalidArgument if the options have a draft, and otherwise like NewSession.
func (c *Context) NewEnsembleGenerator(
	ctx context.Context, ensemble *Ensemble, o *GeneratorOptions,
) (*Generator, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	n, err := ensemble.acquire()
	if err != nil {
		return nil, err
	}
	defer ensemble.release()
	var m memory
	defer m.free()
	options, release, err := o.c(&m)
	if err != nil {
		return nil, err
	}
	defer release()
	var generator *C.optimize_generator_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_ensemble_generator(context, n, &options, call, &generator, e)
	})
	if err != nil {
		return nil, err
	}
	return newGenerator(generator), nil
}

// MergeMethod is the method by which the weights of several models are merged.
type MergeMethod int32

// The merge methods.
const (
	MergeLinear MergeMethod = C.OPTIMIZE_MERGE_LINEAR // weighted mean of the weights
	MergeSlerp  MergeMethod = C.OPTIMIZE_MERGE_SLERP  // spherical linear interpolation; the second weight is the position
	MergeTies   MergeMethod = C.OPTIMIZE_MERGE_TIES   // Base plus the mean of the largest changes that agree in sign
)

// MergeOptions are the options of Merge.
type MergeOptions struct {
	Method        MergeMethod
	Weights       []float64 // weights of the models, at least 0, one per model; none for equal weights
	Base          *Model    // ties: base model, from which the models were trained; required for this method
	Density       float64   // ties: share of each model's changes from Base to keep, at most 1; 0 for 0.2
	Scale         float64   // ties: factor of the mean change; 0 for 1
	ScratchFolder string    // folder of the temporary file with the new weights; "" for the system's temporary folder
}

// Merge merges the weights of at least two models of one architecture, and returns a model of the size of one of the
// models, and a report. It fails with ErrInvalidArgument if graphs or shapes of the models differ or an option is out
// of range, and with ErrUnsupported if a weight that differs between the models is quantized.
func Merge(ctx context.Context, models []*Model, o *MergeOptions) (*Model, *Report, error) {
	if o == nil {
		o = &MergeOptions{}
	}
	var m memory
	defer m.free()
	list, release, err := m.models(models)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	var base *C.optimize_model_t
	if o.Base != nil {
		if base, err = o.Base.acquire(); err != nil {
			return nil, nil, err
		}
		defer o.Base.release()
	}
	options := C.optimize_merge_options_t{
		struct_size:    C.sizeof_optimize_merge_options_t,
		method:         C.int32_t(o.Method),
		weights:        m.doubles(o.Weights),
		weight_count:   C.uint64_t(len(o.Weights)),
		base:           base,
		density:        C.double(o.Density),
		scale:          C.double(o.Scale),
		scratch_folder: m.textOrNil(o.ScratchFolder),
	}
	return made(ctx, func(
		call *C.optimize_call_t, result **C.optimize_model_t, report **C.optimize_buffer_t, e errorOut,
	) status {
		return C.optimize_model_merge(list, C.size_t(len(models)), &options, call, result, report, e)
	})
}

// made calls make, a C function that creates a model, and returns the model and the report that make writes.
func made(ctx context.Context, make func(
	*C.optimize_call_t, **C.optimize_model_t, **C.optimize_buffer_t, errorOut,
) status) (*Model, *Report, error) {
	var result *C.optimize_model_t
	var buffer *C.optimize_buffer_t
	err := tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status { return make(call, &result, &buffer, e) })
	if err != nil {
		return nil, nil, err
	}
	report := &Report{JSON: take(buffer)}
	return newModel(result), report, json.Unmarshal(report.JSON, report)
}

// models returns the C handles of models, as an array in C memory, and a function that ends the use of the handles. It
// fails with ErrClosed if a model is nil or closed.
func (m *memory) models(models []*Model) (list **C.optimize_model_t, release func(), err error) {
	var held []*Model
	release = func() {
		for _, model := range held {
			model.release()
		}
	}
	if len(models) == 0 {
		return nil, release, nil
	}
	list = (**C.optimize_model_t)(C.malloc(C.size_t(len(models)) * C.size_t(unsafe.Sizeof(uintptr(0)))))
	m.blocks = append(m.blocks, unsafe.Pointer(list))
	for i, model := range models {
		var c *C.optimize_model_t
		if model == nil {
			err = ErrClosed
		} else {
			c, err = model.acquire()
		}
		if err != nil {
			release()
			return nil, nil, err
		}
		held = append(held, model)
		unsafe.Slice(list, len(models))[i] = c
	}
	return list, release, nil
}

// doubles returns a copy of a list in C memory; nil for an empty list.
func (m *memory) doubles(list []float64) *C.double {
	if len(list) == 0 {
		return nil
	}
	c := (*C.double)(C.malloc(C.size_t(len(list)) * 8))
	m.blocks = append(m.blocks, unsafe.Pointer(c))
	for i, number := range list {
		unsafe.Slice(c, len(list))[i] = C.double(number)
	}
	return c
}
