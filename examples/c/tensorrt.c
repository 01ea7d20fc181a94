/*
 * tensorrt MODEL OUTPUT.engine
 *
 * Builds a TensorRT engine of a model in fp16, for batches of one row of 128 tokens. Without TensorRT or
 * a GPU, it prints the reason.
 *
 *     cc -std=c11 tensorrt.c -o tensorrt $(pkg-config --cflags --libs optimize)
 */
#include <optimize.h>

#include <stdio.h>

/* Goes to `end` if a call fails. Everything is freed there: handles begin as NULL, and freeing NULL does nothing. */
#define TRY(call)                            \
    do {                                     \
        if ((call) != OPTIMIZE_OK) goto end; \
    } while (0)

/* Returns 1 for an error of a machine on which TensorRT or a GPU is missing or has an unsupported version, which is not
 * a failure of this example; otherwise 0. */
static int missing(const optimize_error_t *error) {
    switch (optimize_error_status(error)) {
    case OPTIMIZE_BACKEND_MISSING:
    case OPTIMIZE_DEVICE_MISSING:
    case OPTIMIZE_UNSUPPORTED: return 1;
    default: return 0;
    }
}

int main(int argc, char **argv) {
    optimize_context_t *context = NULL;
    optimize_model_t *model = NULL;
    optimize_buffer_t *report = NULL;
    optimize_tensorrt_options_t options = {.struct_size = sizeof options, .precision = OPTIMIZE_PRECISION_FP16};
    optimize_error_t *error = NULL;
    int failed = 1;

    if (argc != 3) {
        fprintf(stderr, "usage: tensorrt MODEL OUTPUT.engine\n");
        return 2;
    }
    options.batch_size = 1;
    options.sequence_length = 128;
    TRY(optimize_context_new(NULL, &context, &error));
    TRY(optimize_model_load(context, argv[1], NULL, &model, &error));
    TRY(optimize_model_build_tensorrt(context, model, argv[2], &options, NULL, &report, &error));
    puts(optimize_buffer_data(report));
    failed = 0;
end:
    if (failed) {
        const char *place = optimize_error_place(error); /* "" if the error has no place */
        fprintf(stderr, "%s%s%s\n", place, *place ? ": " : "", optimize_error_message(error));
    }
    if (failed && missing(error)) failed = 0;
    optimize_error_free(error);
    optimize_buffer_free(report);
    optimize_model_free(model);
    optimize_context_free(context);
    return failed;
}
