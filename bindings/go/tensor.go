package optimize

// #include <optimize.h>
// void optimize_go_release(void *user_data);
import "C"

import (
	"fmt"
	"reflect"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// DType is the type of the elements of a tensor. Its values are those of ONNX's TensorProto.DataType. In memory,
// elements of less than a byte are packed, low bits first.
type DType int32

// The element types.
const (
	Unknown        DType = C.OPTIMIZE_DTYPE_UNKNOWN // the value is no tensor, or the model does not declare its type
	Float32        DType = C.OPTIMIZE_DTYPE_FLOAT32
	Uint8          DType = C.OPTIMIZE_DTYPE_UINT8
	Int8           DType = C.OPTIMIZE_DTYPE_INT8
	Uint16         DType = C.OPTIMIZE_DTYPE_UINT16
	Int16          DType = C.OPTIMIZE_DTYPE_INT16
	Int32          DType = C.OPTIMIZE_DTYPE_INT32
	Int64          DType = C.OPTIMIZE_DTYPE_INT64
	String         DType = C.OPTIMIZE_DTYPE_STRING
	Bool           DType = C.OPTIMIZE_DTYPE_BOOL
	Float16        DType = C.OPTIMIZE_DTYPE_FLOAT16
	Float64        DType = C.OPTIMIZE_DTYPE_FLOAT64
	Uint32         DType = C.OPTIMIZE_DTYPE_UINT32
	Uint64         DType = C.OPTIMIZE_DTYPE_UINT64
	Complex64      DType = C.OPTIMIZE_DTYPE_COMPLEX64
	Complex128     DType = C.OPTIMIZE_DTYPE_COMPLEX128
	BFloat16       DType = C.OPTIMIZE_DTYPE_BFLOAT16
	Float8E4M3FN   DType = C.OPTIMIZE_DTYPE_FLOAT8E4M3FN
	Float8E4M3FNUZ DType = C.OPTIMIZE_DTYPE_FLOAT8E4M3FNUZ
	Float8E5M2     DType = C.OPTIMIZE_DTYPE_FLOAT8E5M2
	Float8E5M2FNUZ DType = C.OPTIMIZE_DTYPE_FLOAT8E5M2FNUZ
	Uint4          DType = C.OPTIMIZE_DTYPE_UINT4
	Int4           DType = C.OPTIMIZE_DTYPE_INT4
	Float4E2M1     DType = C.OPTIMIZE_DTYPE_FLOAT4E2M1
	Float8E8M0     DType = C.OPTIMIZE_DTYPE_FLOAT8E8M0
	Uint2          DType = C.OPTIMIZE_DTYPE_UINT2
	Int2           DType = C.OPTIMIZE_DTYPE_INT2
)

// Element is the constraint of Go types that correspond to a DType, such as float32 to Float32.
type Element interface {
	~bool | ~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64 |
		~float32 | ~float64 | ~complex64 | ~complex128
}

// dtypeOf returns the element type that corresponds to T.
func dtypeOf[T Element]() DType {
	var zero T
	return map[reflect.Kind]DType{
		reflect.Bool: Bool, reflect.Int8: Int8, reflect.Int16: Int16, reflect.Int32: Int32, reflect.Int64: Int64,
		reflect.Uint8: Uint8, reflect.Uint16: Uint16, reflect.Uint32: Uint32, reflect.Uint64: Uint64,
		reflect.Float32: Float32, reflect.Float64: Float64,
		reflect.Complex64: Complex64, reflect.Complex128: Complex128,
	}[reflect.TypeOf(zero).Kind()]
}

// Tensor has elements with a type and a shape. It is immutable.
type Tensor struct {
	*handle[*C.optimize_tensor_t]
}

func newTensor(tensor *C.optimize_tensor_t) *Tensor {
	return &Tensor{own(tensor, func(t *C.optimize_tensor_t) { C.optimize_tensor_free(t) })}
}

// NewTensor returns a tensor with a copy of elements, which are in row-major order. dims are the sizes of its
// dimensions; without dims, the tensor is a scalar. It fails with ErrInvalidArgument if the number of elements does not
// match dims.
func NewTensor[T Element](elements []T, dims ...int64) (*Tensor, error) {
	return NewRawTensor(dtypeOf[T](), bytesOf(elements), dims...)
}

// NewRawTensor returns a tensor of type dtype with a copy of data, the bytes of its elements in row-major order and
// native byte order. Elements of less than a byte are packed, low bits first. It fails with ErrInvalidArgument if the
// number of bytes does not match dtype and dims, if a boolean is neither 0 nor 1, or if dtype is String.
func NewRawTensor(dtype DType, data []byte, dims ...int64) (*Tensor, error) {
	bytes, sizes := addressable(data), addressable(dims)
	var tensor *C.optimize_tensor_t
	err := try(func(e errorOut) status {
		return C.optimize_tensor_new(C.int32_t(dtype), (*C.int64_t)(&sizes[0]), C.size_t(len(dims)),
			unsafe.Pointer(&bytes[0]), C.size_t(len(data)), &tensor, e)
	})
	if err != nil {
		return nil, err
	}
	return newTensor(tensor), nil
}

// BorrowTensor returns a tensor that uses elements, which are in row-major order, without copying them. The elements
// must not change until the tensor is closed, or collected as garbage, and all runs that use it have ended. Without
// dims, the tensor is a scalar. It fails with ErrInvalidArgument if the number of elements does not match dims.
func BorrowTensor[T Element](elements []T, dims ...int64) (*Tensor, error) {
	lent := &loan{}
	outstanding.Add(1)
	memory, sizes := addressable(elements), addressable(dims)
	lent.pin.Pin(&memory[0])
	data, forget := userData(lent)
	lent.forget = forget
	var tensor *C.optimize_tensor_t
	err := try(func(e errorOut) status {
		return C.optimize_tensor_borrow(C.int32_t(dtypeOf[T]()), (*C.int64_t)(&sizes[0]), C.size_t(len(dims)),
			unsafe.Pointer(&memory[0]), C.size_t(len(bytesOf(elements))),
			C.optimize_release_fn(C.optimize_go_release), data, &tensor, e)
	})
	if err != nil {
		lent.end() // after a failure, the library does not call optimize_go_release
		return nil, err
	}
	return newTensor(tensor), nil
}

// loan is Go memory that the library uses. pin prevents Go from freeing or moving this memory, and forget frees the
// user data of the release callback.
type loan struct {
	pin    runtime.Pinner
	forget func()
}

// outstanding is the number of loans that have not ended, for the tests.
var outstanding atomic.Int64

// end ends the loan. It must be called once, when the library does not use the memory any more.
func (l *loan) end() {
	l.forget()
	l.pin.Unpin()
	outstanding.Add(-1)
}

//export optimize_go_release
func optimize_go_release(userData unsafe.Pointer) { valueOf(userData).(*loan).end() }

// NewStringTensor returns a tensor with copies of strings, which are in row-major order. Without dims, the tensor is a
// scalar. It fails with ErrInvalidArgument if the number of strings does not match dims, or if a string is not UTF-8 or
// contains NUL.
func NewStringTensor(strings []string, dims ...int64) (*Tensor, error) {
	var m memory
	defer m.free()
	sizes := addressable(dims)
	var tensor *C.optimize_tensor_t
	err := try(func(e errorOut) status {
		return C.optimize_tensor_new_strings((*C.int64_t)(&sizes[0]), C.size_t(len(dims)),
			m.texts(strings), nil, C.size_t(len(strings)), &tensor, e)
	})
	if err != nil {
		return nil, err
	}
	return newTensor(tensor), nil
}

// DType returns the element type of the tensor; Unknown if the tensor is closed or nil.
func (t *Tensor) DType() DType {
	tensor, err := t.acquire()
	if err != nil {
		return Unknown
	}
	defer t.release()
	return DType(C.optimize_tensor_dtype(tensor))
}

// Dims returns the sizes of the dimensions: empty for a scalar, and nil if the tensor is closed or nil.
func (t *Tensor) Dims() []int64 {
	tensor, err := t.acquire()
	if err != nil {
		return nil
	}
	defer t.release()
	dims := make([]int64, C.optimize_tensor_rank(tensor))
	if len(dims) > 0 {
		copy(dims, unsafe.Slice((*int64)(C.optimize_tensor_dims(tensor)), len(dims)))
	}
	return dims
}

// Elements returns a copy of the elements of a tensor in row-major order; nil for a tensor without elements. It fails
// with ErrInvalidArgument if T does not correspond to the element type.
func Elements[T Element](t *Tensor) ([]T, error) {
	view, err := View[T](t)
	elements := append([]T(nil), view...)
	runtime.KeepAlive(t)
	return elements, err
}

// View returns the elements of a tensor in row-major order, without a copy; nil for a tensor without elements. It fails
// with ErrInvalidArgument if T does not correspond to the element type.
//
// The slice is memory of the library. It must not be written, and is valid only until the tensor is closed or collected
// as garbage. A deferred Close keeps the slice valid until the function returns:
//
//	defer tensor.Close()
//	elements, err := optimize.View[float32](tensor)
func View[T Element](t *Tensor) ([]T, error) {
	if has, wants := t.DType(), dtypeOf[T](); has != wants && has != Unknown {
		message := fmt.Sprintf("the tensor holds elements of type %d, not %d", has, wants)
		return nil, &Error{Status: ErrInvalidArgument, Message: message}
	}
	data, err := t.ViewBytes()
	if len(data) == 0 {
		return nil, err
	}
	var zero T
	return unsafe.Slice((*T)(unsafe.Pointer(&data[0])), len(data)/int(unsafe.Sizeof(zero))), nil
}

// Bytes returns a copy of the bytes of the elements; nil for a tensor of strings or without elements.
func (t *Tensor) Bytes() ([]byte, error) {
	view, err := t.ViewBytes()
	data := append([]byte(nil), view...)
	runtime.KeepAlive(t)
	return data, err
}

// ViewBytes returns the bytes of the elements without a copy; nil for a tensor of strings or without elements. The
// slice is memory of the library, with the rules of [View].
func (t *Tensor) ViewBytes() ([]byte, error) {
	tensor, err := t.acquire()
	if err != nil {
		return nil, err
	}
	defer t.release()
	size := C.optimize_tensor_size(tensor)
	if size == 0 {
		return nil, nil
	}
	return unsafe.Slice((*byte)(C.optimize_tensor_data(tensor)), int(size)), nil
}

// Strings returns copies of the elements of a tensor of strings, in row-major order. It fails with ErrInvalidArgument
// for a tensor of another type that has elements.
func (t *Tensor) Strings() ([]string, error) {
	tensor, err := t.acquire()
	if err != nil {
		return nil, err
	}
	defer t.release()
	count := int64(1)
	for _, dim := range t.Dims() {
		count *= dim
	}
	strings := make([]string, count)
	for i := range strings {
		var data *C.char
		var size C.size_t
		err := try(func(e errorOut) status {
			return C.optimize_tensor_string(tensor, C.size_t(i), &data, &size, e)
		})
		if err != nil {
			return nil, err
		}
		strings[i] = string(unsafe.Slice((*byte)(unsafe.Pointer(data)), int(size)))
	}
	return strings, nil
}
