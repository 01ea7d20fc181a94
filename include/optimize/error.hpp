// Part of optimize.hpp: status codes and exceptions.
#ifndef OPTIMIZE_ERROR_HPP
#define OPTIMIZE_ERROR_HPP

#include "../optimize.h"

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

namespace optimize {

/// Status of a failure; see optimize_status_t.
enum class Status : std::int32_t {
    ok = OPTIMIZE_OK,
    invalid_argument = OPTIMIZE_INVALID_ARGUMENT,
    invalid_handle = OPTIMIZE_INVALID_HANDLE,
    not_found = OPTIMIZE_NOT_FOUND,
    io = OPTIMIZE_IO,
    invalid_model = OPTIMIZE_INVALID_MODEL,
    unsupported = OPTIMIZE_UNSUPPORTED,
    limit_exceeded = OPTIMIZE_LIMIT_EXCEEDED,
    runtime_missing = OPTIMIZE_RUNTIME_MISSING,
    runtime = OPTIMIZE_RUNTIME,
    cancelled = OPTIMIZE_CANCELLED,
    timeout = OPTIMIZE_TIMEOUT,
    busy = OPTIMIZE_BUSY,
    gate_not_met = OPTIMIZE_GATE_NOT_MET,
    internal = OPTIMIZE_INTERNAL,
    backend_missing = OPTIMIZE_BACKEND_MISSING,
    device_missing = OPTIMIZE_DEVICE_MISSING,
    backend = OPTIMIZE_BACKEND,
    mismatch = OPTIMIZE_MISMATCH,
    untrusted = OPTIMIZE_UNTRUSTED,
};

/// The exception for failures of the library. what() is "place: message", or the message if there is no place.
class Error : public std::runtime_error {
public:
    /// Creates an error with this status, message and place.
    Error(Status status, const std::string &message, const std::string &place = {})
        : std::runtime_error(place.empty() ? message : place + ": " + message), status_(status),
          text_(std::make_shared<const Text>(Text{message, place})) {}

    /// Returns the status of the failure.
    Status status() const noexcept { return status_; }
    /// Returns the message of the failure, usually one sentence.
    const std::string &message() const noexcept { return text_->message; }
    /// Returns the place where the error occurred: for example file, node, tensor or argument, outermost first. It is
    /// empty if there is none, or if the message contains it.
    const std::string &place() const noexcept { return text_->place; }

private:
    struct Text {
        std::string message, place;
    };
    Status status_;
    std::shared_ptr<const Text> text_; // shared, because copying an exception must not throw
};

/// Returns the name of a status, for example "invalid_model".
inline std::string status_name(Status status) { return optimize_status_name(static_cast<std::int32_t>(status)); }

} // namespace optimize

#endif // OPTIMIZE_ERROR_HPP
