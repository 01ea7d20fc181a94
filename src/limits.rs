//! Limits on what an untrusted file or a caller may request, and a few sizes that change the behaviour.
//!
//! Sizes in files are checked against these limits *before* memory is allocated. The limits are meant to be far above
//! the needs of real models. Exceeding one is an error, in most cases of the kind `LimitExceeded`.

/// Maximum size of an `.onnx` file without its external data, in bytes: the limit of protobuf.
pub const MODEL_PROTO_BYTES: u64 = 2 * 1024 * 1024 * 1024 - 1;
/// Maximum size of an external-data or weight file that is mapped.
pub const DATA_FILE_BYTES: u64 = 1 << 42;
/// Maximum number of bytes on the heap for the decoding of a model, in addition to those that [`DECODED_PER_BYTE`]
/// allows. An empty message has two bytes in a file and some hundreds in memory: without this limit, a file of 2 GiB
/// could request 300 GiB.
pub const DECODED_BYTES: u64 = 2 << 30;
/// Number of bytes on the heap that the decoding of a model may use per byte of its file, in addition to
/// [`DECODED_BYTES`].
pub const DECODED_PER_BYTE: u64 = 4;
/// Maximum unpacked size of a packed model in bytes, in addition to the bytes that [`PACKED_PER_BYTE`] allows.
pub const PACKED_BYTES: u64 = 1 << 20;
/// Number of unpacked bytes that a packed model may have per byte of its file, in addition to [`PACKED_BYTES`].
pub const PACKED_PER_BYTE: u64 = 64;
/// Maximum number of dimension ranges that a C program may pass for a package.
pub const PACKAGE_RANGES: u64 = 65_536;
/// Maximum nesting of protobuf messages: real models stay under 30 even with `If` inside `Loop` inside functions.
pub const PROTO_DEPTH: usize = 100;
/// Maximum nesting of subgraphs.
pub const SUBGRAPH_DEPTH: usize = 16;
/// Maximum number of nodes in a model, including subgraphs and functions.
pub const NODES: usize = 4_000_000;
/// Maximum rank of a tensor. The ranks in real models are far lower.
pub const TENSOR_RANK: usize = 64;
/// Maximum length of one name (node, value, file) in bytes.
pub const NAME_BYTES: usize = 64 * 1024;
/// Maximum number of distinct external-data files of one model.
pub const EXTERNAL_FILES: usize = 4096;
/// Maximum number of directory entries that are searched for the other names of a file with hard links.
pub const LINKS_LOOKED_FOR: usize = 10_000;
/// Maximum depth of the search of [`LINKS_LOOKED_FOR`] below the model's folder or repository.
pub const LINKS_DEPTH: usize = 4;
/// Size of weights above which a saved model stores them in a file next to the `.onnx`.
pub const INLINE_WEIGHT_BYTES: u64 = 1 << 30;
/// Maximum size of `tokenizer.json`, `config.json` and other text files next to a model.
pub const SIDE_FILE_BYTES: u64 = 256 << 20;
/// Maximum number of elements of a tensor passed to or returned by a session.
pub const TENSOR_ELEMENTS: u64 = 1 << 40;
/// Maximum number of inputs or outputs in one run of a session.
pub const RUN_VALUES: usize = 65_536;
/// Maximum size of one prompt, and of a text that a chat template produces, in bytes.
pub const TEXT_BYTES: usize = 64 << 20;
/// Maximum size of a chat template in bytes.
pub const TEMPLATE_BYTES: usize = 1 << 20;
/// Maximum number of steps of the rendering of a chat template: a thousand messages need about 100,000.
pub const TEMPLATE_STEPS: u64 = 5_000_000;
/// Maximum nesting of macros while a chat template is rendered.
pub const TEMPLATE_DEPTH: usize = 100;
/// Maximum number of texts that one generator generates at once, and of candidates of an ensemble.
pub const GENERATED_ROWS: usize = 4096;
/// Maximum number of drafted tokens per run of a model, which computes the logits of all of them.
pub const DRAFT_TOKENS: usize = 64;
/// Maximum number of steps of a recipe.
pub const RECIPE_STEPS: usize = 64;
/// Maximum number of members of an ensemble.
pub const ENSEMBLE_MEMBERS: usize = 64;
/// Maximum number of worker threads that an option may request.
pub const THREADS: usize = 1024;
/// Maximum number of elements of one generated benchmark input.
pub const GENERATED_ELEMENTS: u64 = 1 << 28;
/// Number of tokens after which an encoder or a calibration truncates a text if the caller sets no length: most
/// encoders have 512 positions.
pub const DEFAULT_TEXT_TOKENS: usize = 512;
/// Maximum number of timed rounds of one benchmark.
pub const BENCHMARK_RUNS: usize = 1_000_000;
/// Maximum size in a checkpoint's configuration (vocabulary, width, positions …).
pub const CONFIG_SIZE: i64 = 1 << 31;
/// Maximum number of layers of a model built from a checkpoint.
pub const LAYERS: i64 = 4096;
/// Maximum header size of a safetensors file; the format's own readers have the same limit.
pub const SAFETENSORS_HEADER_BYTES: u64 = 100_000_000;
/// Maximum number of tensors of one checkpoint.
pub const CHECKPOINT_TENSORS: usize = 1_000_000;
/// Maximum number of keys in the header of a GGUF file; real ones have some dozens.
pub const GGUF_KEYS: u64 = 65_536;
/// Maximum nesting of arrays in a GGUF file; no known key is nested.
pub const GGUF_ARRAY_DEPTH: usize = 4;
/// Maximum alignment of the data in a GGUF file; 32 is usual.
pub const GGUF_ALIGNMENT: i64 = 1 << 16;
/// Maximum size of one string in the metadata of a GGUF file (a chat template …).
pub const GGUF_TEXT_BYTES: usize = 16 << 20;
/// Maximum number of tokens of a vocabulary, and of merges of a tokenizer.
pub const VOCABULARY: usize = 1 << 22;
/// Maximum number of characters of a token that SentencePiece merges produce; those of real vocabularies end at 32.
pub const MERGED_CHARACTERS: usize = 64;
/// Maximum size of JSON files that are parsed as a whole, such as `config.json`, manifests and recipes: the parsed tree
/// takes many times the size of the file.
pub const CONFIG_BYTES: u64 = 16 << 20;
/// Maximum number of elements of an attention head of a model built from a checkpoint.
pub const HEAD_SIZE: i64 = 1 << 16;
/// Maximum number of elements of all axes that structured pruning follows; a model of 70 billion parameters has about
/// 50 million.
pub const PRUNED_ELEMENTS: usize = 1 << 28;
/// Maximum size of a model that is run only to verify the result of a technique.
pub const EXAMINED_BYTES: u64 = 1 << 30;
