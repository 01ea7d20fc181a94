/* Entities of texts, with their bytes. */
#include "tap.h"

#include <math.h>

#define TINY_TAGS "tests/fixtures/encoders/bert-tags"

static optimize_context_t *context;

static const char letter[] = "My name is Maria Fernández and I live at 742 Evergreen Terrace, Springfield.";

/* Checks that the span with this index covers `text` in `letter`, and has this label. */
static void check_span(const optimize_spans_t *spans, size_t index, const char *text, const char *label) {
    optimize_span_t span = {.struct_size = sizeof span};
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_spans_get(spans, 1, index, &span, &error));
    CHECK_INT(span.end - span.start, strlen(text));
    CHECK(span.end <= strlen(letter) && memcmp(letter + span.start, text, strlen(text)) == 0);
    CHECK_TEXT(span.label, label);
    CHECK(span.score > 0.9f && span.score <= 1.0f);
}

TEST(a_model_finds_the_entities_of_a_letter) {
    static const char *const texts[] = {"Nothing to see here.", letter};
    optimize_tagger_options_t options = {.struct_size = sizeof options, .threads = 1};
    optimize_model_t *model = load_model(context, "models/rampart");
    optimize_tagger_t *tagger = NULL;
    optimize_spans_t *spans = NULL;
    optimize_error_t *error = NULL;
    options.aggregation = OPTIMIZE_AGGREGATION_AVERAGE;
    CHECK_OK(optimize_tagger_new(context, model, NULL, &options, NULL, &tagger, &error));
    optimize_model_free(model);
    CHECK_OK(optimize_tagger_tag(tagger, texts, 2, NULL, &spans, &error));
    CHECK_INT(optimize_spans_count(spans, 0), 0);
    CHECK_INT(optimize_spans_count(spans, 1), 5);
    check_span(spans, 0, "Maria", "GIVEN_NAME");
    check_span(spans, 1, "Fernández", "SURNAME");
    check_span(spans, 2, "742", "BUILDING_NUMBER");
    check_span(spans, 3, "Evergreen Terrace", "STREET_NAME");
    check_span(spans, 4, "Springfield", "CITY");
    optimize_spans_free(spans);
    optimize_tagger_free(tagger);
}

TEST(what_is_refused_has_a_status) {
    static const char *const texts[] = {"hello world"};
    optimize_tagger_options_t options = {.struct_size = sizeof options, .threads = 1};
    optimize_span_t span = {.struct_size = sizeof span}, unsized = {0};
    optimize_model_t *model = NULL, *minilm = load_model(context, MINILM);
    optimize_tagger_t *tagger = NULL;
    optimize_spans_t *spans = NULL;
    optimize_error_t *error = NULL;
    tap_need(optimize_model_load(context, TINY_TAGS, NULL, &model, &error), error, TINY_TAGS);
    CHECK_FAILS(optimize_tagger_new(context, minilm, NULL, &options, NULL, &tagger, &error), OPTIMIZE_UNSUPPORTED,
                NULL);
    options.max_length = 100;
    CHECK_FAILS(optimize_tagger_new(context, model, NULL, &options, NULL, &tagger, &error), OPTIMIZE_INVALID_ARGUMENT,
                "max_length");
    options.max_length = 0;
    options.stride = 20;
    CHECK_FAILS(optimize_tagger_new(context, model, NULL, &options, NULL, &tagger, &error), OPTIMIZE_INVALID_ARGUMENT,
                "stride");
    options.stride = 0;
    options.keep_outside = 1;
    options.aggregation = OPTIMIZE_AGGREGATION_NONE;
    CHECK_OK(optimize_tagger_new(context, model, NULL, &options, NULL, &tagger, &error));
    CHECK_FAILS(optimize_tagger_tag(tagger, texts, 0, NULL, &spans, &error), OPTIMIZE_INVALID_ARGUMENT, "no text");
    CHECK(spans == NULL);
    CHECK_OK(optimize_tagger_tag(tagger, texts, 1, NULL, &spans, &error));
    CHECK_INT(optimize_spans_count(spans, 0), 3);
    CHECK_INT(optimize_spans_count(spans, 1), 0);
    CHECK_INT(optimize_spans_count(NULL, 0), 0);
    CHECK_OK(optimize_spans_get(spans, 0, 0, &span, &error));
    CHECK(span.start == 0 && span.end == 5);
    CHECK_FAILS(optimize_spans_get(spans, 0, 3, &span, &error), OPTIMIZE_NOT_FOUND, "index 3");
    CHECK_FAILS(optimize_spans_get(spans, 1, 0, &span, &error), OPTIMIZE_NOT_FOUND, "text 1");
    CHECK_FAILS(optimize_spans_get(spans, 0, 0, &unsized, &error), OPTIMIZE_INVALID_ARGUMENT, "struct_size");
    optimize_spans_free(spans);
    optimize_tagger_free(tagger);
    optimize_model_free(minilm);
    optimize_model_free(model);
}

int main(void) {
    context = new_context();
    RUN(a_model_finds_the_entities_of_a_letter);
    RUN(what_is_refused_has_a_status);
    optimize_context_free(context);
    return tap_end();
}
