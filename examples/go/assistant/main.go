// Assistant answers a question from lines of text.
//
//	assistant EMBEDDER RERANKER TAGGER DECODER QUESTION [LINE ...]
//
// The three lines nearest to the question are found by their vectors, and the reranker chooses one of them; "-" instead
// of a reranker chooses the nearest. The entities of the line are printed, and the decoder answers the question with
// the line. Without LINE, lines are read from standard input. No file is written, and no JSON is parsed.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sort"

	optimize "github.com/liboptimize/liboptimize/bindings/go"
)

const mostFound = 3

func main() {
	log.SetFlags(0)
	if len(os.Args) < 6 {
		fmt.Fprintln(os.Stderr, "usage: assistant EMBEDDER RERANKER TAGGER DECODER QUESTION [LINE ...]")
		os.Exit(2)
	}
	lines, err := os.Args[6:], error(nil)
	if len(lines) == 0 {
		lines, err = readLines()
	}
	if err == nil {
		err = run(context.Background(), os.Args[1:5], os.Args[5], lines)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// readLines returns the lines of the standard input that are not empty.
func readLines() (lines []string, err error) {
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		if line := input.Text(); line != "" {
			lines = append(lines, line)
		}
	}
	return lines, input.Err()
}

func run(ctx context.Context, paths []string, question string, lines []string) error {
	if len(lines) == 0 {
		return errors.New("there are no lines")
	}
	library, err := optimize.NewContext(nil)
	if err != nil {
		return err
	}
	defer library.Close()
	nearest, err := find(ctx, library, paths[0], question, lines)
	if err != nil {
		return err
	}
	line := nearest[0]
	if paths[1] != "-" {
		if line, err = rerank(ctx, library, paths[1], question, nearest); err != nil {
			return err
		}
	}
	fmt.Println(line)
	if err := tag(ctx, library, paths[2], line); err != nil {
		return err
	}
	text, err := answer(ctx, library, paths[3], question, line)
	if err == nil {
		fmt.Println(text)
	}
	return err
}

// find returns the mostFound lines whose vectors are nearest to that of the question, the nearest first.
func find(ctx context.Context, library *optimize.Context, path, question string, lines []string) ([]string, error) {
	model, err := library.Load(ctx, path)
	if err != nil {
		return nil, err
	}
	defer model.Close()
	// Dot products of normalized vectors are cosines.
	embedder, err := library.NewEmbedder(ctx, model, &optimize.EmbedderOptions{Normalize: true})
	if err != nil {
		return nil, err
	}
	defer embedder.Close()
	vectors, err := embedder.Embed(ctx, append([]string{question}, lines...))
	if err != nil {
		return nil, err
	}
	defer vectors.Close()
	values, err := optimize.View[float32](vectors)
	if err != nil {
		return nil, err
	}
	width := len(values) / (len(lines) + 1)
	similarities, order := make([]float32, len(lines)), make([]int, len(lines))
	for line := range lines {
		order[line] = line
		for i, value := range values[(line+1)*width : (line+2)*width] {
			similarities[line] += values[i] * value
		}
	}
	sort.SliceStable(order, func(a, b int) bool { return similarities[order[a]] > similarities[order[b]] })
	var nearest []string
	for _, line := range order[:min(mostFound, len(order))] {
		nearest = append(nearest, lines[line])
	}
	return nearest, nil
}

// rerank returns the line to which a reranker gives the highest score.
func rerank(ctx context.Context, library *optimize.Context, path, question string, lines []string) (string, error) {
	model, err := library.Load(ctx, path)
	if err != nil {
		return "", err
	}
	defer model.Close()
	classifier, err := library.NewClassifier(ctx, model, nil)
	if err != nil {
		return "", err
	}
	defer classifier.Close()
	questions := make([]string, len(lines))
	for i := range questions {
		questions[i] = question
	}
	scores, err := classifier.ClassifyPairs(ctx, questions, lines)
	if err != nil {
		return "", err
	}
	defer scores.Close()
	values, err := optimize.View[float32](scores)
	if err != nil {
		return "", err
	}
	best, classes := 0, len(values)/len(lines)
	for i := range lines {
		if values[i*classes] > values[best*classes] {
			best = i
		}
	}
	return lines[best], nil
}

// tag prints the entities of a text.
func tag(ctx context.Context, library *optimize.Context, path, text string) error {
	model, err := library.Load(ctx, path)
	if err != nil {
		return err
	}
	defer model.Close()
	tagger, err := library.NewTagger(ctx, model, &optimize.TaggerOptions{Aggregation: optimize.AggregationAverage})
	if err != nil {
		return err
	}
	defer tagger.Close()
	spans, err := tagger.Tag(ctx, []string{text})
	if err != nil {
		return err
	}
	for _, span := range spans[0] {
		fmt.Printf("  %s: %s\n", span.Label, text[span.Start:span.End])
	}
	return nil
}

type object = map[string]any

var tools = []object{{"type": "function", "function": object{
	"name": "search", "description": "Finds lines.",
	"parameters": object{"type": "object", "properties": object{"words": object{"type": "string"}}},
}}}

// answer returns the text that the decoder generates: an answer to the question, or a call of the tool "search".
func answer(ctx context.Context, library *optimize.Context, path, question, line string) (string, error) {
	model, err := library.Load(ctx, path)
	if err != nil {
		return "", err
	}
	defer model.Close()
	messages := []optimize.Message{{Role: "user", Content: line + " " + question}}
	chat := &optimize.ChatOptions{Tools: tools, Thinking: optimize.ThinkingOff}
	prompt, err := model.ApplyChatTemplate(messages, chat)
	if err != nil {
		return "", err
	}
	generator, err := library.NewGenerator(ctx, model, nil)
	if err != nil {
		return "", err
	}
	defer generator.Close()
	options := &optimize.GenerateOptions{MaxNewTokens: 40, Rendered: true}
	generations, err := generator.Generate(ctx, []string{prompt}, options)
	if err != nil {
		return "", err
	}
	return generations[0].Text, nil
}
