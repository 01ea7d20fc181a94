/*
 * quantize MODEL OUTPUT [TEXT]
 *
 * Quantizes a text model to int8, saves the result, runs original and result on TEXT with the tokenizer.json next to
 * MODEL, and compares them in a benchmark. Without a tokenizer, there is only the benchmark, on generated inputs. The
 * report of the benchmark is written to stdout, everything else to stderr.
 *
 *     cc -std=c11 quantize.c -o quantize $(pkg-config --cflags --libs optimize) -lm
 */
#include <optimize.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Goes to `end` if a call fails. Everything is freed there: handles begin as NULL, and freeing NULL does nothing. */
#define TRY(call)                            \
    do {                                     \
        if ((call) != OPTIMIZE_OK) goto end; \
    } while (0)

/* The library calls this on the thread of the call, at most 20 times a second, and at the beginning and the end of each
 * stage. A value other than 0 would cancel the call. */
static int32_t show_progress(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    (void)user_data;
    fprintf(stderr, "\r%s %3d %%%s", stage, total ? (int)(100 * done / total) : 0, done == total ? "\n" : "");
    return 0;
}

/* Loads tokenizer.json from the model's folder. If there is no such file, *tokenizer stays NULL, without an error. */
static optimize_status_t load_tokenizer_beside(const char *model, optimize_tokenizer_t **tokenizer,
                                               optimize_error_t **error) {
    static const char name[] = "tokenizer.json";
    const char *slash = strrchr(model, '/');
    size_t folder = slash ? (size_t)(slash - model) + 1 : 0;
    char *path = malloc(folder + sizeof name);
    optimize_status_t status;
    if (!path) return OPTIMIZE_OK;
    memcpy(path, model, folder);
    memcpy(path + folder, name, sizeof name);
    status = optimize_tokenizer_load(path, tokenizer, error);
    free(path);
    if (status != OPTIMIZE_NOT_FOUND) return status;
    optimize_error_free(*error);
    *error = NULL;
    return OPTIMIZE_OK;
}

/* The usual names of the inputs of text models, in the order of the results of optimize_tokenizer_encode. */
static const char *const input_names[3] = {"input_ids", "attention_mask", "token_type_ids"};

/* Runs a model on an encoded text, and writes its last output, which is the embedding in models for sentences. */
static optimize_status_t run(const optimize_context_t *context, const optimize_model_t *model,
                             optimize_tensor_t *const text[3], optimize_tensor_t **output, optimize_error_t **error) {
    optimize_session_t *session = NULL;
    optimize_value_info_t info = {.struct_size = sizeof info};
    const optimize_tensor_t *inputs[3];
    const char *names[3];
    size_t used = 0;
    optimize_status_t status = optimize_session_new(context, model, NULL, NULL, &session, error);
    if (status != OPTIMIZE_OK) return status;
    /* Only inputs that the model has may be given; not every model has all three. */
    for (size_t i = 0; i < optimize_session_input_count(session); i++) {
        if ((status = optimize_session_input(session, i, &info, error)) != OPTIMIZE_OK) goto end;
        for (size_t j = 0; j < 3; j++) {
            if (strcmp(info.name, input_names[j]) != 0) continue;
            names[used] = info.name;
            inputs[used++] = text[j];
        }
    }
    status = optimize_session_output(session, optimize_session_output_count(session) - 1, &info, error);
    if (status != OPTIMIZE_OK) goto end;
    /* If the model has another required input, the error names it. */
    status = optimize_session_run(session, names, inputs, used, &info.name, 1, NULL, output, error);
end:
    optimize_session_free(session);
    return status;
}

/* Returns the cosine of two float32 outputs; NAN for other types, or if their sizes differ. */
static double cosine(const optimize_tensor_t *a, const optimize_tensor_t *b) {
    const float *x = optimize_tensor_data(a), *y = optimize_tensor_data(b);
    size_t count = optimize_tensor_size(a) / sizeof *x;
    double xy = 0, xx = 0, yy = 0;
    if (optimize_tensor_dtype(a) != OPTIMIZE_DTYPE_FLOAT32 || optimize_tensor_size(a) != optimize_tensor_size(b))
        return NAN;
    for (size_t i = 0; i < count; i++) {
        xy += (double)x[i] * y[i];
        xx += (double)x[i] * x[i];
        yy += (double)y[i] * y[i];
    }
    return xy / sqrt(xx * yy);
}

int main(int argc, char **argv) {
    optimize_context_t *context = NULL;
    optimize_model_t *model = NULL, *small = NULL;
    optimize_tokenizer_t *tokenizer = NULL;
    optimize_tensor_t *text[3] = {NULL, NULL, NULL}, *before = NULL, *after = NULL;
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    optimize_call_t call = {.struct_size = sizeof call, .progress = show_progress};
    optimize_benchmark_options_t benchmark = {.struct_size = sizeof benchmark};
    const char *sentence = argc > 3 ? argv[3] : "A man is eating food.";
    int failed = 1;

    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL OUTPUT [TEXT]\n", argv[0]);
        return 2;
    }
    TRY(optimize_context_new(NULL, &context, &error));
    TRY(optimize_model_load(context, argv[1], NULL, &model, &error));
    TRY(optimize_model_quantize(context, model, NULL, &call, &small, NULL, &error));
    TRY(optimize_model_save(small, argv[2], NULL, &call, NULL, &error));

    TRY(load_tokenizer_beside(argv[1], &tokenizer, &error));
    if (tokenizer) {
        TRY(optimize_tokenizer_encode(tokenizer, &sentence, NULL, 1, NULL, &text[0], &text[1], &text[2], &error));
        TRY(run(context, model, text, &before, &error));
        TRY(run(context, small, text, &after, &error));
        fprintf(stderr, "\"%s\": original and result agree by %.4f\n", sentence, cosine(before, after));
        benchmark.texts = &sentence;
        benchmark.text_count = 1;
    }
    TRY(optimize_model_benchmark(context, model, small, tokenizer, &benchmark, &call, &report, &error));
    fputs(optimize_buffer_data(report), stdout);
    failed = 0;
end:
    if (failed) {
        const char *place = optimize_error_place(error); /* "" if the error has no place */
        fprintf(stderr, "%s%s%s\n", place, *place ? ": " : "", optimize_error_message(error));
    }
    optimize_error_free(error);
    optimize_buffer_free(report);
    optimize_tensor_free(before);
    optimize_tensor_free(after);
    for (size_t i = 0; i < 3; i++) optimize_tensor_free(text[i]);
    optimize_tokenizer_free(tokenizer);
    optimize_model_free(small);
    optimize_model_free(model);
    optimize_context_free(context);
    return failed;
}
