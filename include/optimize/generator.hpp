// Part of optimize.hpp: text generation.
#ifndef OPTIMIZE_GENERATOR_HPP
#define OPTIMIZE_GENERATOR_HPP

#include "model.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace optimize {

/// A generated token, as the token callback receives it.
struct Written {
    /// Index of the row.
    std::uint32_t row;
    /// Id of the token.
    std::int64_t token;
    /// Text that this token completes: whole characters that later tokens cannot change, without any part of a stop
    /// string. It may be empty, and is valid until on_token returns.
    std::string_view text;
    /// Log-probability of the token, if log-probabilities were requested; otherwise 0.
    float logprob;
    /// Finish reason of the row; none before its last token.
    FinishReason finish_reason;
    /// Ensembles: entropy of the combined distribution, in nats; otherwise 0.
    double entropy;
    /// Ensembles: part of the entropy that comes from disagreement between the members, in nats; otherwise 0.
    double mutual_information;
    /// Ensembles: sum of the weights of the members that rank this token first; otherwise 0.
    double agreement;
};

/// Options of Generator; see optimize_generator_options_t.
struct GeneratorOptions {
    std::uint32_t threads = 0;
    /// Whether the activations of block-quantized matrix products are rounded, which is faster and less exact.
    bool round_activations = false;
    Execution execution;
    /// Draft model for speculative decoding, or null. It must live until the generator is created.
    const Model *draft = nullptr;
    /// Whether tokens are drafted by prompt look-up.
    bool draft_lookup = false;
    /// Maximum number of drafted tokens per run of the model, at most 64; 0 selects 8.
    std::uint32_t draft_max = 0;
    /// Element type of the KV cache; any value but float32 needs this library's kernels.
    KvCacheType kv_cache_type = KvCacheType::float32;
};

/// Options of Generator::generate, run and append; see optimize_generate_options_t.
struct GenerateOptions {
    std::uint32_t max_new_tokens = 0;
    std::uint32_t max_length = 0;
    std::uint32_t top_k = 0;
    float temperature = 0;
    float top_p = 0;
    float min_p = 0;
    float repetition_penalty = 0;
    float presence_penalty = 0;
    float frequency_penalty = 0;
    std::uint32_t no_repeat_ngram_size = 0;
    std::uint32_t logprobs = 0;
    std::uint64_t seed = 0;
    std::vector<std::string> stop;
    /// Token callback, called for every generated token on the thread that made the call. The return value false ends
    /// all rows. An exception also ends them, and the call throws this exception; run() can then continue the texts.
    std::function<bool(const Written &written)> on_token;
    bool rendered = false;
    bool ignore_eos = false;
    /// Ids of tokens that end the text of a row and are not part of it.
    std::vector<std::int64_t> stop_tokens;
    /// Whether sampling settings that are 0 have the values that the model recommends.
    bool model_sampling = false;
};

namespace detail {

/// The generation options of a call as a C struct.
class Generating {
public:
    Generating(const GenerateOptions &options, Thrown &thrown)
        : options_(options), thrown_(thrown), stop_(c_texts(options.stop, "stop")),
          raw_(sized<optimize_generate_options_t>()) {
        raw_.max_new_tokens = options.max_new_tokens;
        raw_.max_length = options.max_length;
        raw_.top_k = options.top_k;
        raw_.temperature = options.temperature;
        raw_.top_p = options.top_p;
        raw_.min_p = options.min_p;
        raw_.repetition_penalty = options.repetition_penalty;
        raw_.presence_penalty = options.presence_penalty;
        raw_.frequency_penalty = options.frequency_penalty;
        raw_.no_repeat_ngram_size = options.no_repeat_ngram_size;
        raw_.logprobs = options.logprobs;
        raw_.seed = options.seed;
        raw_.stop = stop_.data();
        raw_.stop_count = stop_.size();
        if (options.on_token) raw_.on_token = &Generating::on_token;
        raw_.user_data = this;
        raw_.rendered = options.rendered;
        raw_.ignore_eos = options.ignore_eos;
        raw_.stop_tokens = options.stop_tokens.data();
        raw_.stop_token_count = options.stop_tokens.size();
        raw_.model_sampling = options.model_sampling;
    }
    Generating(const Generating &) = delete;
    Generating &operator=(const Generating &) = delete;

    const optimize_generate_options_t *get() const noexcept { return &raw_; }

private:
    static std::int32_t on_token(void *self, const optimize_written_t *written) noexcept {
        const auto &generating = *static_cast<const Generating *>(self);
        const std::string_view text(written->text, static_cast<std::size_t>(written->text_size));
        return generating.thrown_.guard([&] {
            return generating.options_.on_token({written->row, written->token, text, written->logprob,
                                                 static_cast<FinishReason>(written->finish_reason), written->entropy,
                                                 written->mutual_information, written->agreement});
        });
    }

    const GenerateOptions &options_;
    Thrown &thrown_;
    std::vector<const char *> stop_;
    optimize_generate_options_t raw_;
};

} // namespace detail

class Package;
class Ensemble;

/// A generator: a decoder, or an ensemble of decoders, with the rows of text that it has read and generated so far. A
/// generator accepts one call at a time; a concurrent call other than placement() throws an Error with Status::busy.
class Generator : public detail::Handle<optimize_generator_t, optimize_generator_free> {
public:
    /// Creates a generator of a decoder.
    Generator(const Context &context, const Model &model, const GeneratorOptions &options = {}, const Call &call = {}) {
        const auto raw = c_options(options);
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_generator_new(context.get(), model.get(), &raw, c_call, place(), error);
        });
    }
    /// Creates a generator that combines the members of an ensemble; see Ensemble::generator.
    Generator(const Context &context, const Ensemble &ensemble, const GeneratorOptions &options = {},
              const Call &call = {});
    /// Creates a generator of the model of a package; see Package::generator.
    Generator(const Context &context, const Package &package, const GeneratorOptions &options = {},
              const Call &call = {});
    /// Generates text after each prompt; previous rows are discarded. Returns {"generations": [{"text", "tokens",
    /// "logprobs", "finish_reason", "prompt_tokens"}]} as JSON, which Report::generations reads.
    Report generate(const std::vector<std::string> &prompts, const GenerateOptions &options = {},
                         const Call &call = {}) {
        const detail::Texts texts(prompts);
        return write(options, call, [&](auto *raw, auto *c_call, auto **report, auto **error) {
            return optimize_generator_generate(get(), texts.pointers.data(), texts.sizes.data(), prompts.size(), raw,
                                               c_call, report, error);
        });
    }
    /// Returns the placement of the models as JSON: see optimize_generator_placement.
    Report placement() const {
        detail::Buffer json;
        detail::attempt([&](auto **error) { return optimize_generator_placement(get(), json.place(), error); });
        return Report(std::move(json));
    }
    /// Appends text to a row, for example a message of a conversation to row 0, which is created if there are no rows.
    /// The next run processes the appended text. Of the options, only `rendered` has an effect. Throws an Error with
    /// Status::not_found if there are rows, but not this one.
    void append(std::size_t row, const std::string &text, const GenerateOptions &options = {}) {
        detail::Thrown thrown;
        const detail::Generating generating(options, thrown);
        detail::attempt([&](auto **error) {
            return optimize_generator_append(get(), row, text.data(), text.size(), generating.get(), error);
        });
    }
    /// Generates text in all rows, without processing earlier tokens again. Returns JSON as from generate, for the
    /// new tokens.
    Report run(const GenerateOptions &options = {}, const Call &call = {}) {
        return write(options, call, [&](auto *raw, auto *c_call, auto **report, auto **error) {
            return optimize_generator_run(get(), raw, c_call, report, error);
        });
    }
    /// Discards all rows of the generator.
    void reset() {
        detail::attempt([&](auto **error) { return optimize_generator_reset(get(), error); });
    }

private:
    friend class Package;
    explicit Generator(optimize_generator_t *raw) noexcept : Handle(raw) {}
    static optimize_generator_options_t c_options(const GeneratorOptions &options) {
        auto raw = detail::sized<optimize_generator_options_t>();
        raw.threads = options.threads;
        raw.round_activations = options.round_activations;
        options.execution.write(raw);
        raw.draft = options.draft ? options.draft->get() : nullptr;
        raw.draft_lookup = options.draft_lookup;
        raw.draft_max = options.draft_max;
        raw.kv_cache_type = static_cast<std::int32_t>(options.kv_cache_type);
        return raw;
    }
    template <class F> static Report write(const GenerateOptions &options, const Call &call, F &&function) {
        detail::Thrown thrown;
        const detail::Generating generating(options, thrown);
        detail::Buffer report;
        detail::attempt(call, thrown, [&](auto *c_call, auto **error) {
            return function(generating.get(), c_call, report.place(), error);
        });
        return Report(std::move(report));
    }
};

} // namespace optimize

#endif // OPTIMIZE_GENERATOR_HPP
