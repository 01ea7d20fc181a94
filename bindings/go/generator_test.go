package optimize

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

const count = "One, two, three, four," // the model continues: five, six, seven, eight, and nine, ...

// loaded has objects that the tests of this file share, because creating them takes time. They are never closed.
var loaded struct {
	once      sync.Once
	library   *Context
	model     *Model
	generator *Generator
}

// smollm2 returns a decoder and a generator of this decoder, which all tests share. A test discards the rows of the test
// before it, with Generate or Reset.
func smollm2(t *testing.T) (*Model, *Generator) {
	models := filepath.Dir(minilm(t))
	files := must(filepath.Glob(filepath.Join(models, "smollm2", "*.gguf")))
	if len(files) == 0 {
		t.Skip("no SmolLM2, run make deps")
	}
	loaded.once.Do(func() {
		loaded.library = must(NewContext(nil))
		loaded.model = must(loaded.library.Load(ctx, files[0]))
		loaded.generator = must(loaded.library.NewGenerator(ctx, loaded.model, nil))
	})
	return loaded.model, loaded.generator
}

// write returns what g generates after a prompt.
func write(g *Generator, prompt string, o *GenerateOptions) Generation {
	return must(g.Generate(ctx, []string{prompt}, o))[0]
}

func TestChatNamesParisAndStreams(t *testing.T) {
	model, g := smollm2(t)
	prompt := must(model.RenderChat([]Message{{"user", "What is the capital of France?"}}))
	var heard []Written
	answer := write(g, prompt, &GenerateOptions{MaxNewTokens: 24, Rendered: true, OnToken: func(w Written) bool {
		heard = append(heard, w)
		return true
	}})
	if !strings.Contains(answer.Text, "Paris") || answer.FinishReason != FinishEOS || answer.PromptTokens == 0 {
		t.Errorf("the answer is %+v", answer)
	}
	text, ids := "", []int64{}
	for i, w := range heard {
		text, ids = text+w.Text, append(ids, w.Token)
		if last := i == len(heard)-1; last != (w.FinishReason != FinishNone) || w.Row != 0 {
			t.Errorf("token %d of %d: %+v", i, len(heard), w)
		}
	}
	if text != answer.Text || !reflect.DeepEqual(ids, answer.Tokens) {
		t.Errorf("streamed %q %v, then gave %q %v", text, ids, answer.Text, answer.Tokens)
	}
}

func TestRenderChat(t *testing.T) {
	model, _ := smollm2(t)
	odd := "\"quotes\" \\ and\n\tcontrol \x01 characters, <größer>"
	if text := must(model.RenderChat([]Message{{"user", odd}})); !strings.Contains(text, odd) {
		t.Errorf("%q is not in %q", odd, text)
	}
	longer := must(model.RenderChat([]Message{{"user", "Hello"}}))
	shorter := must(model.ApplyChatTemplate([]Message{{"user", "Hello"}}, &ChatOptions{NoGenerationPrompt: true}))
	if len(shorter) >= len(longer) || !strings.HasPrefix(longer, shorter) {
		t.Errorf("%q is not the beginning of %q", shorter, longer)
	}
	tools := &ChatOptions{Tools: map[string]string{}}
	if _, err := model.ApplyChatTemplate([]Message{{"user", "Hello"}}, tools); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("tools that are no list: %v", err)
	}
	if _, err := model.RenderChat(Message{"user", "Hello"}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a message that is no list: %v", err)
	}
	library, encoder, _ := load(t)
	if _, err := encoder.RenderChat([]Message{{"user", "Hello"}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a model without a template: %v", err)
	}
	if _, err := library.NewGenerator(ctx, encoder, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a generator of an encoder: %v", err)
	}
}

func TestRunGoesOn(t *testing.T) {
	_, g := smollm2(t)
	whole := write(g, count, &GenerateOptions{MaxNewTokens: 12})
	if err := g.Reset(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"One, two,", "", " three, four,"} {
		if err := g.Append(0, text, nil); err != nil {
			t.Fatal(err)
		}
	}
	first := must(g.Run(ctx, &GenerateOptions{MaxNewTokens: 5}))[0]
	second := must(g.Run(ctx, &GenerateOptions{MaxNewTokens: 7}))[0]
	if tokens := append(first.Tokens, second.Tokens...); !reflect.DeepEqual(tokens, whole.Tokens) {
		t.Errorf("%v in two runs, %v in one", tokens, whole.Tokens)
	}
	if first.Text+second.Text != whole.Text {
		t.Errorf("%q, then %q, but %q in one run", first.Text, second.Text, whole.Text)
	}

	write(g, count, &GenerateOptions{MaxNewTokens: 3})
	if err := g.Append(0, ", seven,", nil); err != nil {
		t.Fatal(err)
	}
	appended := must(g.Run(ctx, &GenerateOptions{MaxNewTokens: 4}))[0]
	anew := write(g, count+" five, six, seven,", &GenerateOptions{MaxNewTokens: 4})
	if appended.Text != anew.Text || appended.PromptTokens != anew.PromptTokens {
		t.Errorf("%+v when appended, %+v when read anew", appended, anew)
	}
}

func TestRowsAreWrittenAsIfAlone(t *testing.T) {
	_, g := smollm2(t)
	prompts := []string{count, "The sun rises in the"}
	heard := make([]string, len(prompts))
	rows := must(g.Generate(ctx, prompts, &GenerateOptions{MaxNewTokens: 6, OnToken: func(w Written) bool {
		heard[w.Row] += w.Text
		return true
	}}))
	for i, prompt := range prompts {
		alone := write(g, prompt, &GenerateOptions{MaxNewTokens: 6})
		if !reflect.DeepEqual(rows[i], alone) || heard[i] != alone.Text {
			t.Errorf("%+v in a batch, %+v alone, %q streamed", rows[i], alone, heard[i])
		}
	}
}

func TestStop(t *testing.T) {
	_, g := smollm2(t)
	stopped := write(g, count, &GenerateOptions{MaxNewTokens: 24, Stop: []string{"nothing", "seven"}})
	six, seven := strings.Contains(stopped.Text, "six"), strings.Contains(stopped.Text, "seven")
	if stopped.FinishReason != FinishStop || !six || seven {
		t.Errorf("stopped at %+v", stopped)
	}
	all := write(g, count, &GenerateOptions{MaxNewTokens: 24})
	last := all.Tokens[len(all.Tokens)-1]
	stopped = write(g, count, &GenerateOptions{MaxNewTokens: 24, StopTokens: []int64{-1, last}})
	if stopped.FinishReason != FinishStop || stopped.Tokens[len(stopped.Tokens)-1] != last {
		t.Errorf("stopped by token %d at %+v", last, stopped)
	}
	calls := 0
	ended := write(g, count, &GenerateOptions{MaxNewTokens: 24, OnToken: func(Written) bool { calls++; return calls < 3 }})
	if ended.FinishReason != FinishCancelled || calls != 3 || len(ended.Tokens) != 3 {
		t.Errorf("ended after %d calls: %+v", calls, ended)
	}
}

func TestPanicInOnToken(t *testing.T) {
	_, g := smollm2(t)
	calls := 0
	recovered := func() (recovered any) {
		defer func() { recovered = recover() }()
		g.Generate(ctx, []string{count}, &GenerateOptions{MaxNewTokens: 8, OnToken: func(Written) bool {
			if calls++; calls == 2 {
				panic("out of OnToken")
			}
			return true
		}})
		return nil
	}()
	if recovered != "out of OnToken" || calls != 2 {
		t.Errorf("recovered %v after %d calls", recovered, calls)
	}
	// The tokens before the panic are not lost.
	rest := must(g.Run(ctx, &GenerateOptions{MaxNewTokens: 6}))[0]
	whole := write(g, count, &GenerateOptions{MaxNewTokens: 8})
	if !reflect.DeepEqual(rest.Tokens, whole.Tokens[2:]) {
		t.Errorf("%v after the panic, %v without one", rest.Tokens, whole.Tokens)
	}
}

func TestGeneratorIsBusyWhileItWrites(t *testing.T) {
	_, g := smollm2(t)
	var err error
	write(g, count, &GenerateOptions{MaxNewTokens: 1, OnToken: func(Written) bool {
		_, err = g.Run(ctx, nil)
		return true
	}})
	if !errors.Is(err, ErrBusy) {
		t.Errorf("a call within a call: %v", err)
	}
}

func TestSeedsRepeat(t *testing.T) {
	_, g := smollm2(t)
	draw := func(seed uint64, topK uint32) string {
		options := &GenerateOptions{MaxNewTokens: 8, Temperature: 1, TopP: 0.95, TopK: topK, Seed: seed}
		return write(g, "Once upon a time", options).Text
	}
	if a, b, c := draw(7, 0), draw(7, 0), draw(8, 0); a != b || a == c {
		t.Errorf("seed 7 gives %q and %q, seed 8 %q", a, b, c)
	}
	greedy := write(g, "Once upon a time", &GenerateOptions{MaxNewTokens: 8}).Text
	if only := draw(7, 1); only != greedy { // with one token, sampling has no choice
		t.Errorf("%q with top_k 1, %q without a draw", only, greedy)
	}
}

func TestLogprobs(t *testing.T) {
	_, g := smollm2(t)
	var told []float32
	options := &GenerateOptions{MaxNewTokens: 4, Logprobs: 3, OnToken: func(w Written) bool {
		told = append(told, w.Logprob)
		return true
	}}
	written := write(g, count, options)
	if len(written.Logprobs) != 4 || len(told) != 4 {
		t.Fatalf("%d log-probabilities, %d told", len(written.Logprobs), len(told))
	}
	for i, l := range written.Logprobs {
		p := math.Exp(float64(l.Chosen.Logprob))
		if !(p > 0 && p < 1) || l.Chosen.Logprob != told[i] || l.Chosen.Token != written.Tokens[i] {
			t.Errorf("token %d: %+v, told %v", i, l.Chosen, told[i])
		}
		if len(l.Top) != 2 || l.Top[0] != l.Chosen || l.Top[1].Logprob > l.Top[0].Logprob {
			t.Errorf("token %d: the most probable are %+v", i, l.Top)
		}
	}
	if without := write(g, count, &GenerateOptions{MaxNewTokens: 1}); len(without.Logprobs) != 0 {
		t.Errorf("not asked for: %+v", without.Logprobs)
	}
}

func TestADraftChangesNoText(t *testing.T) {
	model, g := smollm2(t)
	o := &GenerateOptions{MaxNewTokens: 24}
	plain := write(g, count, o)
	if plain.Draft != nil {
		t.Errorf("without a draft: %+v", plain.Draft)
	}
	options := &GeneratorOptions{Draft: model, DraftLookup: true, DraftMax: 6}
	drafting := must(loaded.library.NewGenerator(ctx, model, options))
	defer drafting.Close()
	found := write(drafting, count, o)
	if found.Text != plain.Text || !reflect.DeepEqual(found.Tokens, plain.Tokens) {
		t.Errorf("%q with a draft, %q without", found.Text, plain.Text)
	}
	if d := found.Draft; d == nil || d.Accepted == 0 || d.Steps >= len(found.Tokens) || d.Acceptance == 0 {
		t.Errorf("the draft: %+v", d)
	}
	if _, err := drafting.Generate(ctx, []string{count, count}, o); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("two rows: %v", err)
	}
	options.DraftMax = 1000
	if _, err := loaded.library.NewGenerator(ctx, model, options); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("1000 tokens: %v", err)
	}
	options.Draft = must(loaded.library.Load(ctx, minilm(t)))
	options.Draft.Close()
	if _, err := loaded.library.NewGenerator(ctx, model, options); err != ErrClosed {
		t.Errorf("a closed draft model: %v", err)
	}
}

func TestABFloat16CacheIsNearAFloat32One(t *testing.T) {
	model, g := smollm2(t)
	o := &GenerateOptions{MaxNewTokens: 8}
	options := &GeneratorOptions{KVCacheType: KVCacheBFloat16}
	half := must(loaded.library.NewGenerator(ctx, model, options))
	defer half.Close()
	if found, plain := write(half, count, o), write(g, count, o); found.Text != plain.Text {
		t.Errorf("%q with a bfloat16 cache, %q with a float32 one", found.Text, plain.Text)
	}
	options.Execution.Kernels = KernelsStock
	if _, err := loaded.library.NewGenerator(ctx, model, options); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("stock kernels: %v", err)
	}
}

func TestCancelGeneration(t *testing.T) {
	model, g := smollm2(t)
	inner, cancel := context.WithCancel(ctx)
	endless := &GenerateOptions{MaxNewTokens: 2000, IgnoreEOS: true, OnToken: func(Written) bool { cancel(); return true }}
	if _, err := g.Generate(inner, []string{count}, endless); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: %v", err)
	}
	if _, err := loaded.library.NewGenerator(inner, model, nil); !errors.Is(err, ErrCancelled) {
		t.Errorf("a call that begins cancelled: %v", err)
	}
	endless.OnToken = nil
	late, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if _, err := g.Generate(late, []string{count}, endless); !errors.Is(err, ErrTimeout) {
		t.Errorf("a late call: %v", err)
	}
	stage := ""
	watched := WithProgress(ctx, func(s string, done, total uint64) { stage += fmt.Sprint(s, done, "/", total, " ") })
	if _, err := g.Generate(watched, []string{count}, &GenerateOptions{MaxNewTokens: 4}); err != nil {
		t.Errorf("after them: %v", err)
	}
	if !strings.HasPrefix(stage, "prompt8/8 ") {
		t.Errorf("progress of %s", stage)
	}
}

func TestGeneratorErrors(t *testing.T) {
	_, g := smollm2(t)
	refused := func(prompts []string, o GenerateOptions) error { return second(g.Generate(ctx, prompts, &o)) }
	one := []string{count}
	for mention, err := range map[string]error{
		"max_length":  refused(one, GenerateOptions{MaxLength: 2}),
		"temperature": refused(one, GenerateOptions{Temperature: -1}),
		"stop":        refused(one, GenerateOptions{Stop: []string{"a\x00b"}}),
		"count":       refused(nil, GenerateOptions{}),
		"UTF-8":       refused([]string{"\xff"}, GenerateOptions{}),
	} {
		if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), mention) {
			t.Errorf("%v does not mention %s", err, mention)
		}
	}
	if err := g.Append(7, "x", nil); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "row 7") {
		t.Errorf("row 7: %v", err)
	}
	var reason FinishReason
	if err := reason.UnmarshalText([]byte("boredom")); err == nil {
		t.Errorf("boredom is %d", reason)
	}
}

func TestCloseGeneratorDuringCall(t *testing.T) {
	model, _ := smollm2(t)
	library := must(NewContext(nil))
	g := must(library.NewGenerator(ctx, model, &GeneratorOptions{Threads: 1}))
	library.Close()
	written := write(g, count, &GenerateOptions{MaxNewTokens: 4, OnToken: func(Written) bool { g.Close(); return true }})
	if !strings.Contains(written.Text, "five") {
		t.Errorf("it wrote %q", written.Text)
	}
	if err := g.Reset(); err != ErrClosed {
		t.Errorf("after the call: %v", err)
	}
	if _, err := g.Run(ctx, nil); err != ErrClosed {
		t.Errorf("after the call: %v", err)
	}
}
