//! Every numeric cap on what a stranger's file or a caller may ask for, in one table.
//!
//! Each read is checked against these *before* memory is taken. They are far above any real model and
//! far below what would hurt the process.

/// Largest `.onnx` file without its external data. Protobuf itself ends at 2 GiB.
pub const MODEL_PROTO_BYTES: u64 = 2 * 1024 * 1024 * 1024 - 1;
/// Largest external-data or weight file that is mapped.
pub const DATA_FILE_BYTES: u64 = 1 << 42;
/// Heap that decoding may take whatever the size of the input, and for each byte of it. An empty message
/// is two bytes in a file and some hundreds in memory: without this a file of 2 GiB could ask for 300.
pub const DECODED_BYTES: u64 = 2 << 30;
/// See [`DECODED_BYTES`].
pub const DECODED_PER_BYTE: u64 = 4;
/// Bytes that a packed model may stand for, whatever its size, and for each byte of it.
pub const PACKED_BYTES: u64 = 1 << 20;
/// See [`PACKED_BYTES`].
pub const PACKED_PER_BYTE: u64 = 64;
/// Ranges of dimensions that a caller gives a package.
pub const PACKAGE_RANGES: u64 = 65_536;
/// Nesting of protobuf messages: real models stay under 30 even with `If` inside `Loop` inside functions.
pub const PROTO_DEPTH: usize = 100;
/// Nesting of graphs inside nodes.
pub const SUBGRAPH_DEPTH: usize = 16;
/// Nodes in a model, subgraphs and functions included.
pub const NODES: usize = 4_000_000;
/// Rank of a tensor. ONNX Runtime itself has no higher kernels than 8.
pub const TENSOR_RANK: usize = 64;
/// Length of one name (node, value, file).
pub const NAME_BYTES: usize = 64 * 1024;
/// Distinct external-data files of one model.
pub const EXTERNAL_FILES: usize = 4096;
/// Directory entries that are looked at for the other names of a file with hard links, and how deep below the model's
/// folder or repository.
pub const LINKS_LOOKED_FOR: usize = 10_000;
/// See [`LINKS_LOOKED_FOR`].
pub const LINKS_DEPTH: usize = 4;
/// Above this many bytes of weights a saved model puts them in a file beside the `.onnx`.
pub const INLINE_WEIGHT_BYTES: u64 = 1 << 30;
/// `tokenizer.json`, `config.json` and other text files beside a model.
pub const SIDE_FILE_BYTES: u64 = 256 << 20;
/// Elements of one tensor given to or taken from a session.
pub const TENSOR_ELEMENTS: u64 = 1 << 40;
/// Inputs or outputs in one run of a session.
pub const RUN_VALUES: usize = 65_536;
/// Bytes of one prompt.
pub const TEXT_BYTES: usize = 64 << 20;
/// Bytes of a chat template.
pub const TEMPLATE_BYTES: usize = 1 << 20;
/// Steps a chat template may take: a thousand messages need some 100,000.
pub const TEMPLATE_STEPS: u64 = 5_000_000;
/// Nesting of macros and includes while a chat template is rendered.
pub const TEMPLATE_DEPTH: usize = 100;
/// Texts that one generator writes at once.
pub const GENERATED_ROWS: usize = 4096;
/// Models of one ensemble.
pub const ENSEMBLE_MEMBERS: usize = 64;
/// Worker threads a caller may ask for.
pub const THREADS: usize = 1024;
/// Elements of one input that a benchmark generates.
pub const GENERATED_ELEMENTS: u64 = 1 << 28;
/// Tokens after which a text is cut where the caller gives no length: most encoders have 512 positions.
pub const DEFAULT_TEXT_TOKENS: usize = 512;
/// Timed rounds of one benchmark.
pub const BENCHMARK_RUNS: usize = 1_000_000;
/// Largest size a checkpoint's configuration may give (vocabulary, width, positions …).
pub const CONFIG_SIZE: i64 = 1 << 31;
/// Layers of a model built from a checkpoint.
pub const LAYERS: i64 = 4096;
/// Header of a safetensors file: its makers' own readers stop at the same size.
pub const SAFETENSORS_HEADER_BYTES: u64 = 100_000_000;
/// Tensors of one checkpoint.
pub const CHECKPOINT_TENSORS: usize = 1_000_000;
/// Keys in the header of a GGUF file; real ones have some dozens.
pub const GGUF_KEYS: u64 = 65_536;
/// Nesting of arrays in a GGUF file; no known key has any.
pub const GGUF_ARRAY_DEPTH: usize = 4;
/// Largest alignment of the data in a GGUF file; 32 is the rule.
pub const GGUF_ALIGNMENT: i64 = 1 << 16;
/// One text in the metadata of a GGUF file (a chat template …).
pub const GGUF_TEXT_BYTES: usize = 16 << 20;
/// Tokens of a vocabulary, and merges of a tokenizer.
pub const VOCABULARY: usize = 1 << 22;
/// Characters of a token that SentencePiece merges may make; those of real vocabularies end at 32.
pub const MERGED_CHARACTERS: usize = 64;
/// `config.json` and the like, which are read into trees that take many times their size.
pub const CONFIG_BYTES: u64 = 16 << 20;
/// Elements of an attention head of a model built from a checkpoint.
pub const HEAD_SIZE: i64 = 1 << 16;
/// Elements of all axes that structured pruning follows; a model of 70 billion parameters has some 50 million.
pub const PRUNED_ELEMENTS: usize = 1 << 28;
/// Models of more bytes are not run only to look at what a technique made of them.
pub const EXAMINED_BYTES: u64 = 1 << 30;
