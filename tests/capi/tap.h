/*
 * Helpers of the C tests. A test is a function that TEST(name) defines. RUN(name) runs the test and prints `ok - name`
 * or `not ok - name`. CHECK records a failure of the test with its line, and the test continues. main ends with
 * `return tap_end();`.
 */
#ifndef TAP_H
#define TAP_H

#include <optimize.h>

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <time.h>

static int tap_failures;    /* failed checks of the current test */
static int tap_failed_tests;

#define TEST(name) static void name(void)
#define RUN(name) tap_run(#name, name, 1)
/* Runs a test, except under valgrind: for tests that take minutes there, and whose use of memory other tests cover. */
#define RUN_UNLESS_VALGRIND(name) tap_run(#name, name, !under_valgrind())

#define CHECK(condition) tap_check((condition) ? 1 : 0, __FILE__, __LINE__, #condition)
#define CHECK_INT(got, wanted) tap_check_int((long long)(got), (long long)(wanted), __FILE__, __LINE__, #got)
#define CHECK_TEXT(got, wanted) tap_check_text((got), (wanted), __FILE__, __LINE__, #got)
/* Checks that `text` contains `part`. */
#define CHECK_HAS(text, part) tap_check_has((text), (part), __FILE__, __LINE__)
/* Checks that the call returned OPTIMIZE_OK without an error; otherwise, frees the error and sets it to NULL. */
#define CHECK_OK(call) tap_check_ok((call), &error, __FILE__, __LINE__)
/* Checks that the call returned `status`, and an error with this status. `part` must be in its message or place, unless
 * `part` is NULL. */
#define CHECK_FAILS(call, status, part) tap_check_fails((call), &error, (status), (part), __FILE__, __LINE__)
/* Ends the program if the condition is false: for conditions without which the later code cannot run. */
#define NEED(condition) ((condition) ? (void)0 : tap_give_up(__FILE__, __LINE__, #condition))

static inline int under_valgrind(void) {
    const char *set = getenv("OPTIMIZE_TEST_VALGRIND");
    return set != NULL && strcmp(set, "1") == 0;
}

static inline void tap_give_up(const char *file, int line, const char *what) {
    printf("not ok - %s:%d: %s\n", file, line, what);
    exit(1);
}

static inline void tap_note(const char *file, int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("# %s:%d: ", file, line);
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
    tap_failures++;
}

static inline int tap_check(int passed, const char *file, int line, const char *what) {
    if (!passed) tap_note(file, line, "%s", what);
    return passed;
}

static inline int tap_check_int(long long got, long long wanted, const char *file, int line, const char *what) {
    if (got != wanted) tap_note(file, line, "%s is %lld, not %lld", what, got, wanted);
    return got == wanted;
}

static inline int tap_check_text(const char *got, const char *wanted, const char *file, int line, const char *what) {
    int equal = got != NULL && strcmp(got, wanted) == 0;
    if (!equal) tap_note(file, line, "%s is \"%s\", not \"%s\"", what, got ? got : "(NULL)", wanted);
    return equal;
}

static inline int tap_check_has(const char *text, const char *part, const char *file, int line) {
    int has = text != NULL && strstr(text, part) != NULL;
    if (!has) tap_note(file, line, "\"%s\" is not in \"%.400s\"", part, text ? text : "(NULL)");
    return has;
}

static inline int tap_check_ok(optimize_status_t status, optimize_error_t **error, const char *file, int line) {
    if (status != OPTIMIZE_OK)
        tap_note(file, line, "%s: %s: %s", optimize_status_name(status), optimize_error_place(*error),
                 optimize_error_message(*error));
    else if (*error != NULL) tap_note(file, line, "an error after OPTIMIZE_OK");
    optimize_error_free(*error);
    *error = NULL;
    return status == OPTIMIZE_OK;
}

static inline int tap_check_fails(optimize_status_t status, optimize_error_t **error, optimize_status_t wanted,
                                  const char *part, const char *file, int line) {
    const char *message = optimize_error_message(*error), *place = optimize_error_place(*error);
    int failures = tap_failures;
    if (status != wanted)
        tap_note(file, line, "%s, not %s: %s: %s", optimize_status_name(status), optimize_status_name(wanted), place,
                 message);
    if (status != OPTIMIZE_OK && optimize_error_status(*error) != status)
        tap_note(file, line, "the error says %s", optimize_status_name(optimize_error_status(*error)));
    if (status != OPTIMIZE_OK && message[0] == '\0') tap_note(file, line, "an error without a message");
    if (part != NULL && strstr(message, part) == NULL && strstr(place, part) == NULL)
        tap_note(file, line, "\"%s\" is not in \"%s: %s\"", part, place, message);
    optimize_error_free(*error);
    *error = NULL;
    return tap_failures == failures;
}

static inline void tap_run(const char *name, void (*test)(void), int wanted) {
    if (!wanted) {
        printf("ok - %s # skipped under valgrind\n", name);
        return;
    }
    tap_failures = 0;
    test();
    printf("%s - %s\n", tap_failures == 0 ? "ok" : "not ok", name);
    fflush(stdout);
    if (tap_failures != 0) tap_failed_tests++;
}

static inline int tap_end(void) {
    return tap_failed_tests == 0 ? 0 : 1;
}

/* Paths. deps() and temporary() return static memory: the 16th later call overwrites the path that a call returned. */

static inline const char *tap_path(const char *variable, const char *name) {
    static char paths[16][4096];
    static unsigned next;
    char *path = paths[next++ % 16];
    const char *folder = getenv(variable);
    if (folder == NULL) folder = strcmp(variable, "OPTIMIZE_TEST_DEPS") == 0 ? "target/deps" : "/tmp";
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}
static inline const char *deps(const char *name) { return tap_path("OPTIMIZE_TEST_DEPS", name); }
static inline const char *temporary(const char *name) { return tap_path("OPTIMIZE_TEST_TMP", name); }

#define MINILM "models/paraphrase-MiniLM-L3-v2"
#define MINILM_WIDTH 384
/* Names of the token embeddings and of the sentence embedding in this export of MiniLM. */
#define MINILM_TOKENS "onnx::Shape_422"
#define MINILM_SENTENCE "461"
/* A small model of opset 17: sum = x + y, float32[n, 2], and same = s, string[m]. */
static const unsigned char tiny_model[] =
    "\010\010:\230\001\012\020\012\001x\012\001y\022\003sum\042\003Add\012\023\012\001s\022\004same\042"
    "\010Identity\022\004tinyZ\024\012\001x\022\017\012\015\010\001\022\011\012\003\022\001n\012\002\010"
    "\002Z\024\012\001y\022\017\012\015\010\001\022\011\012\003\022\001n\012\002\010\002Z\020\012\001s"
    "\022\013\012\011\010\010\022\005\012\003\022\001mb\026\012\003sum\022\017\012\015\010\001\022\011"
    "\012\003\022\001n\012\002\010\002b\023\012\004same\022\013\012\011\010\010\022\005\012\003\022\001mB"
    "\002\020\021";
enum { TINY_SIZE = sizeof tiny_model - 1 };
static const char *const tiny_inputs[3] = {"x", "y", "s"};

/* Files. */

static inline unsigned char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    long end;
    unsigned char *content;
    *size = 0;
    if (file == NULL) return NULL;
    fseek(file, 0, SEEK_END);
    end = ftell(file);
    rewind(file);
    content = malloc((size_t)end + 1);
    if (content != NULL) *size = fread(content, 1, (size_t)end, file);
    fclose(file);
    return content;
}

static inline int file_exists(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file != NULL) fclose(file);
    return file != NULL;
}

static inline void write_file(const char *path, const void *content, size_t size) {
    FILE *file = fopen(path, "wb");
    NEED(file != NULL);
    NEED(fwrite(content, 1, size, file) == size);
    fclose(file);
}

/* Reports. */

/* Returns the number after the first `"key": ` that follows `after` in JSON; NaN if there is none. */
static inline double number_after(const char *json, const char *after, const char *key) {
    char quoted[64];
    const char *at = strstr(json, after);
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    at = at == NULL ? NULL : strstr(at, quoted);
    return at == NULL ? (double)NAN : strtod(at + strlen(quoted), NULL);
}

/* Time and threads. */

static inline double seconds_now(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static inline void sleep_seconds(double seconds) {
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    thrd_sleep(&time, NULL);
}

/* A thread that fires a cancel token after a delay. */
typedef struct firing_t {
    optimize_cancel_t *cancel;
    double after; /* seconds */
    thrd_t thread;
} firing_t;

static inline int fire_later(void *argument) {
    firing_t *firing = argument;
    sleep_seconds(firing->after);
    optimize_cancel_fire(firing->cancel, NULL);
    return 0;
}

static inline void start_firing(firing_t *firing, double after) {
    firing->after = after;
    NEED(optimize_cancel_new(&firing->cancel, NULL) == OPTIMIZE_OK);
    NEED(thrd_create(&firing->thread, fire_later, firing) == thrd_success);
}

static inline void end_firing(firing_t *firing) {
    thrd_join(firing->thread, NULL);
    optimize_cancel_free(firing->cancel);
}

/* Objects that most tests need. If an object cannot be created, the program ends. */

static inline void tap_need(optimize_status_t status, optimize_error_t *error, const char *what) {
    if (status == OPTIMIZE_OK) return;
    printf("not ok - %s: %s: %s\n", what, optimize_error_place(error), optimize_error_message(error));
    exit(1);
}

static inline optimize_context_t *new_context(void) {
    optimize_context_t *context = NULL;
    optimize_error_t *error = NULL;
    tap_need(optimize_context_new(NULL, &context, &error), error, "optimize_context_new");
    return context;
}

static inline optimize_model_t *load_model(const optimize_context_t *context, const char *name) {
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    tap_need(optimize_model_load(context, deps(name), NULL, &model, &error), error, "optimize_model_load");
    return model;
}

static inline optimize_model_t *load_tiny(const optimize_context_t *context) {
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    tap_need(optimize_model_load_memory(context, tiny_model, TINY_SIZE, NULL, &model, &error), error, "the tiny model");
    return model;
}

static inline optimize_session_t *new_session(const optimize_context_t *context, const optimize_model_t *model) {
    optimize_session_t *session = NULL;
    optimize_error_t *error = NULL;
    tap_need(optimize_session_new(context, model, NULL, NULL, &session, &error), error, "optimize_session_new");
    return session;
}

static inline optimize_tokenizer_t *load_tokenizer(void) {
    optimize_tokenizer_t *tokenizer = NULL;
    optimize_error_t *error = NULL;
    tap_need(optimize_tokenizer_load(deps(MINILM), &tokenizer, &error), error, "optimize_tokenizer_load");
    return tokenizer;
}

/* The two inputs of MiniLM: token ids and attention mask. */
typedef struct text_t {
    optimize_tensor_t *ids, *mask;
} text_t;

static const char *const text_names[2] = {"input_ids", "attention_mask"};

static inline text_t encode(const optimize_tokenizer_t *tokenizer, const char *const *texts, size_t count) {
    text_t text = {NULL, NULL};
    optimize_error_t *error = NULL;
    tap_need(optimize_tokenizer_encode(tokenizer, texts, NULL, count, NULL, &text.ids, &text.mask, NULL, &error), error,
             "optimize_tokenizer_encode");
    return text;
}

static inline void free_text(text_t *text) {
    optimize_tensor_free(text->ids);
    optimize_tensor_free(text->mask);
}

/* Returns `rows` rows of `length` arbitrary token ids, with an attention mask of ones. */
static inline text_t many_tokens(size_t rows, size_t length) {
    const int64_t dims[2] = {(int64_t)rows, (int64_t)length};
    size_t count = rows * length, i;
    int64_t *values = malloc(2 * count * sizeof *values);
    text_t text = {NULL, NULL};
    optimize_error_t *error = NULL;
    NEED(values != NULL);
    for (i = 0; i < count; i++) {
        values[i] = (int64_t)(1000 + i * 37 % 20000);
        values[count + i] = 1;
    }
    tap_need(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, dims, 2, values, count * 8, &text.ids, &error), error, "ids");
    tap_need(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, dims, 2, values + count, count * 8, &text.mask, &error), error,
             "mask");
    free(values);
    return text;
}

/* Runs MiniLM and returns the output named `output` in `result`. */
static inline optimize_status_t run_text(const optimize_session_t *session, const text_t *text, const char *output,
                                         const optimize_call_t *call, optimize_tensor_t **result,
                                         optimize_error_t **error) {
    const optimize_tensor_t *inputs[2] = {text->ids, text->mask};
    return optimize_session_run(session, text_names, inputs, 2, &output, 1, call, result, error);
}

#endif
