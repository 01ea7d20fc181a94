// Part of optimize.hpp: recipes, which apply several techniques one after another.
#ifndef OPTIMIZE_RECIPE_HPP
#define OPTIMIZE_RECIPE_HPP

#include "context.hpp"
#include "model.hpp"

#include <cstdint>
#include <string>

namespace optimize {

/// Options of apply; see optimize_apply_options_t.
struct ApplyOptions {
    std::uint32_t threads = 0;
    /// Text for steps whose data or calibration data is `true` in the recipe; empty for none.
    std::string data;
};

/// Runs the steps of a recipe (JSON) on a model, writes the result to `path`, and returns the report as JSON. See
/// optimize_model_apply.
inline std::string apply(const Context &context, const Model &model, const std::string &recipe, const std::string &path,
                         const ApplyOptions &options = {}, const Call &call = {}) {
    auto raw = detail::sized<optimize_apply_options_t>();
    raw.threads = options.threads;
    raw.data = options.data.empty() ? nullptr : options.data.data();
    raw.data_size = options.data.size();
    const char *c_recipe = detail::c_text(recipe, "recipe");
    const char *c_path = detail::c_text(path, "path");
    detail::Buffer report;
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_model_apply(context.get(), model.get(), c_recipe, c_path, &raw, c_call, report.place(), error);
    });
    return report.text();
}

} // namespace optimize

#endif // OPTIMIZE_RECIPE_HPP
