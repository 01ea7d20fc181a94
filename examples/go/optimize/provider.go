package optimize

// #include <optimize.h>
import "C"

import "encoding/json"

// Provider is what sessions run on.
type Provider int32

// What sessions run on. ProviderAuto is to ask with: TensorRT, else CUDA, else the processor.
const (
	ProviderCPU      Provider = C.OPTIMIZE_PROVIDER_CPU
	ProviderCUDA     Provider = C.OPTIMIZE_PROVIDER_CUDA
	ProviderTensorRT Provider = C.OPTIMIZE_PROVIDER_TENSORRT
	ProviderAuto     Provider = C.OPTIMIZE_PROVIDER_AUTO
)

// Execution says where sessions run, in the options of all that makes some. A provider that is asked for and cannot be
// had is ErrBackendMissing or ErrDeviceMissing, never another one in its place.
type Execution struct {
	Provider    Provider
	DeviceID    uint32 // number of the device, from 0
	EngineCache string // TensorRT: absolute path of a folder for engines; "" keeps none
}

// Placement is where a session runs.
type Placement struct {
	Provider   string         `json:"provider"`
	DeviceID   uint32         `json:"device_id"`
	Nodes      map[string]int `json:"nodes"`       // nodes of the optimized graph by provider; nil if the processor was asked for
	PassedOver []string       `json:"passed_over"` // after ProviderAuto: what comes first, and why it was not taken
	// WeightsCopied: of a package's variant optimized ahead, why its weights are not read where they are mapped, if not.
	WeightsCopied string `json:"weights_copied"`
}

// Availability is whether sessions can run on a provider here.
type Availability struct {
	Provider  string `json:"provider"`
	DeviceID  uint32 `json:"device_id"`
	Available bool   `json:"available"`
	Status    string `json:"status"` // if not, of which sort the reason is
	Reason    string `json:"reason"`
}

// Providers says what sessions can run on here, best first.
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

// Placement says where the session runs.
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

// Placement says where the models of the generator run.
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
