// Tensorrt builds a TensorRT engine of a model in fp16, for batches of one row of 128 tokens. Without TensorRT or
// a GPU, it prints the reason.
//
//	tensorrt MODEL OUTPUT.engine
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
		log.Fatal("usage: tensorrt MODEL OUTPUT.engine")
	}
	if err := tensorrt(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func tensorrt(ctx context.Context, input, path string) error {
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
	report, err := library.BuildTensorRT(ctx, model, path, &optimize.TensorRTOptions{
		Precision: optimize.FP16, BatchSize: 1, SequenceLength: 128,
	})
	for _, missing := range []error{optimize.ErrBackendMissing, optimize.ErrDeviceMissing, optimize.ErrUnsupported} {
		if errors.Is(err, missing) {
			fmt.Println(err) // not a failure: TensorRT or a GPU is missing or not supported here
			return nil
		}
	}
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", report)
	return nil
}
