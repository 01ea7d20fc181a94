//! Attention.

use std::borrow::Cow;

use super::mask::Additive;
use super::{Body, Ports};
use crate::kernels::{Attention, AttentionPrecision, Class, Mask, Strides, attention};
use crate::provider::abi::{Context, Error, Result, Tensor};
use crate::provider::compiled::{Part, Reader};
use crate::provider::patterns::{AttentionPlan, Fill, Heads, Operand};

/// softmax(q·kᵀ·scale + masks)·v
pub struct AttentionBody {
    q: Port,
    k: Port,
    v: Port,
    y: Port,
    scale: Option<f32>,
    masks: Vec<(usize, Fill)>,
    causal: bool,
    zero_if_hidden: bool,
    precision: AttentionPrecision,
    class: Class,
}

/// An input or output and how its heads lie.
#[derive(Clone, Copy)]
struct Port {
    index: usize,
    heads: Heads,
}

/// The sizes of an operand: batch, tokens, heads, size of a head.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    tokens: usize,
    heads: usize,
    size: usize,
}

impl AttentionBody {
    /// Returns the body of `plan`.
    pub fn new(plan: &AttentionPlan, ports: &Ports<'_>, class: Class, precision: AttentionPrecision) -> Result<Self> {
        let input = |operand: &Operand| -> Result<Port> {
            Ok(Port { index: ports.input(operand.value)?, heads: operand.heads })
        };
        Ok(Self {
            q: input(&plan.q)?,
            k: input(&plan.k)?,
            v: input(&plan.v)?,
            y: Port { index: ports.output(plan.y.value)?, heads: plan.y.heads },
            scale: plan.scale,
            masks: plan.masks.iter().map(|mask| Ok((ports.input(mask.value)?, mask.fill))).collect::<Result<_>>()?,
            causal: plan.causal,
            zero_if_hidden: plan.zero_if_hidden,
            precision,
            class,
        })
    }

    /// Returns the body that [`Body::write`] wrote.
    pub fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let (q, k, v, y) = (Port::open(reader)?, Port::open(reader)?, Port::open(reader)?, Port::open(reader)?);
        let scale = if reader.number()? == 0 { None } else { Some(f32::from_bits(reader.number()? as u32)) };
        let count = reader.size()?;
        let masks = (0..count).map(|_| Ok((reader.size()?, open_fill(reader)?))).collect::<Result<_>>()?;
        let (causal, zero_if_hidden) = (reader.number()? != 0, reader.number()? != 0);
        let precision = match reader.number()? {
            0 => AttentionPrecision::Float32,
            _ => AttentionPrecision::Bfloat16,
        };
        Ok(Self { q, k, v, y, scale, masks, causal, zero_if_hidden, precision, class: reader.class() })
    }

    /// Returns the sum of the masks of a run.
    fn mask<'a>(&self, context: &Context<'a>, scores: [i64; 4]) -> Result<Option<Additive<'a>>> {
        let mut sum: Option<Additive<'a>> = None;
        for (index, fill) in &self.masks {
            let mask = Additive::read(&context.input(*index)?, *fill, scores)?;
            sum = Some(match sum {
                Some(sum) => sum.plus(&mask)?,
                None => mask,
            });
        }
        Ok(sum)
    }
}

impl Body for AttentionBody {
    fn run(&self, context: &Context<'_>) -> Result<()> {
        let [q, k, v] = [self.q, self.k, self.v].map(|port| context.input(port.index).and_then(|x| port.read(&x)));
        let ((q, q_sizes), (k, k_sizes), (v, v_sizes)) = (q?, k?, v?);
        let batch = together(&[q_sizes.batch, k_sizes.batch, v_sizes.batch], "batches")?;
        let heads = together(&[q_sizes.heads, k_sizes.heads, v_sizes.heads], "heads")?;
        if q_sizes.size != k_sizes.size || k_sizes.tokens != v_sizes.tokens {
            return Err(Error::new("queries, keys and values of sizes that do not go together"));
        }
        let out_sizes = Sizes { batch, tokens: q_sizes.tokens, heads, size: v_sizes.size };
        let out = context.output(self.y.index, &self.y.shape(out_sizes))?;
        let scores = [batch, heads, q_sizes.tokens, k_sizes.tokens].map(|size| size as i64);
        let mask = self.mask(context, scores)?;
        let spec = Attention {
            batch,
            queries: q_sizes.tokens,
            keys: k_sizes.tokens,
            heads,
            kv_heads: heads,
            head_size: q_sizes.size,
            value_size: v_sizes.size,
            scale: self.scale.unwrap_or(1.0 / (q_sizes.size as f32).sqrt()),
            causal: self.causal,
            past: 0,
            window: None,
            q: self.q.strides(q_sizes, batch, heads),
            k: self.k.strides(k_sizes, batch, heads),
            v: self.v.strides(v_sizes, batch, heads),
            out: self.y.strides(out_sizes, batch, heads),
        };
        let mask = mask.as_ref().map_or(Mask::None, Additive::view);
        attention(self.class, &spec, &q, &k, &v, &mask, self.precision, out, context.pool());
        if self.zero_if_hidden {
            clear_hidden(&spec, out);
        }
        Ok(())
    }

    fn write(&self, part: &mut Part) {
        part.kind("attention");
        [self.q, self.k, self.v, self.y].iter().for_each(|port| port.write(part));
        part.number(u64::from(self.scale.is_some()));
        if let Some(scale) = self.scale {
            part.number(u64::from(scale.to_bits()));
        }
        part.size(self.masks.len());
        for (index, fill) in &self.masks {
            part.size(*index);
            write_fill(*fill, part);
        }
        part.number(u64::from(self.causal));
        part.number(u64::from(self.zero_if_hidden));
        part.number(u64::from(self.precision == AttentionPrecision::Bfloat16));
    }
}

/// Returns the size that all of `sizes` are or repeat to.
fn together(sizes: &[usize], what: &str) -> Result<usize> {
    let size = sizes.iter().copied().find(|size| *size != 1).unwrap_or(1);
    if sizes.iter().all(|other| *other == size || *other == 1) {
        return Ok(size);
    }
    Err(Error(format!("{what} that do not go together: {sizes:?}")))
}

/// Writes 0 where a query saw no key. Such a vector is NaN as a whole.
fn clear_hidden(spec: &Attention, out: &mut [f32]) {
    for batch in 0..spec.batch {
        for head in 0..spec.heads {
            for token in 0..spec.queries {
                let start = batch * spec.out.batch + head * spec.out.head + token * spec.out.token;
                let vector = &mut out[start..start + spec.value_size];
                if vector.iter().all(|value| value.is_nan()) {
                    vector.fill(0.0);
                }
            }
        }
    }
}

impl Port {
    /// Returns the values of `tensor` and its sizes. Transposed keys are turned.
    fn read<'a>(&self, tensor: &Tensor<'a>) -> Result<(Cow<'a, [f32]>, Sizes)> {
        let wrong = || Error(format!("an operand of sizes {:?}", tensor.shape));
        let values = tensor.floats()?;
        let size = |axis: usize| tensor.shape[axis] as usize;
        let sizes = match (self.heads, tensor.shape.len()) {
            (Heads::Joined(heads), 3) if heads > 0 && size(2).is_multiple_of(heads) => {
                Sizes { batch: size(0), tokens: size(1), heads, size: size(2) / heads }
            }
            (Heads::TokensFirst, 4) => Sizes { batch: size(0), tokens: size(1), heads: size(2), size: size(3) },
            (Heads::HeadsFirst, 4) => Sizes { batch: size(0), heads: size(1), tokens: size(2), size: size(3) },
            (Heads::SizeFirst, 4) => {
                let sizes = Sizes { batch: size(0), heads: size(1), size: size(2), tokens: size(3) };
                return Ok((Cow::Owned(turn(&values, sizes)), sizes));
            }
            _ => return Err(wrong()),
        };
        Ok((values, sizes))
    }

    /// Returns the sizes of an output.
    fn shape(&self, sizes: Sizes) -> Vec<i64> {
        let Sizes { batch, tokens, heads, size } = sizes;
        let shape = match self.heads {
            Heads::Joined(_) => vec![batch, tokens, heads * size],
            Heads::TokensFirst => vec![batch, tokens, heads, size],
            Heads::HeadsFirst | Heads::SizeFirst => vec![batch, heads, tokens, size],
        };
        shape.into_iter().map(|size| size as i64).collect()
    }

    /// Returns the distances in a tensor of `sizes`, 0 where it repeats over `batch` and `heads`.
    fn strides(&self, sizes: Sizes, batch: usize, heads: usize) -> Strides {
        let mut strides = match self.heads {
            Heads::Joined(_) | Heads::TokensFirst => Strides::tokens_first(sizes.tokens, sizes.heads, sizes.size),
            Heads::HeadsFirst | Heads::SizeFirst => Strides::heads_first(sizes.tokens, sizes.heads, sizes.size),
        };
        if sizes.batch < batch {
            strides.batch = 0;
        }
        if sizes.heads < heads {
            strides.head = 0;
        }
        strides
    }

    fn write(&self, part: &mut Part) {
        part.size(self.index);
        let (kind, heads) = match self.heads {
            Heads::Joined(heads) => (0, heads),
            Heads::TokensFirst => (1, 0),
            Heads::HeadsFirst => (2, 0),
            Heads::SizeFirst => (3, 0),
        };
        part.number(kind);
        part.size(heads);
    }

    fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let (index, kind, heads) = (reader.size()?, reader.number()?, reader.size()?);
        let heads = match kind {
            0 => Heads::Joined(heads),
            1 => Heads::TokensFirst,
            2 => Heads::HeadsFirst,
            _ => Heads::SizeFirst,
        };
        Ok(Self { index, heads })
    }
}

/// Returns keys of batch × heads × size × tokens as batch × heads × tokens × size.
fn turn(values: &[f32], sizes: Sizes) -> Vec<f32> {
    let mut turned = vec![0.0; values.len()];
    let each = sizes.size * sizes.tokens;
    if each > 0 {
        for (from, to) in values.chunks_exact(each).zip(turned.chunks_exact_mut(each)) {
            for (place, row) in from.chunks_exact(sizes.tokens).enumerate() {
                row.iter().enumerate().for_each(|(token, value)| to[token * sizes.size + place] = *value);
            }
        }
    }
    turned
}

fn write_fill(fill: Fill, part: &mut Part) {
    match fill {
        Fill::Add => part.number(0),
        Fill::Replace { when, with } => {
            part.number(if when { 2 } else { 1 });
            part.number(u64::from(with.to_bits()));
        }
        Fill::Lengths { with } => {
            part.number(3);
            part.number(u64::from(with.to_bits()));
        }
        Fill::Keep { with } => {
            part.number(4);
            part.number(u64::from(with.to_bits()));
        }
    }
}

fn open_fill(reader: &mut Reader<'_>) -> Result<Fill> {
    Ok(match reader.number()? {
        0 => Fill::Add,
        kind @ 1..=2 => Fill::Replace { when: kind == 2, with: f32::from_bits(reader.number()? as u32) },
        3 => Fill::Lengths { with: f32::from_bits(reader.number()? as u32) },
        4 => Fill::Keep { with: f32::from_bits(reader.number()? as u32) },
        _ => return Err(Error::new("a mask of another kind")),
    })
}
