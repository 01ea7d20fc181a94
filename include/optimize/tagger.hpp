// Part of optimize.hpp: token classification, which finds labelled spans in texts.
#ifndef OPTIMIZE_TAGGER_HPP
#define OPTIMIZE_TAGGER_HPP

#include "model.hpp"
#include "tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace optimize {

/// Rule by which the tokens of a text become spans; see optimize_aggregation_t.
enum class Aggregation : std::int32_t {
    simple = OPTIMIZE_AGGREGATION_SIMPLE,
    none = OPTIMIZE_AGGREGATION_NONE,
    first = OPTIMIZE_AGGREGATION_FIRST,
    average = OPTIMIZE_AGGREGATION_AVERAGE,
    max = OPTIMIZE_AGGREGATION_MAX,
};

/// Options of Tagger; see optimize_tagger_options_t.
struct TaggerOptions {
    std::uint32_t threads = 0;
    std::uint32_t batch_size = 0;
    std::uint32_t max_length = 0;
    std::uint32_t stride = 0;
    Aggregation aggregation = Aggregation::simple;
    /// Whether spans with the label "O", which belong to no entity, are returned as well.
    bool keep_outside = false;
    Execution execution;
};

/// A labelled part of a text.
struct Span {
    /// Class of the entity, for example "PER", or with Aggregation::none the label of the token, for example "B-PER".
    std::string label;
    /// Probability of the label: the mean over the tokens or words of the span.
    float score = 0;
    /// Offset of the first byte of the span in the text.
    std::size_t start = 0;
    /// Offset of the byte after the last byte of the span.
    std::size_t end = 0;
};

/// A tagger, which finds labelled spans in texts (token classification). Any number of threads may use it at the same
/// time.
class Tagger : public detail::Handle<optimize_tagger_t, optimize_tagger_free> {
public:
    /// Creates a tagger that uses the model's own tokenizer.
    Tagger(const Context &context, const Model &model, const TaggerOptions &options = {}, const Call &call = {})
        : Tagger(context, model, nullptr, options, call) {}
    /// Creates a tagger that uses `tokenizer` instead of the model's own.
    Tagger(const Context &context, const Model &model, const Tokenizer &tokenizer, const TaggerOptions &options = {},
           const Call &call = {})
        : Tagger(context, model, tokenizer.get(), options, call) {}
    /// Returns a list of spans for each of `texts`, in the order of the text; empty for a text without tokens.
    std::vector<std::vector<Span>> tag(const std::vector<std::string> &texts, const Call &call = {}) const {
        const auto c_texts = detail::c_texts(texts, "texts");
        Spans spans;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_tagger_tag(get(), c_texts.data(), texts.size(), c_call, spans.place(), error);
        });
        std::vector<std::vector<Span>> all(texts.size());
        for (std::size_t text = 0; text < all.size(); text++)
            for (std::size_t i = 0; i < optimize_spans_count(spans.get(), text); i++) {
                auto raw = detail::sized<optimize_span_t>();
                detail::attempt([&](auto **error) { return optimize_spans_get(spans.get(), text, i, &raw, error); });
                all[text].push_back({raw.label, raw.score, static_cast<std::size_t>(raw.start),
                                     static_cast<std::size_t>(raw.end)});
            }
        return all;
    }

private:
    struct Spans : detail::Handle<optimize_spans_t, optimize_spans_free> {
        using Handle::place;
    };
    Tagger(const Context &context, const Model &model, const optimize_tokenizer_t *tokenizer,
           const TaggerOptions &options, const Call &call) {
        auto raw = detail::sized<optimize_tagger_options_t>();
        raw.threads = options.threads;
        raw.batch_size = options.batch_size;
        raw.max_length = options.max_length;
        raw.stride = options.stride;
        raw.aggregation = static_cast<std::int32_t>(options.aggregation);
        raw.keep_outside = options.keep_outside;
        options.execution.write(raw);
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_tagger_new(context.get(), model.get(), tokenizer, &raw, c_call, place(), error);
        });
    }
};

} // namespace optimize

#endif // OPTIMIZE_TAGGER_HPP
