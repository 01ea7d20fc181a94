use super::*;
use crate::runtime::test_deps;

const MODEL: &str = "models/paraphrase-MiniLM-L3-v2";

fn mini_lm() -> Tokenizer {
    Tokenizer::load(&test_deps(MODEL)).unwrap()
}

/// Returns a word-level tokenizer without an unknown token.
fn words(extra: &str) -> String {
    format!(
        r#"{{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{{"type":"Whitespace"}},
        "post_processor":null,"decoder":null,{extra}
        "model":{{"type":"WordLevel","vocab":{{"a":0,"b":1,"<pad>":2,"[UNK]":3}},"unk_token":"[UNK]"}}}}"#
    )
}

#[test]
fn text_becomes_ids_and_text_again() {
    let tokenizer = mini_lm();
    let encoding = tokenizer.encode("Hello, world!", true).unwrap();
    assert_eq!(encoding.ids, [101, 7592, 1010, 2088, 999, 102]);
    assert_eq!((encoding.attention_mask, encoding.type_ids), (vec![1; 6], vec![0; 6]));
    assert_eq!(tokenizer.decode(&[101, 7592, 1010, 2088, 999, 102], true).unwrap(), "hello, world!");
    assert!(tokenizer.decode(&[101, 7592], false).unwrap().starts_with("[CLS]"));
    assert_eq!(tokenizer.encode("Hello", false).unwrap().ids, [7592]);
    assert_eq!((tokenizer.vocabulary_size(), tokenizer.pad_id()), (30522, 0));
    assert_eq!(tokenizer.token_id("[SEP]"), Some(102));
    assert_eq!(tokenizer.decode(&[-1], true).unwrap_err().kind(), Kind::InvalidArgument);
}

#[test]
fn a_batch_is_padded_to_its_longest_text_and_cut_where_asked() {
    let tokenizer = mini_lm();
    let batch = tokenizer.encode_batch(&["one two three four", "one"], true, None).unwrap();
    assert_eq!((batch.batch, batch.length), (2, 6));
    assert_eq!(batch.ids[6..], [101, 2028, 102, 0, 0, 0]);
    assert_eq!(batch.mask[6..], [1, 1, 1, 0, 0, 0]);
    assert_eq!((batch.type_ids, batch.cut), (vec![0; 12], vec![0; 2]));
    assert_eq!(tokenizer.truncation(), Some(128));
    let cut = tokenizer.encode_batch(&["one two three four"], true, Some(4)).unwrap();
    assert_eq!((cut.ids, cut.cut), (vec![101, 2028, 2048, 102], vec![2]));
    assert!(tokenizer.encode_batch(&["one"], true, Some(1)).is_err());
    assert_eq!(tokenizer.encode_batch::<&str>(&[], true, None).unwrap(), Batch::default());
    let long = "word ".repeat(1000);
    assert_eq!(tokenizer.encode(&long, true).unwrap().ids.len(), 1002);
}

#[test]
fn the_pad_token_is_found_where_the_file_says_or_by_name() {
    assert_eq!(Tokenizer::from_bytes(words("").as_bytes()).unwrap().pad_id(), 2);
    let padding = r#""padding":{"strategy":"BatchLongest","direction":"Left","pad_to_multiple_of":null,
        "pad_id":1,"pad_type_id":5,"pad_token":"b"},"truncation":{"max_length":2,
        "strategy":"LongestFirst","stride":0,"direction":"Right"},"#;
    let tokenizer = Tokenizer::from_bytes(words(padding).as_bytes()).unwrap();
    let batch = tokenizer.encode_batch(&["a a a", "b"], true, None).unwrap();
    assert_eq!((batch.ids, batch.length), (vec![0, 0, 0, 1, 1, 1], 3));
    assert_eq!(batch.type_ids, [0, 0, 0, 0, 5, 5]);
}

#[test]
fn damaged_files_are_refused_with_the_place() {
    let message = |content: &str| match Tokenizer::from_bytes(content.as_bytes()) {
        Err(e) if e.kind() == Kind::InvalidModel => e.to_string(),
        _ => panic!("{content} was taken"),
    };
    assert!(message("{\n\"version\": \"1.0\",\n !}").contains("line 3"));
    message("");
    message("{}");
    message(&"[".repeat(100_000));
    assert_eq!(Tokenizer::load(Path::new("/nowhere")).err().unwrap().kind(), Kind::NotFound);
    let folder = std::env::temp_dir();
    let e = Tokenizer::load(&folder).err().unwrap();
    assert!(e.to_string().contains(FILE), "{e}");
}

#[test]
fn texts_above_the_limit_are_refused() {
    let tokenizer = Tokenizer::from_bytes(words("").as_bytes()).unwrap();
    let text = "a".repeat(limits::TEXT_BYTES + 1);
    assert_eq!(tokenizer.encode(&text, true).unwrap_err().kind(), Kind::LimitExceeded);
}

#[test]
fn it_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
}
