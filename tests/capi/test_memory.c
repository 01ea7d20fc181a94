/* Memory: limits of a context, and runs into memory of the program. */
#include "tap.h"

static optimize_context_t *limited(uint64_t bytes) {
    optimize_context_options_t options = {.struct_size = sizeof options, .memory_limit = bytes};
    optimize_context_t *context = NULL;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_context_new(&options, &context, &error));
    return context;
}

static optimize_status_t make_session(const optimize_context_t *context, const optimize_model_t *model,
                                      int32_t kernels, optimize_session_t **session, optimize_error_t **error) {
    optimize_session_options_t options = {.struct_size = sizeof options, .threads = 1, .kernels = kernels};
    return optimize_session_new(context, model, &options, NULL, session, error);
}

/* Runs the tiny model, whose first output is x + y. */
static void check_tiny_runs(const optimize_context_t *context) {
    static const float x_data[2] = {1, 2}, y_data[2] = {10, 20};
    static const int64_t dims[2] = {1, 2};
    optimize_model_t *model = load_tiny(context);
    optimize_session_t *session = new_session(context, model);
    optimize_tensor_t *x = NULL, *y = NULL, *s = NULL, *sum = NULL;
    const char *const string = "a", *const output = "sum";
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, dims, 2, x_data, sizeof x_data, &x, &error));
    CHECK_OK(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, dims, 2, y_data, sizeof y_data, &y, &error));
    CHECK_OK(optimize_tensor_new_strings(dims, 1, &string, NULL, 1, &s, &error));
    {
        const optimize_tensor_t *inputs[3] = {x, y, s};
        if (CHECK_OK(optimize_session_run(session, tiny_inputs, inputs, 3, &output, 1, NULL, &sum, &error)))
            CHECK(((const float *)optimize_tensor_data(sum))[1] == 22);
    }
    optimize_tensor_free(x);
    optimize_tensor_free(y);
    optimize_tensor_free(s);
    optimize_tensor_free(sum);
    optimize_session_free(session);
    optimize_model_free(model);
}

TEST(models_from_memory_count_until_nothing_uses_them) {
    size_t size;
    unsigned char *content = read_file(deps(MINILM "/model.onnx"), &size);
    optimize_context_t *context = limited(size + (1 << 20));
    optimize_model_t *model = NULL, *second = NULL;
    optimize_error_t *error = NULL;
    NEED(content != NULL);
    CHECK_OK(optimize_model_load_memory(context, content, size, NULL, &model, &error));
    CHECK_FAILS(optimize_model_load_memory(context, content, size, NULL, &second, &error), OPTIMIZE_LIMIT_EXCEEDED,
                "memory limit");
    CHECK(second == NULL);
    /* The limit does not count mapped files. */
    CHECK_OK(optimize_model_load(context, deps(MINILM "/model.onnx"), NULL, &second, &error));
    optimize_model_free(second);
    optimize_model_free(model);
    CHECK_OK(optimize_model_load_memory(context, content, size, NULL, &model, &error));
    optimize_model_free(model);
    optimize_context_free(context);
    free(content);
}

/* Returns the smallest of the limits 1, 2, 4 ... MB with which a session can be created. */
static uint64_t needed(const optimize_model_t *model, int32_t kernels) {
    optimize_session_t *session = NULL;
    optimize_error_t *error = NULL;
    uint64_t limit = (uint64_t)1 << 20;
    for (;; limit *= 2) {
        optimize_context_t *context = limited(limit);
        optimize_status_t status = make_session(context, model, kernels, &session, &error);
        optimize_session_free(session);
        if (status != OPTIMIZE_OK) {
            CHECK_FAILS(status, OPTIMIZE_LIMIT_EXCEEDED, "memory limit");
            check_tiny_runs(context);
        }
        optimize_context_free(context);
        if (status == OPTIMIZE_OK || limit > (uint64_t)1 << 32) return limit;
    }
}

TEST(sessions_that_need_too_much_are_refused) {
    optimize_context_t *context = new_context();
    optimize_model_t *model = load_model(context, MINILM "/model.onnx");
    uint64_t ours = needed(model, OPTIMIZE_KERNELS_AUTO), theirs = needed(model, OPTIMIZE_KERNELS_STOCK);
    /* The weights have 70 MB, of which 47 MB are embedding tables. */
    CHECK(ours >= (uint64_t)32 << 20 && ours <= (uint64_t)512 << 20);
    CHECK(theirs >= (uint64_t)32 << 20 && theirs <= (uint64_t)512 << 20);
    printf("# limits with which sessions were created: %llu and %llu MB\n", (unsigned long long)ours >> 20,
           (unsigned long long)theirs >> 20);
    optimize_model_free(model);
    optimize_context_free(context);
}

TEST(runs_that_need_too_much_are_refused_and_the_session_remains_usable) {
    optimize_context_t *plain = new_context(), *context;
    optimize_model_t *model = load_model(plain, MINILM "/model.onnx");
    optimize_session_t *session = NULL, *other = new_session(plain, model);
    text_t small = many_tokens(1, 16), large = many_tokens(256, 256);
    optimize_tensor_t *got = NULL, *wanted = NULL;
    optimize_error_t *error = NULL;
    for (int32_t kernels = OPTIMIZE_KERNELS_AUTO; kernels <= OPTIMIZE_KERNELS_STOCK; kernels++) {
        context = limited(needed(model, kernels) + ((uint64_t)16 << 20));
        CHECK_OK(make_session(context, model, kernels, &session, &error));
        for (int i = 0; i < 2; i++) {
            CHECK_OK(run_text(session, &small, MINILM_SENTENCE, NULL, &got, &error));
            CHECK_OK(run_text(other, &small, MINILM_SENTENCE, NULL, &wanted, &error));
            for (int j = 0; j < MINILM_WIDTH; j++)
                CHECK(fabs((double)(((const float *)optimize_tensor_data(got))[j] -
                                    ((const float *)optimize_tensor_data(wanted))[j])) < 1e-4);
            optimize_tensor_free(got);
            optimize_tensor_free(wanted);
            CHECK_FAILS(run_text(session, &large, MINILM_SENTENCE, NULL, &got, &error), OPTIMIZE_LIMIT_EXCEEDED,
                        "memory limit");
            CHECK(got == NULL);
        }
        optimize_context_free(context);
        optimize_session_free(session);
        session = NULL;
    }
    free_text(&small);
    free_text(&large);
    optimize_session_free(other);
    optimize_model_free(model);
    optimize_context_free(plain);
}

TEST(generators_need_memory_for_their_cache) {
    optimize_context_t *context = new_context(), *small = limited((uint64_t)8 << 20);
    optimize_model_t *model = load_model(context, "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    optimize_generator_t *generator = NULL;
    optimize_error_t *error = NULL;
    CHECK_FAILS(optimize_generator_new(small, model, NULL, NULL, &generator, &error), OPTIMIZE_LIMIT_EXCEEDED,
                "memory limit");
    optimize_model_free(model);
    optimize_context_free(small);
    optimize_context_free(context);
}

TEST(outputs_are_written_to_memory_of_the_program) {
    optimize_context_t *context = new_context();
    optimize_model_t *model = load_model(context, MINILM "/model.onnx");
    optimize_session_t *session = new_session(context, model);
    text_t text = many_tokens(2, 16);
    const optimize_tensor_t *inputs[2] = {text.ids, text.mask};
    static float vectors[2 * MINILM_WIDTH], tokens[2 * 16 * MINILM_WIDTH];
    static const int64_t vector_dims[2] = {2, MINILM_WIDTH}, token_dims[3] = {2, 16, MINILM_WIDTH};
    optimize_output_t outputs[2] = {
        {.struct_size = sizeof *outputs, .dtype = OPTIMIZE_DTYPE_FLOAT32, .name = MINILM_SENTENCE, .dims = vector_dims,
         .rank = 2, .data = vectors, .size = sizeof vectors},
        {.struct_size = sizeof *outputs, .dtype = OPTIMIZE_DTYPE_FLOAT32, .name = MINILM_TOKENS, .dims = token_dims,
         .rank = 3, .data = tokens, .size = sizeof tokens}};
    const optimize_output_t right = outputs[0];
    optimize_tensor_t *wanted = NULL;
    optimize_error_t *error = NULL;
    int64_t wrong[2] = {3, MINILM_WIDTH};
#define INTO(count) optimize_session_run_into(session, text_names, inputs, 2, outputs, count, NULL, &error)
    CHECK_OK(INTO(2));
    CHECK_OK(run_text(session, &text, MINILM_SENTENCE, NULL, &wanted, &error));
    CHECK(memcmp(optimize_tensor_data(wanted), vectors, sizeof vectors) == 0);
    optimize_tensor_free(wanted);
    CHECK_OK(run_text(session, &text, MINILM_TOKENS, NULL, &wanted, &error));
    CHECK(memcmp(optimize_tensor_data(wanted), tokens, sizeof tokens) == 0);
    optimize_tensor_free(wanted);

    outputs[0].name = "none";
    CHECK_FAILS(INTO(1), OPTIMIZE_NOT_FOUND, "none");
    outputs[0] = right;
    outputs[0].dtype = OPTIMIZE_DTYPE_INT32;
    CHECK_FAILS(INTO(1), OPTIMIZE_INVALID_ARGUMENT, "type");
    outputs[0] = right;
    outputs[0].dtype = OPTIMIZE_DTYPE_STRING;
    CHECK_FAILS(INTO(1), OPTIMIZE_UNSUPPORTED, "strings");
    outputs[0] = right;
    outputs[0].size--;
    CHECK_FAILS(INTO(1), OPTIMIZE_INVALID_ARGUMENT, "bytes");
    outputs[0] = right;
    outputs[0].data = (unsigned char *)vectors + 1;
    outputs[0].size -= MINILM_WIDTH * 4;
    wrong[0] = 1;
    outputs[0].dims = wrong;
    CHECK_FAILS(INTO(1), OPTIMIZE_INVALID_ARGUMENT, "aligned");
    /* The batch size is dynamic, so only the run shows that it is not 1. */
    outputs[0].data = vectors;
    CHECK_FAILS(INTO(1), OPTIMIZE_INVALID_ARGUMENT, NULL);
    outputs[0] = right;
    outputs[0].data = NULL;
    CHECK_FAILS(INTO(1), OPTIMIZE_INVALID_ARGUMENT, "data");
    outputs[0] = right;
    outputs[0].struct_size = 3;
    CHECK_FAILS(INTO(1), OPTIMIZE_INVALID_ARGUMENT, "struct_size");
    outputs[0] = right;
    outputs[1] = right;
    CHECK_FAILS(INTO(2), OPTIMIZE_INVALID_ARGUMENT, "twice");
    memset(vectors, 0, sizeof vectors);
    CHECK_OK(INTO(1));
    CHECK(vectors[0] != 0);
    free_text(&text);
    optimize_session_free(session);
    optimize_model_free(model);
    optimize_context_free(context);
}

int main(void) {
    RUN(models_from_memory_count_until_nothing_uses_them);
    RUN_UNLESS_VALGRIND(sessions_that_need_too_much_are_refused);
    RUN_UNLESS_VALGRIND(runs_that_need_too_much_are_refused_and_the_session_remains_usable);
    RUN_UNLESS_VALGRIND(generators_need_memory_for_their_cache);
    RUN(outputs_are_written_to_memory_of_the_program);
    return tap_end();
}
