/* Tensors and sessions. */
#include "tap.h"

#include <stdatomic.h>

static optimize_context_t *context;
static optimize_tokenizer_t *tokenizer;
static optimize_model_t *minilm;
static optimize_session_t *session; /* a session of minilm */

static const char *const sentences[3] = {
    "A man is eating food.",
    "Someone has a meal.",
    "The stock market fell sharply on Monday after three days of losses.",
};

static const float *floats(const optimize_tensor_t *tensor) { return optimize_tensor_data(tensor); }

static double cosine(const float *a, const float *b) {
    double ab = 0, aa = 0, bb = 0;
    size_t i;
    for (i = 0; i < MINILM_WIDTH; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

static optimize_tensor_t *new_floats(const int64_t *dims, size_t rank, const float *values, size_t count) {
    optimize_tensor_t *tensor = NULL;
    NEED(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, dims, rank, values, count * sizeof *values, &tensor, NULL) ==
         OPTIMIZE_OK);
    return tensor;
}

TEST(a_tensor_gives_back_what_it_was_made_of) {
    static const int64_t dims[2] = {2, 3};
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    optimize_tensor_t *tensor = new_floats(dims, 2, values, 6), *scalar = new_floats(NULL, 0, values, 1);
    CHECK_INT(optimize_tensor_dtype(tensor), OPTIMIZE_DTYPE_FLOAT32);
    CHECK_INT(optimize_tensor_rank(tensor), 2);
    CHECK(optimize_tensor_dims(tensor)[0] == 2 && optimize_tensor_dims(tensor)[1] == 3);
    CHECK_INT(optimize_tensor_size(tensor), 24);
    CHECK(floats(tensor) != values && memcmp(floats(tensor), values, 24) == 0);
    CHECK_INT(optimize_tensor_rank(scalar), 0);
    CHECK_INT(optimize_tensor_size(scalar), 4);
    optimize_tensor_free(tensor);
    optimize_tensor_free(scalar);
}

TEST(shapes_and_sizes_that_do_not_agree_are_refused) {
    static const int64_t dims[2] = {2, 3}, negative[1] = {-1}, huge[3] = {INT64_MAX, INT64_MAX, 2}, many[65] = {0};
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    static const unsigned char two[1] = {2};
    optimize_tensor_t *tensor = NULL;
    optimize_error_t *error = NULL;
    CHECK_FAILS(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, dims, 2, values, 20, &tensor, &error),
                OPTIMIZE_INVALID_ARGUMENT, "needs 24 bytes, 20 were given");
    CHECK_FAILS(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, negative, 1, values, 4, &tensor, &error),
                OPTIMIZE_INVALID_ARGUMENT, "-1");
    CHECK_FAILS(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, huge, 3, values, 24, &tensor, &error),
                OPTIMIZE_INVALID_ARGUMENT, NULL);
    CHECK_FAILS(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, many, 65, NULL, 0, &tensor, &error),
                OPTIMIZE_INVALID_ARGUMENT, "65");
    CHECK_FAILS(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, NULL, 2, values, 24, &tensor, &error),
                OPTIMIZE_INVALID_ARGUMENT, "dims");
    CHECK_FAILS(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, dims, 2, NULL, 24, &tensor, &error),
                OPTIMIZE_INVALID_ARGUMENT, "data");
    CHECK_FAILS(optimize_tensor_new(99, dims, 2, values, 24, &tensor, &error), OPTIMIZE_INVALID_ARGUMENT, "99");
    CHECK_FAILS(optimize_tensor_new(OPTIMIZE_DTYPE_STRING, dims, 2, values, 24, &tensor, &error),
                OPTIMIZE_INVALID_ARGUMENT, "strings");
    CHECK_FAILS(optimize_tensor_new(OPTIMIZE_DTYPE_BOOL, NULL, 0, two, 1, &tensor, &error), OPTIMIZE_INVALID_ARGUMENT,
                "boolean");
    CHECK(tensor == NULL);
}

TEST(strings_go_in_and_come_out) {
    static const int64_t dims[2] = {1, 2}, three[1] = {3};
    const char *strings[2] = {"", "\xc3\xa4\xc3\xb6\xc3\xbc"}, *text = NULL, *bad[1] = {"\xff"};
    optimize_tensor_t *tensor = NULL, *other = NULL;
    optimize_error_t *error = NULL;
    size_t size = 99;
    CHECK_OK(optimize_tensor_new_strings(dims, 2, strings, NULL, 2, &tensor, &error));
    CHECK_INT(optimize_tensor_dtype(tensor), OPTIMIZE_DTYPE_STRING);
    CHECK(optimize_tensor_data(tensor) == NULL && optimize_tensor_size(tensor) == 0);
    CHECK_OK(optimize_tensor_string(tensor, 0, &text, &size, &error));
    CHECK(text != NULL && size == 0);
    CHECK_OK(optimize_tensor_string(tensor, 1, &text, &size, &error));
    CHECK(size == 6 && memcmp(text, strings[1], 6) == 0);
    CHECK_FAILS(optimize_tensor_string(tensor, 2, &text, &size, &error), OPTIMIZE_NOT_FOUND, "2");
    CHECK(text == NULL);
    CHECK_FAILS(optimize_tensor_new_strings(three, 1, strings, NULL, 2, &other, &error), OPTIMIZE_INVALID_ARGUMENT, "3 strings");
    CHECK_FAILS(optimize_tensor_new_strings(three, 1, bad, NULL, 1, &other, &error), OPTIMIZE_INVALID_ARGUMENT, "strings[0]");
    CHECK(other == NULL);
    optimize_tensor_free(tensor);
    tensor = new_floats(NULL, 0, (const float[]){1}, 1);
    CHECK_FAILS(optimize_tensor_string(tensor, 0, &text, &size, &error), OPTIMIZE_INVALID_ARGUMENT, "float32");
    optimize_tensor_free(tensor);
}

static void count_release(void *user_data) { ++*(atomic_int *)user_data; }

TEST(borrowed_memory_is_used_in_place_and_released_once) {
    static const int64_t dims[2] = {1, 2};
    static const float values[3] = {1, 2, 3};
    const char *words[1] = {"word"};
    const int64_t one[1] = {1};
    atomic_int released = 0;
    optimize_tensor_t *x = NULL, *y = new_floats(dims, 2, values, 2), *s = NULL, *sum = NULL, *odd = NULL;
    optimize_error_t *error = NULL;
    optimize_model_t *model = load_tiny(context);
    optimize_session_t *tiny = new_session(context, model);
    const char *output = "sum";
    CHECK_OK(optimize_tensor_borrow(OPTIMIZE_DTYPE_FLOAT32, dims, 2, values + 1, 8, count_release, &released, &x, &error));
    CHECK(floats(x) == values + 1);
    CHECK_OK(optimize_tensor_new_strings(one, 1, words, NULL, 1, &s, &error));
    const optimize_tensor_t *inputs[3] = {x, y, s};
    CHECK_OK(optimize_session_run(tiny, tiny_inputs, inputs, 3, &output, 1, NULL, &sum, &error));
    CHECK(floats(sum)[0] == 3 && floats(sum)[1] == 5);
    CHECK_INT(released, 0);
    optimize_tensor_free(x);
    CHECK_INT(released, 1);
    /* Memory that is not aligned for float is copied, and therefore released at once. */
    released = 0;
    CHECK_OK(optimize_tensor_borrow(OPTIMIZE_DTYPE_FLOAT32, one, 1, (const char *)values + 1, 4, count_release, &released,
                                    &odd, &error));
    CHECK_INT(released, 1);
    optimize_tensor_free(odd);
    CHECK_INT(released, 1);
    /* After an error, the memory still belongs to the caller. */
    released = 0;
    CHECK_FAILS(optimize_tensor_borrow(OPTIMIZE_DTYPE_FLOAT32, dims, 2, values, 4, count_release, &released, &odd, &error),
                OPTIMIZE_INVALID_ARGUMENT, "8 bytes");
    CHECK(odd == NULL);
    CHECK_INT(released, 0);
    CHECK_OK(optimize_tensor_borrow(OPTIMIZE_DTYPE_FLOAT32, dims, 2, values, 8, NULL, NULL, &odd, &error));
    optimize_tensor_free(odd);
    optimize_tensor_free(sum);
    optimize_tensor_free(y);
    optimize_tensor_free(s);
    optimize_session_free(tiny);
    optimize_model_free(model);
}

/* An output that is an unchanged input uses the caller's memory, which is released only after that output is freed. */
TEST(borrowed_memory_that_comes_out_is_held) {
    optimize_error_t *error = NULL;
    text_t text = encode(tokenizer, sentences, 1);
    const int64_t *dims = optimize_tensor_dims(text.ids);
    size_t size = optimize_tensor_size(text.ids);
    int64_t *ids = malloc(size);
    atomic_int released = 0;
    text_t borrowed = {NULL, text.mask};
    optimize_tensor_t *same = NULL;
    NEED(ids != NULL);
    memcpy(ids, optimize_tensor_data(text.ids), size);
    CHECK_OK(optimize_tensor_borrow(OPTIMIZE_DTYPE_INT64, dims, 2, ids, size, count_release, &released, &borrowed.ids, &error));
    CHECK_OK(run_text(session, &borrowed, "output", NULL, &same, &error));
    optimize_tensor_free(borrowed.ids);
    CHECK(optimize_tensor_size(same) == size && memcmp(optimize_tensor_data(same), optimize_tensor_data(text.ids), size) == 0);
    optimize_tensor_free(same);
    CHECK_INT(released, 1);
    free(ids);
    free_text(&text);
}

TEST(a_real_model_knows_which_sentences_are_alike) {
    optimize_error_t *error = NULL;
    optimize_tensor_t *result = NULL;
    text_t text = encode(tokenizer, sentences, 3);
    CHECK_OK(run_text(session, &text, MINILM_SENTENCE, NULL, &result, &error));
    if (CHECK_INT(optimize_tensor_rank(result), 2)) {
        const float *rows = floats(result);
        CHECK(optimize_tensor_dims(result)[0] == 3 && optimize_tensor_dims(result)[1] == MINILM_WIDTH);
        CHECK(cosine(rows, rows + MINILM_WIDTH) > cosine(rows, rows + 2 * MINILM_WIDTH) + 0.3);
    }
    optimize_tensor_free(result);
    free_text(&text);
}

TEST(copied_and_borrowed_inputs_give_equal_outputs) {
    optimize_error_t *error = NULL;
    text_t text = encode(tokenizer, sentences, 3), borrowed = {NULL, NULL};
    const int64_t *dims = optimize_tensor_dims(text.ids);
    size_t size = optimize_tensor_size(text.ids);
    optimize_tensor_t *first = NULL, *second = NULL;
    CHECK_OK(optimize_tensor_borrow(OPTIMIZE_DTYPE_INT64, dims, 2, optimize_tensor_data(text.ids), size, NULL, NULL,
                                    &borrowed.ids, &error));
    CHECK_OK(optimize_tensor_borrow(OPTIMIZE_DTYPE_INT64, dims, 2, optimize_tensor_data(text.mask), size, NULL, NULL,
                                    &borrowed.mask, &error));
    CHECK_OK(run_text(session, &text, MINILM_TOKENS, NULL, &first, &error));
    CHECK_OK(run_text(session, &borrowed, MINILM_TOKENS, NULL, &second, &error));
    CHECK(optimize_tensor_size(first) == optimize_tensor_size(second) && optimize_tensor_size(first) > 0 &&
          memcmp(optimize_tensor_data(first), optimize_tensor_data(second), optimize_tensor_size(first)) == 0);
    optimize_tensor_free(first);
    optimize_tensor_free(second);
    free_text(&borrowed);
    free_text(&text);
}

TEST(outputs_come_in_the_order_asked_for) {
    static const char *const wanted[2] = {MINILM_SENTENCE, MINILM_TOKENS};
    optimize_tensor_t *all[4], *two[2];
    optimize_error_t *error = NULL;
    text_t text = encode(tokenizer, sentences, 1);
    const optimize_tensor_t *inputs[2] = {text.mask, text.ids};
    const char *names[2] = {text_names[1], text_names[0]};
    size_t i;
    CHECK_INT(optimize_session_output_count(session), 4);
    CHECK_OK(optimize_session_run(session, names, inputs, 2, NULL, 4, NULL, all, &error));
    CHECK_OK(optimize_session_run(session, names, inputs, 2, wanted, 2, NULL, two, &error));
    CHECK_INT(optimize_tensor_rank(all[2]), 3);
    CHECK_INT(optimize_tensor_rank(two[0]), 2);
    CHECK_INT(optimize_tensor_rank(two[1]), 3);
    CHECK(memcmp(floats(all[3]), floats(two[0]), MINILM_WIDTH * sizeof(float)) == 0);
    for (i = 0; i < 4; i++) optimize_tensor_free(all[i]);
    for (i = 0; i < 2; i++) optimize_tensor_free(two[i]);
    free_text(&text);
}

TEST(inputs_and_outputs_are_described) {
    optimize_value_info_t info = {.struct_size = sizeof info};
    optimize_error_t *error = NULL;
    CHECK_INT(optimize_session_input_count(session), 2);
    CHECK_OK(optimize_session_input(session, 1, &info, &error));
    CHECK_TEXT(info.name, "attention_mask");
    CHECK(info.dtype == OPTIMIZE_DTYPE_INT64 && info.rank == 2 && info.dims[0] == -1);
    CHECK_TEXT(info.dim_names[0], "batch_size");
    CHECK_OK(optimize_session_output(session, 3, &info, &error));
    CHECK_TEXT(info.name, MINILM_SENTENCE);
    CHECK_FAILS(optimize_session_input(session, 2, &info, &error), OPTIMIZE_NOT_FOUND, NULL);
    CHECK_FAILS(optimize_session_output(session, 4, &info, &error), OPTIMIZE_NOT_FOUND, NULL);
}

TEST(what_the_model_does_not_take_is_refused_by_name) {
    optimize_error_t *error = NULL;
    text_t one = encode(tokenizer, sentences, 1), three = encode(tokenizer, sentences, 3), wrong;
    optimize_tensor_t *result = (optimize_tensor_t *)(uintptr_t)64, *other = NULL;
    const int64_t dims[3] = {1, 2, 1};
    const float numbers[2] = {0, 0};
    const char *names[2] = {"input_ids", "attention_musk"}, *output = MINILM_SENTENCE, *twice[2] = {output, output};
    const optimize_tensor_t *inputs[2] = {one.ids, one.mask}, *nothing[2] = {one.ids, NULL};
    optimize_tensor_t *results[2];
    /* Errors: an unknown name, and a missing input. */
    CHECK_FAILS(optimize_session_run(session, names, inputs, 2, &output, 1, NULL, &result, &error),
                OPTIMIZE_NOT_FOUND, "no input \"attention_musk\"");
    CHECK(result == NULL);
    CHECK_FAILS(optimize_session_run(session, names, inputs, 1, &output, 1, NULL, &result, &error),
                OPTIMIZE_INVALID_ARGUMENT, "\"attention_mask\" (int64[batch_size, sequence_length]) is missing");
    names[1] = names[0];
    CHECK_FAILS(optimize_session_run(session, names, inputs, 2, &output, 1, NULL, &result, &error),
                OPTIMIZE_INVALID_ARGUMENT, "twice");
    CHECK_FAILS(optimize_session_run(session, text_names, nothing, 2, &output, 1, NULL, &result, &error),
                OPTIMIZE_INVALID_ARGUMENT, "attention_mask");
    /* Errors: a wrong type, a wrong rank, and different sizes that must be equal. */
    NEED(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, dims, 2, numbers, 8, &other, NULL) == OPTIMIZE_OK);
    wrong = (text_t){other, one.mask};
    CHECK_FAILS(run_text(session, &wrong, output, NULL, &result, &error), OPTIMIZE_INVALID_ARGUMENT, "float32");
    CHECK_FAILS(run_text(session, &wrong, output, NULL, &result, &error), OPTIMIZE_INVALID_ARGUMENT, "\"input_ids\"");
    optimize_tensor_free(other);
    NEED(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, dims, 3, (const int64_t[]){5, 6}, 16, &other, NULL) == OPTIMIZE_OK);
    wrong = (text_t){other, one.mask};
    CHECK_FAILS(run_text(session, &wrong, output, NULL, &result, &error), OPTIMIZE_INVALID_ARGUMENT, "3 dimensions");
    optimize_tensor_free(other);
    wrong = (text_t){three.ids, one.mask};
    CHECK_FAILS(run_text(session, &wrong, output, NULL, &result, &error), OPTIMIZE_INVALID_ARGUMENT, "batch_size");
    CHECK_FAILS(run_text(session, &wrong, output, NULL, &result, &error), OPTIMIZE_INVALID_ARGUMENT,
                "dimension 0 is 1, but the model expects 3");
    /* Errors: an unknown output, and an output named twice. */
    CHECK_FAILS(run_text(session, &one, "nothing", NULL, &result, &error), OPTIMIZE_NOT_FOUND, "\"nothing\"");
    CHECK_FAILS(optimize_session_run(session, text_names, inputs, 2, twice, 2, NULL, results, &error),
                OPTIMIZE_INVALID_ARGUMENT, "twice");
    CHECK(results[0] == NULL && results[1] == NULL);
    CHECK_FAILS(optimize_session_run(session, text_names, inputs, 2, NULL, 1, NULL, &result, &error),
                OPTIMIZE_INVALID_ARGUMENT, "4 outputs");
    CHECK_FAILS(optimize_session_run(session, text_names, inputs, 2, twice, 0, NULL, results, &error),
                OPTIMIZE_INVALID_ARGUMENT, "output_count");
    /* The session is still usable after these errors. */
    CHECK_OK(run_text(session, &one, output, NULL, &result, &error));
    optimize_tensor_free(result);
    free_text(&one);
    free_text(&three);
}

TEST(ids_beyond_the_table_are_an_error_and_no_crash) {
    const int64_t dims[2] = {1, 2}, ids[2] = {101, 9999999}, ones[2] = {1, 1};
    text_t text;
    optimize_tensor_t *result = NULL;
    optimize_error_t *error = NULL;
    NEED(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, dims, 2, ids, 16, &text.ids, NULL) == OPTIMIZE_OK);
    NEED(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, dims, 2, ones, 16, &text.mask, NULL) == OPTIMIZE_OK);
    CHECK_FAILS(run_text(session, &text, MINILM_SENTENCE, NULL, &result, &error), OPTIMIZE_RUNTIME, NULL);
    CHECK(result == NULL);
    free_text(&text);
}

TEST(options_of_a_session_do_not_change_what_it_gives) {
    optimize_session_options_t options = {.struct_size = sizeof options, .threads = 1};
    optimize_error_t *error = NULL;
    optimize_tensor_t *wanted = NULL, *result = NULL;
    text_t text = encode(tokenizer, sentences, 1);
    int32_t level;
    CHECK_OK(run_text(session, &text, MINILM_SENTENCE, NULL, &wanted, &error));
    for (level = OPTIMIZE_OPTIMIZATION_DEFAULT; level <= OPTIMIZE_OPTIMIZATION_EXTENDED; level++) {
        optimize_session_t *other = NULL;
        options.optimization_level = level;
        options.disable_prepacking = level % 2 == 0;
        CHECK_OK(optimize_session_new(context, minilm, &options, NULL, &other, &error));
        CHECK_OK(run_text(other, &text, MINILM_SENTENCE, NULL, &result, &error));
        CHECK(cosine(floats(wanted), floats(result)) > 0.99999);
        optimize_tensor_free(result);
        optimize_session_free(other);
    }
    options.optimization_level = 4;
    CHECK_FAILS(optimize_session_new(context, minilm, &options, NULL, &(optimize_session_t *){NULL}, &error),
                OPTIMIZE_INVALID_ARGUMENT, "optimization_level");
    optimize_tensor_free(wanted);
    free_text(&text);
}

TEST(a_fired_token_stops_a_run_before_it_begins) {
    optimize_cancel_t *cancel = NULL;
    optimize_error_t *error = NULL;
    optimize_tensor_t *result = NULL;
    optimize_session_t *other = NULL;
    text_t text = encode(tokenizer, sentences, 1);
    CHECK_OK(optimize_cancel_new(&cancel, &error));
    optimize_call_t call = {.struct_size = sizeof call, .cancel = cancel};
    CHECK_OK(run_text(session, &text, MINILM_SENTENCE, &call, &result, &error));
    optimize_tensor_free(result);
    CHECK_OK(optimize_cancel_fire(cancel, &error));
    CHECK_FAILS(run_text(session, &text, MINILM_SENTENCE, &call, &result, &error), OPTIMIZE_CANCELLED, NULL);
    CHECK_FAILS(optimize_session_new(context, minilm, NULL, &call, &other, &error), OPTIMIZE_CANCELLED, NULL);
    CHECK(result == NULL && other == NULL);
    optimize_cancel_free(cancel);
    free_text(&text);
}

/* Measures a long run, then ends other runs after a fraction of that time: by timeout, and from another thread. */
TEST(a_run_ends_when_its_time_is_up_or_it_is_cancelled) {
    optimize_call_t call = {.struct_size = sizeof call};
    optimize_error_t *error = NULL;
    optimize_tensor_t *result = NULL;
    text_t text = many_tokens(128, 128), small = encode(tokenizer, sentences, 1);
    firing_t firing;
    double start = seconds_now(), whole, timed, cancelled;
    CHECK_OK(run_text(session, &text, MINILM_SENTENCE, NULL, &result, &error));
    whole = seconds_now() - start;
    optimize_tensor_free(result);
    call.timeout_ms = (uint32_t)(whole * 1000 / 8) + 1;
    start = seconds_now();
    CHECK_FAILS(run_text(session, &text, MINILM_SENTENCE, &call, &result, &error), OPTIMIZE_TIMEOUT, NULL);
    timed = seconds_now() - start;
    call.timeout_ms = 0;
    start_firing(&firing, whole / 8);
    call.cancel = firing.cancel;
    start = seconds_now();
    CHECK_FAILS(run_text(session, &text, MINILM_SENTENCE, &call, &result, &error), OPTIMIZE_CANCELLED, NULL);
    cancelled = seconds_now() - start;
    end_firing(&firing);
    printf("# whole run %.3f s, timeout after %.3f s, cancelled after %.3f s\n", whole, timed, cancelled);
    CHECK(result == NULL);
    CHECK_OK(run_text(session, &small, MINILM_SENTENCE, NULL, &result, &error));
    optimize_tensor_free(result);
    free_text(&small);
    free_text(&text);
}

TEST(strings_run_through_a_model) {
    static const int64_t dims[2] = {1, 2}, three[1] = {3}, none[1] = {0};
    const char *words[3] = {"one", "", "\xe2\x82\xac"}, *output = "same", *word = NULL;
    const float numbers[2] = {1, 2};
    optimize_model_t *model = load_tiny(context);
    optimize_session_t *tiny = new_session(context, model);
    optimize_tensor_t *x = new_floats(dims, 2, numbers, 2), *s = NULL, *same = NULL;
    optimize_error_t *error = NULL;
    size_t i, size = 0;
    CHECK_OK(optimize_tensor_new_strings(three, 1, words, NULL, 3, &s, &error));
    const optimize_tensor_t *inputs[3] = {x, x, s};
    CHECK_OK(optimize_session_run(tiny, tiny_inputs, inputs, 3, &output, 1, NULL, &same, &error));
    optimize_tensor_free(s);
    CHECK_INT(optimize_tensor_dtype(same), OPTIMIZE_DTYPE_STRING);
    for (i = 0; i < 3; i++) {
        CHECK_OK(optimize_tensor_string(same, i, &word, &size, &error));
        CHECK(size == strlen(words[i]) && memcmp(word, words[i], size) == 0);
    }
    optimize_tensor_free(same);
    CHECK_OK(optimize_tensor_new_strings(none, 1, NULL, NULL, 0, &s, &error));
    inputs[2] = s;
    CHECK_OK(optimize_session_run(tiny, tiny_inputs, inputs, 3, &output, 1, NULL, &same, &error));
    CHECK_INT(optimize_tensor_dims(same)[0], 0);
    optimize_tensor_free(same);
    inputs[2] = x;
    CHECK_FAILS(optimize_session_run(tiny, tiny_inputs, inputs, 3, &output, 1, NULL, &same, &error),
                OPTIMIZE_INVALID_ARGUMENT, "\"s\"");
    optimize_tensor_free(s);
    optimize_tensor_free(x);
    optimize_session_free(tiny);
    optimize_model_free(model);
}

int main(void) {
    context = new_context();
    tokenizer = load_tokenizer();
    minilm = load_model(context, MINILM);
    session = new_session(context, minilm);
    RUN(a_tensor_gives_back_what_it_was_made_of);
    RUN(shapes_and_sizes_that_do_not_agree_are_refused);
    RUN(strings_go_in_and_come_out);
    RUN(borrowed_memory_is_used_in_place_and_released_once);
    RUN(borrowed_memory_that_comes_out_is_held);
    RUN(a_real_model_knows_which_sentences_are_alike);
    RUN(copied_and_borrowed_inputs_give_equal_outputs);
    RUN(outputs_come_in_the_order_asked_for);
    RUN(inputs_and_outputs_are_described);
    RUN(what_the_model_does_not_take_is_refused_by_name);
    RUN(ids_beyond_the_table_are_an_error_and_no_crash);
    RUN_UNLESS_VALGRIND(options_of_a_session_do_not_change_what_it_gives);
    RUN(a_fired_token_stops_a_run_before_it_begins);
    RUN_UNLESS_VALGRIND(a_run_ends_when_its_time_is_up_or_it_is_cancelled);
    RUN(strings_run_through_a_model);
    optimize_session_free(session);
    optimize_model_free(minilm);
    optimize_tokenizer_free(tokenizer);
    optimize_context_free(context);
    return tap_end();
}
