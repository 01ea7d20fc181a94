/* Models: loading, inspection, saving. */
#include "tap.h"

static optimize_context_t *context;

TEST(a_file_and_a_folder_load) {
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_model_load(context, deps(MINILM "/model.onnx"), NULL, &model, &error));
    CHECK_INT(optimize_model_input_count(model), 2);
    optimize_model_free(model);
    CHECK_OK(optimize_model_load(context, deps(MINILM), NULL, &model, &error));
    CHECK_INT(optimize_model_input_count(model), 2);
    optimize_model_free(model);
}

TEST(bad_paths_are_refused) {
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    CHECK_FAILS(optimize_model_load(context, "/no/such/model.onnx", NULL, &model, &error), OPTIMIZE_NOT_FOUND,
                "/no/such/model.onnx");
    CHECK_FAILS(optimize_model_load(context, "", NULL, &model, &error), OPTIMIZE_NOT_FOUND, NULL);
    CHECK_FAILS(optimize_model_load(context, deps("corpus"), NULL, &model, &error), OPTIMIZE_NOT_FOUND, "corpus");
    CHECK_FAILS(optimize_model_load(context, "caf\xe9.onnx", NULL, &model, &error), OPTIMIZE_INVALID_ARGUMENT, "UTF-8");
    CHECK_FAILS(optimize_model_load(context, NULL, NULL, &model, &error), OPTIMIZE_INVALID_ARGUMENT, "path");
    CHECK(model == NULL);
}

TEST(what_is_no_model_is_refused_with_the_path) {
    size_t cut;
    const char *path = temporary("bad.onnx");
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    CHECK_FAILS(optimize_model_load(context, deps(MINILM "/vocab.txt"), NULL, &model, &error), OPTIMIZE_INVALID_MODEL,
                "vocab.txt");
    write_file(path, "", 0);
    CHECK_FAILS(optimize_model_load(context, path, NULL, &model, &error), OPTIMIZE_INVALID_MODEL, "bad.onnx");
    for (cut = TINY_SIZE - 1; cut > 0; cut--) {
        write_file(path, tiny_model, cut);
        optimize_status_t status = optimize_model_load(context, path, NULL, &model, &error);
        /* If the file is truncated between two fields, the rest may be a valid model. */
        if (status == OPTIMIZE_OK) optimize_model_free(model);
        else CHECK_FAILS(status, OPTIMIZE_INVALID_MODEL, "bad.onnx");
        model = NULL;
    }
}

TEST(memory_loads_and_is_copied) {
    unsigned char *content = malloc(TINY_SIZE);
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    NEED(content != NULL);
    memcpy(content, tiny_model, TINY_SIZE);
    CHECK_OK(optimize_model_load_memory(context, content, TINY_SIZE, NULL, &model, &error));
    memset(content, 0xff, TINY_SIZE);
    free(content);
    CHECK_OK(optimize_model_inspect(model, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "Identity");
    optimize_buffer_free(report);
    optimize_model_free(model);
    CHECK_FAILS(optimize_model_load_memory(context, "not a model", 11, NULL, &model, &error), OPTIMIZE_INVALID_MODEL, NULL);
    CHECK_FAILS(optimize_model_load_memory(context, NULL, 0, NULL, &model, &error), OPTIMIZE_INVALID_MODEL, NULL);
    CHECK_FAILS(optimize_model_load_memory(context, NULL, 1, NULL, &model, &error), OPTIMIZE_INVALID_ARGUMENT, "data");
    CHECK(model == NULL);
}

TEST(saving_twice_gives_the_same_bytes) {
    optimize_model_t *model = load_model(context, MINILM "/model.onnx"), *again = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    size_t first_size, second_size;
    unsigned char *first, *second;
    CHECK_OK(optimize_model_save(model, temporary("first.onnx"), NULL, NULL, &report, &error));
    CHECK_OK(optimize_model_load(context, temporary("first.onnx"), NULL, &again, &error));
    CHECK_OK(optimize_model_save(again, temporary("second.onnx"), NULL, NULL, NULL, &error));
    first = read_file(temporary("first.onnx"), &first_size);
    second = read_file(temporary("second.onnx"), &second_size);
    CHECK(first_size > 1000000 && first_size == second_size && memcmp(first, second, first_size) == 0);
    CHECK_HAS(optimize_buffer_data(report), "\"files\"");
    CHECK_HAS(optimize_buffer_data(report), "first.onnx");
    CHECK_HAS(optimize_buffer_data(report), "\"sha256\"");
    CHECK_INT(optimize_buffer_size(report), strlen(optimize_buffer_data(report)));
    free(first);
    free(second);
    optimize_buffer_free(report);
    optimize_model_free(again);
    optimize_model_free(model);
}

/* The file that is replaced is mapped by the model that is saved. */
TEST(a_model_may_be_saved_over_its_own_file) {
    size_t size;
    unsigned char *content = read_file(deps(MINILM "/model.onnx"), &size);
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    NEED(content != NULL);
    write_file(temporary("own.onnx"), content, size);
    free(content);
    CHECK_OK(optimize_model_load(context, temporary("own.onnx"), NULL, &model, &error));
    CHECK_OK(optimize_model_save(model, temporary("own.onnx"), NULL, NULL, NULL, &error));
    CHECK_OK(optimize_model_save(model, temporary("own.onnx"), NULL, NULL, NULL, &error));
    optimize_model_free(model);
    CHECK_OK(optimize_model_load(context, temporary("own.onnx"), NULL, &model, &error));
    optimize_model_free(model);
}

TEST(weights_go_where_the_options_say) {
    optimize_model_t *model = load_model(context, MINILM "/model.onnx"), *again = NULL;
    optimize_save_options_t options = {.struct_size = sizeof options};
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    size_t size;
    unsigned char *content;
    options.external_data = OPTIMIZE_EXTERNAL_DATA_ALWAYS;
    CHECK_OK(optimize_model_save(model, temporary("outside.onnx"), &options, NULL, &report, &error));
    content = read_file(temporary("outside.onnx"), &size);
    CHECK(size > 0 && size < 2000000);
    free(content);
    /* Two files: the model and its data. */
    content = (unsigned char *)strstr(optimize_buffer_data(report), "\"path\"");
    CHECK(content != NULL && strstr((char *)content + 1, "\"path\"") != NULL);
    optimize_buffer_free(report);
    CHECK_OK(optimize_model_load(context, temporary("outside.onnx"), NULL, &again, &error));
    options.external_data = OPTIMIZE_EXTERNAL_DATA_NEVER;
    CHECK_OK(optimize_model_save(again, temporary("inside.onnx"), &options, NULL, NULL, &error));
    content = read_file(temporary("inside.onnx"), &size);
    CHECK(size > 10000000);
    free(content);
    options.external_data = 3;
    CHECK_FAILS(optimize_model_save(model, temporary("never.onnx"), &options, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "external_data");
    CHECK(!file_exists(temporary("never.onnx")));
    optimize_model_free(again);
    optimize_model_free(model);
}

TEST(saving_where_nothing_can_be_written_fails) {
    optimize_model_t *model = load_tiny(context);
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = (optimize_buffer_t *)(uintptr_t)64;
    CHECK_FAILS(optimize_model_save(model, temporary("no/such/folder.onnx"), NULL, NULL, &report, &error),
                OPTIMIZE_NOT_FOUND, "no/such");
    CHECK(report == NULL);
    CHECK_FAILS(optimize_model_save(model, temporary(""), NULL, NULL, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, NULL);
    optimize_model_free(model);
}

typedef struct seen_t {
    thrd_t thread;
    int calls, wrong;
    int32_t answer;
    uint64_t done, total;
} seen_t;

static int32_t see(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    seen_t *seen = user_data;
    seen->calls++;
    seen->wrong += strcmp(stage, "save") != 0 || !thrd_equal(thrd_current(), seen->thread) || done < seen->done;
    seen->done = done;
    seen->total = total;
    return seen->answer;
}

TEST(saving_reports_progress_in_bytes) {
    optimize_model_t *model = load_model(context, MINILM "/model.onnx");
    optimize_error_t *error = NULL;
    seen_t seen = {.thread = thrd_current()};
    optimize_call_t call = {.struct_size = sizeof call, .progress = see, .user_data = &seen};
    CHECK_OK(optimize_model_save(model, temporary("progress.onnx"), NULL, &call, NULL, &error));
    CHECK(seen.calls > 0);
    CHECK_INT(seen.wrong, 0);
    CHECK(seen.total > 10000000 && seen.done == seen.total);
    optimize_model_free(model);
}

TEST(a_cancelled_save_leaves_what_was_there) {
    optimize_model_t *model = load_model(context, MINILM "/model.onnx");
    optimize_error_t *error = NULL;
    optimize_cancel_t *cancel = NULL;
    size_t size;
    unsigned char *content;
    CHECK_OK(optimize_cancel_new(&cancel, &error));
    CHECK_OK(optimize_cancel_fire(cancel, &error));
    CHECK_OK(optimize_cancel_fire(cancel, &error)); /* again is fine */
    optimize_call_t call = {.struct_size = sizeof call, .cancel = cancel};
    CHECK_FAILS(optimize_model_save(model, temporary("cancelled.onnx"), NULL, &call, NULL, &error), OPTIMIZE_CANCELLED, NULL);
    CHECK(!file_exists(temporary("cancelled.onnx")));
    write_file(temporary("cancelled.onnx"), "old", 3);
    CHECK_FAILS(optimize_model_save(model, temporary("cancelled.onnx"), NULL, &call, NULL, &error), OPTIMIZE_CANCELLED, NULL);
    content = read_file(temporary("cancelled.onnx"), &size);
    CHECK(size == 3 && memcmp(content, "old", 3) == 0);
    free(content);
    CHECK_FAILS(optimize_model_load(context, deps(MINILM), &call, &(optimize_model_t *){NULL}, &error),
                OPTIMIZE_CANCELLED, NULL);
    optimize_cancel_free(cancel);
    optimize_model_free(model);
}

TEST(inspect_tells_what_is_inside) {
    optimize_model_t *model = load_model(context, MINILM "/model.onnx");
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    static const char *const parts[] = {
        "\"schema_version\"", "\"operation\": \"inspect\"", "\"format\": \"onnx\"", "\"opsets\"", "\"input_ids\"",
        "\"MatMul\"",         "\"Gather\"",                 "\"float32\"",          "\"parameters\"",
    };
    size_t i;
    CHECK_OK(optimize_model_inspect(model, &report, &error));
    for (i = 0; i < sizeof parts / sizeof *parts; i++) CHECK_HAS(optimize_buffer_data(report), parts[i]);
    optimize_buffer_free(report);
    optimize_model_free(model);
}

TEST(inputs_and_outputs_are_described) {
    optimize_model_t *model = load_model(context, MINILM "/model.onnx");
    optimize_value_info_t info = {.struct_size = sizeof info};
    optimize_error_t *error = NULL;
    size_t i;
    for (i = 0; i < 2; i++) {
        CHECK_OK(optimize_model_input(model, i, &info, &error));
        CHECK_TEXT(info.name, text_names[i]);
        CHECK_INT(info.dtype, OPTIMIZE_DTYPE_INT64);
        CHECK_INT(info.rank, 2);
        CHECK(info.dims[0] == -1 && info.dims[1] == -1);
        CHECK_TEXT(info.dim_names[0], "batch_size");
        CHECK_TEXT(info.dim_names[1], "sequence_length");
    }
    CHECK_INT(optimize_model_output_count(model), 4);
    CHECK_OK(optimize_model_output(model, 2, &info, &error));
    CHECK_TEXT(info.name, MINILM_TOKENS);
    CHECK_INT(info.dtype, OPTIMIZE_DTYPE_FLOAT32);
    CHECK_INT(info.rank, 3);
    CHECK(info.dims[1] == -1 && info.dims[2] == MINILM_WIDTH);
    CHECK_TEXT(info.dim_names[2], "");
    CHECK_FAILS(optimize_model_input(model, 2, &info, &error), OPTIMIZE_NOT_FOUND, "2");
    CHECK_FAILS(optimize_model_output(model, SIZE_MAX, &info, &error), OPTIMIZE_NOT_FOUND, NULL);
    CHECK_FAILS(optimize_model_input(model, 0, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "info");
    optimize_model_free(model);
}

/* Simulates programs that were compiled with an older header (shorter structs) or a newer one (longer structs). */
TEST(shorter_and_longer_structs_are_understood) {
    optimize_model_t *model = load_tiny(context);
    optimize_error_t *error = NULL;
    optimize_value_info_t info;
    struct {
        optimize_value_info_t known;
        uint64_t later;
    } longer;
    memset(&info, 0xee, sizeof info);
    info.struct_size = offsetof(optimize_value_info_t, rank);
    CHECK_OK(optimize_model_input(model, 0, &info, &error));
    CHECK_TEXT(info.name, "x");
    CHECK_INT(info.dtype, OPTIMIZE_DTYPE_FLOAT32);
    CHECK_INT(info.struct_size, offsetof(optimize_value_info_t, rank));
    CHECK((uint64_t)info.rank == 0xeeeeeeeeeeeeeeeeu && (uintptr_t)info.dims == (uintptr_t)0xeeeeeeeeeeeeeeeeu);
    memset(&longer, 0, sizeof longer);
    longer.known.struct_size = sizeof longer;
    CHECK_OK(optimize_model_input(model, 0, &longer.known, &error));
    CHECK_INT(longer.known.rank, 2);
    CHECK_INT(longer.known.dims[1], 2);
    CHECK_INT(longer.known.struct_size, sizeof longer);
    info.struct_size = 0;
    CHECK_FAILS(optimize_model_input(model, 0, &info, &error), OPTIMIZE_INVALID_ARGUMENT, "struct_size");
    optimize_model_free(model);
}

int main(void) {
    context = new_context();
    RUN(a_file_and_a_folder_load);
    RUN(bad_paths_are_refused);
    RUN(what_is_no_model_is_refused_with_the_path);
    RUN(memory_loads_and_is_copied);
    RUN(saving_twice_gives_the_same_bytes);
    RUN(a_model_may_be_saved_over_its_own_file);
    RUN(weights_go_where_the_options_say);
    RUN(saving_where_nothing_can_be_written_fails);
    RUN(saving_reports_progress_in_bytes);
    RUN(a_cancelled_save_leaves_what_was_there);
    RUN(inspect_tells_what_is_inside);
    RUN(inputs_and_outputs_are_described);
    RUN(shorter_and_longer_structs_are_understood);
    optimize_context_free(context);
    return tap_end();
}
