package optimize

// #include <optimize.h>
import "C"

import (
	"context"
)

// PruneMethod is the pruning method, which selects the weights or units to prune.
type PruneMethod int32

// The pruning methods. Wanda and SparseGPT need calibration data: a text or tensors.
const (
	PruneMagnitude  PruneMethod = C.OPTIMIZE_PRUNE_MAGNITUDE  // sets the weights with the smallest magnitude to zero
	PruneRandom     PruneMethod = C.OPTIMIZE_PRUNE_RANDOM     // sets random weights to zero; Seed selects them
	PruneWanda      PruneMethod = C.OPTIMIZE_PRUNE_WANDA      // zeroes weights of least magnitude x input norm, per output
	PruneSparseGPT  PruneMethod = C.OPTIMIZE_PRUNE_SPARSEGPT  // sets weights to zero, and changes others to compensate
	PruneStructured PruneMethod = C.OPTIMIZE_PRUNE_STRUCTURED // removes neurons, channels and attention heads
)

// Importance is the criterion by which structured pruning ranks neurons, channels and heads.
type Importance int32

// The importance criteria.
const (
	ImportanceL1         Importance = C.OPTIMIZE_IMPORTANCE_L1         // sum of the magnitudes of the weights
	ImportanceL2         Importance = C.OPTIMIZE_IMPORTANCE_L2         // sum of the squares of the weights
	ImportanceActivation Importance = C.OPTIMIZE_IMPORTANCE_ACTIVATION // weights and activations; needs calibration data
	ImportanceRandom     Importance = C.OPTIMIZE_IMPORTANCE_RANDOM     // random order, which depends on Seed
)

// PruneOptions are the options of Context.Prune. Units are the neurons, channels and attention heads that structured
// pruning removes. If Sparsity is 0, the share is 0.5 or that of the pattern; with DropLayers or Layers, only layers
// are removed then.
//
// Without TargetModules, all weights of MatMul, FusedMatMul, Gemm, Conv, ConvTranspose and com.microsoft's Attention
// are pruned; weights of LSTM, GRU and RNN must be named. An embedding table that is named without a wildcard is pruned
// without Embeddings, too.
type PruneOptions struct {
	Method        PruneMethod
	Sparsity      float64 // share of zeros in each weight, or of units to remove; 0 for 0.5, with the exceptions above
	PatternKeep   uint32  // maximum number of nonzeros in PatternOf consecutive weights: 2 and 4 for the pattern 2:4
	PatternOf     uint32  // length of the pattern; 0 for no pattern
	Global        bool    // magnitude and random: whether one threshold applies to all weights together
	Embeddings    bool    // whether embedding tables, and output layers that share them, are pruned as well
	Threads       uint32  // number of threads; 0 for that of the context
	Importance    Importance
	RoundTo       uint32   // structured: number of which the remaining sizes are multiples; 0 for 1, 8 or 16 by size
	Reconstruct   bool     // structured: whether weights that read remaining units are fitted on the calibration data
	DropLayers    uint32   // structured: number of layers to remove, the least influential ones on the calibration data
	Seed          uint64   // seed of random choices
	MinElements   uint64   // minimum number of elements of a weight to prune; 0 for 1024
	TargetModules []string // names or globs of modules to prune; none for those listed above
	Exclude       []string // names or globs of modules to leave unchanged, even if TargetModules matches them
	Overrides     []string // texts GLOB=SPARSITY, which set another sparsity for matching modules; the first match counts
	Calibration   string   // calibration text for methods that measure activations; "" for none
	Windows       uint32   // number of windows of the calibration text; 0 for 16, or 64 with Reconstruct
	WindowLength  uint32   // number of tokens per window; 0 for 512, or the limit of the model
	ScratchFolder string   // folder of the temporary file with the pruned weights; "" for the system's temporary folder
	Layers        []uint32 // structured: indices of the layers to remove, instead of DropLayers
	TargetSize    uint64   // structured: maximum size of the result in bytes, instead of Sparsity; 0 for no limit
	TargetSpeedup float64  // structured: minimum measured speed-up, at least 1, instead of Sparsity; 0 for no limit

	CalibrationTensors map[string]*Tensor // calibration tensors by input name, instead of Calibration; nil for none
}

// Prune returns a pruned copy of a model, and a report; the original is unchanged. It fails with ErrInvalidArgument if
// an entry of TargetModules or Overrides matches nothing, or if options contradict each other or the method. It also
// fails with ErrNotFound if there is a calibration text but no tokenizer; with ErrUnsupported if no weight could be
// pruned; and with ErrGateNotMet if no sparsity meets TargetSize or TargetSpeedup.
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
