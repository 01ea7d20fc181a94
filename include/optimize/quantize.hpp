// Part of optimize.hpp: options of quantization.
#ifndef OPTIMIZE_QUANTIZE_HPP
#define OPTIMIZE_QUANTIZE_HPP

#include "handle.hpp"
#include "tensor.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace optimize {

/// Kind of quantization; see optimize_quantize_type_t.
enum class QuantizeType : std::int32_t {
    dynamic = OPTIMIZE_QUANTIZE_DYNAMIC,
    weight_only = OPTIMIZE_QUANTIZE_WEIGHT_ONLY,
    static_ranges = OPTIMIZE_QUANTIZE_STATIC,
};

/// Type of the scales of blocks in the file (weight-only); see optimize_scale_type_t.
enum class ScaleType : std::int32_t {
    uint8 = OPTIMIZE_SCALE_UINT8,
    float16 = OPTIMIZE_SCALE_FLOAT16,
    float32 = OPTIMIZE_SCALE_FLOAT32,
};

/// Use of 7 instead of 8 bits for weights; see optimize_reduce_range_t.
enum class ReduceRange : std::int32_t {
    automatic = OPTIMIZE_REDUCE_RANGE_AUTO,
    on = OPTIMIZE_REDUCE_RANGE_ON,
    off = OPTIMIZE_REDUCE_RANGE_OFF,
};

/// Algorithm that chooses the codes of block-quantized weights; see optimize_algorithm_t.
enum class Algorithm : std::int32_t {
    automatic = OPTIMIZE_ALGORITHM_AUTO,
    rtn = OPTIMIZE_ALGORITHM_RTN,
    hqq = OPTIMIZE_ALGORITHM_HQQ,
    gptq = OPTIMIZE_ALGORITHM_GPTQ,
    awq = OPTIMIZE_ALGORITHM_AWQ,
};

/// Method that determines the range of an activation; see optimize_calibration_method_t.
enum class CalibrationMethod : std::int32_t {
    min_max = OPTIMIZE_CALIBRATION_MIN_MAX,
    percentile = OPTIMIZE_CALIBRATION_PERCENTILE,
    entropy = OPTIMIZE_CALIBRATION_ENTROPY,
    mse = OPTIMIZE_CALIBRATION_MSE,
};

/// Options of Model::quantize; see optimize_quantize_options_t.
struct QuantizeOptions {
    QuantizeType type = QuantizeType::dynamic;
    std::uint32_t bits = 0;
    ReduceRange reduce_range = ReduceRange::automatic;
    bool per_tensor = false;
    bool keep_embeddings = false;
    std::uint32_t threads = 0;
    std::uint32_t block_size = 0;
    bool symmetric = false;
    ScaleType scale_type = ScaleType::uint8;
    std::uint32_t accuracy_level = 0;
    std::uint64_t min_elements = 0;
    std::vector<std::string> include;
    std::vector<std::string> exclude;
    /// Overrides: texts `GLOB=BITS` or `GLOB=BITS/BLOCK`, which set other bits and another block size for matching
    /// nodes and weights.
    std::vector<std::string> overrides;
    /// Calibration text; empty for none.
    std::string calibration;
    std::uint32_t calibration_windows = 0;
    std::uint32_t calibration_length = 0;
    std::string scratch_folder;
    Algorithm algorithm = Algorithm::automatic;
    CalibrationMethod calibration_method = CalibrationMethod::min_max;
    double percentile = 0;
    double smooth_quant = 0;
    double max_quality_loss = 0;
    std::uint64_t target_size = 0;
    bool never_slower = false;
    /// Calibration tensors for the inputs, by name, instead of a text. Their first dimension counts samples. They
    /// must live until the call ends.
    std::vector<std::pair<std::string, const Tensor *>> calibration_tensors;
};

namespace detail {

/// Calls `function` with the options as a C struct.
template <class F> void quantizing(const QuantizeOptions &options, F &&function) {
    const auto include = c_texts(options.include, "include");
    const auto exclude = c_texts(options.exclude, "exclude");
    const auto overrides = c_texts(options.overrides, "overrides");
    auto raw = sized<optimize_quantize_options_t>();
    raw.type = static_cast<std::int32_t>(options.type);
    raw.bits = options.bits;
    raw.reduce_range = static_cast<std::int32_t>(options.reduce_range);
    raw.per_tensor = options.per_tensor;
    raw.keep_embeddings = options.keep_embeddings;
    raw.threads = options.threads;
    raw.block_size = options.block_size;
    raw.symmetric = options.symmetric;
    raw.scale_type = static_cast<std::int32_t>(options.scale_type);
    raw.accuracy_level = options.accuracy_level;
    raw.min_elements = options.min_elements;
    raw.include = include.data();
    raw.include_count = include.size();
    raw.exclude = exclude.data();
    raw.exclude_count = exclude.size();
    raw.overrides = overrides.data();
    raw.override_count = overrides.size();
    raw.calibration = options.calibration.empty() ? nullptr : options.calibration.data();
    raw.calibration_size = options.calibration.size();
    raw.calibration_windows = options.calibration_windows;
    raw.calibration_length = options.calibration_length;
    raw.scratch_folder = c_text_or_null(options.scratch_folder, "scratch_folder");
    raw.algorithm = static_cast<std::int32_t>(options.algorithm);
    raw.calibration_method = static_cast<std::int32_t>(options.calibration_method);
    raw.percentile = options.percentile;
    raw.smooth_quant = options.smooth_quant;
    raw.max_quality_loss = options.max_quality_loss;
    raw.target_size = options.target_size;
    raw.never_slower = options.never_slower;
    const NamedTensors calibration(options.calibration_tensors, "calibration_tensors");
    raw.calibration_names = calibration.names.data();
    raw.calibration_tensors = calibration.tensors.data();
    raw.calibration_tensor_count = calibration.tensors.size();
    function(&raw);
}

} // namespace detail

} // namespace optimize

#endif // OPTIMIZE_QUANTIZE_HPP
