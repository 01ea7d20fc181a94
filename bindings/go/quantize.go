package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
)

// QuantizeType is the kind of quantization.
type QuantizeType int32

// The kinds of quantization.
const (
	QuantizeDynamic    QuantizeType = C.OPTIMIZE_QUANTIZE_DYNAMIC     // int8; activations in each run
	QuantizeWeightOnly QuantizeType = C.OPTIMIZE_QUANTIZE_WEIGHT_ONLY // weights of 2, 4 or 8 bits in blocks
	QuantizeStatic     QuantizeType = C.OPTIMIZE_QUANTIZE_STATIC      // int8; activations by calibration
)

// Algorithm is the algorithm that chooses the codes of block-quantized weights.
type Algorithm int32

// The algorithms for block-quantized weights.
const (
	AlgorithmAuto Algorithm = C.OPTIMIZE_ALGORITHM_AUTO // GPTQ with calibration data, otherwise RTN
	AlgorithmRTN  Algorithm = C.OPTIMIZE_ALGORITHM_RTN  // round to nearest, with the best scale and zero point
	AlgorithmHQQ  Algorithm = C.OPTIMIZE_ALGORITHM_HQQ  // half-quadratic quantization
	AlgorithmGPTQ Algorithm = C.OPTIMIZE_ALGORITHM_GPTQ // the following weights compensate the error of each
	AlgorithmAWQ  Algorithm = C.OPTIMIZE_ALGORITHM_AWQ  // inputs are scaled by the magnitude of activations
)

// CalibrationMethod is the method that determines the range of an activation from calibration data.
type CalibrationMethod int32

// The calibration methods.
const (
	CalibrationMinMax     CalibrationMethod = C.OPTIMIZE_CALIBRATION_MIN_MAX    // minimum to maximum value
	CalibrationPercentile CalibrationMethod = C.OPTIMIZE_CALIBRATION_PERCENTILE // between two percentiles
	CalibrationEntropy    CalibrationMethod = C.OPTIMIZE_CALIBRATION_ENTROPY    // smallest divergence of the histogram
	CalibrationMSE        CalibrationMethod = C.OPTIMIZE_CALIBRATION_MSE        // smallest squared error
)

// ScaleType is the type of the scales of blocks in the file. Sessions convert scales to float32.
type ScaleType int32

// The types of scales.
const (
	ScaleUint8   ScaleType = C.OPTIMIZE_SCALE_UINT8   // uint8, times a float32 factor per row
	ScaleFloat16 ScaleType = C.OPTIMIZE_SCALE_FLOAT16 // float16
	ScaleFloat32 ScaleType = C.OPTIMIZE_SCALE_FLOAT32 // float32
)

// ReduceRange states whether 8-bit weights use only 7 bits, as x86 processors without VNNI require.
type ReduceRange int32

// The values of ReduceRange.
const (
	ReduceRangeAuto ReduceRange = C.OPTIMIZE_REDUCE_RANGE_AUTO // 7 bits if this processor requires it
	ReduceRangeOn   ReduceRange = C.OPTIMIZE_REDUCE_RANGE_ON   // 7 bits, for processors without VNNI
	ReduceRangeOff  ReduceRange = C.OPTIMIZE_REDUCE_RANGE_OFF  // 8 bits
)

// QuantizeOptions are the options of Context.Quantize.
type QuantizeOptions struct {
	Type              QuantizeType
	Bits              uint32 // number of bits per weight: 8, weight-only also 4 or 2; 0 for 8, weight-only 4
	ReduceRange       ReduceRange
	PerTensor         bool   // whether a weight has one scale instead of one per output channel
	KeepEmbeddings    bool   // whether embedding tables stay float
	Threads           uint32 // number of threads; 0 for that of the context
	BlockSize         uint32 // weight-only: number of elements of a row that share a scale, 16 to 256; 0 for 32
	Symmetric         bool   // weight-only: whether there are no zero points
	ScaleType         ScaleType
	AccuracyLevel     uint32            // weight-only: accuracy_level of MatMulNBits, 4 or 1; 0 for 4
	MinElements       uint64            // minimum number of elements of a weight; 0 for 1024
	Include           []string          // globs of the names of nodes and weights; none for all nodes
	Exclude           []string          // globs of the names to leave unchanged, also if Include matches them
	Overrides         []string          // weight-only: texts GLOB=BITS or GLOB=BITS/BLOCK for other bits
	Calibration       string            // calibration text; "" for none; for weight-only it selects GPTQ
	Windows           uint32            // number of windows of the calibration text; 0 for 16
	WindowLength      uint32            // number of tokens per window; 0 for 512, or the limit of the model
	Algorithm         Algorithm         // weight-only: algorithm that chooses the codes
	CalibrationMethod CalibrationMethod // static: method that determines the ranges of activations
	Percentile        float64           // static: percentage of values that CalibrationPercentile keeps; 0 for 99.99
	SmoothQuant       float64           // static and dynamic: alpha of SmoothQuant, 0 to 1; 0 disables it
	MaxQualityLoss    float64           // maximum KL divergence in nats, or 1 - mean cosine; 0 for no limit
	TargetSize        uint64            // maximum size of the result in bytes; 0 for no limit
	NeverSlower       bool              // whether nodes that are not measurably faster when quantized stay float
	// CalibrationTensors are calibration tensors for the inputs, by name, instead of a text. Their first dimension
	// counts samples.
	CalibrationTensors map[string]*Tensor
	ScratchFolder      string // folder of the temporary file with the weights; "" for the system's temporary folder
}

// Quantize returns a quantized copy of a model; the original is unchanged. It fails with ErrUnsupported if there is
// nothing to quantize, with ErrGateNotMet if no result meets MaxQualityLoss, TargetSize or NeverSlower, and with
// ErrInvalidArgument for options that do not fit the Type.
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

// Plan estimates the result of Quantize with the same options, without quantizing. The summary of the report has, among
// others, bytes_after, seconds and memory_bytes. MaxQualityLoss, TargetSize, NeverSlower and calibration data are
// ignored. It fails with ErrUnsupported if there is nothing to quantize, and with ErrInvalidArgument for
// QuantizeStatic, whose result depends on calibration data.
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

// c returns the options as a C struct, and a function that ends the use of the tensors in them.
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

// held returns the names and C handles of the tensors of a map, which stay valid until the returned function is called.
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
