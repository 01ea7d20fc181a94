//! Packages of a real encoder and of tiny decoders: written, moved, damaged, opened.

use super::*;
use crate::call::Call;
use crate::runtime::{Session, SessionOptions, Tensor, test_deps, test_runtime};
use crate::text::{GenerateOptions, Generator, Prompt};
use std::path::PathBuf;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("optimize-package-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tiny() -> Model {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/llama");
    Model::load(&path).unwrap()
}

#[test]
fn an_encoder_is_packaged_and_keeps_its_contract() {
    let folder = Folder::new("encoder");
    let model = Model::load(&test_deps("models/paraphrase-MiniLM-L3-v2")).unwrap();
    let asked = r#"{"0": {"0": {"name": "batch", "min": 1, "max": 4}, "1": {"name": "length", "min": 2, "max": 16}},
        "attention_mask": {"0": {"name": "batch", "min": 1, "max": 4}, "1": {"name": "length", "min": 2, "max": 16}}}"#;
    let options = CompileOptions {
        dynamic: true,
        dynamic_shapes: DynamicShapes::from_json(asked).unwrap(),
        ..CompileOptions::default()
    };
    let path = folder.0.join("made");
    let report = compile(&model, &options, &path, &Call::default()).unwrap();
    assert_eq!(report.operation, "compile");
    let moved = folder.0.join("elsewhere");
    std::fs::rename(&path, &moved).unwrap();
    let call = Call::default();
    let opened = Model::load(&moved).unwrap();
    assert_eq!(opened.path(), Some(moved.as_path()));
    assert!(crate::text::Tokenizer::of(&opened).unwrap().is_some());
    let mut sessions =
        [&opened, &model].map(|m| Session::new(test_runtime(), m, &SessionOptions::default(), &call).unwrap());
    let run = |session: &mut Session, rows: i64, length: i64| {
        let count = (rows * length) as usize;
        let ids = Tensor::from_i64(&[rows, length], (0..count as i64).map(|i| 1000 + i).collect()).unwrap();
        let mask = Tensor::from_i64(&[rows, length], vec![1; count]).unwrap();
        session.run(&[("input_ids", &ids), ("attention_mask", &mask)], &[], &Call::default())
    };
    let (a, b) = (run(&mut sessions[0], 3, 9).unwrap(), run(&mut sessions[1], 3, 9).unwrap());
    assert_eq!(a[0].1.to_f32_vec().unwrap(), b[0].1.to_f32_vec().unwrap());
    let e = run(&mut sessions[0], 5, 9).unwrap_err().to_string();
    assert!(e.contains("input \"input_ids\": dimension 0 is 5; the package takes 1 to 4"), "{e}");
    assert!(run(&mut sessions[0], 1, 17).is_err() && run(&mut sessions[0], 1, 1).is_err());
    run(&mut sessions[1], 5, 17).unwrap();
    let verified = verify(&moved, &call).unwrap();
    assert!(verified.files > 2 && verified.bytes > 60_000_000, "{verified:?}");
    // Over a package, but nothing else.
    let fixed = CompileOptions {
        example: vec![("input_ids".to_owned(), vec![1, 8]), ("attention_mask".to_owned(), vec![1, 8])],
        ..CompileOptions::default()
    };
    compile(&model, &fixed, &moved, &call).unwrap();
    let mut small =
        Session::new(test_runtime(), &Model::load(&moved).unwrap(), &SessionOptions::default(), &call).unwrap();
    assert!(run(&mut small, 1, 8).is_ok() && run(&mut small, 2, 8).is_err());
    let other = folder.0.join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("file"), "x").unwrap();
    assert!(compile(&model, &fixed, &other, &call).unwrap_err().to_string().contains("is no package"));
    let names: Vec<_> = std::fs::read_dir(&folder.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_decoder_writes_the_same_from_its_package() {
    let folder = Folder::new("decoder");
    let path = folder.0.join("made");
    let model = tiny();
    assert!(compile(&model, &CompileOptions::default(), &path, &Call::default()).is_err());
    let options = CompileOptions { dynamic: true, batch: Some((1, Some(2))), ..CompileOptions::default() };
    compile(&model, &options, &path, &Call::default()).unwrap();
    let write = |model: &Model, rows: usize| {
        let options = GenerateOptions { max_new_tokens: Some(12), ..GenerateOptions::default() };
        let session = SessionOptions::default();
        let mut generator = Generator::new(test_runtime(), model, &session, &Call::default()).unwrap();
        let prompts = vec![Prompt::Tokens(&[7, 8, 9]); rows];
        Ok::<_, crate::error::Error>(generator.generate(&prompts, &options, None, &Call::default())?[0].tokens.clone())
    };
    let opened = Model::load(&path).unwrap();
    assert_eq!(write(&opened, 2).unwrap(), write(&model, 2).unwrap());
    assert!(write(&opened, 3).unwrap_err().to_string().contains("the package takes 1 to 2"));
    assert_eq!(opened.card().generation.eos_token_ids, model.card().generation.eos_token_ids);
}

#[test]
fn every_flipped_bit_is_found_and_none_is_the_end() {
    let folder = Folder::new("flips");
    let path = folder.0.join("made");
    let options = CompileOptions { dynamic: true, ..CompileOptions::default() };
    compile(&tiny(), &options, &path, &Call::default()).unwrap();
    let mut files: Vec<PathBuf> =
        Manifest::read(&path).unwrap().package.files.iter().map(|e| path.join(&e.path)).collect();
    files.extend([path.join(manifest::FILE), path.join(manifest::HASH)]);
    let sizes: Vec<u64> = files.iter().map(|file| file.metadata().unwrap().len()).collect();
    let mut state = 77u64;
    let mut below = |end: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    for flip in 0..1000 {
        // Each file as often as another: the small ones are where parsing happens.
        let at = below(files.len() as u64) as usize;
        let (offset, bit) = (below(sizes[at]) as usize, below(8));
        let mut content = std::fs::read(&files[at]).unwrap();
        content[offset] ^= 1 << bit;
        std::fs::write(&files[at], &content).unwrap();
        assert!(verify(&path, &Call::default()).is_err(), "flip {flip}: {} at {offset}", files[at].display());
        // Opening may not see it, but answers.
        let _ = Model::load(&path);
        content[offset] ^= 1 << bit;
        std::fs::write(&files[at], &content).unwrap();
    }
    verify(&path, &Call::default()).unwrap();
    std::fs::write(path.join("model/extra"), "x").unwrap();
    assert!(verify(&path, &Call::default()).unwrap_err().to_string().contains("no part of the package"));
    std::fs::remove_file(path.join("model/extra")).unwrap();
    std::fs::remove_file(&files[0]).unwrap();
    assert!(Model::load(&path).is_err());
}

#[test]
fn manifests_from_elsewhere_are_answered() {
    let refused = |text: &str| Manifest::parse(text.as_bytes()).unwrap_err().to_string();
    assert!(refused("{").contains("damaged"));
    assert!(refused(r#"{"schema_version": "2.0"}"#).contains("2.0"));
    assert!(refused(r#"{"schema_version": "1.0"}"#).contains("variants"));
    let with = |folder: &str, ours: &str| {
        format!(
            r#"{{"schema_version": "1.0", "components": {{"model": {{"variants": {{"v": {{
            "variant_directory": "{folder}", "executor_info": {{"optimize": {ours}}}}}}}}}}}}}"#
        )
    };
    for folder in ["..", "/etc", "a/../../b", "", "a\\\\b"] {
        assert!(refused(&with(folder, "null")).contains("not a path inside"), "{folder}");
    }
    assert!(refused(&with("a", "null")).contains("written by this library"));
    assert!(refused(&with("a", r#"{"version": 9}"#)).contains("version 9"));
    assert!(refused(&with("a", r#"{"version": 1}"#)).contains("damaged"));
}
