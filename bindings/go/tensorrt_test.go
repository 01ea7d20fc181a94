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

func TestTensorRTEngineIsOpenedOrRefusedWithTheReason(t *testing.T) {
	library, original, _ := load(t)
	path, folder := filepath.Join(tempDir(t), "go.engine"), filepath.Join(tempDir(t), "package")
	libraries := filepath.Join(os.Getenv("OPTIMIZE_TEST_DEPS"), "tensorrt-rtx")
	must(library.BuildTensorRT(ctx, original, path, &TensorRTOptions{BatchSize: 1, SequenceLength: 16, Library: libraries}))
	must(library.Compile(ctx, original, folder, &PackageOptions{Dynamic: true, PortableOnly: true, Engine: path}))
	p := must(OpenPackage(folder, nil))
	defer p.Close()
	ways := map[string]func(o *TensorRTOpenOptions) (*Session, error){
		"file":    func(o *TensorRTOpenOptions) (*Session, error) { return library.OpenTensorRT(ctx, path, o) },
		"package": func(o *TensorRTOpenOptions) (*Session, error) { return library.NewPackageEngine(ctx, p, o) },
		"benchmark": func(o *TensorRTOpenOptions) (*Session, error) {
			_, err := library.BenchmarkEngine(ctx, original, path, o, &BenchmarkOptions{Runs: 2, SequenceLength: 16})
			return nil, err
		},
	}
	for name, open := range ways {
		for _, wanted := range []struct {
			options *TensorRTOpenOptions
			err     error
		}{
			{nil, ErrUntrusted},
			{&TensorRTOpenOptions{Trust: true, Library: tempDir(t)}, ErrBackendMissing},
			{&TensorRTOpenOptions{Trust: true, Library: libraries, ModelSHA256: strings.Repeat("0", 64)}, ErrMismatch},
			{&TensorRTOpenOptions{Trust: true, Library: libraries, DeviceID: 4096}, ErrDeviceMissing}, // no such device
		} {
			if _, err := open(wanted.options); !errors.Is(err, wanted.err) {
				t.Errorf("%s with %+v: %v, not %v", name, wanted.options, err, wanted.err)
			}
		}
		session, err := open(&TensorRTOpenOptions{Trust: true, Library: libraries})
		if err != nil && !errors.Is(err, ErrDeviceMissing) && !errors.Is(err, ErrBackend) {
			t.Errorf("%s: %v", name, err)
		}
		if session != nil {
			session.Close()
		}
	}
}
