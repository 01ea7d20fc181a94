// Package optimize makes trained models smaller and faster, and runs them, through liboptimize.
//
//	library, err := optimize.NewContext(nil)
//	model, err := library.Load(ctx, "model.onnx")
//	small, report, err := library.Quantize(ctx, model, nil)
//	saved, err := small.Save(ctx, "small.onnx", nil)
//
// Building needs cgo, pkg-config and the installed library. If the library is in a folder of its own, name the folder
// of its optimize.pc, and, for programs to find the library when they run, that of liboptimize.so:
//
//	export PKG_CONFIG_PATH=FOLDER/lib/pkgconfig LD_LIBRARY_PATH=FOLDER/lib
//
// Go's build cache does not know the answer of pkg-config: run go clean -cache after the library has moved.
//
// Rules for the whole package:
//
//   - A context.Context stops a call: cancelling it ends the call, usually within milliseconds, and its deadline is
//     the timeout of the call. A run of a TensorRT engine is not interrupted. Progress is reported to the function of
//     [WithProgress].
//   - Errors of the library are [*Error]; errors.Is compares them with ErrNotFound, ErrBusy and so on. Calls with an
//     object that is closed fail with [ErrClosed].
//   - Options may be nil; the zero value of a field selects its default. Few fields are required: DistillOptions.Text,
//     and TensorRTOpenOptions.Trust.
//   - Objects such as models and sessions have a method Close, which frees memory at once that the garbage collector
//     would free later. Objects closed during a call are freed when the call ends. Objects may be closed in any order,
//     and more than once.
//   - Any number of goroutines may use an object at once, with one exception: a [Generator] runs one call at a time.
package optimize

// #cgo pkg-config: optimize
// #include <optimize.h>
import "C"

// Version returns the version of the library, e.g. "0.1.0".
func Version() string { return C.GoString(C.optimize_version()) }

// VersionNumber returns the version of the library as one number that can be compared: major*10000 + minor*100 + patch.
func VersionNumber() uint32 { return uint32(C.optimize_version_number()) }

// Context holds the ONNX Runtime library, the default number of threads, the log callback and the memory limit. A
// program usually has one context. Objects that were created with a context remain usable when it is closed.
type Context struct {
	*handle[*C.optimize_context_t]
}

// ContextOptions are the options of [NewContext].
type ContextOptions struct {
	Threads        uint32   // default number of threads of all calls; 0 for all processors
	RuntimeLibrary string   // path of the ONNX Runtime library; "" for ORT_DYLIB_PATH, or else the default places
	Log            LogFunc  // log callback, called until the context is closed; nil for no messages
	LogLevel       LogLevel // highest level of the messages that Log receives; 0 for LogLevelWarning
	MemoryLimit    uint64   // maximum memory in bytes of models in memory and of sessions; 0 for no limit
}

// NewContext creates a context. ONNX Runtime is opened when it is first needed; loading, quantizing without
// calibration, and saving do not need it.
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
		memory_limit:    C.uint64_t(o.MemoryLimit),
	}
	forget := setLog(&options, o.Log, o.LogLevel)
	var context *C.optimize_context_t
	err := try(func(e errorOut) status {
		return C.optimize_context_new(&options, &context, e)
	})
	if err != nil {
		forget()
		return nil, err
	}
	return &Context{own(context, func(c *C.optimize_context_t) {
		C.optimize_context_free(c)
		forget() // nothing calls it any more
	})}, nil
}

// RuntimeVersion opens ONNX Runtime, if it is not open yet, and returns its version, e.g. "1.32.0". It fails with
// ErrRuntimeMissing if ONNX Runtime is not found.
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
