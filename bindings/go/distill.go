package optimize

// #include <optimize.h>
// typedef const optimize_training_step_t training_step;
// int32_t optimize_go_training(void *user_data, training_step *step);
import "C"

import (
	"context"
	"time"
	"unsafe"
)

// Divergence is the divergence between the distributions of teacher and student.
type Divergence int32

// The divergences.
const (
	DivergenceForward       Divergence = C.OPTIMIZE_DIVERGENCE_FORWARD        // KL(teacher ‖ student)
	DivergenceReverse       Divergence = C.OPTIMIZE_DIVERGENCE_REVERSE        // KL(student ‖ teacher)
	DivergenceJensenShannon Divergence = C.OPTIMIZE_DIVERGENCE_JENSEN_SHANNON // mean divergence of both from their mean
)

// Schedule is the decay of the learning rate after the warm-up.
type Schedule int32

// The schedules.
const (
	ScheduleLinear   Schedule = C.OPTIMIZE_SCHEDULE_LINEAR   // linear decay to 0
	ScheduleCosine   Schedule = C.OPTIMIZE_SCHEDULE_COSINE   // cosine decay to 0
	ScheduleConstant Schedule = C.OPTIMIZE_SCHEDULE_CONSTANT // no decay
)

// DistillOptions are the options of Context.Distill. The fields from LogitsWeight to RelationsWeight are the weights of
// the parts of the loss. For these weights, WarmupRatio, WeightDecay and MaxGradNorm, a negative number disables what
// the field controls. A weight with the default 1 under a condition is 0 by default otherwise. Rows are blocks of
// tokens for models that generate text, and lines for others.
type DistillOptions struct {
	Text                      string  // training text in UTF-8; required
	Epochs                    uint32  // number of passes over the text; 0 for 3
	JSONLines                 bool    // whether each line of the text is a JSON object {"text": "..."}
	BatchSize                 uint32  // number of rows per run; 0 for 4
	SequenceLength            uint32  // maximum tokens per row; 0 for 128, or the limit of the models if it is less
	GradientAccumulationSteps uint32  // number of runs whose gradients are accumulated into one step; 0 for 1
	LearningRate              float64 // learning rate after the warm-up; 0 for 5e-5
	Temperature               float64 // temperature of both distributions; 0 for 2
	Divergence                Divergence
	Schedule                  Schedule
	LogitsWeight              float64  // weight of the divergence of logits; 0 for 1 if both models have logits
	LabelsWeight              float64  // weight of the cross-entropy with tokens or classes of the text; 0 disables it
	HiddenWeight              float64  // weight of the squared error of hidden states; 0 for 1 if a model has no logits
	CosineWeight              float64  // weight of 1 - cosine of hidden states; 0 for 1 if a model has no logits
	RelationsWeight           float64  // weight of the divergence of self-attention relations; 0 disables it
	WarmupRatio               float64  // share of the steps in which the learning rate warms up; 0 for 0.05
	WeightDecay               float64  // weight decay of weights with more than one dimension; 0 for 0.01
	MaxGradNorm               float64  // maximum norm of the gradients, to which larger ones are clipped; 0 for 1
	ValidationRatio           float64  // share of the text that is held out for validation, at most 0.5; 0 for 0.05
	TimeLimit                 float64  // maximum training time in seconds; 0 for no limit
	MaxSteps                  uint64   // maximum number of steps; 0 for no limit
	EvaluateEvery             uint64   // number of steps between validations; 0 for ten validations during the training
	CheckpointEvery           uint64   // number of steps between checkpoints; 0 for one every ten minutes
	Seed                      uint64   // seed of the order of the text and of random initial values
	Freeze                    []string // names or globs of modules or weights to keep unchanged; none to train all
	StudentLayers             string   // layers of the teacher that form the student: "layers:every-other" or "layers:6"
	Checkpoint                string   // path of the checkpoint file, which is removed after the training; "" for none
	Resume                    bool     // whether to continue from Checkpoint; otherwise, an existing file is an error
	Threads                   uint32   // number of threads; 0 for that of the context
	TeacherCache              string   // path of a file that caches the teacher's outputs for later calls; "" for none
	TeacherTopK               uint64   // number of tokens or classes per distribution in the cache; 0 for 64
	Provider                  Provider // execution provider of teacher and student; ProviderTensorRT is ErrUnsupported
	DeviceID                  uint32   // index of the device, from 0; ignored for the CPU

	// Training is called after each step and each validation, on the goroutine that called Distill; nil for no calls.
	// If it returns an error, the training ends, a checkpoint is written if Checkpoint is set, and Distill returns the
	// error.
	Training func(TrainingStep) error
}

// TrainingStep is a training step or a validation, as DistillOptions.Training receives it.
type TrainingStep struct {
	Step, TotalSteps   uint64        // number of completed steps, and of planned steps
	Epoch, TotalEpochs uint32        // index of the epoch, from 0, and number of planned epochs
	IsValidation       bool          // whether this is a validation on held-out text
	Loss               float64       // training loss of this step, or loss of this validation
	GradientNorm       float64       // norm of the gradients before clipping; 0 for a validation
	LearningRate       float64       // learning rate of this step; 0 for a validation
	TokensPerSecond    float64       // number of tokens per second in this step; 0 for a validation
	Elapsed            time.Duration // training time until now, including that of the resumed run
	Left               time.Duration // estimated remaining time; 0 for a validation
}

// Distill trains student to reproduce the outputs of teacher on a text, and returns the trained model and a report;
// both models are unchanged. Either student or StudentLayers is required: with StudentLayers, student is nil.
//
// It fails with ErrUnsupported if a node of the student has no gradient or the models have no outputs in common, and
// with ErrNotFound if neither model has a tokenizer. It fails with ErrInvalidArgument if the text is too short, if
// there is a checkpoint and Resume is false, or if the checkpoint or the teacher cache belongs to another training.
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
	text := m.data(o.Text)
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
		teacher_cache:               m.textOrNil(o.TeacherCache),
		teacher_top_k:               C.uint64_t(o.TeacherTopK),
		provider:                    C.int32_t(o.Provider),
		device_id:                   C.uint32_t(o.DeviceID),
	}
	told := &training{tell: o.Training}
	if o.Training != nil {
		data, forget := userData(told)
		defer told.goOn()
		defer forget()
		options.training_user_data = data
		options.training = C.optimize_training_fn(C.optimize_go_training)
	}
	result, report, err := made(ctx, func(
		call *C.optimize_call_t, result **C.optimize_model_t, report **C.optimize_buffer_t, e errorOut,
	) status {
		return C.optimize_model_distill(context, from, to, text, C.size_t(len(o.Text)), &options, call, result, report, e)
	})
	if err != nil && told.err != nil {
		err = told.err
	}
	return result, report, err
}

// training is the user data of the training callback, which C calls.
type training struct {
	caught
	tell func(TrainingStep) error
	err  error // last result of tell
}

//export optimize_go_training
func optimize_go_training(userData unsafe.Pointer, step *C.training_step) (stop C.int32_t) {
	t := valueOf(userData).(*training)
	defer t.catch(&stop)
	if t.panicked != nil {
		return 1
	}
	seconds := func(value C.double) time.Duration { return time.Duration(float64(value) * float64(time.Second)) }
	t.err = t.tell(TrainingStep{
		Step:            uint64(step.step),
		TotalSteps:      uint64(step.total_steps),
		Epoch:           uint32(step.epoch),
		TotalEpochs:     uint32(step.total_epochs),
		IsValidation:    step.is_validation != 0,
		Loss:            float64(step.loss),
		GradientNorm:    float64(step.gradient_norm),
		LearningRate:    float64(step.learning_rate),
		TokensPerSecond: float64(step.tokens_per_second),
		Elapsed:         seconds(step.seconds),
		Left:            seconds(step.seconds_left),
	})
	if t.err != nil {
		return 1
	}
	return 0
}
