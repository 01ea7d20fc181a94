// Part of optimize.hpp: progress, timeout and cancel of a call.
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

/// A flag that any thread may raise to stop the calls it was given to.
class Cancel : public detail::Handle<optimize_cancel_t, optimize_cancel_free> {
public:
    Cancel() {
        detail::attempt([&](auto **error) { return optimize_cancel_new(place(), error); });
    }
    /// Stops every call that was given this token, now and later. From any thread, any number of times.
    void fire() const {
        detail::attempt([&](auto **error) { return optimize_cancel_fire(get(), error); });
    }
};

/// What every long call takes besides its options.
struct Call {
    /// Called on the thread that made the call, at most 20 times a second; `total` is 0 if unknown. Returning
    /// false cancels. What it throws cancels too, and is thrown again by the call.
    std::function<bool(std::string_view stage, std::uint64_t done, std::uint64_t total)> progress;
    /// Time after which the call throws Status::timeout. One that is over already is taken as a millisecond.
    std::optional<std::chrono::milliseconds> timeout;
    /// Token that any thread may fire to end the call with Status::cancelled.
    const Cancel *cancel = nullptr;
};

namespace detail {

/// Keeps what the functions of a call throw, which must not pass through C, until the call is over.
class Thrown {
public:
    /// What a C callback answers for `function`, which says whether to go on.
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

/// A Call in the form C takes.
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

/// As the other attempt, for `function(call, error)`. What was thrown meanwhile wins.
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
