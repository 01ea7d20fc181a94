/* Pruning, and packed files. */
#include "tap.h"

static optimize_context_t *context;
static optimize_model_t *minilm;

static optimize_status_t prune(const optimize_prune_options_t *options, optimize_model_t **result,
                               optimize_buffer_t **report, optimize_error_t **error) {
    return optimize_model_prune(context, minilm, options, NULL, result, report, error);
}

/* Returns the number after `"key": ` in JSON; -1 if there is none. */
static double number_of(const char *json, const char *key) {
    char quoted[64];
    const char *at;
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    at = strstr(json, quoted);
    return at == NULL ? -1 : strtod(at + strlen(quoted), NULL);
}

TEST(half_of_the_weights_by_default) {
    optimize_model_t *sparse = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    static const char *const parts[] = {
        "\"operation\": \"prune\"", "\"method\": \"magnitude\"", "\"sparsity\": 0.5", "neither smaller nor faster",
        "\"modules\"",              "\"query\"",                 "\"action\": \"pruned\"", "\"sha256\": \"",
    };
    size_t i;
    CHECK_OK(prune(NULL, &sparse, &report, &error));
    for (i = 0; i < sizeof parts / sizeof *parts; i++) CHECK_HAS(optimize_buffer_data(report), parts[i]);
    CHECK_INT(number_of(optimize_buffer_data(report), "nodes_pruned"), 18);
    CHECK_INT(number_of(optimize_buffer_data(report), "zeros_after"),
              number_of(optimize_buffer_data(report), "parameters_pruned") / 2);
    optimize_buffer_free(report);
    optimize_model_free(sparse);
}

TEST(packed_files_are_smaller_and_come_back) {
    optimize_prune_options_t options = {.struct_size = sizeof options, .sparsity = 0.5, .embeddings = 1};
    optimize_save_options_t packed = {.struct_size = sizeof packed, .packed = 1};
    optimize_model_t *sparse = NULL, *again = NULL;
    optimize_error_t *error = NULL;
    size_t small, size;
    options.scratch_folder = temporary("");
    CHECK_OK(prune(&options, &sparse, NULL, &error));
    CHECK_OK(optimize_model_save(sparse, temporary("sparse.onnx.packed"), &packed, NULL, NULL, &error));
    free(read_file(temporary("sparse.onnx.packed"), &small));
    CHECK(small > 1000000 && small < 69060623 / 2);
    CHECK_OK(optimize_model_load(context, temporary("sparse.onnx.packed"), NULL, &again, &error));
    CHECK_OK(optimize_model_save(sparse, temporary("sparse.onnx"), NULL, NULL, NULL, &error));
    CHECK_OK(optimize_model_save(again, temporary("again.onnx"), NULL, NULL, NULL, &error));
    unsigned char *a = read_file(temporary("sparse.onnx"), &size), *b = read_file(temporary("again.onnx"), &small);
    CHECK(size == small && memcmp(a, b, size) == 0);
    free(a);
    free(b);
    packed.external_data = OPTIMIZE_EXTERNAL_DATA_ALWAYS;
    CHECK_FAILS(optimize_model_save(sparse, temporary("x.packed"), &packed, NULL, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "one file");
    optimize_model_free(again);
    optimize_model_free(sparse);
}

TEST(options_reach_the_library) {
    static const char *const targets[] = {"query", "key"}, *const exclude[] = {"layer.0.*"}, *const overrides[] = {"key=0.25"};
    optimize_prune_options_t options = {.struct_size = sizeof options, .method = OPTIMIZE_PRUNE_RANDOM, .sparsity = 0.75};
    optimize_model_t *sparse = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    options.target_modules = targets;
    options.target_module_count = 2;
    options.exclude = exclude;
    options.exclude_count = 1;
    options.overrides = overrides;
    options.override_count = 1;
    options.seed = 3;
    CHECK_OK(prune(&options, &sparse, &report, &error));
    CHECK_INT(number_of(optimize_buffer_data(report), "nodes_pruned"), 4);
    CHECK(number_of(optimize_buffer_data(report), "sparsity_asked") == 0.5);
    optimize_buffer_free(report);
    optimize_model_free(sparse);
    options = (optimize_prune_options_t){.struct_size = sizeof options, .pattern_keep = 1, .pattern_of = 4};
    CHECK_OK(prune(&options, &sparse, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"pattern\": \"1:4\"");
    CHECK(number_of(optimize_buffer_data(report), "sparsity_asked") == 0.75);
    optimize_buffer_free(report);
    optimize_model_free(sparse);
}

TEST(calibration_is_read) {
    static const char text[] = "A man is eating food.\nThe committee will meet again on Thursday morning.\n"
                               "Two dogs run through the wet grass.\nPrices rose faster than wages last year.\n";
    optimize_prune_options_t options = {.struct_size = sizeof options, .method = OPTIMIZE_PRUNE_WANDA, .sparsity = 0.5};
    optimize_model_t *sparse = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    CHECK_FAILS(prune(&options, &sparse, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "wanda needs a calibration text");
    options.calibration = text;
    options.calibration_size = sizeof text - 1;
    options.calibration_windows = 1;
    CHECK_OK(prune(&options, &sparse, &report, &error));
    CHECK_INT(number_of(optimize_buffer_data(report), "nodes_pruned"), 18);
    optimize_buffer_free(report);
    optimize_model_free(sparse);
    options.method = OPTIMIZE_PRUNE_MAGNITUDE;
    CHECK_FAILS(prune(&options, &sparse, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "magnitude does not use a calibration text");
}

TEST(layers_go_and_goals_are_met) {
    static const uint32_t layers[] = {1}, none[] = {7};
    const optimize_prune_options_t good = {.struct_size = sizeof good, .method = OPTIMIZE_PRUNE_STRUCTURED};
    optimize_prune_options_t options = good;
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    options.layers = layers;
    options.layer_count = 1;
    CHECK_OK(prune(&options, &small, &report, &error));
    CHECK_INT(number_of(optimize_buffer_data(report), "layers_before"), 3);
    CHECK_INT(number_of(optimize_buffer_data(report), "layers_after"), 2);
    optimize_buffer_free(report);
    optimize_model_free(small);
    options.layers = none;
    CHECK_FAILS(prune(&options, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "there is no layer 7");
    options.layers = NULL;
    CHECK_FAILS(prune(&options, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "layers is NULL");
    options = good;
    options.drop_layers = 3;
    CHECK_FAILS(prune(&options, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "only 3 layers");
    options = good;
    options.target_size = 62000000;
    CHECK_OK(prune(&options, &small, &report, &error));
    CHECK(number_of(optimize_buffer_data(report), "bytes_after") <= 62000000);
    CHECK(number_of(optimize_buffer_data(report), "bytes_after") > 60000000);
    optimize_buffer_free(report);
    optimize_model_free(small);
    options.target_size = 1000;
    CHECK_FAILS(prune(&options, &small, NULL, &error), OPTIMIZE_GATE_NOT_MET, "bytes are left");
    options = good;
    options.target_speedup = 0.5;
    CHECK_FAILS(prune(&options, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "target_speedup is 0.5");
}

TEST(what_makes_no_sense_is_refused) {
    static const char *const wrong[] = {"qery"};
    const optimize_prune_options_t good = {.struct_size = sizeof good};
    optimize_prune_options_t options = good;
    optimize_model_t *sparse = NULL, *again = NULL;
    optimize_error_t *error = NULL;
    options.sparsity = 1;
    CHECK_FAILS(prune(&options, &sparse, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "sparsity is 1");
    options.sparsity = -0.25;
    CHECK_FAILS(prune(&options, &sparse, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "sparsity is -0.25");
    options.sparsity = NAN;
    CHECK_FAILS(prune(&options, &sparse, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "sparsity is NaN");
    options = good;
    options.target_modules = wrong;
    options.target_module_count = 1;
    CHECK_FAILS(prune(&options, &sparse, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "query (3)");
    options = good;
    options.method = 99;
    CHECK_FAILS(prune(&options, &sparse, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "method is 99");
    options = good;
    options.pattern_keep = 4;
    options.pattern_of = 2;
    CHECK_FAILS(prune(&options, &sparse, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "4:2");
    options = good;
    options.reserved = 1;
    CHECK_FAILS(prune(&options, &sparse, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "reserved");
    CHECK_OK(prune(NULL, &sparse, NULL, &error));
    CHECK_FAILS(optimize_model_prune(context, sparse, NULL, NULL, &again, NULL, &error), OPTIMIZE_UNSUPPORTED,
                "as many zeros as requested");
    CHECK(again == NULL);
    optimize_model_free(sparse);
}

int main(void) {
    context = new_context();
    minilm = load_model(context, MINILM "/model.onnx");
    RUN(half_of_the_weights_by_default);
    RUN_UNLESS_VALGRIND(packed_files_are_smaller_and_come_back);
    RUN(options_reach_the_library);
    RUN_UNLESS_VALGRIND(calibration_is_read);
    RUN_UNLESS_VALGRIND(layers_go_and_goals_are_met);
    RUN(what_makes_no_sense_is_refused);
    optimize_model_free(minilm);
    optimize_context_free(context);
    return tap_end();
}
