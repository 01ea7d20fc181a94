/* Quantization. */
#include "tap.h"

static optimize_context_t *context;
static optimize_model_t *minilm;

static const char *const sentences[] = {
    "A man is eating food.",
    "The stock market fell sharply on Monday after three days of losses.",
    "How do I reset my password?",
    "The cat sat on the mat and looked out of the window at the rain.",
    "Quantization makes a model smaller; it should not make it worse.",
    "Berlin is the capital of Germany.",
    "No.",
    "She sells sea shells by the sea shore, and the shells she sells are sea shells, I am sure.",
};
enum { SENTENCES = sizeof sentences / sizeof *sentences };

static double cosine(const float *a, const float *b) {
    double ab = 0, aa = 0, bb = 0;
    size_t i;
    for (i = 0; i < MINILM_WIDTH; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += (double)b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

static optimize_status_t quantize(const optimize_quantize_options_t *options, const optimize_call_t *call,
                                  optimize_model_t **result, optimize_buffer_t **report, optimize_error_t **error) {
    return optimize_model_quantize(context, minilm, options, call, result, report, error);
}

static size_t count(const char *text, const char *part) {
    size_t found = 0;
    while ((text = strstr(text, part)) != NULL) found++, text++;
    return found;
}

/* Returns the number after `"key": ` in JSON; -1 if there is none. */
static double number_of(const char *json, const char *key) {
    char quoted[64];
    const char *at;
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    at = strstr(json, quoted);
    return at == NULL ? -1 : strtod(at + strlen(quoted), NULL);
}

TEST(the_result_is_small_and_close_to_the_original) {
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *saved = NULL;
    optimize_tokenizer_t *tokenizer = load_tokenizer();
    size_t size, i;
    double worst = 1, mean = 0;
    CHECK_OK(quantize(NULL, NULL, &small, NULL, &error));
    CHECK_OK(optimize_model_save(small, temporary("small.onnx"), NULL, NULL, &saved, &error));
    optimize_model_free(small);
    CHECK_OK(optimize_model_load(context, temporary("small.onnx"), NULL, &small, &error));
    free(read_file(temporary("small.onnx"), &size));
    CHECK(size > 1000000 && size < 69060623 * 3 / 10);
    optimize_session_t *before = new_session(context, minilm), *after = new_session(context, small);
    for (i = 0; i < (under_valgrind() ? 2 : SENTENCES); i++) {
        text_t text = encode(tokenizer, &sentences[i], 1);
        optimize_tensor_t *a = NULL, *b = NULL;
        CHECK_OK(run_text(before, &text, MINILM_SENTENCE, NULL, &a, &error));
        CHECK_OK(run_text(after, &text, MINILM_SENTENCE, NULL, &b, &error));
        if (CHECK(a != NULL && b != NULL && optimize_tensor_size(a) == optimize_tensor_size(b))) {
            double alike = cosine(optimize_tensor_data(a), optimize_tensor_data(b));
            if (alike < worst) worst = alike;
            mean += alike / SENTENCES;
            if (!CHECK(alike > 0.99)) printf("# cosine %.5f: %s\n", alike, sentences[i]);
        }
        optimize_tensor_free(a);
        optimize_tensor_free(b);
        free_text(&text);
    }
    if (!under_valgrind()) printf("# %zu bytes, cosine mean %.5f, worst %.5f\n", size, mean, worst);
    optimize_session_free(before);
    optimize_session_free(after);
    optimize_buffer_free(saved);
    optimize_model_free(small);
    optimize_tokenizer_free(tokenizer);
}

TEST(the_report_tells_what_was_done) {
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    static const char *const parts[] = {
        "\"schema_version\": 1", "\"operation\": \"quantize\"", "\"library_version\"", "\"bits\": 8",
        "\"sha256\": \"",        "paraphrase-MiniLM-L3-v2",      "\"seconds\"",         "\"peak_rss_bytes\"",
        "\"machine\"",           "\"summary\"",                  "\"nodes\"",           "\"reason\"",
    };
    size_t i;
    CHECK_OK(quantize(NULL, NULL, &small, &report, &error));
    const char *json = optimize_buffer_data(report);
    for (i = 0; i < sizeof parts / sizeof *parts; i++) CHECK_HAS(json, parts[i]);
    CHECK_INT(number_of(json, "bytes"), 69060623);
    CHECK(number_of(json, "nodes_quantized") >= 18);
    CHECK_INT(number_of(json, "nodes_quantized"), count(json, "\"action\": \"quantized\""));
    CHECK_INT(number_of(json, "nodes_left"), count(json, "\"action\": \"left\""));
    CHECK(number_of(json, "bytes_after") < number_of(json, "bytes_before") * 0.3);
    optimize_buffer_free(report);
    optimize_model_free(small);
}

TEST(the_original_stays_as_it_is) {
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *before = NULL, *after = NULL;
    CHECK_OK(optimize_model_inspect(minilm, &before, &error));
    CHECK_OK(quantize(NULL, NULL, &small, NULL, &error));
    CHECK_OK(optimize_model_inspect(minilm, &after, &error));
    CHECK_TEXT(optimize_buffer_data(after), optimize_buffer_data(before));
    optimize_buffer_free(before);
    optimize_buffer_free(after);
    optimize_model_free(small);
}

TEST(globs_choose_nodes) {
    static const char *const embeddings[] = {"*embeddings*"}, *const matmuls[] = {"*MatMul*"}, *const nothing[] = {"nothing*"},
        *const broken[] = {"[a"}, *const missing[] = {NULL};
    optimize_quantize_options_t options = {.struct_size = sizeof options};
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    double all, included;
    CHECK_OK(quantize(NULL, NULL, &small, &report, &error));
    all = number_of(optimize_buffer_data(report), "nodes_quantized");
    optimize_buffer_free(report);
    optimize_model_free(small);
    options.include = matmuls;
    options.include_count = 1;
    CHECK_OK(quantize(&options, NULL, &small, &report, &error));
    included = number_of(optimize_buffer_data(report), "nodes_quantized");
    CHECK(included > 0 && included < all);
    CHECK_INT(count(optimize_buffer_data(report), "\"action\": \"quantized\""), included);
    optimize_buffer_free(report);
    optimize_model_free(small);
    options.include_count = 0;
    options.exclude = embeddings;
    options.exclude_count = 1;
    CHECK_OK(quantize(&options, NULL, &small, &report, &error));
    CHECK(number_of(optimize_buffer_data(report), "nodes_quantized") < all);
    optimize_buffer_free(report);
    optimize_model_free(small);
    /* A pattern that matches nothing is an error that names it. */
    options = (optimize_quantize_options_t){.struct_size = sizeof options, .include = nothing, .include_count = 1};
    CHECK_FAILS(quantize(&options, NULL, &small, &report, &error), OPTIMIZE_INVALID_ARGUMENT, "nothing*");
    CHECK(small == NULL && report == NULL);
    options.include = broken;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "[a");
    options.include = missing;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "include[0]");
    options.include = NULL;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "include");
    CHECK(small == NULL);
}

TEST(options_are_followed_and_checked) {
    optimize_quantize_options_t options = {.struct_size = sizeof options};
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    double all, kept;
    CHECK_OK(quantize(&options, NULL, &small, &report, &error));
    all = number_of(optimize_buffer_data(report), "bytes_after");
    CHECK_HAS(optimize_buffer_data(report), "\"per_channel\": true");
    optimize_buffer_free(report);
    optimize_model_free(small);
    options.keep_embeddings = options.per_tensor = 1;
    options.reduce_range = OPTIMIZE_REDUCE_RANGE_ON;
    options.threads = 1;
    options.bits = 8;
    options.scratch_folder = temporary("");
    CHECK_OK(quantize(&options, NULL, &small, &report, &error));
    kept = number_of(optimize_buffer_data(report), "bytes_after");
    CHECK(kept > all + 30000000); /* the embedding table is most of this model */
    CHECK_HAS(optimize_buffer_data(report), "\"per_channel\": false");
    CHECK_HAS(optimize_buffer_data(report), "\"reduce_range\": \"on\"");
    optimize_buffer_free(report);
    optimize_model_free(small);
    options = (optimize_quantize_options_t){.struct_size = sizeof options, .bits = 3};
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "bits is 3");
    options = (optimize_quantize_options_t){.struct_size = sizeof options, .type = 99};
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "type is 99");
    options = (optimize_quantize_options_t){.struct_size = sizeof options, .reduce_range = 3};
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "reduce_range");
    options = (optimize_quantize_options_t){.struct_size = sizeof options, .algorithm = 9};
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "optimize_algorithm_t");
    options = (optimize_quantize_options_t){.struct_size = sizeof options, .threads = 100000};
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "threads");
    options = (optimize_quantize_options_t){.struct_size = sizeof options, .scratch_folder = "/no/such/folder"};
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_NOT_FOUND, "/no/such/folder");
    CHECK(small == NULL);
}

/* Returns the cosine between the embeddings of a sentence by the original and by `small`. */
static double likeness(optimize_model_t *small) {
    optimize_tokenizer_t *tokenizer = load_tokenizer();
    optimize_session_t *before = new_session(context, minilm), *after = new_session(context, small);
    optimize_tensor_t *a = NULL, *b = NULL;
    optimize_error_t *error = NULL;
    text_t text = encode(tokenizer, &sentences[1], 1);
    double alike = 0;
    CHECK_OK(run_text(before, &text, MINILM_SENTENCE, NULL, &a, &error));
    CHECK_OK(run_text(after, &text, MINILM_SENTENCE, NULL, &b, &error));
    if (CHECK(a != NULL && b != NULL && optimize_tensor_size(a) == optimize_tensor_size(b)))
        alike = cosine(optimize_tensor_data(a), optimize_tensor_data(b));
    optimize_tensor_free(a);
    optimize_tensor_free(b);
    free_text(&text);
    optimize_session_free(before);
    optimize_session_free(after);
    optimize_tokenizer_free(tokenizer);
    return alike;
}

TEST(weights_in_blocks_are_smaller_still) {
    optimize_quantize_options_t options = {.struct_size = sizeof options, .type = OPTIMIZE_QUANTIZE_WEIGHT_ONLY};
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    double four, alike;
    /* Zeros in the options select 4 bits, blocks of 32, zero points, scales of one byte, rounded activations. */
    static const char *const parts[] = {
        "\"type\": \"weight-only\"", "\"bits\": 4",             "\"block_size\": 32",
        "\"symmetric\": false",      "\"scale_type\": \"uint8\"", "\"accuracy_level\": 4",
        "4 bits in blocks of 32, with zero points, ",
    };
    size_t i;
    CHECK_OK(quantize(&options, NULL, &small, &report, &error));
    for (i = 0; i < sizeof parts / sizeof *parts; i++) CHECK_HAS(optimize_buffer_data(report), parts[i]);
    four = number_of(optimize_buffer_data(report), "bytes_after");
    CHECK(four > 1000000 && four < number_of(optimize_buffer_data(report), "bytes_before") * 0.15);
    alike = likeness(small);
    if (!CHECK(alike > 0.95 && alike < 0.99999)) printf("# 4 bits: cosine %.5f\n", alike);
    optimize_buffer_free(report);
    optimize_model_free(small);
    options.bits = 8;
    options.block_size = 64;
    options.symmetric = 1;
    options.scale_type = OPTIMIZE_SCALE_FLOAT16;
    options.accuracy_level = 1;
    CHECK_OK(quantize(&options, NULL, &small, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "8 bits in blocks of 64, symmetric, 8.25 bits per weight");
    CHECK_HAS(optimize_buffer_data(report), "\"scale_type\": \"float16\"");
    CHECK_HAS(optimize_buffer_data(report), "\"accuracy_level\": 1");
    CHECK(number_of(optimize_buffer_data(report), "bytes_after") > four);
    alike = likeness(small);
    if (!CHECK(alike > 0.999)) printf("# 8 bits: cosine %.5f\n", alike);
    optimize_buffer_free(report);
    report = NULL;
    optimize_model_t *again = NULL;
    CHECK_FAILS(optimize_model_quantize(context, small, &options, NULL, &again, &report, &error), OPTIMIZE_UNSUPPORTED,
                "no node could be quantized");
    CHECK(again == NULL && report == NULL);
    optimize_model_free(small);
}

TEST(calibration_keeps_more) {
    static const char text[] = "A man is eating food.\nThe committee will meet again on Thursday morning.\n"
                               "Two dogs run through the wet grass.\nPrices rose faster than wages last year.\n"
                               "She opened the letter and read it twice.\nThe bridge was closed after the storm.\n";
    const char *overrides[1] = {"*word_embeddings*=8/64"};
    optimize_quantize_options_t options = {.struct_size = sizeof options, .type = OPTIMIZE_QUANTIZE_WEIGHT_ONLY};
    optimize_error_t *error = NULL;
    optimize_model_t *small = NULL;
    optimize_buffer_t *report = NULL;
    double rounded, calibrated;
    options.overrides = overrides;
    options.override_count = 1;
    CHECK_OK(quantize(&options, NULL, &small, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "8 bits in blocks of 64");
    CHECK_HAS(optimize_buffer_data(report), "4 bits in blocks of 32");
    optimize_buffer_free(report);
    rounded = likeness(small);
    optimize_model_free(small);
    options.calibration = text;
    options.calibration_size = sizeof text - 1;
    options.calibration_windows = 1;
    CHECK_OK(quantize(&options, NULL, &small, NULL, &error));
    calibrated = likeness(small);
    optimize_model_free(small);
    printf("# cosine %f rounded, %f calibrated\n", rounded, calibrated);
    CHECK(calibrated > 0.95 && rounded > 0.95);
    overrides[0] = "nothing of the kind=8";
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "nothing of the kind");
    overrides[0] = "*word_embeddings*=eight";
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "GLOB=BITS");
    options.override_count = 0;
    options.type = OPTIMIZE_QUANTIZE_DYNAMIC;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "calibration");
}

TEST(static_ranges_come_from_texts_and_tensors) {
    static const char text[] = "A man is eating food.\nThe committee will meet again on Thursday morning.\n"
                               "Two dogs run through the wet grass.\nPrices rose faster than wages last year.\n";
    optimize_quantize_options_t options = {.struct_size = sizeof options, .type = OPTIMIZE_QUANTIZE_STATIC};
    const char *names[2] = {"input_ids", "attention_mask"};
    optimize_tensor_t *tensors[2] = {NULL, NULL};
    int64_t values[2][4 * 8];
    const int64_t dims[2] = {4, 8};
    optimize_error_t *error = NULL;
    optimize_model_t *small = NULL;
    optimize_buffer_t *report = NULL;
    size_t i;
    double from_text, from_tensors, smooth;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "calibration data");
    options.calibration = text;
    options.calibration_size = sizeof text - 1;
    CHECK_OK(quantize(&options, NULL, &small, &report, &error));
    CHECK_HAS(optimize_buffer_data(report), "MatMulIntegerToFloat");
    CHECK_HAS(optimize_buffer_data(report), "\"calibration_batches\": 1");
    optimize_buffer_free(report);
    from_text = likeness(small);
    optimize_model_free(small);
    options.smooth_quant = 0.8;
    CHECK_OK(quantize(&options, NULL, &small, NULL, &error));
    smooth = likeness(small);
    optimize_model_free(small);
    options.smooth_quant = 0;
    options.calibration = NULL;
    options.calibration_size = 0;
    for (i = 0; i < 4 * 8; i++) {
        values[0][i] = i % 8 == 0 ? 101 : i % 8 == 7 ? 102 : (int64_t)(1996 + 37 * i);
        values[1][i] = 1;
    }
    for (i = 0; i < 2; i++)
        CHECK_OK(optimize_tensor_new(OPTIMIZE_DTYPE_INT64, dims, 2, values[i], sizeof values[i], &tensors[i], &error));
    options.calibration_names = names;
    options.calibration_tensors = (const optimize_tensor_t *const *)tensors;
    options.calibration_tensor_count = 2;
    CHECK_OK(quantize(&options, NULL, &small, NULL, &error));
    from_tensors = likeness(small);
    optimize_model_free(small);
    small = NULL;
    printf("# cosine %f on text, %f smooth, %f on tensors\n", from_text, smooth, from_tensors);
    CHECK(from_text > 0.97 && smooth > 0.98 && from_tensors > 0.9);
    names[1] = "nothing";
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_NOT_FOUND, "nothing");
    options.calibration_tensors = NULL;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "calibration_tensors");
    CHECK(small == NULL);
    for (i = 0; i < 2; i++) optimize_tensor_free(tensors[i]);
}

TEST(limits_are_kept_and_forecast) {
    optimize_quantize_options_t options = {.struct_size = sizeof options, .type = OPTIMIZE_QUANTIZE_WEIGHT_ONLY};
    optimize_model_t *small = NULL;
    optimize_buffer_t *report = NULL;
    optimize_error_t *error = NULL;
    CHECK_OK(optimize_model_plan(context, minilm, &options, &report, &error));
    const double planned = number_of(optimize_buffer_data(report), "bytes_after");
    CHECK(strstr(optimize_buffer_data(report), "\"kernels\": \"") != NULL);
    optimize_buffer_free(report);
    CHECK_OK(quantize(&options, NULL, &small, &report, &error));
    const double made = number_of(optimize_buffer_data(report), "bytes_after");
    optimize_buffer_free(report);
    optimize_model_free(small);
    CHECK(made > 0.99 * planned && made < 1.01 * planned);
    optimize_quantize_options_t calibrated = {.struct_size = sizeof calibrated, .type = OPTIMIZE_QUANTIZE_STATIC};
    CHECK_FAILS(optimize_model_plan(context, minilm, &calibrated, &report, &error), OPTIMIZE_INVALID_ARGUMENT,
                "static quantization");
    options.target_size = (uint64_t)(1.2 * made);
    CHECK_OK(quantize(&options, NULL, &small, &report, &error));
    CHECK(number_of(optimize_buffer_data(report), "bytes_after") <= (double)options.target_size);
    CHECK(number_of(optimize_buffer_data(report), "bytes_after") > 1.05 * made);
    const double loss = number_of(optimize_buffer_data(report), "quality_loss");
    CHECK(loss > 0);
    optimize_buffer_free(report);
    optimize_model_free(small);
    options.target_size = 0;
    options.max_quality_loss = loss / 4;
    CHECK_OK(quantize(&options, NULL, &small, &report, &error));
    CHECK(number_of(optimize_buffer_data(report), "quality_loss") <= options.max_quality_loss);
    optimize_buffer_free(report);
    optimize_model_free(small);
    options.target_size = 1000;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_GATE_NOT_MET, "target_size is 1000");
}

TEST(options_of_blocks_are_refused_by_name) {
    const optimize_quantize_options_t good = {.struct_size = sizeof good, .type = OPTIMIZE_QUANTIZE_WEIGHT_ONLY};
    optimize_quantize_options_t options = good;
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    options.bits = 5;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "bits is 5");
    options = good;
    options.block_size = 48;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "block_size is 48");
    options = good;
    options.scale_type = 3;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "scale_type is 3");
    options = good;
    options.accuracy_level = 5;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "accuracy_level is 5");
    options = (optimize_quantize_options_t){.struct_size = sizeof options, .block_size = 64};
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "block_size applies only to weight-only quantization");
    options = (optimize_quantize_options_t){.struct_size = sizeof options, .type = OPTIMIZE_QUANTIZE_STATIC,
                                            .scale_type = OPTIMIZE_SCALE_FLOAT16};
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "scale_type applies only to weight-only quantization");
    options = good;
    options.reduce_range = OPTIMIZE_REDUCE_RANGE_ON;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "reduce_range applies only to dynamic and static quantization, not to the type weight-only");
    options = (optimize_quantize_options_t){.struct_size = sizeof options, .type = OPTIMIZE_QUANTIZE_STATIC,
                                            .percentile = 99.9};
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT,
                "percentile applies only to the calibration_method percentile");
    options = good;
    options.calibration_method = -1;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "calibration_method is -1");
    options = good;
    options.max_quality_loss = NAN;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "max_quality_loss");
    options = good;
    options.type = OPTIMIZE_QUANTIZE_DYNAMIC;
    options.bits = 4;
    CHECK_FAILS(quantize(&options, NULL, &small, NULL, &error), OPTIMIZE_INVALID_ARGUMENT, "bits is 4");
    CHECK(small == NULL);
}

TEST(a_model_with_nothing_to_quantize_is_unsupported) {
    optimize_quantize_options_t options = {.struct_size = sizeof options, .min_elements = UINT64_MAX};
    optimize_model_t *tiny = load_tiny(context), *small = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    CHECK_FAILS(optimize_model_quantize(context, tiny, NULL, NULL, &small, &report, &error), OPTIMIZE_UNSUPPORTED, NULL);
    CHECK_FAILS(quantize(&options, NULL, &small, &report, &error), OPTIMIZE_UNSUPPORTED, "MatMul");
    CHECK(small == NULL && report == NULL);
    optimize_model_free(tiny);
}

typedef struct seen_t {
    thrd_t thread;
    int calls, wrong, hashes;
    int32_t answer;
} seen_t;

static int32_t see(void *user_data, const char *stage, uint64_t done, uint64_t total) {
    seen_t *seen = user_data;
    seen->calls++;
    seen->hashes += strcmp(stage, "hash") == 0;
    seen->wrong += !thrd_equal(thrd_current(), seen->thread) || (total != 0 && done > total);
    seen->wrong += strcmp(stage, "quantize") != 0 && strcmp(stage, "hash") != 0;
    return seen->answer;
}

TEST(progress_comes_on_the_calling_thread) {
    seen_t seen = {.thread = thrd_current()};
    optimize_call_t call = {.struct_size = sizeof call, .progress = see, .user_data = &seen};
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    double start = seconds_now();
    CHECK_OK(quantize(NULL, &call, &small, &report, &error));
    CHECK(seen.calls > 0 && seen.hashes > 0);
    CHECK(seen.calls <= (seconds_now() - start) * 20 + 4); /* the first and the last report of both stages */
    CHECK_INT(seen.wrong, 0);
    optimize_buffer_free(report);
    optimize_model_free(small);
}

/* On one thread, quantization takes long enough on any machine to be cancelled and to report progress. */
static const optimize_quantize_options_t slow = {.struct_size = sizeof slow, .threads = 1};

TEST(progress_can_cancel) {
    seen_t seen = {.thread = thrd_current(), .answer = 1};
    optimize_call_t call = {.struct_size = sizeof call, .progress = see, .user_data = &seen};
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    optimize_buffer_t *report = NULL;
    optimize_status_t status = quantize(&slow, &call, &small, &report, &error);
    CHECK_FAILS(status, OPTIMIZE_CANCELLED, NULL);
    CHECK(small == NULL && report == NULL);
    CHECK(seen.calls >= 1 && seen.calls <= 2);
}

TEST(a_token_cancels_from_another_thread) {
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    optimize_status_t status;
    firing_t firing;
    int i;
    start_firing(&firing, 0.02);
    optimize_call_t call = {.struct_size = sizeof call, .cancel = firing.cancel};
    /* Calls are repeated until the token is fired, either during a call or between two calls. */
    for (i = 0; i < 10000 && (status = quantize(&slow, &call, &small, NULL, &error)) == OPTIMIZE_OK; i++) {
        optimize_model_free(small);
        small = NULL;
    }
    CHECK_FAILS(status, OPTIMIZE_CANCELLED, NULL);
    CHECK(small == NULL);
    end_firing(&firing);
}

TEST(a_timeout_ends_it) {
    optimize_call_t call = {.struct_size = sizeof call, .timeout_ms = 1};
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    CHECK_FAILS(quantize(&slow, &call, &small, NULL, &error), OPTIMIZE_TIMEOUT, NULL);
    CHECK(small == NULL);
    call.timeout_ms = 600000;
    CHECK_OK(quantize(NULL, &call, &small, NULL, &error));
    optimize_model_free(small);
}

static int quantize_too(void *answer) {
    optimize_model_t *small = NULL;
    *(int *)answer = (int)quantize(NULL, NULL, &small, NULL, NULL);
    optimize_model_free(small);
    return 0;
}

TEST(threads_quantize_one_model_at_once) {
    thrd_t threads[3];
    int status[3], i;
    for (i = 0; i < 3; i++) NEED(thrd_create(&threads[i], quantize_too, &status[i]) == thrd_success);
    for (i = 0; i < 3; i++) {
        thrd_join(threads[i], NULL);
        CHECK_INT(status[i], OPTIMIZE_OK);
    }
}

TEST(the_same_options_give_the_same_bytes) {
    optimize_model_t *small = NULL;
    optimize_error_t *error = NULL;
    size_t first_size = 0, second_size = 0;
    unsigned char *first, *second;
    CHECK_OK(quantize(NULL, NULL, &small, NULL, &error));
    CHECK_OK(optimize_model_save(small, temporary("first.onnx"), NULL, NULL, NULL, &error));
    optimize_model_free(small);
    CHECK_OK(quantize(NULL, NULL, &small, NULL, &error));
    CHECK_OK(optimize_model_save(small, temporary("second.onnx"), NULL, NULL, NULL, &error));
    optimize_model_free(small);
    first = read_file(temporary("first.onnx"), &first_size);
    second = read_file(temporary("second.onnx"), &second_size);
    CHECK(first_size > 1000000 && first_size == second_size && memcmp(first, second, first_size) == 0);
    free(first);
    free(second);
}

int main(void) {
    context = new_context();
    minilm = load_model(context, MINILM "/model.onnx");
    RUN(the_result_is_small_and_close_to_the_original);
    RUN(the_report_tells_what_was_done);
    RUN(the_original_stays_as_it_is);
    RUN(globs_choose_nodes);
    RUN(options_are_followed_and_checked);
    RUN(weights_in_blocks_are_smaller_still);
    RUN_UNLESS_VALGRIND(calibration_keeps_more);
    RUN_UNLESS_VALGRIND(limits_are_kept_and_forecast);
    RUN_UNLESS_VALGRIND(static_ranges_come_from_texts_and_tensors);
    RUN(options_of_blocks_are_refused_by_name);
    RUN(a_model_with_nothing_to_quantize_is_unsupported);
    RUN(progress_comes_on_the_calling_thread);
    RUN(progress_can_cancel);
    RUN(a_token_cancels_from_another_thread);
    RUN(a_timeout_ends_it);
    RUN_UNLESS_VALGRIND(threads_quantize_one_model_at_once);
    RUN_UNLESS_VALGRIND(the_same_options_give_the_same_bytes);
    optimize_model_free(minilm);
    optimize_context_free(context);
    return tap_end();
}
