// Package optimize makes trained models smaller and faster, and runs them, through liboptimize.
//
//	library, err := optimize.NewContext(nil)
//	model, err := library.Load(ctx, "model.onnx")
//	small, report, err := library.Quantize(ctx, model, nil)
//	saved, err := small.Save(ctx, "small.onnx", nil)
//
// Building needs cgo, pkg-config and the installed library. If the library is not in a folder of the system, set the
// folder of its optimize.pc for pkg-config, and that of liboptimize.so for programs that run:
//
//	export PKG_CONFIG_PATH=FOLDER/lib/pkgconfig LD_LIBRARY_PATH=FOLDER/lib
//
// Go's build cache does not notice that the answer of pkg-config has changed: run go clean -cache after you have moved
// the library.
//
// Rules for the whole package:
//
//   - A context.Context stops a call: cancelling it ends the call, usually within milliseconds, and its deadline is
//     the timeout of the call. A run of a TensorRT engine is not interrupted. A call reports its progress to the
//     function that [WithProgress] has put into the context.
//   - Errors of the library are [*Error]; errors.Is compares them with ErrNotFound, ErrBusy and so on. Calls with an
//     object that is closed or nil fail with [ErrClosed].
//   - The documentation of a function lists the errors that have a particular cause. Every call can also fail with
//     ErrInvalidArgument, ErrLimitExceeded and ErrInternal; with a context, also with ErrCancelled and ErrTimeout; if
//     it reads or writes files, also with ErrIO; if it runs a model, also with the errors of [Context.NewSession].
//   - Options may be nil; the zero value of a field selects its default. A field that is required says so.
//   - Objects such as models and sessions have a method Close, which frees memory at once that the garbage collector
//     would free later. Objects closed during a call are freed when the call ends. Objects may be closed in any order,
//     and more than once.
//   - Any number of goroutines may use an object at the same time, with one exception: a [Generator] accepts one call
//     at a time.
package optimize

// #cgo pkg-config: optimize
// #include <optimize.h>
import "C"

// Version returns the version of the library, for example "0.1.0".
func Version() string { return C.GoString(C.optimize_version()) }

// VersionNumber returns the version of the library as one number that can be compared: major*10000 + minor*100 + patch.
func VersionNumber() uint32 { return uint32(C.optimize_version_number()) }

// Context holds the ONNX Runtime library, the default number of threads, the log callback and the memory limit. A
// program usually has one context. Objects that were created with a context remain usable after it is closed.
type Context struct {
	*handle[*C.optimize_context_t]
}

// ContextOptions are the options of [NewContext]. By default, sessions have one thread per physical core, and other
// work, such as quantizing, has one per logical processor. ONNX Runtime is opened from the path in ORT_DYLIB_PATH, or
// else searched for next to this library and the program and in the system's library path. A call that would exceed
// MemoryLimit fails with ErrLimitExceeded.
type ContextOptions struct {
	Threads        uint32   // default number of threads; 0 for one per core (sessions) or logical processor (other work)
	RuntimeLibrary string   // path of the ONNX Runtime library; "" for that in ORT_DYLIB_PATH, or else a search
	Log            LogFunc  // log callback, called until the context is closed; nil for no messages
	LogLevel       LogLevel // most detailed level of the messages that Log receives; 0 for LogLevelWarning
	MemoryLimit    uint64   // maximum memory in bytes of models in memory and of sessions; 0 for no limit
}

// NewContext creates a context. ONNX Runtime is opened when it is first needed: loading and saving, for example, do not
// need it, and neither does quantizing without calibration data, limits or measurements of speed.
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
		forget() // optimize_context_free has ended all calls of the log callback
	})}, nil
}

// RuntimeVersion opens ONNX Runtime, if it is not open yet, and returns its version, for example "1.32.0". It fails
// with ErrRuntimeMissing if ONNX Runtime is not found or is too old, and with ErrInvalidArgument if the process has
// already opened another one than RuntimeLibrary.
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
