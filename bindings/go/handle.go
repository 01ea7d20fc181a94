package optimize

// #include <stdlib.h>
// #include <optimize.h>
import "C"

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"unsafe"
)

// ErrClosed is the error of a call with an object that is closed or nil. It has no [Status].
var ErrClosed = errors.New("optimize: used after Close, or nil")

// handle owns a C handle of the pointer type P. It counts the calls that use the C handle, so that Close does not free
// the C handle during a call.
type handle[P any] struct {
	mu   sync.Mutex
	c    P
	uses int
	open bool
	free func(P)
}

// own returns a handle that owns c. The function free frees c on Close, or in a finalizer if nobody closes the handle.
func own[P any](c P, free func(P)) *handle[P] {
	h := &handle[P]{c: c, open: true, free: free}
	runtime.SetFinalizer(h, (*handle[P]).Close)
	return h
}

// acquire returns the C handle for a call, which must end with release. It fails with ErrClosed after Close. A deferred
// release also keeps h reachable during the call, so that its finalizer does not run.
func (h *handle[P]) acquire() (c P, err error) {
	if h == nil {
		return c, ErrClosed
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open {
		return c, ErrClosed
	}
	h.uses++
	return h.c, nil
}

// release ends a use of the C handle, and frees it if Close was called meanwhile and this was the last use.
func (h *handle[P]) release() {
	h.mu.Lock()
	h.uses--
	last := h.uses == 0 && !h.open
	h.mu.Unlock()
	if last {
		h.free(h.c)
	}
}

// Close frees the object, at once or when the calls that use it have ended. It always returns nil.
func (h *handle[P]) Close() error {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	last := h.open && h.uses == 0
	h.open = false
	h.mu.Unlock()
	if last {
		h.free(h.c)
	}
	return nil
}

// memory is C memory for the arguments of one call. Go memory may be passed to C only if it contains no pointers to
// other Go memory: lists of strings, and strings in structs, have to be copied.
type memory struct{ blocks []unsafe.Pointer }

func (m *memory) free() {
	for _, block := range m.blocks {
		C.free(block)
	}
}

// text returns a copy of a string in C memory. C would end the string at its first NUL, and thus open another file.
// Each NUL is therefore replaced by the bytes C0 80, which are not valid UTF-8, so that the library refuses the string.
func (m *memory) text(s string) *C.char {
	return m.keep(C.CString(strings.ReplaceAll(s, "\x00", "\xc0\x80")))
}

// optional returns a copy of *s, which may be empty, in C memory; nil if s is nil.
func (m *memory) optional(s *string) *C.char {
	if s == nil {
		return nil
	}
	return m.text(*s)
}

func (m *memory) textOrNil(s string) *C.char {
	if s == "" {
		return nil
	}
	return m.text(s)
}

// data returns a copy of s in C memory, with its NULs, for arguments that are passed with their size.
func (m *memory) data(s string) *C.char { return m.keep(C.CString(s)) }

func (m *memory) dataOrNil(s string) *C.char {
	if s == "" {
		return nil
	}
	return m.data(s)
}

func (m *memory) texts(list []string) **C.char {
	return m.pointers(list, m.text)
}

// prompts returns copies of texts in C memory, and their sizes in bytes, so that the texts may contain NUL.
func (m *memory) prompts(list []string) (texts **C.char, sizes []C.size_t) {
	for _, s := range list {
		sizes = append(sizes, C.size_t(len(s)))
	}
	return m.pointers(list, m.data), addressable(sizes)
}

func (m *memory) pointers(list []string, copied func(string) *C.char) **C.char {
	if len(list) == 0 {
		return nil
	}
	c := (**C.char)(C.malloc(C.size_t(len(list)) * C.size_t(unsafe.Sizeof(uintptr(0)))))
	m.blocks = append(m.blocks, unsafe.Pointer(c))
	for i, s := range list {
		unsafe.Slice(c, len(list))[i] = copied(s)
	}
	return c
}

// tensors returns a copy of a list of handles in C memory, for C structs, which must not point into Go memory.
func (m *memory) tensors(list []*C.optimize_tensor_t) **C.optimize_tensor_t {
	if len(list) == 0 {
		return nil
	}
	c := (**C.optimize_tensor_t)(C.malloc(C.size_t(len(list)) * C.size_t(unsafe.Sizeof(uintptr(0)))))
	m.blocks = append(m.blocks, unsafe.Pointer(c))
	copy(unsafe.Slice(c, len(list)), list)
	return c
}

// ids returns a copy of a list in C memory; nil for an empty list.
func (m *memory) ids(list []int64) *C.int64_t {
	if len(list) == 0 {
		return nil
	}
	c := (*C.int64_t)(C.malloc(C.size_t(len(list)) * 8))
	m.blocks = append(m.blocks, unsafe.Pointer(c))
	for i, id := range list {
		unsafe.Slice(c, len(list))[i] = C.int64_t(id)
	}
	return c
}

// numbers returns a copy of a list in C memory; nil for an empty list.
func (m *memory) numbers(list []uint32) *C.uint32_t {
	if len(list) == 0 {
		return nil
	}
	c := (*C.uint32_t)(C.malloc(C.size_t(len(list)) * 4))
	m.blocks = append(m.blocks, unsafe.Pointer(c))
	for i, number := range list {
		unsafe.Slice(c, len(list))[i] = C.uint32_t(number)
	}
	return c
}

func (m *memory) keep(c *C.char) *C.char {
	m.blocks = append(m.blocks, unsafe.Pointer(c))
	return c
}

// bytesOf returns the memory of the elements of s, without a copy; nil if s is empty.
func bytesOf[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}

// addressable returns s, or a slice of one element if s is empty, so that the address of the first element can be
// taken. C functions that receive the length 0 do not read that element.
func addressable[T any](s []T) []T {
	if len(s) == 0 {
		return make([]T, 1)
	}
	return s
}

// flag returns 1 for true and 0 for false, as the fields of C options have them.
func flag(yes bool) C.uint32_t {
	if yes {
		return 1
	}
	return 0
}

// take returns a copy of the content of a buffer, and frees the buffer.
func take(buffer *C.optimize_buffer_t) []byte {
	defer C.optimize_buffer_free(buffer)
	data := (*byte)(unsafe.Pointer(C.optimize_buffer_data(buffer)))
	return append([]byte(nil), unsafe.Slice(data, int(C.optimize_buffer_size(buffer)))...)
}
