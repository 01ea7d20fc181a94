/* Text generation through C, with SmolLM2 from its GGUF file. */
#include "tap.h"

#include <dirent.h>

static optimize_generator_t *generator; /* shared; each test sets the state that it needs */
static optimize_model_t *model;
static optimize_context_t *context;

static char *gguf(void) {
    static char path[4096];
    char folder[2048];
    snprintf(folder, sizeof folder, "%s/models/smollm2", getenv("OPTIMIZE_TEST_DEPS"));
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;)
        if (strstr(entry->d_name, ".gguf") != NULL) snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    if (dir != NULL) closedir(dir);
    return path;
}

static const char *const question = "[{\"role\": \"user\", \"content\": \"What is the capital of France?\"}]";

TEST(a_gguf_file_loads_and_says_what_it_is) {
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    CHECK_OK(optimize_context_new(NULL, &context, &error));
    CHECK_OK(optimize_model_load(context, gguf(), NULL, &model, &error));
    CHECK_OK(optimize_model_inspect(model, &report, &error));
    CHECK(strstr(optimize_buffer_data(report), "\"format\": \"gguf\"") != NULL);
    CHECK(strstr(optimize_buffer_data(report), "\"task\": \"generate\"") != NULL);
    CHECK(strstr(optimize_buffer_data(report), "q_proj") != NULL);
    optimize_buffer_free(report);
    CHECK_OK(optimize_generator_new(context, model, NULL, NULL, &generator, &error));
}

struct heard {
    char text[4096];
    size_t size;
    int tokens, ended;
    int stop_after;
    int64_t last;
};

static int32_t hear(void *user_data, const optimize_written_t *written) {
    struct heard *heard = user_data;
    memcpy(heard->text + heard->size, written->text, (size_t)written->text_size);
    heard->size += (size_t)written->text_size;
    heard->text[heard->size] = '\0';
    heard->tokens++;
    heard->ended = written->finish_reason;
    heard->last = written->token;
    return heard->stop_after != 0 && heard->tokens >= heard->stop_after;
}

TEST(a_chat_names_paris_and_streams_the_same_text) {
    struct heard heard = {0};
    optimize_generate_options_t options = {.struct_size = sizeof options};
    optimize_buffer_t *prompt = NULL, *report = NULL;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_model_render_chat(model, question, &prompt, &error));
    const char *prompts[1] = {optimize_buffer_data(prompt)};
    options.rendered = 1;
    options.max_new_tokens = 24;
    options.on_token = hear;
    options.user_data = &heard;
    CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error));
    CHECK(strstr(heard.text, "Paris") != NULL);
    CHECK(strstr(optimize_buffer_data(report), heard.text) != NULL);
    CHECK_INT(heard.ended, OPTIMIZE_FINISH_EOS);
    optimize_buffer_free(prompt);
    optimize_buffer_free(report);
}

TEST(appending_goes_on_with_what_was_read) {
    struct heard all = {0}, parts = {0};
    optimize_generate_options_t options = {.struct_size = sizeof options};
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    const char *whole[1] = {"One, two, three, four,"};
    options.max_new_tokens = 8;
    options.on_token = hear;
    options.user_data = &all;
    CHECK_OK(optimize_generator_generate(generator, whole, NULL, 1, &options, NULL, &report, &error));
    optimize_buffer_free(report);
    CHECK_OK(optimize_generator_reset(generator, &error));
    options.user_data = &parts;
    CHECK_OK(optimize_generator_append(generator, 0, "One, two,", 9, &options, &error));
    CHECK_OK(optimize_generator_append(generator, 0, " three, four,", 13, &options, &error));
    CHECK_OK(optimize_generator_run(generator, &options, NULL, &report, &error));
    CHECK(all.size > 0 && strcmp(all.text, parts.text) == 0);
    optimize_buffer_free(report);
    CHECK_FAILS(optimize_generator_append(generator, 7, "x", 1, &options, &error), OPTIMIZE_NOT_FOUND, "row 7");
}

TEST(stop_strings_callbacks_and_limits_end_a_text) {
    const char *prompts[1] = {"One, two, three, four,"}, *stop[1] = {"seven"};
    struct heard heard = {0};
    optimize_generate_options_t options = {.struct_size = sizeof options};
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    options.stop = stop;
    options.stop_count = 1;
    options.on_token = hear;
    options.user_data = &heard;
    options.max_new_tokens = 40;
    CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error));
    CHECK(strstr(heard.text, "seven") == NULL && strstr(heard.text, "six") != NULL);
    CHECK_INT(heard.ended, OPTIMIZE_FINISH_STOP);
    optimize_buffer_free(report);
    memset(&heard, 0, sizeof heard);
    heard.stop_after = 3;
    options.stop_count = 0;
    CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error));
    CHECK_INT(heard.tokens, 3);
    CHECK(strstr(optimize_buffer_data(report), "\"cancelled\"") != NULL);
    optimize_buffer_free(report);
    options.max_length = 2;
    CHECK_FAILS(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "max_length");
    options.max_length = 0;
    options.top_p = 0.9F;
    CHECK_FAILS(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "top_p");
    options.top_p = 0;
    /* The token that is generated first becomes a stop token of the next call. */
    memset(&heard, 0, sizeof heard);
    options.max_new_tokens = 1;
    CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error));
    optimize_buffer_free(report);
    const int64_t first = heard.last;
    options.stop_tokens = &first;
    options.stop_token_count = 1;
    options.max_new_tokens = 40;
    memset(&heard, 0, sizeof heard);
    CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error));
    CHECK(heard.tokens == 1 && heard.text[0] == '\0');
    CHECK_INT(heard.ended, OPTIMIZE_FINISH_STOP);
    optimize_buffer_free(report);
    options.stop_tokens = NULL;
    CHECK_FAILS(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "stop_tokens");
    options.stop_token_count = 0;
    options.temperature = -1;
    CHECK_FAILS(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "temperature");
    CHECK(report == NULL);
}

/* A callback may call the library; the generator that calls it is busy. */

struct visit {
    optimize_status_t generate, chat;
};

static int32_t visit(void *user_data, const optimize_written_t *written) {
    const char *prompts[1] = {"One"};
    struct visit *visit = user_data;
    optimize_buffer_t *report = NULL, *prompt = NULL;
    (void)written;
    visit->generate = optimize_generator_generate(generator, prompts, NULL, 1, NULL, NULL, &report, NULL);
    visit->chat = optimize_model_render_chat(model, question, &prompt, NULL);
    optimize_buffer_free(prompt);
    return report != NULL;
}

TEST(a_generator_is_busy_while_it_writes) {
    struct visit met = {OPTIMIZE_OK, OPTIMIZE_INTERNAL};
    optimize_generate_options_t options = {.struct_size = sizeof options, .max_new_tokens = 2};
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    const char *prompts[1] = {"One, two,"};
    options.on_token = visit;
    options.user_data = &met;
    CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error));
    CHECK_INT(met.generate, OPTIMIZE_BUSY);
    CHECK_INT(met.chat, OPTIMIZE_OK);
    optimize_buffer_free(report);
}

/* Generates with a draft, and checks that the text is that of `expected`. */
static void check_draft(const optimize_generator_options_t *how, const char *prompt,
                        const optimize_generation_t *expected, double acceptance) {
    optimize_generate_options_t options = {.struct_size = sizeof options, .max_new_tokens = 24, .ignore_eos = 1};
    optimize_generation_t found = {.struct_size = sizeof found};
    optimize_generator_t *drafting = NULL;
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    const char *prompts[2] = {prompt, prompt};
    CHECK_OK(optimize_generator_new(context, model, how, NULL, &drafting, &error));
    CHECK_OK(optimize_generator_generate(drafting, prompts, NULL, 1, &options, NULL, &report, &error));
    CHECK_OK(optimize_generation_get(report, 0, &found, &error));
    CHECK_TEXT(found.text, expected->text);
    CHECK_INT(found.token_count, expected->token_count);
    CHECK(found.accepted > 0 && found.accepted <= found.drafted);
    CHECK_INT(found.steps + found.accepted, found.token_count);
    CHECK(found.acceptance == (double)found.accepted / (double)found.drafted && found.acceptance >= acceptance);
    optimize_buffer_free(report);
    CHECK_FAILS(optimize_generator_generate(drafting, prompts, NULL, 2, &options, NULL, &report, &error),
                OPTIMIZE_INVALID_ARGUMENT, "2 rows");
    optimize_generator_free(drafting);
}

TEST(a_draft_changes_no_text) {
    const char *prompts[1] = {"The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the"};
    optimize_generate_options_t options = {.struct_size = sizeof options, .max_new_tokens = 24, .ignore_eos = 1};
    optimize_generation_t expected = {.struct_size = sizeof expected};
    optimize_generator_options_t how = {.struct_size = sizeof how, .draft_lookup = 1};
    optimize_generator_t *none = NULL;
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    char path[4096];
    optimize_model_t *encoder = NULL;
    CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error));
    CHECK_OK(optimize_generation_get(report, 0, &expected, &error));
    CHECK(expected.steps == 0 && expected.drafted == 0 && expected.acceptance != expected.acceptance);
    check_draft(&how, prompts[0], &expected, 0);
    /* A model that is its own draft model accepts every drafted token. */
    how.draft_lookup = 0;
    how.draft = model;
    how.draft_max = 5;
    check_draft(&how, prompts[0], &expected, 1);
    optimize_buffer_free(report);
    how.draft_max = 65;
    CHECK_FAILS(optimize_generator_new(context, model, &how, NULL, &none, &error), OPTIMIZE_INVALID_ARGUMENT,
                "draft_max is 65");
    how.draft = NULL;
    CHECK_FAILS(optimize_generator_new(context, model, &how, NULL, &none, &error), OPTIMIZE_INVALID_ARGUMENT,
                "neither draft nor draft_lookup");
    how.draft = (const optimize_model_t *)context;
    CHECK_FAILS(optimize_generator_new(context, model, &how, NULL, &none, &error), OPTIMIZE_INVALID_HANDLE, "model");
    snprintf(path, sizeof path, "%s/models/paraphrase-MiniLM-L3-v2/model.onnx", getenv("OPTIMIZE_TEST_DEPS"));
    CHECK_OK(optimize_model_load(context, path, NULL, &encoder, &error));
    how.draft_max = 0;
    how.draft = encoder;
    CHECK_FAILS(optimize_generator_new(context, model, &how, NULL, &none, &error), OPTIMIZE_UNSUPPORTED, "");
    CHECK(none == NULL);
    optimize_model_free(encoder);
}

TEST(a_bfloat16_cache_is_near_a_float32_one) {
    const char *prompts[1] = {"The capital of France is"};
    optimize_generate_options_t options = {.struct_size = sizeof options, .max_new_tokens = 12, .ignore_eos = 1};
    optimize_generator_options_t how = {.struct_size = sizeof how, .kv_cache_type = OPTIMIZE_KV_CACHE_TYPE_BFLOAT16};
    optimize_generation_t expected = {.struct_size = sizeof expected}, found = expected;
    optimize_generator_t *half = NULL, *none = NULL;
    optimize_buffer_t *report = NULL, *other = NULL;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_generator_new(context, model, &how, NULL, &half, &error));
    CHECK_OK(optimize_generator_generate(generator, prompts, NULL, 1, &options, NULL, &report, &error));
    CHECK_OK(optimize_generation_get(report, 0, &expected, &error));
    CHECK_OK(optimize_generator_generate(half, prompts, NULL, 1, &options, NULL, &other, &error));
    CHECK_OK(optimize_generation_get(other, 0, &found, &error));
    CHECK_INT(found.token_count, 12);
    CHECK(memcmp(found.tokens, expected.tokens, 4 * sizeof *found.tokens) == 0);
    optimize_buffer_free(report);
    optimize_buffer_free(other);
    optimize_generator_free(half);
    how.kernels = OPTIMIZE_KERNELS_STOCK;
    CHECK_FAILS(optimize_generator_new(context, model, &how, NULL, &none, &error), OPTIMIZE_INVALID_ARGUMENT,
                "kv_cache_type bfloat16 needs this library's kernels");
    how.kernels = OPTIMIZE_KERNELS_AUTO;
    how.kv_cache_type = 2;
    CHECK_FAILS(optimize_generator_new(context, model, &how, NULL, &none, &error), OPTIMIZE_INVALID_ARGUMENT,
                "kv_cache_type");
    how.kv_cache_type = 0;
    how.reserved2 = 1;
    CHECK_FAILS(optimize_generator_new(context, model, &how, NULL, &none, &error), OPTIMIZE_INVALID_ARGUMENT,
                "reserved2");
    CHECK(none == NULL);
}

TEST(a_model_that_writes_nothing_is_refused) {
    char path[4096];
    optimize_model_t *encoder = NULL;
    optimize_generator_t *none = NULL;
    optimize_buffer_t *rendered = NULL;
    optimize_error_t *error = NULL;
    snprintf(path, sizeof path, "%s/models/paraphrase-MiniLM-L3-v2/model.onnx", getenv("OPTIMIZE_TEST_DEPS"));
    CHECK_OK(optimize_model_load(context, path, NULL, &encoder, &error));
    CHECK_FAILS(optimize_generator_new(context, encoder, NULL, NULL, &none, &error), OPTIMIZE_UNSUPPORTED, "");
    CHECK_FAILS(optimize_model_render_chat(encoder, question, &rendered, &error), OPTIMIZE_NOT_FOUND, "template");
    CHECK_FAILS(optimize_model_render_chat(model, "{", &rendered, &error), OPTIMIZE_INVALID_ARGUMENT, "JSON");
    optimize_model_free(encoder);
    optimize_generator_free(generator);
    optimize_model_free(model);
    optimize_context_free(context);
}

int main(void) {
    RUN(a_gguf_file_loads_and_says_what_it_is);
    RUN_UNLESS_VALGRIND(a_chat_names_paris_and_streams_the_same_text);
    RUN_UNLESS_VALGRIND(appending_goes_on_with_what_was_read);
    RUN_UNLESS_VALGRIND(stop_strings_callbacks_and_limits_end_a_text);
    RUN_UNLESS_VALGRIND(a_generator_is_busy_while_it_writes);
    RUN_UNLESS_VALGRIND(a_draft_changes_no_text);
    RUN_UNLESS_VALGRIND(a_bfloat16_cache_is_near_a_float32_one);
    RUN(a_model_that_writes_nothing_is_refused);
    return tap_end();
}
