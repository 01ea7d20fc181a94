/* Execution providers: a requested provider is never silently replaced. */
#include "tap.h"

#include <math.h>

static optimize_context_t *context;
static optimize_model_t *model;

TEST(what_can_be_used_is_said_with_reasons) {
    optimize_error_t *error = NULL;
    optimize_buffer_t *json = NULL;
    CHECK_OK(optimize_context_providers(context, 0, &json, &error));
    CHECK_HAS(optimize_buffer_data(json), "{\"provider\":\"cpu\",\"device_id\":0,\"available\":true,\"kernels\":");
    CHECK_HAS(optimize_buffer_data(json), "{\"provider\":\"tensorrt\"");
    optimize_buffer_free(json);
}

TEST(a_session_says_what_it_runs_on) {
    optimize_error_t *error = NULL;
    optimize_buffer_t *json = NULL;
    optimize_session_options_t options = {.struct_size = sizeof options, .threads = 1};
    options.kernels = OPTIMIZE_KERNELS_STOCK;
    optimize_session_t *session = NULL;
    CHECK_OK(optimize_session_new(context, model, &options, NULL, &session, &error));
    CHECK_INT(optimize_session_provider(session), OPTIMIZE_PROVIDER_CPU);
    CHECK_OK(optimize_session_placement(session, &json, &error));
    CHECK_TEXT(optimize_buffer_data(json), "{\"provider\":\"cpu\",\"device_id\":0}");
    optimize_buffer_free(json);
    optimize_session_free(session);
}

/* Returns the embedding of one text with these kernels and this precision. The caller frees `*placement`. */
static optimize_tensor_t *sentence(optimize_model_t *minilm, int32_t kernels, int32_t precision,
                                   optimize_buffer_t **placement) {
    optimize_error_t *error = NULL;
    optimize_session_options_t options = {.struct_size = sizeof options, .threads = 2};
    options.kernels = kernels;
    options.precision = precision;
    optimize_session_t *session = NULL;
    CHECK_OK(optimize_session_new(context, minilm, &options, NULL, &session, &error));
    NEED(session != NULL);
    if (placement != NULL) CHECK_OK(optimize_session_placement(session, placement, &error));
    int64_t ids[16], mask[16], shape[] = {1, 16};
    for (int i = 0; i < 16; i++) ids[i] = i == 0 ? 101 : i == 15 ? 102 : 2000 + 37 * i, mask[i] = 1;
    const char *names[] = {"input_ids", "attention_mask"}, *wanted[] = {MINILM_SENTENCE};
    optimize_tensor_t *inputs[2] = {NULL, NULL}, *output = NULL;
    CHECK_OK(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, shape, 2, ids, sizeof ids, &inputs[0], &error));
    CHECK_OK(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, shape, 2, mask, sizeof mask, &inputs[1], &error));
    CHECK_OK(optimize_session_run(session, names, (const optimize_tensor_t *const *)inputs, 2, wanted, 1, NULL, &output,
                                  &error));
    for (int i = 0; i < 2; i++) optimize_tensor_free(inputs[i]);
    optimize_session_free(session);
    NEED(output != NULL);
    return output;
}

static double cosine(const optimize_tensor_t *a, const optimize_tensor_t *b) {
    const float *x = optimize_tensor_data(a), *y = optimize_tensor_data(b);
    double xy = 0, xx = 0, yy = 0;
    for (int i = 0; i < MINILM_WIDTH; i++) xy += (double)x[i] * y[i], xx += (double)x[i] * x[i], yy += (double)y[i] * y[i];
    return xy / sqrt(xx * yy);
}

TEST(kernels_of_this_library_compute_the_same) {
    optimize_error_t *error = NULL;
    optimize_model_t *minilm = NULL;
    CHECK_OK(optimize_model_load(context, deps(MINILM "/model.onnx"), NULL, &minilm, &error));
    optimize_buffer_t *json = NULL, *providers = NULL;
    optimize_tensor_t *stock = sentence(minilm, OPTIMIZE_KERNELS_STOCK, OPTIMIZE_SESSION_PRECISION_FP32, NULL);
    optimize_tensor_t *ours = sentence(minilm, OPTIMIZE_KERNELS_AUTO, OPTIMIZE_SESSION_PRECISION_FP32, &json);
    CHECK(cosine(stock, ours) > 0.999999);
    CHECK_OK(optimize_context_providers(context, 0, &providers, &error));
    if (strstr(optimize_buffer_data(providers), "\"kernels\":true") != NULL) {
        CHECK_HAS(optimize_buffer_data(json), "\"optimize\":");
        CHECK(number_after(optimize_buffer_data(json), "", "groups") > 3);
        optimize_tensor_t *int8 = sentence(minilm, OPTIMIZE_KERNELS_AUTO, OPTIMIZE_SESSION_PRECISION_INT8, NULL);
        double alike = cosine(stock, int8);
        CHECK(alike > 0.99 && alike < 0.999999);
        optimize_tensor_free(int8);
    } else {
        CHECK_HAS(optimize_buffer_data(json), "\"kernels_unused\":\"");
    }
    optimize_buffer_free(json);
    optimize_buffer_free(providers);
    optimize_tensor_free(stock);
    optimize_tensor_free(ours);
    optimize_model_free(minilm);
}

/* A provider that is available on this machine is used; otherwise the error states the reason. */
TEST(what_is_asked_for_is_had_or_refused) {
    const int32_t providers[] = {OPTIMIZE_PROVIDER_CUDA, OPTIMIZE_PROVIDER_TENSORRT};
    const char *names[] = {"cuda", "tensorrt"};
    for (int i = 0; i < 2; i++) {
        optimize_error_t *error = NULL;
        optimize_session_options_t options = {.struct_size = sizeof options, .threads = 1};
        options.provider = providers[i];
        optimize_session_t *session = NULL;
        optimize_status_t status = optimize_session_new(context, model, &options, NULL, &session, &error);
        if (status == OPTIMIZE_OK) {
            CHECK_INT(optimize_session_provider(session), providers[i]);
        } else {
            CHECK(status == OPTIMIZE_BACKEND_MISSING || status == OPTIMIZE_DEVICE_MISSING);
            CHECK(session == NULL);
            CHECK_HAS(optimize_error_message(error), status == OPTIMIZE_BACKEND_MISSING ? names[i] : "NVIDIA");
        }
        optimize_error_free(error);
        optimize_session_free(session);
    }
}

/* y = EPContext(x), float32[1]: an untrusted engine. Opset 17. */
static const unsigned char model_with_engine[] =
    "\010\010:G\012\040\012\001x\022\001y\042\011EPContext:\015com.microsoft\022\001gZ\017\012"
    "\001x\022\012\012\010\010\001\022\004\012\002\010\001b\017\012\001y\022\012\012\010\010"
    "\001\022\004\012\002\010\001B\002\020\021B\021\012\015com.microsoft\020\001";

TEST(engines_in_models_of_strangers_are_refused) {
    optimize_error_t *error = NULL;
    optimize_model_t *strange = NULL;
    optimize_session_t *session = NULL;
    optimize_session_options_t options = {.struct_size = sizeof options, .provider = OPTIMIZE_PROVIDER_CUDA};
    CHECK_OK(optimize_model_load_memory(context, model_with_engine, sizeof model_with_engine - 1, NULL, &strange, &error));
    CHECK_FAILS(optimize_session_new(context, strange, &options, NULL, &session, &error), OPTIMIZE_UNTRUSTED, "EPContext");
    /* The model contains no real engine, so the session still fails, but with an error of the provider. */
    options.trust_engines = 1;
    optimize_status_t status = optimize_session_new(context, strange, &options, NULL, &session, &error);
    CHECK(status != OPTIMIZE_OK && status != OPTIMIZE_UNTRUSTED && status != OPTIMIZE_INVALID_ARGUMENT);
    optimize_error_free(error);
    optimize_session_free(session);
    optimize_model_free(strange);
}

TEST(auto_says_what_it_passed_over) {
    optimize_error_t *error = NULL;
    optimize_buffer_t *json = NULL;
    optimize_session_options_t options = {.struct_size = sizeof options, .threads = 1};
    options.provider = OPTIMIZE_PROVIDER_AUTO;
    optimize_session_t *session = NULL;
    CHECK_OK(optimize_session_new(context, model, &options, NULL, &session, &error));
    CHECK(optimize_session_provider(session) != OPTIMIZE_PROVIDER_AUTO);
    CHECK_OK(optimize_session_placement(session, &json, &error));
    CHECK_HAS(optimize_buffer_data(json), "\"nodes\":{");
    if (optimize_session_provider(session) != OPTIMIZE_PROVIDER_TENSORRT) {
        CHECK_HAS(optimize_buffer_data(json), "\"passed_over\":[\"tensorrt: ");
    }
    optimize_buffer_free(json);
    optimize_session_free(session);
}

TEST(what_cannot_be_meant_is_refused) {
    optimize_error_t *error = NULL;
    optimize_session_t *session = NULL;
    optimize_session_options_t options = {.struct_size = sizeof options};
    options.provider = 4;
    CHECK_FAILS(optimize_session_new(context, model, &options, NULL, &session, &error), OPTIMIZE_INVALID_ARGUMENT,
                "provider is 4");
    options.provider = OPTIMIZE_PROVIDER_CPU;
    options.device_id = 1;
    CHECK_FAILS(optimize_session_new(context, model, &options, NULL, &session, &error), OPTIMIZE_INVALID_ARGUMENT,
                "a device");
    options.device_id = 0;
    options.provider = OPTIMIZE_PROVIDER_TENSORRT;
    options.engine_cache = "engines";
    CHECK_FAILS(optimize_session_new(context, model, &options, NULL, &session, &error), OPTIMIZE_INVALID_ARGUMENT,
                "absolute");
    optimize_session_options_t kernels = {.struct_size = sizeof kernels, .kernels = 2};
    CHECK_FAILS(optimize_session_new(context, model, &kernels, NULL, &session, &error), OPTIMIZE_INVALID_ARGUMENT,
                "kernels is 2");
    kernels.kernels = OPTIMIZE_KERNELS_STOCK;
    kernels.precision = OPTIMIZE_SESSION_PRECISION_INT8;
    CHECK_FAILS(optimize_session_new(context, model, &kernels, NULL, &session, &error), OPTIMIZE_INVALID_ARGUMENT,
                "kernels is stock");
    kernels.kernels = OPTIMIZE_KERNELS_AUTO;
    kernels.optimization_level = OPTIMIZE_OPTIMIZATION_BASIC;
    CHECK_FAILS(optimize_session_new(context, model, &kernels, NULL, &session, &error), OPTIMIZE_UNSUPPORTED,
                "precision int8 needs all optimizations");
    kernels.optimization_level = 0;
    kernels.precision = 3;
    CHECK_FAILS(optimize_session_new(context, model, &kernels, NULL, &session, &error), OPTIMIZE_INVALID_ARGUMENT,
                "precision is 3");
    optimize_buffer_t *report = NULL;
    optimize_benchmark_options_t benchmark = {.struct_size = sizeof benchmark};
    benchmark.provider = -1;
    CHECK_FAILS(optimize_model_benchmark(context, model, model, NULL, &benchmark, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "provider is -1");
    optimize_evaluate_options_t evaluate = {.struct_size = sizeof evaluate};
    evaluate.provider = 9;
    CHECK_FAILS(optimize_model_evaluate(context, model, NULL, NULL, "a", 1, &evaluate, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "provider is 9");
    optimize_generator_t *generator = NULL;
    optimize_generator_options_t writing = {.struct_size = sizeof writing};
    writing.provider = 7;
    CHECK_FAILS(optimize_generator_new(context, model, &writing, NULL, &generator, &error), OPTIMIZE_INVALID_ARGUMENT,
                "provider is 7");
}

int main(void) {
    context = new_context();
    model = load_tiny(context);
    RUN(what_can_be_used_is_said_with_reasons);
    RUN(a_session_says_what_it_runs_on);
    RUN(kernels_of_this_library_compute_the_same);
    RUN(what_is_asked_for_is_had_or_refused);
    RUN(engines_in_models_of_strangers_are_refused);
    RUN(auto_says_what_it_passed_over);
    RUN(what_cannot_be_meant_is_refused);
    optimize_model_free(model);
    optimize_context_free(context);
    return tap_end();
}
