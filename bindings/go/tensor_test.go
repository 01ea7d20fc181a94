package optimize

import (
	"errors"
	"math"
	"reflect"
	"runtime"
	"testing"
	"unsafe"
)

func roundTrip[T Element](t *testing.T, dtype DType, elements ...T) {
	t.Helper()
	tensor, err := NewTensor(elements, int64(len(elements)), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer tensor.Close()
	if tensor.DType() != dtype || !reflect.DeepEqual(tensor.Dims(), []int64{int64(len(elements)), 1}) {
		t.Errorf("type %v, shape %v", tensor.DType(), tensor.Dims())
	}
	if back := must(Elements[T](tensor)); !reflect.DeepEqual(back, elements) {
		t.Errorf("%v came back as %v", elements, back)
	}
}

func TestTensorRoundTrip(t *testing.T) {
	type celsius float32
	roundTrip(t, Float32, float32(1.5), -0.25, float32(math.Inf(1)))
	roundTrip(t, Float32, celsius(21.5))
	roundTrip(t, Float64, math.Pi, math.MaxFloat64)
	roundTrip(t, Int8, int8(-128), 127)
	roundTrip(t, Int16, int16(-5))
	roundTrip(t, Int32, int32(math.MinInt32))
	roundTrip(t, Int64, int64(math.MaxInt64), -1)
	roundTrip(t, Uint8, uint8(255))
	roundTrip(t, Uint16, uint16(65535))
	roundTrip(t, Uint32, uint32(math.MaxUint32))
	roundTrip(t, Uint64, uint64(math.MaxUint64))
	roundTrip(t, Bool, true, false, true)
	roundTrip(t, Complex64, complex64(complex(1, -2)))
	roundTrip(t, Complex128, complex(3, 4))
}

func TestTensorScalarAndEmpty(t *testing.T) {
	scalar := must(NewTensor([]float32{7}))
	defer scalar.Close()
	if dims := scalar.Dims(); dims == nil || len(dims) != 0 {
		t.Errorf("a scalar has shape %v", dims)
	}
	if e := must(Elements[float32](scalar)); len(e) != 1 || e[0] != 7 {
		t.Errorf("a scalar of 7 holds %v", e)
	}
	empty := must(NewTensor([]int64{}, 0, 3))
	defer empty.Close()
	if e := must(Elements[int64](empty)); len(e) != 0 {
		t.Errorf("an empty tensor holds %v", e)
	}
}

func TestTensorCopiesItsInput(t *testing.T) {
	// The elements are in a struct that also has pointers, which cgo does not allow in memory that is passed to C.
	holder := &struct {
		name     *string
		elements [4]int32
	}{new(string), [4]int32{1, 2, 3, 4}}
	tensor := must(NewTensor(holder.elements[:], 2, 2))
	defer tensor.Close()
	holder.elements[0] = 9
	if e := must(Elements[int32](tensor)); e[0] != 1 {
		t.Errorf("the tensor changed with its source: %v", e)
	}
}

func TestViewIsTheTensorsMemory(t *testing.T) {
	tensor := must(NewTensor([]float32{1, 2, 3}, 3))
	defer tensor.Close()
	view := must(View[float32](tensor))
	again := must(View[float32](tensor))
	if !reflect.DeepEqual(view, []float32{1, 2, 3}) || &view[0] != &again[0] || cap(view) != 3 {
		t.Errorf("views %v and %v", view, again)
	}
	if bytes := must(tensor.ViewBytes()); len(bytes) != 12 || unsafe.Pointer(&bytes[0]) != unsafe.Pointer(&view[0]) {
		t.Errorf("%d bytes elsewhere", len(bytes))
	}
	if _, err := View[int32](tensor); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a view of another type: %v", err)
	}
	tensor.Close()
	if _, err := View[float32](tensor); err != ErrClosed {
		t.Errorf("a view of a closed tensor: %v", err)
	}
}

func TestBorrowTensor(t *testing.T) {
	elements := make([]int64, 1000)
	for i := range elements {
		elements[i] = int64(i)
	}
	tensor := must(BorrowTensor(elements, 10, 100))
	view := must(View[int64](tensor))
	if &view[0] != &elements[0] || len(view) != 1000 {
		t.Error("the elements were copied")
	}
	runtime.GC()
	tensor.Close()
	if _, err := BorrowTensor(elements, 7); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a shape of seven elements: %v", err)
	}
	empty := must(BorrowTensor([]float32{}, 0, 3))
	defer empty.Close()
	if e := must(View[float32](empty)); len(e) != 0 {
		t.Errorf("an empty tensor holds %v", e)
	}
}

// The memory of a borrowed tensor stays pinned until the tensor is closed, or collected because nobody closes it.
func TestBorrowedMemoryIsReturned(t *testing.T) {
	before := outstanding.Load()
	for i := 0; i < 200; i++ {
		tensor := must(BorrowTensor([]int32{int32(i), int32(-i)}, 2))
		if i%2 == 0 {
			tensor.Close()
		}
		runtime.GC()
		if i%2 == 1 && must(View[int32](tensor))[1] != int32(-i) {
			t.Fatalf("the elements of tensor %d have changed", i)
		}
		runtime.KeepAlive(tensor)
	}
	for wait := 0; outstanding.Load() > before && wait < 100; wait++ {
		settle()
	}
	if left := outstanding.Load() - before; left != 0 {
		t.Errorf("%d slices are still pinned", left)
	}
}

func TestRawTensor(t *testing.T) {
	tensor := must(NewRawTensor(Int4, []byte{0x21, 0x03}, 3))
	defer tensor.Close()
	if data := must(tensor.Bytes()); tensor.DType() != Int4 || !reflect.DeepEqual(data, []byte{0x21, 0x03}) {
		t.Errorf("type %v, bytes %v", tensor.DType(), data)
	}
	if _, err := Elements[float32](tensor); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("elements of another type: %v", err)
	}
}

func TestStringTensor(t *testing.T) {
	words := []string{"", "größer", "日本", "last"}
	tensor := must(NewStringTensor(words, 2, 2))
	defer tensor.Close()
	if back := must(tensor.Strings()); tensor.DType() != String || !reflect.DeepEqual(back, words) {
		t.Errorf("%q came back as %q", words, back)
	}
	if _, err := NewStringTensor([]string{"a\x00b"}, 1); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a NUL inside a string: %v", err)
	}
}

func TestTokenizerRoundTrip(t *testing.T) {
	tokenizer := must(LoadTokenizer(minilm(t)))
	defer tokenizer.Close()
	if size := tokenizer.VocabularySize(); size != 30522 {
		t.Errorf("%d tokens", size)
	}
	text := "a smaller model answers sooner"
	encoding := must(tokenizer.Encode([]string{text, "short"}, nil))
	defer encoding.Close()
	dims, ids := encoding.IDs.Dims(), must(Elements[int64](encoding.IDs))
	if len(dims) != 2 || dims[0] != 2 || ids[0] != 101 {
		t.Fatalf("shape %v, ids %v", dims, ids)
	}
	mask := must(Elements[int64](encoding.AttentionMask))
	if mask[0] != 1 || mask[len(mask)-1] != 0 {
		t.Errorf("mask %v", mask)
	}
	if back := must(tokenizer.Decode(ids[:dims[1]], nil)); back != text {
		t.Errorf("%q came back as %q", text, back)
	}
	if back := must(tokenizer.Decode(ids[:dims[1]], &DecodeOptions{KeepSpecialTokens: true})); back == text {
		t.Errorf("no special tokens in %q", back)
	}
	bare := must(tokenizer.Encode([]string{text}, &EncodeOptions{NoSpecialTokens: true, MaxLength: 3}))
	defer bare.Close()
	if ids := must(Elements[int64](bare.IDs)); len(ids) != 3 || ids[0] == 101 {
		t.Errorf("ids without special tokens, at most 3: %v", ids)
	}
	must(tokenizer.Encode([]string{"a NUL \x00 is fine in a text"}, nil)).Close()
}
