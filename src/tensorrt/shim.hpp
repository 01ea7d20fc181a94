// Definitions that shim.cc and run.cc share: the result, the log, and ownership of the library's objects.
#ifndef OPTIMIZE_TENSORRT_SHIM_HPP
#define OPTIMIZE_TENSORRT_SHIM_HPP

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "NvInfer.h"

#define PASTE(a, b) a##b
#define NAMED(a, b) PASTE(a, b)
#define SHIM_FUNCTION(name) NAMED(optimize_shim_##name##_, SHIM)

extern "C" {
typedef void (*log_fn)(void *user, int32_t severity, const char *message);

struct shim_result {
    void *engine;
    uint64_t engine_size;
    void *timing;
    uint64_t timing_size;
    int32_t stage; // the stage that failed: see shim.rs
    int32_t padding;
    char error[4096];
};
}

namespace {
using namespace nvinfer1;

// Collects the errors that the library logs, for messages of this library, and passes everything that is logged to
// `function`, unless that is NULL.
class Log final : public ILogger {
public:
    Log(log_fn function, void *user) : function_(function), user_(user) {}
    void log(Severity severity, char const *message) noexcept override {
        if (severity <= Severity::kERROR) {
            errors++;
            const size_t used = std::strlen(last);
            std::snprintf(last + used, sizeof last - used, "%s%s", used == 0 ? "" : "; ", message);
        }
        if (function_ != nullptr) function_(user_, static_cast<int32_t>(severity), message);
    }
    char last[3000] = "";
    int errors = 0;

private:
    log_fn function_;
    void *user_;
};

// Owns an object of the library. Pointers below 4096 count as NULL, because without a driver the library has returned
// invalid pointers such as 0x228.
template <typename T> class Owned {
public:
    explicit Owned(void *object) : object_(static_cast<T *>(object)) {}
    ~Owned() {
        if (*this) delete object_;
    }
    Owned(const Owned &) = delete;
    Owned &operator=(const Owned &) = delete;
    explicit operator bool() const { return reinterpret_cast<uintptr_t>(object_) >= 4096; }
    T *operator->() const { return object_; }
    T &operator*() const { return *object_; }

private:
    T *object_;
};

enum Stage { START = 1, PARSE, PROFILE, OPTION, BUILD, MEMORY, RUN };

inline int32_t fail(shim_result *result, Stage stage, const char *what, const Log &log) {
    result->stage = stage;
    const char *colon = log.last[0] == 0 || what[0] == 0 ? "" : ": ";
    std::snprintf(result->error, sizeof result->error, "%s%s%s", what, colon, log.last);
    return 1;
}
} // namespace

#endif // OPTIMIZE_TENSORRT_SHIM_HPP
