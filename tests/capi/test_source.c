/* Sources: models, packages and tokenizers from files that the program provides itself. */
#include "tap.h"

static optimize_context_t *context;

enum { FILES = 16 };

/* Files in memory, and what the callbacks have seen. */
typedef struct files_t {
    const char *names[FILES];
    unsigned char *contents[FILES];
    size_t sizes[FILES], count;
    thrd_t thread;
    int calls, foreign, outside;
    /* Name of a file, and the statuses that the size and the read callback return for it. */
    const char *bad;
    int32_t size_status, read_status;
    /* Largest number of bytes that one call of the read callback requested. */
    size_t greatest;
} files_t;

static void add_file(files_t *files, const char *name, const char *path) {
    NEED(files->count < FILES);
    files->names[files->count] = name;
    files->contents[files->count] = read_file(path, &files->sizes[files->count]);
    NEED(files->contents[files->count] != NULL);
    files->count++;
}

static void free_files(files_t *files) {
    for (size_t i = 0; i < files->count; i++) free(files->contents[i]);
    memset(files, 0, sizeof *files);
}

static size_t find(files_t *files, const char *name) {
    size_t index = 0;
    files->calls++;
    if (!thrd_equal(files->thread, thrd_current())) files->foreign++;
    if (name[0] == '/' || strstr(name, "..") != NULL) files->outside++;
    while (index < files->count && strcmp(files->names[index], name) != 0) index++;
    return index;
}

static int32_t give_size(void *user_data, const char *name, uint64_t *size) {
    files_t *files = user_data;
    size_t index = find(files, name);
    if (files->bad != NULL && strcmp(files->bad, name) == 0 && files->size_status != OPTIMIZE_OK) return files->size_status;
    if (index == files->count) return OPTIMIZE_NOT_FOUND;
    *size = files->sizes[index];
    return OPTIMIZE_OK;
}

static int32_t give_bytes(void *user_data, const char *name, uint64_t offset, void *buffer, size_t size) {
    files_t *files = user_data;
    size_t index = find(files, name);
    if (files->bad != NULL && strcmp(files->bad, name) == 0) return files->read_status;
    if (index == files->count || offset + size > files->sizes[index]) return OPTIMIZE_IO;
    if (size > files->greatest) files->greatest = size;
    memcpy(buffer, files->contents[index] + offset, size);
    return OPTIMIZE_OK;
}

static optimize_source_t source_of(files_t *files) {
    optimize_source_t source = {
        .struct_size = sizeof source, .size = give_size, .read = give_bytes, .user_data = files};
    files->thread = thrd_current();
    return source;
}

static optimize_status_t load(files_t *files, const char *name, optimize_model_t **model, optimize_error_t **error) {
    optimize_source_t source = source_of(files);
    return optimize_model_load_source(context, &source, name, NULL, model, error);
}

/* Writes the vector of a text, which `model` (a variant of MiniLM) computes, to `vector`. */
static void embed(const optimize_model_t *model, float vector[MINILM_WIDTH]) {
    static const char *const texts[] = {"a text"};
    optimize_session_t *session = new_session(context, model);
    optimize_tokenizer_t *tokenizer = load_tokenizer();
    text_t text = encode(tokenizer, texts, 1);
    optimize_tensor_t *result = NULL;
    optimize_error_t *error = NULL;
    if (CHECK_OK(run_text(session, &text, MINILM_SENTENCE, NULL, &result, &error)))
        memcpy(vector, optimize_tensor_data(result), MINILM_WIDTH * sizeof *vector);
    optimize_tensor_free(result);
    free_text(&text);
    optimize_tokenizer_free(tokenizer);
    optimize_session_free(session);
}

/* Saves MiniLM as outside.onnx with external data, and returns the name of the data file. The caller frees the name. */
static char *save_outside(void) {
    optimize_model_t *model = load_model(context, MINILM "/model.onnx");
    optimize_save_options_t options = {.struct_size = sizeof options, .external_data = OPTIMIZE_EXTERNAL_DATA_ALWAYS};
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    const char *at, *end;
    char *name;
    CHECK_OK(optimize_model_save(model, temporary("outside.onnx"), &options, NULL, &report, &error));
    at = strstr(optimize_buffer_data(report), "outside.onnx.");
    NEED(at != NULL);
    end = strchr(at, '"');
    name = calloc(1, (size_t)(end - at) + 1);
    NEED(name != NULL);
    memcpy(name, at, (size_t)(end - at));
    optimize_buffer_free(report);
    optimize_model_free(model);
    return name;
}

TEST(a_model_with_external_data_loads_and_gives_the_same_results) {
    files_t files = {0};
    char *data = save_outside(), inside[512];
    optimize_model_t *model = NULL, *again = NULL;
    optimize_tokenizer_t *tokenizer = NULL;
    optimize_error_t *error = NULL;
    float wanted[MINILM_WIDTH], got[MINILM_WIDTH];
    snprintf(inside, sizeof inside, "my/%s", data);
    add_file(&files, "my/model.onnx", temporary("outside.onnx"));
    add_file(&files, inside, temporary(data));
    add_file(&files, "my/tokenizer.json", deps(MINILM "/tokenizer.json"));
    add_file(&files, "my/special_tokens_map.json", deps(MINILM "/special_tokens_map.json"));
    CHECK_OK(load(&files, "my/model.onnx", &model, &error));
    CHECK(files.calls > 8 && files.foreign == 0 && files.greatest > 65536 && files.greatest <= 4 << 20);
    /* All files were read during the call, so later changes of their contents have no effect. */
    for (size_t i = 0; i < files.count; i++) memset(files.contents[i], 0xff, files.sizes[i]);
    CHECK_OK(optimize_model_tokenizer(model, &tokenizer, &error));
    CHECK_INT(optimize_tokenizer_vocabulary_size(tokenizer), 30522);
    embed(model, got);
    again = load_model(context, MINILM "/model.onnx");
    embed(again, wanted);
    CHECK(memcmp(got, wanted, sizeof got) == 0);
    optimize_tokenizer_free(tokenizer);
    optimize_model_free(again);
    optimize_model_free(model);
    free_files(&files);
    free(data);
}

TEST(missing_and_failing_files_are_reported_by_name) {
    files_t files = {0};
    char *data = save_outside();
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    CHECK_FAILS(load(&files, "none.onnx", &model, &error), OPTIMIZE_NOT_FOUND, "none.onnx");
    add_file(&files, "model.onnx", temporary("outside.onnx"));
    CHECK_FAILS(load(&files, "model.onnx", &model, &error), OPTIMIZE_NOT_FOUND, data);
    add_file(&files, data, temporary(data));
    files.bad = data;
    files.read_status = 77;
    CHECK_FAILS(load(&files, "model.onnx", &model, &error), OPTIMIZE_IO, "77");
    files.read_status = OPTIMIZE_CANCELLED;
    CHECK_FAILS(load(&files, "model.onnx", &model, &error), OPTIMIZE_CANCELLED, NULL);
    files.size_status = -1;
    CHECK_FAILS(load(&files, "model.onnx", &model, &error), OPTIMIZE_IO, "-1");
    files.bad = "config.json";
    CHECK_FAILS(load(&files, "model.onnx", &model, &error), OPTIMIZE_IO, "config.json");
    files.bad = NULL;
    /* The callback reports a size that is larger than the address space. */
    files.sizes[1] = (size_t)1 << 62;
    CHECK_FAILS(load(&files, "model.onnx", &model, &error), OPTIMIZE_LIMIT_EXCEEDED, data);
    files.sizes[1] = 100;
    CHECK_FAILS(load(&files, "model.onnx", &model, &error), OPTIMIZE_INVALID_MODEL, "outside");
    CHECK(model == NULL);
    free_files(&files);
    free(data);
}

/* Models whose external data has a location outside of the model's folder. */
TEST(names_that_lead_out_are_refused_before_a_callback_sees_them) {
    static const char *const names[] = {"/data0", "../dat", "a/../b"};
    char *data = save_outside();
    files_t files = {0};
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    size_t name, at, length = strlen(data);
    add_file(&files, "model.onnx", temporary("outside.onnx"));
    for (name = 0; name < sizeof names / sizeof *names; name++) {
        unsigned char *content = files.contents[0];
        /* Only the first six bytes of each location are replaced, because protobuf stores the length of the whole. */
        for (at = 0; at + length <= files.sizes[0]; at++)
            if (memcmp(content + at + 6, data + 6, length - 6) == 0) memcpy(content + at, names[name], 6);
        CHECK_FAILS(load(&files, "model.onnx", &model, &error), OPTIMIZE_INVALID_MODEL, names[name]);
        CHECK_INT(files.outside, 0);
    }
    free_files(&files);
    free(data);
}

TEST(sources_are_checked) {
    files_t files = {0};
    optimize_source_t source = source_of(&files);
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    source.read = NULL;
    CHECK_FAILS(optimize_model_load_source(context, &source, "m", NULL, &model, &error), OPTIMIZE_INVALID_ARGUMENT,
                "callback");
    source = source_of(&files);
    source.size = NULL;
    CHECK_FAILS(optimize_model_load_source(context, &source, "m", NULL, &model, &error), OPTIMIZE_INVALID_ARGUMENT,
                "callback");
    source = source_of(&files);
    source.reserved = 1;
    CHECK_FAILS(optimize_model_load_source(context, &source, "m", NULL, &model, &error), OPTIMIZE_INVALID_ARGUMENT,
                "reserved");
    source = source_of(&files);
    source.struct_size = 4;
    CHECK_FAILS(optimize_model_load_source(context, &source, "m", NULL, &model, &error), OPTIMIZE_INVALID_ARGUMENT,
                "callback");
    CHECK_FAILS(load(&files, "", &model, &error), OPTIMIZE_INVALID_ARGUMENT, "name");
    CHECK_INT(files.calls, 0);
}

static int32_t stop(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    uint64_t *seen = user_data;
    (void)done;
    CHECK_TEXT(stage, "load");
    if (total > seen[1]) seen[1] = total;
    return ++seen[0] == 3;
}

TEST(loading_reports_progress_and_can_be_cancelled) {
    uint64_t seen[2] = {0};
    optimize_call_t call = {.struct_size = sizeof call, .progress = stop, .user_data = seen};
    files_t files = {0};
    optimize_source_t source = source_of(&files);
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    add_file(&files, "model.onnx", deps(MINILM "/model.onnx"));
    add_file(&files, "special_tokens_map.json", deps(MINILM "/special_tokens_map.json"));
    add_file(&files, "tokenizer.json", deps(MINILM "/tokenizer.json"));
    CHECK_FAILS(optimize_model_load_source(context, &source, "model.onnx", &call, &model, &error), OPTIMIZE_CANCELLED, NULL);
    CHECK(seen[0] == 3 && seen[1] == files.sizes[0]);
    free_files(&files);
}

TEST(gguf_files_load_from_a_source_and_from_memory) {
    files_t files = {0};
    optimize_model_t *model = NULL;
    optimize_tokenizer_t *tokenizer = NULL;
    optimize_error_t *error = NULL;
    add_file(&files, "some.gguf", deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"));
    CHECK_OK(load(&files, "some.gguf", &model, &error));
    CHECK_OK(optimize_model_tokenizer(model, &tokenizer, &error));
    CHECK(optimize_tokenizer_vocabulary_size(tokenizer) > 1000);
    optimize_tokenizer_free(tokenizer);
    optimize_model_free(model);
    CHECK_OK(optimize_model_load_memory(context, files.contents[0], files.sizes[0], NULL, &model, &error));
    CHECK(optimize_model_input_count(model) > 1);
    optimize_model_free(model);
    free_files(&files);
}

TEST(packages_in_one_file_open_and_run) {
    optimize_package_compile_options_t options = {.struct_size = sizeof options, .single_file = 1, .dynamic = 1};
    files_t files = {0};
    optimize_source_t source = source_of(&files);
    optimize_model_t *model = load_model(context, MINILM), *inside = NULL;
    optimize_package_t *package = NULL;
    optimize_tokenizer_t *tokenizer = NULL;
    optimize_session_t *session = NULL;
    optimize_error_t *error = NULL;
    float wanted[MINILM_WIDTH], got[MINILM_WIDTH];
    CHECK_OK(optimize_package_compile(context, model, temporary("one.package"), &options, NULL, NULL, &error));
    add_file(&files, "one", temporary("one.package"));
    CHECK_OK(optimize_package_open_source(context, &source, "one", NULL, NULL, &package, &error));
    CHECK_OK(optimize_package_verify(package, NULL, NULL, &error));
    CHECK_OK(optimize_package_tokenizer(package, &tokenizer, &error));
    CHECK_OK(optimize_package_session(context, package, NULL, NULL, &session, &error));
    CHECK_OK(optimize_package_model(package, &inside, &error));
    embed(inside, got);
    embed(model, wanted);
    for (int i = 0; i < MINILM_WIDTH; i++) CHECK(fabs((double)(got[i] - wanted[i])) < 1e-4);
    optimize_model_free(inside);
    CHECK_OK(load(&files, "one", &inside, &error));
    CHECK_INT(optimize_model_input_count(inside), 2);
    optimize_model_free(inside);
    CHECK_OK(optimize_model_load_memory(context, files.contents[0], files.sizes[0], NULL, &inside, &error));
    optimize_session_free(session);
    optimize_tokenizer_free(tokenizer);
    optimize_package_free(package);
    files.sizes[0]--;
    CHECK_FAILS(optimize_package_open_source(context, &source, "one", NULL, NULL, &package, &error), OPTIMIZE_INVALID_MODEL, "one");
    CHECK_FAILS(optimize_package_open_source(context, &source, "two", NULL, NULL, &package, &error), OPTIMIZE_NOT_FOUND, "two");
    optimize_model_free(inside);
    optimize_model_free(model);
    free_files(&files);
}

TEST(tokenizers_load_with_the_files_next_to_them) {
    files_t files = {0};
    optimize_source_t source = source_of(&files);
    optimize_tokenizer_t *tokenizer = NULL;
    optimize_error_t *error = NULL;
    add_file(&files, "t/tokenizer.json", deps(MINILM "/tokenizer.json"));
    CHECK_OK(optimize_tokenizer_load_source(&source, "t/tokenizer.json", &tokenizer, &error));
    CHECK_INT(optimize_tokenizer_vocabulary_size(tokenizer), 30522);
    optimize_tokenizer_free(tokenizer);
    files.bad = "t/tokenizer_config.json";
    files.size_status = OPTIMIZE_IO;
    CHECK_FAILS(optimize_tokenizer_load_source(&source, "t/tokenizer.json", &tokenizer, &error), OPTIMIZE_IO,
                "tokenizer_config.json");
    files.sizes[0] /= 2;
    files.bad = NULL;
    CHECK_FAILS(optimize_tokenizer_load_source(&source, "t/tokenizer.json", &tokenizer, &error), OPTIMIZE_INVALID_MODEL,
                "tokenizer.json");
    CHECK_FAILS(optimize_tokenizer_load_source(&source, "none", &tokenizer, &error), OPTIMIZE_NOT_FOUND, "none");
    free_files(&files);
}

int main(void) {
    context = new_context();
    RUN(a_model_with_external_data_loads_and_gives_the_same_results);
    RUN(missing_and_failing_files_are_reported_by_name);
    RUN(names_that_lead_out_are_refused_before_a_callback_sees_them);
    RUN(sources_are_checked);
    RUN(loading_reports_progress_and_can_be_cancelled);
    RUN_UNLESS_VALGRIND(gguf_files_load_from_a_source_and_from_memory);
    RUN_UNLESS_VALGRIND(packages_in_one_file_open_and_run);
    RUN(tokenizers_load_with_the_files_next_to_them);
    optimize_context_free(context);
    return tap_end();
}
