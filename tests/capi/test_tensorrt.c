/* TensorRT engines through C: built, reused, cancelled, checked, refused. */
#include "tap.h"

static optimize_context_t *context;
static optimize_model_t *model;

static optimize_tensorrt_options_t sizes(void) {
    optimize_tensorrt_options_t options = {.struct_size = sizeof options};
    options.batch_size = 1;
    options.sequence_length = 16;
    options.library = deps("tensorrt-rtx");
    return options;
}

TEST(an_engine_is_built_and_then_reused) {
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    optimize_tensorrt_options_t options = sizes();
    options.precision = OPTIMIZE_PRECISION_FP16;
    const char *path = temporary("capi.engine");
    CHECK_OK(optimize_model_build_tensorrt(context, model, path, &options, NULL, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"reused\": false");
    CHECK(number_after(optimize_buffer_data(report), "error", "relative") < 0.01);
    optimize_buffer_free(report);
    CHECK_OK(optimize_model_build_tensorrt(context, model, path, &options, NULL, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"reused\": true");
    optimize_buffer_free(report);
    options.batch_size = 2;
    options.refuse_mismatch = 1;
    CHECK_FAILS(optimize_model_build_tensorrt(context, model, path, &options, NULL, NULL, &error), OPTIMIZE_MISMATCH,
                "profiles");
    CHECK_FAILS(optimize_tensorrt_check(context, path, model, 0, NULL, NULL, &error), OPTIMIZE_UNTRUSTED, "trust");
}

static int32_t refuse(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    (void)user_data, (void)done, (void)total;
    return strcmp(stage, "build") == 0;
}

TEST(a_build_is_cancelled_and_leaves_nothing) {
    optimize_error_t *error = NULL;
    optimize_tensorrt_options_t options = sizes();
    optimize_call_t call = {.struct_size = sizeof call};
    call.progress = refuse;
    const char *path = temporary("cancelled.engine");
    CHECK_FAILS(optimize_model_build_tensorrt(context, model, path, &options, &call, NULL, &error), OPTIMIZE_CANCELLED,
                NULL);
    CHECK(!file_exists(path));
}

TEST(what_is_missing_is_said) {
    optimize_error_t *error = NULL;
    optimize_tensorrt_options_t options = sizes();
    const char *path = temporary("never.engine");
    options.sequence_length = 0;
    CHECK_FAILS(optimize_model_build_tensorrt(context, model, path, &options, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "input_ids");
    options = sizes();
    options.library = temporary("no such folder");
    CHECK_FAILS(optimize_model_build_tensorrt(context, model, path, &options, NULL, NULL, &error),
                OPTIMIZE_BACKEND_MISSING, "libtensorrt_rtx.so.1");
    CHECK_FAILS(optimize_tensorrt_check(context, path, NULL, 1, NULL, NULL, &error), OPTIMIZE_NOT_FOUND, "never");
    CHECK(!file_exists(path));
}

int main(void) {
    NEED(optimize_context_new(NULL, &context, NULL) == OPTIMIZE_OK);
    NEED(optimize_model_load(context, deps(MINILM), NULL, &model, NULL) == OPTIMIZE_OK);
    RUN_UNLESS_VALGRIND(an_engine_is_built_and_then_reused);
    RUN_UNLESS_VALGRIND(a_build_is_cancelled_and_leaves_nothing);
    RUN(what_is_missing_is_said);
    optimize_model_free(model);
    optimize_context_free(context);
    return tap_end();
}
