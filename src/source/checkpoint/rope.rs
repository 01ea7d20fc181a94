//! Rotary positions: the angles of every kind of scaling, and the operators that turn queries and keys.
//!
//! Halves are rotated against each other, as in Hugging Face checkpoints: element `i` of the first half of the
//! rotated part of a head, with element `i` of the second, turns by `position * inverse[i]`.

use super::config::Config;
use crate::error::{Result, bail, error};
use crate::source::builder::{Attribute, Builder};
use std::f64::consts::PI;

/// Rows of the tables that fused attention reads: more positions than this cannot be used with them.
const TABLE_ROWS: i64 = 131_072;

/// One kind of rotary position.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rope {
    /// Radians a position adds, one for each rotated pair.
    pub inverse: Vec<f32>,
    /// Sines and cosines are multiplied by this (yarn).
    pub factor: f32,
}

impl Rope {
    /// Elements of a head that are turned; those after them stay as they are.
    pub fn size(&self) -> i64 {
        2 * self.inverse.len() as i64
    }

    /// Without any scaling, over the first `rotated` elements of a head.
    pub fn plain(rotated: i64, theta: f64) -> Result<Rope> {
        if rotated % 2 != 0 || theta <= 0.0 {
            bail!(InvalidModel, "rotary positions with base {theta} cannot turn {rotated} elements");
        }
        let angle = |i: i64| theta.powf(-2.0 * i as f64 / rotated as f64) as f32;
        Ok(Rope { inverse: (0..rotated / 2).map(angle).collect(), factor: 1.0 })
    }

    /// Reads the rope of a model with one kind only: from `rope_parameters`, or from the older `rope_theta` and
    /// `rope_scaling`.
    pub fn read(config: &Config<'_>, head: i64, theta: f64) -> Result<Rope> {
        let parameters = config.object("rope_parameters")?.or(config.object("rope_scaling")?);
        Rope::from(config, parameters, head, theta)
    }

    /// The rope that `parameters` (none: nothing special) describe. What they leave out the configuration says,
    /// and `theta` at last.
    pub fn from(config: &Config<'_>, parameters: Option<Config<'_>>, head: i64, theta: f64) -> Result<Rope> {
        let number = |key: &str| match parameters.map(|p| p.number(key)).transpose()?.flatten() {
            Some(value) => Ok(Some(value)),
            None => config.number(key),
        };
        let theta = number("rope_theta")?.unwrap_or(theta);
        let rotated = (head as f64 * number("partial_rotary_factor")?.unwrap_or(1.0)) as i64;
        if !(2..=head).contains(&rotated) {
            bail!(InvalidModel, "rotary positions cannot turn {rotated} of {head} elements");
        }
        let mut rope = Rope::plain(rotated, theta)?;
        let Some(parameters) = parameters else { return Ok(rope) };
        let kind = parameters.text("rope_type")?.or(parameters.text("type")?).unwrap_or("default");
        match kind {
            // The dynamic kind is the plain one up to the positions the model was trained for.
            "default" | "dynamic" => {}
            "linear" => {
                let factor = positive(&parameters, "factor")?;
                rope.inverse.iter_mut().for_each(|angle| *angle /= factor as f32);
            }
            "llama3" => rope.scale_llama3(config, &parameters)?,
            "yarn" => rope.scale_yarn(config, &parameters, theta)?,
            _ => bail!(Unsupported, "rotary positions of the kind {kind:?} (known: default, linear, llama3, yarn)"),
        }
        Ok(rope)
    }

    /// Llama 3.1: long waves are slowed down by `factor`, short ones kept, those between interpolated.
    fn scale_llama3(&mut self, config: &Config<'_>, parameters: &Config<'_>) -> Result<()> {
        let factor = positive(parameters, "factor")?;
        let (low, high) = (positive(parameters, "low_freq_factor")?, positive(parameters, "high_freq_factor")?);
        let trained = original_positions(config, parameters)?;
        if high <= low {
            bail!(InvalidModel, "high_freq_factor {high} of the rotary positions is not above low_freq_factor {low}");
        }
        for angle in &mut self.inverse {
            let plain = f64::from(*angle);
            let waves = trained * plain / (2.0 * PI);
            let kept = ((waves - low) / (high - low)).clamp(0.0, 1.0);
            *angle = (plain * (kept + (1.0 - kept) / factor)) as f32;
        }
        Ok(())
    }

    /// YaRN (arXiv 2309.00071): as above, with bounds given in turns over the trained positions.
    fn scale_yarn(&mut self, config: &Config<'_>, parameters: &Config<'_>, theta: f64) -> Result<()> {
        let trained = original_positions(config, parameters)?;
        let factor = match parameters.number("factor")? {
            Some(_) => positive(parameters, "factor")?,
            None => config.size("max_position_embeddings")?.unwrap_or(1) as f64 / trained,
        };
        let given = |key: &str| -> Result<Option<f64>> { Ok(parameters.number(key)?.filter(|value| *value != 0.0)) };
        let size = self.size() as f64;
        let pair = |turns: f64| size * (trained / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (pair(given("beta_fast")?.unwrap_or(32.0)), pair(given("beta_slow")?.unwrap_or(1.0)));
        if parameters.flag("truncate", true)? {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(size - 1.0));
        if low == high {
            high += 0.001;
        }
        for (index, angle) in self.inverse.iter_mut().enumerate() {
            let slowed = ((index as f64 - low) / (high - low)).clamp(0.0, 1.0);
            *angle = (f64::from(*angle) * (1.0 - slowed + slowed / factor)) as f32;
        }
        let growth = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
        self.factor = match (parameters.number("attention_factor")?, given("mscale")?, given("mscale_all_dim")?) {
            (Some(factor), _, _) => factor,
            (None, Some(scale), Some(all)) => growth(scale) / growth(all),
            _ => growth(1.0),
        } as f32;
        Ok(())
    }

    /// Cosines and sines of every position up to `positions`, `[rows, pairs]` each, for fused attention.
    ///
    /// Made by nodes over constants: a file stays small, and ONNX Runtime computes them once, when it loads.
    pub fn tables(&self, b: &mut Builder<'_>, positions: i64) -> [String; 2] {
        let (start, end, step) = (b.float(0.0), b.float(positions.min(TABLE_ROWS) as f32), b.float(1.0));
        let rows = b.op("Range", &[&start, &end, &step], &[]);
        let axis = b.ints(&[1]);
        let rows = b.op("Unsqueeze", &[&rows, &axis], &[]);
        let inverse = b.floats(&[self.inverse.len() as i64], &self.inverse);
        let angles = b.op("Mul", &[&rows, &inverse], &[]);
        self.waves(b, &angles)
    }

    /// Cosines and sines for given positions `[batch, sequence]`, each pair's twice: `[batch, 1, sequence, size]`.
    pub fn of_positions(&self, b: &mut Builder<'_>, positions: &str) -> [String; 2] {
        let float = i64::from(crate::onnx::dtype::DataType::Float32.to_onnx());
        let positions = b.op("Cast", &[positions], &[("to", Attribute::Int(float))]);
        let axes = b.ints(&[1, 3]);
        let positions = b.op("Unsqueeze", &[&positions, &axes], &[]);
        let inverse = b.floats(&[self.inverse.len() as i64], &self.inverse);
        let angles = b.op("Mul", &[&positions, &inverse], &[]);
        let angles = b.op("Concat", &[&angles, &angles], &[("axis", Attribute::Int(-1))]);
        self.waves(b, &angles)
    }

    fn waves(&self, b: &mut Builder<'_>, angles: &str) -> [String; 2] {
        ["Cos", "Sin"].map(|op| {
            let wave = b.op(op, &[angles], &[]);
            if self.factor == 1.0 {
                return wave;
            }
            let factor = b.float(self.factor);
            b.op("Mul", &[&wave, &factor], &[])
        })
    }

    /// Turns `x` `[batch, heads, sequence, head]` with the waves of [`Rope::of_positions`].
    pub fn turn(&self, b: &mut Builder<'_>, x: &str, head: i64, [cos, sin]: &[String; 2]) -> String {
        let (last, half) = ([("axis", Attribute::Int(-1))], self.size() / 2);
        let mut sizes = vec![half, half];
        sizes.extend((self.size() < head).then_some(head - self.size()));
        let split = b.ints(&sizes);
        let parts = b.node("", "Split", &[x, &split], sizes.len(), &last);
        let turned = if sizes.len() == 2 { x.to_owned() } else { b.op("Concat", &[&parts[0], &parts[1]], &last) };
        let minus = b.op("Neg", &[&parts[1]], &[]);
        let across = b.op("Concat", &[&minus, &parts[0]], &last);
        let along = b.op("Mul", &[&turned, cos], &[]);
        let across = b.op("Mul", &[&across, sin], &[]);
        let sum = b.op("Add", &[&along, &across], &[]);
        match parts.get(2) {
            Some(rest) => b.op("Concat", &[&sum, rest], &last),
            None => sum,
        }
    }
}

/// Positions the model was first trained for, before its context was stretched.
fn original_positions(config: &Config<'_>, parameters: &Config<'_>) -> Result<f64> {
    let key = "original_max_position_embeddings";
    let size = match config.size(key)?.or(parameters.size(key)?) {
        Some(size) => size,
        None => config.size_of(&["max_position_embeddings"])?,
    };
    Ok(size as f64)
}

fn positive(parameters: &Config<'_>, key: &str) -> Result<f64> {
    let value = parameters.number(key)?.filter(|value| *value > 0.0);
    value.ok_or_else(|| error!(InvalidModel, "{key:?} of the rotary positions is not a positive number"))
}
