package optimize

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPackageKeepsItsShapes(t *testing.T) {
	library, original, _ := load(t)
	path := filepath.Join(tempDir(t), "package")
	ranges := []Dimension{{"input_ids", 0, "rows", 1, 3}, {"attention_mask", 0, "rows", 1, 3},
		{"input_ids", 1, "length", 2, 0}, {"attention_mask", 1, "length", 2, 0}}
	options := &PackageOptions{Dimensions: ranges, SingleFile: true, SignKey: strings.Repeat("01", 32)}
	report := must(library.Compile(ctx, original, path, options))
	if !bytes.Contains(report, []byte("sha256")) {
		t.Errorf("report says %s", report)
	}
	p := must(OpenPackage(path, nil))
	defer p.Close()
	if err := p.Verify(ctx, ""); err != nil {
		t.Error(err)
	}
	if err := p.Verify(ctx, strings.Repeat("02", 32)); !errors.Is(err, ErrInvalidModel) {
		t.Errorf("another key: %v", err)
	}
	if text := string(must(p.Inspect(library))); !strings.Contains(text, "rows") {
		t.Error(text)
	}
	session := must(library.NewPackageSession(ctx, p, nil))
	defer session.Close()
	tokenizer := must(p.Tokenizer())
	defer tokenizer.Close()
	model := must(p.Model())
	defer model.Close()
	if info := must(model.Inspect()); info.Parameters == 0 {
		t.Errorf("the model is %+v", info)
	}
	_, err := library.Compile(ctx, original, path+"2", &PackageOptions{DynamicShapes: `{"input_ids": {"0": {"name": "batch", "min": 3, "max": 2}}}`})
	if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "3") {
		t.Errorf("a range without a size: %v", err)
	}
	content := must(os.ReadFile(path))
	content[1<<20] ^= 1
	if err := os.WriteFile(path+"3", content, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := must(OpenPackage(path+"3", nil))
	defer damaged.Close()
	if err := damaged.Verify(ctx, ""); !errors.Is(err, ErrInvalidModel) || !strings.Contains(err.Error(), "weights") {
		t.Errorf("a flipped bit: %v", err)
	}
}
