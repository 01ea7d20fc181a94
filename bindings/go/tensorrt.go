package optimize

// #include <stdlib.h>
// #include <optimize.h>
import "C"

import (
	"context"
	"unsafe"
)

// Precision is the precision of a TensorRT engine.
type Precision int32

// The precisions of engines.
const (
	FP32 Precision = C.OPTIMIZE_PRECISION_FP32
	FP16 Precision = C.OPTIMIZE_PRECISION_FP16
	BF16 Precision = C.OPTIMIZE_PRECISION_BF16
	INT8 Precision = C.OPTIMIZE_PRECISION_INT8
	FP8  Precision = C.OPTIMIZE_PRECISION_FP8
)

// TensorRTBackend is the library that builds an engine.
type TensorRTBackend int32

// The libraries that build engines.
const (
	TensorRTAuto        TensorRTBackend = C.OPTIMIZE_TENSORRT_AUTO        // the first available, in this order
	TensorRTNvinfer     TensorRTBackend = C.OPTIMIZE_TENSORRT_NVINFER     // TensorRT 11, for the device of this machine
	TensorRTRTX         TensorRTBackend = C.OPTIMIZE_TENSORRT_RTX         // TensorRT-RTX 1, which needs no device
	TensorRTONNXRuntime TensorRTBackend = C.OPTIMIZE_TENSORRT_ONNXRUNTIME // a model that contains engines
)

// TensorRTOptions are the options of Context.BuildTensorRT.
type TensorRTOptions struct {
	Precision           Precision
	Backend             TensorRTBackend
	OptimizationLevel   uint32   // 1 to 6 for TensorRT's levels 0 to 5; 0 for TensorRT's default
	BatchSize           uint64   // batch size, if it is dynamic in the model
	SequenceLength      uint64   // sequence length, if it is dynamic in the model
	Dimensions          string   // sizes of dimensions, such as "batch=1:8:32,sequence=128"
	MinShapes           string   // minimum shapes of inputs, such as "ids:1x16,mask:1x16"
	OptShapes           string   // optimal shapes of inputs, for which TensorRT tunes the engine
	MaxShapes           string   // maximum shapes of inputs
	Profiles            string   // several profiles as JSON, instead of single shapes
	Library             string   // folder of TensorRT's libraries; "" searches for them
	TimingCache         string   // path of TensorRT's timing cache; "" for none
	Workspace           uint64   // maximum memory of the workspace in bytes; 0 for no limit
	MaxError            float64  // maximum error relative to fp32; 0 for 0.01 (FP16), 0.08 (BF16), 0.15 (INT8 and FP8)
	ComputeCapabilities []int32  // TensorRT-RTX: compute capabilities, such as 89 for 8.9; none for all
	VersionCompatible   bool     // whether the engine also runs with later versions of TensorRT
	HardwareCompatible  bool     // whether the engine runs on all devices from Ampere on
	Strip               bool     // whether the weights are stripped from the engine
	Refit               bool     // whether the weights can be replaced later
	Sparsity            bool     // whether weights with a 2:4 pattern are used as sparse weights
	Detailed            bool     // whether detailed information on layers is kept, for profilers
	NoTF32              bool     // whether TensorFloat-32 is disabled
	Force               bool     // whether the engine is built even if the existing one matches the options
	RefuseMismatch      bool     // whether an existing engine that does not match is an error, ErrMismatch
	Threads             uint32   // number of threads of the measurements; 0 for that of the context
	Calibration         string   // INT8 and FP8: path of a text or of tensors (X.safetensors); "" for built-in sentences
	KeepFP32            []string // names of nodes, or of operators, that stay fp32
	GraphOnly           bool     // whether only the graph for the engine is written, as an .onnx file
}

// BuildTensorRT builds a TensorRT engine of a model and writes it to path, with a manifest next to it. An existing
// engine that matches the model and the options is reused. It returns a report as JSON.
func (c *Context) BuildTensorRT(ctx context.Context, model *Model, path string, o *TensorRTOptions) ([]byte, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	m, err := model.acquire()
	if err != nil {
		return nil, err
	}
	defer model.release()
	if o == nil {
		o = &TensorRTOptions{}
	}
	var texts memory
	defer texts.free()
	options := C.optimize_tensorrt_options_t{
		struct_size:         C.sizeof_optimize_tensorrt_options_t,
		precision:           C.int32_t(o.Precision),
		backend:             C.int32_t(o.Backend),
		optimization_level:  C.uint32_t(o.OptimizationLevel),
		batch_size:          C.uint64_t(o.BatchSize),
		sequence_length:     C.uint64_t(o.SequenceLength),
		dimensions:          texts.textOrNil(o.Dimensions),
		min_shapes:          texts.textOrNil(o.MinShapes),
		opt_shapes:          texts.textOrNil(o.OptShapes),
		max_shapes:          texts.textOrNil(o.MaxShapes),
		profiles:            texts.textOrNil(o.Profiles),
		library:             texts.textOrNil(o.Library),
		timing_cache:        texts.textOrNil(o.TimingCache),
		workspace:           C.uint64_t(o.Workspace),
		max_error:           C.double(o.MaxError),
		version_compatible:  flag(o.VersionCompatible),
		hardware_compatible: flag(o.HardwareCompatible),
		strip:               flag(o.Strip),
		refit:               flag(o.Refit),
		sparsity:            flag(o.Sparsity),
		detailed:            flag(o.Detailed),
		no_tf32:             flag(o.NoTF32),
		force:               flag(o.Force),
		refuse_mismatch:     flag(o.RefuseMismatch),
		threads:             C.uint32_t(o.Threads),
		calibration:         texts.textOrNil(o.Calibration),
		keep_fp32:           texts.texts(o.KeepFP32),
		keep_fp32_count:     C.uint64_t(len(o.KeepFP32)),
		graph_only:          flag(o.GraphOnly),
	}
	if n := len(o.ComputeCapabilities); n > 0 {
		list := C.CBytes(unsafe.Slice((*byte)(unsafe.Pointer(&o.ComputeCapabilities[0])), 4*n))
		defer C.free(list)
		options.compute_capabilities = (*C.int32_t)(list)
		options.compute_capability_count = C.uint64_t(n)
	}
	var report *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_model_build_tensorrt(context, m, texts.text(path), &options, call, &report, e)
	})
	if err != nil {
		return nil, err
	}
	return take(report), nil
}

// CheckTensorRT checks whether an engine can be used on this machine and, if model is not nil, whether it was built
// from model. It returns the manifest of the engine as JSON. trust states that you trust the source of the engine,
// which contains executable code; without it, the call fails with ErrUntrusted.
func (c *Context) CheckTensorRT(ctx context.Context, path string, model *Model, trust bool) ([]byte, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var m *C.optimize_model_t
	if model != nil {
		if m, err = model.acquire(); err != nil {
			return nil, err
		}
		defer model.release()
	}
	var texts memory
	defer texts.free()
	var manifest *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_tensorrt_check(context, texts.text(path), m, flag(trust), call, &manifest, e)
	})
	if err != nil {
		return nil, err
	}
	return take(manifest), nil
}

// TensorRTOpenOptions are the options for opening an engine. Without Trust, every engine is refused.
type TensorRTOpenOptions struct {
	Trust       bool   // whether you trust the source of the engine, which contains code
	DeviceID    uint32 // index of the device, from 0
	ModelSHA256 string // SHA-256 of the model of the engine; "" accepts any
	Library     string // folder of TensorRT's libraries; "" searches for them
}

func (o *TensorRTOpenOptions) c(m *memory) C.optimize_tensorrt_open_options_t {
	if o == nil {
		o = &TensorRTOpenOptions{}
	}
	return C.optimize_tensorrt_open_options_t{
		struct_size:  C.sizeof_optimize_tensorrt_open_options_t,
		trust:        flag(o.Trust),
		device_id:    C.uint32_t(o.DeviceID),
		model_sha256: m.textOrNil(o.ModelSHA256),
		library:      m.textOrNil(o.Library),
	}
}

// OpenTensorRT creates a session of an engine file on a device. It fails with ErrUntrusted without Trust, with
// ErrInvalidModel if the file does not match its manifest, with ErrMismatch if it belongs to another model, version or
// device, and with ErrBackendMissing or ErrDeviceMissing without TensorRT or a device.
func (c *Context) OpenTensorRT(ctx context.Context, path string, o *TensorRTOpenOptions) (*Session, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var m memory
	defer m.free()
	options := o.c(&m)
	var session *C.optimize_session_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_tensorrt_open(context, m.text(path), &options, call, &session, e)
	})
	if err != nil {
		return nil, err
	}
	return newSession(session), nil
}
