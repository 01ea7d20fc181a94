/*
 * benchmark ORIGINAL RESULT
 *
 * Compares two models: speed, load time, memory, size, and how close their outputs are. The report is JSON.
 *
 *     cc -std=c11 benchmark.c -o benchmark $(pkg-config --cflags --libs optimize)
 */
#include <optimize.h>

#include <stdio.h>

/* All handles begin as NULL, and freeing NULL does nothing: on failure, go to the end and free everything. */
#define TRY(call)                            \
    do {                                     \
        if ((call) != OPTIMIZE_OK) goto end; \
    } while (0)

int main(int argc, char **argv) {
    optimize_context_t *context = NULL;
    optimize_model_t *original = NULL, *result = NULL;
    optimize_tokenizer_t *tokenizer = NULL;
    optimize_buffer_t *report = NULL;
    optimize_benchmark_options_t options = {.struct_size = sizeof options, .runs = 20};
    optimize_error_t *error = NULL;
    int failed = 1;

    if (argc != 3) {
        fprintf(stderr, "usage: benchmark ORIGINAL RESULT\n");
        return 2;
    }
    TRY(optimize_context_new(NULL, &context, &error));
    TRY(optimize_model_load(context, argv[1], NULL, &original, &error));
    TRY(optimize_model_load(context, argv[2], NULL, &result, &error));
    /* Without a tokenizer, inputs are generated from the model's signature. */
    if (optimize_model_tokenizer(original, &tokenizer, NULL) != OPTIMIZE_OK) tokenizer = NULL;
    TRY(optimize_model_benchmark(context, original, result, tokenizer, &options, NULL, &report, &error));
    puts(optimize_buffer_data(report));
    failed = 0;
end:
    if (failed) {
        const char *place = optimize_error_place(error); /* "" if there is none */
        fprintf(stderr, "%s%s%s\n", place, *place ? ": " : "", optimize_error_message(error));
    }
    optimize_error_free(error);
    optimize_buffer_free(report);
    optimize_tokenizer_free(tokenizer);
    optimize_model_free(result);
    optimize_model_free(original);
    optimize_context_free(context);
    return failed;
}
