// optimize.hpp: texts to vectors, scores and spans.
#include "tap.hpp"

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
    RUN(texts_become_spans);
    RUN(threads_share_const_objects);
    return tap::end();
}
