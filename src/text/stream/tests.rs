use super::*;

/// Returns a byte-level tokenizer whose tokens are the single bytes, in the alphabet of such tokenizers, and one
/// special token.
fn bytes() -> Tokenizer {
    let mut shown: Vec<char> = Vec::new();
    let mut next = 256;
    for byte in 0..=255u8 {
        let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        shown.push(if printable { char::from(byte) } else { char::from_u32(next).unwrap() });
        next += u32::from(!printable);
    }
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        shown.iter().enumerate().map(|(id, c)| (c.to_string(), id.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "added_tokens": [{"id": 256, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []}
    });
    Tokenizer::from_bytes(tokenizer.to_string().as_bytes()).unwrap()
}

fn pieces(tokens: &[u8]) -> Vec<String> {
    let (tokenizer, mut stream) = (bytes(), TextStream::new(false));
    tokens.iter().map(|byte| stream.push(&tokenizer, i64::from(*byte)).unwrap()).collect()
}

#[test]
fn characters_come_whole() {
    assert_eq!(pieces("aé😀b".as_bytes()), ["a", "", "é", "", "", "", "😀", "b"]);
    let long = "Grüße, 世界! 👩‍👩‍👧 ".repeat(20);
    let got = pieces(long.as_bytes());
    assert_eq!(got.concat(), long);
    assert!(got.iter().all(|piece| !piece.contains(char::REPLACEMENT_CHARACTER)));
}

#[test]
fn bytes_that_are_no_text_come_out_marked_and_an_unfinished_end_stays_in() {
    assert_eq!(pieces(b"a\xFFb").concat(), "a\u{FFFD}b");
    assert_eq!(pieces(b"a\xF0\x9F").concat(), "a");
    let (tokenizer, mut stream) = (bytes(), TextStream::new(false));
    let mut text = |byte: u8| stream.push(&tokenizer, i64::from(byte)).unwrap();
    assert_eq!([text(b'a'), text(0xC3)].concat(), "a");
    // A limit that ends the text here shows a replacement character; if the text continues, the real character follows.
    assert_eq!((stream.open().unwrap(), stream.end().unwrap()), ("\u{FFFD}".to_owned(), "\u{FFFD}".to_owned()));
    assert_eq!(stream.open().unwrap(), "");
    assert_eq!(stream.push(&tokenizer, 0xA9).unwrap(), "é");
    // Invalid bytes of any length are not held back forever.
    let nonsense = pieces(&[0xFF; 100]).concat();
    assert!(nonsense.chars().count() >= 97, "{}", nonsense.len());
    assert_eq!(pieces("a\u{FFFD}b".as_bytes()).concat(), "a\u{FFFD}b");
}

#[test]
fn special_tokens_are_silent_unless_kept() {
    let tokenizer = bytes();
    for (keep, expected) in [(false, "ab"), (true, "a<end>b")] {
        let mut stream = TextStream::new(keep);
        let text: String = [97, 256, 98].iter().map(|t| stream.push(&tokenizer, *t).unwrap()).collect();
        assert_eq!(text, expected);
    }
}

#[test]
fn the_pieces_of_a_stream_are_the_text_of_all_tokens() {
    let tokenizer = Tokenizer::load(&crate::runtime::test_deps("models/paraphrase-MiniLM-L3-v2")).unwrap();
    let ids = tokenizer.encode("An unbelievably long tokenization, isn't it? (42)", false).unwrap().ids;
    let mut stream = TextStream::new(false);
    let text: String = ids.iter().map(|id| stream.push(&tokenizer, *id).unwrap()).collect();
    assert_eq!(text, tokenizer.decode(&ids, true).unwrap());
}

fn found(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
    let mut finder = StopFinder::new(&stops.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    let mut given = Vec::new();
    for piece in pieces {
        let (text, stop) = finder.push(piece, "", "");
        given.push(text);
        if stop {
            return (given, true);
        }
    }
    given.push(finder.finish());
    (given, false)
}

#[test]
fn stop_strings_are_found_across_pieces_and_never_shown() {
    assert_eq!(found(&["STOP"], &["a S", "T", "OP b"]), (vec!["a ".into(), "".into(), "".into()], true));
    let (given, stop) = found(&["STOP"], &["a S", "T", "UP"]);
    assert_eq!((given.concat(), given[0].as_str(), stop), ("a STUP".into(), "a ", false));
    assert_eq!(found(&["\n\n", "end"], &["x\n", "y\n", "\nend"]).0.concat(), "x\ny");
    assert_eq!(found(&["aab"], &["a", "a", "a", "b"]), (vec!["".into(), "".into(), "a".into(), "".into()], true));
    assert_eq!(found(&["é!"], &["caf", "é", "?"]).0, ["caf", "", "é?", ""]);
    assert_eq!(found(&["ends here"], &["it en"]).0, ["it ", "en"]);
    assert_eq!(found(&[], &["a", "b"]).0, ["a", "b", ""]);
    assert_eq!(found(&[""], &["a"]).0, ["a", ""]);
}

#[test]
fn stop_strings_are_found_in_special_tokens_and_in_what_is_open() {
    let finder = |stops: &[&str]| StopFinder::new(&stops.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    let mut one = finder(&["<|im_end|>"]);
    assert_eq!(one.push("Yes", "", ""), ("Yes".into(), false));
    assert_eq!(one.push("", "<|im_end|>", ""), (String::new(), true));
    // A stop string may include hidden text and span pieces; hidden text stays out of the result.
    let mut one = finder(&["a<|x|>\nb"]);
    assert_eq!(one.push("a", "<|y|>", ""), (String::new(), false));
    assert_eq!(one.push("ca", "<|x|>", ""), ("ac".into(), false));
    assert_eq!(one.push("\n", "", ""), (String::new(), false));
    assert_eq!(one.push("b", "", ""), (String::new(), true));
    let mut one = finder(&["|>!"]);
    assert_eq!(one.push("a", "<|x|>", ""), ("a".into(), false));
    assert_eq!(one.push("b", "<|x|>", ""), ("b".into(), false));
    assert_eq!(one.push("!!", "", ""), (String::new(), true));
    let mut one = finder(&["|>?"]);
    assert_eq!((one.push("a", "<|x|>", ""), one.push("bc", "", "")), (("a".into(), false), ("bc".into(), false)));
    assert_eq!(finder(&["ab"]).push("xa", "", "bc"), ("x".into(), true));
    assert_eq!(finder(&["b"]).push("xa", "", "cbc"), ("xac".into(), true));
    // Bytes that are complete only at the end come before the special token.
    assert_eq!(finder(&["<|x|>"]).push("Yes ", "<|x|>", "😀"), ("Yes 😀".into(), true));
    assert_eq!(finder(&["x|>"]).push("a", "<|x|>", "界"), ("a界".into(), true));
    assert_eq!(finder(&["界<|x|>"]).push("a", "<|x|>", "界"), ("a".into(), true));
    let mut one = finder(&["<|x|>"]);
    assert_eq!(one.push("a", "<|y|>", "\u{fffd}"), ("a".into(), false));
    assert_eq!(one.push("é", "<|x|>", "b"), ("éb".into(), true));
}

/// A generator of pseudorandom numbers (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// Returns one of the decoders, or a sequence of them; most often those of real tokenizers.
fn any_decoder(random: &mut Random, depth: usize) -> serde_json::Value {
    use serde_json::json;
    let replace =
        |pattern: serde_json::Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let strip = |start: usize, stop: usize| json!({"type": "Strip", "content": " ", "start": start, "stop": stop});
    let space = replace(json!({"String": "\u{2581}"}), " ");
    let (bytes, fuse) = (json!({"type": "ByteFallback"}), json!({"type": "Fuse"}));
    match random.below(if depth > 0 { 14 } else { 12 }) {
        0 => json!({"type": "Sequence", "decoders": [space, bytes, fuse, strip(1, 0)]}),
        1 => json!({"type": "Sequence", "decoders": [space, bytes, fuse]}),
        2 => json!({"type": "Metaspace", "replacement": "\u{2581}", "split": true,
            "prepend_scheme": random.pick(&["always", "never", "first"])}),
        3 => json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}),
        4 => json!({"type": "WordPiece", "prefix": "##", "cleanup": random.below(2) == 0}),
        5 => json!({"type": "BPEDecoder", "suffix": "</w>"}),
        6 => json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": random.below(2) == 0}),
        7 => bytes,
        8 => fuse,
        9 => strip(random.below(3), random.below(3)),
        10 => replace(
            json!({"String": random.pick(&["\u{2581}", "ab", "aab", " ", "\u{FFFD}"])}),
            random.pick(&["", " ", "ab"]),
        ),
        11 => replace(json!({"Regex": random.pick(&["a+", "\u{2581}| ", "b$"])}), random.pick(&["", "b"])),
        _ => {
            let decoders: Vec<_> = (0..1 + random.below(4)).map(|_| any_decoder(random, depth - 1)).collect();
            json!({"type": "Sequence", "decoders": decoders})
        }
    }
}

/// Returns a tokenizer with a random decoder (one time in twenty without), its number of ids, and its description.
fn any_tokenizer(random: &mut Random) -> (Tokenizer, usize, String) {
    let mut tokens: Vec<String> = [
        "a",
        "b",
        "ab",
        "aab",
        "\u{2581}a",
        "\u{2581}",
        "##b",
        "b</w>",
        "</w>",
        "a</w>b",
        "|",
        "<pad>",
        " .",
        "'s",
        " n't",
        "é",
        "\u{120}x",
        "\u{f0}\u{178}",
        "\u{13a}\u{122}",
        "世",
        "<0xZZ>",
        "<0x+F>",
        " ",
        "\u{FFFD}",
    ]
    .map(str::to_owned)
    .to_vec();
    // The bytes of characters of one to four bytes occur more often than other bytes.
    tokens.extend("a é界😀\u{301}".bytes().chain([0x0A, 0x80, 0xFF, 0xF4]).map(|byte| format!("<0x{byte:02X}>")));
    tokens.sort();
    tokens.dedup();
    tokens.push("<s>".into());
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    let decoder = if random.below(20) == 0 { serde_json::Value::Null } else { any_decoder(random, 2) };
    let content = serde_json::json!({
        "version": "1.0", "normalizer": null, "post_processor": null, "pre_tokenizer": null, "decoder": decoder,
        "added_tokens": [{"id": tokens.len() - 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"}
    });
    (Tokenizer::from_bytes(content.to_string().as_bytes()).unwrap(), tokens.len(), decoder.to_string())
}

/// Returns a random sequence of tokens: runs of bytes that are characters, and any others.
fn any_ids(random: &mut Random, tokenizer: &Tokenizer, count: usize) -> Vec<i64> {
    let mut ids = Vec::new();
    for _ in 0..random.below(12) {
        if random.below(3) > 0 {
            let text = random.pick(&["😀", "界", "é", "a", "😀界", "\u{301}"]);
            let bytes = text.bytes().map(|byte| tokenizer.token_id(&format!("<0x{byte:02X}>")).unwrap());
            ids.extend(bytes);
        } else {
            ids.push(random.below(count + 1) as i64);
        }
    }
    ids
}

#[test]
fn whatever_the_decoder_a_stream_gives_what_decoding_all_at_once_gives() {
    let cases = std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let (mut streams, mut prefixes, mut early, mut stops) = (0, 0, 0, 0);
    for case in 0..cases {
        let random = &mut Random(case);
        let (tokenizer, count, decoder) = any_tokenizer(random);
        for _ in 0..4 {
            let ids = any_ids(random, &tokenizer, count);
            let keep = random.below(2) == 0;
            let (mut stream, mut given) = (TextStream::new(keep), String::new());
            for (at, id) in ids.iter().enumerate() {
                // If the tokenizers crate cannot decode a token, the rest of the sequence is not compared.
                let Ok(piece) = stream.push(&tokenizer, *id) else { break };
                given += &piece;
                early += usize::from(!piece.is_empty() && at + 1 < ids.len());
                let Ok(whole) = tokenizer.decode(&ids[..=at], !keep) else { continue };
                assert_eq!(given.clone() + &stream.open().unwrap(), whole, "case {case}: {decoder} {:?}", &ids[..=at]);
                prefixes += 1;
            }
            let Ok(whole) = tokenizer.decode(&ids, !keep) else { continue };
            assert_eq!(given + &stream.end().unwrap(), whole, "case {case}: {decoder} {ids:?}");
            streams += 1;
            stops += usize::from(stops_as_decoded(&tokenizer, &ids, random));
        }
    }
    println!(
        "{cases} tokenizers, {streams} streams, {prefixes} prefixes, {early} pieces before the end, {stops} stops"
    );
    assert!(early > prefixes / 4 && stops > streams / 20, "{early} {prefixes} {stops} {streams}");
}

/// Checks when a stop string is found: as soon as the text of the tokens so far has it, and never before. Returns
/// whether one was found.
fn stops_as_decoded(tokenizer: &Tokenizer, ids: &[i64], random: &mut Random) -> bool {
    let list: Vec<String> =
        (0..1 + random.below(2)).map(|_| random.pick(&["a", "界a", "b ", "😀", "ab", "é"]).into()).collect();
    let (mut stream, mut finder, mut given) = (TextStream::new(false), StopFinder::new(&list), String::new());
    for (at, id) in ids.iter().enumerate() {
        let Ok(piece) = stream.push(tokenizer, *id) else { return false };
        let (Ok(open), Ok(whole)) = (stream.open(), tokenizer.decode(&ids[..=at], true)) else { return false };
        let (text, found) = finder.push(&piece, "", &open);
        given += &text;
        let first = list.iter().filter_map(|stop| whole.find(stop.as_str())).min();
        assert_eq!(found, first.is_some(), "{list:?} in {whole:?}");
        if let Some(first) = first {
            assert_eq!(given, whole[..first], "{list:?} in {whole:?}");
            return true;
        }
    }
    false
}
