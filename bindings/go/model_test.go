package optimize

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestVersions(t *testing.T) {
	version := regexp.MustCompile(`^\d+\.\d+\.\d+`)
	if v := Version(); !version.MatchString(v) || VersionNumber() == 0 {
		t.Errorf("the library's version is %q", v)
	}
	library, _, _ := load(t)
	if v := must(library.RuntimeVersion()); !version.MatchString(v) {
		t.Errorf("the version of ONNX Runtime is %q", v)
	}
}

func TestInspect(t *testing.T) {
	_, model, _ := load(t)
	found := must(model.Inspect())
	if found.Operators["MatMul"] == 0 || found.Parameters < 1e6 || found.Weights["float32"].Bytes < 1e6 {
		t.Errorf("inspect found %+v", found)
	}
	names := map[string]bool{}
	for _, input := range must(model.Inputs()) {
		names[input.Name] = true
		if input.DType != Int64 || len(input.Dims) != 2 || len(input.DimNames) != 2 || input.Dims[0] != -1 {
			t.Errorf("input %+v", input)
		}
	}
	if !names["input_ids"] || !names["attention_mask"] {
		t.Errorf("inputs are %v", names)
	}
	if outputs := must(model.Outputs()); len(outputs) == 0 || outputs[0].Name == "" {
		t.Errorf("outputs are %+v", outputs)
	}
}

func TestLoadMemory(t *testing.T) {
	library, model, _ := load(t)
	copied := must(library.LoadMemory(ctx, must(os.ReadFile(filepath.Join(minilm(t), "model.onnx")))))
	defer copied.Close()
	if a, b := must(model.Inspect()).Parameters, must(copied.Inspect()).Parameters; a != b {
		t.Errorf("%d parameters from a file, %d from memory", a, b)
	}
}

func TestQuantizeSaveRun(t *testing.T) {
	library, original, tokenizer := load(t)
	var stages []string
	small, report, err := library.Quantize(WithProgress(ctx, func(stage string, done, total uint64) {
		if done > total {
			t.Errorf("%s: %d of %d", stage, done, total)
		}
		stages = append(stages, stage)
	}), original, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if len(stages) == 0 || stages[0] != "quantize" {
		t.Errorf("progress of %v", stages)
	}
	if report.Operation != "quantize" || report.Summary["nodes_quantized"].(float64) == 0 || len(report.Nodes) == 0 {
		t.Errorf("report says %+v", report.Summary)
	}

	path := filepath.Join(tempDir(t), "small.onnx")
	saved := must(small.Save(ctx, path, nil))
	file := must(os.Stat(path))
	if len(saved.Files) != 1 || saved.Files[0].Bytes != uint64(file.Size()) || len(saved.Files[0].SHA256) != 64 {
		t.Errorf("saved %+v", saved)
	}
	if before := must(os.Stat(filepath.Join(minilm(t), "model.onnx"))).Size(); file.Size()*10 > before*3 {
		t.Errorf("%d bytes of %d", file.Size(), before)
	}

	again := must(library.Load(ctx, path))
	defer again.Close()
	a, b := must(library.NewSession(ctx, original, nil)), must(library.NewSession(ctx, again, nil))
	defer a.Close()
	defer b.Close()
	for _, text := range []string{
		"The ferry leaves at noon today.",
		"How many eggs does this recipe need?",
		"Grüße aus München, das Wetter ist schön.",
	} {
		before, after := must(embed(ctx, a, tokenizer, text)), must(embed(ctx, b, tokenizer, text))
		if c := cosine(before, after); !(c > 0.99) {
			t.Errorf("cosine %.5f for %q", c, text)
		}
	}
}

func TestQuantizeOptions(t *testing.T) {
	library, original, _ := load(t)
	small, report, err := library.Quantize(ctx, original, &QuantizeOptions{
		ReduceRange: ReduceRangeOn, PerTensor: true, ScratchFolder: tempDir(t),
		Exclude: []string{"*attention*", "*embedding*"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	left := 0
	for _, node := range report.Nodes {
		if node.Action == "left" {
			left++
		}
	}
	if left == 0 || left == len(report.Nodes) {
		t.Errorf("%d of %d nodes left", left, len(report.Nodes))
	}
	if _, _, err := library.Quantize(ctx, original, &QuantizeOptions{Bits: 5}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("5 bits: %v", err)
	}
}

func TestPlanEstimatesTheSize(t *testing.T) {
	library, model, _ := load(t)
	options := &QuantizeOptions{Type: QuantizeWeightOnly, Bits: 4}
	plan := must(library.Plan(model, options))
	small, report, err := library.Quantize(ctx, model, options)
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	planned, made := plan.Summary["bytes_after"].(float64), report.Summary["bytes_after"].(float64)
	if plan.Operation != "plan" || math.Abs(planned/made-1) > 0.01 {
		t.Errorf("%s: %v bytes planned, %v made", plan.Operation, planned, made)
	}
	if _, err := library.Plan(model, &QuantizeOptions{Include: []string{"no such node"}}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a plan for no node: %v", err)
	}
}

func TestQuantizeWeightOnly(t *testing.T) {
	library, original, _ := load(t)
	small, report, err := library.Quantize(ctx, original, &QuantizeOptions{
		Type: QuantizeWeightOnly, BlockSize: 64, Symmetric: true, ScaleType: ScaleFloat16, AccuracyLevel: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	for _, part := range []string{
		"4 bits in blocks of 64, symmetric, 4.25 bits per weight", `"scale_type": "float16"`, `"accuracy_level": 1`,
	} {
		if !strings.Contains(string(report.JSON), part) {
			t.Errorf("the report has no %s", part)
		}
	}
	if after, before := report.Summary["bytes_after"].(float64), report.Summary["bytes_before"].(float64); after > 0.15*before {
		t.Errorf("%v of %v bytes", after, before)
	}
	for name, options := range map[string]*QuantizeOptions{
		"block_size is 48":    {Type: QuantizeWeightOnly, BlockSize: 48},
		"scale_type is 3":     {Type: QuantizeWeightOnly, ScaleType: 3},
		"accuracy_level is 5": {Type: QuantizeWeightOnly, AccuracyLevel: 5},
	} {
		_, _, err := library.Quantize(ctx, original, options)
		if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestQuantizeStatic(t *testing.T) {
	library, original, _ := load(t)
	values := map[string]*Tensor{}
	for name, row := range map[string][]int64{
		"input_ids":      {101, 2003, 2158, 5983, 2833, 102},
		"attention_mask": {1, 1, 1, 1, 1, 1},
	} {
		values[name] = must(NewTensor(row, 1, int64(len(row))))
		defer values[name].Close()
	}
	small, report, err := library.Quantize(ctx, original, &QuantizeOptions{Type: QuantizeStatic, CalibrationTensors: values})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if !strings.Contains(string(report.JSON), "MatMulIntegerToFloat") {
		t.Error("nothing is static")
	}
	values["nothing"] = values["input_ids"]
	if _, _, err = library.Quantize(ctx, original, &QuantizeOptions{Type: QuantizeStatic, CalibrationTensors: values}); !errors.Is(err, ErrNotFound) {
		t.Errorf("an input that is none: %v", err)
	}
}

func TestExternalData(t *testing.T) {
	library, original, _ := load(t)
	path := filepath.Join(tempDir(t), "outside.onnx")
	saved := must(original.Save(ctx, path, &SaveOptions{ExternalData: ExternalDataAlways}))
	if len(saved.Files) < 2 {
		t.Fatalf("saved %+v", saved)
	}
	again := must(library.Load(ctx, path))
	defer again.Close()
	if a, b := must(original.Inspect()).Parameters, must(again.Inspect()).Parameters; a != b {
		t.Errorf("%d parameters before, %d after", a, b)
	}
}

func TestBenchmark(t *testing.T) {
	library, original, tokenizer := load(t)
	small, _, err := library.Quantize(ctx, original, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	report, err := library.Benchmark(ctx, original, small, &BenchmarkOptions{
		Tokenizer: tokenizer, Runs: 10, Warmup: 1, SequenceLength: 32,
		Texts: []string{"One text to compare on.", "And another."},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(report.JSON) {
		t.Errorf("no JSON: %s", report.JSON)
	}
	b, q := report.Benchmark, report.Quality
	if b == nil || b.Runs < 5 || b.Speedup.Median <= 0 || b.LatencyMS.Original["median"] <= 0 || b.SizeRatio < 3 {
		t.Errorf("benchmark says %+v", b)
	}
	if q == nil || q.Cosine == nil || *q.Cosine < 0.99 || q.Samples != 2 {
		t.Errorf("quality says %+v", q)
	}
	if _, err := library.Benchmark(ctx, original, small, &BenchmarkOptions{Texts: []string{"x"}}); err == nil {
		t.Error("texts without a tokenizer were accepted")
	}
}
