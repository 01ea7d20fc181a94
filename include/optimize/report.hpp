// Part of optimize.hpp: reports and their figures.
#ifndef OPTIMIZE_REPORT_HPP
#define OPTIMIZE_REPORT_HPP

#include "handle.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace optimize {

/// The reason why the text of a row ended; see optimize_finish_reason_t.
enum class FinishReason : std::int32_t {
    none = OPTIMIZE_FINISH_NONE,
    eos = OPTIMIZE_FINISH_EOS,
    length = OPTIMIZE_FINISH_LENGTH,
    stop = OPTIMIZE_FINISH_STOP,
    cancelled = OPTIMIZE_FINISH_CANCELLED,
};

/// Action of a technique on a node; see optimize_node_report_t.
struct NodeReport {
    std::string name;
    std::string op;
    std::string action;
    std::string reason;
    bool changed = false;
    /// Loss of the model if this node alone is quantized, in the measure of `max_quality_loss`; NaN if it was not
    /// measured.
    double sensitivity = 0;
};

/// A token that the model could have generated at a position, with its log-probability.
struct Candidate {
    std::int64_t token = 0;
    float logprob = 0;
};

/// The generated text of a row; see optimize_generation_t.
struct Generation {
    std::string text;
    std::vector<std::int64_t> tokens;
    /// Log-probability of each token; empty if log-probabilities were not requested.
    std::vector<float> logprobs;
    /// The most probable tokens at each position, the most probable first: as many as the option `logprobs`, less one.
    /// The list is empty if log-probabilities were not requested.
    std::vector<std::vector<Candidate>> candidates;
    FinishReason finish_reason = FinishReason::none;
    std::size_t prompt_tokens = 0;
    /// Ensembles: mean over the tokens of the entropy of the combined distribution, in nats; otherwise NaN.
    double entropy = 0;
    /// Ensembles: mean over the tokens of the part of the entropy that comes from disagreement between the members, in
    /// nats; otherwise NaN.
    double mutual_information = 0;
    /// Ensembles: mean over the tokens of the sum of the weights of the members that rank the token first; otherwise
    /// NaN.
    double agreement = 0;
    /// With a draft: number of runs of the model, number of drafted tokens, and number of accepted ones; otherwise 0.
    std::size_t steps = 0;
    std::size_t drafted = 0;
    std::size_t accepted = 0;
    /// Fraction of the drafted tokens that were accepted; NaN if none were drafted.
    double acceptance = 0;
};

/// Results of a benchmark; see optimize_benchmark_t. A number that was not measured, or does not apply to the models,
/// is NaN, or 0 for bytes.
struct Benchmark {
    std::uint32_t runs = 0;
    /// Verdict: "faster", "slower" or "no difference".
    std::string verdict;
    double speedup = 0;
    double speedup_low = 0;
    double speedup_high = 0;
    double original_ms = 0;
    double result_ms = 0;
    double original_p90_ms = 0;
    double result_p90_ms = 0;
    double original_load_ms = 0;
    double result_load_ms = 0;
    std::uint64_t original_resident_bytes = 0;
    std::uint64_t result_resident_bytes = 0;
    std::uint64_t original_bytes = 0;
    std::uint64_t result_bytes = 0;
    double cosine = 0;
    double max_abs_error = 0;
    double top1_agreement = 0;
    double kl = 0;
};

/// A report of the library: JSON, and functions that read values of it. It is immutable, and copies share the content.
class Report {
public:
    /// Creates a report without content: json() returns an empty text, nodes() and generations() return empty lists,
    /// and the other functions throw.
    Report() = default;
    explicit Report(detail::Buffer buffer) : buffer_(std::make_shared<const detail::Buffer>(std::move(buffer))) {}

    /// Returns the report as JSON; docs/report.md describes the fields.
    std::string json() const { return buffer_ ? buffer_->text() : std::string(); }
    /// Converts the report to its JSON.
    operator std::string() const { return json(); }
    /// Returns a number of the report, for example number("/quality/perplexity"); see optimize_report_number. Throws an
    /// Error with Status::not_found if there is no such value, or with Status::invalid_argument if it is not a number.
    double number(const std::string &pointer) const {
        const char *c_pointer = detail::c_text(pointer, "pointer");
        double value = 0;
        detail::attempt([&](auto **error) { return optimize_report_number(get(), c_pointer, &value, error); });
        return value;
    }
    /// Returns a text of the report, for example text("/operation"). Throws like number(), with
    /// Status::invalid_argument if the value is not a text.
    std::string text(const std::string &pointer) const {
        const char *c_pointer = detail::c_text(pointer, "pointer"), *value = nullptr;
        std::size_t size = 0;
        detail::attempt([&](auto **error) { return optimize_report_text(get(), c_pointer, &value, &size, error); });
        return {value, size};
    }
    /// Returns the number of entries of a list or an object of the report, for example count("/warnings"). Throws like
    /// number(), with Status::invalid_argument if the value is neither a list nor an object.
    std::size_t count(const std::string &pointer) const {
        const char *c_pointer = detail::c_text(pointer, "pointer");
        std::size_t value = 0;
        detail::attempt([&](auto **error) { return optimize_report_count(get(), c_pointer, &value, error); });
        return value;
    }
    /// Returns the action of a technique on each node; an empty list if the report has no nodes.
    std::vector<NodeReport> nodes() const {
        std::vector<NodeReport> all;
        for (std::size_t i = 0; i < optimize_report_node_count(get()); i++) {
            auto raw = detail::sized<optimize_node_report_t>();
            detail::attempt([&](auto **error) { return optimize_report_node(get(), i, &raw, error); });
            all.push_back({raw.name, raw.op, raw.action, raw.reason, raw.changed != 0, raw.sensitivity});
        }
        return all;
    }
    /// Returns the results of a benchmark; throws an Error with Status::not_found if the report has none.
    Benchmark benchmark() const {
        auto raw = detail::sized<optimize_benchmark_t>();
        detail::attempt([&](auto **error) { return optimize_report_benchmark(get(), &raw, error); });
        return {raw.runs, raw.verdict, raw.speedup, raw.speedup_low, raw.speedup_high, raw.original_ms, raw.result_ms,
                raw.original_p90_ms, raw.result_p90_ms, raw.original_load_ms, raw.result_load_ms,
                raw.original_resident_bytes, raw.result_resident_bytes, raw.original_bytes, raw.result_bytes,
                raw.cosine, raw.max_abs_error, raw.top1_agreement, raw.kl};
    }
    /// Returns the generated texts in a report of Generator::generate or Generator::run; an empty list for other
    /// reports.
    std::vector<Generation> generations() const {
        std::vector<Generation> all(optimize_generation_count(get()));
        for (std::size_t row = 0; row < all.size(); row++) all[row] = generation(row);
        return all;
    }

private:
    const optimize_buffer_t *get() const noexcept { return buffer_ ? buffer_->get() : nullptr; }
    Generation generation(std::size_t row) const {
        auto raw = detail::sized<optimize_generation_t>();
        detail::attempt([&](auto **error) { return optimize_generation_get(get(), row, &raw, error); });
        const auto count = static_cast<std::size_t>(raw.token_count);
        Generation made;
        made.text.assign(raw.text, static_cast<std::size_t>(raw.text_size));
        if (raw.tokens) made.tokens.assign(raw.tokens, raw.tokens + count);
        if (raw.logprobs) made.logprobs.assign(raw.logprobs, raw.logprobs + count);
        made.finish_reason = static_cast<FinishReason>(raw.finish_reason);
        made.prompt_tokens = static_cast<std::size_t>(raw.prompt_tokens);
        made.entropy = raw.entropy;
        made.mutual_information = raw.mutual_information;
        made.agreement = raw.agreement;
        made.steps = static_cast<std::size_t>(raw.steps);
        made.drafted = static_cast<std::size_t>(raw.drafted);
        made.accepted = static_cast<std::size_t>(raw.accepted);
        made.acceptance = raw.acceptance;
        for (std::size_t token = 0; token < made.logprobs.size(); token++) {
            made.candidates.emplace_back();
            for (std::size_t i = 0;; i++) {
                auto one = detail::sized<optimize_candidate_t>();
                if (optimize_generation_candidate(get(), row, token, i, &one, nullptr) != OPTIMIZE_OK) break;
                made.candidates.back().push_back({one.token, one.logprob});
            }
        }
        return made;
    }

    std::shared_ptr<const detail::Buffer> buffer_;
};

/// Writes the JSON of a report to a stream.
inline std::ostream &operator<<(std::ostream &stream, const Report &report) { return stream << report.json(); }

} // namespace optimize

#endif // OPTIMIZE_REPORT_HPP
