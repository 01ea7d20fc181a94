// Generate continues a text, and prints it while it is generated.
//
//	generate MODEL PROMPT
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
		log.Fatal("usage: generate MODEL PROMPT")
	}
	if err := generate(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func generate(ctx context.Context, path, prompt string) error {
	library, err := optimize.NewContext(nil)
	if err != nil {
		return err
	}
	defer library.Close()
	model, err := library.Load(ctx, path)
	if err != nil {
		return err
	}
	defer model.Close()
	generator, err := library.NewGenerator(ctx, model, nil)
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
