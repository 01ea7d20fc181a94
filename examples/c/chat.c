/*
 * A conversation with a model: chat MODEL [QUESTION ...]
 *
 * MODEL is a .gguf file, a checkpoint folder or an exported folder. Without QUESTION, questions are read from the
 * terminal, one per line. The generator keeps its KV cache, so that each turn computes only its own tokens.
 */
#include <optimize.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(optimize_error_t *error) {
    const char *place = optimize_error_place(error); /* "" if the error has no place */
    fprintf(stderr, "%s%s%s\n", place, *place ? ": " : "", optimize_error_message(error));
    exit(1);
}

/* The library calls this for each token of the answer, on the thread of the call. A value other than 0 would end it. */
static int32_t print(void *user_data, const optimize_written_t *written) {
    (void)user_data;
    fwrite(written->text, 1, (size_t)written->text_size, stdout);
    fflush(stdout);
    return 0;
}

/* Returns a user's message as JSON: quotes, backslashes and control characters are escaped. The caller frees it. */
static char *as_message(const char *question) {
    static const char begin[] = "[{\"role\": \"user\", \"content\": \"", end[] = "\"}]";
    char *json = malloc(sizeof begin + 6 * strlen(question) + sizeof end), *at = json; /* 6 bytes per byte: \uXXXX */
    if (json == NULL) abort();
    at += sprintf(at, "%s", begin);
    for (; *question != '\0'; question++) {
        unsigned char c = (unsigned char)*question;
        if (c < 0x20) at += sprintf(at, "\\u%04x", c);
        else if (c == '"' || c == '\\') at += sprintf(at, "\\%c", c);
        else *at++ = (char)c;
    }
    strcpy(at, end);
    return json;
}

/* Reads a line, without the newline, and returns 1; returns 0 at the end of the input. Ends the program if the line is
 * longer than `size`. */
static int read_line(char *line, size_t size) {
    if (fgets(line, (int)size, stdin) == NULL) return 0;
    size_t length = strcspn(line, "\n");
    if (line[length] == '\0' && !feof(stdin)) {
        fprintf(stderr, "a question has at most %zu bytes\n", size - 2);
        exit(2);
    }
    line[length] = '\0';
    return 1;
}

int main(int argc, char **argv) {
    optimize_context_t *context = NULL;
    optimize_model_t *model = NULL;
    optimize_generator_t *generator = NULL;
    optimize_error_t *error = NULL;
    char line[4096];
    if (argc < 2) {
        fprintf(stderr, "usage: chat MODEL [QUESTION ...]\n");
        return 2;
    }
    if (optimize_context_new(NULL, &context, &error) != OPTIMIZE_OK ||
        optimize_model_load(context, argv[1], NULL, &model, &error) != OPTIMIZE_OK ||
        optimize_generator_new(context, model, NULL, NULL, &generator, &error) != OPTIMIZE_OK)
        fail(error);

    optimize_generate_options_t options = {.struct_size = sizeof options};
    options.max_new_tokens = 200;
    options.rendered = 1;
    options.on_token = print;
    for (int turn = 2;; turn++) {
        const char *question = turn < argc ? argv[turn] : NULL;
        if (argc > 2 && question == NULL) break;
        if (question == NULL) {
            fputs("> ", stderr);
            if (!read_line(line, sizeof line)) break;
            question = line;
        }
        optimize_buffer_t *prompt = NULL, *report = NULL;
        char *json = as_message(question);
        if (optimize_model_render_chat(model, json, &prompt, &error) != OPTIMIZE_OK ||
            optimize_generator_append(generator, 0, optimize_buffer_data(prompt), optimize_buffer_size(prompt),
                                      &options, &error) != OPTIMIZE_OK ||
            optimize_generator_run(generator, &options, NULL, &report, &error) != OPTIMIZE_OK)
            fail(error);
        putchar('\n');
        optimize_buffer_free(report);
        optimize_buffer_free(prompt);
        free(json);
    }
    optimize_generator_free(generator);
    optimize_model_free(model);
    optimize_context_free(context);
    return 0;
}
