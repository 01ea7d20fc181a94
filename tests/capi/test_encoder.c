/* Texts to vectors and to the scores of classes. */
#include "tap.h"

#include <math.h>

#define MINILM "models/paraphrase-MiniLM-L3-v2"
#define TINY_CLASSIFIER "tests/fixtures/encoders/bert-classify" /* LABEL_0, LABEL_1, LABEL_2 */
#define TINY_TOKENIZER "tests/fixtures/sentences/model/tokenizer.json"

static optimize_context_t *context;
static optimize_model_t *minilm, *classes;
static optimize_tokenizer_t *words;

static const char *const texts[] = {"A man is eating food.", "The stock market fell sharply on Monday, again.",
                                    "A man eats."};

static float cosine(const float *a, const float *b, size_t width) {
    double dot = 0, aa = 0, bb = 0;
    size_t i;
    for (i = 0; i < width; i++) {
        dot += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return (float)(dot / sqrt(aa * bb));
}

TEST(similar_texts_have_similar_vectors) {
    optimize_embedder_options_t options = {.struct_size = sizeof options, .threads = 1, .normalize = 1};
    optimize_embedder_t *embedder = NULL;
    optimize_tensor_t *vectors = NULL, *one = NULL;
    optimize_error_t *error = NULL;
    const float *rows;
    CHECK_OK(optimize_embedder_new(context, minilm, NULL, &options, NULL, &embedder, &error));
    CHECK_OK(optimize_embedder_embed(embedder, texts, 3, NULL, &vectors, &error));
    CHECK(optimize_tensor_rank(vectors) == 2 && optimize_tensor_dims(vectors)[0] == 3);
    CHECK(optimize_tensor_dims(vectors)[1] == 384);
    rows = optimize_tensor_data(vectors);
    CHECK(cosine(rows, rows + 768, 384) > 0.7f && cosine(rows, rows + 384, 384) < 0.3f);
    CHECK_OK(optimize_embedder_embed(embedder, texts + 2, 1, NULL, &one, &error));
    CHECK(cosine(optimize_tensor_data(one), rows + 768, 384) > 0.9999f);
    optimize_tensor_free(one);
    one = NULL;
    CHECK_FAILS(optimize_embedder_embed(embedder, texts, 0, NULL, &one, &error), OPTIMIZE_INVALID_ARGUMENT, "no text");
    CHECK_FAILS(optimize_embedder_embed(embedder, NULL, 1, NULL, &one, &error), OPTIMIZE_INVALID_ARGUMENT, "texts");
    CHECK_FAILS(optimize_embedder_embed(NULL, texts, 1, NULL, &one, &error), OPTIMIZE_INVALID_ARGUMENT, "embedder");
    CHECK(one == NULL);
    optimize_tensor_free(vectors);
    optimize_embedder_free(embedder);
    embedder = NULL;
    options.prompt_name = "query";
    CHECK_FAILS(optimize_embedder_new(context, minilm, NULL, &options, NULL, &embedder, &error), OPTIMIZE_NOT_FOUND,
                "query");
    options.prompt_name = NULL;
    options.max_length = 100000;
    CHECK_FAILS(optimize_embedder_new(context, minilm, NULL, &options, NULL, &embedder, &error),
                OPTIMIZE_INVALID_ARGUMENT, "max_length");
    CHECK(embedder == NULL);
}

TEST(texts_and_pairs_have_scores) {
    static const char *const first[] = {"hello", "world"}, *const second[] = {"world ab", "hello hello ab"};
    optimize_classifier_options_t options = {.struct_size = sizeof options, .threads = 1};
    optimize_classifier_t *classifier = NULL;
    optimize_tensor_t *alone = NULL, *pairs = NULL;
    optimize_error_t *error = NULL;
    const float *scores;
    CHECK_OK(optimize_classifier_new(context, classes, words, &options, NULL, &classifier, &error));
    CHECK(optimize_classifier_label_count(classifier) == 3);
    CHECK(strcmp(optimize_classifier_label(classifier, 1), "LABEL_1") == 0);
    CHECK(*optimize_classifier_label(classifier, 3) == '\0' && *optimize_classifier_label(NULL, 0) == '\0');
    CHECK_OK(optimize_classifier_classify(classifier, first, NULL, 2, NULL, &alone, &error));
    scores = optimize_tensor_data(alone);
    /* The expected scores are those of transformers 5.24 for both folders. */
    CHECK(fabsf(scores[0] - 0.226572f) < 1e-5f && fabsf(scores[1] - 0.431687f) < 1e-5f);
    CHECK(fabsf(scores[3] + scores[4] + scores[5] - 1.0f) < 1e-5f);
    CHECK_OK(optimize_classifier_classify(classifier, first, second, 2, NULL, &pairs, &error));
    scores = optimize_tensor_data(pairs);
    /* The class of the tokenizer, in tokenizer_config.json, returns no token types. */
    CHECK(fabsf(scores[0] - 0.218442f) < 1e-5f && fabsf(scores[5] - 0.352711f) < 1e-5f);
    optimize_tensor_free(alone);
    optimize_tensor_free(pairs);
    optimize_classifier_free(classifier);
    classifier = NULL;
    CHECK_FAILS(optimize_classifier_new(context, classes, NULL, &options, NULL, &classifier, &error),
                OPTIMIZE_NOT_FOUND, "tokenizer");
    CHECK_FAILS(optimize_classifier_new(context, minilm, NULL, &options, NULL, &classifier, &error),
                OPTIMIZE_UNSUPPORTED, "logits");
    options.score_function = 9;
    CHECK_FAILS(optimize_classifier_new(context, classes, words, &options, NULL, &classifier, &error),
                OPTIMIZE_INVALID_ARGUMENT, "score_function");
    CHECK(classifier == NULL);
}

int main(void) {
    optimize_error_t *error = NULL;
    context = new_context();
    minilm = load_model(context, MINILM);
    tap_need(optimize_model_load(context, TINY_CLASSIFIER, NULL, &classes, &error), error, TINY_CLASSIFIER);
    tap_need(optimize_tokenizer_load(TINY_TOKENIZER, &words, &error), error, TINY_TOKENIZER);
    RUN(similar_texts_have_similar_vectors);
    RUN(texts_and_pairs_have_scores);
    optimize_tokenizer_free(words);
    optimize_model_free(classes);
    optimize_model_free(minilm);
    optimize_context_free(context);
    return tap_end();
}
