/* Benchmark: two models side by side. */
#include "tap.h"

static optimize_context_t *context;
static optimize_tokenizer_t *tokenizer;
static optimize_model_t *minilm, *small;

static const char *const texts[2] = {"A man is eating food.", "The stock market fell sharply."};

TEST(original_and_result_are_measured_on_texts) {
    optimize_benchmark_options_t options = {.struct_size = sizeof options, .runs = 10, .warmup = 2, .threads = 1};
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    options.texts = texts;
    options.text_count = 2;
    options.sequence_length = 32;
    CHECK_OK(optimize_model_benchmark(context, minilm, small, tokenizer, &options, NULL, &report, &error));
    const char *json = optimize_buffer_data(report);
    CHECK_HAS(json, "\"operation\": \"benchmark\"");
    CHECK_HAS(json, "\"inputs\": \"text\"");
    CHECK_INT(number_after(json, "\"benchmark\"", "runs"), 10);
    CHECK(number_after(json, "\"latency_ms\"", "median") > 0);
    CHECK(number_after(json, "\"speedup\"", "low") <= number_after(json, "\"speedup\"", "median"));
    CHECK(number_after(json, "\"speedup\"", "high") >= number_after(json, "\"speedup\"", "median"));
    CHECK(number_after(json, "\"benchmark\"", "size_ratio") > 3);
    CHECK(number_after(json, "\"quality\"", "cosine") > 0.99);
    CHECK_INT(number_after(json, "\"quality\"", "samples"), 2);
    optimize_buffer_free(report);
}

TEST(without_a_tokenizer_inputs_are_generated) {
    static const char *const shapes[2] = {"input_ids:2x8", "attention_mask:2x8"}, *const values[1] = {"attention_mask:1"};
    optimize_benchmark_options_t options = {.struct_size = sizeof options, .runs = 5, .warmup = 1};
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    CHECK_OK(optimize_model_benchmark(context, minilm, small, NULL, &options, NULL, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"inputs\": \"generated\"");
    optimize_buffer_free(report);
    options.shapes = shapes;
    options.shape_count = 2;
    options.values = values;
    options.value_count = 1;
    CHECK_OK(optimize_model_benchmark(context, minilm, small, NULL, &options, NULL, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"inputs\": \"generated\"");
    CHECK(number_after(optimize_buffer_data(report), "\"quality\"", "cosine") > 0.9);
    optimize_buffer_free(report);
}

TEST(given_tensors_are_what_is_measured_on) {
    int64_t shape[2] = {3, 8}, ids[24], mask[24];
    const char *names[2] = {"input_ids", "attention_mask"};
    optimize_benchmark_options_t options = {.struct_size = sizeof options, .runs = 5, .warmup = 1};
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    optimize_tensor_t *tensors[2] = {NULL, NULL};
    for (int i = 0; i < 24; i++) ids[i] = 1000 + 37 * i, mask[i] = 1;
    CHECK_OK(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, shape, 2, ids, sizeof ids, &tensors[0], &error));
    CHECK_OK(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, shape, 2, mask, sizeof mask, &tensors[1], &error));
    options.input_names = names;
    options.input_tensors = (const optimize_tensor_t *const *)tensors;
    options.input_count = 2;
    CHECK_OK(optimize_model_benchmark(context, minilm, small, NULL, &options, NULL, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"inputs\": \"given\"");
    CHECK_INT(number_after(optimize_buffer_data(report), "\"quality\"", "samples"), 3);
    optimize_buffer_free(report);
    names[1] = "nothing";
    CHECK_FAILS(optimize_model_benchmark(context, minilm, small, NULL, &options, NULL, &report, &error),
                OPTIMIZE_NOT_FOUND, "nothing");
    options.input_tensors = NULL;
    CHECK_FAILS(optimize_model_benchmark(context, minilm, small, NULL, &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "input_tensors");
    optimize_tensor_free(tensors[0]);
    optimize_tensor_free(tensors[1]);
}

TEST(a_model_equals_itself) {
    optimize_benchmark_options_t options = {.struct_size = sizeof options, .runs = 5, .warmup = 1, .threads = 1};
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    options.sequence_length = 8;
    CHECK_OK(optimize_model_benchmark(context, minilm, minilm, tokenizer, &options, NULL, &report, &error));
    CHECK(number_after(optimize_buffer_data(report), "\"quality\"", "cosine") > 0.999999);
    CHECK(number_after(optimize_buffer_data(report), "\"benchmark\"", "size_ratio") == 1);
    optimize_buffer_free(report);
}

TEST(options_are_checked) {
    static const char *const bad_shapes[1] = {"input_ids:2xx"}, *const unknown[1] = {"nothing:2x2"};
    optimize_benchmark_options_t options = {.struct_size = sizeof options, .runs = 5};
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    options.texts = texts;
    options.text_count = 2;
    CHECK_FAILS(optimize_model_benchmark(context, minilm, small, NULL, &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "tokenizer");
    options.texts = NULL;
    CHECK_FAILS(optimize_model_benchmark(context, minilm, small, tokenizer, &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "texts");
    options.text_count = 0;
    options.shapes = bad_shapes;
    options.shape_count = 1;
    CHECK_FAILS(optimize_model_benchmark(context, minilm, small, NULL, &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "2xx");
    options.shapes = unknown;
    CHECK_FAILS(optimize_model_benchmark(context, minilm, small, NULL, &options, NULL, &report, &error),
                OPTIMIZE_NOT_FOUND, "nothing");
    CHECK(report == NULL);
}

TEST(models_with_other_inputs_cannot_be_compared) {
    optimize_benchmark_options_t options = {.struct_size = sizeof options, .runs = 5};
    optimize_model_t *tiny = load_tiny(context);
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    CHECK_FAILS(optimize_model_benchmark(context, minilm, tiny, tokenizer, &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, NULL);
    CHECK(report == NULL);
    optimize_model_free(tiny);
}

typedef struct seen_t {
    thrd_t thread;
    int calls, wrong;
    int32_t answer;
} seen_t;

static int32_t see(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    seen_t *seen = user_data;
    seen->calls++;
    seen->wrong += !thrd_equal(thrd_current(), seen->thread) || stage[0] == '\0' || (total != 0 && done > total);
    return seen->answer;
}

TEST(progress_can_cancel) {
    optimize_benchmark_options_t options = {.struct_size = sizeof options, .runs = 5, .warmup = 1};
    seen_t seen = {.thread = thrd_current()};
    optimize_call_t call = {.struct_size = sizeof call, .progress = see, .user_data = &seen};
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    options.sequence_length = 8;
    CHECK_OK(optimize_model_benchmark(context, minilm, small, tokenizer, &options, &call, &report, &error));
    optimize_buffer_free(report);
    CHECK(seen.calls > 0);
    CHECK_INT(seen.wrong, 0);
    seen.answer = 1;
    CHECK_FAILS(optimize_model_benchmark(context, minilm, small, tokenizer, &options, &call, &report, &error),
                OPTIMIZE_CANCELLED, NULL);
    CHECK(report == NULL);
}

TEST(tokens_and_timeouts_end_it) {
    optimize_benchmark_options_t options = {.struct_size = sizeof options, .runs = 1000000, .max_milliseconds = 600000};
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    optimize_call_t call = {.struct_size = sizeof call, .timeout_ms = 300};
    firing_t firing;
    double start = seconds_now();
    CHECK_FAILS(optimize_model_benchmark(context, minilm, small, tokenizer, &options, &call, &report, &error),
                OPTIMIZE_TIMEOUT, NULL);
    CHECK(seconds_now() - start < 20);
    start_firing(&firing, 0.3);
    call.timeout_ms = 0;
    call.cancel = firing.cancel;
    CHECK_FAILS(optimize_model_benchmark(context, minilm, small, tokenizer, &options, &call, &report, &error),
                OPTIMIZE_CANCELLED, NULL);
    end_firing(&firing);
    CHECK(report == NULL);
    CHECK(seconds_now() - start < 40);
}

int main(void) {
    optimize_error_t *error = NULL;
    context = new_context();
    tokenizer = load_tokenizer();
    minilm = load_model(context, MINILM);
    tap_need(optimize_model_quantize(context, minilm, NULL, NULL, &small, NULL, &error), error, "optimize_model_quantize");
    RUN_UNLESS_VALGRIND(original_and_result_are_measured_on_texts);
    RUN_UNLESS_VALGRIND(without_a_tokenizer_inputs_are_generated);
    RUN_UNLESS_VALGRIND(given_tensors_are_what_is_measured_on);
    RUN_UNLESS_VALGRIND(a_model_equals_itself);
    RUN(options_are_checked);
    RUN(models_with_other_inputs_cannot_be_compared);
    RUN_UNLESS_VALGRIND(progress_can_cancel);
    RUN_UNLESS_VALGRIND(tokens_and_timeouts_end_it);
    optimize_model_free(small);
    optimize_model_free(minilm);
    optimize_tokenizer_free(tokenizer);
    optimize_context_free(context);
    return tap_end();
}
