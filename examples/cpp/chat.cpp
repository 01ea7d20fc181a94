// chat MODEL [QUESTION ...]
//
// A conversation with a model: a .gguf file, a checkpoint folder or an exported folder. Without QUESTION, questions
// are read from the terminal, one per line. The generator keeps its KV cache, so that each turn computes only its own
// tokens.
//
//     c++ -std=c++17 chat.cpp -o chat $(pkg-config --cflags --libs optimize)
#include <optimize.hpp>

#include <iostream>

namespace {

// Writes the next question, an argument, or a line of the terminal if there were no arguments, to `question`. Returns
// false if there is no further question.
bool ask(int argc, char **argv, int turn, std::string &question) {
    if (argc > 2) {
        if (turn >= argc) return false;
        question = argv[turn];
        return true;
    }
    std::cerr << "> ";
    return static_cast<bool>(std::getline(std::cin, question));
}

} // namespace

int main(int argc, char **argv) try {
    if (argc < 2) {
        std::cerr << "usage: chat MODEL [QUESTION ...]\n";
        return 2;
    }
    const optimize::Context context;
    const optimize::Model model(context, argv[1]);
    optimize::Generator generator(context, model);

    optimize::GenerateOptions options;
    options.max_new_tokens = 200;
    options.rendered = true;
    // Prints a token of the answer. If standard output is closed, the result is false, which ends the answer.
    options.on_token = [](const optimize::Written &written) {
        return static_cast<bool>(std::cout << written.text << std::flush);
    };
    std::string question;
    for (int turn = 2; ask(argc, argv, turn, question); ++turn) {
        generator.append(0, model.render_chat({{"user", question}}), options);
        generator.run(options);
        std::cout << '\n';
    }
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
