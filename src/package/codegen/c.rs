//! The program in C.

use super::{Input, c_type, list, quoted};
use std::fmt::Write;

/// Returns the files of a program that opens the package at `path` and runs it, each with its name and content.
pub fn program(path: &str, inputs: &[Input], outputs: usize) -> Vec<(&'static str, String)> {
    let count = inputs.len();
    let mut make = String::new();
    let mut names = String::new();
    for (index, input) in inputs.iter().enumerate() {
        let (ctype, tag) = c_type(input.dtype);
        let (elements, rank) = (input.elements, input.dims.len());
        let _ = write!(names, "{}{}", if index > 0 { ", " } else { "" }, quoted(&input.name));
        let dims = if rank == 0 { "0".to_owned() } else { list(&input.dims) };
        let _ = write!(
            make,
            "    {{\n        static const int64_t dims[] = {{{dims}}};\n        static {ctype} values[{}];\n        \
             for (size_t i = 0; i < {elements}; i++) values[i] = 1;\n        \
             if (optimize_tensor_new(OPTIMIZE_DTYPE_{tag}, dims, {rank}, values, {}, &inputs[{index}], &error) != \
             OPTIMIZE_OK) goto end;\n    }}\n",
            elements.max(1),
            input.bytes
        );
    }
    let source = TEMPLATE
        .replace("@PATH@", &quoted(path))
        .replace("@INPUTS@", &count.to_string())
        .replace("@OUTPUTS@", &outputs.to_string())
        .replace("@NAMES@", &names)
        .replace("@MAKE@", &make);
    vec![("main.c", source), ("Makefile", MAKEFILE.to_owned())]
}

const MAKEFILE: &str = "main: main.c\n\t$(CC) -std=c11 -O2 -Wall -Wextra main.c -o main $(CFLAGS) $(LDFLAGS) \
                        $(shell pkg-config --cflags --libs optimize 2>/dev/null || echo -loptimize)\n";

const TEMPLATE: &str = r#"/* Opens a package and runs it once. Give another package as the first argument. */
#include <optimize.h>

#include <inttypes.h>
#include <stdio.h>

enum { INPUTS = @INPUTS@, OUTPUTS = @OUTPUTS@ };

static void print(const char *name, const optimize_tensor_t *tensor) {
    size_t bytes = optimize_tensor_size(tensor);
    printf("%s [", name);
    for (size_t i = 0; i < optimize_tensor_rank(tensor); i++)
        printf("%s%" PRId64, i ? ", " : "", optimize_tensor_dims(tensor)[i]);
    printf("]");
    if (optimize_tensor_dtype(tensor) == OPTIMIZE_DTYPE_FLOAT32) {
        const float *values = optimize_tensor_data(tensor);
        for (size_t i = 0; i < 8 && i < bytes / sizeof *values; i++) printf(" %.5f", (double)values[i]);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    static const char *const names[INPUTS] = {@NAMES@};
    optimize_context_t *context = NULL;
    optimize_package_t *package = NULL;
    optimize_session_t *session = NULL;
    optimize_tensor_t *inputs[INPUTS] = {NULL}, *outputs[OUTPUTS] = {NULL};
    optimize_error_t *error = NULL;
    int failed = 1;

    if (optimize_context_new(NULL, &context, &error) != OPTIMIZE_OK) goto end;
    if (optimize_package_open(argc > 1 ? argv[1] : @PATH@, NULL, &package, &error) != OPTIMIZE_OK) goto end;
    if (optimize_package_session(context, package, NULL, NULL, &session, &error) != OPTIMIZE_OK) goto end;
@MAKE@    if (optimize_session_run(session, names, (const optimize_tensor_t *const *)inputs, INPUTS, NULL, OUTPUTS, NULL, outputs,
                             &error) != OPTIMIZE_OK)
        goto end;
    for (size_t i = 0; i < OUTPUTS; i++) {
        optimize_value_info_t info = {.struct_size = sizeof info};
        if (optimize_session_output(session, i, &info, &error) != OPTIMIZE_OK) goto end;
        print(info.name, outputs[i]);
    }
    failed = 0;
end:
    if (error) fprintf(stderr, "%s: %s\n", optimize_error_place(error), optimize_error_message(error));
    optimize_error_free(error);
    for (size_t i = 0; i < INPUTS; i++) optimize_tensor_free(inputs[i]);
    for (size_t i = 0; i < OUTPUTS; i++) optimize_tensor_free(outputs[i]);
    optimize_session_free(session);
    optimize_package_free(package);
    optimize_context_free(context);
    return failed;
}
"#;
