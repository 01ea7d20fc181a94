/* Tokenizers: text to ids and back. */
#include "tap.h"

static optimize_tokenizer_t *tokenizer;

static const int64_t *numbers(const optimize_tensor_t *tensor) { return optimize_tensor_data(tensor); }

static int equal(const optimize_tensor_t *tensor, const int64_t *wanted, size_t count) {
    return optimize_tensor_size(tensor) == count * sizeof *wanted &&
           memcmp(optimize_tensor_data(tensor), wanted, count * sizeof *wanted) == 0;
}

static void check_decodes(const int64_t *ids, size_t count, int keep, const char *wanted) {
    optimize_decode_options_t options = {.struct_size = sizeof options, .keep_special_tokens = keep};
    optimize_error_t *error = NULL;
    optimize_buffer_t *text = NULL;
    CHECK_OK(optimize_tokenizer_decode(tokenizer, ids, count, &options, &text, &error));
    CHECK_TEXT(optimize_buffer_data(text), wanted);
    CHECK_INT(optimize_buffer_size(text), strlen(wanted));
    optimize_buffer_free(text);
}

TEST(a_file_and_a_folder_load) {
    optimize_tokenizer_t *other = NULL;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_tokenizer_load(deps(MINILM "/tokenizer.json"), &other, &error));
    CHECK_INT(optimize_tokenizer_vocabulary_size(other), 30522);
    optimize_tokenizer_free(other);
    CHECK_OK(optimize_tokenizer_load(deps(MINILM), &other, &error));
    optimize_tokenizer_free(other);
}

TEST(bad_files_are_refused) {
    optimize_tokenizer_t *other = NULL;
    optimize_error_t *error = NULL;
    CHECK_FAILS(optimize_tokenizer_load("/no/such/file", &other, &error), OPTIMIZE_NOT_FOUND, "/no/such/file");
    CHECK_FAILS(optimize_tokenizer_load(deps("corpus"), &other, &error), OPTIMIZE_NOT_FOUND, "tokenizer.json");
    CHECK_FAILS(optimize_tokenizer_load(deps(MINILM "/vocab.txt"), &other, &error), OPTIMIZE_INVALID_MODEL, "vocab.txt");
    CHECK_FAILS(optimize_tokenizer_load("\xff", &other, &error), OPTIMIZE_INVALID_ARGUMENT, "UTF-8");
    CHECK_FAILS(optimize_tokenizer_load(NULL, &other, &error), OPTIMIZE_INVALID_ARGUMENT, "path");
    write_file(temporary("empty.json"), "{}", 2);
    CHECK_FAILS(optimize_tokenizer_load(temporary("empty.json"), &other, &error), OPTIMIZE_INVALID_MODEL, "empty.json");
    CHECK(other == NULL);
}

TEST(text_becomes_ids_and_text_again) {
    static const int64_t wanted[] = {101, 7592, 1010, 2088, 999, 102}, ones[] = {1, 1, 1, 1, 1, 1}, zeros[6] = {0};
    const char *text = "Hello, world!";
    optimize_tensor_t *ids = NULL, *mask = NULL, *types = NULL;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_tokenizer_encode(tokenizer, &text, NULL, 1, NULL, &ids, &mask, &types, &error));
    CHECK(equal(ids, wanted, 6) && equal(mask, ones, 6) && equal(types, zeros, 6));
    CHECK_INT(optimize_tensor_dtype(ids), OPTIMIZE_DTYPE_INT64);
    CHECK_INT(optimize_tensor_rank(ids), 2);
    CHECK(optimize_tensor_dims(ids)[0] == 1 && optimize_tensor_dims(ids)[1] == 6);
    check_decodes(numbers(ids), 6, 0, "hello, world!");
    check_decodes(numbers(ids), 6, 1, "[CLS] hello, world! [SEP]");
    check_decodes(NULL, 0, 0, "");
    optimize_tensor_free(ids);
    optimize_tensor_free(mask);
    optimize_tensor_free(types);
}

TEST(shorter_rows_are_padded) {
    static const char *const texts[] = {"one two three four", "one", ""};
    static const int64_t wanted[] = {101, 2028, 2048, 2093, 2176, 102, 101, 2028, 102, 0, 0, 0, 101, 102, 0, 0, 0, 0};
    static const int64_t ones[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0};
    text_t text = encode(tokenizer, texts, 3);
    CHECK(optimize_tensor_dims(text.ids)[0] == 3 && optimize_tensor_dims(text.ids)[1] == 6);
    CHECK(equal(text.ids, wanted, 18));
    CHECK(equal(text.mask, ones, 18));
    free_text(&text);
}

TEST(long_rows_are_cut_where_asked) {
    static const int64_t wanted[] = {101, 2028, 2048, 102}, bare[] = {2028, 2048, 2093};
    const char *text = "one two three four";
    optimize_encode_options_t options = {.struct_size = sizeof options, .max_length = 4};
    optimize_tensor_t *ids = NULL;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_tokenizer_encode(tokenizer, &text, NULL, 1, &options, &ids, NULL, NULL, &error));
    CHECK(equal(ids, wanted, 4));
    optimize_tensor_free(ids);
    options.no_special_tokens = 1;
    options.max_length = 3;
    CHECK_OK(optimize_tokenizer_encode(tokenizer, &text, NULL, 1, &options, &ids, NULL, NULL, &error));
    CHECK(equal(ids, bare, 3));
    optimize_tensor_free(ids);
    options.no_special_tokens = 0;
    options.max_length = 1;
    CHECK_FAILS(optimize_tokenizer_encode(tokenizer, &text, NULL, 1, &options, &ids, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "special tokens");
    options.max_length = 0;
    options.reserved = 1;
    CHECK_FAILS(optimize_tokenizer_encode(tokenizer, &text, NULL, 1, &options, &ids, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "reserved");
    CHECK(ids == NULL);
}

TEST(sizes_end_texts_and_let_nul_in) {
    /* The texts are not NUL-terminated, so valgrind reports a read beyond their end. */
    char *one = malloc(3), *two = malloc(7);
    const char *texts[2] = {one, two};
    size_t sizes[2] = {3, 7};
    optimize_tensor_t *ids = NULL;
    optimize_error_t *error = NULL;
    NEED(one != NULL && two != NULL);
    memcpy(one, "one", 3);
    memcpy(two, "one\0two", 7);
    CHECK_OK(optimize_tokenizer_encode(tokenizer, texts, sizes, 2, NULL, &ids, NULL, NULL, &error));
    CHECK_INT(optimize_tensor_dims(ids)[0], 2);
    CHECK(numbers(ids)[1] == 2028); /* "one" */
    /* BERT's tokenizer removes the NUL and sees one word; the text must not end at the NUL. */
    CHECK(numbers(ids)[optimize_tensor_dims(ids)[1] + 2] != 102);
    optimize_tensor_free(ids);
    sizes[0] = 0;
    texts[0] = NULL; /* a text of 0 bytes may be NULL */
    CHECK_OK(optimize_tokenizer_encode(tokenizer, texts, sizes, 1, NULL, &ids, NULL, NULL, &error));
    CHECK_INT(optimize_tensor_dims(ids)[1], 2);
    optimize_tensor_free(ids);
    free(one);
    free(two);
}

TEST(what_is_no_text_is_refused) {
    const char *texts[3] = {"fine", "bad \xc3\x28", NULL};
    size_t sizes[3] = {4, 6, 1};
    optimize_tensor_t *ids = NULL, *mask = (optimize_tensor_t *)(uintptr_t)64, *types = (optimize_tensor_t *)(uintptr_t)64;
    optimize_error_t *error = NULL;
    CHECK_FAILS(optimize_tokenizer_encode(tokenizer, texts, NULL, 2, NULL, &ids, &mask, &types, &error),
                OPTIMIZE_INVALID_ARGUMENT, "texts[1]");
    CHECK(ids == NULL && mask == NULL && types == NULL);
    CHECK_FAILS(optimize_tokenizer_encode(tokenizer, texts, sizes, 2, NULL, &ids, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "texts[1] is not UTF-8 after 4 bytes");
    texts[1] = "fine";
    sizes[1] = 4;
    CHECK_FAILS(optimize_tokenizer_encode(tokenizer, texts, NULL, 3, NULL, &ids, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "texts[2]");
    CHECK_FAILS(optimize_tokenizer_encode(tokenizer, texts, sizes, 3, NULL, &ids, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "texts[2]");
    CHECK_FAILS(optimize_tokenizer_encode(tokenizer, texts, NULL, 0, NULL, &ids, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "count");
    CHECK(ids == NULL);
}

TEST(what_is_no_id_is_refused) {
    static const int64_t negative[] = {101, -1}, huge[] = {(int64_t)1 << 40}, beyond[] = {7592, 4000000000};
    optimize_buffer_t *text = NULL;
    optimize_error_t *error = NULL;
    CHECK_FAILS(optimize_tokenizer_decode(tokenizer, negative, 2, NULL, &text, &error), OPTIMIZE_INVALID_ARGUMENT, "-1");
    CHECK_FAILS(optimize_tokenizer_decode(tokenizer, huge, 1, NULL, &text, &error), OPTIMIZE_INVALID_ARGUMENT, NULL);
    CHECK_FAILS(optimize_tokenizer_decode(tokenizer, NULL, 1, NULL, &text, &error), OPTIMIZE_INVALID_ARGUMENT, "ids");
    check_decodes(beyond, 2, 0, "hello");
}

static int encode_often(void *answer) {
    static const char *const texts[] = {"A man is eating food."};
    static const int64_t wanted[] = {101, 1037, 2158, 2003, 5983, 2833, 1012, 102};
    int i, *right = answer;
    *right = 1;
    for (i = 0; i < (under_valgrind() ? 3 : 200); i++) {
        text_t text = encode(tokenizer, texts, 1);
        *right &= equal(text.ids, wanted, 8);
        free_text(&text);
    }
    return 0;
}

TEST(threads_share_a_tokenizer) {
    thrd_t threads[4];
    int right[4], i;
    for (i = 0; i < 4; i++) NEED(thrd_create(&threads[i], encode_often, &right[i]) == thrd_success);
    for (i = 0; i < 4; i++) {
        thrd_join(threads[i], NULL);
        CHECK_INT(right[i], 1);
    }
}

int main(void) {
    tokenizer = load_tokenizer();
    RUN(a_file_and_a_folder_load);
    RUN(bad_files_are_refused);
    RUN(text_becomes_ids_and_text_again);
    RUN(shorter_rows_are_padded);
    RUN(long_rows_are_cut_where_asked);
    RUN(sizes_end_texts_and_let_nul_in);
    RUN(what_is_no_text_is_refused);
    RUN(what_is_no_id_is_refused);
    RUN(threads_share_a_tokenizer);
    optimize_tokenizer_free(tokenizer);
    return tap_end();
}
