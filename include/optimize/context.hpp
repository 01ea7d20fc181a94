// Part of optimize.hpp: the version of the library, and where ONNX Runtime is.
#ifndef OPTIMIZE_CONTEXT_HPP
#define OPTIMIZE_CONTEXT_HPP

#include "handle.hpp"

#include <cstdint>
#include <string>

namespace optimize {

/// Options of Context; see optimize_context_options_t.
struct ContextOptions {
    std::uint32_t threads = 0;
    std::string runtime_library;
};

/// What sessions run on; see optimize_provider_t.
enum class Provider : std::int32_t {
    cpu = OPTIMIZE_PROVIDER_CPU,
    cuda = OPTIMIZE_PROVIDER_CUDA,
    tensorrt = OPTIMIZE_PROVIDER_TENSORRT,
    /// To ask with: TensorRT, else CUDA, else the processor.
    automatic = OPTIMIZE_PROVIDER_AUTO,
};

/// Where sessions run, in the options of all that makes some; see optimize_session_options_t.
struct Execution {
    Provider provider = Provider::cpu;
    std::uint32_t device_id = 0;
    /// TensorRT: absolute path of a folder for engines; empty keeps none.
    std::string engine_cache;

    /// Puts itself into a C struct, which must not outlive it.
    template <class T> void write(T &raw) const {
        raw.provider = static_cast<std::int32_t>(provider);
        raw.device_id = device_id;
        raw.engine_cache = detail::c_text_or_null(engine_cache, "engine_cache");
    }
};

/// How a TensorRT engine is opened; see optimize_tensorrt_open_options_t.
struct TensorRtOpenOptions {
    /// Whoever made it is trusted: an engine is code.
    bool trust = false;
    std::uint32_t device_id = 0;
    /// Of the model that it must be of; empty for any.
    std::string model_sha256;
    /// Folder of TensorRT's libraries; empty looks for them.
    std::string library;

    /// As C takes them; must not outlive this.
    optimize_tensorrt_open_options_t native() const {
        auto raw = detail::sized<optimize_tensorrt_open_options_t>();
        raw.trust = trust;
        raw.device_id = device_id;
        raw.model_sha256 = detail::c_text_or_null(model_sha256, "model_sha256");
        raw.library = detail::c_text_or_null(library, "library");
        return raw;
    }
};

/// The version of the library, e.g. "0.1.0".
inline std::string version() { return optimize_version(); }

/// Where ONNX Runtime is, and how many threads calls use. One per program is usual.
class Context : public detail::Handle<optimize_context_t, optimize_context_free> {
public:
    explicit Context(const ContextOptions &options = {}) {
        auto raw = detail::sized<optimize_context_options_t>();
        raw.threads = options.threads;
        raw.runtime_library = detail::c_text_or_null(options.runtime_library, "runtime_library");
        detail::attempt([&](auto **error) { return optimize_context_new(&raw, place(), error); });
    }
    /// Opens ONNX Runtime, if it is not open yet, and gives its version, e.g. "1.32.0".
    std::string runtime_version() const {
        const char *version = nullptr;
        detail::attempt([&](auto **error) { return optimize_context_runtime_version(get(), &version, error); });
        return version;
    }
    /// What sessions can run on here, best first, as JSON: a list of "provider", "device_id", "available" and, if it is
    /// not, "status" and "reason".
    std::string providers(std::uint32_t device_id = 0) const {
        detail::Buffer json;
        detail::attempt([&](auto **error) { return optimize_context_providers(get(), device_id, json.place(), error); });
        return json.text();
    }
};

} // namespace optimize

#endif // OPTIMIZE_CONTEXT_HPP
