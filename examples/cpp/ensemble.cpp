// ensemble PROMPT MODEL MODEL ...
//
// Generates one text with several models: at each token, their probabilities are averaged. The models must
// generate text, and have the same vocabulary.
//
//     c++ -std=c++17 ensemble.cpp -o ensemble $(pkg-config --cflags --libs optimize)
#include <optimize.hpp>

#include <exception>
#include <iostream>
#include <vector>

int main(int argc, char **argv) try {
    if (argc < 4) {
        std::cerr << "usage: ensemble PROMPT MODEL MODEL ...\n";
        return 2;
    }
    const optimize::Context context;
    std::vector<optimize::Model> models;
    for (int i = 2; i < argc; ++i) models.emplace_back(context, argv[i]);
    std::vector<const optimize::Model *> members;
    for (const auto &model : models) members.push_back(&model);
    const optimize::Ensemble ensemble(members); // by default, the mean of the probabilities
    auto generator = ensemble.generator(context);
    optimize::GenerateOptions options;
    options.max_new_tokens = 24;
    // Prints a token of the text. If standard output is closed, the result is false, which ends the text.
    options.on_token = [](const optimize::Written &written) {
        return static_cast<bool>(std::cout << written.text << std::flush);
    };
    generator.generate({argv[1]}, options);
    std::cout << '\n';
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
