// Part of optimize.hpp: models and their techniques.
#ifndef OPTIMIZE_MODEL_HPP
#define OPTIMIZE_MODEL_HPP

#include "call.hpp"
#include "context.hpp"
#include "measure.hpp"
#include "prune.hpp"
#include "quantize.hpp"
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

/// Options of Model::save; see optimize_save_options_t.
struct SaveOptions {
    ExternalData external_data = ExternalData::automatic;
    bool packed = false;
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
        const detail::NamedTensors inputs(options.inputs, "inputs");
        raw.input_names = inputs.names.data();
        raw.input_tensors = inputs.tensors.data();
        raw.input_count = inputs.tensors.size();
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

inline Quantized Model::quantize(const Context &context, const QuantizeOptions &options, const Call &call) const {
    Model made;
    detail::Buffer report;
    detail::quantizing(options, [&](const auto *raw) {
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_quantize(context.get(), get(), raw, c_call, made.place(), report.place(), error);
        });
    });
    return {std::move(made), Report(std::move(report))};
}

inline Report Model::plan(const Context &context, const QuantizeOptions &options) const {
    detail::Buffer report;
    detail::quantizing(options, [&](const auto *raw) {
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
    Model made;
    detail::Buffer report;
    detail::pruning(options, [&](const auto *raw) {
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_model_prune(context.get(), get(), raw, c_call, made.place(), report.place(), error);
        });
    });
    return {std::move(made), Report(std::move(report))};
}

} // namespace optimize

#endif // OPTIMIZE_MODEL_HPP
