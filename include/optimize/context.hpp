// Part of optimize.hpp: the version of the library, the context, and options for the execution of models.
#ifndef OPTIMIZE_CONTEXT_HPP
#define OPTIMIZE_CONTEXT_HPP

#include "log.hpp"
#include "report.hpp"

#include <cstdint>
#include <string>
#include <utility>

namespace optimize {

/// Options of Context; see optimize_context_options_t.
struct ContextOptions {
    std::uint32_t threads = 0;
    std::string runtime_library;
    /// Log callback; an empty function receives no messages. It is called until the context is destroyed.
    LogFunction log;
    /// Most detailed level of the messages that the log callback receives.
    LogLevel log_level = LogLevel::warning;
    /// Maximum memory in bytes of models and sessions, beyond which calls throw an Error with Status::limit_exceeded; 0
    /// means no limit.
    std::uint64_t memory_limit = 0;
};

/// Execution provider of a session; see optimize_provider_t.
enum class Provider : std::int32_t {
    cpu = OPTIMIZE_PROVIDER_CPU,
    cuda = OPTIMIZE_PROVIDER_CUDA,
    tensorrt = OPTIMIZE_PROVIDER_TENSORRT,
    /// The first of TensorRT, CUDA and the CPU with which the session can be created. This value occurs only in
    /// options.
    automatic = OPTIMIZE_PROVIDER_AUTO,
};

/// Kernels that run the nodes of a session on the CPU; see optimize_kernels_t.
enum class Kernels : std::int32_t {
    automatic = OPTIMIZE_KERNELS_AUTO,
    stock = OPTIMIZE_KERNELS_STOCK,
};

/// Precision of matrix products of float32 inputs and constant weights on the CPU; see optimize_session_precision_t.
enum class SessionPrecision : std::int32_t {
    fp32 = OPTIMIZE_SESSION_PRECISION_FP32,
    bf16 = OPTIMIZE_SESSION_PRECISION_BF16,
    int8 = OPTIMIZE_SESSION_PRECISION_INT8,
};

/// Element type of the KV cache of a decoder; see optimize_kv_cache_type_t.
enum class KvCacheType : std::int32_t {
    float32 = OPTIMIZE_KV_CACHE_TYPE_FLOAT32,
    bfloat16 = OPTIMIZE_KV_CACHE_TYPE_BFLOAT16,
};

/// Execution provider, kernels, precision and device of sessions. Several option structs contain this struct; see
/// optimize_session_options_t.
struct Execution {
    Provider provider = Provider::cpu;
    Kernels kernels = Kernels::automatic;
    SessionPrecision precision = SessionPrecision::fp32;
    std::uint32_t device_id = 0;
    /// TensorRT: absolute path of a folder that caches engines; empty disables the cache.
    std::string engine_cache;

    /// Writes the options to a C struct, which must not outlive this object.
    template <class T> void write(T &raw) const {
        raw.provider = static_cast<std::int32_t>(provider);
        raw.device_id = device_id;
        raw.engine_cache = detail::c_text_or_null(engine_cache, "engine_cache");
        raw.kernels = static_cast<std::int32_t>(kernels);
        raw.precision = static_cast<std::int32_t>(precision);
    }
};

/// Options of open_tensorrt; see optimize_tensorrt_open_options_t.
struct TensorRtOpenOptions {
    /// Whether you trust the source of the engine, which contains executable code. If this is false, every engine is
    /// refused.
    bool trust = false;
    std::uint32_t device_id = 0;
    /// SHA-256 of the model from which the engine must have been built; empty allows any model.
    std::string model_sha256;
    /// Folder of TensorRT's libraries; empty searches for them.
    std::string library;

    /// Returns the options as a C struct, which must not outlive this object.
    optimize_tensorrt_open_options_t native() const {
        auto raw = detail::sized<optimize_tensorrt_open_options_t>();
        raw.trust = trust;
        raw.device_id = device_id;
        raw.model_sha256 = detail::c_text_or_null(model_sha256, "model_sha256");
        raw.library = detail::c_text_or_null(library, "library");
        return raw;
    }
};

/// Returns the version of the library, for example "0.1.0".
inline std::string version() { return optimize_version(); }
/// Returns the version of the library as a number that can be compared with OPTIMIZE_VERSION of the header.
inline std::uint32_t version_number() noexcept { return optimize_version_number(); }

/// A context: the ONNX Runtime library, the default number of threads, the log callback and the memory limit. A program
/// usually has one context.
class Context : private detail::Logger, public detail::Handle<optimize_context_t, optimize_context_free> {
public:
    /// Creates a context. ONNX Runtime is opened when it is first needed.
    explicit Context(const ContextOptions &options = {}) : Logger(options.log) {
        auto raw = detail::sized<optimize_context_options_t>();
        raw.threads = options.threads;
        raw.runtime_library = detail::c_text_or_null(options.runtime_library, "runtime_library");
        raw.log_level = static_cast<std::int32_t>(options.log_level);
        raw.memory_limit = options.memory_limit;
        Logger::write(raw);
        detail::attempt([&](auto **error) { return optimize_context_new(&raw, place(), error); });
    }
    Context(Context &&other) noexcept = default;
    Context &operator=(Context &&other) noexcept {
        Handle::operator=(std::move(other)); // the old context is freed before its log callback
        Logger::operator=(std::move(other));
        return *this;
    }
    /// Returns the version of ONNX Runtime, for example "1.32.0". This opens ONNX Runtime if it is not open yet.
    std::string runtime_version() const {
        const char *version = nullptr;
        detail::attempt([&](auto **error) { return optimize_context_runtime_version(get(), &version, error); });
        return version;
    }
    /// Returns the execution providers, best first, as JSON: a list of objects with "provider", "device_id",
    /// "available" and, if the provider is not available, "status" and "reason". See optimize_context_providers.
    Report providers(std::uint32_t device_id = 0) const {
        detail::Buffer json;
        detail::attempt(
            [&](auto **error) { return optimize_context_providers(get(), device_id, json.place(), error); });
        return Report(std::move(json));
    }
    /// Returns the counters of all models, sessions and threads of the process.
    Counters counters() const {
        auto raw = detail::sized<optimize_counters_t>();
        detail::attempt([&](auto **error) { return optimize_context_counters(get(), &raw, error); });
        return {raw.models_loaded, raw.bytes_loaded, raw.load_seconds, raw.sessions_created, raw.session_seconds,
                raw.runs, raw.failed_runs, raw.run_seconds, raw.active_runs, raw.waiting_calls, raw.read_tokens,
                raw.generated_tokens};
    }
    /// Returns the counters of the process as JSON or in the text format of Prometheus.
    std::string counters_text(CountersFormat format = CountersFormat::json) const {
        detail::Buffer text;
        detail::attempt([&](auto **error) {
            return optimize_context_counters_text(get(), static_cast<std::int32_t>(format), text.place(), error);
        });
        return text.text();
    }
};

} // namespace optimize

#endif // OPTIMIZE_CONTEXT_HPP
