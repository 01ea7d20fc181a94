package optimize

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestApplyWritesWhatTheRecipeSays(t *testing.T) {
	library, original, _ := load(t)
	path := filepath.Join(tempDir(t), "applied.onnx")
	recipe := `[{"operation": "prune", "sparsity": 0.5}]`
	report := must(library.Apply(ctx, original, recipe, path, &ApplyOptions{Threads: 1}))
	if !strings.Contains(string(report.JSON), `"sparsity": 0.5`) {
		t.Errorf("report says %s", report.JSON)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	_, err := library.Apply(ctx, original, `[{"operation": "distill", "data": true}]`, path, nil)
	if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "step 1 (distill)") {
		t.Errorf("no data: %v", err)
	}
}

func TestTableRefusesUnknownRows(t *testing.T) {
	library, original, _ := load(t)
	folder := filepath.Join(tempDir(t), "table")
	table := must(library.Table(ctx, []*Model{original}, folder, &TableOptions{Rows: []string{"static", "tensorrt"}}))
	if !strings.Contains(string(table), "needs a text") {
		t.Errorf("the table says %s", table)
	}
	if _, err := library.Table(ctx, []*Model{original}, folder, &TableOptions{Rows: []string{"x"}}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("an unknown row: %v", err)
	}
}
