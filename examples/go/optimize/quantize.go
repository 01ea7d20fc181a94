package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
)

// QuantizeType is the form of a quantized model.
type QuantizeType int32

// QuantizeDynamic has int8 weights; activations are quantized as they come. It needs no data.
const QuantizeDynamic QuantizeType = C.OPTIMIZE_QUANTIZE_DYNAMIC

// ReduceRange says whether weights use 7 of their 8 bits, as x86 processors without VNNI need it.
type ReduceRange int32

// Whether weights use 7 of their 8 bits.
const (
	ReduceRangeAuto ReduceRange = C.OPTIMIZE_REDUCE_RANGE_AUTO // by the processor here
	ReduceRangeOn   ReduceRange = C.OPTIMIZE_REDUCE_RANGE_ON   // 7 bits, for processors without VNNI
	ReduceRangeOff  ReduceRange = C.OPTIMIZE_REDUCE_RANGE_OFF  // 8 bits
)

// QuantizeOptions are the options of Context.Quantize.
type QuantizeOptions struct {
	Type           QuantizeType
	Bits           uint32 // of a weight; 0 is 8
	ReduceRange    ReduceRange
	PerTensor      bool     // one scale for a whole weight instead of one per output channel
	KeepEmbeddings bool     // leave embedding tables in float
	Threads        uint32   // 0 is as the context says
	MinElements    uint64   // weights with fewer elements are left; 0 is 1024
	Include        []string // globs over node and weight names; without any, all nodes
	Exclude        []string // globs over what to leave as it is; wins over Include
	ScratchFolder  string   // for the quantized weights until they are saved; "" is the system's
}

// Quantize makes a smaller model of one, which stays. It fails with ErrUnsupported if there is nothing to
// quantize.
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
	if o == nil {
		o = &QuantizeOptions{}
	}
	var m memory
	defer m.free()
	options := C.optimize_quantize_options_t{
		struct_size:     C.sizeof_optimize_quantize_options_t,
		_type:           C.int32_t(o.Type),
		bits:            C.uint32_t(o.Bits),
		reduce_range:    C.int32_t(o.ReduceRange),
		per_tensor:      flag(o.PerTensor),
		keep_embeddings: flag(o.KeepEmbeddings),
		threads:         C.uint32_t(o.Threads),
		min_elements:    C.uint64_t(o.MinElements),
		include:         m.texts(o.Include),
		include_count:   C.uint64_t(len(o.Include)),
		exclude:         m.texts(o.Exclude),
		exclude_count:   C.uint64_t(len(o.Exclude)),
		scratch_folder:  m.textOrNil(o.ScratchFolder),
	}
	var result *C.optimize_model_t
	var buffer *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_model_quantize(context, original, &options, call, &result, &buffer, e)
	})
	if err != nil {
		return nil, nil, err
	}
	report := &Report{JSON: take(buffer)}
	return newModel(result), report, json.Unmarshal(report.JSON, report)
}
