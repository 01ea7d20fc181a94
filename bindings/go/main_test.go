package optimize

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"
)

var ctx = context.Background()

func must[T any](value T, err error) T {
	if err != nil {
		panic(err) // package testing prints the error with a stack trace
	}
	return value
}

// minilm returns the folder of the encoder that the tests use, which `make deps` fetches. It skips the test if there is
// no such folder.
func minilm(t *testing.T) string {
	deps := os.Getenv("OPTIMIZE_TEST_DEPS")
	if deps == "" {
		deps = "../../target/deps"
	}
	folder := filepath.Join(deps, "models", "paraphrase-MiniLM-L3-v2")
	if _, err := os.Stat(filepath.Join(folder, "model.onnx")); err != nil {
		t.Skipf("no model, run make deps: %v", err)
	}
	return folder
}

// load returns a context with one thread, the model of minilm and its tokenizer, which are closed when the test ends.
func load(t *testing.T) (*Context, *Model, *Tokenizer) {
	folder := minilm(t)
	library := must(NewContext(&ContextOptions{Threads: 1}))
	t.Cleanup(func() { library.Close() })
	model := must(library.Load(ctx, folder))
	t.Cleanup(func() { model.Close() })
	tokenizer := must(model.Tokenizer())
	t.Cleanup(func() { tokenizer.Close() })
	return library, model, tokenizer
}

// tempDir returns an empty folder, which is removed when the test ends.
func tempDir(t *testing.T) string {
	base := os.Getenv("OPTIMIZE_TEST_TMP")
	if base == "" {
		return t.TempDir()
	}
	folder := must(os.MkdirTemp(base, "go"))
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

// embed runs a session on a text, and returns the sentence embedding: the float32 output with two dimensions.
func embed(ctx context.Context, session *Session, tokenizer *Tokenizer, text string) ([]float32, error) {
	encoding, err := tokenizer.Encode([]string{text}, nil)
	if err != nil {
		return nil, err
	}
	defer encoding.Close()
	outputs, err := session.Run(ctx, encoding.Inputs(must(session.Inputs())))
	if err != nil {
		return nil, err
	}
	var embedding []float32
	for _, output := range outputs {
		if output.DType() == Float32 && len(output.Dims()) == 2 {
			embedding = must(Elements[float32](output))
		}
		output.Close()
	}
	return embedding, nil
}

func cosine(a, b []float32) float64 {
	if len(a) != len(b) || len(a) == 0 {
		return math.NaN()
	}
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}
