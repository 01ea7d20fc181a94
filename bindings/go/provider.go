package optimize

// #include <optimize.h>
import "C"

import "encoding/json"

// Provider is the execution provider of a session.
type Provider int32

// The execution providers. ProviderAuto, which occurs only in options, is the first available of TensorRT, CUDA and
// CPU.
const (
	ProviderCPU      Provider = C.OPTIMIZE_PROVIDER_CPU
	ProviderCUDA     Provider = C.OPTIMIZE_PROVIDER_CUDA
	ProviderTensorRT Provider = C.OPTIMIZE_PROVIDER_TENSORRT
	ProviderAuto     Provider = C.OPTIMIZE_PROVIDER_AUTO
)

// Kernels are the kernels that run the nodes of a session on the CPU.
type Kernels int32

// The kinds of kernels. KernelsAuto selects this library's kernels for groups of nodes that are faster with them, and
// ONNX Runtime's for all other nodes.
const (
	KernelsAuto  Kernels = C.OPTIMIZE_KERNELS_AUTO
	KernelsStock Kernels = C.OPTIMIZE_KERNELS_STOCK
)

// SessionPrecision is the precision of matrix products of float32 inputs and constant float32 weights on the CPU. Any
// value but SessionFP32 needs this library's kernels.
type SessionPrecision int32

// The precisions of sessions.
const (
	SessionFP32 SessionPrecision = C.OPTIMIZE_SESSION_PRECISION_FP32
	SessionBF16 SessionPrecision = C.OPTIMIZE_SESSION_PRECISION_BF16
	SessionINT8 SessionPrecision = C.OPTIMIZE_SESSION_PRECISION_INT8
)

// KVCacheType is the element type of the KV cache of a decoder. Any value but KVCacheFloat32 needs this library's
// kernels.
type KVCacheType int32

// The element types of KV caches.
const (
	KVCacheFloat32  KVCacheType = C.OPTIMIZE_KV_CACHE_TYPE_FLOAT32
	KVCacheBFloat16 KVCacheType = C.OPTIMIZE_KV_CACHE_TYPE_BFLOAT16
)

// Execution is the execution provider, device and kernels of sessions. Calls with a provider that is not available fail
// with ErrBackendMissing or ErrDeviceMissing; another provider never replaces one that is requested by name.
type Execution struct {
	Provider    Provider
	Kernels     Kernels
	Precision   SessionPrecision
	DeviceID    uint32 // index of the device, from 0
	EngineCache string // TensorRT: absolute path of a folder that caches engines; "" for none
}

// Placement is the provider, the device and the kernels that run a session.
type Placement struct {
	Provider   string         `json:"provider"`
	DeviceID   uint32         `json:"device_id"`
	Nodes      map[string]int `json:"nodes"`       // nodes by provider; nil if ONNX Runtime's CPU kernels run all
	Groups     int            `json:"groups"`      // number of groups of nodes that this library's kernels run
	PassedOver []string       `json:"passed_over"` // what was tried before, such as unavailable providers, with reasons
	// KernelsUnused is the reason why this library's kernels run no nodes; "" if they do.
	KernelsUnused string `json:"kernels_unused"`
	// WeightsCopied is the reason why the weights of a package are copied instead of being read from the mapped file;
	// "" if they are not copied.
	WeightsCopied string `json:"weights_copied"`
}

// Availability is the availability of a provider on this machine.
type Availability struct {
	Provider  string `json:"provider"`
	DeviceID  uint32 `json:"device_id"`
	Available bool   `json:"available"`
	Status    string `json:"status"` // if the provider is not available, the status of the reason
	Reason    string `json:"reason"`
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

// Provider returns the execution provider of the session, never ProviderAuto; the CPU after Close.
func (s *Session) Provider() Provider {
	session, err := s.acquire()
	if err != nil {
		return ProviderCPU
	}
	defer s.release()
	return Provider(C.optimize_session_provider(session))
}

// Placement returns the placement of the session.
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

// Placement returns the placement of each model of the generator: one, or those of the members of an ensemble.
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
