package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"runtime"
	"unsafe"
)

// Session runs a model or a TensorRT engine. Any number of goroutines may run a session at the same time; the runs of
// an engine wait for one another.
type Session struct {
	*handle[*C.optimize_session_t]
}

// OptimizationLevel is the level of the optimizations that ONNX Runtime applies to the graph when it creates a session.
type OptimizationLevel int32

// The graph optimization levels.
const (
	OptimizationDefault  OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_DEFAULT  // all optimizations
	OptimizationDisabled OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_DISABLED // no optimization
	OptimizationBasic    OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_BASIC    // constants folded, redundant nodes removed
	OptimizationExtended OptimizationLevel = C.OPTIMIZE_OPTIMIZATION_EXTENDED // basic optimizations and node fusion
)

// SessionOptions are the options of Context.NewSession and Context.NewPackageSession.
type SessionOptions struct {
	Threads           uint32 // number of threads for the work of one node; 0 for that of the context
	OptimizationLevel OptimizationLevel
	DisablePrepacking bool // whether weights are not reordered for this processor: less memory, slower runs
	RoundActivations  bool // whether activations of block-quantized products are rounded to 8 bits: faster, less exact
	TrustEngines      bool // whether you trust the source of a model with engines; if not, ErrUntrusted on a device
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

// NewSession creates a session of a model, which may be closed before the session. It fails with ErrRuntimeMissing if
// ONNX Runtime is not found, and with ErrRuntime, ErrInvalidModel or ErrUnsupported if ONNX Runtime refuses the model.
// It also fails with ErrBackendMissing or ErrDeviceMissing if the provider, the kernels or the device of the options
// cannot be used; and with ErrUntrusted if a model that contains engines is to run on a device and TrustEngines is
// false.
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

// Run runs the model with the tensors of inputs, by name, and returns by name the outputs with the names outputs, or
// all outputs if there are no names. It fails with ErrNotFound for an input or output that the model does not have, and
// with ErrInvalidArgument if an input is missing, if its type or shape does not fit, or if an output is named twice. It
// also fails with ErrUnsupported for an output that is not a tensor; and with ErrRuntime if ONNX Runtime fails.
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

// Output is the memory of the program to which [Session.RunInto] writes an output; see [OutputTo].
type Output struct {
	DType DType   // element type
	Dims  []int64 // sizes of the dimensions in this run
	Data  []byte  // memory of all elements, aligned for their type
}

// OutputTo returns an output that is written to elements, in row-major order. dims are the sizes of its dimensions in
// this run, whose product must be the number of elements.
func OutputTo[T Element](elements []T, dims ...int64) Output {
	return Output{DType: dtypeOf[T](), Dims: dims, Data: bytesOf(elements)}
}

// RunInto runs the model like Run, and writes the outputs that are in outputs, by name, to memory of the program
// instead of new tensors. The memory of an output must not overlap that of an input or of another output; after an
// error, its content is undefined. RunInto fails with ErrInvalidArgument if type, Dims or size of an Output do not fit,
// with ErrUnsupported for an output of strings, and otherwise like Run.
func (s *Session) RunInto(ctx context.Context, inputs map[string]*Tensor, outputs map[string]Output) error {
	session, err := s.acquire()
	if err != nil {
		return err
	}
	defer s.release()
	names, tensors, release, err := held(inputs)
	if err != nil {
		return err
	}
	defer release()
	var m memory
	defer m.free()
	var pinned runtime.Pinner
	defer pinned.Unpin()
	places := make([]C.optimize_output_t, 0, len(outputs)+1)
	for name, output := range outputs {
		dims, data := addressable(output.Dims), addressable(output.Data)
		pinned.Pin(&dims[0])
		pinned.Pin(&data[0])
		places = append(places, C.optimize_output_t{
			struct_size: C.sizeof_optimize_output_t,
			dtype:       C.int32_t(output.DType),
			name:        m.text(name),
			dims:        (*C.int64_t)(&dims[0]),
			rank:        C.uint64_t(len(output.Dims)),
			data:        unsafe.Pointer(&data[0]),
			size:        C.uint64_t(len(output.Data)),
		})
	}
	in, out := addressable(tensors), addressable(places)
	return tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_session_run_into(session, m.texts(names), &in[0], C.size_t(len(tensors)),
			&out[0], C.size_t(len(outputs)), call, e)
	})
}

// Inputs returns names, types and shapes of the inputs that a run requires.
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

// Outputs returns names, types and shapes of the outputs of the model.
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
