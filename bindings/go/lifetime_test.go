package optimize

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"time"
)

func TestUseAfterClose(t *testing.T) {
	library, model, tokenizer := load(t)
	tensor := must(NewTensor([]int64{1}))
	for i := 0; i < 2; i++ { // twice is fine
		tensor.Close()
		tokenizer.Close()
		model.Close()
		library.Close()
	}
	if _, err := library.Load(ctx, "x"); err != ErrClosed {
		t.Errorf("context: %v", err)
	}
	if _, err := model.Inspect(); err != ErrClosed {
		t.Errorf("model: %v", err)
	}
	if _, err := tokenizer.Encode([]string{"x"}, nil); err != ErrClosed {
		t.Errorf("tokenizer: %v", err)
	}
	if _, err := Elements[int64](tensor); err != ErrClosed || tensor.DType() != Unknown || tensor.Dims() != nil {
		t.Errorf("tensor: %v", err)
	}
	if _, err := new(Session).Run(ctx, nil); err != ErrClosed {
		t.Errorf("a session that never was: %v", err)
	}
}

func TestCloseInAnyOrder(t *testing.T) {
	library, model, tokenizer := load(t)
	session := must(library.NewSession(ctx, model, nil))
	defer session.Close()
	library.Close()
	model.Close()
	if v := must(embed(ctx, session, tokenizer, "still here")); len(v) != 384 {
		t.Errorf("%d elements", len(v))
	}
}

func TestCloseDuringCall(t *testing.T) {
	library, model, _ := load(t)
	library2 := must(NewContext(nil))
	closed := false
	small, _, err := library2.Quantize(WithProgress(ctx, func(string, uint64, uint64) {
		closed = true
		library2.Close()
		model.Close()
	}), model, nil)
	if err != nil || !closed {
		t.Fatalf("closed %v: %v", closed, err)
	}
	defer small.Close()
	must(small.Inspect())
	if _, err := library.NewSession(ctx, model, nil); err != ErrClosed {
		t.Errorf("after the call: %v", err)
	}
}

func TestSessionForEachGoroutine(t *testing.T) {
	library, model, tokenizer := load(t)
	var texts, want = make([]string, 8), make([][]float32, 8)
	session := must(library.NewSession(ctx, model, nil))
	defer session.Close()
	for i := range texts {
		texts[i] = fmt.Sprintf("sentence number %d of a few", i)
		want[i] = must(embed(ctx, session, tokenizer, texts[i]))
	}
	var group sync.WaitGroup
	for i := range texts {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			session := must(library.NewSession(ctx, model, nil))
			defer session.Close()
			for n := 0; n < 10; n++ {
				if got := must(embed(ctx, session, tokenizer, texts[i])); !(cosine(got, want[i]) > 0.999999) {
					t.Errorf("goroutine %d: cosine %v", i, cosine(got, want[i]))
				}
			}
		}(i)
	}
	group.Wait()
}

func TestGoroutinesShareASession(t *testing.T) {
	library, model, tokenizer := load(t)
	session := must(library.NewSession(ctx, model, nil))
	want := must(embed(ctx, session, tokenizer, "shared"))
	var group sync.WaitGroup
	for i := 0; i < 8; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for n := 0; n < 20; n++ {
				got, err := embed(ctx, session, tokenizer, "shared")
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%v, cosine %v", err, cosine(got, want))
				}
			}
		}()
	}
	group.Wait()
	session.Close()
}

// rss returns the resident memory of this process in bytes.
func rss(t *testing.T) int {
	var size, resident int
	if _, err := fmt.Fscan(bytes.NewReader(must(os.ReadFile("/proc/self/statm"))), &size, &resident); err != nil {
		t.Skip(err)
	}
	return resident * os.Getpagesize()
}

// settle runs the garbage collector, and gives finalizers time to run.
func settle() {
	for i := 0; i < 3; i++ {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
}

func TestGarbageIsCollected(t *testing.T) {
	library, model, tokenizer := load(t)
	round := func(n int) {
		for i := 0; i < n; i++ {
			must(NewTensor(make([]float32, 1<<18), 1<<18)) // 1 MiB that nobody closes
			if i%50 == 0 {
				session := must(library.NewSession(ctx, model, &SessionOptions{DisablePrepacking: true}))
				must(embed(ctx, session, tokenizer, "dropped"))
				must(library.Load(ctx, minilm(t)))
				must(tokenizer.Encode([]string{"dropped"}, nil))
				settle()
			}
		}
		settle()
	}
	round(100)
	before := rss(t)
	round(1000)
	if grown := rss(t) - before; grown > 300<<20 {
		t.Errorf("the process has grown by %d MiB", grown>>20)
	}
}

// The garbage collector runs all the time while handles are made, used and dropped. It must not free a handle that a
// call uses.
func TestCollectorDuringCalls(t *testing.T) {
	library, model, tokenizer := load(t)
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Add(1)
	go func() {
		defer group.Done()
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	for i := 0; i < 300; i++ {
		text := fmt.Sprintf("text number %d", i)
		ids := must(Elements[int64](must(tokenizer.Encode([]string{text}, nil)).IDs))
		if back := must(tokenizer.Decode(ids, nil)); back != text {
			t.Errorf("%q came back as %q", text, back)
		}
		if s := must(must(NewStringTensor([]string{text}, 1)).Strings()); s[0] != text {
			t.Errorf("%q came back as %q", text, s)
		}
		if i%30 == 0 {
			if v := must(embed(ctx, must(library.NewSession(ctx, model, nil)), tokenizer, text)); len(v) != 384 {
				t.Errorf("%d elements", len(v))
			}
		}
	}
	close(stop)
	group.Wait()
}
