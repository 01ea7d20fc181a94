// Part of optimize.hpp: functions of the program that receive files.
#ifndef OPTIMIZE_SINK_HPP
#define OPTIMIZE_SINK_HPP

#include "call.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

namespace optimize {

/// A sink, which receives the files of a model, for example to encrypt or upload them. Its function is called only
/// during the call to which the sink is passed, on the thread that made this call. If the function throws, the call
/// ends and throws this exception.
struct Sink {
    /// Takes the next `size` bytes of the file `name`. Files come one after another. After the last bytes of a file,
    /// the function is called once with a null `data` and a `size` of 0.
    std::function<void(const std::string &name, const void *data, std::size_t size)> write;

    /// Returns a sink that stores the content of each file in `files`, by file name. `files` must live until the call
    /// to which the sink is passed ends.
    static Sink memory(std::map<std::string, std::string> &files) {
        Sink sink;
        sink.write = [&files](const std::string &name, const void *data, std::size_t size) {
            std::string &content = files[name];
            if (size > 0) content.append(static_cast<const char *>(data), size);
        };
        return sink;
    }
};

namespace detail {

/// A Sink as a C struct, which keeps exceptions of its function in `thrown`.
class Writer {
public:
    Writer(const Sink &sink, Thrown &thrown) : sink_(sink), thrown_(thrown), raw_(sized<optimize_sink_t>()) {
        if (sink.write) raw_.write = &Writer::write;
        raw_.user_data = this;
    }
    Writer(const Writer &) = delete;
    Writer &operator=(const Writer &) = delete;

    const optimize_sink_t *get() const noexcept { return &raw_; }

private:
    static std::int32_t write(void *self, const char *name, const void *data, std::size_t size) noexcept {
        const auto &writer = *static_cast<const Writer *>(self);
        return writer.thrown_.guard([&] {
            writer.sink_.write(name, data, size);
            return true;
        });
    }

    const Sink &sink_;
    Thrown &thrown_;
    optimize_sink_t raw_;
};

/// Calls `function(sink, call, error)`. If a callback has thrown an exception, throws it; otherwise, if the function
/// fails, throws the error of its status.
template <class F> void attempt(const Call &call, const Sink &sink, F &&function) {
    Thrown thrown;
    const Writer writer(sink, thrown);
    attempt(call, thrown, [&](auto *c_call, auto **error) { return function(writer.get(), c_call, error); });
}

} // namespace detail

} // namespace optimize

#endif // OPTIMIZE_SINK_HPP
