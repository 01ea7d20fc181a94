package optimize

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
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

func TestDefaultPrompt(t *testing.T) {
	library, _, tokenizer := load(t)
	folder := t.TempDir()
	for name, content := range map[string]string{
		"config_sentence_transformers.json": `{"prompts": {"query": "query: "}, "default_prompt_name": "query"}`,
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	from := filepath.Join(os.Getenv("OPTIMIZE_TEST_DEPS"), "models/paraphrase-MiniLM-L3-v2")
	for _, name := range []string{"model.onnx", "tokenizer.json"} {
		if err := os.WriteFile(filepath.Join(folder, name), must(os.ReadFile(filepath.Join(from, name))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	model := must(library.Load(ctx, folder))
	defer model.Close()
	vector := func(o *EmbedderOptions, text string) []float32 {
		embedder := must(library.NewEmbedder(ctx, model, o))
		defer embedder.Close()
		tensor := must(embedder.Embed(ctx, []string{text}))
		defer tensor.Close()
		return must(Elements[float32](tensor))
	}
	none := ""
	usual, without := vector(nil, "food"), vector(&EmbedderOptions{Prompt: &none}, "food")
	if !reflect.DeepEqual(usual, vector(&EmbedderOptions{Prompt: &none}, "query: food")) {
		t.Error("the default prompt does not precede the text")
	}
	plain := must(library.NewEmbedder(ctx, model, &EmbedderOptions{Tokenizer: tokenizer, Prompt: &none}))
	defer plain.Close()
	if reflect.DeepEqual(usual, without) {
		t.Error("an empty prompt does not replace the default one")
	}
	if _, err := plain.Embed(ctx, []string{"a\x00b"}); !errors.Is(err, ErrInvalidArgument) ||
		!strings.Contains(err.Error(), "NUL") {
		t.Errorf("a text with NUL: %v", err)
	}
}

func TestNil(t *testing.T) {
	library, _, _ := load(t)
	if _, err := library.NewEmbedder(ctx, nil, nil); err != ErrClosed {
		t.Errorf("no model: %v", err)
	}
	if _, err := (*Embedder)(nil).Embed(ctx, []string{"x"}); err != ErrClosed {
		t.Errorf("no embedder: %v", err)
	}
	if _, err := library.NewSession(ctx, nil, nil); err != ErrClosed {
		t.Errorf("no model for a session: %v", err)
	}
	if err := (*Tagger)(nil).Close(); err != nil {
		t.Errorf("no tagger: %v", err)
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
