// Sources, sinks, limits of memory, and runs into memory of the program, in C++.
#include "tap.hpp"

#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>

namespace {

using tap::deps;
using tap::temporary;

const std::string minilm = "models/paraphrase-MiniLM-L3-v2";
const std::string sentence = "461"; // the name of the output with the embedding of the sentence

std::string content(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// Returns the vector of a few tokens, written to memory of this program.
std::vector<float> embed(const optimize::Context &context, const optimize::Model &model) {
    const optimize::Session session(context, model);
    const optimize::Tensor ids({1, 2}, std::vector<std::int64_t>{101, 102}), mask({1, 2}, std::vector<std::int64_t>{1, 1});
    std::vector<optimize::Input> inputs;
    inputs.push_back({"input_ids", ids});
    inputs.push_back({"attention_mask", mask});
    std::vector<float> vector(384);
    session.run_into(inputs, {optimize::Output(sentence, {1, 384}, vector.data(), vector.size())});
    const auto made = session.run(inputs, {sentence});
    CHECK(std::memcmp(made[0].data<float>(), vector.data(), vector.size() * sizeof(float)) == 0);
    FAILS(invalid_argument, "192",
          session.run_into(inputs, {optimize::Output(sentence, {2, 192}, vector.data(), vector.size())}));
    return vector;
}

void models_come_from_and_go_to_memory() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    std::map<std::string, std::string> files;
    optimize::SaveOptions options;
    options.external_data = optimize::ExternalData::always;
    const auto report = model.save(optimize::Sink::memory(files), "m.onnx", options);
    CHECK(files.size() == 2 && report.json().find("m.onnx") != std::string::npos);
    std::map<std::string, std::string_view> views(files.begin(), files.end());
    const std::string words = content(deps(minilm + "/tokenizer.json"));
    views["tokenizer.json"] = words;
    const auto source = optimize::Source::memory(views);
    const optimize::Model again(context, source, "m.onnx");
    CHECK(again.tokenizer().vocabulary_size() == 30522);
    CHECK(optimize::Tokenizer(source, "tokenizer.json").vocabulary_size() == 30522);
    CHECK(embed(context, model) == embed(context, again));
    FAILS(not_found, "none.onnx", optimize::Model(context, source, "none.onnx"));
}

void packages_come_from_and_go_to_memory() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    std::map<std::string, std::string> files;
    optimize::PackageOptions options;
    options.dynamic = true;
    options.portable_only = true;
    optimize::Package::compile(context, model, optimize::Sink::memory(files), "p", options);
    const std::map<std::string, std::string_view> views(files.begin(), files.end());
    const optimize::Package package(context, optimize::Source::memory(views), "p");
    package.verify();
    CHECK(package.session(context).inputs().size() == 2);
}

void what_the_functions_throw_comes_out() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    optimize::Source source;
    source.size = [](const std::string &) -> std::optional<std::uint64_t> { throw std::runtime_error("in size"); };
    source.read = [](const std::string &, std::uint64_t, void *, std::size_t) { throw std::runtime_error("in read"); };
    optimize::Sink sink;
    sink.write = [](const std::string &, const void *, std::size_t) { throw std::runtime_error("in write"); };
    const auto thrown = [](auto &&function) -> std::string {
        try {
            function();
        } catch (const std::runtime_error &error) {
            return error.what();
        }
        return {};
    };
    CHECK(thrown([&] { optimize::Model(context, source, "m"); }) == "in size");
    source.size = [](const std::string &) -> std::optional<std::uint64_t> { return 100; };
    CHECK(thrown([&] { optimize::Model(context, source, "m"); }) == "in read");
    CHECK(thrown([&] { model.save(sink, "m"); }) == "in write");
    FAILS(invalid_argument, "callback", optimize::Model(context, optimize::Source(), "m"));
    FAILS(invalid_argument, "callback", model.save(optimize::Sink(), "m"));
}

void sessions_within_a_limit() {
    optimize::ContextOptions options;
    options.memory_limit = 1 << 20;
    const optimize::Context context(options);
    const optimize::Model model(context, deps(minilm));
    FAILS(limit_exceeded, "memory limit", optimize::Session(context, model));
}

} // namespace

int main() {
    RUN(models_come_from_and_go_to_memory);
    RUN(packages_come_from_and_go_to_memory);
    RUN(what_the_functions_throw_comes_out);
    RUN(sessions_within_a_limit);
    return tap::end();
}
