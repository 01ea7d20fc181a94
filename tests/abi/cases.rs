//! Calls of the functions of the header, valid or with one error, as C code.

use crate::header::{Function, Header, Variable};

/// A call of a function: its description, and a C function body.
pub struct Case {
    pub title: String,
    pub body: String,
}

/// The result that a call must have.
#[derive(Clone, Copy)]
pub enum Answer {
    /// A given status; an accessor, which returns no status, may return anything.
    Status(&'static str),
    /// Any status except OPTIMIZE_OK.
    Failure,
    /// A given status; an accessor must return its empty value.
    StatusOrEmpty(&'static str),
}

pub const OK: Answer = Answer::Status("OPTIMIZE_OK");
pub const INVALID_ARGUMENT: Answer = Answer::Status("OPTIMIZE_INVALID_ARGUMENT");

#[derive(Clone, PartialEq)]
pub enum Kind {
    /// A handle, such as `optimize_model_t`.
    Handle(String),
    /// An array of handles.
    Handles(String),
    /// A string, or an array of strings.
    Text,
    Texts,
    /// A struct that begins with `struct_size`.
    Sized(String),
    /// An `int32_t` with enum values.
    Enum,
    /// A number of elements or bytes, or an index.
    Size,
    Other,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Null {
    /// NULL is not possible: the argument is not a pointer.
    Never,
    /// NULL is an error: the argument is required.
    Refused,
    /// NULL is allowed by the documentation.
    Taken,
}

/// A valid argument of a call. `local` is the C variable that holds it.
pub struct Argument {
    pub local: String,
    pub kind: Kind,
    pub null: Null,
    setup: String,
    value: String,
    after: String,
}

/// Pointers that may be NULL, in addition to those of options, call and error.
const OPTIONAL: [(&str, &str); 32] = [
    ("optimize_models_table", "report"),
    ("optimize_model_apply", "report"),
    ("optimize_model_save", "report"),
    ("optimize_model_save_sink", "report"),
    ("optimize_package_compile_sink", "report"),
    ("optimize_model_merge", "report"),
    ("optimize_ensemble_fit", "report"),
    ("optimize_ensemble_fuse", "report"),
    ("optimize_model_quantize", "report"),
    ("optimize_package_compile", "report"),
    ("optimize_package_verify", "public_key"),
    ("optimize_model_distill", "report"),
    ("optimize_model_build_tensorrt", "report"),
    ("optimize_tensorrt_check", "manifest"),
    ("optimize_tensorrt_check", "model"),
    ("optimize_model_prune", "report"),
    ("optimize_model_benchmark", "tokenizer"),
    ("optimize_model_benchmark_engine", "tokenizer"),
    ("optimize_model_evaluate", "against"),
    ("optimize_model_evaluate", "tokenizer"),
    ("optimize_embedder_new", "tokenizer"),
    ("optimize_classifier_new", "tokenizer"),
    ("optimize_tagger_new", "tokenizer"),
    ("optimize_classifier_classify", "second_texts"),
    ("optimize_session_run", "output_names"),
    ("optimize_tensor_borrow", "release"),
    ("optimize_report_text", "size"),
    ("optimize_tokenizer_encode", "sizes"),
    ("optimize_tensor_new_strings", "sizes"),
    ("optimize_generator_generate", "sizes"),
    ("optimize_tokenizer_encode", "attention_mask"),
    ("optimize_tokenizer_encode", "type_ids"),
];

/// Functions that fail with their default options on every machine, and their statuses: an engine is refused unless its
/// source is trusted, and the package of these tests contains no engine.
const REFUSING: [(&str, &str); 3] = [
    ("optimize_tensorrt_open", "OPTIMIZE_UNTRUSTED"),
    ("optimize_model_benchmark_engine", "OPTIMIZE_UNTRUSTED"),
    ("optimize_package_engine", "OPTIMIZE_NOT_FOUND"),
];

fn refusal(function: &Function) -> Option<Answer> {
    REFUSING.iter().find(|(name, _)| *name == function.name).map(|(_, status)| Answer::Status(status))
}

/// Functions whose model must generate text.
const DECODERS: [&str; 5] = [
    "optimize_generator_new",
    "optimize_model_apply_chat_template",
    "optimize_model_distill",
    "optimize_model_evaluate",
    "optimize_model_render_chat",
];

/// Enum values that are valid but require a text model, or are not supported by this version.
const BEYOND: [&str; 4] = [
    "OPTIMIZE_EVALUATE_EMBEDDING",
    "OPTIMIZE_EVALUATE_CLASSIFICATION",
    "OPTIMIZE_EVALUATE_PROBE",
    "OPTIMIZE_PRUNE_STRUCTURED",
];

/// Enum values that are valid but require another argument or option that is missing.
const WANTING: [&str; 16] = [
    "OPTIMIZE_ENSEMBLE_WEIGHTED",
    "OPTIMIZE_ENSEMBLE_CONCAT",
    "OPTIMIZE_MERGE_TIES",
    "OPTIMIZE_QUANTIZE_STATIC",
    "OPTIMIZE_PRUNE_WANDA",
    "OPTIMIZE_PRUNE_SPARSEGPT",
    "OPTIMIZE_IMPORTANCE_L2",
    "OPTIMIZE_IMPORTANCE_ACTIVATION",
    "OPTIMIZE_IMPORTANCE_RANDOM",
    "OPTIMIZE_ALGORITHM_RTN",
    "OPTIMIZE_ALGORITHM_HQQ",
    "OPTIMIZE_ALGORITHM_GPTQ",
    "OPTIMIZE_ALGORITHM_AWQ",
    "OPTIMIZE_CALIBRATION_PERCENTILE",
    "OPTIMIZE_CALIBRATION_ENTROPY",
    "OPTIMIZE_CALIBRATION_MSE",
];

/// Returns the expected result of a call with a known enum value.
pub fn answer_of(function: &Function, value: &str) -> Answer {
    if let Some(refused) = refusal(function) {
        return refused;
    }
    match value {
        // Engines of TensorRT cannot be trained.
        "OPTIMIZE_PROVIDER_TENSORRT" if function.name == "optimize_model_distill" => {
            Answer::Status("OPTIMIZE_UNSUPPORTED")
        }
        // `make deps` does not fetch these libraries.
        "OPTIMIZE_TENSORRT_NVINFER"
        | "OPTIMIZE_TENSORRT_ONNXRUNTIME"
        | "OPTIMIZE_PROVIDER_CUDA"
        | "OPTIMIZE_PROVIDER_TENSORRT" => Answer::Status("OPTIMIZE_BACKEND_MISSING"),
        beyond if BEYOND.contains(&beyond) => Answer::Status("OPTIMIZE_UNSUPPORTED"),
        wanting if WANTING.contains(&wanting) || wanting.starts_with("OPTIMIZE_SCALE_FLOAT") => INVALID_ARGUMENT,
        _ => OK,
    }
}

/// Messages of a conversation.
const MESSAGES: &str = r#""[{\"role\": \"user\", \"content\": \"a\"}]""#;

/// Arguments that do not follow from their type: function (`*` for any), type, name, C expression.
const VALUES: [(&str, &str, &str, &str); 82] = [
    ("optimize_models_table", "const optimize_model_t *const *", "models", "{made, made}"),
    ("optimize_models_table", "const char *", "folder", r#""table""#),
    ("optimize_model_apply", "const char *", "recipe", r#""[{\"operation\": \"quantize\"}]""#),
    ("optimize_model_apply", "const char *", "path", r#""applied.onnx""#),
    ("optimize_context_providers", "uint32_t", "device_id", "0"),
    ("optimize_model_distill", "const char *", "text", "training_text"),
    ("optimize_model_distill", "size_t", "size", "sizeof training_text - 1"),
    ("optimize_ensemble_new", "const optimize_model_t *const *", "models", "{made, made}"),
    ("optimize_model_merge", "const optimize_model_t *const *", "models", "{made, made}"),
    ("optimize_ensemble_load", "const char *", "path", r#""pair""#),
    ("optimize_ensemble_save", "const char *", "folder", r#""pair""#),
    ("optimize_ensemble_fit", "const char *", "text", r#""a b a a b""#),
    ("optimize_ensemble_fit", "size_t", "size", "9"),
    ("optimize_model_load", "const char *", "path", r#""model.onnx""#),
    ("optimize_model_save", "const char *", "path", r#""saved.onnx""#),
    ("optimize_package_compile", "const char *", "path", r#""saved""#),
    ("optimize_model_build_tensorrt", "const char *", "path", r#""built.engine""#),
    ("optimize_tensorrt_check", "const char *", "path", r#""model.engine""#),
    ("optimize_tensorrt_check", "uint32_t", "trust", "1"),
    ("optimize_tensorrt_open", "const char *", "path", r#""model.engine""#),
    ("optimize_model_benchmark_engine", "const char *", "path", r#""model.engine""#),
    ("optimize_package_open", "const char *", "path", r#""decoder.package""#),
    ("optimize_package_verify", "const char *", "public_key", "NULL"),
    ("optimize_tokenizer_load", "const char *", "path", r#""tokenizer.json""#),
    ("*", "const optimize_source_t *", "source", "&folder_source"),
    ("*", "const optimize_sink_t *", "sink", "&nowhere_sink"),
    ("optimize_model_save_sink", "const char *", "name", r#""saved.onnx""#),
    ("optimize_package_compile_sink", "const char *", "name", r#""saved""#),
    ("optimize_session_run_into", "const optimize_output_t *", "outputs", "&output_place"),
    ("optimize_session_run_into", "const char *const *", "input_names", r#"{"x"}"#),
    ("optimize_session_run_into", "const optimize_tensor_t *const *", "inputs", "{made}"),
    ("optimize_session_run_into", "size_t", "input_count", "1"),
    ("optimize_session_run_into", "size_t", "output_count", "1"),
    ("optimize_model_load_source", "const char *", "name", r#""model.onnx""#),
    ("optimize_package_open_source", "const char *", "name", r#""file.package""#),
    ("optimize_tokenizer_load_source", "const char *", "name", r#""tokenizer.json""#),
    ("optimize_model_load_memory", "const void *", "data", "memory_data"),
    ("optimize_model_load_memory", "size_t", "size", "memory_size"),
    ("optimize_model_evaluate", "const char *", "data", "evaluate_data"),
    ("optimize_model_evaluate", "size_t", "size", "sizeof evaluate_data - 1"),
    ("optimize_tensor_new", "const void *", "data", "tensor_data"),
    ("optimize_tensor_new", "size_t", "size", "sizeof tensor_data"),
    ("optimize_tensor_borrow", "const void *", "data", "tensor_data"),
    ("optimize_tensor_borrow", "size_t", "size", "sizeof tensor_data"),
    ("optimize_tensor_borrow", "optimize_release_fn", "release", "ignore"),
    ("optimize_tensor_new_strings", "const int64_t *", "dims", "strings_dims"),
    ("optimize_tensor_new_strings", "size_t", "rank", "1"),
    ("optimize_tensor_new_strings", "const char *const *", "strings", r#"{"a", "b"}"#),
    ("optimize_tensor_new_strings", "const size_t *", "sizes", "NULL"),
    ("optimize_tensor_new_strings", "size_t", "count", "2"),
    ("*", "const int64_t *", "dims", "tensor_dims"),
    ("*", "size_t", "rank", "2"),
    ("optimize_context_counters_text", "int32_t", "format", "OPTIMIZE_COUNTERS_FORMAT_JSON"),
    ("*", "int32_t", "dtype", "OPTIMIZE_DTYPE_FLOAT32"),
    ("*", "int32_t", "status", "OPTIMIZE_OK"),
    ("*", "size_t", "index", "0"),
    ("optimize_session_run", "const char *const *", "input_names", r#"{"x"}"#),
    ("optimize_session_run", "const optimize_tensor_t *const *", "inputs", "{made}"),
    ("optimize_session_run", "size_t", "input_count", "1"),
    ("optimize_session_run", "const char *const *", "output_names", r#"{"y"}"#),
    ("optimize_session_run", "size_t", "output_count", "1"),
    ("optimize_tokenizer_encode", "const char *const *", "texts", r#"{"a b", "b"}"#),
    ("optimize_tokenizer_encode", "const size_t *", "sizes", "(const size_t[]){3, 1}"),
    ("optimize_tokenizer_decode", "const int64_t *", "ids", "(const int64_t[]){0, 1}"),
    ("optimize_generator_generate", "const char *const *", "prompts", r#"{"a b", "b"}"#),
    ("optimize_generator_generate", "const size_t *", "sizes", "(const size_t[]){3, 1}"),
    ("optimize_embedder_embed", "const char *const *", "texts", r#"{"a b", "b"}"#),
    ("optimize_classifier_classify", "const char *const *", "texts", r#"{"a b", "b"}"#),
    ("optimize_classifier_classify", "const char *const *", "second_texts", r#"{"a", "a b"}"#),
    ("optimize_tagger_tag", "const char *const *", "texts", r#"{"a b", "b"}"#),
    ("optimize_spans_count", "size_t", "text", "0"),
    ("optimize_spans_get", "size_t", "text", "0"),
    ("optimize_generator_append", "const char *", "text", r#""a b""#),
    ("optimize_generator_append", "size_t", "size", "3"),
    ("optimize_model_render_chat", "const char *", "messages", MESSAGES),
    ("optimize_model_apply_chat_template", "const char *", "messages", MESSAGES),
    ("optimize_report_number", "const char *", "pointer", r#""/schema_version""#),
    ("optimize_report_text", "const char *", "pointer", r#""/operation""#),
    ("optimize_report_count", "const char *", "pointer", r#""/nodes""#),
    ("optimize_generation_candidate", "size_t", "token", "0"),
    ("*", "size_t", "row", "0"),
    ("*", "size_t", "count", "2"),
];

/// Returns a valid argument for each parameter, from a table to which unknown parameters must be added.
pub fn arguments(header: &Header, function: &Function) -> Vec<Argument> {
    function.params.iter().map(|param| argument(header, function, param)).collect()
}

fn argument(header: &Header, function: &Function, param: &Variable) -> Argument {
    by_type(header, function, param).unwrap_or_else(|| by_name(function, param))
}

impl Argument {
    fn new(kind: Kind, param: &Variable, setup: String, value: String) -> Argument {
        let null = if param.ctype.ends_with('*') { Null::Refused } else { Null::Never };
        Argument { local: format!("a_{}", param.name), kind, null, setup, value, after: String::new() }
    }

    fn null(self, null: Null) -> Argument {
        Argument { null, ..self }
    }

    fn after(self, after: String) -> Argument {
        Argument { after, ..self }
    }
}

fn is_optional(function: &Function, param: &Variable) -> bool {
    OPTIONAL.contains(&(function.name.as_str(), param.name.as_str()))
}

/// Returns the argument for a handle, a struct, or a pointer to a result: these follow from their types.
fn by_type(header: &Header, function: &Function, param: &Variable) -> Option<Argument> {
    let (ctype, name, local) = (param.ctype.as_str(), &param.name, format!("a_{}", param.name));
    let bare = ctype.trim_start_matches("const ").trim_end_matches('*').trim_end();
    let null = if is_optional(function, param) { Null::Taken } else { Null::Refused };
    let new = |kind, setup, value: &str| Argument::new(kind, param, setup, value.to_owned());
    let place = format!("&{local}");
    if name == "error" && ctype == "optimize_error_t **" {
        return Some(new(Kind::Other, format!("optimize_error_t *{local} = POISON;"), &place).null(Null::Taken));
    }
    if header.handles.iter().any(|handle| handle == bare) && ctype.ends_with("**") {
        let after = format!("if (check_result(status, {local}, \"{name}\")) {}({local});", free_of(bare));
        return Some(new(Kind::Other, format!("{bare} *{local} = POISON;"), &place).null(null).after(after));
    }
    if header.handles.iter().any(|handle| handle == bare) && !ctype.ends_with("const *") {
        let strings = function.name == "optimize_tensor_string";
        let decoder = DECODERS.contains(&function.name.as_str());
        let maker = match () {
            () if strings => "make_strings".to_owned(),
            () if decoder && bare == "optimize_model_t" => "make_decoder".to_owned(),
            () if function.name == "optimize_embedder_new" && bare == "optimize_model_t" => "make_encoder".to_owned(),
            () if function.name == "optimize_classifier_new" && bare == "optimize_model_t" => "make_classes".to_owned(),
            () if function.name == "optimize_tagger_new" && bare == "optimize_model_t" => "make_tags".to_owned(),
            () if function.name.starts_with("optimize_generation_") => "make_generations".to_owned(),
            () if function.name == "optimize_report_benchmark" => "make_benchmark".to_owned(),
            () if function.name.starts_with("optimize_report_") => "make_report".to_owned(),
            () => maker_of(bare),
        };
        let made = new(Kind::Handle(bare.to_owned()), format!("{bare} *{local} = {maker}();"), &local).null(null);
        // The function that frees the handle has already done so.
        let freed = function.name == free_of(bare);
        return Some(if freed { made } else { made.after(format!("{}({local});", free_of(bare))) });
    }
    if header.struct_named(bare).is_some_and(|s| s.fields[0].name == "struct_size" && !s.is_required()) {
        let setup = format!("struct {{ {bare} known; unsigned char tail[64]; }} {local};");
        let clear = format!("memset(&{local}, 0, sizeof {local});\n    {local}.known.struct_size = sizeof({bare});");
        let null = if ctype.starts_with("const ") { Null::Taken } else { Null::Refused };
        let kind = Kind::Sized(bare.to_owned());
        return Some(new(kind, format!("{setup}\n    {clear}"), &format!("&{local}.known")).null(null));
    }
    match ctype {
        "const char **" => {
            let after = format!("check_result(status, {local}, \"{name}\");");
            Some(new(Kind::Other, format!("const char *{local} = POISON;"), &place).after(after))
        }
        "double *" => Some(new(Kind::Other, format!("double {local} = 77;"), &place)),
        "size_t *" => Some(new(Kind::Other, format!("size_t {local} = 77;"), &place).null(null)),
        "void *" if name == "user_data" => Some(new(Kind::Other, String::new(), "NULL").null(Null::Taken)),
        _ => None,
    }
}

fn by_name(function: &Function, param: &Variable) -> Argument {
    let (ctype, name, local) = (param.ctype.as_str(), param.name.as_str(), format!("a_{}", param.name));
    let fits =
        |row: &&(&str, &str, &str, &str)| (row.0 == "*" || row.0 == function.name) && (row.1, row.2) == (ctype, name);
    let Some((_, _, _, value)) = VALUES.iter().find(fits) else {
        let place = format!("`{ctype} {name}` of {}", function.name);
        panic!("tests/abi/cases.rs does not know what to give for {place}: add it to VALUES");
    };
    let plain = |kind| Argument::new(kind, param, String::new(), (*value).to_owned());
    let made = match ctype {
        "const char *const *" => {
            Argument::new(Kind::Texts, param, format!("const char *{local}[] = {value};"), local.clone())
        }
        handles if handles.ends_with("_t *const *") => {
            let handle = handles.trim_start_matches("const ").trim_end_matches(" *const *");
            // Models in a list must be able to generate text together.
            let maker = if handle == "optimize_model_t" { "make_decoder".to_owned() } else { maker_of(handle) };
            let setup = format!("{handle} *made = {maker}();\n    const {handle} *{local}[] = {value};");
            let kind = Kind::Handles(handle.to_owned());
            Argument::new(kind, param, setup, local.clone()).after(format!("{}(made);", free_of(handle)))
        }
        "const char *" => plain(Kind::Text),
        "int32_t" => plain(Kind::Enum),
        "size_t" => plain(Kind::Size),
        _ => plain(Kind::Other),
    };
    if is_optional(function, param) { made.null(Null::Taken) } else { made }
}

/// Returns the function that frees a handle.
pub fn free_of(handle: &str) -> String {
    format!("{}_free", handle.trim_end_matches("_t"))
}

/// Returns the function of the prelude that creates a handle.
pub fn maker_of(handle: &str) -> String {
    handle.trim_end_matches("_t").replacen("optimize", "make", 1)
}

/// The difference of a call from a valid one.
#[derive(Default)]
pub struct Change {
    /// Indices of arguments, each with the C expression to use instead.
    pub values: Vec<(usize, String)>,
    /// C statements before the call.
    pub before: String,
    /// C statements after the call.
    pub after: String,
}

impl Change {
    pub fn value(index: usize, value: &str) -> Change {
        Change { values: vec![(index, value.to_owned())], ..Change::default() }
    }

    pub fn before(statements: String) -> Change {
        Change { before: statements, ..Change::default() }
    }
}

/// Returns a call of `function` that differs from a valid one by `change` and must return `answer`.
pub fn case(header: &Header, function: &Function, what: &str, change: &Change, answer: Answer) -> Case {
    let arguments = arguments(header, function);
    let changed = |index: usize| change.values.iter().find(|(at, _)| *at == index).map(|(_, value)| value.as_str());
    let mut lines: Vec<String> = arguments.iter().map(|a| a.setup.clone()).collect();
    lines.push(change.before.clone());
    let values: Vec<&str> = arguments.iter().enumerate().map(|(i, a)| changed(i).unwrap_or(a.value.as_str())).collect();
    let call = format!("{}({})", function.name, values.join(", "));
    if function.is_fallible() {
        let answer = match (answer, refusal(function)) {
            (Answer::Status("OPTIMIZE_OK"), Some(refused)) => refused,
            (other, _) => other,
        };
        let error = if changed(arguments.len() - 1).is_some() { "NULL" } else { "&a_error" };
        let wanted = match answer {
            Answer::Status(status) | Answer::StatusOrEmpty(status) => status,
            Answer::Failure => "-2",
        };
        lines.push(format!("const int status = (int){call};\n    check_status(status, {wanted}, {error});"));
    } else if function.returns == "void" {
        lines.push(format!("{call};"));
    } else {
        lines.push(format!("{} answer = {call};\n    (void)answer;", function.returns));
        if matches!(answer, Answer::StatusOrEmpty(_) | Answer::Failure) {
            lines.push(format!("check({}, \"the answer is not that for nothing\");", empty(&function.returns)));
        }
    }
    for (index, argument) in arguments.iter().enumerate() {
        // A result whose address was not passed is not written, and a handle that was not passed is not freed.
        let replaced = changed(index).is_some();
        match &argument.kind {
            Kind::Handle(handle) if replaced => lines.push(format!("{}({});", free_of(handle), argument.local)),
            Kind::Handle(_) | Kind::Handles(_) => lines.push(argument.after.clone()),
            _ if !replaced => lines.push(argument.after.clone()),
            _ => {}
        }
    }
    lines.push(change.after.clone());
    lines.retain(|line| !line.is_empty());
    Case { title: format!("{}: {what}", function.name), body: format!("    {}\n", lines.join("\n    ")) }
}

/// Returns the empty value of a returned type.
fn empty(returns: &str) -> &'static str {
    match returns {
        "size_t" | "int32_t" => "answer == 0",
        "const char *" => "answer != NULL && *answer == '\\0'",
        "optimize_status_t" => "answer == OPTIMIZE_INVALID_HANDLE",
        "optimize_provider_t" => "answer == OPTIMIZE_PROVIDER_CPU",
        pointer if pointer.ends_with('*') => "answer == NULL",
        other => panic!("tests/abi/cases.rs does not know what stands for nothing in {other}"),
    }
}
