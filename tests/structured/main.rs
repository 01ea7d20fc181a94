//! Tests of structured pruning: a cut model equals a masked one, on random graphs and on real models.

#[path = "../support/mod.rs"]
mod support;

mod heads;
mod layers;
mod models;
mod numbers;
mod random;

use optimize::call::Call;
use optimize::model::Model;
use optimize::prune::structured::{Importance, Plan, PruneOptions};
use optimize::runtime::{Session, SessionOptions, Tensor};
use random::{Maker, Random};
use support::runtime;

fn run(model: &Model, x: &Tensor) -> Vec<f32> {
    let options = SessionOptions { threads: 1, ..Default::default() };
    let session = Session::new(runtime(), model, &options, &Call::default()).unwrap();
    let mut found = session.run(&[("x", x)], &["y"], &Call::default()).unwrap();
    found.remove(0).1.to_f32_vec().unwrap()
}

/// Cuts a model made from `seed`, compares it with the masked one, and returns the number of units before and after.
fn cut_equals_masked(seed: u64, numbers: bool) -> (u64, u64) {
    let mut maker = Maker::new(seed);
    maker.numbers = numbers;
    let images = seed % 2 == 1 && !numbers;
    let model = if images { maker.images() } else { maker.tokens() };
    let mut random = Random(seed ^ 0xabcd);
    let options = PruneOptions {
        sparsity: 0.1 + 0.75 * f64::from(random.float().abs()),
        importance: random.pick(&[Importance::L1, Importance::L2, Importance::Random]),
        round_to: random.pick(&[0, 1, 1, 2]),
        seed,
        ..PruneOptions::structured()
    };
    let plan = match Plan::new(&model, &options, None, &Call::default()) {
        Ok(plan) => plan,
        Err(e) => {
            assert!(e.to_string().starts_with("no unit can be removed"), "seed {seed}: {e}");
            return (0, 0);
        }
    };
    let cut = plan.cut(&Call::default()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let shape: &[i64] = if images { &[2, 3, 8, 8] } else { &[2, 7, 6] };
    let count = shape.iter().product::<i64>() as usize;
    let x = Tensor::from_f32(shape, (0..count).map(|_| random.float()).collect()).unwrap();
    let (expected, found) = (run(&plan.masked().unwrap(), &x), run(&cut, &x));
    let scale = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
    assert_eq!(expected.len(), found.len(), "seed {seed}");
    for (a, b) in expected.iter().zip(&found) {
        assert!((a - b).abs() <= 1e-5 * scale, "seed {seed}: {a} became {b}");
    }
    let report = plan.report(&cut).unwrap();
    let number = |name: &str| report.summary[name].as_u64().unwrap();
    let (before, after) = (number("units_before"), number("units_after"));
    assert!(number("parameters_after") < number("parameters_before") || before == after, "seed {seed}");
    // Something must have changed: an ineffective mask would prove nothing. (Values as large as sizes may hide the
    // output of a unit.)
    if after < before && !numbers {
        let original = run(&model, &x);
        assert!(original.iter().zip(&found).any(|(a, b)| (a - b).abs() > 1e-4), "seed {seed}: nothing changed");
    }
    (before, after)
}

#[test]
fn two_hundred_random_graphs_cut_equal_the_same_graphs_masked() {
    let mut failed = Vec::new();
    let mut results = Vec::new();
    for seed in 0..200 {
        match std::panic::catch_unwind(|| cut_equals_masked(seed, false)) {
            Ok(result) => results.push(result),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
    let cut = results.iter().filter(|(before, after)| after < before).count();
    assert!(cut >= 190, "only {cut} of 200 were cut");
}

/// Returns the number of cases of a property.
fn cases() -> u64 {
    std::env::var("OPTIMIZE_PROPERTY_CASES").map_or(150, |count| count.parse().unwrap())
}

#[test]
fn sizes_that_are_used_as_numbers_are_what_they_were() {
    let mut failed = Vec::new();
    let (mut cut, all) = (0, cases());
    for seed in 0..all {
        match std::panic::catch_unwind(|| cut_equals_masked(1_000_000 + seed, true)) {
            Ok((before, after)) => cut += u64::from(after < before),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
    println!("{all} graphs, {cut} of them cut");
    assert!(cut * 10 >= all * 8, "only {cut} of {all} were cut");
}
