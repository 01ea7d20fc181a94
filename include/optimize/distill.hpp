// Part of optimize.hpp: distillation of a teacher model into a student.
#ifndef OPTIMIZE_DISTILL_HPP
#define OPTIMIZE_DISTILL_HPP

#include "model.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace optimize {

/// Divergence between the distributions of teacher and student; see optimize_divergence_t.
enum class Divergence : std::int32_t {
    forward = OPTIMIZE_DIVERGENCE_FORWARD,
    reverse = OPTIMIZE_DIVERGENCE_REVERSE,
    jensen_shannon = OPTIMIZE_DIVERGENCE_JENSEN_SHANNON,
};

/// Decay of the learning rate; see optimize_schedule_t.
enum class Schedule : std::int32_t {
    linear = OPTIMIZE_SCHEDULE_LINEAR,
    cosine = OPTIMIZE_SCHEDULE_COSINE,
    constant = OPTIMIZE_SCHEDULE_CONSTANT,
};

/// A training step or a validation; see optimize_training_step_t.
using TrainingStep = optimize_training_step_t;

/// Options of distill; see optimize_distill_options_t.
struct DistillOptions {
    /// Training text, which is required.
    std::string text;
    std::uint32_t epochs = 0;
    bool json_lines = false;
    std::uint32_t batch_size = 0;
    std::uint32_t sequence_length = 0;
    std::uint32_t gradient_accumulation_steps = 0;
    double learning_rate = 0;
    double temperature = 0;
    Divergence divergence = Divergence::forward;
    Schedule schedule = Schedule::linear;
    double logits_weight = 0;
    double labels_weight = 0;
    double hidden_weight = 0;
    double cosine_weight = 0;
    double relations_weight = 0;
    double warmup_ratio = 0;
    double weight_decay = 0;
    double max_grad_norm = 0;
    double validation_ratio = 0;
    double time_limit = 0;
    std::uint64_t max_steps = 0;
    std::uint64_t evaluate_every = 0;
    std::uint64_t checkpoint_every = 0;
    std::uint64_t seed = 0;
    /// Names or globs of modules or weights to keep unchanged.
    std::vector<std::string> freeze;
    /// Layers of the teacher that form the student: `layers:every-other`, or their number as in `layers:6`.
    std::string student_layers;
    /// Path of the checkpoint file; empty disables checkpoints.
    std::string checkpoint;
    bool resume = false;
    std::uint32_t threads = 0;
    /// Path of a file that caches the teacher's outputs; empty disables the cache.
    std::string teacher_cache;
    /// Number of most probable tokens or classes to cache per distribution; 0 selects 64.
    std::uint64_t teacher_top_k = 0;
    /// Execution provider of teacher and student: cpu, cuda or automatic.
    Provider provider = Provider::cpu;
    std::uint32_t device_id = 0;
    /// Training callback, called after each step and each validation on the thread that made the call. An exception
    /// cancels the call, which then throws this exception.
    std::function<void(const TrainingStep &)> training;
};

/// Result of distill.
struct Distilled {
    /// Trained student.
    Model model;
    /// Report in the JSON of docs/report.md: losses over time, and a comparison of the student with the teacher.
    Report report;
};

namespace detail {

inline Distilled distill(const Context &context, const Model &teacher, const Model *student,
                         const DistillOptions &options, const Call &call) {
    const auto freeze = c_texts(options.freeze, "freeze");
    auto raw = sized<optimize_distill_options_t>();
    raw.epochs = options.epochs;
    raw.json_lines = options.json_lines;
    raw.batch_size = options.batch_size;
    raw.sequence_length = options.sequence_length;
    raw.gradient_accumulation_steps = options.gradient_accumulation_steps;
    raw.learning_rate = options.learning_rate;
    raw.temperature = options.temperature;
    raw.divergence = static_cast<std::int32_t>(options.divergence);
    raw.schedule = static_cast<std::int32_t>(options.schedule);
    raw.logits_weight = options.logits_weight;
    raw.labels_weight = options.labels_weight;
    raw.hidden_weight = options.hidden_weight;
    raw.cosine_weight = options.cosine_weight;
    raw.relations_weight = options.relations_weight;
    raw.warmup_ratio = options.warmup_ratio;
    raw.weight_decay = options.weight_decay;
    raw.max_grad_norm = options.max_grad_norm;
    raw.validation_ratio = options.validation_ratio;
    raw.time_limit = options.time_limit;
    raw.max_steps = options.max_steps;
    raw.evaluate_every = options.evaluate_every;
    raw.checkpoint_every = options.checkpoint_every;
    raw.seed = options.seed;
    raw.freeze = freeze.data();
    raw.freeze_count = freeze.size();
    raw.student_layers = c_text_or_null(options.student_layers, "student_layers");
    raw.checkpoint = c_text_or_null(options.checkpoint, "checkpoint");
    raw.resume = options.resume;
    raw.threads = options.threads;
    raw.teacher_cache = c_text_or_null(options.teacher_cache, "teacher_cache");
    raw.teacher_top_k = options.teacher_top_k;
    raw.provider = static_cast<std::int32_t>(options.provider);
    raw.device_id = options.device_id;
    struct Told {
        const DistillOptions &options;
        Thrown thrown;
    } told{options, {}};
    if (options.training) {
        raw.training_user_data = &told;
        raw.training = [](void *user_data, const optimize_training_step_t *step) {
            auto &given = *static_cast<Told *>(user_data);
            return given.thrown.guard([&] { return given.options.training(*step), true; });
        };
    }
    Model made;
    Buffer report;
    attempt(call, told.thrown, [&](auto *c_call, auto **error) {
        return optimize_model_distill(context.get(), teacher.get(), student ? student->get() : nullptr,
                                      options.text.data(), options.text.size(), &raw, c_call, made.place(),
                                      report.place(), error);
    });
    return {std::move(made), Report(std::move(report))};
}

} // namespace detail

/// Returns a copy of `student` that was trained to reproduce the outputs of `teacher`, and a report. See
/// optimize_model_distill.
inline Distilled distill(const Context &context, const Model &teacher, const Model &student,
                         const DistillOptions &options, const Call &call = {}) {
    return detail::distill(context, teacher, &student, options, call);
}

/// Returns a trained student that consists of the layers `options.student_layers` of the teacher, and a report.
inline Distilled distill(const Context &context, const Model &teacher, const DistillOptions &options,
                         const Call &call = {}) {
    return detail::distill(context, teacher, nullptr, options, call);
}

} // namespace optimize

#endif // OPTIMIZE_DISTILL_HPP
