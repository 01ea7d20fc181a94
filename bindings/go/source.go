package optimize

/*
#include <optimize.h>

typedef const char source_name;
extern int32_t optimize_go_size(void *, source_name *, uint64_t *);
extern int32_t optimize_go_read(void *, source_name *, uint64_t, void *, size_t);
*/
import "C"

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"unsafe"
)

// LoadFS loads a model from the file of fsys with the given name: an .onnx file with its external data and the files
// next to it, a packed file, a .gguf file, or a package in one file. All files are read during the call, into memory
// that the model keeps, so that fsys may decrypt files or read them from an archive.
//
// It fails with ErrNotFound if the file, or one with its external data, does not exist, with ErrInvalidModel for a
// damaged file, with ErrLimitExceeded for an .onnx file above 2 GiB, and with ErrUnsupported like Load. Other errors of
// fsys are returned as they are.
func (c *Context) LoadFS(ctx context.Context, fsys fs.FS, name string) (*Model, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var m memory
	defer m.free()
	var model *C.optimize_model_t
	err = reading(fsys, func(source *C.optimize_source_t) error {
		return tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
			return C.optimize_model_load_source(context, source, m.text(name), call, &model, e)
		})
	})
	if err != nil {
		return nil, err
	}
	return newModel(model), nil
}

// OpenPackageFS opens a package in one file, the file of fsys with the given name, like OpenPackage. The file is read
// during the call, into memory that the package keeps. If the file does not exist, it fails with ErrNotFound. Other
// errors of fsys are returned as they are; otherwise it fails like OpenPackage.
func (c *Context) OpenPackageFS(ctx context.Context, fsys fs.FS, name string, o *OpenOptions) (*Package, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var m memory
	defer m.free()
	options := o.raw(&m)
	var p *C.optimize_package_t
	err = reading(fsys, func(source *C.optimize_source_t) error {
		return tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
			return C.optimize_package_open_source(context, source, m.text(name), &options, call, &p, e)
		})
	})
	if err != nil {
		return nil, err
	}
	return newPackage(p), nil
}

// LoadTokenizerFS loads a tokenizer from the file of fsys with the given name, a tokenizer.json. If the file has this
// name, the settings of the files next to it are applied, as in LoadTokenizer. It fails with ErrNotFound if the file
// does not exist, and with ErrInvalidModel if a file is damaged or the tokenizer is not supported. Other errors of fsys
// are returned as they are.
func LoadTokenizerFS(fsys fs.FS, name string) (*Tokenizer, error) {
	var m memory
	defer m.free()
	var tokenizer *C.optimize_tokenizer_t
	err := reading(fsys, func(source *C.optimize_source_t) error {
		return try(func(e errorOut) status {
			return C.optimize_tokenizer_load_source(source, m.text(name), &tokenizer, e)
		})
	})
	if err != nil {
		return nil, err
	}
	return newTokenizer(tokenizer), nil
}

// reading makes a call with a source of the files of fsys. It returns the error of fsys if that made the call fail.
func reading(fsys fs.FS, call func(*C.optimize_source_t) error) error {
	r := &reader{fsys: fsys}
	defer r.close()
	data, forget := userData(r)
	source := C.optimize_source_t{
		struct_size: C.sizeof_optimize_source_t,
		size:        C.optimize_size_fn(C.optimize_go_size),
		read:        C.optimize_read_fn(C.optimize_go_read),
		user_data:   data,
	}
	err := call(&source)
	forget()
	r.goOn()
	if err != nil && r.failed != nil {
		return r.failed
	}
	return err
}

// reader is the user data of the callbacks of a source. It keeps the file of the last callback open, because most files
// are read from beginning to end. at is the offset in a file that does not implement io.ReaderAt.
type reader struct {
	caught
	fsys   fs.FS
	name   string
	file   fs.File
	at     int64
	failed error
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
	}
	r.file, r.name, r.at = nil, "", 0
}

func (r *reader) open(name string) error {
	if r.file != nil && r.name == name {
		return nil
	}
	r.close()
	file, err := r.fsys.Open(name)
	if err == nil {
		r.file, r.name = file, name
	}
	return err
}

// size returns the size of a file in bytes.
func (r *reader) size(name string) (int64, error) {
	if err := r.open(name); err != nil {
		return 0, err
	}
	info, err := r.file.Stat()
	if err != nil {
		return 0, err
	}
	if info.IsDir() {
		return 0, &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	return info.Size(), nil
}

// read fills buffer with the bytes of a file from offset on. To go back in a file without io.ReaderAt, it opens the
// file again.
func (r *reader) read(name string, offset int64, buffer []byte) error {
	if r.at > offset {
		r.close()
	}
	if err := r.open(name); err != nil {
		return err
	}
	if at, ok := r.file.(io.ReaderAt); ok {
		n, err := at.ReadAt(buffer, offset)
		if n == len(buffer) {
			return nil
		}
		return err
	}
	if _, err := io.CopyN(io.Discard, r.file, offset-r.at); err != nil {
		return err
	}
	n, err := io.ReadFull(r.file, buffer)
	r.at = offset + int64(n)
	return err
}

//export optimize_go_size
func optimize_go_size(userData unsafe.Pointer, name *C.source_name, size *C.uint64_t) (status C.int32_t) {
	r := valueOf(userData).(*reader)
	defer r.catch(&status)
	found, err := r.size(C.GoString((*C.char)(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return C.OPTIMIZE_NOT_FOUND
	}
	if err != nil {
		r.failed = err
		return C.OPTIMIZE_IO
	}
	*size = C.uint64_t(found)
	return C.OPTIMIZE_OK
}

//export optimize_go_read
func optimize_go_read(userData unsafe.Pointer, name *C.source_name, offset C.uint64_t, buffer unsafe.Pointer, size C.size_t) (status C.int32_t) {
	r := valueOf(userData).(*reader)
	defer r.catch(&status)
	into := unsafe.Slice((*byte)(buffer), int(size))
	if err := r.read(C.GoString((*C.char)(name)), int64(offset), into); err != nil {
		r.failed = err
		return C.OPTIMIZE_IO
	}
	return C.OPTIMIZE_OK
}
