/* Evaluation of models on data, alone or against another. */
#include "tap.h"

#define TINY_DECODER "tests/fixtures/checkpoints/llama"  /* 64 positions, 150 tokens */
#define TINY_ENCODER "tests/fixtures/encoders/bert"      /* 20 positions, 60 tokens */
#define TINY_CLASSIFIER "tests/fixtures/encoders/bert-classify" /* LABEL_0, LABEL_1, LABEL_2 */
#define TINY_MASKED "tests/fixtures/encoders/bert-masked"

static optimize_context_t *context;
static optimize_tokenizer_t *words;
static optimize_model_t *decoder, *encoder, *classifier;

/* A tokenizer of eight words, which fits the vocabulary of each tiny model. */
static const char tokenizer_json[] =
    "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, \"post_processor\": null, \"decoder\": null,"
    "\"pre_tokenizer\": {\"type\": \"Whitespace\"}, \"model\": {\"type\": \"WordLevel\", \"unk_token\": \"a\","
    "\"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"d\": 3, \"e\": 4, \"f\": 5, \"g\": 6, \"h\": 7}}}";

static optimize_model_t *load(const char *path) {
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    tap_need(optimize_model_load(context, path, NULL, &model, &error), error, path);
    return model;
}

/* Evaluates on a text that is passed without its final NUL. */
static optimize_status_t evaluate(const optimize_model_t *model, const optimize_model_t *against,
                                  const optimize_tokenizer_t *tokenizer, const char *data,
                                  const optimize_evaluate_options_t *options, const optimize_call_t *call,
                                  optimize_buffer_t **report, optimize_error_t **error) {
    size_t size = strlen(data);
    char *bare = malloc(size + (size == 0));
    optimize_status_t status;
    NEED(bare != NULL);
    memcpy(bare, data, size);
    status = optimize_model_evaluate(context, model, against, tokenizer, bare, size, options, call, report, error);
    free(bare);
    return status;
}

static optimize_evaluate_options_t options_for(int32_t task) {
    optimize_evaluate_options_t options = {.struct_size = sizeof options, .task = task, .threads = 1};
    return options;
}

/* Returns a text of random words. */
static char *many_words(size_t count) {
    char *text = malloc(2 * count + 1);
    unsigned state = 1;
    size_t i;
    NEED(text != NULL);
    for (i = 0; i < count; i++) {
        state = state * 1103515245u + 12345u;
        text[2 * i] = (char)('a' + (state >> 16) % 8);
        text[2 * i + 1] = ' ';
    }
    text[2 * count] = '\0';
    return text;
}

TEST(perplexity_is_that_of_transformers) {
    static const char text[] =
        "The Fulton County Grand Jury said Friday an investigation of Atlanta's recent primary election produced "
        "\"no evidence\" that any irregularities took place. The jury further said in term-end presentments that "
        "the City Executive Committee, which had over-all charge of the election, \"deserves the praise and "
        "thanks of the City of Atlanta\" for the manner in which the election was conducted.";
    optimize_evaluate_options_t options = {.struct_size = sizeof options, .context_length = 48, .stride = 16};
    optimize_model_t *smollm2 = load_model(context, "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    /* A GGUF file contains its tokenizer and determines the task of the model. */
    CHECK_OK(evaluate(smollm2, NULL, NULL, text, &options, NULL, &report, &error));
    const char *json = optimize_buffer_data(report);
    CHECK_HAS(json, "\"operation\": \"evaluate\"");
    CHECK_HAS(json, "\"task\": \"perplexity\"");
    CHECK(fabs(number_after(json, "\"quality\"", "perplexity") / 47.545 - 1) < 0.005); /* as in tests/evaluate.rs */
    CHECK_INT(number_after(json, "\"quality\"", "tokens"), 77);
    CHECK_INT(number_after(json, "\"quality\"", "windows"), 3);
    optimize_buffer_free(report);
    optimize_model_free(smollm2);
}

TEST(a_decoder_is_measured_alone_and_against_itself) {
    optimize_evaluate_options_t options = options_for(OPTIMIZE_EVALUATE_DEFAULT);
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    char *text = many_words(100);
    options.context_length = 16;
    options.stride = 8;
    CHECK_OK(evaluate(decoder, NULL, words, text, &options, NULL, &report, &error));
    const char *json = optimize_buffer_data(report);
    CHECK_INT(number_after(json, "\"quality\"", "tokens"), 99);
    CHECK(number_after(json, "\"quality\"", "perplexity") > 1);
    CHECK(number_after(json, "\"quality\"", "bits_per_byte") > 0);
    CHECK_HAS(json, "\"input\": {");
    CHECK(strstr(json, "\"output\": {") == NULL);
    optimize_buffer_free(report);
    options.max_tokens = 20;
    options.bos = OPTIMIZE_BOS_NEVER;
    CHECK_OK(evaluate(decoder, decoder, words, text, &options, NULL, &report, &error));
    json = optimize_buffer_data(report);
    CHECK_INT(number_after(json, "\"original\"", "tokens"), 19);
    CHECK(number_after(json, "\"ratio\"", "value") == 1);
    CHECK(number_after(json, "\"kl\"", "value") == 0);
    CHECK(number_after(json, "\"quality\"", "top1_agreement") == 1);
    CHECK_HAS(json, "\"too little text\"");
    CHECK_HAS(json, "\"bos\": \"never\"");
    CHECK_HAS(json, "\"output\": {");
    optimize_buffer_free(report);
    free(text);
}

TEST(embeddings_of_an_int8_model_are_close) {
    static const char lines[] = "A man is eating food.\n\nThe stock market fell sharply.\r\nHow are you?\n";
    optimize_evaluate_options_t options = options_for(OPTIMIZE_EVALUATE_EMBEDDING);
    optimize_model_t *minilm = load_model(context, MINILM), *small = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    tap_need(optimize_model_quantize(context, minilm, NULL, NULL, &small, NULL, &error), error, "optimize_model_quantize");
    CHECK_OK(evaluate(minilm, minilm, NULL, lines, &options, NULL, &report, &error));
    CHECK(number_after(optimize_buffer_data(report), "\"quality\"", "cosine_min") > 0.999999);
    CHECK_INT(number_after(optimize_buffer_data(report), "\"quality\"", "texts"), 3);
    CHECK_INT(number_after(optimize_buffer_data(report), "\"quality\"", "width"), MINILM_WIDTH);
    optimize_buffer_free(report);
    options.max_texts = 2;
    options.batch_size = 2;
    CHECK_OK(evaluate(minilm, small, NULL, lines, &options, NULL, &report, &error));
    CHECK(number_after(optimize_buffer_data(report), "\"quality\"", "cosine") > 0.99);
    CHECK(number_after(optimize_buffer_data(report), "\"quality\"", "cosine") < 0.99999);
    CHECK_INT(number_after(optimize_buffer_data(report), "\"quality\"", "texts"), 2);
    optimize_buffer_free(report);
    optimize_model_free(small);
    optimize_model_free(minilm);
}

TEST(embeddings_need_another_model) {
    optimize_evaluate_options_t options = options_for(OPTIMIZE_EVALUATE_EMBEDDING);
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    CHECK_OK(evaluate(encoder, encoder, words, "a b\nc d e\nf", &options, NULL, &report, &error));
    CHECK(number_after(optimize_buffer_data(report), "\"quality\"", "nearest_kept") == 1);
    optimize_buffer_free(report);
    CHECK_FAILS(evaluate(encoder, NULL, words, "a b\nc d", &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "against");
    CHECK_FAILS(evaluate(encoder, encoder, words, " \n\n", &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "no text");
    CHECK(report == NULL);
}

TEST(a_classifier_is_held_against_labels) {
    static const char tsv[] = "label\ttext\nLABEL_0\ta b\nlabel_1\tc d\n2\te f g\nLABEL_0\th\n",
                      csv[] = "text,label\n\"a, b\",LABEL_0\nc,1\n";
    optimize_evaluate_options_t options = options_for(OPTIMIZE_EVALUATE_DEFAULT);
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    CHECK_OK(evaluate(classifier, NULL, words, tsv, &options, NULL, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"task\": \"classification\"");
    CHECK_HAS(optimize_buffer_data(report), "\"confusion\"");
    CHECK_INT(number_after(optimize_buffer_data(report), "\"quality\"", "samples"), 4);
    CHECK(number_after(optimize_buffer_data(report), "\"quality\"", "accuracy") >= 0);
    optimize_buffer_free(report);
    CHECK_OK(evaluate(classifier, classifier, words, csv, &options, NULL, &report, &error));
    CHECK(number_after(optimize_buffer_data(report), "\"quality\"", "agreement") == 1);
    CHECK(number_after(optimize_buffer_data(report), "\"accuracy_change\"", "value") == 0);
    optimize_buffer_free(report);
    CHECK_FAILS(evaluate(classifier, NULL, words, "LABEL_0\ta\nLABEL_7\tb\n", &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "LABEL_0, LABEL_1, LABEL_2");
    CHECK_FAILS(evaluate(classifier, NULL, words, "LABEL_0\ta\nLABEL_7\tb\n", &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "line 2");
    CHECK_FAILS(evaluate(classifier, NULL, words, "LABEL_0\ta\nLABEL_1\n", &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "line 2: 1 columns");
    CHECK_FAILS(evaluate(classifier, NULL, words, "LABEL_0,\"a\n", &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "line 1");
    CHECK_FAILS(evaluate(classifier, NULL, words, "", &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "no row");
    CHECK(report == NULL);
}

TEST(a_probe_is_trained_on_a_part) {
    static const char rows[] = "x,a a b\nx,a b a\nx,b a a\nx,a a a\ny,g h g\ny,h h g\ny,g g h\ny,h g h\n";
    optimize_evaluate_options_t options = options_for(OPTIMIZE_EVALUATE_PROBE);
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    options.test_share = 0.5;
    options.penalty = 0.1;
    options.seed = 3;
    CHECK_OK(evaluate(encoder, NULL, words, rows, &options, NULL, &report, &error));
    CHECK_INT(number_after(optimize_buffer_data(report), "\"quality\"", "samples"), 4);
    CHECK_INT(number_after(optimize_buffer_data(report), "\"quality\"", "train_samples"), 4);
    CHECK(number_after(optimize_buffer_data(report), "\"options\"", "penalty") == 0.1);
    CHECK_INT(number_after(optimize_buffer_data(report), "\"options\"", "seed"), 3);
    optimize_buffer_free(report);
    options.test_share = options.penalty = 0; /* the defaults */
    CHECK_OK(evaluate(encoder, NULL, words, rows, &options, NULL, &report, &error));
    CHECK(number_after(optimize_buffer_data(report), "\"options\"", "test_share") == 0.2);
    CHECK(number_after(optimize_buffer_data(report), "\"options\"", "penalty") == 0.5);
    optimize_buffer_free(report);
    options.test_share = 1.5;
    CHECK_FAILS(evaluate(encoder, NULL, words, rows, &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "test_share is 1.5");
    options.test_share = NAN;
    CHECK_FAILS(evaluate(encoder, NULL, words, rows, &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "test_share");
    options.test_share = 0;
    options.penalty = NAN;
    CHECK_FAILS(evaluate(encoder, NULL, words, rows, &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "penalty is NaN");
    options.penalty = -1; /* no penalty */
    CHECK_OK(evaluate(encoder, NULL, words, rows, &options, NULL, &report, &error));
    CHECK(number_after(optimize_buffer_data(report), "\"options\"", "penalty") == 0);
    optimize_buffer_free(report);
    options.penalty = 0;
    CHECK_FAILS(evaluate(encoder, NULL, words, "x,a\nx,b\n", &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "one class");
    CHECK(report == NULL);
}

TEST(models_and_tasks_must_fit) {
    optimize_evaluate_options_t options = options_for(OPTIMIZE_EVALUATE_DEFAULT);
    optimize_model_t *masked = load(TINY_MASKED), *tiny = load_tiny(context);
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    CHECK_FAILS(evaluate(masked, NULL, words, "a b c", &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "name a task");
    CHECK_FAILS(evaluate(tiny, NULL, NULL, "a b c", &options, NULL, &report, &error), OPTIMIZE_NOT_FOUND, "tokenizer");
    options.task = OPTIMIZE_EVALUATE_PERPLEXITY;
    CHECK_FAILS(evaluate(encoder, NULL, words, "a b c", &options, NULL, &report, &error), OPTIMIZE_UNSUPPORTED, NULL);
    CHECK_FAILS(evaluate(decoder, encoder, words, "a b c", &options, NULL, &report, &error), OPTIMIZE_UNSUPPORTED,
                "the result");
    options.task = OPTIMIZE_EVALUATE_CLASSIFICATION;
    CHECK_FAILS(evaluate(decoder, NULL, words, "0,a b\n1,c", &options, NULL, &report, &error), OPTIMIZE_UNSUPPORTED,
                "logits");
    options.task = 99;
    CHECK_FAILS(evaluate(decoder, NULL, words, "a b c", &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "task is 99");
    CHECK(report == NULL);
    optimize_model_free(masked);
    optimize_model_free(tiny);
}

TEST(data_and_options_are_checked) {
    optimize_evaluate_options_t options = options_for(OPTIMIZE_EVALUATE_DEFAULT);
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    CHECK_FAILS(evaluate(decoder, NULL, words, "", &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT, "0 tokens");
    CHECK_FAILS(evaluate(decoder, NULL, words, "a b \xff", &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "data is not UTF-8 after 4 bytes");
    CHECK_FAILS(optimize_model_evaluate(context, decoder, NULL, words, NULL, 4, &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "data is NULL");
    CHECK_FAILS(optimize_model_evaluate(context, decoder, NULL, words, "", ((size_t)64 << 20) + 1, &options, NULL, &report,
                                        &error),
                OPTIMIZE_LIMIT_EXCEEDED, "data");
    options.context_length = 65;
    CHECK_FAILS(evaluate(decoder, NULL, words, "a b", &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "context_length is 65");
    options.context_length = 8;
    options.stride = 9;
    CHECK_FAILS(evaluate(decoder, NULL, words, "a b", &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "stride is 9");
    options.stride = 0;
    options.bos = 3;
    CHECK_FAILS(evaluate(decoder, NULL, words, "a b", &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "bos is 3");
    options = options_for(OPTIMIZE_EVALUATE_EMBEDDING);
    options.max_length = 21;
    CHECK_FAILS(evaluate(encoder, encoder, words, "a b", &options, NULL, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "max_length is 21");
    CHECK_FAILS(optimize_model_evaluate(context, decoder, NULL, words, "a b", 3, NULL, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "report");
    CHECK(report == NULL);
    /* Without options, the defaults apply. */
    CHECK_OK(optimize_model_evaluate(context, decoder, NULL, words, "a b", 3, NULL, NULL, &report, &error));
    CHECK_INT(number_after(optimize_buffer_data(report), "\"quality\"", "context_length"), 64);
    optimize_buffer_free(report);
}

typedef struct seen_t {
    thrd_t thread;
    int evaluated, wrong;
    int32_t answer;
} seen_t;

static int32_t see(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    seen_t *seen = user_data;
    seen->evaluated += strcmp(stage, "evaluate") == 0;
    seen->wrong += !thrd_equal(thrd_current(), seen->thread) || (total != 0 && done > total);
    return seen->answer;
}

TEST(progress_is_told_and_can_cancel) {
    optimize_evaluate_options_t options = options_for(OPTIMIZE_EVALUATE_DEFAULT);
    seen_t seen = {.thread = thrd_current()};
    optimize_call_t call = {.struct_size = sizeof call, .progress = see, .user_data = &seen};
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    char *text = many_words(200);
    CHECK_OK(evaluate(decoder, NULL, words, text, &options, &call, &report, &error));
    optimize_buffer_free(report);
    CHECK(seen.evaluated > 0);
    CHECK_INT(seen.wrong, 0);
    seen.answer = 1;
    CHECK_FAILS(evaluate(decoder, NULL, words, text, &options, &call, &report, &error), OPTIMIZE_CANCELLED, NULL);
    CHECK(report == NULL);
    free(text);
}

TEST(tokens_and_timeouts_end_it) {
    /* With one window per word, this takes minutes unless it is cancelled. */
    char *text = many_words(under_valgrind() ? 5000 : 200000);
    optimize_evaluate_options_t options = options_for(OPTIMIZE_EVALUATE_DEFAULT);
    optimize_call_t call = {.struct_size = sizeof call, .timeout_ms = 200};
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    firing_t firing;
    options.stride = 1;
    CHECK_FAILS(evaluate(decoder, NULL, words, text, &options, &call, &report, &error), OPTIMIZE_TIMEOUT, NULL);
    start_firing(&firing, 0.2);
    call.timeout_ms = 0;
    call.cancel = firing.cancel;
    CHECK_FAILS(evaluate(decoder, NULL, words, text, &options, &call, &report, &error), OPTIMIZE_CANCELLED, NULL);
    end_firing(&firing);
    CHECK(report == NULL);
    free(text);
}

int main(void) {
    const char *path = temporary("words.json");
    optimize_error_t *error = NULL;
    context = new_context();
    write_file(path, tokenizer_json, sizeof tokenizer_json - 1);
    tap_need(optimize_tokenizer_load(path, &words, &error), error, "optimize_tokenizer_load");
    decoder = load(TINY_DECODER);
    encoder = load(TINY_ENCODER);
    classifier = load(TINY_CLASSIFIER);
    RUN_UNLESS_VALGRIND(perplexity_is_that_of_transformers);
    RUN(a_decoder_is_measured_alone_and_against_itself);
    RUN_UNLESS_VALGRIND(embeddings_of_an_int8_model_are_close);
    RUN(embeddings_need_another_model);
    RUN(a_classifier_is_held_against_labels);
    RUN(a_probe_is_trained_on_a_part);
    RUN(models_and_tasks_must_fit);
    RUN(data_and_options_are_checked);
    RUN(progress_is_told_and_can_cancel);
    RUN(tokens_and_timeouts_end_it);
    optimize_model_free(classifier);
    optimize_model_free(encoder);
    optimize_model_free(decoder);
    optimize_tokenizer_free(words);
    optimize_context_free(context);
    return tap_end();
}
