package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
	"unsafe"
)

// Model is a loaded or created model. It is immutable. Files from which a model was loaded are memory-mapped: they must
// not be overwritten while the model, or an object created from it, exists.
type Model struct {
	*handle[*C.optimize_model_t]
}

func newModel(model *C.optimize_model_t) *Model {
	return &Model{own(model, func(m *C.optimize_model_t) { C.optimize_model_free(m) })}
}

// Load loads a model from an .onnx, .gguf or packed file, a Hugging Face checkpoint, a folder with an .onnx file, a
// package, or the manifest of an ensemble. Weights are memory-mapped and not read, except those that must be converted,
// which are written to an unlinked temporary file. It fails with ErrNotFound if there is no such file, with
// ErrInvalidModel for a damaged file, and with ErrUnsupported for a format, an architecture or a type of weights that
// is not supported.
func (c *Context) Load(ctx context.Context, path string) (*Model, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	var m memory
	defer m.free()
	var model *C.optimize_model_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_model_load(context, m.text(path), call, &model, e)
	})
	if err != nil {
		return nil, err
	}
	return newModel(model), nil
}

// LoadMemory loads a model from a copy of the bytes of an .onnx file without external data, a packed file, a .gguf file
// or a package in one file. It fails with ErrInvalidArgument for a model with external data, with ErrInvalidModel for a
// damaged model, with ErrLimitExceeded for an .onnx file above 2 GiB, and with ErrUnsupported like Load.
func (c *Context) LoadMemory(ctx context.Context, file []byte) (*Model, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	bytes := addressable(file)
	var model *C.optimize_model_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_model_load_memory(context, unsafe.Pointer(&bytes[0]), C.size_t(len(file)), call, &model, e)
	})
	if err != nil {
		return nil, err
	}
	return newModel(model), nil
}

// ExternalData is the place where Model.Save stores the weights.
type ExternalData int32

// The places of weights.
const (
	ExternalDataAuto   ExternalData = C.OPTIMIZE_EXTERNAL_DATA_AUTO   // in the .onnx file up to 1 GiB, else next to it
	ExternalDataNever  ExternalData = C.OPTIMIZE_EXTERNAL_DATA_NEVER  // in the .onnx file; ErrLimitExceeded above 2 GiB
	ExternalDataAlways ExternalData = C.OPTIMIZE_EXTERNAL_DATA_ALWAYS // in a file next to the .onnx file
)

// SaveOptions are the options of Model.Save.
type SaveOptions struct {
	ExternalData ExternalData
	Packed       bool // whether a packed file is written, in which a zero takes one bit, and which only this library reads
}

// raw returns the options as a C struct; the defaults if o is nil.
func (o *SaveOptions) raw() C.optimize_save_options_t {
	if o == nil {
		o = &SaveOptions{}
	}
	return C.optimize_save_options_t{
		struct_size:   C.sizeof_optimize_save_options_t,
		external_data: C.int32_t(o.ExternalData),
		packed:        flag(o.Packed),
	}
}

// Save saves a model at path, and returns the list of the files that it wrote. Saving is atomic: an existing file at
// path is replaced only when the new one is complete and on disk. It fails with ErrNotFound if the folder of path does
// not exist, with ErrIO if a file cannot be written, and with ErrInvalidArgument if the options contradict each other.
func (m *Model) Save(ctx context.Context, path string, o *SaveOptions) (*SaveReport, error) {
	model, err := m.acquire()
	if err != nil {
		return nil, err
	}
	defer m.release()
	options := o.raw()
	var mem memory
	defer mem.free()
	var report *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_model_save(model, mem.text(path), &options, call, &report, e)
	})
	if err != nil {
		return nil, err
	}
	saved := &SaveReport{}
	return saved, json.Unmarshal(take(report), saved)
}

// Inspect returns a description of a model, without reading its weights.
func (m *Model) Inspect() (*Inspection, error) {
	model, err := m.acquire()
	if err != nil {
		return nil, err
	}
	defer m.release()
	var report *C.optimize_buffer_t
	err = try(func(e errorOut) status { return C.optimize_model_inspect(model, &report, e) })
	if err != nil {
		return nil, err
	}
	inspection := &Inspection{JSON: take(report)}
	return inspection, json.Unmarshal(inspection.JSON, inspection)
}

// Tokenizer returns the tokenizer of a model. It fails with ErrNotFound if the model has none.
func (m *Model) Tokenizer() (*Tokenizer, error) {
	model, err := m.acquire()
	if err != nil {
		return nil, err
	}
	defer m.release()
	var tokenizer *C.optimize_tokenizer_t
	err = try(func(e errorOut) status { return C.optimize_model_tokenizer(model, &tokenizer, e) })
	if err != nil {
		return nil, err
	}
	return newTokenizer(tokenizer), nil
}

// Message is a message of a conversation.
type Message struct {
	Role    string `json:"role"`    // "system", "user", "assistant", or another role that the chat template supports
	Content string `json:"content"` // text of the message
}

// Thinking states whether a model reasons before its answer, for chat templates with the variable enable_thinking.
type Thinking int32

// The values of Thinking.
const (
	ThinkingTemplate Thinking = C.OPTIMIZE_THINKING_TEMPLATE // the default of the template
	ThinkingOn       Thinking = C.OPTIMIZE_THINKING_ON       // the model reasons before it answers
	ThinkingOff      Thinking = C.OPTIMIZE_THINKING_OFF      // the model answers at once
)

// ChatOptions are the options of Model.ApplyChatTemplate.
type ChatOptions struct {
	NoGenerationPrompt bool // whether the beginning of the answer, which otherwise ends the prompt, is left out
	Tools              any  // tools that the model may call: a value whose JSON is a list of their schemas; nil for none
	Variables          any  // further variables of the template: a value whose JSON is an object; nil for none
	Thinking           Thinking
}

// ApplyChatTemplate returns a conversation rendered with the chat template of the model, like RenderChat, with tools
// and other options. messages may have more keys than role and content, such as tool_calls.
//
// It fails with ErrNotFound if the model has no chat template, and with ErrInvalidArgument if messages, Tools or
// Variables do not have the documented form, or if the template refuses them. It also fails with ErrInvalidModel if the
// template has an error, and with ErrUnsupported if the template uses a feature of Jinja that is not supported. Errors
// of package json for values without JSON are returned as they are.
func (m *Model) ApplyChatTemplate(messages any, o *ChatOptions) (string, error) {
	model, err := m.acquire()
	if err != nil {
		return "", err
	}
	defer m.release()
	if o == nil {
		o = &ChatOptions{}
	}
	var mem memory
	defer mem.free()
	options := C.optimize_chat_options_t{
		struct_size:          C.sizeof_optimize_chat_options_t,
		no_generation_prompt: flag(o.NoGenerationPrompt),
		thinking:             C.int32_t(o.Thinking),
	}
	list, err := mem.json(messages)
	if err == nil && o.Tools != nil {
		options.tools, err = mem.json(o.Tools)
	}
	if err == nil && o.Variables != nil {
		options.variables, err = mem.json(o.Variables)
	}
	if err != nil {
		return "", err
	}
	var prompt *C.optimize_buffer_t
	err = try(func(e errorOut) status {
		return C.optimize_model_apply_chat_template(model, list, &options, &prompt, e)
	})
	if err != nil {
		return "", err
	}
	return string(take(prompt)), nil
}

// json returns the JSON of a value, as text in C memory.
func (m *memory) json(value any) (*C.char, error) {
	encoded, err := json.Marshal(value)
	return m.text(string(encoded)), err
}

// RenderChat returns a conversation rendered with the chat template of the model. The text contains special tokens: set
// GenerateOptions.Rendered when you pass it to a Generator. messages is a []Message, or another list whose JSON has
// role and content. It fails like ApplyChatTemplate, with ErrNotFound if the model has no chat template.
func (m *Model) RenderChat(messages any) (string, error) {
	model, err := m.acquire()
	if err != nil {
		return "", err
	}
	defer m.release()
	list, err := json.Marshal(messages)
	if err != nil {
		return "", err
	}
	var mem memory
	defer mem.free()
	var rendered *C.optimize_buffer_t
	err = try(func(e errorOut) status {
		return C.optimize_model_render_chat(model, mem.text(string(list)), &rendered, e)
	})
	if err != nil {
		return "", err
	}
	return string(take(rendered)), nil
}

// Inputs returns names, types and shapes of the inputs that a run requires.
func (m *Model) Inputs() ([]ValueInfo, error) {
	model, err := m.acquire()
	if err != nil {
		return nil, err
	}
	defer m.release()
	return values(C.optimize_model_input_count(model), func(i C.size_t, v infoOut, e errorOut) status {
		return C.optimize_model_input(model, i, v, e)
	})
}

// Outputs returns names, types and shapes of the outputs of the model.
func (m *Model) Outputs() ([]ValueInfo, error) {
	model, err := m.acquire()
	if err != nil {
		return nil, err
	}
	defer m.release()
	return values(C.optimize_model_output_count(model), func(i C.size_t, v infoOut, e errorOut) status {
		return C.optimize_model_output(model, i, v, e)
	})
}

// ValueInfo is the name, type and shape of an input or output.
type ValueInfo struct {
	Name     string   // name of the input or output
	DType    DType    // element type; Unknown for a sequence, a map or an undeclared type
	Dims     []int64  // sizes of the dimensions, -1 for dynamic ones; empty for a scalar; nil if the rank is not declared
	DimNames []string // names of the dimensions, "" for none; dimensions of one name, such as "batch", must have one size
}

type infoOut = *C.optimize_value_info_t

func values(count C.size_t, get func(C.size_t, infoOut, errorOut) status) ([]ValueInfo, error) {
	list := make([]ValueInfo, count)
	for i := range list {
		info := C.optimize_value_info_t{struct_size: C.sizeof_optimize_value_info_t}
		if err := try(func(e errorOut) status { return get(C.size_t(i), &info, e) }); err != nil {
			return nil, err
		}
		list[i] = ValueInfo{Name: C.GoString(info.name), DType: DType(info.dtype)}
		if info.rank >= 0 {
			list[i].Dims = []int64{}
		}
		if info.rank <= 0 {
			continue // without dimensions, the pointers are NULL
		}
		list[i].Dims = append(list[i].Dims, unsafe.Slice((*int64)(info.dims), info.rank)...)
		for _, name := range unsafe.Slice(info.dim_names, info.rank) {
			list[i].DimNames = append(list[i].DimNames, C.GoString(name))
		}
	}
	return list, nil
}
