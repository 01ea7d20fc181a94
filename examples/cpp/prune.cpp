// prune MODEL OUTPUT [CALIBRATION]
//
// Removes 30 % of the neurons, channels and heads of a model, saves the result, and compares it with the original.
// With CALIBRATION, a text file, those that matter least for this text are removed, and the weights that read the
// remaining ones are fitted to compensate, which loses much less quality; MODEL then needs its tokenizer.json next to
// it. The report of the benchmark is written to stdout, everything else to stderr.
//
//     c++ -std=c++17 prune.cpp -o prune $(pkg-config --cflags --libs optimize)
#include <optimize.hpp>

#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

int main(int argc, char **argv) try {
    if (argc < 3) {
        std::cerr << "usage: " << argv[0] << " MODEL OUTPUT [CALIBRATION]\n";
        return 2;
    }
    optimize::PruneOptions options;
    options.method = optimize::PruneMethod::structured;
    options.sparsity = 0.3;
    if (argc > 3) {
        std::ifstream file(argv[3], std::ios::binary);
        if (!file) throw std::runtime_error(std::string(argv[3]) + ": cannot be read");
        options.calibration.assign(std::istreambuf_iterator<char>(file), {});
        options.importance = optimize::Importance::activation;
        options.reconstruct = true;
    }
    const optimize::Context context;
    const optimize::Model model(context, argv[1]);
    const auto small = model.prune(context, options);
    small.model.save(argv[2]);
    std::cerr << small.report << '\n';
    std::cout << model.benchmark(context, small.model, nullptr, {}, {});
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
