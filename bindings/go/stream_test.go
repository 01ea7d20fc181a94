package optimize

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"testing"
)

func TestSequenceGivesEveryToken(t *testing.T) {
	_, g := smollm2(t)
	options := &GenerateOptions{MaxNewTokens: 8}
	whole := write(g, count, options)
	var tokens []int64
	text := ""
	for token, err := range g.GenerateSeq(ctx, []string{count}, options) {
		if err != nil {
			t.Fatal(err)
		}
		tokens, text = append(tokens, token.Token), text+token.Text
	}
	if !reflect.DeepEqual(tokens, whole.Tokens) || text != whole.Text {
		t.Errorf("%q %v in a sequence, %q %v in one call", text, tokens, whole.Text, whole.Tokens)
	}
}

func TestLeavingTheLoopEndsTheGeneration(t *testing.T) {
	_, g := smollm2(t)
	options := &GenerateOptions{MaxNewTokens: 6}
	whole := write(g, count, options)
	must(g.Generate(ctx, []string{count}, &GenerateOptions{MaxNewTokens: 1}))
	tokens := whole.Tokens[:1:1]
	for token, err := range g.RunSeq(ctx, options) {
		if err != nil {
			t.Fatal(err)
		}
		if tokens = append(tokens, token.Token); len(tokens) == 3 {
			break
		}
	}
	// The generator is free again, and continues where the loop ended.
	rest := must(g.Run(ctx, &GenerateOptions{MaxNewTokens: 3}))[0]
	if tokens = append(tokens, rest.Tokens...); !reflect.DeepEqual(tokens, whole.Tokens) {
		t.Errorf("%v in a loop and a call, %v in one call", tokens, whole.Tokens)
	}
	// The loop over two rows is left at the first token; afterwards, the generator can be used again.
	for range g.GenerateSeq(ctx, []string{count, "Hello"}, options) {
		break
	}
	must(g.Generate(ctx, []string{count}, &GenerateOptions{MaxNewTokens: 1}))
}

func TestSequenceCanBePulled(t *testing.T) {
	_, g := smollm2(t)
	next, stop := iter.Pull2(g.GenerateSeq(ctx, []string{count}, &GenerateOptions{MaxNewTokens: 40}))
	for i := 0; i < 3; i++ {
		if token, err, more := next(); err != nil || !more || token.Row != 0 {
			t.Errorf("token %d: %+v, %v, %v", i, token, err, more)
		}
	}
	stop()
	must(g.Generate(ctx, []string{count}, &GenerateOptions{MaxNewTokens: 1}))
}

func TestSequenceEndsWithItsError(t *testing.T) {
	_, g := smollm2(t)
	stopped, stop := context.WithCancel(ctx)
	defer stop()
	tokens := 0
	var last error
	for _, err := range g.GenerateSeq(stopped, []string{count}, &GenerateOptions{MaxNewTokens: 200, IgnoreEOS: true}) {
		if last = err; err == nil {
			tokens++
			stop()
		}
	}
	if !errors.Is(last, context.Canceled) || tokens == 0 || tokens > 100 {
		t.Errorf("%v after %d tokens", last, tokens)
	}
	for _, err := range new(Generator).RunSeq(ctx, nil) {
		last = err
	}
	if last != ErrClosed {
		t.Errorf("a generator that never was: %v", last)
	}
}

func TestPanicInALoop(t *testing.T) {
	_, g := smollm2(t)
	got := panics(func() {
		for range g.GenerateSeq(ctx, []string{count}, nil) {
			panic("out of the loop")
		}
	})
	if got != "out of the loop" {
		t.Errorf("a panic in the loop came out as %v", got)
	}
	got = panics(func() {
		watched := WithProgress(ctx, func(string, uint64, uint64) { panic("out of progress") })
		for range g.GenerateSeq(watched, []string{count}, nil) {
		}
	})
	if got != "out of progress" {
		t.Errorf("a panic in the progress function came out as %v", got)
	}
	must(g.Generate(ctx, []string{count}, &GenerateOptions{MaxNewTokens: 1}))
}
