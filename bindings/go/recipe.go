package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
)

// ApplyOptions are the options of Context.Apply.
type ApplyOptions struct {
	Threads uint32 // number of threads; 0 for that of the context
	Data    string // text for steps whose data or calibration data is true in the recipe; "" for none
}

// Apply runs the steps of a recipe on a model and writes the result to path: a package if the last step is "compile",
// an engine if it is "tensorrt", otherwise a model as X.onnx or a folder. The original is unchanged. recipe is JSON: a
// list of steps (docs/recipes.md), or the report of a technique.
//
// It fails with ErrInvalidArgument if the recipe has an unknown operation or option, or if a step needs Data and there
// is none; otherwise with the errors of the techniques.
func (c *Context) Apply(ctx context.Context, model *Model, recipe, path string, o *ApplyOptions) (*Report, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	original, err := model.acquire()
	if err != nil {
		return nil, err
	}
	defer model.release()
	if o == nil {
		o = &ApplyOptions{}
	}
	var m memory
	defer m.free()
	options := C.optimize_apply_options_t{
		struct_size: C.sizeof_optimize_apply_options_t,
		threads:     C.uint32_t(o.Threads),
		data:        m.dataOrNil(o.Data),
		data_size:   C.uint64_t(len(o.Data)),
	}
	steps, file := m.text(recipe), m.text(path)
	var buffer *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_model_apply(context, original, steps, file, &options, call, &buffer, e)
	})
	if err != nil {
		return nil, err
	}
	report := &Report{JSON: take(buffer)}
	return report, json.Unmarshal(report.JSON, report)
}

// TableOptions are the options of Context.Table. Without Data, quality is measured on built-in sentences, and rows that
// need a text are skipped.
type TableOptions struct {
	Threads              uint32   // number of threads; 0 for that of the context
	Runs                 uint32   // number of timed rounds in each of the three repetitions of a measurement; 0 for 15
	MaxMilliseconds      uint32   // time limit of the rounds of a repetition with one size of the input; 0 for 4000
	TrainingMilliseconds uint32   // time limit of each training in milliseconds; 0 for 120000
	Data                 string   // text for calibration, training and quality; "" for none
	Rows                 []string // names of the rows to measure, such as "int8" (docs/table.md); none for all
	With                 string   // path of a second model for the row "ensemble"; "" for the result of the row "distill"
}

// Table applies each technique to models, compares the results with the originals, and writes a table and packages of
// the results to folder. It returns the JSON of docs/table.md. Rows that an earlier call with the same models and
// options has measured in this folder are not measured again. Rows that need a GPU or data that is not available are
// skipped. It fails with ErrInvalidArgument for an unknown row, or if there are no models.
func (c *Context) Table(ctx context.Context, models []*Model, folder string, o *TableOptions) (json.RawMessage, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer c.release()
	if o == nil {
		o = &TableOptions{}
	}
	var m memory
	defer m.free()
	list, release, err := m.models(models)
	if err != nil {
		return nil, err
	}
	defer release()
	options := C.optimize_table_options_t{
		struct_size:           C.sizeof_optimize_table_options_t,
		threads:               C.uint32_t(o.Threads),
		runs:                  C.uint32_t(o.Runs),
		max_milliseconds:      C.uint32_t(o.MaxMilliseconds),
		training_milliseconds: C.uint32_t(o.TrainingMilliseconds),
		data:                  m.dataOrNil(o.Data),
		data_size:             C.uint64_t(len(o.Data)),
		rows:                  m.texts(o.Rows),
		row_count:             C.uint64_t(len(o.Rows)),
		with:                  m.textOrNil(o.With),
	}
	path := m.text(folder)
	var buffer *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_models_table(context, list, C.size_t(len(models)), path, &options, call, &buffer, e)
	})
	if err != nil {
		return nil, err
	}
	return take(buffer), nil
}
