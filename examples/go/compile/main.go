// Compile writes a package of a model for batches of 1 to 8 rows, then opens the package like a program that runs the
// model, and prints its inputs.
//
//	compile MODEL PACKAGE
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
		log.Fatal("usage: compile MODEL PACKAGE")
	}
	if err := compile(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func compile(ctx context.Context, input, path string) error {
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
	if _, err := library.Compile(ctx, model, path, &optimize.PackageOptions{Dynamic: true, BatchMax: 8}); err != nil {
		return err
	}

	opened, err := optimize.OpenPackage(path, nil)
	if err != nil {
		return err
	}
	defer opened.Close()
	session, err := library.NewPackageSession(ctx, opened, nil)
	if err != nil {
		return err
	}
	defer session.Close()
	inputs, err := session.Inputs()
	if err != nil {
		return err
	}
	for _, input := range inputs {
		fmt.Printf("input %s of rank %d\n", input.Name, len(input.Dims))
	}
	return nil
}
