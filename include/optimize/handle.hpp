// Part of optimize.hpp: implementation of the classes. Not a public interface.
#ifndef OPTIMIZE_HANDLE_HPP
#define OPTIMIZE_HANDLE_HPP

#include "error.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace optimize::detail {

/// An owner of a C handle, which frees it.
template <class T, void (*Free)(T *)> class Handle {
public:
    Handle(Handle &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    Handle &operator=(Handle &&other) noexcept {
        if (this != &other) {
            Free(raw_);
            raw_ = std::exchange(other.raw_, nullptr);
        }
        return *this;
    }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;

    /// Returns the C handle, which this object still owns, or NULL after a move.
    T *get() const noexcept { return raw_; }

protected:
    Handle() noexcept = default;
    explicit Handle(T *raw) noexcept : raw_(raw) {}
    ~Handle() { Free(raw_); }
    /// Returns the address to which a C function writes the handle that it creates. The object must be empty, because a
    /// handle that it owned would not be freed.
    T **place() noexcept { return &raw_; }

private:
    T *raw_ = nullptr;
};

class Buffer : public Handle<optimize_buffer_t, optimize_buffer_free> {
public:
    using Handle::place;
    std::string text() const { return {optimize_buffer_data(get()), optimize_buffer_size(get())}; }
};

struct FreeError {
    void operator()(optimize_error_t *error) const noexcept { optimize_error_free(error); }
};

using OwnedError = std::unique_ptr<optimize_error_t, FreeError>;

inline void check(optimize_status_t status, const OwnedError &error) {
    if (status != OPTIMIZE_OK)
        throw Error(static_cast<Status>(status), optimize_error_message(error.get()),
                    optimize_error_place(error.get()));
}

/// Calls `function(error)` and throws if the status is not OPTIMIZE_OK.
template <class F> void attempt(F &&function) {
    optimize_error_t *raw = nullptr;
    const optimize_status_t status = function(&raw);
    check(status, OwnedError(raw));
}

inline const char *c_text(const std::string &text, const char *name) {
    if (text.find('\0') != std::string::npos)
        throw Error(Status::invalid_argument, std::string(name) + " has a NUL inside");
    return text.c_str();
}

inline const char *c_text_or_null(const std::string &text, const char *name) {
    return text.empty() ? nullptr : c_text(text, name);
}

inline std::vector<const char *> c_texts(const std::vector<std::string> &texts, const char *name) {
    std::vector<const char *> pointers;
    pointers.reserve(texts.size());
    for (const std::string &text : texts) pointers.push_back(c_text(text, name));
    return pointers;
}

/// A list of texts as C arrays, which must not outlive the texts.
struct Texts {
    explicit Texts(const std::vector<std::string> &texts) {
        for (const std::string &text : texts) {
            pointers.push_back(text.data());
            sizes.push_back(text.size());
        }
    }
    std::vector<const char *> pointers;
    std::vector<std::size_t> sizes;
};

/// Returns an option struct whose size is set and whose other fields are zero.
template <class T> T sized() noexcept {
    T options{};
    options.struct_size = static_cast<std::uint32_t>(sizeof options);
    return options;
}

} // namespace optimize::detail

#endif // OPTIMIZE_HANDLE_HPP
