package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"io/fs"
)

// Status is the status of a failure. It is itself an error, which errors.Is finds in each [Error] with this status:
//
//	if errors.Is(err, optimize.ErrInvalidModel) { … }
//
// For errors.Is, ErrCancelled also equals context.Canceled, ErrTimeout also context.DeadlineExceeded, and ErrNotFound
// also fs.ErrNotExist.
type Status int32

// The statuses of the library.
const (
	ErrInvalidArgument Status = C.OPTIMIZE_INVALID_ARGUMENT // an argument is out of range or contradicts another
	ErrInvalidHandle   Status = C.OPTIMIZE_INVALID_HANDLE   // a handle has another type, or was freed
	ErrNotFound        Status = C.OPTIMIZE_NOT_FOUND        // a file, tensor, input or name does not exist
	ErrIO              Status = C.OPTIMIZE_IO               // reading or writing a file failed, or a callback for it
	ErrInvalidModel    Status = C.OPTIMIZE_INVALID_MODEL    // the file is damaged, or is not a valid model
	ErrUnsupported     Status = C.OPTIMIZE_UNSUPPORTED      // the request is valid, but this version does not support it
	ErrLimitExceeded   Status = C.OPTIMIZE_LIMIT_EXCEEDED   // a limit of this library or of the context is exceeded
	ErrRuntimeMissing  Status = C.OPTIMIZE_RUNTIME_MISSING  // ONNX Runtime was not found or is too old
	ErrRuntime         Status = C.OPTIMIZE_RUNTIME          // ONNX Runtime refused the model, or a run failed
	ErrCancelled       Status = C.OPTIMIZE_CANCELLED        // the context was cancelled
	ErrTimeout         Status = C.OPTIMIZE_TIMEOUT          // the deadline of the context passed
	ErrBusy            Status = C.OPTIMIZE_BUSY             // the handle accepts one call at a time and is in use
	ErrGateNotMet      Status = C.OPTIMIZE_GATE_NOT_MET     // a quality or speed limit was not met
	ErrInternal        Status = C.OPTIMIZE_INTERNAL         // a defect of this library caused the failure
	ErrBackendMissing  Status = C.OPTIMIZE_BACKEND_MISSING  // TensorRT, a provider or the kernels cannot be used here
	ErrDeviceMissing   Status = C.OPTIMIZE_DEVICE_MISSING   // no NVIDIA driver was found, or not the requested device
	ErrBackend         Status = C.OPTIMIZE_BACKEND          // TensorRT refused the model, or a build or run failed
	ErrMismatch        Status = C.OPTIMIZE_MISMATCH         // the file belongs to another model, library or device
	ErrUntrusted       Status = C.OPTIMIZE_UNTRUSTED        // the file contains code, and its source was not trusted
)

// Error returns "optimize: " and the name of the status, for example "optimize: invalid_model". Names do not change
// between versions; that of an unknown status is "unknown".
func (s Status) Error() string {
	return "optimize: " + C.GoString(C.optimize_status_name(C.int32_t(s)))
}

// Is returns whether target is the error of the standard library that is equivalent to the status; see [Status]. Only
// ErrCancelled, ErrTimeout and ErrNotFound have one.
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
	Message string // what is wrong, usually in one sentence
	Place   string // place of the error, such as a file, node or argument, outermost first; "" if there is none
}

// Error returns "optimize: PLACE: MESSAGE", or "optimize: MESSAGE" if there is no place.
func (e *Error) Error() string {
	if e.Place == "" {
		return "optimize: " + e.Message
	}
	return "optimize: " + e.Place + ": " + e.Message
}

// Unwrap returns the status, so that errors.Is finds it.
func (e *Error) Unwrap() error { return e.Status }

type (
	status   = C.optimize_status_t
	errorOut = **C.optimize_error_t // pointer to which a C function writes its error object
)

// try makes a C call, and returns an [*Error] with its status and the content of its error object; nil on success.
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
