// Quantize quantizes a model to int8, saves the result, runs it on a text, and compares it with the original.
//
//	quantize MODEL.onnx OUTPUT.onnx
//
// The text needs a tokenizer.json next to the model; without one, the models are compared on generated inputs.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	optimize "github.com/liboptimize/liboptimize/bindings/go"
)

const text = "A smaller model answers sooner."

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatalf("usage: %s MODEL.onnx OUTPUT.onnx", os.Args[0])
	}
	// Ctrl-C cancels the current call, which leaves no incomplete file.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := quantize(ctx, os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func quantize(ctx context.Context, input, output string) error {
	library, err := optimize.NewContext(nil)
	if err != nil {
		return err
	}
	defer library.Close()
	original, err := library.Load(ctx, input)
	if err != nil {
		return err
	}
	defer original.Close()

	small, report, err := library.Quantize(optimize.WithProgress(ctx, show), original, nil)
	if err != nil {
		return err
	}
	defer small.Close()
	saved, err := small.Save(ctx, output, nil)
	if err != nil {
		return err
	}
	fmt.Printf("%v nodes quantized, %v left, in %.2f s\n",
		report.Summary["nodes_quantized"], report.Summary["nodes_left"], report.Seconds)
	for _, file := range saved.Files {
		fmt.Printf("wrote %s, %d bytes, sha256 %s\n", file.Path, file.Bytes, file.SHA256)
	}

	tokenizer, err := original.Tokenizer()
	switch {
	case errors.Is(err, optimize.ErrNotFound):
		tokenizer = nil
	case err != nil:
		return err
	default:
		defer tokenizer.Close()
		if err := run(ctx, library, small, tokenizer); err != nil {
			return err
		}
	}
	return compare(ctx, library, original, small, tokenizer)
}

func run(ctx context.Context, library *optimize.Context, model *optimize.Model, tokenizer *optimize.Tokenizer) error {
	session, err := library.NewSession(ctx, model, nil)
	if err != nil {
		return err
	}
	defer session.Close()
	encoding, err := tokenizer.Encode([]string{text}, nil)
	if err != nil {
		return err
	}
	defer encoding.Close()
	wanted, err := session.Inputs()
	if err != nil {
		return err
	}
	outputs, err := session.Run(ctx, encoding.Inputs(wanted))
	if err != nil {
		return err
	}
	for name, output := range outputs {
		fmt.Printf("ran on %q: %s has shape %v\n", text, name, output.Dims())
		output.Close()
	}
	return nil
}

func compare(
	ctx context.Context, library *optimize.Context, original, small *optimize.Model, tokenizer *optimize.Tokenizer,
) error {
	ctx, stop := context.WithTimeout(ctx, 5*time.Minute)
	defer stop()
	report, err := library.Benchmark(ctx, original, small, &optimize.BenchmarkOptions{Tokenizer: tokenizer})
	if err != nil {
		return err
	}
	b, q := report.Benchmark, report.Quality
	fmt.Printf("%-10s %10s %10s\n", "", "original", "result")
	fmt.Printf("%-10s %7.1f MB %7.1f MB  %.2f times smaller\n", "size",
		float64(b.Bytes.Original)/1e6, float64(b.Bytes.Result)/1e6, b.SizeRatio)
	fmt.Printf("%-10s %7.2f ms %7.2f ms  %.2f times as fast (%.2f to %.2f): %s\n", "latency",
		b.LatencyMS.Original["median"], b.LatencyMS.Result["median"],
		b.Speedup.Median, b.Speedup.Low, b.Speedup.High, b.Speedup.Verdict)
	if q != nil && q.Cosine != nil {
		fmt.Printf("%-10s %32.4f  over %d samples\n", "cosine", *q.Cosine, q.Samples)
	}
	return nil
}

func show(stage string, done, total uint64) {
	fmt.Fprintf(os.Stderr, "\r%s: %3.0f %%", stage, 100*float64(done)/float64(total))
	if done == total {
		fmt.Fprintln(os.Stderr)
	}
}
