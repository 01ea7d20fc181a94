// optimize.hpp: text generation, with SmolLM2 from its GGUF file.
#include "tap.hpp"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <stdexcept>
#include <type_traits>

namespace {

using optimize::FinishReason;
using optimize::GenerateOptions;
using optimize::Written;

std::string gguf() {
    for (const auto &file : std::filesystem::directory_iterator(tap::deps("models/smollm2")))
        if (file.path().extension() == ".gguf") return file.path().string();
    return {};
}

// Objects that the tests share; each test sets the state that it needs.
const optimize::Context context;
const optimize::Model &model() {
    static const optimize::Model loaded(context, gguf());
    return loaded;
}
optimize::Generator &generator() {
    static optimize::Generator made(context, model());
    return made;
}

const std::string count = "One, two, three, four,"; // the model continues: five, six, seven, eight, and nine, ...

/// The pieces that on_token receives, row by row.
struct Heard {
    std::vector<std::string> texts;
    std::vector<std::int64_t> tokens;
    std::vector<float> logprobs;
    FinishReason finish = FinishReason::none; // of the latest token

    bool add(const Written &written) {
        if (texts.size() <= written.row) texts.resize(written.row + 1);
        texts[written.row] += written.text;
        tokens.push_back(written.token);
        logprobs.push_back(written.logprob);
        finish = written.finish_reason;
        return true;
    }
};

GenerateOptions heard_by(Heard &heard, std::uint32_t max_new_tokens) {
    GenerateOptions options;
    options.max_new_tokens = max_new_tokens;
    options.on_token = [&](const Written &written) { return heard.add(written); };
    return options;
}

std::string text_of(const std::string &prompt, GenerateOptions options) {
    Heard heard;
    options.on_token = [&](const Written &written) { return heard.add(written); };
    generator().generate({prompt}, options);
    return heard.texts.at(0);
}

GenerateOptions at_most(std::uint32_t max_new_tokens) {
    GenerateOptions options;
    options.max_new_tokens = max_new_tokens;
    return options;
}

bool has(const std::string &text, const std::string &part) { return text.find(part) != std::string::npos; }

void a_chat_names_paris_and_streams_the_same_text() {
    Heard heard;
    auto options = heard_by(heard, 24);
    options.rendered = true;
    const auto prompt = model().render_chat({{"user", "What is the capital of France?"}});
    const auto report = generator().generate({prompt}, options);
    CHECK(has(heard.texts.at(0), "Paris"));
    CHECK(has(report, "\"text\":\"" + heard.texts[0] + "\""));
    CHECK(heard.finish == FinishReason::eos && has(report, "\"finish_reason\":\"eos\""));
}

void messages_are_rendered_whatever_is_in_them() {
    const std::string odd = "\"quotes\" \\ and\n\tcontrol \x01 characters, größer";
    CHECK(has(model().render_chat({{"user", odd}}), odd));
    const auto two = model().render_chat({{"system", "Be brief."}, {"user", "Hello"}});
    CHECK(has(two, "Be brief.") && has(two, "Hello") && !has(two, "\""));
    const std::string json = R"([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])";
    CHECK(model().render_chat(json) == two);
    FAILS(invalid_argument, "JSON", model().render_chat("{"));
    FAILS(invalid_argument, "NUL", model().render_chat(std::string("[]\0", 3)));
    CHECK(model().apply_chat_template(json) == two);
    optimize::ChatOptions open;
    open.no_generation_prompt = true;
    const auto shorter = model().apply_chat_template({{"user", "Hello"}}, open);
    const auto longer = model().render_chat({{"user", "Hello"}});
    CHECK(shorter.size() < longer.size() && longer.compare(0, shorter.size(), shorter) == 0);
    open.tools = "{}";
    FAILS(invalid_argument, "tools", model().apply_chat_template({{"user", "Hello"}}, open));
    const optimize::Model encoder(context, tap::deps("models/paraphrase-MiniLM-L3-v2"));
    FAILS(not_found, "template", encoder.render_chat({{"user", "Hello"}}));
    FAILS(unsupported, "", optimize::Generator(context, encoder));
}

void runs_go_on_where_the_last_one_ended() {
    const auto whole = text_of(count, at_most(12));
    Heard heard;
    generator().reset();
    generator().append(0, "One, two,");
    generator().append(0, " three, four,");
    generator().run(heard_by(heard, 5));
    generator().run(heard_by(heard, 7));
    CHECK(heard.texts.at(0) == whole && heard.tokens.size() == 12);

    Heard appended;
    CHECK(text_of(count, at_most(3)) == " five, six");
    generator().append(0, ", seven,");
    generator().run(heard_by(appended, 4));
    CHECK(appended.texts.at(0) == text_of(count + " five, six, seven,", at_most(4)));
}

void rows_are_written_as_if_alone() {
    const std::string other = "The sun rises in the";
    Heard heard;
    generator().generate({count, other}, heard_by(heard, 6));
    CHECK(heard.texts.size() == 2 && heard.tokens.size() == 12);
    CHECK(heard.texts.at(0) == text_of(count, at_most(6)) && heard.texts.at(1) == text_of(other, at_most(6)));
}

void stop_strings_and_callbacks_end_a_text() {
    Heard heard;
    auto options = heard_by(heard, 24);
    options.stop = {"nothing", "seven"};
    generator().generate({count}, options);
    CHECK(has(heard.texts.at(0), "six") && !has(heard.texts[0], "seven"));
    CHECK(heard.finish == FinishReason::stop);

    Heard three;
    options = heard_by(three, 24);
    options.on_token = [&](const Written &written) { return three.add(written) && three.tokens.size() < 3; };
    CHECK(has(generator().generate({count}, options), "\"finish_reason\":\"cancelled\""));
    CHECK(three.tokens.size() == 3);
}

void what_on_token_throws_comes_out() {
    struct Mine {
        int number;
    };
    int calls = 0, caught = 0;
    auto options = at_most(8);
    options.on_token = [&](const Written &) -> bool {
        if (++calls == 2) throw Mine{7};
        return true;
    };
    try {
        generator().generate({count}, options);
    } catch (const Mine &mine) {
        caught = mine.number;
    }
    CHECK(caught == 7 && calls == 2);
    // The tokens before the exception are kept, so that run() continues after them.
    Heard rest;
    generator().run(heard_by(rest, 6));
    generator().generate({count}, at_most(2));
    Heard more;
    generator().run(heard_by(more, 6));
    CHECK(rest.tokens == more.tokens && rest.texts == more.texts);
    // A generator is busy while it reports its tokens.
    options.on_token = [](const Written &) { return generator().run().json().empty(); };
    FAILS(busy, "generator", generator().generate({count}, options));
    CHECK(has(text_of(count, at_most(4)), "five"));
}

void seeds_repeat() {
    auto options = at_most(8);
    options.temperature = 1;
    options.top_p = 0.95F;
    options.seed = 7;
    const auto first = text_of("Once upon a time", options);
    CHECK(!first.empty() && text_of("Once upon a time", options) == first);
    options.seed = 8;
    CHECK(text_of("Once upon a time", options) != first);
    auto ends = at_most(8);
    ends.temperature = 0;
    ends.top_p = 0.95F; // top_p has no effect without sampling, so it is refused
    FAILS(invalid_argument, "top_p", text_of("Once upon a time", ends));
    options.top_k = 1; // only the most probable token is left
    CHECK(text_of("Once upon a time", options) == text_of("Once upon a time", at_most(8)));
}

void log_probabilities_are_told() {
    Heard heard;
    auto options = heard_by(heard, 4);
    options.logprobs = 3; // the generated token and the two most probable tokens
    const auto report = generator().generate({count}, options);
    CHECK(heard.logprobs.size() == 4 && has(report, "\"top\":[{"));
    for (const float logprob : heard.logprobs) CHECK(std::isfinite(logprob) && logprob < 0 && logprob > -5);
    Heard without;
    CHECK(has(generator().generate({count}, heard_by(without, 1)), "\"logprobs\":[]") && without.logprobs.at(0) == 0);
}

void calls_are_cancelled_and_timed_out() {
    optimize::Cancel cancel;
    optimize::Call call;
    call.cancel = &cancel;
    auto options = at_most(2000);
    options.ignore_eos = true;
    options.on_token = [&](const Written &) {
        cancel.fire();
        return true;
    };
    FAILS(cancelled, "", generator().generate({count}, options, call));
    FAILS(cancelled, "", optimize::Generator(context, model(), {}, call));
    options.on_token = {};
    optimize::Call late;
    late.timeout = std::chrono::milliseconds(50);
    FAILS(timeout, "", generator().generate({count}, options, late));
    optimize::Call watched;
    watched.progress = [](std::string_view stage, std::uint64_t, std::uint64_t) -> bool {
        throw std::runtime_error(std::string(stage));
    };
    try {
        generator().generate({count}, options, watched);
        CHECK(false);
    } catch (const std::runtime_error &error) {
        CHECK(error.what() == std::string("prompt"));
    }
    CHECK(has(text_of(count, at_most(4)), "five"));
}

void wrong_arguments_are_refused() {
    GenerateOptions options;
    options.max_length = 2;
    FAILS(invalid_argument, "max_length", generator().generate({count}, options));
    options = {};
    options.temperature = -1;
    FAILS(invalid_argument, "temperature", generator().generate({count}, options));
    options = {};
    options.stop = {std::string("a\0b", 3)};
    FAILS(invalid_argument, "NUL", generator().generate({count}, options));
    FAILS(invalid_argument, "count", generator().generate({}));
    FAILS(invalid_argument, "UTF-8", generator().generate({"\xff"}));
    FAILS(not_found, "row 7", generator().append(7, "x"));
    optimize::Generator taken = std::move(generator());
    FAILS(invalid_argument, "generator", generator().reset());
    generator() = std::move(taken);
    generator().reset();
}

void generators_outlive_what_they_were_made_from() {
    static_assert(!std::is_copy_constructible_v<optimize::Generator>);
    const auto make = [] {
        const optimize::Context other;
        optimize::GeneratorOptions options;
        options.threads = 1;
        return optimize::Generator(other, optimize::Model(other, gguf()), options);
    };
    CHECK(has(make().generate({count}, at_most(4)), "five"));
}

void a_draft_changes_no_text() {
    const auto plain = generator().generate({count}, at_most(24)).generations().at(0);
    CHECK(plain.steps == 0 && plain.drafted == 0 && std::isnan(plain.acceptance));
    optimize::GeneratorOptions options;
    options.draft = &model();
    options.draft_lookup = true;
    options.draft_max = 6;
    optimize::Generator drafting(context, model(), options);
    const auto found = drafting.generate({count}, at_most(24)).generations().at(0);
    CHECK(found.text == plain.text && found.tokens == plain.tokens);
    CHECK(found.accepted > 0 && found.accepted <= found.drafted && found.steps < found.tokens.size());
    CHECK(found.acceptance == static_cast<double>(found.accepted) / static_cast<double>(found.drafted));
    FAILS(invalid_argument, "2 rows", drafting.generate({count, count}, at_most(2)));
    options.draft_max = 1000;
    FAILS(invalid_argument, "draft_max is 1000", optimize::Generator(context, model(), options));
}

void a_bfloat16_cache_is_near_a_float32_one() {
    optimize::GeneratorOptions options;
    options.kv_cache_type = optimize::KvCacheType::bfloat16;
    optimize::Generator half(context, model(), options);
    const auto plain = generator().generate({count}, at_most(8)).generations().at(0);
    CHECK(half.generate({count}, at_most(8)).generations().at(0).text == plain.text);
    options.execution.kernels = optimize::Kernels::stock;
    FAILS(invalid_argument, "kv_cache_type", optimize::Generator(context, model(), options));
}

void an_ensemble_writes_one_text() {
    optimize::EnsembleOptions how;
    how.temperatures = {1, 1.5};
    const optimize::Ensemble pair({&model(), &model()}, how);
    auto together = pair.generator(context);
    GenerateOptions options;
    options.max_new_tokens = 8;
    const std::string alone = generator().generate({count}, options);
    double entropy = 0, agreement = 0;
    std::string text;
    options.on_token = [&](const Written &written) {
        entropy += written.entropy;
        agreement += written.agreement;
        text += written.text;
        return true;
    };
    together.generate({count}, options);
    CHECK(alone.find(text) != std::string::npos);
    CHECK(entropy > 0 && agreement == 8);
    const std::string folder = tap::temporary("cpp-pair");
    pair.save(folder);
    const auto again = optimize::Ensemble::load(folder);
    CHECK(again.inspect().json().find("1.5") != std::string::npos);
    optimize::FitOptions fit;
    fit.context_length = 16;
    const auto fitted = again.fit(context, "One, two, three. A man walks home to eat his bread.", fit);
    CHECK(fitted.second.find("\"fitted_nll\"") != std::string::npos);
    CHECK(fitted.first.fuse().report.json().find("\"ensemble\"") != std::string::npos);
    CHECK(optimize::merge({&model(), &model()}).report.json().find("\"merge\"") != std::string::npos);
    FAILS(invalid_argument, "at least two members", optimize::Ensemble({&model()}));
    FAILS(invalid_argument, "model 2", optimize::Ensemble({&model(), nullptr}));
}

} // namespace

int main() {
    RUN(a_chat_names_paris_and_streams_the_same_text);
    RUN(messages_are_rendered_whatever_is_in_them);
    RUN(runs_go_on_where_the_last_one_ended);
    RUN(rows_are_written_as_if_alone);
    RUN(stop_strings_and_callbacks_end_a_text);
    RUN(what_on_token_throws_comes_out);
    RUN(seeds_repeat);
    RUN(log_probabilities_are_told);
    RUN(calls_are_cancelled_and_timed_out);
    RUN(wrong_arguments_are_refused);
    RUN(generators_outlive_what_they_were_made_from);
    RUN(a_draft_changes_no_text);
    RUN(a_bfloat16_cache_is_near_a_float32_one);
    RUN(an_ensemble_writes_one_text);
    return tap::end();
}
