package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"io/fs"
)

// Status is the status of a failure. It is an error itself, for errors.Is:
//
//	if errors.Is(err, optimize.ErrInvalidModel) { … }
//
// ErrCancelled is also context.Canceled, ErrTimeout also context.DeadlineExceeded, and ErrNotFound also
// fs.ErrNotExist.
type Status int32

// The statuses of the library.
const (
	ErrInvalidArgument Status = C.OPTIMIZE_INVALID_ARGUMENT // an argument is out of range or contradicts another
	ErrInvalidHandle   Status = C.OPTIMIZE_INVALID_HANDLE   // a handle has another type, or was freed
	ErrNotFound        Status = C.OPTIMIZE_NOT_FOUND        // a file, tensor, input or name does not exist
	ErrIO              Status = C.OPTIMIZE_IO               // reading or writing a file failed
	ErrInvalidModel    Status = C.OPTIMIZE_INVALID_MODEL    // the file is damaged, or is not a valid model
	ErrUnsupported     Status = C.OPTIMIZE_UNSUPPORTED      // valid, but this version does not support it
	ErrLimitExceeded   Status = C.OPTIMIZE_LIMIT_EXCEEDED   // a limit of this library is exceeded
	ErrRuntimeMissing  Status = C.OPTIMIZE_RUNTIME_MISSING  // ONNX Runtime was not found or is too old
	ErrRuntime         Status = C.OPTIMIZE_RUNTIME          // ONNX Runtime refused the model, or a run failed
	ErrCancelled       Status = C.OPTIMIZE_CANCELLED        // the context was cancelled
	ErrTimeout         Status = C.OPTIMIZE_TIMEOUT          // the deadline of the context passed
	ErrBusy            Status = C.OPTIMIZE_BUSY             // the handle accepts one call at a time and is in use
	ErrGateNotMet      Status = C.OPTIMIZE_GATE_NOT_MET     // a quality or speed limit was not met
	ErrInternal        Status = C.OPTIMIZE_INTERNAL         // a defect of this library; the process can continue
	ErrBackendMissing  Status = C.OPTIMIZE_BACKEND_MISSING  // TensorRT or a provider was not found or is too old
	ErrDeviceMissing   Status = C.OPTIMIZE_DEVICE_MISSING   // no NVIDIA driver or no device was found
	ErrBackend         Status = C.OPTIMIZE_BACKEND          // TensorRT refused the model, or a build or run failed
	ErrMismatch        Status = C.OPTIMIZE_MISMATCH         // the file belongs to another model, library or device
	ErrUntrusted       Status = C.OPTIMIZE_UNTRUSTED        // executable code from a source that is not trusted
)

// Error returns the stable name of the status, e.g. "optimize: invalid_model".
func (s Status) Error() string {
	return "optimize: " + C.GoString(C.optimize_status_name(C.int32_t(s)))
}

// Is returns whether target is the error of the standard library that is equivalent to the status.
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

// Error is the error of a call that failed.
type Error struct {
	Status  Status // status of the failure
	Message string // message, a sentence
	Place   string // place such as a file, node or argument, outermost first; "" if there is none
}

// Error returns the place, if there is one, and the message.
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
	errorOut = **C.optimize_error_t // pointer to which a C function writes its error object
)

// try makes a C call, and returns a Go error for its status and its error object; nil if the call succeeded.
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
