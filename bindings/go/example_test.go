package optimize_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	optimize "github.com/liboptimize/liboptimize/bindings/go"
)

// Models that the examples load: an encoder and a decoder. In a program, these are paths like "model.onnx".
var encoder, decoder = models()

func models() (encoder, decoder string) {
	deps := os.Getenv("OPTIMIZE_TEST_DEPS")
	if deps == "" {
		deps = "../../target/deps"
	}
	encoder = filepath.Join(deps, "models", "paraphrase-MiniLM-L3-v2")
	if files, _ := filepath.Glob(filepath.Join(deps, "models", "smollm2", "*.gguf")); len(files) > 0 {
		decoder = files[0]
	}
	return encoder, decoder
}

// TestMain skips the examples if there are no models, because an example cannot skip itself.
func TestMain(m *testing.M) {
	if _, err := os.Stat(filepath.Join(encoder, "model.onnx")); err != nil || decoder == "" {
		fmt.Println("skipped: the examples (no models, run make deps)")
		flag.Set("test.skip", "^Example")
	}
	os.Exit(m.Run())
}

// This example loads a model, quantizes it to int8 and saves the result.
func Example() {
	ctx := context.Background()
	library, err := optimize.NewContext(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer library.Close()
	model, err := library.Load(ctx, encoder)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	small, report, err := library.Quantize(ctx, model, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer small.Close()
	folder, err := os.MkdirTemp("", "optimize")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	saved, err := small.Save(ctx, filepath.Join(folder, "small.onnx"), nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Summary["nodes_quantized"], "nodes quantized")
	fmt.Printf("%.1f times smaller\n", float64(report.Input.Bytes)/float64(saved.Files[0].Bytes))
	// Output:
	// 20 nodes quantized
	// 3.9 times smaller
}

// This example estimates the size of a model after quantizing, without quantizing it.
func ExampleContext_Plan() {
	library, err := optimize.NewContext(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer library.Close()
	model, err := library.Load(context.Background(), encoder)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	for _, bits := range []uint32{8, 4} {
		plan, err := library.Plan(model, &optimize.QuantizeOptions{Type: optimize.QuantizeWeightOnly, Bits: bits})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d bits: %.0f MB\n", bits, plan.Summary["bytes_after"].(float64)/1e6)
	}
	// Output:
	// 8 bits: 18 MB
	// 4 bits: 10 MB
}

// This example computes vectors of texts, and reads them without a copy.
func ExampleView() {
	ctx := context.Background()
	library, err := optimize.NewContext(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer library.Close()
	model, err := library.Load(ctx, encoder)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	embedder, err := library.NewEmbedder(ctx, model, &optimize.EmbedderOptions{Normalize: true})
	if err != nil {
		log.Fatal(err)
	}
	defer embedder.Close()
	vectors, err := embedder.Embed(ctx, []string{"A man is eating.", "A man eats food.", "The sky is blue."})
	if err != nil {
		log.Fatal(err)
	}
	defer vectors.Close() // the view is valid until then
	elements, err := optimize.View[float32](vectors)
	if err != nil {
		log.Fatal(err)
	}
	width := int(vectors.Dims()[1])
	similarity := func(a, b int) (dot float32) {
		for i := range width {
			dot += elements[a*width+i] * elements[b*width+i]
		}
		return dot
	}
	fmt.Println(similarity(0, 1) > 0.7, similarity(0, 2) < 0.3)
	// Output: true true
}

// This example prints the tokens of an answer as they are generated.
func ExampleGenerator_GenerateSeq() {
	ctx := context.Background()
	library, err := optimize.NewContext(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer library.Close()
	model, err := library.Load(ctx, decoder)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	generator, err := library.NewGenerator(ctx, model, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer generator.Close()
	prompt, err := model.RenderChat([]optimize.Message{{Role: "user", Content: "What is the capital of France?"}})
	if err != nil {
		log.Fatal(err)
	}
	options := &optimize.GenerateOptions{Rendered: true, MaxNewTokens: 50}
	for token, err := range generator.GenerateSeq(ctx, []string{prompt}, options) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(token.Text)
	}
	// Output: The capital of France is Paris.
}

// This example ends a training with an error of the training callback.
func ExampleContext_Distill() {
	ctx := context.Background()
	library, err := optimize.NewContext(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer library.Close()
	teacher, err := library.Load(ctx, encoder)
	if err != nil {
		log.Fatal(err)
	}
	defer teacher.Close()
	enough := errors.New("three steps are enough")
	_, _, err = library.Distill(ctx, teacher, nil, &optimize.DistillOptions{
		Text:           strings.Repeat("A smaller model answers sooner.\n", 50),
		StudentLayers:  "layers:1",
		SequenceLength: 16,
		Training: func(step optimize.TrainingStep) error {
			if step.Step == 3 {
				return enough
			}
			return nil
		},
	})
	fmt.Println(err)
	// Output: three steps are enough
}

// This example ends a call with the deadline of a context.
func ExampleStatus() {
	library, err := optimize.NewContext(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer library.Close()
	ctx, stop := context.WithTimeout(context.Background(), time.Nanosecond)
	defer stop()
	_, err = library.Load(ctx, encoder)
	fmt.Println(errors.Is(err, optimize.ErrTimeout), errors.Is(err, context.DeadlineExceeded))
	_, err = library.Load(context.Background(), "no such model.onnx")
	fmt.Println(errors.Is(err, optimize.ErrNotFound), errors.Is(err, os.ErrNotExist))
	// Output:
	// true true
	// true true
}
