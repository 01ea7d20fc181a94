/* Packages through C: written, moved, opened read-only, their shapes enforced, damage found. */
#include "tap.h"

#include <sys/stat.h>

static optimize_context_t *context;
static optimize_model_t *model;

static const char *const ranges = "{\"input_ids\": {\"0\": {\"name\": \"batch\", \"min\": 1, \"max\": 4},"
                                  " \"1\": {\"name\": \"length\", \"min\": 2, \"max\": 16}},"
                                  " \"attention_mask\": {\"0\": {\"name\": \"batch\", \"min\": 1, \"max\": 4},"
                                  " \"1\": {\"name\": \"length\", \"min\": 2, \"max\": 16}}}";

/* Runs a model on rows of some length. */
static optimize_status_t run(optimize_session_t *session, int64_t rows, int64_t length, optimize_error_t **error) {
    static int64_t ids[64 * 64], mask[64 * 64];
    const int64_t dims[2] = {rows, length};
    const size_t size = (size_t)(rows * length) * sizeof(int64_t);
    const char *const names[2] = {"input_ids", "attention_mask"};
    optimize_tensor_t *inputs[2] = {NULL, NULL}, *outputs[16] = {NULL};
    const char *const wanted[1] = {"461"};
    for (int64_t i = 0; i < rows * length; i++) ids[i] = 1000 + i, mask[i] = 1;
    NEED(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, dims, 2, ids, size, &inputs[0], NULL) == OPTIMIZE_OK);
    NEED(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, dims, 2, mask, size, &inputs[1], NULL) == OPTIMIZE_OK);
    const optimize_tensor_t *given[2] = {inputs[0], inputs[1]};
    const optimize_status_t status = optimize_session_run(session, names, given, 2, wanted, 1, NULL, outputs, error);
    optimize_tensor_free(inputs[0]);
    optimize_tensor_free(inputs[1]);
    optimize_tensor_free(outputs[0]);
    return status;
}

TEST(a_package_is_moved_and_keeps_its_shapes) {
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    optimize_compile_options_t options = {.struct_size = sizeof options, .dynamic = 1, .dynamic_shapes = ranges};
    char made[4096], moved[4096], file[8192];
    snprintf(made, sizeof made, "%s", temporary("package"));
    snprintf(moved, sizeof moved, "%s", temporary("package-moved"));
    CHECK_OK(optimize_package_compile(model, made, &options, NULL, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"operation\": \"compile\"");
    optimize_buffer_free(report);
    NEED(rename(made, moved) == 0);
    snprintf(file, sizeof file, "%s/model/portable/model.onnx", moved);
    NEED(chmod(file, 0400) == 0 && chmod(moved, 0500) == 0);
    optimize_model_t *opened = NULL;
    optimize_session_t *session = NULL;
    CHECK_OK(optimize_model_load(context, moved, NULL, &opened, &error));
    CHECK_OK(optimize_session_new(context, opened, NULL, NULL, &session, &error));
    CHECK_OK(run(session, 3, 9, &error));
    CHECK_FAILS(run(session, 5, 9, &error), OPTIMIZE_INVALID_ARGUMENT, "dimension 0 is 5; the package takes 1 to 4");
    CHECK_FAILS(run(session, 2, 1, &error), OPTIMIZE_INVALID_ARGUMENT, "dimension 1 is 1; the package takes 2 to 16");
    optimize_tokenizer_t *tokenizer = NULL;
    CHECK_OK(optimize_model_tokenizer(opened, &tokenizer, &error));
    CHECK_OK(optimize_package_verify(moved, NULL, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"files\"");
    optimize_tokenizer_free(tokenizer);
    optimize_buffer_free(report);
    optimize_session_free(session);
    optimize_model_free(opened);
    NEED(chmod(file, 0600) == 0 && chmod(moved, 0700) == 0);
    FILE *model_file = fopen(file, "r+b");
    NEED(model_file != NULL && fseek(model_file, 1 << 20, SEEK_SET) == 0);
    const int byte = fgetc(model_file);
    NEED(fseek(model_file, 1 << 20, SEEK_SET) == 0 && fputc(byte ^ 4, model_file) != EOF && fclose(model_file) == 0);
    CHECK_FAILS(optimize_package_verify(moved, NULL, NULL, &error), OPTIMIZE_INVALID_MODEL, "model.onnx");
}

TEST(ranges_that_mean_nothing_are_refused) {
    optimize_error_t *error = NULL;
    optimize_compile_options_t options = {.struct_size = sizeof options, .dynamic = 1};
    const char *path = temporary("never");
    options.dynamic_shapes = "{\"input_ids\": {\"0\": {\"min\": 3, \"max\": 2}}}";
    CHECK_FAILS(optimize_package_compile(model, path, &options, NULL, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "min is 3");
    options.dynamic_shapes = "{\"input_ids\": {\"2\": {}}}";
    CHECK_FAILS(optimize_package_compile(model, path, &options, NULL, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "no dimension 2");
    options.dynamic_shapes = NULL;
    options.dynamic = 0;
    options.batch_max = 4;
    CHECK_FAILS(optimize_package_compile(model, path, &options, NULL, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "batch");
    CHECK_FAILS(optimize_package_verify(path, NULL, NULL, &error), OPTIMIZE_NOT_FOUND, "manifest.json");
}

int main(void) {
    NEED(optimize_context_new(NULL, &context, NULL) == OPTIMIZE_OK);
    NEED(optimize_model_load(context, deps("models/paraphrase-MiniLM-L3-v2"), NULL, &model, NULL) == OPTIMIZE_OK);
    RUN(a_package_is_moved_and_keeps_its_shapes);
    RUN(ranges_that_mean_nothing_are_refused);
    optimize_model_free(model);
    optimize_context_free(context);
    return tap_end();
}
