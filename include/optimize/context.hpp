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
};

} // namespace optimize

#endif // OPTIMIZE_CONTEXT_HPP
