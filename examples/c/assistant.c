/*
 * Answers a question from lines of text: assistant EMBEDDER RERANKER TAGGER DECODER QUESTION [LINE ...]
 *
 * The three lines nearest to the question are found by their vectors, and the reranker chooses one of them; "-" instead
 * of a reranker chooses the nearest. The entities of the line are printed, and the decoder answers the question with
 * the line. Without LINE, lines are read from standard input; at most 10,000 lines are used. No file is written, and no
 * JSON is parsed.
 */
#include <optimize.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LINES = 10000, NEAREST = 3 };

static optimize_context_t *context;
static char *lines[MOST_LINES + 1]; /* the question, then the lines */
static size_t count;

/* Prints the error of a failed call, and ends the program. The error is passed by its address, because C may evaluate
 * the arguments of `check` in any order, so that the value could be read before the call has written it. */
static void check(optimize_status_t status, optimize_error_t *const *error) {
    if (status == OPTIMIZE_OK) return;
    const char *place = optimize_error_place(*error); /* "" if the error has no place */
    fprintf(stderr, "%s%s%s\n", place, *place ? ": " : "", optimize_error_message(*error));
    exit(1);
}

static optimize_model_t *load(const char *path) {
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    check(optimize_model_load(context, path, NULL, &model, &error), &error);
    return model;
}

static void add(const char *line, size_t size) {
    lines[count] = malloc(size + 1);
    if (lines[count] == NULL) exit(1);
    memcpy(lines[count], line, size);
    lines[count++][size] = '\0';
}

static void read_lines(void) {
    char line[4096];
    while (count <= MOST_LINES && fgets(line, sizeof line, stdin) != NULL) {
        size_t size = strcspn(line, "\n");
        if (size > 0) add(line, size);
    }
}

/* Writes the indices of the NEAREST lines whose vectors are nearest to that of the question, the nearest first, to
 * `nearest`, and returns their number, which is less if there are fewer lines. */
static size_t find(const char *path, size_t *nearest) {
    optimize_model_t *model = load(path);
    optimize_embedder_options_t options = {.struct_size = sizeof options, .normalize = 1}; /* dot products = cosines */
    optimize_embedder_t *embedder = NULL;
    optimize_tensor_t *vectors = NULL;
    optimize_error_t *error = NULL;
    float similarities[NEAREST];
    size_t found = 0;
    check(optimize_embedder_new(context, model, NULL, &options, NULL, &embedder, &error), &error);
    check(optimize_embedder_embed(embedder, (const char *const *)lines, count, NULL, &vectors, &error), &error);
    size_t width = optimize_tensor_size(vectors) / sizeof(float) / count;
    const float *question = optimize_tensor_data(vectors);
    for (size_t line = 1; line < count; line++) {
        float similarity = 0;
        for (size_t i = 0; i < width; i++) similarity += question[i] * question[line * width + i];
        size_t at = found < NEAREST ? found++ : NEAREST; /* position in the sorted list */
        for (; at > 0 && similarities[at - 1] < similarity; at--)
            if (at < NEAREST) similarities[at] = similarities[at - 1], nearest[at] = nearest[at - 1];
        if (at < NEAREST) similarities[at] = similarity, nearest[at] = line;
    }
    optimize_tensor_free(vectors);
    optimize_embedder_free(embedder);
    optimize_model_free(model);
    return found;
}

/* Returns the index of the line to which a reranker gives the highest score. */
static size_t rerank(const char *path, const size_t *nearest, size_t found) {
    optimize_model_t *model = load(path);
    optimize_classifier_t *classifier = NULL;
    optimize_tensor_t *scores = NULL;
    optimize_error_t *error = NULL;
    const char *questions[NEAREST], *answers[NEAREST];
    for (size_t i = 0; i < found; i++) questions[i] = lines[0], answers[i] = lines[nearest[i]];
    check(optimize_classifier_new(context, model, NULL, NULL, NULL, &classifier, &error), &error);
    check(optimize_classifier_classify(classifier, questions, answers, found, NULL, &scores, &error), &error);
    size_t classes = optimize_tensor_size(scores) / sizeof(float) / found, best = 0;
    const float *score = optimize_tensor_data(scores);
    for (size_t i = 1; i < found; i++)
        if (score[i * classes] > score[best * classes]) best = i;
    optimize_tensor_free(scores);
    optimize_classifier_free(classifier);
    optimize_model_free(model);
    return nearest[best];
}

/* Prints the entities of a text. */
static void tag(const char *path, const char *text) {
    optimize_model_t *model = load(path);
    optimize_tagger_options_t options = {.struct_size = sizeof options, .aggregation = OPTIMIZE_AGGREGATION_AVERAGE};
    optimize_tagger_t *tagger = NULL;
    optimize_spans_t *spans = NULL;
    optimize_error_t *error = NULL;
    check(optimize_tagger_new(context, model, NULL, &options, NULL, &tagger, &error), &error);
    check(optimize_tagger_tag(tagger, &text, 1, NULL, &spans, &error), &error);
    for (size_t i = 0; i < optimize_spans_count(spans, 0); i++) {
        optimize_span_t span = {.struct_size = sizeof span};
        check(optimize_spans_get(spans, 0, i, &span, &error), &error);
        printf("  %s: %.*s\n", span.label, (int)(span.end - span.start), text + span.start);
    }
    optimize_spans_free(spans);
    optimize_tagger_free(tagger);
    optimize_model_free(model);
}

/* Appends a text to a string literal of JSON in a buffer of `size` bytes, escaped, as far as there is room. */
static void escape(char *json, size_t size, const char *text) {
    size_t at = strlen(json);
    for (; *text != '\0' && at + 16 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20) at += (size_t)snprintf(json + at, size - at, "\\u%04x", c);
        else if (c == '"' || c == '\\') at += (size_t)snprintf(json + at, size - at, "\\%c", c);
        else json[at++] = (char)c;
    }
    json[at] = '\0';
}

/* Prints the text that the decoder generates: an answer to the question, or a call of the tool "search". */
static void answer(const char *path, const char *line) {
    optimize_model_t *model = load(path);
    optimize_chat_options_t chat = {.struct_size = sizeof chat, .thinking = OPTIMIZE_THINKING_OFF};
    optimize_generate_options_t options = {.struct_size = sizeof options, .max_new_tokens = 40, .rendered = 1};
    optimize_generation_t generation = {.struct_size = sizeof generation};
    optimize_generator_t *generator = NULL;
    optimize_buffer_t *prompt = NULL, *report = NULL;
    optimize_error_t *error = NULL;
    char messages[16384] = "[{\"role\": \"user\", \"content\": \"";
    escape(messages, sizeof messages, line);
    strcat(messages, " ");
    escape(messages, sizeof messages - 8, lines[0]);
    strcat(messages, "\"}]");
    chat.tools = "[{\"type\": \"function\", \"function\": {\"name\": \"search\", \"description\": \"Finds lines.\","
                 "\"parameters\": {\"type\": \"object\", \"properties\": {\"words\": {\"type\": \"string\"}}}}}]";
    check(optimize_model_apply_chat_template(model, messages, &chat, &prompt, &error), &error);
    check(optimize_generator_new(context, model, NULL, NULL, &generator, &error), &error);
    const char *text = optimize_buffer_data(prompt);
    size_t size = optimize_buffer_size(prompt);
    check(optimize_generator_generate(generator, &text, &size, 1, &options, NULL, &report, &error), &error);
    check(optimize_generation_get(report, 0, &generation, &error), &error);
    printf("%s\n", generation.text);
    optimize_buffer_free(report);
    optimize_buffer_free(prompt);
    optimize_generator_free(generator);
    optimize_model_free(model);
}

int main(int argc, char **argv) {
    optimize_error_t *error = NULL;
    size_t nearest[NEAREST];
    if (argc < 6) {
        fprintf(stderr, "usage: assistant EMBEDDER RERANKER TAGGER DECODER QUESTION [LINE ...]\n");
        return 2;
    }
    check(optimize_context_new(NULL, &context, &error), &error);
    for (int i = 5; i < argc && count <= MOST_LINES; i++) add(argv[i], strlen(argv[i]));
    if (argc == 6) read_lines();
    if (count < 2) {
        fprintf(stderr, "there are no lines\n");
        return 1;
    }
    size_t found = find(argv[1], nearest);
    const char *line = lines[strcmp(argv[2], "-") != 0 ? rerank(argv[2], nearest, found) : nearest[0]];
    printf("%s\n", line);
    tag(argv[3], line);
    answer(argv[4], line);
    while (count > 0) free(lines[--count]);
    optimize_context_free(context);
    return 0;
}
