// Benchmark compares two models: speed, load time, memory, size, and how close their outputs are. The report is
// JSON.
//
//	benchmark ORIGINAL RESULT
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	optimize "github.com/liboptimize/liboptimize/bindings/go"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: benchmark ORIGINAL RESULT")
	}
	if err := benchmark(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func benchmark(ctx context.Context, first, second string) error {
	library, err := optimize.NewContext(nil)
	if err != nil {
		return err
	}
	defer library.Close()
	original, err := library.Load(ctx, first)
	if err != nil {
		return err
	}
	defer original.Close()
	result, err := library.Load(ctx, second)
	if err != nil {
		return err
	}
	defer result.Close()
	tokenizer, err := original.Tokenizer()
	if errors.Is(err, optimize.ErrNotFound) {
		tokenizer = nil // inputs are generated from the model's signature
	} else if err != nil {
		return err
	}
	report, err := library.Benchmark(ctx, original, result, &optimize.BenchmarkOptions{Tokenizer: tokenizer, Runs: 20})
	if err != nil {
		return err
	}
	fmt.Printf("%.2f times as fast (%s), %.2f times smaller\n",
		report.Benchmark.Speedup.Median, report.Benchmark.Speedup.Verdict, report.Benchmark.SizeRatio)
	return nil
}
