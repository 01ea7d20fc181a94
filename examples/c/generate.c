/*
 * generate MODEL PROMPT
 *
 * Continues a text, and prints it while it is generated.
 *
 *     cc -std=c11 generate.c -o generate $(pkg-config --cflags --libs optimize)
 */
#include <optimize.h>

#include <stdio.h>
#include <string.h>

/* Goes to `end` if a call fails. Everything is freed there: handles begin as NULL, and freeing NULL does nothing. */
#define TRY(call)                            \
    do {                                     \
        if ((call) != OPTIMIZE_OK) goto end; \
    } while (0)

/* The library calls this for each token, on the thread of the call. A value other than 0 would end the text. */
static int32_t show(void *user_data, const optimize_written_t *written) {
    (void)user_data;
    fwrite(written->text, 1, (size_t)written->text_size, stdout);
    return fflush(stdout);
}

int main(int argc, char **argv) {
    optimize_context_t *context = NULL;
    optimize_model_t *model = NULL;
    optimize_generator_t *generator = NULL;
    optimize_buffer_t *report = NULL;
    optimize_generate_options_t options = {.struct_size = sizeof options, .max_new_tokens = 24, .on_token = show};
    const char *prompt = argv[2];
    size_t size;
    optimize_error_t *error = NULL;
    int failed = 1;

    if (argc != 3) {
        fprintf(stderr, "usage: generate MODEL PROMPT\n");
        return 2;
    }
    size = strlen(prompt);
    TRY(optimize_context_new(NULL, &context, &error));
    TRY(optimize_model_load(context, argv[1], NULL, &model, &error));
    TRY(optimize_generator_new(context, model, NULL, NULL, &generator, &error));
    TRY(optimize_generator_generate(generator, &prompt, &size, 1, &options, NULL, &report, &error));
    puts("");
    failed = 0;
end:
    if (failed) {
        const char *place = optimize_error_place(error); /* "" if the error has no place */
        fprintf(stderr, "%s%s%s\n", place, *place ? ": " : "", optimize_error_message(error));
    }
    optimize_error_free(error);
    optimize_buffer_free(report);
    optimize_generator_free(generator);
    optimize_model_free(model);
    optimize_context_free(context);
    return failed;
}
