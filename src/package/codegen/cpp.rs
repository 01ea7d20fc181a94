//! The program in C++.

use super::{Input, c_type, list, quoted};
use crate::onnx::dtype::DataType;
use std::fmt::Write;

/// Returns the files of a program that opens the package at `path` and runs it, each with its name and content.
pub fn program(path: &str, inputs: &[Input]) -> Vec<(&'static str, String)> {
    let (mut make, mut given) = (String::new(), String::new());
    for (index, input) in inputs.iter().enumerate() {
        let (dims, elements) = (list(&input.dims), input.elements);
        let _ = match input.dtype {
            DataType::Bool => writeln!(
                make,
                "    const std::vector<std::uint8_t> bytes{index}({elements}, 1);\n    const auto input{index} = \
                 optimize::Tensor::copy(optimize::DType::boolean, {{{dims}}}, bytes{index}.data(), bytes{index}.size());"
            ),
            other => {
                let (ctype, _) = c_type(other);
                let scope = if ctype == "float" { "" } else { "std::" };
                writeln!(
                    make,
                    "    const optimize::Tensor input{index}({{{dims}}}, std::vector<{scope}{ctype}>({elements}, 1));"
                )
            }
        };
        let _ = write!(given, "{}{{{}, input{index}}}", if index > 0 { ", " } else { "" }, quoted(&input.name));
    }
    let source = TEMPLATE.replace("@PATH@", &quoted(path)).replace("@MAKE@", &make).replace("@GIVEN@", &given);
    vec![("main.cpp", source), ("Makefile", MAKEFILE.to_owned())]
}

const MAKEFILE: &str = "main: main.cpp\n\t$(CXX) -std=c++17 -O2 -Wall -Wextra main.cpp -o main $(CXXFLAGS) $(LDFLAGS) \
                        $(shell pkg-config --cflags --libs optimize 2>/dev/null || echo -loptimize)\n";

const TEMPLATE: &str = r#"// Opens a package and runs it once. Give another package as the first argument.
#include <optimize.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <vector>

static void run(const char *path) {
    const optimize::Context context;
    const optimize::Package package(path);
    auto session = package.session(context);
@MAKE@    const auto infos = session.outputs();
    const auto outputs = session.run({@GIVEN@});
    for (std::size_t i = 0; i < outputs.size(); ++i) {
        std::printf("%s [", infos[i].name.c_str());
        const auto dims = outputs[i].dims();
        for (std::size_t d = 0; d < dims.size(); ++d) std::printf("%s%lld", d ? ", " : "", static_cast<long long>(dims[d]));
        std::printf("]");
        if (outputs[i].dtype() == optimize::DType::float32) {
            const float *values = outputs[i].data<float>();
            for (std::size_t v = 0; v < 8 && v < outputs[i].elements(); ++v)
                std::printf(" %.5f", static_cast<double>(values[v]));
        }
        std::printf("\n");
    }
}

int main(int argc, char **argv) {
    try {
        run(argc > 1 ? argv[1] : @PATH@);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
"#;
