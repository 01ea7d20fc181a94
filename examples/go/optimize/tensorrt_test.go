package optimize

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTensorRTEngineIsBuiltCheckedAndReused(t *testing.T) {
	library, original, _ := load(t)
	path := filepath.Join(tempDir(t), "go.engine")
	folder := filepath.Join(os.Getenv("OPTIMIZE_TEST_DEPS"), "tensorrt-rtx")
	t.Setenv("OPTIMIZE_TENSORRT_PATH", folder)
	options := &TensorRTOptions{BatchSize: 1, SequenceLength: 16, Library: folder}
	for _, reused := range []string{`"reused": false`, `"reused": true`} {
		report := must(library.BuildTensorRT(ctx, original, path, options))
		if !strings.Contains(string(report), reused) {
			t.Fatalf("no %s in %s", reused, report)
		}
	}
	if _, err := library.CheckTensorRT(ctx, path, original, false); !errors.Is(err, ErrUntrusted) {
		t.Fatalf("without trust: %v", err)
	}
	_, err := library.BuildTensorRT(ctx, original, path+"2.engine", &TensorRTOptions{Library: folder})
	if !errors.Is(err, ErrInvalidArgument) {
		t.Fatalf("without sizes: %v", err)
	}
	_, err = library.BuildTensorRT(ctx, original, path, &TensorRTOptions{BatchSize: 1, SequenceLength: 16, Library: tempDir(t)})
	if !errors.Is(err, ErrBackendMissing) {
		t.Fatalf("without a library: %v", err)
	}
}
