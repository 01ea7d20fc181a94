//! Tokenizers against the results of transformers, tokenizers and sentencepiece for the same files and texts
//! (tests/fixtures/tokenizers/make.py; `OPTIMIZE_TOKENIZER_FIXTURES` names a folder with more).

use optimize::error::{Kind, Result};
use optimize::text::Tokenizer;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> Value {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers");
    let folder = std::env::var_os("OPTIMIZE_TOKENIZER_FIXTURES").map_or_else(own, PathBuf::from);
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn integers(value: &Value) -> Vec<i64> {
    list(value).iter().map(|id| id.as_i64().unwrap()).collect()
}

fn open(tokenizer: &Value, files: &Value) -> Result<Tokenizer> {
    let beside = |name: &str| Ok(files.get(name).map(|content| content.to_string().into()));
    Tokenizer::with_files(tokenizer.to_string().as_bytes(), &beside)
}

#[test]
fn settings_beside_a_tokenizer_are_applied_as_transformers_applies_them() {
    let all = fixture("settings.json");
    for case in list(&all["cases"]) {
        let tokenizer = open(&all["tokenizers"][text(&case["base"])], &case["files"]).unwrap();
        for (sample, ids) in list(&all["texts"]).iter().zip(list(&case["ids"])) {
            let found = tokenizer.encode(text(sample), true).unwrap().ids;
            assert_eq!(found, integers(ids), "{sample} with {} {}", case["base"], case["files"]);
        }
    }
    println!("{} folders", list(&all["cases"]).len());
}

/// Returns the token ids and types of a text or a pair by a tokenizer of settings.json, of which `edits` replace parts,
/// beside a `config.json` and a `tokenizer_config.json`; null for none.
fn encoded(base: &str, edits: &Value, [model, config]: [Value; 2], texts: &[&str]) -> (Vec<i64>, Vec<i64>) {
    let mut file = fixture("settings.json")["tokenizers"][base].clone();
    file.as_object_mut().unwrap().extend(edits.as_object().unwrap().clone());
    let mut files = json!({ "config.json": model });
    if !config.is_null() {
        files["tokenizer_config.json"] = config;
    }
    let tokenizer = open(&file, &files).unwrap();
    let batch = match texts {
        [text] => tokenizer.encode_batch(&[text], true, None),
        pair => tokenizer.encode_pairs(&[(pair[0], pair[1])], None),
    };
    let batch = batch.unwrap();
    (batch.ids, batch.type_ids)
}

/// The expected values of this test and the following two are those of transformers 5.24.
#[test]
fn token_types_are_given_if_the_tokenizer_returns_them() {
    let names = |names: &[&str]| json!({ "tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names });
    for (config, types) in [
        (json!({ "tokenizer_class": "BertTokenizer" }), true),
        (json!({ "tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "attention_mask"] }), false),
        (json!({ "tokenizer_class": "TokenizersBackend" }), false),
        (names(&["input_ids", "attention_mask"]), false),
        (names(&["input_ids", "token_type_ids"]), true),
        (json!({}), true),
        (Value::Null, true),
    ] {
        let found = encoded("words", &json!({}), [json!({ "model_type": "bert" }), config.clone()], &["a", "b"]);
        let types = if types { vec![0, 0, 0, 1, 1] } else { vec![0; 5] };
        assert_eq!(found, (vec![2, 5, 3, 6, 3], types), "{config}");
    }
}

#[test]
fn special_tokens_are_named_in_several_ways() {
    let image = json!({ "content": "<i>", "lstrip": true, "rstrip": false, "normalized": false, "single_word": false,
        "__type": "AddedToken" });
    let (i, t) = (&[27, 72, 29][..], &[27, 83, 29][..]);
    for (more, first, second) in [
        (json!({ "extra_special_tokens": {}, "additional_special_tokens": ["<t>"] }), i, &[258][..]),
        (
            json!({ "extra_special_tokens": { "image_token": "<i>" }, "additional_special_tokens": ["<t>"] }),
            &[258],
            &[259],
        ),
        (json!({ "image_token": image }), &[258], t),
        (json!({ "image_token": { "content": "<i>" } }), i, t),
        (json!({ "model_specific_special_tokens": { "image_token": "<i>" } }), &[258], t),
    ] {
        let mut config =
            json!({ "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>" });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let found = encoded("bytes", &json!({}), [json!({ "model_type": "llama" }), config], &["a<i> <t>"]);
        assert_eq!(found.0, [&[64], first, &[220], second].concat(), "{more}");
    }
}

#[test]
fn classes_replace_steps_of_the_file() {
    let of = |kind: &str| json!({ "model_type": kind });
    let bert = |lower: bool| json!({ "tokenizer_class": "BertTokenizer", "do_lower_case": lower });
    let lower_before = json!({ "normalizer": { "type": "Sequence", "normalizers": [{ "type": "Lowercase" },
        { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
          "lowercase": false }] } });
    let (none, open_ended) = (json!({ "normalizer": null }), json!({ "post_processor": null }));
    let ids = |base, edits: &Value, files, texts: &[&str]| encoded(base, edits, files, texts).0;
    assert_eq!(ids("words", &lower_before, [of("bert"), bert(false)], &["Ab"]), [2, 10, 25, 3]);
    assert_eq!(ids("words", &none, [of("bert"), bert(true)], &["Ab"]), [2, 5, 25, 3]);
    assert_eq!(ids("words", &json!({}), [of("bert"), Value::Null], &["Ab"]), [2, 5, 25, 3]);
    let pair = encoded("words", &open_ended, [of("bert"), bert(true)], &["a", "b"]);
    assert_eq!(pair, (vec![2, 5, 3, 6, 3], vec![0, 0, 0, 1, 1]));
    let roberta = json!({ "tokenizer_class": "RobertaTokenizer", "unk_token": "</s>", "pad_token": "</s>",
        "mask_token": "</s>" });
    let found = ids("bytes", &open_ended, [of("roberta"), roberta], &["a", "b"]);
    assert_eq!(found, [256, 64, 257, 257, 65, 257]);
    let gpt = json!({ "model_type": "llama", "tokenizer_class": "GPT2Tokenizer" });
    let config = json!({ "bos_token": "<s>", "eos_token": "</s>", "unk_token": "</s>", "add_prefix_space": true });
    assert_eq!(ids("bytes", &open_ended, [gpt, config], &["a"]), [220, 64]);
}

/// The expected values are those of transformers 5.24.
#[test]
fn classes_with_steps_of_their_own_ignore_those_of_the_file() {
    let of = |kind: &str| json!({ "model_type": kind });
    let open_ended = json!({ "post_processor": null });
    let with = |config: Value, more: &Value| {
        let mut config = config;
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let code = json!({ "tokenizer_class": "CodeLlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>" });
    for (more, ids) in [
        (json!({}), [1, 263, 259, 1, 261, 1, 259, 261].as_slice()),
        (json!({ "legacy": true }), &[1, 263, 259, 1, 261, 1, 259, 261]),
        (json!({ "add_prefix_space": false }), &[1, 260, 259, 1, 261, 1, 261]),
    ] {
        for edits in [&open_ended, &json!({})] {
            let found = encoded("llama", edits, [of("llama"), with(code.clone(), &more)], &["a <s>b", "b"]);
            assert_eq!(found.0, ids, "{more} {edits}");
        }
    }
    for (class, kind, ids) in [
        ("ConvBertTokenizer", "convbert", [2, 10, 25, 3]),
        ("DPRReaderTokenizer", "dpr", [2, 5, 25, 3]),
        ("LxmertTokenizer", "lxmert", [2, 5, 25, 3]),
    ] {
        let config = json!({ "tokenizer_class": class, "do_lower_case": true });
        assert_eq!(encoded("words", &json!({}), [of(kind), config], &["Ab"]).0, ids, "{class}");
    }
    let mpnet = json!({ "tokenizer_class": "MPNetTokenizer", "cls_token": "[CLS]", "sep_token": "[SEP]" });
    for edits in [&open_ended, &json!({})] {
        let found = encoded("words", edits, [of("mpnet"), mpnet.clone()], &["a", "b"]);
        assert_eq!(found, (vec![2, 5, 3, 3, 6, 3], vec![0; 6]), "{edits}");
    }
    for (kind, class, space, text, ids) in [
        ("qwen3", "Qwen2Tokenizer", false, "ab 12!", [64, 65, 220, 16, 17, 0].as_slice()),
        ("qwen3", "Qwen2TokenizerFast", true, "ab 12!", &[220, 64, 65, 220, 220, 16, 220, 17, 220, 0]),
        ("qwen3", "Qwen2Tokenizer", false, "e\u{301}", &[127, 102]),
        ("qwen2", "LlamaTokenizerFast", true, "e\u{301}", &[220, 127, 102]),
        ("gpt_neox", "GPTNeoXTokenizer", true, "ab 12!", &[220, 64, 65, 220, 16, 17, 0]),
        ("gpt_neox", "GPTNeoXTokenizerFast", false, "e\u{301}", &[127, 102]),
    ] {
        let config = json!({ "tokenizer_class": class, "eos_token": "</s>", "unk_token": "</s>", "pad_token": "</s>",
            "add_prefix_space": space });
        assert_eq!(encoded("bytes", &json!({}), [of(kind), config], &[text]).0, ids, "{kind} {class} {space} {text}");
    }
}

/// The expected values are those of transformers 5.24.
#[test]
fn classes_put_their_own_special_tokens_around_texts() {
    let bare = json!({ "post_processor": { "type": "TemplateProcessing", "special_tokens": {},
        "single": [{ "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }] } });
    let roberta = json!({ "tokenizer_class": "RobertaTokenizer", "mask_token": "</s>" });
    let dpr = json!({ "tokenizer_class": "DPRContextEncoderTokenizer", "do_lower_case": false });
    for (base, config, texts, ids) in [
        ("words", json!({ "tokenizer_class": "BertTokenizer" }), ["a", "b"], [2, 5, 3, 6, 3].as_slice()),
        ("words", dpr, ["Ab", "b"], &[2, 5, 25, 3, 6, 3]),
        ("bytes", roberta, ["a", "b"], &[256, 64, 257, 257, 65, 257]),
        ("words", json!({ "tokenizer_class": "PreTrainedTokenizerFast" }), ["a", "b"], &[5, 6]),
    ] {
        assert_eq!(encoded(base, &bare, [json!({}), config.clone()], &texts).0, ids, "{config}");
    }
}

#[test]
fn missing_special_tokens_of_a_class_are_noted() {
    let all = fixture("settings.json");
    for (config, noted) in [
        (json!({ "tokenizer_class": "MPNetTokenizer", "cls_token": "[CLS]", "sep_token": "[SEP]" }), false),
        (json!({ "tokenizer_class": "MPNetTokenizer" }), true),
    ] {
        let mut file = all["tokenizers"]["words"].clone();
        file["post_processor"] = Value::Null;
        let files = json!({ "tokenizer_config.json": config, "config.json": { "model_type": "mpnet" } });
        let tokenizer = open(&file, &files).unwrap();
        let found = tokenizer.notes().iter().any(|note| note.contains("no special tokens"));
        assert_eq!(found, noted, "{:?}", tokenizer.notes());
    }
}

/// The expected values are those of transformers 5.24.
#[test]
fn xlm_roberta_tokenizers_split_at_spaces() {
    let vocabulary = json!([
        ["<s>", 0.0],
        ["<pad>", 0.0],
        ["</s>", 0.0],
        ["<unk>", 0.0],
        ["\u{2581}", -2.0],
        ["a", -3.0],
        ["b", -3.5],
        ["\u{2581}a", -1.0],
        ["\u{2581}b", -1.5],
        ["<mask>", 0.0]
    ]);
    let file = json!({ "version": "1.0", "added_tokens": [], "post_processor": null, "decoder": null,
        "normalizer": { "type": "Replace", "pattern": { "String": "b" }, "content": "a" },
        "pre_tokenizer": { "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true },
        "model": { "type": "Unigram", "unk_id": 3, "vocab": vocabulary, "byte_fallback": false } });
    for (class, space, ids) in [
        ("XLMRobertaTokenizer", true, &[7, 6, 8, 7]),
        ("XLMRobertaTokenizerFast", false, &[5, 6, 6, 5]),
        ("CamembertTokenizer", false, &[5, 6, 6, 5]),
    ] {
        let config = json!({ "tokenizer_class": class, "add_prefix_space": space, "bos_token": "<s>" });
        let tokenizer = open(&file, &json!({ "tokenizer_config.json": config })).unwrap();
        assert_eq!(tokenizer.encode("ab  b a ", false).unwrap().ids, ids, "{class} {space}");
        let pair = tokenizer.encode_pairs(&[("a", "b")], None).unwrap();
        let ids: &[i64] = if space { &[0, 7, 2, 2, 8, 2] } else { &[0, 5, 2, 2, 6, 2] };
        assert_eq!((pair.ids.as_slice(), pair.type_ids), (ids, vec![0; 6]), "{class} {space}");
    }
}

#[test]
fn a_folder_a_package_and_a_copy_know_their_settings() {
    let all = fixture("settings.json");
    let folder = std::env::temp_dir().join(format!("optimize-tokenizers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, content: &Value| std::fs::write(folder.join(name), content.to_string()).unwrap();
    write("tokenizer.json", &all["tokenizers"]["bytes"]);
    write("added_tokens.json", &json!({ "<new>": 258 }));
    let ids = |path: &Path| Tokenizer::load(path).unwrap().encode("<new>", false).unwrap().ids;
    assert_eq!(ids(&folder), [258]);
    assert_eq!(ids(&folder.join("tokenizer.json")), [258]);
    // A file with another name is loaded alone.
    std::fs::copy(folder.join("tokenizer.json"), folder.join("other.json")).unwrap();
    assert_eq!(ids(&folder.join("other.json")).len(), 5);
    write(
        "tokenizer_config.json",
        &json!({ "truncation_side": "left", "pad_token": "</s>", "auto_map": { "AutoTokenizer": ["x", null] } }),
    );
    let tokenizer = Tokenizer::load(&folder).unwrap();
    let batch = tokenizer.encode_batch(&["abc", "a"], true, Some(2)).unwrap();
    assert_eq!((batch.ids, batch.cut), (vec![65, 66, 64, 257], vec![1, 0]));
    assert!(tokenizer.notes()[0].contains("auto_map"), "{:?}", tokenizer.notes());
    for wrong in [
        json!({ "pad_token": 7 }),
        json!({ "added_tokens_decoder": [] }),
        json!({ "added_tokens_decoder": { "x": "a" } }),
    ] {
        write("tokenizer_config.json", &wrong);
        let e = Tokenizer::load(&folder).err().unwrap();
        assert_eq!(e.kind(), Kind::InvalidModel, "{e}");
    }
    std::fs::write(folder.join("tokenizer_config.json"), "{").unwrap();
    let e = Tokenizer::load(&folder).err().unwrap().to_string();
    assert!(e.contains("tokenizer_config.json") && e.contains("damaged"), "{e}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// Returns a tokenizer in which every piece is one token, and texts are split by one step.
fn split(step: &Value) -> Result<Tokenizer> {
    let file = json!({ "version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null, "decoder": null,
        "pre_tokenizer": step, "model": { "type": "WordLevel", "vocab": { "[UNK]": 0 }, "unk_token": "[UNK]" } });
    Tokenizer::from_bytes(file.to_string().as_bytes())
}

fn by(pattern: &str) -> Tokenizer {
    split(&json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false }))
        .unwrap()
}

/// Checks patterns in the dialect of Oniguruma: `texts[i]` must be split into as many pieces as `cuts[i]` has ends.
/// Each end is found by splitting prefixes.
#[test]
fn patterns_cut_as_onigurumas_dialect_has_it() {
    let all = fixture("patterns.json");
    let behaviours = [
        ("isolated", "Isolated"),
        ("removed", "Removed"),
        ("merged_with_previous", "MergedWithPrevious"),
        ("merged_with_next", "MergedWithNext"),
        ("contiguous", "Contiguous"),
    ];
    for case in list(&all["cases"]) {
        let behaviour = behaviours.iter().find(|(name, _)| *name == text(&case[1])).unwrap().1;
        let step =
            json!({ "type": "Split", "pattern": { "Regex": case[0] }, "behavior": behaviour, "invert": case[2] });
        let tokenizer = split(&step).unwrap();
        for (sample, cuts) in list(&all["texts"]).iter().zip(list(&case[3])) {
            let found = tokenizer.encode(text(sample), false).unwrap().ids.len();
            assert_eq!(found, list(cuts).len(), "{} {behaviour} {} on {sample}", case[0], case[2]);
        }
    }
    println!("{} patterns", list(&all["cases"]).len());
}

#[test]
fn a_long_run_of_spaces_does_not_end_the_text() {
    let bytes =
        split(&json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true }))
            .unwrap();
    let long = format!("a{}hello world and more", " ".repeat(1_000_100));
    assert_eq!(bytes.encode(&long, false).unwrap().ids.len(), 6);
}

#[test]
fn a_pattern_that_gives_up_is_an_error_and_not_the_end_of_the_text() {
    let tokenizer = by(r"(?:a|b|ab)*c|\w");
    assert_eq!(tokenizer.encode("abc x", false).unwrap().ids.len(), 3);
    let text = format!("{} x", "ab".repeat(40));
    let e = tokenizer.encode(&text, false).unwrap_err();
    assert_eq!(e.kind(), Kind::LimitExceeded, "{e}");
    assert!(e.to_string().contains("regular expression"), "{e}");
    // The tokenizer can be used again.
    assert_eq!(tokenizer.encode("abc", false).unwrap().ids.len(), 1);
}

#[test]
fn threads_share_a_tokenizer() {
    let tokenizer = by(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s+");
    let text = "it's 12345 and we'LL see, won't we?\n".repeat(200);
    let whole = tokenizer.encode(&text, false).unwrap().ids.len();
    std::thread::scope(|scope| {
        let work = || (0..20).all(|_| tokenizer.encode(&text, false).unwrap().ids.len() == whole);
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
    });
}

#[test]
fn damaged_notes_on_equal_merges_are_refused() {
    let tokenizer = &fixture("settings.json")["tokenizers"]["llama"];
    let with = |equal: Value| open(tokenizer, &json!({ "tokenizer_config.json": { "equal_merges": equal } }));
    // The file lists five merges; spaces, bytes and special tokens are used as it defines them.
    for sample in ["abc", "a b</s>bc", "\u{e9} ab"] {
        let ids = |tokenizer: Tokenizer| tokenizer.encode(sample, true).unwrap().ids;
        assert_eq!(ids(with(json!([])).unwrap()), ids(open(tokenizer, &json!({})).unwrap()), "{sample}");
        with(json!([[0, 2], [2, 3]])).unwrap();
    }
    for wrong in
        [json!([[0, 6]]), json!([[0, 3], [2, 1]]), json!([[4, 1], [0, 1]]), json!({}), json!([[-1, 2]]), json!([[0]])]
    {
        let e = with(wrong.clone()).err().unwrap();
        assert!(e.kind() == Kind::InvalidModel && e.to_string().contains("equal_merges"), "{wrong}: {e}");
    }
}
