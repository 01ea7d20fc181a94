#include <optimize.h>
#include <stdio.h>

int main(int argc, char **argv) { /* snippet model.onnx small.onnx */
    optimize_context_t *context = NULL;
    optimize_model_t *model = NULL, *small = NULL;
    optimize_error_t *error = NULL;
    if (argc < 3) return 2;
    if (optimize_context_new(NULL, &context, &error) != OPTIMIZE_OK ||
        optimize_model_load(context, argv[1], NULL, &model, &error) != OPTIMIZE_OK ||
        optimize_model_quantize(context, model, NULL, NULL, &small, NULL, &error) != OPTIMIZE_OK ||
        optimize_model_save(small, argv[2], NULL, NULL, NULL, &error) != OPTIMIZE_OK)
        fprintf(stderr, "%s%s%s\n", optimize_error_place(error), *optimize_error_place(error) ? ": " : "",
                optimize_error_message(error));
    int status = error != NULL;
    optimize_error_free(error);
    optimize_model_free(small);
    optimize_model_free(model);
    optimize_context_free(context);
    return status;
}
