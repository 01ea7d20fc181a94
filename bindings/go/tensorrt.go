package optimize

// #include <stdlib.h>
// #include <optimize.h>
import "C"

import (
	"context"
	"unsafe"
)

// Precision is the lowest precision in which the nodes of a TensorRT engine compute.
type Precision int32

// The precisions of engines. All but FP32 need ONNX Runtime, which measures the error.
const (
	FP32 Precision = C.OPTIMIZE_PRECISION_FP32 // the types of the model
	FP16 Precision = C.OPTIMIZE_PRECISION_FP16 // float16 for matrix products, convolutions and the nodes around them
	BF16 Precision = C.OPTIMIZE_PRECISION_BF16 // bfloat16 for the same nodes
	INT8 Precision = C.OPTIMIZE_PRECISION_INT8 // 8-bit integers for matrix products and convolutions with a weight
	FP8  Precision = C.OPTIMIZE_PRECISION_FP8  // float8 (e4m3) for the same nodes as INT8
)

// TensorRTBackend is the library that builds an engine.
type TensorRTBackend int32

// The libraries that build engines.
const (
	TensorRTAuto        TensorRTBackend = C.OPTIMIZE_TENSORRT_AUTO        // the first that can be used, in the order below
	TensorRTNvinfer     TensorRTBackend = C.OPTIMIZE_TENSORRT_NVINFER     // TensorRT 11, which builds for the device here
	TensorRTRTX         TensorRTBackend = C.OPTIMIZE_TENSORRT_RTX         // TensorRT-RTX 1, which needs no device
	TensorRTONNXRuntime TensorRTBackend = C.OPTIMIZE_TENSORRT_ONNXRUNTIME // ONNX Runtime: a model with engines in it
)

// TensorRTOptions are the options of Context.BuildTensorRT. A profile is a range of shapes of the inputs.
// As many nodes stay fp32 as MaxError requires.
type TensorRTOptions struct {
	Precision           Precision
	Backend             TensorRTBackend
	OptimizationLevel   uint32   // TensorRT's builder optimization level plus 1, 1 to 6; 0 for TensorRT's default
	BatchSize           uint64   // batch size, if it is dynamic in the model; 0 leaves it to the profiles
	SequenceLength      uint64   // sequence length, if it is dynamic in the model; 0 leaves it to the profiles
	Dimensions          string   // minimum, optimal and maximum sizes, such as "batch=1:8:32,sequence=128"; "" for none
	MinShapes           string   // minimum shapes of inputs, such as "ids:1x16,mask:1x16"; "" for none
	OptShapes           string   // optimal shapes of inputs, for which TensorRT tunes the engine; "" for none
	MaxShapes           string   // maximum shapes of inputs; "" for none
	Profiles            string   // several profiles as JSON (optimize_tensorrt_options_t in optimize.h); "" for none
	Library             string   // folder of TensorRT's libraries; "" searches for them
	TimingCache         string   // path of TensorRT's timing cache; "" for none
	Workspace           uint64   // maximum device memory of TensorRT's workspace in bytes; 0 for no limit
	MaxError            float64  // maximum error relative to fp32; 0 for 0.01 (FP16), 0.08 (BF16), 0.15 (INT8 and FP8)
	ComputeCapabilities []int32  // TensorRT-RTX: compute capabilities, such as 89 for 8.9; none for all
	VersionCompatible   bool     // whether the engine also runs with later versions of TensorRT
	HardwareCompatible  bool     // whether the engine runs on all devices from Ampere on
	Strip               bool     // whether the weights are stripped from the engine
	Refit               bool     // whether the weights of the engine can be replaced later
	Sparsity            bool     // whether weights with a 2:4 pattern are used as sparse weights
	Detailed            bool     // whether detailed information on layers is kept, for profilers
	NoTF32              bool     // whether TensorFloat-32 is disabled
	Force               bool     // whether the engine is built even if the existing one matches the options
	RefuseMismatch      bool     // whether another existing engine is ErrMismatch, instead of being replaced
	Threads             uint32   // number of threads of the measurements; 0 for that of the context
	Calibration         string   // INT8, FP8: path of a text or tensors (X.safetensors); "" for built-in sentences
	KeepFP32            []string // names of nodes or operators that stay fp32; none for no others
	GraphOnly           bool     // whether to write only the graph for the engine, as an .onnx file, without TensorRT
}

// BuildTensorRT builds a TensorRT engine of a model and writes it to path, a file X.engine or a folder, with a manifest
// next to it. An existing engine that matches model, library and options is kept. It returns a report as JSON.
//
// It fails with ErrBackendMissing if TensorRT is not found; with ErrDeviceMissing if the backend needs a device and
// there is none; with ErrUnsupported for an unsupported version of TensorRT or operator; and with ErrInvalidArgument if
// a dynamic dimension of an input has no range. It also fails with ErrGateNotMet if MaxError cannot be met; with
// ErrMismatch as RefuseMismatch describes; and with ErrBackend if TensorRT fails.
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

// CheckTensorRT checks whether the engine file at path can be used on this machine and, if model is not nil, whether it
// was built from model. It returns the manifest of the engine as JSON. trust states that you trust the source of the
// engine, which contains executable code.
//
// It fails with ErrUntrusted if trust is false or there is no manifest; with ErrInvalidModel if the file does not match
// its manifest or is not an engine; and with ErrMismatch if it belongs to another model, version or device. It also
// fails with ErrBackendMissing if TensorRT is not found, and with ErrDeviceMissing if there is no device.
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

// TensorRTOpenOptions are the options of Context.OpenTensorRT, Context.NewPackageEngine and Context.BenchmarkEngine.
// Trust is required: without it, the calls fail with ErrUntrusted.
type TensorRTOpenOptions struct {
	Trust       bool   // whether you trust the source of the engine, which contains executable code
	DeviceID    uint32 // index of the device, from 0
	ModelSHA256 string // SHA-256 of the model from which the engine must have been built, in hexadecimal; "" for any
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

// OpenTensorRT creates a session of the engine file at path on a device. ONNX Runtime is not needed. It fails with
// ErrUntrusted if Trust is false or there is no manifest next to the file; with ErrInvalidModel if the file does not
// match its manifest or is not an engine; and with ErrMismatch if it belongs to another model, version or device. It
// also fails with ErrBackendMissing if TensorRT is not found; with ErrDeviceMissing if there is no such device; and
// with ErrBackend if TensorRT cannot use the engine.
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
