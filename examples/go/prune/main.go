// Prune removes 30 % of the neurons, channels and heads of a model, and saves the result.
//
//	prune MODEL OUTPUT
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	optimize "github.com/liboptimize/liboptimize/bindings/go"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: prune MODEL OUTPUT")
	}
	if err := prune(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func prune(ctx context.Context, input, output string) error {
	library, err := optimize.NewContext(nil)
	if err != nil {
		return err
	}
	defer library.Close()
	model, err := library.Load(ctx, input)
	if err != nil {
		return err
	}
	defer model.Close()
	small, report, err := library.Prune(ctx, model, &optimize.PruneOptions{
		Method: optimize.PruneStructured, Sparsity: 0.3,
	})
	if err != nil {
		return err
	}
	defer small.Close()
	if _, err := small.Save(ctx, output, nil); err != nil {
		return err
	}
	fmt.Printf("%.0f parameters, %.0f before\n", report.Summary["parameters_after"], report.Summary["parameters_before"])
	return nil
}
