// distill TEACHER TEXT OUTPUT
//
// Trains a student to reproduce the outputs of TEACHER on the file TEXT, and saves it. The student is made of
// every other layer of the teacher.
//
//     c++ -std=c++17 distill.cpp -o distill $(pkg-config --cflags --libs optimize)
#include <optimize.hpp>

#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>

int main(int argc, char **argv) try {
    if (argc != 4) {
        std::cerr << "usage: distill TEACHER TEXT OUTPUT\n";
        return 2;
    }
    const optimize::Context context;
    std::ifstream file(argv[2], std::ios::binary);
    if (!file) throw std::runtime_error(std::string(argv[2]) + ": cannot be read");
    optimize::DistillOptions options;
    options.text.assign(std::istreambuf_iterator<char>(file), {});
    options.epochs = 1;
    options.student_layers = "layers:every-other";
    // An exception would end the training.
    options.training = [](const optimize::TrainingStep &step) {
        std::cout << (step.is_validation ? "validation after step " : "step ") << step.step << " of "
                  << step.total_steps << ": loss " << step.loss << '\n';
    };
    const optimize::Model teacher(context, argv[1]);
    const auto student = optimize::distill(context, teacher, options);
    student.model.save(argv[3]);
    return 0;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
