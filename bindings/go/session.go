package optimize

// #include <optimize.h>
import "C"

import "context"

// Session runs a model or a TensorRT engine. Any number of goroutines may run it at the same time.
type Session struct {
	*handle[*C.optimize_session_t]
}

// OptimizationLevel is the level of the optimizations that ONNX Runtime applies to the graph.
type OptimizationLevel int32

// The graph optimization levels.
const (
	OptimizationDefault  OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_DEFAULT  // all optimizations
	OptimizationDisabled OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_DISABLED // no optimization
	OptimizationBasic    OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_BASIC    // constant folding, no redundant nodes
	OptimizationExtended OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_EXTENDED // basic optimizations and node fusion
)

// SessionOptions are the options of Context.NewSession.
type SessionOptions struct {
	Threads           uint32 // number of threads for the work of one node; 0 for that of the context
	OptimizationLevel OptimizationLevel
	DisablePrepacking bool // whether weights are not reordered for this processor; ignored for MatMulNBits
	RoundActivations  bool // whether activations of block-quantized products are rounded: faster, less exact
	TrustEngines      bool // whether you trust the source of the model: engines in a model contain code
	Execution         Execution
}

func (o *SessionOptions) c(m *memory) C.optimize_session_options_t {
	return C.optimize_session_options_t{
		struct_size:        C.sizeof_optimize_session_options_t,
		threads:            C.uint32_t(o.Threads),
		optimization_level: C.int32_t(o.OptimizationLevel),
		disable_prepacking: flag(o.DisablePrepacking),
		round_activations:  flag(o.RoundActivations),
		trust_engines:      flag(o.TrustEngines),
		provider:           C.int32_t(o.Execution.Provider),
		device_id:          C.uint32_t(o.Execution.DeviceID),
		engine_cache:       m.textOrNil(o.Execution.EngineCache),
		kernels:            C.int32_t(o.Execution.Kernels),
		precision:          C.int32_t(o.Execution.Precision),
	}
}

// NewSession creates a session of a model.
func (c *Context) NewSession(ctx context.Context, model *Model, o *SessionOptions) (*Session, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	raw, err := model.acquire()
	if err != nil {
		return nil, err
	}
	defer model.release()
	if o == nil {
		o = &SessionOptions{}
	}
	var m memory
	defer m.free()
	options := o.c(&m)
	var session *C.optimize_session_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_session_new(context, raw, &options, call, &session, e)
	})
	if err != nil {
		return nil, err
	}
	return newSession(session), nil
}

func newSession(raw *C.optimize_session_t) *Session {
	return &Session{own(raw, func(s *C.optimize_session_t) { C.optimize_session_free(s) })}
}

// Run runs the model and returns the named outputs, or all of them.
func (s *Session) Run(ctx context.Context, inputs map[string]*Tensor, outputs ...string) (map[string]*Tensor, error) {
	session, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	names, tensors, release, err := held(inputs)
	if err != nil {
		return nil, err
	}
	defer release()
	if len(outputs) == 0 {
		all, err := s.Outputs()
		if err != nil {
			return nil, err
		}
		for _, output := range all {
			outputs = append(outputs, output.Name)
		}
	}
	var m memory
	defer m.free()
	in, out := addressable(tensors), make([]*C.optimize_tensor_t, len(outputs)+1)
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_session_run(session, m.texts(names), &in[0], C.size_t(len(tensors)),
			m.texts(outputs), C.size_t(len(outputs)), call, &out[0], e)
	})
	if err != nil {
		return nil, err
	}
	results := make(map[string]*Tensor, len(outputs))
	for i, name := range outputs {
		results[name] = newTensor(out[i])
	}
	return results, nil
}

// Inputs returns the inputs that a run requires.
func (s *Session) Inputs() ([]ValueInfo, error) {
	session, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	return values(C.optimize_session_input_count(session), func(i C.size_t, v infoOut, e errorOut) status {
		return C.optimize_session_input(session, i, v, e)
	})
}

// Outputs returns the outputs of the model.
func (s *Session) Outputs() ([]ValueInfo, error) {
	session, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	return values(C.optimize_session_output_count(session), func(i C.size_t, v infoOut, e errorOut) status {
		return C.optimize_session_output(session, i, v, e)
	})
}
