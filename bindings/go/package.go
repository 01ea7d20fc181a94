package optimize

// #include <optimize.h>
// #include <stdlib.h>
import "C"

import (
	"context"
	"unsafe"
)

// Package is an open package: a model that Context.Compile has prepared ahead of time. It is immutable. The files of
// the package are memory-mapped, and must not be changed while it is open.
type Package struct {
	*handle[*C.optimize_package_t]
}

// Dimension is the range of sizes of a dimension of an input.
type Dimension struct {
	Input     string // name of the input, or its position among the inputs, such as "0"
	Dimension uint32 // index of the dimension, from 0
	Name      string // name of the dimension; those of one name have the same range, and one size in each run
	Min       uint64 // minimum size
	Max       uint64 // maximum size; 0 for no limit
}

// PackageOptions are the options of Context.Compile and Context.CompileTo. The variants are "fp32" (the model as it
// is), "bf16" (the same with matrix products in bfloat16), "int8" (dynamic quantization) and "int4" (weight-only).
type PackageOptions struct {
	Dynamic       bool        // whether dynamic dimensions get ranges, the first one as batch; always for decoders
	BatchMin      uint64      // minimum batch size; 0 for 1
	BatchMax      uint64      // maximum batch size; 0 for 64
	DynamicShapes string      // ranges as JSON: {input: {dimension: {"name", "min", "max"}}}; "" for none
	Variants      string      // variants in order of preference, such as "fp32,int8"; "" for "fp32"
	Licence       string      // licence of the model, which is stored in the manifest; "" for none
	SignKey       string      // secret ed25519 key that signs the package, 64 hexadecimal digits; "" for none
	SingleFile    bool        // whether one file is written instead of a folder
	PortableOnly  bool        // whether graphs that are optimized for this processor are left out
	Packed        bool        // whether weights are stored packed, with one bit per zero
	Engine        string      // path of a TensorRT engine of the model, with its manifest next to it; "" for none
	Dimensions    []Dimension // ranges of dimensions other than those in DynamicShapes
	Lineage       []string    // reports in JSON of the steps that led to the model, oldest first; none for no lineage
}

// Compile writes a package of a model at path, and replaces an existing package there, atomically where the file system
// supports it. It returns a report as JSON, with the sizes and hashes of the files. It fails with ErrInvalidArgument if
// something other than a package exists at path, or if ranges contradict the model or each other.
func (c *Context) Compile(ctx context.Context, model *Model, path string, o *PackageOptions) ([]byte, error) {
	return c.compile(model, o, func(p *compilation) error {
		return tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
			return C.optimize_package_compile(p.context, p.model, p.text(path), &p.options, call, &p.report, e)
		})
	})
}

// compilation has the C arguments of the functions that write packages, and the report that they return.
type compilation struct {
	memory
	context *C.optimize_context_t
	model   *C.optimize_model_t
	options C.optimize_package_compile_options_t
	report  *C.optimize_buffer_t
}

// compile converts the options, writes a package with the function run, and returns the report that run stores in the
// compilation.
func (c *Context) compile(model *Model, o *PackageOptions, run func(*compilation) error) ([]byte, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	m, err := model.acquire()
	if err != nil {
		return nil, err
	}
	defer model.release()
	p := compilation{context: context, model: m}
	defer p.free()
	p.options = o.raw(&p.memory)
	if err := run(&p); err != nil {
		return nil, err
	}
	return take(p.report), nil
}

// dimensions returns a copy of a list in C memory, and its length; nil and 0 for an empty list.
func (m *memory) dimensions(list []Dimension) (*C.optimize_dimension_t, C.uint64_t) {
	if len(list) == 0 {
		return nil, 0
	}
	c := (*C.optimize_dimension_t)(C.calloc(C.size_t(len(list)), C.sizeof_optimize_dimension_t))
	m.blocks = append(m.blocks, unsafe.Pointer(c))
	for i, one := range list {
		unsafe.Slice(c, len(list))[i] = C.optimize_dimension_t{
			struct_size: C.sizeof_optimize_dimension_t,
			dimension:   C.uint32_t(one.Dimension),
			input:       m.text(one.Input),
			name:        m.text(one.Name),
			min:         C.uint64_t(one.Min),
			max:         C.uint64_t(one.Max),
		}
	}
	return c, C.uint64_t(len(list))
}

// raw returns the options as a C struct with texts in C memory.
func (o *PackageOptions) raw(texts *memory) C.optimize_package_compile_options_t {
	if o == nil {
		o = &PackageOptions{}
	}
	options := C.optimize_package_compile_options_t{
		struct_size:    C.sizeof_optimize_package_compile_options_t,
		dynamic:        flag(o.Dynamic),
		batch_min:      C.uint64_t(o.BatchMin),
		batch_max:      C.uint64_t(o.BatchMax),
		dynamic_shapes: texts.textOrNil(o.DynamicShapes),
		variants:       texts.textOrNil(o.Variants),
		licence:        texts.textOrNil(o.Licence),
		sign_key:       texts.textOrNil(o.SignKey),
		single_file:    flag(o.SingleFile),
		portable_only:  flag(o.PortableOnly),
		packed:         flag(o.Packed),
		engine:         texts.textOrNil(o.Engine),
		lineage:        texts.texts(o.Lineage),
		lineage_count:  C.uint64_t(len(o.Lineage)),
	}
	options.dimensions, options.dimension_count = texts.dimensions(o.Dimensions)
	return options
}

// OpenOptions are the options of OpenPackage and Context.OpenPackageFS.
type OpenOptions struct {
	Variant   string // name or precision of the variant; "" selects one by processor and execution provider
	PublicKey string // public ed25519 key that must have signed the package, 64 hexadecimal digits; "" for none
}

// OpenPackage opens a package, which is a folder or a file. It checks the manifest. The other files are checked only as
// far as they are used; Package.Verify checks every byte. It fails with ErrNotFound if path or the requested variant
// does not exist. It also fails with ErrUnsupported if the package has a newer format or no variant for this machine,
// and with ErrInvalidModel if the package is damaged or not signed by PublicKey.
func OpenPackage(path string, o *OpenOptions) (*Package, error) {
	var m memory
	defer m.free()
	options := o.raw(&m)
	var p *C.optimize_package_t
	err := try(func(e errorOut) status { return C.optimize_package_open(m.text(path), &options, &p, e) })
	if err != nil {
		return nil, err
	}
	return newPackage(p), nil
}

func newPackage(p *C.optimize_package_t) *Package {
	return &Package{own(p, func(p *C.optimize_package_t) { C.optimize_package_free(p) })}
}

func (o *OpenOptions) raw(m *memory) C.optimize_package_open_options_t {
	if o == nil {
		o = &OpenOptions{}
	}
	return C.optimize_package_open_options_t{
		struct_size: C.sizeof_optimize_package_open_options_t,
		variant:     m.textOrNil(o.Variant),
		public_key:  m.textOrNil(o.PublicKey),
	}
}

// NewPackageSession creates a session of a package, with the variant that OpenOptions.Variant selected, or else the
// first one that fits this machine. Each run first checks types and sizes of its inputs against the manifest (the shape
// contract), and fails with ErrInvalidArgument if an input does not fit. The package may be closed before the session.
// NewPackageSession fails like NewSession.
func (c *Context) NewPackageSession(ctx context.Context, p *Package, o *SessionOptions) (*Session, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	raw, err := p.acquire()
	if err != nil {
		return nil, err
	}
	defer p.release()
	if o == nil {
		o = &SessionOptions{}
	}
	var m memory
	defer m.free()
	options := o.c(&m)
	var session *C.optimize_session_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_package_session(context, raw, &options, call, &session, e)
	})
	if err != nil {
		return nil, err
	}
	return newSession(session), nil
}

// NewPackageEngine creates a session of the TensorRT engine of a package on a device. Runs check the shape contract
// like those of NewPackageSession. The package may be closed before the session. NewPackageEngine fails with
// ErrNotFound if the package has no engine, with ErrUnsupported if the package is a single file, and otherwise like
// OpenTensorRT.
func (c *Context) NewPackageEngine(ctx context.Context, p *Package, o *TensorRTOpenOptions) (*Session, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	raw, err := p.acquire()
	if err != nil {
		return nil, err
	}
	defer p.release()
	var m memory
	defer m.free()
	options := o.c(&m)
	var session *C.optimize_session_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_package_engine(context, raw, &options, call, &session, e)
	})
	if err != nil {
		return nil, err
	}
	return newSession(session), nil
}

// Model returns the model of a package, for techniques, benchmarks and inspection. Sessions of this model check the
// shape contract like those of NewPackageSession. It fails with ErrInvalidModel if the model's files are damaged.
func (p *Package) Model() (*Model, error) {
	raw, err := p.acquire()
	if err != nil {
		return nil, err
	}
	defer p.release()
	var model *C.optimize_model_t
	if err = try(func(e errorOut) status { return C.optimize_package_model(raw, &model, e) }); err != nil {
		return nil, err
	}
	return newModel(model), nil
}

// Tokenizer returns the tokenizer of a package. It fails with ErrNotFound if the package has none.
func (p *Package) Tokenizer() (*Tokenizer, error) {
	raw, err := p.acquire()
	if err != nil {
		return nil, err
	}
	defer p.release()
	var tokenizer *C.optimize_tokenizer_t
	if err = try(func(e errorOut) status { return C.optimize_package_tokenizer(raw, &tokenizer, e) }); err != nil {
		return nil, err
	}
	return newTokenizer(tokenizer), nil
}

// Generator creates a generator of the model of a package, in the context c. The package and the draft model may be
// closed before the generator. It fails with ErrUnsupported if a model does not generate text, and otherwise like
// NewGenerator.
func (p *Package) Generator(ctx context.Context, c *Context, o *GeneratorOptions) (*Generator, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	raw, err := p.acquire()
	if err != nil {
		return nil, err
	}
	defer p.release()
	var m memory
	defer m.free()
	options, release, err := o.c(&m)
	if err != nil {
		return nil, err
	}
	defer release()
	var generator *C.optimize_generator_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_package_generator(context, raw, &options, call, &generator, e)
	})
	if err != nil {
		return nil, err
	}
	return newGenerator(generator), nil
}

// Inspect returns a description of a package as JSON: the manifest, the variant that is used on this machine, and the
// reason for this variant.
func (p *Package) Inspect(c *Context) ([]byte, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	raw, err := p.acquire()
	if err != nil {
		return nil, err
	}
	defer p.release()
	var report *C.optimize_buffer_t
	if err = try(func(e errorOut) status { return C.optimize_package_inspect(context, raw, &report, e) }); err != nil {
		return nil, err
	}
	return take(report), nil
}

// Verify verifies every byte of a package: the hash of each file, and the signature if there is one. publicKey is the
// public ed25519 key that must have signed the package, as 64 hexadecimal digits; "" accepts any key. It fails with
// ErrInvalidModel if a file is damaged, or if the signature is wrong, of another key, or missing although there is a
// publicKey.
func (p *Package) Verify(ctx context.Context, publicKey string) error {
	raw, err := p.acquire()
	if err != nil {
		return err
	}
	defer p.release()
	var m memory
	defer m.free()
	return tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_package_verify(raw, m.textOrNil(publicKey), call, e)
	})
}
