/* TensorRT engines through C: building, reuse, cancelling, checks, errors. */
#include "tap.h"

static optimize_context_t *context;
static optimize_model_t *model;

/* On a machine with a GPU, tests/gpu.sh sets OPTIMIZE_TEST_DEVICE, and the library in OPTIMIZE_TENSORRT_PATH is tested;
   otherwise, the TensorRT-RTX of tools/deps.sh is tested. */
static const char *on_device(void) { return getenv("OPTIMIZE_TEST_DEVICE"); }
static const char *libraries(void) {
    const char *path = getenv("OPTIMIZE_TENSORRT_PATH");
    return on_device() != NULL && path != NULL ? path : deps("tensorrt-rtx");
}
static const char *its_name(void) { return on_device() != NULL ? NULL : "libtensorrt_rtx.so.1"; }

static optimize_tensorrt_options_t sizes(void) {
    optimize_tensorrt_options_t options = {.struct_size = sizeof options};
    options.batch_size = 1;
    options.sequence_length = 16;
    options.library = libraries();
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

/* Reads the hash of the model from the manifest of an engine. */
static void model_sha256(const char *engine, char sha256[65]) {
    char path[4200];
    size_t size;
    snprintf(path, sizeof path, "%s.json", engine);
    char *manifest = (char *)read_file(path, &size);
    NEED(manifest != NULL);
    manifest[size] = '\0';
    char *at = strstr(manifest, "\"model_sha256\": \"");
    NEED(at != NULL && strlen(at) > 81);
    memcpy(sha256, at + 17, 64);
    sha256[64] = '\0';
    free(manifest);
}

static const char *const ways[3] = {"file", "package", "benchmark"};

/* Uses an engine in one of the three `ways`: the first two open it as `session`, the third benchmarks it. */
static optimize_status_t use_engine(int way, const char *path, const optimize_package_t *package,
                                    const optimize_tensorrt_open_options_t *options, optimize_session_t **session,
                                    optimize_error_t **error) {
    optimize_benchmark_options_t few = {.struct_size = sizeof few, .runs = 2, .warmup = 1, .sequence_length = 16};
    optimize_buffer_t *report = NULL;
    *session = NULL;
    if (way == 0) return optimize_tensorrt_open(context, path, options, NULL, session, error);
    if (way == 1) return optimize_package_engine(context, package, options, NULL, session, error);
    optimize_status_t status =
        optimize_model_benchmark_engine(context, model, path, NULL, options, &few, NULL, &report, error);
    if (status == OPTIMIZE_OK) CHECK_HAS(optimize_buffer_data(report), "\"provider\": \"tensorrt\"");
    optimize_buffer_free(report);
    return status;
}

/* Checks that the outputs are near those of the model on the CPU. */
static void compare_with_the_model(optimize_session_t *engine) {
    optimize_error_t *error = NULL;
    optimize_session_t *session = new_session(context, model);
    optimize_session_t *both[2] = {engine, session};
    optimize_tensor_t *outputs[2] = {NULL, NULL}, *twice[2] = {NULL, NULL};
    text_t text = many_tokens(1, 16), longer = many_tokens(1, 17);
    double product = 0, squares[2] = {0, 0};
    CHECK_INT(optimize_session_provider(engine), OPTIMIZE_PROVIDER_TENSORRT);
    CHECK_INT(optimize_session_input_count(engine), 2);
    for (int i = 0; i < 2; i++) CHECK_OK(run_text(both[i], &text, MINILM_SENTENCE, NULL, &outputs[i], &error));
    if (outputs[0] != NULL && outputs[1] != NULL) {
        const float *a = optimize_tensor_data(outputs[0]), *b = optimize_tensor_data(outputs[1]);
        CHECK_INT(optimize_tensor_size(outputs[0]), MINILM_WIDTH * sizeof(float));
        for (int i = 0; i < MINILM_WIDTH; i++) {
            product += (double)a[i] * b[i];
            squares[0] += (double)a[i] * a[i];
            squares[1] += (double)b[i] * b[i];
        }
        CHECK(product / sqrt(squares[0] * squares[1]) > 0.999);
    }
    const char *const same[2] = {MINILM_SENTENCE, MINILM_SENTENCE};
    const optimize_tensor_t *inputs[2] = {text.ids, text.mask};
    CHECK_FAILS(optimize_session_run(engine, text_names, inputs, 2, same, 2, NULL, twice, &error),
                OPTIMIZE_INVALID_ARGUMENT, "twice");
    CHECK_FAILS(run_text(engine, &text, "nothing", NULL, twice, &error), OPTIMIZE_NOT_FOUND, "nothing");
    CHECK_FAILS(run_text(engine, &longer, MINILM_SENTENCE, NULL, twice, &error), OPTIMIZE_INVALID_ARGUMENT, "17");
    optimize_tensor_free(outputs[0]);
    optimize_tensor_free(outputs[1]);
    free_text(&text);
    free_text(&longer);
    optimize_session_free(session);
}

/* With a valid engine, the errors that do not depend on a GPU are tested first, then the error of a missing GPU. */
TEST(an_engine_runs_where_a_device_is_and_is_refused_with_the_reason_elsewhere) {
    optimize_error_t *error = NULL;
    optimize_tensorrt_options_t built = sizes();
    const char *path = temporary("run.engine"), *folder = temporary("engine.package");
    char sha256[65];
    CHECK_OK(optimize_model_build_tensorrt(context, model, path, &built, NULL, NULL, &error));
    model_sha256(path, sha256);
    optimize_package_compile_options_t compiled = {.struct_size = sizeof compiled, .portable_only = 1, .dynamic = 1};
    compiled.engine = path;
    CHECK_OK(optimize_package_compile(context, model, folder, &compiled, NULL, NULL, &error));
    optimize_package_t *package = NULL;
    CHECK_OK(optimize_package_open(folder, NULL, &package, &error));
    for (int way = 0; way < 3; way++) {
        optimize_session_t *session = NULL;
        optimize_tensorrt_open_options_t options = {.struct_size = sizeof options};
        const char *other = "0000000000000000000000000000000000000000000000000000000000000000";
#define USE use_engine(way, path, package, &options, &session, &error)
        CHECK_FAILS(use_engine(way, path, package, NULL, &session, &error), OPTIMIZE_UNTRUSTED, "trust");
        CHECK_FAILS(USE, OPTIMIZE_UNTRUSTED, "trust");
        options.trust = 1;
        options.library = temporary("no such folder");
        CHECK_FAILS(USE, OPTIMIZE_BACKEND_MISSING, its_name());
        options.library = libraries();
        options.model_sha256 = other;
        CHECK_FAILS(USE, OPTIMIZE_MISMATCH, sha256);
        options.model_sha256 = "0123";
        CHECK_FAILS(USE, OPTIMIZE_INVALID_ARGUMENT, "model_sha256");
        options.model_sha256 = sha256;
        options.device_id = 4096;
        CHECK_FAILS(USE, OPTIMIZE_DEVICE_MISSING, NULL);
        options.device_id = 0;
        options.reserved = 1;
        CHECK_FAILS(USE, OPTIMIZE_INVALID_ARGUMENT, "reserved");
        options.reserved = 0;
        options.struct_size = 3;
        CHECK_FAILS(USE, OPTIMIZE_INVALID_ARGUMENT, "struct_size");
        options.struct_size = sizeof options;
        /* TensorRT-RTX may not support this machine's GPU. */
        optimize_status_t status = USE;
        printf("# %s: %s\n", ways[way], optimize_status_name(status));
        if (status == OPTIMIZE_OK && way < 2) compare_with_the_model(session);
        CHECK(status == OPTIMIZE_OK || status == OPTIMIZE_DEVICE_MISSING || status == OPTIMIZE_BACKEND);
        CHECK((session != NULL) == (status == OPTIMIZE_OK && way < 2));
        if (on_device() != NULL) CHECK_INT(status, OPTIMIZE_OK);
        optimize_error_free(error);
        error = NULL;
        optimize_session_free(session);
    }
    optimize_package_free(package);
}

TEST(what_is_no_engine_of_its_manifest_or_of_the_model_is_refused) {
    optimize_error_t *error = NULL;
    optimize_session_t *session = NULL;
    optimize_buffer_t *report = NULL;
    optimize_tensorrt_options_t built = sizes();
    optimize_tensorrt_open_options_t options = {.struct_size = sizeof options, .trust = 1};
    options.library = libraries();
    const char *path = temporary("damaged.engine");
    char manifest[4200];
    snprintf(manifest, sizeof manifest, "%s.json", path);
    CHECK_FAILS(optimize_tensorrt_open(context, path, &options, NULL, &session, &error), OPTIMIZE_NOT_FOUND, "damaged");
    CHECK_OK(optimize_model_build_tensorrt(context, model, path, &built, NULL, NULL, &error));
    optimize_model_t *tiny = load_tiny(context);
    CHECK_FAILS(optimize_model_benchmark_engine(context, tiny, path, NULL, &options, NULL, NULL, &report, &error),
                OPTIMIZE_MISMATCH, "another model");
    optimize_model_free(tiny);
    write_file(path, "junk", 4);
    CHECK_FAILS(optimize_tensorrt_open(context, path, &options, NULL, &session, &error), OPTIMIZE_INVALID_MODEL,
                "SHA-256");
    write_file(manifest, "{", 1);
    CHECK_FAILS(optimize_tensorrt_open(context, path, &options, NULL, &session, &error), OPTIMIZE_INVALID_MODEL,
                "manifest");
    remove(manifest);
    CHECK_FAILS(optimize_tensorrt_open(context, path, &options, NULL, &session, &error), OPTIMIZE_UNTRUSTED,
                "no manifest");
    CHECK_FAILS(optimize_tensorrt_open(context, NULL, &options, NULL, &session, &error), OPTIMIZE_INVALID_ARGUMENT,
                "path");
    CHECK_FAILS(optimize_tensorrt_open(context, path, &options, NULL, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "session");
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
    options.profiles = "[{\"nothing\": {\"opt\": [1, 16]}}]";
    CHECK_FAILS(optimize_model_build_tensorrt(context, model, path, &options, NULL, NULL, &error), OPTIMIZE_NOT_FOUND,
                "nothing");
    options = sizes();
    options.backend = OPTIMIZE_TENSORRT_RTX;
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
    RUN_UNLESS_VALGRIND(an_engine_runs_where_a_device_is_and_is_refused_with_the_reason_elsewhere);
    RUN_UNLESS_VALGRIND(what_is_no_engine_of_its_manifest_or_of_the_model_is_refused);
    RUN(what_is_missing_is_said);
    optimize_model_free(model);
    optimize_context_free(context);
    return tap_end();
}
