/* Statements of the header about processes: fork, signals, and callbacks that call the library. */
#define _GNU_SOURCE
#include "tap.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static optimize_context_t *context;

/* Returns 0 if the library quantizes and saves a model in this process. */
static int quantize_and_save(const optimize_model_t *model, const char *path) {
    optimize_model_t *small = NULL, *again = NULL;
    int failed = optimize_model_quantize(context, model, NULL, NULL, &small, NULL, NULL) != OPTIMIZE_OK ||
                 optimize_model_save(small, path, NULL, NULL, NULL, NULL) != OPTIMIZE_OK ||
                 optimize_model_load(context, path, NULL, &again, NULL) != OPTIMIZE_OK;
    optimize_model_free(again);
    optimize_model_free(small);
    return failed;
}

TEST(a_child_uses_the_library_before_its_parent_opens_onnx_runtime) {
    char path[4096];
    optimize_model_t *model = load_model(context, MINILM);
    int state = -1;
    pid_t child;
    snprintf(path, sizeof path, "%s", temporary("child.onnx"));
    CHECK_INT(quantize_and_save(model, path), 0);
    fflush(stdout);
    child = fork();
    NEED(child >= 0);
    if (child == 0) _exit(quantize_and_save(model, path));
    NEED(waitpid(child, &state, 0) == child);
    CHECK(WIFEXITED(state) && WEXITSTATUS(state) == 0);
    optimize_model_free(model);
}

static atomic_int signals;

static void count_signal(int number) {
    (void)number;
    signals++;
}

TEST(signals_do_not_change_results) {
    static const char *const texts[1] = {"A man is eating food."};
    struct sigaction action, before;
    struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    char path[4096];
    optimize_model_t *model;
    optimize_session_t *session;
    optimize_tokenizer_t *tokenizer;
    optimize_tensor_t *quiet = NULL, *noisy = NULL;
    optimize_error_t *error = NULL;
    text_t text;
    memset(&action, 0, sizeof action);
    action.sa_handler = count_signal; /* without SA_RESTART: system calls return EINTR */
    snprintf(path, sizeof path, "%s", temporary("signals.onnx"));
    tokenizer = load_tokenizer();
    text = encode(tokenizer, texts, 1);
    model = load_model(context, MINILM);
    session = new_session(context, model);
    CHECK_OK(run_text(session, &text, MINILM_SENTENCE, NULL, &quiet, &error));
    NEED(sigaction(SIGALRM, &action, &before) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    CHECK_INT(quantize_and_save(model, path), 0);
    optimize_session_free(session);
    session = new_session(context, model);
    CHECK_OK(run_text(session, &text, MINILM_SENTENCE, NULL, &noisy, &error));
    NEED(setitimer(ITIMER_REAL, &never, NULL) == 0 && sigaction(SIGALRM, &before, NULL) == 0);
    CHECK(signals > 10);
    CHECK_INT(optimize_tensor_size(noisy), optimize_tensor_size(quiet));
    CHECK(memcmp(optimize_tensor_data(noisy), optimize_tensor_data(quiet), optimize_tensor_size(quiet)) == 0);
    optimize_tensor_free(quiet);
    optimize_tensor_free(noisy);
    optimize_session_free(session);
    optimize_model_free(model);
    free_text(&text);
    optimize_tokenizer_free(tokenizer);
}

/* A progress callback that uses the model of its own call, as is allowed for objects that are passed as const. */
typedef struct inner_t {
    const optimize_model_t *model;
    int calls, wrong;
} inner_t;

static int32_t inspect_inside(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    inner_t *inner = user_data;
    optimize_buffer_t *report = NULL;
    (void)stage, (void)done, (void)total;
    inner->calls++;
    inner->wrong += optimize_model_inspect(inner->model, &report, NULL) != OPTIMIZE_OK;
    optimize_buffer_free(report);
    return 0;
}

TEST(a_progress_callback_may_call_the_library) {
    optimize_model_t *model = load_model(context, MINILM), *small = NULL;
    inner_t inner = {model, 0, 0};
    optimize_call_t call = {.struct_size = sizeof call, .progress = inspect_inside, .user_data = &inner};
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_model_quantize(context, model, NULL, &call, &small, NULL, &error));
    CHECK(inner.calls > 0);
    CHECK_INT(inner.wrong, 0);
    optimize_model_free(small);
    optimize_model_free(model);
}

static void free_inside(void *user_data) {
    optimize_cancel_t **cancel = user_data;
    optimize_cancel_free(*cancel);
    *cancel = NULL;
}

TEST(release_is_called_inside_for_memory_that_is_not_aligned) {
    static const int64_t dims[1] = {2};
    static char bytes[16 + 1];
    optimize_tensor_t *tensor = NULL;
    optimize_cancel_t *cancel = NULL;
    optimize_error_t *error = NULL;
    const size_t odd = (uintptr_t)bytes % 2 == 0;
    CHECK_OK(optimize_cancel_new(&cancel, &error));
    CHECK_OK(optimize_tensor_borrow(OPTIMIZE_DTYPE_INT64, dims, 1, bytes + odd, 16, free_inside, &cancel, &tensor, &error));
    CHECK(cancel == NULL);
    optimize_tensor_free(tensor);
}

int main(void) {
    context = new_context();
    RUN(a_child_uses_the_library_before_its_parent_opens_onnx_runtime);
    RUN_UNLESS_VALGRIND(signals_do_not_change_results);
    RUN(a_progress_callback_may_call_the_library);
    RUN(release_is_called_inside_for_memory_that_is_not_aligned);
    optimize_context_free(context);
    return tap_end();
}
