package optimize

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
)

// files has the contents of the files of a saved model, by name.
type files map[string]*bytes.Buffer

type closer struct{ *bytes.Buffer }

func (closer) Close() error { return nil }

func (f files) create(name string) (io.WriteCloser, error) {
	f[name] = &bytes.Buffer{}
	return closer{f[name]}, nil
}

func (f files) fs() fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, content := range f {
		fsys["my/"+name] = &fstest.MapFile{Data: content.Bytes()}
	}
	return fsys
}

func TestModelsComeFromAndGoToMemory(t *testing.T) {
	library, model, tokenizer := load(t)
	saved := files{}
	report := must(model.SaveTo(ctx, saved.create, "m.onnx", &SaveOptions{ExternalData: ExternalDataAlways}))
	if len(saved) != 2 || len(report.Files) != 2 || int(report.Files[0].Bytes) != saved["m.onnx"].Len() {
		t.Fatalf("%d files, %+v", len(saved), report)
	}
	fsys := saved.fs()
	fsys["my/tokenizer.json"] = &fstest.MapFile{Data: must(os.ReadFile(filepath.Join(minilm(t), "tokenizer.json")))}
	again := must(library.LoadFS(ctx, fsys, "my/m.onnx"))
	defer again.Close()
	words := must(again.Tokenizer())
	defer words.Close()
	first := must(library.NewSession(ctx, model, nil))
	defer first.Close()
	second := must(library.NewSession(ctx, again, nil))
	defer second.Close()
	wanted, got := must(embed(ctx, first, tokenizer, "a text")), must(embed(ctx, second, words, "a text"))
	for i := range wanted {
		if wanted[i] != got[i] {
			t.Fatalf("element %d is %v, not %v", i, got[i], wanted[i])
		}
	}
	must(LoadTokenizerFS(fsys, "my/tokenizer.json")).Close()
	if _, err := library.LoadFS(ctx, fsys, "my/none.onnx"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

func TestPackagesComeFromAndGoToMemory(t *testing.T) {
	library, model, _ := load(t)
	saved := files{}
	must(library.CompileTo(ctx, model, saved.create, "p", &PackageOptions{Dynamic: true, PortableOnly: true}))
	p := must(library.OpenPackageFS(ctx, saved.fs(), "my/p", nil))
	defer p.Close()
	if err := p.Verify(ctx, ""); err != nil {
		t.Error(err)
	}
	must(library.NewPackageSession(ctx, p, nil)).Close()
}

// failing is a file system, and also a file of it, whose methods fail with err; if err is nil, Open panics.
type failing struct{ err error }

func (f failing) Open(string) (fs.File, error) {
	if f.err == nil {
		panic("in Open")
	}
	return nil, f.err
}

func (f failing) Write([]byte) (int, error) { return 0, f.err }
func (f failing) Close() error              { return nil }

func TestErrorsOfFilesAreReturned(t *testing.T) {
	library, model, _ := load(t)
	broken := errors.New("broken")
	if _, err := library.LoadFS(ctx, failing{broken}, "m.onnx"); err != broken {
		t.Error(err)
	}
	create := func(string) (io.WriteCloser, error) { return failing{broken}, nil }
	if _, err := model.SaveTo(ctx, create, "m.onnx", nil); err != broken {
		t.Error(err)
	}
	defer func() {
		if panicked := recover(); panicked != "in Open" {
			t.Errorf("recovered %v", panicked)
		}
	}()
	library.LoadFS(ctx, failing{}, "m.onnx")
}

func TestRunInto(t *testing.T) {
	library, model, tokenizer := load(t)
	session := must(library.NewSession(ctx, model, nil))
	defer session.Close()
	encoding := must(tokenizer.Encode([]string{"a text"}, nil))
	defer encoding.Close()
	inputs := encoding.Inputs(must(session.Inputs()))
	wanted := must(embed(ctx, session, tokenizer, "a text"))
	got := make([]float32, len(wanted))
	if err := session.RunInto(ctx, inputs, map[string]Output{"461": OutputTo(got, 1, int64(len(got)))}); err != nil {
		t.Fatal(err)
	}
	for i := range wanted {
		if wanted[i] != got[i] {
			t.Fatalf("element %d is %v, not %v", i, got[i], wanted[i])
		}
	}
	err := session.RunInto(ctx, inputs, map[string]Output{"461": OutputTo(got, 2, int64(len(got))/2)})
	if !errors.Is(err, ErrInvalidArgument) {
		t.Error(err)
	}
}

func TestMemoryLimit(t *testing.T) {
	_, model, _ := load(t)
	library := must(NewContext(&ContextOptions{MemoryLimit: 1 << 20}))
	defer library.Close()
	if _, err := library.NewSession(ctx, model, nil); !errors.Is(err, ErrLimitExceeded) {
		t.Error(err)
	}
}
