package optimize

/*
#include <optimize.h>

typedef const char sink_name;
typedef const void sink_data;
extern int32_t optimize_go_write(void *, sink_name *, sink_data *, size_t);
*/
import "C"

import (
	"context"
	"encoding/json"
	"io"
	"unsafe"
)

// CreateFunc creates the file with the given name. The library writes to it, and closes it.
type CreateFunc func(name string) (io.WriteCloser, error)

// SaveTo saves a model to the file that create returns for name, for example to encrypt or upload it, and returns the
// list of the files that it wrote. If the weights are stored as external data, create is called for their file first.
// The bytes are those that Save writes. Errors of create and of the files are returned as they are; after an error, the
// files are not complete. SaveTo also fails with ErrLimitExceeded if the .onnx file would have more than 2 GiB, and
// with ErrInvalidArgument if the options contradict each other.
func (m *Model) SaveTo(ctx context.Context, create CreateFunc, name string, o *SaveOptions) (*SaveReport, error) {
	model, err := m.acquire()
	if err != nil {
		return nil, err
	}
	defer m.release()
	options := o.raw()
	var mem memory
	defer mem.free()
	var report *C.optimize_buffer_t
	err = writing(create, func(sink *C.optimize_sink_t) error {
		return tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
			return C.optimize_model_save_sink(model, sink, mem.text(name), &options, call, &report, e)
		})
	})
	if err != nil {
		return nil, err
	}
	saved := &SaveReport{}
	return saved, json.Unmarshal(take(report), saved)
}

// CompileTo writes a package of a model to the file that create returns for name, and returns a report as JSON, with
// size and hash of the file. The package is a single file, whatever SingleFile of the options says. Errors of create
// and of the file are returned as they are; after an error, the file is not complete. Otherwise CompileTo fails like
// Compile.
func (c *Context) CompileTo(
	ctx context.Context, model *Model, create CreateFunc, name string, o *PackageOptions,
) ([]byte, error) {
	return c.compile(model, o, func(p *compilation) error {
		return writing(create, func(sink *C.optimize_sink_t) error {
			return tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
				return C.optimize_package_compile_sink(p.context, p.model, sink, p.text(name), &p.options, call, &p.report, e)
			})
		})
	})
}

// writing makes a call with a sink that writes to the files that create returns, and closes the files. It returns the
// error of create or of a file if that made the call fail.
func writing(create CreateFunc, call func(*C.optimize_sink_t) error) error {
	w := &writer{create: create}
	data, forget := userData(w)
	sink := C.optimize_sink_t{
		struct_size: C.sizeof_optimize_sink_t,
		write:       C.optimize_write_fn(C.optimize_go_write),
		user_data:   data,
	}
	err := call(&sink)
	forget()
	if w.file != nil {
		w.file.Close() // the call failed before the end of this file
	}
	w.goOn()
	if err != nil && w.failed != nil {
		return w.failed
	}
	return err
}

// writer is the user data of the callback of a sink. It has the file that is being written, or nil between two files,
// and the error with which the callback failed.
type writer struct {
	caught
	create CreateFunc
	file   io.WriteCloser
	failed error
}

// write appends bytes to the current file, which it creates if there is none. No bytes mark the end of the file.
func (w *writer) write(name string, bytes []byte) (err error) {
	if w.file == nil {
		if w.file, err = w.create(name); err != nil {
			w.file = nil
			return err
		}
	}
	if len(bytes) > 0 {
		_, err = w.file.Write(bytes)
		return err
	}
	err = w.file.Close()
	w.file = nil
	return err
}

//export optimize_go_write
func optimize_go_write(userData unsafe.Pointer, name *C.sink_name, data *C.sink_data, size C.size_t) (status C.int32_t) {
	w := valueOf(userData).(*writer)
	defer w.catch(&status)
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(data)), int(size))
	if err := w.write(C.GoString((*C.char)(name)), bytes); err != nil {
		w.failed = err
		return C.OPTIMIZE_IO
	}
	return C.OPTIMIZE_OK
}
