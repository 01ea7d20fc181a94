package optimize

// #include <optimize.h>
import "C"

import "encoding/json"

// Provider is the execution provider of a session.
type Provider int32

// The execution providers. ProviderAuto is the first of TensorRT, CUDA and the CPU with which the session can be
// created. It occurs only in options: a session reports the provider that it uses.
const (
	ProviderCPU      Provider = C.OPTIMIZE_PROVIDER_CPU      // the CPU
	ProviderCUDA     Provider = C.OPTIMIZE_PROVIDER_CUDA     // an NVIDIA GPU; nodes without a CUDA kernel run on the CPU
	ProviderTensorRT Provider = C.OPTIMIZE_PROVIDER_TENSORRT // an NVIDIA GPU, with TensorRT engines for parts of the graph
	ProviderAuto     Provider = C.OPTIMIZE_PROVIDER_AUTO
)

// Kernels are the kernels that run the nodes of a session on the CPU.
type Kernels int32

// The kinds of kernels. KernelsAuto selects this library's kernels for groups of nodes that are usually faster with
// them, and ONNX Runtime's kernels for all other nodes. KernelsStock selects ONNX Runtime's kernels for all nodes.
const (
	KernelsAuto  Kernels = C.OPTIMIZE_KERNELS_AUTO
	KernelsStock Kernels = C.OPTIMIZE_KERNELS_STOCK
)

// SessionPrecision is the precision of matrix products of float32 inputs and constant float32 weights on the CPU. With
// any value but SessionFP32, calls fail with ErrBackendMissing if this library's kernels cannot be used.
type SessionPrecision int32

// The precisions of sessions.
const (
	SessionFP32 SessionPrecision = C.OPTIMIZE_SESSION_PRECISION_FP32 // float32
	SessionBF16 SessionPrecision = C.OPTIMIZE_SESSION_PRECISION_BF16 // bfloat16, with sums in float32
	SessionINT8 SessionPrecision = C.OPTIMIZE_SESSION_PRECISION_INT8 // int8, with a scale per output column and input row
)

// KVCacheType is the element type of the KV cache of a decoder. With any value but KVCacheFloat32, calls fail with
// ErrBackendMissing if this library's kernels cannot be used, and with ErrUnsupported if the model has no cache that
// these kernels read and write.
type KVCacheType int32

// The element types of KV caches.
const (
	KVCacheFloat32  KVCacheType = C.OPTIMIZE_KV_CACHE_TYPE_FLOAT32  // float32, or the type that the model declares
	KVCacheBFloat16 KVCacheType = C.OPTIMIZE_KV_CACHE_TYPE_BFLOAT16 // bfloat16, which takes half the memory
)

// Execution has the execution provider, device, kernels and precision of sessions. Calls with a provider that is not
// available fail with ErrBackendMissing or ErrDeviceMissing; only ProviderAuto selects another provider then.
type Execution struct {
	Provider    Provider
	Kernels     Kernels
	Precision   SessionPrecision
	DeviceID    uint32 // index of the device, from 0; 0 for the CPU
	EngineCache string // TensorRT: absolute path of a folder that caches engines; "" for none
}

// Placement is the provider, the device and the kernels that run a session.
type Placement struct {
	Provider   string         `json:"provider"`    // execution provider: "cpu", "cuda" or "tensorrt"
	DeviceID   uint32         `json:"device_id"`   // index of the device, from 0
	Nodes      map[string]int `json:"nodes"`       // nodes by provider; nil if ONNX Runtime's CPU kernels run all
	Groups     int            `json:"groups"`      // number of groups of nodes that this library's kernels run
	PassedOver []string       `json:"passed_over"` // providers or variants that were tried before, with the reasons
	// KernelsUnused is the reason why this library's kernels run no nodes; "" if they do, or were not requested.
	KernelsUnused string `json:"kernels_unused"`
	// WeightsCopied is the reason why the weights of a package are copied instead of being read from the mapped file;
	// "" if they are not copied.
	WeightsCopied string `json:"weights_copied"`
}

// Availability is the availability of a provider on this machine.
type Availability struct {
	Provider  string `json:"provider"`  // "tensorrt", "cuda" or "cpu"
	DeviceID  uint32 `json:"device_id"` // index of the device, from 0
	Available bool   `json:"available"` // whether ONNX Runtime contains the provider and started it on the device
	Status    string `json:"status"`    // name of the status, such as "device_missing"; "" if available
	Reason    string `json:"reason"`    // why the provider is not available; "" if available
}

// Providers returns the execution providers, best first, and whether they are available on the device with the index
// deviceID. It fails with ErrRuntimeMissing if ONNX Runtime is not found.
func (c *Context) Providers(deviceID uint32) ([]Availability, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var buffer *C.optimize_buffer_t
	err = try(func(e errorOut) status {
		return C.optimize_context_providers(context, C.uint32_t(deviceID), &buffer, e)
	})
	if err != nil {
		return nil, err
	}
	var found []Availability
	err = json.Unmarshal(take(buffer), &found)
	return found, err
}

// Provider returns the execution provider of the session, which is never ProviderAuto; ProviderCPU if the session is
// closed or nil.
func (s *Session) Provider() Provider {
	session, err := s.acquire()
	if err != nil {
		return ProviderCPU
	}
	defer s.release()
	return Provider(C.optimize_session_provider(session))
}

// Placement returns the provider, the device and the kernels that run the session.
func (s *Session) Placement() (*Placement, error) {
	session, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	var buffer *C.optimize_buffer_t
	err = try(func(e errorOut) status {
		return C.optimize_session_placement(session, &buffer, e)
	})
	if err != nil {
		return nil, err
	}
	placement := &Placement{}
	return placement, json.Unmarshal(take(buffer), placement)
}

// Placement returns the placements of the models of the generator: those of the decoder and its draft models, or of the
// members of an ensemble. It may be called during another call.
func (g *Generator) Placement() ([]Placement, error) {
	generator, err := g.acquire()
	if err != nil {
		return nil, err
	}
	defer g.release()
	var buffer *C.optimize_buffer_t
	err = try(func(e errorOut) status {
		return C.optimize_generator_placement(generator, &buffer, e)
	})
	if err != nil {
		return nil, err
	}
	var placements []Placement
	err = json.Unmarshal(take(buffer), &placements)
	return placements, err
}
