/* The table of techniques: rows are measured once, skipped rows say what they need, finished rows survive a cancel. */
#include "tap.h"

static optimize_context_t *context;
static optimize_model_t *model;

static char *content(const char *folder, const char *name) {
    static char text[1 << 20];
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) return NULL;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

/* Cancels at the second row. */
static int32_t at_second(void *seen, const char *stage, uint64_t done, uint64_t total) {
    (void)stage;
    if (total == 3000 && done >= 1000) *(int *)seen = 1;
    return *(int *)seen;
}

TEST(rows_are_measured_once_and_a_cancel_keeps_them) {
    const char *rows[3] = {"int8", "static", "tensorrt"};
    optimize_table_options_t options = {.struct_size = sizeof options, .threads = 1, .runs = 3, .max_milliseconds = 200};
    options.rows = rows;
    options.row_count = 3;
    int seen = 0;
    optimize_call_t call = {.struct_size = sizeof call, .progress = at_second, .user_data = &seen};
    const optimize_model_t *const models[1] = {model};
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    char folder[2048];
    snprintf(folder, sizeof folder, "%s", temporary("table"));
    CHECK_FAILS(optimize_models_table(context, models, 1, folder, &options, &call, NULL, &error), OPTIMIZE_CANCELLED, NULL);
    char *text = content(folder, "table.json");
    NEED(text != NULL);
    CHECK_HAS(text, "\"name\": \"int8\"");
    CHECK(strstr(text, "\"name\": \"tensorrt\"") == NULL);
    const double first = number_after(text, "\"speedup\"", "value");
    CHECK_OK(optimize_models_table(context, models, 1, folder, &options, NULL, &report, &error));
    const char *json = optimize_buffer_data(report);
    CHECK(number_after(json, "\"speedup\"", "value") == first); /* the speed-up is not measured again */
    CHECK(number_after(json, "\"state\": \"measured\"", "smaller") > 0.6);
    CHECK_HAS(json, "needs a text: --data");
    CHECK_HAS(json, "\"name\": \"tensorrt\"");
    CHECK_HAS(content(folder, "table.md"), "| 8-bit quantization |");
    optimize_buffer_free(report);
}

TEST(unknown_rows_are_refused_with_the_names) {
    const char *rows[1] = {"nothing"};
    optimize_table_options_t options = {.struct_size = sizeof options};
    const optimize_model_t *const models[1] = {model};
    optimize_error_t *error = NULL;
    options.rows = rows;
    options.row_count = 1;
    CHECK_FAILS(optimize_models_table(context, models, 1, temporary("none"), &options, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "int8");
    options.row_count = 0;
    CHECK_FAILS(optimize_models_table(context, models, 0, temporary("none"), &options, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "no model");
}

int main(void) {
    NEED(optimize_context_new(NULL, &context, NULL) == OPTIMIZE_OK);
    NEED(optimize_model_load(context, deps("models/paraphrase-MiniLM-L3-v2"), NULL, &model, NULL) == OPTIMIZE_OK);
    RUN_UNLESS_VALGRIND(rows_are_measured_once_and_a_cancel_keeps_them);
    RUN(unknown_rows_are_refused_with_the_names);
    optimize_model_free(model);
    optimize_context_free(context);
    return tap_end();
}
