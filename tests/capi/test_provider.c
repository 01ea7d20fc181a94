/* Execution providers: requested by name, never silently replaced. */
#include "tap.h"

static optimize_context_t *context;
static optimize_model_t *model;

TEST(what_can_be_used_is_said_with_reasons) {
    optimize_error_t *error = NULL;
    optimize_buffer_t *json = NULL;
    CHECK_OK(optimize_context_providers(context, 0, &json, &error));
    CHECK_HAS(optimize_buffer_data(json), "{\"provider\":\"cpu\",\"device_id\":0,\"available\":true}");
    CHECK_HAS(optimize_buffer_data(json), "{\"provider\":\"tensorrt\"");
    optimize_buffer_free(json);
}

TEST(a_session_says_what_it_runs_on) {
    optimize_error_t *error = NULL;
    optimize_buffer_t *json = NULL;
    optimize_session_t *session = new_session(context, model);
    CHECK_INT(optimize_session_provider(session), OPTIMIZE_PROVIDER_CPU);
    CHECK_OK(optimize_session_placement(session, &json, &error));
    CHECK_TEXT(optimize_buffer_data(json), "{\"provider\":\"cpu\",\"device_id\":0}");
    optimize_buffer_free(json);
    optimize_session_free(session);
}

/* A provider that this machine has is used; otherwise the error is the reason. */
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
    /* There is no engine in it, so that it cannot succeed; but that is for the provider to say. */
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
    RUN(what_is_asked_for_is_had_or_refused);
    RUN(engines_in_models_of_strangers_are_refused);
    RUN(auto_says_what_it_passed_over);
    RUN(what_cannot_be_meant_is_refused);
    optimize_model_free(model);
    optimize_context_free(context);
    return tap_end();
}
