// Ensemble generates one text with several models: at each token, their probabilities are averaged. The models
// must generate text, and have the same vocabulary.
//
//	ensemble PROMPT MODEL MODEL ...
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
	if len(os.Args) < 4 {
		log.Fatal("usage: ensemble PROMPT MODEL MODEL ...")
	}
	if err := ensemble(context.Background(), os.Args[1], os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}

func ensemble(ctx context.Context, prompt string, paths []string) error {
	library, err := optimize.NewContext(nil)
	if err != nil {
		return err
	}
	defer library.Close()
	var models []*optimize.Model
	for _, path := range paths {
		model, err := library.Load(ctx, path)
		if err != nil {
			return err
		}
		defer model.Close()
		models = append(models, model)
	}
	members, err := optimize.NewEnsemble(models, &optimize.EnsembleOptions{Method: optimize.EnsembleMean})
	if err != nil {
		return err
	}
	defer members.Close()
	generator, err := library.NewEnsembleGenerator(ctx, members, nil)
	if err != nil {
		return err
	}
	defer generator.Close()
	for token, err := range generator.GenerateSeq(ctx, []string{prompt}, &optimize.GenerateOptions{MaxNewTokens: 24}) {
		if err != nil {
			return err
		}
		fmt.Print(token.Text)
	}
	fmt.Println()
	return nil
}
