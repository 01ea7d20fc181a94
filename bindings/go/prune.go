package optimize

// #include <optimize.h>
import "C"

import (
	"context"
)

// PruneMethod is how weights are selected for pruning.
type PruneMethod int32

// The pruning methods. Wanda and SparseGPT need a calibration text.
const (
	PruneMagnitude  PruneMethod = C.OPTIMIZE_PRUNE_MAGNITUDE  // the smallest become zero
	PruneRandom     PruneMethod = C.OPTIMIZE_PRUNE_RANDOM     // random ones become zero, by the seed
	PruneWanda      PruneMethod = C.OPTIMIZE_PRUNE_WANDA      // the smallest by magnitude times input norm
	PruneSparseGPT  PruneMethod = C.OPTIMIZE_PRUNE_SPARSEGPT  // those whose removal the other weights compensate
	PruneStructured PruneMethod = C.OPTIMIZE_PRUNE_STRUCTURED // whole neurons, channels and heads are removed
)

// Importance is the criterion of structured pruning for neurons, channels and heads.
type Importance int32

// The importance criteria.
const (
	ImportanceL1         Importance = C.OPTIMIZE_IMPORTANCE_L1
	ImportanceL2         Importance = C.OPTIMIZE_IMPORTANCE_L2
	ImportanceActivation Importance = C.OPTIMIZE_IMPORTANCE_ACTIVATION // needs a calibration text
	ImportanceRandom     Importance = C.OPTIMIZE_IMPORTANCE_RANDOM
)

// PruneOptions are the options of Context.Prune.
type PruneOptions struct {
	Method        PruneMethod
	Sparsity      float64 // fraction of zeros in each weight; 0 for 0.5, or that of the pattern
	PatternKeep   uint32  // with PatternOf, 2 and 4 for 2:4: at most 2 of each 4 adjacent weights remain
	PatternOf     uint32
	Global        bool   // magnitude and random: one threshold for all weights
	Embeddings    bool   // also prune embedding tables
	Threads       uint32 // 0 for the context's
	Importance    Importance
	RoundTo       uint32   // structured: sizes stay multiples of this
	Reconstruct   bool     // structured: fit the weight after each cut on the calibration text
	DropLayers    uint32   // structured: number of layers to remove
	Seed          uint64   // seed of random choices
	MinElements   uint64   // weights with fewer elements are skipped; 0 for 1024
	TargetModules []string // names or globs of modules, weights or nodes; none for all MatMul, Gemm and Conv
	Exclude       []string // what is skipped; takes precedence over TargetModules
	Overrides     []string // GLOB=SPARSITY, another sparsity for matches
	Calibration   string   // text for methods that use activations; "" for none
	Windows       uint32   // windows of the calibration text; 0 for 16, or 64 with Reconstruct
	WindowLength  uint32   // window length in tokens; 0 for 512, or the model's maximum
	ScratchFolder string   // folder for the pruned weights until they are saved; "" for the system's
	Layers        []uint32 // structured: indices of layers to remove, instead of DropLayers
	TargetSize    uint64   // structured, instead of Sparsity: size in bytes to prune to, as little as needed
	TargetSpeedup float64  // structured, instead of Sparsity: speed-up to prune for, as little as needed

	CalibrationTensors map[string]*Tensor // calibration data for inputs by name, instead of Calibration
}

// Prune returns a new model with fewer weights; the original stays unchanged. It fails with ErrInvalidArgument if a
// target matches nothing, and with ErrUnsupported if no weight could be pruned.
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
		calibration:         m.dataOrNil(o.Calibration),
		calibration_size:    C.uint64_t(len(o.Calibration)),
		scratch_folder:      m.textOrNil(o.ScratchFolder),
		layers:              m.numbers(o.Layers),
		layer_count:         C.uint64_t(len(o.Layers)),
		target_size:         C.uint64_t(o.TargetSize),
		target_speedup:      C.double(o.TargetSpeedup),
	}
	names, data, release, err := held(o.CalibrationTensors)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	options.calibration_names = m.texts(names)
	options.calibration_tensors = m.tensors(data)
	options.calibration_tensor_count = C.uint64_t(len(data))
	return made(ctx, func(
		call *C.optimize_call_t, result **C.optimize_model_t, report **C.optimize_buffer_t, e errorOut,
	) status {
		return C.optimize_model_prune(context, original, &options, call, result, report, e)
	})
}
