/*
 * A program with an ONNX Runtime of its own registers liboptimize.so as an execution provider.
 *
 * ONNX Runtime's header is not among the dependencies, so `struct OrtApi` is used as an array of functions. The numbers
 * below are the indices of the functions in this struct, which never change.
 */
#define _GNU_SOURCE
#include "tap.h"

#include <dlfcn.h>
#include <stdbool.h>

typedef struct { const void *(*get_api)(uint32_t); const char *(*get_version)(void); } api_base_t;
typedef void *status_t;
typedef void (*function_t)(void);

enum {
    GET_ERROR_MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN_ = 9, CREATE_SESSION_OPTIONS = 10,
    SET_INTRA_OP_NUM_THREADS = 24, CREATE_TENSOR_WITH_DATA = 49, GET_TENSOR_MUTABLE_DATA = 51,
    CREATE_CPU_MEMORY_INFO = 69, RELEASE_ENV = 92, RELEASE_STATUS = 93, RELEASE_MEMORY_INFO = 94,
    RELEASE_SESSION = 95, RELEASE_VALUE = 96, RELEASE_SESSION_OPTIONS = 100, REGISTER_LIBRARY = 301,
    UNREGISTER_LIBRARY = 302, GET_EP_DEVICES = 303, APPEND_PROVIDER_V2 = 304, EP_DEVICE_NAME = 312
};

static const function_t *api;
static void *env;
static char plugin[4096];

#define CALL(place, type, ...) ((type)api[place])(__VA_ARGS__)

/* Returns whether the call succeeded; otherwise, prints the message. */
static bool fine(status_t status) {
    if (status == NULL) return true;
    tap_note(__FILE__, __LINE__, "%s", CALL(GET_ERROR_MESSAGE, const char *(*)(status_t), status));
    CALL(RELEASE_STATUS, void (*)(status_t), status);
    return false;
}
#define FINE(call) NEED(fine(call))

/* Returns the device of this library's execution provider; NULL if there is none. */
static const void *device(void) {
    const void *const *devices = NULL;
    size_t count = 0;
    FINE(CALL(GET_EP_DEVICES, status_t (*)(void *, const void *const **, size_t *), env, &devices, &count));
    for (size_t i = 0; i < count; i++)
        if (strcmp(CALL(EP_DEVICE_NAME, const char *(*)(const void *), devices[i]), "OptimizeExecutionProvider") == 0)
            return devices[i];
    return NULL;
}

/* Computes the sentence vector of 16 tokens in a session with this library's provider, or without it (NULL). */
static void embed(const char *model, const void *with, float *vector, size_t count) {
    void *options = NULL, *session = NULL, *memory = NULL, *inputs[2] = {NULL, NULL}, *output = NULL;
    FINE(CALL(CREATE_SESSION_OPTIONS, status_t (*)(void **), &options));
    FINE(CALL(SET_INTRA_OP_NUM_THREADS, status_t (*)(void *, int), options, 1));
    if (with != NULL) {
        const char *keys[] = {"precision", "threads"}, *values[] = {"bf16", "1"};
        FINE(CALL(APPEND_PROVIDER_V2,
                  status_t (*)(void *, void *, const void *const *, size_t, const char *const *, const char *const *,
                               size_t),
                  options, env, &with, 1, keys, values, 2));
    }
    FINE(CALL(CREATE_SESSION, status_t (*)(const void *, const char *, const void *, void **), env, model, options,
              &session));
    FINE(CALL(CREATE_CPU_MEMORY_INFO, status_t (*)(int, int, void **), 1, 0, &memory));
    int64_t ids[16], mask[16], shape[2] = {1, 16};
    for (int i = 0; i < 16; i++) ids[i] = 1000 + 37 * i, mask[i] = i < 11;
    int64_t *data[2] = {ids, mask};
    for (int i = 0; i < 2; i++)
        FINE(CALL(CREATE_TENSOR_WITH_DATA,
                  status_t (*)(const void *, void *, size_t, const int64_t *, size_t, int, void **), memory,
                  data[i], sizeof ids, shape, 2, 7, &inputs[i]));
    const char *names[] = {"input_ids", "attention_mask"}, *outputs[] = {"461"};
    FINE(CALL(RUN_,
              status_t (*)(void *, const void *, const char *const *, void *const *, size_t, const char *const *,
                           size_t, void **),
              session, NULL, names, inputs, 2, outputs, 1, &output));
    void *values = NULL;
    FINE(CALL(GET_TENSOR_MUTABLE_DATA, status_t (*)(void *, void **), output, &values));
    memcpy(vector, values, count * sizeof *vector);
    CALL(RELEASE_VALUE, void (*)(void *), output);
    for (int i = 0; i < 2; i++) CALL(RELEASE_VALUE, void (*)(void *), inputs[i]);
    CALL(RELEASE_MEMORY_INFO, void (*)(void *), memory);
    CALL(RELEASE_SESSION, void (*)(void *), session);
    CALL(RELEASE_SESSION_OPTIONS, void (*)(void *), options);
}

TEST(it_is_registered_runs_and_is_unregistered) {
    char model[4096];
    snprintf(model, sizeof model, "%s/models/paraphrase-MiniLM-L3-v2/model.onnx", getenv("OPTIMIZE_TEST_DEPS"));
    CHECK(device() == NULL);
    FINE(CALL(REGISTER_LIBRARY, status_t (*)(void *, const char *, const char *), env, "optimize", plugin));
    const void *ours = device();
    CHECK(ours != NULL);
    if (ours != NULL) {
        float stock[384], vector[384], product = 0, a = 0, b = 0;
        embed(model, NULL, stock, 384);
        embed(model, ours, vector, 384);
        bool differs = false;
        for (int i = 0; i < 384; i++) {
            product += stock[i] * vector[i], a += stock[i] * stock[i], b += vector[i] * vector[i];
            differs = differs || stock[i] != vector[i];
        }
        CHECK(product / sqrtf(a * b) > 0.999F);
        CHECK(differs); /* equal vectors would mean that ONNX Runtime's kernels ran */
    }
    FINE(CALL(UNREGISTER_LIBRARY, status_t (*)(void *, const char *), env, "optimize"));
    CHECK(device() == NULL);
}

int main(void) {
    /* The library that this program is linked with is the plugin. */
    Dl_info found;
    NEED(dladdr((void *)(uintptr_t)optimize_version, &found) != 0 && realpath(found.dli_fname, plugin) != NULL);
    char runtime[4096];
    snprintf(runtime, sizeof runtime, "%s/onnxruntime/libonnxruntime.so.1", getenv("OPTIMIZE_TEST_DEPS"));
    void *library = dlopen(runtime, RTLD_NOW);
    NEED(library != NULL);
    const api_base_t *(*base)(void) = (const api_base_t *(*)(void))(uintptr_t)dlsym(library, "OrtGetApiBase");
    NEED(base != NULL);
    api = base()->get_api(24);
    NEED(api != NULL);
    FINE(CALL(CREATE_ENV, status_t (*)(int, const char *, void **), 3, "plugin", &env));
    RUN(it_is_registered_runs_and_is_unregistered);
    CALL(RELEASE_ENV, void (*)(void *), env);
    return tap_end();
}
