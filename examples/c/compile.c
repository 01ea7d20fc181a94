/*
 * compile MODEL PACKAGE
 *
 * Writes a package of a model for batches of 1 to 8 rows, then opens the package like a program that runs the model,
 * and prints its inputs.
 *
 *     cc -std=c11 compile.c -o compile $(pkg-config --cflags --libs optimize)
 */
#include <optimize.h>

#include <stdio.h>

/* Goes to `end` if a call fails. Everything is freed there: handles begin as NULL, and freeing NULL does nothing. */
#define TRY(call)                            \
    do {                                     \
        if ((call) != OPTIMIZE_OK) goto end; \
    } while (0)

int main(int argc, char **argv) {
    optimize_context_t *context = NULL;
    optimize_model_t *model = NULL;
    optimize_package_t *package = NULL;
    optimize_session_t *session = NULL;
    optimize_package_compile_options_t options = {.struct_size = sizeof options, .dynamic = 1, .batch_max = 8};
    optimize_value_info_t info = {.struct_size = sizeof info};
    optimize_error_t *error = NULL;
    int failed = 1;

    if (argc != 3) {
        fprintf(stderr, "usage: compile MODEL PACKAGE\n");
        return 2;
    }
    TRY(optimize_context_new(NULL, &context, &error));
    TRY(optimize_model_load(context, argv[1], NULL, &model, &error));
    TRY(optimize_package_compile(context, model, argv[2], &options, NULL, NULL, &error));

    TRY(optimize_package_open(argv[2], NULL, &package, &error));
    TRY(optimize_package_session(context, package, NULL, NULL, &session, &error));
    for (size_t i = 0; i < optimize_session_input_count(session); i++) {
        TRY(optimize_session_input(session, i, &info, &error));
        printf("input %s of rank %d\n", info.name, (int)info.rank);
    }
    failed = 0;
end:
    if (failed) {
        const char *place = optimize_error_place(error); /* "" if the error has no place */
        fprintf(stderr, "%s%s%s\n", place, *place ? ": " : "", optimize_error_message(error));
    }
    optimize_error_free(error);
    optimize_session_free(session);
    optimize_package_free(package);
    optimize_model_free(model);
    optimize_context_free(context);
    return failed;
}
