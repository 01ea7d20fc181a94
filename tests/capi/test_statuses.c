/* Statuses that no other test provokes: one call for each. */
#include "tap.h"

/* A GGUF file without tensors whose architecture is unknown. */
static const unsigned char unknown_gguf[] = "GGUF\003\0\0\0\0\0\0\0\0\0\0\0\001\0\0\0\0\0\0\0\024\0\0\0\0\0\0\0"
                                            "general.architecture\010\0\0\0\007\0\0\0\0\0\0\0nothing";
enum { GGUF_SIZE = sizeof unknown_gguf - 1 };

static int32_t give_size(void *user_data, const char *name, uint64_t *size) {
    (void)user_data;
    *size = GGUF_SIZE;
    return strcmp(name, "unknown") == 0 ? OPTIMIZE_OK : OPTIMIZE_NOT_FOUND;
}

static int32_t give_bytes(void *user_data, const char *name, uint64_t offset, void *buffer, size_t size) {
    (void)name;
    memcpy(buffer, unknown_gguf + offset, size);
    return user_data == NULL ? OPTIMIZE_OK : OPTIMIZE_IO;
}

/* This must come first: a process opens ONNX Runtime only once. */
TEST(without_onnx_runtime) {
    optimize_context_options_t options = {.struct_size = sizeof options, .runtime_library = "/nowhere/libonnxruntime.so"};
    optimize_context_t *context = NULL;
    optimize_session_t *session = NULL;
    optimize_buffer_t *json = NULL;
    optimize_error_t *error = NULL;
    optimize_model_t *model;
    const char *version = NULL;
    CHECK_OK(optimize_context_new(&options, &context, &error));
    model = load_tiny(context);
    CHECK_FAILS(optimize_context_runtime_version(context, &version, &error), OPTIMIZE_RUNTIME_MISSING, "/nowhere");
    CHECK_FAILS(optimize_context_providers(context, 0, &json, &error), OPTIMIZE_RUNTIME_MISSING, "/nowhere");
    CHECK_FAILS(optimize_session_new(context, model, NULL, NULL, &session, &error), OPTIMIZE_RUNTIME_MISSING, "/nowhere");
    CHECK_FAILS(optimize_context_counters(context, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "counters");
    optimize_model_free(model);
    optimize_context_free(context);
}

TEST(of_models) {
    optimize_context_t *context = new_context();
    optimize_model_t *tiny = load_tiny(context), *model = NULL;
    optimize_tokenizer_t *tokenizer = NULL;
    optimize_error_t *error = NULL;
    optimize_source_t source = {.struct_size = sizeof source, .size = give_size, .read = give_bytes};
    char longest[300] = {0}; /* longer than the name of a file may be */
    write_file(temporary("unknown.gguf"), unknown_gguf, GGUF_SIZE);
    CHECK_FAILS(optimize_model_load(context, temporary("unknown.gguf"), NULL, &model, &error), OPTIMIZE_UNSUPPORTED,
                "nothing");
    CHECK_FAILS(optimize_model_load_memory(context, unknown_gguf, GGUF_SIZE, NULL, &model, &error), OPTIMIZE_UNSUPPORTED,
                "nothing");
    CHECK_FAILS(optimize_model_load_source(context, &source, "unknown", NULL, &model, &error), OPTIMIZE_UNSUPPORTED,
                "nothing");
    CHECK_FAILS(optimize_model_tokenizer(tiny, &tokenizer, &error), OPTIMIZE_NOT_FOUND, "tokenizer");
    memset(longest, 'a', sizeof longest - 1);
    CHECK_FAILS(optimize_model_save(tiny, temporary(longest), NULL, NULL, NULL, &error), OPTIMIZE_IO, "aaa");
    optimize_model_free(tiny);
    optimize_context_free(context);
}

TEST(of_packages) {
    optimize_package_compile_options_t options = {.struct_size = sizeof options, .portable_only = 1, .dynamic = 1};
    optimize_session_options_t wrong = {.struct_size = sizeof wrong, .provider = 99};
    optimize_source_t source = {.struct_size = sizeof source, .size = give_size, .read = give_bytes, .user_data = &source};
    optimize_context_t *context = new_context();
    optimize_model_t *model = load_model(context, MINILM "/model.onnx"), *inside = NULL, *alone = NULL;
    optimize_package_t *package = NULL;
    optimize_tokenizer_t *tokenizer = NULL;
    optimize_session_t *session = NULL;
    optimize_error_t *error = NULL;
    unsigned char *content;
    size_t size;
    write_file(temporary("no.package"), "nothing", 7);
    CHECK_FAILS(optimize_package_open(temporary("no.package"), NULL, &package, &error), OPTIMIZE_INVALID_MODEL, "no.package");
    CHECK_FAILS(optimize_package_open_source(context, &source, "unknown", NULL, NULL, &package, &error), OPTIMIZE_IO, "read");
    /* A copy in memory has no tokenizer next to it. */
    content = read_file(deps(MINILM "/model.onnx"), &size);
    CHECK_OK(optimize_model_load_memory(context, content, size, NULL, &alone, &error));
    CHECK_OK(optimize_package_compile(context, alone, temporary("alone.package"), &options, NULL, NULL, &error));
    CHECK_OK(optimize_package_open(temporary("alone.package"), NULL, &package, &error));
    CHECK_FAILS(optimize_package_tokenizer(package, &tokenizer, &error), OPTIMIZE_NOT_FOUND, "tokenizer");
    CHECK_FAILS(optimize_package_engine(context, package, NULL, NULL, &session, &error), OPTIMIZE_NOT_FOUND, "engine");
    CHECK_FAILS(optimize_package_session(context, package, &wrong, NULL, &session, &error), OPTIMIZE_INVALID_ARGUMENT,
                "provider");
    write_file(temporary("alone.package/model/fp32/model.onnx"), "x", 1);
    CHECK_FAILS(optimize_package_model(package, &inside, &error), OPTIMIZE_INVALID_MODEL, "model.onnx");
    optimize_package_free(package);
    optimize_model_free(alone);
    optimize_model_free(model);
    optimize_context_free(context);
    free(content);
}

TEST(of_reports) {
    optimize_context_t *context = new_context();
    optimize_model_t *model = load_tiny(context);
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    double number;
    size_t count;
    CHECK_OK(optimize_model_inspect(model, &report, &error));
    CHECK_FAILS(optimize_report_number(report, "/none", &number, &error), OPTIMIZE_NOT_FOUND, "none");
    CHECK_FAILS(optimize_report_count(report, "/none", &count, &error), OPTIMIZE_NOT_FOUND, "none");
    CHECK_FAILS(optimize_report_node(NULL, 0, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, NULL);
    CHECK_FAILS(optimize_report_benchmark(NULL, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, NULL);
    CHECK_FAILS(optimize_generation_get(NULL, 0, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, NULL);
    CHECK_FAILS(optimize_generation_candidate(NULL, 0, 0, 0, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, NULL);
    optimize_buffer_free(report);
    optimize_model_free(model);
    optimize_context_free(context);
}

int main(void) {
    RUN(without_onnx_runtime);
    RUN(of_models);
    RUN(of_packages);
    RUN(of_reports);
    return tap_end();
}
