/*
 * distill TEACHER TEXT OUTPUT
 *
 * Trains a student to reproduce the outputs of TEACHER on the file TEXT, and saves it. The student is made of
 * every other layer of the teacher.
 *
 *     cc -std=c11 distill.c -o distill $(pkg-config --cflags --libs optimize)
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

/* The library calls this after each step and each validation, on the thread of the call. A value other than 0 would end
 * the training. */
static int32_t show(void *user_data, const optimize_training_step_t *step) {
    (void)user_data;
    printf("%s %d of %d: loss %.4f\n", step->is_validation ? "validation after step" : "step", (int)step->step,
           (int)step->total_steps, step->loss);
    return 0;
}

int main(int argc, char **argv) {
    optimize_context_t *context = NULL;
    optimize_model_t *teacher = NULL, *student = NULL;
    optimize_distill_options_t options = {.struct_size = sizeof options, .epochs = 1, .training = show};
    char *text = NULL;
    size_t size = 0;
    optimize_error_t *error = NULL;
    int failed = 1;

    if (argc != 4) {
        fprintf(stderr, "usage: distill TEACHER TEXT OUTPUT\n");
        return 2;
    }
    if (!(text = read_file(argv[2], &size))) {
        fprintf(stderr, "%s: cannot be read\n", argv[2]);
        return 1;
    }
    options.student_layers = "layers:every-other";
    TRY(optimize_context_new(NULL, &context, &error));
    TRY(optimize_model_load(context, argv[1], NULL, &teacher, &error));
    TRY(optimize_model_distill(context, teacher, NULL, text, size, &options, NULL, &student, NULL, &error));
    TRY(optimize_model_save(student, argv[3], NULL, NULL, NULL, &error));
    failed = 0;
end:
    if (failed) {
        const char *place = optimize_error_place(error); /* "" if the error has no place */
        fprintf(stderr, "%s%s%s\n", place, *place ? ": " : "", optimize_error_message(error));
    }
    optimize_error_free(error);
    optimize_model_free(student);
    optimize_model_free(teacher);
    optimize_context_free(context);
    free(text);
    return failed;
}
