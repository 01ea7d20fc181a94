// Part of optimize.hpp: sessions, which run models.
#ifndef OPTIMIZE_SESSION_HPP
#define OPTIMIZE_SESSION_HPP

#include "model.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace optimize {

/// Level of the optimizations that ONNX Runtime applies to the graph; see optimize_optimization_level_t.
enum class OptimizationLevel : std::int32_t {
    all = OPTIMIZE_OPTIMIZATION_DEFAULT,
    disabled = OPTIMIZE_OPTIMIZATION_DISABLED,
    basic = OPTIMIZE_OPTIMIZATION_BASIC,
    extended = OPTIMIZE_OPTIMIZATION_EXTENDED,
};

/// Options of Session; see optimize_session_options_t.
struct SessionOptions {
    std::uint32_t threads = 0;
    OptimizationLevel optimization_level = OptimizationLevel::all;
    /// Whether the reordering of weights for this processor is disabled; ignored for models with block-quantized
    /// weights.
    bool disable_prepacking = false;
    /// Whether the activations of block-quantized matrix products are rounded, which is faster and less exact.
    bool round_activations = false;
    /// Whether you trust the source of the model. Engines inside a model contain executable code; if this is false, a
    /// session of such a model on a device throws an Error with Status::untrusted.
    bool trust_engines = false;
    Execution execution;
};

/// An input of a run: its name, and a tensor that must live until the run ends.
struct Input {
    std::string name;
    std::reference_wrapper<const Tensor> tensor;
};

class Package;

/// Memory of the program to which Session::run_into writes an output. It must live until the run ends.
struct Output {
    /// Describes memory at `elements` for `count` elements of the output with the name `output`.
    template <class T>
    Output(std::string output, std::vector<std::int64_t> sizes, T *elements, std::size_t count)
        : name(std::move(output)), dtype(detail::dtype_of<T>()), dims(std::move(sizes)), data(elements),
          size(count * sizeof(T)) {}
    /// Describes memory of `bytes` bytes for elements of a type that C++ does not have (float16, int4 ...).
    Output(std::string output, DType type, std::vector<std::int64_t> sizes, void *memory, std::size_t bytes)
        : name(std::move(output)), dtype(type), dims(std::move(sizes)), data(memory), size(bytes) {}

    std::string name;
    DType dtype;
    /// Sizes of the dimensions in this run.
    std::vector<std::int64_t> dims;
    void *data;
    /// Size of the memory in bytes, which must be that of all elements.
    std::size_t size;
};

/// A session, which runs a model or a TensorRT engine. Any number of threads may run it at the same time.
class Session : public detail::Handle<optimize_session_t, optimize_session_free> {
public:
    /// Creates a session of a model on ONNX Runtime.
    Session(const Context &context, const Model &model, const SessionOptions &options = {}, const Call &call = {}) {
        const auto raw = native(options);
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_session_new(context.get(), model.get(), &raw, c_call, place(), error);
        });
    }
    /// Creates a session of a package; see Package::session.
    Session(const Context &context, const Package &package, const SessionOptions &options = {}, const Call &call = {});
    /// Runs the session and returns the outputs with the given names, in this order, or all outputs in the order of the
    /// model if no name is given; see optimize_session_run.
    std::vector<Tensor> run(const std::vector<Input> &inputs, const std::vector<std::string> &output_names = {},
                            const Call &call = {}) const {
        std::vector<const char *> names;
        std::vector<const optimize_tensor_t *> tensors;
        for (const Input &input : inputs) {
            names.push_back(detail::c_text(input.name, "the name of an input"));
            tensors.push_back(input.tensor.get().get());
        }
        const auto wanted = detail::c_texts(output_names, "output_names");
        const std::size_t count = wanted.empty() ? optimize_session_output_count(get()) : wanted.size();
        const char *const *c_wanted = wanted.empty() ? nullptr : wanted.data();
        std::vector<optimize_tensor_t *> places(count);
        std::vector<Tensor> outputs;
        outputs.reserve(count); // nothing may throw before every result has an owner
        detail::attempt(call, [&](auto *c_call, auto **error) {
            const optimize_status_t status =
                optimize_session_run(get(), names.data(), tensors.data(), names.size(), c_wanted, count, c_call,
                                     places.data(), error);
            for (optimize_tensor_t *place : places) outputs.push_back(Tensor(place));
            return status;
        });
        return outputs;
    }
    /// Runs the session like run, and writes outputs to memory of the program instead of new tensors. The shape of each
    /// output must be known; see optimize_session_run_into. The memory must not overlap that of an input or of another
    /// output; after an exception, its content is undefined.
    void run_into(const std::vector<Input> &inputs, const std::vector<Output> &outputs, const Call &call = {}) const {
        std::vector<const char *> names;
        std::vector<const optimize_tensor_t *> tensors;
        for (const Input &input : inputs) {
            names.push_back(detail::c_text(input.name, "the name of an input"));
            tensors.push_back(input.tensor.get().get());
        }
        std::vector<optimize_output_t> places;
        for (const Output &output : outputs) {
            auto place = detail::sized<optimize_output_t>();
            place.dtype = static_cast<std::int32_t>(output.dtype);
            place.name = detail::c_text(output.name, "the name of an output");
            place.dims = output.dims.data();
            place.rank = output.dims.size();
            place.data = output.data;
            place.size = output.size;
            places.push_back(place);
        }
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_session_run_into(get(), names.data(), tensors.data(), names.size(), places.data(),
                                             places.size(), c_call, error);
        });
    }
    /// Returns the execution provider of the session.
    Provider provider() const { return static_cast<Provider>(optimize_session_provider(get())); }
    /// Returns the placement of the session as JSON: see optimize_session_placement.
    Report placement() const {
        detail::Buffer json;
        detail::attempt([&](auto **error) { return optimize_session_placement(get(), json.place(), error); });
        return Report(std::move(json));
    }
    /// Returns name, type and shape of the inputs that a run requires.
    std::vector<ValueInfo> inputs() const {
        return detail::value_infos(optimize_session_input_count(get()), [&](auto index, auto *info, auto **error) {
            return optimize_session_input(get(), index, info, error);
        });
    }
    /// Returns name, type and shape of the outputs.
    std::vector<ValueInfo> outputs() const {
        return detail::value_infos(optimize_session_output_count(get()), [&](auto index, auto *info, auto **error) {
            return optimize_session_output(get(), index, info, error);
        });
    }

private:
    friend class Package;
    friend Session open_tensorrt(const Context &context, const std::string &path, const TensorRtOpenOptions &options,
                                 const Call &call);
    explicit Session(optimize_session_t *raw) noexcept : Handle(raw) {}
    static optimize_session_options_t native(const SessionOptions &options) {
        auto raw = detail::sized<optimize_session_options_t>();
        raw.threads = options.threads;
        raw.optimization_level = static_cast<std::int32_t>(options.optimization_level);
        raw.disable_prepacking = options.disable_prepacking;
        raw.round_activations = options.round_activations;
        raw.trust_engines = options.trust_engines;
        options.execution.write(raw);
        return raw;
    }
};

} // namespace optimize

#endif // OPTIMIZE_SESSION_HPP
