// liboptimize for C++17: make trained models smaller and faster, and run them, without Python.
//
// Introduction
//
//   A Context says where ONNX Runtime is. A Model is loaded, immutable, and freely shared between threads. A
//   technique (Model::quantize ...) takes a model and gives a new one with a report. A model is saved, or made
//   into a Session and run. Model::benchmark compares two models.
//
//     optimize::Context context;
//     optimize::Model model(context, "model.onnx");
//     auto small = model.quantize(context);
//     small.model.save("small.onnx");
//
//     optimize::Tokenizer tokenizer("tokenizer.json");
//     auto text = tokenizer.encode({"A man is eating food."});
//     optimize::Session session(context, small.model);
//     auto outputs = session.run({{"input_ids", text.ids}, {"attention_mask", text.attention_mask}});
//     const float *embedding = outputs[0].data<float>();
//
// Rules that hold for everything here
//
//   Header     This file is all there is: it calls the C interface of optimize.h and links with -loptimize. What
//              the functions do is said there; a method of the class for optimize_<noun>_t is the function
//              optimize_<noun>_<method>, and options have the same names.
//   Ownership  Classes are move-only and free what they hold. Children keep alive what they need: a session
//              outlives its model. A moved-from object is empty; using it throws invalid_argument.
//   Errors     What fails throws optimize::Error: what() says all of it, status() and place() take it apart.
//              Nothing is half-done: outputs appear only on success.
//   Options    Plain structs; a default-constructed one means the defaults. The library is always told the size
//              of the struct this file was compiled with, so a newer library works with an older program.
//   Calls      What can take long takes a Call: progress, timeout, cancel. An exception thrown by the progress
//              function cancels the call and comes out of it.
//   Text       std::string, UTF-8. A path or name with a NUL inside throws invalid_argument.
//   Threads    const methods may be called by any number of threads at once, the others (Session::run) by one at
//              a time.
#ifndef OPTIMIZE_HPP
#define OPTIMIZE_HPP

#include "optimize.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace optimize {

/// What went wrong, as optimize_status_t has it.
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
};

/// Element types, as optimize_dtype_t has them.
enum class DType : std::int32_t {
    unknown = OPTIMIZE_DTYPE_UNKNOWN,
    float32 = OPTIMIZE_DTYPE_FLOAT32,
    uint8 = OPTIMIZE_DTYPE_UINT8,
    int8 = OPTIMIZE_DTYPE_INT8,
    uint16 = OPTIMIZE_DTYPE_UINT16,
    int16 = OPTIMIZE_DTYPE_INT16,
    int32 = OPTIMIZE_DTYPE_INT32,
    int64 = OPTIMIZE_DTYPE_INT64,
    string = OPTIMIZE_DTYPE_STRING,
    boolean = OPTIMIZE_DTYPE_BOOL,
    float16 = OPTIMIZE_DTYPE_FLOAT16,
    float64 = OPTIMIZE_DTYPE_FLOAT64,
    uint32 = OPTIMIZE_DTYPE_UINT32,
    uint64 = OPTIMIZE_DTYPE_UINT64,
    complex64 = OPTIMIZE_DTYPE_COMPLEX64,
    complex128 = OPTIMIZE_DTYPE_COMPLEX128,
    bfloat16 = OPTIMIZE_DTYPE_BFLOAT16,
    float8e4m3fn = OPTIMIZE_DTYPE_FLOAT8E4M3FN,
    float8e4m3fnuz = OPTIMIZE_DTYPE_FLOAT8E4M3FNUZ,
    float8e5m2 = OPTIMIZE_DTYPE_FLOAT8E5M2,
    float8e5m2fnuz = OPTIMIZE_DTYPE_FLOAT8E5M2FNUZ,
    uint4 = OPTIMIZE_DTYPE_UINT4,
    int4 = OPTIMIZE_DTYPE_INT4,
    float4e2m1 = OPTIMIZE_DTYPE_FLOAT4E2M1,
    float8e8m0 = OPTIMIZE_DTYPE_FLOAT8E8M0,
    uint2 = OPTIMIZE_DTYPE_UINT2,
    int2 = OPTIMIZE_DTYPE_INT2,
};

/// Where Model::save puts weights; see optimize_external_data_t.
enum class ExternalData : std::int32_t {
    automatic = OPTIMIZE_EXTERNAL_DATA_AUTO,
    never = OPTIMIZE_EXTERNAL_DATA_NEVER,
    always = OPTIMIZE_EXTERNAL_DATA_ALWAYS,
};

/// How much ONNX Runtime rewrites the graph before it runs it; see optimize_optimization_level_t.
enum class OptimizationLevel : std::int32_t {
    all = OPTIMIZE_OPTIMIZATION_DEFAULT,
    disabled = OPTIMIZE_OPTIMIZATION_DISABLED,
    basic = OPTIMIZE_OPTIMIZATION_BASIC,
    extended = OPTIMIZE_OPTIMIZATION_EXTENDED,
};

/// The form of a quantized model; see optimize_quantize_type_t.
enum class QuantizeType : std::int32_t {
    dynamic = OPTIMIZE_QUANTIZE_DYNAMIC,
};

/// Whether weights use 7 of their 8 bits; see optimize_reduce_range_t.
enum class ReduceRange : std::int32_t {
    automatic = OPTIMIZE_REDUCE_RANGE_AUTO,
    on = OPTIMIZE_REDUCE_RANGE_ON,
    off = OPTIMIZE_REDUCE_RANGE_OFF,
};

/// What every failure throws. what() is "place: message".
class Error : public std::runtime_error {
public:
    Error(Status status, const std::string &message, const std::string &place = {})
        : std::runtime_error(place.empty() ? message : place + ": " + message), status_(status),
          text_(std::make_shared<const Text>(Text{message, place})) {}

    /// The sort of failure.
    Status status() const noexcept { return status_; }
    /// What is wrong, one sentence.
    const std::string &message() const noexcept { return text_->message; }
    /// Where: file, node, tensor or argument, outermost first; empty if the message says it all.
    const std::string &place() const noexcept { return text_->place; }

private:
    struct Text {
        std::string message, place;
    };
    Status status_;
    std::shared_ptr<const Text> text_; // shared, because copying an exception must not throw
};

class Cancel;
class Tensor;
class Tokenizer;

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

/// Options of Context; see optimize_context_options_t.
struct ContextOptions {
    std::uint32_t threads = 0;
    std::string runtime_library;
};

/// Options of Model::save; see optimize_save_options_t.
struct SaveOptions {
    ExternalData external_data = ExternalData::automatic;
};

/// Options of Session; see optimize_session_options_t.
struct SessionOptions {
    std::uint32_t threads = 0;
    OptimizationLevel optimization_level = OptimizationLevel::all;
    bool disable_prepacking = false;
};

/// Options of Tokenizer::encode; see optimize_encode_options_t.
struct EncodeOptions {
    bool no_special_tokens = false;
    std::uint32_t max_length = 0;
};

/// Options of Tokenizer::decode; see optimize_decode_options_t.
struct DecodeOptions {
    bool keep_special_tokens = false;
};

/// Options of Model::quantize; see optimize_quantize_options_t.
struct QuantizeOptions {
    QuantizeType type = QuantizeType::dynamic;
    std::uint32_t bits = 0;
    ReduceRange reduce_range = ReduceRange::automatic;
    bool per_tensor = false;
    bool keep_embeddings = false;
    std::uint32_t threads = 0;
    std::uint64_t min_elements = 0;
    std::vector<std::string> include;
    std::vector<std::string> exclude;
    std::string scratch_folder;
};

/// Options of Model::benchmark; see optimize_benchmark_options_t.
struct BenchmarkOptions {
    std::uint32_t runs = 0;
    std::uint32_t warmup = 0;
    std::uint32_t threads = 0;
    std::uint32_t batch_size = 0;
    std::uint32_t sequence_length = 0;
    std::uint32_t max_milliseconds = 0;
    std::uint32_t seed = 0;
    std::vector<std::string> texts;
    std::vector<std::string> shapes;
    std::vector<std::string> values;
};

/// A dimension of an input or output.
struct Dimension {
    /// -1 where any size will do.
    std::int64_t size = -1;
    /// Equal names are equal sizes; empty if it has none.
    std::string name;
};

/// An input or output of a model.
struct ValueInfo {
    std::string name;
    /// DType::unknown for a sequence or map.
    DType dtype = DType::unknown;
    /// Nothing if not even the number of dimensions is declared.
    std::optional<std::vector<Dimension>> shape;
};

/// The version of the library, e.g. "0.1.0".
inline std::string version() { return optimize_version(); }

/// The name of a status, e.g. "invalid_model".
inline std::string status_name(Status status) { return optimize_status_name(static_cast<std::int32_t>(status)); }

/// How the classes below are made; not for use outside.
namespace detail {

/// Owns a C handle.
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

    /// The C handle, which stays owned by this object; NULL after a move.
    T *get() const noexcept { return raw_; }

protected:
    Handle() noexcept = default;
    explicit Handle(T *raw) noexcept : raw_(raw) {}
    ~Handle() { Free(raw_); }
    /// Where a C function puts its result. Only while empty.
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
        throw Error(static_cast<Status>(status), optimize_error_message(error.get()), optimize_error_place(error.get()));
}

/// Calls `function(error)` and throws if it answers anything but OPTIMIZE_OK.
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

/// An option struct with its size set and everything else zero.
template <class T> T sized() noexcept {
    T options{};
    options.struct_size = static_cast<std::uint32_t>(sizeof options);
    return options;
}

template <class T> struct IsCharacter : std::false_type {};
template <> struct IsCharacter<char> : std::true_type {};
template <> struct IsCharacter<wchar_t> : std::true_type {};
template <> struct IsCharacter<char16_t> : std::true_type {};
template <> struct IsCharacter<char32_t> : std::true_type {};

/// The element type of a C++ type; DType::unknown if it has none.
template <class T> constexpr DType dtype_of() noexcept {
    if constexpr (std::is_same_v<T, bool>) return sizeof(bool) == 1 ? DType::boolean : DType::unknown;
    else if constexpr (std::is_same_v<T, float>) return DType::float32;
    else if constexpr (std::is_same_v<T, double>) return DType::float64;
    else if constexpr (!std::is_integral_v<T> || IsCharacter<T>::value) return DType::unknown;
    else if constexpr (sizeof(T) == 1) return std::is_signed_v<T> ? DType::int8 : DType::uint8;
    else if constexpr (sizeof(T) == 2) return std::is_signed_v<T> ? DType::int16 : DType::uint16;
    else if constexpr (sizeof(T) == 4) return std::is_signed_v<T> ? DType::int32 : DType::uint32;
    else if constexpr (sizeof(T) == 8) return std::is_signed_v<T> ? DType::int64 : DType::uint64;
    else return DType::unknown;
}

inline ValueInfo value_info(const optimize_value_info_t &info) {
    ValueInfo value{info.name, static_cast<DType>(info.dtype), std::nullopt};
    if (info.rank < 0) return value;
    value.shape.emplace();
    for (std::int64_t i = 0; i < info.rank; ++i) value.shape->push_back({info.dims[i], info.dim_names[i]});
    return value;
}

/// All inputs or outputs: `function(index, info, error)` gives one.
template <class F> std::vector<ValueInfo> value_infos(std::size_t count, F &&function) {
    std::vector<ValueInfo> values;
    values.reserve(count);
    for (std::size_t index = 0; index < count; ++index) {
        auto info = sized<optimize_value_info_t>();
        attempt([&](auto **error) { return function(index, &info, error); });
        values.push_back(value_info(info));
    }
    return values;
}

} // namespace detail

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

namespace detail {

/// A Call in the form C takes. Keeps what the progress function throws, which must not pass through C.
class Watch {
public:
    explicit Watch(const Call &call) : call_(call), raw_(sized<optimize_call_t>()) {
        if (call.timeout) raw_.timeout_ms = clamped(call.timeout->count());
        if (call.progress) raw_.progress = &Watch::progress;
        raw_.user_data = this;
        raw_.cancel = call.cancel ? call.cancel->get() : nullptr;
    }
    Watch(const Watch &) = delete;
    Watch &operator=(const Watch &) = delete;

    const optimize_call_t *get() const noexcept { return &raw_; }
    void rethrow() const {
        if (thrown_) std::rethrow_exception(thrown_);
    }

private:
    static std::uint32_t clamped(std::chrono::milliseconds::rep count) noexcept {
        using Limits = std::numeric_limits<std::uint32_t>;
        if (count < 1) return 1;
        return count > Limits::max() ? Limits::max() : static_cast<std::uint32_t>(count);
    }
    static std::int32_t progress(void *self, const char *stage, std::uint64_t done, std::uint64_t total) noexcept {
        auto &watch = *static_cast<Watch *>(self);
        try {
            return watch.call_.progress(stage, done, total) ? 0 : 1;
        } catch (...) {
            watch.thrown_ = std::current_exception();
            return 1;
        }
    }

    const Call &call_;
    optimize_call_t raw_;
    std::exception_ptr thrown_;
};

/// As the other attempt, for `function(call, error)`. An exception of the progress function wins.
template <class F> void attempt(const Call &call, F &&function) {
    Watch watch(call);
    optimize_error_t *raw = nullptr;
    const optimize_status_t status = function(watch.get(), &raw);
    const OwnedError error(raw);
    watch.rethrow();
    check(status, error);
}

} // namespace detail

/// Where ONNX Runtime is, and how many threads calls use. One per program is usual.
class Context : public detail::Handle<optimize_context_t, optimize_context_free> {
public:
    explicit Context(const ContextOptions &options = {}) {
        auto raw = detail::sized<optimize_context_options_t>();
        raw.threads = options.threads;
        raw.runtime_library = detail::c_text_or_null(options.runtime_library, "runtime_library");
        detail::attempt([&](auto **error) { return optimize_context_new(&raw, place(), error); });
    }
    /// Opens ONNX Runtime, if it is not open yet, and gives its version, e.g. "1.32.0".
    std::string runtime_version() const {
        const char *version = nullptr;
        detail::attempt([&](auto **error) { return optimize_context_runtime_version(get(), &version, error); });
        return version;
    }
};

/// Elements with a type and a shape. Immutable.
class Tensor : public detail::Handle<optimize_tensor_t, optimize_tensor_free> {
public:
    /// Takes over the elements, row-major; nothing is copied if the vector is moved in.
    template <class T> Tensor(const std::vector<std::int64_t> &dims, std::vector<T> elements) {
        static_assert(!std::is_same_v<T, bool>, "std::vector<bool> has no bytes: use Tensor::copy");
        auto owner = std::make_unique<std::vector<T>>(std::move(elements));
        const auto release = [](void *data) { delete static_cast<std::vector<T> *>(data); };
        borrow(dtype_of<T>(), dims, owner->data(), owner->size() * sizeof(T), release, owner.get());
        owner.release();
    }
    /// Copies `count` elements, row-major.
    template <class T> static Tensor copy(const std::vector<std::int64_t> &dims, const T *elements, std::size_t count) {
        return copy(dtype_of<T>(), dims, elements, count * sizeof(T));
    }
    /// Copies `size` bytes of elements of a type that C++ has no name for (float16, int4 ...).
    static Tensor copy(DType dtype, const std::vector<std::int64_t> &dims, const void *data, std::size_t size) {
        Tensor made;
        const auto number = static_cast<std::int32_t>(dtype);
        detail::attempt([&](auto **error) {
            return optimize_tensor_new(number, dims.data(), dims.size(), data, size, made.place(), error);
        });
        return made;
    }
    /// Uses the caller's elements in place. They must stay valid and unchanged until `release` is called, on
    /// whatever thread that is, or without one until the tensor and every run that uses it are over. `release`
    /// must not throw, and is not called if this function throws.
    template <class T>
    static Tensor borrow(const std::vector<std::int64_t> &dims, const T *elements, std::size_t count,
                         std::function<void()> release = {}) {
        Tensor made;
        if (!release) {
            made.borrow(dtype_of<T>(), dims, elements, count * sizeof(T), nullptr, nullptr);
            return made;
        }
        using Release = std::function<void()>;
        auto owner = std::make_unique<Release>(std::move(release));
        const auto call = [](void *data) noexcept { (*std::unique_ptr<Release>(static_cast<Release *>(data)))(); };
        made.borrow(dtype_of<T>(), dims, elements, count * sizeof(T), call, owner.get());
        owner.release();
        return made;
    }
    /// Copies strings, row-major.
    static Tensor new_strings(const std::vector<std::int64_t> &dims, const std::vector<std::string> &strings) {
        Tensor made;
        std::vector<const char *> pointers;
        std::vector<std::size_t> sizes;
        for (const std::string &string : strings) {
            pointers.push_back(string.data());
            sizes.push_back(string.size());
        }
        detail::attempt([&](auto **error) {
            return optimize_tensor_new_strings(dims.data(), dims.size(), pointers.data(), sizes.data(),
                                               pointers.size(), made.place(), error);
        });
        return made;
    }

    DType dtype() const noexcept { return static_cast<DType>(optimize_tensor_dtype(get())); }
    std::size_t rank() const noexcept { return optimize_tensor_rank(get()); }
    std::vector<std::int64_t> dims() const {
        const std::int64_t *first = optimize_tensor_dims(get());
        return {first, first + rank()};
    }
    /// Number of elements: the product of the dims.
    std::size_t elements() const noexcept {
        std::size_t count = 1;
        for (std::size_t i = 0; i < rank(); ++i) count *= static_cast<std::size_t>(optimize_tensor_dims(get())[i]);
        return count;
    }
    /// Bytes of all elements; 0 for strings.
    std::size_t size_bytes() const noexcept { return optimize_tensor_size(get()); }
    /// The elements as they lie in memory, whatever their type; NULL for strings. Lives as long as the tensor.
    const void *data() const noexcept { return optimize_tensor_data(get()); }
    /// The elements, row-major; throws if they are of another type. Lives as long as the tensor.
    template <class T> const T *data() const {
        if (dtype() != dtype_of<T>())
            throw Error(Status::invalid_argument, "the tensor holds elements of type " + number(dtype()) + ", not " +
                                                      number(dtype_of<T>()) + " (numbers of optimize_dtype_t)");
        return static_cast<const T *>(data());
    }
    /// A copy of the elements; throws if they are of another type.
    template <class T> std::vector<T> to_vector() const {
        const T *first = data<T>();
        return first ? std::vector<T>(first, first + elements()) : std::vector<T>();
    }
    /// The string at row-major position `index`. Lives as long as the tensor.
    std::string_view string(std::size_t index) const {
        const char *text = nullptr;
        std::size_t size = 0;
        detail::attempt([&](auto **error) { return optimize_tensor_string(get(), index, &text, &size, error); });
        return {text, size};
    }
    /// A copy of all strings; throws if the elements are no strings.
    std::vector<std::string> strings() const {
        if (dtype() != DType::string) throw Error(Status::invalid_argument, "the tensor does not hold strings");
        std::vector<std::string> all;
        all.reserve(elements());
        for (std::size_t index = 0; index < elements(); ++index) all.emplace_back(string(index));
        return all;
    }

private:
    friend class Session;
    friend class Tokenizer;
    Tensor() = default;
    explicit Tensor(optimize_tensor_t *raw) noexcept : Handle(raw) {}

    template <class T> static constexpr DType dtype_of() noexcept {
        static_assert(detail::dtype_of<T>() != DType::unknown, "tensors have no elements of this type");
        return detail::dtype_of<T>();
    }
    static std::string number(DType dtype) { return std::to_string(static_cast<std::int32_t>(dtype)); }
    void borrow(DType dtype, const std::vector<std::int64_t> &dims, const void *data, std::size_t size,
                optimize_release_fn release, void *user_data) {
        detail::attempt([&](auto **error) {
            return optimize_tensor_borrow(static_cast<std::int32_t>(dtype), dims.data(), dims.size(), data, size,
                                          release, user_data, place(), error);
        });
    }
};

/// Texts as ids: int64 tensors of shape [number of texts, tokens of the longest].
struct Encoded {
    Tensor ids;
    /// 1 for tokens, 0 for padding.
    Tensor attention_mask;
    /// The segments BERT wants.
    Tensor type_ids;
};

/// Text to ids and back. Immutable.
class Tokenizer : public detail::Handle<optimize_tokenizer_t, optimize_tokenizer_free> {
public:
    /// Loads a tokenizer.json, or the one in a folder.
    explicit Tokenizer(const std::string &path) {
        const char *c_path = detail::c_text(path, "path");
        detail::attempt([&](auto **error) { return optimize_tokenizer_load(c_path, place(), error); });
    }
    Encoded encode(const std::vector<std::string> &texts, const EncodeOptions &options = {}) const {
        auto raw = detail::sized<optimize_encode_options_t>();
        raw.no_special_tokens = options.no_special_tokens;
        raw.max_length = options.max_length;
        std::vector<const char *> pointers;
        std::vector<std::size_t> sizes;
        for (const std::string &text : texts) {
            pointers.push_back(text.data());
            sizes.push_back(text.size());
        }
        Encoded made{Tensor(), Tensor(), Tensor()};
        detail::attempt([&](auto **error) {
            return optimize_tokenizer_encode(get(), pointers.data(), sizes.data(), texts.size(), &raw, made.ids.place(),
                                             made.attention_mask.place(), made.type_ids.place(), error);
        });
        return made;
    }
    std::string decode(const std::vector<std::int64_t> &ids, const DecodeOptions &options = {}) const {
        auto raw = detail::sized<optimize_decode_options_t>();
        raw.keep_special_tokens = options.keep_special_tokens;
        detail::Buffer text;
        detail::attempt([&](auto **error) {
            return optimize_tokenizer_decode(get(), ids.data(), ids.size(), &raw, text.place(), error);
        });
        return text.text();
    }
    /// Tokens in the vocabulary, added ones included.
    std::size_t vocabulary_size() const noexcept { return optimize_tokenizer_vocabulary_size(get()); }
};

struct Quantized;

/// A loaded or made model. Immutable.
class Model : public detail::Handle<optimize_model_t, optimize_model_free> {
public:
    /// Loads an .onnx file, or a folder that holds one.
    Model(const Context &context, const std::string &path, const Call &call = {}) {
        const char *c_path = detail::c_text(path, "path");
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_load(context.get(), c_path, c_call, place(), error);
        });
    }
    /// Loads a model from the bytes of an .onnx file, which are copied.
    static Model load_memory(const Context &context, const void *data, std::size_t size, const Call &call = {}) {
        Model made;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_load_memory(context.get(), data, size, c_call, made.place(), error);
        });
        return made;
    }
    /// Saves atomically; gives {"files": [{"path", "bytes", "sha256"}]} as JSON.
    std::string save(const std::string &path, const SaveOptions &options = {}, const Call &call = {}) const {
        auto raw = detail::sized<optimize_save_options_t>();
        raw.external_data = static_cast<std::int32_t>(options.external_data);
        const char *c_path = detail::c_text(path, "path");
        detail::Buffer report;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_save(get(), c_path, &raw, c_call, report.place(), error);
        });
        return report.text();
    }
    /// What is inside, as JSON.
    std::string inspect() const {
        detail::Buffer report;
        detail::attempt([&](auto **error) { return optimize_model_inspect(get(), report.place(), error); });
        return report.text();
    }
    std::vector<ValueInfo> inputs() const {
        return detail::value_infos(optimize_model_input_count(get()), [&](auto index, auto *info, auto **error) {
            return optimize_model_input(get(), index, info, error);
        });
    }
    std::vector<ValueInfo> outputs() const {
        return detail::value_infos(optimize_model_output_count(get()), [&](auto index, auto *info, auto **error) {
            return optimize_model_output(get(), index, info, error);
        });
    }
    /// Quantizes into a new model; this one stays as it is.
    Quantized quantize(const Context &context, const QuantizeOptions &options = {}, const Call &call = {}) const;
    /// Measures `result` against this model and gives the report as JSON. Without a tokenizer inputs are generated.
    std::string benchmark(const Context &context, const Model &result, const Tokenizer *tokenizer = nullptr,
                          const BenchmarkOptions &options = {}, const Call &call = {}) const {
        const auto texts = detail::c_texts(options.texts, "texts");
        const auto shapes = detail::c_texts(options.shapes, "shapes");
        const auto values = detail::c_texts(options.values, "values");
        auto raw = detail::sized<optimize_benchmark_options_t>();
        raw.runs = options.runs;
        raw.warmup = options.warmup;
        raw.threads = options.threads;
        raw.batch_size = options.batch_size;
        raw.sequence_length = options.sequence_length;
        raw.max_milliseconds = options.max_milliseconds;
        raw.seed = options.seed;
        raw.texts = texts.data();
        raw.text_count = texts.size();
        raw.shapes = shapes.data();
        raw.shape_count = shapes.size();
        raw.values = values.data();
        raw.value_count = values.size();
        const optimize_tokenizer_t *c_tokenizer = tokenizer ? tokenizer->get() : nullptr;
        detail::Buffer report;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_benchmark(context.get(), get(), result.get(), c_tokenizer, &raw, c_call,
                                            report.place(), error);
        });
        return report.text();
    }

private:
    Model() = default;
};

/// What Model::quantize gives.
struct Quantized {
    Model model;
    /// What was done to each node, and why the others were left: the JSON of docs/report.md.
    std::string report;
};

inline Quantized Model::quantize(const Context &context, const QuantizeOptions &options, const Call &call) const {
    const auto include = detail::c_texts(options.include, "include");
    const auto exclude = detail::c_texts(options.exclude, "exclude");
    auto raw = detail::sized<optimize_quantize_options_t>();
    raw.type = static_cast<std::int32_t>(options.type);
    raw.bits = options.bits;
    raw.reduce_range = static_cast<std::int32_t>(options.reduce_range);
    raw.per_tensor = options.per_tensor;
    raw.keep_embeddings = options.keep_embeddings;
    raw.threads = options.threads;
    raw.min_elements = options.min_elements;
    raw.include = include.data();
    raw.include_count = include.size();
    raw.exclude = exclude.data();
    raw.exclude_count = exclude.size();
    raw.scratch_folder = detail::c_text_or_null(options.scratch_folder, "scratch_folder");
    Model made;
    detail::Buffer report;
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_model_quantize(context.get(), get(), &raw, c_call, made.place(), report.place(), error);
    });
    return {std::move(made), report.text()};
}

/// An input of a run. The tensor must live until the run is over.
struct Input {
    std::string name;
    std::reference_wrapper<const Tensor> tensor;
};

/// A model made ready to run. Takes one run at a time: make one session for each thread.
class Session : public detail::Handle<optimize_session_t, optimize_session_free> {
public:
    Session(const Context &context, const Model &model, const SessionOptions &options = {}, const Call &call = {}) {
        auto raw = detail::sized<optimize_session_options_t>();
        raw.threads = options.threads;
        raw.optimization_level = static_cast<std::int32_t>(options.optimization_level);
        raw.disable_prepacking = options.disable_prepacking;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_session_new(context.get(), model.get(), &raw, c_call, place(), error);
        });
    }
    /// Gives the named outputs in the order asked for; all of them if none is named.
    std::vector<Tensor> run(const std::vector<Input> &inputs, const std::vector<std::string> &output_names = {},
                            const Call &call = {}) {
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
        outputs.reserve(count); // nothing may throw between the run and the last result's owner
        detail::attempt(call, [&](auto *c_call, auto **error) {
            const optimize_status_t status =
                optimize_session_run(get(), names.data(), tensors.data(), names.size(), c_wanted, count, c_call,
                                     places.data(), error);
            for (optimize_tensor_t *place : places) outputs.push_back(Tensor(place));
            return status;
        });
        return outputs;
    }
    std::vector<ValueInfo> inputs() const {
        return detail::value_infos(optimize_session_input_count(get()), [&](auto index, auto *info, auto **error) {
            return optimize_session_input(get(), index, info, error);
        });
    }
    std::vector<ValueInfo> outputs() const {
        return detail::value_infos(optimize_session_output_count(get()), [&](auto index, auto *info, auto **error) {
            return optimize_session_output(get(), index, info, error);
        });
    }
};

} // namespace optimize

#endif // OPTIMIZE_HPP
