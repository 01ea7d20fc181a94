// Part of optimize.hpp: progress, timeout and cancellation of a call.
#ifndef OPTIMIZE_CALL_HPP
#define OPTIMIZE_CALL_HPP

#include "handle.hpp"

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

namespace optimize {

/// A cancel token. Any thread can fire it to stop all calls to which it was passed.
class Cancel : public detail::Handle<optimize_cancel_t, optimize_cancel_free> {
public:
    /// Creates a token that has not been fired.
    Cancel() {
        detail::attempt([&](auto **error) { return optimize_cancel_new(place(), error); });
    }
    /// Cancels all running and later calls to which this token is passed. Any thread may call this function, any number
    /// of times.
    void fire() const {
        detail::attempt([&](auto **error) { return optimize_cancel_fire(get(), error); });
    }
};

/// Progress, timeout and cancellation of a call.
struct Call {
    /// Progress callback; see optimize_progress_fn. It is called on the thread that made the call: for the first report
    /// of a stage, then at most 20 times per second, and when `done` reaches `total`, which is 0 if it is unknown. A
    /// return value of false cancels the call. An exception also cancels the call, which then throws it.
    std::function<bool(std::string_view stage, std::uint64_t done, std::uint64_t total)> progress;
    /// Timeout, after which the call throws an Error with Status::timeout. A value below one millisecond is treated as
    /// one millisecond.
    std::optional<std::chrono::milliseconds> timeout;
    /// Cancel token, or null. When it is fired, the call throws an Error with Status::cancelled. It must live until the
    /// call ends.
    const Cancel *cancel = nullptr;
};

namespace detail {

/// Keeps the exception that a callback has thrown until the call ends, because an exception must not pass through C.
class Thrown {
public:
    /// Calls `function`, which returns whether to continue, and returns the result of the C callback: 0 to continue,
    /// otherwise 1. An exception is kept, and also returns 1.
    template <class F> std::int32_t guard(F &&function) noexcept {
        try {
            return function() ? 0 : 1;
        } catch (...) {
            exception_ = std::current_exception();
            return 1;
        }
    }
    void rethrow() const {
        if (exception_) std::rethrow_exception(exception_);
    }

private:
    std::exception_ptr exception_;
};

/// The options of a call as a C struct.
class Watch {
public:
    Watch(const Call &call, Thrown &thrown) : call_(call), thrown_(thrown), raw_(sized<optimize_call_t>()) {
        if (call.timeout) raw_.timeout_ms = clamped(call.timeout->count());
        if (call.progress) raw_.progress = &Watch::progress;
        raw_.user_data = this;
        raw_.cancel = call.cancel ? call.cancel->get() : nullptr;
    }
    Watch(const Watch &) = delete;
    Watch &operator=(const Watch &) = delete;

    const optimize_call_t *get() const noexcept { return &raw_; }

private:
    static std::uint32_t clamped(std::chrono::milliseconds::rep count) noexcept {
        using Limits = std::numeric_limits<std::uint32_t>;
        if (count < 1) return 1;
        return count > Limits::max() ? Limits::max() : static_cast<std::uint32_t>(count);
    }
    static std::int32_t progress(void *self, const char *stage, std::uint64_t done, std::uint64_t total) noexcept {
        const auto &watch = *static_cast<const Watch *>(self);
        return watch.thrown_.guard([&] { return watch.call_.progress(stage, done, total); });
    }

    const Call &call_;
    Thrown &thrown_;
    optimize_call_t raw_;
};

/// Calls `function(call, error)`. If a callback has thrown an exception, throws it; otherwise, if the function fails,
/// throws the error of its status.
template <class F> void attempt(const Call &call, Thrown &thrown, F &&function) {
    const Watch watch(call, thrown);
    optimize_error_t *raw = nullptr;
    const optimize_status_t status = function(watch.get(), &raw);
    const OwnedError error(raw);
    thrown.rethrow();
    check(status, error);
}
template <class F> void attempt(const Call &call, F &&function) {
    Thrown thrown;
    attempt(call, thrown, std::forward<F>(function));
}

} // namespace detail

} // namespace optimize

#endif // OPTIMIZE_CALL_HPP
