/*
 * liboptimize: makes trained models smaller and faster, and runs them, without Python.
 *
 * Introduction
 *
 *   A context holds the ONNX Runtime library. A model is loaded, immutable, and shared freely between threads.
 *   A technique (optimize_model_quantize ...) takes a model and returns a new one with a report. A model is
 *   saved, or run in a session. An ensemble combines several models. A benchmark compares two models; an
 *   evaluation measures one or two models on data.
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
 *   Results    Result pointers are set to NULL first and written only on success. Each type has a ..._free,
 *              which accepts NULL. Objects keep alive what they need: they can be freed in any order.
 *   Errors     An error is an object with a status, a message and a place; free it with optimize_error_free.
 *   Options    struct_size is the sizeof of the struct. NULL, or all zero after the size, selects the
 *              defaults. Structs only grow at the end: programs built with an older header keep working.
 *   Text       Paths and names are NUL-terminated UTF-8.
 *   Threads    Any number of threads may use a `const T *` concurrently, and one thread at a time a `T *`. A
 *              handle must not be freed while another thread uses it.
 *   Handles    NULL, and a handle of another type, return a status.
 *   Process    The library never exits, prints, opens a socket or changes signals, locale or environment,
 *              with one exception: ORT_DISABLE_TELEMETRY is set while ONNX Runtime is opened, then restored.
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

/* Marks what has a successor, which the message names; OPTIMIZE_NO_DEPRECATED disables the compiler's warning. */
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
 * The status of a call. 0 is success; values never change, new ones are added at the end.
 */
typedef enum optimize_status_t {
  /**
   * Success.
   */
  OPTIMIZE_OK = 0,
  /**
   * An argument is out of range.
   */
  OPTIMIZE_INVALID_ARGUMENT = 1,
  /**
   * A handle has another type, or was freed.
   */
  OPTIMIZE_INVALID_HANDLE = 2,
  /**
   * A file, tensor, input or name does not exist.
   */
  OPTIMIZE_NOT_FOUND = 3,
  /**
   * The operating system failed to read or write.
   */
  OPTIMIZE_IO = 4,
  /**
   * The model file is damaged, hostile or not a model.
   */
  OPTIMIZE_INVALID_MODEL = 5,
  /**
   * The request is valid, but not supported by this version.
   */
  OPTIMIZE_UNSUPPORTED = 6,
  /**
   * A limit of this library is exceeded.
   */
  OPTIMIZE_LIMIT_EXCEEDED = 7,
  /**
   * ONNX Runtime was not found or is too old.
   */
  OPTIMIZE_RUNTIME_MISSING = 8,
  /**
   * ONNX Runtime refused the model or failed.
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
   * A quality or speed limit was not met.
   */
  OPTIMIZE_GATE_NOT_MET = 13,
  /**
   * A defect of this library; the process is intact.
   */
  OPTIMIZE_INTERNAL = 14,
  /**
   * TensorRT was not found, is too old, or this library was built without its headers.
   */
  OPTIMIZE_BACKEND_MISSING = 15,
  /**
   * No NVIDIA driver or no device was found.
   */
  OPTIMIZE_DEVICE_MISSING = 16,
  /**
   * TensorRT refused the model or failed.
   */
  OPTIMIZE_BACKEND = 17,
  /**
   * The file belongs to another model, library or device.
   */
  OPTIMIZE_MISMATCH = 18,
  /**
   * The file contains executable code, and its source was not marked as trusted.
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
   * An NVIDIA GPU, with the kernels of ONNX Runtime.
   */
  OPTIMIZE_PROVIDER_CUDA = 1,
  /**
   * An NVIDIA GPU, with engines that TensorRT builds of parts of the graph; other nodes run on CUDA.
   */
  OPTIMIZE_PROVIDER_TENSORRT = 2,
  /**
   * The first available of TensorRT, CUDA and CPU. Only for requests: a session reports the provider it uses.
   */
  OPTIMIZE_PROVIDER_AUTO = 3,
} optimize_provider_t;

/**
 * Where the begin-of-text token (`<s>`) is inserted, for models whose tokenizer has one. It is never scored.
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
   * Never.
   */
  OPTIMIZE_BOS_NEVER = 2,
} optimize_bos_t;

/**
 * Divergence between the distributions of teacher and student.
 */
typedef enum optimize_divergence_t {
  /**
   * KL(teacher ‖ student): the student covers everything that the teacher considers possible.
   */
  OPTIMIZE_DIVERGENCE_FORWARD = 0,
  /**
   * KL(student ‖ teacher): the student concentrates on what the teacher considers most probable.
   */
  OPTIMIZE_DIVERGENCE_REVERSE = 1,
  /**
   * Jensen-Shannon divergence: mean of the divergences of both from their mean.
   */
  OPTIMIZE_DIVERGENCE_JENSEN_SHANNON = 2,
} optimize_divergence_t;

/**
 * Element types, with the values of ONNX. Types below a byte are packed, low bits first.
 */
typedef enum optimize_dtype_t {
  /**
   * Not a tensor, or not declared.
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
 * How the outputs of the members are combined.
 */
typedef enum optimize_ensemble_method_t {
  /**
   * Mean of the probabilities; for embeddings, of the normalized vectors; for numeric outputs, of the numbers.
   */
  OPTIMIZE_ENSEMBLE_MEAN = 0,
  /**
   * Weighted mean; needs weights.
   */
  OPTIMIZE_ENSEMBLE_WEIGHTED = 1,
  /**
   * Softmax of the mean of the logits.
   */
  OPTIMIZE_ENSEMBLE_LOGITS = 2,
  /**
   * Normalized product of the probabilities.
   */
  OPTIMIZE_ENSEMBLE_PRODUCT = 3,
  /**
   * Maximum probability of each token, normalized.
   */
  OPTIMIZE_ENSEMBLE_MAX = 4,
  /**
   * Median probability of each token, normalized.
   */
  OPTIMIZE_ENSEMBLE_MEDIAN = 5,
  /**
   * Share of the members that rank the token, or class, first.
   */
  OPTIMIZE_ENSEMBLE_VOTE = 6,
  /**
   * Probabilities of the first member divided by those of the second, where the first considers a token plausible.
   */
  OPTIMIZE_ENSEMBLE_CONTRASTIVE = 7,
  /**
   * Each member generates texts, all members score them, and the best text is the result.
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
   * The task that is detected from the members.
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
   * Numeric outputs, which are combined element by element.
   */
  OPTIMIZE_ENSEMBLE_NUMBERS = 4,
} optimize_ensemble_task_t;

/**
 * Evaluation task, with the form of its data.
 */
typedef enum optimize_evaluate_task_t {
  /**
   * The task of the model: text generation, embedding or classification.
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
   * Accuracy of a classifier. The data are rows of a label and a text, TSV or CSV.
   */
  OPTIMIZE_EVALUATE_CLASSIFICATION = 3,
  /**
   * Accuracy of a linear classifier on the model's embeddings. The data are as for classification.
   */
  OPTIMIZE_EVALUATE_PROBE = 4,
} optimize_evaluate_task_t;

/**
 * Where `optimize_model_save` stores weights.
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
 * Why a text ended.
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
   * A limit was reached.
   */
  OPTIMIZE_FINISH_LENGTH = 2,
  /**
   * A stop string or a stop token was found.
   */
  OPTIMIZE_FINISH_STOP = 3,
  /**
   * The callback requested to stop.
   */
  OPTIMIZE_FINISH_CANCELLED = 4,
} optimize_finish_reason_t;

/**
 * How structured pruning ranks neurons, channels and heads.
 */
typedef enum optimize_importance_t {
  /**
   * By the sum of magnitudes.
   */
  OPTIMIZE_IMPORTANCE_L1 = 0,
  /**
   * By the root of the sum of squares.
   */
  OPTIMIZE_IMPORTANCE_L2 = 1,
  /**
   * By weights and by activations on the calibration text.
   */
  OPTIMIZE_IMPORTANCE_ACTIVATION = 2,
  /**
   * Randomly, by the seed.
   */
  OPTIMIZE_IMPORTANCE_RANDOM = 3,
} optimize_importance_t;

/**
 * How the weights of several models are merged.
 */
typedef enum optimize_merge_method_t {
  /**
   * The (weighted) mean.
   */
  OPTIMIZE_MERGE_LINEAR = 0,
  /**
   * Spherical interpolation between two models, at the weight of the second.
   */
  OPTIMIZE_MERGE_SLERP = 1,
  /**
   * The largest changes of each model from a base model that agree in sign.
   */
  OPTIMIZE_MERGE_TIES = 2,
} optimize_merge_method_t;

/**
 * Kernels of a session on the CPU.
 */
typedef enum optimize_kernels_t {
  /**
   * Those of this library for groups of nodes that are faster with them, ONNX Runtime's for the others. The file
   * liboptimize.so is registered with ONNX Runtime as an execution provider: see docs/provider.md.
   */
  OPTIMIZE_KERNELS_AUTO = 0,
  /**
   * Those of ONNX Runtime only, as in programs without this library.
   */
  OPTIMIZE_KERNELS_STOCK = 1,
} optimize_kernels_t;

/**
 * The function that turns the logits of a classifier into scores.
 */
typedef enum optimize_score_function_t {
  /**
   * That of the model: sigmoid if its classes do not exclude each other (problem_type) or if it has only one, none
   * for a regression, otherwise softmax.
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
   * No function: the scores are the logits.
   */
  OPTIMIZE_SCORE_FUNCTION_NONE = 3,
} optimize_score_function_t;

/**
 * Precision of products of float32 inputs and constant float32 weights on the CPU.
 */
typedef enum optimize_session_precision_t {
  /**
   * float32.
   */
  OPTIMIZE_SESSION_PRECISION_FP32 = 0,
  /**
   * bfloat16 with float32 sums, where the processor multiplies bfloat16 faster than float32.
   */
  OPTIMIZE_SESSION_PRECISION_BF16 = 1,
  /**
   * int8: weights with a scale for each output column, inputs with one for each row, computed at run time.
   */
  OPTIMIZE_SESSION_PRECISION_INT8 = 2,
} optimize_session_precision_t;

/**
 * How much ONNX Runtime rewrites the graph before it runs it. This never changes the meaning of the model.
 */
typedef enum optimize_optimization_level_t {
  /**
   * All optimizations.
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
   * The types of the model.
   */
  OPTIMIZE_PRECISION_FP32 = 0,
  /**
   * Products and the nodes around them in float16. Needs ONNX Runtime, to measure the error.
   */
  OPTIMIZE_PRECISION_FP16 = 1,
  /**
   * As OPTIMIZE_PRECISION_FP16, in bfloat16.
   */
  OPTIMIZE_PRECISION_BF16 = 2,
  /**
   * Products with weights in 8-bit integers.
   */
  OPTIMIZE_PRECISION_INT8 = 3,
  /**
   * As OPTIMIZE_PRECISION_INT8, in float8 (e4m3).
   */
  OPTIMIZE_PRECISION_FP8 = 4,
} optimize_precision_t;

/**
 * How weights are selected for pruning.
 */
typedef enum optimize_prune_method_t {
  /**
   * Sets the weights with the smallest magnitude to zero.
   */
  OPTIMIZE_PRUNE_MAGNITUDE = 0,
  /**
   * Sets random weights to zero, by the seed.
   */
  OPTIMIZE_PRUNE_RANDOM = 1,
  /**
   * Sets, per output, the weights with the smallest magnitude times input norm to zero. Needs calibration data.
   */
  OPTIMIZE_PRUNE_WANDA = 2,
  /**
   * Sets weights to zero whose error the rest of the row can compensate, and updates the rest. Needs calibration
   * data.
   */
  OPTIMIZE_PRUNE_SPARSEGPT = 3,
  /**
   * Removes neurons, channels and heads.
   */
  OPTIMIZE_PRUNE_STRUCTURED = 4,
} optimize_prune_method_t;

/**
 * Kind of quantization.
 */
typedef enum optimize_quantize_type_t {
  /**
   * int8 weights; activations are quantized at run time. Needs no data. Weights without an integer kernel (Conv,
   * LSTM ...) are stored in 8 bits and computed in float.
   */
  OPTIMIZE_QUANTIZE_DYNAMIC = 0,
  /**
   * Weights in blocks of 2, 4 or 8 bits, each with its scale; activations stay float. Weights that no block
   * operator supports are stored in 4 or 8 bits and computed in float.
   */
  OPTIMIZE_QUANTIZE_WEIGHT_ONLY = 1,
  /**
   * int8 weights; activations are quantized with scales from calibration data.
   */
  OPTIMIZE_QUANTIZE_STATIC = 2,
} optimize_quantize_type_t;

/**
 * How the codes of weights in blocks are chosen (weight-only).
 */
typedef enum optimize_algorithm_t {
  /**
   * GPTQ with calibration data, otherwise RTN.
   */
  OPTIMIZE_ALGORITHM_AUTO = 0,
  /**
   * Round to nearest, with a search for scale and zero point.
   */
  OPTIMIZE_ALGORITHM_RTN = 1,
  /**
   * Half-quadratic quantization.
   */
  OPTIMIZE_ALGORITHM_HQQ = 2,
  /**
   * Compensates the error of each weight in the following ones. Needs calibration data.
   */
  OPTIMIZE_ALGORITHM_GPTQ = 3,
  /**
   * Scales inputs by the magnitude of activations. Needs calibration data.
   */
  OPTIMIZE_ALGORITHM_AWQ = 4,
} optimize_algorithm_t;

/**
 * How the range of an activation is determined on calibration data (static).
 */
typedef enum optimize_calibration_method_t {
  /**
   * From the minimum to the maximum value.
   */
  OPTIMIZE_CALIBRATION_MIN_MAX = 0,
  /**
   * Between percentiles, without the outermost values.
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
 * Whether weights use 7 of their 8 bits, as x86 processors without VNNI require.
 */
typedef enum optimize_reduce_range_t {
  /**
   * By the present processor.
   */
  OPTIMIZE_REDUCE_RANGE_AUTO = 0,
  /**
   * 7 bits: for models that will run on processors without VNNI.
   */
  OPTIMIZE_REDUCE_RANGE_ON = 1,
  /**
   * 8 bits.
   */
  OPTIMIZE_REDUCE_RANGE_OFF = 2,
} optimize_reduce_range_t;

/**
 * How the scales of blocks are stored (weight-only). Sessions always use float32.
 */
typedef enum optimize_scale_type_t {
  /**
   * One byte, times a float32 factor per row.
   */
  OPTIMIZE_SCALE_UINT8 = 0,
  /**
   * Two bytes.
   */
  OPTIMIZE_SCALE_FLOAT16 = 1,
  /**
   * Four bytes.
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
   * TensorRT if it and a device are available, else TensorRT-RTX, else ONNX Runtime's provider; the report gives
   * the reason.
   */
  OPTIMIZE_TENSORRT_AUTO = 0,
  /**
   * TensorRT 11 (libnvinfer.so.11), for the present device.
   */
  OPTIMIZE_TENSORRT_NVINFER = 1,
  /**
   * TensorRT-RTX 1 (libtensorrt_rtx.so.1), which needs no device.
   */
  OPTIMIZE_TENSORRT_RTX = 2,
  /**
   * ONNX Runtime's TensorRT provider: writes a model that contains engines (X_ctx.onnx).
   */
  OPTIMIZE_TENSORRT_ONNXRUNTIME = 3,
} optimize_tensorrt_backend_t;

/**
 * Bytes returned by the library: a report or a decoded text. They are followed by a NUL that is not counted, so text
 * can be printed directly. Immutable: any thread may read it.
 */
typedef struct optimize_buffer_t optimize_buffer_t;

/**
 * A cancel token, which any thread may use to stop the calls it was passed to. It may be freed while calls still use
 * it.
 */
typedef struct optimize_cancel_t optimize_cancel_t;

/**
 * Turns texts, or pairs of texts, into scores of classes. It may move between threads, but accepts one call at a
 * time: a concurrent one returns OPTIMIZE_BUSY.
 */
typedef struct optimize_classifier_t optimize_classifier_t;

/**
 * The ONNX Runtime library and the default number of threads. A program usually has one. Any number of threads may
 * use it concurrently.
 */
typedef struct optimize_context_t optimize_context_t;

/**
 * Turns texts into vectors. It may move between threads, but accepts one call at a time: a concurrent one returns
 * OPTIMIZE_BUSY.
 */
typedef struct optimize_embedder_t optimize_embedder_t;

/**
 * Models whose outputs are combined, and how. Immutable: any number of threads may use it concurrently.
 */
typedef struct optimize_ensemble_t optimize_ensemble_t;

/**
 * An error: status, message and place. It is an object instead of thread-local state because goroutines and C#
 * continuations change threads between calls. Immutable: any thread may read it.
 */
typedef struct optimize_error_t optimize_error_t;

/**
 * A decoder ready to generate text, with the tokens it has read so far. It accepts one call at a time: a concurrent
 * one returns OPTIMIZE_BUSY.
 */
typedef struct optimize_generator_t optimize_generator_t;

/**
 * A loaded or created model. Immutable: any number of threads may use it concurrently. Weights stay in their mapped
 * files, which must not be truncated while the model exists (replacing them by renaming is allowed).
 */
typedef struct optimize_model_t optimize_model_t;

/**
 * An open package. Immutable: any number of threads may use it concurrently. Its files stay mapped.
 */
typedef struct optimize_package_t optimize_package_t;

/**
 * A model, or a TensorRT engine of one, ready to run. It may move between threads, but accepts one run at a time: a
 * concurrent one returns OPTIMIZE_BUSY. Create one session per thread; they share the model's weights in memory.
 */
typedef struct optimize_session_t optimize_session_t;

/**
 * Elements with a type and a shape. Immutable: any number of threads may use it concurrently.
 */
typedef struct optimize_tensor_t optimize_tensor_t;

/**
 * A tokenizer, which encodes text to ids and decodes ids. Immutable: any number of threads may use it concurrently.
 */
typedef struct optimize_tokenizer_t optimize_tokenizer_t;

/**
 * Options of `optimize_context_new`. All zero selects the defaults.
 */
typedef struct optimize_context_options_t {
  /**
   * sizeof(optimize_context_options_t).
   */
  uint32_t struct_size;
  /**
   * Default number of threads; 0 is all processors.
   */
  uint32_t threads;
  /**
   * Path of the ONNX Runtime library; NULL searches ORT_DYLIB_PATH, the folder of this library, and the system's
   * library path. A process has one ONNX Runtime: another path than that of the open library returns
   * OPTIMIZE_INVALID_ARGUMENT.
   */
  const char *runtime_library;
} optimize_context_options_t;

/**
 * Progress callback. It is called on the thread that made the call, at most 20 times per second. `stage` is valid
 * during the callback; `total` is 0 if unknown. Returning a value other than 0 cancels the call. It must not throw
 * or use longjmp.
 */
typedef int32_t (*optimize_progress_fn)(void *user_data,
                                        const char *stage,
                                        uint64_t done,
                                        uint64_t total);

/**
 * Progress, timeout and cancellation of a long call. NULL or all zero disables all three.
 */
typedef struct optimize_call_t {
  /**
   * sizeof(optimize_call_t).
   */
  uint32_t struct_size;
  /**
   * Timeout in milliseconds, after which the call returns OPTIMIZE_TIMEOUT; 0 disables it.
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
 * Options of `optimize_model_save`. All zero selects the defaults.
 */
typedef struct optimize_save_options_t {
  /**
   * sizeof(optimize_save_options_t).
   */
  uint32_t struct_size;
  /**
   * Where weights are stored, an optimize_external_data_t.
   */
  int32_t external_data;
  /**
   * Not 0: writes a packed file, in which a zero takes one bit and other floats about 15 % less. Only this library
   * reads it (`optimize_model_load`, by its content); the weights are restored bit by bit.
   */
  uint32_t packed;
} optimize_save_options_t;

/**
 * Name, type and shape of an input or output. Set `struct_size` before the call; the pointers are owned by the model
 * or session.
 */
typedef struct optimize_value_info_t {
  /**
   * sizeof(optimize_value_info_t).
   */
  uint32_t struct_size;
  /**
   * Element type, an optimize_dtype_t; OPTIMIZE_DTYPE_UNKNOWN for a sequence or map.
   */
  int32_t dtype;
  /**
   * Name of the input or output in a run.
   */
  const char *name;
  /**
   * Number of dimensions; -1 if it is not declared.
   */
  int64_t rank;
  /**
   * Array of `rank` sizes; -1 for any size.
   */
  const int64_t *dims;
  /**
   * Array of `rank` names; equal names require equal sizes, "" requires nothing.
   */
  const char *const *dim_names;
} optimize_value_info_t;

/**
 * Release callback for borrowed memory. It is called when the last user is gone, on any thread.
 */
typedef void (*optimize_release_fn)(void *user_data);

/**
 * Options of `optimize_session_new`. All zero selects the defaults.
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
   * Not 0: keeps weights in place instead of reordering them for this processor, for less memory, a faster start
   * and slower runs. Ignored for models with block-quantized weights (MatMulNBits; most GGUF files), which would
   * take 35 times as long.
   */
  uint32_t disable_prepacking;
  /**
   * Not 0: rounds the activations of block-quantized products (MatMulNBits: GGUF files, weight-only quantization)
   * to 8 bits, as other engines do by default: faster and less exact.
   */
  uint32_t round_activations;
  /**
   * Not 0: trusts the source of the model. Engines inside a model (EPContext) are code that a device runs;
   * otherwise they return OPTIMIZE_UNTRUSTED.
   */
  uint32_t trust_engines;
  /**
   * Execution provider, an optimize_provider_t. A requested provider that is not available returns
   * OPTIMIZE_BACKEND_MISSING or OPTIMIZE_DEVICE_MISSING with ONNX Runtime's own reason; another provider never
   * replaces it.
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
   * Kernels on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * Precision of products with constant float32 weights on the CPU, an optimize_session_precision_t. Any but FP32
   * needs the kernels of this library, and returns OPTIMIZE_BACKEND_MISSING without.
   */
  int32_t precision;
} optimize_session_options_t;

/**
 * Options of `optimize_tokenizer_encode`. All zero selects the defaults.
 */
typedef struct optimize_encode_options_t {
  /**
   * sizeof(optimize_encode_options_t).
   */
  uint32_t struct_size;
  /**
   * Not 0: leaves out the special tokens of the model ([CLS], <s> …).
   */
  uint32_t no_special_tokens;
  /**
   * Maximum length of a row in tokens, including special ones; longer rows are truncated at the end. 0 is no
   * limit.
   */
  uint32_t max_length;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} optimize_encode_options_t;

/**
 * Options of `optimize_tokenizer_decode`. All zero selects the defaults.
 */
typedef struct optimize_decode_options_t {
  /**
   * sizeof(optimize_decode_options_t).
   */
  uint32_t struct_size;
  /**
   * Not 0: keeps special tokens in the text.
   */
  uint32_t keep_special_tokens;
} optimize_decode_options_t;

/**
 * Options of `optimize_generator_new`. All zero selects the defaults.
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
   * Not 0: rounds the activations of block-quantized products, see optimize_session_options_t.
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
   * Kernels on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * Precision of products with constant float32 weights on the CPU, an optimize_session_precision_t. Any but FP32
   * needs the kernels of this library, and returns OPTIMIZE_BACKEND_MISSING without.
   */
  int32_t precision;
} optimize_generator_options_t;

/**
 * A token as it is generated.
 */
typedef struct optimize_written_t {
  /**
   * sizeof(optimize_written_t) of the library.
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
   * Text of `text_size` bytes of UTF-8 that later tokens cannot change, not NUL-terminated: whole characters,
   * without any part of a stop string. Often empty. Valid during the callback.
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
   * Finish reason, an optimize_finish_reason_t; not 0 with the last token of a row.
   */
  int32_t finish_reason;
  /**
   * Ensembles: entropy of the combined distribution, in nats; otherwise 0.
   */
  double entropy;
  /**
   * Ensembles: part of the entropy that is disagreement between the members, in nats; otherwise 0.
   */
  double mutual_information;
  /**
   * Ensembles: share of the members, by weight, that rank this token first; otherwise 0.
   */
  double agreement;
} optimize_written_t;

/**
 * Token callback. It is called for every token, on the thread that made the call. Returning a value other than 0
 * ends all rows. It must not throw or use longjmp.
 */
typedef int32_t (*optimize_token_fn)(void *user_data,
                                     const optimize_written_t *written);

/**
 * Options of `optimize_generator_generate` and `optimize_generator_run`. All zero selects the defaults: the most
 * probable token each time, at most 256 new tokens.
 */
typedef struct optimize_generate_options_t {
  /**
   * sizeof(optimize_generate_options_t).
   */
  uint32_t struct_size;
  /**
   * Maximum number of new tokens per row; 0 with max_length 0 is 256.
   */
  uint32_t max_new_tokens;
  /**
   * Maximum number of tokens per row, including the prompt; 0 is no limit.
   */
  uint32_t max_length;
  /**
   * Sampling: number of most probable tokens to sample among; 0 is all.
   */
  uint32_t top_k;
  /**
   * Sampling temperature, by which logits are divided; 0 selects the most probable token. With 0, top_k above 1,
   * top_p and min_p return OPTIMIZE_INVALID_ARGUMENT, because they would have no effect.
   */
  float temperature;
  /**
   * Sampling: total probability of the most probable tokens to sample among; 0 is all.
   */
  float top_p;
  /**
   * Sampling: minimum probability of a token relative to the most probable one; 0 is all.
   */
  float min_p;
  /**
   * Repetition penalty: above 1 makes tokens of prompt and text less probable; 0 disables it.
   */
  float repetition_penalty;
  /**
   * Presence penalty, subtracted from the logits of tokens in the generated text; 0 disables it.
   */
  float presence_penalty;
  /**
   * Frequency penalty, subtracted from the logits of tokens in the generated text once per occurrence; 0 disables
   * it.
   */
  float frequency_penalty;
  /**
   * Length of token sequences that may not repeat; 0 disables it.
   */
  uint32_t no_repeat_ngram_size;
  /**
   * Log-probabilities: 0 returns none, n returns that of each token and of the n - 1 most probable ones.
   */
  uint32_t logprobs;
  /**
   * Seed of the sampling; the same seed gives the same text.
   */
  uint64_t seed;
  /**
   * Array of `stop_count` strings that end the text of a row and are not part of it. The text of a special token
   * counts where the model generates that token.
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
   * Not 0: prompts already contain their special tokens (as the result of `optimize_model_render_chat`).
   */
  uint32_t rendered;
  /**
   * Not 0: continues after end-of-text tokens.
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
} optimize_generate_options_t;

/**
 * Options of `optimize_embedder_new`. All zero selects the defaults.
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
   * Number of texts per run; 0 is 8. Texts of similar length are run together, padded to the longest. With 1, the
   * vector of a text does not depend on other texts in any model.
   */
  uint32_t batch_size;
  /**
   * Number of tokens after which a text is truncated; 0 is the limit of the model, up to 512.
   */
  uint32_t max_length;
  /**
   * Number of elements of a vector to keep, the first ones, for models that are trained for it (Matryoshka); 0 keeps
   * all.
   */
  uint32_t dimensions;
  /**
   * Not 0: normalizes vectors to length 1, also if the model does not.
   */
  uint32_t normalize;
  /**
   * Text that precedes every text; NULL is the default prompt of the model, if it has one.
   */
  const char *prompt;
  /**
   * Name of a prompt in the model's config_sentence_transformers.json ("query" ...), in place of `prompt`; or NULL.
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
   * Kernels on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * Precision of products with constant float32 weights on the CPU, an optimize_session_precision_t. Any but FP32
   * needs the kernels of this library, and returns OPTIMIZE_BACKEND_MISSING without.
   */
  int32_t precision;
} optimize_embedder_options_t;

/**
 * Options of `optimize_classifier_new`. All zero selects the defaults.
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
   * Number of texts per run; 0 is 8. Texts of similar length are run together, padded to the longest. With 1, the
   * scores of a text do not depend on other texts in any model.
   */
  uint32_t batch_size;
  /**
   * Number of tokens after which a text or pair is truncated; 0 is the limit of the model, up to 512.
   */
  uint32_t max_length;
  /**
   * The function that turns logits into scores, an optimize_score_function_t.
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
   * Kernels on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * TensorRT: absolute path of a folder that caches engines; NULL disables the cache.
   */
  const char *engine_cache;
  /**
   * Precision of products with constant float32 weights on the CPU, an optimize_session_precision_t. Any but FP32
   * needs the kernels of this library, and returns OPTIMIZE_BACKEND_MISSING without.
   */
  int32_t precision;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} optimize_classifier_options_t;

/**
 * Options of `optimize_model_quantize`. All zero selects the defaults.
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
   * Bits per weight: 8, weight-only also 4 or 2; 0 is 8, weight-only 4. 2 bits are meant for target_size, which
   * mixes them.
   */
  uint32_t bits;
  /**
   * Use of 7 bits for weights, an optimize_reduce_range_t.
   */
  int32_t reduce_range;
  /**
   * Not 0: uses one scale per weight instead of one per output channel.
   */
  uint32_t per_tensor;
  /**
   * Not 0: keeps embedding tables float.
   */
  uint32_t keep_embeddings;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Weight-only: elements of a row that share a scale, 16 to 256; 0 is 32.
   */
  uint32_t block_size;
  /**
   * Weight-only, not 0: symmetric codes without a zero point per block. Blocks of 8 bits are always symmetric.
   */
  uint32_t symmetric;
  /**
   * Weight-only: storage of scales, an optimize_scale_type_t.
   */
  int32_t scale_type;
  /**
   * Weight-only: accuracy_level of MatMulNBits. 4 rounds activations to 8 bits per block, which is faster; 1 keeps
   * them float32. 0 is 4.
   */
  uint32_t accuracy_level;
  /**
   * Number of windows of the calibration text; 0 is 16.
   */
  uint32_t calibration_windows;
  /**
   * Tokens per window; 0 is 512, or the limit of the model.
   */
  uint32_t calibration_length;
  /**
   * Not 0: keeps nodes float that are not faster when quantized, measured here. Needs ONNX Runtime.
   */
  uint32_t never_slower;
  /**
   * Minimum number of elements of a weight to quantize; 0 is 1024.
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
   * Array of `exclude_count` globs of node and weight names to leave unchanged; takes precedence over `include`.
   */
  const char *const *exclude;
  /**
   * Number of globs in `exclude`.
   */
  uint64_t exclude_count;
  /**
   * Weight-only: array of `override_count` texts `GLOB=BITS` or `GLOB=BITS/BLOCK`: other bits for matching nodes
   * and weights; the first match counts.
   */
  const char *const *overrides;
  /**
   * Number of texts in `overrides`.
   */
  uint64_t override_count;
  /**
   * Calibration text in UTF-8 of `calibration_size` bytes, or NULL. Static: the scales of activations are found on
   * it. Weight-only: selects GPTQ, which reproduces the layers' outputs on it, in minutes instead of seconds.
   * Needs ONNX Runtime, and the tokenizer of the model.
   */
  const char *calibration;
  /**
   * Number of bytes of `calibration`.
   */
  uint64_t calibration_size;
  /**
   * Folder for the quantized weights until they are saved (an unlinked file); NULL is the system's.
   */
  const char *scratch_folder;
  /**
   * Weight-only: choice of codes, an optimize_algorithm_t.
   */
  int32_t algorithm;
  /**
   * Static: choice of ranges, an optimize_calibration_method_t.
   */
  int32_t calibration_method;
  /**
   * Static: percentage of the values of an activation that OPTIMIZE_CALIBRATION_PERCENTILE keeps; 0 is 99.99.
   */
  double percentile;
  /**
   * Static and dynamic: share of the spread of activations that moves into the weights, 0 (none) to 1
   * (SmoothQuant's alpha; use 0.8 for encoders, 0.5 for decoders). Measured on the calibration data or, for
   * dynamic with a tokenizer, on built-in sentences.
   */
  double smooth_quant;
  /**
   * Maximum loss on the calibration data, or on generated inputs: mean KL divergence in nats for models with
   * logits, otherwise 1 - mean cosine. 0 is no limit. Needs ONNX Runtime.
   */
  double max_quality_loss;
  /**
   * Maximum size of the result in bytes; the bits of each weight are chosen for it. 0 is no limit. Needs ONNX
   * Runtime.
   */
  uint64_t target_size;
  /**
   * Array of `calibration_tensor_count` names of inputs for `calibration_tensors`, instead of a text.
   */
  const char *const *calibration_names;
  /**
   * Array of `calibration_tensor_count` tensors, whose first dimension counts samples. A run uses as many as the
   * model requires, otherwise 8; a tensor with one dimension more than its input is split along it, one sample per
   * run.
   */
  const optimize_tensor_t *const *calibration_tensors;
  /**
   * Number of inputs in `calibration_names` and `calibration_tensors`.
   */
  uint64_t calibration_tensor_count;
} optimize_quantize_options_t;

/**
 * Options of `optimize_model_prune`. All zero selects the defaults.
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
   * Share of each weight to set to zero, above 0 and below 1; 0 is 0.5, or that of the pattern.
   */
  double sparsity;
  /**
   * Number of non-zero weights among each `pattern_of` consecutive ones along the inputs of a product. 2 and 4 is
   * the pattern 2:4; 0 and 0 is no pattern.
   */
  uint32_t pattern_keep;
  /**
   * Number of consecutive weights of the pattern; see `pattern_keep`.
   */
  uint32_t pattern_of;
  /**
   * Magnitude and random, not 0: uses one threshold for all weights instead of one per weight.
   */
  uint32_t global;
  /**
   * Not 0: also prunes embedding tables, and output layers that share such a table.
   */
  uint32_t embeddings;
  /**
   * Number of threads; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * Structured: ranking of the units, an optimize_importance_t.
   */
  int32_t importance;
  /**
   * Structured: sizes stay multiples of this; 0 is 16 for the channels of image convolutions (8 if there are fewer
   * than 32) and from 256 units on, and 8 from 64 on.
   */
  uint32_t round_to;
  /**
   * Structured, not 0: fits the weight behind each cut to reproduce its original output on the calibration text.
   */
  uint32_t reconstruct;
  /**
   * Structured: number of layers to remove: the least influential on the calibration text; without one, some of
   * the later half. A sparsity of 0 then prunes nothing else.
   */
  uint32_t drop_layers;
  /**
   * Number of windows of the calibration text; 0 is 16, or 64 with `reconstruct`.
   */
  uint32_t calibration_windows;
  /**
   * Tokens per window; 0 is 512, or the limit of the model.
   */
  uint32_t calibration_length;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Seed of random choices.
   */
  uint64_t seed;
  /**
   * Minimum number of elements of a weight to prune; 0 is 1024.
   */
  uint64_t min_elements;
  /**
   * Array of `target_module_count` names or globs of modules, weights or nodes ("query", "mlp.fc1",
   * "layer.*.mlp.*"), each of which may match a part of a longer name, from dot to dot; NULL selects all weights
   * of MatMul, Gemm and Conv. Structured: modules whose outputs are cut, or inputs if outputs cannot be cut. Each
   * must match.
   */
  const char *const *target_modules;
  /**
   * Number of texts in `target_modules`.
   */
  uint64_t target_module_count;
  /**
   * Array of `exclude_count` names or globs to leave unchanged; takes precedence over `target_modules`.
   */
  const char *const *exclude;
  /**
   * Number of texts in `exclude`.
   */
  uint64_t exclude_count;
  /**
   * Array of `override_count` texts `GLOB=SPARSITY`: another sparsity (from 0) for matches; the first match
   * counts.
   */
  const char *const *overrides;
  /**
   * Number of texts in `overrides`.
   */
  uint64_t override_count;
  /**
   * Calibration text in UTF-8 of `calibration_size` bytes, for the methods that measure activations; or NULL.
   * Needs ONNX Runtime, and the tokenizer of the model.
   */
  const char *calibration;
  /**
   * Number of bytes of `calibration`.
   */
  uint64_t calibration_size;
  /**
   * Folder for the pruned weights until they are saved (an unlinked file); NULL is the system's.
   */
  const char *scratch_folder;
  /**
   * Structured: array of `layer_count` indices, as in the names of nodes, of the layers to remove, instead of
   * `drop_layers`.
   */
  const uint32_t *layers;
  /**
   * Number of indices in `layers`.
   */
  uint64_t layer_count;
  /**
   * Structured: size in bytes to prune to, as little as needed, instead of a sparsity; 0 is none.
   */
  uint64_t target_size;
  /**
   * Structured: measured speed-up to prune for, as little as needed (a decoder by steps of one token), instead of
   * a sparsity; 0 is none. Needs ONNX Runtime.
   */
  double target_speedup;
} optimize_prune_options_t;

/**
 * Progress of training.
 */
typedef struct optimize_training_step_t {
  /**
   * sizeof(optimize_training_step_t) of the library.
   */
  uint32_t struct_size;
  /**
   * Not 0: this is a validation on held-out text, not a step.
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
   * Number of steps done.
   */
  uint64_t step;
  /**
   * Number of planned steps; a time limit may end training earlier.
   */
  uint64_t total_steps;
  /**
   * Training loss of this step, or validation loss.
   */
  double loss;
  /**
   * Norm of the gradients before clipping.
   */
  double gradient_norm;
  /**
   * Learning rate of this step.
   */
  double learning_rate;
  /**
   * Tokens per second of this step.
   */
  double tokens_per_second;
  /**
   * Seconds of training, including time before a resume.
   */
  double seconds;
  /**
   * Estimated seconds remaining.
   */
  double seconds_left;
} optimize_training_step_t;

/**
 * Training callback. It is called on the thread that made the call, after each step and each validation. `step` is
 * valid during the callback. A result other than 0 cancels the training, which leaves a checkpoint if one is enabled. It
 * must not throw or use longjmp.
 */
typedef int32_t (*optimize_training_fn)(void *user_data,
                                        const optimize_training_step_t *step);

/**
 * Options of `optimize_model_distill`. All zero selects the defaults.
 */
typedef struct optimize_distill_options_t {
  /**
   * sizeof(optimize_distill_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of passes over the text; 0 is 3.
   */
  uint32_t epochs;
  /**
   * Not 0: each line of the text is JSON, `{"text": "..."}`, and a separate text.
   */
  uint32_t json_lines;
  /**
   * Blocks of text (lines, for models that read lines) per run; 0 is 4.
   */
  uint32_t batch_size;
  /**
   * Tokens per block; longer lines are truncated. 0 is 128, or the limit of the models if that is less.
   */
  uint32_t sequence_length;
  /**
   * Number of runs whose gradients are accumulated into one step; 0 is 1.
   */
  uint32_t gradient_accumulation_steps;
  /**
   * Learning rate after the warm-up; 0 is 5e-5.
   */
  double learning_rate;
  /**
   * Temperature of both distributions; 0 is 2.
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
   * Weight of the divergence of logits in the loss; 0 is 1 if both models have logits. A negative weight disables
   * the part; this holds for all five weights.
   */
  double logits_weight;
  /**
   * Weight of the cross-entropy with the text itself; 0 disables it.
   */
  double labels_weight;
  /**
   * Weight of the mean squared difference of hidden states; 0 is 1 if there are no logits.
   */
  double hidden_weight;
  /**
   * Weight of 1 - cosine of hidden states; 0 is 1 if there are no logits.
   */
  double cosine_weight;
  /**
   * Weight of the relations between queries, keys and values of the last attention; 0 disables it.
   */
  double relations_weight;
  /**
   * Share of the steps in which the learning rate warms up; 0 is 0.05, a negative value disables the warm-up.
   */
  double warmup_ratio;
  /**
   * Weight decay of weights with more than one dimension; 0 is 0.01, a negative value disables it.
   */
  double weight_decay;
  /**
   * Maximum norm of the gradients; 0 is 1, a negative value disables clipping.
   */
  double max_grad_norm;
  /**
   * Share of the text that is held out for validation; 0 is 0.05.
   */
  double validation_ratio;
  /**
   * Maximum training time in seconds; 0 is no limit.
   */
  double time_limit;
  /**
   * Maximum number of steps; 0 is no limit.
   */
  uint64_t max_steps;
  /**
   * Steps between validations; 0 is ten validations in all.
   */
  uint64_t evaluate_every;
  /**
   * Steps between checkpoints; 0 is every ten minutes.
   */
  uint64_t checkpoint_every;
  /**
   * Seed of the order of the text.
   */
  uint64_t seed;
  /**
   * Array of `freeze_count` names or globs of modules or weights to keep unchanged.
   */
  const char *const *freeze;
  /**
   * Number of texts in `freeze`.
   */
  uint64_t freeze_count;
  /**
   * Layers of a student that is cut from the teacher, if `student` is NULL: "layers:every-other" or "layers:6".
   */
  const char *student_layers;
  /**
   * Path of the checkpoint file, from which stopped training can continue; NULL disables it. It is removed at the
   * end.
   */
  const char *checkpoint;
  /**
   * Not 0: continues from the checkpoint, if there is one. If 0, an existing checkpoint is an error.
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
   * Path of a file that caches the teacher's outputs, so that it runs once on each part of the text; NULL disables
   * the cache. It is kept for other runs with the same teacher and text.
   */
  const char *teacher_cache;
  /**
   * Number of most probable tokens or classes to cache per distribution, the others are treated as equally
   * probable; 0 is 64.
   */
  uint64_t teacher_top_k;
  /**
   * Execution provider of teacher and student, an optimize_provider_t: CPU (0) or CUDA; auto selects CUDA if it is
   * available. TensorRT returns OPTIMIZE_UNSUPPORTED.
   */
  int32_t provider;
  /**
   * Index of the device, from 0; ignored for the CPU.
   */
  uint32_t device_id;
} optimize_distill_options_t;

/**
 * Options of `optimize_ensemble_new`. All zero selects the defaults: the mean with equal weights.
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
   * Not 0: combines only where the members' most probable tokens differ; otherwise uses the first member's
   * distribution.
   */
  uint32_t gate;
  /**
   * Not 0: members may have different vocabularies; they are combined by the text of their tokens.
   */
  uint32_t allow_different_vocabularies;
  /**
   * Rerank: number of texts per member; 0 is 1.
   */
  uint32_t candidates;
  /**
   * Rerank: log-probabilities are divided by the number of tokens to this power; 0 is 1. Use a small number for
   * almost no penalty.
   */
  double length_penalty;
  /**
   * Array of `weight_count` non-negative weights, one per member, normalized to the sum 1. NULL: equal weights.
   */
  const double *weights;
  /**
   * Number of elements in `weights`.
   */
  uint64_t weight_count;
  /**
   * Array of `temperature_count` positive temperatures, one per member, by which its logits are divided. NULL: 1.
   */
  const double *temperatures;
  /**
   * Number of elements in `temperatures`.
   */
  uint64_t temperature_count;
} optimize_ensemble_options_t;

/**
 * Options of `optimize_ensemble_fit`. All zero selects the defaults.
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
   * Tokens per window; 0 is the limit of the members, up to 512.
   */
  uint32_t context_length;
  /**
   * Tokens between the starts of two windows; 0 is half of the context length.
   */
  uint32_t stride;
  /**
   * Number of tokens of the text to read; 0 is 8192.
   */
  uint64_t max_tokens;
} optimize_fit_options_t;

/**
 * Options of `optimize_model_merge`. All zero selects the defaults.
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
   * Array of `weight_count` non-negative weights, one per model, normalized to the sum 1. NULL: equal weights.
   */
  const double *weights;
  /**
   * Number of elements in `weights`.
   */
  uint64_t weight_count;
  /**
   * Ties only: the model that the others were trained from.
   */
  const optimize_model_t *base;
  /**
   * Ties: share of each model's changes to keep, in (0, 1]; 0 is 0.2.
   */
  double density;
  /**
   * Ties: scale of the mean change; 0 is 1.
   */
  double scale;
  /**
   * Folder for the new weights until they are saved (an unlinked file); NULL is the system's.
   */
  const char *scratch_folder;
} optimize_merge_options_t;

/**
 * The range of a dimension of an input, for `optimize_package_compile`.
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
   * Name of the input, or its position as text: "0".
   */
  const char *input;
  /**
   * Name of the dimension. Dimensions of one name have one size in each run, and one range.
   */
  const char *name;
  /**
   * Minimum size.
   */
  uint64_t min;
  /**
   * Maximum size; 0 is no limit.
   */
  uint64_t max;
} optimize_dimension_t;

/**
 * Options of `optimize_package_compile`. All zero selects the defaults: the model as it is, with fixed input sizes,
 * in a folder.
 */
typedef struct optimize_package_compile_options_t {
  /**
   * sizeof(optimize_package_compile_options_t).
   */
  uint32_t struct_size;
  /**
   * Not 0: allows any size where the model does; the first dimension is the batch. Always set for decoders.
   */
  uint32_t dynamic;
  /**
   * Minimum batch size; 0 is 1.
   */
  uint64_t batch_min;
  /**
   * Maximum batch size; 0 is 64.
   */
  uint64_t batch_max;
  /**
   * Ranges of dimensions as JSON, {input: {dimension: {"name", "min", "max"}}}, with inputs by name or position;
   * or NULL.
   */
  const char *dynamic_shapes;
  /**
   * Comma-separated precisions of the variants, best first: "fp32" (the model as it is), "bf16" (the model as
   * it is, compiled to compute its products in bfloat16 with this library's kernels), "int8", "int4"; NULL is "fp32".
   */
  const char *variants;
  /**
   * Licence of the model, or NULL.
   */
  const char *licence;
  /**
   * Secret ed25519 key to sign with, as 64 hexadecimal digits; or NULL.
   */
  const char *sign_key;
  /**
   * Not 0: writes one file instead of a folder.
   */
  uint32_t single_file;
  /**
   * Not 0: leaves out graphs optimized for this processor.
   */
  uint32_t portable_only;
  /**
   * Not 0: stores the weights packed, with one bit per zero. Each variant then has its own weights, no graph is
   * optimized for this processor, and opening unpacks into an unlinked file.
   */
  uint32_t packed;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Array of `dimension_count` ranges of dimensions, or NULL. Like `dynamic_shapes`; a dimension may be in one of
   * them only.
   */
  const optimize_dimension_t *dimensions;
  /**
   * Number of ranges in `dimensions`.
   */
  uint64_t dimension_count;
  /**
   * Path of a TensorRT engine of the model to include as a variant, with its manifest next to it; or NULL.
   */
  const char *engine;
} optimize_package_compile_options_t;

/**
 * Options of `optimize_package_open`. All zero selects the defaults.
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
   * Name or precision of the variant to open; NULL selects it by processor and provider.
   */
  const char *variant;
  /**
   * Public ed25519 key that must have signed the package, as 64 hexadecimal digits; or NULL.
   */
  const char *public_key;
} optimize_package_open_options_t;

/**
 * Options of `optimize_tensorrt_open`. All zero selects the defaults, with which every engine is OPTIMIZE_UNTRUSTED.
 */
typedef struct optimize_tensorrt_open_options_t {
  /**
   * sizeof(optimize_tensorrt_open_options_t).
   */
  uint32_t struct_size;
  /**
   * Not 0: trusts the source of the engine, which is code that TensorRT runs.
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
   * SHA-256 of the model that the engine must belong to, as in reports (`input.sha256`): 64 hexadecimal digits; or
   * NULL.
   */
  const char *model_sha256;
  /**
   * Folder of TensorRT's libraries; NULL searches for them.
   */
  const char *library;
} optimize_tensorrt_open_options_t;

/**
 * Options of `optimize_model_build_tensorrt`. All zero selects the defaults.
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
   * Builder optimization level plus 1: 1 to 6 for TensorRT's levels 0 to 5; 0 is TensorRT's default.
   */
  uint32_t optimization_level;
  /**
   * Batch size where the model leaves it open; 0 leaves it to the profiles.
   */
  uint64_t batch_size;
  /**
   * Sequence length where the model leaves it open; 0 leaves it to the profiles.
   */
  uint64_t sequence_length;
  /**
   * Minimum, optimal and maximum sizes by dimension name, or batch, sequence and past:
   * "batch=1:8:32,sequence=128"; or NULL.
   */
  const char *dimensions;
  /**
   * Minimum shapes, "ids:1x16,mask:1x16"; or NULL.
   */
  const char *min_shapes;
  /**
   * Optimal shapes, which the engine is tuned for; or NULL.
   */
  const char *opt_shapes;
  /**
   * Maximum shapes; or NULL.
   */
  const char *max_shapes;
  /**
   * Several profiles as JSON, instead of single shapes: [{"ids": {"min": [1, 16], "opt": [1, 64], "max": [1,
   * 128]}}]; or NULL.
   */
  const char *profiles;
  /**
   * Folder of the libraries; NULL searches for them.
   */
  const char *library;
  /**
   * Path of a file that caches timings of layers; or NULL.
   */
  const char *timing_cache;
  /**
   * Maximum device memory for the workspace of a layer, in bytes; 0 is all.
   */
  uint64_t workspace;
  /**
   * Maximum relative error of an output against fp32, on a sample; 0 is 0.01 for fp16, 0.08 for bf16 and 0.15 for
   * int8 and fp8. Nodes return to fp32 until it is met.
   */
  double max_error;
  /**
   * TensorRT-RTX: array of `compute_capability_count` compute capabilities to build for, 89 for 8.9; NULL is all.
   */
  const int32_t *compute_capabilities;
  /**
   * Number of elements in `compute_capabilities`.
   */
  uint64_t compute_capability_count;
  /**
   * Not 0: builds an engine that also runs with later versions of the library.
   */
  uint32_t version_compatible;
  /**
   * Not 0: builds an engine that runs on all devices from Ampere on.
   */
  uint32_t hardware_compatible;
  /**
   * Not 0: strips the weights from the engine.
   */
  uint32_t strip;
  /**
   * Not 0: allows the weights to be replaced later (refit).
   */
  uint32_t refit;
  /**
   * Not 0: uses weights with a 2:4 pattern as sparse weights.
   */
  uint32_t sparsity;
  /**
   * Not 0: keeps detailed information on layers, for profilers.
   */
  uint32_t detailed;
  /**
   * Not 0: disables TensorFloat-32.
   */
  uint32_t no_tf32;
  /**
   * Not 0: builds even if the existing engine matches the options.
   */
  uint32_t force;
  /**
   * Not 0: returns OPTIMIZE_MISMATCH if the existing engine does not match, instead of replacing it.
   */
  uint32_t refuse_mismatch;
  /**
   * Number of threads of the measurements; 0 uses that of the context.
   */
  uint32_t threads;
  /**
   * int8 and fp8: path of calibration data for the scales, a text or tensors for the inputs (X.safetensors); NULL
   * selects built-in sentences or generated numbers.
   */
  const char *calibration;
} optimize_tensorrt_options_t;

/**
 * Options of `optimize_model_benchmark`. All zero selects the defaults.
 */
typedef struct optimize_benchmark_options_t {
  /**
   * sizeof(optimize_benchmark_options_t).
   */
  uint32_t struct_size;
  /**
   * Number of timed rounds; 0 is 50.
   */
  uint32_t runs;
  /**
   * Number of rounds before the timed ones; 0 is 5.
   */
  uint32_t warmup;
  /**
   * Number of threads; 0 uses that of the context. With 1, processor time is measured, otherwise wall-clock time.
   */
  uint32_t threads;
  /**
   * Number of rows of the timed input; 0 is 1.
   */
  uint32_t batch_size;
  /**
   * Tokens per row of the timed input; 0 is the length of the texts (truncated at 512 tokens), and 128 for
   * built-in text and generated inputs. Longer texts are truncated.
   */
  uint32_t sequence_length;
  /**
   * Time limit of the timed rounds in milliseconds, after at least 5 of them; 0 is 30000.
   */
  uint32_t max_milliseconds;
  /**
   * Seed of generated inputs and of the bootstrap.
   */
  uint32_t seed;
  /**
   * Array of `text_count` texts to compare the models on; NULL selects built-in sentences. Needs a tokenizer.
   */
  const char *const *texts;
  /**
   * Number of texts in `texts`.
   */
  uint64_t text_count;
  /**
   * Array of `shape_count` input shapes, each "NAME:2x3x4", for inputs whose dimensions the model leaves open.
   */
  const char *const *shapes;
  /**
   * Number of shapes in `shapes`.
   */
  uint64_t shape_count;
  /**
   * Array of `value_count` input values, each "NAME:1,2,3", for inputs for which random numbers are unsuitable.
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
   * Not 0: trusts the source of the models. Engines inside a model (EPContext) are executable code.
   */
  uint32_t trust_engines;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Array of `input_count` names of inputs for `input_tensors`, which replace texts and generated inputs.
   */
  const char *const *input_names;
  /**
   * Array of `input_count` tensors, whose first dimension counts samples. A run uses `batch_size` samples, or as
   * many as the model requires; a tensor with one dimension more than its input is split along it.
   */
  const optimize_tensor_t *const *input_tensors;
  /**
   * Number of inputs in `input_names` and `input_tensors`.
   */
  uint64_t input_count;
  /**
   * Kernels on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * Precision of products with constant float32 weights on the CPU, an optimize_session_precision_t. Any but FP32
   * needs the kernels of this library, and returns OPTIMIZE_BACKEND_MISSING without.
   */
  int32_t precision;
} optimize_benchmark_options_t;

/**
 * Options of `optimize_model_evaluate`. All zero selects the defaults. Options of other tasks are ignored.
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
   * Perplexity: tokens per window; 0 is the limit of the model, up to 512.
   */
  uint32_t context_length;
  /**
   * Perplexity: tokens between the starts of two windows; 0 is half of the context length. A smaller stride takes
   * longer and gives a lower, more accurate perplexity.
   */
  uint32_t stride;
  /**
   * Perplexity: position of the begin-of-text token, an optimize_bos_t.
   */
  int32_t bos;
  /**
   * Other tasks: number of tokens after which a text is truncated; 0 is the limit of the model, up to 512.
   */
  uint32_t max_length;
  /**
   * Other tasks: texts per run; 0 is 1, with which the figures of a text do not depend on others.
   */
  uint32_t batch_size;
  /**
   * Perplexity: number of tokens of the text to read; 0 is all.
   */
  uint64_t max_tokens;
  /**
   * Other tasks: number of lines or rows to use; 0 is all.
   */
  uint64_t max_texts;
  /**
   * Probe: seed of the split into training and test.
   */
  uint64_t seed;
  /**
   * Probe: share of each class's texts that is held out for the test, below 1; 0 is 0.2.
   */
  double test_share;
  /**
   * Probe: L2 penalty on the weights; 0 is 0.5. Use a small number for almost no penalty.
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
   * Kernels on the CPU, an optimize_kernels_t.
   */
  int32_t kernels;
  /**
   * Precision of products with constant float32 weights on the CPU, an optimize_session_precision_t. Any but FP32
   * needs the kernels of this library, and returns OPTIMIZE_BACKEND_MISSING without.
   */
  int32_t precision;
} optimize_evaluate_options_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Returns the version of the library, for example "0.1.0". The string is static.
 */
OPTIMIZE_API
const char *optimize_version(void);

/**
 * Returns the version of the library as one number that can be compared, as OPTIMIZE_VERSION of the header is:
 * major * 10000 + minor * 100 + patch.
 */
OPTIMIZE_API
uint32_t optimize_version_number(void);

/**
 * Returns the name of a status, for example "invalid_model"; "unknown" for other numbers. The string is static.
 */
OPTIMIZE_API
const char *optimize_status_name(int32_t status);

/**
 * Returns the status of the error; OPTIMIZE_INVALID_HANDLE if `error` is NULL or not an error.
 */
OPTIMIZE_API
optimize_status_t optimize_error_status(const optimize_error_t *error);

/**
 * Returns the message, one UTF-8 sentence; "" if `error` is NULL. The string is valid until the error is freed.
 */
OPTIMIZE_API
const char *optimize_error_message(const optimize_error_t *error);

/**
 * Returns where the error occurred: file, node, tensor or argument, outermost first; "" if the message contains it.
 * The string is valid until the error is freed.
 */
OPTIMIZE_API
const char *optimize_error_place(const optimize_error_t *error);

/**
 * Frees an error. NULL is allowed.
 */
OPTIMIZE_API
void optimize_error_free(optimize_error_t *error);

/**
 * Returns the bytes, NUL-terminated; "" if `buffer` is NULL. The pointer is valid until the buffer is freed.
 */
OPTIMIZE_API
const char *optimize_buffer_data(const optimize_buffer_t *buffer);

/**
 * Returns the number of bytes without the final NUL; 0 if `buffer` is NULL.
 */
OPTIMIZE_API
size_t optimize_buffer_size(const optimize_buffer_t *buffer);

/**
 * Frees a buffer. NULL is allowed.
 */
OPTIMIZE_API
void optimize_buffer_free(optimize_buffer_t *buffer);

/**
 * Creates a cancel token.
 */
OPTIMIZE_API
optimize_status_t optimize_cancel_new(optimize_cancel_t **cancel,
                                      optimize_error_t **error);

/**
 * Cancels every call that this token was passed to, now and later. Any thread may call it, any number of times.
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
 * Creates a context. ONNX Runtime is not opened yet: loading, quantizing and saving do not need it.
 */
OPTIMIZE_API
optimize_status_t optimize_context_new(const optimize_context_options_t *options,
                                       optimize_context_t **context,
                                       optimize_error_t **error);

/**
 * Opens ONNX Runtime, if it is not open yet, and writes its version to `version`, for example "1.32.0". The string
 * is valid until the context is freed. Returns OPTIMIZE_RUNTIME_MISSING if it is not found; the message lists the
 * places that were searched.
 */
OPTIMIZE_API
optimize_status_t optimize_context_runtime_version(const optimize_context_t *context,
                                                   const char **version,
                                                   optimize_error_t **error);

/**
 * Writes the execution providers that sessions can use here, best first, as JSON: a list of `provider`, `device_id`,
 * `available` and, if it is not available, `status` and `reason`. A provider is available if the open ONNX Runtime
 * contains it *and* it could be started on the given device.
 */
OPTIMIZE_API
optimize_status_t optimize_context_providers(const optimize_context_t *context,
                                             uint32_t device_id,
                                             optimize_buffer_t **json,
                                             optimize_error_t **error);

/**
 * Frees a context. NULL is allowed. Objects created with it remain usable.
 */
OPTIMIZE_API
void optimize_context_free(optimize_context_t *context);

/**
 * Loads a model: an .onnx file, or a folder that contains one (model.onnx, onnx/model.onnx). It takes milliseconds
 * for any size: weights are mapped, not read. A packed file is unpacked into an unlinked file in the system's
 * temporary folder. Unused content of the model's files is in `warnings` of `optimize_model_inspect`. Returns
 * OPTIMIZE_INVALID_MODEL for a damaged file, with the place in the error.
 */
OPTIMIZE_API
optimize_status_t optimize_model_load(const optimize_context_t *context,
                                      const char *path,
                                      const optimize_call_t *call,
                                      optimize_model_t **model,
                                      optimize_error_t **error);

/**
 * Loads a model from the `size` bytes of an .onnx file, which are copied. A model whose weights are in other files
 * is refused: pass its path to `optimize_model_load`.
 */
OPTIMIZE_API
optimize_status_t optimize_model_load_memory(const optimize_context_t *context,
                                             const void *data,
                                             size_t size,
                                             const optimize_call_t *call,
                                             optimize_model_t **model,
                                             optimize_error_t **error);

/**
 * Saves a model at `path` atomically: an existing file stays until the new one is complete and on disk. The same
 * model gives the same bytes. `report` (may be NULL) receives JSON: {"files": [{"path", "bytes", "sha256"}]}.
 * Progress stage: "save", in bytes.
 */
OPTIMIZE_API
optimize_status_t optimize_model_save(const optimize_model_t *model,
                                      const char *path,
                                      const optimize_save_options_t *options,
                                      const optimize_call_t *call,
                                      optimize_buffer_t **report,
                                      optimize_error_t **error);

/**
 * Describes a model as JSON: format, inputs, outputs, operators, weights by type, warnings (see docs/report.md). It
 * takes milliseconds for any size.
 */
OPTIMIZE_API
optimize_status_t optimize_model_inspect(const optimize_model_t *model,
                                         optimize_buffer_t **report,
                                         optimize_error_t **error);

/**
 * Returns the number of inputs that a run requires; 0 if `model` is NULL.
 */
OPTIMIZE_API
size_t optimize_model_input_count(const optimize_model_t *model);

/**
 * Writes name, type and shape of the input at `index`. The pointers in `info` are valid until the model is freed.
 */
OPTIMIZE_API
optimize_status_t optimize_model_input(const optimize_model_t *model,
                                       size_t index,
                                       optimize_value_info_t *info,
                                       optimize_error_t **error);

/**
 * Returns the number of outputs; 0 if `model` is NULL.
 */
OPTIMIZE_API
size_t optimize_model_output_count(const optimize_model_t *model);

/**
 * Writes name, type and shape of the output at `index`. The pointers in `info` are valid until the model is freed.
 */
OPTIMIZE_API
optimize_status_t optimize_model_output(const optimize_model_t *model,
                                        size_t index,
                                        optimize_value_info_t *info,
                                        optimize_error_t **error);

/**
 * Frees a model. NULL is allowed. Sessions created from it remain usable.
 */
OPTIMIZE_API
void optimize_model_free(optimize_model_t *model);

/**
 * Renders a conversation with the chat template of a model. `messages` is JSON: [{"role": "user", "content": "..."},
 * ...]. The text contains its special tokens: set `rendered` when it is passed to a generator. Returns
 * OPTIMIZE_NOT_FOUND if the model has no chat template.
 */
OPTIMIZE_API
optimize_status_t optimize_model_render_chat(const optimize_model_t *model,
                                             const char *messages,
                                             optimize_buffer_t **rendered,
                                             optimize_error_t **error);

/**
 * Creates a tensor from a copy of `size` bytes of row-major elements of `dtype`, an optimize_dtype_t. Returns
 * OPTIMIZE_INVALID_ARGUMENT if a size in `dims` is negative, if `size` is not that of the shape and type, and for
 * strings, for which there is optimize_tensor_new_strings.
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
 * Creates a tensor over the caller's memory without copying. The memory must stay valid and unchanged until
 * `release` is called (which may be on another thread); with a NULL `release`, until the tensor and every session
 * run that uses it have ended. Memory that is not aligned for the type is copied. If the call fails, `release` is
 * not called.
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
 * Creates a tensor of strings from a copy of `count` UTF-8 strings. `sizes` are their lengths in bytes; NULL means
 * that they are NUL-terminated.
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
 * Returns the element type, an optimize_dtype_t; OPTIMIZE_DTYPE_UNKNOWN if `tensor` is NULL.
 */
OPTIMIZE_API
int32_t optimize_tensor_dtype(const optimize_tensor_t *tensor);

/**
 * Returns the number of dimensions; 0 for a scalar and if `tensor` is NULL.
 */
OPTIMIZE_API
size_t optimize_tensor_rank(const optimize_tensor_t *tensor);

/**
 * Returns the sizes of the dimensions, as many as the rank; NULL if the rank is 0 and if `tensor` is NULL. The
 * pointer is valid until the tensor is freed.
 */
OPTIMIZE_API
const int64_t *optimize_tensor_dims(const optimize_tensor_t *tensor);

/**
 * Returns the elements, row-major; NULL for strings and if `tensor` is NULL. The pointer is valid until the tensor
 * is freed.
 */
OPTIMIZE_API
const void *optimize_tensor_data(const optimize_tensor_t *tensor);

/**
 * Returns the size of all elements in bytes; 0 for strings and if `tensor` is NULL.
 */
OPTIMIZE_API
size_t optimize_tensor_size(const optimize_tensor_t *tensor);

/**
 * Writes the string at row-major position `index` of a tensor of strings: `size` bytes of UTF-8 at `data`, not
 * NUL-terminated, valid until the tensor is freed.
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
 */
OPTIMIZE_API
optimize_status_t optimize_session_new(const optimize_context_t *context,
                                       const optimize_model_t *model,
                                       const optimize_session_options_t *options,
                                       const optimize_call_t *call,
                                       optimize_session_t **session,
                                       optimize_error_t **error);

/**
 * Runs a session. `input_names` and `inputs` have `input_count` entries; every input without a default is required.
 * `outputs` has `output_count` entries: for the outputs named in `output_names`, in that order, or, if
 * `output_names` is NULL, for all outputs in the model's order. The caller frees each of them. A run of an engine
 * cannot be interrupted: a cancel takes effect after it.
 *
 * Names, types and shapes are checked before the run. Returns OPTIMIZE_NOT_FOUND for an input or output that the
 * model does not have; OPTIMIZE_INVALID_ARGUMENT for an input that is missing or does not fit, with dimension and
 * sizes.
 */
OPTIMIZE_API
optimize_status_t optimize_session_run(optimize_session_t *session,
                                       const char *const *input_names,
                                       const optimize_tensor_t *const *inputs,
                                       size_t input_count,
                                       const char *const *output_names,
                                       size_t output_count,
                                       const optimize_call_t *call,
                                       optimize_tensor_t **outputs,
                                       optimize_error_t **error);

/**
 * Returns the execution provider of a session, never OPTIMIZE_PROVIDER_AUTO; the CPU if `session` is NULL.
 */
OPTIMIZE_API
optimize_provider_t optimize_session_provider(const optimize_session_t *session);

/**
 * Writes where a session runs, as JSON: `provider`, `device_id`; unless ONNX Runtime's CPU kernels run all nodes also
 * `nodes`, the number of nodes of the optimized graph per provider (nodes that a device does not support run on the
 * CPU), where `optimize` stands for this library's kernels, and `groups`, the number of groups of nodes that these run
 * as one; `kernels_unused`, why they run nothing; and after OPTIMIZE_PROVIDER_AUTO `passed_over`, the providers that
 * come first and why they were not used. For a package, `passed_over` has the compiled variant that could not be
 * opened and why, and `weights_copied` is the reason if weights are copied instead of being read from the mapped file.
 */
OPTIMIZE_API
optimize_status_t optimize_session_placement(const optimize_session_t *session,
                                             optimize_buffer_t **json,
                                             optimize_error_t **error);

/**
 * Returns the number of inputs that a run requires; 0 if `session` is NULL.
 */
OPTIMIZE_API
size_t optimize_session_input_count(const optimize_session_t *session);

/**
 * Writes name, type and shape of the input at `index`. The pointers in `info` are valid until the session is freed.
 */
OPTIMIZE_API
optimize_status_t optimize_session_input(const optimize_session_t *session,
                                         size_t index,
                                         optimize_value_info_t *info,
                                         optimize_error_t **error);

/**
 * Returns the number of outputs; 0 if `session` is NULL.
 */
OPTIMIZE_API
size_t optimize_session_output_count(const optimize_session_t *session);

/**
 * Writes name, type and shape of the output at `index`. The pointers in `info` are valid until the session is freed.
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
 * Loads a tokenizer.json, or the one in a folder, with the settings of the files next to it (tokenizer_config.json,
 * added_tokens.json, special_tokens_map.json).
 */
OPTIMIZE_API
optimize_status_t optimize_tokenizer_load(const char *path,
                                          optimize_tokenizer_t **tokenizer,
                                          optimize_error_t **error);

/**
 * Returns the tokenizer of a model: the tokenizer.json next to it. OPTIMIZE_NOT_FOUND if it has none.
 */
OPTIMIZE_API
optimize_status_t optimize_model_tokenizer(const optimize_model_t *model,
                                           optimize_tokenizer_t **tokenizer,
                                           optimize_error_t **error);

/**
 * Encodes `count` UTF-8 texts into int64 tensors of shape [count, longest]. `sizes` are the lengths of the texts in
 * bytes; NULL means that they are NUL-terminated. Shorter rows are padded on the right; `attention_mask` is 1 for
 * tokens and 0 for padding; `type_ids` are BERT's segments. `attention_mask` and `type_ids` may be NULL.
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
 * Decodes `count` ids into a buffer, which the caller frees.
 */
OPTIMIZE_API
optimize_status_t optimize_tokenizer_decode(const optimize_tokenizer_t *tokenizer,
                                            const int64_t *ids,
                                            size_t count,
                                            const optimize_decode_options_t *options,
                                            optimize_buffer_t **text,
                                            optimize_error_t **error);

/**
 * Returns the number of tokens in the vocabulary, including added ones; 0 if `tokenizer` is NULL.
 */
OPTIMIZE_API
size_t optimize_tokenizer_vocabulary_size(const optimize_tokenizer_t *tokenizer);

/**
 * Frees a tokenizer. NULL is allowed.
 */
OPTIMIZE_API
void optimize_tokenizer_free(optimize_tokenizer_t *tokenizer);

/**
 * Creates a generator for a decoder, with the decoder's tokenizer. The model may be freed before the generator.
 * Returns OPTIMIZE_UNSUPPORTED if the model is not a decoder.
 */
OPTIMIZE_API
optimize_status_t optimize_generator_new(const optimize_context_t *context,
                                         const optimize_model_t *model,
                                         const optimize_generator_options_t *options,
                                         const optimize_call_t *call,
                                         optimize_generator_t **generator,
                                         optimize_error_t **error);

/**
 * Generates a text after each of `count` prompts (`sizes` are their lengths in bytes; NULL means that they are
 * NUL-terminated). Previous rows are discarded. `report` receives JSON: {"generations": [{"text", "tokens",
 * "logprobs", "finish_reason", "prompt_tokens"}]}. Progress stages: "prompt" and "generate", in tokens.
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
 * Appends `size` bytes of text to a row (row 0 for a conversation; rows are created by this call). The next
 * `optimize_generator_run` reads it, and computes only what is new.
 */
OPTIMIZE_API
optimize_status_t optimize_generator_append(optimize_generator_t *generator,
                                            size_t row,
                                            const char *text,
                                            size_t size,
                                            const optimize_generate_options_t *options,
                                            optimize_error_t **error);

/**
 * Continues the text of all rows, without computing earlier tokens again. `report` receives the JSON of
 * `optimize_generator_generate` for the new tokens.
 */
OPTIMIZE_API
optimize_status_t optimize_generator_run(optimize_generator_t *generator,
                                         const optimize_generate_options_t *options,
                                         const optimize_call_t *call,
                                         optimize_buffer_t **report,
                                         optimize_error_t **error);

/**
 * Discards all rows. The generator can be used again.
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
 * Writes where the models of a generator run, as JSON: a list with an entry per model, as in
 * `optimize_session_placement`. Returns OPTIMIZE_BUSY during a call.
 */
OPTIMIZE_API
optimize_status_t optimize_generator_placement(const optimize_generator_t *generator,
                                               optimize_buffer_t **json,
                                               optimize_error_t **error);

/**
 * Creates an embedder of a model. The vectors are those of its output `sentence_embedding`; else of
 * `token_embeddings` or `last_hidden_state`, pooled as the model's folder says (default: mean). `tokenizer` may be
 * NULL: then the model's own is used. Model and tokenizer may be freed before the embedder.
 *
 * Returns OPTIMIZE_UNSUPPORTED if the model outputs no vectors of texts; OPTIMIZE_NOT_FOUND if there is no tokenizer,
 * or no prompt of that name.
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
 * Writes the vectors of `count` texts to `vectors`: a float32 tensor of shape [count, width], row `i` for text `i`.
 * The caller frees it. Texts beyond the maximum length are truncated. Progress stage: "embed", in texts.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if there is no text, for a text without tokens, or if the options ask for more
 * elements than the vectors have.
 */
OPTIMIZE_API
optimize_status_t optimize_embedder_embed(optimize_embedder_t *embedder,
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
 * Creates a classifier of a model, from its output with logits of shape [texts, classes]. `tokenizer` may be NULL:
 * then the model's own is used. Model and tokenizer may be freed before the classifier.
 *
 * Returns OPTIMIZE_UNSUPPORTED if the model is not a classifier of texts; OPTIMIZE_NOT_FOUND if there is no tokenizer.
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
 * Returns the number of classes that have a label; 0 if `classifier` is NULL, or if neither graph nor configuration
 * says how many classes there are.
 */
OPTIMIZE_API
size_t optimize_classifier_label_count(const optimize_classifier_t *classifier);

/**
 * Returns the label of a class: `id2label` of the model's configuration, else its index. Valid until the classifier is
 * freed; an empty text if there is no such class.
 */
OPTIMIZE_API
const char *optimize_classifier_label(const optimize_classifier_t *classifier,
                                      size_t index);

/**
 * Writes the scores of `count` texts to `scores`: a float32 tensor of shape [count, classes], row `i` for text `i`. The
 * caller frees it. `second_texts` is NULL, or has one text for each of `texts`, with which it is read as a pair: for
 * rerankers and natural language inference. Texts beyond the maximum length are truncated; of a pair, the longer text
 * first. Progress stage: "classify", in texts.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if there is no text.
 */
OPTIMIZE_API
optimize_status_t optimize_classifier_classify(optimize_classifier_t *classifier,
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
 * Quantizes a model into a new one; the original is unchanged. `report` (may be NULL) receives the JSON of
 * docs/report.md: what was done to each node, and why others were left. Progress stages: with calibration data
 * "calibrate", in runs; "quantize", in bytes; then with a report "hash". Returns OPTIMIZE_UNSUPPORTED if there is
 * nothing to quantize; the message counts the reasons.
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
 * Estimates the result of `optimize_model_quantize` with the same options, as JSON of docs/report.md: nodes, bytes,
 * approximate seconds and bytes of memory, and the kernels that will run the quantized products. It writes nothing and takes milliseconds; max_quality_loss,
 * target_size, never_slower and calibration are ignored. Returns OPTIMIZE_UNSUPPORTED if there is nothing to
 * quantize.
 */
OPTIMIZE_API
optimize_status_t optimize_model_plan(const optimize_context_t *context,
                                      const optimize_model_t *model,
                                      const optimize_quantize_options_t *options,
                                      optimize_buffer_t **report,
                                      optimize_error_t **error);

/**
 * Prunes a model into a new one; the original is unchanged. `report` (may be NULL) receives the JSON of
 * docs/report.md: the number of zeros of each node and module, and why other nodes were left. Zeros make a plain
 * .onnx file neither smaller nor faster: save with `packed` for a smaller file. Progress stages: "prune", in bytes,
 * then with a report "hash". Returns OPTIMIZE_INVALID_ARGUMENT if a target matches nothing (the message lists the
 * modules); OPTIMIZE_UNSUPPORTED if no weight could be pruned (the message counts the reasons).
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
 * Trains a student model to reproduce the teacher's outputs on a text (UTF-8, `size` bytes), and writes the new
 * model to the result; the originals are unchanged. `student` may be NULL if `student_layers` selects layers of the
 * teacher. Both models must have the same tokens, and one of them its tokenizer. `report` (may be NULL) receives the
 * JSON of docs/report.md: losses over time, and teacher, student before and student after on held-out text. Progress
 * stage: "distill", in steps. With a checkpoint, a call that was cancelled or timed out can be continued with
 * `resume`.
 *
 * Returns OPTIMIZE_UNSUPPORTED if the student has a node that cannot be trained (the message names it) or the models
 * have no outputs in common; OPTIMIZE_INVALID_ARGUMENT if the text is too short.
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
 * Creates an ensemble of `count` models, which may be freed before it. No session is created yet.
 *
 * Returns OPTIMIZE_INVALID_ARGUMENT if there is only one model, if the models have different tasks, if the number of
 * weights or temperatures differs from `count` or one is out of range, if the method does not support the task, or
 * if vocabularies differ and the options do not allow it; the message names the member.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_new(const optimize_model_t *const *models,
                                        size_t count,
                                        const optimize_ensemble_options_t *options,
                                        optimize_ensemble_t **ensemble,
                                        optimize_error_t **error);

/**
 * Loads an ensemble and its members from a manifest (`ensemble.json`, or a folder with one). `optimize_model_load`
 * accepts a manifest too, and returns the model of `optimize_ensemble_fuse`.
 *
 * Returns OPTIMIZE_NOT_FOUND if there is no manifest; OPTIMIZE_INVALID_MODEL if it is damaged or of a newer version,
 * or if a member has changed.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_load(const char *path,
                                         optimize_ensemble_t **ensemble,
                                         optimize_error_t **error);

/**
 * Saves a manifest, `ensemble.json`, into a folder, which is created if necessary. The members are not copied.
 * Returns OPTIMIZE_INVALID_ARGUMENT if a member exists only in memory.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_save(const optimize_ensemble_t *ensemble,
                                         const char *folder,
                                         optimize_error_t **error);

/**
 * Describes an ensemble as JSON: {"method", "task", "members", "weights", "temperatures", "notes"}. Notes are
 * unexpected properties, such as a vocabulary that is truncated to that of another member.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_inspect(const optimize_ensemble_t *ensemble,
                                            optimize_buffer_t **report,
                                            optimize_error_t **error);

/**
 * Fits the weights of text-generating members to `size` bytes of UTF-8 text, and writes an ensemble with these
 * weights to the result; the original is unchanged. `report` (may be NULL) receives JSON: {"weights", "member_nll",
 * "equal_nll", "fitted_nll", "gap", "tokens"}, in nats per token. Progress stage: "fit". Returns
 * OPTIMIZE_UNSUPPORTED for methods without weights.
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
 * Creates one model that has the members as branches; it is saved, run, evaluated and benchmarked like any other.
 * The logits of a fused decoder are logarithms of the combined probabilities. `report` (may be NULL) receives the
 * JSON of docs/report.md. Progress stage: "fuse". Returns OPTIMIZE_UNSUPPORTED if the members cannot be fused.
 */
OPTIMIZE_API
optimize_status_t optimize_ensemble_fuse(const optimize_ensemble_t *ensemble,
                                         const optimize_call_t *call,
                                         optimize_model_t **result,
                                         optimize_buffer_t **report,
                                         optimize_error_t **error);

/**
 * Creates a generator that combines the distributions of the members at every token. It is used like the generator
 * of one model; its tokens have the uncertainty of the members, and its reports have "uncertainty". Equal models are
 * loaded once; threads are divided among the members. The ensemble may be freed before the generator. Returns
 * OPTIMIZE_UNSUPPORTED if the members do not generate text.
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
 * Merges the weights of `count` models of one architecture into a new model of the same size; the models are
 * unchanged. `report` (may be NULL) receives the JSON of docs/report.md. Progress stage: "merge", in tensors.
 * Returns OPTIMIZE_INVALID_ARGUMENT if graphs or shapes differ (the message names the first difference) or options
 * are out of range; OPTIMIZE_UNSUPPORTED if weights that differ are quantized.
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
 * Writes a package of a model at `path`, atomically. An existing package is replaced. `report` (may be NULL)
 * receives JSON: the files with sizes and hashes. Progress stages: those of quantizing, then "package", in bytes.
 * Returns OPTIMIZE_INVALID_ARGUMENT if something other than a package exists at `path`, or if ranges do not fit the
 * model or each other (the message names input and dimension).
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
 * Opens a package, a folder or a file. Its manifest is read and checked; the rest is mapped, and read when it is
 * used (`optimize_package_verify` checks all of it). Returns OPTIMIZE_UNSUPPORTED for a package of a newer version,
 * or without a variant for this machine; OPTIMIZE_INVALID_MODEL for one that is damaged, or not signed by
 * `public_key`.
 */
OPTIMIZE_API
optimize_status_t optimize_package_open(const char *path,
                                        const optimize_package_open_options_t *options,
                                        optimize_package_t **package,
                                        optimize_error_t **error);

/**
 * Returns the model of a package, for techniques, benchmarks and inspection. Its sessions enforce the shape
 * contract.
 */
OPTIMIZE_API
optimize_status_t optimize_package_model(const optimize_package_t *package,
                                         optimize_model_t **model,
                                         optimize_error_t **error);

/**
 * Creates a session of the variant that fits this processor. The shape contract is checked before every run:
 * OPTIMIZE_INVALID_ARGUMENT names input, dimension, value and range. The package may be freed before the session.
 */
OPTIMIZE_API
optimize_status_t optimize_package_session(const optimize_context_t *context,
                                           const optimize_package_t *package,
                                           const optimize_session_options_t *options,
                                           const optimize_call_t *call,
                                           optimize_session_t **session,
                                           optimize_error_t **error);

/**
 * Creates a session of the package's TensorRT engine, on the device. The shape contract is checked before every run.
 * The package may be freed before the session. Returns OPTIMIZE_NOT_FOUND if the package has no engine;
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
 * Returns the tokenizer of a package. OPTIMIZE_NOT_FOUND if it has none.
 */
OPTIMIZE_API
optimize_status_t optimize_package_tokenizer(const optimize_package_t *package,
                                             optimize_tokenizer_t **tokenizer,
                                             optimize_error_t **error);

/**
 * Creates a generator of the package's model, with the options of `optimize_generator_new`. Returns
 * OPTIMIZE_UNSUPPORTED if it does not generate text.
 */
OPTIMIZE_API
optimize_status_t optimize_package_generator(const optimize_context_t *context,
                                             const optimize_package_t *package,
                                             const optimize_generator_options_t *options,
                                             const optimize_call_t *call,
                                             optimize_generator_t **generator,
                                             optimize_error_t **error);

/**
 * Describes a package as JSON, with the variant that is used here and why.
 */
OPTIMIZE_API
optimize_status_t optimize_package_inspect(const optimize_context_t *context,
                                           const optimize_package_t *package,
                                           optimize_buffer_t **json,
                                           optimize_error_t **error);

/**
 * Verifies every byte of a package: the hash of each file, and the signature if there is one. `public_key` is NULL,
 * or the public ed25519 key that must have signed it, as 64 hexadecimal digits. Progress stage: "verify", in bytes.
 * Returns OPTIMIZE_INVALID_MODEL if a file is damaged, or if the package is not signed or signed by another key; the
 * message says which.
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
 * Builds a TensorRT engine of a model at `path` (FILE.engine, or a folder for model.engine), with a manifest next to
 * it (FILE.engine.json). An existing engine that matches model, library and options is kept, and the report has
 * "reused". `report` (may be NULL) receives JSON: backend, profiles, error against fp32, and the nodes
 * that stay in fp32, with reasons. Progress stages: "hash", "precision", "build" (in steps; the total grows). A cancel
 * takes effect within 200 ms; TensorRT may continue on a thread of its own.
 *
 * Returns OPTIMIZE_BACKEND_MISSING if TensorRT is not found; OPTIMIZE_DEVICE_MISSING if it needs a device;
 * OPTIMIZE_UNSUPPORTED for another version of TensorRT and for operators that it does not support (the message
 * names them); OPTIMIZE_INVALID_ARGUMENT if an input has a variable size without a range; OPTIMIZE_GATE_NOT_MET if
 * the error stays too large; OPTIMIZE_MISMATCH if `refuse_mismatch` is set and the existing
 * engine does not match.
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
 * Checks whether an engine may be used here, for `model` if that is not NULL. `manifest` (may be NULL) receives its
 * manifest as JSON. `trust` not 0 means that its source is trusted: an engine is executable code.
 *
 * Returns OPTIMIZE_UNTRUSTED without `trust` or a manifest; OPTIMIZE_INVALID_MODEL for a file that does not match
 * its manifest or is not an engine; OPTIMIZE_MISMATCH for an engine of another model, version or device;
 * OPTIMIZE_BACKEND_MISSING and OPTIMIZE_DEVICE_MISSING as `optimize_model_build_tensorrt`.
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
 * Creates a session of an engine file (FILE.engine, with its manifest FILE.engine.json next to it) on a device. It
 * is used like other sessions, and its provider is OPTIMIZE_PROVIDER_TENSORRT. ONNX Runtime is not needed.
 *
 * Returns OPTIMIZE_UNTRUSTED without `trust` or a manifest; OPTIMIZE_INVALID_MODEL for a file that does not match
 * its manifest or is not an engine; OPTIMIZE_MISMATCH for an engine of another model, version or device;
 * OPTIMIZE_BACKEND_MISSING without the library; OPTIMIZE_DEVICE_MISSING if there is no such device; OPTIMIZE_BACKEND
 * if the library cannot use the engine there.
 */
OPTIMIZE_API
optimize_status_t optimize_tensorrt_open(const optimize_context_t *context,
                                         const char *path,
                                         const optimize_tensorrt_open_options_t *options,
                                         const optimize_call_t *call,
                                         optimize_session_t **session,
                                         optimize_error_t **error);

/**
 * Compares two models, interleaved in this process: speed with a bootstrap interval, load time, memory, size, and
 * closeness of the outputs. If `tokenizer` is NULL, inputs are generated from the model's signature. `report`
 * receives the JSON of docs/report.md. Progress stage: "benchmark".
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
 * Compares an engine file with the model that it was built from, as `optimize_model_benchmark` compares two models.
 * The original runs on the provider of `options`, the engine on the device of `engine_options`; times are measured
 * from inputs in host memory to outputs in host memory. `tokenizer` may be NULL. Progress stages: "hash",
 * "benchmark".
 *
 * Returns OPTIMIZE_MISMATCH if the engine does not belong to `original`, unless `model_sha256` names another model
 * that it belongs to; otherwise the statuses of `optimize_tensorrt_open`.
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
 * Evaluates a model on `size` bytes of UTF-8 `data` (the content of a file; not NUL-terminated): see
 * optimize_evaluate_task_t. With `against` (required for embeddings, otherwise may be NULL) both models are measured
 * on the same data and compared sample by sample: `model` is the original, `against` the changed model. If
 * `tokenizer` is NULL, that of `model` is used. `against` uses its own tokenizer if it differs; classes are matched
 * by name. `report` receives the JSON of docs/report.md. Progress stages: "evaluate", in tokens or texts, then
 * "hash", in bytes. Any thread may call it.
 *
 * Returns OPTIMIZE_NOT_FOUND if there is no tokenizer; OPTIMIZE_INVALID_ARGUMENT if the data do not have the form of
 * the task (the message names the line), if options do not fit the model, if token ids or classes of the two models
 * cannot be compared, or if no task is given and the model has none; OPTIMIZE_UNSUPPORTED if a model does not
 * support the task; OPTIMIZE_LIMIT_EXCEEDED above 64 MiB of data.
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

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OPTIMIZE_H */
