package optimize

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestEvaluateEmbeddings(t *testing.T) {
	library, original, tokenizer := load(t)
	small, _, err := library.Quantize(ctx, original, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	lines := "A man is eating food.\nGrüße aus München.\n\nNot this one.\n"
	var stages []string
	watched := WithProgress(ctx, func(stage string, done, total uint64) { stages = append(stages, stage) })
	report := must(library.Evaluate(watched, original, lines, &EvaluateOptions{
		Task: EvaluateEmbedding, Against: small, Tokenizer: tokenizer, MaxTexts: 2,
	}))
	if !json.Valid(report.JSON) || report.Output == nil || len(report.Output.SHA256) != 64 {
		t.Errorf("report is %s", report.JSON)
	}
	if q := report.Quality; q.Task != "embedding" || *q.Cosine < 0.99 || *q.CosineMin > *q.Cosine || q.Original != nil {
		t.Errorf("quality is %+v", q)
	}
	if len(stages) == 0 || stages[0] != "evaluate" {
		t.Errorf("progress of %v", stages)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for name, c := range map[string]struct {
		ctx     context.Context
		data    string
		options *EvaluateOptions
		is      Status
		mention string
	}{
		"alone":        {ctx, lines, &EvaluateOptions{Task: EvaluateEmbedding}, ErrInvalidArgument, "against"},
		"other task":   {ctx, lines, &EvaluateOptions{Task: EvaluatePerplexity}, ErrUnsupported, ""},
		"unknown task": {ctx, lines, &EvaluateOptions{Task: 99}, ErrInvalidArgument, "99"},
		"no text":      {ctx, "", &EvaluateOptions{Task: EvaluateEmbedding, Against: small}, ErrInvalidArgument, "no text"},
		"bad row":      {ctx, "a,b\nc", &EvaluateOptions{Task: EvaluateProbe}, ErrInvalidArgument, "line 2"},
		"not UTF-8":    {ctx, "a\x00\xff", &EvaluateOptions{Task: EvaluateProbe}, ErrInvalidArgument, "after 2 bytes"},
		"cancelled":    {cancelled, lines, &EvaluateOptions{Task: EvaluateEmbedding, Against: small}, ErrCancelled, ""},
	} {
		if _, err := library.Evaluate(c.ctx, original, c.data, c.options); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.mention) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEvaluateProbe(t *testing.T) {
	library, model, _ := load(t)
	rows := "label,text\nfood,Eating bread.\nfood,A soup.\nmoney,The stock market fell.\nmoney,Prices rose.\n"
	options := &EvaluateOptions{Task: EvaluateProbe, TestShare: 0.5, Seed: 7}
	alone := must(library.Evaluate(ctx, model, rows, options)).Quality
	if alone.Accuracy == nil || *alone.Samples != 2 || alone.Result != nil {
		t.Errorf("quality is %+v", alone)
	}
	options.Against = model
	both := must(library.Evaluate(ctx, model, rows, options)).Quality
	if both.Accuracy != nil || *both.Result.Accuracy != *alone.Accuracy || *both.AccuracyChange.Value != 0 {
		t.Errorf("quality is %+v", both)
	}
}

func TestEvaluatePerplexity(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(minilm(t)), "smollm2", "*.gguf"))
	if len(files) == 0 {
		t.Skip("no model, run make deps")
	}
	library := must(NewContext(nil))
	defer library.Close()
	model := must(library.Load(ctx, files[0]))
	defer model.Close()
	text := "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is Madrid."
	alone := must(library.Evaluate(ctx, model, text, nil)).Quality
	if alone.Task != "perplexity" || *alone.Perplexity < 1 || *alone.Perplexity > 50 || *alone.Tokens < 15 {
		t.Errorf("quality is %+v", alone)
	}
	both := must(library.Evaluate(ctx, model, text, &EvaluateOptions{Against: model, Bos: BosNever})).Quality
	if *both.Ratio.Value != 1 || both.Ratio.Low != nil || *both.KL.Value != 0 || both.Verdict != "too little text" {
		t.Errorf("quality is %+v", both)
	}
	if _, err := library.Evaluate(ctx, model, text, &EvaluateOptions{Stride: 600}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a stride of 600: %v", err)
	}
}
