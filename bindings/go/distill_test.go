package optimize

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func sentences() string {
	var text strings.Builder
	for i := 0; i < 120; i++ {
		fmt.Fprintf(&text, "Story number %d tells of a %s who %s.\n", i,
			[]string{"baker", "sailor", "teacher"}[i%3], []string{"sings", "waits", "travels", "paints"}[i%4])
	}
	return text.String()
}

func TestDistill(t *testing.T) {
	library, teacher, _ := load(t)
	options := &DistillOptions{
		Text: sentences(), StudentLayers: "layers:2", MaxSteps: 6, SequenceLength: 16, LearningRate: 3e-4, Threads: 1,
	}
	var steps, measurements int
	options.Training = func(step TrainingStep) error {
		if step.IsValidation {
			measurements++
		} else if steps++; step.Step != uint64(steps) || step.TotalSteps != 6 || step.Loss <= 0 || step.LearningRate <= 0 {
			t.Errorf("step %d: %+v", steps, step)
		}
		return nil
	}
	options.TeacherCache = filepath.Join(tempDir(t), "answers")
	student, report, err := library.Distill(ctx, teacher, nil, options)
	if err != nil {
		t.Fatal(err)
	}
	defer student.Close()
	if steps != 6 || measurements < 2 {
		t.Errorf("told of %d steps and %d measurements", steps, measurements)
	}
	if answers, err := os.Stat(options.TeacherCache); err != nil || answers.Size() < 10000 {
		t.Errorf("the teacher's answers: %v", err)
	}
	calls, enough := 0, errors.New("enough")
	options.Training = func(TrainingStep) error {
		calls++
		return enough
	}
	if _, _, err := library.Distill(ctx, teacher, nil, options); err != enough || calls != 1 {
		t.Errorf("an error of the callback came out as %v after %d calls", err, calls)
	}
	options.Training = func(TrainingStep) error { panic("enough") }
	if again := panics(func() { library.Distill(ctx, teacher, nil, options) }); again != "enough" {
		t.Errorf("a panic in the callback came out as %v", again)
	}
	options.Training = nil
	if report.Operation != "distill" || report.Summary["loss_after"].(float64) >= report.Summary["loss_before"].(float64) {
		t.Errorf("report says %+v", report.Summary)
	}
	options.StudentLayers = ""
	again, _, err := library.Distill(ctx, teacher, student, options)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if must(again.Inspect()).Parameters != must(student.Inspect()).Parameters {
		t.Error("the student has other weights")
	}
}

func panics(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func TestDistillRefuses(t *testing.T) {
	library, teacher, _ := load(t)
	_, _, err := library.Distill(ctx, teacher, nil, &DistillOptions{Text: sentences(), StudentLayers: "layers:9"})
	if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "a teacher of 3") {
		t.Errorf("nine layers: %v", err)
	}
	checkpoint := filepath.Join(tempDir(t), "nothing", "here")
	options := &DistillOptions{
		Text: sentences(), StudentLayers: "layers:1", MaxSteps: 2, SequenceLength: 8, CheckpointEvery: 1, Checkpoint: checkpoint,
	}
	if _, _, err = library.Distill(ctx, teacher, nil, options); err == nil || !strings.Contains(err.Error(), checkpoint) {
		t.Errorf("no folder for the checkpoint: %v", err)
	}
}
