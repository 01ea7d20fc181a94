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

// CreateFunc creates the file with the name name, which the library then writes and closes.
type CreateFunc func(name string) (io.WriteCloser, error)

// SaveTo saves a model to the file that create returns for name, for example to encrypt or upload it. If the options
// ask for external data, create is called for that file first. The bytes are those that Save writes. Errors of create
// and of the files are returned as they are; after an error, the files are not complete.
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

// CompileTo writes a package of a model in one file to the file that create returns for name, and returns a report as
// JSON. Errors of create and of the file are returned as they are; after an error, the file is not complete.
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

// writing makes a call with a sink that writes to the files that create returns, and closes them.
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
		w.file.Close() // a file that is not complete
	}
	w.goOn()
	if err != nil && w.failed != nil {
		return w.failed
	}
	return err
}

// writer is the user data of the callback of a sink, and the file that is written.
type writer struct {
	caught
	create CreateFunc
	file   io.WriteCloser
	failed error
}

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
