// Part of optimize.hpp: messages and counters of the library.
#ifndef OPTIMIZE_LOG_HPP
#define OPTIMIZE_LOG_HPP

#include "handle.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

namespace optimize {

/// Level of a log message; see optimize_log_level_t.
enum class LogLevel : std::int32_t {
    error = OPTIMIZE_LOG_LEVEL_ERROR,
    warning = OPTIMIZE_LOG_LEVEL_WARNING,
    info = OPTIMIZE_LOG_LEVEL_INFO,
    debug = OPTIMIZE_LOG_LEVEL_DEBUG,
};

/// Log callback: `target` is "optimize" or "onnxruntime". The callback can be called on any thread, also on several at
/// once, and receives the messages of the whole process. Exceptions that it throws are ignored.
using LogFunction = std::function<void(LogLevel level, std::string_view target, std::string_view message)>;

/// Counters of all models, sessions and threads of the process since its start; see optimize_counters_t.
struct Counters {
    std::uint64_t models_loaded = 0;
    std::uint64_t bytes_loaded = 0;
    double load_seconds = 0;
    std::uint64_t sessions_created = 0;
    double session_seconds = 0;
    std::uint64_t runs = 0;
    std::uint64_t failed_runs = 0;
    double run_seconds = 0;
    std::uint64_t active_runs = 0;
    std::uint64_t waiting_calls = 0;
    std::uint64_t read_tokens = 0;
    std::uint64_t generated_tokens = 0;
};

/// Format of Context::counters_text; see optimize_counters_format_t.
enum class CountersFormat : std::int32_t {
    json = OPTIMIZE_COUNTERS_FORMAT_JSON,
    prometheus = OPTIMIZE_COUNTERS_FORMAT_PROMETHEUS,
};

namespace detail {

/// A log callback at an address that does not change when the context is moved, because the C library keeps its
/// address. It must outlive the C context.
class Logger {
public:
    explicit Logger(const LogFunction &function)
        : function_(function ? std::make_unique<const LogFunction>(function) : nullptr) {}
    template <class T> void write(T &raw) const noexcept {
        if (!function_) return;
        raw.log = &Logger::log;
        raw.log_user_data = const_cast<LogFunction *>(function_.get());
    }

private:
    static void log(void *self, std::int32_t level, const char *target, const char *message) noexcept {
        try {
            (*static_cast<const LogFunction *>(self))(static_cast<LogLevel>(level), target, message);
        } catch (...) {
        }
    }

    std::unique_ptr<const LogFunction> function_;
};

} // namespace detail

} // namespace optimize

#endif // OPTIMIZE_LOG_HPP
