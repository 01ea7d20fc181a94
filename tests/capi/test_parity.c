/* Functions of the command that the C interface has as well: chats with tools, sampling with the settings that a model
 * recommends, graphs for TensorRT without TensorRT, the lineage of a package, calibration tensors for pruning. */
#include "tap.h"

#include <dirent.h>
#include <sys/stat.h>

static optimize_context_t *context;

static void copy_file(const char *from, const char *to) {
    char buffer[4096];
    size_t size;
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    NEED(in != NULL && out != NULL);
    while ((size = fread(buffer, 1, sizeof buffer, in)) > 0) fwrite(buffer, 1, size, out);
    fclose(in);
    fclose(out);
}

/* A tiny decoder with the chat template of Qwen3. */
static optimize_model_t *thinker(void) {
    static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors"};
    char folder[2048], from[4096], to[4096];
    optimize_model_t *model = NULL;
    optimize_error_t *error = NULL;
    size_t i;
    snprintf(folder, sizeof folder, "%s", temporary("thinker"));
    mkdir(folder, 0755);
    for (i = 0; i < 3; i++) {
        snprintf(from, sizeof from, "tests/fixtures/checkpoints/llama/%s", files[i]);
        snprintf(to, sizeof to, "%s/%s", folder, files[i]);
        copy_file(from, to);
    }
    snprintf(to, sizeof to, "%s/chat_template.jinja", folder);
    copy_file("tests/fixtures/chat/templates/qwen3_thinking.jinja", to);
    tap_need(optimize_model_load(context, folder, NULL, &model, &error), error, folder);
    return model;
}

static const char question[] = "[{\"role\": \"user\", \"content\": \"How warm is it in Paris?\"}]";
static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"temperature_of\", \"description\": \"Warmth.\","
    "\"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}}}]";

static optimize_buffer_t *chat(const optimize_model_t *model, const optimize_chat_options_t *options) {
    optimize_buffer_t *prompt = NULL;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_model_apply_chat_template(model, question, options, &prompt, &error));
    return prompt;
}

static int ends_with(const char *text, const char *end) {
    return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

TEST(chats_have_tools_and_thoughts) {
    optimize_chat_options_t options = {.struct_size = sizeof options};
    optimize_model_t *model = thinker();
    optimize_buffer_t *plain = chat(model, NULL), *same = NULL, *prompt;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_model_render_chat(model, question, &same, &error));
    CHECK_TEXT(optimize_buffer_data(plain), optimize_buffer_data(same));
    CHECK(ends_with(optimize_buffer_data(plain), "<|im_start|>assistant\n"));
    CHECK(strstr(optimize_buffer_data(plain), "temperature_of") == NULL);
    optimize_buffer_free(same);

    options.tools = tools;
    prompt = chat(model, &options);
    CHECK_HAS(optimize_buffer_data(prompt), "<tools>");
    CHECK_HAS(optimize_buffer_data(prompt), "\"name\": \"temperature_of\"");
    optimize_buffer_free(prompt);
    options.tools = NULL;
    options.thinking = OPTIMIZE_THINKING_OFF;
    prompt = chat(model, &options);
    CHECK(ends_with(optimize_buffer_data(prompt), "<think>\n\n</think>\n\n"));
    optimize_buffer_free(prompt);
    options.thinking = OPTIMIZE_THINKING_ON;
    prompt = chat(model, &options);
    CHECK_TEXT(optimize_buffer_data(prompt), optimize_buffer_data(plain));
    optimize_buffer_free(prompt);
    options.thinking = OPTIMIZE_THINKING_TEMPLATE;
    options.variables = "{\"enable_thinking\": false}";
    prompt = chat(model, &options);
    CHECK(ends_with(optimize_buffer_data(prompt), "</think>\n\n"));
    optimize_buffer_free(prompt);
    options.variables = NULL;
    options.no_generation_prompt = 1;
    prompt = chat(model, &options);
    CHECK(ends_with(optimize_buffer_data(prompt), "<|im_end|>\n"));
    optimize_buffer_free(prompt);
    optimize_buffer_free(plain);
    optimize_model_free(model);
}

TEST(chats_that_are_not_of_that_form_are_refused) {
    optimize_chat_options_t options = {.struct_size = sizeof options};
    optimize_model_t *model = thinker(), *minilm = load_model(context, MINILM);
    optimize_buffer_t *prompt = NULL;
    optimize_error_t *error = NULL;
    CHECK_FAILS(optimize_model_apply_chat_template(model, "{}", NULL, &prompt, &error), OPTIMIZE_INVALID_ARGUMENT,
                "messages is not a JSON list");
    CHECK_FAILS(optimize_model_apply_chat_template(minilm, question, NULL, &prompt, &error), OPTIMIZE_NOT_FOUND,
                "chat template");
    options.tools = "[";
    CHECK_FAILS(optimize_model_apply_chat_template(model, question, &options, &prompt, &error),
                OPTIMIZE_INVALID_ARGUMENT, "tools is not JSON");
    options.tools = NULL;
    options.variables = "[]";
    CHECK_FAILS(optimize_model_apply_chat_template(model, question, &options, &prompt, &error),
                OPTIMIZE_INVALID_ARGUMENT, "variables is not a JSON object");
    options.variables = NULL;
    options.thinking = 3;
    CHECK_FAILS(optimize_model_apply_chat_template(model, question, &options, &prompt, &error),
                OPTIMIZE_INVALID_ARGUMENT, "thinking");
    CHECK(prompt == NULL);
    optimize_model_free(minilm);
    optimize_model_free(model);
}

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

TEST(a_model_says_how_to_sample) {
    static const char *const prompts[] = {"Once upon a time"};
    optimize_generate_options_t options = {.struct_size = sizeof options, .max_new_tokens = 8, .seed = 7};
    optimize_generation_t generation = {.struct_size = sizeof generation};
    optimize_model_t *model = NULL;
    optimize_generator_t *generator = NULL;
    optimize_buffer_t *reports[3] = {NULL, NULL, NULL};
    optimize_error_t *error = NULL;
    int i;
    tap_need(optimize_model_load(context, gguf(), NULL, &model, &error), error, "SmolLM2");
    CHECK_OK(optimize_generator_new(context, model, NULL, NULL, &generator, &error));
    for (i = 0; i < 3; i++) {
        options.model_sampling = i == 1;
        /* The file recommends no settings, so model_sampling selects the defaults: temperature 1 and top_k 50. */
        options.temperature = i == 2 ? 1.0f : 0;
        options.top_k = i == 2 ? 50 : 0;
        CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &reports[i], &error));
    }
    CHECK(strcmp(optimize_buffer_data(reports[0]), optimize_buffer_data(reports[1])) != 0);
    CHECK_TEXT(optimize_buffer_data(reports[1]), optimize_buffer_data(reports[2]));
    CHECK_OK(optimize_generation_get(reports[1], 0, &generation, &error));
    CHECK_INT(generation.token_count, 8);
    for (i = 0; i < 3; i++) optimize_buffer_free(reports[i]);
    optimize_generator_free(generator);
    optimize_model_free(model);
}

/* Returns the size in bytes of the graph for TensorRT in fp16, in which the `count` nodes of `keep` stay fp32. */
static double graph_bytes(const optimize_model_t *model, const char *const *keep, uint64_t count) {
    optimize_tensorrt_options_t options = {.struct_size = sizeof options};
    optimize_buffer_t *report = NULL;
    optimize_model_t *graph = NULL;
    optimize_error_t *error = NULL;
    double bytes = 0;
    char path[4096];
    snprintf(path, sizeof path, "%s", temporary("graph.onnx"));
    options.precision = OPTIMIZE_PRECISION_FP16;
    options.graph_only = 1;
    options.keep_fp32 = keep;
    options.keep_fp32_count = count;
    CHECK_OK(optimize_model_build_tensorrt(context, model, path, &options, NULL, &report, &error));
    CHECK_OK(optimize_report_number(report, "/output/bytes", &bytes, &error));
    CHECK_OK(optimize_model_load(context, path, NULL, &graph, &error));
    optimize_model_free(graph);
    optimize_buffer_free(report);
    return bytes;
}

TEST(graphs_for_tensorrt_need_no_tensorrt) {
    static const char *const products[] = {"MatMul"};
    optimize_model_t *model = load_model(context, MINILM);
    const double half = graph_bytes(model, NULL, 0), more = graph_bytes(model, products, 1);
    CHECK(half < 40e6 && more > 44e6);
    optimize_model_free(model);
}

TEST(a_package_keeps_the_steps_before_it) {
    const char *lineage[1];
    optimize_package_compile_options_t options = {.struct_size = sizeof options, .portable_only = 1};
    optimize_model_t *model = load_model(context, MINILM), *small = NULL;
    optimize_package_t *package = NULL;
    optimize_buffer_t *step = NULL, *manifest = NULL;
    optimize_error_t *error = NULL;
    const char *operation = NULL;
    char path[4096];
    snprintf(path, sizeof path, "%s", temporary("steps.package"));
    CHECK_OK(optimize_model_quantize(context, model, NULL, NULL, &small, &step, &error));
    lineage[0] = optimize_buffer_data(step);
    options.lineage = lineage;
    options.lineage_count = 1;
    CHECK_OK(optimize_package_compile(context, small, path, &options, NULL, NULL, &error));
    CHECK_OK(optimize_package_open(path, NULL, &package, &error));
    CHECK_OK(optimize_package_inspect(context, package, &manifest, &error));
    CHECK_OK(optimize_report_text(manifest, "/lineage/0/operation", &operation, NULL, &error));
    CHECK_TEXT(operation, "quantize");
    lineage[0] = "{";
    CHECK_FAILS(optimize_package_compile(context, small, path, &options, NULL, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "lineage");
    optimize_buffer_free(manifest);
    optimize_package_free(package);
    optimize_buffer_free(step);
    optimize_model_free(small);
    optimize_model_free(model);
}

TEST(pruning_is_calibrated_with_tensors) {
    static const char *const names[2] = {"input_ids", "attention_mask"};
    optimize_prune_options_t options = {.struct_size = sizeof options, .sparsity = 0.5};
    optimize_model_t *model = load_model(context, MINILM), *sparse = NULL;
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    text_t text = many_tokens(8, 16);
    const optimize_tensor_t *const tensors[2] = {text.ids, text.mask};
    double share = 0;
    options.method = OPTIMIZE_PRUNE_WANDA;
    CHECK_FAILS(optimize_model_prune(context, model, &options, NULL, &sparse, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                NULL);
    options.calibration_names = names;
    options.calibration_tensors = tensors;
    options.calibration_tensor_count = 2;
    CHECK_OK(optimize_model_prune(context, model, &options, NULL, &sparse, &report, &error));
    CHECK_OK(optimize_report_number(report, "/summary/sparsity", &share, &error));
    CHECK(share > 0.45 && share < 0.55);
    options.calibration = "a text";
    options.calibration_size = 6;
    optimize_model_free(sparse);
    sparse = NULL;
    CHECK_FAILS(optimize_model_prune(context, model, &options, NULL, &sparse, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "both");
    CHECK(sparse == NULL);
    optimize_buffer_free(report);
    free_text(&text);
    optimize_model_free(model);
}

int main(void) {
    context = new_context();
    RUN(chats_have_tools_and_thoughts);
    RUN(chats_that_are_not_of_that_form_are_refused);
    RUN_UNLESS_VALGRIND(a_model_says_how_to_sample);
    RUN_UNLESS_VALGRIND(graphs_for_tensorrt_need_no_tensorrt);
    RUN_UNLESS_VALGRIND(a_package_keeps_the_steps_before_it);
    RUN_UNLESS_VALGRIND(pruning_is_calibrated_with_tensors);
    optimize_context_free(context);
    return tap_end();
}
