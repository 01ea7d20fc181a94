/* Messages and counters of the library. */
#include "tap.h"

#include <stdatomic.h>

typedef struct heard_t {
    mtx_t lock;
    char text[1 << 16];
    size_t size;
    int messages, ours, runtime, worst;
} heard_t;

static void hear(void *user_data, int32_t level, const char *target, const char *message) {
    heard_t *heard = user_data;
    mtx_lock(&heard->lock);
    heard->messages++;
    heard->ours += strcmp(target, "optimize") == 0;
    heard->runtime += strcmp(target, "onnxruntime") == 0;
    if (level > heard->worst) heard->worst = level;
    if (heard->size + strlen(message) + 2 < sizeof heard->text)
        heard->size += (size_t)snprintf(heard->text + heard->size, sizeof heard->text - heard->size, "%s\n", message);
    mtx_unlock(&heard->lock);
}

static heard_t *new_heard(void) {
    heard_t *heard = calloc(1, sizeof *heard);
    NEED(heard != NULL && mtx_init(&heard->lock, mtx_plain) == thrd_success);
    return heard;
}

static optimize_context_t *logging(heard_t *heard, int32_t level) {
    optimize_context_options_t options = {.struct_size = sizeof options, .log = hear, .log_user_data = heard};
    optimize_context_t *context = NULL;
    optimize_error_t *error = NULL;
    options.log_level = level;
    tap_need(optimize_context_new(&options, &context, &error), error, "optimize_context_new");
    return context;
}

static void run_minilm(const optimize_context_t *context) {
    static const char *const texts[1] = {"A man is eating food."};
    optimize_model_t *model = load_model(context, MINILM);
    optimize_session_t *session = new_session(context, model);
    optimize_tokenizer_t *tokenizer = load_tokenizer();
    optimize_tensor_t *result = NULL;
    optimize_error_t *error = NULL;
    text_t text = encode(tokenizer, texts, 1);
    CHECK_OK(run_text(session, &text, MINILM_SENTENCE, NULL, &result, &error));
    optimize_tensor_free(result);
    free_text(&text);
    optimize_tokenizer_free(tokenizer);
    optimize_session_free(session);
    optimize_model_free(model);
}

TEST(a_program_hears_events_of_the_library_and_of_onnx_runtime) {
    heard_t *heard = new_heard();
    optimize_context_t *context = logging(heard, OPTIMIZE_LOG_LEVEL_DEBUG);
    int before;
    run_minilm(context);
    CHECK(heard->ours >= 2 && heard->runtime > 0);
    CHECK_HAS(heard->text, "paraphrase-MiniLM-L3-v2: loaded in");
    CHECK_HAS(heard->text, "session on cpu created in");
    CHECK(heard->worst == OPTIMIZE_LOG_LEVEL_DEBUG);
    optimize_context_free(context);
    before = heard->messages;
    context = new_context();
    run_minilm(context);
    CHECK_INT(heard->messages, before);
    optimize_context_free(context);
    free(heard);
}

TEST(a_level_is_not_exceeded) {
    heard_t *infos = new_heard(), *errors = new_heard();
    optimize_context_t *first = logging(infos, OPTIMIZE_LOG_LEVEL_INFO);
    optimize_context_t *second = logging(errors, OPTIMIZE_LOG_LEVEL_ERROR);
    run_minilm(first);
    CHECK(infos->messages > 0 && infos->worst <= OPTIMIZE_LOG_LEVEL_INFO);
    CHECK_INT(errors->messages, 0);
    optimize_context_free(second);
    optimize_context_free(first);
    free(infos);
    free(errors);
}

/* A context whose log callback frees the context. */
static optimize_context_t *own;
static atomic_int freed;

static void free_own(void *user_data, int32_t level, const char *target, const char *message) {
    (void)user_data, (void)level, (void)target, (void)message;
    if (atomic_fetch_add(&freed, 1) == 0) optimize_context_free(own);
}

TEST(a_function_may_call_the_library) {
    optimize_context_options_t options = {.struct_size = sizeof options, .log = free_own};
    optimize_context_t *context = new_context();
    optimize_error_t *error = NULL;
    options.log_level = OPTIMIZE_LOG_LEVEL_INFO;
    CHECK_OK(optimize_context_new(&options, &own, &error));
    run_minilm(context);
    CHECK_INT(freed, 1);
    optimize_context_free(context);
}

TEST(options_of_the_log_are_checked) {
    optimize_context_options_t options = {.struct_size = sizeof options, .log = hear};
    optimize_context_t *context = NULL;
    optimize_error_t *error = NULL;
    options.log_level = 5;
    CHECK_FAILS(optimize_context_new(&options, &context, &error), OPTIMIZE_INVALID_ARGUMENT, "log_level");
    options.log_level = 0;
    options.reserved = 1;
    CHECK_FAILS(optimize_context_new(&options, &context, &error), OPTIMIZE_INVALID_ARGUMENT, "reserved");
    CHECK(context == NULL);
}

TEST(the_library_counts_what_it_does) {
    optimize_context_t *context = new_context();
    optimize_counters_t before = {.struct_size = sizeof before}, after = {.struct_size = sizeof after};
    optimize_buffer_t *json = NULL, *text = NULL;
    optimize_error_t *error = NULL;
    double runs = 0;
    CHECK_OK(optimize_context_counters(context, &before, &error));
    run_minilm(context);
    CHECK_OK(optimize_context_counters(context, &after, &error));
    CHECK_INT(after.models_loaded - before.models_loaded, 1);
    CHECK(after.bytes_loaded - before.bytes_loaded > 60000000 && after.load_seconds > before.load_seconds);
    CHECK_INT(after.sessions_created - before.sessions_created, 1);
    CHECK(after.session_seconds > before.session_seconds);
    CHECK_INT(after.runs - before.runs, 1);
    CHECK(after.run_seconds > before.run_seconds);
    CHECK_INT(after.failed_runs, before.failed_runs);
    CHECK(after.active_runs == 0 && after.waiting_calls == 0);
    CHECK_OK(optimize_context_counters_text(context, OPTIMIZE_COUNTERS_FORMAT_JSON, &json, &error));
    CHECK_OK(optimize_report_number(json, "/runs", &runs, &error));
    CHECK(runs == (double)after.runs);
    CHECK_OK(optimize_context_counters_text(context, OPTIMIZE_COUNTERS_FORMAT_PROMETHEUS, &text, &error));
    CHECK_HAS(optimize_buffer_data(text), "# TYPE optimize_active_runs gauge\noptimize_active_runs 0\n");
    optimize_buffer_free(text);
    text = NULL;
    CHECK_FAILS(optimize_context_counters_text(context, 2, &text, &error), OPTIMIZE_INVALID_ARGUMENT, "format");
    CHECK(text == NULL);
    optimize_buffer_free(json);
    optimize_context_free(context);
}

int main(void) {
    RUN(a_program_hears_events_of_the_library_and_of_onnx_runtime);
    RUN(a_level_is_not_exceeded);
    RUN(a_function_may_call_the_library);
    RUN(options_of_the_log_are_checked);
    RUN(the_library_counts_what_it_does);
    return tap_end();
}
