// Helpers of the C++ tests. A test is a function; RUN(name) runs it and prints `ok - name` or `not ok - name`.
// CHECK and FAILS record a failure of the test with their line, and the test continues. main ends with
// `return tap::end();`.
#ifndef TAP_HPP
#define TAP_HPP

#include <optimize.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#define CHECK(condition) tap::check(static_cast<bool>(condition), __FILE__, __LINE__, #condition)
// Checks that the statements throw an Error with this status and with `part` in what().
#define FAILS(status, part, ...) tap::fails(__FILE__, __LINE__, optimize::Status::status, part, [&] { __VA_ARGS__; })
#define RUN(name) tap::run(#name, name)

namespace tap {

inline int failures = 0; // failed checks of the current test
inline int failed_tests = 0;

inline void check(bool passed, const char *file, int line, const char *what) {
    if (passed) return;
    std::printf("# %s:%d: %s\n", file, line, what);
    ++failures;
}

template <class F> void fails(const char *file, int line, optimize::Status status, const char *part, F &&function) {
    try {
        function();
        check(false, file, line, "nothing was thrown");
    } catch (const optimize::Error &error) {
        const bool right = error.status() == status && std::strstr(error.what(), part) != nullptr;
        check(right, file, line, (optimize::status_name(error.status()) + ": " + error.what()).c_str());
    }
}

template <class F> void run(const char *name, F &&test) {
    failures = 0;
    try {
        test();
    } catch (const std::exception &error) {
        std::printf("# %s: %s\n", name, error.what());
        ++failures;
    }
    std::printf("%s - %s\n", failures == 0 ? "ok" : "not ok", name);
    std::fflush(stdout);
    if (failures != 0) ++failed_tests;
}

inline int end() { return failed_tests == 0 ? 0 : 1; }

inline std::string in_folder(const char *variable, const char *otherwise, const std::string &name) {
    const char *folder = std::getenv(variable);
    return std::string(folder ? folder : otherwise) + "/" + name;
}
inline std::string deps(const std::string &name) { return in_folder("OPTIMIZE_TEST_DEPS", "target/deps", name); }
inline std::string temporary(const std::string &name) { return in_folder("OPTIMIZE_TEST_TMP", "/tmp", name); }

} // namespace tap

#endif // TAP_HPP
