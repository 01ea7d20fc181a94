package optimize

// #include <optimize.h>
import "C"

import (
	"context"
	"encoding/json"
)

// Divergence says how far apart two distributions are.
type Divergence int32

// Ways to measure it.
const (
	DivergenceForward       Divergence = C.OPTIMIZE_DIVERGENCE_FORWARD        // KL(teacher, student)
	DivergenceReverse       Divergence = C.OPTIMIZE_DIVERGENCE_REVERSE        // KL(student, teacher)
	DivergenceJensenShannon Divergence = C.OPTIMIZE_DIVERGENCE_JENSEN_SHANNON // the mean of both to their middle
)

// Schedule says how the learning rate goes down.
type Schedule int32

// Ways in which it does.
const (
	ScheduleLinear   Schedule = C.OPTIMIZE_SCHEDULE_LINEAR
	ScheduleCosine   Schedule = C.OPTIMIZE_SCHEDULE_COSINE
	ScheduleConstant Schedule = C.OPTIMIZE_SCHEDULE_CONSTANT
)

// DistillOptions are the options of Context.Distill. Zero is the default of each; of weights, warm-up, decay and norm a
// number below 0 is none. See optimize_distill_options_t.
type DistillOptions struct {
	Text                      string // what is learned from; needed
	Epochs                    uint32
	JSONLines                 bool
	BatchSize                 uint32
	SequenceLength            uint32
	GradientAccumulationSteps uint32
	LearningRate              float64
	Temperature               float64
	Divergence                Divergence
	Schedule                  Schedule
	LogitsWeight              float64
	LabelsWeight              float64
	HiddenWeight              float64
	CosineWeight              float64
	RelationsWeight           float64
	WarmupRatio               float64
	WeightDecay               float64
	MaxGradNorm               float64
	ValidationRatio           float64
	TimeLimit                 float64
	MaxSteps                  uint64
	EvaluateEvery             uint64
	CheckpointEvery           uint64
	Seed                      uint64
	Freeze                    []string // modules or weights that stay as they are
	StudentLayers             string   // layers:every-other or layers:6, where no student is given
	Checkpoint                string   // file for the state; "" is none
	Resume                    bool
	Threads                   uint32
}

// Distill trains student to answer as teacher does on a text, into a new model; both stay. student may be nil with
// StudentLayers. It fails with ErrUnsupported if the student has a node that cannot be trained.
func (c *Context) Distill(ctx context.Context, teacher, student *Model, o *DistillOptions) (*Model, *Report, error) {
	context, err := c.acquire()
	if err != nil {
		return nil, nil, err
	}
	defer c.release()
	from, err := teacher.acquire()
	if err != nil {
		return nil, nil, err
	}
	defer teacher.release()
	var to *C.optimize_model_t
	if student != nil {
		if to, err = student.acquire(); err != nil {
			return nil, nil, err
		}
		defer student.release()
	}
	if o == nil {
		o = &DistillOptions{}
	}
	var m memory
	defer m.free()
	text := m.text(o.Text)
	options := C.optimize_distill_options_t{
		struct_size:                 C.sizeof_optimize_distill_options_t,
		epochs:                      C.uint32_t(o.Epochs),
		json_lines:                  flag(o.JSONLines),
		batch_size:                  C.uint32_t(o.BatchSize),
		sequence_length:             C.uint32_t(o.SequenceLength),
		gradient_accumulation_steps: C.uint32_t(o.GradientAccumulationSteps),
		learning_rate:               C.double(o.LearningRate),
		temperature:                 C.double(o.Temperature),
		divergence:                  C.int32_t(o.Divergence),
		schedule:                    C.int32_t(o.Schedule),
		logits_weight:               C.double(o.LogitsWeight),
		labels_weight:               C.double(o.LabelsWeight),
		hidden_weight:               C.double(o.HiddenWeight),
		cosine_weight:               C.double(o.CosineWeight),
		relations_weight:            C.double(o.RelationsWeight),
		warmup_ratio:                C.double(o.WarmupRatio),
		weight_decay:                C.double(o.WeightDecay),
		max_grad_norm:               C.double(o.MaxGradNorm),
		validation_ratio:            C.double(o.ValidationRatio),
		time_limit:                  C.double(o.TimeLimit),
		max_steps:                   C.uint64_t(o.MaxSteps),
		evaluate_every:              C.uint64_t(o.EvaluateEvery),
		checkpoint_every:            C.uint64_t(o.CheckpointEvery),
		seed:                        C.uint64_t(o.Seed),
		freeze:                      m.texts(o.Freeze),
		freeze_count:                C.uint64_t(len(o.Freeze)),
		student_layers:              m.textOrNil(o.StudentLayers),
		checkpoint:                  m.textOrNil(o.Checkpoint),
		resume:                      flag(o.Resume),
		threads:                     C.uint32_t(o.Threads),
	}
	var result *C.optimize_model_t
	var buffer *C.optimize_buffer_t
	err = tryUnder(ctx, func(call *C.optimize_call_t, e errorOut) status {
		return C.optimize_model_distill(context, from, to, text, C.size_t(len(o.Text)), &options, call, &result, &buffer, e)
	})
	if err != nil {
		return nil, nil, err
	}
	report := &Report{JSON: take(buffer)}
	return newModel(result), report, json.Unmarshal(report.JSON, report)
}
