// tensorrt MODEL OUTPUT.engine
//
// Builds a TensorRT engine of a model in fp16, for batches of one row of 128 tokens. Without TensorRT or
// a GPU, it prints the reason.
//
//     c++ -std=c++17 tensorrt.cpp -o tensorrt $(pkg-config --cflags --libs optimize)
#include <optimize.hpp>

#include <exception>
#include <iostream>

int main(int argc, char **argv) try {
    if (argc != 3) {
        std::cerr << "usage: tensorrt MODEL OUTPUT.engine\n";
        return 2;
    }
    const optimize::Context context;
    const optimize::Model model(context, argv[1]);
    optimize::TensorRtOptions options;
    options.precision = OPTIMIZE_PRECISION_FP16;
    options.batch_size = 1;
    options.sequence_length = 128;
    std::cout << optimize::build_tensorrt(context, model, argv[2], options) << '\n';
    return 0;
} catch (const optimize::Error &error) {
    std::cerr << error.what() << '\n';
    // On a machine without a supported TensorRT and GPU, the error is not a failure of this example.
    const auto status = error.status();
    const bool missing = status == optimize::Status::backend_missing || status == optimize::Status::device_missing ||
                         status == optimize::Status::unsupported;
    return missing ? 0 : 1;
} catch (const std::exception &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
