// Part of optimize.hpp: packages, a model with all that belongs to it and the shapes it takes.
#ifndef OPTIMIZE_PACKAGE_HPP
#define OPTIMIZE_PACKAGE_HPP

#include "model.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace optimize {

/// Options of compile; see optimize_compile_options_t.
struct CompileOptions {
    bool dynamic = false;
    std::uint64_t batch_min = 0;
    std::uint64_t batch_max = 0;
    /// JSON: {"input_ids": {"0": {"name": "batch", "min": 1, "max": 64}}}; empty for none.
    std::string dynamic_shapes;
    /// "NAME:2x3x4".
    std::vector<std::string> example;
};

/// Writes a package, which Model takes like any other model. Gives the JSON of docs/report.md.
inline std::string compile(const Model &model, const std::string &path, const CompileOptions &options = {},
                           const Call &call = {}) {
    const char *c_path = detail::c_text(path, "path");
    const auto example = detail::c_texts(options.example, "example");
    auto raw = detail::sized<optimize_compile_options_t>();
    raw.dynamic = options.dynamic;
    raw.batch_min = options.batch_min;
    raw.batch_max = options.batch_max;
    raw.dynamic_shapes = detail::c_text_or_null(options.dynamic_shapes, "dynamic_shapes");
    raw.example = example.data();
    raw.example_count = example.size();
    detail::Buffer report;
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_package_compile(model.get(), c_path, &raw, c_call, report.place(), error);
    });
    return report.text();
}

/// Compares all of a package with the hashes in it. Gives {"files", "bytes"} as JSON; throws invalid_model naming what was
/// changed.
inline std::string verify(const std::string &path, const Call &call = {}) {
    const char *c_path = detail::c_text(path, "path");
    detail::Buffer report;
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_package_verify(c_path, c_call, report.place(), error);
    });
    return report.text();
}

} // namespace optimize

#endif // OPTIMIZE_PACKAGE_HPP
