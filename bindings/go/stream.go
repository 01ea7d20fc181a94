package optimize

import (
	"context"
	"iter"
)

// GenerateSeq generates text like Generate, and returns the tokens of all rows as they are generated. Leaving the
// loop ends the generation. An error is the last element, with an empty token. OnToken of the options is not called.
//
//	for token, err := range generator.GenerateSeq(ctx, []string{prompt}, nil) {
//		if err != nil {
//			return err
//		}
//		fmt.Print(token.Text)
//	}
func (g *Generator) GenerateSeq(ctx context.Context, prompts []string, o *GenerateOptions) iter.Seq2[Written, error] {
	return stream(o, func(o *GenerateOptions) error {
		_, err := g.Generate(ctx, prompts, o)
		return err
	})
}

// RunSeq generates text like Run, and returns the tokens as they are generated: see [Generator.GenerateSeq].
func (g *Generator) RunSeq(ctx context.Context, o *GenerateOptions) iter.Seq2[Written, error] {
	return stream(o, func(o *GenerateOptions) error {
		_, err := g.Run(ctx, o)
		return err
	})
}

// stream makes a sequence of a call that gives tokens to OnToken. The call has a goroutine of its own: if the loop ran
// inside the callback from C, iter.Pull could not be used with the sequence. The call goes on only after the loop has
// processed a token.
func stream(o *GenerateOptions, generate func(*GenerateOptions) error) iter.Seq2[Written, error] {
	return func(yield func(Written, error) bool) {
		var options GenerateOptions
		if o != nil {
			options = *o
		}
		tokens, processed, left := make(chan Written), make(chan struct{}), make(chan struct{})
		options.OnToken = func(token Written) bool {
			select {
			case tokens <- token:
			case <-left:
				return false
			}
			select {
			case <-processed:
				return true
			case <-left:
				return false
			}
		}
		var err error
		var call caught
		go func() {
			defer close(tokens)
			defer func() { call.panicked = recover() }()
			err = generate(&options)
		}()
		defer func() { // also if the loop panics
			close(left)
			for range tokens {
			}
			call.goOn()
		}()
		for token := range tokens {
			if !yield(token, nil) {
				return
			}
			processed <- struct{}{}
		}
		if err != nil {
			yield(Written{}, err)
		}
	}
}
