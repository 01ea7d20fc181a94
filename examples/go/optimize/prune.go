package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
)

// PruneMethod says how weights are chosen for pruning.
type PruneMethod int32

// How weights are chosen. Wanda and SparseGPT need a calibration text.
const (
	PruneMagnitude  PruneMethod = C.OPTIMIZE_PRUNE_MAGNITUDE  // the smallest become zero
	PruneRandom     PruneMethod = C.OPTIMIZE_PRUNE_RANDOM     // any become zero, by the seed
	PruneWanda      PruneMethod = C.OPTIMIZE_PRUNE_WANDA      // the smallest by magnitude times norm of the input
	PruneSparseGPT  PruneMethod = C.OPTIMIZE_PRUNE_SPARSEGPT  // those whose loss the others make up for
	PruneStructured PruneMethod = C.OPTIMIZE_PRUNE_STRUCTURED // whole neurons, channels and heads go
)

// Importance says by what structured pruning judges a neuron, channel or head.
type Importance int32

// By what units are judged.
const (
	ImportanceL1         Importance = C.OPTIMIZE_IMPORTANCE_L1
	ImportanceL2         Importance = C.OPTIMIZE_IMPORTANCE_L2
	ImportanceActivation Importance = C.OPTIMIZE_IMPORTANCE_ACTIVATION // needs a calibration text
	ImportanceRandom     Importance = C.OPTIMIZE_IMPORTANCE_RANDOM
)

// PruneOptions are the options of Context.Prune.
type PruneOptions struct {
	Method        PruneMethod
	Sparsity      float64 // share of each weight that is to be zero; 0 is 0.5, or what the pattern says
	PatternKeep   uint32  // with PatternOf, 2 and 4 for 2:4: of each 4 neighbours at most 2 stay
	PatternOf     uint32
	Global        bool   // magnitude and random: one threshold for all weights
	Embeddings    bool   // also prune embedding tables
	Threads       uint32 // 0 is as the context says
	Importance    Importance
	RoundTo       uint32   // structured: sizes stay multiples of this
	Reconstruct   bool     // structured: fit the weight behind each cut on the calibration text
	DropLayers    uint32   // structured: whole layers that go
	Seed          uint64   // of random choices
	MinElements   uint64   // weights with fewer elements are left; 0 is 1024
	TargetModules []string // names or globs of modules, weights or nodes; without any, all of MatMul, Gemm and Conv
	Exclude       []string // what is left as it is; wins over TargetModules
	Overrides     []string // GLOB=SPARSITY, another sparsity for what matches
	Calibration   string   // a text for the methods that look at what flows through weights; "" is none
	Windows       uint32   // of the calibration text; 0 is 16, or 64 with Reconstruct
	WindowLength  uint32   // tokens of a window; 0 is 512, or as many as the model takes
	ScratchFolder string   // for the pruned weights until they are saved; "" is the system's
	Layers        []uint32 // structured: numbers of layers that go, instead of DropLayers
	TargetSize    uint64   // structured, instead of Sparsity: as little as it takes to come down to so many bytes
	TargetSpeedup float64  // structured, instead of Sparsity: as little as it takes to be so many times as fast
}

// Prune makes a model with fewer weights of one, which stays. It fails with ErrInvalidArgument if a target matches
// nothing, with ErrUnsupported if no weight could be pruned.
func (c *Context) Prune(ctx context.Context, model *Model, o *PruneOptions) (*Model, *Report, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, nil, err
	}
	defer c.release()
	original, err := model.acquire()
	if err != nil {
		return nil, nil, err
	}
	defer model.release()
	if o == nil {
		o = &PruneOptions{}
	}
	var m memory
	defer m.free()
	options := C.optimize_prune_options_t{
		struct_size:         C.sizeof_optimize_prune_options_t,
		method:              C.int32_t(o.Method),
		sparsity:            C.double(o.Sparsity),
		pattern_keep:        C.uint32_t(o.PatternKeep),
		pattern_of:          C.uint32_t(o.PatternOf),
		global:              flag(o.Global),
		embeddings:          flag(o.Embeddings),
		threads:             C.uint32_t(o.Threads),
		importance:          C.int32_t(o.Importance),
		round_to:            C.uint32_t(o.RoundTo),
		reconstruct:         flag(o.Reconstruct),
		drop_layers:         C.uint32_t(o.DropLayers),
		calibration_windows: C.uint32_t(o.Windows),
		calibration_length:  C.uint32_t(o.WindowLength),
		seed:                C.uint64_t(o.Seed),
		min_elements:        C.uint64_t(o.MinElements),
		target_modules:      m.texts(o.TargetModules),
		target_module_count: C.uint64_t(len(o.TargetModules)),
		exclude:             m.texts(o.Exclude),
		exclude_count:       C.uint64_t(len(o.Exclude)),
		overrides:           m.texts(o.Overrides),
		override_count:      C.uint64_t(len(o.Overrides)),
		calibration:         m.textOrNil(o.Calibration),
		calibration_size:    C.uint64_t(len(o.Calibration)),
		scratch_folder:      m.textOrNil(o.ScratchFolder),
		layers:              m.numbers(o.Layers),
		layer_count:         C.uint64_t(len(o.Layers)),
		target_size:         C.uint64_t(o.TargetSize),
		target_speedup:      C.double(o.TargetSpeedup),
	}
	var result *C.optimize_model_t
	var buffer *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_model_prune(context, original, &options, call, &result, &buffer, e)
	})
	if err != nil {
		return nil, nil, err
	}
	report := &Report{JSON: take(buffer)}
	return newModel(result), report, json.Unmarshal(report.JSON, report)
}
