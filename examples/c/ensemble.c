/*
 * ensemble PROMPT MODEL MODEL ...
 *
 * Generates one text with two to eight models: their probabilities for each token are averaged. The models must
 * generate text, and have the same vocabulary.
 *
 *     cc -std=c11 ensemble.c -o ensemble $(pkg-config --cflags --libs optimize)
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

enum { MOST = 8 };

int main(int argc, char **argv) {
    optimize_context_t *context = NULL;
    optimize_model_t *models[MOST] = {NULL};
    optimize_ensemble_t *ensemble = NULL;
    optimize_generator_t *generator = NULL;
    optimize_buffer_t *report = NULL;
    optimize_ensemble_options_t mean = {.struct_size = sizeof mean, .method = OPTIMIZE_ENSEMBLE_MEAN};
    optimize_generate_options_t options = {.struct_size = sizeof options, .max_new_tokens = 24, .on_token = show};
    const char *prompt = argv[1];
    size_t size, count = argc > 2 ? (size_t)argc - 2 : 0;
    optimize_error_t *error = NULL;
    int failed = 1;

    if (count < 2 || count > MOST) {
        fprintf(stderr, "usage: ensemble PROMPT MODEL MODEL ...\n");
        return 2;
    }
    size = strlen(prompt);
    TRY(optimize_context_new(NULL, &context, &error));
    for (size_t i = 0; i < count; i++) TRY(optimize_model_load(context, argv[i + 2], NULL, &models[i], &error));
    TRY(optimize_ensemble_new((const optimize_model_t *const *)models, count, &mean, &ensemble, &error));
    TRY(optimize_ensemble_generator(context, ensemble, NULL, NULL, &generator, &error));
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
    optimize_ensemble_free(ensemble);
    for (size_t i = 0; i < MOST; i++) optimize_model_free(models[i]);
    optimize_context_free(context);
    return failed;
}
