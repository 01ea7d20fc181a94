// Part of optimize.hpp: benchmark and evaluation options.
#ifndef OPTIMIZE_MEASURE_HPP
#define OPTIMIZE_MEASURE_HPP

#include "context.hpp"
#include "tensor.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace optimize {

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
    /// Tensors for the inputs, by name, instead of texts and generated inputs. Their first dimension counts samples.
    /// They must live until the call ends.
    std::vector<std::pair<std::string, const Tensor *>> inputs;
    /// Whether you trust the source of the models. Engines inside a model contain executable code; if this is false,
    /// such a model on a device throws an Error with Status::untrusted.
    bool trust_engines = false;
    Execution execution;
};

/// Evaluation task of Model::evaluate; see optimize_evaluate_task_t.
enum class EvaluateTask : std::int32_t {
    automatic = OPTIMIZE_EVALUATE_DEFAULT,
    perplexity = OPTIMIZE_EVALUATE_PERPLEXITY,
    embedding = OPTIMIZE_EVALUATE_EMBEDDING,
    classification = OPTIMIZE_EVALUATE_CLASSIFICATION,
    probe = OPTIMIZE_EVALUATE_PROBE,
};

/// Position of the beginning-of-sequence token; see optimize_bos_t.
enum class Bos : std::int32_t {
    every_window = OPTIMIZE_BOS_EVERY_WINDOW,
    first_window = OPTIMIZE_BOS_FIRST_WINDOW,
    never = OPTIMIZE_BOS_NEVER,
};

/// Options of Model::evaluate; see optimize_evaluate_options_t.
struct EvaluateOptions {
    EvaluateTask task = EvaluateTask::automatic;
    std::uint32_t threads = 0;
    std::uint32_t context_length = 0;
    std::uint32_t stride = 0;
    Bos bos = Bos::every_window;
    std::uint32_t max_length = 0;
    std::uint32_t batch_size = 0;
    std::uint64_t max_tokens = 0;
    std::uint64_t max_texts = 0;
    std::uint64_t seed = 0;
    double test_share = 0;
    double penalty = 0; ///< 0 selects 0.5; a negative value disables the penalty.
    Execution execution;
};

} // namespace optimize

#endif // OPTIMIZE_MEASURE_HPP
