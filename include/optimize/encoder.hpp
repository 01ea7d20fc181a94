// Part of optimize.hpp: embedders, which compute vectors of texts, and classifiers, which compute scores of classes.
#ifndef OPTIMIZE_ENCODER_HPP
#define OPTIMIZE_ENCODER_HPP

#include "model.hpp"
#include "tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace optimize {

/// Options of Embedder; see optimize_embedder_options_t.
struct EmbedderOptions {
    std::uint32_t threads = 0;
    std::uint32_t batch_size = 0;
    std::uint32_t max_length = 0;
    std::uint32_t dimensions = 0;
    bool normalize = false;
    /// Text that is put before every text, empty for none; without a value, the default prompt of the model is used, if
    /// it has one.
    std::optional<std::string> prompt;
    /// Name of one of the model's prompts, instead of `prompt`; empty for none.
    std::string prompt_name;
    Execution execution;
};

/// An embedder, which computes vectors of texts. Any number of threads may use it at the same time.
class Embedder : public detail::Handle<optimize_embedder_t, optimize_embedder_free> {
public:
    /// Creates an embedder that uses the model's own tokenizer.
    Embedder(const Context &context, const Model &model, const EmbedderOptions &options = {}, const Call &call = {})
        : Embedder(context, model, nullptr, options, call) {}
    /// Creates an embedder that uses `tokenizer` instead of the model's own.
    Embedder(const Context &context, const Model &model, const Tokenizer &tokenizer,
             const EmbedderOptions &options = {}, const Call &call = {})
        : Embedder(context, model, tokenizer.get(), options, call) {}
    /// Returns the vectors of texts: a float32 tensor of shape [texts.size(), width], with a row for each text.
    Tensor embed(const std::vector<std::string> &texts, const Call &call = {}) const {
        const auto c_texts = detail::c_texts(texts, "texts");
        Tensor vectors;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_embedder_embed(get(), c_texts.data(), texts.size(), c_call, vectors.place(), error);
        });
        return vectors;
    }

private:
    Embedder(const Context &context, const Model &model, const optimize_tokenizer_t *tokenizer,
             const EmbedderOptions &options, const Call &call) {
        auto raw = detail::sized<optimize_embedder_options_t>();
        raw.threads = options.threads;
        raw.batch_size = options.batch_size;
        raw.max_length = options.max_length;
        raw.dimensions = options.dimensions;
        raw.normalize = options.normalize;
        raw.prompt = options.prompt ? detail::c_text(*options.prompt, "prompt") : nullptr;
        raw.prompt_name = options.prompt_name.empty() ? nullptr : detail::c_text(options.prompt_name, "prompt_name");
        options.execution.write(raw);
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_embedder_new(context.get(), model.get(), tokenizer, &raw, c_call, place(), error);
        });
    }
};

/// Function that turns the logits of a classifier into scores; see optimize_score_function_t.
enum class ScoreFunction : std::int32_t {
    automatic = OPTIMIZE_SCORE_FUNCTION_AUTO,
    softmax = OPTIMIZE_SCORE_FUNCTION_SOFTMAX,
    sigmoid = OPTIMIZE_SCORE_FUNCTION_SIGMOID,
    none = OPTIMIZE_SCORE_FUNCTION_NONE,
};

/// Options of Classifier; see optimize_classifier_options_t.
struct ClassifierOptions {
    std::uint32_t threads = 0;
    std::uint32_t batch_size = 0;
    std::uint32_t max_length = 0;
    ScoreFunction score_function = ScoreFunction::automatic;
    Execution execution;
};

/// A classifier, which computes scores of classes for texts or pairs of texts. Any number of threads may use it at the
/// same time.
class Classifier : public detail::Handle<optimize_classifier_t, optimize_classifier_free> {
public:
    /// Creates a classifier that uses the model's own tokenizer.
    Classifier(const Context &context, const Model &model, const ClassifierOptions &options = {},
               const Call &call = {})
        : Classifier(context, model, nullptr, options, call) {}
    /// Creates a classifier that uses `tokenizer` instead of the model's own.
    Classifier(const Context &context, const Model &model, const Tokenizer &tokenizer,
               const ClassifierOptions &options = {}, const Call &call = {})
        : Classifier(context, model, tokenizer.get(), options, call) {}
    /// Returns the labels of the classes in the order of the scores, or an empty list if the model does not give the
    /// number of its classes.
    std::vector<std::string> labels() const {
        std::vector<std::string> all(optimize_classifier_label_count(get()));
        for (std::size_t i = 0; i < all.size(); i++) all[i] = optimize_classifier_label(get(), i);
        return all;
    }
    /// Returns the scores of texts: a float32 tensor of shape [texts.size(), classes], with a row for each text.
    Tensor classify(const std::vector<std::string> &texts, const Call &call = {}) const {
        return classified(texts, nullptr, call);
    }
    /// Returns the scores of pairs of texts, as classify does for texts; `second` has one text for each of `texts`.
    Tensor classify_pairs(const std::vector<std::string> &texts, const std::vector<std::string> &second,
                          const Call &call = {}) const {
        if (second.size() != texts.size())
            throw Error(Status::invalid_argument, "the numbers of texts and of second texts differ");
        const auto c_second = detail::c_texts(second, "second");
        return classified(texts, c_second.data(), call);
    }

private:
    Classifier(const Context &context, const Model &model, const optimize_tokenizer_t *tokenizer,
               const ClassifierOptions &options, const Call &call) {
        auto raw = detail::sized<optimize_classifier_options_t>();
        raw.threads = options.threads;
        raw.batch_size = options.batch_size;
        raw.max_length = options.max_length;
        raw.score_function = static_cast<std::int32_t>(options.score_function);
        options.execution.write(raw);
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_classifier_new(context.get(), model.get(), tokenizer, &raw, c_call, place(), error);
        });
    }
    Tensor classified(const std::vector<std::string> &texts, const char *const *second, const Call &call) const {
        const auto c_texts = detail::c_texts(texts, "texts");
        Tensor scores;
        detail::attempt(call, [&](auto *c_call, auto **error) {
            return optimize_classifier_classify(get(), c_texts.data(), second, texts.size(), c_call, scores.place(),
                                                error);
        });
        return scores;
    }
};

} // namespace optimize

#endif // OPTIMIZE_ENCODER_HPP
