package optimize

// #include <stdlib.h>
// #include <optimize.h>
import "C"

import (
	"context"
	"unsafe"
)

// Precision is what a TensorRT engine computes with.
type Precision int32

// The precisions.
const (
	FP32 Precision = C.OPTIMIZE_PRECISION_FP32
	FP16 Precision = C.OPTIMIZE_PRECISION_FP16
	BF16 Precision = C.OPTIMIZE_PRECISION_BF16
	INT8 Precision = C.OPTIMIZE_PRECISION_INT8
	FP8  Precision = C.OPTIMIZE_PRECISION_FP8
)

// TensorRTOptions are the options of Context.BuildTensorRT.
type TensorRTOptions struct {
	Precision           Precision
	Backend             int32  // 0 chooses, 1 is TensorRT, 2 TensorRT-RTX, 3 ONNX Runtime
	OptimizationLevel   uint32 // 1 to 6 for TensorRT's 0 to 5; 0 is its default
	BatchSize           uint64 // where the model leaves it open
	SequenceLength      uint64 // where the model leaves it open
	Dimensions          string // "batch=1:8:32,sequence=128"
	MinShapes           string // "ids:1x16,mask:1x16"
	OptShapes           string
	MaxShapes           string
	Profiles            string // several, as JSON
	Library             string // folder of the libraries; empty looks for them
	TimingCache         string
	Workspace           uint64  // bytes; 0 is all
	MaxError            float64 // against fp32; 0 is 0.01 for FP16, 0.08 for BF16 and 0.15 for INT8 and FP8
	ComputeCapabilities []int32 // TensorRT-RTX: devices to build for, 89 for 8.9
	VersionCompatible   bool
	HardwareCompatible  bool
	Strip               bool
	Refit               bool
	Sparsity            bool
	Detailed            bool
	NoTF32              bool
	Force               bool
	RefuseMismatch      bool
	Threads             uint32
	Calibration         string // INT8 and FP8: path of a text, or of tensors (X.safetensors); "" is built-in sentences
}

// BuildTensorRT builds an engine of a model at path, with a manifest beside it. It gives a report as JSON.
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

// CheckTensorRT looks whether an engine may be used here, of model if that is not nil, and gives its manifest as JSON.
// trust says that whoever made it is trusted: it is code.
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

// TensorRTOpenOptions say how an engine is opened. Without Trust every engine is refused.
type TensorRTOpenOptions struct {
	Trust       bool   // whoever made it is trusted: an engine is code
	DeviceID    uint32 // number of the device, from 0
	ModelSHA256 string // of the model that it must be of; "" for any
	Library     string // folder of TensorRT's libraries; "" looks for them
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

// OpenTensorRT makes an engine file ready to run on a device. It fails with ErrUntrusted if nobody says that its maker is
// trusted, with ErrInvalidModel if it is not the engine that its manifest is about, with ErrMismatch if it is of another
// model, version or device, and with ErrBackendMissing or ErrDeviceMissing without TensorRT or a device.
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
