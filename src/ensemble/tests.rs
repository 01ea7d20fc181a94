//! Tests of ensembles of real and of tiny random models against each member run separately.

use super::combine::tests::reference;
use super::*;
use crate::error::Kind;
use crate::evaluate::{TextOptions, embed};
use crate::onnx::proto::GraphProto;
use crate::open;
use crate::prune::{PruneMethod, PruneOptions, prune};
use crate::runtime::testing::{graph, node, value, weight};
use crate::runtime::{Execution, Session, Stop, Tensor, test_deps, test_runtime};
use crate::source::{Dialect, LoadOptions};
use crate::text::{GenerateOptions, Generator, Prompt, SamplingOptions};
use std::path::{Path, PathBuf};

/// The families of tiny models with one vocabulary of 150 tokens.
const FAMILIES: [&str; 3] = ["llama", "qwen3", "gpt2"];
const METHODS: [Method; 8] = [
    Method::Mean,
    Method::Weighted,
    Method::Logits,
    Method::Product,
    Method::Max,
    Method::Median,
    Method::Vote,
    Method::Contrastive,
];

pub(super) fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(family)
}

fn tiny(family: &str, dialect: Dialect) -> Model {
    open::load(&fixture(family), &LoadOptions { dialect }).unwrap()
}

fn smollm2() -> Model {
    Model::load(&test_deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap()
}

fn session() -> SessionOptions {
    SessionOptions { threads: 2, ..SessionOptions::default() }
}

fn alone(model: &Model) -> Generator {
    Generator::new(test_runtime(), model, &session(), &Call::default()).unwrap()
}

/// Returns an ensemble with the members and the weights that the method requires.
fn of(method: Method, models: &[Model]) -> Ensemble {
    let count = if method == Method::Contrastive { 2 } else { models.len() };
    let weights = match method {
        Method::Max | Method::Median | Method::Contrastive => Vec::new(),
        _ => vec![0.5, 0.3, 0.2][..count].to_vec(),
    };
    let temperatures = vec![1.0, 0.8, 1.3][..count].to_vec();
    let options = EnsembleOptions { method, weights, temperatures, ..EnsembleOptions::default() };
    Ensemble::new(models[..count].to_vec(), options).unwrap()
}

fn together(ensemble: &Ensemble) -> Box<dyn Rows> {
    ensemble.generator(test_runtime(), &session(), &Call::default()).unwrap()
}

fn exactly(tokens: usize) -> GenerateOptions {
    GenerateOptions { max_new_tokens: Some(tokens), eos_token_ids: Some(Vec::new()), ..GenerateOptions::default() }
}

fn advance(rows: &mut dyn Rows) {
    let all: Vec<usize> = (0..rows.row_count()).collect();
    let stop = Stop::new().unwrap();
    rows.advance_rows(&all, &stop, &mut |_| Ok(())).unwrap();
}

fn top(values: &[f32]) -> i64 {
    (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best }) as i64
}

/// Returns the largest difference between logarithms of probabilities and probabilities.
pub(super) fn farthest(logs: &[f32], expected: &[f64]) -> f64 {
    logs.iter().zip(expected).map(|(log, p)| (f64::from(*log).exp() - p).abs()).fold(0.0, f64::max)
}

#[test]
fn a_thousand_steps_of_every_method_are_those_of_the_formula() {
    let models: Vec<Model> = FAMILIES.iter().map(|family| tiny(family, Dialect::Runtime)).collect();
    let mut members: Vec<Generator> = models.iter().map(alone).collect();
    for method in METHODS {
        let ensemble = of(method, &models);
        let count = ensemble.members().len();
        let weights: Vec<f64> = ensemble.members().iter().map(|m| m.weight).collect();
        let temperatures: Vec<f64> = ensemble.members().iter().map(|m| m.temperature).collect();
        let mut rows = together(&ensemble);
        let mut steps = 0;
        while steps < 1000 {
            // Twenty rows run at once, and each begins with another token.
            rows.start(20).unwrap();
            members[..count].iter_mut().for_each(|member| member.start(20).unwrap());
            for row in 0..20 {
                let prompt = [10 + row as i64, 5, (steps % 120) as i64];
                rows.append(row, Prompt::Tokens(&prompt)).unwrap();
                members[..count]
                    .iter_mut()
                    .for_each(|m| assert_eq!(m.append(row, Prompt::Tokens(&prompt)).unwrap(), 3));
            }
            for _ in 0..25 {
                advance(&mut *rows);
                members[..count].iter_mut().for_each(|member| advance(member));
                for row in 0..20 {
                    let logits: Vec<Vec<f32>> =
                        members[..count].iter().map(|m| m.next_logits(row).unwrap().to_vec()).collect();
                    let expected = reference(method, &logits, &weights, &temperatures);
                    let off = farthest(rows.next_logits(row).unwrap(), &expected);
                    assert!(off < 1e-6, "{method:?}: off by {off} at step {steps}");
                    let token = top(rows.next_logits(row).unwrap());
                    let thought = rows.uncertainty(row, token).unwrap();
                    assert!(thought.agreement <= 1.0 && thought.mutual_information <= thought.entropy + 5.0);
                    rows.push(row, token).unwrap();
                    members[..count].iter_mut().for_each(|member| member.push(row, token).unwrap());
                    steps += 1;
                }
            }
        }
    }
}

#[test]
fn one_member_or_equal_ones_write_what_the_model_writes() {
    let model = smollm2();
    let prompt = [Prompt::Text("The capital of France is")];
    let (options, mut plainly) = (exactly(12), alone(&model));
    let plain = plainly.generate(&prompt, &options, None, &Call::default()).unwrap().remove(0);
    for method in [Method::Mean, Method::Vote] {
        let options = EnsembleOptions { method, ..EnsembleOptions::default() };
        let ensemble = Ensemble::new(vec![model.clone(); 3], options).unwrap();
        let written = together(&ensemble).generate(&prompt, &exactly(12), None, &Call::default()).unwrap().remove(0);
        assert_eq!((written.tokens, written.text), (plain.tokens.clone(), plain.text.clone()), "{method:?}");
        assert!(written.uncertainty.iter().all(|u| u.agreement > 0.999 && u.mutual_information < 1e-9), "{method:?}");
    }
    // A member with weight 0 is not loaded. The ensemble of the other member generates what its plain generator does,
    // also with sampling.
    let drop_layer = PruneOptions { method: PruneMethod::Structured, drop_layers: 1, ..PruneOptions::default() };
    let other = prune(&model, &PruneOptions { sparsity: 0.0, ..drop_layer }, &Call::default()).unwrap().0;
    let weights = EnsembleOptions { weights: vec![1.0, 0.0], ..EnsembleOptions::default() };
    let one = Ensemble::new(vec![model.clone(), other.clone()], weights).unwrap();
    assert_eq!((one.members().len(), one.notes().len()), (1, 1));
    let sampling = SamplingOptions { temperature: 0.8, seed: 7, top_p: 0.9, ..SamplingOptions::default() };
    let drawn = GenerateOptions { sampling, ..exactly(12) };
    let expected = plainly.generate(&prompt, &drawn, None, &Call::default()).unwrap().remove(0);
    let written = together(&one).generate(&prompt, &drawn, None, &Call::default()).unwrap().remove(0);
    assert_eq!(written.tokens, expected.tokens);
    // With two different members, the whole text is streamed, and the number of threads does not change it.
    let two = Ensemble::new(vec![model, other], EnsembleOptions::default()).unwrap();
    let mut streamed = String::new();
    let mut tell = |written: &crate::text::Written<'_>| {
        streamed.push_str(written.text);
        std::ops::ControlFlow::Continue(())
    };
    let written = together(&two).generate(&prompt, &options, Some(&mut tell), &Call::default()).unwrap().remove(0);
    assert_eq!(streamed, written.text);
    let single = SessionOptions { threads: 1, ..SessionOptions::default() };
    let mut single = two.generator(test_runtime(), &single, &Call::default()).unwrap();
    let again = single.generate(&prompt, &exactly(12), None, &Call::default()).unwrap().remove(0);
    assert_eq!(again.tokens, written.tokens);
    assert!(written.uncertainty.iter().any(|u| u.mutual_information > 1e-4), "{:?}", written.uncertainty);
}

#[test]
fn a_fused_decoder_gives_what_the_members_give_together() {
    for dialect in [Dialect::Runtime, Dialect::Portable] {
        let models: Vec<Model> = FAMILIES.iter().map(|family| tiny(family, dialect)).collect();
        for method in METHODS {
            for gate in [false, true] {
                let plain = of(method, &models);
                let options = EnsembleOptions { gate, ..plain.options().clone() };
                let models = plain.members().iter().map(|member| member.model.clone()).collect();
                let ensemble = Ensemble::new(models, options).unwrap();
                let (fused, report) = ensemble.fuse(&Call::default()).unwrap();
                assert_eq!(report.summary["members"], ensemble.members().len());
                let (mut rows, mut one) = (together(&ensemble), alone(&fused));
                for rows in [&mut *rows, &mut one as &mut dyn Rows] {
                    rows.start(2).unwrap();
                    rows.append(0, Prompt::Tokens(&[7, 8, 9, 10])).unwrap();
                    rows.append(1, Prompt::Tokens(&[40])).unwrap();
                }
                for step in 0..12 {
                    advance(&mut *rows);
                    advance(&mut one);
                    for row in 0..2 {
                        let expected: Vec<f64> =
                            rows.next_logits(row).unwrap().iter().map(|log| f64::from(*log).exp()).collect();
                        let off = farthest(one.next_logits(row).unwrap(), &expected);
                        assert!(off < 1e-5, "{dialect:?} {method:?} gate {gate}: off by {off} at step {step}");
                        let token = top(rows.next_logits(row).unwrap());
                        rows.push(row, token).unwrap();
                        one.push(row, token).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn weights_that_members_share_are_in_the_graph_once() {
    let model = smollm2();
    let drop_layers = PruneOptions { method: PruneMethod::Structured, drop_layers: 2, ..PruneOptions::default() };
    let other = prune(&model, &PruneOptions { sparsity: 0.0, ..drop_layers }, &Call::default()).unwrap().0;
    let ensemble = Ensemble::new(vec![model.clone(), other], EnsembleOptions::default()).unwrap();
    let (fused, report) = ensemble.fuse(&Call::default()).unwrap();
    let single = Model::from_proto(model.proto().clone()).bytes();
    assert!(fused.bytes() < single * 101 / 100, "{} of {single}", fused.bytes());
    assert!(report.summary["shared_bytes"].as_u64().unwrap() > 50_000_000, "{:?}", report.summary);
    let prompt = [Prompt::Text("Once upon a time")];
    let written = together(&ensemble).generate(&prompt, &exactly(12), None, &Call::default()).unwrap().remove(0);
    let one = alone(&fused).generate(&prompt, &exactly(12), None, &Call::default()).unwrap().remove(0);
    assert_eq!(one.tokens, written.tokens);
}

/// Returns the vectors of a few texts, normalized to length 1.
fn units(model: &Model) -> Vec<f64> {
    let tokenizer = Tokenizer::load(&test_deps("models/all-MiniLM-L6-v2")).unwrap();
    let texts =
        ["A man eats.", "The price of oil rose again on Friday, for the third time.", "Why?"].map(str::to_owned);
    let options = TextOptions { batch_size: 3, ..TextOptions::default() };
    embed(test_runtime(), model, &tokenizer, &texts, &options, &Call::default()).unwrap().unit()
}

#[test]
fn fused_encoders_give_the_mean_of_the_vectors_or_all_of_them() {
    let models =
        ["models/all-MiniLM-L6-v2", "models/paraphrase-MiniLM-L3-v2"].map(|m| Model::load(&test_deps(m)).unwrap());
    let members: Vec<Vec<f64>> = models.iter().map(units).collect();
    let weights = vec![0.75, 0.25];
    let fuse = |method| {
        let (weights, task) = (weights.clone(), Some(Task::Embed));
        let options = EnsembleOptions { method, weights, task, ..EnsembleOptions::default() };
        units(&Ensemble::new(models.to_vec(), options).unwrap().fuse(&Call::default()).unwrap().0)
    };
    let near = |got: &[f64], expected: &[f64]| {
        let off = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(got.len() == expected.len() && off < 1e-5, "{off}");
    };
    let mut mean: Vec<f64> = members[0].iter().zip(&members[1]).map(|(a, b)| 0.75 * a + 0.25 * b).collect();
    for row in mean.chunks_exact_mut(384) {
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    }
    near(&fuse(Method::Mean), &mean);
    let both = |row: usize| {
        let part = |m: usize, w: f64| members[m][row * 384..(row + 1) * 384].iter().map(move |x| w.sqrt() * x);
        part(0, 0.75).chain(part(1, 0.25)).collect::<Vec<f64>>()
    };
    near(&fuse(Method::Concat), &(0..3).flat_map(both).collect::<Vec<f64>>());
}

/// Returns a model of `y = x * w` with weights of the magnitude `scale`; `output` is the name of `y`.
pub(super) fn matrix(scale: f32, output: &str, outputs: usize) -> Model {
    let values: Vec<f32> = (0..4 * outputs).map(|i| (i as f32 * scale).sin()).collect();
    let mut graph: GraphProto = graph(
        vec![node("MatMul", &["x", "w"], output)],
        vec![value("x", 1, &["batch", "4"])],
        vec![value(output, 1, &["batch", &outputs.to_string()])],
    );
    graph.initializer = vec![weight("w", &[4, outputs as i64], &values)];
    Model::from_proto(crate::runtime::testing::model(graph))
}

pub(super) fn run(model: &Model) -> Vec<f32> {
    let x = Tensor::from_f32(&[2, 4], vec![0.5, -1.0, 2.0, 0.1, 1.5, 0.3, -0.7, 0.9]).unwrap();
    let session = Session::new(test_runtime(), model, &session(), &Call::default()).unwrap();
    session.run(&[("x", &x)], &[], &Call::default()).unwrap()[0].1.to_f32_vec().unwrap()
}

#[test]
fn classifiers_and_numbers_are_combined_by_their_formulas() {
    let models = [matrix(0.7, "logits", 5), matrix(1.3, "logits", 5), matrix(2.1, "logits", 5)];
    let outputs: Vec<Vec<f32>> = models.iter().map(run).collect();
    let fused = |method, task, weights: Vec<f64>| {
        let options = EnsembleOptions { method, task: Some(task), weights, ..EnsembleOptions::default() };
        run(&Ensemble::new(models.to_vec(), options).unwrap().fuse(&Call::default()).unwrap().0)
    };
    for method in METHODS.into_iter().filter(|method| *method != Method::Contrastive) {
        let weights = match method {
            Method::Max | Method::Median => Vec::new(),
            _ => vec![0.5, 0.3, 0.2],
        };
        let got = fused(method, Task::Classify, weights);
        for row in 0..2 {
            let part = |values: &Vec<f32>| values[row * 5..row * 5 + 5].to_vec();
            let rows: Vec<Vec<f32>> = outputs.iter().map(part).collect();
            let expected = reference(method, &rows, &[0.5, 0.3, 0.2], &[1.0; 3]);
            assert!(farthest(&part(&got), &expected) < 1e-6, "{method:?}");
        }
    }
    let column = |i: usize| outputs.iter().map(|values| values[i]).collect::<Vec<f32>>();
    let all = |got: Vec<f32>, of: &dyn Fn(Vec<f32>) -> f32| {
        got.iter().enumerate().for_each(|(i, got)| assert!((got - of(column(i))).abs() < 1e-6));
    };
    all(fused(Method::Weighted, Task::Unknown, vec![2.0, 1.0, 1.0]), &|c| 0.5 * c[0] + 0.25 * c[1] + 0.25 * c[2]);
    all(fused(Method::Max, Task::Unknown, Vec::new()), &|c| c.iter().copied().fold(f32::MIN, f32::max));
    all(fused(Method::Median, Task::Unknown, Vec::new()), &|mut c| {
        c.sort_by(f32::total_cmp);
        c[1]
    });
}

#[test]
fn reranking_takes_the_text_that_all_like_best() {
    let models: Vec<Model> = FAMILIES.iter().map(|family| tiny(family, Dialect::Runtime)).collect();
    let options = EnsembleOptions { method: Method::Rerank, candidates: 3, ..EnsembleOptions::default() };
    let ensemble = Ensemble::new(models.clone(), options).unwrap();
    let sampling = SamplingOptions { temperature: 1.0, seed: 5, ..SamplingOptions::default() };
    let how = GenerateOptions { sampling, eos_token_ids: Some(vec![3, 50, 99]), ..exactly(8) };
    let prompts = [Prompt::Tokens(&[7, 8, 9]), Prompt::Tokens(&[40, 41])];
    let mut rows = together(&ensemble);
    let best = rows.generate(&prompts, &how, None, &Call::default()).unwrap();
    assert_eq!(rows.tokens(1).unwrap()[2..], best[1].tokens);
    // For comparison, each member generates its texts alone, and all members score them.
    let mut members: Vec<Generator> = models.iter().map(alone).collect();
    let mut score = |prompt: &[i64], text: &[i64]| -> f64 {
        let mut sum = 0.0;
        for member in &mut members {
            member.start(1).unwrap();
            member.append(0, Prompt::Tokens(prompt)).unwrap();
            for token in text {
                member.advance(&Call::default()).unwrap();
                sum -= crate::likelihood::surprise(member.next_logits(0).unwrap(), *token as usize) / 3.0;
                member.push(0, *token).unwrap();
            }
        }
        sum / text.len() as f64
    };
    for (row, prompt) in [[7i64, 8, 9].as_slice(), &[40, 41]].into_iter().enumerate() {
        let chosen = score(prompt, &best[row].tokens);
        for voice in 0..3u64 {
            for candidate in 0..3u64 {
                let first_row = voice * 6 + row as u64 * 3 + candidate;
                let how = GenerateOptions { first_row, ..how.clone() };
                let offered =
                    alone(&models[voice as usize]).generate(&[Prompt::Tokens(prompt)], &how, None, &Call::default());
                let offered = offered.unwrap().remove(0).tokens;
                assert!(score(prompt, &offered) <= chosen + 1e-6, "row {row}, {voice}, {candidate}");
            }
        }
    }
}

#[test]
fn a_manifest_is_a_model_and_knows_its_members() {
    let folder = std::env::temp_dir().join(format!("optimize-ensemble-{}", std::process::id()));
    let members = folder.join("members");
    for family in ["llama", "gpt2"] {
        let to = members.join(family);
        std::fs::create_dir_all(&to).unwrap();
        for name in ["config.json", "generation_config.json", "model.safetensors"] {
            std::fs::copy(fixture(family).join(name), to.join(name)).unwrap();
        }
    }
    let models = ["llama", "gpt2"].map(|family| Model::load(&members.join(family)).unwrap()).to_vec();
    let options = EnsembleOptions {
        method: Method::Logits,
        weights: vec![1.0, 3.0],
        temperatures: vec![0.5, 1.0],
        ..EnsembleOptions::default()
    };
    let ensemble = Ensemble::new(models, options).unwrap();
    let manifest = ensemble.save(&folder.join("both")).unwrap();
    let text = std::fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("\"../members/gpt2\""), "{text}");
    // A manifest that is moved together with its members finds them.
    let moved = folder.with_extension("moved");
    std::fs::rename(&folder, &moved).unwrap();
    let again = Ensemble::load(&moved.join("both")).unwrap();
    assert_eq!((again.options().method, again.members()[1].weight), (Method::Logits, 0.75));
    let mut one = alone(&Model::load(&moved.join("both")).unwrap());
    let prompt = [Prompt::Tokens(&[7, 8])];
    let written = one.generate(&prompt, &exactly(10), None, &Call::default()).unwrap().remove(0);
    let expected = together(&ensemble).generate(&prompt, &exactly(10), None, &Call::default()).unwrap().remove(0);
    assert_eq!(written.tokens, expected.tokens);
    let refused = |text: &str| {
        std::fs::write(moved.join("both/ensemble.json"), text).unwrap();
        Ensemble::load(&moved.join("both")).err().unwrap().to_string()
    };
    assert!(refused(&text.replace("liboptimize-ensemble", "other")).contains("its format is \"other\""));
    assert!(refused(&text.replace("\"version\": 1", "\"version\": 2")).contains("version 2"));
    assert!(refused(&text.replace("\"bytes\": ", "\"bytes\": 1")).contains("a different model"));
    assert!(refused(&text.replace("members/gpt2", "members/none")).contains("member 2"));
    assert!(refused(&text[..60]).contains("line"));
    std::fs::remove_dir_all(&moved).unwrap();
}

#[test]
fn what_does_not_go_together_is_refused_by_name() {
    let refused = |models: Vec<Model>, options: EnsembleOptions| {
        let e = Ensemble::new(models, options).and_then(|e| e.fuse(&Call::default())).err().unwrap();
        (e.kind(), e.to_string())
    };
    let plain = EnsembleOptions::default;
    let llama = || tiny("llama", Dialect::Runtime);
    let (kind, text) = refused(vec![llama(), tiny("gpt2", Dialect::Portable)], plain());
    assert!(kind == Kind::Unsupported && text.contains("member 2") && text.contains("Concatenated"), "{text}");
    let (_, text) = refused(vec![llama(), smollm2()], plain());
    // One member has no tokenizer: the width of its logits shows the difference, and the caller is notified.
    assert!(text.contains("150"), "{text}");
    let numbers = |models: Vec<Model>| refused(models, EnsembleOptions { task: Some(Task::Unknown), ..plain() });
    assert!(numbers(vec![matrix(1.0, "y", 3), matrix(1.0, "z", 3), llama()]).1.contains("member 3"));
    let classes = EnsembleOptions { task: Some(Task::Classify), ..plain() };
    assert!(refused(vec![matrix(1.0, "logits", 3), matrix(1.0, "logits", 4)], classes).1.contains("4 classes"));
    let rerank = EnsembleOptions { method: Method::Rerank, ..plain() };
    assert_eq!(refused(vec![llama(), llama()], rerank).0, Kind::Unsupported);
    let options = EnsembleOptions { temperatures: vec![1.0, 0.0], ..plain() };
    assert!(refused(vec![llama(), llama()], options).1.contains("temperature of member 2"));
    let options = EnsembleOptions { candidates: 2, ..plain() };
    assert!(refused(vec![llama(), llama()], options).1.contains("rerank"));
}

#[test]
fn weights_are_fitted_where_the_options_say() {
    let ensemble = Ensemble::new(vec![smollm2(), smollm2()], EnsembleOptions::default()).unwrap();
    // The CPU has no device 1.
    let options = fit::FitOptions {
        execution: Execution { device_id: 1, ..Execution::default() },
        max_tokens: 16,
        ..fit::FitOptions::default()
    };
    let text = "The cat sat on the mat and looked at the dog. ".repeat(4);
    let e = ensemble.fit(test_runtime(), &text, &options, &Call::default()).err().unwrap();
    assert!(e.kind() == Kind::InvalidArgument && e.to_string().contains("member 1"), "{e}");
}
