// generate MODEL PROMPT
//
// Continues a text, and prints it while it is generated.
//
//     c++ -std=c++17 generate.cpp -o generate $(pkg-config --cflags --libs optimize)
#include <optimize.hpp>

#include <exception>
#include <iostream>

int main(int argc, char **argv) try {
    if (argc != 3) {
        std::cerr << "usage: generate MODEL PROMPT\n";
        return 2;
    }
    const optimize::Context context;
    const optimize::Model model(context, argv[1]);
    optimize::Generator generator(context, model);
    optimize::GenerateOptions options;
    options.max_new_tokens = 24;
    // Prints a token of the text. If standard output is closed, the result is false, which ends the text.
    options.on_token = [](const optimize::Written &written) {
        return static_cast<bool>(std::cout << written.text << std::flush);
    };
    generator.generate({argv[2]}, options);
    std::cout << '\n';
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
