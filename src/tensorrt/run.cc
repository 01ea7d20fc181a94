// Runs an engine. The caller opens the driver, owns the device memory, and copies to and from it; the functions here
// only call NVIDIA's classes. `src/tensorrt/shim.rs` mirrors the structs. Unless stated otherwise, functions return 0,
// or 1 with the stage and the reason in `result`.

#include <cstdlib>
#include <new>

#include "shim.hpp"

extern "C" {
struct shim_tensor {
    const char *name; // valid while the runner lives
    int64_t dims[8];  // -1 for dynamic sizes
    int32_t rank, type, is_input;
    int32_t on_host; // whether its values stay in host memory, because the model uses them as sizes
};
}

namespace {
// A loaded engine. The members are in the order of creation; later ones are destroyed first.
class Runner {
public:
    Runner(void *create, const void *engine, uint64_t size)
        : log(nullptr, nullptr), runtime(reinterpret_cast<void *(*)(void *, int32_t)>(create)(&log, NV_TENSORRT_VERSION)),
          engine(runtime ? runtime->deserializeCudaEngine(engine, size) : nullptr),
          context(this->engine ? this->engine->createExecutionContext() : nullptr) {}
    Log log;
    Owned<IRuntime> runtime;
    Owned<ICudaEngine> engine;
    Owned<IExecutionContext> context;
};

template <typename D> bool dims_of(const D &from, int64_t *dims, int32_t *rank) {
    if (from.nbDims < 0 || from.nbDims > 8) return false;
    *rank = from.nbDims;
    for (int32_t d = 0; d < from.nbDims; d++) dims[d] = from.d[d];
    return true;
}
} // namespace

// Loads an engine and returns its handle, which `close` frees. If it fails, returns NULL with the reason in `result`;
// without a reason if there is no memory for the handle. `create` is createInferRuntime_INTERNAL. `engine` must live as
// long as the handle. Requires a driver.
extern "C" void *SHIM_FUNCTION(open)(void *create, const void *engine, uint64_t size, shim_result *result) {
    void *memory = std::malloc(sizeof(Runner));
    if (memory == nullptr) return nullptr;
    Runner *runner = new (memory) Runner(create, engine, size);
    int32_t failed = 0;
    if (!runner->runtime) failed = fail(result, START, "the runtime could not be created", runner->log);
    else if (!runner->engine) failed = fail(result, PARSE, "the engine could not be read", runner->log);
    else if (!runner->context) failed = fail(result, START, "the engine could not be loaded", runner->log);
    if (failed == 0) return runner;
    runner->~Runner();
    std::free(memory);
    return nullptr;
}

// Frees an engine.
extern "C" void SHIM_FUNCTION(close)(void *handle) {
    static_cast<Runner *>(handle)->~Runner();
    std::free(handle);
}

// Writes the input or output at `index` to `tensor`; returns 0, or 1 if it does not exist or has more than 8
// dimensions.
extern "C" int32_t SHIM_FUNCTION(tensor)(void *handle, int32_t index, shim_tensor *tensor) {
    ICudaEngine &engine = *static_cast<Runner *>(handle)->engine;
    if (index < 0 || index >= engine.getNbIOTensors()) return 1;
    tensor->name = engine.getIOTensorName(index);
    tensor->type = static_cast<int32_t>(engine.getTensorDataType(tensor->name));
    tensor->is_input = engine.getTensorIOMode(tensor->name) == TensorIOMode::kINPUT;
    tensor->on_host = engine.getTensorLocation(tensor->name) == TensorLocation::kHOST;
    return dims_of(engine.getTensorShape(tensor->name), tensor->dims, &tensor->rank) ? 0 : 1;
}

// Writes the minimum (0) or maximum (2) shape of an input in a profile; returns 0, or 1 if it does not exist.
extern "C" int32_t SHIM_FUNCTION(range)(void *handle, const char *name, int32_t profile, int32_t which, int64_t *dims,
                                        int32_t *rank) {
    ICudaEngine &engine = *static_cast<Runner *>(handle)->engine;
    if (profile >= engine.getNbOptimizationProfiles()) return 1;
    return dims_of(engine.getProfileShape(name, profile, static_cast<OptProfileSelector>(which)), dims, rank) ? 0 : 1;
}

// Selects the optimization profile with the index `profile`.
extern "C" int32_t SHIM_FUNCTION(profile)(void *handle, int32_t profile, void *stream, shim_result *result) {
    Runner &runner = *static_cast<Runner *>(handle);
    runner.log.last[0] = 0;
    if (runner.context->setOptimizationProfileAsync(profile, static_cast<cudaStream_t>(stream))) return 0;
    return fail(result, PROFILE, "the profile was rejected", runner.log);
}

// Sets the address of an input or output: in device memory, or in host memory for inputs on the host. If `dims` is not
// NULL, also sets the shape of the input.
extern "C" int32_t SHIM_FUNCTION(place)(void *handle, const char *name, const int64_t *dims, int32_t rank, void *address,
                                        shim_result *result) {
    Runner &runner = *static_cast<Runner *>(handle);
    runner.log.last[0] = 0;
    if (dims != nullptr) {
        Dims shape{};
        if (rank > Dims::MAX_DIMS) return fail(result, PROFILE, "too many dimensions", runner.log);
        shape.nbDims = rank;
        for (int32_t d = 0; d < rank; d++) shape.d[d] = dims[d];
        if (!runner.context->setInputShape(name, shape)) return fail(result, PROFILE, "the shape was rejected", runner.log);
    }
    if (runner.context->setTensorAddress(name, address)) return 0;
    return fail(result, RUN, "the memory was rejected", runner.log);
}

// Writes the shape of an output for the current inputs, with -1 for sizes known only after the run; returns 0, or 1 if
// it is not known.
extern "C" int32_t SHIM_FUNCTION(shape)(void *handle, const char *name, int64_t *dims, int32_t *rank) {
    return dims_of(static_cast<Runner *>(handle)->context->getTensorShape(name), dims, rank) ? 0 : 1;
}

// Starts a run on `stream` and does not wait for it.
extern "C" int32_t SHIM_FUNCTION(enqueue)(void *handle, void *stream, shim_result *result) {
    Runner &runner = *static_cast<Runner *>(handle);
    runner.log.last[0] = 0;
    if (runner.context->enqueueV3(static_cast<cudaStream_t>(stream))) return 0;
    return fail(result, RUN, "the run could not be started", runner.log);
}
