// Part of optimize.hpp: models and their techniques.
#ifndef OPTIMIZE_MODEL_HPP
#define OPTIMIZE_MODEL_HPP

#include "call.hpp"
#include "context.hpp"
#include "measure.hpp"
#include "sink.hpp"
#include "source.hpp"
#include "tensor.hpp"
#include "tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace optimize {

/// Place where Model::save stores the weights; see optimize_external_data_t.
enum class ExternalData : std::int32_t {
    automatic = OPTIMIZE_EXTERNAL_DATA_AUTO,
    never = OPTIMIZE_EXTERNAL_DATA_NEVER,
    always = OPTIMIZE_EXTERNAL_DATA_ALWAYS,
};

/// Kind of quantization; see optimize_quantize_type_t.
enum class QuantizeType : std::int32_t {
    dynamic = OPTIMIZE_QUANTIZE_DYNAMIC,
    weight_only = OPTIMIZE_QUANTIZE_WEIGHT_ONLY,
    static_ranges = OPTIMIZE_QUANTIZE_STATIC,
};

/// Type of the scales of blocks in the file (weight-only); see optimize_scale_type_t.
enum class ScaleType : std::int32_t {
    uint8 = OPTIMIZE_SCALE_UINT8,
    float16 = OPTIMIZE_SCALE_FLOAT16,
    float32 = OPTIMIZE_SCALE_FLOAT32,
};

/// Use of 7 instead of 8 bits for weights; see optimize_reduce_range_t.
enum class ReduceRange : std::int32_t {
    automatic = OPTIMIZE_REDUCE_RANGE_AUTO,
    on = OPTIMIZE_REDUCE_RANGE_ON,
    off = OPTIMIZE_REDUCE_RANGE_OFF,
};

/// Algorithm that chooses the codes of block-quantized weights; see optimize_algorithm_t.
enum class Algorithm : std::int32_t {
    automatic = OPTIMIZE_ALGORITHM_AUTO,
    rtn = OPTIMIZE_ALGORITHM_RTN,
    hqq = OPTIMIZE_ALGORITHM_HQQ,
    gptq = OPTIMIZE_ALGORITHM_GPTQ,
    awq = OPTIMIZE_ALGORITHM_AWQ,
};

/// Method that determines the range of an activation; see optimize_calibration_method_t.
enum class CalibrationMethod : std::int32_t {
    min_max = OPTIMIZE_CALIBRATION_MIN_MAX,
    percentile = OPTIMIZE_CALIBRATION_PERCENTILE,
    entropy = OPTIMIZE_CALIBRATION_ENTROPY,
    mse = OPTIMIZE_CALIBRATION_MSE,
};

/// Options of Model::save; see optimize_save_options_t.
struct SaveOptions {
    ExternalData external_data = ExternalData::automatic;
    bool packed = false;
};

/// Options of Model::quantize; see optimize_quantize_options_t.
struct QuantizeOptions {
    QuantizeType type = QuantizeType::dynamic;
    std::uint32_t bits = 0;
    ReduceRange reduce_range = ReduceRange::automatic;
    bool per_tensor = false;
    bool keep_embeddings = false;
    std::uint32_t threads = 0;
    std::uint32_t block_size = 0;
    bool symmetric = false;
    ScaleType scale_type = ScaleType::uint8;
    std::uint32_t accuracy_level = 0;
    std::uint64_t min_elements = 0;
    std::vector<std::string> include;
    std::vector<std::string> exclude;
    /// Overrides: texts `GLOB=BITS` or `GLOB=BITS/BLOCK`, which set other bits and another block size for matching
    /// nodes and weights.
    std::vector<std::string> overrides;
    /// Calibration text; empty for none.
    std::string calibration;
    std::uint32_t calibration_windows = 0;
    std::uint32_t calibration_length = 0;
    std::string scratch_folder;
    Algorithm algorithm = Algorithm::automatic;
    CalibrationMethod calibration_method = CalibrationMethod::min_max;
    double percentile = 0;
    double smooth_quant = 0;
    double max_quality_loss = 0;
    std::uint64_t target_size = 0;
    bool never_slower = false;
    /// Calibration tensors for the inputs, by name, instead of a text. Their first dimension counts samples. They
    /// must live until the call ends.
    std::vector<std::pair<std::string, const Tensor *>> calibration_tensors;
};

/// Pruning method; see optimize_prune_method_t.
enum class PruneMethod : std::int32_t {
    magnitude = OPTIMIZE_PRUNE_MAGNITUDE,
    random = OPTIMIZE_PRUNE_RANDOM,
    wanda = OPTIMIZE_PRUNE_WANDA,
    sparsegpt = OPTIMIZE_PRUNE_SPARSEGPT,
    structured = OPTIMIZE_PRUNE_STRUCTURED,
};

/// Criterion by which structured pruning ranks neurons, channels and heads; see optimize_importance_t.
enum class Importance : std::int32_t {
    l1 = OPTIMIZE_IMPORTANCE_L1,
    l2 = OPTIMIZE_IMPORTANCE_L2,
    activation = OPTIMIZE_IMPORTANCE_ACTIVATION,
    random = OPTIMIZE_IMPORTANCE_RANDOM,
};

/// Options of Model::prune; see optimize_prune_options_t.
struct PruneOptions {
    PruneMethod method = PruneMethod::magnitude;
    double sparsity = 0;
    std::uint32_t pattern_keep = 0;
    std::uint32_t pattern_of = 0;
    bool global = false;
    bool embeddings = false;
    std::uint32_t threads = 0;
    Importance importance = Importance::l1;
    std::uint32_t round_to = 0;
    bool reconstruct = false;
    std::uint32_t drop_layers = 0;
    std::uint32_t calibration_windows = 0;
    std::uint32_t calibration_length = 0;
    std::uint64_t seed = 0;
    std::uint64_t min_elements = 0;
    std::vector<std::string> target_modules;
    std::vector<std::string> exclude;
    /// Overrides: texts `GLOB=SPARSITY`, which set another sparsity for matching modules, weights and nodes.
    std::vector<std::string> overrides;
    /// Calibration text; empty for none.
    std::string calibration;
    std::string scratch_folder;
    /// Indices of the layers to remove, instead of `drop_layers`; empty for none.
    std::vector<std::uint32_t> layers;
    std::uint64_t target_size = 0;
    double target_speedup = 0;
    /// Calibration tensors for the inputs, by name, instead of a text. They must live until the call ends.
    std::vector<std::pair<std::string, const Tensor *>> calibration_tensors;
};

/// Use of the reasoning of a model before its answer; see optimize_thinking_t.
enum class Thinking : std::int32_t {
    by_template = OPTIMIZE_THINKING_TEMPLATE,
    on = OPTIMIZE_THINKING_ON,
    off = OPTIMIZE_THINKING_OFF,
};

/// Options of Model::apply_chat_template; see optimize_chat_options_t.
struct ChatOptions {
    /// Whether the beginning of the answer, which otherwise ends the prompt, is left out.
    bool no_generation_prompt = false;
    /// Tools that the model may call, a JSON list of their schemas; empty for none.
    std::string tools;
    /// Further variables of the template, a JSON object; empty for none.
    std::string variables;
    Thinking thinking = Thinking::by_template;
};

/// A message of a conversation.
struct Message {
    /// Role: "system", "user", "assistant", or another role that the chat template supports.
    std::string role;
    /// Text of the message.
    std::string content;
};

struct Quantized;
struct Pruned;
struct Distilled;
struct DistillOptions;
class Model;
namespace detail {
Distilled distill(const Context &context, const Model &teacher, const Model *student, const DistillOptions &options,
                  const Call &call);
}
struct Combined;
struct MergeOptions;

namespace detail {

/// Returns a text as a JSON string, with quotes.
inline std::string json_text(const std::string &text) {
    constexpr char digits[] = "0123456789abcdef";
    std::string json = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x20) json += std::string("\\u00") + digits[byte / 16] + digits[byte % 16];
        else if (c == '"' || c == '\\') json += std::string("\\") + c;
        else json += c;
    }
    return json + '"';
}

/// Returns messages as JSON.
inline std::string json_messages(const std::vector<Message> &messages) {
    std::string json = "[";
    for (const Message &message : messages) {
        if (json.size() > 1) json += ',';
        json += "{\"role\":" + json_text(message.role) + ",\"content\":" + json_text(message.content) + '}';
    }
    return json + ']';
}

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

class Package;

/// A loaded or created model. It is immutable. The files from which a model was loaded must not be truncated or
/// overwritten while the model, or an object created from it, exists.
class Model : public detail::Handle<optimize_model_t, optimize_model_free> {
public:
    /// Loads an .onnx or .gguf file, a checkpoint, an exported folder, a package, or the manifest of an ensemble.
    Model(const Context &context, const std::string &path, const Call &call = {}) {
        const char *c_path = detail::c_text(path, "path");
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_load(context.get(), c_path, c_call, place(), error);
        });
    }
    /// Loads a model from the file `name` of a source: an .onnx file with its external data and the files next to it, a
    /// packed file, a .gguf file, or a package in one file. The files are read during the call.
    Model(const Context &context, const Source &source, const std::string &name, const Call &call = {}) {
        const char *c_name = detail::c_text(name, "name");
        detail::attempt(call, source, [&](auto *c_source, auto *c_call, auto **error) {
            return optimize_model_load_source(context.get(), c_source, c_name, c_call, place(), error);
        });
    }
    /// Loads a model from a copy of the bytes of an .onnx file without external data, a packed file, a .gguf file or a
    /// package in one file.
    static Model load_memory(const Context &context, const void *data, std::size_t size, const Call &call = {}) {
        Model made;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_load_memory(context.get(), data, size, c_call, made.place(), error);
        });
        return made;
    }
    /// Saves the model atomically, and returns {"files": [{"path", "bytes", "sha256"}]} as JSON.
    Report save(const std::string &path, const SaveOptions &options = {}, const Call &call = {}) const {
        auto raw = detail::sized<optimize_save_options_t>();
        raw.external_data = static_cast<std::int32_t>(options.external_data);
        raw.packed = options.packed;
        const char *c_path = detail::c_text(path, "path");
        detail::Buffer report;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_save(get(), c_path, &raw, c_call, report.place(), error);
        });
        return Report(std::move(report));
    }
    /// Passes the model to a sink as the file `name`, after the file with its weights if these are stored in a file of
    /// their own. Returns the same JSON as the other save.
    Report save(const Sink &sink, const std::string &name, const SaveOptions &options = {},
                const Call &call = {}) const {
        auto raw = detail::sized<optimize_save_options_t>();
        raw.external_data = static_cast<std::int32_t>(options.external_data);
        raw.packed = options.packed;
        const char *c_name = detail::c_text(name, "name");
        detail::Buffer report;
        detail::attempt(call, sink, [&](auto *c_sink, auto *c_call, auto **error) {
            return optimize_model_save_sink(get(), c_sink, c_name, &raw, c_call, report.place(), error);
        });
        return Report(std::move(report));
    }
    /// Returns a description of the model as JSON; see optimize_model_inspect.
    Report inspect() const {
        detail::Buffer report;
        detail::attempt([&](auto **error) { return optimize_model_inspect(get(), report.place(), error); });
        return Report(std::move(report));
    }
    /// Returns name, type and shape of the inputs that a run requires.
    std::vector<ValueInfo> inputs() const {
        return detail::value_infos(optimize_model_input_count(get()), [&](auto index, auto *info, auto **error) {
            return optimize_model_input(get(), index, info, error);
        });
    }
    /// Returns name, type and shape of the outputs.
    std::vector<ValueInfo> outputs() const {
        return detail::value_infos(optimize_model_output_count(get()), [&](auto index, auto *info, auto **error) {
            return optimize_model_output(get(), index, info, error);
        });
    }
    /// Returns the tokenizer of the model; throws an Error with Status::not_found if it has none.
    Tokenizer tokenizer() const {
        optimize_tokenizer_t *made = nullptr;
        detail::attempt([&](auto **error) { return optimize_model_tokenizer(get(), &made, error); });
        return Tokenizer(made);
    }
    /// Returns a conversation rendered with the chat template of the model. Set `rendered` of GenerateOptions when the
    /// result is used as a prompt.
    std::string render_chat(const std::vector<Message> &messages) const {
        return render_chat(detail::json_messages(messages));
    }
    /// Returns a rendered conversation, whose messages are JSON and may have further keys: [{"role": "user", "content":
    /// "..."}, ...].
    std::string render_chat(const std::string &messages) const {
        const char *c_messages = detail::c_text(messages, "messages");
        detail::Buffer rendered;
        detail::attempt([&](auto **error) {
            return optimize_model_render_chat(get(), c_messages, rendered.place(), error);
        });
        return rendered.text();
    }
    /// Returns a conversation rendered with the chat template of the model, with tools and other options. Set
    /// `rendered` of GenerateOptions when the result is used as a prompt.
    std::string apply_chat_template(const std::vector<Message> &messages, const ChatOptions &options = {}) const {
        return apply_chat_template(detail::json_messages(messages), options);
    }
    /// Returns a rendered conversation, whose messages are JSON and may have further keys, such as "tool_calls".
    std::string apply_chat_template(const std::string &messages, const ChatOptions &options = {}) const {
        auto raw = detail::sized<optimize_chat_options_t>();
        raw.no_generation_prompt = options.no_generation_prompt;
        raw.tools = detail::c_text_or_null(options.tools, "tools");
        raw.variables = detail::c_text_or_null(options.variables, "variables");
        raw.thinking = static_cast<std::int32_t>(options.thinking);
        const char *c_messages = detail::c_text(messages, "messages");
        detail::Buffer prompt;
        detail::attempt([&](auto **error) {
            return optimize_model_apply_chat_template(get(), c_messages, &raw, prompt.place(), error);
        });
        return prompt.text();
    }
    /// Returns a quantized copy of the model, and a report; see optimize_model_quantize.
    Quantized quantize(const Context &context, const QuantizeOptions &options = {}, const Call &call = {}) const;
    /// Returns an estimate of the result of quantize with the same options: bytes, seconds, memory and kernels. Throws
    /// an Error with Status::invalid_argument for static quantization. See optimize_model_plan.
    Report plan(const Context &context, const QuantizeOptions &options = {}) const;
    /// Returns a pruned copy of the model, and a report; see optimize_model_prune.
    Pruned prune(const Context &context, const PruneOptions &options = {}, const Call &call = {}) const;
    /// Compares `result` with this model, and returns the report. If `tokenizer` is null, inputs are generated. See
    /// optimize_model_benchmark.
    Report benchmark(const Context &context, const Model &result, const Tokenizer *tokenizer = nullptr,
                          const BenchmarkOptions &options = {}, const Call &call = {}) const {
        return benchmark(options, call, [&](const auto *raw, auto *c_call, auto **report, auto **error) {
            const optimize_tokenizer_t *c_tokenizer = tokenizer ? tokenizer->get() : nullptr;
            return optimize_model_benchmark(context.get(), get(), result.get(), c_tokenizer, raw, c_call, report,
                                            error);
        });
    }
    /// Compares a TensorRT engine file with this model, from which it was built, and returns the report.
    Report benchmark_engine(const Context &context, const std::string &path,
                                 const TensorRtOpenOptions &engine_options, const Tokenizer *tokenizer = nullptr,
                                 const BenchmarkOptions &options = {}, const Call &call = {}) const {
        const auto opening = engine_options.native();
        const char *c_path = detail::c_text(path, "path");
        return benchmark(options, call, [&](const auto *raw, auto *c_call, auto **report, auto **error) {
            const optimize_tokenizer_t *c_tokenizer = tokenizer ? tokenizer->get() : nullptr;
            return optimize_model_benchmark_engine(context.get(), get(), c_path, c_tokenizer, &opening, raw, c_call,
                                                   report, error);
        });
    }
    /// Evaluates this model on `data` (the content of a file) and returns the report. If `against` is not null, both
    /// models are evaluated on the data and compared. If `tokenizer` is null, that of this model is used. See
    /// optimize_model_evaluate.
    Report evaluate(const Context &context, std::string_view data, const Model *against = nullptr,
                         const Tokenizer *tokenizer = nullptr, const EvaluateOptions &options = {},
                         const Call &call = {}) const {
        auto raw = detail::sized<optimize_evaluate_options_t>();
        raw.task = static_cast<std::int32_t>(options.task);
        raw.threads = options.threads;
        raw.context_length = options.context_length;
        raw.stride = options.stride;
        raw.bos = static_cast<std::int32_t>(options.bos);
        raw.max_length = options.max_length;
        raw.batch_size = options.batch_size;
        raw.max_tokens = options.max_tokens;
        raw.max_texts = options.max_texts;
        raw.seed = options.seed;
        raw.test_share = options.test_share;
        raw.penalty = options.penalty;
        options.execution.write(raw);
        const optimize_model_t *c_against = against ? against->get() : nullptr;
        const optimize_tokenizer_t *c_tokenizer = tokenizer ? tokenizer->get() : nullptr;
        detail::Buffer report;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_evaluate(context.get(), get(), c_against, c_tokenizer, data.data(), data.size(), &raw,
                                           c_call, report.place(), error);
        });
        return Report(std::move(report));
    }

private:
    friend class Package;
    explicit Model(optimize_model_t *raw) noexcept : Handle(raw) {}
    friend class Ensemble;
    friend Distilled detail::distill(const Context &context, const Model &teacher, const Model *student,
                                     const DistillOptions &options, const Call &call);
    friend Combined merge(const std::vector<const Model *> &models, const MergeOptions &options, const Call &call);
    Model() = default;
    /// Calls `function` with the quantization options as a C struct.
    template <class F> static void quantizing(const QuantizeOptions &options, F &&function);
    /// Returns the report that `function(options, call, report, error)` writes.
    template <class F> static Report benchmark(const BenchmarkOptions &options, const Call &call, F &&function) {
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
        raw.trust_engines = options.trust_engines;
        options.execution.write(raw);
        raw.seed = options.seed;
        raw.texts = texts.data();
        raw.text_count = texts.size();
        raw.shapes = shapes.data();
        raw.shape_count = shapes.size();
        raw.values = values.data();
        raw.value_count = values.size();
        std::vector<const char *> names;
        std::vector<const optimize_tensor_t *> tensors;
        for (const auto &[name, tensor] : options.inputs) {
            names.push_back(detail::c_text(name, "inputs"));
            tensors.push_back(tensor == nullptr ? nullptr : tensor->get());
        }
        raw.input_names = names.data();
        raw.input_tensors = tensors.data();
        raw.input_count = tensors.size();
        detail::Buffer report;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return function(&raw, c_call, report.place(), error);
        });
        return Report(std::move(report));
    }
    /// Returns the model and the report that `function(model, report)` writes.
    template <class F> static std::pair<Model, Report> make(F &&function) {
        Model made;
        detail::Buffer report;
        function(made.place(), report.place());
        return {std::move(made), Report(std::move(report))};
    }
};

/// Result of Model::quantize.
struct Quantized {
    /// Quantized model.
    Model model;
    /// Report in the JSON of docs/report.md: the action on each node, and its reason.
    Report report;
};

template <class F> void Model::quantizing(const QuantizeOptions &options, F &&function) {
    const auto include = detail::c_texts(options.include, "include");
    const auto exclude = detail::c_texts(options.exclude, "exclude");
    const auto overrides = detail::c_texts(options.overrides, "overrides");
    auto raw = detail::sized<optimize_quantize_options_t>();
    raw.type = static_cast<std::int32_t>(options.type);
    raw.bits = options.bits;
    raw.reduce_range = static_cast<std::int32_t>(options.reduce_range);
    raw.per_tensor = options.per_tensor;
    raw.keep_embeddings = options.keep_embeddings;
    raw.threads = options.threads;
    raw.block_size = options.block_size;
    raw.symmetric = options.symmetric;
    raw.scale_type = static_cast<std::int32_t>(options.scale_type);
    raw.accuracy_level = options.accuracy_level;
    raw.min_elements = options.min_elements;
    raw.include = include.data();
    raw.include_count = include.size();
    raw.exclude = exclude.data();
    raw.exclude_count = exclude.size();
    raw.overrides = overrides.data();
    raw.override_count = overrides.size();
    raw.calibration = options.calibration.empty() ? nullptr : options.calibration.data();
    raw.calibration_size = options.calibration.size();
    raw.calibration_windows = options.calibration_windows;
    raw.calibration_length = options.calibration_length;
    raw.scratch_folder = detail::c_text_or_null(options.scratch_folder, "scratch_folder");
    raw.algorithm = static_cast<std::int32_t>(options.algorithm);
    raw.calibration_method = static_cast<std::int32_t>(options.calibration_method);
    raw.percentile = options.percentile;
    raw.smooth_quant = options.smooth_quant;
    raw.max_quality_loss = options.max_quality_loss;
    raw.target_size = options.target_size;
    raw.never_slower = options.never_slower;
    const detail::NamedTensors calibration(options.calibration_tensors, "calibration_tensors");
    raw.calibration_names = calibration.names.data();
    raw.calibration_tensors = calibration.tensors.data();
    raw.calibration_tensor_count = calibration.tensors.size();
    function(&raw);
}

inline Quantized Model::quantize(const Context &context, const QuantizeOptions &options, const Call &call) const {
    Model made;
    detail::Buffer report;
    quantizing(options, [&](const auto *raw) {
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_quantize(context.get(), get(), raw, c_call, made.place(), report.place(), error);
        });
    });
    return {std::move(made), Report(std::move(report))};
}

inline Report Model::plan(const Context &context, const QuantizeOptions &options) const {
    detail::Buffer report;
    quantizing(options, [&](const auto *raw) {
        detail::attempt([&](auto **error) {
            return optimize_model_plan(context.get(), get(), raw, report.place(), error);
        });
    });
    return Report(std::move(report));
}

/// Result of Model::prune.
struct Pruned {
    /// Pruned model.
    Model model;
    /// Report in the JSON of docs/report.md: the number of zeros of each node, and the reasons why other nodes were
    /// left unchanged.
    Report report;
};

inline Pruned Model::prune(const Context &context, const PruneOptions &options, const Call &call) const {
    const auto target_modules = detail::c_texts(options.target_modules, "target_modules");
    const auto exclude = detail::c_texts(options.exclude, "exclude");
    const auto overrides = detail::c_texts(options.overrides, "overrides");
    auto raw = detail::sized<optimize_prune_options_t>();
    raw.method = static_cast<std::int32_t>(options.method);
    raw.sparsity = options.sparsity;
    raw.pattern_keep = options.pattern_keep;
    raw.pattern_of = options.pattern_of;
    raw.global = options.global;
    raw.embeddings = options.embeddings;
    raw.threads = options.threads;
    raw.importance = static_cast<std::int32_t>(options.importance);
    raw.round_to = options.round_to;
    raw.reconstruct = options.reconstruct;
    raw.drop_layers = options.drop_layers;
    raw.calibration_windows = options.calibration_windows;
    raw.calibration_length = options.calibration_length;
    raw.seed = options.seed;
    raw.min_elements = options.min_elements;
    raw.target_modules = target_modules.data();
    raw.target_module_count = target_modules.size();
    raw.exclude = exclude.data();
    raw.exclude_count = exclude.size();
    raw.overrides = overrides.data();
    raw.override_count = overrides.size();
    raw.calibration = options.calibration.empty() ? nullptr : options.calibration.data();
    raw.calibration_size = options.calibration.size();
    raw.scratch_folder = detail::c_text_or_null(options.scratch_folder, "scratch_folder");
    raw.layers = options.layers.data();
    raw.layer_count = options.layers.size();
    raw.target_size = options.target_size;
    raw.target_speedup = options.target_speedup;
    const detail::NamedTensors calibration(options.calibration_tensors, "calibration_tensors");
    raw.calibration_names = calibration.names.data();
    raw.calibration_tensors = calibration.tensors.data();
    raw.calibration_tensor_count = calibration.tensors.size();
    Model made;
    detail::Buffer report;
    detail::attempt(call, [&](auto *c_call, auto **error) {
        return optimize_model_prune(context.get(), get(), &raw, c_call, made.place(), report.place(), error);
    });
    return {std::move(made), Report(std::move(report))};
}

} // namespace optimize

#endif // OPTIMIZE_MODEL_HPP
