// Package optimize makes trained models smaller and faster, and runs them, through liboptimize.
//
//	library, err := optimize.NewContext(nil)
//	model, err := library.Load(ctx, "model.onnx")
//	small, report, err := library.Quantize(ctx, model, nil)
//	saved, err := small.Save(ctx, "small.onnx", nil)
//
// Building needs cgo and the library. If it is installed where the compiler does not look, say where:
//
//	export CGO_CFLAGS=$(pkg-config --cflags optimize) CGO_LDFLAGS=$(pkg-config --libs optimize)
//
// Rules that hold for the whole package:
//
//   - A context.Context stops a call: cancelling it ends the call within milliseconds, and its deadline becomes
//     the call's timeout. Progress is reported to the function of [WithProgress].
//   - Errors of the library are [*Error]; errors.Is compares them with ErrNotFound, ErrBusy and the like.
//   - Options may be nil; the zero value of every field means its default.
//   - Close frees at once what the garbage collector would free in its own time. What is closed during a call
//     is freed when the call ends. Handles may be closed in any order, and more than once.
//   - Any number of goroutines may use a [Context], [Model], [Tensor] or [Tokenizer] at once. A [Session] or
//     [Generator] takes one call at a time.
package optimize

// #cgo LDFLAGS: -loptimize
// #include <optimize.h>
import "C"

// Version is the version of the library, e.g. "0.1.0".
func Version() string { return C.GoString(C.optimize_version()) }

// Context is where calls find ONNX Runtime and the number of threads. One per program is usual.
type Context struct {
	*handle[*C.optimize_context_t]
}

// ContextOptions are the options of [NewContext].
type ContextOptions struct {
	Threads        uint32 // for every call that does not say otherwise; 0 is all processors
	RuntimeLibrary string // path of the ONNX Runtime library; "" looks where liboptimize looks
}

// NewContext makes a context. ONNX Runtime is not opened yet: loading, quantizing and saving do not need it.
func NewContext(o *ContextOptions) (*Context, error) {
	if o == nil {
		o = &ContextOptions{}
	}
	var m memory
	defer m.free()
	options := C.optimize_context_options_t{
		struct_size:     C.sizeof_optimize_context_options_t,
		threads:         C.uint32_t(o.Threads),
		runtime_library: m.textOrNil(o.RuntimeLibrary),
	}
	var context *C.optimize_context_t
	err := try(func(e errorOut) status {
		return C.optimize_context_new(&options, &context, e)
	})
	if err != nil {
		return nil, err
	}
	return &Context{own(context, func(c *C.optimize_context_t) { C.optimize_context_free(c) })}, nil
}

// RuntimeVersion opens ONNX Runtime, if it is not open yet, and gives its version, e.g. "1.32.0".
func (c *Context) RuntimeVersion() (string, error) {
	context, err := c.acquire()
	if err != nil {
		return "", err
	}
	defer c.release()
	var version *C.char
	err = try(func(e errorOut) status {
		return C.optimize_context_runtime_version(context, &version, e)
	})
	return C.GoString(version), err // "" for the NULL of a failed call
}
