/* The lifetime of handles: created, freed in any order, passed to functions for another kind. */
#include "tap.h"

static const int64_t dims[1] = {3};
static const float three[3] = {1, 2, 3};

TEST(freeing_null_does_nothing) {
    optimize_error_free(NULL);
    optimize_buffer_free(NULL);
    optimize_cancel_free(NULL);
    optimize_context_free(NULL);
    optimize_model_free(NULL);
    optimize_tensor_free(NULL);
    optimize_session_free(NULL);
    optimize_tokenizer_free(NULL);
    CHECK(1);
}

TEST(every_handle_is_made_and_freed) {
    optimize_error_t *error = NULL;
    optimize_context_t *context = NULL;
    optimize_cancel_t *cancel = NULL;
    optimize_tensor_t *tensor = NULL;
    optimize_tokenizer_t *tokenizer = NULL;
    optimize_model_t *model = NULL;
    optimize_session_t *session = NULL;
    optimize_buffer_t *buffer = NULL;
    CHECK_OK(optimize_context_new(NULL, &context, &error));
    CHECK_OK(optimize_cancel_new(&cancel, &error));
    CHECK_OK(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, dims, 1, three, sizeof three, &tensor, &error));
    CHECK_OK(optimize_tokenizer_load(deps(MINILM "/tokenizer.json"), &tokenizer, &error));
    CHECK_OK(optimize_model_load_memory(context, tiny_model, TINY_SIZE, NULL, &model, &error));
    CHECK_OK(optimize_session_new(context, model, NULL, NULL, &session, &error));
    CHECK_OK(optimize_model_inspect(model, &buffer, &error));
    CHECK_INT(optimize_model_load(context, "/nowhere", NULL, &(optimize_model_t *){NULL}, &error), OPTIMIZE_NOT_FOUND);
    optimize_context_free(context);
    optimize_cancel_free(cancel);
    optimize_tensor_free(tensor);
    optimize_tokenizer_free(tokenizer);
    optimize_model_free(model);
    optimize_session_free(session);
    optimize_buffer_free(buffer);
    optimize_error_free(error);
}

/* Parents are freed first, in every order: objects made from them continue to work. */
TEST(parents_may_be_freed_before_their_children) {
    int order;
    for (order = 0; order < 2; order++) {
        optimize_context_t *context = new_context();
        optimize_model_t *model = load_tiny(context);
        optimize_session_t *session = new_session(context, model);
        const float numbers[2] = {1, 2};
        const char *words[1] = {"word"}, *text = NULL;
        const int64_t pair[2] = {1, 2};
        optimize_tensor_t *x = NULL, *s = NULL, *outputs[2];
        optimize_value_info_t info = {.struct_size = sizeof info};
        optimize_error_t *error = NULL;
        size_t size = 0;
        if (order == 0) optimize_context_free(context);
        optimize_model_free(model);
        if (order == 1) optimize_context_free(context);
        CHECK_OK(optimize_session_input(session, 0, &info, &error));
        CHECK_TEXT(info.name, "x");
        CHECK_OK(optimize_tensor_new(OPTIMIZE_DTYPE_FLOAT32, pair, 2, numbers, sizeof numbers, &x, &error));
        CHECK_OK(optimize_tensor_new_strings(pair, 1, words, NULL, 1, &s, &error));
        const optimize_tensor_t *inputs[3] = {x, x, s};
        CHECK_OK(optimize_session_run(session, tiny_inputs, inputs, 3, NULL, 2, NULL, outputs, &error));
        optimize_tensor_free(x);
        optimize_tensor_free(s);
        optimize_session_free(session);
        /* The outputs stay valid after everything that they were made from has been freed. */
        CHECK(((const float *)optimize_tensor_data(outputs[0]))[1] == 4);
        CHECK_OK(optimize_tensor_string(outputs[1], 0, &text, &size, &error));
        CHECK(size == 4 && memcmp(text, "word", 4) == 0);
        optimize_tensor_free(outputs[0]);
        optimize_tensor_free(outputs[1]);
    }
}

TEST(a_model_made_from_a_model_outlives_it) {
    optimize_context_t *context = new_context();
    optimize_model_t *model = load_model(context, MINILM "/model.onnx"), *result = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    CHECK_OK(optimize_model_quantize(context, model, NULL, NULL, &result, NULL, &error));
    optimize_model_free(model);
    optimize_context_free(context);
    CHECK_OK(optimize_model_save(result, temporary("outlives.onnx"), NULL, NULL, &report, &error));
    optimize_model_free(result);
    CHECK_HAS(optimize_buffer_data(report), "outlives.onnx");
    optimize_buffer_free(report);
}

TEST(a_token_may_be_freed_while_it_is_in_use) {
    optimize_context_t *context = new_context();
    optimize_cancel_t *cancel = NULL;
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_cancel_new(&cancel, &error));
    optimize_call_t call = {.struct_size = sizeof call, .cancel = cancel};
    CHECK_OK(optimize_model_load_memory(context, tiny_model, TINY_SIZE, &call, &model, &error));
    optimize_cancel_free(cancel);
    CHECK_INT(optimize_model_input_count(model), 3);
    optimize_model_free(model);
    optimize_context_free(context);
}

TEST(a_handle_of_another_kind_is_refused) {
    optimize_context_t *context = new_context();
    optimize_model_t *model = load_tiny(context), *made = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    CHECK_FAILS(optimize_model_load((optimize_context_t *)model, deps(MINILM), NULL, &made, &error),
                OPTIMIZE_INVALID_HANDLE, "context");
    CHECK_FAILS(optimize_model_inspect((optimize_model_t *)context, &report, &error), OPTIMIZE_INVALID_HANDLE, "model");
    CHECK(made == NULL && report == NULL);
    CHECK_INT(optimize_model_input_count((optimize_model_t *)context), 0);
    CHECK_INT(optimize_tensor_rank((optimize_tensor_t *)context), 0);
    CHECK(optimize_tensor_dims((optimize_tensor_t *)context) == NULL);
    CHECK_TEXT(optimize_buffer_data((optimize_buffer_t *)context), "");
    optimize_model_free(model);
    optimize_context_free(context);
}

TEST(freeing_as_another_kind_frees_nothing) {
    optimize_context_t *context = new_context();
    optimize_model_t *model = load_tiny(context);
    optimize_model_free((optimize_model_t *)context);
    optimize_tensor_free((optimize_tensor_t *)context);
    optimize_context_free((optimize_context_t *)model);
    CHECK_INT(optimize_model_input_count(model), 3);
    optimize_model_free(model);
    model = load_tiny(context);
    CHECK_INT(optimize_model_output_count(model), 2);
    optimize_model_free(model);
    optimize_context_free(context);
}

TEST(null_handles_read_as_empty) {
    CHECK_INT(optimize_buffer_size(NULL), 0);
    CHECK_TEXT(optimize_buffer_data(NULL), "");
    CHECK_INT(optimize_model_input_count(NULL), 0);
    CHECK_INT(optimize_model_output_count(NULL), 0);
    CHECK_INT(optimize_session_input_count(NULL), 0);
    CHECK_INT(optimize_session_output_count(NULL), 0);
    CHECK_INT(optimize_tensor_dtype(NULL), OPTIMIZE_DTYPE_UNKNOWN);
    CHECK_INT(optimize_tensor_rank(NULL), 0);
    CHECK_INT(optimize_tensor_size(NULL), 0);
    CHECK(optimize_tensor_dims(NULL) == NULL);
    CHECK(optimize_tensor_data(NULL) == NULL);
    CHECK_INT(optimize_tokenizer_vocabulary_size(NULL), 0);
}

TEST(a_context_knows_its_runtime) {
    optimize_context_options_t options = {.struct_size = sizeof options, .threads = 1};
    optimize_context_t *context = NULL, *second = new_context();
    optimize_error_t *error = NULL;
    const char *version = NULL, *again = NULL;
    CHECK_OK(optimize_context_new(&options, &context, &error));
    CHECK_OK(optimize_context_runtime_version(context, &version, &error));
    CHECK(version != NULL && strncmp(version, "1.", 2) == 0);
    CHECK_OK(optimize_context_runtime_version(context, &again, &error));
    CHECK(version == again);
    CHECK_OK(optimize_context_runtime_version(second, &again, &error));
    CHECK_TEXT(again, version);
    options.threads = 1000000;
    CHECK_FAILS(optimize_context_new(&options, &(optimize_context_t *){NULL}, &error), OPTIMIZE_INVALID_ARGUMENT, "threads");
    optimize_context_free(second);
    optimize_context_free(context);
}

TEST(another_runtime_is_refused_once_one_is_open) {
    optimize_context_options_t options = {.struct_size = sizeof options, .runtime_library = "/nowhere/libonnxruntime.so.1"};
    optimize_context_t *context = NULL, *open = new_context();
    optimize_error_t *error = NULL;
    const char *version = NULL;
    CHECK_OK(optimize_context_runtime_version(open, &version, &error));
    CHECK_OK(optimize_context_new(&options, &context, &error)); /* ONNX Runtime is opened when it is needed */
    version = "";
    CHECK_FAILS(optimize_context_runtime_version(context, &version, &error), OPTIMIZE_INVALID_ARGUMENT, "/nowhere");
    CHECK(version == NULL);
    optimize_context_free(context);
    optimize_context_free(open);
}

int main(void) {
    RUN(freeing_null_does_nothing);
    RUN(every_handle_is_made_and_freed);
    RUN(parents_may_be_freed_before_their_children);
    RUN(a_model_made_from_a_model_outlives_it);
    RUN(a_token_may_be_freed_while_it_is_in_use);
    RUN(a_handle_of_another_kind_is_refused);
    RUN(freeing_as_another_kind_frees_nothing);
    RUN(null_handles_read_as_empty);
    RUN(a_context_knows_its_runtime);
    RUN(another_runtime_is_refused_once_one_is_open);
    return tap_end();
}
