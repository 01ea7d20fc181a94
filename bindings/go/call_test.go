package optimize

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// long makes a call that would take minutes if nothing ended it.
func long(ctx context.Context, library *Context, model *Model) error {
	_, err := library.Benchmark(ctx, model, model, &BenchmarkOptions{Runs: 1e6, MaxMilliseconds: 1e6})
	return err
}

func TestCancelFromAnotherGoroutine(t *testing.T) {
	library, model, _ := load(t)
	ctx, cancel := context.WithCancel(ctx)
	var fired time.Time
	running := make(chan struct{})
	go func() {
		<-running
		time.Sleep(50 * time.Millisecond)
		fired = time.Now()
		cancel()
	}()
	started := false
	err := long(WithProgress(ctx, func(string, uint64, uint64) {
		if !started {
			started = true
			close(running)
		}
	}), library, model)
	if !errors.Is(err, ErrCancelled) || !errors.Is(err, context.Canceled) {
		t.Fatalf("a cancelled call: %v", err)
	}
	if late := time.Since(fired); late > 2*time.Second {
		t.Errorf("it took %v to stop", late)
	}
}

func TestCancelWithoutProgress(t *testing.T) {
	library, model, _ := load(t)
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(200*time.Millisecond, cancel)
	if err := long(ctx, library, model); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: %v", err)
	}
}

func TestDeadline(t *testing.T) {
	library, model, _ := load(t)
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := long(ctx, library, model); !errors.Is(err, ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a late call: %v", err)
	}
	if _, err := library.Load(ctx, minilm(t)); !errors.Is(err, ErrTimeout) {
		t.Errorf("a call that begins too late: %v", err)
	}
}

func TestCancelFromProgress(t *testing.T) {
	library, model, _ := load(t)
	ctx, cancel := context.WithCancel(ctx)
	calls := 0
	err := long(WithProgress(ctx, func(string, uint64, uint64) { calls++; cancel() }), library, model)
	if !errors.Is(err, ErrCancelled) || calls != 1 {
		t.Errorf("%v after %d calls of progress", err, calls)
	}
	if err := long(ctx, library, model); !errors.Is(err, ErrCancelled) {
		t.Errorf("a call that begins cancelled: %v", err)
	}
}

func TestPanicInProgress(t *testing.T) {
	library, model, _ := load(t)
	defer func() {
		if p := recover(); p != "out of progress" {
			t.Errorf("recovered %v", p)
		}
	}()
	err := long(WithProgress(ctx, func(string, uint64, uint64) { panic("out of progress") }), library, model)
	t.Errorf("the call returned: %v", err)
}

func TestCancelledSaveLeavesNoFile(t *testing.T) {
	_, model, _ := load(t)
	folder := tempDir(t)
	ctx, cancel := context.WithCancel(ctx)
	under := WithProgress(ctx, func(string, uint64, uint64) { cancel() })
	if _, err := model.Save(under, filepath.Join(folder, "x.onnx"), nil); !errors.Is(err, ErrCancelled) {
		t.Errorf("a cancelled save: %v", err)
	}
	if left := must(os.ReadDir(folder)); len(left) != 0 {
		t.Errorf("it left %v", left)
	}
}

func second[T any](_ T, err error) error { return err }

func TestErrorContent(t *testing.T) {
	library, model, tokenizer := load(t)
	broken := filepath.Join(tempDir(t), "broken.onnx")
	if err := os.WriteFile(broken, []byte("this is no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	session := must(library.NewSession(ctx, model, &SessionOptions{OptimizationLevel: OptimizationBasic}))
	defer session.Close()
	ids := must(NewTensor([]float32{1}, 1, 1))
	defer ids.Close()
	other := must(NewContext(&ContextOptions{RuntimeLibrary: "/nowhere/libonnxruntime.so"}))
	defer other.Close()
	inMemory := must(library.LoadMemory(ctx, must(os.ReadFile(filepath.Join(minilm(t), "model.onnx")))))
	defer inMemory.Close()
	open := func(path string) error { _, err := library.Load(ctx, path); return err }
	run := func(inputs map[string]*Tensor) error { _, err := session.Run(ctx, inputs); return err }
	for name, c := range map[string]struct {
		err     error
		is      Status
		mention string
	}{
		"missing file": {open("/nowhere/x.onnx"), ErrNotFound, "/nowhere/x.onnx"},
		"broken model": {open(broken), ErrInvalidModel, "broken.onnx"},
		"NUL in path":  {open("a\x00b"), ErrInvalidArgument, "path"},
		"no model":     {second(library.LoadMemory(ctx, nil)), ErrInvalidModel, ""},
		"no tokenizer": {second(LoadTokenizer("/nowhere")), ErrNotFound, "/nowhere"},
		"none beside":  {second(inMemory.Tokenizer()), ErrNotFound, ""},
		"no texts":     {second(tokenizer.Encode(nil, nil)), ErrInvalidArgument, ""},
		"wrong id":     {second(tokenizer.Decode([]int64{-1}, nil)), ErrInvalidArgument, "ids"},
		"wrong size":   {second(NewTensor([]int32{1, 2}, 3)), ErrInvalidArgument, "12 bytes"},
		"wrong enum":   {second(model.Save(ctx, broken, &SaveOptions{ExternalData: 99})), ErrInvalidArgument, "99"},
		"no inputs":    {run(nil), ErrInvalidArgument, "input"},
		"wrong type":   {run(map[string]*Tensor{"input_ids": ids, "attention_mask": ids}), ErrInvalidArgument, "input_ids"},
		// A session has opened ONNX Runtime, and a process can open only one ONNX Runtime.
		"other runtime": {second(other.RuntimeVersion()), ErrInvalidArgument, "/nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.err
			var full *Error
			if !errors.As(err, &full) || !errors.Is(err, c.is) || full.Message == "" {
				t.Fatalf("%#v, want %v", err, c.is)
			}
			if !strings.Contains(err.Error(), c.mention) {
				t.Errorf("%q does not mention %q", err, c.mention)
			}
			if c.is == ErrNotFound && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v is not fs.ErrNotExist", err)
			}
			if errors.Is(err, ErrBusy) {
				t.Errorf("%v is ErrBusy as well", err)
			}
		})
	}
}

func TestStatusNames(t *testing.T) {
	if name := ErrInvalidModel.Error(); name != "optimize: invalid_model" {
		t.Errorf("ErrInvalidModel is called %q", name)
	}
	if name := Status(12345).Error(); name != "optimize: unknown" {
		t.Errorf("a status that is none is called %q", name)
	}
}
