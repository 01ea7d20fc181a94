//! Rotary position embeddings: the angles of every supported kind of scaling, and the operators that rotate queries and
//! keys.
//!
//! The two halves of the rotated part of a head are rotated against each other, as in Hugging Face checkpoints: element
//! `i` of the first half and element `i` of the second are rotated by the angle `position * inverse[i]`.

use super::config::{Config, shown};
use crate::error::{Result, bail, error};
use crate::source::builder::{Attribute, Builder};
use std::f64::consts::PI;

/// The maximum number of rows of the tables for fused attention, which supports no more positions.
const TABLE_ROWS: i64 = 131_072;

/// The key of this library for the number of rotated elements of a head, which the reader of GGUF files sets.
pub(in crate::source) const ROTARY: &str = "liboptimize.rotary_dim";

/// The keys that each kind of scaling reads besides `rope_type`, `type` and `rope_theta`.
const READS: [(&str, &[&str]); 5] = [
    ("default", &[]),
    ("linear", &["factor"]),
    ("dynamic", &["factor", "original_max_position_embeddings"]),
    ("llama3", &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]),
    (
        "yarn",
        &[
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "factor",
            "mscale",
            "mscale_all_dim",
            "original_max_position_embeddings",
            "truncate",
        ],
    ),
];

/// A rotary embedding with its scaling.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rope {
    /// Angle per position in radians, for each rotated pair.
    pub inverse: Vec<f32>,
    /// Factor by which sines and cosines are multiplied (YaRN).
    pub factor: f32,
}

impl Rope {
    /// Returns the number of rotated elements of a head; those after them are unchanged.
    pub fn size(&self) -> i64 {
        2 * self.inverse.len() as i64
    }

    /// Returns a rotary embedding without scaling, over the first `rotated` elements of a head. Fails with
    /// `InvalidModel` if `rotated` is odd or `theta` is not positive.
    pub fn plain(rotated: i64, theta: f64) -> Result<Rope> {
        if rotated % 2 != 0 || theta <= 0.0 {
            bail!(InvalidModel, "rotary positions with base {theta} cannot rotate {rotated} elements");
        }
        let angle = |i: i64| theta.powf(-2.0 * i as f64 / rotated as f64) as f32;
        Ok(Rope { inverse: (0..rotated / 2).map(angle).collect(), factor: 1.0 })
    }

    /// Returns the rotary embedding of a model with one kind only: from `rope_parameters`, or from the older
    /// `rope_theta` and `rope_scaling`. `head` is the number of elements of a head, and `partial` whether the family
    /// supports heads of which only a part is rotated. Fails with `Unsupported` for a kind of scaling that is not
    /// supported, and with `InvalidModel` for missing or invalid values.
    pub fn read(config: &Config<'_>, head: i64, partial: bool) -> Result<Rope> {
        Rope::from(config, parameters(config)?, head, config.needed("rope_theta")?, partial)
    }

    /// Returns the kind of scaling that a configuration names; `None` if it names none. Fails with `InvalidModel` for a
    /// value of another type.
    pub fn kind<'a>(config: &Config<'a>) -> Result<Option<&'a str>> {
        match parameters(config)? {
            Some(parameters) => Ok(parameters.text("rope_type")?.or(parameters.text("type")?)),
            None => Ok(None),
        }
    }

    /// Returns the rotary embedding of `parameters` (the default kind if `None`). `theta` is the base if the parameters
    /// have none. Fails with `Unsupported` for a kind of scaling that is not supported, and `InvalidModel` for invalid
    /// values.
    pub fn from(
        config: &Config<'_>,
        parameters: Option<Config<'_>>,
        head: i64,
        theta: f64,
        partial: bool,
    ) -> Result<Rope> {
        let number = |key: &str| parameters.map_or(Ok(None), |p| p.number(key));
        let theta = number("rope_theta")?.unwrap_or(theta);
        let kind = match parameters {
            Some(p) => p.text("rope_type")?.or(p.text("type")?).unwrap_or("default"),
            None => "default",
        };
        let share = number("partial_rotary_factor")?.or(config.number("partial_rotary_factor")?).unwrap_or(1.0);
        let rotated = match config.size(ROTARY)? {
            Some(size) => size,
            None if partial => (head as f64 * share) as i64,
            None if share != 1.0 && kind != "default" => {
                bail!(
                    Unsupported,
                    "rotary positions of type {kind:?} for only a part of each head ({share}) are not supported"
                )
            }
            None => head,
        };
        if !(2..=head).contains(&rotated) {
            bail!(InvalidModel, "rotary positions cannot rotate {rotated} of {head} elements");
        }
        let mut rope = Rope::plain(rotated, theta)?;
        let Some(parameters) = parameters else { return Ok(rope) };
        match kind {
            // The dynamic kind equals the default one up to the positions of the training.
            "default" | "dynamic" => {}
            "linear" => {
                let factor = positive(&parameters, "factor")?;
                rope.inverse.iter_mut().for_each(|angle| *angle /= factor as f32);
            }
            "llama3" => rope.scale_llama3(config, &parameters)?,
            "yarn" => rope.scale_yarn(config, &parameters, theta)?,
            _ => bail!(
                Unsupported,
                "rotary positions of type {kind:?} are not supported; supported: default, dynamic, linear, \
                 llama3, yarn"
            ),
        }
        Ok(rope)
    }

    /// Applies the scaling of Llama 3.1: long waves are slowed down by `factor`, short ones are kept, and those between
    /// are interpolated.
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

    /// Applies YaRN (arXiv 2309.00071), which scales like Llama 3.1, with the bounds given as rotations over the
    /// trained positions.
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

    /// Adds the cosines and sines of every position up to `positions`, at most [`TABLE_ROWS`], for fused attention, and
    /// returns their names: `[rows, pairs]` each.
    ///
    /// They are computed by nodes over constants: the file stays small, and ONNX Runtime computes them once on loading.
    pub fn tables(&self, b: &mut Builder<'_>, positions: i64) -> [String; 2] {
        let (start, end, step) = (b.float(0.0), b.float(positions.min(TABLE_ROWS) as f32), b.float(1.0));
        let rows = b.op("Range", &[&start, &end, &step], &[]);
        let axis = b.ints(&[1]);
        let rows = b.op("Unsqueeze", &[&rows, &axis], &[]);
        let inverse = b.floats(&[self.inverse.len() as i64], &self.inverse);
        let angles = b.op("Mul", &[&rows, &inverse], &[]);
        self.waves(b, &angles)
    }

    /// Adds the cosines and sines of given positions `[batch, sequence]`, twice for each pair, and returns their names:
    /// `[batch, 1, sequence, size]`.
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

    /// Adds the rotation of `x` `[batch, heads, sequence, head]` by the values of [`Rope::of_positions`], and returns
    /// the name of its output.
    pub fn rotate(&self, b: &mut Builder<'_>, x: &str, head: i64, [cos, sin]: &[String; 2]) -> String {
        let (last, half) = ([("axis", Attribute::Int(-1))], self.size() / 2);
        let mut sizes = vec![half, half];
        sizes.extend((self.size() < head).then_some(head - self.size()));
        let split = b.ints(&sizes);
        let parts = b.node("", "Split", &[x, &split], sizes.len(), &last);
        let rotated = if sizes.len() == 2 { x.to_owned() } else { b.op("Concat", &[&parts[0], &parts[1]], &last) };
        let minus = b.op("Neg", &[&parts[1]], &[]);
        let across = b.op("Concat", &[&minus, &parts[0]], &last);
        let along = b.op("Mul", &[&rotated, cos], &[]);
        let across = b.op("Mul", &[&across, sin], &[]);
        let sum = b.op("Add", &[&along, &across], &[]);
        match parts.get(2) {
            Some(rest) => b.op("Concat", &[&sum, rest], &last),
            None => sum,
        }
    }
}

/// Returns the object `rope_scaling` (older files) if it is not empty, otherwise `rope_parameters`; `None` if there is
/// neither.
fn parameters<'a>(config: &Config<'a>) -> Result<Option<Config<'a>>> {
    let scaling = config.object("rope_scaling")?.filter(|scaling| scaling.entries().next().is_some());
    Ok(scaling.or(config.object("rope_parameters")?))
}

/// Returns warnings about unused keys of rotary embeddings. `partial` is whether the family supports heads of which
/// only a part is rotated, and `nested` whether the configuration has an object for each kind of layer.
pub(super) fn unread(config: &Config<'_>, partial: bool, nested: bool) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let (scaling, given) = (config.object("rope_scaling")?, config.object("rope_parameters")?);
    let used = parameters(config)?;
    for (name, object) in [("rope_scaling", scaling), ("rope_parameters", given)] {
        let Some(object) = object else { continue };
        if nested && name == "rope_parameters" {
            for (key, value) in object.entries() {
                match (key.as_str(), value.as_object()) {
                    ("full_attention" | "sliding_attention", Some(inner)) => {
                        unread_of(&Config::new(inner), &format!("{name}.{key}"), partial, &mut left)?;
                    }
                    _ if value.is_null() => {}
                    _ => left.push(format!("{name}.{key} = {}", shown(value))),
                }
            }
        } else if used.is_some_and(|used| used.same_as(&object)) || nested {
            unread_of(&object, name, partial, &mut left)?;
        } else {
            left.extend(object.entries().map(|(key, value)| format!("{name}.{key} = {}", shown(value))));
        }
    }
    let said =
        (!left.is_empty()).then(|| format!("config.json: of the rotary positions is ignored: {}", left.join(", ")));
    let old = scaling.filter(|s| nested && given.is_none() && s.text("rope_type").is_ok_and(|kind| kind.is_none()));
    let kind = old.map(|scaling| scaling.text("type")).transpose()?.flatten();
    let old = kind.map(|kind| {
        format!(
            "config.json: rope_scaling.type = {kind:?} is used, as in transformers 4; version 5 expects rope_type here"
        )
    });
    Ok(said.into_iter().chain(old).collect())
}

fn unread_of(parameters: &Config<'_>, name: &str, partial: bool, left: &mut Vec<String>) -> Result<()> {
    let kind = parameters.text("rope_type")?.or(parameters.text("type")?).unwrap_or("default");
    let reads = READS.iter().find(|(known, _)| *known == kind).map_or(&[][..], |(_, reads)| reads);
    for (key, value) in parameters.entries().filter(|(_, value)| !value.is_null()) {
        let read = match key.as_str() {
            "rope_type" | "type" | "rope_theta" => true,
            "partial_rotary_factor" => partial || value.as_f64() == Some(1.0),
            key => reads.contains(&key),
        };
        if !read {
            left.push(format!("{name}.{key} = {}", shown(value)));
        }
    }
    Ok(())
}

/// Returns the number of positions of the original training, before the context was extended.
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
