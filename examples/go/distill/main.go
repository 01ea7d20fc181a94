// Distill trains a student to reproduce the outputs of TEACHER on the file TEXT, and saves it. The student
// is made of every other layer of the teacher.
//
//	distill TEACHER TEXT OUTPUT
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
	if len(os.Args) != 4 {
		log.Fatal("usage: distill TEACHER TEXT OUTPUT")
	}
	if err := distill(context.Background(), os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func distill(ctx context.Context, input, data, output string) error {
	library, err := optimize.NewContext(nil)
	if err != nil {
		return err
	}
	defer library.Close()
	text, err := os.ReadFile(data)
	if err != nil {
		return err
	}
	teacher, err := library.Load(ctx, input)
	if err != nil {
		return err
	}
	defer teacher.Close()
	student, _, err := library.Distill(ctx, teacher, nil, &optimize.DistillOptions{
		Text:          string(text),
		Epochs:        1,
		StudentLayers: "layers:every-other",
		Training: func(step optimize.TrainingStep) error { // an error would end the training
			if !step.IsValidation {
				fmt.Printf("step %d of %d: loss %.4f\n", step.Step, step.TotalSteps, step.Loss)
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	defer student.Close()
	_, err = student.Save(ctx, output, nil)
	return err
}
