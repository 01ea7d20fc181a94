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
	QuantizeDynamic    QuantizeType = C.OPTIMIZE_QUANTIZE_DYNAMIC     // int8 weights; activation scales in each run
	QuantizeWeightOnly QuantizeType = C.OPTIMIZE_QUANTIZE_WEIGHT_ONLY // weights of 2, 4 or 8 bits in blocks
	QuantizeStatic     QuantizeType = C.OPTIMIZE_QUANTIZE_STATIC      // int8 weights; activation scales by calibration
)

// Algorithm is the algorithm that chooses the codes (the quantized values) of block-quantized weights.
type Algorithm int32

// The algorithms for block-quantized weights. AlgorithmGPTQ and AlgorithmAWQ need calibration data.
const (
	AlgorithmAuto Algorithm = C.OPTIMIZE_ALGORITHM_AUTO // GPTQ with calibration data, otherwise RTN
	AlgorithmRTN  Algorithm = C.OPTIMIZE_ALGORITHM_RTN  // round to nearest, with the best scale and zero point
	AlgorithmHQQ  Algorithm = C.OPTIMIZE_ALGORITHM_HQQ  // half-quadratic quantization
	AlgorithmGPTQ Algorithm = C.OPTIMIZE_ALGORITHM_GPTQ // changes following weights to compensate the error of each
	AlgorithmAWQ  Algorithm = C.OPTIMIZE_ALGORITHM_AWQ  // scales inputs of weights by the magnitude of activations
)

// CalibrationMethod is the method that determines the range of an activation from calibration data.
type CalibrationMethod int32

// The calibration methods.
const (
	CalibrationMinMax     CalibrationMethod = C.OPTIMIZE_CALIBRATION_MIN_MAX    // from the minimum to the maximum value
	CalibrationPercentile CalibrationMethod = C.OPTIMIZE_CALIBRATION_PERCENTILE // between two percentiles
	CalibrationEntropy    CalibrationMethod = C.OPTIMIZE_CALIBRATION_ENTROPY    // least divergence of the histogram
	CalibrationMSE        CalibrationMethod = C.OPTIMIZE_CALIBRATION_MSE        // least squared error
)

// ScaleType is the element type in which the file stores the scales of blocks. Sessions convert scales to float32.
type ScaleType int32

// The types of scales.
const (
	ScaleUint8   ScaleType = C.OPTIMIZE_SCALE_UINT8   // uint8, times a float32 factor per row
	ScaleFloat16 ScaleType = C.OPTIMIZE_SCALE_FLOAT16 // float16
	ScaleFloat32 ScaleType = C.OPTIMIZE_SCALE_FLOAT32 // float32
)

// ReduceRange states whether 8-bit weights use only 7 bits, because sums of 8-bit products can saturate on x86
// processors without VNNI.
type ReduceRange int32

// The values of ReduceRange.
const (
	ReduceRangeAuto ReduceRange = C.OPTIMIZE_REDUCE_RANGE_AUTO // 7 bits if this processor requires it
	ReduceRangeOn   ReduceRange = C.OPTIMIZE_REDUCE_RANGE_ON   // 7 bits, for models that will run without VNNI
	ReduceRangeOff  ReduceRange = C.OPTIMIZE_REDUCE_RANGE_OFF  // 8 bits
)

// QuantizeOptions are the options of Context.Quantize and Context.Plan. Weight-only quantization with calibration data
// uses GPTQ, unless Algorithm selects another algorithm. MaxQualityLoss is a mean KL divergence in nats for logits, and
// 1 - mean cosine for other outputs.
type QuantizeOptions struct {
	Type              QuantizeType
	Bits              uint32 // number of bits per weight: 8, for weight-only also 4 or 2; 0 for 8, for weight-only for 4
	ReduceRange       ReduceRange
	PerTensor         bool   // whether a weight has one scale instead of one per output channel
	KeepEmbeddings    bool   // whether embedding tables stay float
	Threads           uint32 // number of threads; 0 for that of the context
	BlockSize         uint32 // weight-only: elements of a row that share a scale: 16, 32, 64, 128 or 256; 0 for 32
	Symmetric         bool   // weight-only: whether blocks have no zero points, as those of 8 bits never have
	ScaleType         ScaleType
	AccuracyLevel     uint32            // weight-only: accuracy_level of MatMulNBits: 4 (8-bit activations) or 1; 0 for 4
	MinElements       uint64            // minimum number of elements of a weight to quantize; 0 for 1024
	Include           []string          // globs of the names of nodes and weights to quantize; none for all nodes
	Exclude           []string          // globs of the names to leave unchanged, even if Include matches them
	Overrides         []string          // weight-only: texts GLOB=BITS or GLOB=BITS/BLOCK; the first match counts
	Calibration       string            // calibration text, for which the model needs a tokenizer; "" for none
	Windows           uint32            // number of windows of the calibration text; 0 for 16
	WindowLength      uint32            // number of tokens per window; 0 for 512, or the limit of the model
	Algorithm         Algorithm         // weight-only: algorithm that chooses the codes
	CalibrationMethod CalibrationMethod // static: method that determines the ranges of activations
	Percentile        float64           // static: percentage of values that CalibrationPercentile keeps; 0 for 99.99
	SmoothQuant       float64           // static and dynamic: alpha of SmoothQuant, 0 to 1; 0 disables it
	MaxQualityLoss    float64           // maximum loss of each judged output (docs/report.md); 0 for no limit
	TargetSize        uint64            // maximum size of the result in bytes; 0 for no limit
	NeverSlower       bool              // whether nodes that are measurably slower when quantized stay float
	// CalibrationTensors are the calibration tensors by the name of the input, instead of Calibration; none for no
	// tensors. The first dimension of each tensor counts samples.
	CalibrationTensors map[string]*Tensor
	ScratchFolder      string // folder of the temporary file with the weights; "" for the system's temporary folder
}

// Quantize returns a quantized copy of a model, and a report; the original is unchanged. It fails with ErrUnsupported
// if there is nothing to quantize, and with ErrGateNotMet if no result meets MaxQualityLoss, TargetSize or NeverSlower.
// It also fails with ErrInvalidArgument if options do not fit the Type, or if the Type or the Algorithm needs
// calibration data and there are none; and with ErrNotFound if there is a calibration text but no tokenizer.
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

// Plan estimates the result of Quantize with the same options, without quantizing, and returns a report. The summary of
// the report has, among others, bytes_after, seconds and memory_bytes, the estimated time and memory of Quantize.
// MaxQualityLoss, TargetSize, NeverSlower and calibration data are ignored. It fails with ErrUnsupported if there is
// nothing to quantize, and with ErrInvalidArgument for QuantizeStatic, whose result depends on calibration data.
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

// c returns the options as a C struct, and a function that ends the use of CalibrationTensors by the struct.
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

// held returns the names and the C handles of the tensors of a map. The handles stay valid until release is called. It
// fails with ErrClosed if a tensor is nil or closed.
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
