/* Sinks: models and packages go to functions of the program. */
#include "tap.h"

static optimize_context_t *context;

enum { FILES = 4, ROOM = 80 << 20 };

/* What a sink has received. */
typedef struct received_t {
    char names[FILES][256];
    unsigned char *contents[FILES];
    size_t sizes[FILES], count;
    int ended[FILES], out_of_order, foreign;
    thrd_t thread;
    /* Number of bytes of a file after which the callback returns `status`. */
    size_t limit;
    int32_t status;
} received_t;

static int32_t receive(void *user_data, const char *name, const void *data, size_t size) {
    received_t *received = user_data;
    size_t last = received->count - 1;
    if (!thrd_equal(received->thread, thrd_current())) received->foreign++;
    if (received->count == 0 || strcmp(received->names[last], name) != 0) {
        if (received->count > 0 && !received->ended[last]) received->out_of_order++;
        NEED(received->count < FILES && strlen(name) < 256);
        last = received->count++;
        strcpy(received->names[last], name);
        received->contents[last] = malloc(ROOM);
        NEED(received->contents[last] != NULL);
    }
    if (received->ended[last] || size > 4 << 20 || (data == NULL) != (size == 0)) received->out_of_order++;
    if (size == 0) received->ended[last] = 1;
    NEED(received->sizes[last] + size <= ROOM);
    if (size > 0) memcpy(received->contents[last] + received->sizes[last], data, size);
    received->sizes[last] += size;
    return received->sizes[last] >= received->limit ? received->status : OPTIMIZE_OK;
}

static optimize_sink_t sink_of(received_t *received) {
    optimize_sink_t sink = {.struct_size = sizeof sink, .write = receive, .user_data = received};
    received->thread = thrd_current();
    received->limit = SIZE_MAX;
    return sink;
}

static void free_received(received_t *received) {
    for (size_t i = 0; i < received->count; i++) free(received->contents[i]);
    memset(received, 0, sizeof *received);
}

/* Checks that the received file with this index has the content of the file at `path`. */
static void check_file(const received_t *received, size_t index, const char *path) {
    size_t size;
    unsigned char *content = read_file(path, &size);
    NEED(content != NULL);
    CHECK(received->ended[index] && received->sizes[index] == size);
    CHECK(size == received->sizes[index] && memcmp(content, received->contents[index], size) == 0);
    free(content);
}

static void check_saved(uint32_t packed, int32_t external_data, size_t files) {
    optimize_save_options_t options = {.struct_size = sizeof options, .packed = packed, .external_data = external_data};
    optimize_model_t *model = load_model(context, MINILM "/model.onnx");
    optimize_buffer_t *report = NULL, *wanted = NULL;
    optimize_error_t *error = NULL;
    received_t received = {0};
    optimize_sink_t sink = sink_of(&received);
    CHECK_OK(optimize_model_save(model, temporary("sunk.onnx"), &options, NULL, &wanted, &error));
    CHECK_OK(optimize_model_save_sink(model, &sink, "sunk.onnx", &options, NULL, &report, &error));
    if (CHECK_INT(received.count, files) && CHECK_INT(received.out_of_order, 0) && CHECK_INT(received.foreign, 0)) {
        CHECK_TEXT(received.names[files - 1], "sunk.onnx");
        for (size_t i = 0; i < files; i++) check_file(&received, i, temporary(received.names[i]));
    }
    CHECK(number_after(optimize_buffer_data(report), "sunk.onnx", "bytes") ==
          number_after(optimize_buffer_data(wanted), "sunk.onnx", "bytes"));
    optimize_buffer_free(report);
    optimize_buffer_free(wanted);
    optimize_model_free(model);
    free_received(&received);
}

TEST(a_sink_receives_the_bytes_of_the_files) {
    check_saved(0, OPTIMIZE_EXTERNAL_DATA_NEVER, 1);
    check_saved(0, OPTIMIZE_EXTERNAL_DATA_ALWAYS, 2);
    check_saved(1, OPTIMIZE_EXTERNAL_DATA_AUTO, 1);
}

TEST(a_failing_sink_ends_the_call) {
    optimize_save_options_t packed = {.struct_size = sizeof packed, .packed = 1};
    optimize_model_t *model = load_model(context, MINILM "/model.onnx");
    optimize_error_t *error = NULL;
    received_t received = {0};
    optimize_sink_t sink = sink_of(&received);
    received.limit = 5 << 20;
    received.status = 7;
    CHECK_FAILS(optimize_model_save_sink(model, &sink, "m", NULL, NULL, NULL, &error), OPTIMIZE_IO, "7");
    CHECK(received.count == 1 && !received.ended[0] && received.sizes[0] < 10 << 20);
    free_received(&received);
    sink = sink_of(&received);
    received.limit = 0;
    received.status = OPTIMIZE_CANCELLED;
    CHECK_FAILS(optimize_model_save_sink(model, &sink, "m", &packed, NULL, NULL, &error), OPTIMIZE_CANCELLED, NULL);
    free_received(&received);
    sink = sink_of(&received);
    CHECK_FAILS(optimize_model_save_sink(model, &sink, "", NULL, NULL, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "name");
    sink.reserved = 1;
    CHECK_FAILS(optimize_model_save_sink(model, &sink, "m", NULL, NULL, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "reserved");
    sink = sink_of(&received);
    sink.write = NULL;
    CHECK_FAILS(optimize_model_save_sink(model, &sink, "m", NULL, NULL, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "callback");
    CHECK_INT(received.count, 0);
    optimize_model_free(model);
}

static int32_t stop(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    (void)total;
    return strcmp(stage, user_data) == 0 && done > 0;
}

TEST(saving_can_be_cancelled) {
    static const char *const stages[] = {"hash", "save"};
    optimize_save_options_t options = {.struct_size = sizeof options, .external_data = OPTIMIZE_EXTERNAL_DATA_ALWAYS};
    optimize_model_t *model = load_model(context, MINILM "/model.onnx");
    optimize_error_t *error = NULL;
    for (int i = 0; i < 2; i++) {
        char stage[8];
        optimize_call_t call = {.struct_size = sizeof call, .progress = stop, .user_data = stage};
        received_t received = {0};
        optimize_sink_t sink = sink_of(&received);
        strcpy(stage, stages[i]);
        CHECK_FAILS(optimize_model_save_sink(model, &sink, "m", &options, &call, NULL, &error), OPTIMIZE_CANCELLED, NULL);
        CHECK_INT(received.count, i);
        free_received(&received);
    }
    optimize_model_free(model);
}

TEST(a_package_goes_to_a_sink) {
    optimize_package_compile_options_t options = {.struct_size = sizeof options, .single_file = 1, .portable_only = 1};
    optimize_model_t *model = load_model(context, MINILM);
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    received_t received = {0};
    optimize_sink_t sink = sink_of(&received);
    CHECK_OK(optimize_package_compile(context, model, temporary("sunk.package"), &options, NULL, NULL, &error));
    options.single_file = 0;
    CHECK_OK(optimize_package_compile_sink(context, model, &sink, "p", &options, NULL, &report, &error));
    CHECK(received.count == 1 && received.out_of_order == 0 && received.foreign == 0);
    check_file(&received, 0, temporary("sunk.package"));
    CHECK(number_after(optimize_buffer_data(report), "\"p\"", "bytes") == (double)received.sizes[0]);
    optimize_buffer_free(report);
    free_received(&received);
    sink = sink_of(&received);
    received.limit = 0;
    received.status = -5;
    CHECK_FAILS(optimize_package_compile_sink(context, model, &sink, "p", &options, NULL, NULL, &error), OPTIMIZE_IO, "-5");
    free_received(&received);
    optimize_model_free(model);
}

int main(void) {
    context = new_context();
    RUN_UNLESS_VALGRIND(a_sink_receives_the_bytes_of_the_files);
    RUN(a_failing_sink_ends_the_call);
    RUN(saving_can_be_cancelled);
    RUN_UNLESS_VALGRIND(a_package_goes_to_a_sink);
    optimize_context_free(context);
    return tap_end();
}
