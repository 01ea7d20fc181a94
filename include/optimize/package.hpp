// Part of optimize.hpp: packages, models prepared ahead of time.
#ifndef OPTIMIZE_PACKAGE_HPP
#define OPTIMIZE_PACKAGE_HPP

#include "generator.hpp"
#include "session.hpp"
#include "tokenizer.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace optimize {

/// The range of a dimension of an input; see optimize_dimension_t.
struct DimensionRange {
    /// Name of the input, or its position among the inputs as text, such as "0".
    std::string input;
    std::uint32_t dimension = 0;
    std::string name;
    std::uint64_t min = 0;
    /// Maximum size of the dimension; 0 means no limit.
    std::uint64_t max = 0;
};

/// Options of Package::compile; see optimize_package_compile_options_t.
struct PackageOptions {
    bool dynamic = false;
    std::uint64_t batch_min = 0;
    std::uint64_t batch_max = 0;
    std::string dynamic_shapes;
    std::string variants;
    std::string licence;
    std::string sign_key;
    bool single_file = false;
    bool portable_only = false;
    bool packed = false;
    /// Path of a TensorRT engine of the model, with its manifest next to it, which is added as a variant; or empty.
    std::string engine;
    std::vector<DimensionRange> dimensions;
    /// Reports in JSON of the steps that led to the model, oldest first.
    std::vector<std::string> lineage;
};

/// An open package. It is immutable.
class Package : public detail::Handle<optimize_package_t, optimize_package_free> {
public:
    /// Opens a package, which is a folder or a file. `variant` is the name or precision of the variant to use; an empty
    /// string selects a variant by processor and execution provider. `public_key` is the key that must have signed the
    /// package, as 64 hexadecimal digits; with an empty string, no signature is required.
    explicit Package(const std::string &path, const std::string &variant = {}, const std::string &public_key = {}) {
        auto raw = detail::sized<optimize_package_open_options_t>();
        raw.variant = detail::c_text_or_null(variant, "variant");
        raw.public_key = detail::c_text_or_null(public_key, "public_key");
        const char *c_path = detail::c_text(path, "path");
        detail::attempt([&](auto **error) { return optimize_package_open(c_path, &raw, place(), error); });
    }
    /// Opens the package in the file `name` of a source, which must be a package in one file and is read during the
    /// call. `variant` and `public_key` are as in the other constructor.
    Package(const Context &context, const Source &source, const std::string &name, const std::string &variant = {},
            const std::string &public_key = {}, const Call &call = {}) {
        auto raw = detail::sized<optimize_package_open_options_t>();
        raw.variant = detail::c_text_or_null(variant, "variant");
        raw.public_key = detail::c_text_or_null(public_key, "public_key");
        const char *c_name = detail::c_text(name, "name");
        detail::attempt(call, source, [&](auto *c_source, auto *c_call, auto **error) {
            return optimize_package_open_source(context.get(), c_source, c_name, &raw, c_call, place(), error);
        });
    }
    /// Writes a package of a model at `path`, and returns the report; see optimize_package_compile.
    static Report compile(const Context &context, const Model &model, const std::string &path,
                               const PackageOptions &options = {}, const Call &call = {}) {
        const char *c_path = detail::c_text(path, "path");
        detail::Buffer report;
        compiling(options, [&](const auto *raw) {
            detail::attempt(call, [&](auto *c_call, auto **error) {
                return optimize_package_compile(context.get(), model.get(), c_path, raw, c_call, report.place(), error);
            });
        });
        return Report(std::move(report));
    }
    /// Passes a package of a model in one file to a sink as the file `name`, and returns the report.
    static Report compile(const Context &context, const Model &model, const Sink &sink, const std::string &name,
                          const PackageOptions &options = {}, const Call &call = {}) {
        const char *c_name = detail::c_text(name, "name");
        detail::Buffer report;
        compiling(options, [&](const auto *raw) {
            detail::attempt(call, sink, [&](auto *c_sink, auto *c_call, auto **error) {
                return optimize_package_compile_sink(context.get(), model.get(), c_sink, c_name, raw, c_call,
                                                     report.place(), error);
            });
        });
        return Report(std::move(report));
    }
    /// Returns the model of the package, for techniques, benchmarks and inspection. Its sessions enforce the shape
    /// contract.
    Model model() const {
        optimize_model_t *raw = nullptr;
        detail::attempt([&](auto **error) { return optimize_package_model(get(), &raw, error); });
        return Model(raw);
    }
    /// Returns a session of the package. Each run checks the shape contract first; see optimize_package_session.
    Session session(const Context &context, const SessionOptions &options = {}, const Call &call = {}) const {
        return Session(context, *this, options, call);
    }
    /// Returns a session of the package's TensorRT engine. Without `trust` in the options, the engine is refused,
    /// because it contains executable code.
    Session engine(const Context &context, const TensorRtOpenOptions &options = {}, const Call &call = {}) const {
        const auto raw = options.native();
        optimize_session_t *session = nullptr;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_package_engine(context.get(), get(), &raw, c_call, &session, error);
        });
        return Session(session);
    }
    /// Returns the tokenizer of the package; throws an Error with Status::not_found if it has none.
    Tokenizer tokenizer() const {
        optimize_tokenizer_t *raw = nullptr;
        detail::attempt([&](auto **error) { return optimize_package_tokenizer(get(), &raw, error); });
        return Tokenizer(raw);
    }
    /// Returns a generator of the model of the package.
    Generator generator(const Context &context, const GeneratorOptions &options = {}, const Call &call = {}) const {
        return Generator(context, *this, options, call);
    }
    /// Returns the manifest of the package as JSON, with the variant that is used on this machine and the reason.
    Report inspect(const Context &context) const {
        detail::Buffer json;
        detail::attempt(
            [&](auto **error) { return optimize_package_inspect(context.get(), get(), json.place(), error); });
        return Report(std::move(json));
    }
    /// Verifies every byte of the package, and the signature if there is one. If `public_key` is not empty, the package
    /// must have a signature of this key. Throws an Error with Status::invalid_model if a hash is wrong, or if the
    /// signature is wrong or missing.
    void verify(const std::string &public_key = {}, const Call &call = {}) const {
        const char *key = detail::c_text_or_null(public_key, "public_key");
        detail::attempt(call,
                        [&](auto *c_call, auto **error) { return optimize_package_verify(get(), key, c_call, error); });
    }

private:
    /// Calls `function` with the options as a C struct.
    template <class F> static void compiling(const PackageOptions &options, F &&function) {
        auto raw = detail::sized<optimize_package_compile_options_t>();
        raw.dynamic = options.dynamic;
        raw.batch_min = options.batch_min;
        raw.batch_max = options.batch_max;
        raw.dynamic_shapes = detail::c_text_or_null(options.dynamic_shapes, "dynamic_shapes");
        raw.variants = detail::c_text_or_null(options.variants, "variants");
        raw.licence = detail::c_text_or_null(options.licence, "licence");
        raw.sign_key = detail::c_text_or_null(options.sign_key, "sign_key");
        raw.single_file = options.single_file;
        raw.portable_only = options.portable_only;
        raw.packed = options.packed;
        raw.engine = detail::c_text_or_null(options.engine, "engine");
        std::vector<optimize_dimension_t> dimensions;
        for (const DimensionRange &one : options.dimensions) {
            auto dimension = detail::sized<optimize_dimension_t>();
            dimension.dimension = one.dimension;
            dimension.input = detail::c_text(one.input, "input");
            dimension.name = detail::c_text(one.name, "name");
            dimension.min = one.min;
            dimension.max = one.max;
            dimensions.push_back(dimension);
        }
        raw.dimensions = dimensions.empty() ? nullptr : dimensions.data();
        raw.dimension_count = dimensions.size();
        const auto lineage = detail::c_texts(options.lineage, "lineage");
        raw.lineage = lineage.data();
        raw.lineage_count = lineage.size();
        function(&raw);
    }
};

inline Session::Session(const Context &context, const Package &package, const SessionOptions &options,
                        const Call &call) {
    const auto raw = native(options);
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_package_session(context.get(), package.get(), &raw, c_call, place(), error);
    });
}

inline Generator::Generator(const Context &context, const Package &package, const GeneratorOptions &options,
                            const Call &call) {
    const auto raw = c_options(options);
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_package_generator(context.get(), package.get(), &raw, c_call, place(), error);
    });
}

} // namespace optimize

#endif // OPTIMIZE_PACKAGE_HPP
