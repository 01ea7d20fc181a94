package optimize

import (
	"context"
	"iter"
)

// GenerateSeq returns a sequence of the tokens of all rows, as [Generator.Generate] generates them. The generation runs
// while the program loops over the sequence, and ends if the program leaves the loop. An error of Generate is the last
// element, with a zero Written. OnToken of the options is not called, and progress is reported on another goroutine.
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

// RunSeq returns a sequence of the tokens of all rows, as [Generator.Run] generates them. The sequence works like that
// of [Generator.GenerateSeq].
func (g *Generator) RunSeq(ctx context.Context, o *GenerateOptions) iter.Seq2[Written, error] {
	return stream(o, func(o *GenerateOptions) error {
		_, err := g.Run(ctx, o)
		return err
	})
}

// stream returns a sequence of the tokens that generate passes to OnToken. generate runs on a separate goroutine: if
// the loop of the program ran inside the callback from C, iter.Pull could not be used with the sequence. After each
// token, generate waits until the loop has processed the token.
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
		defer func() { // ends generate, also if the loop panics
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
