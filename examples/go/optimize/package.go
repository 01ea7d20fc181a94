package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
)

// CompileOptions are the options of Model.Compile. By default every input has the shape of an example.
type CompileOptions struct {
	Dynamic       bool     // inputs keep the sizes that the model leaves open
	BatchMin      uint64   // with Dynamic: the fewest rows of a batch; 0 and BatchMax 0 is any
	BatchMax      uint64   // the most; 0 is no limit
	DynamicShapes string   // JSON, {"input_ids": {"0": {"name": "batch", "min": 1, "max": 64}}}; "" is none
	Example       []string // NAME:2x3x4, where the model leaves sizes open
}

// Compile writes a package: a folder with the model, what belongs to it and the shapes it takes. Context.Load takes it
// like any other model; sessions of it refuse other shapes.
func (model *Model) Compile(ctx context.Context, path string, o *CompileOptions) (*Report, error) {
	c, err := model.acquire()
	if err != nil {
		return nil, err
	}
	defer model.release()
	if o == nil {
		o = &CompileOptions{}
	}
	var m memory
	defer m.free()
	name := m.text(path)
	options := C.optimize_compile_options_t{
		struct_size:    C.sizeof_optimize_compile_options_t,
		dynamic:        flag(o.Dynamic),
		batch_min:      C.uint64_t(o.BatchMin),
		batch_max:      C.uint64_t(o.BatchMax),
		dynamic_shapes: m.textOrNil(o.DynamicShapes),
		example:        m.texts(o.Example),
		example_count:  C.uint64_t(len(o.Example)),
	}
	var buffer *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_package_compile(c, name, &options, call, &buffer, e)
	})
	if err != nil {
		return nil, err
	}
	report := &Report{JSON: take(buffer)}
	return report, json.Unmarshal(report.JSON, report)
}

// VerifyPackage compares all of a package with the hashes in it. It fails with ErrInvalidModel, naming what was changed.
func VerifyPackage(ctx context.Context, path string) error {
	var m memory
	defer m.free()
	name := m.text(path)
	return tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_package_verify(name, call, nil, e)
	})
}
