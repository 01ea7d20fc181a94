package optimize

/*
#include <optimize.h>

typedef const char log_text;
extern void optimize_go_log(void *, int32_t, log_text *, log_text *);
*/
import "C"

import "unsafe"

// LogLevel is the level of a log message.
type LogLevel int32

// The levels of log messages.
const (
	LogLevelError   LogLevel = C.OPTIMIZE_LOG_LEVEL_ERROR   // errors: something has failed
	LogLevelWarning LogLevel = C.OPTIMIZE_LOG_LEVEL_WARNING // warnings: something works, but not as well as possible
	LogLevelInfo    LogLevel = C.OPTIMIZE_LOG_LEVEL_INFO    // events: a model was loaded, a session was created
	LogLevelDebug   LogLevel = C.OPTIMIZE_LOG_LEVEL_DEBUG   // details for developers, including those of ONNX Runtime
)

// LogFunc receives the log messages of the whole process, on any thread, also on several threads at once. target is
// "optimize" or "onnxruntime", the library that the message comes from. Panics of the function are ignored.
type LogFunc func(level LogLevel, target, message string)

// Counters are counters of all models, sessions and threads of the process since its start. They are never reset.
type Counters struct {
	ModelsLoaded    uint64  // number of models that were loaded from files or memory
	BytesLoaded     uint64  // sum of the sizes of these models in bytes, including mapped weights
	LoadSeconds     float64 // time in seconds that the loading of models took
	SessionsCreated uint64  // number of created sessions, including those of generators, embedders and techniques
	SessionSeconds  float64 // time in seconds that the creation of sessions took
	Runs            uint64  // number of runs of sessions that ended, including failed ones
	FailedRuns      uint64  // number of runs that failed, including cancelled ones
	RunSeconds      float64 // time in seconds that runs took, summed over threads
	ActiveRuns      uint64  // number of runs that are now in progress
	WaitingCalls    uint64  // number of calls that now wait for another call of the same TensorRT engine
	ReadTokens      uint64  // number of tokens that models of generators have read: those of prompts and generated ones
	GeneratedTokens uint64  // number of tokens that generators have generated
}

// CountersFormat is the format of the text that Context.CountersText returns.
type CountersFormat int32

// The formats of counters.
const (
	CountersJSON       CountersFormat = C.OPTIMIZE_COUNTERS_FORMAT_JSON       // JSON object
	CountersPrometheus CountersFormat = C.OPTIMIZE_COUNTERS_FORMAT_PROMETHEUS // text format of Prometheus
)

// Counters returns the counters of the process, which are the same for all contexts.
func (c *Context) Counters() (Counters, error) {
	context, err := c.acquire()
	if err != nil {
		return Counters{}, err
	}
	defer c.release()
	raw := C.optimize_counters_t{struct_size: C.sizeof_optimize_counters_t}
	err = try(func(e errorOut) status { return C.optimize_context_counters(context, &raw, e) })
	return Counters{
		ModelsLoaded:    uint64(raw.models_loaded),
		BytesLoaded:     uint64(raw.bytes_loaded),
		LoadSeconds:     float64(raw.load_seconds),
		SessionsCreated: uint64(raw.sessions_created),
		SessionSeconds:  float64(raw.session_seconds),
		Runs:            uint64(raw.runs),
		FailedRuns:      uint64(raw.failed_runs),
		RunSeconds:      float64(raw.run_seconds),
		ActiveRuns:      uint64(raw.active_runs),
		WaitingCalls:    uint64(raw.waiting_calls),
		ReadTokens:      uint64(raw.read_tokens),
		GeneratedTokens: uint64(raw.generated_tokens),
	}, err
}

// CountersText returns the counters of the process as text in a format. It fails with ErrInvalidArgument for an unknown
// format.
func (c *Context) CountersText(format CountersFormat) (string, error) {
	context, err := c.acquire()
	if err != nil {
		return "", err
	}
	defer c.release()
	var text *C.optimize_buffer_t
	err = try(func(e errorOut) status {
		return C.optimize_context_counters_text(context, C.int32_t(format), &text, e)
	})
	if err != nil {
		return "", err
	}
	return string(take(text)), nil
}

// setLog sets the log callback of options to function, which must not be called any more after forget. It does nothing
// if function is nil.
func setLog(options *C.optimize_context_options_t, function LogFunc, level LogLevel) (forget func()) {
	if function == nil {
		return func() {}
	}
	data, forget := userData(function)
	options.log = C.optimize_log_fn(C.optimize_go_log)
	options.log_user_data = data
	options.log_level = C.int32_t(level)
	return forget
}

//export optimize_go_log
func optimize_go_log(userData unsafe.Pointer, level C.int32_t, target, message *C.log_text) {
	defer func() { _ = recover() }()
	function := valueOf(userData).(LogFunc)
	function(LogLevel(level), C.GoString((*C.char)(target)), C.GoString((*C.char)(message)))
}
