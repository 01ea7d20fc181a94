// quantize MODEL OUTPUT [TEXT]
//
// Quantizes a text model to int8, saves the result, runs original and result on TEXT with the tokenizer.json next to
// MODEL, and compares them in a benchmark. Without a tokenizer, there is only the benchmark, on generated inputs. The
// report of the benchmark is written to stdout, everything else to stderr.
//
//     c++ -std=c++17 quantize.cpp -o quantize $(pkg-config --cflags --libs optimize)
#include <optimize.hpp>

#include <cmath>
#include <filesystem>
#include <iostream>
#include <optional>

namespace {

// The library calls this on the thread of the call, at most 20 times a second, and at the beginning and the end of each
// stage. Returning false would cancel the call.
bool show_progress(std::string_view stage, std::uint64_t done, std::uint64_t total) {
    std::cerr << '\r' << stage << ' ' << (total ? 100 * done / total : 0) << " %" << (done == total ? "\n" : "");
    return true;
}

// Loads tokenizer.json from the model's folder, and returns the tokenizer; nullopt if there is no such file.
std::optional<optimize::Tokenizer> tokenizer_beside(const std::string &model) {
    const auto path = std::filesystem::path(model).parent_path() / "tokenizer.json";
    if (!std::filesystem::exists(path)) return std::nullopt;
    return optimize::Tokenizer(path.string());
}

// Runs a model on an encoded text, and returns its last output, which is the embedding in models for sentences.
optimize::Tensor run(const optimize::Context &context, const optimize::Model &model, const optimize::Encoded &text) {
    optimize::Session session(context, model);
    std::vector<optimize::Input> inputs;
    for (const auto &info : session.inputs()) { // not every model has all three inputs
        if (info.name == "input_ids") inputs.push_back({info.name, text.ids});
        if (info.name == "attention_mask") inputs.push_back({info.name, text.attention_mask});
        if (info.name == "token_type_ids") inputs.push_back({info.name, text.type_ids});
    }
    // If the model has another required input, the error names it.
    return std::move(session.run(inputs, {session.outputs().back().name})[0]);
}

// Returns the cosine of two outputs.
double cosine(const optimize::Tensor &a, const optimize::Tensor &b) {
    const float *x = a.data<float>(), *y = b.data<float>();
    double xy = 0, xx = 0, yy = 0;
    for (std::size_t i = 0; i < a.elements() && i < b.elements(); ++i) {
        xy += double(x[i]) * y[i];
        xx += double(x[i]) * x[i];
        yy += double(y[i]) * y[i];
    }
    return xy / std::sqrt(xx * yy);
}

} // namespace

int main(int argc, char **argv) try {
    if (argc < 3) {
        std::cerr << "usage: " << argv[0] << " MODEL OUTPUT [TEXT]\n";
        return 2;
    }
    const std::string sentence = argc > 3 ? argv[3] : "A man is eating food.";
    optimize::Call call;
    call.progress = show_progress;

    const optimize::Context context;
    const optimize::Model model(context, argv[1]);
    const auto small = model.quantize(context, {}, call);
    small.model.save(argv[2], {}, call);

    const auto tokenizer = tokenizer_beside(argv[1]);
    optimize::BenchmarkOptions options;
    if (tokenizer) {
        const auto text = tokenizer->encode({sentence});
        const double alike = cosine(run(context, model, text), run(context, small.model, text));
        std::cerr << '"' << sentence << "\": original and result agree by " << alike << '\n';
        options.texts = {sentence};
    }
    std::cout << model.benchmark(context, small.model, tokenizer ? &*tokenizer : nullptr, options, call);
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
