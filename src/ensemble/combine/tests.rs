//! Tests of the methods against their formulas in plain float64.

use super::*;

/// Returns a generator of numbers between 0 and 1 (Marsaglia's xorshift).
fn numbers(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = logits.iter().map(|l| (l - max).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.iter().map(|e| e / sum).collect()
}

fn divided(values: &[f64]) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    values.iter().map(|v| v / sum).collect()
}

fn top(p: &[f64]) -> usize {
    (0..p.len()).fold(0, |best, i| if p[i] > p[best] { i } else { best })
}

/// Returns the probabilities by the formulas in the module's table.
pub(in crate::ensemble) fn reference(
    method: Method,
    logits: &[Vec<f32>],
    weights: &[f64],
    temperatures: &[f64],
) -> Vec<f64> {
    let scaled: Vec<Vec<f64>> =
        logits.iter().zip(temperatures).map(|(row, t)| row.iter().map(|l| f64::from(*l) / t).collect()).collect();
    let p: Vec<Vec<f64>> = scaled.iter().map(|row| softmax(row)).collect();
    let (members, size) = (p.len(), p[0].len());
    let each = |of: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..size).map(of).collect() };
    match method {
        Method::Mean | Method::Weighted => each(&|i| (0..members).map(|m| weights[m] * p[m][i]).sum()),
        Method::Logits => softmax(&each(&|i| (0..members).map(|m| weights[m] * scaled[m][i]).sum())),
        Method::Product => softmax(&each(&|i| (0..members).map(|m| members as f64 * weights[m] * p[m][i].ln()).sum())),
        Method::Max => divided(&each(&|i| (0..members).map(|m| p[m][i]).fold(0.0, f64::max))),
        Method::Median => divided(&each(&|i| {
            let mut column: Vec<f64> = (0..members).map(|m| p[m][i]).collect();
            column.sort_by(f64::total_cmp);
            (column[(members - 1) / 2] + column[members / 2]) / 2.0
        })),
        Method::Vote => each(&|i| (0..members).filter(|m| top(&p[*m]) == i).map(|m| weights[m]).sum()),
        Method::Contrastive => {
            let most = p[0][top(&p[0])];
            let score = |i: usize| if p[0][i] < 0.1 * most { f64::NEG_INFINITY } else { (p[0][i] / p[1][i]).ln() };
            softmax(&each(&score))
        }
        other => panic!("{other:?} combines no distributions"),
    }
}

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

#[test]
fn every_method_is_its_formula() {
    let mut next = numbers(11);
    for step in 0..1000 {
        let size = 50 + step % 200;
        let spread = 1.0 + 12.0 * next();
        let members = if step % 4 == 3 { 4 } else { 3 };
        let all: Vec<Vec<f32>> =
            (0..members).map(|_| (0..size).map(|_| (spread * (next() - 0.5)) as f32).collect()).collect();
        let weights = divided(&(0..members).map(|_| next()).collect::<Vec<_>>());
        let temperatures: Vec<f64> = (0..members).map(|_| 0.5 + next()).collect();
        for method in METHODS {
            let members = if method == Method::Contrastive { 2 } else { members };
            let (logits, weights) = (&all[..members], &divided(&weights[..members]));
            let expected = reference(method, logits, weights, &temperatures);
            let mut combiner = Combiner::new(method, false, weights, &temperatures[..members]);
            let rows: Vec<&[f32]> = logits.iter().map(Vec::as_slice).collect();
            let combined = combiner.combine(&rows).unwrap();
            for (token, (got, expected)) in combined.log_probabilities.iter().zip(&expected).enumerate() {
                let got = f64::from(*got).exp();
                assert!((got - expected).abs() < 1e-6, "{method:?}, token {token}: {got} is not {expected}");
            }
            let expected: f64 = -expected.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
            assert!((combined.entropy - expected).abs() < 1e-9, "{method:?}: {} {expected}", combined.entropy);
        }
    }
}

fn of(method: Method, rows: &[&[f32]]) -> Combined {
    let weights = vec![1.0 / rows.len() as f64; rows.len()];
    Combiner::new(method, false, &weights, &vec![1.0; rows.len()]).combine(rows).unwrap()
}

#[test]
fn equal_members_are_one_member() {
    let mut next = numbers(5);
    let row: Vec<f32> = (0..300).map(|_| (20.0 * next()) as f32).collect();
    let alone = of(Method::Mean, &[&row]);
    for method in [Method::Mean, Method::Logits, Method::Max, Method::Median] {
        let three = of(method, &[&row, &row, &row]);
        let pairs = three.log_probabilities.iter().zip(&alone.log_probabilities);
        assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 2e-6), "{method:?}");
        assert!(three.mutual_information < 1e-12);
    }
    // A product of three equal members is the third power, with the same order of tokens.
    assert_eq!(of(Method::Product, &[&row, &row, &row]).tops[0], alone.tops[0]);
}

#[test]
fn what_is_impossible_or_nearly_so_stays_exact() {
    let infinite = [0.0, f32::NEG_INFINITY, 0.0];
    let far = [0.0f32, -2000.0, -2000.0];
    let mean = of(Method::Mean, &[&infinite, &far]).log_probabilities;
    assert!((mean[2] - 0.25f32.ln()).abs() < 1e-6 && (mean[1] - (-2000.0 - 2f32.ln())).abs() < 1e-3, "{mean:?}");
    // A member with weight 0 excludes nothing.
    let mut one = Combiner::new(Method::Logits, false, &[0.0, 1.0], &[1.0, 1.0]);
    assert!(one.combine(&[&infinite, &far]).unwrap().log_probabilities[1].is_finite());
    assert_eq!(of(Method::Product, &[&infinite, &far]).log_probabilities[1], f32::NEG_INFINITY);
}

#[test]
fn ties_go_to_the_lowest_id_and_votes_are_shares() {
    let (a, b, c) = ([1.0f32, 1.0, 0.0], [0.0f32, 2.0, 1.0], [3.0f32, 0.0, 1.0]);
    let combined = of(Method::Vote, &[&a, &b, &c]);
    assert_eq!(combined.tops, [0, 1, 0]);
    assert!((combined.log_probabilities[0].exp() - 2.0 / 3.0).abs() < 1e-6);
    assert_eq!(combined.log_probabilities[2], f32::NEG_INFINITY);
}

#[test]
fn the_gate_lets_the_first_member_speak_where_all_agree() {
    let (a, b) = ([3.0f32, 1.0, 0.0], [2.0f32, 1.5, 0.0]);
    let mut gated = Combiner::new(Method::Mean, true, &[0.5, 0.5], &[1.0, 1.0]);
    let own = of(Method::Mean, &[&a]);
    assert_eq!(gated.combine(&[&a, &b]).unwrap().log_probabilities, own.log_probabilities);
    let other = [0.0f32, 4.0, 0.0];
    let both = gated.combine(&[&a, &other]).unwrap();
    assert_eq!(both.log_probabilities, of(Method::Mean, &[&a, &other]).log_probabilities);
    assert!(both.mutual_information > 0.1, "{}", both.mutual_information);
}

#[test]
fn padding_is_cut_and_nonsense_is_named() {
    let mut mean = Combiner::new(Method::Mean, false, &[0.5, 0.5], &[1.0, 1.0]);
    assert_eq!(mean.combine(&[&[1.0, 2.0, 9.0], &[1.0, 2.0]]).unwrap().log_probabilities.len(), 2);
    for bad in [[f32::NAN, 0.0], [f32::INFINITY, 0.0], [f32::NEG_INFINITY, f32::NEG_INFINITY]] {
        let e = mean.combine(&[&[0.0, 0.0], &bad]).unwrap_err();
        assert!(e.to_string().contains("member 2"), "{e}");
    }
}
