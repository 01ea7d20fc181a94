// Part of optimize.hpp: files that the program provides by functions.
#ifndef OPTIMIZE_SOURCE_HPP
#define OPTIMIZE_SOURCE_HPP

#include "call.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace optimize {

/// A source: the files of a model, which the program provides by two functions, for example decrypted or from an
/// archive. The functions are called only during the call to which the source is passed, on the thread that made this
/// call. If one throws, the call ends and throws this exception.
struct Source {
    /// Returns the size of the file `name` in bytes; an empty optional if there is no such file.
    std::function<std::optional<std::uint64_t>(const std::string &name)> size;
    /// Copies the `size` bytes of the file `name` that begin at `offset` to `buffer`.
    std::function<void(const std::string &name, std::uint64_t offset, void *buffer, std::size_t size)> read;

    /// Returns a source whose files are texts in memory, by file name. The texts must live until the call to which the
    /// source is passed ends.
    static Source memory(std::map<std::string, std::string_view> files) {
        Source source;
        source.size = [files](const std::string &name) -> std::optional<std::uint64_t> {
            const auto found = files.find(name);
            if (found == files.end()) return std::nullopt;
            return found->second.size();
        };
        source.read = [files](const std::string &name, std::uint64_t offset, void *buffer, std::size_t size) {
            std::memcpy(buffer, files.at(name).data() + offset, size);
        };
        return source;
    }
};

namespace detail {

/// A Source as a C struct, which keeps exceptions of its functions in `thrown`.
class Reader {
public:
    Reader(const Source &source, Thrown &thrown)
        : source_(source), thrown_(thrown), raw_(sized<optimize_source_t>()) {
        if (source.size) raw_.size = &Reader::size;
        if (source.read) raw_.read = &Reader::read;
        raw_.user_data = this;
    }
    Reader(const Reader &) = delete;
    Reader &operator=(const Reader &) = delete;

    const optimize_source_t *get() const noexcept { return &raw_; }

private:
    static std::int32_t size(void *self, const char *name, std::uint64_t *place) noexcept {
        const auto &reader = *static_cast<const Reader *>(self);
        bool found = false;
        const std::int32_t failed = reader.thrown_.guard([&] {
            const std::optional<std::uint64_t> known = reader.source_.size(name);
            found = known.has_value();
            *place = known.value_or(0);
            return true;
        });
        return failed || found ? failed : OPTIMIZE_NOT_FOUND;
    }
    static std::int32_t read(void *self, const char *name, std::uint64_t offset, void *buffer,
                             std::size_t size) noexcept {
        const auto &reader = *static_cast<const Reader *>(self);
        return reader.thrown_.guard([&] {
            reader.source_.read(name, offset, buffer, size);
            return true;
        });
    }

    const Source &source_;
    Thrown &thrown_;
    optimize_source_t raw_;
};

/// Calls `function(source, call, error)`. If a callback has thrown an exception, throws it; otherwise, if the function
/// fails, throws the error of its status.
template <class F> void attempt(const Call &call, const Source &source, F &&function) {
    Thrown thrown;
    const Reader reader(source, thrown);
    attempt(call, thrown, [&](auto *c_call, auto **error) { return function(reader.get(), c_call, error); });
}

} // namespace detail

} // namespace optimize

#endif // OPTIMIZE_SOURCE_HPP
