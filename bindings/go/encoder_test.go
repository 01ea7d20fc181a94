package optimize

import (
	"errors"
	"reflect"
	"testing"
)

func TestEmbedder(t *testing.T) {
	library, model, tokenizer := load(t)
	embedder := must(library.NewEmbedder(ctx, model, &EmbedderOptions{Tokenizer: tokenizer, Dimensions: 64, Normalize: true}))
	defer embedder.Close()
	vectors := must(embedder.Embed(ctx, []string{"A man is eating food.", "A man eats."}))
	defer vectors.Close()
	if dims := vectors.Dims(); !reflect.DeepEqual(dims, []int64{2, 64}) {
		t.Errorf("dims are %v", dims)
	}
	if _, err := embedder.Embed(ctx, nil); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("no texts: %v", err)
	}
	if _, err := library.NewEmbedder(ctx, model, &EmbedderOptions{PromptName: "query"}); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such prompt: %v", err)
	}
	if _, err := library.NewClassifier(ctx, model, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("no classifier: %v", err)
	}
}

func TestClassifier(t *testing.T) {
	library, _, _ := load(t)
	model := must(library.Load(ctx, "../../tests/fixtures/encoders/bert-classify"))
	defer model.Close()
	tokenizer := must(LoadTokenizer("../../tests/fixtures/sentences/model/tokenizer.json"))
	defer tokenizer.Close()
	classifier := must(library.NewClassifier(ctx, model, &ClassifierOptions{Tokenizer: tokenizer}))
	defer classifier.Close()
	if labels := must(classifier.Labels()); !reflect.DeepEqual(labels, []string{"LABEL_0", "LABEL_1", "LABEL_2"}) {
		t.Errorf("labels are %v", labels)
	}
	alone := must(classifier.Classify(ctx, []string{"hello", "world"}))
	defer alone.Close()
	pairs := must(classifier.ClassifyPairs(ctx, []string{"hello"}, []string{"world ab"}))
	defer pairs.Close()
	if !reflect.DeepEqual(alone.Dims(), []int64{2, 3}) || !reflect.DeepEqual(pairs.Dims(), []int64{1, 3}) {
		t.Errorf("dims are %v and %v", alone.Dims(), pairs.Dims())
	}
	if _, err := classifier.ClassifyPairs(ctx, []string{"hello"}, nil); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("half of a pair: %v", err)
	}
}
