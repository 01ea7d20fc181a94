/* Figures of reports and generated texts, without a JSON parser. */
#include "tap.h"

#include <dirent.h>
#include <math.h>

static optimize_context_t *context;

static char *gguf(void) {
    static char path[4096];
    DIR *folder = opendir(deps("models/smollm2"));
    struct dirent *entry;
    while (folder != NULL && (entry = readdir(folder)) != NULL)
        if (strstr(entry->d_name, ".gguf") != NULL)
            snprintf(path, sizeof path, "%s/%s", deps("models/smollm2"), entry->d_name);
    if (folder != NULL) closedir(folder);
    return path;
}

static double number(const optimize_buffer_t *report, const char *pointer) {
    double value = NAN;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_report_number(report, pointer, &value, &error));
    return value;
}

TEST(a_technique_says_what_it_did_to_each_node) {
    optimize_model_t *model = load_model(context, MINILM), *small = NULL;
    optimize_node_report_t node = {.struct_size = sizeof node};
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    const char *operation = NULL;
    size_t count = 0, size = 0, i, changed = 0;
    CHECK_OK(optimize_model_quantize(context, model, NULL, NULL, &small, &report, &error));
    CHECK(optimize_report_node_count(report) > 10);
    for (i = 0; i < optimize_report_node_count(report); i++) {
        CHECK_OK(optimize_report_node(report, i, &node, &error));
        CHECK(*node.name != '\0' && *node.op != '\0' && *node.reason != '\0');
        CHECK((node.changed != 0) == (strcmp(node.action, "left") != 0));
        CHECK(isnan(node.sensitivity));
        changed += node.changed != 0;
    }
    CHECK(changed == (size_t)(number(report, "/summary/nodes_quantized") + number(report, "/summary/nodes_stored")));
    CHECK(number(report, "/summary/bytes_after") < number(report, "/summary/bytes_before"));
    CHECK_OK(optimize_report_text(report, "/operation", &operation, &size, &error));
    CHECK_TEXT(operation, "quantize");
    CHECK_INT(size, 8);
    CHECK_OK(optimize_report_count(report, "/nodes", &count, &error));
    CHECK_INT(count, optimize_report_node_count(report));
    CHECK_FAILS(optimize_report_node(report, count, &node, &error), OPTIMIZE_NOT_FOUND, "out of range");
    CHECK_FAILS(optimize_report_count(report, "/operation", &count, &error), OPTIMIZE_INVALID_ARGUMENT, "neither");
    CHECK_FAILS(optimize_report_text(report, "/seconds", &operation, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "not a text");
    CHECK_FAILS(optimize_report_text(report, "/nodes/0/nothing", &operation, NULL, &error), OPTIMIZE_NOT_FOUND, "nothing");
    CHECK(operation == NULL);
    optimize_buffer_free(report);
    optimize_model_free(small);
    optimize_model_free(model);
}

TEST(a_benchmark_has_its_figures) {
    optimize_benchmark_options_t options = {.struct_size = sizeof options, .runs = 6, .warmup = 1, .threads = 1};
    optimize_benchmark_t figures = {.struct_size = sizeof figures};
    static const char *const shapes[2] = {"input_ids:1x4", "attention_mask:1x4"};
    optimize_model_t *model = load_model(context, MINILM);
    optimize_buffer_t *report = NULL, *inspected = NULL;
    optimize_error_t *error = NULL;
    options.shapes = shapes;
    options.shape_count = 2;
    CHECK_OK(optimize_model_benchmark(context, model, model, NULL, &options, NULL, &report, &error));
    CHECK_OK(optimize_report_benchmark(report, &figures, &error));
    CHECK_INT(figures.runs, 6);
    CHECK(figures.speedup_low <= figures.speedup && figures.speedup <= figures.speedup_high);
    CHECK(figures.speedup == number(report, "/benchmark/speedup/median"));
    CHECK(figures.original_ms > 0 && figures.result_p90_ms >= figures.result_ms);
    CHECK(figures.original_load_ms > 0 && figures.original_bytes == figures.result_bytes);
    CHECK(figures.cosine > 0.999999 && figures.max_abs_error == 0);
    CHECK(strcmp(figures.verdict, "faster") == 0 || strcmp(figures.verdict, "slower") == 0 ||
          strcmp(figures.verdict, "no difference") == 0);
    CHECK_OK(optimize_model_inspect(model, &inspected, &error));
    CHECK_FAILS(optimize_report_benchmark(inspected, &figures, &error), OPTIMIZE_NOT_FOUND, "no benchmark");
    CHECK_INT(optimize_report_node_count(inspected), 0);
    CHECK_INT(optimize_generation_count(inspected), 0);
    optimize_buffer_free(inspected);
    optimize_buffer_free(report);
    optimize_model_free(model);
}

/* The tokens and log-probabilities that the callback received, to compare them with those of the report. */
struct heard {
    int64_t tokens[8];
    float logprobs[8];
    size_t count;
};

static int32_t hear(void *user_data, const optimize_written_t *written) {
    struct heard *heard = user_data;
    if (written->row == 1 && heard->count < 8) {
        heard->tokens[heard->count] = written->token;
        heard->logprobs[heard->count++] = written->logprob;
    }
    return 0;
}

TEST(generated_texts_are_read_without_json) {
    static const char *const prompts[] = {"A", "One, two, three,"};
    struct heard heard = {.count = 0};
    optimize_generate_options_t options = {.struct_size = sizeof options, .max_new_tokens = 4, .logprobs = 3};
    optimize_generation_t generation = {.struct_size = sizeof generation};
    optimize_candidate_t candidate = {.struct_size = sizeof candidate};
    optimize_model_t *model = NULL;
    optimize_generator_t *generator = NULL;
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    size_t i;
    tap_need(optimize_model_load(context, gguf(), NULL, &model, &error), error, "SmolLM2");
    CHECK_OK(optimize_generator_new(context, model, NULL, NULL, &generator, &error));
    options.ignore_eos = 1;
    options.on_token = hear;
    options.user_data = &heard;
    CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 2, &options, NULL, &report, &error));
    CHECK_INT(optimize_generation_count(report), 2);
    CHECK_OK(optimize_generation_get(report, 1, &generation, &error));
    CHECK_INT(generation.token_count, 4);
    CHECK(generation.prompt_tokens >= 4);
    CHECK_INT(generation.finish_reason, OPTIMIZE_FINISH_LENGTH);
    CHECK_INT(generation.text_size, strlen(generation.text));
    CHECK(isnan(generation.entropy) && generation.logprobs != NULL);
    CHECK_INT(heard.count, 4);
    for (i = 0; i < 4; i++) {
        CHECK(generation.tokens[i] == heard.tokens[i] && generation.logprobs[i] == heard.logprobs[i]);
        /* The temperature is 0, so the generated token is the most probable one. */
        CHECK_OK(optimize_generation_candidate(report, 1, i, 0, &candidate, &error));
        CHECK(candidate.token == heard.tokens[i] && candidate.logprob == heard.logprobs[i]);
        CHECK_OK(optimize_generation_candidate(report, 1, i, 1, &candidate, &error));
        CHECK(candidate.logprob <= heard.logprobs[i]);
    }
    CHECK_FAILS(optimize_generation_candidate(report, 1, 0, 2, &candidate, &error), OPTIMIZE_NOT_FOUND, "candidate 2");
    CHECK_FAILS(optimize_generation_get(report, 2, &generation, &error), OPTIMIZE_NOT_FOUND, "row 2");
    optimize_buffer_free(report);
    options.logprobs = 0;
    CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 2, &options, NULL, &report, &error));
    CHECK_OK(optimize_generation_get(report, 0, &generation, &error));
    CHECK(generation.logprobs == NULL && generation.token_count == 4);
    optimize_buffer_free(report);
    optimize_generator_free(generator);
    optimize_model_free(model);
}

TEST(a_text_is_no_report) {
    static const int64_t ids[1] = {2023};
    optimize_tokenizer_t *tokenizer = load_tokenizer();
    optimize_buffer_t *text = NULL;
    optimize_error_t *error = NULL;
    double value = 0;
    CHECK_OK(optimize_tokenizer_decode(tokenizer, ids, 1, NULL, &text, &error));
    CHECK_FAILS(optimize_report_number(text, "", &value, &error), OPTIMIZE_INVALID_ARGUMENT, "no JSON");
    CHECK_INT(optimize_report_node_count(text), 0);
    CHECK_INT(optimize_generation_count(NULL), 0);
    optimize_buffer_free(text);
    optimize_tokenizer_free(tokenizer);
}

int main(void) {
    context = new_context();
    RUN(a_technique_says_what_it_did_to_each_node);
    RUN(a_benchmark_has_its_figures);
    RUN_UNLESS_VALGRIND(generated_texts_are_read_without_json);
    RUN(a_text_is_no_report);
    optimize_context_free(context);
    return tap_end();
}
