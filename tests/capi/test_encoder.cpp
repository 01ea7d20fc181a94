// optimize.hpp: texts to vectors, scores and spans.
#include "tap.hpp"

#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

namespace {

using tap::deps;

const std::string minilm = "models/paraphrase-MiniLM-L3-v2";

void texts_become_vectors_and_scores() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    optimize::EmbedderOptions options;
    options.dimensions = 64;
    options.normalize = true;
    const optimize::Embedder embedder(context, model, options);
    const optimize::Tensor vectors = embedder.embed({"A man is eating food.", "A man eats."});
    CHECK(vectors.dims() == std::vector<std::int64_t>({2, 64}));
    FAILS(invalid_argument, "no text", embedder.embed({}));
    options.prompt_name = "query";
    FAILS(not_found, "query", optimize::Embedder(context, model, options));
    FAILS(unsupported, "logits", optimize::Classifier(context, model));

    const optimize::Model classes(context, "tests/fixtures/encoders/bert-classify");
    const optimize::Tokenizer words("tests/fixtures/sentences/model/tokenizer.json");
    const optimize::Classifier classifier(context, classes, words);
    CHECK(classifier.labels() == std::vector<std::string>({"LABEL_0", "LABEL_1", "LABEL_2"}));
    CHECK(classifier.classify({"hello"}).dims() == std::vector<std::int64_t>({1, 3}));
    CHECK(classifier.classify_pairs({"hello", "world"}, {"a", "b"}).dims() == std::vector<std::int64_t>({2, 3}));
    FAILS(invalid_argument, "numbers", classifier.classify_pairs({"hello"}, {}));
}

void an_empty_prompt_replaces_the_default_one() {
    const std::filesystem::path folder = tap::temporary("prompts");
    std::filesystem::create_directories(folder);
    for (const char *name : {"model.onnx", "tokenizer.json"})
        std::filesystem::copy_file(deps(minilm) + "/" + name, folder / name,
                                   std::filesystem::copy_options::overwrite_existing);
    std::ofstream(folder / "config_sentence_transformers.json")
        << R"({"prompts": {"query": "query: "}, "default_prompt_name": "query"})";
    const optimize::Context context;
    const optimize::Model model(context, folder.string());
    const auto vector = [&](const optimize::EmbedderOptions &options, const char *text) {
        return optimize::Embedder(context, model, options).embed({text}).to_vector<float>();
    };
    optimize::EmbedderOptions none;
    none.prompt = "";
    CHECK(vector({}, "food") == vector(none, "query: food"));
    CHECK(vector({}, "food") != vector(none, "food"));
}

void texts_become_spans() {
    const optimize::Context context;
    const std::string text = "I am Maria Fernández from Springfield.";
    optimize::TaggerOptions options;
    options.aggregation = optimize::Aggregation::average;
    const optimize::Tagger tagger(context, optimize::Model(context, deps("models/rampart")), options);
    const auto spans = tagger.tag({"Nothing to see here.", text});
    CHECK(spans.size() == 2 && spans[0].empty() && spans[1].size() == 3);
    std::string found;
    for (const optimize::Span &span : spans[1]) {
        found += span.label + "=" + text.substr(span.start, span.end - span.start) + ";";
        CHECK(span.score > 0.8f && span.score <= 1);
    }
    CHECK(found == "GIVEN_NAME=Maria;SURNAME=Fernández;CITY=Springfield;");
    FAILS(invalid_argument, "no text", tagger.tag({}));
    FAILS(unsupported, "", optimize::Tagger(context, optimize::Model(context, "tests/fixtures/encoders/bert-classify")));
    const optimize::Tokenizer words("tests/fixtures/encoders/bert-tags/tokenizer.json");
    options.keep_outside = true;
    const optimize::Model tiny(context, "tests/fixtures/encoders/bert-tags");
    CHECK(optimize::Tagger(context, tiny, words, options).tag({"hello world"})[0].size() == 2);
}

void a_model_has_its_tokenizer_and_a_plan() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    const std::vector<std::string> texts{"A man is eating food."};
    const optimize::Tensor own = model.tokenizer().encode(texts).ids;
    const optimize::Tensor loaded = optimize::Tokenizer(deps(minilm)).encode(texts).ids;
    CHECK(own.dims() == loaded.dims() && std::memcmp(own.data(), loaded.data(), 8 * own.dims()[1]) == 0);
    FAILS(not_found, "tokenizer", optimize::Model(context, "tests/fixtures/encoders/bert-classify").tokenizer());
    optimize::QuantizeOptions options;
    options.type = optimize::QuantizeType::weight_only;
    options.bits = 4;
    const double planned = model.plan(context, options).number("/summary/bytes_after");
    const double made = model.quantize(context, options).report.number("/summary/bytes_after");
    CHECK(planned > 0.98 * made && planned < 1.02 * made);
}

void reports_are_read_without_json() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    const optimize::Quantized small = model.quantize(context);
    const auto nodes = small.report.nodes();
    std::size_t changed = 0;
    for (const optimize::NodeReport &node : nodes) changed += node.changed;
    CHECK(!nodes.empty() && nodes.size() == small.report.count("/nodes"));
    CHECK(double(changed) ==
          small.report.number("/summary/nodes_quantized") + small.report.number("/summary/nodes_stored"));
    CHECK(small.report.text("/operation") == "quantize");
    FAILS(not_found, "/nothing", small.report.number("/nothing"));
    FAILS(not_found, "no benchmark", small.report.benchmark());
    FAILS(invalid_argument, "buffer", optimize::Report().number("/seconds"));
    optimize::BenchmarkOptions options;
    options.runs = 6;
    options.warmup = 1;
    options.shapes = {"input_ids:1x4", "attention_mask:1x4"};
    const optimize::Report report = model.benchmark(context, small.model, nullptr, options);
    const optimize::Benchmark figures = report.benchmark();
    CHECK(figures.runs == 6 && figures.speedup == report.number("/benchmark/speedup/median"));
    CHECK(figures.speedup_low <= figures.speedup && figures.speedup <= figures.speedup_high);
    CHECK(figures.result_bytes < figures.original_bytes && !figures.verdict.empty() && figures.cosine > 0.9);
}

void messages_go_to_the_function_of_a_context() {
    std::mutex lock;
    std::vector<std::string> heard;
    optimize::ContextOptions options;
    options.log_level = optimize::LogLevel::info;
    options.log = [&](optimize::LogLevel level, std::string_view target, std::string_view message) {
        const std::lock_guard<std::mutex> guard(lock);
        CHECK(level <= optimize::LogLevel::info);
        heard.push_back(std::string(target) + ": " + std::string(message));
        throw 1; // is ignored
    };
    optimize::Context context(options), silent;
    const optimize::Counters before = context.counters();
    const optimize::Model model(context, deps(minilm));
    CHECK(!heard.empty() && heard[0].find("optimize: ") == 0);
    CHECK(context.counters().models_loaded == before.models_loaded + 1);
    CHECK(context.counters_text(optimize::CountersFormat::prometheus).find("optimize_models_loaded_total") !=
          std::string::npos);
    const std::size_t count = heard.size();
    context = std::move(silent); // frees the first context
    optimize::Model(context, deps(minilm));
    CHECK(heard.size() == count);
}

void threads_share_const_objects() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    const optimize::Embedder embedder(context, model);
    const std::vector<std::string> texts{"A man is eating food."};
    const optimize::Tensor alone = embedder.embed(texts);
    std::vector<std::thread> threads;
    std::vector<int> same(4, 0);
    for (int &one : same)
        threads.emplace_back([&] {
            const optimize::Tensor found = embedder.embed(texts);
            one = std::memcmp(found.data<float>(), alone.data<float>(), 384 * sizeof(float)) == 0;
        });
    for (std::thread &thread : threads) thread.join();
    for (int one : same) CHECK(one == 1);
}

} // namespace

int main() {
    RUN(texts_become_vectors_and_scores);
    RUN(an_empty_prompt_replaces_the_default_one);
    RUN(texts_become_spans);
    RUN(a_model_has_its_tokenizer_and_a_plan);
    RUN(reports_are_read_without_json);
    RUN(messages_go_to_the_function_of_a_context);
    RUN(threads_share_const_objects);
    return tap::end();
}
