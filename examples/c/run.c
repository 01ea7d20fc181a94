/*
 * run MODEL [TEXT]
 *
 * Runs a text model once, with the tokenizer.json next to it, and prints its outputs.
 *
 *     cc -std=c11 run.c -o run $(pkg-config --cflags --libs optimize)
 */
#include <optimize.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUTS = 2, MOST_OUTPUTS = 16 };

static void print_output(const optimize_session_t *session, size_t index, const optimize_tensor_t *output) {
    optimize_value_info_t info = {.struct_size = sizeof info};
    const float *values = optimize_tensor_data(output);
    size_t count = optimize_tensor_size(output) / sizeof *values;
    if (optimize_session_output(session, index, &info, NULL) != OPTIMIZE_OK) return;
    printf("%s [", info.name);
    for (size_t i = 0; i < optimize_tensor_rank(output); i++)
        printf("%s%" PRId64, i ? ", " : "", optimize_tensor_dims(output)[i]);
    printf("]");
    if (optimize_tensor_dtype(output) == OPTIMIZE_DTYPE_FLOAT32) {
        for (size_t i = 0; i < 4 && i < count; i++) printf(" %g", (double)values[i]);
        printf(" ...");
    }
    printf("\n");
}

int main(int argc, char **argv) {
    static const char *const names[INPUTS] = {"input_ids", "attention_mask"};
    optimize_context_t *context = NULL;
    optimize_model_t *model = NULL;
    optimize_session_t *session = NULL;
    optimize_tokenizer_t *tokenizer = NULL;
    optimize_tensor_t *ids = NULL, *mask = NULL, *outputs[MOST_OUTPUTS] = {NULL};
    optimize_error_t *error = NULL;
    const char *text = argc > 2 ? argv[2] : "A man is eating food.";
    char folder[4096] = ".";
    int failed = 1;

    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL [TEXT]\n", argv[0]);
        return 2;
    }
    if (strrchr(argv[1], '/')) snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(argv[1], '/') - argv[1]), argv[1]);

    if (optimize_context_new(NULL, &context, &error) != OPTIMIZE_OK) goto end;
    if (optimize_model_load(context, argv[1], NULL, &model, &error) != OPTIMIZE_OK) goto end;
    if (optimize_session_new(context, model, NULL, NULL, &session, &error) != OPTIMIZE_OK) goto end;
    if (optimize_tokenizer_load(folder, &tokenizer, &error) != OPTIMIZE_OK) goto end;
    if (optimize_tokenizer_encode(tokenizer, &text, NULL, 1, NULL, &ids, &mask, NULL, &error) != OPTIMIZE_OK) goto end;

    const optimize_tensor_t *inputs[INPUTS] = {ids, mask};
    size_t count = optimize_session_output_count(session);
    if (count > MOST_OUTPUTS) {
        fprintf(stderr, "%zu outputs are more than this example has room for\n", count);
        goto end;
    }
    /* NULL instead of output names requests all outputs, in the order of the model. */
    if (optimize_session_run(session, names, inputs, INPUTS, NULL, count, NULL, outputs, &error) != OPTIMIZE_OK) goto end;
    for (size_t i = 0; i < count; i++) print_output(session, i, outputs[i]);
    failed = 0;
end:
    if (error) {
        const char *place = optimize_error_place(error); /* "" if the error has no place */
        fprintf(stderr, "%s%s%s\n", place, *place ? ": " : "", optimize_error_message(error));
    }
    optimize_error_free(error);
    for (size_t i = 0; i < MOST_OUTPUTS; i++) optimize_tensor_free(outputs[i]);
    optimize_tensor_free(ids);
    optimize_tensor_free(mask);
    optimize_tokenizer_free(tokenizer);
    optimize_session_free(session);
    optimize_model_free(model);
    optimize_context_free(context);
    return failed;
}
