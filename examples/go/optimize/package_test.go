package optimize

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPackageKeepsItsShapes(t *testing.T) {
	library, original, _ := load(t)
	path := filepath.Join(tempDir(t), "package")
	report := must(original.Compile(ctx, path, &CompileOptions{Dynamic: true, BatchMax: 2}))
	if report.Operation != "compile" {
		t.Errorf("report says %+v", report.Summary)
	}
	if err := VerifyPackage(ctx, path); err != nil {
		t.Error(err)
	}
	packaged := must(library.Load(ctx, path))
	defer packaged.Close()
	_, err := original.Compile(ctx, path, &CompileOptions{DynamicShapes: `{"input_ids": {"0": {"min": 3, "max": 2}}}`})
	if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "min is 3") {
		t.Errorf("a range without a size: %v", err)
	}
	if err := os.WriteFile(filepath.Join(path, "more"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := VerifyPackage(ctx, path); !errors.Is(err, ErrInvalidModel) || !strings.Contains(err.Error(), "more") {
		t.Errorf("a foreign file: %v", err)
	}
}
