/* Recipes: several techniques, applied one after another, whose result is a package or a model. */
#include "tap.h"

static optimize_context_t *context;
static optimize_model_t *model;

TEST(a_recipe_becomes_a_package_with_its_lineage) {
    static const char recipe[] = "[{\"operation\": \"quantize\", \"type\": \"weight-only\", \"bits\": 8},"
                                 " {\"operation\": \"compile\", \"dynamic\": true, \"portable_only\": true}]";
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL, *manifest = NULL;
    optimize_package_t *package = NULL;
    const char *path = temporary("applied.package");
    CHECK_OK(optimize_model_apply(context, model, recipe, path, NULL, NULL, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"operation\": \"apply\"");
    CHECK_HAS(optimize_buffer_data(report), "\"steps\"");
    CHECK(number_after(optimize_buffer_data(report), "\"summary\"", "bytes_after") > 0);
    optimize_buffer_free(report);
    CHECK_OK(optimize_package_open(path, NULL, &package, &error));
    CHECK_OK(optimize_package_inspect(context, package, &manifest, &error));
    CHECK_HAS(optimize_buffer_data(manifest), "\"lineage\"");
    CHECK_HAS(optimize_buffer_data(manifest), "\"weight-only\"");
    optimize_buffer_free(manifest);
    optimize_package_free(package);
}

TEST(data_of_the_caller_reach_the_step) {
    static const char recipe[] = "[{\"operation\": \"quantize\", \"type\": \"static\", \"calibration\": true}]";
    static const char text[] = "A man is eating food.\nThe stock market fell sharply.\n";
    optimize_apply_options_t options = {.struct_size = sizeof options, .threads = 1};
    optimize_error_t *error = NULL;
    const char *path = temporary("static.onnx");
    CHECK_FAILS(optimize_model_apply(context, model, recipe, path, &options, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "step 1 (quantize)");
    options.data = text;
    options.data_size = sizeof text - 1;
    CHECK_OK(optimize_model_apply(context, model, recipe, path, &options, NULL, NULL, &error));
    options.data = NULL;
    CHECK_FAILS(optimize_model_apply(context, model, recipe, path, &options, NULL, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, "data is NULL");
}

TEST(mistakes_are_named) {
    static const char *const wrong[] = {"7", "[]", "[{\"operation\": \"shrink\"}]",
                                        "[{\"operation\": \"quantize\", \"bit\": 4}]",
                                        "[{\"operation\": \"compile\"}, {\"operation\": \"prune\"}]"};
    static const char *const said[] = {"list", "0 steps", "shrink", "bit", "compile"};
    optimize_error_t *error = NULL;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_FAILS(optimize_model_apply(context, model, wrong[i], temporary("x.onnx"), NULL, NULL, NULL, &error),
                    OPTIMIZE_INVALID_ARGUMENT, said[i]);
}

int main(void) {
    NEED(optimize_context_new(NULL, &context, NULL) == OPTIMIZE_OK);
    NEED(optimize_model_load(context, deps("models/paraphrase-MiniLM-L3-v2"), NULL, &model, NULL) == OPTIMIZE_OK);
    RUN(a_recipe_becomes_a_package_with_its_lineage);
    RUN(data_of_the_caller_reach_the_step);
    RUN(mistakes_are_named);
    optimize_model_free(model);
    optimize_context_free(context);
    return tap_end();
}
