/* Statuses, error objects, version. */
#include "tap.h"

TEST(version_is_that_of_the_header) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%d.%d.%d", OPTIMIZE_VERSION_MAJOR, OPTIMIZE_VERSION_MINOR, OPTIMIZE_VERSION_PATCH);
    CHECK_TEXT(optimize_version(), wanted);
    CHECK_INT(optimize_version_number(), OPTIMIZE_VERSION);
    CHECK_INT(OPTIMIZE_VERSION,
              OPTIMIZE_VERSION_MAJOR * 10000 + OPTIMIZE_VERSION_MINOR * 100 + OPTIMIZE_VERSION_PATCH);
}

/* The types have tags equal to their names, so that programs can declare them without including the header. */
struct optimize_call_t;
struct optimize_model_t;
enum optimize_status_t;
static int takes_tagged(const struct optimize_model_t *model, const struct optimize_call_t *call, enum optimize_status_t status) {
    return model == NULL && call == NULL && status == OPTIMIZE_OK;
}

OPTIMIZE_DEPRECATED("use new_function") static inline int old_function(void) { return 1; }

TEST(types_can_be_declared_ahead_and_functions_deprecated) {
    const optimize_model_t *model = NULL;
    const optimize_call_t *call = NULL;
    CHECK(takes_tagged(model, call, OPTIMIZE_OK));
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    CHECK(old_function() == 1);
#pragma GCC diagnostic pop
}

TEST(every_status_has_a_name) {
    static const char *const names[] = {
        "ok",      "invalid_argument", "invalid_handle", "not_found", "io",      "invalid_model", "unsupported",  "limit_exceeded",
        "runtime_missing", "runtime",  "cancelled",      "timeout",   "busy",    "gate_not_met",  "internal",
        "backend_missing", "device_missing", "backend", "mismatch",   "untrusted",
    };
    int status;
    for (status = OPTIMIZE_OK; status <= OPTIMIZE_UNTRUSTED; status++)
        CHECK_TEXT(optimize_status_name(status), names[status]);
    CHECK_TEXT(optimize_status_name(-1), "unknown");
    CHECK_TEXT(optimize_status_name(OPTIMIZE_UNTRUSTED + 1), "unknown");
    CHECK_TEXT(optimize_status_name(INT32_MAX), "unknown");
    CHECK_TEXT(optimize_status_name(INT32_MIN), "unknown");
}

TEST(no_error_reads_as_an_empty_one) {
    CHECK_INT(optimize_error_status(NULL), OPTIMIZE_INVALID_HANDLE);
    CHECK_TEXT(optimize_error_message(NULL), "");
    CHECK_TEXT(optimize_error_place(NULL), "");
    optimize_error_free(NULL);
}

TEST(an_error_says_what_and_where) {
    optimize_context_t *context = new_context();
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    const char *path = temporary("there is no such m\xc3\xb6\x64\x65l.onnx");
    CHECK_INT(optimize_model_load(context, path, NULL, &model, &error), OPTIMIZE_NOT_FOUND);
    CHECK(model == NULL);
    CHECK_INT(optimize_error_status(error), OPTIMIZE_NOT_FOUND);
    CHECK(optimize_error_message(error)[0] != '\0');
    CHECK_TEXT(optimize_error_place(error), path);
    optimize_error_free(error);
    optimize_context_free(context);
}

TEST(a_call_without_a_place_for_the_error_answers_the_same) {
    optimize_context_t *context = new_context();
    optimize_model_t *model = NULL;
    CHECK_INT(optimize_model_load(context, temporary("nothing"), NULL, &model, NULL), OPTIMIZE_NOT_FOUND);
    CHECK_INT(optimize_model_load(NULL, temporary("nothing"), NULL, &model, NULL), OPTIMIZE_INVALID_ARGUMENT);
    optimize_context_free(context);
}

TEST(success_clears_what_was_in_the_place_for_the_error) {
    optimize_error_t *error = (optimize_error_t *)(uintptr_t)64;
    optimize_context_t *context = (optimize_context_t *)(uintptr_t)64;
    CHECK_INT(optimize_context_new(NULL, &context, &error), OPTIMIZE_OK);
    CHECK(error == NULL);
    optimize_context_free(context);
}

TEST(failure_clears_the_result) {
    optimize_error_t *error = (optimize_error_t *)(uintptr_t)64;
    optimize_model_t *model = (optimize_model_t *)(uintptr_t)64;
    optimize_context_t *context = new_context();
    CHECK_FAILS(optimize_model_load(context, temporary("nothing"), NULL, &model, &error), OPTIMIZE_NOT_FOUND, "nothing");
    CHECK(model == NULL);
    optimize_context_free(context);
}

TEST(another_handle_is_no_error) {
    optimize_context_t *context = new_context();
    CHECK_INT(optimize_error_status((optimize_error_t *)context), OPTIMIZE_INVALID_HANDLE);
    CHECK_TEXT(optimize_error_message((optimize_error_t *)context), "");
    CHECK_TEXT(optimize_error_place((optimize_error_t *)context), "");
    optimize_error_free((optimize_error_t *)context);
    optimize_context_free(context);
}

static int read_error(void *error) {
    return optimize_error_status(error) == OPTIMIZE_INVALID_ARGUMENT && strlen(optimize_error_message(error)) > 0 ? 1 : 0;
}

TEST(an_error_is_read_on_any_thread) {
    optimize_error_t *error = NULL;
    thrd_t threads[4];
    int i, answer;
    CHECK_INT(optimize_cancel_new(NULL, &error), OPTIMIZE_INVALID_ARGUMENT);
    for (i = 0; i < 4; i++) NEED(thrd_create(&threads[i], read_error, error) == thrd_success);
    for (i = 0; i < 4; i++) {
        thrd_join(threads[i], &answer);
        CHECK_INT(answer, 1);
    }
    optimize_error_free(error);
}

static int fail_on_a_thread(void *number) {
    char name[32];
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    optimize_context_t *context = new_context();
    int i, right = 1;
    snprintf(name, sizeof name, "/nowhere-%d", *(int *)number);
    for (i = 0; i < 100; i++) {
        optimize_model_load(context, name, NULL, &model, &error);
        right &= strcmp(optimize_error_place(error), name) == 0;
        optimize_error_free(error);
    }
    optimize_context_free(context);
    return right;
}

TEST(threads_get_their_own_errors) {
    thrd_t threads[4];
    int numbers[4] = {0, 1, 2, 3}, i, right;
    for (i = 0; i < 4; i++) NEED(thrd_create(&threads[i], fail_on_a_thread, &numbers[i]) == thrd_success);
    for (i = 0; i < 4; i++) {
        thrd_join(threads[i], &right);
        CHECK_INT(right, 1);
    }
}

int main(void) {
    RUN(version_is_that_of_the_header);
    RUN(types_can_be_declared_ahead_and_functions_deprecated);
    RUN(every_status_has_a_name);
    RUN(no_error_reads_as_an_empty_one);
    RUN(an_error_says_what_and_where);
    RUN(a_call_without_a_place_for_the_error_answers_the_same);
    RUN(success_clears_what_was_in_the_place_for_the_error);
    RUN(failure_clears_the_result);
    RUN(another_handle_is_no_error);
    RUN(an_error_is_read_on_any_thread);
    RUN(threads_get_their_own_errors);
    return tap_end();
}
