/* Ensembles through C: members that generate one text, a manifest, a fused graph of several models, merged weights. */
#include "tap.h"

#include <dirent.h>

static optimize_context_t *context;
static optimize_model_t *decoder, *encoder, *sparse;

static const char *gguf(void) {
    static char path[4096];
    char folder[2048];
    snprintf(folder, sizeof folder, "%s", deps("models/smollm2"));
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;)
        if (strstr(entry->d_name, ".gguf") != NULL) snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    if (dir != NULL) closedir(dir);
    return path;
}

static void load(void) {
    optimize_error_t *error = NULL;
    optimize_prune_options_t options = {.struct_size = sizeof options, .sparsity = 0.3};
    NEED(optimize_context_new(NULL, &context, NULL) == OPTIMIZE_OK);
    CHECK_OK(optimize_model_load(context, gguf(), NULL, &decoder, &error));
    CHECK_OK(optimize_model_load(context, deps("models/paraphrase-MiniLM-L3-v2"), NULL, &encoder, &error));
    NEED(decoder != NULL && encoder != NULL);
    CHECK_OK(optimize_model_prune(context, encoder, &options, NULL, &sparse, NULL, &error));
    NEED(sparse != NULL);
}

static const char *const prompts[1] = {"One, two, three, four,"};

struct heard {
    char text[1024];
    size_t size;
    double entropy, disagreement, agreement;
};

static int32_t hear(void *user_data, const optimize_written_t *written) {
    struct heard *heard = user_data;
    memcpy(heard->text + heard->size, written->text, (size_t)written->text_size);
    heard->text[heard->size += (size_t)written->text_size] = '\0';
    heard->entropy += written->entropy;
    heard->disagreement += written->mutual_information;
    heard->agreement += written->agreement;
    return 0;
}

/* Generates a text after `prompts`, stores it in `heard`, and checks that the report contains it and `part`, unless
 * `part` is NULL. */
static void write_text(optimize_generator_t *generator, struct heard *heard, const char *part) {
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    optimize_generate_options_t options = {.struct_size = sizeof options, .max_new_tokens = 10};
    options.on_token = hear;
    options.user_data = heard;
    CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), heard->text);
    if (part != NULL) CHECK_HAS(optimize_buffer_data(report), part);
    optimize_buffer_free(report);
}

TEST(members_write_one_text) {
    optimize_error_t *error = NULL;
    optimize_ensemble_t *ensemble = NULL;
    optimize_generator_t *alone = NULL, *together = NULL;
    const optimize_model_t *members[2] = {decoder, decoder};
    const double temperatures[2] = {1.0, 2.0};
    optimize_ensemble_options_t options = {.struct_size = sizeof options};
    options.temperatures = temperatures;
    options.temperature_count = 2;
    CHECK_OK(optimize_ensemble_new(members, 2, &options, &ensemble, &error));
    CHECK_OK(optimize_ensemble_generator(context, ensemble, NULL, NULL, &together, &error));
    optimize_ensemble_free(ensemble);
    CHECK_OK(optimize_generator_new(context, decoder, NULL, NULL, &alone, &error));
    struct heard one = {0}, both = {0};
    write_text(alone, &one, NULL);
    write_text(together, &both, "\"mutual_information\"");
    /* Both members are the same decoder, and a temperature does not change the order of the tokens. */
    CHECK_TEXT(both.text, one.text);
    CHECK(one.entropy == 0 && one.agreement == 0);
    CHECK(both.entropy > 0 && both.disagreement > 0 && both.disagreement < both.entropy);
    CHECK(fabs(both.agreement - 10) < 1e-9);
    optimize_generator_free(alone);
    optimize_generator_free(together);
}

TEST(weights_are_fitted_and_a_manifest_keeps_them) {
    optimize_error_t *error = NULL;
    optimize_ensemble_t *ensemble = NULL, *fitted = NULL, *loaded = NULL;
    optimize_buffer_t *report = NULL, *first = NULL, *second = NULL;
    optimize_model_t *model = NULL;
    const optimize_model_t *members[2] = {decoder, decoder};
    const double temperatures[2] = {1.0, 8.0};
    const char *text = "The company said that it would pay the price of the shares in full before the end of the year.";
    optimize_ensemble_options_t options = {.struct_size = sizeof options};
    options.temperatures = temperatures;
    options.temperature_count = 2;
    CHECK_OK(optimize_ensemble_new(members, 2, &options, &ensemble, &error));
    CHECK_OK(optimize_ensemble_fit(context, ensemble, text, strlen(text), NULL, NULL, &fitted, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"fitted_nll\"");
    CHECK_FAILS(optimize_ensemble_fit(context, ensemble, "a", 1, NULL, NULL, &loaded, NULL, &error),
                OPTIMIZE_INVALID_ARGUMENT, NULL);
    double weight = 0;
    const char *at = strstr(optimize_buffer_data(report), "\"weights\"");
    NEED(at != NULL && sscanf(at, "\"weights\": [ %lf", &weight) == 1);
    /* At eight times the temperature, the second member's distribution is almost uniform: it gets little weight. */
    CHECK(weight > 0.8);
    CHECK_OK(optimize_ensemble_save(fitted, temporary("pair"), &error));
    CHECK_OK(optimize_ensemble_load(temporary("pair"), &loaded, &error));
    CHECK_OK(optimize_ensemble_inspect(fitted, &first, &error));
    CHECK_OK(optimize_ensemble_inspect(loaded, &second, &error));
    /* The loaded ensemble has the same weights and options; only paths may be written differently. */
    const char *same = strstr(optimize_buffer_data(first), "\"weights\"");
    NEED(same != NULL);
    CHECK_HAS(optimize_buffer_data(second), same);
    /* A manifest can be loaded as a model, which is the fused graph. */
    CHECK_OK(optimize_model_load(context, temporary("pair"), NULL, &model, &error));
    optimize_generator_t *generator = NULL;
    struct heard heard = {0};
    CHECK_OK(optimize_generator_new(context, model, NULL, NULL, &generator, &error));
    write_text(generator, &heard, NULL);
    CHECK(heard.size > 0);
    CHECK_FAILS(optimize_ensemble_load(temporary("nowhere"), &loaded, &error), OPTIMIZE_NOT_FOUND, "ensemble.json");
    optimize_generator_free(generator);
    optimize_model_free(model);
    optimize_buffer_free(report);
    optimize_buffer_free(first);
    optimize_buffer_free(second);
    optimize_ensemble_free(ensemble);
    optimize_ensemble_free(fitted);
    optimize_ensemble_free(loaded);
}

TEST(encoders_become_one_graph) {
    optimize_error_t *error = NULL;
    optimize_ensemble_t *ensemble = NULL;
    optimize_model_t *fused = NULL;
    optimize_buffer_t *report = NULL;
    const optimize_model_t *members[2] = {encoder, sparse};
    optimize_ensemble_options_t options = {.struct_size = sizeof options, .method = OPTIMIZE_ENSEMBLE_CONCAT};
    options.task = OPTIMIZE_ENSEMBLE_EMBED;
    CHECK_OK(optimize_ensemble_new(members, 2, &options, &ensemble, &error));
    CHECK_OK(optimize_ensemble_fuse(ensemble, NULL, &fused, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"shared_bytes\"");
    optimize_value_info_t info = {.struct_size = sizeof info};
    CHECK_OK(optimize_model_output(fused, 0, &info, &error));
    CHECK_TEXT(info.name, "sentence_embedding");
    CHECK(info.rank == 2 && info.dims[1] == 768);
    optimize_generator_t *generator = NULL;
    CHECK_FAILS(optimize_ensemble_generator(context, ensemble, NULL, NULL, &generator, &error), OPTIMIZE_UNSUPPORTED,
                "do not generate text");
    optimize_generator_options_t drafting = {.struct_size = sizeof drafting, .draft_lookup = 1};
    CHECK_FAILS(optimize_ensemble_generator(context, ensemble, &drafting, NULL, &generator, &error),
                OPTIMIZE_INVALID_ARGUMENT, "not for an ensemble");
    optimize_buffer_free(report);
    optimize_model_free(fused);
    optimize_ensemble_free(ensemble);
}

TEST(weights_are_merged) {
    optimize_error_t *error = NULL;
    optimize_model_t *merged = NULL;
    optimize_buffer_t *report = NULL;
    const optimize_model_t *models[3] = {encoder, sparse, encoder};
    const double weights[2] = {3.0, 1.0};
    optimize_merge_options_t options = {.struct_size = sizeof options, .weights = weights, .weight_count = 2};
    CHECK_OK(optimize_model_merge(models, 2, &options, NULL, &merged, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "\"operation\": \"merge\"");
    optimize_model_free(merged);
    optimize_buffer_free(report);
    options.method = OPTIMIZE_MERGE_TIES;
    CHECK_FAILS(optimize_model_merge(models, 2, &options, NULL, &merged, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "base");
    options.base = encoder;
    CHECK_OK(optimize_model_merge(models, 2, &options, NULL, &merged, NULL, &error));
    optimize_model_free(merged);
    options = (optimize_merge_options_t){.struct_size = sizeof options, .method = OPTIMIZE_MERGE_SLERP};
    CHECK_FAILS(optimize_model_merge(models, 3, &options, NULL, &merged, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "slerp");
    models[1] = decoder;
    options.method = OPTIMIZE_MERGE_LINEAR;
    CHECK_FAILS(optimize_model_merge(models, 2, &options, NULL, &merged, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "member 2");
    CHECK(merged == NULL);
}

TEST(wrong_combinations_are_refused) {
    optimize_error_t *error = NULL;
    optimize_ensemble_t *ensemble = NULL;
    const optimize_model_t *members[2] = {decoder, decoder}, *mixed[2] = {decoder, encoder};
    const double negative[2] = {1.0, -0.5}, nothing[2] = {0.0, 0.0}, both[2] = {1.0, 1.0};
    optimize_ensemble_options_t options = {.struct_size = sizeof options};
    const optimize_status_t invalid = OPTIMIZE_INVALID_ARGUMENT;
    CHECK_FAILS(optimize_ensemble_new(members, 1, NULL, &ensemble, &error), invalid, "at least two members");
    CHECK_FAILS(optimize_ensemble_new(mixed, 2, NULL, &ensemble, &error), invalid, "different tasks");
    options.weights = negative;
    options.weight_count = 2;
    CHECK_FAILS(optimize_ensemble_new(members, 2, &options, &ensemble, &error), invalid, "weight of member 2 is -0.5");
    options.weights = nothing;
    CHECK_FAILS(optimize_ensemble_new(members, 2, &options, &ensemble, &error), invalid, "above 0");
    options.weights = both;
    options.weight_count = 1;
    CHECK_FAILS(optimize_ensemble_new(members, 2, &options, &ensemble, &error), invalid, "1 weights are given for 2 members");
    options.weight_count = 2;
    options.method = OPTIMIZE_ENSEMBLE_MEDIAN;
    CHECK_FAILS(optimize_ensemble_new(members, 2, &options, &ensemble, &error), invalid, "does not use weights");
    options = (optimize_ensemble_options_t){.struct_size = sizeof options, .method = OPTIMIZE_ENSEMBLE_WEIGHTED};
    CHECK_FAILS(optimize_ensemble_new(members, 2, &options, &ensemble, &error), invalid, "requires a weight");
    options.method = OPTIMIZE_ENSEMBLE_CONCAT;
    CHECK_FAILS(optimize_ensemble_new(members, 2, &options, &ensemble, &error), invalid, "concat");
    CHECK(ensemble == NULL);
}

int main(void) {
    load();
    RUN_UNLESS_VALGRIND(members_write_one_text);
    RUN_UNLESS_VALGRIND(weights_are_fitted_and_a_manifest_keeps_them);
    RUN(encoders_become_one_graph);
    RUN(weights_are_merged);
    RUN(wrong_combinations_are_refused);
    optimize_model_free(decoder);
    optimize_model_free(encoder);
    optimize_model_free(sparse);
    optimize_context_free(context);
    return tap_end();
}
