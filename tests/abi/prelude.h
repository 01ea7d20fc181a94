/*
 * The beginning of the generated programs of tests/abi.rs. They run in a folder with model.onnx, which computes
 * y = x * w for x float32[1, 32], and tokenizer.json, which has the words a and b.
 */
#include <optimize.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The initial value of output parameters, to check that calls write them. */
#define POISON ((void *)(uintptr_t)64)

static const char *title; /* the title of the test case that runs */
static int failures;

static void fail(const char *what) {
    printf("FAIL %s: %s\n", title, what);
    failures++;
}

/* Functions that make a handle of each kind for the cases. They are not what is tested: a failure ends the program. */

static void need(int condition, const char *what) {
    if (condition) return;
    printf("FAIL %s: there is no %s to test with\n", title, what);
    fflush(stdout);
    _Exit(3);
}

static optimize_context_t *make_context(void) {
    optimize_context_t *context = NULL;
    need(optimize_context_new(NULL, &context, NULL) == OPTIMIZE_OK, "context");
    return context;
}

static optimize_model_t *make_model(void) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = NULL;
    need(optimize_model_load(context, "model.onnx", NULL, &model, NULL) == OPTIMIZE_OK, "model");
    optimize_context_free(context);
    return model;
}

/* A text of 300 tokens: enough for training blocks and some held-out text. */
#define WORDS "a b a a b b a b a b a a a b b "
static const char training_text[] =
    WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS WORDS;

static const int64_t tensor_dims[2] = {1, 32};
static const float tensor_data[32];

static optimize_tensor_t *make_tensor(void) {
    optimize_tensor_t *tensor = NULL;
    need(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, tensor_dims, 2, tensor_data, sizeof tensor_data, &tensor, NULL) ==
             OPTIMIZE_OK,
         "tensor");
    return tensor;
}

static const int64_t strings_dims[1] = {2};
static const char *const strings_data[2] = {"a", "b"};

static optimize_tensor_t *make_strings(void) {
    optimize_tensor_t *tensor = NULL;
    need(optimize_tensor_new_strings(strings_dims, 1, strings_data, NULL, 2, &tensor, NULL) == OPTIMIZE_OK, "tensor of strings");
    return tensor;
}

static optimize_session_t *make_session(void) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = make_model();
    optimize_session_t *session = NULL;
    optimize_error_t *error = NULL;
    if (optimize_session_new(context, model, NULL, NULL, &session, &error) != OPTIMIZE_OK)
        printf("# %s\n", optimize_error_message(error));
    optimize_error_free(error);
    need(session != NULL, "session");
    optimize_model_free(model);
    optimize_context_free(context);
    return session;
}

static optimize_tokenizer_t *make_tokenizer(void) {
    optimize_tokenizer_t *tokenizer = NULL;
    need(optimize_tokenizer_load("tokenizer.json", &tokenizer, NULL) == OPTIMIZE_OK, "tokenizer");
    return tokenizer;
}

/* Returns the model of the folder `decoder`: a tiny model that generates text, with a chat template. */
static optimize_model_t *make_decoder(void) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = NULL;
    need(optimize_model_load(context, "decoder", NULL, &model, NULL) == OPTIMIZE_OK, "decoder");
    optimize_context_free(context);
    return model;
}

static optimize_generator_t *make_generator(void) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = make_decoder();
    optimize_generator_t *generator = NULL;
    need(optimize_generator_new(context, model, NULL, NULL, &generator, NULL) == OPTIMIZE_OK, "generator");
    need(optimize_generator_append(generator, 0, "a", 1, NULL, NULL) == OPTIMIZE_OK, "text in the generator");
    optimize_model_free(model);
    optimize_context_free(context);
    return generator;
}

static optimize_model_t *make_loaded(const char *path) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = NULL;
    need(optimize_model_load(context, path, NULL, &model, NULL) == OPTIMIZE_OK, path);
    optimize_context_free(context);
    return model;
}

/* Return the models of the folders `encoder`, `classes` and `tags`: tiny models that read texts. */
static optimize_model_t *make_encoder(void) { return make_loaded("encoder"); }
static optimize_model_t *make_classes(void) { return make_loaded("classes"); }
static optimize_model_t *make_tags(void) { return make_loaded("tags"); }

static optimize_embedder_t *make_embedder(void) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = make_encoder();
    optimize_embedder_t *embedder = NULL;
    need(optimize_embedder_new(context, model, NULL, NULL, NULL, &embedder, NULL) == OPTIMIZE_OK, "embedder");
    optimize_model_free(model);
    optimize_context_free(context);
    return embedder;
}

static optimize_classifier_t *make_classifier(void) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = make_classes();
    optimize_classifier_t *classifier = NULL;
    need(optimize_classifier_new(context, model, NULL, NULL, NULL, &classifier, NULL) == OPTIMIZE_OK, "classifier");
    optimize_model_free(model);
    optimize_context_free(context);
    return classifier;
}

static optimize_tagger_t *make_tagger(void) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = make_tags();
    optimize_tagger_t *tagger = NULL;
    need(optimize_tagger_new(context, model, NULL, NULL, NULL, &tagger, NULL) == OPTIMIZE_OK, "tagger");
    optimize_model_free(model);
    optimize_context_free(context);
    return tagger;
}

static optimize_spans_t *make_spans(void) {
    const char *const texts[2] = {"a b", "b"};
    optimize_tagger_t *tagger = make_tagger();
    optimize_spans_t *spans = NULL;
    need(optimize_tagger_tag(tagger, texts, 2, NULL, &spans, NULL) == OPTIMIZE_OK, "spans");
    optimize_tagger_free(tagger);
    return spans;
}

/* Returns an ensemble of two equal members. Its manifest is in the folder `pair`. */
static optimize_ensemble_t *make_ensemble(void) {
    optimize_model_t *model = make_decoder();
    const optimize_model_t *const members[2] = {model, model};
    optimize_ensemble_t *ensemble = NULL;
    need(optimize_ensemble_new(members, 2, NULL, &ensemble, NULL) == OPTIMIZE_OK, "ensemble");
    optimize_model_free(model);
    return ensemble;
}

static void write_manifest(void) {
    optimize_ensemble_t *ensemble = make_ensemble();
    need(optimize_ensemble_save(ensemble, "pair", NULL) == OPTIMIZE_OK, "manifest");
    optimize_ensemble_free(ensemble);
}

/* Opens the package of the decoder, which contains a tokenizer and a chat template. `write_package` wrote it, once. */
static optimize_package_t *make_package(void) {
    optimize_package_t *package = NULL;
    need(optimize_package_open("decoder.package", NULL, &package, NULL) == OPTIMIZE_OK, "package");
    return package;
}

static void write_package(void) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = make_decoder();
    optimize_package_compile_options_t options = {.struct_size = sizeof options, .single_file = 1};
    need(optimize_package_compile(context, model, "decoder.package", NULL, NULL, NULL, NULL) == OPTIMIZE_OK, "new package");
    need(optimize_package_compile(context, model, "file.package", &options, NULL, NULL, NULL) == OPTIMIZE_OK, "package file");
    optimize_model_free(model);
    optimize_context_free(context);
}

static void write_engine(void) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = make_model();
    need(optimize_model_build_tensorrt(context, model, "model.engine", NULL, NULL, NULL, NULL) == OPTIMIZE_OK, "engine");
    optimize_model_free(model);
    optimize_context_free(context);
}

/* Data of all evaluation tasks: a text for perplexity, lines for embeddings, labelled rows for probes. */
static const char evaluate_data[] = "0,a b a\n0,a a b\n0,a a a\n1,b b b\n1,b a b\n1,b b a\n";

static const char not_utf_8[128] = "\xff";

static optimize_buffer_t *make_buffer(void) {
    optimize_model_t *model = make_model();
    optimize_buffer_t *buffer = NULL;
    need(optimize_model_inspect(model, &buffer, NULL) == OPTIMIZE_OK, "buffer");
    optimize_model_free(model);
    return buffer;
}

/* Reports with what functions read: of a quantized model, of a benchmark, of generated texts with candidates. */
static optimize_buffer_t *make_report(void) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = make_model(), *small = NULL;
    optimize_buffer_t *report = NULL;
    need(optimize_model_quantize(context, model, NULL, NULL, &small, &report, NULL) == OPTIMIZE_OK, "report");
    optimize_model_free(small);
    optimize_model_free(model);
    optimize_context_free(context);
    return report;
}

static optimize_buffer_t *make_benchmark(void) {
    optimize_context_t *context = make_context();
    optimize_model_t *model = make_model();
    optimize_benchmark_options_t options = {.struct_size = sizeof options, .runs = 5, .warmup = 1};
    optimize_buffer_t *report = NULL;
    need(optimize_model_benchmark(context, model, model, NULL, &options, NULL, &report, NULL) == OPTIMIZE_OK, "benchmark");
    optimize_model_free(model);
    optimize_context_free(context);
    return report;
}

static optimize_buffer_t *make_generations(void) {
    const char *const prompts[1] = {"a"};
    optimize_generator_t *generator = make_generator();
    optimize_generate_options_t options = {.struct_size = sizeof options, .max_new_tokens = 2, .logprobs = 2};
    optimize_buffer_t *report = NULL;
    need(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, NULL) == OPTIMIZE_OK, "texts");
    optimize_generator_free(generator);
    return report;
}

static optimize_cancel_t *make_cancel(void) {
    optimize_cancel_t *cancel = NULL;
    need(optimize_cancel_new(&cancel, NULL) == OPTIMIZE_OK, "cancel");
    return cancel;
}

static optimize_error_t *make_error(void) {
    optimize_error_t *error = NULL;
    need(optimize_cancel_new(NULL, &error) == OPTIMIZE_INVALID_ARGUMENT && error != NULL, "error");
    return error;
}

static const char *memory_data;
static size_t memory_size;

static void read_memory(void) {
    static char content[1 << 16];
    FILE *file = fopen("model.onnx", "rb");
    need(file != NULL, "model.onnx");
    memory_size = fread(content, 1, sizeof content, file);
    memory_data = content;
    fclose(file);
}

/* A source of the files of the folder. */
static int32_t file_size(void *user_data, const char *name, uint64_t *size) {
    FILE *file = fopen(name, "rb");
    (void)user_data;
    if (file == NULL) return OPTIMIZE_NOT_FOUND;
    fseek(file, 0, SEEK_END);
    *size = (uint64_t)ftell(file);
    fclose(file);
    return OPTIMIZE_OK;
}

static int32_t file_read(void *user_data, const char *name, uint64_t offset, void *buffer, size_t size) {
    FILE *file = fopen(name, "rb");
    size_t count = 0;
    (void)user_data;
    if (file != NULL && fseek(file, (long)offset, SEEK_SET) == 0) count = fread(buffer, 1, size, file);
    if (file != NULL) fclose(file);
    return count == size ? OPTIMIZE_OK : OPTIMIZE_IO;
}

static const optimize_source_t folder_source = {
    .struct_size = sizeof(optimize_source_t), .size = file_size, .read = file_read};

static int32_t drop_bytes(void *user_data, const char *name, const void *data, size_t size) {
    (void)user_data, (void)name, (void)data, (void)size;
    return OPTIMIZE_OK;
}

static const optimize_sink_t nowhere_sink = {.struct_size = sizeof(optimize_sink_t), .write = drop_bytes};

static float output_data[32];
static const optimize_output_t output_place = {
    .struct_size = sizeof(optimize_output_t), .dtype = OPTIMIZE_DTYPE_FLOAT32, .name = "y", .dims = tensor_dims,
    .rank = 2, .data = output_data, .size = sizeof output_data};

static void ignore(void *user_data) { (void)user_data; }

/* Checks after a call. */

/* `wanted` is a status, -1 for any, -2 for any but OPTIMIZE_OK. */
static void check_status(int status, int wanted, optimize_error_t **error) {
    char what[512];
    if (wanted == -2 ? status == OPTIMIZE_OK : wanted != -1 && status != wanted) {
        snprintf(what, sizeof what, "%s, not %s (%s)", optimize_status_name(status),
                 wanted == -2 ? "a failure" : optimize_status_name(wanted), error ? optimize_error_message(*error) : "");
        fail(what);
    }
    if (error == NULL) return;
    if (*error == POISON) fail("the place of the error was not written");
    else if (status == OPTIMIZE_OK && *error != NULL) fail("an error after OPTIMIZE_OK");
    else if (status != OPTIMIZE_OK && *error == NULL) fail("no error object");
    else if (status != OPTIMIZE_OK && (int)optimize_error_status(*error) != status) fail("the error has another status");
    else if (status != OPTIMIZE_OK && *optimize_error_message(*error) == '\0') fail("the error says nothing");
    if (*error != POISON) optimize_error_free(*error);
}

/* Returns whether the result must be freed. */
static int check_result(int status, const void *result, const char *name) {
    char what[128];
    int right = status == OPTIMIZE_OK ? result != NULL && result != POISON : result == NULL;
    if (!right) {
        snprintf(what, sizeof what, "%s is %s after %s", name, result == NULL ? "NULL" : "not NULL",
                 optimize_status_name(status));
        fail(what);
    }
    return right && result != NULL;
}

static void check(int right, const char *what) {
    if (!right) fail(what);
}
