package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
)

// QuantizeType is the form of a quantized model.
type QuantizeType int32

// The forms.
const (
	QuantizeDynamic    QuantizeType = C.OPTIMIZE_QUANTIZE_DYNAMIC     // int8; activations at run time
	QuantizeWeightOnly QuantizeType = C.OPTIMIZE_QUANTIZE_WEIGHT_ONLY // weights of 2, 4 or 8 bits in blocks
	QuantizeStatic     QuantizeType = C.OPTIMIZE_QUANTIZE_STATIC      // int8; activations calibrated
)

// Algorithm is how the codes of block-quantized weights are chosen.
type Algorithm int32

// The algorithms for block-quantized weights.
const (
	AlgorithmAuto Algorithm = C.OPTIMIZE_ALGORITHM_AUTO // GPTQ with calibration data, else RTN
	AlgorithmRTN  Algorithm = C.OPTIMIZE_ALGORITHM_RTN  // round to nearest; scale and zero point by search
	AlgorithmHQQ  Algorithm = C.OPTIMIZE_ALGORITHM_HQQ  // half-quadratic quantization
	AlgorithmGPTQ Algorithm = C.OPTIMIZE_ALGORITHM_GPTQ // later weights compensate the error of each weight
	AlgorithmAWQ  Algorithm = C.OPTIMIZE_ALGORITHM_AWQ  // weights are scaled by the importance of activations
)

// CalibrationMethod is how the range of an activation is determined on calibration data.
type CalibrationMethod int32

// The calibration methods.
const (
	CalibrationMinMax     CalibrationMethod = C.OPTIMIZE_CALIBRATION_MIN_MAX    // from the smallest to the largest value
	CalibrationPercentile CalibrationMethod = C.OPTIMIZE_CALIBRATION_PERCENTILE // without the outermost values
	CalibrationEntropy    CalibrationMethod = C.OPTIMIZE_CALIBRATION_ENTROPY    // the quantized histogram diverges least
	CalibrationMSE        CalibrationMethod = C.OPTIMIZE_CALIBRATION_MSE        // the least squared error
)

// ScaleType is the type in which scales of blocks are stored. Sessions convert them to float32.
type ScaleType int32

// The types of scales.
const (
	ScaleUint8   ScaleType = C.OPTIMIZE_SCALE_UINT8   // one byte, times a float32 factor per row
	ScaleFloat16 ScaleType = C.OPTIMIZE_SCALE_FLOAT16 // two bytes
	ScaleFloat32 ScaleType = C.OPTIMIZE_SCALE_FLOAT32 // four bytes
)

// ReduceRange is whether weights use 7 of their 8 bits, which x86 processors without VNNI require.
type ReduceRange int32

// Whether weights use 7 of their 8 bits.
const (
	ReduceRangeAuto ReduceRange = C.OPTIMIZE_REDUCE_RANGE_AUTO // depends on this processor
	ReduceRangeOn   ReduceRange = C.OPTIMIZE_REDUCE_RANGE_ON   // 7 bits, for processors without VNNI
	ReduceRangeOff  ReduceRange = C.OPTIMIZE_REDUCE_RANGE_OFF  // 8 bits
)

// QuantizeOptions are the options of Context.Quantize.
type QuantizeOptions struct {
	Type              QuantizeType
	Bits              uint32 // bits per weight: 8, weight-only also 4 or 2; 0 for 8, weight-only 4
	ReduceRange       ReduceRange
	PerTensor         bool   // one scale for a whole weight instead of one per output channel
	KeepEmbeddings    bool   // keep embedding tables in float
	Threads           uint32 // 0 for the context's
	BlockSize         uint32 // weight-only: elements of a row that share a scale, 16 to 256; 0 for 32
	Symmetric         bool   // weight-only: no zero points; zero is the middle code
	ScaleType         ScaleType
	AccuracyLevel     uint32            // weight-only: 4 quantizes activations to 8 bits (fast); 1 does not; 0 for 4
	MinElements       uint64            // weights with fewer elements are skipped; 0 for 1024
	Include           []string          // globs of node and weight names; none for all nodes
	Exclude           []string          // globs of names to skip; takes precedence over Include
	Overrides         []string          // weight-only: GLOB=BITS or GLOB=BITS/BLOCK, other bits for matches
	Calibration       string            // weight-only: calibration text (GPTQ); "" for none
	Windows           uint32            // windows of the calibration text; 0 for 16
	WindowLength      uint32            // window length in tokens; 0 for 512, or the model's maximum
	Algorithm         Algorithm         // weight-only: how codes are chosen
	CalibrationMethod CalibrationMethod // static: how activation ranges are determined
	Percentile        float64           // static: per cent of values that CalibrationPercentile keeps; 0 for 99.99
	SmoothQuant       float64           // static: fraction of the activation range moved into the weights, 0 to 1
	MaxQualityLoss    float64           // limit of KL divergence in nats, or of 1 - mean cosine; 0 for no limit
	TargetSize        uint64            // maximum size of the result in bytes; 0 for no limit
	NeverSlower       bool              // keep in float what is not faster when quantized, measured on this machine
	// CalibrationTensors is calibration data other than text: values of inputs by name, whose first dimension counts
	// samples.
	CalibrationTensors map[string]*Tensor
	ScratchFolder      string // folder for the quantized weights until they are saved; "" for the system's
}

// Quantize returns a new, smaller model; the original stays unchanged. It fails with ErrUnsupported if there is
// nothing to quantize.
func (c *Context) Quantize(ctx context.Context, model *Model, o *QuantizeOptions) (*Model, *Report, error) {
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
	var m memory
	defer m.free()
	options, release, err := o.c(&m)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	return made(ctx, func(
		call *C.optimize_call_t, result **C.optimize_model_t, report **C.optimize_buffer_t, e errorOut,
	) status {
		return C.optimize_model_quantize(context, original, &options, call, result, report, e)
	})
}

// Plan estimates the result of Quantize with the same options in milliseconds, without quantizing. The summary of the
// report has bytes_after, seconds and memory_bytes; MaxQualityLoss, TargetSize, NeverSlower and calibration data are
// ignored.
func (c *Context) Plan(model *Model, o *QuantizeOptions) (*Report, error) {
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
	var m memory
	defer m.free()
	options, release, err := o.c(&m)
	if err != nil {
		return nil, err
	}
	defer release()
	var buffer *C.optimize_buffer_t
	err = try(func(e errorOut) status { return C.optimize_model_plan(context, original, &options, &buffer, e) })
	if err != nil {
		return nil, err
	}
	report := &Report{JSON: take(buffer)}
	return report, json.Unmarshal(report.JSON, report)
}

// c returns the options in their C form, and a function that releases the tensors in them.
func (o *QuantizeOptions) c(m *memory) (options C.optimize_quantize_options_t, release func(), err error) {
	if o == nil {
		o = &QuantizeOptions{}
	}
	options = C.optimize_quantize_options_t{
		struct_size:         C.sizeof_optimize_quantize_options_t,
		_type:               C.int32_t(o.Type),
		bits:                C.uint32_t(o.Bits),
		reduce_range:        C.int32_t(o.ReduceRange),
		per_tensor:          flag(o.PerTensor),
		keep_embeddings:     flag(o.KeepEmbeddings),
		threads:             C.uint32_t(o.Threads),
		block_size:          C.uint32_t(o.BlockSize),
		symmetric:           flag(o.Symmetric),
		scale_type:          C.int32_t(o.ScaleType),
		accuracy_level:      C.uint32_t(o.AccuracyLevel),
		min_elements:        C.uint64_t(o.MinElements),
		include:             m.texts(o.Include),
		include_count:       C.uint64_t(len(o.Include)),
		exclude:             m.texts(o.Exclude),
		exclude_count:       C.uint64_t(len(o.Exclude)),
		overrides:           m.texts(o.Overrides),
		override_count:      C.uint64_t(len(o.Overrides)),
		calibration:         m.dataOrNil(o.Calibration),
		calibration_size:    C.uint64_t(len(o.Calibration)),
		calibration_windows: C.uint32_t(o.Windows),
		calibration_length:  C.uint32_t(o.WindowLength),
		scratch_folder:      m.textOrNil(o.ScratchFolder),
		algorithm:           C.int32_t(o.Algorithm),
		calibration_method:  C.int32_t(o.CalibrationMethod),
		percentile:          C.double(o.Percentile),
		smooth_quant:        C.double(o.SmoothQuant),
		max_quality_loss:    C.double(o.MaxQualityLoss),
		target_size:         C.uint64_t(o.TargetSize),
		never_slower:        flag(o.NeverSlower),
	}
	names, data, release, err := held(o.CalibrationTensors)
	if err != nil {
		return options, nil, err
	}
	options.calibration_names = m.texts(names)
	options.calibration_tensors = m.tensors(data)
	options.calibration_tensor_count = C.uint64_t(len(data))
	return options, release, nil
}

// held acquires the tensors of a map, until the returned function is called.
func held(tensors map[string]*Tensor) (names []string, data []*C.optimize_tensor_t, release func(), err error) {
	var open []*Tensor
	release = func() {
		for _, tensor := range open {
			tensor.release()
		}
	}
	for name, tensor := range tensors {
		t, err := tensor.acquire()
		if err != nil {
			release()
			return nil, nil, nil, err
		}
		names, data, open = append(names, name), append(data, t), append(open, tensor)
	}
	return names, data, release, nil
}
