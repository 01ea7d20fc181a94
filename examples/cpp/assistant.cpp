// assistant EMBEDDER RERANKER TAGGER DECODER QUESTION [LINE ...]
//
// Answers a question from lines of text. The three lines nearest to the question are found by their vectors, and the
// reranker chooses one of them; "-" instead of a reranker chooses the nearest. The entities of the line are printed,
// and the decoder answers the question with the line. Without LINE, lines are read from standard input. No file is
// written, and no JSON is parsed.
//
//     c++ -std=c++17 assistant.cpp -o assistant $(pkg-config --cflags --libs optimize)
#include <optimize.hpp>

#include <algorithm>
#include <exception>
#include <iostream>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr std::size_t most_found = 3;

// Returns the lines of the standard input that are not empty.
std::vector<std::string> read_lines() {
    std::vector<std::string> lines;
    for (std::string line; std::getline(std::cin, line);)
        if (!line.empty()) lines.push_back(line);
    return lines;
}

// Returns the most_found lines whose vectors are nearest to that of the question, the nearest first.
std::vector<std::string> find(const optimize::Context &context, const std::string &path, const std::string &question,
                              const std::vector<std::string> &lines) {
    const optimize::Model model(context, path);
    optimize::EmbedderOptions options;
    options.normalize = true; // so that dot products are cosines
    const optimize::Embedder embedder(context, model, options);
    std::vector<std::string> texts{question};
    texts.insert(texts.end(), lines.begin(), lines.end());
    const optimize::Tensor vectors = embedder.embed(texts);
    const std::size_t width = vectors.elements() / texts.size();
    const float *first = vectors.data<float>();
    std::vector<float> similarities;
    for (std::size_t line = 1; line < texts.size(); line++)
        similarities.push_back(std::inner_product(first, first + width, first + line * width, 0.0f));
    std::vector<std::size_t> order(lines.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return similarities[a] > similarities[b]; });
    std::vector<std::string> nearest;
    for (std::size_t i = 0; i < std::min(most_found, order.size()); i++) nearest.push_back(lines[order[i]]);
    return nearest;
}

// Returns the line to which a reranker gives the highest score.
std::string rerank(const optimize::Context &context, const std::string &path, const std::string &question,
                   const std::vector<std::string> &lines) {
    const optimize::Model model(context, path);
    const optimize::Classifier classifier(context, model);
    const std::vector<std::string> questions(lines.size(), question);
    const optimize::Tensor scores = classifier.classify_pairs(questions, lines);
    const std::size_t classes = scores.elements() / lines.size();
    const float *score = scores.data<float>();
    std::size_t best = 0;
    for (std::size_t i = 1; i < lines.size(); i++)
        if (score[i * classes] > score[best * classes]) best = i;
    return lines[best];
}

// Prints the entities of a text.
void tag(const optimize::Context &context, const std::string &path, const std::string &text) {
    const optimize::Model model(context, path);
    optimize::TaggerOptions options;
    options.aggregation = optimize::Aggregation::average;
    const optimize::Tagger tagger(context, model, options);
    const std::vector<std::vector<optimize::Span>> spans = tagger.tag({text});
    for (const optimize::Span &span : spans.front())
        std::cout << "  " << span.label << ": " << text.substr(span.start, span.end - span.start) << '\n';
}

// Returns the text that the decoder generates: an answer to the question, or a call of the tool "search".
std::string answer(const optimize::Context &context, const std::string &path, const std::string &question,
                   const std::string &line) {
    const optimize::Model model(context, path);
    optimize::ChatOptions chat;
    chat.thinking = optimize::Thinking::off;
    chat.tools = R"([{"type": "function", "function": {"name": "search", "description": "Finds lines.",
        "parameters": {"type": "object", "properties": {"words": {"type": "string"}}}}}])";
    const std::string prompt = model.apply_chat_template({{"user", line + " " + question}}, chat);
    optimize::Generator generator(context, model);
    optimize::GenerateOptions options;
    options.max_new_tokens = 40;
    options.rendered = true;
    return generator.generate({prompt}, options).generations().front().text;
}

} // namespace

int main(int argc, char **argv) try {
    if (argc < 6) {
        std::cerr << "usage: assistant EMBEDDER RERANKER TAGGER DECODER QUESTION [LINE ...]\n";
        return 2;
    }
    const std::string reranker = argv[2], question = argv[5];
    const std::vector<std::string> lines = argc > 6 ? std::vector<std::string>(argv + 6, argv + argc) : read_lines();
    if (lines.empty()) throw std::runtime_error("there are no lines");
    const optimize::Context context;
    const std::vector<std::string> nearest = find(context, argv[1], question, lines);
    const std::string line = reranker == "-" ? nearest.front() : rerank(context, reranker, question, nearest);
    std::cout << line << '\n';
    tag(context, argv[3], line);
    std::cout << answer(context, argv[4], question, line) << '\n';
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
