// benchmark ORIGINAL RESULT
//
// Compares two models: speed, load time, memory, size, and how close their outputs are. It prints the report,
// which is JSON.
//
//     c++ -std=c++17 benchmark.cpp -o benchmark $(pkg-config --cflags --libs optimize)
#include <optimize.hpp>

#include <exception>
#include <iostream>

int main(int argc, char **argv) try {
    if (argc != 3) {
        std::cerr << "usage: benchmark ORIGINAL RESULT\n";
        return 2;
    }
    const optimize::Context context;
    const optimize::Model original(context, argv[1]), result(context, argv[2]);
    optimize::BenchmarkOptions options;
    options.runs = 20;
    std::cout << original.benchmark(context, result, nullptr, options) << '\n';
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
