// optimize.hpp: all of the wrapper except its Generator, and its additions to the C interface.
#include "tap.hpp"

#include <cmath>
#include <fstream>
#include <iterator>
#include <thread>

namespace {

using tap::deps;
using tap::temporary;

const std::string minilm = "models/paraphrase-MiniLM-L3-v2";
const std::string sentence = "461"; // the name of the output with the embedding of the sentence

double cosine(const float *a, const float *b, std::size_t count) {
    double ab = 0, aa = 0, bb = 0;
    for (std::size_t i = 0; i < count; ++i) ab += double(a[i]) * b[i], aa += double(a[i]) * a[i], bb += double(b[i]) * b[i];
    return ab / std::sqrt(aa * bb);
}

void version_and_statuses() {
    CHECK(optimize::version() == std::to_string(OPTIMIZE_VERSION_MAJOR) + "." + std::to_string(OPTIMIZE_VERSION_MINOR) +
                                     "." + std::to_string(OPTIMIZE_VERSION_PATCH));
    CHECK(optimize::status_name(optimize::Status::invalid_model) == "invalid_model");
}

void errors_say_status_message_and_place() {
    const optimize::Context context;
    try {
        optimize::Model(context, "/no/such/model.onnx");
        CHECK(false);
    } catch (const optimize::Error &error) {
        CHECK(error.status() == optimize::Status::not_found);
        CHECK(error.place() == "/no/such/model.onnx");
        CHECK(error.what() == error.place() + ": " + error.message());
        static_assert(std::is_nothrow_copy_constructible_v<optimize::Error>);
    }
    FAILS(invalid_argument, "NUL", optimize::Model(context, std::string("a\0b", 3)));
    FAILS(invalid_argument, "UTF-8", optimize::Model(context, "\xff"));
}

void classes_are_move_only_and_empty_after_a_move() {
    static_assert(!std::is_copy_constructible_v<optimize::Context> && std::is_nothrow_move_constructible_v<optimize::Context>);
    static_assert(!std::is_copy_constructible_v<optimize::Model> && std::is_nothrow_move_assignable_v<optimize::Model>);
    static_assert(!std::is_copy_constructible_v<optimize::Session> && std::is_nothrow_move_constructible_v<optimize::Session>);
    static_assert(!std::is_copy_constructible_v<optimize::Tensor> && std::is_nothrow_move_constructible_v<optimize::Tensor>);
    static_assert(!std::is_copy_constructible_v<optimize::Tokenizer> && !std::is_copy_constructible_v<optimize::Cancel>);
    optimize::Tensor a({2}, std::vector<float>{1, 2}), b({1}, std::vector<float>{3});
    const float *data = a.data<float>();
    b = std::move(a);
    CHECK(b.data<float>() == data && b.elements() == 2);
    optimize::Context context;
    const optimize::Context taken = std::move(context);
    CHECK(context.get() == nullptr && taken.get() != nullptr);
    FAILS(invalid_argument, "context", context.runtime_version());
    CHECK(taken.runtime_version().rfind("1.", 0) == 0);
}

void tensors_are_typed() {
    const optimize::Tensor floats({2, 2}, std::vector<float>{1, 2, 3, 4});
    CHECK(floats.dtype() == optimize::DType::float32 && floats.rank() == 2);
    CHECK((floats.dims() == std::vector<std::int64_t>{2, 2}) && floats.elements() == 4 && floats.size_bytes() == 16);
    CHECK((floats.to_vector<float>() == std::vector<float>{1, 2, 3, 4}));
    FAILS(invalid_argument, "type 1, not 7", floats.data<std::int64_t>());
    FAILS(invalid_argument, "strings", floats.strings());
    CHECK(optimize::Tensor({1}, std::vector<long long>{5}).dtype() == optimize::DType::int64);
    CHECK(optimize::Tensor({1}, std::vector<std::uint8_t>{5}).dtype() == optimize::DType::uint8);
    CHECK(optimize::Tensor({1}, std::vector<signed char>{5}).data<std::int8_t>()[0] == 5);
    const bool flags[2] = {true, false};
    CHECK(optimize::Tensor::copy({2}, flags, 2).data<bool>()[0]);
    const std::uint16_t half[1] = {0x3c00};
    CHECK(optimize::Tensor::copy(optimize::DType::float16, {1}, half, 2).dtype() == optimize::DType::float16);
    CHECK(optimize::Tensor({}, std::vector<double>{7}).rank() == 0);
    CHECK(optimize::Tensor({0, 3}, std::vector<double>{}).to_vector<double>().empty());
    FAILS(invalid_argument, "needs 12 bytes", optimize::Tensor({3}, std::vector<float>{1}));
}

void tensors_of_strings() {
    const auto tensor = optimize::Tensor::new_strings({2}, {"", "äöü"});
    CHECK((tensor.strings() == std::vector<std::string>{"", "äöü"}) && tensor.string(1) == "äöü");
    CHECK(tensor.data() == nullptr && tensor.elements() == 2);
    FAILS(not_found, "2", tensor.string(2));
    const std::string with_nul("a\0b", 3);
    CHECK(optimize::Tensor::new_strings({1}, {with_nul}).string(0) == with_nul);
}

void vectors_are_moved_in_and_borrowed_memory_is_released_once() {
    std::vector<float> values{1, 2, 3};
    const float *at = values.data();
    CHECK(optimize::Tensor({3}, std::move(values)).data<float>() == at);
    const float kept[3] = {1, 2, 3};
    int released = 0;
    {
        const auto tensor = optimize::Tensor::borrow({3}, kept, 3, [&] { ++released; });
        CHECK(tensor.data<float>() == kept && released == 0);
    }
    CHECK(released == 1);
    FAILS(invalid_argument, "needs", optimize::Tensor::borrow({4}, kept, 3, [&] { ++released; }));
    CHECK(released == 1);
    CHECK(optimize::Tensor::borrow({3}, kept, 3).data<float>() == kept);
}

void texts_are_encoded_and_decoded() {
    const optimize::Tokenizer tokenizer(deps(minilm));
    CHECK(tokenizer.vocabulary_size() == 30522);
    const auto text = tokenizer.encode({"Hello, world!", "Hi"});
    CHECK((text.ids.dims() == std::vector<std::int64_t>{2, 6}));
    CHECK(text.attention_mask.to_vector<std::int64_t>()[9] == 0);
    CHECK(text.type_ids.elements() == 12);
    std::vector<std::int64_t> ids = text.ids.to_vector<std::int64_t>();
    ids.resize(6);
    CHECK(tokenizer.decode(ids) == "hello, world!");
    optimize::DecodeOptions keep;
    keep.keep_special_tokens = true;
    CHECK(tokenizer.decode(ids, keep) == "[CLS] hello, world! [SEP]");
    optimize::EncodeOptions options;
    options.no_special_tokens = true;
    options.max_length = 2;
    CHECK((tokenizer.encode({"Hello, world!"}, options).ids.to_vector<std::int64_t>() == std::vector<std::int64_t>{7592, 1010}));
    CHECK(tokenizer.encode({std::string("one\0two", 7), ""}).ids.dims()[0] == 2);
    FAILS(invalid_argument, "count", tokenizer.encode({}));
}

void models_are_loaded_described_and_saved() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    const auto inputs = model.inputs();
    CHECK(inputs.size() == 2 && inputs[0].name == "input_ids" && inputs[0].dtype == optimize::DType::int64);
    CHECK(inputs[0].shape && inputs[0].shape->size() == 2 && (*inputs[0].shape)[1].name == "sequence_length" &&
          (*inputs[0].shape)[1].size == -1);
    const auto outputs = model.outputs();
    CHECK(outputs.size() == 4 && (*outputs[2].shape)[2].size == 384);
    CHECK(model.inspect().json().find("\"MatMul\"") != std::string::npos);
    optimize::SaveOptions options;
    options.external_data = optimize::ExternalData::always;
    CHECK(model.save(temporary("outside.onnx"), options).json().find("outside.onnx") != std::string::npos);
    CHECK(optimize::Model(context, temporary("outside.onnx")).inputs().size() == 2);
    model.save(temporary("inside.onnx"));
    std::ifstream file(temporary("inside.onnx"), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    CHECK(optimize::Model::load_memory(context, bytes.data(), bytes.size()).outputs().size() == 4);
    FAILS(invalid_model, "", optimize::Model::load_memory(context, "none", 4));
}

void quantized_models_run_and_agree() {
    optimize::ContextOptions context_options;
    context_options.threads = 2;
    const optimize::Context context(context_options);
    const optimize::Model model(context, deps(minilm));
    const optimize::Tokenizer tokenizer(deps(minilm));
    optimize::QuantizeOptions options;
    options.exclude = {"*/query/*"};
    const auto small = model.quantize(context, options);
    CHECK(small.report.json().find("\"operation\": \"quantize\"") != std::string::npos);
    CHECK(small.report.json().find("*/query/*") != std::string::npos);
    const auto text = tokenizer.encode({"A man is eating food.", "Someone has a meal."});
    optimize::Session before(context, model), after(context, small.model);
    const auto a = before.run({{"input_ids", text.ids}, {"attention_mask", text.attention_mask}}, {sentence});
    const auto b = after.run({{"input_ids", text.ids}, {"attention_mask", text.attention_mask}}, {sentence});
    CHECK(a.size() == 1 && (a[0].dims() == std::vector<std::int64_t>{2, 384}));
    CHECK(cosine(a[0].data<float>(), b[0].data<float>(), 384) > 0.99);
    CHECK(after.run({{"attention_mask", text.attention_mask}, {"input_ids", text.ids}}).size() == 4);
    CHECK(after.inputs().size() == 2 && after.outputs()[3].name == sentence);
    FAILS(invalid_argument, "attention_mask", after.run({{"input_ids", text.ids}}));
    FAILS(not_found, "nothing", after.run({{"input_ids", text.ids}, {"attention_mask", text.attention_mask}}, {"nothing"}));
    options.include = {"nothing*"};
    FAILS(invalid_argument, "nothing*", model.quantize(context, options));
}

void pruned_models_are_saved_packed() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    optimize::PruneOptions options;
    options.sparsity = 0.5;
    options.target_modules = {"query", "layer.1.*"};
    const auto sparse = model.prune(context, options);
    CHECK(sparse.report.json().find("\"operation\": \"prune\"") != std::string::npos);
    optimize::SaveOptions packed;
    packed.packed = true;
    sparse.model.save(temporary("sparse.onnx.packed"), packed);
    const optimize::Model again(context, temporary("sparse.onnx.packed"));
    CHECK(again.inputs().size() == model.inputs().size());
    options.target_modules = {"qery"};
    FAILS(invalid_argument, "qery", model.prune(context, options));
}

void students_learn_from_teachers() {
    const optimize::Context context;
    const optimize::Model teacher(context, deps(minilm));
    optimize::DistillOptions options;
    for (int i = 0; i < 80; i++) options.text += "Sentence " + std::to_string(i * 7919) + " is about a river.\n";
    options.student_layers = "layers:1";
    options.max_steps = 4;
    options.sequence_length = 12;
    options.learning_rate = 3e-4;
    options.threads = 1;
    int steps = 0;
    options.training = [&](const optimize::TrainingStep &step) { steps += !step.is_validation; };
    const auto first = optimize::distill(context, teacher, options);
    CHECK(steps == 4 && first.report.json().find("\"operation\": \"distill\"") != std::string::npos);
    options.student_layers.clear();
    const auto second = optimize::distill(context, teacher, first.model, options);
    CHECK(second.model.outputs().size() == teacher.outputs().size());
    int calls = 0;
    options.training = [&](const optimize::TrainingStep &) { calls++, throw std::runtime_error("enough"); };
    bool thrown = false;
    try {
        optimize::distill(context, teacher, first.model, options);
    } catch (const std::runtime_error &e) {
        thrown = std::string(e.what()) == "enough";
    }
    CHECK(thrown && calls == 1);
    FAILS(invalid_argument, "student_layers", optimize::distill(context, teacher, options));
}

void layers_and_goals_are_options_of_pruning() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    optimize::PruneOptions options;
    options.method = optimize::PruneMethod::structured;
    options.layers = {1};
    CHECK(model.prune(context, options).report.json().find("\"layers_after\": 2") != std::string::npos);
    options.layers = {};
    options.target_size = 1000;
    FAILS(gate_not_met, "bytes are left", model.prune(context, options));
    options.target_size = 0;
    options.target_speedup = 0.5;
    FAILS(invalid_argument, "target_speedup is 0.5", model.prune(context, options));
}

void weights_are_quantized_in_blocks() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    const auto text = optimize::Tokenizer(deps(minilm)).encode({"A man is eating food."});
    optimize::QuantizeOptions options;
    options.type = optimize::QuantizeType::weight_only;
    options.block_size = 64;
    options.symmetric = true;
    options.scale_type = optimize::ScaleType::float32;
    options.accuracy_level = 1;
    const auto small = model.quantize(context, options);
    CHECK(small.report.json().find("4 bits in blocks of 64, symmetric, 4.50 bits per weight") != std::string::npos);
    CHECK(small.report.json().find("\"scale_type\": \"float32\"") != std::string::npos);
    CHECK(small.report.json().find("\"accuracy_level\": 1") != std::string::npos);
    optimize::Session before(context, model), after(context, small.model);
    const auto a = before.run({{"input_ids", text.ids}, {"attention_mask", text.attention_mask}}, {sentence});
    const auto b = after.run({{"input_ids", text.ids}, {"attention_mask", text.attention_mask}}, {sentence});
    CHECK(cosine(a[0].data<float>(), b[0].data<float>(), 384) > 0.95);
    options.block_size = 48;
    FAILS(invalid_argument, "block_size is 48", model.quantize(context, options));
    options.block_size = 0;
    options.scale_type = static_cast<optimize::ScaleType>(3);
    FAILS(invalid_argument, "scale_type is 3", model.quantize(context, options));
}

void static_ranges_come_from_tensors() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    const auto text = optimize::Tokenizer(deps(minilm)).encode({"A man is eating food."});
    optimize::QuantizeOptions options;
    options.type = optimize::QuantizeType::static_ranges;
    FAILS(invalid_argument, "calibration data", model.quantize(context, options));
    options.calibration_tensors = {{"input_ids", &text.ids}, {"attention_mask", &text.attention_mask}};
    CHECK(model.quantize(context, options).report.json().find("MatMulIntegerToFloat") != std::string::npos);
    options.calibration_tensors[0].first = "nothing";
    FAILS(not_found, "nothing", model.quantize(context, options));
}

void sessions_outlive_what_they_were_made_from() {
    const auto make = [] {
        const optimize::Context context;
        optimize::SessionOptions options;
        options.threads = 1;
        options.optimization_level = optimize::OptimizationLevel::basic;
        options.disable_prepacking = true;
        return optimize::Session(context, optimize::Model(context, deps(minilm)), options);
    };
    optimize::Session session = make();
    const optimize::Tensor ids({1, 2}, std::vector<std::int64_t>{101, 102}), mask({1, 2}, std::vector<std::int64_t>{1, 1});
    std::vector<optimize::Input> inputs;
    inputs.push_back({"input_ids", ids});
    inputs.push_back({"attention_mask", mask});
    CHECK(session.run(inputs, {sentence})[0].elements() == 384);
}

/// On one thread, quantization takes long enough on any machine to be cancelled and to report progress.
const optimize::QuantizeOptions &slow() {
    static const optimize::QuantizeOptions options = [] {
        optimize::QuantizeOptions made;
        made.threads = 1;
        return made;
    }();
    return options;
}

void progress_is_reported_and_can_cancel() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    const auto here = std::this_thread::get_id();
    int calls = 0;
    bool right = true, go_on = true;
    optimize::Call call;
    call.progress = [&](std::string_view stage, std::uint64_t done, std::uint64_t total) {
        ++calls;
        right = right && std::this_thread::get_id() == here && !stage.empty() && (total == 0 || done <= total);
        return go_on;
    };
    model.quantize(context, slow(), call);
    CHECK(calls > 0 && right);
    go_on = false;
    FAILS(cancelled, "", model.quantize(context, slow(), call));
    FAILS(cancelled, "", model.save(temporary("cancelled.onnx"), {}, call));
    CHECK(!std::ifstream(temporary("cancelled.onnx")));
}

void what_the_progress_function_throws_comes_out() {
    struct Mine {
        int number;
    };
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    optimize::Call call;
    call.progress = [](std::string_view, std::uint64_t, std::uint64_t) -> bool { throw Mine{7}; };
    int caught = 0;
    try {
        model.quantize(context, slow(), call);
    } catch (const Mine &mine) {
        caught = mine.number;
    }
    CHECK(caught == 7);
    caught = 0;
    try {
        model.save(temporary("thrown.onnx"), {}, call);
    } catch (const Mine &mine) {
        caught = mine.number;
    }
    CHECK(caught == 7);
    CHECK(model.quantize(context).report.json().size() > 0); // the exception is not thrown again
}

void tokens_and_timeouts_end_calls() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    optimize::Cancel cancel;
    optimize::Call call;
    call.cancel = &cancel;
    std::thread other([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        cancel.fire();
    });
    FAILS(cancelled, "", for (int i = 0; i < 10000; ++i) model.quantize(context, slow(), call));
    other.join();
    FAILS(cancelled, "", optimize::Session(context, model, {}, call));
    optimize::Call late;
    late.timeout = std::chrono::milliseconds(-5);
    FAILS(timeout, "", model.quantize(context, slow(), late));
    late.timeout = std::chrono::hours(24 * 365);
    model.quantize(context, {}, late);
}

void models_are_benchmarked() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    const optimize::Tokenizer tokenizer(deps(minilm));
    const auto small = model.quantize(context);
    optimize::BenchmarkOptions options;
    options.runs = 5;
    options.warmup = 1;
    options.texts = {"A man is eating food."};
    const std::string report = model.benchmark(context, small.model, &tokenizer, options);
    CHECK(report.find("\"speedup\"") != std::string::npos && report.find("\"inputs\": \"text\"") != std::string::npos);
    options.texts.clear();
    options.shapes = {"input_ids:1x4", "attention_mask:1x4"};
    options.values = {"attention_mask:1"};
    CHECK(model.benchmark(context, small.model, nullptr, options).json().find("\"generated\"") != std::string::npos);
}

void models_are_evaluated() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    const optimize::Tokenizer tokenizer(deps(minilm));
    optimize::EvaluateOptions options;
    options.task = optimize::EvaluateTask::embedding;
    options.max_texts = 2;
    const std::string lines = "A man is eating food.\nHow are you?\nNot this one.\n";
    const std::string report = model.evaluate(context, lines, &model, &tokenizer, options);
    CHECK(report.find("\"task\": \"embedding\"") != std::string::npos && report.find("\"texts\": 2") != std::string::npos);
    CHECK(model.evaluate(context, lines, &model, nullptr, options).json().find("\"cosine\": 1.0") != std::string::npos);
    FAILS(invalid_argument, "against", model.evaluate(context, lines, nullptr, nullptr, options));
    FAILS(invalid_argument, "UTF-8", model.evaluate(context, std::string("a\0\xff", 3), &model, nullptr, options));
    options = {};
    options.task = optimize::EvaluateTask::probe;
    options.test_share = 0.5;
    const std::string rows = "food,Eating bread.\nfood,A soup.\nmoney,The stock market fell.\nmoney,Prices rose.\n";
    CHECK(model.evaluate(context, rows, nullptr, nullptr, options).json().find("\"train_samples\": 2") != std::string::npos);
    options.test_share = -1;
    FAILS(invalid_argument, "test_share", model.evaluate(context, rows, nullptr, nullptr, options));
    options.task = optimize::EvaluateTask::perplexity;
    FAILS(unsupported, "", model.evaluate(context, lines, nullptr, nullptr, options));
    optimize::Call call;
    call.progress = [](std::string_view, std::uint64_t, std::uint64_t) { return false; };
    options = {};
    options.task = optimize::EvaluateTask::embedding;
    FAILS(cancelled, "", model.evaluate(context, lines, &model, nullptr, options, call));
}

void a_package_keeps_its_shapes() {
    const optimize::Context context;
    const optimize::Model model(context, tap::deps("models/paraphrase-MiniLM-L3-v2"));
    optimize::PackageOptions options;
    options.dynamic = true;
    options.batch_max = 2;
    options.single_file = true;
    options.sign_key = std::string(64, '7');
    const std::string path = tap::temporary("cpp-package");
    CHECK(optimize::Package::compile(context, model, path, options).json().find("sha256") != std::string::npos);
    const optimize::Package package(path);
    package.verify();
    optimize::PackageOptions ranges;
    ranges.dimensions = {{"input_ids", 0, "rows", 1, 3}, {"input_ids", 0, "rows", 1, 3}};
    FAILS(invalid_argument, "already", optimize::Package::compile(context, model, path, ranges));
    FAILS(invalid_model, "another key", package.verify(std::string(64, '0')));
    CHECK(package.inspect(context).json().find("\"chosen\"") != std::string::npos);
    CHECK(package.model().inspect().json().find("attention_mask") != std::string::npos);
    auto session = package.session(context);
    const auto text = package.tokenizer().encode({"one", "two", "three"});
    FAILS(invalid_argument, "3", session.run({{"input_ids", text.ids}, {"attention_mask", text.attention_mask}}));
    const auto two = package.tokenizer().encode({"one", "two"});
    CHECK(!session.run({{"input_ids", two.ids}, {"attention_mask", two.attention_mask}}).empty());
    // The package was not signed with this key.
    FAILS(invalid_model, "sign", optimize::Package(path, "", std::string(64, '1')));
    options.dynamic_shapes = "{\"input_ids\": {\"9\": {\"min\": 1, \"max\": 2}}}";
    FAILS(invalid_argument, "9", optimize::Package::compile(context, model, path, options));
    FAILS(not_found, "nowhere", optimize::Package(tap::temporary("nowhere")));
}

void recipes_are_applied() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    const std::string path = tap::temporary("cpp-applied.onnx");
    optimize::ApplyOptions options;
    options.threads = 1;
    const std::string recipe = "[{\"operation\": \"prune\", \"sparsity\": 0.5}]";
    CHECK(optimize::apply(context, model, recipe, path, options).find("\"apply\"") != std::string::npos);
    CHECK(optimize::Model(context, path).inspect().json().find("MatMul") != std::string::npos);
    optimize::TableOptions rows;
    rows.rows = {"static"};
    const std::string folder = tap::temporary("cpp-table");
    CHECK(optimize::table(context, {&model}, folder, rows).find("needs a text") != std::string::npos);
    rows.rows = {"x"};
    FAILS(invalid_argument, "int8", optimize::table(context, {&model}, folder, rows));
    FAILS(invalid_argument, "step 1", optimize::apply(context, model, "[{\"operation\": \"x\"}]", path));
    FAILS(invalid_argument, "caller",
          optimize::apply(context, model, "[{\"operation\": \"distill\", \"data\": true}]", path));
}

void sessions_say_what_they_run_on() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    CHECK(context.providers().json().find("\"provider\":\"cpu\",\"device_id\":0,\"available\":true") != std::string::npos);
    optimize::SessionOptions options;
    options.execution.provider = optimize::Provider::automatic;
    const optimize::Session session(context, model, options);
    CHECK(session.provider() != optimize::Provider::automatic);
    CHECK(session.placement().json().find("\"nodes\":{") != std::string::npos);
    options.execution.engine_cache = "engines";
    FAILS(invalid_argument, "absolute", optimize::Session(context, model, options));
    optimize::BenchmarkOptions compared;
    compared.execution.device_id = 3; // the default provider is the CPU, which has no device index
    FAILS(invalid_argument, "a device", model.benchmark(context, model, nullptr, compared));
}

void engines_in_models_of_strangers_are_refused() {
    // y = EPContext(x), float32[1]
    static const char with_engine[] =
        "\010\010:G\012\040\012\001x\022\001y\042\011EPContext:\015com.microsoft\022\001gZ\017\012"
        "\001x\022\012\012\010\010\001\022\004\012\002\010\001b\017\012\001y\022\012\012\010\010"
        "\001\022\004\012\002\010\001B\002\020\021B\021\012\015com.microsoft\020\001";
    const optimize::Context context;
    const auto strange = optimize::Model::load_memory(context, with_engine, sizeof with_engine - 1);
    optimize::SessionOptions options;
    options.execution.provider = optimize::Provider::cuda;
    FAILS(untrusted, "EPContext", optimize::Session(context, strange, options));
    options.trust_engines = true; // the model contains no engine: the provider reports this
    bool asked = false;
    try {
        optimize::Session(context, strange, options);
    } catch (const optimize::Error &e) {
        asked = e.status() != optimize::Status::untrusted && e.status() != optimize::Status::invalid_argument;
    }
    CHECK(asked);
}

void engines_are_refused_with_the_reason() {
    const optimize::Context context;
    const optimize::Model model(context, deps(minilm));
    const std::string path = tap::temporary("cpp.engine"), folder = tap::temporary("cpp-engine.package");
    optimize::TensorRtOptions built;
    built.batch_size = 1;
    built.sequence_length = 16;
    built.library = deps("tensorrt-rtx");
    optimize::build_tensorrt(context, model, path, built);
    optimize::PackageOptions compiled;
    compiled.portable_only = compiled.dynamic = true;
    compiled.engine = path;
    optimize::Package::compile(context, model, folder, compiled);
    const optimize::Package package(folder);
    optimize::TensorRtOpenOptions options;
    FAILS(untrusted, "trust", optimize::open_tensorrt(context, path));
    FAILS(untrusted, "trust", package.engine(context));
    FAILS(untrusted, "trust", model.benchmark_engine(context, path, options));
    options.trust = true;
    options.library = built.library;
    options.model_sha256 = std::string(64, '0');
    FAILS(mismatch, "another model", optimize::open_tensorrt(context, path, options));
    options.model_sha256.clear();
    options.device_id = 4096; // no machine has so many devices
    FAILS(device_missing, "", optimize::open_tensorrt(context, path, options));
    FAILS(device_missing, "", package.engine(context, options));
    FAILS(device_missing, "", model.benchmark_engine(context, path, options));
    FAILS(not_found, "nowhere", optimize::open_tensorrt(context, tap::temporary("nowhere.engine"), options));
}

} // namespace

int main() {
    RUN(version_and_statuses);
    RUN(errors_say_status_message_and_place);
    RUN(classes_are_move_only_and_empty_after_a_move);
    RUN(tensors_are_typed);
    RUN(tensors_of_strings);
    RUN(vectors_are_moved_in_and_borrowed_memory_is_released_once);
    RUN(texts_are_encoded_and_decoded);
    RUN(models_are_loaded_described_and_saved);
    RUN(quantized_models_run_and_agree);
    RUN(students_learn_from_teachers);
    RUN(pruned_models_are_saved_packed);
    RUN(layers_and_goals_are_options_of_pruning);
    RUN(weights_are_quantized_in_blocks);
    RUN(static_ranges_come_from_tensors);
    RUN(sessions_outlive_what_they_were_made_from);
    RUN(progress_is_reported_and_can_cancel);
    RUN(what_the_progress_function_throws_comes_out);
    RUN(tokens_and_timeouts_end_calls);
    const char *valgrind = std::getenv("OPTIMIZE_TEST_VALGRIND");
    if (valgrind && std::string(valgrind) == "1") std::printf("ok - models_are_benchmarked # skipped under valgrind\n");
    else RUN(models_are_benchmarked);
    RUN(models_are_evaluated);
    RUN(a_package_keeps_its_shapes);
    RUN(recipes_are_applied);
    RUN(sessions_say_what_they_run_on);
    RUN(engines_in_models_of_strangers_are_refused);
    RUN(engines_are_refused_with_the_reason);
    return tap::end();
}
