//! Rotary embeddings of a GGUF file with the keys of a `config.json`.

use super::header::Header;
use super::scope::{Scope, Sizes, extend, vector};
use super::weights::ROPE_FACTORS;
use crate::error::{Result, bail};
use crate::source::checkpoint::ROTARY;
use serde_json::{Map, Value, json};
use std::f64::consts::PI;

/// The maximum relative difference between the factors of a file, which are float32, and those of a scaling that is
/// recognized.
const TOLERANCE: f64 = 1e-4;

/// Adds the base, the scaling and the size of the rotated part to a configuration.
pub(super) fn add(config: &mut Map<String, Value>, header: &Header, scope: &Scope<'_>, sizes: &Sizes) -> Result<()> {
    let theta = scope.number("rope.freq_base")?.unwrap_or(1e4);
    if !(theta > 0.0 && theta.is_finite()) {
        bail!(InvalidModel, "{:?} is {theta}", scope.key("rope.freq_base"));
    }
    config.insert("rope_theta".into(), theta.into());
    let rotated = scope.keys.integer(&scope.key("rope.dimension_count"))?.unwrap_or(sizes.head);
    if !(2..=sizes.head).contains(&rotated) {
        bail!(InvalidModel, "{:?} is {rotated} of {}", scope.key("rope.dimension_count"), sizes.head);
    }
    if rotated != sizes.head {
        config.insert(ROTARY.into(), rotated.into());
    }
    if let Some(theta) = scope.number("rope.freq_base_swa")? {
        config.insert("rope_local_base_freq".into(), theta.into());
    }
    for name in ["rope_factors_long.weight", "rope_factors_short.weight"] {
        if header.tensor(name).is_some() {
            bail!(Unsupported, "rotary positions scaled by two tables ({name:?}) are not supported");
        }
    }
    let scaling = match header.tensor(ROPE_FACTORS) {
        Some(tensor) => {
            let Some(factors) = vector(tensor).filter(|factors| factors.len() as i64 == rotated / 2) else {
                bail!(InvalidModel, "the tensor {ROPE_FACTORS:?} is not a list of {} floats", rotated / 2);
            };
            llama3(&factors, theta, sizes.positions)?
        }
        None => by_kind(scope)?,
    };
    extend(config, json!({ "rope_scaling": scaling }));
    Ok(())
}

/// Returns the scaling that the file names, with the keys of a `config.json`; null for none.
fn by_kind(scope: &Scope<'_>) -> Result<Value> {
    let kind = scope.keys.text(&scope.key("rope.scaling.type"))?.unwrap_or("none");
    let factor = scope.number("rope.scaling.factor")?;
    // The key is older than the type.
    let older = scope.number("rope.scale_linear")?.filter(|factor| *factor != 1.0);
    match (kind, factor, older) {
        ("none", _, None) => Ok(Value::Null),
        ("linear" | "none", factor, Some(older)) => {
            Ok(json!({"rope_type": "linear", "factor": factor.unwrap_or(older)}))
        }
        ("linear", Some(factor), None) => Ok(json!({"rope_type": "linear", "factor": factor})),
        ("yarn", Some(factor), _) => yarn(scope, factor),
        ("linear" | "yarn", None, _) => bail!(InvalidModel, "the file has no {:?}", scope.key("rope.scaling.factor")),
        _ => bail!(Unsupported, "rotary positions scaled by {kind:?} are not supported; linear and yarn are"),
    }
}

fn yarn(scope: &Scope<'_>, factor: f64) -> Result<Value> {
    let mut entries = Map::new();
    extend(&mut entries, json!({"rope_type": "yarn", "factor": factor}));
    if let Some(trained) = scope.keys.integer(&scope.key("rope.scaling.original_context_length"))? {
        entries.insert("original_max_position_embeddings".into(), trained.into());
    }
    let renamed = [
        ("rope.scaling.attn_factor", "attention_factor"),
        ("rope.scaling.yarn_attn_factor", "attention_factor"),
        ("rope.scaling.yarn_beta_fast", "beta_fast"),
        ("rope.scaling.yarn_beta_slow", "beta_slow"),
    ];
    for (name, entry) in renamed {
        if let Some(value) = scope.number(name)? {
            entries.insert(entry.into(), value.into());
        }
    }
    Ok(Value::Object(entries))
}

/// Returns the scaling of Llama 3.1 that results in these factors, with the keys of a `config.json`. Fails with
/// `Unsupported` if there is none.
///
/// In this scaling, a frequency `f` is divided by `1 / (k + (1 - k) / factor)` with `k = (t f / 2 pi - 1) / (h - 1)`
/// clamped to the range 0 to 1. Waves shorter than `t / h` positions are kept, those longer than `t` are slowed down by
/// `factor`. `k` is linear in `f`, so two frequencies in between determine `t` and `h`. (The published description has
/// a third parameter, which is redundant.)
fn llama3(factors: &[f32], theta: f64, positions: i64) -> Result<Value> {
    let factors: Vec<f64> = factors.iter().map(|factor| f64::from(*factor)).collect();
    let count = factors.len() as f64;
    let frequency = |i: usize| theta.powf(-(i as f64) / count);
    let factor = factors.iter().fold(1.0, |most: f64, factor| most.max(*factor));
    if factor == 1.0 && factors.iter().all(|factor| *factor == 1.0) {
        return Ok(Value::Null);
    }
    let kept = |i: usize| (1.0 / factors[i] - 1.0 / factor) / (1.0 - 1.0 / factor);
    let between: Vec<usize> = (0..factors.len()).filter(|i| (1e-4..1.0 - 1e-4).contains(&kept(*i))).collect();
    let mut candidates = vec![(8192.0, 4.0)];
    if let [first, .., last] = between[..] {
        let slope = (kept(first) - kept(last)) / (frequency(first) - frequency(last));
        let constant = kept(first) - slope * frequency(first);
        let high = 1.0 - 1.0 / constant;
        candidates.push(((slope * 2.0 * PI * (high - 1.0)).round(), (high * 1000.0).round() / 1000.0));
    }
    let fits = |&(trained, high): &(f64, f64)| {
        (0..factors.len()).all(|i| {
            let kept = ((trained * frequency(i) / (2.0 * PI) - 1.0) / (high - 1.0)).clamp(0.0, 1.0);
            let expected = 1.0 / (kept + (1.0 - kept) / factor);
            (expected - factors[i]).abs() <= TOLERANCE * expected
        })
    };
    let sensible = |&(trained, high): &(f64, f64)| high > 1.0 && (1.0..=positions as f64).contains(&trained);
    match candidates.into_iter().find(|candidate| sensible(candidate) && fits(candidate)) {
        Some((trained, high)) => Ok(json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": high,
            "original_max_position_embeddings": trained as i64,
        })),
        None => bail!(Unsupported, "the factors in {ROPE_FACTORS:?} are not those of Llama 3.1's scaling"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(trained: f64, low: f64, high: f64, factor: f64, theta: f64, count: usize) -> Vec<f32> {
        let one = |i: usize| {
            let waves = trained * theta.powf(-(i as f64) / count as f64) / (2.0 * PI);
            let kept = ((waves - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 / (kept + (1.0 - kept) / factor)) as f32
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn the_scaling_of_llama_3_is_found_again() {
        let published = llama3(&factors(8192.0, 1.0, 4.0, 8.0, 5e5, 64), 5e5, 131_072).unwrap();
        assert_eq!(published["original_max_position_embeddings"], 8192);
        assert_eq!((&published["factor"], &published["high_freq_factor"]), (&json!(8.0), &json!(4.0)));
        let other = llama3(&factors(2048.0, 2.0, 5.0, 16.0, 1e4, 32), 1e4, 32_768).unwrap();
        assert_eq!(other["original_max_position_embeddings"], 1024);
        assert_eq!(other["high_freq_factor"], 2.5);
        assert_eq!(llama3(&[1.0; 8], 1e4, 64).unwrap(), Value::Null);
        assert!(llama3(&[1.0, 3.0, 2.0, 9.0], 1e4, 64).is_err());
        assert!(llama3(&[f32::NAN, 0.0, -1.0, f32::INFINITY], 1e4, 64).is_err());
    }
}
