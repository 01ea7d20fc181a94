/*
 * liboptimize: makes trained models smaller and faster, and runs them, without Python.
 *
 * Introduction
 *
 *   A context holds the ONNX Runtime library. A model is loaded from a file; it is immutable, and any number of
 *   threads may use it. A technique (optimize_model_quantize ...) takes a model and returns a new model and a
 *   report. A model can be saved, or run in a session. An ensemble combines several models. A benchmark compares
 *   two models; an evaluation measures one or two models on data.
 *
 *     optimize_context_t *context = NULL;
 *     optimize_model_t *model = NULL, *small = NULL;
 *     optimize_error_t *error = NULL;
 *     if (optimize_context_new(NULL, &context, &error) == OPTIMIZE_OK &&
 *         optimize_model_load(context, "model.onnx", NULL, &model, &error) == OPTIMIZE_OK &&
 *         optimize_model_quantize(context, model, NULL, NULL, &small, NULL, &error) == OPTIMIZE_OK &&
 *         optimize_model_save(small, "small.onnx", NULL, NULL, NULL, &error) == OPTIMIZE_OK)
 *       puts("done");
 *     else
 *       printf("%s\n", optimize_error_message(error));
 *
 * Rules for every function
 *
 *   Calls      A function that can fail returns an optimize_status_t. Its parameters are, in this order: the
 *              object, inputs, options, call, results, error. Options, call and error may be NULL.
 *   Results    Result pointers are set to NULL first and written only on success. The caller frees each result
 *              with the ..._free of its type, which accepts NULL. Objects keep alive the objects that they
 *              need, so that you can free them in any order. A string or array to which the library returns a
 *              `const` pointer belongs to an object or is static, as the function says.
 *   Errors     An error is an object with a status, a message and a place; free it with optimize_error_free. Like a
 *              result, `*error` is set to NULL first: free an error before you pass its pointer to another call.
 *   Options    Set struct_size to the sizeof of the struct. Fields that are 0 or NULL have their defaults, and
 *              so have all fields if the pointer to the struct is NULL. New fields are only added at the end,
 *              so that programs built with an older header keep working.
 *   Text       Paths and names are NUL-terminated UTF-8.
 *   Threads    Any number of threads may concurrently call functions that take an object as `const T *`, and
 *              only one thread at a time a function that takes it as `T *`. An object must not be freed while
 *              another thread uses it.
 *   Handles    An object is passed as an opaque pointer, its handle. A required handle that is NULL, and a
 *              handle of another type, return a status; a function that returns no status returns the value that
 *              is documented for NULL.
 *   Statuses   Every function can return OPTIMIZE_INVALID_ARGUMENT (a required pointer is NULL, a size or an option
 *              is out of range, a text is not UTF-8), OPTIMIZE_INVALID_HANDLE, OPTIMIZE_LIMIT_EXCEEDED and
 *              OPTIMIZE_INTERNAL; one with a call also OPTIMIZE_CANCELLED and OPTIMIZE_TIMEOUT; one that reads or
 *              writes files, or mapped weights, also OPTIMIZE_IO; one that runs models also those of
 *              optimize_session_new. Other statuses, and particular reasons, are listed with each function.
 *   Callbacks  A callback runs on the thread that made the call; only a release callback and a log callback can
 *              run on any thread. A callback may call the library, but an object that accepts one call at a time is
 *              in use until its call returns. A callback must not throw or use longjmp.
 *   Signals    No function may be called from a signal handler: let the handler set a flag, and the progress
 *              callback return it. A signal that interrupts a call does not change its result.
 *   fork       A child process has none of its parent's threads. It may use the library if the parent has not
 *              opened ONNX Runtime (optimize_context_runtime_version); otherwise it may only call exec or _exit.
 *   dlclose    The library stays in memory after dlclose, because threads of ONNX Runtime return to it.
 *   Process    The library never exits, prints, opens a socket or changes signals, locale or environment,
 *              with one exception: ORT_DISABLE_TELEMETRY is set while ONNX Runtime is opened, then restored. On most
 *              systems no other thread may read or change the environment meanwhile (getenv, setenv): open ONNX
 *              Runtime early, with optimize_context_runtime_version.
 *
 * This file is generated from src/ffi. Do not edit.
 */

#ifndef OPTIMIZE_H
#define OPTIMIZE_H

#include <stddef.h>
#include <stdint.h>

/* Version of this header; optimize_version() and optimize_version_number() return that of the library. */
#define OPTIMIZE_VERSION_MAJOR 0
#define OPTIMIZE_VERSION_MINOR 1
#define OPTIMIZE_VERSION_PATCH 0
/* As one number: major * 10000 + minor * 100 + patch. */
#define OPTIMIZE_VERSION 100

/* Every function is declared OPTIMIZE_API. On Windows, programs that link the static library define OPTIMIZE_STATIC. */
#ifndef OPTIMIZE_API
#if defined(_WIN32) && !defined(OPTIMIZE_STATIC)
#define OPTIMIZE_API __declspec(dllimport)
#elif defined(__GNUC__)
#define OPTIMIZE_API __attribute__((visibility("default")))
#else
#define OPTIMIZE_API
#endif
#endif

/* Marks a deprecated function; the message names its successor. OPTIMIZE_NO_DEPRECATED disables the warning. */
#if defined(OPTIMIZE_NO_DEPRECATED)
#define OPTIMIZE_DEPRECATED(message)
#elif defined(__GNUC__)
#define OPTIMIZE_DEPRECATED(message) __attribute__((deprecated(message)))
#elif defined(_MSC_VER)
#define OPTIMIZE_DEPRECATED(message) __declspec(deprecated(message))
#else
#define OPTIMIZE_DEPRECATED(message)
#endif


/**
 * The status of a call. OPTIMIZE_OK (0) is success. Later versions do not change these values; they add new ones at
 * the end.
 */
typedef enum optimize_status_t {
  /**
   * Success.
   */
  OPTIMIZE_OK = 0,
  /**
   * An argument is NULL where a value is required, is out of range, or contradicts another one.
   */
  OPTIMIZE_INVALID_ARGUMENT = 1,
  /**
   * A handle has another type. Use of a freed handle is undefined; it may return this status.
   */
  OPTIMIZE_INVALID_HANDLE = 2,
  /**
   * A file, tensor, input or name does not exist.
   */
  OPTIMIZE_NOT_FOUND = 3,
  /**
   * Reading or writing a file failed, or a callback of a source or sink failed.
   */
  OPTIMIZE_IO = 4,
  /**
   * The file is damaged, or is not a valid model.
   */
  OPTIMIZE_INVALID_MODEL = 5,
  /**
   * The request is valid, but this version does not support it.
   */
  OPTIMIZE_UNSUPPORTED = 6,
  /**
   * A limit of this library or the memory limit of the context is exceeded, or there is too little memory.
   */
  OPTIMIZE_LIMIT_EXCEEDED = 7,
  /**
   * ONNX Runtime was not found or is too old.
   */
  OPTIMIZE_RUNTIME_MISSING = 8,
  /**
   * ONNX Runtime refused the model, or a run failed.
   */
  OPTIMIZE_RUNTIME = 9,
  /**
   * The call was stopped by the cancel token or the progress callback.
   */
  OPTIMIZE_CANCELLED = 10,
  /**
   * The timeout of the call expired.
   */
  OPTIMIZE_TIMEOUT = 11,
  /**
   * The handle accepts one call at a time and is in use.
   */
  OPTIMIZE_BUSY = 12,
  /**
   * A limit of the quality, size or speed of a result was not met.
   */
  OPTIMIZE_GATE_NOT_MET = 13,
  /**
   * A defect of this library caused the failure. The process can continue.
   */
  OPTIMIZE_INTERNAL = 14,
  /**
   * TensorRT, an execution provider or this library's kernels were not found, are too old, or are not supported by
   * this build of the library.
   */
  OPTIMIZE_BACKEND_MISSING = 15,
  /**
   * No NVIDIA driver was found, or no device with the requested index.
   */
  OPTIMIZE_DEVICE_MISSING = 16,
  /**
   * TensorRT refused the model, or a build or run failed.
   */
  OPTIMIZE_BACKEND = 17,
  /**
   * The file belongs to another model, library or device.
   */
  OPTIMIZE_MISMATCH = 18,
  /**
   * The file contains executable code, and its source was not marked as trusted; or an engine has no manifest.
   */
  OPTIMIZE_UNTRUSTED = 19,
} optimize_status_t;

/**
 * Execution provider of a session.
 */
typedef enum optimize_provider_t {
  /**
   * The CPU.
   */
  OPTIMIZE_PROVIDER_CPU = 0,
  /**
   * An NVIDIA GPU, with the CUDA kernels of ONNX Runtime; nodes without such a kernel run on the CPU.
   */
  OPTIMIZE_PROVIDER_CUDA = 1,
  /**
   * An NVIDIA GPU, with TensorRT engines that are built for parts of the graph; other nodes run as with
   * OPTIMIZE_PROVIDER_CUDA.
   */
  OPTIMIZE_PROVIDER_TENSORRT = 2,
  /**
   * The first of TensorRT, CUDA and the CPU with which the session can be created. This value occurs only in
   * options: a session reports the provider that it uses.
   */
  OPTIMIZE_PROVIDER_AUTO = 3,
} optimize_provider_t;

/**
 * Rule by which the tokens of a text become spans.
 */
typedef enum optimize_aggregation_t {
  /**
   * Adjacent tokens of one class become a span, whose score is the mean of the scores of the tokens.
   */
  OPTIMIZE_AGGREGATION_SIMPLE = 0,
  /**
   * Each token is a span, with its label as it is.
   */
  OPTIMIZE_AGGREGATION_NONE = 1,
  /**
   * A word has the class of its first token; adjacent words of one class become a span.
   */
  OPTIMIZE_AGGREGATION_FIRST = 2,
  /**
   * A word has the class with the highest mean score over its tokens; adjacent words of one class become a span.
   */
  OPTIMIZE_AGGREGATION_AVERAGE = 3,
  /**
   * A word has the class of its token with the highest score; adjacent words of one class become a span.
   */
  OPTIMIZE_AGGREGATION_MAX = 4,
} optimize_aggregation_t;

/**
 * Position of the beginning-of-sequence token (such as `<s>`), for models whose tokenizer has one. The token itself is
 * not scored.
 */
typedef enum optimize_bos_t {
  /**
   * At the start of every window, as in llama.cpp.
   */
  OPTIMIZE_BOS_EVERY_WINDOW = 0,
  /**
   * At the start of the text only, as in the documentation of transformers.
   */
  OPTIMIZE_BOS_FIRST_WINDOW = 1,
  /**
   * Nowhere: the token is not inserted.
   */
  OPTIMIZE_BOS_NEVER = 2,
} optimize_bos_t;

/**
 * Format of the text with the counters.
 */
typedef enum optimize_counters_format_t {
  /**
   * A JSON object with the fields of optimize_counters_t.
   */
  OPTIMIZE_COUNTERS_FORMAT_JSON = 0,
  /**
   * The text format of Prometheus, with names that begin with optimize_.
   */
  OPTIMIZE_COUNTERS_FORMAT_PROMETHEUS = 1,
} optimize_counters_format_t;

/**
 * Divergence between the distributions of teacher and student.
 */
typedef enum optimize_divergence_t {
  /**
   * KL(teacher ‖ student): the student learns to cover all outcomes that the teacher considers possible.
   */
  OPTIMIZE_DIVERGENCE_FORWARD = 0,
  /**
   * KL(student ‖ teacher): the student learns to concentrate on outcomes that the teacher considers most probable.
   */
  OPTIMIZE_DIVERGENCE_REVERSE = 1,
  /**
   * Jensen-Shannon divergence: the mean of the divergences of both distributions from their mean.
   */
  OPTIMIZE_DIVERGENCE_JENSEN_SHANNON = 2,
} optimize_divergence_t;

/**
 * Element types, with the values of ONNX's TensorProto.DataType. In memory, elements of less than a byte are packed,
 * low bits first.
 */
typedef enum optimize_dtype_t {
  /**
   * The value is not a tensor, or the model does not declare its type.
   */
  OPTIMIZE_DTYPE_UNKNOWN = 0,
  OPTIMIZE_DTYPE_FLOAT32 = 1,
  OPTIMIZE_DTYPE_UINT8 = 2,
  OPTIMIZE_DTYPE_INT8 = 3,
  OPTIMIZE_DTYPE_UINT16 = 4,
  OPTIMIZE_DTYPE_INT16 = 5,
  OPTIMIZE_DTYPE_INT32 = 6,
  OPTIMIZE_DTYPE_INT64 = 7,
  OPTIMIZE_DTYPE_STRING = 8,
  OPTIMIZE_DTYPE_BOOL = 9,
  OPTIMIZE_DTYPE_FLOAT16 = 10,
  OPTIMIZE_DTYPE_FLOAT64 = 11,
  OPTIMIZE_DTYPE_UINT32 = 12,
  OPTIMIZE_DTYPE_UINT64 = 13,
  OPTIMIZE_DTYPE_COMPLEX64 = 14,
  OPTIMIZE_DTYPE_COMPLEX128 = 15,
  OPTIMIZE_DTYPE_BFLOAT16 = 16,
  OPTIMIZE_DTYPE_FLOAT8E4M3FN = 17,
  OPTIMIZE_DTYPE_FLOAT8E4M3FNUZ = 18,
  OPTIMIZE_DTYPE_FLOAT8E5M2 = 19,
  OPTIMIZE_DTYPE_FLOAT8E5M2FNUZ = 20,
  OPTIMIZE_DTYPE_UINT4 = 21,
  OPTIMIZE_DTYPE_INT4 = 22,
  OPTIMIZE_DTYPE_FLOAT4E2M1 = 23,
  OPTIMIZE_DTYPE_FLOAT8E8M0 = 24,
  OPTIMIZE_DTYPE_UINT2 = 25,
  OPTIMIZE_DTYPE_INT2 = 26,
} optimize_dtype_t;

/**
 * Method by which the outputs of the members are combined.
 */
typedef enum optimize_ensemble_method_t {
  /**
   * Mean of the probabilities, of the normalized embeddings, or of the numeric outputs, weighted by any `weights`.
   */
  OPTIMIZE_ENSEMBLE_MEAN = 0,
  /**
   * Mean like OPTIMIZE_ENSEMBLE_MEAN, weighted by `weights`, which are required.
   */
  OPTIMIZE_ENSEMBLE_WEIGHTED = 1,
  /**
   * Softmax of the weighted mean of the logits, each divided by its temperature.
   */
  OPTIMIZE_ENSEMBLE_LOGITS = 2,
  /**
   * Normalized product of the probabilities, each to the power of its weight times the number of members.
   */
  OPTIMIZE_ENSEMBLE_PRODUCT = 3,
  /**
   * Maximum probability of each token or class, normalized so that the sum is 1; maximum of numeric outputs.
   */
  OPTIMIZE_ENSEMBLE_MAX = 4,
  /**
   * Median probability of each token or class, normalized so that the sum is 1; median of numeric outputs.
   */
  OPTIMIZE_ENSEMBLE_MEDIAN = 5,
  /**
   * Sum of the weights of the members that rank the token or class first.
   */
  OPTIMIZE_ENSEMBLE_VOTE = 6,
  /**
   * Probabilities of the first of two members divided by those of the second, for tokens whose probability in the
   * first member is at least a tenth of the maximum, and 0 for other tokens; normalized.
   */
  OPTIMIZE_ENSEMBLE_CONTRASTIVE = 7,
  /**
   * Each member generates texts, all members score all of these texts, and the text with the best score is selected.
   */
  OPTIMIZE_ENSEMBLE_RERANK = 8,
  /**
   * Concatenated embeddings, each normalized and multiplied by the square root of its weight.
   */
  OPTIMIZE_ENSEMBLE_CONCAT = 9,
} optimize_ensemble_method_t;

/**
 * Task of the members of an ensemble.
 */
typedef enum optimize_ensemble_task_t {
  /**
   * Task that is detected from the members.
   */
  OPTIMIZE_ENSEMBLE_AS_MEMBERS = 0,
  /**
   * Text generation.
   */
  OPTIMIZE_ENSEMBLE_GENERATE = 1,
  /**
   * Text embedding.
   */
  OPTIMIZE_ENSEMBLE_EMBED = 2,
  /**
   * Classification: one output with logits.
   */
  OPTIMIZE_ENSEMBLE_CLASSIFY = 3,
  /**
   * Other numeric outputs, which are combined element by element.
   */
  OPTIMIZE_ENSEMBLE_NUMBERS = 4,
} optimize_ensemble_task_t;

/**
 * Evaluation task. It determines the format of the data.
 */
typedef enum optimize_evaluate_task_t {
  /**
   * The task that fits the model: perplexity for text generation, embedding for embedding models, classification for
   * classifiers.
   */
  OPTIMIZE_EVALUATE_DEFAULT = 0,
  /**
   * Perplexity of a language model on plain text.
   */
  OPTIMIZE_EVALUATE_PERPLEXITY = 1,
  /**
   * Similarity of two models' embeddings of texts, one per line.
   */
  OPTIMIZE_EVALUATE_EMBEDDING = 2,
  /**
   * Accuracy of a classifier. The data are rows with a label and a text, as TSV or CSV.
   */
  OPTIMIZE_EVALUATE_CLASSIFICATION = 3,
  /**
   * Accuracy of a linear classifier that is trained on the model's embeddings. The data have the format of
   * classification.
   */
  OPTIMIZE_EVALUATE_PROBE = 4,
} optimize_evaluate_task_t;

/**
 * Place where `optimize_model_save` stores the weights.
 */
typedef enum optimize_external_data_t {
  /**
   * In the .onnx file up to 1 GiB, above that in a file next to it.
   */
  OPTIMIZE_EXTERNAL_DATA_AUTO = 0,
  /**
   * In the .onnx file; OPTIMIZE_LIMIT_EXCEEDED above 2 GiB.
   */
  OPTIMIZE_EXTERNAL_DATA_NEVER = 1,
  /**
   * In a file next to the .onnx file.
   */
  OPTIMIZE_EXTERNAL_DATA_ALWAYS = 2,
} optimize_external_data_t;

/**
 * The reason why the text of a row ended.
 */
typedef enum optimize_finish_reason_t {
  /**
   * The text has not ended.
   */
  OPTIMIZE_FINISH_NONE = 0,
  /**
   * The model generated an end-of-text token.
   */
  OPTIMIZE_FINISH_EOS = 1,
  /**
   * The limit `max_new_tokens`, `max_length` or that of the model was reached.
   */
  OPTIMIZE_FINISH_LENGTH = 2,
  /**
   * A stop string or a stop token was found.
   */
  OPTIMIZE_FINISH_STOP = 3,
  /**
   * The token callback returned a value other than 0.
   */
  OPTIMIZE_FINISH_CANCELLED = 4,
} optimize_finish_reason_t;

/**
 * Criterion by which structured pruning ranks the units: neurons, channels and attention heads.
 */
typedef enum optimize_importance_t {
  /**
   * Sum of the magnitudes of the weights of a unit.
   */
  OPTIMIZE_IMPORTANCE_L1 = 0,
  /**
   * Sum of the squares of the weights of a unit.
   */
  OPTIMIZE_IMPORTANCE_L2 = 1,
  /**
   * Weights of a unit, and its activations on the calibration data, which it needs.
   */
  OPTIMIZE_IMPORTANCE_ACTIVATION = 2,
  /**
   * Random order, which depends on the seed.
   */
  OPTIMIZE_IMPORTANCE_RANDOM = 3,
} optimize_importance_t;

/**
 * Method by which the weights of several models are merged.
 */
typedef enum optimize_merge_method_t {
  /**
   * Weighted mean of the weights.
   */
  OPTIMIZE_MERGE_LINEAR = 0,
  /**
   * Spherical linear interpolation between two models; the weight of the second is the position between them.
   */
  OPTIMIZE_MERGE_SLERP = 1,
  /**
   * TIES: the base model plus the mean of the models' largest changes from it that agree in sign.
   */
  OPTIMIZE_MERGE_TIES = 2,
} optimize_merge_method_t;

/**
 * Kernels that run the nodes of a session on the CPU.
 */
typedef enum optimize_kernels_t {
  /**
   * This library's kernels for groups of nodes that are faster with them, and ONNX Runtime's kernels for all other
   * nodes. For this, liboptimize.so is registered with ONNX Runtime as an execution provider: see docs/provider.md.
   * In fp32, the environment variable OPTIMIZE_KERNELS=stock selects OPTIMIZE_KERNELS_STOCK instead.
   */
  OPTIMIZE_KERNELS_AUTO = 0,
  /**
   * ONNX Runtime's kernels only, as in programs without this library.
   */
  OPTIMIZE_KERNELS_STOCK = 1,
} optimize_kernels_t;

/**
 * Element type of the KV cache of a decoder.
 */
typedef enum optimize_kv_cache_type_t {
  /**
   * float32, or the type of the model if it declares another one.
   */
  OPTIMIZE_KV_CACHE_TYPE_FLOAT32 = 0,
  /**
   * bfloat16: the cache takes half of the memory, and half as much of it is read for each token. Keys and values are
   * rounded to 8 significant bits.
   */
  OPTIMIZE_KV_CACHE_TYPE_BFLOAT16 = 1,
} optimize_kv_cache_type_t;

/**
 * Level of a log message.
 */
typedef enum optimize_log_level_t {
  /**
   * Errors and warnings.
   */
  OPTIMIZE_LOG_LEVEL_DEFAULT = 0,
  /**
   * Errors: something has failed.
   */
  OPTIMIZE_LOG_LEVEL_ERROR = 1,
  /**
   * Warnings: something works, but not as well as possible, for example because a slower kernel is used or a file is
   * ignored.
   */
  OPTIMIZE_LOG_LEVEL_WARNING = 2,
  /**
   * Events, for example: a model was loaded, a session was created.
   */
  OPTIMIZE_LOG_LEVEL_INFO = 3,
  /**
   * Details for developers, including those of ONNX Runtime.
   */
  OPTIMIZE_LOG_LEVEL_DEBUG = 4,
} optimize_log_level_t;

/**
 * The function that turns the logits of a classifier into scores.
 */
typedef enum optimize_score_function_t {
  /**
   * The function of the model. If the output contains scores already (a softmax or sigmoid of the graph computes it,
   * or its name contains "prob" or "scores"), this is no function. Otherwise, it is the `activation_fn` of a
   * CrossEncoder of sentence-transformers (Identity, Sigmoid, Softmax or Tanh), if there is one. Otherwise, it is no
   * function if `problem_type` in config.json is regression; sigmoid if `problem_type` is
   * multi_label_classification, or if the model has one class; and softmax in all other cases.
   */
  OPTIMIZE_SCORE_FUNCTION_AUTO = 0,
  /**
   * Softmax: the scores of a text are at least 0, and their sum is 1.
   */
  OPTIMIZE_SCORE_FUNCTION_SOFTMAX = 1,
  /**
   * Sigmoid: each score is between 0 and 1.
   */
  OPTIMIZE_SCORE_FUNCTION_SIGMOID = 2,
  /**
   * No function: the scores are the values of the model's output.
   */
  OPTIMIZE_SCORE_FUNCTION_NONE = 3,
} optimize_score_function_t;

/**
 * Precision of matrix products of float32 inputs and constant float32 weights on the CPU.
 */
typedef enum optimize_session_precision_t {
  /**
   * float32.
   */
  OPTIMIZE_SESSION_PRECISION_FP32 = 0,
  /**
   * bfloat16, with sums in float32. It halves the memory of weights. It is faster than float32 for inputs with few
   * rows, and on processors with AMX also for many rows.
   */
  OPTIMIZE_SESSION_PRECISION_BF16 = 1,
  /**
   * int8: weights have a scale for each output column, and inputs have a scale for each row, which is computed in
   * each run.
   */
  OPTIMIZE_SESSION_PRECISION_INT8 = 2,
} optimize_session_precision_t;

/**
 * Level of the optimizations that ONNX Runtime applies to the graph when it creates a session. They change results
 * only by rounding. With levels other than the default, ONNX Runtime's kernels run all nodes.
 */
typedef enum optimize_optimization_level_t {
  /**
   * All optimizations, including changes of tensor layout for this processor.
   */
  OPTIMIZE_OPTIMIZATION_DEFAULT = 0,
  /**
   * No optimization.
   */
  OPTIMIZE_OPTIMIZATION_DISABLED = 1,
  /**
   * Constant folding and removal of redundant nodes.
   */
  OPTIMIZE_OPTIMIZATION_BASIC = 2,
  /**
   * Basic optimizations and node fusion.
   */
  OPTIMIZE_OPTIMIZATION_EXTENDED = 3,
} optimize_optimization_level_t;

/**
 * Precision of an engine.
 */
typedef enum optimize_precision_t {
  /**
   * fp32: the types of the model.
   */
  OPTIMIZE_PRECISION_FP32 = 0,
  /**
   * float16 for matrix products, convolutions and the nodes around them. Needs ONNX Runtime, which measures the
   * error.
   */
  OPTIMIZE_PRECISION_FP16 = 1,
  /**
   * bfloat16 for the same nodes as OPTIMIZE_PRECISION_FP16. Needs ONNX Runtime, which measures the error.
   */
  OPTIMIZE_PRECISION_BF16 = 2,
  /**
   * 8-bit integers for matrix products and convolutions with a weight. Needs ONNX Runtime, which measures ranges of
   * activations and the error.
   */
  OPTIMIZE_PRECISION_INT8 = 3,
  /**
   * float8 (e4m3) for the same nodes as OPTIMIZE_PRECISION_INT8. Needs ONNX Runtime for the same measurements.
   */
  OPTIMIZE_PRECISION_FP8 = 4,
} optimize_precision_t;

/**
 * Pruning method, which selects the weights or units to prune.
 */
typedef enum optimize_prune_method_t {
  /**
   * Magnitude: sets the weights with the smallest magnitude to zero.
   */
  OPTIMIZE_PRUNE_MAGNITUDE = 0,
  /**
   * Random: sets random weights to zero, selected with the seed.
   */
  OPTIMIZE_PRUNE_RANDOM = 1,
  /**
   * Wanda: sets to zero, for each output, the weights with the smallest product of their magnitude and the norm of
   * their input. Needs calibration data.
   */
  OPTIMIZE_PRUNE_WANDA = 2,
  /**
   * SparseGPT: sets to zero the weights whose error the other weights of the row can compensate best, and updates
   * these other weights. Needs calibration data.
   */
  OPTIMIZE_PRUNE_SPARSEGPT = 3,
  /**
   * Structured: removes neurons, channels and attention heads, so that tensors become smaller.
   */
  OPTIMIZE_PRUNE_STRUCTURED = 4,
} optimize_prune_method_t;

/**
 * Kind of quantization.
 */
typedef enum optimize_quantize_type_t {
  /**
   * int8 weights; activations are quantized in each run. Needs no data. Weights of operators without an integer
   * kernel (Conv, LSTM ...) are stored in 8 bits, and used in float.
   */
  OPTIMIZE_QUANTIZE_DYNAMIC = 0,
  /**
   * Weights of 2, 4 or 8 bits in blocks with one scale each. Activations are float; with the accuracy level 4, the
   * default, kernels round them to 8 bits in blocks. Weights that no block operator supports are stored in 4 or 8
   * bits, and used in float.
   */
  OPTIMIZE_QUANTIZE_WEIGHT_ONLY = 1,
  /**
   * int8 weights; activations are quantized with scales from calibration data.
   */
  OPTIMIZE_QUANTIZE_STATIC = 2,
} optimize_quantize_type_t;

/**
 * Algorithm that chooses the codes (the stored integers) of block-quantized weights (weight-only).
 */
typedef enum optimize_algorithm_t {
  /**
   * GPTQ with calibration data, otherwise RTN.
   */
  OPTIMIZE_ALGORITHM_AUTO = 0,
  /**
   * Round to nearest, with a search for the best scale and zero point of each block.
   */
  OPTIMIZE_ALGORITHM_RTN = 1,
  /**
   * Half-quadratic quantization.
   */
  OPTIMIZE_ALGORITHM_HQQ = 2,
  /**
   * GPTQ: compensates the error of each weight by changing the following weights. Needs calibration data.
   */
  OPTIMIZE_ALGORITHM_GPTQ = 3,
  /**
   * AWQ: scales the inputs of weights by the magnitude of their activations. Needs calibration data.
   */
  OPTIMIZE_ALGORITHM_AWQ = 4,
} optimize_algorithm_t;

/**
 * Method that determines the range of an activation from calibration data (static).
 */
typedef enum optimize_calibration_method_t {
  /**
   * The range from the minimum to the maximum value.
   */
  OPTIMIZE_CALIBRATION_MIN_MAX = 0,
  /**
   * The range between two percentiles, without the outermost values.
   */
  OPTIMIZE_CALIBRATION_PERCENTILE = 1,
  /**
   * The range whose quantized histogram has the smallest divergence.
   */
  OPTIMIZE_CALIBRATION_ENTROPY = 2,
  /**
   * The range with the smallest squared error.
   */
  OPTIMIZE_CALIBRATION_MSE = 3,
} optimize_calibration_method_t;

/**
 * Use of only 7 of 8 bits for weights, because sums of 8-bit products can saturate on x86 processors without VNNI.
 */
typedef enum optimize_reduce_range_t {
  /**
   * 7 bits if the processor of this machine requires it.
   */
  OPTIMIZE_REDUCE_RANGE_AUTO = 0,
  /**
   * 7 bits, for models that will run on x86 processors without VNNI.
   */
  OPTIMIZE_REDUCE_RANGE_ON = 1,
  /**
   * 8 bits.
   */
  OPTIMIZE_REDUCE_RANGE_OFF = 2,
} optimize_reduce_range_t;

/**
 * Type of the scales of blocks in the file (weight-only). Sessions convert scales to float32.
 */
typedef enum optimize_scale_type_t {
  /**
   * uint8, times a float32 factor per row.
   */
  OPTIMIZE_SCALE_UINT8 = 0,
  /**
   * float16.
   */
  OPTIMIZE_SCALE_FLOAT16 = 1,
  /**
   * float32.
   */
  OPTIMIZE_SCALE_FLOAT32 = 2,
} optimize_scale_type_t;

/**
 * Decay of the learning rate after the warm-up.
 */
typedef enum optimize_schedule_t {
  /**
   * Linear decay to 0.
   */
  OPTIMIZE_SCHEDULE_LINEAR = 0,
  /**
   * Cosine decay to 0.
   */
  OPTIMIZE_SCHEDULE_COSINE = 1,
  /**
   * Constant learning rate.
   */
  OPTIMIZE_SCHEDULE_CONSTANT = 2,
} optimize_schedule_t;

/**
 * Library that builds an engine.
 */
typedef enum optimize_tensorrt_backend_t {
  /**
   * TensorRT if the library and a device are available, otherwise TensorRT-RTX, otherwise ONNX Runtime's provider.
   * The report gives the reason.
   */
  OPTIMIZE_TENSORRT_AUTO = 0,
  /**
   * TensorRT 11 (libnvinfer.so.11), which builds for the device of this machine.
   */
  OPTIMIZE_TENSORRT_NVINFER = 1,
  /**
   * TensorRT-RTX 1 (libtensorrt_rtx.so.1), which needs no device.
   */
  OPTIMIZE_TENSORRT_RTX = 2,
  /**
   * ONNX Runtime's TensorRT provider, which writes a model that contains engines (X_ctx.onnx).
   */
  OPTIMIZE_TENSORRT_ONNXRUNTIME = 3,
} optimize_tensorrt_backend_t;

/**
 * Use of the reasoning of a model before its answer, for templates with the variable `enable_thinking`.
 */
typedef enum optimize_thinking_t {
  /**
   * The default of the template is used.
   */
  OPTIMIZE_THINKING_TEMPLATE = 0,
  /**
   * The model thinks before it answers.
   */
  OPTIMIZE_THINKING_ON = 1,
  /**
   * The model answers without thinking.
   */
  OPTIMIZE_THINKING_OFF = 2,
} optimize_thinking_t;

/**
 * A buffer: bytes that the library returns, such as a report or a decoded text. A NUL follows them, which is not
 * counted in the size, so that text can be printed directly. A buffer is immutable, and any thread may read it.
 */
typedef struct optimize_buffer_t optimize_buffer_t;

/**
 * A cancel token. Any thread can fire it to stop all calls to which it was passed. It may be freed while such calls
 * are running.
 */
typedef struct optimize_cancel_t optimize_cancel_t;

/**
 * A classifier, which computes scores of classes for texts or pairs of texts. Any number of threads may use it at the
 * same time.
 */
typedef struct optimize_classifier_t optimize_classifier_t;

/**
 * A context: the ONNX Runtime library, the default number of threads, the log callback and the memory limit. A program
 * usually has one context. Any number of threads may use it concurrently.
 */
typedef struct optimize_context_t optimize_context_t;

/**
 * An embedder, which computes vectors of texts. Any number of threads may use it at the same time.
 */
typedef struct optimize_embedder_t optimize_embedder_t;

/**
 * A set of models whose outputs are combined. It is immutable, and any number of threads may use it concurrently.
 */
typedef struct optimize_ensemble_t optimize_ensemble_t;

/**
 * An error, with a status, a message and a place. It is an object instead of thread-local state because goroutines
 * and C# continuations change threads between calls. It is immutable, and any thread may read it.
 */
typedef struct optimize_error_t optimize_error_t;

/**
 * A generator: a decoder, or an ensemble of decoders, with the rows of text that it has read and generated so far.
 * Any thread may use it, but only one at a time: a concurrent call, other than `optimize_generator_placement`, returns
 * OPTIMIZE_BUSY.
 */
typedef struct optimize_generator_t optimize_generator_t;

/**
 * A loaded or created model. It is immutable, and any number of threads may use it concurrently. The weights of a
 * model that was loaded from files stay in these files, which are memory-mapped and must not be truncated or
 * overwritten while the model, or an object created from it, exists. The files may be replaced by renaming.
 */
typedef struct optimize_model_t optimize_model_t;

/**
 * An open package. It is immutable, and any number of threads may use it concurrently. Its files stay memory-mapped,
 * and must not be changed while the package is open.
 */
typedef struct optimize_package_t optimize_package_t;

/**
 * A session, which runs a model or a TensorRT engine. Any number of threads may run it at the same time; they share
 * the weights and the threads of the session. The runs of an engine wait for one another.
 */
typedef struct optimize_session_t optimize_session_t;

/**
 * The labelled spans of the texts of one `optimize_tagger_tag`. They are immutable, and any thread may read them.
 */
typedef struct optimize_spans_t optimize_spans_t;

/**
 * A tagger, which finds labelled spans in texts: named entities, parts of speech, or others that a model for token
 * classification recognizes. Any number of threads may use it at the same time.
 */
typedef struct optimize_tagger_t optimize_tagger_t;

/**
 * A tensor: elements with a type and a shape. It is immutable, and any number of threads may use it concurrently.
 */
typedef struct optimize_tensor_t optimize_tensor_t;

/**
 * A tokenizer, which encodes text to token ids and decodes token ids to text. It is immutable, and any number of
 * threads may use it concurrently.
 */
typedef struct optimize_tokenizer_t optimize_tokenizer_t;

/**
 * Log callback. `level` is an optimize_log_level_t, `target` is "optimize" or "onnxruntime", and `message` is UTF-8
 * text, usually one line. Both texts are valid during the callback. The callback receives the messages of the whole
 * process, on any thread, also on several threads at once. It must not throw or use longjmp. It may call the library,
 * also to free its own context.
 */
typedef void (*optimize_log_fn)(void *user_data,
                                int32_t level,
                                const char *target,
                                const char *message);

/**
 * Options of `optimize_context_new`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_context_options_t {
  /**
   * sizeof(optimize_context_options_t).
   */
  uint32_t struct_size;
  /**
   * Default number of threads, at most 1024. 0 selects one thread per physical core for sessions, and one per
   * logical processor for work outside of ONNX Runtime, such as quantizing.
   */
  uint32_t threads;
  /**
   * Path of the ONNX Runtime library. NULL selects the path in the environment variable ORT_DYLIB_PATH. If that is
   * not set, the library is searched for in the folder of this library and of the program, in ../lib and
   * ../lib/liboptimize next to these folders, and in the system's library path. A process can open only one ONNX
   * Runtime: with another path, functions that need ONNX Runtime return OPTIMIZE_INVALID_ARGUMENT.
   */
  const char *runtime_library;
  /**
   * Log callback, or NULL for no messages. It receives messages until the context is freed.
   */
  optimize_log_fn log;
  /**
   * User data passed to the log callback.
   */
  void *log_user_data;
  /**
   * Most detailed level of the messages that the log callback receives, an optimize_log_level_t.
   */
  int32_t log_level;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Maximum memory in bytes of the objects that are created with the context; 0 means no limit. A function that
   * would exceed it returns OPTIMIZE_LIMIT_EXCEEDED, and existing objects stay usable. The limit counts the contents
   * of models that are loaded from memory or from a source. For sessions, generators, embedders, classifiers and
   * taggers, it counts the weights, activations and outputs that ONNX Runtime allocates (also in runs, until the
   * tensors are freed), the packed weights of this library's kernels, and caches. It does not count mapped files,
   * whose pages the system can take back at any time; graphs without their weights; small buffers of kernels and
   * threads; memory of devices; tensors of the program; and the memory that techniques need while they run.
   */
  uint64_t memory_limit;
} optimize_context_options_t;

/**
 * Counters of all models, sessions and threads of the process since its start. Set `struct_size` before the call.
 */
typedef struct optimize_counters_t {
  /**
   * sizeof(optimize_counters_t).
   */
  uint32_t struct_size;
  /**
   * Always 0.
   */
  uint32_t reserved;
  /**
   * Number of models that were loaded from files or memory.
   */
  uint64_t models_loaded;
  /**
   * Sum of the sizes of all loaded models in bytes. Mapped weights count, even if they were never read.
   */
  uint64_t bytes_loaded;
  /**
   * Time that the loading of models took, in seconds.
   */
  double load_seconds;
  /**
   * Number of sessions that were created, including those of generators, embedders and techniques.
   */
  uint64_t sessions_created;
  /**
   * Time that the creation of sessions took, in seconds.
   */
  double session_seconds;
  /**
   * Number of runs of sessions that ended, including failed ones. A generator usually needs one run for each
   * generated token, and at least one for the prompts.
   */
  uint64_t runs;
  /**
   * Number of runs that failed, including cancelled ones.
   */
  uint64_t failed_runs;
  /**
   * Time that runs took, in seconds, summed over threads.
   */
  double run_seconds;
  /**
   * Number of runs that are now in progress.
   */
  uint64_t active_runs;
  /**
   * Number of calls that now wait for another call of the same TensorRT engine to end.
   */
  uint64_t waiting_calls;
  /**
   * Number of tokens that the models of generators have read: those of prompts, and generated ones.
   */
  uint64_t read_tokens;
  /**
   * Number of tokens that generators have generated.
   */
  uint64_t generated_tokens;
} optimize_counters_t;

/**
 * Progress callback. It is called on the thread that made the call: for the first report of a stage, in which `done`
 * can already be above 0; then at most 20 times per second; and when `done` reaches a `total` above 0. `stage` names
 * the stage and is valid during the callback. `done` and `total` count the work of the stage in its unit; `total` is 0
 * if it is unknown. A return value other than 0 cancels the call. The callback must not throw or use longjmp.
 *
 * Stages (units): "benchmark" (steps), "build" (steps), "calibrate" (runs), "classify" (texts), "distill" (steps),
 * "embed" (texts), "evaluate" (texts or tokens), "fit" (tokens), "fuse" (models), "generate" (tokens), "hash" (bytes),
 * "influence" (layers), "load" (bytes), "merge" (tensors), "package" (bytes), "precision" (measurements), "prompt"
 * (tokens), "prune" (bytes), "quantize" (bytes), "reconstruct" (tensors), "save" (bytes), "scale" (tensors),
 * "sensitivity" (measurements), "speed" (measurements), "table: ROW of MODEL" (thousandths of a row), "tag" (texts),
 * "verify" (bytes). Later versions can add stages to a function.
 */
typedef int32_t (*optimize_progress_fn)(void *user_data,
                                        const char *stage,
                                        uint64_t done,
                                        uint64_t total);

/**
 * Progress, timeout and cancellation of a call. A field that is 0 or NULL disables its part; NULL in place of the
 * struct disables all of them.
 */
typedef struct optimize_call_t {
  /**
   * sizeof(optimize_call_t).
   */
  uint32_t struct_size;
  /**
   * Timeout in milliseconds from the beginning of the call, after which it returns OPTIMIZE_TIMEOUT as soon as
   * possible; 0 means no timeout.
   */
  uint32_t timeout_ms;
  /**
   * Progress callback, or NULL.
   */
  optimize_progress_fn progress;
  /**
   * User data passed to the progress callback.
   */
  void *user_data;
  /**
   * Cancel token that ends the call with OPTIMIZE_CANCELLED, or NULL.
   */
  const optimize_cancel_t *cancel;
} optimize_call_t;

/**
 * Options of `optimize_model_save`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_save_options_t {
  /**
   * sizeof(optimize_save_options_t).
   */
  uint32_t struct_size;
  /**
   * Storage of the weights, an optimize_external_data_t.
   */
  int32_t external_data;
  /**
   * A value other than 0 writes a packed file, in which a zero takes one bit and other floats about 15 % less
   * space. Only this library reads packed files: `optimize_model_load` recognizes them by their content, and
   * restores the original bits of the weights.
   */
  uint32_t packed;
} optimize_save_options_t;

/**
 * Name, type and shape of an input or output. Set `struct_size` before the call. The memory of the pointers belongs to
 * the model or session.
 */
typedef struct optimize_value_info_t {
  /**
   * sizeof(optimize_value_info_t).
   */
  uint32_t struct_size;
  /**
   * Element type, an optimize_dtype_t. It is OPTIMIZE_DTYPE_UNKNOWN for a sequence or map, or if the model does not
   * declare it.
   */
  int32_t dtype;
  /**
   * Name of the input or output.
   */
  const char *name;
  /**
   * Number of dimensions, or -1 if the model does not declare it.
   */
  int64_t rank;
  /**
   * Array of `rank` sizes, where -1 is a dynamic dimension; NULL if there are none.
   */
  const int64_t *dims;
  /**
   * Array of `rank` names of dimensions, where "" is no name; NULL if there are none. Dimensions with the same name
   * must have the same size in a run, except for names without meaning that exporters write, such as "?" or
   * "unk__12".
   */
  const char *const *dim_names;
} optimize_value_info_t;

/**
 * Release callback of `optimize_tensor_borrow`. It is called once, on any thread, when nothing uses the borrowed
 * memory any more. It must not throw or use longjmp.
 */
typedef void (*optimize_release_fn)(void *user_data);

/**
 * Options of `optimize_session_new`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_session_options_t {
  /**
   * sizeof(optimize_session_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of threads for the work of one node; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Graph optimization, an optimize_optimization_level_t.
   */
  int32_t optimization_level;
  /**
   * A value other than 0 disables the reordering of weights for this processor: the session takes less memory and
   * is created faster, but runs are slower. The field is ignored for models with block-quantized weights
   * (MatMulNBits, as in most GGUF files), whose runs would take 35 times as long.
   */
  uint32_t disable_prepacking;
  /**
   * A value other than 0 rounds the activations of block-quantized matrix products (MatMulNBits, from GGUF files and
   * weight-only quantization) to 8 bits, as other engines do by default. This is faster and less exact.
   */
  uint32_t round_activations;
  /**
   * A value other than 0 states that you trust the source of the model. Engines inside a model (EPContext) contain
   * code that a device runs; with 0, a session of such a model on a device returns OPTIMIZE_UNTRUSTED.
   */
  uint32_t trust_engines;
  /**
   * Execution provider, an optimize_provider_t. If the requested provider is not available, the call returns
   * OPTIMIZE_BACKEND_MISSING or OPTIMIZE_DEVICE_MISSING with the reason; only OPTIMIZE_PROVIDER_AUTO selects another
   * provider then.
   */
  int32_t provider;
  /**
   * Index of the device, from 0; 0 for the CPU.
   */
  uint32_t device_id;
  /**
   * TensorRT: absolute path of a folder that caches engines between sessions; NULL disables the cache.
   */
  const char *engine_cache;
  /**
   * Kernels that run the nodes of the model on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * Precision of matrix products with constant float32 weights on the CPU, an optimize_session_precision_t. Any
   * value but OPTIMIZE_SESSION_PRECISION_FP32 needs this library's kernels, and returns OPTIMIZE_BACKEND_MISSING if
   * they cannot be used.
   */
  int32_t precision;
} optimize_session_options_t;

/**
 * The memory of the program for an output of `optimize_session_run_into`.
 */
typedef struct optimize_output_t {
  /**
   * sizeof(optimize_output_t).
   */
  uint32_t struct_size;
  /**
   * Element type of the output, an optimize_dtype_t.
   */
  int32_t dtype;
  /**
   * Name of the output.
   */
  const char *name;
  /**
   * Array of `rank` sizes of the dimensions of the output in this run.
   */
  const int64_t *dims;
  /**
   * Number of dimensions of the output.
   */
  uint64_t rank;
  /**
   * Memory to which the elements are written, in row-major order. It must be aligned for the type.
   */
  void *data;
  /**
   * Size of the memory in bytes, which must be that of all elements.
   */
  uint64_t size;
} optimize_output_t;

/**
 * Options of `optimize_tokenizer_encode`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_encode_options_t {
  /**
   * sizeof(optimize_encode_options_t).
   */
  uint32_t struct_size;
  /**
   * A value other than 0 adds no special tokens, such as `[CLS]` or `<s>`.
   */
  uint32_t no_special_tokens;
  /**
   * Maximum number of tokens of a row, including special tokens; longer rows are truncated at the end. 0 means no
   * limit.
   */
  uint32_t max_length;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} optimize_encode_options_t;

/**
 * Options of `optimize_tokenizer_decode`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_decode_options_t {
  /**
   * sizeof(optimize_decode_options_t).
   */
  uint32_t struct_size;
  /**
   * A value other than 0 includes the text of special tokens; otherwise they are left out.
   */
  uint32_t keep_special_tokens;
} optimize_decode_options_t;

/**
 * Options of `optimize_model_apply_chat_template`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_chat_options_t {
  /**
   * sizeof(optimize_chat_options_t).
   */
  uint32_t struct_size;
  /**
   * A value other than 0 leaves out the beginning of the answer, which otherwise ends the prompt.
   */
  uint32_t no_generation_prompt;
  /**
   * Tools that the model may call, a JSON list of their schemas ({"type": "function", "function": {...}}); or NULL.
   */
  const char *tools;
  /**
   * Further variables of the template, a JSON object; or NULL. They override variables of the same name that the
   * library sets, except `enable_thinking` if `thinking` is not 0.
   */
  const char *variables;
  /**
   * Use of the reasoning of the model, an optimize_thinking_t. It sets the variable `enable_thinking`.
   */
  int32_t thinking;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} optimize_chat_options_t;

/**
 * Options of `optimize_generator_new`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_generator_options_t {
  /**
   * sizeof(optimize_generator_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * A value other than 0 rounds the activations of block-quantized matrix products; see optimize_session_options_t.
   */
  uint32_t round_activations;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Execution provider of the sessions, an optimize_provider_t.
   */
  int32_t provider;
  /**
   * Index of the device, from 0; 0 for the CPU.
   */
  uint32_t device_id;
  /**
   * TensorRT: absolute path of a folder that caches engines; NULL disables the cache.
   */
  const char *engine_cache;
  /**
   * Kernels that run the nodes of the model on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * Precision of matrix products with constant float32 weights on the CPU, an optimize_session_precision_t. Any
   * value but OPTIMIZE_SESSION_PRECISION_FP32 needs this library's kernels, and returns OPTIMIZE_BACKEND_MISSING if
   * they cannot be used.
   */
  int32_t precision;
  /**
   * Draft model for speculative decoding: a smaller decoder, whose vocabulary has every token of the model, or NULL
   * for none. Tokens that it generates are verified by the model, several in one run. The generated text is the same
   * with and without a draft if a run of several tokens computes the same logits as runs of one token each; this
   * library's kernels do so in float32. A generator with a draft has a single row.
   */
  const optimize_model_t *draft;
  /**
   * A value other than 0 drafts by prompt look-up: the drafted tokens are those that followed the longest earlier
   * occurrence of the last tokens. If there is also a draft model, it drafts where no occurrence is found.
   */
  uint32_t draft_lookup;
  /**
   * Maximum number of drafted tokens per run of the model, at most 64; 0 selects 8. Other values need `draft` or
   * `draft_lookup`. Fewer tokens are drafted after a run in which some were not accepted.
   */
  uint32_t draft_max;
  /**
   * Element type of the KV cache, an optimize_kv_cache_type_t. Any value but OPTIMIZE_KV_CACHE_TYPE_FLOAT32 needs
   * this library's kernels: it returns OPTIMIZE_BACKEND_MISSING if they cannot be used, and OPTIMIZE_UNSUPPORTED if
   * the model has no cache that they read and write (that of GroupQueryAttention). It applies to a draft model, too.
   */
  int32_t kv_cache_type;
  /**
   * Must be 0.
   */
  uint32_t reserved2;
} optimize_generator_options_t;

/**
 * A generated token, as the token callback receives it.
 */
typedef struct optimize_written_t {
  /**
   * Size of the struct in this version of the library.
   */
  uint32_t struct_size;
  /**
   * Index of the row.
   */
  uint32_t row;
  /**
   * Id of the token.
   */
  int64_t token;
  /**
   * Text that this token completes: `text_size` bytes of UTF-8, not NUL-terminated. It consists of whole
   * characters that later tokens cannot change, without any part of a stop string, and may be empty. It is valid
   * during the callback.
   */
  const char *text;
  /**
   * Number of bytes in `text`.
   */
  uint64_t text_size;
  /**
   * Log-probability of the token, if log-probabilities were requested; otherwise 0.
   */
  float logprob;
  /**
   * Finish reason of the row, an optimize_finish_reason_t; OPTIMIZE_FINISH_NONE before its last token.
   */
  int32_t finish_reason;
  /**
   * Ensembles: entropy of the combined distribution, in nats; otherwise 0.
   */
  double entropy;
  /**
   * Ensembles: part of the entropy that comes from disagreement between the members, in nats; otherwise 0.
   */
  double mutual_information;
  /**
   * Ensembles: sum of the weights of the members that rank this token first; otherwise 0.
   */
  double agreement;
} optimize_written_t;

/**
 * Token callback. It is called for every generated token, on the thread that made the call. A return value other
 * than 0 ends all rows. The callback must not throw or use longjmp.
 */
typedef int32_t (*optimize_token_fn)(void *user_data,
                                     const optimize_written_t *written);

/**
 * Options of `optimize_generator_generate` and `optimize_generator_run`. Fields that are 0 or NULL have their
 * defaults: generation selects the most probable token each time, and ends after at most 256 new tokens.
 */
typedef struct optimize_generate_options_t {
  /**
   * sizeof(optimize_generate_options_t).
   */
  uint32_t struct_size;
  /**
   * Maximum number of new tokens per row; 0 means no limit, or 256 if max_length is 0, too.
   */
  uint32_t max_new_tokens;
  /**
   * Maximum number of tokens per row, including the prompt; 0 means no limit.
   */
  uint32_t max_length;
  /**
   * Sampling: number of most probable tokens among which the next token is sampled; 0 selects all tokens.
   */
  uint32_t top_k;
  /**
   * Sampling temperature, by which logits are divided; 0 selects the most probable token each time. Together with
   * 0, a top_k above 1, top_p or min_p returns OPTIMIZE_INVALID_ARGUMENT, because they would have no effect.
   */
  float temperature;
  /**
   * Sampling: total probability, at most 1, of the most probable tokens among which the next token is sampled; 0
   * selects all tokens.
   */
  float top_p;
  /**
   * Sampling: minimum probability of a token, from 0 to 1, relative to that of the most probable token; 0 selects
   * all tokens.
   */
  float min_p;
  /**
   * Repetition penalty: a value above 1 makes tokens that occur in the prompt or the generated text less probable, a
   * value below 1 more probable; 1 disables it. 0 selects that of generation_config.json, or 1 without one.
   */
  float repetition_penalty;
  /**
   * Presence penalty, from -2 to 2, which is subtracted from the logits of tokens that occur in the generated text;
   * 0 disables it.
   */
  float presence_penalty;
  /**
   * Frequency penalty, from -2 to 2, which is subtracted from the logit of a token for each occurrence in the
   * generated text; 0 disables it.
   */
  float frequency_penalty;
  /**
   * Length of token sequences that must not occur twice in prompt and generated text; 0 selects that of
   * generation_config.json, or allows repetitions without one.
   */
  uint32_t no_repeat_ngram_size;
  /**
   * Log-probabilities to return: 0 returns none; n returns those of each generated token and of the n - 1 most
   * probable tokens.
   */
  uint32_t logprobs;
  /**
   * Seed of sampling. The same seed gives the same text for the same prompts, options, model and machine.
   */
  uint64_t seed;
  /**
   * Array of `stop_count` strings that end the text of a row and are not part of it. A string that is the text of
   * a special token ends the text when the model generates that token.
   */
  const char *const *stop;
  /**
   * Number of strings in `stop`.
   */
  uint64_t stop_count;
  /**
   * Token callback, or NULL.
   */
  optimize_token_fn on_token;
  /**
   * User data passed to `on_token`.
   */
  void *user_data;
  /**
   * If not 0, prompts already contain their special tokens, like the result of `optimize_model_apply_chat_template`.
   */
  uint32_t rendered;
  /**
   * A value other than 0 continues after end-of-text tokens.
   */
  uint32_t ignore_eos;
  /**
   * Array of `stop_token_count` ids of tokens that end the text of a row and are not part of it.
   */
  const int64_t *stop_tokens;
  /**
   * Number of ids in `stop_tokens`.
   */
  uint64_t stop_token_count;
  /**
   * A value other than 0 samples with the settings that the model recommends (generation_config.json), in place of
   * fields that are 0: temperature (otherwise 1), top_k (otherwise 50), top_p, min_p, repetition_penalty,
   * no_repeat_ngram_size.
   */
  uint32_t model_sampling;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} optimize_generate_options_t;

/**
 * Options of `optimize_embedder_new`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_embedder_options_t {
  /**
   * sizeof(optimize_embedder_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Number of texts per run; 0 selects 8. Texts of similar length are run together, padded to the longest. With 1,
   * the vector of a text does not depend on other texts; with more, it can in dynamically quantized models.
   */
  uint32_t batch_size;
  /**
   * Number of tokens after which a text is truncated; 0 selects the limit for texts in the model's files
   * (`max_seq_length`, `model_max_length`), otherwise the number of positions of the model, up to 512.
   */
  uint32_t max_length;
  /**
   * Number of elements to keep of each vector, its first ones, for models that were trained with Matryoshka loss; 0
   * selects `truncate_dim` of the model's config_sentence_transformers.json, otherwise keeps all. Truncated vectors
   * are normalized again only if `normalize` is set.
   */
  uint32_t dimensions;
  /**
   * A value other than 0 normalizes each vector to length 1, even if the model does not ask for it.
   */
  uint32_t normalize;
  /**
   * Text that is put before every text, "" for none; NULL selects the default prompt of the model, if it has one.
   */
  const char *prompt;
  /**
   * Name of a prompt in the model's config_sentence_transformers.json, such as "query", instead of `prompt`; or
   * NULL. Only one of `prompt` and `prompt_name` may be given.
   */
  const char *prompt_name;
  /**
   * Execution provider of the session, an optimize_provider_t.
   */
  int32_t provider;
  /**
   * Index of the device, from 0; 0 for the CPU.
   */
  uint32_t device_id;
  /**
   * TensorRT: absolute path of a folder that caches engines; NULL disables the cache.
   */
  const char *engine_cache;
  /**
   * Kernels that run the nodes of the model on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * Precision of matrix products with constant float32 weights on the CPU, an optimize_session_precision_t. Any
   * value but OPTIMIZE_SESSION_PRECISION_FP32 needs this library's kernels, and returns OPTIMIZE_BACKEND_MISSING if
   * they cannot be used.
   */
  int32_t precision;
} optimize_embedder_options_t;

/**
 * Options of `optimize_classifier_new`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_classifier_options_t {
  /**
   * sizeof(optimize_classifier_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Number of texts per run; 0 selects 8. Texts of similar length are run together, padded to the longest. With 1,
   * the scores of a text do not depend on other texts; with more, they can in dynamically quantized models.
   */
  uint32_t batch_size;
  /**
   * Number of tokens after which a text or pair is truncated; 0 selects the limit for texts in the model's files
   * (`max_seq_length`, `model_max_length`), otherwise the number of positions of the model, up to 512.
   */
  uint32_t max_length;
  /**
   * Function that turns logits into scores, an optimize_score_function_t.
   */
  int32_t score_function;
  /**
   * Execution provider of the session, an optimize_provider_t.
   */
  int32_t provider;
  /**
   * Index of the device, from 0; 0 for the CPU.
   */
  uint32_t device_id;
  /**
   * Kernels that run the nodes of the model on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * TensorRT: absolute path of a folder that caches engines; NULL disables the cache.
   */
  const char *engine_cache;
  /**
   * Precision of matrix products with constant float32 weights on the CPU, an optimize_session_precision_t. Any
   * value but OPTIMIZE_SESSION_PRECISION_FP32 needs this library's kernels, and returns OPTIMIZE_BACKEND_MISSING if
   * they cannot be used.
   */
  int32_t precision;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} optimize_classifier_options_t;

/**
 * Options of `optimize_tagger_new`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_tagger_options_t {
  /**
   * sizeof(optimize_tagger_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Number of texts per run; 0 selects 8. Texts of similar length are run together, padded to the longest.
   */
  uint32_t batch_size;
  /**
   * Number of tokens of a window, including special tokens; 0 selects the limit for texts in the model's files
   * (`max_seq_length`, `model_max_length`), otherwise the number of positions of the model, up to 512. Longer texts
   * are divided into overlapping windows.
   */
  uint32_t max_length;
  /**
   * Number of tokens by which the windows of a long text overlap; 0 selects a quarter of a window. A token has the
   * label from the window in which it is furthest from an end at which the text was divided.
   */
  uint32_t stride;
  /**
   * Rule by which tokens become spans, an optimize_aggregation_t.
   */
  int32_t aggregation;
  /**
   * A value other than 0 also returns spans with the label "O", which belong to no entity.
   */
  uint32_t keep_outside;
  /**
   * Execution provider of the session, an optimize_provider_t.
   */
  int32_t provider;
  /**
   * Index of the device, from 0; 0 for the CPU.
   */
  uint32_t device_id;
  /**
   * Kernels that run the nodes of the model on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * TensorRT: absolute path of a folder that caches engines; NULL disables the cache.
   */
  const char *engine_cache;
  /**
   * Precision of matrix products with constant float32 weights on the CPU, an optimize_session_precision_t. Any
   * value but OPTIMIZE_SESSION_PRECISION_FP32 needs this library's kernels, and returns OPTIMIZE_BACKEND_MISSING if
   * they cannot be used.
   */
  int32_t precision;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} optimize_tagger_options_t;

/**
 * A labelled part of a text. Set `struct_size` before the call. The memory of the label belongs to the
 * optimize_spans_t.
 */
typedef struct optimize_span_t {
  /**
   * sizeof(optimize_span_t).
   */
  uint32_t struct_size;
  /**
   * Probability of the label: the mean over the tokens or words of the span.
   */
  float score;
  /**
   * Class of the entity, for example "PER": the label without the prefix "B-" or "I-". With
   * OPTIMIZE_AGGREGATION_NONE it is the label of the token, for example "B-PER".
   */
  const char *label;
  /**
   * Offset of the first byte of the span in the text.
   */
  uint64_t start;
  /**
   * Offset of the byte after the last byte of the span.
   */
  uint64_t end;
} optimize_span_t;

/**
 * Options of `optimize_model_quantize`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_quantize_options_t {
  /**
   * sizeof(optimize_quantize_options_t).
   */
  uint32_t struct_size;
  /**
   * Kind of quantization, an optimize_quantize_type_t.
   */
  int32_t type;
  /**
   * Bits per weight: 8, or for weight-only also 4 or 2. 0 selects 8, or for weight-only 4. Other values return
   * OPTIMIZE_INVALID_ARGUMENT. 2 bits are meant for `target_size`, which mixes them with more bits.
   */
  uint32_t bits;
  /**
   * Static and dynamic: use of 7 bits for weights, an optimize_reduce_range_t. For weight-only, a value other than
   * OPTIMIZE_REDUCE_RANGE_AUTO returns OPTIMIZE_INVALID_ARGUMENT.
   */
  int32_t reduce_range;
  /**
   * A value other than 0 uses one scale per weight instead of one per output channel.
   */
  uint32_t per_tensor;
  /**
   * A value other than 0 keeps embedding tables float.
   */
  uint32_t keep_embeddings;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Weight-only: number of consecutive elements of a row that share a scale: 16, 32, 64, 128 or 256. 0 selects 32.
   */
  uint32_t block_size;
  /**
   * Weight-only: a value other than 0 quantizes symmetrically, without zero points. Blocks of 8 bits are always
   * symmetric.
   */
  uint32_t symmetric;
  /**
   * Weight-only: type of the scales, an optimize_scale_type_t.
   */
  int32_t scale_type;
  /**
   * Weight-only: accuracy_level of MatMulNBits. 4 rounds activations to 8 bits per block, which is faster; 1 keeps
   * them float32. 0 selects 4.
   */
  uint32_t accuracy_level;
  /**
   * Number of windows of the calibration text; 0 selects 16.
   */
  uint32_t calibration_windows;
  /**
   * Number of tokens per window; 0 selects 512, or the limit of the model if it is less.
   */
  uint32_t calibration_length;
  /**
   * A value other than 0 compares the speed with products or tables of one shape (static: nodes of one operator) in
   * float, and keeps those float that are slower quantized. If a static result is still slower than the original,
   * the call returns OPTIMIZE_GATE_NOT_MET. Needs ONNX Runtime.
   */
  uint32_t never_slower;
  /**
   * Minimum number of elements of a weight to quantize; 0 selects 1024. Static quantization ignores it for Conv.
   */
  uint64_t min_elements;
  /**
   * Array of `include_count` globs of node and weight names to quantize; NULL selects all nodes.
   */
  const char *const *include;
  /**
   * Number of globs in `include`.
   */
  uint64_t include_count;
  /**
   * Array of `exclude_count` globs of node and weight names to leave unchanged; it takes precedence over
   * `include`.
   */
  const char *const *exclude;
  /**
   * Number of globs in `exclude`.
   */
  uint64_t exclude_count;
  /**
   * Weight-only: array of `override_count` texts `GLOB=BITS` or `GLOB=BITS/BLOCK`, which set other bits and
   * another block size for matching nodes and weights; the first match counts.
   */
  const char *const *overrides;
  /**
   * Number of texts in `overrides`.
   */
  uint64_t override_count;
  /**
   * Calibration text in UTF-8 of `calibration_size` bytes, or NULL. Static quantization determines the ranges of
   * activations from it. For weight-only, it selects GPTQ, which keeps the outputs of the layers on this text close
   * to the original ones, and takes minutes instead of seconds. It needs ONNX Runtime, and a model with a tokenizer;
   * without one, the call returns OPTIMIZE_NOT_FOUND.
   */
  const char *calibration;
  /**
   * Number of bytes of `calibration`.
   */
  uint64_t calibration_size;
  /**
   * Folder of the temporary file that holds the quantized weights until they are saved; NULL selects the system's
   * temporary folder.
   */
  const char *scratch_folder;
  /**
   * Weight-only: algorithm that chooses the codes, an optimize_algorithm_t.
   */
  int32_t algorithm;
  /**
   * Static: method that determines the ranges of activations, an optimize_calibration_method_t.
   */
  int32_t calibration_method;
  /**
   * Static: percentage of the values of an activation that OPTIMIZE_CALIBRATION_PERCENTILE keeps; 0 selects 99.99.
   * With another method, other values return OPTIMIZE_INVALID_ARGUMENT.
   */
  double percentile;
  /**
   * Static and dynamic: alpha of SmoothQuant, from 0 to 1, which moves outliers of activations into the weights; 0
   * disables SmoothQuant. Good values are 0.8 for encoders and 0.5 for decoders. Activations are measured on the
   * calibration data; dynamic quantization without data uses built-in sentences, and then the model must have a
   * tokenizer.
   */
  double smooth_quant;
  /**
   * Maximum loss of each judged output (docs/report.md), measured on the calibration data or on generated inputs:
   * mean KL divergence in nats for logits, 1 - mean cosine for other outputs. As many of the most sensitive nodes
   * stay float as are needed to meet the limit. 0 means no limit. Needs ONNX Runtime.
   */
  double max_quality_loss;
  /**
   * Dynamic and weight-only: maximum size of the result in bytes. The number of bits of each weight is chosen, from
   * `bits` up, so that the size is met. 0 means no limit. Needs ONNX Runtime.
   */
  uint64_t target_size;
  /**
   * Array of `calibration_tensor_count` names of the inputs for which `calibration_tensors` are the calibration
   * data, instead of a text.
   */
  const char *const *calibration_names;
  /**
   * Array of `calibration_tensor_count` tensors, whose first dimension counts samples. A run uses as many samples
   * as the model requires, otherwise 8. If a tensor has one dimension more than its input, each run uses one of
   * its slices along the first dimension.
   */
  const optimize_tensor_t *const *calibration_tensors;
  /**
   * Number of inputs in `calibration_names` and `calibration_tensors`.
   */
  uint64_t calibration_tensor_count;
} optimize_quantize_options_t;

/**
 * Options of `optimize_model_prune`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_prune_options_t {
  /**
   * sizeof(optimize_prune_options_t).
   */
  uint32_t struct_size;
  /**
   * Pruning method, an optimize_prune_method_t.
   */
  int32_t method;
  /**
   * Share of the elements of each weight to set to zero, or of the units of each group to remove: less than 1. 0
   * selects the share of the pattern, if there is one, and otherwise 0.5; if structured pruning removes layers
   * (`drop_layers`, `layers`), 0 prunes nothing else.
   */
  double sparsity;
  /**
   * Maximum number of nonzero weights in each `pattern_of` consecutive weights along the inputs of a matrix product:
   * 2 and 4 for the pattern 2:4. If both fields are 0, there is no pattern. Structured pruning accepts none.
   */
  uint32_t pattern_keep;
  /**
   * Length of the pattern, at most 64; see `pattern_keep`.
   */
  uint32_t pattern_of;
  /**
   * Magnitude and random: a value other than 0 uses one threshold for all weights instead of one per weight. Weights
   * with an override keep their own threshold.
   */
  uint32_t global;
  /**
   * A value other than 0 also prunes embedding tables, and output layers that share such a table.
   */
  uint32_t embeddings;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Structured: criterion by which the units are ranked, an optimize_importance_t.
   */
  int32_t importance;
  /**
   * Structured: the remaining sizes are multiples of this number. 0 selects a number by the size of a group of
   * units: for the channels of 2-D convolutions 16 for 32 channels or more, and 8 for 16 or more; for other units 16
   * for 256 or more, and 8 for 64 or more; otherwise 1.
   */
  uint32_t round_to;
  /**
   * Structured: a value other than 0 fits the weights that read the remaining units, to reproduce their original
   * outputs on the calibration data.
   */
  uint32_t reconstruct;
  /**
   * Structured: number of layers to remove: the least influential layers on the calibration data; without data,
   * evenly spaced layers, in the second half of the model if it has enough. If `sparsity` is 0, nothing else is
   * pruned.
   */
  uint32_t drop_layers;
  /**
   * Number of windows of the calibration text; 0 selects 16, or 64 with `reconstruct`.
   */
  uint32_t calibration_windows;
  /**
   * Number of tokens per window; 0 selects 512, or the limit of the model if it is less.
   */
  uint32_t calibration_length;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Seed of random choices. The default is 0.
   */
  uint64_t seed;
  /**
   * Minimum number of elements of a weight to prune; 0 selects 1024.
   */
  uint64_t min_elements;
  /**
   * Array of `target_module_count` names or globs of modules, weights or nodes ("query", "mlp.fc1",
   * "layer.*.mlp.*"). Each must match a name, or consecutive parts of a name between dots or slashes. NULL selects
   * all weights of MatMul, FusedMatMul, Gemm, Conv, ConvTranspose and Attention (com.microsoft); weights of LSTM,
   * GRU and RNN must be named. An embedding table that is named without a wildcard is pruned without `embeddings`,
   * too. Structured pruning removes outputs of these modules, or inputs if outputs cannot be removed.
   */
  const char *const *target_modules;
  /**
   * Number of names in `target_modules`.
   */
  uint64_t target_module_count;
  /**
   * Array of `exclude_count` names or globs of modules to leave unchanged; it takes precedence over
   * `target_modules`.
   */
  const char *const *exclude;
  /**
   * Number of names in `exclude`.
   */
  uint64_t exclude_count;
  /**
   * Array of `override_count` texts `GLOB=SPARSITY`, which set another sparsity (0 leaves them unchanged) for
   * matching modules; the first match counts.
   */
  const char *const *overrides;
  /**
   * Number of texts in `overrides`.
   */
  uint64_t override_count;
  /**
   * Calibration text in UTF-8 of `calibration_size` bytes, for methods that measure activations; or NULL. It needs
   * ONNX Runtime, and a model with a tokenizer; without one, the call returns OPTIMIZE_NOT_FOUND.
   */
  const char *calibration;
  /**
   * Number of bytes of `calibration`.
   */
  uint64_t calibration_size;
  /**
   * Folder of the temporary file that holds the pruned weights until they are saved; NULL selects the system's
   * temporary folder.
   */
  const char *scratch_folder;
  /**
   * Structured: array of `layer_count` indices of layers to remove, as in the names of nodes, instead of
   * `drop_layers`.
   */
  const uint32_t *layers;
  /**
   * Number of indices in `layers`.
   */
  uint64_t layer_count;
  /**
   * Structured: maximum size of the result in bytes, instead of a sparsity: as little as needed is pruned. 0 means
   * no limit.
   */
  uint64_t target_size;
  /**
   * Structured: minimum measured speed-up, at least 1, instead of a sparsity or `target_size`: as little as needed
   * is pruned. For a decoder, the speed of generating one token is measured. 0 means no limit. Needs ONNX Runtime.
   */
  double target_speedup;
  /**
   * Array of `calibration_tensor_count` names of the inputs for which `calibration_tensors` are the calibration
   * data, instead of a text.
   */
  const char *const *calibration_names;
  /**
   * Array of `calibration_tensor_count` tensors, as in optimize_quantize_options_t.
   */
  const optimize_tensor_t *const *calibration_tensors;
  /**
   * Number of inputs in `calibration_names` and `calibration_tensors`.
   */
  uint64_t calibration_tensor_count;
} optimize_prune_options_t;

/**
 * A training step or a validation, as the training callback receives it.
 */
typedef struct optimize_training_step_t {
  /**
   * Size of the struct in this version of the library.
   */
  uint32_t struct_size;
  /**
   * 1 for a validation on held-out text, 0 for a training step.
   */
  uint32_t is_validation;
  /**
   * Index of the epoch, from 0.
   */
  uint32_t epoch;
  /**
   * Number of planned epochs.
   */
  uint32_t total_epochs;
  /**
   * Number of completed steps.
   */
  uint64_t step;
  /**
   * Number of planned steps; a time limit can end training earlier.
   */
  uint64_t total_steps;
  /**
   * Training loss of this step, or loss of this validation.
   */
  double loss;
  /**
   * Norm of all gradients together before clipping; 0 for a validation.
   */
  double gradient_norm;
  /**
   * Learning rate of this step; 0 for a validation.
   */
  double learning_rate;
  /**
   * Number of tokens per second in this step; 0 for a validation.
   */
  double tokens_per_second;
  /**
   * Seconds of training, including the time before a resume.
   */
  double seconds;
  /**
   * Estimated number of remaining seconds; 0 for a validation.
   */
  double seconds_left;
} optimize_training_step_t;

/**
 * Training callback. It is called on the thread that made the call, after each step and each validation. `step` is
 * valid during the callback. A return value other than 0 cancels the training, which then writes its checkpoint if
 * `checkpoint` is set. The callback must not throw or use longjmp.
 */
typedef int32_t (*optimize_training_fn)(void *user_data,
                                        const optimize_training_step_t *step);

/**
 * Options of `optimize_model_distill`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_distill_options_t {
  /**
   * sizeof(optimize_distill_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of passes over the text; 0 selects 3.
   */
  uint32_t epochs;
  /**
   * A value other than 0 reads each line of the text as a JSON object `{"text": "..."}` with a separate text.
   */
  uint32_t json_lines;
  /**
   * Number of rows per run: blocks of tokens for models that generate text, lines for others; 0 selects 4.
   */
  uint32_t batch_size;
  /**
   * Number of tokens per block; lines are truncated to this length. 0 selects 128, or the limit of the models if
   * it is less.
   */
  uint32_t sequence_length;
  /**
   * Number of runs whose gradients are accumulated into one step; 0 selects 1.
   */
  uint32_t gradient_accumulation_steps;
  /**
   * Learning rate after the warm-up; 0 selects 5e-5.
   */
  double learning_rate;
  /**
   * Temperature of both distributions; 0 selects 2.
   */
  double temperature;
  /**
   * Divergence of the distributions, an optimize_divergence_t.
   */
  int32_t divergence;
  /**
   * Decay of the learning rate, an optimize_schedule_t.
   */
  int32_t schedule;
  /**
   * Weight of the divergence of logits in the loss; 0 selects 1 if both models have logits, and otherwise disables
   * this part; a negative value always disables it.
   */
  double logits_weight;
  /**
   * Weight of the cross-entropy with the tokens of the text, or for classifiers with the classes (`"label"` of JSON
   * lines); 0 or a negative value disables it.
   */
  double labels_weight;
  /**
   * Weight of the mean squared difference of hidden states; 0 selects 1 if a model has no logits, and otherwise
   * disables this part; a negative value always disables it.
   */
  double hidden_weight;
  /**
   * Weight of 1 - cosine of hidden states; 0 selects 1 if a model has no logits, and otherwise disables this part; a
   * negative value always disables it.
   */
  double cosine_weight;
  /**
   * Weight of the divergence of self-attention relations (queries, keys, values) in the last layer; 0 or a negative
   * value disables it.
   */
  double relations_weight;
  /**
   * Share of the steps in which the learning rate warms up; 0 selects 0.05, a negative value disables the warm-up.
   */
  double warmup_ratio;
  /**
   * Weight decay of the weights with more than one dimension; 0 selects 0.01, a negative value disables it.
   */
  double weight_decay;
  /**
   * Maximum norm of the gradients; 0 selects 1, a negative value disables clipping.
   */
  double max_grad_norm;
  /**
   * Share of the text that is held out for validation, above 0 and at most 0.5; 0 selects 0.05.
   */
  double validation_ratio;
  /**
   * Maximum training time in seconds; 0 means no limit.
   */
  double time_limit;
  /**
   * Maximum number of steps; 0 means no limit.
   */
  uint64_t max_steps;
  /**
   * Number of steps between validations; 0 selects ten validations during the training.
   */
  uint64_t evaluate_every;
  /**
   * Number of steps between checkpoints; 0 selects an interval of ten minutes.
   */
  uint64_t checkpoint_every;
  /**
   * Seed of the order in which the text is read, and of random initial values.
   */
  uint64_t seed;
  /**
   * Array of `freeze_count` names or globs of modules or weights to keep unchanged.
   */
  const char *const *freeze;
  /**
   * Number of names in `freeze`.
   */
  uint64_t freeze_count;
  /**
   * Layers of the teacher that form the student, if `student` is NULL: "layers:every-other", or a number of layers
   * such as "layers:6". NULL if there is a `student`.
   */
  const char *student_layers;
  /**
   * Path of the checkpoint file, from which stopped training can continue; NULL disables checkpoints. The file is
   * removed when the training is complete.
   */
  const char *checkpoint;
  /**
   * A value other than 0 continues from the checkpoint, if it exists; this requires `checkpoint`. With 0, an
   * existing checkpoint is an error.
   */
  uint32_t resume;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Training callback, or NULL.
   */
  optimize_training_fn training;
  /**
   * User data passed to `training`.
   */
  void *training_user_data;
  /**
   * Path of a file that caches the teacher's outputs, so that the teacher runs only once on each part of the text;
   * NULL disables the cache. The file is kept for other calls with the same teacher and text; a file that is not
   * such a cache, or of another teacher, text, loss or `teacher_top_k`, returns OPTIMIZE_INVALID_ARGUMENT.
   */
  const char *teacher_cache;
  /**
   * Number of most probable tokens or classes to cache for each distribution; all others are treated as equally
   * probable. 0 selects 64.
   */
  uint64_t teacher_top_k;
  /**
   * Execution provider of teacher and student, an optimize_provider_t. OPTIMIZE_PROVIDER_AUTO selects CUDA if it is
   * available, otherwise the CPU; OPTIMIZE_PROVIDER_TENSORRT returns OPTIMIZE_UNSUPPORTED.
   */
  int32_t provider;
  /**
   * Index of the device, from 0; 0 for the CPU.
   */
  uint32_t device_id;
} optimize_distill_options_t;

/**
 * Options of `optimize_ensemble_new`. Fields that are 0 or NULL have their defaults: the mean with equal weights.
 */
typedef struct optimize_ensemble_options_t {
  /**
   * sizeof(optimize_ensemble_options_t).
   */
  uint32_t struct_size;
  /**
   * Combination method, an optimize_ensemble_method_t.
   */
  int32_t method;
  /**
   * Task of the members, an optimize_ensemble_task_t.
   */
  int32_t task;
  /**
   * A value other than 0 uses the first member's distribution where all members rank the same token first.
   */
  uint32_t gate;
  /**
   * A value other than 0 allows members with different vocabularies, whose tokens are matched by their text.
   */
  uint32_t allow_different_vocabularies;
  /**
   * Rerank: number of texts per member; 0 selects 1. A number above 1 needs a sampling temperature above 0.
   */
  uint32_t candidates;
  /**
   * Rerank: power, up to 10, of the number of tokens by which the log-probability of a text is divided; 0 selects 1,
   * a negative value disables the division.
   */
  double length_penalty;
  /**
   * Array of `weight_count` weights (0 or more, normalized), not with max, median or contrastive; NULL: equal ones.
   */
  const double *weights;
  /**
   * Number of elements in `weights`.
   */
  uint64_t weight_count;
  /**
   * Array of `temperature_count` temperatures from 0.001, one per member, which divide its logits. NULL selects 1.
   */
  const double *temperatures;
  /**
   * Number of elements in `temperatures`.
   */
  uint64_t temperature_count;
} optimize_ensemble_options_t;

/**
 * Options of `optimize_ensemble_fit`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_fit_options_t {
  /**
   * sizeof(optimize_fit_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Number of tokens per window; 0 selects the limit of the members, up to 512.
   */
  uint32_t context_length;
  /**
   * Number of tokens between the starts of two windows; 0 selects half of the context length.
   */
  uint32_t stride;
  /**
   * Number of tokens of the text to read; 0 selects 8192.
   */
  uint64_t max_tokens;
} optimize_fit_options_t;

/**
 * Options of `optimize_model_merge`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_merge_options_t {
  /**
   * sizeof(optimize_merge_options_t).
   */
  uint32_t struct_size;
  /**
   * Merge method, an optimize_merge_method_t.
   */
  int32_t method;
  /**
   * Array of `weight_count` non-negative weights, one per model; their sum is normalized to 1. NULL selects equal
   * weights.
   */
  const double *weights;
  /**
   * Number of elements in `weights`.
   */
  uint64_t weight_count;
  /**
   * Ties: the base model, from which the models were trained; required for this method, NULL for the others.
   */
  const optimize_model_t *base;
  /**
   * Ties: share of each model's changes to keep, in (0, 1]; 0 selects 0.2.
   */
  double density;
  /**
   * Ties: scale of the mean change; 0 selects 1.
   */
  double scale;
  /**
   * Folder of the temporary file with the merged weights; NULL selects the system's temporary folder.
   */
  const char *scratch_folder;
} optimize_merge_options_t;

/**
 * The range of a dimension of an input, in the options of `optimize_package_compile`.
 */
typedef struct optimize_dimension_t {
  /**
   * sizeof(optimize_dimension_t).
   */
  uint32_t struct_size;
  /**
   * Index of the dimension of the input, from 0.
   */
  uint32_t dimension;
  /**
   * Name of the input, or its position among the inputs as text, such as "0".
   */
  const char *input;
  /**
   * Name of the dimension. Dimensions with the same name have the same range, and the same size in each run.
   */
  const char *name;
  /**
   * Minimum size of the dimension.
   */
  uint64_t min;
  /**
   * Maximum size of the dimension; 0 means no limit.
   */
  uint64_t max;
} optimize_dimension_t;

/**
 * Options of `optimize_package_compile`. Fields that are 0 or NULL have their defaults: the model as it is, with fixed
 * input sizes, in a folder.
 */
typedef struct optimize_package_compile_options_t {
  /**
   * sizeof(optimize_package_compile_options_t).
   */
  uint32_t struct_size;
  /**
   * A value other than 0 gives a range to every dynamic dimension of the model; the first dimension of an input is
   * the batch. The dynamic dimensions of decoders have ranges in any case.
   */
  uint32_t dynamic;
  /**
   * Minimum batch size, with `dynamic`; 0 selects 1.
   */
  uint64_t batch_min;
  /**
   * Maximum batch size, with `dynamic`; 0 selects 64.
   */
  uint64_t batch_max;
  /**
   * Ranges of dimensions as JSON, {input: {dimension: {"name", "min", "max"}}}, where an input is a name or a
   * position, and a dimension an index; or NULL.
   */
  const char *dynamic_shapes;
  /**
   * Comma-separated precisions of the variants, in order of preference: "fp32" (the model as it is), "bf16" (the
   * model as it is, with matrix products in bfloat16 on this library's kernels), "int8" (dynamic quantization),
   * "int4" (weight-only quantization). NULL selects "fp32".
   */
  const char *variants;
  /**
   * Licence of the model, which is stored in the manifest; or NULL.
   */
  const char *licence;
  /**
   * Secret ed25519 key that signs the package, as 64 hexadecimal digits; or NULL.
   */
  const char *sign_key;
  /**
   * A value other than 0 writes one file instead of a folder, without graphs compiled for this library's kernels.
   */
  uint32_t single_file;
  /**
   * A value other than 0 leaves out graphs that are optimized for this processor.
   */
  uint32_t portable_only;
  /**
   * A value other than 0 stores the weights packed, so that a zero takes one bit. Each variant then has its own
   * weights, no graph is optimized for this processor, and opening the package unpacks the weights into an unlinked
   * file.
   */
  uint32_t packed;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Array of `dimension_count` ranges of dimensions, or NULL. A dimension must not have ranges both here and in
   * `dynamic_shapes`.
   */
  const optimize_dimension_t *dimensions;
  /**
   * Number of ranges in `dimensions`.
   */
  uint64_t dimension_count;
  /**
   * Path of a TensorRT engine of the model, with its manifest next to it, which is added as a variant; or NULL.
   */
  const char *engine;
  /**
   * Array of `lineage_count` reports in JSON of the steps that led to the model, oldest first, which the package
   * keeps; or NULL.
   */
  const char *const *lineage;
  /**
   * Number of reports in `lineage`.
   */
  uint64_t lineage_count;
} optimize_package_compile_options_t;

/**
 * Options of `optimize_package_open`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_package_open_options_t {
  /**
   * sizeof(optimize_package_open_options_t).
   */
  uint32_t struct_size;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Name or precision of the variant to use; NULL selects a variant by processor and execution provider.
   */
  const char *variant;
  /**
   * Public ed25519 key that must have signed the package, as 64 hexadecimal digits; or NULL.
   */
  const char *public_key;
} optimize_package_open_options_t;

/**
 * Options of `optimize_tensorrt_open`. Fields that are 0 or NULL have their defaults. With `trust` 0, every engine
 * is refused with OPTIMIZE_UNTRUSTED.
 */
typedef struct optimize_tensorrt_open_options_t {
  /**
   * sizeof(optimize_tensorrt_open_options_t).
   */
  uint32_t struct_size;
  /**
   * A value other than 0 states that you trust the source of the engine, which contains code that TensorRT runs.
   */
  uint32_t trust;
  /**
   * Index of the device, from 0.
   */
  uint32_t device_id;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * SHA-256 of the model from which the engine must have been built, as 64 hexadecimal digits (`input.sha256` of
   * reports); or NULL.
   */
  const char *model_sha256;
  /**
   * Folder of TensorRT's libraries. NULL selects the folder in the environment variable OPTIMIZE_TENSORRT_PATH, or
   * else searches for the libraries.
   */
  const char *library;
} optimize_tensorrt_open_options_t;

/**
 * Size callback of a source. It writes the size of the file `name` in bytes to `size` and returns OPTIMIZE_OK, or
 * returns OPTIMIZE_NOT_FOUND if there is no such file. The value OPTIMIZE_CANCELLED ends the call of the library with
 * this status; any other value ends it with OPTIMIZE_IO.
 */
typedef int32_t (*optimize_size_fn)(void *user_data,
                                    const char *name,
                                    uint64_t *size);

/**
 * Read callback of a source. It copies the `size` bytes of the file `name` that begin at `offset` to `buffer`, and
 * returns OPTIMIZE_OK. The value OPTIMIZE_CANCELLED ends the call of the library with this status; any other value
 * ends it with OPTIMIZE_IO. The bytes lie inside the size that the size callback returned; `size` is at most 4 MiB.
 */
typedef int32_t (*optimize_read_fn)(void *user_data,
                                    const char *name,
                                    uint64_t offset,
                                    void *buffer,
                                    size_t size);

/**
 * A source: the files of a model, which the program provides by callbacks, for example decrypted or from an archive.
 * Both callbacks are required. They are called only during the call of the library to which the source is passed, on
 * the thread that made this call. A name is a relative path with '/'; the program chooses to which folder it is
 * relative. Names from model files that are absolute or contain ".." are refused before a callback is called.
 */
typedef struct optimize_source_t {
  /**
   * sizeof(optimize_source_t).
   */
  uint32_t struct_size;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Size callback.
   */
  optimize_size_fn size;
  /**
   * Read callback.
   */
  optimize_read_fn read;
  /**
   * User data passed to the callbacks.
   */
  void *user_data;
} optimize_source_t;

/**
 * Write callback of a sink. It takes the next `size` bytes of the file `name`, at most 4 MiB, and returns OPTIMIZE_OK.
 * The bytes at `data` are valid during the callback. Files come one after another. After the last bytes of a file, the
 * callback is called once with NULL as `data` and 0 as `size`. The value OPTIMIZE_CANCELLED ends the call of the
 * library with this status; any other value but OPTIMIZE_OK ends it with OPTIMIZE_IO. The files are then not complete.
 */
typedef int32_t (*optimize_write_fn)(void *user_data,
                                     const char *name,
                                     const void *data,
                                     size_t size);

/**
 * A sink, which receives the files of a model, for example to encrypt or upload them. The callback is required. It is
 * called only during the call of the library to which the sink is passed, on the thread that made this call.
 */
typedef struct optimize_sink_t {
  /**
   * sizeof(optimize_sink_t).
   */
  uint32_t struct_size;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Write callback.
   */
  optimize_write_fn write;
  /**
   * User data passed to the callback.
   */
  void *user_data;
} optimize_sink_t;

/**
 * Options of `optimize_model_build_tensorrt`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_tensorrt_options_t {
  /**
   * sizeof(optimize_tensorrt_options_t).
   */
  uint32_t struct_size;
  /**
   * Precision of the engine, an optimize_precision_t.
   */
  int32_t precision;
  /**
   * Library that builds the engine, an optimize_tensorrt_backend_t.
   */
  int32_t backend;
  /**
   * Builder optimization level plus 1: 1 to 6 for TensorRT's levels 0 to 5; 0 selects TensorRT's default.
   */
  uint32_t optimization_level;
  /**
   * Batch size, if it is dynamic in the model. 0 leaves it to the profiles.
   */
  uint64_t batch_size;
  /**
   * Sequence length, if it is dynamic in the model. 0 leaves it to the profiles.
   */
  uint64_t sequence_length;
  /**
   * Minimum, optimal and maximum sizes by the name of the dimension, or by "batch", "sequence" and "past", such as
   * "batch=1:8:32,sequence=128"; or NULL.
   */
  const char *dimensions;
  /**
   * Minimum shapes of inputs, such as "ids:1x16,mask:1x16". NULL selects the optimal shapes.
   */
  const char *min_shapes;
  /**
   * Optimal shapes of inputs, for which TensorRT tunes the engine. NULL selects the maximum shapes, or else the
   * minimum shapes.
   */
  const char *opt_shapes;
  /**
   * Maximum shapes of inputs. NULL selects the optimal shapes. If all three are NULL, the sizes are those of
   * `profiles`, `dimensions`, `batch_size` and `sequence_length`, and of the contract of a package.
   */
  const char *max_shapes;
  /**
   * Several profiles as JSON, instead of single shapes: [{"ids": {"min": [1, 16], "opt": [1, 64], "max": [1,
   * 128]}}]; or NULL.
   */
  const char *profiles;
  /**
   * Folder of TensorRT's libraries. NULL selects the folder in the environment variable OPTIMIZE_TENSORRT_PATH, or
   * else searches for the libraries.
   */
  const char *library;
  /**
   * Path of TensorRT's timing cache, which is read if it exists, and updated; NULL uses no cache.
   */
  const char *timing_cache;
  /**
   * Maximum device memory for TensorRT's workspace in bytes; 0 means no limit.
   */
  uint64_t workspace;
  /**
   * Maximum error of an output relative to fp32, measured on a sample. As many nodes stay fp32 as are needed to meet
   * it. 0 selects 0.01 for fp16, 0.08 for bf16 and 0.15 for int8 and fp8.
   */
  double max_error;
  /**
   * TensorRT-RTX: array of `compute_capability_count` compute capabilities for which to build, such as 89 for 8.9;
   * NULL selects all.
   */
  const int32_t *compute_capabilities;
  /**
   * Number of elements in `compute_capabilities`.
   */
  uint64_t compute_capability_count;
  /**
   * A value other than 0 builds an engine that also runs with later versions of TensorRT.
   */
  uint32_t version_compatible;
  /**
   * TensorRT: a value other than 0 builds an engine that runs on all devices from Ampere on.
   */
  uint32_t hardware_compatible;
  /**
   * A value other than 0 strips the weights from the engine. A program must add them with TensorRT's refitter before
   * the engine runs, which this library does not do.
   */
  uint32_t strip;
  /**
   * A value other than 0 allows programs to replace the weights later with TensorRT's refitter. It cannot be
   * combined with `strip`.
   */
  uint32_t refit;
  /**
   * A value other than 0 allows TensorRT to use weights with a 2:4 pattern of zeros as sparse weights.
   */
  uint32_t sparsity;
  /**
   * A value other than 0 keeps detailed information on layers, for profilers.
   */
  uint32_t detailed;
  /**
   * A value other than 0 disables TensorFloat-32.
   */
  uint32_t no_tf32;
  /**
   * A value other than 0 builds the engine even if the existing one matches the options.
   */
  uint32_t force;
  /**
   * A value other than 0 returns OPTIMIZE_MISMATCH if the existing engine does not match, instead of replacing it.
   */
  uint32_t refuse_mismatch;
  /**
   * Number of threads of the measurements; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * int8 and fp8: path of the calibration data that determines the scales: a text, or tensors for the inputs
   * (X.safetensors). NULL selects built-in sentences or generated numbers.
   */
  const char *calibration;
  /**
   * Array of `keep_fp32_count` names of nodes, or of operators, that stay fp32.
   */
  const char *const *keep_fp32;
  /**
   * Number of names in `keep_fp32`.
   */
  uint64_t keep_fp32_count;
  /**
   * A value other than 0 builds no engine: the graph for it, with its precisions, is written to `path` as an .onnx
   * file. Neither TensorRT nor a device is needed.
   */
  uint32_t graph_only;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} optimize_tensorrt_options_t;

/**
 * Options of `optimize_model_apply`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_apply_options_t {
  /**
   * sizeof(optimize_apply_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Text in UTF-8 of `data_size` bytes for steps whose data or calibration data is `true` in the recipe; or NULL.
   */
  const char *data;
  /**
   * Number of bytes of `data`.
   */
  uint64_t data_size;
} optimize_apply_options_t;

/**
 * Options of `optimize_model_benchmark`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_benchmark_options_t {
  /**
   * sizeof(optimize_benchmark_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of timed rounds; 0 selects 50.
   */
  uint32_t runs;
  /**
   * Number of warm-up rounds before the timed ones; 0 selects 5.
   */
  uint32_t warmup;
  /**
   * Number of threads; 0 uses that of the context. If the number is 1 and the sessions run on the CPU, processor
   * time is measured, otherwise wall-clock time.
   */
  uint32_t threads;
  /**
   * Batch size of the timed input; 0 selects 1.
   */
  uint32_t batch_size;
  /**
   * Number of tokens of each row of the timed input; longer texts are truncated. 0 selects the length of `texts`,
   * up to 512, or 128 for built-in texts and generated inputs.
   */
  uint32_t sequence_length;
  /**
   * Time limit of the timed rounds in milliseconds; 0 selects 30000. At least 5 rounds are timed, or `runs` if that
   * is less.
   */
  uint32_t max_milliseconds;
  /**
   * Seed of the generated inputs and of the bootstrap. The default is 0.
   */
  uint32_t seed;
  /**
   * Array of `text_count` texts on which the models are compared; NULL selects built-in sentences. Texts need a
   * tokenizer.
   */
  const char *const *texts;
  /**
   * Number of texts in `texts`.
   */
  uint64_t text_count;
  /**
   * Array of `shape_count` shapes of generated inputs, each "NAME:2x3x4", for inputs with dynamic dimensions.
   */
  const char *const *shapes;
  /**
   * Number of shapes in `shapes`.
   */
  uint64_t shape_count;
  /**
   * Array of `value_count` values of generated inputs, for inputs that cannot be random numbers. Each is
   * "NAME:1,2,3", with one number for each element, or "NAME:1", with one number for all elements.
   */
  const char *const *values;
  /**
   * Number of values in `values`.
   */
  uint64_t value_count;
  /**
   * Execution provider of the sessions, an optimize_provider_t.
   */
  int32_t provider;
  /**
   * Index of the device, from 0; 0 for the CPU.
   */
  uint32_t device_id;
  /**
   * TensorRT: absolute path of a folder that caches engines; NULL disables the cache.
   */
  const char *engine_cache;
  /**
   * A value other than 0 states that you trust the source of the models. Engines inside a model (EPContext) contain
   * executable code; with 0, such a model returns OPTIMIZE_UNTRUSTED on a device.
   */
  uint32_t trust_engines;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Array of `input_count` names of the inputs for which `input_tensors` are used, instead of texts and generated
   * inputs.
   */
  const char *const *input_names;
  /**
   * Array of `input_count` tensors, whose first dimension counts samples. A run uses `batch_size` samples, or as
   * many as the model requires. If a tensor has one dimension more than its input, each run uses one of its slices
   * along the first dimension.
   */
  const optimize_tensor_t *const *input_tensors;
  /**
   * Number of inputs in `input_names` and `input_tensors`.
   */
  uint64_t input_count;
  /**
   * Kernels that run the nodes of the model on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * Precision of matrix products with constant float32 weights on the CPU, an optimize_session_precision_t. Any
   * value but OPTIMIZE_SESSION_PRECISION_FP32 needs this library's kernels, and returns OPTIMIZE_BACKEND_MISSING if
   * they cannot be used.
   */
  int32_t precision;
} optimize_benchmark_options_t;

/**
 * Options of `optimize_model_evaluate`. Fields that are 0 or NULL have their defaults. Fields that do not apply to
 * the task are ignored.
 */
typedef struct optimize_evaluate_options_t {
  /**
   * sizeof(optimize_evaluate_options_t).
   */
  uint32_t struct_size;
  /**
   * Evaluation task, an optimize_evaluate_task_t.
   */
  int32_t task;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Perplexity: number of tokens per window; 0 selects the limit of the model, up to 512.
   */
  uint32_t context_length;
  /**
   * Perplexity: number of tokens between the starts of two windows; 0 selects half of the context length. A
   * smaller stride takes longer and usually gives a lower, more accurate perplexity.
   */
  uint32_t stride;
  /**
   * Perplexity: position of the beginning-of-sequence token, an optimize_bos_t.
   */
  int32_t bos;
  /**
   * Other tasks: number of tokens after which a text is truncated; 0 selects the limit for texts in the model's
   * files, otherwise the number of positions of the model, up to 512.
   */
  uint32_t max_length;
  /**
   * Other tasks: number of texts per run; 0 selects 1, with which the result of a text does not depend on other
   * texts.
   */
  uint32_t batch_size;
  /**
   * Perplexity: maximum number of tokens of the text to use; 0 selects all.
   */
  uint64_t max_tokens;
  /**
   * Other tasks: maximum number of lines or rows to use; 0 selects all.
   */
  uint64_t max_texts;
  /**
   * Probe: seed of the split into training set and test set.
   */
  uint64_t seed;
  /**
   * Probe: share of the texts of each class in the test set, below 1; 0 selects 0.2.
   */
  double test_share;
  /**
   * Probe: L2 penalty on the weights of the linear classifier; 0 selects 0.5, a negative value disables the penalty.
   */
  double penalty;
  /**
   * Execution provider of the sessions, an optimize_provider_t.
   */
  int32_t provider;
  /**
   * Index of the device, from 0; 0 for the CPU.
   */
  uint32_t device_id;
  /**
   * TensorRT: absolute path of a folder that caches engines; NULL disables the cache.
   */
  const char *engine_cache;
  /**
   * Kernels that run the nodes of the model on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * Precision of matrix products with constant float32 weights on the CPU, an optimize_session_precision_t. Any
   * value but OPTIMIZE_SESSION_PRECISION_FP32 needs this library's kernels, and returns OPTIMIZE_BACKEND_MISSING if
   * they cannot be used.
   */
  int32_t precision;
} optimize_evaluate_options_t;

/**
 * Options of `optimize_models_table`. Fields that are 0 or NULL have their defaults.
 */
typedef struct optimize_table_options_t {
  /**
   * sizeof(optimize_table_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of threads of sessions and techniques; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Maximum number of timed rounds in each of the three repetitions of a measurement, which use new sessions; 0
   * selects 15.
   */
  uint32_t runs;
  /**
   * Time limit in milliseconds for the rounds of a repetition with one size of the input, after at least three
   * rounds; 0 selects 4000.
   */
  uint32_t max_milliseconds;
  /**
   * Time limit of each training in milliseconds; 0 selects 120000.
   */
  uint32_t training_milliseconds;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Text in UTF-8 of `data_size` bytes for calibration, training and quality; if its lines have a label, a tab and
   * a text, the accuracy is measured, too. NULL measures quality on built-in sentences, and skips rows that need a
   * text.
   */
  const char *data;
  /**
   * Number of bytes of `data`.
   */
  uint64_t data_size;
  /**
   * Array of `row_count` names of rows to measure, such as "int8"; docs/table.md lists them. NULL selects all.
   */
  const char *const *rows;
  /**
   * Number of names in `rows`.
   */
  uint64_t row_count;
  /**
   * Path of a second model for the row `ensemble`; NULL selects the result of the row `distill`.
   */
  const char *with;
} optimize_table_options_t;

/**
 * Action of a technique on a node. Set `struct_size` before the call. The memory of the texts belongs to the report.
 */
typedef struct optimize_node_report_t {
  /**
   * sizeof(optimize_node_report_t).
   */
  uint32_t struct_size;
  /**
   * 1 if the node was changed, otherwise 0.
   */
  uint32_t changed;
  /**
   * Name of the node, or of its first output if it has none.
   */
  const char *name;
  /**
   * Operator type of the node.
   */
  const char *op;
  /**
   * Action: "quantized", "left" ... (docs/report.md).
   */
  const char *action;
  /**
   * Reason for the action; for a changed node, a description of what it is now.
   */
  const char *reason;
  /**
   * Loss of the model if this node alone is quantized, in the measure of `max_quality_loss`; NaN if it was not
   * measured.
   */
  double sensitivity;
} optimize_node_report_t;

/**
 * Results of a benchmark. Set `struct_size` before the call. The memory of `verdict` belongs to the report. A number
 * that was not measured, or does not apply to the models, is NaN, or 0 for bytes.
 */
typedef struct optimize_benchmark_t {
  /**
   * sizeof(optimize_benchmark_t).
   */
  uint32_t struct_size;
  /**
   * Number of timed rounds; both models ran once in each.
   */
  uint32_t runs;
  /**
   * Verdict on the speed of the result: "no difference" if the 95 % interval of the speedup contains 1, otherwise
   * "faster" or "slower".
   */
  const char *verdict;
  /**
   * Median over the rounds of the time of the original divided by that of the result.
   */
  double speedup;
  /**
   * Lower end of the 95 % interval of the speedup.
   */
  double speedup_low;
  /**
   * Upper end of the 95 % interval of the speedup.
   */
  double speedup_high;
  /**
   * Median latency of the original in milliseconds.
   */
  double original_ms;
  /**
   * Median latency of the result in milliseconds.
   */
  double result_ms;
  /**
   * 90th percentile of the original's latency in milliseconds.
   */
  double original_p90_ms;
  /**
   * 90th percentile of the result's latency in milliseconds.
   */
  double result_p90_ms;
  /**
   * Time to create a session of the original in milliseconds, the shorter of two measurements.
   */
  double original_load_ms;
  /**
   * Time to create a session of the result in milliseconds, the shorter of two measurements.
   */
  double result_load_ms;
  /**
   * Growth of the process's resident memory by the original, in bytes.
   */
  uint64_t original_resident_bytes;
  /**
   * Growth of the process's resident memory by the result, in bytes.
   */
  uint64_t result_resident_bytes;
  /**
   * Size of the original on disk in bytes.
   */
  uint64_t original_bytes;
  /**
   * Size of the result on disk in bytes.
   */
  uint64_t result_bytes;
  /**
   * Mean cosine of the outputs of both models; the lowest of the judged outputs (docs/report.md) if there are
   * several.
   */
  double cosine;
  /**
   * Largest absolute difference of the judged outputs of both models.
   */
  double max_abs_error;
  /**
   * Share of the rows of the outputs whose largest element has the same index in both models; the lowest of the
   * judged outputs.
   */
  double top1_agreement;
  /**
   * Mean Kullback-Leibler divergence in nats, for outputs that are logits; the largest of the judged outputs.
   */
  double kl;
} optimize_benchmark_t;

/**
 * The text that a generator generated in one of its rows. Set `struct_size` before the call. The memory of the
 * pointers belongs to the report.
 */
typedef struct optimize_generation_t {
  /**
   * sizeof(optimize_generation_t).
   */
  uint32_t struct_size;
  /**
   * Finish reason of the text, an optimize_finish_reason_t.
   */
  int32_t finish_reason;
  /**
   * Text of the row: `text_size` bytes of UTF-8 followed by a NUL, without stop string and special tokens.
   */
  const char *text;
  /**
   * Number of bytes in `text`.
   */
  uint64_t text_size;
  /**
   * Array of `token_count` ids of the generated tokens; NULL if there are none.
   */
  const int64_t *tokens;
  /**
   * Array of `token_count` log-probabilities of the generated tokens; NULL if they were not requested or there are
   * no tokens.
   */
  const float *logprobs;
  /**
   * Number of generated tokens.
   */
  uint64_t token_count;
  /**
   * Number of tokens in the row before the generated ones: those of the prompt and of earlier runs.
   */
  uint64_t prompt_tokens;
  /**
   * Ensembles: mean over the tokens of the entropy of the combined distribution, in nats; otherwise NaN.
   */
  double entropy;
  /**
   * Ensembles: mean over the tokens of the part of the entropy that comes from disagreement between the members, in
   * nats; otherwise NaN.
   */
  double mutual_information;
  /**
   * Ensembles: mean over the tokens of the sum of the weights of the members that rank the token first; otherwise
   * NaN.
   */
  double agreement;
  /**
   * With a draft: number of runs of the model, of which the first one reads the prompt; otherwise 0.
   */
  uint64_t steps;
  /**
   * Number of drafted tokens that the model verified; 0 without a draft.
   */
  uint64_t drafted;
  /**
   * Number of drafted tokens that were accepted; 0 without a draft.
   */
  uint64_t accepted;
  /**
   * Fraction of the drafted tokens that were accepted; NaN if none were drafted.
   */
  double acceptance;
} optimize_generation_t;

/**
 * A token that the model could have generated at a position, with its log-probability.
 */
typedef struct optimize_candidate_t {
  /**
   * sizeof(optimize_candidate_t).
   */
  uint32_t struct_size;
  /**
   * Log-probability of the token.
   */
  float logprob;
  /**
   * Id of the token.
   */
  int64_t token;
} optimize_candidate_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Returns the version of the library, for example "0.1.0". The string is static.
 */
OPTIMIZE_API
const char *optimize_version(void);

/**
 * Returns the version of the library as a number that can be compared with OPTIMIZE_VERSION of the header: major *
 * 10000 + minor * 100 + patch.
 */
OPTIMIZE_API
uint32_t optimize_version_number(void);

/**
 * Returns the name of a status, for example "invalid_model", or "unknown" if there is no such status. The string is
 * static.
 */
OPTIMIZE_API
const char *optimize_status_name(int32_t status);

/**
 * Returns the status of an error, or OPTIMIZE_INVALID_HANDLE if `error` is NULL or a handle of another type.
 */
OPTIMIZE_API
optimize_status_t optimize_error_status(const optimize_error_t *error);

/**
 * Returns the message of an error in UTF-8, or "" if `error` is NULL. The message says what is wrong, usually in one
 * sentence; if it lists the places where a library was searched for, it has several lines. The string is valid until
 * the error is freed.
 */
OPTIMIZE_API
const char *optimize_error_message(const optimize_error_t *error);

/**
 * Returns the place where the error occurred: for example file, node, tensor or argument, outermost first. Returns ""
 * if `error` is NULL, or if there is no place or the message contains it. The string is valid until the error is
 * freed.
 */
OPTIMIZE_API
const char *optimize_error_place(const optimize_error_t *error);

/**
 * Frees an error. NULL is allowed.
 */
OPTIMIZE_API
void optimize_error_free(optimize_error_t *error);

/**
 * Returns the bytes of a buffer, followed by a NUL, or "" if `buffer` is NULL. Text in a buffer is UTF-8. The pointer
 * is valid until the buffer is freed.
 */
OPTIMIZE_API
const char *optimize_buffer_data(const optimize_buffer_t *buffer);

/**
 * Returns the number of bytes of a buffer without the final NUL, or 0 if `buffer` is NULL.
 */
OPTIMIZE_API
size_t optimize_buffer_size(const optimize_buffer_t *buffer);

/**
 * Frees a buffer. NULL is allowed.
 */
OPTIMIZE_API
void optimize_buffer_free(optimize_buffer_t *buffer);

/**
 * Creates a cancel token. Returns only statuses that every function can return.
 */
OPTIMIZE_API
optimize_status_t optimize_cancel_new(optimize_cancel_t **cancel,
                                      optimize_error_t **error);

/**
 * Cancels all running and later calls to which this token is passed. Any thread may call this function, any number of
 * times. Returns only statuses that every function can return.
 */
OPTIMIZE_API
optimize_status_t optimize_cancel_fire(const optimize_cancel_t *cancel,
                                       optimize_error_t **error);

/**
 * Frees a cancel token. NULL is allowed.
 */
OPTIMIZE_API
void optimize_cancel_free(optimize_cancel_t *cancel);

/**
 * Creates a context. ONNX Runtime is opened when it is first needed: loading and saving, for example, do not need it,
 * and neither does quantizing without calibration data, limits or measurements of speed. Returns only statuses that
 * every function can return.
 */
OPTIMIZE_API
optimize_status_t optimize_context_new(const optimize_context_options_t *options,
                                       optimize_context_t **context,
                                       optimize_error_t **error);

/**
 * Writes the version of ONNX Runtime to `version`, for example "1.32.0". This opens ONNX Runtime if it is not open
 * yet. The string is valid until the context is freed. Returns OPTIMIZE_RUNTIME_MISSING if ONNX Runtime is not found
 * (the message lists the places that were searched); OPTIMIZE_INVALID_ARGUMENT if the process has opened ONNX Runtime
 * from another path than `runtime_library`.
 */
OPTIMIZE_API
optimize_status_t optimize_context_runtime_version(const optimize_context_t *context,
                                                   const char **version,
                                                   optimize_error_t **error);

/**
 * Writes the execution providers, best first, as JSON: a list of objects with `provider`, `device_id`, `available`
 * and, if the provider is not available, `status` and `reason`. The object of the CPU also has `kernels`: whether this
 * library's kernels can be used; if they cannot, `kernels_unused` is the reason. A provider is available if ONNX
 * Runtime contains it *and* it could be started on the device with the index `device_id`, which is ignored for the
 * CPU. Returns OPTIMIZE_RUNTIME_MISSING if ONNX Runtime is not found.
 */
OPTIMIZE_API
optimize_status_t optimize_context_providers(const optimize_context_t *context,
                                             uint32_t device_id,
                                             optimize_buffer_t **json,
                                             optimize_error_t **error);

/**
 * Writes the counters of the process. They are the same for all contexts, and are not reset. Any thread may call this
 * function.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if `counters` is NULL or its `struct_size` is not set.
 */
OPTIMIZE_API
optimize_status_t optimize_context_counters(const optimize_context_t *context,
                                            optimize_counters_t *counters,
                                            optimize_error_t **error);

/**
 * Writes the counters of the process as a text; `format` is an optimize_counters_format_t. Any thread may call this
 * function.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT for an unknown format.
 */
OPTIMIZE_API
optimize_status_t optimize_context_counters_text(const optimize_context_t *context,
                                                 int32_t format,
                                                 optimize_buffer_t **text,
                                                 optimize_error_t **error);

/**
 * Frees a context. NULL is allowed. Objects created with the context remain usable. When this function returns, no
 * thread other than possibly the calling one is in the log callback of the context, and none will call it again.
 */
OPTIMIZE_API
void optimize_context_free(optimize_context_t *context);

/**
 * Loads a model from an .onnx file, a folder that contains one (for example as model.onnx or onnx/model.onnx), a
 * Hugging Face checkpoint, a .gguf file, a package, or the manifest of an ensemble. Weights are memory-mapped and not
 * read, so that loading usually takes milliseconds for any size. Weights that must be converted, such as those of
 * packed files and block-quantized ones of GGUF files, are an exception: those larger than 1 MiB are written to an
 * unlinked file in the system's temporary folder. `optimize_model_inspect` lists unused content of the model's files
 * as `warnings`. The cancel token and the timeout of `call` are checked only before the loading begins, and no
 * progress is reported.
 *
 * Returns OPTIMIZE_INVALID_MODEL for a damaged file (the error says where); OPTIMIZE_NOT_FOUND if there is nothing at
 * `path`, or no model in the folder; OPTIMIZE_UNSUPPORTED for a format, an architecture or a type of weights that is
 * not supported.
 */
OPTIMIZE_API
optimize_status_t optimize_model_load(const optimize_context_t *context,
                                      const char *path,
                                      const optimize_call_t *call,
                                      optimize_model_t **model,
                                      optimize_error_t **error);

/**
 * Loads a model from a copy of the `size` bytes at `data`: the content of an .onnx file, a packed file, a .gguf file
 * or a package in one file. An .onnx file with external data is refused: pass its path to `optimize_model_load`, or
 * its files to `optimize_model_load_source`. Unpacked tensors of a packed file and converted tensors of a .gguf file
 * are written to an unlinked file in the system's temporary folder if they are larger than 1 MiB. The cancel token and
 * the timeout of `call` are checked only before the loading begins, and no progress is reported.
 *
 * Returns OPTIMIZE_INVALID_MODEL for a damaged model; OPTIMIZE_INVALID_ARGUMENT for a model with external data;
 * OPTIMIZE_LIMIT_EXCEEDED for an .onnx file above 2 GiB; OPTIMIZE_UNSUPPORTED for a format, an architecture or a type
 * of weights that is not supported.
 */
OPTIMIZE_API
optimize_status_t optimize_model_load_memory(const optimize_context_t *context,
                                             const void *data,
                                             size_t size,
                                             const optimize_call_t *call,
                                             optimize_model_t **model,
                                             optimize_error_t **error);

/**
 * Saves a model at `path` atomically: an existing file is replaced only when the new one is complete and on disk. The
 * same model gives the same bytes. `report` (may be NULL) receives JSON: {"files": [{"path", "bytes", "sha256"}]}.
 * Progress stage: "save", in bytes. Returns OPTIMIZE_NOT_FOUND if the folder does not exist; OPTIMIZE_IO if a file
 * cannot be written; OPTIMIZE_INVALID_ARGUMENT if `path` is a folder, or if options contradict each other.
 */
OPTIMIZE_API
optimize_status_t optimize_model_save(const optimize_model_t *model,
                                      const char *path,
                                      const optimize_save_options_t *options,
                                      const optimize_call_t *call,
                                      optimize_buffer_t **report,
                                      optimize_error_t **error);

/**
 * Writes a description of a model as JSON: among others format, inputs, outputs, operators, weights by type, and
 * warnings (see docs/report.md). The weights are not read. Returns only statuses that every function can return.
 */
OPTIMIZE_API
optimize_status_t optimize_model_inspect(const optimize_model_t *model,
                                         optimize_buffer_t **report,
                                         optimize_error_t **error);

/**
 * Returns the number of inputs that a run requires, or 0 if `model` is NULL.
 */
OPTIMIZE_API
size_t optimize_model_input_count(const optimize_model_t *model);

/**
 * Writes name, type and shape of the input at `index` to `info`. The pointers in `info` are valid until the model is
 * freed. Returns OPTIMIZE_NOT_FOUND if there is no such input.
 */
OPTIMIZE_API
optimize_status_t optimize_model_input(const optimize_model_t *model,
                                       size_t index,
                                       optimize_value_info_t *info,
                                       optimize_error_t **error);

/**
 * Returns the number of outputs, or 0 if `model` is NULL.
 */
OPTIMIZE_API
size_t optimize_model_output_count(const optimize_model_t *model);

/**
 * Writes name, type and shape of the output at `index` to `info`. The pointers in `info` are valid until the model is
 * freed. Returns OPTIMIZE_NOT_FOUND if there is no such output.
 */
OPTIMIZE_API
optimize_status_t optimize_model_output(const optimize_model_t *model,
                                        size_t index,
                                        optimize_value_info_t *info,
                                        optimize_error_t **error);

/**
 * Frees a model. NULL is allowed. Objects created from it, such as sessions, remain usable.
 */
OPTIMIZE_API
void optimize_model_free(optimize_model_t *model);

/**
 * Renders a conversation with the chat template of a model, and writes the text to `rendered`. The caller frees it.
 * `messages` is JSON: [{"role": "user", "content": "..."}, ...]. The text contains special tokens: set `rendered` of
 * optimize_generate_options_t when you pass it to a generator. `optimize_model_apply_chat_template` does the same with
 * options. Returns the statuses of that function, such as OPTIMIZE_NOT_FOUND if the model has no chat template.
 */
OPTIMIZE_API
optimize_status_t optimize_model_render_chat(const optimize_model_t *model,
                                             const char *messages,
                                             optimize_buffer_t **rendered,
                                             optimize_error_t **error);

/**
 * Creates a tensor from a copy of the `size` bytes at `data`: row-major elements of `dtype`, an optimize_dtype_t, in
 * native byte order. `dims` are the `rank` sizes of the dimensions; a scalar has `rank` 0. Returns
 * OPTIMIZE_INVALID_ARGUMENT if a size in `dims` is negative, if `size` does not match the shape and the type, if a
 * boolean is neither 0 nor 1, or if the type is unknown or string (see `optimize_tensor_new_strings`).
 */
OPTIMIZE_API
optimize_status_t optimize_tensor_new(int32_t dtype,
                                      const int64_t *dims,
                                      size_t rank,
                                      const void *data,
                                      size_t size,
                                      optimize_tensor_t **tensor,
                                      optimize_error_t **error);

/**
 * Creates a tensor that uses the caller's memory without copying it. The memory must stay valid and unchanged until
 * `release` is called, which can happen on another thread. If `release` is NULL, the memory must stay valid and
 * unchanged until the tensor is freed and all runs that use it have ended. Memory that is not aligned for the type is
 * copied, and `release` is then called before this function returns: a lock that `release` takes must not be held
 * here. If the call fails, `release` is not called. Returns the statuses of `optimize_tensor_new`.
 */
OPTIMIZE_API
optimize_status_t optimize_tensor_borrow(int32_t dtype,
                                         const int64_t *dims,
                                         size_t rank,
                                         const void *data,
                                         size_t size,
                                         optimize_release_fn release,
                                         void *user_data,
                                         optimize_tensor_t **tensor,
                                         optimize_error_t **error);

/**
 * Creates a tensor of strings from copies of `count` UTF-8 strings in row-major order. `dims` are the `rank` sizes of
 * the dimensions. `sizes` are the lengths of the strings in bytes; NULL means that the strings are NUL-terminated.
 * Returns OPTIMIZE_INVALID_ARGUMENT if a size in `dims` is negative, or if `count` does not match the shape.
 */
OPTIMIZE_API
optimize_status_t optimize_tensor_new_strings(const int64_t *dims,
                                              size_t rank,
                                              const char *const *strings,
                                              const size_t *sizes,
                                              size_t count,
                                              optimize_tensor_t **tensor,
                                              optimize_error_t **error);

/**
 * Returns the element type, an optimize_dtype_t, or OPTIMIZE_DTYPE_UNKNOWN if `tensor` is NULL.
 */
OPTIMIZE_API
int32_t optimize_tensor_dtype(const optimize_tensor_t *tensor);

/**
 * Returns the number of dimensions, which is 0 for a scalar, or 0 if `tensor` is NULL.
 */
OPTIMIZE_API
size_t optimize_tensor_rank(const optimize_tensor_t *tensor);

/**
 * Returns the array of the sizes of all dimensions, or NULL if the rank is 0 or `tensor` is NULL. The pointer is
 * valid until the tensor is freed.
 */
OPTIMIZE_API
const int64_t *optimize_tensor_dims(const optimize_tensor_t *tensor);

/**
 * Returns the address of the elements in row-major order, or NULL for a tensor of strings, a tensor without elements,
 * or if `tensor` is NULL. The pointer is valid until the tensor is freed.
 */
OPTIMIZE_API
const void *optimize_tensor_data(const optimize_tensor_t *tensor);

/**
 * Returns the size of all elements in bytes, or 0 for a tensor of strings or if `tensor` is NULL.
 */
OPTIMIZE_API
size_t optimize_tensor_size(const optimize_tensor_t *tensor);

/**
 * Writes the address and the length of the string at row-major position `index` of a tensor of strings: `size` bytes
 * of UTF-8 at `data`, not NUL-terminated. The string is valid until the tensor is freed. Returns
 * OPTIMIZE_INVALID_ARGUMENT for a tensor of another type; OPTIMIZE_NOT_FOUND if there is no such string.
 */
OPTIMIZE_API
optimize_status_t optimize_tensor_string(const optimize_tensor_t *tensor,
                                         size_t index,
                                         const char **data,
                                         size_t *size,
                                         optimize_error_t **error);

/**
 * Frees a tensor. NULL is allowed.
 */
OPTIMIZE_API
void optimize_tensor_free(optimize_tensor_t *tensor);

/**
 * Creates a session of a model on ONNX Runtime. The model may be freed before the session.
 *
 * Returns OPTIMIZE_RUNTIME_MISSING if ONNX Runtime is not found; OPTIMIZE_INVALID_MODEL, OPTIMIZE_UNSUPPORTED or
 * OPTIMIZE_RUNTIME if ONNX Runtime refuses the model; OPTIMIZE_UNSUPPORTED also if the provider of a device runs none
 * of the nodes; OPTIMIZE_BACKEND_MISSING or OPTIMIZE_DEVICE_MISSING if the provider or the device of the options
 * cannot be used; OPTIMIZE_UNTRUSTED if a model that contains an engine is to run on a device and `trust_engines` is
 * 0.
 */
OPTIMIZE_API
optimize_status_t optimize_session_new(const optimize_context_t *context,
                                       const optimize_model_t *model,
                                       const optimize_session_options_t *options,
                                       const optimize_call_t *call,
                                       optimize_session_t **session,
                                       optimize_error_t **error);

/**
 * Returns the execution provider of a session, which is never OPTIMIZE_PROVIDER_AUTO. If `session` is NULL, returns
 * OPTIMIZE_PROVIDER_CPU.
 */
OPTIMIZE_API
optimize_provider_t optimize_session_provider(const optimize_session_t *session);

/**
 * Writes the placement of a session as a JSON object. `provider` and `device_id` are always present. Unless ONNX
 * Runtime's CPU kernels run all nodes, `nodes` is the number of nodes of the optimized graph for each provider
 * (`optimize` stands for this library's kernels; nodes that a device does not support run on the CPU), and `groups` is
 * the number of groups of nodes that this library's kernels run. If these kernels were requested but run no nodes,
 * `kernels_unused` is the reason. `passed_over` lists, with reasons, the unavailable providers that
 * OPTIMIZE_PROVIDER_AUTO tried before, or the compiled variant of a package that could not be opened. `weights_copied`
 * is the reason if the weights of a package are copied instead of being read from the mapped file. Returns only
 * statuses that every function can return.
 */
OPTIMIZE_API
optimize_status_t optimize_session_placement(const optimize_session_t *session,
                                             optimize_buffer_t **json,
                                             optimize_error_t **error);

/**
 * Returns the number of inputs that a run requires, or 0 if `session` is NULL.
 */
OPTIMIZE_API
size_t optimize_session_input_count(const optimize_session_t *session);

/**
 * Writes name, type and shape of the input at `index` to `info`. The pointers in `info` are valid until the session is
 * freed. Returns OPTIMIZE_NOT_FOUND if there is no such input.
 */
OPTIMIZE_API
optimize_status_t optimize_session_input(const optimize_session_t *session,
                                         size_t index,
                                         optimize_value_info_t *info,
                                         optimize_error_t **error);

/**
 * Returns the number of outputs, or 0 if `session` is NULL.
 */
OPTIMIZE_API
size_t optimize_session_output_count(const optimize_session_t *session);

/**
 * Writes name, type and shape of the output at `index` to `info`. The pointers in `info` are valid until the session
 * is freed. Returns OPTIMIZE_NOT_FOUND if there is no such output.
 */
OPTIMIZE_API
optimize_status_t optimize_session_output(const optimize_session_t *session,
                                          size_t index,
                                          optimize_value_info_t *info,
                                          optimize_error_t **error);

/**
 * Frees a session. NULL is allowed. It must not be in use.
 */
OPTIMIZE_API
void optimize_session_free(optimize_session_t *session);

/**
 * Runs a session. `input_names` and `inputs` have `input_count` elements; all inputs of `optimize_session_input` are
 * required. `output_names` and `outputs` have `output_count` elements; if `output_names` is NULL, all outputs of the
 * model are written to `outputs`, in the order of the model. The caller frees each output. A run of an engine cannot
 * be interrupted: a cancellation takes effect after the run.
 *
 * Any number of threads may run one session at the same time, each with its own call. The work of a node is divided
 * among the calling thread and the threads of the session, which all its runs share.
 *
 * Names, types and shapes are checked before the run. Returns OPTIMIZE_NOT_FOUND for an input or output that the model
 * does not have; OPTIMIZE_INVALID_ARGUMENT if an input is missing, if its type or shape does not fit (the message
 * names the dimension and the sizes), or if an input or output is named twice; OPTIMIZE_UNSUPPORTED for an input or
 * output that is not a tensor; OPTIMIZE_CANCELLED and OPTIMIZE_TIMEOUT, after which the session remains usable;
 * OPTIMIZE_RUNTIME if ONNX Runtime fails; OPTIMIZE_BACKEND if TensorRT fails to run an engine.
 */
OPTIMIZE_API
optimize_status_t optimize_session_run(const optimize_session_t *session,
                                       const char *const *input_names,
                                       const optimize_tensor_t *const *inputs,
                                       size_t input_count,
                                       const char *const *output_names,
                                       size_t output_count,
                                       const optimize_call_t *call,
                                       optimize_tensor_t **outputs,
                                       optimize_error_t **error);

/**
 * Runs a session like `optimize_session_run`, and writes outputs to memory of the program instead of new tensors.
 * `outputs` is an array of `output_count` structs, all with the `struct_size` of the first. The shape of each output
 * must be known: `dims` are its exact sizes in this run. The memory of an output must not be used otherwise during the
 * run, and must not overlap that of an input or of another output; after an error, its content is undefined.
 *
 * Returns OPTIMIZE_NOT_FOUND for an input or output that the model does not have; OPTIMIZE_INVALID_ARGUMENT if an
 * input or output does not fit the model, or if an output gets another shape; OPTIMIZE_UNSUPPORTED for an output of
 * strings, or one that is not a tensor; otherwise the statuses of `optimize_session_run`.
 */
OPTIMIZE_API
optimize_status_t optimize_session_run_into(const optimize_session_t *session,
                                            const char *const *input_names,
                                            const optimize_tensor_t *const *inputs,
                                            size_t input_count,
                                            const optimize_output_t *outputs,
                                            size_t output_count,
                                            const optimize_call_t *call,
                                            optimize_error_t **error);

/**
 * Loads a tokenizer from tokenizer.json or from the folder that contains it, with the settings of the files next to it
 * (tokenizer_config.json, added_tokens.json, special_tokens_map.json). Returns OPTIMIZE_NOT_FOUND if there is no such
 * file; OPTIMIZE_INVALID_MODEL if a file is damaged or describes a tokenizer that is not supported.
 */
OPTIMIZE_API
optimize_status_t optimize_tokenizer_load(const char *path,
                                          optimize_tokenizer_t **tokenizer,
                                          optimize_error_t **error);

/**
 * Writes the tokenizer of a model to `tokenizer`. Returns OPTIMIZE_NOT_FOUND if the model has none;
 * OPTIMIZE_INVALID_MODEL if its files are damaged or describe a tokenizer that is not supported.
 */
OPTIMIZE_API
optimize_status_t optimize_model_tokenizer(const optimize_model_t *model,
                                           optimize_tokenizer_t **tokenizer,
                                           optimize_error_t **error);

/**
 * Encodes `count` UTF-8 texts into int64 tensors of shape [count, length of the longest row]. `sizes` are the lengths
 * of the texts in bytes; NULL means that they are NUL-terminated. Shorter rows are padded on the right. `ids` receives
 * the token ids, `attention_mask` receives 1 for tokens and 0 for padding, and `type_ids` the segment ids of BERT
 * (token_type_ids). `attention_mask` and `type_ids` may be NULL. Returns OPTIMIZE_INVALID_ARGUMENT if `count` is 0, or
 * if `max_length` has no room for the special tokens; OPTIMIZE_LIMIT_EXCEEDED for a text of more than 64 MiB.
 */
OPTIMIZE_API
optimize_status_t optimize_tokenizer_encode(const optimize_tokenizer_t *tokenizer,
                                            const char *const *texts,
                                            const size_t *sizes,
                                            size_t count,
                                            const optimize_encode_options_t *options,
                                            optimize_tensor_t **ids,
                                            optimize_tensor_t **attention_mask,
                                            optimize_tensor_t **type_ids,
                                            optimize_error_t **error);

/**
 * Decodes `count` token ids, and writes the text to `text`. The caller frees it. Returns OPTIMIZE_INVALID_ARGUMENT for
 * a negative id or one of more than 32 bits.
 */
OPTIMIZE_API
optimize_status_t optimize_tokenizer_decode(const optimize_tokenizer_t *tokenizer,
                                            const int64_t *ids,
                                            size_t count,
                                            const optimize_decode_options_t *options,
                                            optimize_buffer_t **text,
                                            optimize_error_t **error);

/**
 * Returns the number of tokens in the vocabulary, including added tokens, or 0 if `tokenizer` is NULL.
 */
OPTIMIZE_API
size_t optimize_tokenizer_vocabulary_size(const optimize_tokenizer_t *tokenizer);

/**
 * Frees a tokenizer. NULL is allowed.
 */
OPTIMIZE_API
void optimize_tokenizer_free(optimize_tokenizer_t *tokenizer);

/**
 * Renders a conversation with the chat template of a model, and writes the text to `prompt`. The caller frees it.
 * `messages` is JSON: [{"role": "user", "content": "..."}, ...]. Messages may have further keys, such as `tool_calls`.
 * The text contains special tokens: set `rendered` of optimize_generate_options_t when you pass it to a generator.
 *
 * Returns OPTIMIZE_NOT_FOUND if the model has no chat template; OPTIMIZE_INVALID_ARGUMENT if messages, tools or
 * variables are not JSON of that form, or if the template refuses them; OPTIMIZE_INVALID_MODEL for a template with an
 * error; OPTIMIZE_UNSUPPORTED if the template uses a feature of Jinja that is not supported.
 */
OPTIMIZE_API
optimize_status_t optimize_model_apply_chat_template(const optimize_model_t *model,
                                                     const char *messages,
                                                     const optimize_chat_options_t *options,
                                                     optimize_buffer_t **prompt,
                                                     optimize_error_t **error);

/**
 * Creates a generator of a decoder model with a tokenizer. The model and the draft model may be freed before the
 * generator. Returns OPTIMIZE_UNSUPPORTED if a model is not a decoder, or cannot have the KV cache that the options
 * request; OPTIMIZE_INVALID_ARGUMENT if the draft model has another vocabulary; otherwise the statuses of
 * `optimize_session_new`.
 */
OPTIMIZE_API
optimize_status_t optimize_generator_new(const optimize_context_t *context,
                                         const optimize_model_t *model,
                                         const optimize_generator_options_t *options,
                                         const optimize_call_t *call,
                                         optimize_generator_t **generator,
                                         optimize_error_t **error);

/**
 * Generates text after each of `count` prompts. `sizes` are the lengths of the prompts in bytes; NULL means that they
 * are NUL-terminated. Each prompt becomes a row; previous rows are discarded. `report` receives JSON: {"generations":
 * [{"text", "tokens", "logprobs", "finish_reason", "prompt_tokens"}]}, with a draft also "draft", of an ensemble also
 * "uncertainty" and "mean_uncertainty". Progress stages: "prompt" and "generate", in tokens. After a call that was
 * cancelled or timed out, `optimize_generator_run` continues the texts.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if `count` is 0, if a prompt is empty or longer than `max_length` or the model's
 * limit, or if an option is out of range; OPTIMIZE_INVALID_ARGUMENT also if the model has no tokenizer, or if the
 * generator has a draft and `count` is not 1; OPTIMIZE_UNSUPPORTED if the generator has a draft and the model outputs
 * the logits of the last token only; OPTIMIZE_BUSY while another thread uses the generator; OPTIMIZE_RUNTIME if ONNX
 * Runtime fails.
 */
OPTIMIZE_API
optimize_status_t optimize_generator_generate(optimize_generator_t *generator,
                                              const char *const *prompts,
                                              const size_t *sizes,
                                              size_t count,
                                              const optimize_generate_options_t *options,
                                              const optimize_call_t *call,
                                              optimize_buffer_t **report,
                                              optimize_error_t **error);

/**
 * Appends `size` bytes of text to a row, for example a message of a conversation to row 0. If there are no rows, row 0
 * is created. The next `optimize_generator_run` processes only the appended text. Of the options, only `rendered` has
 * an effect. A model without a tokenizer is refused as an invalid argument. Returns OPTIMIZE_NOT_FOUND if the row does
 * not exist; OPTIMIZE_BUSY while another thread uses the generator.
 */
OPTIMIZE_API
optimize_status_t optimize_generator_append(optimize_generator_t *generator,
                                            size_t row,
                                            const char *text,
                                            size_t size,
                                            const optimize_generate_options_t *options,
                                            optimize_error_t **error);

/**
 * Generates text in all rows, without processing earlier tokens again. `report` receives JSON as from
 * `optimize_generator_generate`, for the new tokens. Returns OPTIMIZE_INVALID_ARGUMENT if a row is empty or has
 * reached the model's limit; otherwise the statuses of `optimize_generator_generate`.
 */
OPTIMIZE_API
optimize_status_t optimize_generator_run(optimize_generator_t *generator,
                                         const optimize_generate_options_t *options,
                                         const optimize_call_t *call,
                                         optimize_buffer_t **report,
                                         optimize_error_t **error);

/**
 * Discards all rows of a generator, which can then generate other texts. Returns OPTIMIZE_BUSY while another thread
 * uses the generator.
 */
OPTIMIZE_API
optimize_status_t optimize_generator_reset(optimize_generator_t *generator,
                                           optimize_error_t **error);

/**
 * Frees a generator. NULL is allowed. It must not be in use.
 */
OPTIMIZE_API
void optimize_generator_free(optimize_generator_t *generator);

/**
 * Writes the placement of the models of a generator as JSON: a list with an object for each model, as from
 * `optimize_session_placement`. Any thread may call this function at any time. Returns only statuses that every
 * function can return.
 */
OPTIMIZE_API
optimize_status_t optimize_generator_placement(const optimize_generator_t *generator,
                                               optimize_buffer_t **json,
                                               optimize_error_t **error);

/**
 * Creates an embedder of a model. Vectors are read from the model's output `sentence_embedding`, or computed from
 * `token_embeddings` or `last_hidden_state` with the pooling that the files next to the model describe (default:
 * mean). In a model without these outputs, the vectors are those of the first other float output of two dimensions, or
 * else of three, which is pooled. Such an output must not contain scores (see OPTIMIZE_SCORE_FUNCTION_AUTO), and its
 * last dimension must be fixed and above 1. Its name must contain neither "logits" nor "pooler", and must contain
 * "embed" if the configuration names a class for classification. If `tokenizer` is NULL, the model's own is used.
 * Model and tokenizer may be freed before the embedder.
 *
 * Returns OPTIMIZE_UNSUPPORTED if the model has none of these outputs, such as a classifier, or if the options have a
 * prompt but the graph pools without its default prompt and outputs no token vectors; OPTIMIZE_NOT_FOUND if there is
 * no tokenizer, or no prompt with the name `prompt_name`; OPTIMIZE_INVALID_ARGUMENT if both `prompt` and
 * `prompt_name` are given, or if `max_length` is above the number of positions of the model; otherwise the statuses of
 * `optimize_session_new`.
 */
OPTIMIZE_API
optimize_status_t optimize_embedder_new(const optimize_context_t *context,
                                        const optimize_model_t *model,
                                        const optimize_tokenizer_t *tokenizer,
                                        const optimize_embedder_options_t *options,
                                        const optimize_call_t *call,
                                        optimize_embedder_t **embedder,
                                        optimize_error_t **error);

/**
 * Writes the vectors of `count` texts to `vectors`, a float32 tensor of shape [count, width] whose row `i` is the
 * vector of text `i`. The caller frees it. Texts beyond the maximum length are truncated. Progress stage: "embed",
 * in texts.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if `count` is 0, if a text has no tokens, or if `dimensions` of the options is
 * larger than the vectors; OPTIMIZE_UNSUPPORTED if the output does not have the shape of vectors; OPTIMIZE_RUNTIME if
 * an element of a vector is not finite, or if ONNX Runtime fails.
 */
OPTIMIZE_API
optimize_status_t optimize_embedder_embed(const optimize_embedder_t *embedder,
                                          const char *const *texts,
                                          size_t count,
                                          const optimize_call_t *call,
                                          optimize_tensor_t **vectors,
                                          optimize_error_t **error);

/**
 * Frees an embedder. NULL is allowed. It must not be in use.
 */
OPTIMIZE_API
void optimize_embedder_free(optimize_embedder_t *embedder);

/**
 * Creates a classifier of a model, which must have an output with logits or scores of shape [texts, classes]. If
 * `tokenizer` is NULL, the model's own is used. Model and tokenizer may be freed before the classifier.
 *
 * Returns OPTIMIZE_UNSUPPORTED if the model is not a classifier of texts, or if its files name an unknown function of
 * the scores and `score_function` is OPTIMIZE_SCORE_FUNCTION_AUTO; OPTIMIZE_NOT_FOUND if there is no tokenizer;
 * OPTIMIZE_INVALID_ARGUMENT if `max_length` is above the number of positions of the model; otherwise the statuses of
 * `optimize_session_new`.
 */
OPTIMIZE_API
optimize_status_t optimize_classifier_new(const optimize_context_t *context,
                                          const optimize_model_t *model,
                                          const optimize_tokenizer_t *tokenizer,
                                          const optimize_classifier_options_t *options,
                                          const optimize_call_t *call,
                                          optimize_classifier_t **classifier,
                                          optimize_error_t **error);

/**
 * Returns the number of classes that have a label, or 0 if `classifier` is NULL or if neither the graph nor the
 * configuration of the model gives the number of classes.
 */
OPTIMIZE_API
size_t optimize_classifier_label_count(const optimize_classifier_t *classifier);

/**
 * Returns the label of the class at `index`: its name in `id2label` of the model's configuration, or else the index
 * as text. Returns "" if there is no such class. The string is valid until the classifier is freed.
 */
OPTIMIZE_API
const char *optimize_classifier_label(const optimize_classifier_t *classifier,
                                      size_t index);

/**
 * Writes the scores of `count` texts to `scores`, a float32 tensor of shape [count, classes] whose row `i` has the
 * scores of text `i`. The caller frees it. `second_texts` is NULL, or contains a second text for each of `texts`,
 * for models that read pairs of texts (rerankers, natural language inference). Texts beyond the maximum length are
 * truncated; in a pair, the longer text is truncated first. Progress stage: "classify", in texts.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if `count` is 0, or if a text has no tokens; OPTIMIZE_UNSUPPORTED if the output
 * does not have the shape [texts, classes]; OPTIMIZE_RUNTIME if a score is not a number, or if ONNX Runtime fails.
 */
OPTIMIZE_API
optimize_status_t optimize_classifier_classify(const optimize_classifier_t *classifier,
                                               const char *const *texts,
                                               const char *const *second_texts,
                                               size_t count,
                                               const optimize_call_t *call,
                                               optimize_tensor_t **scores,
                                               optimize_error_t **error);

/**
 * Frees a classifier. NULL is allowed. It must not be in use.
 */
OPTIMIZE_API
void optimize_classifier_free(optimize_classifier_t *classifier);

/**
 * Creates a tagger of a model, which must have an output with logits of shape [texts, tokens, labels]. The labels are
 * those of `id2label` in the model's configuration. If `tokenizer` is NULL, the model's own is used. Model and
 * tokenizer may be freed before the tagger.
 *
 * Returns OPTIMIZE_UNSUPPORTED if the model has no such output or does not name its labels; OPTIMIZE_NOT_FOUND if
 * there is no tokenizer; OPTIMIZE_INVALID_ARGUMENT if `max_length` is above the number of positions of the model, or
 * if `stride` does not fit a window; otherwise the statuses of `optimize_session_new`.
 */
OPTIMIZE_API
optimize_status_t optimize_tagger_new(const optimize_context_t *context,
                                      const optimize_model_t *model,
                                      const optimize_tokenizer_t *tokenizer,
                                      const optimize_tagger_options_t *options,
                                      const optimize_call_t *call,
                                      optimize_tagger_t **tagger,
                                      optimize_error_t **error);

/**
 * Writes the spans of `count` texts to `spans`, which the caller frees. The spans of a text are in the order of the
 * text; a text without tokens has none. Progress stage: "tag", in texts.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if `count` is 0; OPTIMIZE_UNSUPPORTED if the output does not have the shape
 * [texts, tokens, labels]; OPTIMIZE_INVALID_MODEL if it has another number of labels than the configuration names;
 * OPTIMIZE_CANCELLED and OPTIMIZE_TIMEOUT, after which the tagger remains usable; OPTIMIZE_RUNTIME if the model
 * computes a value that is not a number, or if ONNX Runtime fails.
 */
OPTIMIZE_API
optimize_status_t optimize_tagger_tag(const optimize_tagger_t *tagger,
                                      const char *const *texts,
                                      size_t count,
                                      const optimize_call_t *call,
                                      optimize_spans_t **spans,
                                      optimize_error_t **error);

/**
 * Frees a tagger. NULL is allowed. It must not be in use.
 */
OPTIMIZE_API
void optimize_tagger_free(optimize_tagger_t *tagger);

/**
 * Returns the number of spans of the text with the index `text`; 0 if `spans` is NULL or there is no such text.
 */
OPTIMIZE_API
size_t optimize_spans_count(const optimize_spans_t *spans,
                            size_t text);

/**
 * Writes the span at `index` of the text with the index `text` to `span`. The label in it is valid until the spans are
 * freed.
 *
 * Returns OPTIMIZE_NOT_FOUND if there is no such text or span.
 */
OPTIMIZE_API
optimize_status_t optimize_spans_get(const optimize_spans_t *spans,
                                     size_t text,
                                     size_t index,
                                     optimize_span_t *span,
                                     optimize_error_t **error);

/**
 * Frees spans. NULL is allowed.
 */
OPTIMIZE_API
void optimize_spans_free(optimize_spans_t *spans);

/**
 * Writes a quantized copy of a model to `result`; the original is unchanged. `report` (may be NULL) receives the JSON
 * of docs/report.md: the action on each node, and the reasons why nodes were left unchanged. Progress stages: with
 * calibration data "calibrate", in runs; "quantize", in bytes; depending on the options "scale", "sensitivity" and
 * "speed"; with a report also "hash".
 *
 * Returns OPTIMIZE_UNSUPPORTED if there is nothing to quantize (the message counts the reasons);
 * OPTIMIZE_INVALID_ARGUMENT if a pattern matches nothing, or if options contradict each other, have no effect with the
 * others, or need calibration data that is not given; OPTIMIZE_NOT_FOUND if the model lacks an input of the
 * calibration data, or a tokenizer for calibration text; OPTIMIZE_GATE_NOT_MET if no result meets `max_quality_loss`,
 * `target_size` or `never_slower`.
 */
OPTIMIZE_API
optimize_status_t optimize_model_quantize(const optimize_context_t *context,
                                          const optimize_model_t *model,
                                          const optimize_quantize_options_t *options,
                                          const optimize_call_t *call,
                                          optimize_model_t **result,
                                          optimize_buffer_t **report,
                                          optimize_error_t **error);

/**
 * Estimates the result of `optimize_model_quantize` with the same options. `report` receives the JSON of
 * docs/report.md: nodes, bytes, approximate seconds and memory of quantizing, and the kernels that will run the
 * quantized matrix products. Nothing is quantized, so this takes milliseconds in general; `max_quality_loss`,
 * `target_size`, `never_slower` and calibration data are ignored. Returns OPTIMIZE_UNSUPPORTED if there is nothing to
 * quantize; OPTIMIZE_INVALID_ARGUMENT for static quantization, because the calibration data determine which nodes it
 * quantizes.
 */
OPTIMIZE_API
optimize_status_t optimize_model_plan(const optimize_context_t *context,
                                      const optimize_model_t *model,
                                      const optimize_quantize_options_t *options,
                                      optimize_buffer_t **report,
                                      optimize_error_t **error);

/**
 * Writes a pruned copy of a model to `result`; the original is unchanged. `report` (may be NULL) receives the JSON of
 * docs/report.md: the number of zeros of each node and module, and the reasons why other nodes were left unchanged.
 * Zeros make a plain .onnx file neither smaller nor faster: save with `packed` for a smaller file. Progress stages:
 * "prune", in bytes; depending on the options also "calibrate", "influence" and "reconstruct"; with a report also
 * "hash".
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if a target matches nothing (the message lists the modules), or if options
 * contradict each other or need calibration data that is not given; OPTIMIZE_UNSUPPORTED if no weight could be pruned
 * (the message counts the reasons); OPTIMIZE_GATE_NOT_MET if no sparsity meets `target_size` or `target_speedup`.
 */
OPTIMIZE_API
optimize_status_t optimize_model_prune(const optimize_context_t *context,
                                       const optimize_model_t *model,
                                       const optimize_prune_options_t *options,
                                       const optimize_call_t *call,
                                       optimize_model_t **result,
                                       optimize_buffer_t **report,
                                       optimize_error_t **error);

/**
 * Trains a student model to reproduce the teacher's outputs on `size` bytes of UTF-8 text, and writes the trained
 * model to `result`; teacher and student are unchanged. `student` may be NULL if `student_layers` selects layers of
 * the teacher. Both models must have the same vocabulary, and at least one of them a tokenizer. `report` (may be
 * NULL) receives the JSON of docs/report.md: losses over time, and a comparison with the teacher on held-out text
 * before and after the training. Progress stages: "distill", in steps; with a report also "hash". With a checkpoint,
 * a call that was cancelled or timed out can be continued with `resume`.
 *
 * Returns OPTIMIZE_UNSUPPORTED if a node of the student has no gradient (the message names it), or if the models lack
 * an output that the loss needs; OPTIMIZE_INVALID_ARGUMENT if the text is too short, if the vocabularies differ, if
 * both `student` and `student_layers` or neither are given, or if there is a checkpoint that `resume` does not
 * continue; OPTIMIZE_NOT_FOUND if no model has a tokenizer; OPTIMIZE_RUNTIME if the gradients of many steps in a row
 * are not finite.
 */
OPTIMIZE_API
optimize_status_t optimize_model_distill(const optimize_context_t *context,
                                         const optimize_model_t *teacher,
                                         const optimize_model_t *student,
                                         const char *text,
                                         size_t size,
                                         const optimize_distill_options_t *options,
                                         const optimize_call_t *call,
                                         optimize_model_t **result,
                                         optimize_buffer_t **report,
                                         optimize_error_t **error);

/**
 * Creates an ensemble of `count` models, which may be freed before the ensemble. No session is created yet.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if there is only one model, if the models have different tasks or classes, or
 * different vocabularies without `allow_different_vocabularies`, or if an option is out of range or does not fit the
 * task, the method or `count`; the message names the member or the option.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_new(const optimize_model_t *const *models,
                                        size_t count,
                                        const optimize_ensemble_options_t *options,
                                        optimize_ensemble_t **ensemble,
                                        optimize_error_t **error);

/**
 * Loads an ensemble and its members from a manifest: `ensemble.json`, or a folder that contains it.
 * `optimize_model_load` accepts a manifest, too, and returns the model that `optimize_ensemble_fuse` would create.
 * Returns OPTIMIZE_NOT_FOUND if there is no manifest; OPTIMIZE_INVALID_MODEL if the manifest is damaged or has a newer
 * version, or if the size of a member differs from the one in the manifest; OPTIMIZE_UNSUPPORTED if a member is itself
 * an ensemble; otherwise the statuses of `optimize_model_load` and `optimize_ensemble_new`.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_load(const char *path,
                                         optimize_ensemble_t **ensemble,
                                         optimize_error_t **error);

/**
 * Saves the manifest of an ensemble in a folder, which is created if necessary: `ensemble.json` with the paths of the
 * members. Returns OPTIMIZE_INVALID_ARGUMENT if a member exists only in memory, and the statuses of
 * `optimize_ensemble_fuse` if members that generate no text cannot be fused.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_save(const optimize_ensemble_t *ensemble,
                                         const char *folder,
                                         optimize_error_t **error);

/**
 * Writes a description of an ensemble as JSON: {"method", "task", "members", "weights", "temperatures", "notes"}.
 * Notes are unexpected properties, such as a vocabulary that is truncated to that of another member. Returns only
 * statuses that every function can return.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_inspect(const optimize_ensemble_t *ensemble,
                                            optimize_buffer_t **report,
                                            optimize_error_t **error);

/**
 * Fits the weights of an ensemble of decoders to `size` bytes of UTF-8 text, and writes an ensemble with these weights
 * to `fitted`; the original is unchanged. `report` (may be NULL) receives JSON: {"weights", "member_nll", "equal_nll",
 * "fitted_nll", "gap", "tokens"}. Fields with "nll" are negative log-likelihoods, and "gap" bounds the difference of
 * "fitted_nll" from its minimum, in nats per token. Progress stage: "fit", in tokens. Returns OPTIMIZE_UNSUPPORTED if
 * the members do not generate text or have different vocabularies, or if the method is not mean, weighted, logits or
 * product; OPTIMIZE_NOT_FOUND if no member has a tokenizer; OPTIMIZE_INVALID_ARGUMENT if the text is too short;
 * OPTIMIZE_RUNTIME if a logit is not a number.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_fit(const optimize_context_t *context,
                                        const optimize_ensemble_t *ensemble,
                                        const char *text,
                                        size_t size,
                                        const optimize_fit_options_t *options,
                                        const optimize_call_t *call,
                                        optimize_ensemble_t **fitted,
                                        optimize_buffer_t **report,
                                        optimize_error_t **error);

/**
 * Creates a model that contains all members as branches and combines their outputs. The logits of a fused decoder are
 * the logarithms of the combined probabilities. `report` (may be NULL) receives the JSON of docs/report.md. Progress
 * stage: "fuse", in models. Returns OPTIMIZE_UNSUPPORTED if the members or their method cannot be fused;
 * OPTIMIZE_INVALID_ARGUMENT if inputs or outputs of the members do not match.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_fuse(const optimize_ensemble_t *ensemble,
                                         const optimize_call_t *call,
                                         optimize_model_t **result,
                                         optimize_buffer_t **report,
                                         optimize_error_t **error);

/**
 * Creates a generator that combines the distributions of the members for every token. Its tokens and reports have
 * measures of uncertainty (see `optimize_written_t`). A model that occurs twice is loaded once; threads are divided
 * among the members. The ensemble may be freed before the generator.
 * Returns OPTIMIZE_UNSUPPORTED if the members do not generate text, or if the method is rerank and their vocabularies
 * differ; OPTIMIZE_INVALID_ARGUMENT if the options have a draft; otherwise the statuses of `optimize_generator_new`.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_generator(const optimize_context_t *context,
                                              const optimize_ensemble_t *ensemble,
                                              const optimize_generator_options_t *options,
                                              const optimize_call_t *call,
                                              optimize_generator_t **generator,
                                              optimize_error_t **error);

/**
 * Frees an ensemble. NULL is allowed.
 */
OPTIMIZE_API
void optimize_ensemble_free(optimize_ensemble_t *ensemble);

/**
 * Merges the weights of `count` models of one architecture into a new model of the same size, `result`. `report` (may
 * be NULL) receives the JSON of docs/report.md. Progress stage: "merge", in tensors.
 * Returns OPTIMIZE_INVALID_ARGUMENT if there are fewer than two models, if graphs or shapes differ (the message names
 * the first difference), or if options are out of range or do not fit the method; OPTIMIZE_UNSUPPORTED if a weight
 * that differs is quantized.
 */
OPTIMIZE_API
optimize_status_t optimize_model_merge(const optimize_model_t *const *models,
                                       size_t count,
                                       const optimize_merge_options_t *options,
                                       const optimize_call_t *call,
                                       optimize_model_t **result,
                                       optimize_buffer_t **report,
                                       optimize_error_t **error);

/**
 * Writes a package of a model at `path`, and replaces an existing package there, atomically where the file system
 * supports it. `report` (may be NULL) receives JSON with the sizes and hashes of the files. Progress stages: those of
 * quantizing, if a variant is quantized, then "package", in bytes. Returns OPTIMIZE_INVALID_ARGUMENT if something
 * other than a package of the same kind (folder or file) exists at `path`, or if ranges contradict the model or each
 * other (the message names input and dimension); OPTIMIZE_NOT_FOUND if the folder of `path` does not exist;
 * OPTIMIZE_MISMATCH if `engine` was built from another model.
 */
OPTIMIZE_API
optimize_status_t optimize_package_compile(const optimize_context_t *context,
                                           const optimize_model_t *model,
                                           const char *path,
                                           const optimize_package_compile_options_t *options,
                                           const optimize_call_t *call,
                                           optimize_buffer_t **report,
                                           optimize_error_t **error);

/**
 * Opens a package, which is a folder or a file. This reads and checks the manifest. The other files are memory-mapped,
 * and checked only as far as they are used; `optimize_package_verify` checks every byte. Returns OPTIMIZE_NOT_FOUND if
 * there is no package at `path`, or no variant with the requested name or precision; OPTIMIZE_UNSUPPORTED if the
 * package has a newer format or no variant for this machine; OPTIMIZE_INVALID_MODEL if it is damaged, or not signed by
 * `public_key`.
 */
OPTIMIZE_API
optimize_status_t optimize_package_open(const char *path,
                                        const optimize_package_open_options_t *options,
                                        optimize_package_t **package,
                                        optimize_error_t **error);

/**
 * Writes the model of a package to `model`, for techniques, benchmarks and inspection. Sessions of this model enforce
 * the shape contract. Returns OPTIMIZE_INVALID_MODEL if the model's files are damaged.
 */
OPTIMIZE_API
optimize_status_t optimize_package_model(const optimize_package_t *package,
                                         optimize_model_t **model,
                                         optimize_error_t **error);

/**
 * Creates a session of a package. On the CPU, it runs the requested variant, or else the first one that fits this
 * machine; on other providers, it runs the portable graph. Each run first checks the shape contract (types and sizes
 * of inputs), and returns OPTIMIZE_INVALID_ARGUMENT if an input does not fit. The package may be freed before the
 * session. Returns the statuses of `optimize_session_new`.
 */
OPTIMIZE_API
optimize_status_t optimize_package_session(const optimize_context_t *context,
                                           const optimize_package_t *package,
                                           const optimize_session_options_t *options,
                                           const optimize_call_t *call,
                                           optimize_session_t **session,
                                           optimize_error_t **error);

/**
 * Creates a session of the TensorRT engine in a package, on a device. Each run checks the shape contract first. The
 * package may be freed before the session. Returns OPTIMIZE_NOT_FOUND if the package has no engine;
 * OPTIMIZE_UNSUPPORTED if the package is a single file; otherwise the statuses of `optimize_tensorrt_open`.
 */
OPTIMIZE_API
optimize_status_t optimize_package_engine(const optimize_context_t *context,
                                          const optimize_package_t *package,
                                          const optimize_tensorrt_open_options_t *options,
                                          const optimize_call_t *call,
                                          optimize_session_t **session,
                                          optimize_error_t **error);

/**
 * Writes the tokenizer of a package to `tokenizer`. Returns OPTIMIZE_NOT_FOUND if the package has none;
 * OPTIMIZE_INVALID_MODEL if it is damaged.
 */
OPTIMIZE_API
optimize_status_t optimize_package_tokenizer(const optimize_package_t *package,
                                             optimize_tokenizer_t **tokenizer,
                                             optimize_error_t **error);

/**
 * Creates a generator of the model of a package. The package and the draft model may be freed before the generator.
 * Returns OPTIMIZE_UNSUPPORTED if a model does not generate text; otherwise the statuses of `optimize_generator_new`.
 */
OPTIMIZE_API
optimize_status_t optimize_package_generator(const optimize_context_t *context,
                                             const optimize_package_t *package,
                                             const optimize_generator_options_t *options,
                                             const optimize_call_t *call,
                                             optimize_generator_t **generator,
                                             optimize_error_t **error);

/**
 * Writes a description of a package as JSON. It includes the variant that is used on this machine, and the reason.
 * Returns OPTIMIZE_UNSUPPORTED if the requested variant cannot run with this ONNX Runtime.
 */
OPTIMIZE_API
optimize_status_t optimize_package_inspect(const optimize_context_t *context,
                                           const optimize_package_t *package,
                                           optimize_buffer_t **json,
                                           optimize_error_t **error);

/**
 * Verifies every byte of a package: the hash of each file, and the signature if there is one. `public_key` is NULL,
 * or the public ed25519 key that must have signed the package, as 64 hexadecimal digits. Progress stage: "verify",
 * in bytes. Returns OPTIMIZE_INVALID_MODEL if a file is damaged or, with a `public_key`, if the signature is missing
 * or of another key; the message says which.
 */
OPTIMIZE_API
optimize_status_t optimize_package_verify(const optimize_package_t *package,
                                          const char *public_key,
                                          const optimize_call_t *call,
                                          optimize_error_t **error);

/**
 * Frees a package. NULL is allowed. Objects created from it remain usable.
 */
OPTIMIZE_API
void optimize_package_free(optimize_package_t *package);

/**
 * Loads a model from the file `name` of a source: an .onnx file, a packed file, a .gguf file, or a package in one
 * file. External data of an .onnx file, and the files next to it (tokenizer.json, config.json ...), are read from the
 * source, by names in the folder of `name`. The files are read during this call, into memory that the model and its
 * sessions keep. Only unpacked tensors of a packed file and converted tensors of a .gguf file are written to an
 * unlinked file in the system's temporary folder, if they are larger than 1 MiB. Progress stage: "load", in bytes of
 * one file. Returns OPTIMIZE_NOT_FOUND if there is no file `name` or no file with its external data; OPTIMIZE_IO if a
 * callback fails; OPTIMIZE_INVALID_MODEL for a damaged file; OPTIMIZE_LIMIT_EXCEEDED for an .onnx file above 2 GiB;
 * OPTIMIZE_UNSUPPORTED for a format, an architecture or a type of weights that is not supported.
 */
OPTIMIZE_API
optimize_status_t optimize_model_load_source(const optimize_context_t *context,
                                             const optimize_source_t *source,
                                             const char *name,
                                             const optimize_call_t *call,
                                             optimize_model_t **model,
                                             optimize_error_t **error);

/**
 * Opens a package like `optimize_package_open`, but from the file `name` of a source. It must be a package in one
 * file. The file is read during this call, into memory that the package and the objects created from it keep. Progress
 * stage: "load", in bytes. Returns OPTIMIZE_IO if a callback fails, and the statuses of `optimize_package_open`.
 */
OPTIMIZE_API
optimize_status_t optimize_package_open_source(const optimize_context_t *context,
                                               const optimize_source_t *source,
                                               const char *name,
                                               const optimize_package_open_options_t *options,
                                               const optimize_call_t *call,
                                               optimize_package_t **package,
                                               optimize_error_t **error);

/**
 * Loads a tokenizer from the file `name` of a source, which has the format of tokenizer.json. If it is also named
 * tokenizer.json, the settings of the files next to it are applied, as in `optimize_tokenizer_load`. Returns
 * OPTIMIZE_NOT_FOUND if there is no file `name`; OPTIMIZE_IO if a callback fails; OPTIMIZE_INVALID_MODEL if a file is
 * damaged or describes a tokenizer that is not supported.
 */
OPTIMIZE_API
optimize_status_t optimize_tokenizer_load_source(const optimize_source_t *source,
                                                 const char *name,
                                                 optimize_tokenizer_t **tokenizer,
                                                 optimize_error_t **error);

/**
 * Passes a model to a sink as the file `name`. If the weights are stored in a file of their own
 * (optimize_external_data_t), that file comes first, with a name in the same folder. Names and bytes are those that
 * `optimize_model_save` would write. `report` (may be NULL) receives JSON: {"files": [{"path", "bytes", "sha256"}]}.
 * Progress stages: "hash", for external data, then "save", in bytes of one file. Returns OPTIMIZE_IO if the callback
 * fails; OPTIMIZE_LIMIT_EXCEEDED if the model without external data has more than 2 GiB; OPTIMIZE_INVALID_ARGUMENT for
 * options that contradict each other.
 */
OPTIMIZE_API
optimize_status_t optimize_model_save_sink(const optimize_model_t *model,
                                           const optimize_sink_t *sink,
                                           const char *name,
                                           const optimize_save_options_t *options,
                                           const optimize_call_t *call,
                                           optimize_buffer_t **report,
                                           optimize_error_t **error);

/**
 * Passes a package of a model in one file to a sink as the file `name`, whatever `single_file` of the options says.
 * The bytes are those that `optimize_package_compile` would write. `report` (may be NULL) receives JSON with size and
 * hash. Progress stages: those of quantizing, then "package", in bytes that are hashed, and "save", in bytes that are
 * written. Returns OPTIMIZE_IO if the callback fails, and the statuses of `optimize_package_compile`.
 */
OPTIMIZE_API
optimize_status_t optimize_package_compile_sink(const optimize_context_t *context,
                                                const optimize_model_t *model,
                                                const optimize_sink_t *sink,
                                                const char *name,
                                                const optimize_package_compile_options_t *options,
                                                const optimize_call_t *call,
                                                optimize_buffer_t **report,
                                                optimize_error_t **error);

/**
 * Builds a TensorRT engine of a model and writes it to `path` (FILE.engine, or a folder for model.engine), with a
 * manifest next to it (FILE.engine.json); with `graph_only`, writes the graph for the engine. An existing engine that
 * matches model, library and options is kept, and the report contains "reused". `report` (may be NULL) receives the
 * JSON of docs/report.md: among others backend, profiles, error relative to fp32, and the nodes that stay fp32, with
 * reasons. Progress stages: "hash", "precision", "build" (in steps; the total grows), for int8 and fp8 also
 * "calibrate". A cancellation of "build" takes effect within about 200 ms; TensorRT may then continue on a thread in
 * the background.
 *
 * Returns OPTIMIZE_BACKEND_MISSING if TensorRT is not found; OPTIMIZE_DEVICE_MISSING if the backend needs a device and
 * there is none; OPTIMIZE_UNSUPPORTED for an unsupported version of TensorRT and for operators that TensorRT does not
 * support (the message names them); OPTIMIZE_INVALID_ARGUMENT if a dynamic dimension of an input has no range, or if
 * options contradict each other; OPTIMIZE_NOT_FOUND if the options name an input that the model does not have, or if
 * calibration text is given and the model has no tokenizer; OPTIMIZE_GATE_NOT_MET if `max_error` cannot be met;
 * OPTIMIZE_MISMATCH if `refuse_mismatch` is set and the existing engine does not match.
 */
OPTIMIZE_API
optimize_status_t optimize_model_build_tensorrt(const optimize_context_t *context,
                                                const optimize_model_t *model,
                                                const char *path,
                                                const optimize_tensorrt_options_t *options,
                                                const optimize_call_t *call,
                                                optimize_buffer_t **report,
                                                optimize_error_t **error);

/**
 * Checks whether an engine file can be used on this machine and, if `model` is not NULL, whether the engine was built
 * from `model`. Returns OPTIMIZE_OK if the check succeeds. `manifest` (may be NULL) receives the manifest of the
 * engine as JSON. A value of `trust` other than 0 states that you trust the source of the engine, which contains
 * executable code.
 *
 * Returns OPTIMIZE_UNTRUSTED if `trust` is 0, or if the engine has no manifest; OPTIMIZE_NOT_FOUND if there is no file
 * at `path`; OPTIMIZE_INVALID_MODEL for a file that does not match its manifest or is not an engine; OPTIMIZE_MISMATCH
 * for an engine of another model, version or device; OPTIMIZE_BACKEND_MISSING if TensorRT is not found;
 * OPTIMIZE_DEVICE_MISSING if there is no device.
 */
OPTIMIZE_API
optimize_status_t optimize_tensorrt_check(const optimize_context_t *context,
                                          const char *path,
                                          const optimize_model_t *model,
                                          uint32_t trust,
                                          const optimize_call_t *call,
                                          optimize_buffer_t **manifest,
                                          optimize_error_t **error);

/**
 * Creates a session of an engine file (FILE.engine, with its manifest FILE.engine.json next to it) on a device. The
 * session is used like other sessions, and its provider is OPTIMIZE_PROVIDER_TENSORRT. ONNX Runtime is not needed.
 *
 * Returns OPTIMIZE_UNTRUSTED if `trust` is 0, or if the engine has no manifest; OPTIMIZE_NOT_FOUND if there is no file
 * at `path`; OPTIMIZE_INVALID_MODEL for a file that does not match its manifest or is not an engine; OPTIMIZE_MISMATCH
 * for an engine of another model, version or device; OPTIMIZE_BACKEND_MISSING if TensorRT is not found;
 * OPTIMIZE_DEVICE_MISSING if there is no such device; OPTIMIZE_BACKEND if TensorRT cannot use the engine on the
 * device.
 */
OPTIMIZE_API
optimize_status_t optimize_tensorrt_open(const optimize_context_t *context,
                                         const char *path,
                                         const optimize_tensorrt_open_options_t *options,
                                         const optimize_call_t *call,
                                         optimize_session_t **session,
                                         optimize_error_t **error);

/**
 * Runs the steps of a recipe on a model, and writes the result to `path`: a package if the last step is `compile`, a
 * TensorRT engine if it is `tensorrt`, otherwise a model, as X.onnx or a folder. The original is unchanged, and
 * nothing is written to `path` before the last step. `recipe` is JSON (docs/recipes.md): a list of steps with the name
 * of an `operation` and its options, such as [{"operation": "quantize", "type": "dynamic"}, {"operation": "compile"}],
 * or the report of a technique, which contains a recipe. `report` (may be NULL) receives the JSON of docs/report.md;
 * its `summary.steps` contains the reports of the steps, which a package contains as its lineage. Progress stages:
 * those of the steps.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT for a recipe with an unknown operation or option, or if a step needs `data` of
 * the caller and there is none; otherwise the statuses of the techniques. The place of the error begins with the
 * number and the name of the step.
 */
OPTIMIZE_API
optimize_status_t optimize_model_apply(const optimize_context_t *context,
                                       const optimize_model_t *model,
                                       const char *recipe,
                                       const char *path,
                                       const optimize_apply_options_t *options,
                                       const optimize_call_t *call,
                                       optimize_buffer_t **report,
                                       optimize_error_t **error);

/**
 * Compares two models in this process: speed (in alternating runs, with a bootstrap interval), load time, memory,
 * size, and outputs. If `tokenizer` is NULL, inputs are generated by the names and types of the model's inputs.
 * `report` receives the JSON of docs/report.md. Progress stages: "benchmark", in steps, then "hash", in bytes.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if the models have different inputs, outputs, classes or tokens;
 * OPTIMIZE_NOT_FOUND if the options name an input that the models do not have; otherwise the statuses of
 * `optimize_session_new` and `optimize_session_run`.
 */
OPTIMIZE_API
optimize_status_t optimize_model_benchmark(const optimize_context_t *context,
                                           const optimize_model_t *original,
                                           const optimize_model_t *result,
                                           const optimize_tokenizer_t *tokenizer,
                                           const optimize_benchmark_options_t *options,
                                           const optimize_call_t *call,
                                           optimize_buffer_t **report,
                                           optimize_error_t **error);

/**
 * Compares a TensorRT engine file with the model from which it was built, as `optimize_model_benchmark` compares two
 * models. The original runs on the provider of `options`, the engine on the device of `engine_options`; times are
 * measured from inputs in host memory to outputs in host memory. `tokenizer` may be NULL. Progress stages: "hash", in
 * bytes, then "benchmark", in steps.
 *
 * Returns OPTIMIZE_MISMATCH if the engine does not belong to `original`, or to the model that `model_sha256` of the
 * engine's options names; otherwise the statuses of `optimize_tensorrt_open`.
 */
OPTIMIZE_API
optimize_status_t optimize_model_benchmark_engine(const optimize_context_t *context,
                                                  const optimize_model_t *original,
                                                  const char *path,
                                                  const optimize_tokenizer_t *tokenizer,
                                                  const optimize_tensorrt_open_options_t *engine_options,
                                                  const optimize_benchmark_options_t *options,
                                                  const optimize_call_t *call,
                                                  optimize_buffer_t **report,
                                                  optimize_error_t **error);

/**
 * Evaluates a model on `data`: `size` bytes of UTF-8 text in the format of the task (see optimize_evaluate_task_t). If
 * `against` is not NULL, both models are evaluated on the same data and compared sample by sample: `model` is the
 * original, `against` the changed model. The task embedding requires `against`. If `tokenizer` is NULL, that of
 * `model` is used. For perplexity, `against` reads the same token ids as `model`; for other tasks, it uses its own
 * tokenizer if that differs. Classes of the two models are matched by name. `report` receives the JSON of
 * docs/report.md. Progress stages: "evaluate", in tokens or texts, then "hash", in bytes. Any thread may call this
 * function.
 *
 * Returns OPTIMIZE_NOT_FOUND if there is no tokenizer; OPTIMIZE_INVALID_ARGUMENT if the data do not have the format of
 * the task (the message names the line), if options do not fit the model, or if `task` is 0 and no task fits the
 * model; OPTIMIZE_INVALID_ARGUMENT also if the token ids or the classes of the two models cannot be compared;
 * OPTIMIZE_UNSUPPORTED if a model does not support the task; OPTIMIZE_LIMIT_EXCEEDED above 64 MiB of data.
 */
OPTIMIZE_API
optimize_status_t optimize_model_evaluate(const optimize_context_t *context,
                                          const optimize_model_t *model,
                                          const optimize_model_t *against,
                                          const optimize_tokenizer_t *tokenizer,
                                          const char *data,
                                          size_t size,
                                          const optimize_evaluate_options_t *options,
                                          const optimize_call_t *call,
                                          optimize_buffer_t **report,
                                          optimize_error_t **error);

/**
 * Applies the techniques of the rows to models, compiles the results to packages, and compares them with the
 * originals, which run in ONNX Runtime with its own kernels. Writes the packages to `folder`, and after every row
 * table.json and table.md. `report` (may be NULL) receives the JSON of docs/table.md. A finished row is not measured
 * again for the same model, recipe, options, machine and versions: a call that was cancelled, timed out or killed
 * continues where it stopped. A row that needs a GPU or data that is not available is skipped, with the reason in the
 * table. The call takes minutes to an hour. Progress stage: "table: ROW of MODEL", in thousandths of a row.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if a row is unknown (the message lists the names), or if there is no model.
 */
OPTIMIZE_API
optimize_status_t optimize_models_table(const optimize_context_t *context,
                                        const optimize_model_t *const *models,
                                        size_t count,
                                        const char *folder,
                                        const optimize_table_options_t *options,
                                        const optimize_call_t *call,
                                        optimize_buffer_t **report,
                                        optimize_error_t **error);

/**
 * Writes a number of a report, for example "/quality/perplexity" or "/summary/nodes_quantized". `pointer` is a JSON
 * Pointer (RFC 6901): the keys and indices on the way to the value, each after a "/". Booleans are 1 and 0. The fields
 * are those of docs/report.md. The function works for every buffer of this library that contains JSON.
 *
 * Returns OPTIMIZE_NOT_FOUND if there is no such value, or if it is `null`; OPTIMIZE_INVALID_ARGUMENT if it is not a
 * number, or if the buffer holds no JSON.
 */
OPTIMIZE_API
optimize_status_t optimize_report_number(const optimize_buffer_t *report,
                                         const char *pointer,
                                         double *value,
                                         optimize_error_t **error);

/**
 * Writes a text of a report, for example "/benchmark/speedup/verdict", and its size in bytes without the final NUL;
 * see `optimize_report_number` for `pointer`. `size` may be NULL. The text is valid until the report is freed.
 *
 * Returns OPTIMIZE_NOT_FOUND if there is no such value, or if it is `null`; OPTIMIZE_INVALID_ARGUMENT if it is not a
 * text, or if the buffer holds no JSON.
 */
OPTIMIZE_API
optimize_status_t optimize_report_text(const optimize_buffer_t *report,
                                       const char *pointer,
                                       const char **value,
                                       size_t *size,
                                       optimize_error_t **error);

/**
 * Writes the number of entries of a list or an object of a report, for example "/nodes" or "/warnings"; see
 * `optimize_report_number` for `pointer`.
 *
 * Returns OPTIMIZE_NOT_FOUND if there is no such value, or if it is `null`; OPTIMIZE_INVALID_ARGUMENT if it is neither
 * a list nor an object, or if the buffer holds no JSON.
 */
OPTIMIZE_API
optimize_status_t optimize_report_count(const optimize_buffer_t *report,
                                        const char *pointer,
                                        size_t *count,
                                        optimize_error_t **error);

/**
 * Returns the number of nodes in the report of a technique; 0 if `report` is NULL or has none.
 */
OPTIMIZE_API
size_t optimize_report_node_count(const optimize_buffer_t *report);

/**
 * Writes the action of a technique on the node at `index`. The texts in `node` are valid until the report is freed.
 *
 * Returns OPTIMIZE_NOT_FOUND if there is no such node; OPTIMIZE_INVALID_ARGUMENT if the buffer holds no JSON.
 */
OPTIMIZE_API
optimize_status_t optimize_report_node(const optimize_buffer_t *report,
                                       size_t index,
                                       optimize_node_report_t *node,
                                       optimize_error_t **error);

/**
 * Writes the results of a benchmark, from the report of `optimize_model_benchmark` or
 * `optimize_model_benchmark_engine`. `verdict` is valid until the report is freed.
 *
 * Returns OPTIMIZE_NOT_FOUND if the report has no benchmark; OPTIMIZE_INVALID_ARGUMENT if the buffer holds no JSON.
 */
OPTIMIZE_API
optimize_status_t optimize_report_benchmark(const optimize_buffer_t *report,
                                            optimize_benchmark_t *benchmark,
                                            optimize_error_t **error);

/**
 * Returns the number of generated texts in the report of `optimize_generator_generate` or `optimize_generator_run`; 0
 * if `report` is NULL or has none.
 */
OPTIMIZE_API
size_t optimize_generation_count(const optimize_buffer_t *report);

/**
 * Writes the generated text of a row. The pointers in `generation` are valid until the report is freed.
 *
 * Returns OPTIMIZE_NOT_FOUND if there is no such row; OPTIMIZE_INVALID_ARGUMENT if the buffer holds no JSON.
 */
OPTIMIZE_API
optimize_status_t optimize_generation_get(const optimize_buffer_t *report,
                                          size_t row,
                                          optimize_generation_t *generation,
                                          optimize_error_t **error);

/**
 * Writes one of the most probable tokens at the position `token` of the generated tokens of a row; the token at
 * `index` 0 is the most probable one. The number of candidates is the option `logprobs`, less one. Set `struct_size`
 * of `candidate` before the call.
 *
 * Returns OPTIMIZE_NOT_FOUND if there is no such row, token or candidate; OPTIMIZE_INVALID_ARGUMENT if the buffer
 * holds no JSON.
 */
OPTIMIZE_API
optimize_status_t optimize_generation_candidate(const optimize_buffer_t *report,
                                                size_t row,
                                                size_t token,
                                                size_t index,
                                                optimize_candidate_t *candidate,
                                                optimize_error_t **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OPTIMIZE_H */
