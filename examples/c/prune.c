/*
 * prune MODEL OUTPUT [CALIBRATION]
 *
 * Removes 30 % of the neurons, channels and heads of a model, saves the result, and compares it with the original.
 * With CALIBRATION, a text file, those that matter least for this text are removed, and the weights that read the
 * remaining ones are fitted to compensate, which loses much less quality; MODEL then needs its tokenizer.json next to
 * it. The report of the benchmark is written to stdout, everything else to stderr.
 *
 *     cc -std=c11 prune.c -o prune $(pkg-config --cflags --libs optimize)
 */
#include <optimize.h>

#include <stdio.h>
#include <stdlib.h>

/* Goes to `end` if a call fails. Everything is freed there: handles begin as NULL, and freeing NULL does nothing. */
#define TRY(call)                            \
    do {                                     \
        if ((call) != OPTIMIZE_OK) goto end; \
    } while (0)

/* Returns the content of a file, which the caller frees, and writes its size; NULL if the file cannot be read. */
static char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    long end;
    if (!file) return NULL;
    if (fseek(file, 0, SEEK_END) == 0 && (end = ftell(file)) >= 0 && fseek(file, 0, SEEK_SET) == 0) {
        text = malloc((size_t)end + 1);
        *size = text ? fread(text, 1, (size_t)end, file) : 0;
    }
    fclose(file);
    return text;
}

int main(int argc, char **argv) {
    optimize_context_t *context = NULL;
    optimize_model_t *model = NULL, *small = NULL;
    optimize_buffer_t *report = NULL, *benchmark = NULL;
    optimize_error_t *error = NULL;
    optimize_prune_options_t options = {.struct_size = sizeof options};
    char *text = NULL;
    size_t size = 0;
    int failed = 1;

    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL OUTPUT [CALIBRATION]\n", argv[0]);
        return 2;
    }
    options.method = OPTIMIZE_PRUNE_STRUCTURED;
    options.sparsity = 0.3;
    if (argc > 3) {
        if (!(text = read_file(argv[3], &size))) {
            fprintf(stderr, "%s: cannot be read\n", argv[3]);
            return 2;
        }
        options.calibration = text;
        options.calibration_size = size;
        options.importance = OPTIMIZE_IMPORTANCE_ACTIVATION;
        options.reconstruct = 1;
    }
    TRY(optimize_context_new(NULL, &context, &error));
    TRY(optimize_model_load(context, argv[1], NULL, &model, &error));
    TRY(optimize_model_prune(context, model, &options, NULL, &small, &report, &error));
    TRY(optimize_model_save(small, argv[2], NULL, NULL, NULL, &error));
    fprintf(stderr, "%s\n", optimize_buffer_data(report));
    TRY(optimize_model_benchmark(context, model, small, NULL, NULL, NULL, &benchmark, &error));
    fputs(optimize_buffer_data(benchmark), stdout);
    failed = 0;
end:
    if (failed) {
        const char *place = optimize_error_place(error); /* "" if the error has no place */
        fprintf(stderr, "%s%s%s\n", place, *place ? ": " : "", optimize_error_message(error));
    }
    optimize_error_free(error);
    optimize_buffer_free(benchmark);
    optimize_buffer_free(report);
    optimize_model_free(small);
    optimize_model_free(model);
    optimize_context_free(context);
    free(text);
    return failed;
}
