/*
 * A model that exists only in a read callback, loaded and run within limits of memory. The model multiplies its input
 * by identity matrices, which have 32 MB together. With OPTIMIZE_TEST_LARGE_MB=3072 they have 3 GB, and the test needs
 * 10 GB of memory.
 */
#include "tap.h"

/* Number of rows and columns of each matrix, and number of matrices. */
static size_t width = 1024, count = 8;

/* The fields of protobuf messages. */
typedef struct bytes_t {
    unsigned char data[1 << 16];
    size_t size;
} bytes_t;

static void put_varint(bytes_t *out, uint64_t value) {
    NEED(out->size + 10 < sizeof out->data);
    for (; value >= 128; value >>= 7) out->data[out->size++] = (unsigned char)(value | 128);
    out->data[out->size++] = (unsigned char)value;
}

static void put_number(bytes_t *out, unsigned field, uint64_t value) {
    put_varint(out, (uint64_t)field << 3);
    put_varint(out, value);
}

static void put_bytes(bytes_t *out, unsigned field, const void *data, size_t size) {
    put_varint(out, (uint64_t)field << 3 | 2);
    put_varint(out, size);
    NEED(out->size + size < sizeof out->data);
    memcpy(out->data + out->size, data, size);
    out->size += size;
}

static void put_text(bytes_t *out, unsigned field, const char *text) { put_bytes(out, field, text, strlen(text)); }

static void put_message(bytes_t *out, unsigned field, const bytes_t *message) {
    put_bytes(out, field, message->data, message->size);
}

static void put_entry(bytes_t *tensor, const char *key, uint64_t value, const char *text) {
    char number[32];
    static bytes_t entry;
    entry.size = 0;
    snprintf(number, sizeof number, "%llu", (unsigned long long)value);
    put_text(&entry, 1, key);
    put_text(&entry, 2, text != NULL ? text : number);
    put_message(tensor, 13, &entry);
}

static void put_value(bytes_t *graph, unsigned field, const char *name) {
    static bytes_t dim, shape, tensor, type, value;
    dim.size = shape.size = tensor.size = type.size = value.size = 0;
    put_number(&dim, 1, 1);
    put_message(&shape, 1, &dim);
    dim.size = 0;
    put_number(&dim, 1, width);
    put_message(&shape, 1, &dim);
    put_number(&tensor, 1, OPTIMIZE_DTYPE_FLOAT32);
    put_message(&tensor, 2, &shape);
    put_message(&type, 1, &tensor);
    put_text(&value, 1, name);
    put_message(&value, 2, &type);
    put_message(graph, field, &value);
}

static bytes_t model_file;

/* Makes the .onnx file: y = x * w0 * w1 ..., with the weights in the file "weights". */
static void make_model(void) {
    static bytes_t graph, node, tensor, opset;
    graph.size = opset.size = model_file.size = 0;
    for (size_t i = 0; i < count; i++) {
        char weight[32], from[32], to[32];
        size_t bytes = width * width * sizeof(float);
        snprintf(weight, sizeof weight, "w%zu", i);
        snprintf(from, sizeof from, i == 0 ? "x" : "v%zu", i);
        snprintf(to, sizeof to, i + 1 == count ? "y" : "v%zu", i + 1);
        node.size = tensor.size = 0;
        put_text(&node, 1, from);
        put_text(&node, 1, weight);
        put_text(&node, 2, to);
        put_text(&node, 4, "MatMul");
        put_message(&graph, 1, &node);
        put_number(&tensor, 1, width);
        put_number(&tensor, 1, width);
        put_number(&tensor, 2, OPTIMIZE_DTYPE_FLOAT32);
        put_text(&tensor, 8, weight);
        put_entry(&tensor, "location", 0, "weights");
        put_entry(&tensor, "offset", i * bytes, NULL);
        put_entry(&tensor, "length", bytes, NULL);
        put_number(&tensor, 14, 1);
        put_message(&graph, 5, &tensor);
    }
    put_text(&graph, 2, "large");
    put_value(&graph, 11, "x");
    put_value(&graph, 12, "y");
    put_number(&model_file, 1, 8);
    put_message(&model_file, 7, &graph);
    put_number(&opset, 2, 17);
    put_message(&model_file, 8, &opset);
}

static uint64_t weight_bytes(void) { return (uint64_t)count * width * width * sizeof(float); }

static int32_t give_size(void *user_data, const char *name, uint64_t *size) {
    (void)user_data;
    if (strcmp(name, "model.onnx") == 0) *size = model_file.size;
    else if (strcmp(name, "weights") == 0) *size = weight_bytes();
    else return OPTIMIZE_NOT_FOUND;
    return OPTIMIZE_OK;
}

static int32_t give_bytes(void *user_data, const char *name, uint64_t offset, void *buffer, size_t size) {
    uint64_t first = offset / sizeof(float), end = (offset + size) / sizeof(float);
    uint64_t matrix = width * width, step = width + 1, at;
    (void)user_data;
    if (strcmp(name, "model.onnx") == 0) {
        memcpy(buffer, model_file.data + offset, size);
        return OPTIMIZE_OK;
    }
    memset(buffer, 0, size);
    /* The elements 0, width + 1, 2 * (width + 1) ... of each matrix are 1. */
    for (at = first / matrix * matrix; at < end; at += matrix) {
        uint64_t from = first > at ? (first - at + step - 1) / step * step : 0;
        for (; from < matrix && at + from < end; from += step) ((float *)buffer)[at + from - first] = 1;
    }
    return OPTIMIZE_OK;
}

static const optimize_source_t source = {.struct_size = sizeof source, .size = give_size, .read = give_bytes};

/* Returns a field of /proc/self/status in MB: "RssAnon:" is the memory of the process now, without mapped files, and
 * "VmHWM:" the largest memory that the process has had. */
static double memory_mb(const char *field) {
    char line[256];
    double kb = 0;
    FILE *file = fopen("/proc/self/status", "r");
    NEED(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0) kb = strtod(line + strlen(field) + 1, NULL);
    fclose(file);
    return kb / 1024;
}

static optimize_context_t *limited(uint64_t bytes) {
    optimize_context_options_t options = {.struct_size = sizeof options, .memory_limit = bytes};
    optimize_context_t *context = NULL;
    NEED(optimize_context_new(&options, &context, NULL) == OPTIMIZE_OK);
    return context;
}

static void check_runs(const optimize_session_t *session) {
    const int64_t dims[2] = {1, (int64_t)width};
    const char *const input = "x";
    float *x = malloc(width * sizeof *x), *y = calloc(width, sizeof *y);
    optimize_output_t output = {.struct_size = sizeof output, .dtype = OPTIMIZE_DTYPE_FLOAT32, .name = "y", .dims = dims,
                                .rank = 2, .data = y, .size = width * sizeof *y};
    optimize_tensor_t *tensor = NULL;
    optimize_error_t *error = NULL;
    NEED(x != NULL && y != NULL);
    for (size_t i = 0; i < width; i++) x[i] = (float)(i % 97) - 48;
    CHECK_OK(optimize_tensor_borrow(OPTIMIZE_DTYPE_FLOAT32, dims, 2, x, width * sizeof *x, NULL, NULL, &tensor, &error));
    const optimize_tensor_t *inputs[1] = {tensor};
    CHECK_OK(optimize_session_run_into(session, &input, inputs, 1, &output, 1, NULL, &error));
    CHECK(memcmp(x, y, width * sizeof *x) == 0);
    optimize_tensor_free(tensor);
    free(x);
    free(y);
}

/* Loads the model, creates a session and runs it, within a limit in bytes (0 for no limit). Returns the status of the
 * last step, and its name in `step`. */
static optimize_status_t load_and_run(uint64_t limit, const char **step) {
    optimize_context_t *context = limited(limit);
    optimize_session_options_t options = {.struct_size = sizeof options, .threads = 1};
    optimize_model_t *model = NULL;
    optimize_session_t *session = NULL;
    optimize_error_t *error = NULL;
    double start = seconds_now(), loaded, made;
    optimize_status_t status = optimize_model_load_source(context, &source, "model.onnx", NULL, &model, &error);
    *step = "loading";
    loaded = seconds_now();
    if (status == OPTIMIZE_OK) {
        *step = "a session";
        status = optimize_session_new(context, model, &options, NULL, &session, &error);
    }
    made = seconds_now();
    if (status == OPTIMIZE_OK) {
        *step = "a run";
        check_runs(session);
    } else {
        CHECK_FAILS(status, OPTIMIZE_LIMIT_EXCEEDED, "memory limit");
        error = NULL;
    }
    printf("# limit %6.0f MB: %s: %s; loading %.2f s, session %.2f s; memory %.0f MB, at most %.0f MB\n",
           (double)limit / (1 << 20), *step, optimize_status_name(status), loaded - start, made - loaded,
           memory_mb("RssAnon:"), memory_mb("VmHWM:"));
    optimize_session_free(session);
    optimize_model_free(model);
    optimize_context_free(context);
    return status;
}

TEST(limits_are_kept_at_loading_and_at_the_session) {
    const char *step = NULL;
    uint64_t weights = weight_bytes();
    CHECK_INT(load_and_run(weights / 2, &step), OPTIMIZE_LIMIT_EXCEEDED);
    CHECK_TEXT(step, "loading");
    /* The loaded model and the session each have a copy of the weights in memory, so this limit is about half of what
     * both need together. */
    CHECK_INT(load_and_run(weights + weights / 16, &step), OPTIMIZE_LIMIT_EXCEEDED);
    CHECK_TEXT(step, "a session");
}

TEST(the_model_runs_without_a_limit_and_within_a_large_one) {
    const char *step = NULL;
    CHECK_INT(load_and_run(0, &step), OPTIMIZE_OK);
    CHECK_INT(load_and_run(weight_bytes() * 4, &step), OPTIMIZE_OK);
}

int main(void) {
    const char *megabytes = getenv("OPTIMIZE_TEST_LARGE_MB");
    if (megabytes != NULL) {
        width = 4096;
        count = (size_t)strtoul(megabytes, NULL, 10) / 64;
    }
    make_model();
    RUN(limits_are_kept_at_loading_and_at_the_session);
    RUN(the_model_runs_without_a_limit_and_within_a_large_one);
    return tap_end();
}
