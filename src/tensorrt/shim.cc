// Builds engines and checks them. This file and run.cc are the only C++ code of this library: they wrap NVIDIA's
// classes, which have no C interface, in C functions. They are compiled once for each set of headers (see build.rs),
// with the namespaces of the headers renamed so that two versions can be in one library. At link time they need nothing
// from NVIDIA and no C++ library: Rust opens NVIDIA's libraries and looks up their functions.
//
// `src/tensorrt/shim.rs` mirrors the structs; it owns returned memory and frees it with `free`.

#include <cstdlib>

#include "shim.hpp"
#include "NvOnnxParser.h"

extern "C" {
// Returns 0 to cancel the build. `step` is -1 at the beginning of a phase and -2 at its end.
typedef int32_t (*progress_fn)(void *user, const char *phase, const char *parent, int32_t step, int32_t steps);

struct shim_request {
    void *create_builder, *create_parser; // functions of the libraries
    const void *model;
    uint64_t model_size;
    const char *model_path; // if not NULL, read from here instead
    const char *const *names;
    const int64_t *dims; // for each profile and input: minimum, optimum, maximum
    const int32_t *ranks;
    int32_t inputs, profiles;
    uint32_t flags;
    int32_t optimization_level;     // -1 for the library's default
    int32_t hardware_compatibility; // 0 none, 1 Ampere and later, 2 the same compute capability
    int32_t verbosity;              // layer information in the engine: 0 names, 1 none, 2 all
    uint64_t workspace;             // 0 for the library's default
    const char *const *value_names; // inputs whose values may be sizes in the model, and their ranges
    const int64_t *values;          // for each: minimum, optimum, maximum
    int64_t value_count;
    const int32_t *capabilities;    // RTX: compute capabilities to build for
    int32_t capability_count, timing_given;
    const void *timing;
    uint64_t timing_size;
    log_fn log;
    progress_fn progress;
    void *user;
};

}

namespace {
class Progress final : public IProgressMonitor {
public:
    Progress(progress_fn function, void *user) : function_(function), user_(user) {}
    void phaseStart(char const *phase, char const *parent, int32_t steps) noexcept override {
        function_(user_, phase, parent, -1, steps);
    }
    bool stepComplete(char const *phase, int32_t step) noexcept override {
        return function_(user_, phase, nullptr, step, 0) != 0;
    }
    void phaseFinish(char const *phase) noexcept override { function_(user_, phase, nullptr, -2, 0); }

private:
    progress_fn function_;
    void *user_;
};

bool copy(const void *from, size_t size, void **to, uint64_t *to_size) {
    *to = std::malloc(size == 0 ? 1 : size);
    if (*to == nullptr) return false;
    std::memcpy(*to, from, size);
    *to_size = size;
    return true;
}

bool parse(nvonnxparser::IParser &parser, const shim_request &q, shim_result *result, const Log &log) {
    const bool ok = q.model_path != nullptr
                        ? parser.parseFromFile(q.model_path, static_cast<int>(ILogger::Severity::kWARNING))
                        : parser.parse(q.model, q.model_size);
    if (ok) return true;
    char text[3000] = "";
    for (int32_t i = 0; i < parser.getNbErrors() && i < 8; i++) {
        const nvonnxparser::IParserError *error = parser.getError(i);
        const size_t used = std::strlen(text);
        std::snprintf(text + used, sizeof text - used, "%snode %s (%s): %s", used == 0 ? "" : "; ", error->nodeName(),
                      error->nodeOperator(), error->desc());
    }
    if (text[0] == 0) {
        fail(result, PARSE, "", log);
    } else {
        result->stage = PARSE;
        std::snprintf(result->error, sizeof result->error, "%s", text);
    }
    return false;
}

// Sets the ranges of inputs whose values the model uses as sizes (shape tensors): a profile needs their minimum,
// optimum and maximum values instead of their shapes. Returns false if such an input has more than one dimension, a
// dynamic size or more than 64 elements, or if the library rejects the values.
bool set_values(IOptimizationProfile &profile, INetworkDefinition &network, const shim_request &q) {
    for (int32_t i = 0; i < network.getNbInputs(); i++) {
        const ITensor &input = *network.getInput(i);
        if (!input.isShapeTensor()) continue;
        const Dims dims = input.getDimensions();
        const int64_t count = dims.nbDims == 0 ? 1 : dims.d[0];
        int64_t list[64];
        if (dims.nbDims > 1 || count < 0 || count > 64) return false;
        for (int64_t v = 0; v < q.value_count; v++) {
            if (std::strcmp(q.value_names[v], input.getName()) != 0) continue;
            const OptProfileSelector three[] = {OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX};
            for (int which = 0; which < 3; which++) {
                for (int64_t k = 0; k < count; k++) list[k] = q.values[3 * v + which];
                if (!profile.setShapeValuesV2(input.getName(), three[which], list, static_cast<int32_t>(count))) return false;
            }
        }
    }
    return true;
}

bool has_values(INetworkDefinition &network) {
    for (int32_t i = 0; i < network.getNbInputs(); i++) {
        if (network.getInput(i)->isShapeTensor()) return true;
    }
    return false;
}

bool add_profiles(IBuilder &builder, INetworkDefinition &network, IBuilderConfig &config, const shim_request &q) {
    const int64_t *sizes = q.dims;
    const int32_t profiles = q.profiles == 0 && has_values(network) ? 1 : q.profiles;
    for (int32_t p = 0; p < profiles; p++) {
        IOptimizationProfile *profile = builder.createOptimizationProfile();
        if (profile == nullptr) return false;
        for (int32_t i = 0; i < q.inputs; i++) {
            const OptProfileSelector three[] = {OptProfileSelector::kMIN, OptProfileSelector::kOPT, OptProfileSelector::kMAX};
            for (auto which : three) {
                Dims dims{};
                dims.nbDims = q.ranks[i];
                if (dims.nbDims > Dims::MAX_DIMS) return false;
                for (int32_t d = 0; d < q.ranks[i]; d++) dims.d[d] = *sizes++;
                if (!profile->setDimensions(q.names[i], which, dims)) return false;
            }
        }
        if (!set_values(*profile, network, q)) return false;
        if (config.addOptimizationProfile(profile) < 0) return false;
    }
    return true;
}

// Sets the options of a build; returns false if the library rejects one, which logs the reason.
bool set_options(IBuilderConfig &config, const shim_request &q, Log &log) {
    config.setFlags(static_cast<BuilderFlags>(q.flags));
    if (q.workspace != 0) config.setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, q.workspace);
    if (q.optimization_level >= 0) config.setBuilderOptimizationLevel(q.optimization_level);
    if (q.hardware_compatibility != 0) {
        config.setHardwareCompatibilityLevel(static_cast<HardwareCompatibilityLevel>(q.hardware_compatibility));
    }
    config.setProfilingVerbosity(static_cast<ProfilingVerbosity>(q.verbosity));
#ifdef SHIM_RTX
    if (q.capability_count > 0) {
        if (!config.setNbComputeCapabilities(q.capability_count)) return false;
        for (int32_t i = 0; i < q.capability_count; i++) {
            if (!config.setComputeCapability(static_cast<ComputeCapability>(q.capabilities[i]), i)) return false;
        }
    }
#endif
    return log.errors == 0;
}
} // namespace

extern "C" int32_t SHIM_FUNCTION(version)() { return NV_TENSORRT_VERSION; }

extern "C" int32_t SHIM_FUNCTION(build)(const shim_request *request, shim_result *result) {
    const shim_request &q = *request;
    Log log(q.log, q.user);
    auto create_builder = reinterpret_cast<void *(*)(void *, int32_t)>(q.create_builder);
    auto create_parser = reinterpret_cast<void *(*)(void *, void *, int)>(q.create_parser);
    Owned<IBuilder> builder(create_builder(&log, NV_TENSORRT_VERSION));
    if (!builder || log.errors > 0) return fail(result, START, "the builder could not be created", log);
    Owned<INetworkDefinition> network(builder->createNetworkV2(0));
    if (!network) return fail(result, START, "the network could not be created", log);
    Owned<IBuilderConfig> config(builder->createBuilderConfig());
    if (!config) return fail(result, START, "the configuration could not be created", log);
    Owned<nvonnxparser::IParser> parser(create_parser(&*network, &log, NV_ONNX_PARSER_VERSION));
    if (!parser) return fail(result, START, "the parser could not be created", log);
    if (!parse(*parser, q, result, log)) return 1;
    log.errors = 0;
    if (!set_options(*config, q, log)) return fail(result, OPTION, "the options were rejected", log);
#ifdef SHIM_TRT
    Owned<ITimingCache> timing(q.timing_given != 0 ? config->createTimingCache(q.timing, q.timing_size) : nullptr);
    if (timing) config->setTimingCache(*timing, false);
#endif
    Progress progress(q.progress, q.user);
    if (q.progress != nullptr) config->setProgressMonitor(&progress);
    if (!add_profiles(*builder, *network, *config, q)) return fail(result, PROFILE, "the profile was rejected", log);
    log.last[0] = 0;
    Owned<IHostMemory> engine(builder->buildSerializedNetwork(*network, *config));
    if (!engine) return fail(result, BUILD, "", log);
    if (!copy(engine->data(), engine->size(), &result->engine, &result->engine_size)) {
        return fail(result, MEMORY, "not enough memory for the engine", log);
    }
#ifdef SHIM_TRT
    if (timing) {
        Owned<IHostMemory> written(timing->serialize());
        if (written) copy(written->data(), written->size(), &result->timing, &result->timing_size);
    }
#endif
    return 0;
}

// Reads an engine and releases it again; returns 0 if the library can read it, or 1 with the reason in `result`.
// `create` is createInferRuntime_INTERNAL.
extern "C" int32_t SHIM_FUNCTION(check)(void *create, const void *engine, uint64_t size, shim_result *result) {
    Log log(nullptr, nullptr);
    Owned<IRuntime> runtime(reinterpret_cast<void *(*)(void *, int32_t)>(create)(&log, NV_TENSORRT_VERSION));
    if (!runtime) return fail(result, START, "the runtime could not be created", log);
    Owned<ICudaEngine> read(runtime->deserializeCudaEngine(engine, size));
    if (!read || log.errors > 0) return fail(result, PARSE, "", log);
    return 0;
}

// The compiler requires these functions for classes with virtual functions: `operator delete` with and without a size,
// and the function that a call of a pure virtual function ends in. They are hidden, because only this library uses
// them, and declared by their symbols, because clang does not accept another visibility for the operators.
extern "C" {
__attribute__((weak, visibility("hidden"))) void shim_delete(void *memory) noexcept __asm__("_ZdlPv");
__attribute__((weak, visibility("hidden"))) void shim_delete_sized(void *memory, std::size_t) noexcept __asm__("_ZdlPvm");
__attribute__((weak, visibility("hidden"))) void __cxa_pure_virtual() { std::abort(); }
void shim_delete(void *memory) noexcept { std::free(memory); }
void shim_delete_sized(void *memory, std::size_t) noexcept { std::free(memory); }
}
