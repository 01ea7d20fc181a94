// Chat is a conversation with a model.
//
//	chat MODEL [QUESTION ...]
//
// MODEL is a .gguf file, a checkpoint folder or an exported folder. Without QUESTION, questions are read from the
// terminal, one per line. The generator keeps its KV cache, so that each turn computes only its own tokens.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"

	optimize "github.com/liboptimize/liboptimize/bindings/go"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: chat MODEL [QUESTION ...]")
		os.Exit(2)
	}
	if err := chat(context.Background(), os.Args[1], questions(os.Args[2:])); err != nil {
		log.Fatal(err)
	}
}

// questions returns a function that returns the next question, an argument, or a line of the terminal if there are no
// arguments; and false if there is no further question.
func questions(arguments []string) func() (string, bool) {
	if len(arguments) == 0 {
		lines := bufio.NewScanner(os.Stdin)
		return func() (string, bool) {
			fmt.Fprint(os.Stderr, "> ")
			more := lines.Scan()
			return lines.Text(), more
		}
	}
	return func() (question string, more bool) {
		if len(arguments) == 0 {
			return "", false
		}
		question, arguments = arguments[0], arguments[1:]
		return question, true
	}
}

func chat(ctx context.Context, path string, next func() (string, bool)) error {
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

	options := &optimize.GenerateOptions{MaxNewTokens: 200, Rendered: true, OnToken: show}
	for question, more := next(); more; question, more = next() {
		prompt, err := model.RenderChat([]optimize.Message{{Role: "user", Content: question}})
		if err != nil {
			return err
		}
		if err := generator.Append(0, prompt, options); err != nil {
			return err
		}
		if _, err := generator.Run(ctx, options); err != nil {
			return err
		}
		fmt.Println()
	}
	return nil
}

// show prints a token of the answer. If standard output is closed, it returns false, which ends the answer.
func show(token optimize.Written) bool {
	_, err := os.Stdout.WriteString(token.Text)
	return err == nil
}
