package optimize

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestTagger(t *testing.T) {
	library, _, _ := load(t)
	model := must(library.Load(ctx, filepath.Join(filepath.Dir(minilm(t)), "rampart")))
	defer model.Close()
	tagger := must(library.NewTagger(ctx, model, &TaggerOptions{Aggregation: AggregationAverage}))
	defer tagger.Close()
	text := "I am Maria Fernández from Springfield."
	spans := must(tagger.Tag(ctx, []string{"Nothing to see here.", text}))
	if len(spans) != 2 || len(spans[0]) != 0 {
		t.Fatalf("spans are %v", spans)
	}
	found := ""
	for _, span := range spans[1] {
		found += span.Label + "=" + text[span.Start:span.End] + ";"
		if !(span.Score > 0.8 && span.Score <= 1) {
			t.Errorf("the score is %v", span.Score)
		}
	}
	if found != "GIVEN_NAME=Maria;SURNAME=Fernández;CITY=Springfield;" {
		t.Errorf("spans are %v", found)
	}
	if _, err := tagger.Tag(ctx, nil); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("no texts: %v", err)
	}
}

func TestTaggerOptions(t *testing.T) {
	library, _, _ := load(t)
	model := must(library.Load(ctx, "../../tests/fixtures/encoders/bert-tags"))
	defer model.Close()
	tokenizer := must(LoadTokenizer("../../tests/fixtures/encoders/bert-tags/tokenizer.json"))
	defer tokenizer.Close()
	options := &TaggerOptions{Tokenizer: tokenizer, KeepOutside: true, Aggregation: AggregationNone}
	tagger := must(library.NewTagger(ctx, model, options))
	defer tagger.Close()
	if spans := must(tagger.Tag(ctx, []string{"hello world"})); len(spans[0]) != 3 || spans[0][0].Label != "B-LOC" {
		t.Errorf("spans are %v", spans)
	}
	options.Stride = 20
	if _, err := library.NewTagger(ctx, model, options); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("stride: %v", err)
	}
}
