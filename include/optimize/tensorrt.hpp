// Part of optimize.hpp: TensorRT engines.
#ifndef OPTIMIZE_TENSORRT_HPP
#define OPTIMIZE_TENSORRT_HPP

#include "model.hpp"
#include "session.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace optimize {

/// Options of build_tensorrt; see optimize_tensorrt_options_t.
struct TensorRtOptions {
    optimize_precision_t precision = OPTIMIZE_PRECISION_FP32;
    optimize_tensorrt_backend_t backend = OPTIMIZE_TENSORRT_AUTO;
    std::uint32_t optimization_level = 0;
    std::uint64_t batch_size = 0;
    std::uint64_t sequence_length = 0;
    std::string dimensions;
    std::string min_shapes;
    std::string opt_shapes;
    std::string max_shapes;
    std::string profiles;
    std::string library;
    std::string timing_cache;
    std::uint64_t workspace = 0;
    double max_error = 0.0;
    std::vector<std::int32_t> compute_capabilities;
    bool version_compatible = false;
    bool hardware_compatible = false;
    bool strip = false;
    bool refit = false;
    bool sparsity = false;
    bool detailed = false;
    bool no_tf32 = false;
    bool force = false;
    bool refuse_mismatch = false;
    std::uint32_t threads = 0;
    /// int8 and fp8: path of the calibration data, a text or tensors (X.safetensors); empty selects built-in
    /// sentences or generated numbers.
    std::string calibration;
    /// Names of nodes, or of operators, that stay fp32.
    std::vector<std::string> keep_fp32;
    /// Whether only the graph for the engine is written, as an .onnx file, and no engine is built.
    bool graph_only = false;
};

/// Builds a TensorRT engine of a model, writes it to `path` with a manifest next to it, and returns the report; with
/// `graph_only`, only writes the graph for the engine. See optimize_model_build_tensorrt.
inline Report build_tensorrt(const Context &context, const Model &model, const std::string &path,
                                  const TensorRtOptions &options = {}, const Call &call = {}) {
    auto raw = detail::sized<optimize_tensorrt_options_t>();
    raw.precision = options.precision;
    raw.backend = options.backend;
    raw.optimization_level = options.optimization_level;
    raw.batch_size = options.batch_size;
    raw.sequence_length = options.sequence_length;
    raw.dimensions = detail::c_text_or_null(options.dimensions, "dimensions");
    raw.min_shapes = detail::c_text_or_null(options.min_shapes, "min_shapes");
    raw.opt_shapes = detail::c_text_or_null(options.opt_shapes, "opt_shapes");
    raw.max_shapes = detail::c_text_or_null(options.max_shapes, "max_shapes");
    raw.profiles = detail::c_text_or_null(options.profiles, "profiles");
    raw.library = detail::c_text_or_null(options.library, "library");
    raw.timing_cache = detail::c_text_or_null(options.timing_cache, "timing_cache");
    raw.workspace = options.workspace;
    raw.max_error = options.max_error;
    raw.compute_capabilities = options.compute_capabilities.data();
    raw.compute_capability_count = options.compute_capabilities.size();
    raw.version_compatible = options.version_compatible;
    raw.hardware_compatible = options.hardware_compatible;
    raw.strip = options.strip;
    raw.refit = options.refit;
    raw.sparsity = options.sparsity;
    raw.detailed = options.detailed;
    raw.no_tf32 = options.no_tf32;
    raw.force = options.force;
    raw.refuse_mismatch = options.refuse_mismatch;
    raw.threads = options.threads;
    raw.calibration = detail::c_text_or_null(options.calibration, "calibration");
    const auto keep_fp32 = detail::c_texts(options.keep_fp32, "keep_fp32");
    raw.keep_fp32 = keep_fp32.data();
    raw.keep_fp32_count = keep_fp32.size();
    raw.graph_only = options.graph_only;
    const char *c_path = detail::c_text(path, "path");
    detail::Buffer report;
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_model_build_tensorrt(context.get(), model.get(), c_path, &raw, c_call, report.place(), error);
    });
    return Report(std::move(report));
}

/// Checks whether an engine file can be used on this machine and, if `model` is not null, whether the engine was built
/// from `model`. Returns the manifest of the engine as JSON, and throws an Error if the check fails. With `trust`, you
/// state that you trust the source of the engine, which contains executable code; without it, the check fails. See
/// optimize_tensorrt_check.
inline Report check_tensorrt(const Context &context, const std::string &path, const Model *model = nullptr,
                                  bool trust = false, const Call &call = {}) {
    const char *c_path = detail::c_text(path, "path");
    const optimize_model_t *c_model = model == nullptr ? nullptr : model->get();
    detail::Buffer manifest;
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_tensorrt_check(context.get(), c_path, c_model, trust, c_call, manifest.place(), error);
    });
    return Report(std::move(manifest));
}

/// Returns a session of an engine file on a device. Without `trust` in the options, every engine is refused, because an
/// engine contains executable code. See optimize_tensorrt_open.
inline Session open_tensorrt(const Context &context, const std::string &path, const TensorRtOpenOptions &options = {},
                             const Call &call = {}) {
    const auto raw = options.native();
    const char *c_path = detail::c_text(path, "path");
    optimize_session_t *session = nullptr;
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_tensorrt_open(context.get(), c_path, &raw, c_call, &session, error);
    });
    return Session(session);
}

} // namespace optimize

#endif // OPTIMIZE_TENSORRT_HPP
