package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"io/fs"
)

// Status is the kind of a failure. It is an error itself, for errors.Is:
//
//	if errors.Is(err, optimize.ErrInvalidModel) { … }
//
// ErrCancelled is also context.Canceled, ErrTimeout also context.DeadlineExceeded, and ErrNotFound also
// fs.ErrNotExist.
type Status int32

// The statuses of the library.
const (
	ErrInvalidArgument Status = C.OPTIMIZE_INVALID_ARGUMENT // an argument is invalid
	ErrInvalidHandle   Status = C.OPTIMIZE_INVALID_HANDLE   // a handle is of another kind, or was freed
	ErrNotFound        Status = C.OPTIMIZE_NOT_FOUND        // a file, tensor, input or name does not exist
	ErrIO              Status = C.OPTIMIZE_IO               // reading or writing failed
	ErrInvalidModel    Status = C.OPTIMIZE_INVALID_MODEL    // the model is damaged, malicious or not a model
	ErrUnsupported     Status = C.OPTIMIZE_UNSUPPORTED      // valid, but not supported by this version
	ErrLimitExceeded   Status = C.OPTIMIZE_LIMIT_EXCEEDED   // larger than the limits of the library
	ErrRuntimeMissing  Status = C.OPTIMIZE_RUNTIME_MISSING  // ONNX Runtime was not found or is too old
	ErrRuntime         Status = C.OPTIMIZE_RUNTIME          // ONNX Runtime failed
	ErrCancelled       Status = C.OPTIMIZE_CANCELLED        // stopped by the context
	ErrTimeout         Status = C.OPTIMIZE_TIMEOUT          // stopped by the deadline of the context
	ErrBusy            Status = C.OPTIMIZE_BUSY             // the generator is in another call
	ErrGateNotMet      Status = C.OPTIMIZE_GATE_NOT_MET     // a quality or speed gate was not met
	ErrInternal        Status = C.OPTIMIZE_INTERNAL         // a defect of the library; the process is intact
	ErrBackendMissing  Status = C.OPTIMIZE_BACKEND_MISSING  // TensorRT was not found or is too old
	ErrDeviceMissing   Status = C.OPTIMIZE_DEVICE_MISSING   // there is no NVIDIA driver or no GPU
	ErrBackend         Status = C.OPTIMIZE_BACKEND          // TensorRT failed
	ErrMismatch        Status = C.OPTIMIZE_MISMATCH         // built for another model, library or device
	ErrUntrusted       Status = C.OPTIMIZE_UNTRUSTED        // code whose author was not marked as trusted
)

// Error returns the stable name of the status, e.g. "optimize: invalid_model".
func (s Status) Error() string {
	return "optimize: " + C.GoString(C.optimize_status_name(C.int32_t(s)))
}

// Is compares with the equivalent errors of the standard library.
func (s Status) Is(target error) bool {
	switch s {
	case ErrCancelled:
		return target == context.Canceled
	case ErrTimeout:
		return target == context.DeadlineExceeded
	case ErrNotFound:
		return target == fs.ErrNotExist
	}
	return false
}

// Error is the library's description of a failed call.
type Error struct {
	Status  Status // kind of the failure
	Message string // description in one sentence
	Place   string // file, node, tensor or argument, outermost first; "" if the message is sufficient
}

// Error returns the place and the message.
func (e *Error) Error() string {
	if e.Place == "" {
		return "optimize: " + e.Message
	}
	return "optimize: " + e.Place + ": " + e.Message
}

// Unwrap returns the status.
func (e *Error) Unwrap() error { return e.Status }

type (
	status   = C.optimize_status_t
	errorOut = **C.optimize_error_t // where a C function writes its error object
)

// try returns a Go error for the status and the error object of a C call.
func try(call func(errorOut) status) error {
	var e *C.optimize_error_t
	answer := call(&e)
	if answer == C.OPTIMIZE_OK {
		return nil
	}
	defer C.optimize_error_free(e)
	return &Error{
		Status:  Status(answer),
		Message: C.GoString(C.optimize_error_message(e)),
		Place:   C.GoString(C.optimize_error_place(e)),
	}
}
