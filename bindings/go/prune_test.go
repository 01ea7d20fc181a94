package optimize

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPruneSavePacked(t *testing.T) {
	library, original, _ := load(t)
	sparse, report, err := library.Prune(ctx, original, &PruneOptions{
		Sparsity: 0.3, Embeddings: true, Overrides: []string{"query=0.5"}, ScratchFolder: tempDir(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sparse.Close()
	query := report.Summary["modules"].(map[string]any)["query"].(map[string]any)
	if report.Operation != "prune" || query["sparsity"].(float64) != 0.5 {
		t.Errorf("report says %+v", report.Summary)
	}
	path := filepath.Join(tempDir(t), "model.onnx.packed")
	packed := must(sparse.Save(ctx, path, &SaveOptions{Packed: true}))
	whole := uint64(must(os.Stat(filepath.Join(minilm(t), "model.onnx"))).Size())
	if packed.Files[0].Bytes*10 > whole*7 {
		t.Errorf("%d bytes of %d", packed.Files[0].Bytes, whole)
	}
	again := must(library.Load(ctx, path))
	defer again.Close()
	if a, b := must(sparse.Inspect()).Parameters, must(again.Inspect()).Parameters; a != b {
		t.Errorf("%d parameters, %d from the packed file", a, b)
	}
}

func TestPruneLayers(t *testing.T) {
	library, original, _ := load(t)
	small, report, err := library.Prune(ctx, original, &PruneOptions{Method: PruneStructured, Layers: []uint32{1}})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if report.Summary["layers_after"].(float64) != 2 {
		t.Errorf("layers: %v", report.Summary)
	}
	smaller, report, err := library.Prune(ctx, original, &PruneOptions{Method: PruneStructured, TargetSize: 62e6})
	if err != nil {
		t.Fatal(err)
	}
	defer smaller.Close()
	if report.Summary["bytes_after"].(float64) > 62e6 {
		t.Errorf("bytes: %v", report.Summary)
	}
}

func TestPruneRefuses(t *testing.T) {
	library, original, _ := load(t)
	_, _, err := library.Prune(ctx, original, &PruneOptions{TargetModules: []string{"qery"}})
	if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "query (3)") {
		t.Errorf("no such module: %v", err)
	}
	if _, _, err := library.Prune(ctx, original, &PruneOptions{Method: PruneSparseGPT}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("no calibration text: %v", err)
	}
}
