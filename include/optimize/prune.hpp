// Part of optimize.hpp: options of pruning.
#ifndef OPTIMIZE_PRUNE_HPP
#define OPTIMIZE_PRUNE_HPP

#include "handle.hpp"
#include "tensor.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace optimize {

/// Pruning method; see optimize_prune_method_t.
enum class PruneMethod : std::int32_t {
    magnitude = OPTIMIZE_PRUNE_MAGNITUDE,
    random = OPTIMIZE_PRUNE_RANDOM,
    wanda = OPTIMIZE_PRUNE_WANDA,
    sparsegpt = OPTIMIZE_PRUNE_SPARSEGPT,
    structured = OPTIMIZE_PRUNE_STRUCTURED,
};

/// Criterion by which structured pruning ranks neurons, channels and heads; see optimize_importance_t.
enum class Importance : std::int32_t {
    l1 = OPTIMIZE_IMPORTANCE_L1,
    l2 = OPTIMIZE_IMPORTANCE_L2,
    activation = OPTIMIZE_IMPORTANCE_ACTIVATION,
    random = OPTIMIZE_IMPORTANCE_RANDOM,
};

/// Options of Model::prune; see optimize_prune_options_t.
struct PruneOptions {
    PruneMethod method = PruneMethod::magnitude;
    double sparsity = 0;
    std::uint32_t pattern_keep = 0;
    std::uint32_t pattern_of = 0;
    bool global = false;
    bool embeddings = false;
    std::uint32_t threads = 0;
    Importance importance = Importance::l1;
    std::uint32_t round_to = 0;
    bool reconstruct = false;
    std::uint32_t drop_layers = 0;
    std::uint32_t calibration_windows = 0;
    std::uint32_t calibration_length = 0;
    std::uint64_t seed = 0;
    std::uint64_t min_elements = 0;
    std::vector<std::string> target_modules;
    std::vector<std::string> exclude;
    /// Overrides: texts `GLOB=SPARSITY`, which set another sparsity for matching modules, weights and nodes.
    std::vector<std::string> overrides;
    /// Calibration text; empty for none.
    std::string calibration;
    std::string scratch_folder;
    /// Indices of the layers to remove, instead of `drop_layers`; empty for none.
    std::vector<std::uint32_t> layers;
    std::uint64_t target_size = 0;
    double target_speedup = 0;
    /// Calibration tensors for the inputs, by name, instead of a text. They must live until the call ends.
    std::vector<std::pair<std::string, const Tensor *>> calibration_tensors;
};

namespace detail {

/// Calls `function` with the options as a C struct.
template <class F> void pruning(const PruneOptions &options, F &&function) {
    const auto target_modules = c_texts(options.target_modules, "target_modules");
    const auto exclude = c_texts(options.exclude, "exclude");
    const auto overrides = c_texts(options.overrides, "overrides");
    auto raw = sized<optimize_prune_options_t>();
    raw.method = static_cast<std::int32_t>(options.method);
    raw.sparsity = options.sparsity;
    raw.pattern_keep = options.pattern_keep;
    raw.pattern_of = options.pattern_of;
    raw.global = options.global;
    raw.embeddings = options.embeddings;
    raw.threads = options.threads;
    raw.importance = static_cast<std::int32_t>(options.importance);
    raw.round_to = options.round_to;
    raw.reconstruct = options.reconstruct;
    raw.drop_layers = options.drop_layers;
    raw.calibration_windows = options.calibration_windows;
    raw.calibration_length = options.calibration_length;
    raw.seed = options.seed;
    raw.min_elements = options.min_elements;
    raw.target_modules = target_modules.data();
    raw.target_module_count = target_modules.size();
    raw.exclude = exclude.data();
    raw.exclude_count = exclude.size();
    raw.overrides = overrides.data();
    raw.override_count = overrides.size();
    raw.calibration = options.calibration.empty() ? nullptr : options.calibration.data();
    raw.calibration_size = options.calibration.size();
    raw.scratch_folder = c_text_or_null(options.scratch_folder, "scratch_folder");
    raw.layers = options.layers.data();
    raw.layer_count = options.layers.size();
    raw.target_size = options.target_size;
    raw.target_speedup = options.target_speedup;
    const NamedTensors calibration(options.calibration_tensors, "calibration_tensors");
    raw.calibration_names = calibration.names.data();
    raw.calibration_tensors = calibration.tensors.data();
    raw.calibration_tensor_count = calibration.tensors.size();
    function(&raw);
}

} // namespace detail

} // namespace optimize

#endif // OPTIMIZE_PRUNE_HPP
