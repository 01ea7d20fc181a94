package optimize

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestEnsembleWritesOneText(t *testing.T) {
	model, alone := smollm2(t)
	plain := write(alone, count, &GenerateOptions{MaxNewTokens: 8})
	pair := must(NewEnsemble([]*Model{model, model}, &EnsembleOptions{Temperatures: []float64{1, 1.5}}))
	defer pair.Close()
	g := must(loaded.library.NewEnsembleGenerator(ctx, pair, nil))
	defer g.Close()
	var heard []Written
	together := write(g, count, &GenerateOptions{MaxNewTokens: 8, OnToken: func(w Written) bool {
		heard = append(heard, w)
		return true
	}})
	if !reflect.DeepEqual(together.Tokens, plain.Tokens) || len(together.Uncertainty) != 8 || len(heard) != 8 {
		t.Errorf("together %+v, alone %+v", together, plain)
	}
	if heard[0].Agreement != 1 || heard[0].Entropy != together.Uncertainty[0].Entropy || heard[0].Entropy <= 0 {
		t.Errorf("heard %+v", heard[0])
	}
	folder := filepath.Join(tempDir(t), "pair")
	if err := pair.Save(folder); err != nil {
		t.Fatal(err)
	}
	again := must(LoadEnsemble(folder))
	defer again.Close()
	if a, b := must(pair.Inspect()), must(again.Inspect()); !reflect.DeepEqual(a.Temperatures, b.Temperatures) {
		t.Errorf("saved %+v, loaded %+v", a, b)
	}
	fitted, fit, err := loaded.library.Fit(ctx, again, strings.Repeat("One, two, three. A man walks home. ", 8),
		&FitOptions{ContextLength: 32})
	if err != nil {
		t.Fatal(err)
	}
	defer fitted.Close()
	if fit.Tokens < 20 || fit.FittedNLL > fit.EqualNLL || !reflect.DeepEqual(must(fitted.Inspect()).Weights, fit.Weights) {
		t.Errorf("fit %+v", fit)
	}
}

func TestEnsembleFuseAndMerge(t *testing.T) {
	library, original, _ := load(t)
	sparse, _, err := library.Prune(ctx, original, &PruneOptions{Sparsity: 0.3})
	if err != nil {
		t.Fatal(err)
	}
	defer sparse.Close()
	both := must(NewEnsemble([]*Model{original, sparse}, &EnsembleOptions{Method: EnsembleConcat, Task: EnsembleEmbed}))
	defer both.Close()
	fused, report, err := both.Fuse(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer fused.Close()
	if report.Operation != "ensemble" || report.Summary["shared_bytes"].(float64) < 40e6 {
		t.Errorf("fused: %+v", report.Summary)
	}
	merged, report, err := Merge(ctx, []*Model{original, sparse}, &MergeOptions{Weights: []float64{3, 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer merged.Close()
	if report.Operation != "merge" || report.Summary["merged_tensors"].(float64) < 18 {
		t.Errorf("merged: %+v", report.Summary)
	}
	_, _, err = Merge(ctx, []*Model{original, sparse}, &MergeOptions{Method: MergeTies})
	if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "base") {
		t.Errorf("ties without a base: %v", err)
	}
	if _, err = NewEnsemble([]*Model{original}, nil); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("one member: %v", err)
	}
	if _, err = NewEnsemble([]*Model{original, nil}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("no member: %v", err)
	}
}
