// Part of optimize.hpp: element types, descriptions of inputs and outputs, tensors.
#ifndef OPTIMIZE_TENSOR_HPP
#define OPTIMIZE_TENSOR_HPP

#include "handle.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace optimize {

/// Element types; see optimize_dtype_t.
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

/// A dimension of an input or output.
struct Dimension {
    /// Size of the dimension, or -1 if it is dynamic.
    std::int64_t size = -1;
    /// Name of the dimension, which may be empty. Dimensions with the same name must have the same size in a run,
    /// except for names without meaning; see optimize_value_info_t.
    std::string name;
};

/// An input or output of a model.
struct ValueInfo {
    std::string name;
    /// Element type of the value; DType::unknown for a sequence or map, or if the model does not declare the type.
    DType dtype = DType::unknown;
    /// Shape of the value; empty if the model does not declare the number of dimensions.
    std::optional<std::vector<Dimension>> shape;
};

namespace detail {

template <class T> struct IsCharacter : std::false_type {};
template <> struct IsCharacter<char> : std::true_type {};
template <> struct IsCharacter<wchar_t> : std::true_type {};
template <> struct IsCharacter<char16_t> : std::true_type {};
template <> struct IsCharacter<char32_t> : std::true_type {};

/// Returns the element type for a C++ type, or DType::unknown if tensors have no elements of this type.
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

/// Returns all inputs or outputs, each from `function(index, info, error)`.
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

/// A tensor: elements with a type and a shape, in row-major order. It is immutable.
class Tensor : public detail::Handle<optimize_tensor_t, optimize_tensor_free> {
public:
    /// Creates a tensor that owns the elements, in row-major order. A vector that is passed with std::move is not
    /// copied.
    template <class T> Tensor(const std::vector<std::int64_t> &dims, std::vector<T> elements) {
        static_assert(!std::is_same_v<T, bool>, "std::vector<bool> has no bytes: use Tensor::copy");
        auto owner = std::make_unique<std::vector<T>>(std::move(elements));
        const auto release = [](void *data) { delete static_cast<std::vector<T> *>(data); };
        borrow(dtype_of<T>(), dims, owner->data(), owner->size() * sizeof(T), release, owner.get());
        owner.release();
    }
    /// Creates a tensor from a copy of `count` elements in row-major order.
    template <class T> static Tensor copy(const std::vector<std::int64_t> &dims, const T *elements, std::size_t count) {
        return copy(dtype_of<T>(), dims, elements, count * sizeof(T));
    }
    /// Creates a tensor from a copy of `size` bytes, for element types that C++ does not have (float16, int4 ...).
    static Tensor copy(DType dtype, const std::vector<std::int64_t> &dims, const void *data, std::size_t size) {
        Tensor made;
        const auto number = static_cast<std::int32_t>(dtype);
        detail::attempt([&](auto **error) {
            return optimize_tensor_new(number, dims.data(), dims.size(), data, size, made.place(), error);
        });
        return made;
    }
    /// Creates a tensor that uses the caller's elements without copying them. They must stay valid and unchanged until
    /// `release` is called, which can happen on any thread and before this function returns; without `release`, until
    /// the tensor is destroyed and all runs that use it have ended. `release` must not throw, and is not called if this
    /// function throws.
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
    /// Creates a tensor from copies of strings in row-major order.
    static Tensor new_strings(const std::vector<std::int64_t> &dims, const std::vector<std::string> &strings) {
        Tensor made;
        const detail::Texts texts(strings);
        detail::attempt([&](auto **error) {
            return optimize_tensor_new_strings(dims.data(), dims.size(), texts.pointers.data(), texts.sizes.data(),
                                               strings.size(), made.place(), error);
        });
        return made;
    }

    /// Returns the type of the elements.
    DType dtype() const noexcept { return static_cast<DType>(optimize_tensor_dtype(get())); }
    /// Returns the number of dimensions; 0 for a scalar.
    std::size_t rank() const noexcept { return optimize_tensor_rank(get()); }
    /// Returns the sizes of the dimensions; an empty list for a scalar.
    std::vector<std::int64_t> dims() const {
        const std::int64_t *first = optimize_tensor_dims(get());
        return {first, first + rank()};
    }
    /// Returns the number of elements: the product of the sizes of the dimensions; 1 for a scalar.
    std::size_t elements() const noexcept {
        std::size_t count = 1;
        for (std::size_t i = 0; i < rank(); ++i) count *= static_cast<std::size_t>(optimize_tensor_dims(get())[i]);
        return count;
    }
    /// Returns the size of all elements in bytes, or 0 for strings.
    std::size_t size_bytes() const noexcept { return optimize_tensor_size(get()); }
    /// Returns the address of the elements in row-major order, or NULL for strings and for a tensor without elements.
    /// The pointer is valid as long as the tensor.
    const void *data() const noexcept { return optimize_tensor_data(get()); }
    /// Returns the address of the elements in row-major order, or NULL if there are none; throws an Error with
    /// Status::invalid_argument if they have another type. The pointer is valid as long as the tensor.
    template <class T> const T *data() const {
        if (dtype() != dtype_of<T>())
            throw Error(Status::invalid_argument, "the tensor holds elements of type " + number(dtype()) + ", not " +
                                                      number(dtype_of<T>()) + " (numbers of optimize_dtype_t)");
        return static_cast<const T *>(data());
    }
    /// Returns a copy of the elements in row-major order; throws like data() if they have another type.
    template <class T> std::vector<T> to_vector() const {
        const T *first = data<T>();
        return first ? std::vector<T>(first, first + elements()) : std::vector<T>();
    }
    /// Returns the string at row-major position `index`, which is valid as long as the tensor. Throws an Error with
    /// Status::not_found if there is no such string, or with Status::invalid_argument if the elements are not strings.
    std::string_view string(std::size_t index) const {
        const char *text = nullptr;
        std::size_t size = 0;
        detail::attempt([&](auto **error) { return optimize_tensor_string(get(), index, &text, &size, error); });
        return {text, size};
    }
    /// Returns a copy of all strings; throws an Error with Status::invalid_argument if the elements are not strings.
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
    friend class Embedder;
    friend class Classifier;
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

namespace detail {

/// Named tensors as C arrays; the tensors must outlive it.
struct NamedTensors {
    NamedTensors(const std::vector<std::pair<std::string, const Tensor *>> &given, const char *what) {
        for (const auto &[name, tensor] : given) {
            names.push_back(c_text(name, what));
            tensors.push_back(tensor == nullptr ? nullptr : tensor->get());
        }
    }
    std::vector<const char *> names;
    std::vector<const optimize_tensor_t *> tensors;
};

} // namespace detail

} // namespace optimize

#endif // OPTIMIZE_TENSOR_HPP
