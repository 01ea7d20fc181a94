package optimize

// #include <optimize.h>
import "C"

import "context"

// Session is a model, or a TensorRT engine of one, made ready to run. It takes one run at a time: a second one meanwhile fails with ErrBusy.
// Make one for each goroutine that runs; they share the model's weights.
type Session struct {
	*handle[*C.optimize_session_t]
}

// OptimizationLevel is how much ONNX Runtime rewrites the graph before it runs it.
type OptimizationLevel int32

// How much ONNX Runtime rewrites the graph.
const (
	OptimizationDefault  OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_DEFAULT  // all it can
	OptimizationDisabled OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_DISABLED // the graph as it is
	OptimizationBasic    OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_BASIC    // constants folded, idle nodes dropped
	OptimizationExtended OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_EXTENDED // nodes fused as well
)

// SessionOptions are the options of Context.NewSession.
type SessionOptions struct {
	Threads           uint32 // for the work of one node; 0 is as the context says
	OptimizationLevel OptimizationLevel
	DisablePrepacking bool // less memory and a faster start, slower runs; nothing for MatMulNBits models
	RoundActivations  bool // faster with weights in blocks of a few bits, not as exact
	TrustEngines      bool // the model's maker is trusted: engines that are ready in it are code
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
	}
}

// NewSession makes a model ready to run.
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

// Run runs the model and gives the outputs that are named, or all of them.
func (s *Session) Run(ctx context.Context, inputs map[string]*Tensor, outputs ...string) (map[string]*Tensor, error) {
	session, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	names := make([]string, 0, len(inputs))
	tensors := make([]*C.optimize_tensor_t, 0, len(inputs))
	for name, tensor := range inputs {
		t, err := tensor.acquire()
		if err != nil {
			return nil, err
		}
		defer tensor.release()
		names, tensors = append(names, name), append(tensors, t)
	}
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

// Inputs describes what a run must feed.
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

// Outputs describes what a run gives.
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
