/*
 * liboptimize: make trained models smaller and faster, and run them, without Python.
 *
 * Introduction
 *
 *   A context says where ONNX Runtime is. A model is loaded, immutable, and freely shared between threads.
 *   A technique (optimize_model_quantize ...) takes a model and gives a new one with a report. A model is
 *   saved, or made into a session and run. Several models make an ensemble, which writes one text. A benchmark
 *   compares two models; an evaluation says what one, or two, are worth on data.
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
 * Rules that hold for every function
 *
 *   Calls      A function that can fail returns an optimize_status_t and takes, in this order: what it works
 *              on, options, call, results, error. Options, call and error may be NULL.
 *   Results    Result pointers are set to NULL first and written only on success. Each has a ..._free, which
 *              takes NULL. Children keep alive what they need: free in any order.
 *   Errors     The error is an object that says what and where; free it with optimize_error_free.
 *   Options    struct_size is sizeof the struct; NULL, and all zero after the size, mean the defaults.
 *              Structs only grow at the end: programs built with an older header keep working.
 *   Text       Paths and names are NUL-terminated UTF-8.
 *   Threads    `const T *` may be used by any number of threads at once; `T *` by one at a time. A handle
 *              must not be freed while another thread uses it.
 *   Handles    NULL, and a handle of the wrong kind, are answered with a status.
 *   Manners    The library never exits, prints, opens a socket or changes signals, locale or environment,
 *              with one exception: ORT_DISABLE_TELEMETRY is set while ONNX Runtime is opened, and put back.
 *
 * This file is generated from src/ffi. Do not edit.
 */

#ifndef OPTIMIZE_H
#define OPTIMIZE_H

#include <stddef.h>
#include <stdint.h>

/* Version of this header; optimize_version() gives that of the library. */
#define OPTIMIZE_VERSION_MAJOR 0
#define OPTIMIZE_VERSION_MINOR 1
#define OPTIMIZE_VERSION_PATCH 0


/**
 * What a call answers. 0 is success; the numbers never change, new ones are added at the end.
 */
typedef enum {
  /**
   * Done.
   */
  OPTIMIZE_OK = 0,
  /**
   * An argument is outside what the function takes.
   */
  OPTIMIZE_INVALID_ARGUMENT = 1,
  /**
   * A handle is of another kind, or was freed.
   */
  OPTIMIZE_INVALID_HANDLE = 2,
  /**
   * A file, tensor, input or name does not exist.
   */
  OPTIMIZE_NOT_FOUND = 3,
  /**
   * The operating system refused to read or write.
   */
  OPTIMIZE_IO = 4,
  /**
   * The model is damaged, hostile or none at all.
   */
  OPTIMIZE_INVALID_MODEL = 5,
  /**
   * Valid, but not supported by this version.
   */
  OPTIMIZE_UNSUPPORTED = 6,
  /**
   * Larger than the limits of this library.
   */
  OPTIMIZE_LIMIT_EXCEEDED = 7,
  /**
   * ONNX Runtime was not found or is too old.
   */
  OPTIMIZE_RUNTIME_MISSING = 8,
  /**
   * ONNX Runtime refused or failed.
   */
  OPTIMIZE_RUNTIME = 9,
  /**
   * Stopped by the cancel token or the progress callback.
   */
  OPTIMIZE_CANCELLED = 10,
  /**
   * Stopped by the timeout of the call.
   */
  OPTIMIZE_TIMEOUT = 11,
  /**
   * The handle takes one call at a time and is in one.
   */
  OPTIMIZE_BUSY = 12,
  /**
   * A quality or speed gate was not met.
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
   * There is no NVIDIA driver or no device.
   */
  OPTIMIZE_DEVICE_MISSING = 16,
  /**
   * TensorRT refused the model or failed.
   */
  OPTIMIZE_BACKEND = 17,
  /**
   * The file was made of another model, or for another library or device.
   */
  OPTIMIZE_MISMATCH = 18,
  /**
   * The file is code, and its maker was not said to be trusted.
   */
  OPTIMIZE_UNTRUSTED = 19,
} optimize_status_t;

/**
 * What a session runs on.
 */
typedef enum {
  /**
   * The processor.
   */
  OPTIMIZE_PROVIDER_CPU = 0,
  /**
   * An NVIDIA device, with the kernels of ONNX Runtime.
   */
  OPTIMIZE_PROVIDER_CUDA = 1,
  /**
   * An NVIDIA device, with engines that TensorRT builds of parts of the graph; what it does not take runs on CUDA.
   */
  OPTIMIZE_PROVIDER_TENSORRT = 2,
  /**
   * To ask with: TensorRT, else CUDA, else the processor. The session says which it is.
   */
  OPTIMIZE_PROVIDER_AUTO = 3,
} optimize_provider_t;

/**
 * Where the token that begins a text (`<s>`) stands, for models whose tokenizer puts one. It is never scored.
 */
typedef enum {
  /**
   * In front of every window, as llama.cpp has it.
   */
  OPTIMIZE_BOS_EVERY_WINDOW = 0,
  /**
   * In front of the text alone, as the documentation of transformers has it.
   */
  OPTIMIZE_BOS_FIRST_WINDOW = 1,
  /**
   * Nowhere.
   */
  OPTIMIZE_BOS_NEVER = 2,
} optimize_bos_t;

/**
 * How far apart two distributions are.
 */
typedef enum {
  /**
   * KL(teacher, student): the student covers all that the teacher holds possible.
   */
  OPTIMIZE_DIVERGENCE_FORWARD = 0,
  /**
   * KL(student, teacher): it keeps to what the teacher holds most likely.
   */
  OPTIMIZE_DIVERGENCE_REVERSE = 1,
  /**
   * The mean of both to their middle.
   */
  OPTIMIZE_DIVERGENCE_JENSEN_SHANNON = 2,
} optimize_divergence_t;

/**
 * Element types, numbered as in ONNX. Types below a byte are packed, low bits first.
 */
typedef enum {
  /**
   * Not a tensor, or undeclared.
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
 * How the members' answers become one.
 */
typedef enum {
  /**
   * The mean of the probabilities; of embeddings, of the normalized vectors; of numbers, of the numbers.
   */
  OPTIMIZE_ENSEMBLE_MEAN = 0,
  /**
   * That with weights, which must be given.
   */
  OPTIMIZE_ENSEMBLE_WEIGHTED = 1,
  /**
   * The softmax of the mean of the logits.
   */
  OPTIMIZE_ENSEMBLE_LOGITS = 2,
  /**
   * The product of the probabilities.
   */
  OPTIMIZE_ENSEMBLE_PRODUCT = 3,
  /**
   * The largest probability of each token, divided by their sum.
   */
  OPTIMIZE_ENSEMBLE_MAX = 4,
  /**
   * The middle probability of each token, divided by their sum.
   */
  OPTIMIZE_ENSEMBLE_MEDIAN = 5,
  /**
   * The share of the members that hold the token, or class, for the most probable one.
   */
  OPTIMIZE_ENSEMBLE_VOTE = 6,
  /**
   * The first member's probabilities divided by the second's, where the first holds a token for plausible.
   */
  OPTIMIZE_ENSEMBLE_CONTRASTIVE = 7,
  /**
   * Each member writes; all of them score what each has written; the best is taken.
   */
  OPTIMIZE_ENSEMBLE_RERANK = 8,
  /**
   * Embeddings one after another, each normalized and times the root of its weight.
   */
  OPTIMIZE_ENSEMBLE_CONCAT = 9,
} optimize_ensemble_method_t;

/**
 * What the members of an ensemble do.
 */
typedef enum {
  /**
   * As they say themselves.
   */
  OPTIMIZE_ENSEMBLE_AS_MEMBERS = 0,
  /**
   * Write text.
   */
  OPTIMIZE_ENSEMBLE_GENERATE = 1,
  /**
   * Turn texts into vectors.
   */
  OPTIMIZE_ENSEMBLE_EMBED = 2,
  /**
   * Turn inputs into classes: one output with logits.
   */
  OPTIMIZE_ENSEMBLE_CLASSIFY = 3,
  /**
   * Give numbers: every output is combined element by element.
   */
  OPTIMIZE_ENSEMBLE_NUMBERS = 4,
} optimize_ensemble_task_t;

/**
 * What to evaluate, and what the data are for it.
 */
typedef enum {
  /**
   * What the model is for: one that writes text, embeds or classifies says so itself.
   */
  OPTIMIZE_EVALUATE_DEFAULT = 0,
  /**
   * How well a language model foresees the data, which are plain text.
   */
  OPTIMIZE_EVALUATE_PERPLEXITY = 1,
  /**
   * How alike two models embed the data, one text a line.
   */
  OPTIMIZE_EVALUATE_EMBEDDING = 2,
  /**
   * How often a classifier is right. The data are rows of a label and a text, TSV or CSV.
   */
  OPTIMIZE_EVALUATE_CLASSIFICATION = 3,
  /**
   * How well a linear classifier does on the model's embeddings. The data are as for classification.
   */
  OPTIMIZE_EVALUATE_PROBE = 4,
} optimize_evaluate_task_t;

/**
 * Where `optimize_model_save` puts weights.
 */
typedef enum {
  /**
   * In the .onnx file up to 1 GiB, beside it above.
   */
  OPTIMIZE_EXTERNAL_DATA_AUTO = 0,
  /**
   * In the .onnx file; OPTIMIZE_LIMIT_EXCEEDED above 2 GiB.
   */
  OPTIMIZE_EXTERNAL_DATA_NEVER = 1,
  /**
   * Beside the .onnx file.
   */
  OPTIMIZE_EXTERNAL_DATA_ALWAYS = 2,
} optimize_external_data_t;

/**
 * Why a text ends.
 */
typedef enum {
  /**
   * It goes on.
   */
  OPTIMIZE_FINISH_NONE = 0,
  /**
   * The model wrote an end-of-sequence token.
   */
  OPTIMIZE_FINISH_EOS = 1,
  /**
   * A limit was reached.
   */
  OPTIMIZE_FINISH_LENGTH = 2,
  /**
   * A stop string or a stop token came up.
   */
  OPTIMIZE_FINISH_STOP = 3,
  /**
   * The callback asked to stop.
   */
  OPTIMIZE_FINISH_CANCELLED = 4,
} optimize_finish_reason_t;

/**
 * By what structured pruning judges a neuron, channel or head.
 */
typedef enum {
  /**
   * Sum of magnitudes.
   */
  OPTIMIZE_IMPORTANCE_L1 = 0,
  /**
   * Root of the sum of squares.
   */
  OPTIMIZE_IMPORTANCE_L2 = 1,
  /**
   * Weighted by what flows through on the calibration text.
   */
  OPTIMIZE_IMPORTANCE_ACTIVATION = 2,
  /**
   * By the seed.
   */
  OPTIMIZE_IMPORTANCE_RANDOM = 3,
} optimize_importance_t;

/**
 * How weights of several models become one.
 */
typedef enum {
  /**
   * The (weighted) mean.
   */
  OPTIMIZE_MERGE_LINEAR = 0,
  /**
   * A point on the arc between two models, at the weight of the second.
   */
  OPTIMIZE_MERGE_SLERP = 1,
  /**
   * Changes against a base that agree in sign, the largest of each model.
   */
  OPTIMIZE_MERGE_TIES = 2,
} optimize_merge_method_t;

/**
 * How much ONNX Runtime rewrites the graph before it runs it. Never changes what the model means.
 */
typedef enum {
  /**
   * All of it.
   */
  OPTIMIZE_OPTIMIZATION_DEFAULT = 0,
  /**
   * The graph as it is.
   */
  OPTIMIZE_OPTIMIZATION_DISABLED = 1,
  /**
   * Constants folded, idle nodes dropped.
   */
  OPTIMIZE_OPTIMIZATION_BASIC = 2,
  /**
   * Nodes fused as well.
   */
  OPTIMIZE_OPTIMIZATION_EXTENDED = 3,
} optimize_optimization_level_t;

/**
 * What an engine computes with.
 */
typedef enum {
  /**
   * As the model is.
   */
  OPTIMIZE_PRECISION_FP32 = 0,
  /**
   * Products and what is around them in float16. Needs ONNX Runtime, to measure the error.
   */
  OPTIMIZE_PRECISION_FP16 = 1,
  /**
   * As OPTIMIZE_PRECISION_FP16, in bfloat16.
   */
  OPTIMIZE_PRECISION_BF16 = 2,
  /**
   * What products with weights multiply, in 8-bit integers.
   */
  OPTIMIZE_PRECISION_INT8 = 3,
  /**
   * As OPTIMIZE_PRECISION_INT8, in float8 (e4m3).
   */
  OPTIMIZE_PRECISION_FP8 = 4,
} optimize_precision_t;

/**
 * How weights are chosen for pruning.
 */
typedef enum {
  /**
   * The smallest by magnitude become zero.
   */
  OPTIMIZE_PRUNE_MAGNITUDE = 0,
  /**
   * Any become zero, by the seed.
   */
  OPTIMIZE_PRUNE_RANDOM = 1,
  /**
   * For each output, those with the smallest magnitude times norm of the input. Needs a calibration text.
   */
  OPTIMIZE_PRUNE_WANDA = 2,
  /**
   * Those whose loss the others of their row can make up for, which they then do. Needs a calibration text.
   */
  OPTIMIZE_PRUNE_SPARSEGPT = 3,
  /**
   * Whole neurons, channels and heads go.
   */
  OPTIMIZE_PRUNE_STRUCTURED = 4,
} optimize_prune_method_t;

/**
 * The form of a quantized model.
 */
typedef enum {
  /**
   * int8 weights; activations are quantized as they come. Needs no data. Weights without an integer form (Conv, LSTM
   * ...) are stored in 8 bits and computed in float.
   */
  OPTIMIZE_QUANTIZE_DYNAMIC = 0,
  /**
   * Weights in blocks of 2, 4 or 8 bits, each with its scale; activations stay float. Weights that fit no operator on
   * blocks are stored in 4 or 8 bits and computed in float.
   */
  OPTIMIZE_QUANTIZE_WEIGHT_ONLY = 1,
  /**
   * int8 weights; activations are quantized with scales found on calibration data.
   */
  OPTIMIZE_QUANTIZE_STATIC = 2,
} optimize_quantize_type_t;

/**
 * How the values of weights in blocks are chosen (weight-only).
 */
typedef enum {
  /**
   * GPTQ with calibration data, else RTN.
   */
  OPTIMIZE_ALGORITHM_AUTO = 0,
  /**
   * To the nearest code; scale and zero point by search.
   */
  OPTIMIZE_ALGORITHM_RTN = 1,
  /**
   * Half-quadratic quantization.
   */
  OPTIMIZE_ALGORITHM_HQQ = 2,
  /**
   * The error of each weight is spread over those that follow. Needs calibration data.
   */
  OPTIMIZE_ALGORITHM_GPTQ = 3,
  /**
   * Inputs are scaled by what activations are worth. Needs calibration data.
   */
  OPTIMIZE_ALGORITHM_AWQ = 4,
} optimize_algorithm_t;

/**
 * How the range of an activation is found on calibration data (static).
 */
typedef enum {
  /**
   * From the smallest to the largest value.
   */
  OPTIMIZE_CALIBRATION_MIN_MAX = 0,
  /**
   * Without the outermost values.
   */
  OPTIMIZE_CALIBRATION_PERCENTILE = 1,
  /**
   * The range whose quantized histogram diverges least.
   */
  OPTIMIZE_CALIBRATION_ENTROPY = 2,
  /**
   * The range with the least squared error.
   */
  OPTIMIZE_CALIBRATION_MSE = 3,
} optimize_calibration_method_t;

/**
 * Whether weights use 7 of their 8 bits, as x86 processors without VNNI need it.
 */
typedef enum {
  /**
   * By the processor here.
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
 * How the scales of blocks are stored (weight-only). Sessions see float32 all the same.
 */
typedef enum {
  /**
   * One byte, times a float32 factor for each row.
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
 * How the learning rate goes down.
 */
typedef enum {
  /**
   * In a line to 0.
   */
  OPTIMIZE_SCHEDULE_LINEAR = 0,
  /**
   * Along half a cosine to 0.
   */
  OPTIMIZE_SCHEDULE_COSINE = 1,
  /**
   * Not at all.
   */
  OPTIMIZE_SCHEDULE_CONSTANT = 2,
} optimize_schedule_t;

/**
 * Which library builds an engine.
 */
typedef enum {
  /**
   * TensorRT where it and a device are, else TensorRT-RTX, else ONNX Runtime's provider; the report says why.
   */
  OPTIMIZE_TENSORRT_AUTO = 0,
  /**
   * TensorRT 11 (libnvinfer.so.11): for the device that is there.
   */
  OPTIMIZE_TENSORRT_NVINFER = 1,
  /**
   * TensorRT-RTX 1 (libtensorrt_rtx.so.1): without a device, too.
   */
  OPTIMIZE_TENSORRT_RTX = 2,
  /**
   * ONNX Runtime's TensorRT provider: a model with engines in it (X_ctx.onnx), where the provider starts.
   */
  OPTIMIZE_TENSORRT_ONNXRUNTIME = 3,
} optimize_tensorrt_backend_t;

/**
 * Bytes made by the library: a report, a decoded text. Always followed by a NUL that is not counted, so
 * text can be printed as it is. Immutable: any thread may read it.
 */
typedef struct optimize_buffer_t optimize_buffer_t;

/**
 * A flag that any thread may raise to stop the calls it was given to. May be freed while calls still use it.
 */
typedef struct optimize_cancel_t optimize_cancel_t;

/**
 * What calls have in common: ONNX Runtime and the number of threads. One per program is usual. Any number
 * of threads may use it at once.
 */
typedef struct optimize_context_t optimize_context_t;

/**
 * Models that answer together, and how. Never changes; any number of threads may use it at once.
 */
typedef struct optimize_ensemble_t optimize_ensemble_t;

/**
 * What went wrong: status, message and place. An object of its own and not thread-local state, because
 * goroutines and C# continuations change threads between a call and the question about it. Immutable:
 * any thread may read it.
 */
typedef struct optimize_error_t optimize_error_t;

/**
 * A decoder made ready to write text, with what it has read so far. Takes one call at a time: a second one
 * meanwhile answers OPTIMIZE_BUSY.
 */
typedef struct optimize_generator_t optimize_generator_t;

/**
 * A loaded or made model. Immutable: any number of threads may use it at once. Weights stay in their mapped
 * files, which must not be truncated while the model lives (replacing them by renaming is fine).
 */
typedef struct optimize_model_t optimize_model_t;

/**
 * An open package. Immutable: any number of threads may use it at once. Its files stay mapped.
 */
typedef struct optimize_package_t optimize_package_t;

/**
 * A model, or a TensorRT engine of one, made ready to run. May move between threads, but takes one run at a time: a
 * second one meanwhile answers OPTIMIZE_BUSY. Make one session for each thread; they share the model's weights in memory.
 */
typedef struct optimize_session_t optimize_session_t;

/**
 * Elements with a type and a shape. Immutable: any number of threads may use it at once.
 */
typedef struct optimize_tensor_t optimize_tensor_t;

/**
 * Text to ids and back. Immutable: any number of threads may use it at once.
 */
typedef struct optimize_tokenizer_t optimize_tokenizer_t;

/**
 * Options of `optimize_context_new`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_context_options_t).
   */
  uint32_t struct_size;
  /**
   * Threads for every call that does not say otherwise; 0 is all processors.
   */
  uint32_t threads;
  /**
   * Path of the ONNX Runtime library; NULL looks in ORT_DYLIB_PATH, beside this library, and in the system.
   * A process has one: another path than the one that is open is answered with OPTIMIZE_INVALID_ARGUMENT.
   */
  const char *runtime_library;
} optimize_context_options_t;

/**
 * Called on the thread that made the call, at most 20 times a second. `stage` lives until it returns;
 * `total` is 0 if unknown. Returning anything but 0 cancels. Must not throw or jump out.
 */
typedef int32_t (*optimize_progress_fn)(void *user_data,
                                        const char *stage,
                                        uint64_t done,
                                        uint64_t total);

/**
 * What every long call takes besides its options. NULL or all zero: no progress, no timeout, no cancel.
 */
typedef struct {
  /**
   * sizeof(optimize_call_t).
   */
  uint32_t struct_size;
  /**
   * Milliseconds after which the call ends with OPTIMIZE_TIMEOUT; 0 is none.
   */
  uint32_t timeout_ms;
  /**
   * Progress callback, or NULL.
   */
  optimize_progress_fn progress;
  /**
   * Handed to the callback.
   */
  void *user_data;
  /**
   * Token that ends the call with OPTIMIZE_CANCELLED, or NULL.
   */
  const optimize_cancel_t *cancel;
} optimize_call_t;

/**
 * Options of `optimize_model_save`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_save_options_t).
   */
  uint32_t struct_size;
  /**
   * An optimize_external_data_t.
   */
  int32_t external_data;
  /**
   * Not 0: in one file in which zeros take next to nothing, and other float numbers some 15 % less. Only this library
   * reads it (`optimize_model_load` does, by its content); what it reads is equal bit by bit.
   */
  uint32_t packed;
} optimize_save_options_t;

/**
 * Name, type and shape of an input or output. Set `struct_size` before the call; what the pointers point to
 * belongs to the model or session asked.
 */
typedef struct {
  /**
   * sizeof(optimize_value_info_t).
   */
  uint32_t struct_size;
  /**
   * An optimize_dtype_t; OPTIMIZE_DTYPE_UNKNOWN for a sequence or map.
   */
  int32_t dtype;
  /**
   * The name to use in a run.
   */
  const char *name;
  /**
   * Number of dimensions; -1 if not even that is declared.
   */
  int64_t rank;
  /**
   * `rank` sizes; -1 where any size will do.
   */
  const int64_t *dims;
  /**
   * `rank` names; equal names must be equal sizes, "" has no such meaning.
   */
  const char *const *dim_names;
} optimize_value_info_t;

/**
 * Called when the last user of borrowed memory is gone, on whatever thread that is.
 */
typedef void (*optimize_release_fn)(void *user_data);

/**
 * Options of `optimize_session_new`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_session_options_t).
   */
  uint32_t struct_size;
  /**
   * Threads for the work of one node; 0 is as the context says.
   */
  uint32_t threads;
  /**
   * An optimize_optimization_level_t.
   */
  int32_t optimization_level;
  /**
   * Not 0: leave weights where they are instead of rearranging them for this processor. Less memory and a
   * faster start, slower runs. Does nothing for models with weights in blocks of a few bits (MatMulNBits; most
   * GGUF files), which would take 35 times as long.
   */
  uint32_t disable_prepacking;
  /**
   * Not 0: products of weights in blocks (MatMulNBits: GGUF files, weight-only quantization) may round what they
   * are multiplied with to 8 bits, as other engines do unasked: faster, not as exact.
   */
  uint32_t round_activations;
  /**
   * Not 0: the model's maker is trusted. Engines that are ready in a model (EPContext) are code that a device runs, and
   * are OPTIMIZE_UNTRUSTED without.
   */
  uint32_t trust_engines;
  /**
   * An optimize_provider_t: what it runs on. A provider that is asked for and cannot be had is
   * OPTIMIZE_BACKEND_MISSING or OPTIMIZE_DEVICE_MISSING, with ONNX Runtime's own reason; never another one in its place.
   */
  int32_t provider;
  /**
   * Number of the device, from 0; for the processor 0.
   */
  uint32_t device_id;
  /**
   * TensorRT: absolute path of a folder in which engines are kept from session to session; NULL keeps none.
   */
  const char *engine_cache;
} optimize_session_options_t;

/**
 * Options of `optimize_tokenizer_encode`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_encode_options_t).
   */
  uint32_t struct_size;
  /**
   * Not 0: without the special tokens of the model ([CLS], <s> …).
   */
  uint32_t no_special_tokens;
  /**
   * Longest row in tokens, special ones included; what is longer is cut at the end. 0 is no limit.
   */
  uint32_t max_length;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} optimize_encode_options_t;

/**
 * Options of `optimize_tokenizer_decode`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_decode_options_t).
   */
  uint32_t struct_size;
  /**
   * Not 0: keep special tokens in the text.
   */
  uint32_t keep_special_tokens;
} optimize_decode_options_t;

/**
 * Options of `optimize_generator_new`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_generator_options_t).
   */
  uint32_t struct_size;
  /**
   * Threads; 0 is as the context says.
   */
  uint32_t threads;
  /**
   * Not 0: products of weights in blocks may round what they are multiplied with, see
   * optimize_session_options_t.
   */
  uint32_t round_activations;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * An optimize_provider_t: what the sessions run on.
   */
  int32_t provider;
  /**
   * Number of the device, from 0; for the processor 0.
   */
  uint32_t device_id;
  /**
   * TensorRT: absolute path of a folder for engines; NULL keeps none.
   */
  const char *engine_cache;
} optimize_generator_options_t;

/**
 * A token as it is written.
 */
typedef struct {
  /**
   * sizeof(optimize_written_t) of the library.
   */
  uint32_t struct_size;
  /**
   * Number of the row.
   */
  uint32_t row;
  /**
   * Id of the token.
   */
  int64_t token;
  /**
   * `text_size` bytes of UTF-8 that are certain now, not NUL-terminated: whole characters, nothing of a stop
   * string. Often empty. Lives until the callback returns.
   */
  const char *text;
  /**
   * Bytes in `text`.
   */
  uint64_t text_size;
  /**
   * Log-probability of the token, if logprobs were asked for; else 0.
   */
  float logprob;
  /**
   * An optimize_finish_reason_t; not 0 with the last token of a row.
   */
  int32_t finish_reason;
  /**
   * Ensembles: entropy of the combined distribution, in nats; else 0.
   */
  double entropy;
  /**
   * Ensembles: how much of the entropy is the members' disagreement, in nats; else 0.
   */
  double mutual_information;
  /**
   * Ensembles: share of the members, by weight, that hold this token for the most probable one; else 0.
   */
  double agreement;
} optimize_written_t;

/**
 * Called for every token on the thread that made the call. Returning anything but 0 ends all rows. Must not
 * throw or jump out.
 */
typedef int32_t (*optimize_token_fn)(void *user_data,
                                     const optimize_written_t *written);

/**
 * Options of `optimize_generator_generate` and `optimize_generator_run`. All zero means the defaults: the most
 * probable token each time, at most 256 new tokens.
 */
typedef struct {
  /**
   * sizeof(optimize_generate_options_t).
   */
  uint32_t struct_size;
  /**
   * Most tokens to write in each row; 0 with max_length 0 is 256.
   */
  uint32_t max_new_tokens;
  /**
   * Most tokens in each row, the prompt included; 0 is no such limit.
   */
  uint32_t max_length;
  /**
   * Draw among this many most probable tokens; 0 is all.
   */
  uint32_t top_k;
  /**
   * 0: always the most probable token; else logits are divided by it before the draw. With 0, top_k above 1, top_p
   * and min_p are OPTIMIZE_INVALID_ARGUMENT: there is no draw for them.
   */
  float temperature;
  /**
   * Draw among the most probable tokens that together have this probability; 0 is all.
   */
  float top_p;
  /**
   * Draw among tokens at least this many times as probable as the most probable; 0 is all.
   */
  float min_p;
  /**
   * Above 1, tokens of prompt and text become less probable; 0 is off.
   */
  float repetition_penalty;
  /**
   * Taken off the logits of tokens already written; 0 is off.
   */
  float presence_penalty;
  /**
   * Taken off the logits of tokens already written, for each time; 0 is off.
   */
  float frequency_penalty;
  /**
   * No sequence of this many tokens appears twice; 0 is off.
   */
  uint32_t no_repeat_ngram_size;
  /**
   * Log-probabilities: 0 is without, n gives that of each token and of the n - 1 most probable ones.
   */
  uint32_t logprobs;
  /**
   * The same seed gives the same text.
   */
  uint64_t seed;
  /**
   * `stop_count` strings that end a row's text and are no part of it. The text of a special token ends it where the
   * model writes that token.
   */
  const char *const *stop;
  /**
   * Number of strings in `stop`.
   */
  uint64_t stop_count;
  /**
   * Called for every token, or NULL.
   */
  optimize_token_fn on_token;
  /**
   * Handed to `on_token`.
   */
  void *user_data;
  /**
   * Not 0: prompts have their special tokens in them already (what optimize_model_render_chat gives).
   */
  uint32_t rendered;
  /**
   * Not 0: go on after end-of-sequence tokens.
   */
  uint32_t ignore_eos;
  /**
   * `stop_token_count` ids of tokens that end a row's text and are no part of it.
   */
  const int64_t *stop_tokens;
  /**
   * Number of ids in `stop_tokens`.
   */
  uint64_t stop_token_count;
} optimize_generate_options_t;

/**
 * Options of `optimize_model_quantize`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_quantize_options_t).
   */
  uint32_t struct_size;
  /**
   * An optimize_quantize_type_t.
   */
  int32_t type;
  /**
   * Bits a weight: 8, weight-only also 4 or 2; 0 is 8, weight-only 4. Two are for target_size to mix.
   */
  uint32_t bits;
  /**
   * An optimize_reduce_range_t.
   */
  int32_t reduce_range;
  /**
   * Not 0: one scale for a whole weight instead of one per output channel.
   */
  uint32_t per_tensor;
  /**
   * Not 0: leave embedding tables in float.
   */
  uint32_t keep_embeddings;
  /**
   * Threads; 0 is as the context says.
   */
  uint32_t threads;
  /**
   * Weight-only: elements of a row that share a scale, 16 to 256; 0 is 32.
   */
  uint32_t block_size;
  /**
   * Weight-only, not 0: zero is the middle code, instead of a zero point for each block. 8 bits always are.
   */
  uint32_t symmetric;
  /**
   * Weight-only: an optimize_scale_type_t.
   */
  int32_t scale_type;
  /**
   * Weight-only: the accuracy_level of MatMulNBits. 4 rounds activations to 8 bits block by block, the fast way;
   * 1 leaves them float32. 0 is 4.
   */
  uint32_t accuracy_level;
  /**
   * Windows of the calibration text; 0 is 16.
   */
  uint32_t calibration_windows;
  /**
   * Tokens of a window; 0 is 512, or as many as the model takes.
   */
  uint32_t calibration_length;
  /**
   * Not 0: leave in float what is not faster quantized, measured here. Needs ONNX Runtime.
   */
  uint32_t never_slower;
  /**
   * Weights with fewer elements are left; 0 is 1024.
   */
  uint64_t min_elements;
  /**
   * `include_count` globs over node and weight names; without any, all nodes.
   */
  const char *const *include;
  /**
   * Number of globs in `include`.
   */
  uint64_t include_count;
  /**
   * `exclude_count` globs over node and weight names to leave as they are; wins over `include`.
   */
  const char *const *exclude;
  /**
   * Number of globs in `exclude`.
   */
  uint64_t exclude_count;
  /**
   * Weight-only: `override_count` texts `GLOB=BITS` or `GLOB=BITS/BLOCK`, other bits for nodes and weights that
   * match; the first that matches counts.
   */
  const char *const *overrides;
  /**
   * Number of texts in `overrides`.
   */
  uint64_t override_count;
  /**
   * Static: a text in UTF-8 of `calibration_size` bytes that the scales of activations are found on. Weight-only:
   * one for which weights are chosen so that layers give what they gave (GPTQ), minutes instead of seconds. NULL for
   * none. Needs ONNX Runtime, and the model its tokenizer.
   */
  const char *calibration;
  /**
   * Bytes of `calibration`.
   */
  uint64_t calibration_size;
  /**
   * Folder for the quantized weights until they are saved (an unlinked file); NULL is the system's.
   */
  const char *scratch_folder;
  /**
   * Weight-only: an optimize_algorithm_t.
   */
  int32_t algorithm;
  /**
   * Static: an optimize_calibration_method_t.
   */
  int32_t calibration_method;
  /**
   * Static: per cent of the values of an activation that OPTIMIZE_CALIBRATION_PERCENTILE keeps; 0 is 99.99.
   */
  double percentile;
  /**
   * Static and dynamic: how much of the spread of activations moves into the weights, 0 (none) to 1 (SmoothQuant's
   * alpha; encoders like 0.8, decoders 0.5). By the calibration data, or, dynamic and with a tokenizer, built-in sentences.
   */
  double smooth_quant;
  /**
   * The most that may be lost on the calibration data, or on generated inputs: mean Kullback-Leibler divergence in
   * nats for models with logits, else 1 - mean cosine. 0 is no limit. Needs ONNX Runtime.
   */
  double max_quality_loss;
  /**
   * Bytes the result may have; the bits of each weight are chosen for it. 0 is no limit. Needs ONNX Runtime.
   */
  uint64_t target_size;
  /**
   * Calibration data that is no text: `calibration_tensor_count` names of inputs ...
   */
  const char *const *calibration_names;
  /**
   * ... and as many tensors, of which the first dimension counts the samples. A run takes as many as the model
   * insists on, else 8; tensors with one dimension more than their input are cut along it, one sample a run.
   */
  const optimize_tensor_t *const *calibration_tensors;
  /**
   * Number of inputs in `calibration_names` and `calibration_tensors`.
   */
  uint64_t calibration_tensor_count;
} optimize_quantize_options_t;

/**
 * Options of `optimize_model_prune`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_prune_options_t).
   */
  uint32_t struct_size;
  /**
   * An optimize_prune_method_t.
   */
  int32_t method;
  /**
   * Share of each weight that is to be zero, above 0 and below 1; 0 is 0.5, or what the pattern says.
   */
  double sparsity;
  /**
   * With `pattern_of`: of each `pattern_of` weights in a row, along the inputs of a product, at most so many are not
   * zero. 2 and 4 is the pattern 2:4; 0 and 0 is none.
   */
  uint32_t pattern_keep;
  /**
   * See `pattern_keep`.
   */
  uint32_t pattern_of;
  /**
   * Magnitude and random, not 0: one threshold for all weights, instead of one for each.
   */
  uint32_t global;
  /**
   * Not 0: also prune embedding tables, and heads that are such a table.
   */
  uint32_t embeddings;
  /**
   * Threads; 0 is as the context says.
   */
  uint32_t threads;
  /**
   * Structured: an optimize_importance_t.
   */
  int32_t importance;
  /**
   * Structured: sizes stay multiples of this; 0 is what is usual: 16 for the channels of convolutions of images (8
   * where there are fewer than 32) and for 256 units or more, 8 from 64 on.
   */
  uint32_t round_to;
  /**
   * Structured, not 0: the weight behind each cut is fitted to give what it gave on the calibration text.
   */
  uint32_t reconstruct;
  /**
   * Structured: so many whole layers go: those that change least of what flows through them, with a calibration
   * text, else some of the later middle. Then a sparsity of 0 is none.
   */
  uint32_t drop_layers;
  /**
   * Windows of the calibration text; 0 is 16, or 64 with `reconstruct`.
   */
  uint32_t calibration_windows;
  /**
   * Tokens of a window; 0 is 512, or as many as the model takes.
   */
  uint32_t calibration_length;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Of random choices.
   */
  uint64_t seed;
  /**
   * Weights with fewer elements are left; 0 is 1024.
   */
  uint64_t min_elements;
  /**
   * `target_module_count` names or globs of modules, weights or nodes ("query", "mlp.fc1", "layer.*.mlp.*"), each of
   * which may stand for a part of a longer name, from dot to dot; without any, all weights of MatMul, Gemm and Conv.
   * Structured: modules whose outputs are cut, or, if none can be, inputs. Each must match.
   */
  const char *const *target_modules;
  /**
   * Number of texts in `target_modules`.
   */
  uint64_t target_module_count;
  /**
   * `exclude_count` names or globs of what is left as it is; wins over `target_modules`.
   */
  const char *const *exclude;
  /**
   * Number of texts in `exclude`.
   */
  uint64_t exclude_count;
  /**
   * `override_count` texts `GLOB=SPARSITY`, another sparsity (from 0) for what matches; the first that matches counts.
   */
  const char *const *overrides;
  /**
   * Number of texts in `overrides`.
   */
  uint64_t override_count;
  /**
   * A text in UTF-8 of `calibration_size` bytes, for the methods that look at what flows through weights; NULL for
   * none. Needs ONNX Runtime, and the model its tokenizer.
   */
  const char *calibration;
  /**
   * Bytes of `calibration`.
   */
  uint64_t calibration_size;
  /**
   * Folder for the pruned weights until they are saved (an unlinked file); NULL is the system's.
   */
  const char *scratch_folder;
  /**
   * Structured: `layer_count` numbers, as names count them, of the layers that go, instead of `drop_layers`.
   */
  const uint32_t *layers;
  /**
   * Numbers in `layers`.
   */
  uint64_t layer_count;
  /**
   * Structured: instead of a sparsity, the least with which the model takes at most so many bytes; 0 is none.
   */
  uint64_t target_size;
  /**
   * Structured: instead of a sparsity, the least with which the model is measured to be so many times as fast (a
   * decoder by steps of one token); 0 is none. Needs ONNX Runtime.
   */
  double target_speedup;
} optimize_prune_options_t;

/**
 * Where training is.
 */
typedef struct {
  /**
   * Steps done.
   */
  uint64_t step;
  /**
   * Steps there are to be, if the clock does not end training before.
   */
  uint64_t total_steps;
  /**
   * From 0.
   */
  uint32_t epoch;
  /**
   * Not 0: a measurement on the text kept for that, not a step.
   */
  uint32_t is_validation;
  /**
   * The loss.
   */
  double loss;
  /**
   * Of the gradients, before it was limited.
   */
  double gradient_norm;
  /**
   * Of this step.
   */
  double learning_rate;
  /**
   * Of this step.
   */
  double tokens_per_second;
  /**
   * Since training began, time before a resume included.
   */
  double seconds;
  /**
   * Expected.
   */
  double seconds_left;
} optimize_training_step_t;

/**
 * Called on the thread that made the call, after each step and each measurement. `step` lives until it returns. Must
 * not throw or jump out.
 */
typedef void (*optimize_training_fn)(void *user_data,
                                     const optimize_training_step_t *step);

/**
 * Options of `optimize_model_distill`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_distill_options_t).
   */
  uint32_t struct_size;
  /**
   * How often the text is read; 0 is 3.
   */
  uint32_t epochs;
  /**
   * Not 0: each line of the text is JSON, `{"text": "..."}`, and a text of its own.
   */
  uint32_t json_lines;
  /**
   * Blocks of text (lines, for models that read lines) in one run; 0 is 4.
   */
  uint32_t batch_size;
  /**
   * Tokens of a block; lines are cut there. 0 is 128, or what the models take.
   */
  uint32_t sequence_length;
  /**
   * Runs whose gradients make one step; 0 is 1.
   */
  uint32_t gradient_accumulation_steps;
  /**
   * At its highest; 0 is 5e-5.
   */
  double learning_rate;
  /**
   * Softens what both expect; 0 is 2.
   */
  double temperature;
  /**
   * An optimize_divergence_t.
   */
  int32_t divergence;
  /**
   * An optimize_schedule_t.
   */
  int32_t schedule;
  /**
   * What the divergence of logits counts; 0 is 1 where both models have logits. Below 0 is nothing, here and below.
   */
  double logits_weight;
  /**
   * What the surprise at the text itself counts; 0 is nothing.
   */
  double labels_weight;
  /**
   * What the mean square of differences of hidden states counts; 0 is 1 where there are no logits.
   */
  double hidden_weight;
  /**
   * What 1 less their cosine counts; 0 is 1 where there are no logits.
   */
  double cosine_weight;
  /**
   * What the relations of queries, keys and values of the last attention count; 0 is nothing.
   */
  double relations_weight;
  /**
   * Share of the steps in which the learning rate goes up; 0 is 0.05, below 0 none.
   */
  double warmup_ratio;
  /**
   * Of what has more than one dimension; 0 is 0.01, below 0 none.
   */
  double weight_decay;
  /**
   * Gradients are scaled down to this norm; 0 is 1, below 0 they are not.
   */
  double max_grad_norm;
  /**
   * Share of the text that is kept for measuring; 0 is 0.05.
   */
  double validation_ratio;
  /**
   * Training ends after so many seconds; 0 is no limit.
   */
  double time_limit;
  /**
   * Training ends after so many steps; 0 is no limit.
   */
  uint64_t max_steps;
  /**
   * Steps between measurements; 0 is ten in all.
   */
  uint64_t evaluate_every;
  /**
   * Steps between checkpoints; 0 is every ten minutes.
   */
  uint64_t checkpoint_every;
  /**
   * Of the order of the text.
   */
  uint64_t seed;
  /**
   * `freeze_count` names or globs of modules or weights that stay as they are.
   */
  const char *const *freeze;
  /**
   * Number of texts in `freeze`.
   */
  uint64_t freeze_count;
  /**
   * A student cut from the teacher, if none is given: "layers:every-other" or "layers:6".
   */
  const char *student_layers;
  /**
   * File for the state, so that training that was stopped can go on; NULL is none. It is removed at the end.
   */
  const char *checkpoint;
  /**
   * Not 0: go on from the checkpoint, if it is there. Without this one that is there is an error.
   */
  uint32_t resume;
  /**
   * Threads; 0 is as the context says.
   */
  uint32_t threads;
  /**
   * Called after each step, or NULL.
   */
  optimize_training_fn training;
  /**
   * Handed to `training`.
   */
  void *training_user_data;
  /**
   * File for what the teacher says of each part of the text, so that it is asked only once; NULL asks it each time. It
   * stays, for other runs with this teacher and text.
   */
  const char *teacher_cache;
  /**
   * Tokens or classes of each distribution that the file keeps, the others count as equally likely; 0 is 64.
   */
  uint64_t teacher_top_k;
  /**
   * An optimize_provider_t: what teacher and student run on, the processor (0) or CUDA; auto takes CUDA where it can be
   * had. TensorRT is OPTIMIZE_UNSUPPORTED.
   */
  int32_t provider;
  /**
   * Number of the device, from 0; not for the processor.
   */
  uint32_t device_id;
} optimize_distill_options_t;

/**
 * Options of `optimize_ensemble_new`. All zero means the defaults: the mean, all members alike.
 */
typedef struct {
  /**
   * sizeof(optimize_ensemble_options_t).
   */
  uint32_t struct_size;
  /**
   * An optimize_ensemble_method_t.
   */
  int32_t method;
  /**
   * An optimize_ensemble_task_t.
   */
  int32_t task;
  /**
   * Not 0: combine only where members differ on the most probable token; else the first member speaks.
   */
  uint32_t gate;
  /**
   * Not 0: members may have different vocabularies; they are combined by the text of their tokens.
   */
  uint32_t allow_different_vocabularies;
  /**
   * Rerank: texts that each member writes; 0 is 1.
   */
  uint32_t candidates;
  /**
   * Rerank: log-probabilities are divided by the number of tokens to this power; 0 is 1. For hardly any give a
   * small number.
   */
  double length_penalty;
  /**
   * `weight_count` numbers from 0, one for each member; they count relative to their sum. NULL: equal.
   */
  const double *weights;
  /**
   * Numbers in `weights`.
   */
  uint64_t weight_count;
  /**
   * `temperature_count` numbers above 0, one for each member: its logits are divided by it before they are combined.
   * NULL: 1.
   */
  const double *temperatures;
  /**
   * Numbers in `temperatures`.
   */
  uint64_t temperature_count;
} optimize_ensemble_options_t;

/**
 * Options of `optimize_ensemble_fit`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_fit_options_t).
   */
  uint32_t struct_size;
  /**
   * Threads; 0 is as the context says.
   */
  uint32_t threads;
  /**
   * Tokens of a window; 0 is what the members take, up to 512.
   */
  uint32_t context_length;
  /**
   * Tokens from the beginning of one window to that of the next; 0 is half of the context length.
   */
  uint32_t stride;
  /**
   * Tokens of the text to read; 0 is 8192.
   */
  uint64_t max_tokens;
} optimize_fit_options_t;

/**
 * Options of `optimize_model_merge`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_merge_options_t).
   */
  uint32_t struct_size;
  /**
   * An optimize_merge_method_t.
   */
  int32_t method;
  /**
   * `weight_count` numbers from 0, one for each model; they count relative to their sum. NULL: equal.
   */
  const double *weights;
  /**
   * Numbers in `weights`.
   */
  uint64_t weight_count;
  /**
   * Ties, and only there: the model that the others were made from.
   */
  const optimize_model_t *base;
  /**
   * Ties: share of each model's changes that is kept, in (0, 1]; 0 is 0.2.
   */
  double density;
  /**
   * Ties: factor of the mean change; 0 is 1.
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
typedef struct {
  /**
   * sizeof(optimize_dimension_t).
   */
  uint32_t struct_size;
  /**
   * Which of the input's dimensions, from 0.
   */
  uint32_t dimension;
  /**
   * The input's name, or its position as text: "0".
   */
  const char *input;
  /**
   * Dimensions of one name have one size in each run, and one range.
   */
  const char *name;
  /**
   * Least size.
   */
  uint64_t min;
  /**
   * Largest size; 0 is no limit.
   */
  uint64_t max;
} optimize_dimension_t;

/**
 * Options of `optimize_package_compile`. All zero means the defaults: the model as it is, for inputs of one size, in a
 * folder.
 */
typedef struct {
  /**
   * sizeof(optimize_package_compile_options_t).
   */
  uint32_t struct_size;
  /**
   * Not 0: take any size where the model does; the first dimension is the batch. Models that write text always do.
   */
  uint32_t dynamic;
  /**
   * Least size of the batch; 0 is 1.
   */
  uint64_t batch_min;
  /**
   * Largest size of the batch; 0 is 64.
   */
  uint64_t batch_max;
  /**
   * Ranges of dimensions as JSON, {input: {dimension: {"name", "min", "max"}}}, inputs by name or position; or NULL.
   */
  const char *dynamic_shapes;
  /**
   * Comma-separated, best first: "fp32" (the model as it is), "int8", "int4"; NULL is "fp32".
   */
  const char *variants;
  /**
   * Licence of the model, or NULL.
   */
  const char *licence;
  /**
   * 64 hexadecimal digits: the secret ed25519 key to sign with; or NULL.
   */
  const char *sign_key;
  /**
   * Not 0: one file instead of a folder.
   */
  uint32_t single_file;
  /**
   * Not 0: without graphs optimized for this processor.
   */
  uint32_t portable_only;
  /**
   * Not 0: store the weights packed, so that zeros take next to nothing. Each variant has its own, no graph is
   * optimized for this processor, and opening unpacks into an unlinked file.
   */
  uint32_t packed;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * `dimension_count` ranges of dimensions, or NULL. As `dynamic_shapes`; a dimension may be in one of them.
   */
  const optimize_dimension_t *dimensions;
  /**
   * Number of ranges in `dimensions`.
   */
  uint64_t dimension_count;
  /**
   * Path of a TensorRT engine of the model, with its manifest beside it: a variant for those who have the device; or NULL.
   */
  const char *engine;
} optimize_package_compile_options_t;

/**
 * Options of `optimize_package_open`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_package_open_options_t).
   */
  uint32_t struct_size;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * A variant or a precision of the package; NULL chooses by processor and provider.
   */
  const char *variant;
  /**
   * 64 hexadecimal digits: the public ed25519 key that must have signed the package; or NULL.
   */
  const char *public_key;
} optimize_package_open_options_t;

/**
 * How an engine is opened. All zero means the defaults, with which every engine is OPTIMIZE_UNTRUSTED.
 */
typedef struct {
  /**
   * sizeof(optimize_tensorrt_open_options_t).
   */
  uint32_t struct_size;
  /**
   * Not 0: whoever made the engine is trusted. It is code that TensorRT runs.
   */
  uint32_t trust;
  /**
   * Number of the device, from 0.
   */
  uint32_t device_id;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * 64 hexadecimal digits: SHA-256 of the model that it must be of, as reports have it (`input.sha256`); or NULL.
   */
  const char *model_sha256;
  /**
   * Folder of TensorRT's libraries; NULL looks for them.
   */
  const char *library;
} optimize_tensorrt_open_options_t;

/**
 * Options of `optimize_model_build_tensorrt`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_tensorrt_options_t).
   */
  uint32_t struct_size;
  /**
   * An optimize_precision_t.
   */
  int32_t precision;
  /**
   * An optimize_tensorrt_backend_t.
   */
  int32_t backend;
  /**
   * 1 to 6 for TensorRT's levels 0 to 5; 0 is its default.
   */
  uint32_t optimization_level;
  /**
   * Size of the batch where the model leaves it open; 0 leaves it to the profiles.
   */
  uint64_t batch_size;
  /**
   * Length of sequences where the model leaves it open; 0 leaves it to the profiles.
   */
  uint64_t sequence_length;
  /**
   * Least, usual and largest sizes by the model's names for dimensions, or batch, sequence and past:
   * "batch=1:8:32,sequence=128"; or NULL.
   */
  const char *dimensions;
  /**
   * Least shapes, "ids:1x16,mask:1x16"; or NULL.
   */
  const char *min_shapes;
  /**
   * The shapes to be fast for; or NULL.
   */
  const char *opt_shapes;
  /**
   * Largest shapes; or NULL.
   */
  const char *max_shapes;
  /**
   * Several profiles as JSON instead, [{"ids": {"min": [1, 16], "opt": [1, 64], "max": [1, 128]}}]; or NULL.
   */
  const char *profiles;
  /**
   * Folder of the libraries; NULL looks for them.
   */
  const char *library;
  /**
   * File that timings of layers are kept in; or NULL.
   */
  const char *timing_cache;
  /**
   * Device memory in bytes that a layer may work in; 0 is all.
   */
  uint64_t workspace;
  /**
   * Largest relative error of an output against fp32, on a sample; 0 is 0.01 for fp16, 0.08 for bf16 and 0.15 for int8
   * and fp8. Nodes go back to fp32 until it is met.
   */
  double max_error;
  /**
   * TensorRT-RTX: `compute_capability_count` devices to build for, 89 for compute capability 8.9; NULL is all.
   */
  const int32_t *compute_capabilities;
  /**
   * Numbers in `compute_capabilities`.
   */
  uint64_t compute_capability_count;
  /**
   * Not 0: runs with later versions of the library, too.
   */
  uint32_t version_compatible;
  /**
   * Not 0: runs on all devices from Ampere on.
   */
  uint32_t hardware_compatible;
  /**
   * Not 0: no weights in the engine.
   */
  uint32_t strip;
  /**
   * Not 0: weights may be replaced later.
   */
  uint32_t refit;
  /**
   * Not 0: weights with the pattern 2:4 are used as such.
   */
  uint32_t sparsity;
  /**
   * Not 0: layers keep all that is known about them, for profilers.
   */
  uint32_t detailed;
  /**
   * Not 0: no TensorFloat-32.
   */
  uint32_t no_tf32;
  /**
   * Not 0: builds even if the engine that is there is the one asked for.
   */
  uint32_t force;
  /**
   * Not 0: another engine at the path is OPTIMIZE_MISMATCH and stays.
   */
  uint32_t refuse_mismatch;
  /**
   * Threads of the measurements; 0 is as the context says.
   */
  uint32_t threads;
  /**
   * int8 and fp8: path of a text, or of tensors for the inputs (X.safetensors), on which scales are found; NULL is
   * built-in sentences or generated numbers.
   */
  const char *calibration;
} optimize_tensorrt_options_t;

/**
 * Options of `optimize_model_benchmark`. All zero means the defaults.
 */
typedef struct {
  /**
   * sizeof(optimize_benchmark_options_t).
   */
  uint32_t struct_size;
  /**
   * Timed rounds; 0 is 50.
   */
  uint32_t runs;
  /**
   * Rounds before the timed ones; 0 is 5.
   */
  uint32_t warmup;
  /**
   * Threads; 0 is as the context says. With 1, processor time is measured, else wall-clock time.
   */
  uint32_t threads;
  /**
   * Rows of the timed input; 0 is 1.
   */
  uint32_t batch_size;
  /**
   * Tokens of each row of the timed input; 0 is the texts' own length, and 128 for built-in text and
   * generated inputs. Longer texts are cut; without a length, after 512 tokens.
   */
  uint32_t sequence_length;
  /**
   * The timed rounds end after so many milliseconds, but not before 5 of them; 0 is 30000.
   */
  uint32_t max_milliseconds;
  /**
   * Seed of generated inputs and of the bootstrap.
   */
  uint32_t seed;
  /**
   * `text_count` texts to compare the models on; without any, built-in sentences. Needs a tokenizer.
   */
  const char *const *texts;
  /**
   * Number of texts.
   */
  uint64_t text_count;
  /**
   * `shape_count` input shapes, each "NAME:2x3x4", for inputs whose sizes the model leaves open.
   */
  const char *const *shapes;
  /**
   * Number of shapes.
   */
  uint64_t shape_count;
  /**
   * `value_count` input values, each "NAME:1,2,3", for inputs that random numbers do not suit.
   */
  const char *const *values;
  /**
   * Number of values.
   */
  uint64_t value_count;
  /**
   * An optimize_provider_t: what the sessions run on.
   */
  int32_t provider;
  /**
   * Number of the device, from 0; for the processor 0.
   */
  uint32_t device_id;
  /**
   * TensorRT: absolute path of a folder for engines; NULL keeps none.
   */
  const char *engine_cache;
  /**
   * Not 0: the models' makers are trusted. Engines that are ready in a model (EPContext) are code.
   */
  uint32_t trust_engines;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * Data to measure on, in place of texts and of generated numbers: `input_count` names of inputs ...
   */
  const char *const *input_names;
  /**
   * ... and as many tensors, of which the first dimension counts the samples. A run takes `batch_size` of them, or as
   * many as the model insists on; tensors with one dimension more than their input are cut along it.
   */
  const optimize_tensor_t *const *input_tensors;
  /**
   * Number of inputs in `input_names` and `input_tensors`.
   */
  uint64_t input_count;
} optimize_benchmark_options_t;

/**
 * Options of `optimize_model_evaluate`. All zero means the defaults. What a task does not need is passed over.
 */
typedef struct {
  /**
   * sizeof(optimize_evaluate_options_t).
   */
  uint32_t struct_size;
  /**
   * An optimize_evaluate_task_t.
   */
  int32_t task;
  /**
   * Threads; 0 is as the context says.
   */
  uint32_t threads;
  /**
   * Perplexity: tokens of a window; 0 is what the model takes, up to 512.
   */
  uint32_t context_length;
  /**
   * Perplexity: tokens from the beginning of one window to that of the next; 0 is half of the context length.
   * A smaller stride takes longer and gives a lower, truer perplexity.
   */
  uint32_t stride;
  /**
   * Perplexity: an optimize_bos_t.
   */
  int32_t bos;
  /**
   * Other tasks: tokens after which a text is cut; 0 is what the model takes, up to 512.
   */
  uint32_t max_length;
  /**
   * Other tasks: texts in one run; 0 is 1, with which a text's figures do not depend on its neighbours.
   */
  uint32_t batch_size;
  /**
   * Perplexity: tokens of the text to read; 0 is all.
   */
  uint64_t max_tokens;
  /**
   * Other tasks: lines or rows to use; 0 is all.
   */
  uint64_t max_texts;
  /**
   * Probe: seed of the split into training and test.
   */
  uint64_t seed;
  /**
   * Probe: share of each class's texts that is kept for the test, below 1; 0 is 0.2.
   */
  double test_share;
  /**
   * Probe: weight of the penalty on large weights; 0 is 0.5. For hardly any give a small number.
   */
  double penalty;
  /**
   * An optimize_provider_t: what the sessions run on.
   */
  int32_t provider;
  /**
   * Number of the device, from 0; for the processor 0.
   */
  uint32_t device_id;
  /**
   * TensorRT: absolute path of a folder for engines; NULL keeps none.
   */
  const char *engine_cache;
} optimize_evaluate_options_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, e.g. "0.1.0". Static; never freed.
 */
const char *optimize_version(void);

/**
 * The name of a status, e.g. "invalid_model"; "unknown" for a number that is none. Static; never freed.
 */
const char *optimize_status_name(int32_t status);

/**
 * The status this error belongs to; OPTIMIZE_INVALID_HANDLE if `error` is NULL or no error.
 */
optimize_status_t optimize_error_status(const optimize_error_t *error);

/**
 * What is wrong, one sentence, UTF-8. Lives as long as the error; "" if `error` is NULL.
 */
const char *optimize_error_message(const optimize_error_t *error);

/**
 * Where: file, node, tensor or argument, outermost first; "" if the message says it all. Lives as long as
 * the error.
 */
const char *optimize_error_place(const optimize_error_t *error);

/**
 * Frees an error. NULL is fine.
 */
void optimize_error_free(optimize_error_t *error);

/**
 * The bytes, NUL-terminated. Lives as long as the buffer; "" if `buffer` is NULL.
 */
const char *optimize_buffer_data(const optimize_buffer_t *buffer);

/**
 * The number of bytes, without the final NUL; 0 if `buffer` is NULL.
 */
size_t optimize_buffer_size(const optimize_buffer_t *buffer);

/**
 * Frees a buffer. NULL is fine.
 */
void optimize_buffer_free(optimize_buffer_t *buffer);

/**
 * Makes a cancel token.
 */
optimize_status_t optimize_cancel_new(optimize_cancel_t **cancel,
                                      optimize_error_t **error);

/**
 * Stops every call that was given this token, now and later. From any thread, any number of times.
 */
optimize_status_t optimize_cancel_fire(const optimize_cancel_t *cancel,
                                       optimize_error_t **error);

/**
 * Frees a token. NULL is fine.
 */
void optimize_cancel_free(optimize_cancel_t *cancel);

/**
 * Makes a context. ONNX Runtime is not opened yet: loading, quantizing and saving do not need it.
 */
optimize_status_t optimize_context_new(const optimize_context_options_t *options,
                                       optimize_context_t **context,
                                       optimize_error_t **error);

/**
 * Opens ONNX Runtime, if it is not open yet, and gives its version, e.g. "1.32.0". The text lives as long
 * as the context. OPTIMIZE_RUNTIME_MISSING if there is none: the message lists where it was looked for.
 */
optimize_status_t optimize_context_runtime_version(const optimize_context_t *context,
                                                   const char **version,
                                                   optimize_error_t **error);

/**
 * What sessions can run on here, best first, as JSON: a list of `provider`, `device_id`, `available` and, if it is not,
 * `status` and `reason`. A provider is available if the ONNX Runtime that is open has it *and* it could be started on the
 * device of that number just now.
 */
optimize_status_t optimize_context_providers(const optimize_context_t *context,
                                             uint32_t device_id,
                                             optimize_buffer_t **json,
                                             optimize_error_t **error);

/**
 * Frees a context. NULL is fine. What was made with it goes on working.
 */
void optimize_context_free(optimize_context_t *context);

/**
 * Loads a model: an .onnx file, or a folder that holds one (model.onnx, onnx/model.onnx). Takes
 * milliseconds whatever its size: weights are mapped, not read. A packed file is unpacked into an unlinked file in the
 * system's temporary folder. Bad files: OPTIMIZE_INVALID_MODEL, with
 * the place in the error. What a model's files say and is not used is in `warnings` of `optimize_model_inspect`.
 */
optimize_status_t optimize_model_load(const optimize_context_t *context,
                                      const char *path,
                                      const optimize_call_t *call,
                                      optimize_model_t **model,
                                      optimize_error_t **error);

/**
 * Loads a model from the `size` bytes of an .onnx file, which are copied. A model whose weights are in
 * other files is refused: give its path to `optimize_model_load`.
 */
optimize_status_t optimize_model_load_memory(const optimize_context_t *context,
                                             const void *data,
                                             size_t size,
                                             const optimize_call_t *call,
                                             optimize_model_t **model,
                                             optimize_error_t **error);

/**
 * Saves a model at `path`, atomically: until it is complete and on the disk, what was there stays. The same
 * model gives the same bytes. `report` (may be NULL) gets JSON: {"files": [{"path", "bytes", "sha256"}]}.
 * Progress stage: "save", in bytes.
 */
optimize_status_t optimize_model_save(const optimize_model_t *model,
                                      const char *path,
                                      const optimize_save_options_t *options,
                                      const optimize_call_t *call,
                                      optimize_buffer_t **report,
                                      optimize_error_t **error);

/**
 * What is inside a model, as JSON: format, inputs, outputs, operators, weights by type, warnings (see docs/report.md).
 * Milliseconds whatever the model's size.
 */
optimize_status_t optimize_model_inspect(const optimize_model_t *model,
                                         optimize_buffer_t **report,
                                         optimize_error_t **error);

/**
 * Number of inputs a run must feed; 0 if `model` is NULL.
 */
size_t optimize_model_input_count(const optimize_model_t *model);

/**
 * Name, type and shape of the input at `index`. What `info` points to lives as long as the model.
 */
optimize_status_t optimize_model_input(const optimize_model_t *model,
                                       size_t index,
                                       optimize_value_info_t *info,
                                       optimize_error_t **error);

/**
 * Number of outputs; 0 if `model` is NULL.
 */
size_t optimize_model_output_count(const optimize_model_t *model);

/**
 * Name, type and shape of the output at `index`. What `info` points to lives as long as the model.
 */
optimize_status_t optimize_model_output(const optimize_model_t *model,
                                        size_t index,
                                        optimize_value_info_t *info,
                                        optimize_error_t **error);

/**
 * Frees a model. NULL is fine. Sessions made from it go on working.
 */
void optimize_model_free(optimize_model_t *model);

/**
 * Makes a tensor from a copy of `size` bytes of row-major elements.
 */
optimize_status_t optimize_tensor_new(int32_t dtype,
                                      const int64_t *dims,
                                      size_t rank,
                                      const void *data,
                                      size_t size,
                                      optimize_tensor_t **tensor,
                                      optimize_error_t **error);

/**
 * Makes a tensor over the caller's memory without copying. The memory must stay valid and unchanged until
 * `release` is called (which may be on another thread); with a NULL `release`, until the tensor and every
 * session run that uses it are over. Memory that is not aligned for the type is copied. If the call fails,
 * `release` is not called.
 */
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
 * Makes a tensor of strings from a copy of `count` UTF-8 strings. `sizes` are their bytes; NULL means that they
 * are NUL-terminated.
 */
optimize_status_t optimize_tensor_new_strings(const int64_t *dims,
                                              size_t rank,
                                              const char *const *strings,
                                              const size_t *sizes,
                                              size_t count,
                                              optimize_tensor_t **tensor,
                                              optimize_error_t **error);

/**
 * Element type, an optimize_dtype_t; OPTIMIZE_DTYPE_UNKNOWN if `tensor` is NULL.
 */
int32_t optimize_tensor_dtype(const optimize_tensor_t *tensor);

/**
 * Number of dimensions; 0 for a scalar and if `tensor` is NULL.
 */
size_t optimize_tensor_rank(const optimize_tensor_t *tensor);

/**
 * The sizes of the dimensions, as many as the rank. Lives as long as the tensor; NULL if the
 * rank is 0 and if `tensor` is NULL.
 */
const int64_t *optimize_tensor_dims(const optimize_tensor_t *tensor);

/**
 * The elements, row-major. Lives as long as the tensor; NULL for strings and if `tensor` is NULL.
 */
const void *optimize_tensor_data(const optimize_tensor_t *tensor);

/**
 * Bytes of all elements; 0 for strings and if `tensor` is NULL.
 */
size_t optimize_tensor_size(const optimize_tensor_t *tensor);

/**
 * The string at row-major position `index` of a tensor of strings: `size` bytes of UTF-8 at `data`, not
 * NUL-terminated, that live as long as the tensor.
 */
optimize_status_t optimize_tensor_string(const optimize_tensor_t *tensor,
                                         size_t index,
                                         const char **data,
                                         size_t *size,
                                         optimize_error_t **error);

/**
 * Frees a tensor. NULL is fine.
 */
void optimize_tensor_free(optimize_tensor_t *tensor);

/**
 * Makes a model ready to run on ONNX Runtime. The model may be freed before the session.
 */
optimize_status_t optimize_session_new(const optimize_context_t *context,
                                       const optimize_model_t *model,
                                       const optimize_session_options_t *options,
                                       const optimize_call_t *call,
                                       optimize_session_t **session,
                                       optimize_error_t **error);

/**
 * Runs a session. `input_names` and `inputs` have `input_count` entries; every input without a default must
 * be there. `outputs` has `output_count` places: for the outputs named in `output_names`, in that order, or,
 * if `output_names` is NULL, for all outputs in the model's order. Each is freed by the caller. Names, types and
 * shapes are checked before the run: OPTIMIZE_NOT_FOUND names an input or output that the model does not have,
 * OPTIMIZE_INVALID_ARGUMENT an input that is missing or does not fit, with dimension and sizes. An engine is not
 * ended halfway: a cancel is answered when its run is over.
 */
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
 * What a session runs on: never OPTIMIZE_PROVIDER_AUTO. The processor if `session` is NULL.
 */
optimize_provider_t optimize_session_provider(const optimize_session_t *session);

/**
 * Where a session runs, as JSON: `provider`, `device_id`; unless the processor was asked for also `nodes`, how many nodes of
 * the optimized graph each provider has (what a device cannot do stays with the processor); and after
 * OPTIMIZE_PROVIDER_AUTO `passed_over`, what comes first and why it was not taken. `weights_copied`, for a variant of a
 * package that was optimized ahead, says why its weights are not read where they are mapped, if they are not.
 */
optimize_status_t optimize_session_placement(const optimize_session_t *session,
                                             optimize_buffer_t **json,
                                             optimize_error_t **error);

/**
 * Number of inputs a run must feed; 0 if `session` is NULL.
 */
size_t optimize_session_input_count(const optimize_session_t *session);

/**
 * Name, type and shape of the input at `index`. What `info` points to lives as long as the session.
 */
optimize_status_t optimize_session_input(const optimize_session_t *session,
                                         size_t index,
                                         optimize_value_info_t *info,
                                         optimize_error_t **error);

/**
 * Number of outputs; 0 if `session` is NULL.
 */
size_t optimize_session_output_count(const optimize_session_t *session);

/**
 * Name, type and shape of the output at `index`. What `info` points to lives as long as the session.
 */
optimize_status_t optimize_session_output(const optimize_session_t *session,
                                          size_t index,
                                          optimize_value_info_t *info,
                                          optimize_error_t **error);

/**
 * Frees a session. NULL is fine. Not while a run is under way.
 */
void optimize_session_free(optimize_session_t *session);

/**
 * Loads a tokenizer.json, or the one in a folder, with what the files beside it (tokenizer_config.json,
 * added_tokens.json, special_tokens_map.json) say of it.
 */
optimize_status_t optimize_tokenizer_load(const char *path,
                                          optimize_tokenizer_t **tokenizer,
                                          optimize_error_t **error);

/**
 * The tokenizer that belongs to a model: the tokenizer.json beside it. OPTIMIZE_NOT_FOUND if it has none.
 */
optimize_status_t optimize_model_tokenizer(const optimize_model_t *model,
                                           optimize_tokenizer_t **tokenizer,
                                           optimize_error_t **error);

/**
 * Encodes `count` UTF-8 texts into int64 tensors of shape [count, longest]. `sizes` are the texts' bytes;
 * NULL means that they are NUL-terminated. Shorter rows are padded on the right; `attention_mask` is 1 for
 * tokens and 0 for padding; `type_ids` are the segments BERT wants. `attention_mask` and `type_ids` may be
 * NULL.
 */
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
 * The text of `count` ids, as a buffer the caller frees.
 */
optimize_status_t optimize_tokenizer_decode(const optimize_tokenizer_t *tokenizer,
                                            const int64_t *ids,
                                            size_t count,
                                            const optimize_decode_options_t *options,
                                            optimize_buffer_t **text,
                                            optimize_error_t **error);

/**
 * Tokens in the vocabulary, added ones included; 0 if `tokenizer` is NULL.
 */
size_t optimize_tokenizer_vocabulary_size(const optimize_tokenizer_t *tokenizer);

/**
 * Frees a tokenizer. NULL is fine.
 */
void optimize_tokenizer_free(optimize_tokenizer_t *tokenizer);

/**
 * Makes a decoder ready to write, with the tokenizer that belongs to it. OPTIMIZE_UNSUPPORTED if the model is
 * no decoder. The model may be freed before the generator.
 */
optimize_status_t optimize_generator_new(const optimize_context_t *context,
                                         const optimize_model_t *model,
                                         const optimize_generator_options_t *options,
                                         const optimize_call_t *call,
                                         optimize_generator_t **generator,
                                         optimize_error_t **error);

/**
 * Writes a text after each of `count` prompts (`sizes` are their bytes; NULL means NUL-terminated). What the
 * generator had read before is dropped. `report` gets JSON: {"generations": [{"text", "tokens", "logprobs",
 * "finish_reason", "prompt_tokens"}]}. Progress stages: "prompt" and "generate", in tokens.
 */
optimize_status_t optimize_generator_generate(optimize_generator_t *generator,
                                              const char *const *prompts,
                                              const size_t *sizes,
                                              size_t count,
                                              const optimize_generate_options_t *options,
                                              const optimize_call_t *call,
                                              optimize_buffer_t **report,
                                              optimize_error_t **error);

/**
 * Appends `size` bytes of text to a row (row 0 for a conversation; rows are made by this call), to be read by
 * the next `optimize_generator_run`: only what is new is computed.
 */
optimize_status_t optimize_generator_append(optimize_generator_t *generator,
                                            size_t row,
                                            const char *text,
                                            size_t size,
                                            const optimize_generate_options_t *options,
                                            optimize_error_t **error);

/**
 * Writes on in all rows. What they have read already is not read again. `report` as in
 * `optimize_generator_generate`, with what was written now.
 */
optimize_status_t optimize_generator_run(optimize_generator_t *generator,
                                         const optimize_generate_options_t *options,
                                         const optimize_call_t *call,
                                         optimize_buffer_t **report,
                                         optimize_error_t **error);

/**
 * Forgets all rows. The generator can be used anew.
 */
optimize_status_t optimize_generator_reset(optimize_generator_t *generator,
                                           optimize_error_t **error);

/**
 * Frees a generator. NULL is fine. Not while a call is under way.
 */
void optimize_generator_free(optimize_generator_t *generator);

/**
 * A conversation as the text the model was trained on, by its chat template. `messages` is JSON:
 * [{"role": "user", "content": "..."}, ...]. The text has its special tokens in it: set `rendered` when it is
 * given to a generator. OPTIMIZE_NOT_FOUND if the model has no template.
 */
optimize_status_t optimize_model_render_chat(const optimize_model_t *model,
                                             const char *messages,
                                             optimize_buffer_t **rendered,
                                             optimize_error_t **error);

/**
 * Where the models of a generator run, as JSON: a list with an entry for each, as `optimize_session_placement` gives it.
 * OPTIMIZE_BUSY while it writes.
 */
optimize_status_t optimize_generator_placement(const optimize_generator_t *generator,
                                               optimize_buffer_t **json,
                                               optimize_error_t **error);

/**
 * Quantizes a model into a new one; the original stays. `report` (may be NULL) gets the JSON of
 * docs/report.md: what was done to each node and why the others were left. Progress stages: with calibration
 * data "calibrate", in runs; "quantize", in bytes; then with a report "hash". OPTIMIZE_UNSUPPORTED if there is
 * nothing to quantize; the message counts the reasons.
 */
optimize_status_t optimize_model_quantize(const optimize_context_t *context,
                                          const optimize_model_t *model,
                                          const optimize_quantize_options_t *options,
                                          const optimize_call_t *call,
                                          optimize_model_t **result,
                                          optimize_buffer_t **report,
                                          optimize_error_t **error);

/**
 * What optimize_model_quantize would give with the same options, as JSON of docs/report.md: nodes, bytes, and about how
 * many seconds and bytes of memory it takes. Writes nothing and takes milliseconds; max_quality_loss, target_size,
 * never_slower and calibration are not looked at. OPTIMIZE_UNSUPPORTED if there is nothing to quantize.
 */
optimize_status_t optimize_model_plan(const optimize_context_t *context,
                                      const optimize_model_t *model,
                                      const optimize_quantize_options_t *options,
                                      optimize_buffer_t **report,
                                      optimize_error_t **error);

/**
 * Prunes a model into a new one; the original stays. `report` (may be NULL) gets the JSON of docs/report.md: how many
 * weights of each node and module are zero now, and why others were left. Zeros make a plain .onnx neither smaller nor
 * faster: save with `packed` for a smaller file. Progress stages: "prune", in bytes, then with a report "hash".
 * OPTIMIZE_INVALID_ARGUMENT if a target matches nothing (the message lists the modules there are);
 * OPTIMIZE_UNSUPPORTED if no weight could be pruned (the message counts the reasons).
 */
optimize_status_t optimize_model_prune(const optimize_context_t *context,
                                       const optimize_model_t *model,
                                       const optimize_prune_options_t *options,
                                       const optimize_call_t *call,
                                       optimize_model_t **result,
                                       optimize_buffer_t **report,
                                       optimize_error_t **error);

/**
 * Trains a student to answer as the teacher does on a text (UTF-8, `size` bytes), and gives it as a new model; the
 * originals stay. `student` may be NULL if `student_layers` says which layers of the teacher it begins with. Both models must know the same
 * tokens, and one of them have its tokenizer. `report` (may be NULL) gets the JSON of docs/report.md: losses over
 * time, and teacher, student before and student after on text that was not learned from. Progress stage: "distill", in
 * steps. With a checkpoint, a call that was cancelled or timed out can go on later with `resume`.
 * OPTIMIZE_UNSUPPORTED if the student has a node that cannot be trained (the message names it) or the models have
 * nothing in common to compare; OPTIMIZE_INVALID_ARGUMENT if the text is too short.
 */
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
 * Makes an ensemble of `count` models, which may be freed before it. No session is made yet.
 * OPTIMIZE_INVALID_ARGUMENT if there is one model only, if the models do different things, if weights or temperatures
 * are not as many as they or out of range, if the method is not for their task, or if their vocabularies differ and
 * the options do not allow it; the message names the member.
 */
optimize_status_t optimize_ensemble_new(const optimize_model_t *const *models,
                                        size_t count,
                                        const optimize_ensemble_options_t *options,
                                        optimize_ensemble_t **ensemble,
                                        optimize_error_t **error);

/**
 * Loads the ensemble of a manifest (`ensemble.json`, or a folder with one) and its members. optimize_model_load takes
 * a manifest, too, and gives what optimize_ensemble_fuse would. OPTIMIZE_NOT_FOUND if there is none;
 * OPTIMIZE_INVALID_MODEL if it is damaged, of a newer version, or a member is not the model it was.
 */
optimize_status_t optimize_ensemble_load(const char *path,
                                         optimize_ensemble_t **ensemble,
                                         optimize_error_t **error);

/**
 * Saves a manifest, `ensemble.json`, into a folder, which is made if it is not there. The members stay where they
 * are. OPTIMIZE_INVALID_ARGUMENT if a member was made in memory.
 */
optimize_status_t optimize_ensemble_save(const optimize_ensemble_t *ensemble,
                                         const char *folder,
                                         optimize_error_t **error);

/**
 * Says what an ensemble is, as JSON: {"method", "task", "members", "weights", "temperatures", "notes"}; notes are what
 * may not be expected, such as a vocabulary that is cut to that of another member.
 */
optimize_status_t optimize_ensemble_inspect(const optimize_ensemble_t *ensemble,
                                            optimize_buffer_t **report,
                                            optimize_error_t **error);

/**
 * Finds the weights with which members that write text foretell `size` bytes of UTF-8 text best, and gives the
 * ensemble with them; the first stays as it is. `report` (may be NULL) gets JSON: {"weights", "member_nll",
 * "equal_nll", "fitted_nll", "gap", "tokens"}, in nats a token. Progress stage: "fit". OPTIMIZE_UNSUPPORTED for methods
 * without weights.
 */
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
 * Makes one model whose branches are the members: it is saved, run, evaluated and benchmarked like any other. A fused
 * decoder gives logarithms of the combined probabilities as its logits. `report` (may be NULL) gets the JSON of
 * docs/report.md. Progress stage: "fuse". OPTIMIZE_UNSUPPORTED if the members cannot be one graph.
 */
optimize_status_t optimize_ensemble_fuse(const optimize_ensemble_t *ensemble,
                                         const optimize_call_t *call,
                                         optimize_model_t **result,
                                         optimize_buffer_t **report,
                                         optimize_error_t **error);

/**
 * Makes the members ready to write text together: at every token their distributions are combined, and one text comes
 * out. The generator is used like one of a single model; what it tells of each token includes what the members thought
 * of it, and its reports have "uncertainty". Equal models are loaded once; threads are shared out among the members.
 * OPTIMIZE_UNSUPPORTED if the members do not write text. The ensemble may be freed before the generator.
 */
optimize_status_t optimize_ensemble_generator(const optimize_context_t *context,
                                              const optimize_ensemble_t *ensemble,
                                              const optimize_generator_options_t *options,
                                              const optimize_call_t *call,
                                              optimize_generator_t **generator,
                                              optimize_error_t **error);

/**
 * Frees an ensemble. NULL is fine.
 */
void optimize_ensemble_free(optimize_ensemble_t *ensemble);

/**
 * Merges the weights of `count` models of one architecture into a new model of the same size; the models stay.
 * `report` (may be NULL) gets the JSON of docs/report.md. Progress stage: "merge", in tensors.
 * OPTIMIZE_INVALID_ARGUMENT if graphs or shapes differ (the message names the first difference) or options are out of
 * range; OPTIMIZE_UNSUPPORTED if weights that differ are quantized.
 */
optimize_status_t optimize_model_merge(const optimize_model_t *const *models,
                                       size_t count,
                                       const optimize_merge_options_t *options,
                                       const optimize_call_t *call,
                                       optimize_model_t **result,
                                       optimize_buffer_t **report,
                                       optimize_error_t **error);

/**
 * Makes a package of a model at `path`. It appears there when it is complete; a package that is there already is
 * replaced, anything else is OPTIMIZE_INVALID_ARGUMENT, as are ranges that do not fit the model or each other (the
 * message names input and dimension). `report` may be NULL; else it gets JSON: the files with sizes and hashes. Progress
 * stages: those of quantizing, then "package", in bytes.
 */
optimize_status_t optimize_package_compile(const optimize_context_t *context,
                                           const optimize_model_t *model,
                                           const char *path,
                                           const optimize_package_compile_options_t *options,
                                           const optimize_call_t *call,
                                           optimize_buffer_t **report,
                                           optimize_error_t **error);

/**
 * Opens a package: a folder or a file. Its manifest is read and checked; the rest is mapped, and read when it is used
 * (`optimize_package_verify` looks at all of it). OPTIMIZE_UNSUPPORTED for a package of a newer version, or none of whose
 * variants runs here; OPTIMIZE_INVALID_MODEL for one that is damaged, or not signed by `public_key`.
 */
optimize_status_t optimize_package_open(const char *path,
                                        const optimize_package_open_options_t *options,
                                        optimize_package_t **package,
                                        optimize_error_t **error);

/**
 * The model of a package, for techniques, benchmarks and inspection. Sessions of it keep the shape contract.
 */
optimize_status_t optimize_package_model(const optimize_package_t *package,
                                         optimize_model_t **model,
                                         optimize_error_t **error);

/**
 * A session of the variant that fits this processor. Before every run the shape contract is checked:
 * OPTIMIZE_INVALID_ARGUMENT names input, dimension, value and range. The package may be freed before the session.
 */
optimize_status_t optimize_package_session(const optimize_context_t *context,
                                           const optimize_package_t *package,
                                           const optimize_session_options_t *options,
                                           const optimize_call_t *call,
                                           optimize_session_t **session,
                                           optimize_error_t **error);

/**
 * The TensorRT engine of a package, ready to run: a session on the device. Before every run the shape contract is checked.
 * OPTIMIZE_NOT_FOUND if the package has no engine; OPTIMIZE_UNSUPPORTED if it is in one file; else as
 * `optimize_tensorrt_open`. The package may be freed before the session.
 */
optimize_status_t optimize_package_engine(const optimize_context_t *context,
                                          const optimize_package_t *package,
                                          const optimize_tensorrt_open_options_t *options,
                                          const optimize_call_t *call,
                                          optimize_session_t **session,
                                          optimize_error_t **error);

/**
 * The tokenizer of a package. OPTIMIZE_NOT_FOUND if it has none.
 */
optimize_status_t optimize_package_tokenizer(const optimize_package_t *package,
                                             optimize_tokenizer_t **tokenizer,
                                             optimize_error_t **error);

/**
 * A generator of the package's model, with options as `optimize_generator_new` has them. OPTIMIZE_UNSUPPORTED if it
 * writes no text.
 */
optimize_status_t optimize_package_generator(const optimize_context_t *context,
                                             const optimize_package_t *package,
                                             const optimize_generator_options_t *options,
                                             const optimize_call_t *call,
                                             optimize_generator_t **generator,
                                             optimize_error_t **error);

/**
 * What the package says about itself, as JSON, with the variant that is used here and why.
 */
optimize_status_t optimize_package_inspect(const optimize_context_t *context,
                                           const optimize_package_t *package,
                                           optimize_buffer_t **json,
                                           optimize_error_t **error);

/**
 * Looks at every byte of a package: the hash of each file, the signature if there is one. `public_key` is NULL, or 64
 * hexadecimal digits: the public ed25519 key that must have signed it. OPTIMIZE_INVALID_MODEL says what is damaged, that
 * another key signed it, or none. Progress stage: "verify", in bytes.
 */
optimize_status_t optimize_package_verify(const optimize_package_t *package,
                                          const char *public_key,
                                          const optimize_call_t *call,
                                          optimize_error_t **error);

/**
 * Frees a package. NULL is fine. What was made with it goes on working.
 */
void optimize_package_free(optimize_package_t *package);

/**
 * Builds a TensorRT engine of a model at `path` (FILE.engine, or a folder for model.engine), with a manifest beside it
 * (FILE.engine.json). If the engine that is there is of this model, library and these options, it stays, and the report
 * says "reused". `report` may be NULL; else it gets JSON: backend, profiles, error against fp32, what stays fp32 and why.
 *
 * OPTIMIZE_BACKEND_MISSING without the library; OPTIMIZE_DEVICE_MISSING where it needs a device; OPTIMIZE_UNSUPPORTED
 * for another version of it and for operators that it does not take (the message names them);
 * OPTIMIZE_INVALID_ARGUMENT if an input varies in size and nothing says how; OPTIMIZE_GATE_NOT_MET if the error stays
 * too large; OPTIMIZE_MISMATCH with `refuse_mismatch`. Progress stages: "hash", "precision", "build" (in steps, whose
 * number grows). A cancel is answered within 200 ms; the library may work on for a while on a thread of its own.
 */
optimize_status_t optimize_model_build_tensorrt(const optimize_context_t *context,
                                                const optimize_model_t *model,
                                                const char *path,
                                                const optimize_tensorrt_options_t *options,
                                                const optimize_call_t *call,
                                                optimize_buffer_t **report,
                                                optimize_error_t **error);

/**
 * Looks whether an engine may be used here, of `model` if that is not NULL. `manifest` (may be NULL) gets its manifest
 * as JSON. `trust` not 0 says that its maker is trusted: an engine is code. OPTIMIZE_UNTRUSTED without `trust` or a manifest; OPTIMIZE_INVALID_MODEL for a file that is not the one its
 * manifest is about, or no engine; OPTIMIZE_MISMATCH for one of another model, version or device;
 * OPTIMIZE_BACKEND_MISSING and OPTIMIZE_DEVICE_MISSING as `optimize_model_build_tensorrt`.
 */
optimize_status_t optimize_tensorrt_check(const optimize_context_t *context,
                                          const char *path,
                                          const optimize_model_t *model,
                                          uint32_t trust,
                                          const optimize_call_t *call,
                                          optimize_buffer_t **manifest,
                                          optimize_error_t **error);

/**
 * Makes an engine file (FILE.engine, with its manifest FILE.engine.json beside it) ready to run on a device: a session like
 * others, which runs on OPTIMIZE_PROVIDER_TENSORRT. ONNX Runtime is not needed.
 *
 * OPTIMIZE_UNTRUSTED without `trust` or a manifest; OPTIMIZE_INVALID_MODEL for a file that is not the one its manifest is
 * about, or no engine; OPTIMIZE_MISMATCH for one of another model, version or device; OPTIMIZE_BACKEND_MISSING without
 * the library; OPTIMIZE_DEVICE_MISSING if there is no such device; OPTIMIZE_BACKEND if the library cannot use the
 * engine there.
 */
optimize_status_t optimize_tensorrt_open(const optimize_context_t *context,
                                         const char *path,
                                         const optimize_tensorrt_open_options_t *options,
                                         const optimize_call_t *call,
                                         optimize_session_t **session,
                                         optimize_error_t **error);

/**
 * Measures two models side by side, interleaved in this process: speed with a bootstrap interval, load
 * time, memory, size, and how close the outputs are. `tokenizer` may be NULL: then inputs are generated
 * from the model's signature. `report` gets the JSON of docs/report.md. Progress stage: "benchmark".
 */
optimize_status_t optimize_model_benchmark(const optimize_context_t *context,
                                           const optimize_model_t *original,
                                           const optimize_model_t *result,
                                           const optimize_tokenizer_t *tokenizer,
                                           const optimize_benchmark_options_t *options,
                                           const optimize_call_t *call,
                                           optimize_buffer_t **report,
                                           optimize_error_t **error);

/**
 * Measures an engine file against the model that it was made of, as `optimize_model_benchmark` does with two models: the
 * original on what `options` say, the engine on the device of `engine_options`; times go from data in to data out. An
 * engine that is not of `original` is OPTIMIZE_MISMATCH, unless `model_sha256` names another model that it is of; what else
 * `optimize_tensorrt_open` answers is answered here. `tokenizer` may be NULL. Progress stages: "hash", "benchmark".
 */
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
 * Measures what a model is worth on `size` bytes of UTF-8 `data` (the content of a file; not NUL-terminated): see
 * optimize_evaluate_task_t. `against` may be NULL, but for embeddings; else both models are measured on the same
 * data and compared pair by pair, `model` as the original and `against` as the result. `tokenizer` may be NULL:
 * then it is the one that belongs to `model`, and OPTIMIZE_NOT_FOUND if there is none. `against` reads with its own
 * where that is another; classes are compared by their names. `report` gets the JSON of docs/report.md. Progress stages: "evaluate", in tokens or texts, then "hash", in bytes.
 *
 * OPTIMIZE_INVALID_ARGUMENT if the data are not what the task needs (the message names the line), if options do
 * not fit the model, if ids or classes of the two mean other things and cannot be compared, or if no task is named
 * and the model does not say what it is for; OPTIMIZE_UNSUPPORTED if a
 * model cannot do the task; OPTIMIZE_LIMIT_EXCEEDED above 64 MiB of data. Any thread may call it.
 */
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
