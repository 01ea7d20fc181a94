// Part of optimize.hpp: models whose outputs are combined, or whose weights are merged.
#ifndef OPTIMIZE_ENSEMBLE_HPP
#define OPTIMIZE_ENSEMBLE_HPP

#include "generator.hpp"
#include "model.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace optimize {

/// Method by which the outputs of the members are combined; see optimize_ensemble_method_t.
enum class EnsembleMethod : std::int32_t {
    mean = OPTIMIZE_ENSEMBLE_MEAN,
    weighted = OPTIMIZE_ENSEMBLE_WEIGHTED,
    logits = OPTIMIZE_ENSEMBLE_LOGITS,
    product = OPTIMIZE_ENSEMBLE_PRODUCT,
    max = OPTIMIZE_ENSEMBLE_MAX,
    median = OPTIMIZE_ENSEMBLE_MEDIAN,
    vote = OPTIMIZE_ENSEMBLE_VOTE,
    contrastive = OPTIMIZE_ENSEMBLE_CONTRASTIVE,
    rerank = OPTIMIZE_ENSEMBLE_RERANK,
    concat = OPTIMIZE_ENSEMBLE_CONCAT,
};

/// Task of the members; see optimize_ensemble_task_t.
enum class EnsembleTask : std::int32_t {
    as_members = OPTIMIZE_ENSEMBLE_AS_MEMBERS,
    generate = OPTIMIZE_ENSEMBLE_GENERATE,
    embed = OPTIMIZE_ENSEMBLE_EMBED,
    classify = OPTIMIZE_ENSEMBLE_CLASSIFY,
    numbers = OPTIMIZE_ENSEMBLE_NUMBERS,
};

/// Options of Ensemble; see optimize_ensemble_options_t.
struct EnsembleOptions {
    EnsembleMethod method = EnsembleMethod::mean;
    EnsembleTask task = EnsembleTask::as_members;
    bool gate = false;
    bool allow_different_vocabularies = false;
    std::uint32_t candidates = 0;
    double length_penalty = 0; ///< 0 selects 1; a negative value disables the penalty.
    /// Weights of the members; empty selects equal weights.
    std::vector<double> weights;
    /// Temperatures by which the logits of the members are divided; empty selects 1 for each.
    std::vector<double> temperatures;
};

/// Options of Ensemble::fit; see optimize_fit_options_t.
struct FitOptions {
    std::uint32_t threads = 0;
    std::uint32_t context_length = 0;
    std::uint32_t stride = 0;
    std::uint64_t max_tokens = 0;
};

/// Method by which the weights of several models are merged; see optimize_merge_method_t.
enum class MergeMethod : std::int32_t {
    linear = OPTIMIZE_MERGE_LINEAR,
    slerp = OPTIMIZE_MERGE_SLERP,
    ties = OPTIMIZE_MERGE_TIES,
};

/// Options of merge; see optimize_merge_options_t.
struct MergeOptions {
    MergeMethod method = MergeMethod::linear;
    std::vector<double> weights;
    /// Ties only: the base model, from which the models were trained. It must live until the call ends.
    const Model *base = nullptr;
    double density = 0;
    double scale = 0;
    std::string scratch_folder;
};

Combined merge(const std::vector<const Model *> &models, const MergeOptions &options = {}, const Call &call = {});

/// Result of Ensemble::fuse and merge.
struct Combined {
    /// Fused or merged model.
    Model model;
    /// Report in the JSON of docs/report.md: the fused members or the merged models, and notes on them.
    Report report;
};

namespace detail {

inline std::vector<const optimize_model_t *> c_models(const std::vector<const Model *> &models) {
    std::vector<const optimize_model_t *> raw;
    for (const Model *model : models) raw.push_back(model == nullptr ? nullptr : model->get());
    return raw;
}

} // namespace detail

/// An ensemble: several models and the method that combines their outputs. It is immutable.
class Ensemble : public detail::Handle<optimize_ensemble_t, optimize_ensemble_free> {
public:
    /// Creates an ensemble of models, which may be destroyed before the ensemble.
    explicit Ensemble(const std::vector<const Model *> &models, const EnsembleOptions &options = {}) {
        const auto members = detail::c_models(models);
        auto raw = detail::sized<optimize_ensemble_options_t>();
        raw.method = static_cast<std::int32_t>(options.method);
        raw.task = static_cast<std::int32_t>(options.task);
        raw.gate = options.gate;
        raw.allow_different_vocabularies = options.allow_different_vocabularies;
        raw.candidates = options.candidates;
        raw.length_penalty = options.length_penalty;
        raw.weights = options.weights.data();
        raw.weight_count = options.weights.size();
        raw.temperatures = options.temperatures.data();
        raw.temperature_count = options.temperatures.size();
        detail::attempt([&](auto **error) {
            return optimize_ensemble_new(members.data(), members.size(), &raw, place(), error);
        });
    }
    /// Loads an ensemble and its members from a manifest: `ensemble.json`, or a folder that contains it.
    static Ensemble load(const std::string &path) {
        const char *c_path = detail::c_text(path, "path");
        Ensemble made;
        detail::attempt([&](auto **error) { return optimize_ensemble_load(c_path, made.place(), error); });
        return made;
    }
    /// Saves a manifest with the paths of the members in a folder, which is created if necessary. The members are not
    /// copied.
    void save(const std::string &folder) const {
        const char *c_folder = detail::c_text(folder, "folder");
        detail::attempt([&](auto **error) { return optimize_ensemble_save(get(), c_folder, error); });
    }
    /// Returns a description of the ensemble as JSON: {"method", "task", "members", "weights", "temperatures",
    /// "notes"}.
    Report inspect() const {
        detail::Buffer report;
        detail::attempt([&](auto **error) { return optimize_ensemble_inspect(get(), report.place(), error); });
        return Report(std::move(report));
    }
    /// Returns an ensemble with weights that are fitted to a text, and a report as JSON; see optimize_ensemble_fit.
    std::pair<Ensemble, std::string> fit(const Context &context, std::string_view text, const FitOptions &options = {},
                                         const Call &call = {}) const {
        auto raw = detail::sized<optimize_fit_options_t>();
        raw.threads = options.threads;
        raw.context_length = options.context_length;
        raw.stride = options.stride;
        raw.max_tokens = options.max_tokens;
        Ensemble made;
        detail::Buffer report;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_ensemble_fit(context.get(), get(), text.data(), text.size(), &raw, c_call, made.place(),
                                         report.place(), error);
        });
        return {std::move(made), Report(std::move(report))};
    }
    /// Returns a model that contains all members as branches and combines their outputs, and a report.
    Combined fuse(const Call &call = {}) const {
        auto made = Model::make([&](auto **model, auto **report) {
            detail::attempt(call, [&](auto *c_call, auto **error) {
                return optimize_ensemble_fuse(get(), c_call, model, report, error);
            });
        });
        return {std::move(made.first), std::move(made.second)};
    }
    /// Returns a generator that combines the distributions of the members for every token.
    Generator generator(const Context &context, const GeneratorOptions &options = {}, const Call &call = {}) const {
        return Generator(context, *this, options, call);
    }

private:
    Ensemble() = default;
};

inline Generator::Generator(const Context &context, const Ensemble &ensemble, const GeneratorOptions &options,
                            const Call &call) {
    const auto raw = c_options(options);
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_ensemble_generator(context.get(), ensemble.get(), &raw, c_call, place(), error);
    });
}

/// Returns a model of the same size with the merged weights of models of one architecture, and a report. See
/// optimize_model_merge.
inline Combined merge(const std::vector<const Model *> &models, const MergeOptions &options, const Call &call) {
    const auto members = detail::c_models(models);
    auto raw = detail::sized<optimize_merge_options_t>();
    raw.method = static_cast<std::int32_t>(options.method);
    raw.weights = options.weights.data();
    raw.weight_count = options.weights.size();
    raw.base = options.base == nullptr ? nullptr : options.base->get();
    raw.density = options.density;
    raw.scale = options.scale;
    raw.scratch_folder = detail::c_text_or_null(options.scratch_folder, "scratch_folder");
    auto made = Model::make([&](auto **model, auto **report) {
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_merge(members.data(), members.size(), &raw, c_call, model, report, error);
        });
    });
    return {std::move(made.first), std::move(made.second)};
}

} // namespace optimize

#endif // OPTIMIZE_ENSEMBLE_HPP
