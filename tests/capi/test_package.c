/* Packages through C: writing, moving, opening read-only, enforcing shapes, detecting damage. */
#include "tap.h"

#include <sys/stat.h>

static optimize_context_t *context;
static optimize_model_t *model;

static const char *const ranges = "{\"input_ids\": {\"0\": {\"name\": \"batch\", \"min\": 1, \"max\": 4},"
                                  " \"1\": {\"name\": \"length\", \"min\": 2, \"max\": 16}},"
                                  " \"attention_mask\": {\"0\": {\"name\": \"batch\", \"min\": 1, \"max\": 4},"
                                  " \"1\": {\"name\": \"length\", \"min\": 2, \"max\": 16}}}";

/* Runs a model on `rows` rows of `length` tokens. */
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

/* Makes a package as a folder or as one file, moves it, makes it read-only, opens it and runs it. */
static void moved_package(const char *name, uint32_t single_file) {
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    optimize_package_compile_options_t options = {.struct_size = sizeof options, .dynamic = 1, .dynamic_shapes = ranges};
    options.single_file = single_file;
    char made[2048], moved[4096], file[8192];
    snprintf(made, sizeof made, "%s", temporary(name));
    snprintf(moved, sizeof moved, "%s.moved", made);
    CHECK_OK(optimize_package_compile(context, model, made, &options, NULL, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"sha256\"");
    optimize_buffer_free(report);
    NEED(rename(made, moved) == 0 && chmod(moved, single_file ? 0400 : 0500) == 0);
    optimize_package_t *package = NULL;
    optimize_session_t *session = NULL;
    CHECK_OK(optimize_package_open(moved, NULL, &package, &error));
    CHECK_OK(optimize_package_session(context, package, NULL, NULL, &session, &error));
    CHECK_OK(run(session, 3, 9, &error));
    CHECK_FAILS(run(session, 5, 9, &error), OPTIMIZE_INVALID_ARGUMENT, "5");
    CHECK_FAILS(run(session, 2, 1, &error), OPTIMIZE_INVALID_ARGUMENT, "length");
    optimize_tokenizer_t *tokenizer = NULL;
    CHECK_OK(optimize_package_tokenizer(package, &tokenizer, &error));
    CHECK_OK(optimize_package_inspect(context, package, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"chosen\"");
    CHECK_OK(optimize_package_verify(package, NULL, NULL, &error));
    /* A package can be loaded as a model. */
    optimize_model_t *opened = NULL;
    CHECK_OK(optimize_model_load(context, moved, NULL, &opened, &error));
    optimize_generator_t *generator = NULL;
    CHECK_FAILS(optimize_package_generator(context, package, NULL, NULL, &generator, &error), OPTIMIZE_UNSUPPORTED, NULL);
    optimize_model_free(opened);
    optimize_tokenizer_free(tokenizer);
    optimize_buffer_free(report);
    optimize_session_free(session);
    optimize_package_free(package);
    snprintf(file, sizeof file, single_file ? "%s" : "%s/shared/weights.safetensors", moved);
    NEED(chmod(moved, 0700) == 0 && chmod(file, 0600) == 0);
    FILE *damaged = fopen(file, "r+b");
    NEED(damaged != NULL && fseek(damaged, 1 << 20, SEEK_SET) == 0);
    const int byte = fgetc(damaged);
    NEED(fseek(damaged, 1 << 20, SEEK_SET) == 0 && fputc(byte ^ 4, damaged) != EOF && fclose(damaged) == 0);
    CHECK_OK(optimize_package_open(moved, NULL, &package, &error));
    CHECK_FAILS(optimize_package_verify(package, NULL, NULL, &error), OPTIMIZE_INVALID_MODEL, "weights.safetensors");
    optimize_package_free(package);
}

TEST(a_folder_is_moved_and_keeps_its_shapes) { moved_package("package", 0); }

TEST(one_file_is_moved_and_keeps_its_shapes) { moved_package("package.one", 1); }

TEST(ranges_that_mean_nothing_are_refused) {
    optimize_error_t *error = NULL;
    optimize_package_compile_options_t options = {.struct_size = sizeof options, .dynamic = 1};
    optimize_package_t *package = NULL;
    const char *path = temporary("never");
    const optimize_status_t invalid = OPTIMIZE_INVALID_ARGUMENT;
    options.dynamic_shapes = "{\"input_ids\": {\"0\": {\"name\": \"batch\", \"min\": 3, \"max\": 2}}}";
    CHECK_FAILS(optimize_package_compile(context, model, path, &options, NULL, NULL, &error), invalid, "3");
    options.dynamic_shapes = "{\"input_ids\": {\"2\": {\"name\": \"batch\", \"min\": 1, \"max\": 2}}}";
    CHECK_FAILS(optimize_package_compile(context, model, path, &options, NULL, NULL, &error), invalid, "2");
    options.dynamic_shapes = NULL;
    options.batch_min = 5;
    options.batch_max = 4;
    CHECK_FAILS(optimize_package_compile(context, model, path, &options, NULL, NULL, &error), invalid, "batch");
    CHECK_FAILS(optimize_package_open(path, NULL, &package, &error), OPTIMIZE_NOT_FOUND, "never");
    CHECK(package == NULL);
    options.batch_min = options.batch_max = 0;
    CHECK_FAILS(optimize_package_compile(context, model, temporary("nowhere/at/all"), &options, NULL, NULL, &error),
                OPTIMIZE_NOT_FOUND, "nowhere");
}

TEST(ranges_as_structs_and_a_key) {
    optimize_error_t *error = NULL;
    const char *one = "0101010101010101010101010101010101010101010101010101010101010101";
    /* The Ed25519 public key of the secret key `one`. */
    const char *public_one = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    const uint32_t size = sizeof(optimize_dimension_t);
    optimize_dimension_t dimensions[4] = {{size, 0, "input_ids", "rows", 1, 3}, {size, 1, "0", "length", 2, 0},
                                          {size, 0, "attention_mask", "rows", 1, 3}, {size, 1, "1", "length", 2, 0}};
    optimize_package_compile_options_t options = {.struct_size = sizeof options, .sign_key = one, .portable_only = 1};
    options.dimensions = dimensions;
    options.dimension_count = 4;
    /* Two structs name the same input, one by name and the other by position, which is an error. */
    const optimize_status_t invalid = OPTIMIZE_INVALID_ARGUMENT;
    const char *path = temporary("structs");
    CHECK_FAILS(optimize_package_compile(context, model, path, &options, NULL, NULL, &error), invalid, "position");
    dimensions[1].input = "input_ids";
    dimensions[3].input = "attention_mask";
    CHECK_OK(optimize_package_compile(context, model, path, &options, NULL, NULL, &error));
    optimize_package_t *package = NULL;
    optimize_session_t *session = NULL;
    CHECK_OK(optimize_package_open(path, NULL, &package, &error));
    CHECK_OK(optimize_package_verify(package, public_one, NULL, &error));
    CHECK_FAILS(optimize_package_verify(package, one, NULL, &error), OPTIMIZE_INVALID_MODEL, "another key");
    CHECK_FAILS(optimize_package_verify(package, "01", NULL, &error), invalid, "hexadecimal");
    CHECK_OK(optimize_package_session(context, package, NULL, NULL, &session, &error));
    CHECK_OK(run(session, 3, 20, &error));
    CHECK_FAILS(run(session, 4, 20, &error), invalid, "rows");
    optimize_session_free(session);
    optimize_package_free(package);
    options.sign_key = NULL;
    options.packed = 1;
    CHECK_OK(optimize_package_compile(context, model, path, &options, NULL, NULL, &error));
    CHECK_OK(optimize_package_open(path, NULL, &package, &error));
    CHECK_FAILS(optimize_package_verify(package, public_one, NULL, &error), OPTIMIZE_INVALID_MODEL, "not signed");
    CHECK_OK(optimize_package_session(context, package, NULL, NULL, &session, &error));
    CHECK_OK(run(session, 3, 20, &error));
    optimize_session_free(session);
    optimize_package_free(package);
    options.dynamic_shapes = ranges;
    CHECK_FAILS(optimize_package_compile(context, model, path, &options, NULL, NULL, &error), invalid, "already");
    options.dynamic_shapes = NULL;
    dimensions[2].min = 4;
    CHECK_FAILS(optimize_package_compile(context, model, path, &options, NULL, NULL, &error), invalid, "rows");
    options.dimensions = NULL;
    CHECK_FAILS(optimize_package_compile(context, model, path, &options, NULL, NULL, &error), invalid, "dimension_count is 4");
}

int main(void) {
    NEED(optimize_context_new(NULL, &context, NULL) == OPTIMIZE_OK);
    NEED(optimize_model_load(context, deps("models/paraphrase-MiniLM-L3-v2"), NULL, &model, NULL) == OPTIMIZE_OK);
    RUN(a_folder_is_moved_and_keeps_its_shapes);
    RUN_UNLESS_VALGRIND(one_file_is_moved_and_keeps_its_shapes);
    RUN(ranges_that_mean_nothing_are_refused);
    RUN(ranges_as_structs_and_a_key);
    optimize_model_free(model);
    optimize_context_free(context);
    return tap_end();
}
