// compile MODEL PACKAGE
//
// Writes a package of a model for batches of 1 to 8 rows, then opens the package like a program that runs the model,
// and prints its inputs.
//
//     c++ -std=c++17 compile.cpp -o compile $(pkg-config --cflags --libs optimize)
#include <optimize.hpp>

#include <exception>
#include <iostream>

int main(int argc, char **argv) try {
    if (argc != 3) {
        std::cerr << "usage: compile MODEL PACKAGE\n";
        return 2;
    }
    const optimize::Context context;
    const optimize::Model model(context, argv[1]);
    optimize::PackageOptions options;
    options.dynamic = true;
    options.batch_max = 8;
    optimize::Package::compile(context, model, argv[2], options);

    const optimize::Package package(argv[2]);
    const auto session = package.session(context);
    for (const auto &input : session.inputs())
        std::cout << "input " << input.name << " of rank " << (input.shape ? input.shape->size() : 0) << '\n';
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
