package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
)

// BenchmarkOptions are the options of Context.Benchmark and Context.BenchmarkEngine. Texts need a Tokenizer. An entry
// of Values is "NAME:1,2,3", with a number for each element of the input, or "NAME:1", with one number for all of them.
type BenchmarkOptions struct {
	Tokenizer       *Tokenizer // tokenizer of the texts; with nil, inputs are generated instead of texts
	Runs            uint32     // number of timed rounds; 0 for 50
	Warmup          uint32     // number of warm-up rounds; 0 for 5
	Threads         uint32     // number of threads; 0 for that of the context; 1 on the CPU measures processor time
	BatchSize       uint32     // batch size of the timed input; 0 for 1
	SequenceLength  uint32     // number of tokens of each timed row; 0 for the length of Texts, up to 512, or else 128
	MaxMilliseconds uint32     // time limit of the timed rounds in milliseconds; 0 for 30000. At least 5 rounds run.
	Seed            uint32     // seed of generated inputs and of the bootstrap
	Texts           []string   // texts on which the models are compared; none for built-in sentences
	Shapes          []string   // shapes of generated inputs, each "NAME:2x3x4", for dynamic dimensions
	Values          []string   // values of generated inputs, for inputs that cannot be random numbers
	// Inputs are tensors for the inputs of the models, by name, instead of texts and generated inputs; nil for none.
	// The first dimension of each tensor counts samples.
	Inputs       map[string]*Tensor
	Execution    Execution // execution provider, device, kernels and precision of both models
	TrustEngines bool      // whether you trust the source of models with engines; if not, ErrUntrusted on a device
}

// Benchmark compares two models: speed, load time, memory, size, and outputs. The results are in the fields Benchmark
// and Quality of the report. It fails with ErrInvalidArgument if the models have different inputs or outputs, and
// otherwise like NewSession and Session.Run.
func (c *Context) Benchmark(ctx context.Context, original, result *Model, o *BenchmarkOptions) (*Report, error) {
	after, err := result.acquire()
	if err != nil {
		return nil, err
	}
	defer result.release()
	return c.measure(ctx, original, o, func(m measured) status {
		return C.optimize_model_benchmark(m.context, m.original, after, m.tokenizer, m.options, m.call, m.report, m.e)
	})
}

// BenchmarkEngine compares the TensorRT engine file at path with the model from which it was built, like Benchmark. The
// argument engine selects the device of the engine. It fails with ErrUntrusted if engine.Trust is false, with
// ErrMismatch if the engine was built from another model, and otherwise like OpenTensorRT.
func (c *Context) BenchmarkEngine(
	ctx context.Context, original *Model, path string, engine *TensorRTOpenOptions, o *BenchmarkOptions,
) (*Report, error) {
	var texts memory
	defer texts.free()
	opening := engine.c(&texts)
	file := texts.text(path)
	return c.measure(ctx, original, o, func(m measured) status {
		return C.optimize_model_benchmark_engine(
			m.context, m.original, file, m.tokenizer, &opening, m.options, m.call, m.report, m.e)
	})
}

// measured has the arguments that optimize_model_benchmark and optimize_model_benchmark_engine have in common.
type measured struct {
	context   *C.optimize_context_t
	original  *C.optimize_model_t
	tokenizer *C.optimize_tokenizer_t
	options   *C.optimize_benchmark_options_t
	call      *C.optimize_call_t
	report    **C.optimize_buffer_t
	e         errorOut
}

// measure converts the options, calls function with the C arguments, and returns the report that it writes.
func (c *Context) measure(
	ctx context.Context, original *Model, o *BenchmarkOptions, function func(measured) status,
) (*Report, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	before, err := original.acquire()
	if err != nil {
		return nil, err
	}
	defer original.release()
	if o == nil {
		o = &BenchmarkOptions{}
	}
	var tokenizer *C.optimize_tokenizer_t
	if o.Tokenizer != nil {
		if tokenizer, err = o.Tokenizer.acquire(); err != nil {
			return nil, err
		}
		defer o.Tokenizer.release()
	}
	var m memory
	defer m.free()
	options := o.c(&m)
	data := make([]*C.optimize_tensor_t, 0, len(o.Inputs))
	names := make([]string, 0, len(o.Inputs))
	for name, tensor := range o.Inputs {
		t, err := tensor.acquire()
		if err != nil {
			return nil, err
		}
		defer tensor.release()
		names, data = append(names, name), append(data, t)
	}
	options.input_names = m.texts(names)
	options.input_tensors = m.tensors(data)
	options.input_count = C.uint64_t(len(data))
	var buffer *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return function(measured{context, before, tokenizer, &options, call, &buffer, e})
	})
	if err != nil {
		return nil, err
	}
	report := &Report{JSON: take(buffer)}
	return report, json.Unmarshal(report.JSON, report)
}

func (o *BenchmarkOptions) c(m *memory) C.optimize_benchmark_options_t {
	return C.optimize_benchmark_options_t{
		struct_size:      C.sizeof_optimize_benchmark_options_t,
		runs:             C.uint32_t(o.Runs),
		warmup:           C.uint32_t(o.Warmup),
		threads:          C.uint32_t(o.Threads),
		batch_size:       C.uint32_t(o.BatchSize),
		sequence_length:  C.uint32_t(o.SequenceLength),
		max_milliseconds: C.uint32_t(o.MaxMilliseconds),
		seed:             C.uint32_t(o.Seed),
		texts:            m.texts(o.Texts),
		text_count:       C.uint64_t(len(o.Texts)),
		shapes:           m.texts(o.Shapes),
		shape_count:      C.uint64_t(len(o.Shapes)),
		values:           m.texts(o.Values),
		value_count:      C.uint64_t(len(o.Values)),
		provider:         C.int32_t(o.Execution.Provider),
		device_id:        C.uint32_t(o.Execution.DeviceID),
		engine_cache:     m.textOrNil(o.Execution.EngineCache),
		kernels:          C.int32_t(o.Execution.Kernels),
		precision:        C.int32_t(o.Execution.Precision),
		trust_engines:    flag(o.TrustEngines),
	}
}
