/* Distillation: a student of three layers learns from a teacher of six. */
#include "tap.h"

static optimize_context_t *context;
static optimize_model_t *teacher;
static char text[40000];
static size_t length;

static optimize_status_t distill(const optimize_distill_options_t *options, const optimize_call_t *call,
                                 optimize_model_t **result, optimize_buffer_t **report, optimize_error_t **error) {
    return optimize_model_distill(context, teacher, NULL, text, length, options, call, result, report, error);
}

static optimize_distill_options_t few_steps(uint64_t steps) {
    optimize_distill_options_t options = {.struct_size = sizeof options, .max_steps = steps};
    options.student_layers = "layers:every-other";
    options.batch_size = 4;
    options.sequence_length = 16;
    options.learning_rate = 3e-4;
    options.threads = 1;
    return options;
}

static double number_of(const char *json, const char *key) {
    char quoted[64];
    const char *at;
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    at = strstr(json, quoted);
    return at == NULL ? -1 : strtod(at + strlen(quoted), NULL);
}

typedef struct {
    int steps, measurements;
    double first, last;
    int limit; /* number of steps after which the callback cancels; 0 for never */
} seen_t;

static int32_t training(void *user_data, const optimize_training_step_t *step) {
    seen_t *seen = user_data;
    if (step->struct_size != sizeof *step || step->epoch >= step->total_epochs) seen->steps = -1000;
    if (step->is_validation) {
        if (seen->measurements++ == 0) seen->first = step->loss;
        seen->last = step->loss;
    } else {
        seen->steps++;
        if (step->step > step->total_steps || step->loss <= 0) seen->steps = -1000;
    }
    return seen->limit > 0 && seen->steps == seen->limit;
}

TEST(a_student_learns_and_says_how_well) {
    optimize_distill_options_t options = few_steps(24);
    optimize_model_t *student = NULL;
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    seen_t seen = {0, 0, 0, 0, 0};
    options.training = training;
    options.training_user_data = &seen;
    options.schedule = OPTIMIZE_SCHEDULE_CONSTANT;
    CHECK_OK(distill(&options, NULL, &student, &report, &error));
    CHECK_INT(seen.steps, 24);
    CHECK(seen.measurements > 3 && seen.last < 0.9 * seen.first);
    CHECK_HAS(optimize_buffer_data(report), "\"operation\": \"distill\"");
    CHECK_INT(number_of(optimize_buffer_data(report), "steps"), 24);
    CHECK(number_of(optimize_buffer_data(report), "loss_after") < number_of(optimize_buffer_data(report), "loss_before"));
    CHECK_HAS(optimize_buffer_data(report), "\"nearest_kept\"");
    CHECK_OK(optimize_model_save(student, temporary("student.onnx"), NULL, NULL, NULL, &error));
    optimize_buffer_free(report);
    optimize_model_free(student);
}

static int stop_at(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    (void)total;
    return strcmp(stage, "distill") == 0 && done >= *(uint64_t *)user_data;
}

TEST(what_was_cancelled_goes_on_to_the_same_end) {
    optimize_distill_options_t options = few_steps(8);
    uint64_t fifth = 5;
    optimize_call_t call = {.struct_size = sizeof call, .progress = stop_at, .user_data = &fifth};
    optimize_model_t *whole = NULL, *parts = NULL;
    optimize_error_t *error = NULL;
    size_t a_size, b_size;
    options.evaluate_every = 3;
    CHECK_OK(distill(&options, NULL, &whole, NULL, &error));
    options.checkpoint = temporary("student.checkpoint");
    CHECK_FAILS(distill(&options, &call, &parts, NULL, &error), OPTIMIZE_CANCELLED, "");
    CHECK_FAILS(distill(&options, NULL, &parts, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "unfinished");
    options.resume = 1;
    options.learning_rate = 1e-4;
    CHECK_FAILS(distill(&options, NULL, &parts, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "other options");
    options.learning_rate = 3e-4;
    CHECK_OK(distill(&options, NULL, &parts, NULL, &error));
    CHECK_OK(optimize_model_save(whole, temporary("whole.onnx"), NULL, NULL, NULL, &error));
    CHECK_OK(optimize_model_save(parts, temporary("parts.onnx"), NULL, NULL, NULL, &error));
    unsigned char *a = read_file(temporary("whole.onnx"), &a_size), *b = read_file(temporary("parts.onnx"), &b_size);
    CHECK(a_size == b_size && memcmp(a, b, a_size) == 0);
    free(a);
    free(b);
    optimize_model_free(whole);
    optimize_model_free(parts);
}

TEST(the_training_callback_cancels_and_a_checkpoint_is_left) {
    optimize_distill_options_t options = few_steps(8);
    optimize_model_t *student = NULL;
    optimize_error_t *error = NULL;
    seen_t seen = {0, 0, 0, 0, 3};
    options.training = training;
    options.training_user_data = &seen;
    options.checkpoint = temporary("ended.checkpoint");
    CHECK_FAILS(distill(&options, NULL, &student, NULL, &error), OPTIMIZE_CANCELLED, "");
    CHECK_INT(seen.steps, 3);
    seen.limit = 0;
    options.resume = 1;
    CHECK_OK(distill(&options, NULL, &student, NULL, &error));
    CHECK_INT(seen.steps, 8);
    optimize_model_free(student);
}

TEST(a_teacher_that_is_remembered_teaches_the_same) {
    optimize_distill_options_t options = few_steps(8);
    optimize_model_t *first = NULL, *second = NULL;
    optimize_error_t *error = NULL;
    size_t a_size, b_size;
    options.teacher_cache = temporary("answers.c");
    CHECK_OK(distill(&options, NULL, &first, NULL, &error));
    CHECK_OK(distill(&options, NULL, &second, NULL, &error));
    CHECK_OK(optimize_model_save(first, temporary("first.onnx"), NULL, NULL, NULL, &error));
    CHECK_OK(optimize_model_save(second, temporary("second.onnx"), NULL, NULL, NULL, &error));
    unsigned char *a = read_file(temporary("first.onnx"), &a_size), *b = read_file(temporary("second.onnx"), &b_size);
    CHECK(a_size == b_size && memcmp(a, b, a_size) == 0);
    free(a);
    free(b);
    optimize_model_free(first);
    optimize_model_free(second);
    first = NULL;
    options.sequence_length = 6;
    CHECK_FAILS(distill(&options, NULL, &first, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "another teacher, text");
}

TEST(wrong_calls_say_what_is_wrong) {
    optimize_distill_options_t options = few_steps(1);
    optimize_model_t *student = NULL;
    optimize_error_t *error = NULL;
    options.student_layers = NULL;
    CHECK_FAILS(distill(&options, NULL, &student, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "student_layers");
    options.student_layers = "layers:seven";
    CHECK_FAILS(distill(&options, NULL, &student, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "layers:seven");
    options.student_layers = "layers:7";
    CHECK_FAILS(distill(&options, NULL, &student, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "a teacher of 6");
    options.student_layers = "layers:2";
    length = 20;
    CHECK_FAILS(distill(&options, NULL, &student, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "at least 20");
    length = 0;
    CHECK_FAILS(distill(&options, NULL, &student, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "empty");
    length = strlen(text);
    options.labels_weight = 1;
    CHECK_FAILS(distill(&options, NULL, &student, NULL, &error), OPTIMIZE_UNSUPPORTED, "labels_weight");
    options.labels_weight = 0;
    options.divergence = 9;
    CHECK_FAILS(distill(&options, NULL, &student, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "optimize_divergence_t");
    options.divergence = 0;
    options.provider = OPTIMIZE_PROVIDER_TENSORRT;
    CHECK_FAILS(distill(&options, NULL, &student, NULL, &error), OPTIMIZE_UNSUPPORTED, "cpu, cuda or auto");
    options.provider = OPTIMIZE_PROVIDER_CPU;
    options.device_id = 1;
    CHECK_FAILS(distill(&options, NULL, &student, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "a device is given");
    options.device_id = 0;
    options.json_lines = 1;
    CHECK_FAILS(distill(&options, NULL, &student, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "line 1");
}

/* Fills `text` with 140 different sentences, and sets its `length`. */
static void write_text(void) {
    static const char *const who[] = {"The captain", "A young doctor", "Her brother", "The old gardener", "Nobody"};
    static const char *const what[] = {"repaired", "forgot", "painted", "sold", "found", "described", "lost"};
    static const char *const which[] = {"the wooden boat", "a letter from Paris", "seven red apples", "the broken clock"};
    size_t at = 0, i;
    for (i = 0; i < 140; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s %s %s.\n", who[i % 5], what[i % 7], which[i % 4]);
    length = at;
}

int main(void) {
    write_text();
    context = new_context();
    teacher = load_model(context, "models/all-MiniLM-L6-v2");
    RUN_UNLESS_VALGRIND(a_student_learns_and_says_how_well);
    RUN_UNLESS_VALGRIND(what_was_cancelled_goes_on_to_the_same_end);
    RUN_UNLESS_VALGRIND(the_training_callback_cancels_and_a_checkpoint_is_left);
    RUN_UNLESS_VALGRIND(a_teacher_that_is_remembered_teaches_the_same);
    RUN(wrong_calls_say_what_is_wrong);
    optimize_model_free(teacher);
    optimize_context_free(context);
    return tap_end();
}
