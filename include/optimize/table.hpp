// Part of optimize.hpp: the table of techniques.
#ifndef OPTIMIZE_TABLE_HPP
#define OPTIMIZE_TABLE_HPP

#include "context.hpp"
#include "model.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace optimize {

/// Options of table; see optimize_table_options_t.
struct TableOptions {
    std::uint32_t threads = 0;
    std::uint32_t runs = 0;
    std::uint32_t max_milliseconds = 0;
    std::uint32_t training_milliseconds = 0;
    /// Text for calibration, training and quality; empty for none.
    std::string data;
    /// Names of the rows to measure; empty selects all.
    std::vector<std::string> rows;
    /// Path of a second model for the row `ensemble`; empty selects the result of the row `distill`.
    std::string with;
};

/// Applies the techniques of the rows to models and measures the results, writes the table and the packages to
/// `folder`, and returns the table as JSON. See optimize_models_table.
inline std::string table(const Context &context, const std::vector<const Model *> &models, const std::string &folder,
                         const TableOptions &options = {}, const Call &call = {}) {
    auto raw = detail::sized<optimize_table_options_t>();
    raw.threads = options.threads;
    raw.runs = options.runs;
    raw.max_milliseconds = options.max_milliseconds;
    raw.training_milliseconds = options.training_milliseconds;
    raw.data = options.data.empty() ? nullptr : options.data.data();
    raw.data_size = options.data.size();
    const auto rows = detail::c_texts(options.rows, "rows");
    raw.rows = rows.data();
    raw.row_count = rows.size();
    raw.with = detail::c_text_or_null(options.with, "with");
    std::vector<const optimize_model_t *> handles;
    for (const Model *model : models) handles.push_back(model == nullptr ? nullptr : model->get());
    const char *c_folder = detail::c_text(folder, "folder");
    detail::Buffer report;
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_models_table(context.get(), handles.data(), handles.size(), c_folder, &raw, c_call,
                                     report.place(), error);
    });
    return report.text();
}

} // namespace optimize

#endif // OPTIMIZE_TABLE_HPP
