package optimize

// #include <optimize.h>
import "C"

import "encoding/json"

// Provider is an execution provider.
type Provider int32

// The execution providers. ProviderAuto is for requests: TensorRT, else CUDA, else the CPU.
const (
	ProviderCPU      Provider = C.OPTIMIZE_PROVIDER_CPU
	ProviderCUDA     Provider = C.OPTIMIZE_PROVIDER_CUDA
	ProviderTensorRT Provider = C.OPTIMIZE_PROVIDER_TENSORRT
	ProviderAuto     Provider = C.OPTIMIZE_PROVIDER_AUTO
)

// Kernels are the kernels of a session on the CPU.
type Kernels int32

// The kernels. KernelsAuto: those of this library for groups of nodes that are faster with them.
const (
	KernelsAuto  Kernels = C.OPTIMIZE_KERNELS_AUTO
	KernelsStock Kernels = C.OPTIMIZE_KERNELS_STOCK
)

// SessionPrecision is the precision of products of float32 inputs and constant float32 weights on the CPU. Any but
// SessionFP32 needs the kernels of this library.
type SessionPrecision int32

// The precisions.
const (
	SessionFP32 SessionPrecision = C.OPTIMIZE_SESSION_PRECISION_FP32
	SessionBF16 SessionPrecision = C.OPTIMIZE_SESSION_PRECISION_BF16
	SessionINT8 SessionPrecision = C.OPTIMIZE_SESSION_PRECISION_INT8
)

// Execution selects where sessions run; it is part of the options of functions that create sessions. An unavailable
// provider fails with ErrBackendMissing or ErrDeviceMissing; it is never replaced by another.
type Execution struct {
	Provider    Provider
	Kernels     Kernels
	Precision   SessionPrecision
	DeviceID    uint32 // index of the GPU, from 0
	EngineCache string // TensorRT: absolute path of the engine cache folder; "" for none
}

// Placement is where a session runs.
type Placement struct {
	Provider   string         `json:"provider"`
	DeviceID   uint32         `json:"device_id"`
	Nodes      map[string]int `json:"nodes"`       // nodes by provider; nil if ONNX Runtime's CPU kernels run all
	Groups     int            `json:"groups"`      // groups of nodes on this library's kernels
	PassedOver []string       `json:"passed_over"` // after ProviderAuto: earlier providers and the reasons
	// KernelsUnused is the reason why this library's kernels run nothing.
	KernelsUnused string `json:"kernels_unused"`
	// WeightsCopied: for a package's variant optimized ahead of time, the reason why its weights are not read where they
	// are mapped.
	WeightsCopied string `json:"weights_copied"`
}

// Availability is whether sessions can run on a provider on this machine.
type Availability struct {
	Provider  string `json:"provider"`
	DeviceID  uint32 `json:"device_id"`
	Available bool   `json:"available"`
	Status    string `json:"status"` // if not available, the kind of the reason
	Reason    string `json:"reason"`
}

// Providers returns the providers that sessions can run on, best first.
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

// Placement returns where the session runs.
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

// Placement returns where the models of the generator run.
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
