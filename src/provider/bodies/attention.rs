//! The body of attention whose queries, keys and values are separate inputs.

use std::borrow::Cow;

use super::mask::Additive;
use super::{Body, Ports};
use crate::kernels::{Attention, Class, Mask, Strides, attention};
use crate::provider::abi::{Context, Error, Result, Tensor};
use crate::provider::compiled::{Part, Reader};
use crate::provider::patterns::{AttentionPlan, Fill, Heads, Operand, ScoresPlan};

/// Attention: softmax(q·kᵀ·scale + masks)·v.
pub struct AttentionBody {
    q: Port,
    k: Port,
    v: Port,
    y: Port,
    /// Bias of the rows of queries, keys and values.
    bias: Option<Vec<f32>>,
    scores: Scores,
}

/// The computation of the scores of attention.
pub struct Scores {
    /// Factor by which the scores are multiplied; `None` is 1/√(size of a head).
    scale: Option<f32>,
    /// Indices of the inputs with masks, and the effect of each mask.
    masks: Vec<(usize, Fill)>,
    /// Whether a query attends only to keys up to its own position.
    causal: bool,
    /// Whether the result of a query whose keys are all masked by -inf is 0 instead of NaN.
    zero_if_hidden: bool,
    class: Class,
}

/// Queries, keys or values in a run.
pub struct View<'a> {
    /// Elements of the tensor.
    pub values: Cow<'a, [f32]>,
    /// Sizes of the dimensions.
    pub sizes: Sizes,
    /// Strides of the dimensions.
    pub strides: Strides,
}

/// The sizes of the dimensions of an operand of attention.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Number of sequences.
    pub batch: usize,
    /// Number of tokens per sequence.
    pub tokens: usize,
    /// Number of heads.
    pub heads: usize,
    /// Number of elements per head.
    pub size: usize,
}

/// The index of an input or output, and the order of its dimensions.
#[derive(Clone, Copy)]
struct Port {
    index: usize,
    heads: Heads,
}

impl AttentionBody {
    /// Returns the body of `plan`. Fails if a value of the plan is not an input or output of the fused node.
    pub fn new(plan: &AttentionPlan, ports: &Ports<'_>, class: Class) -> Result<Self> {
        let input = |operand: &Operand| -> Result<Port> {
            Ok(Port { index: ports.input(operand.value)?, heads: operand.heads })
        };
        let y = Port { index: ports.output(plan.y.value)?, heads: plan.y.heads };
        let scores = Scores::new(&plan.scores, ports, class)?;
        Ok(Self { q: input(&plan.q)?, k: input(&plan.k)?, v: input(&plan.v)?, y, bias: plan.bias.clone(), scores })
    }

    /// Returns the body of attention from a part that [`Body::write`] wrote. Fails if the part is damaged.
    pub fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let (q, k, v) = (Port::open_input(reader)?, Port::open_input(reader)?, Port::open_input(reader)?);
        let index = reader.output()?;
        let y = Port { index, heads: open_heads(reader)? };
        Ok(Self { q, k, v, y, bias: reader.floats()?, scores: Scores::open(reader)? })
    }

    /// Adds the bias, if there is one, to queries, keys and values. Fails if it is too short.
    fn add_bias(&self, views: [&mut View<'_>; 3]) -> Result<()> {
        let mut bias = self.bias.as_deref().unwrap_or_default();
        for view in views.into_iter().filter(|_| self.bias.is_some()) {
            let width = view.sizes.heads * view.sizes.size;
            let (part, rest) = bias
                .split_at_checked(width)
                .ok_or_else(|| Error::new("the bias is shorter than queries, keys and values"))?;
            bias = rest;
            for row in view.values.to_mut().chunks_exact_mut(width.max(1)) {
                row.iter_mut().zip(part).for_each(|(value, bias)| *value += bias);
            }
        }
        Ok(())
    }
}

impl Body for AttentionBody {
    fn run(&self, context: &Context<'_>) -> Result<()> {
        let [q, k, v] = [self.q, self.k, self.v].map(|port| context.input(port.index).and_then(|x| port.read(&x)));
        let (mut q, mut k, mut v) = (q?, k?, v?);
        self.add_bias([&mut q, &mut k, &mut v])?;
        let sizes = Scores::sizes(&q, &k, &v)?;
        let out = context.output(self.y.index, &self.y.shape(sizes))?;
        self.scores.run(context, (&q, &k, &v), self.y.strides(sizes), out)
    }

    fn write(&self, part: &mut Part) {
        part.kind("attention");
        [self.q, self.k, self.v, self.y].iter().for_each(|port| port.write(part));
        part.floats(self.bias.as_deref());
        self.scores.write(part);
    }
}

impl Scores {
    /// Returns the computation of the scores of `plan`, with the indices of the masks among the inputs of the fused
    /// node. Fails if a mask is not an input of the fused node.
    pub fn new(plan: &ScoresPlan, ports: &Ports<'_>, class: Class) -> Result<Self> {
        let masks = plan.masks.iter().map(|mask| Ok((ports.input(mask.value)?, mask.fill)));
        let ScoresPlan { scale, causal, zero_if_hidden, .. } = *plan;
        Ok(Self { scale, masks: masks.collect::<Result<_>>()?, causal, zero_if_hidden, class })
    }

    /// Returns the sizes of the output of attention. Operands with a batch or a number of heads of 1 are broadcast;
    /// fails if the sizes of the operands differ otherwise.
    pub fn sizes(q: &View<'_>, k: &View<'_>, v: &View<'_>) -> Result<Sizes> {
        let together = |of: fn(&Sizes) -> usize, what: &str| {
            let sizes = [of(&q.sizes), of(&k.sizes), of(&v.sizes)];
            let size = sizes.into_iter().find(|size| *size != 1).unwrap_or(1);
            let fits = sizes.iter().all(|other| *other == size || *other == 1);
            if fits {
                Ok(size)
            } else {
                Err(Error(format!("queries, keys and values have incompatible {what}: {sizes:?}")))
            }
        };
        if q.sizes.size != k.sizes.size || k.sizes.tokens != v.sizes.tokens {
            return Err(Error::new("queries, keys and values have incompatible shapes"));
        }
        let (batch, heads) =
            (together(|sizes| sizes.batch, "batch sizes")?, together(|sizes| sizes.heads, "numbers of heads")?);
        Ok(Sizes { batch, tokens: q.sizes.tokens, heads, size: v.sizes.size })
    }

    /// Writes the attention of `q`, `k` and `v` to `out`, which has the given strides. Fails if the sizes of the inputs
    /// or of a mask do not match.
    pub fn run(
        &self,
        context: &Context<'_>,
        (q, k, v): (&View<'_>, &View<'_>, &View<'_>),
        strides: Strides,
        out: &mut [f32],
    ) -> Result<()> {
        let Sizes { batch, tokens, heads, size } = Self::sizes(q, k, v)?;
        let mask = self.mask(context, [batch, heads, tokens, k.sizes.tokens].map(|size| size as i64))?;
        let repeated = |view: &View<'_>| Strides {
            batch: if view.sizes.batch < batch { 0 } else { view.strides.batch },
            head: if view.sizes.heads < heads { 0 } else { view.strides.head },
            token: view.strides.token,
        };
        let spec = Attention {
            batch,
            queries: tokens,
            keys: k.sizes.tokens,
            heads,
            kv_heads: heads,
            head_size: q.sizes.size,
            value_size: size,
            scale: self.scale.unwrap_or(1.0 / (q.sizes.size as f32).sqrt()),
            causal: self.causal,
            past: 0,
            window: None,
            q: repeated(q),
            k: repeated(k),
            v: repeated(v),
            out: strides,
        };
        let mask = mask.as_ref().map_or(Mask::None, Additive::view);
        attention(self.class, &spec, &q.values, &k.values, &v.values, &mask, out, context.pool());
        if self.zero_if_hidden {
            clear_hidden(&spec, out);
        }
        Ok(())
    }

    /// Returns the sum of the masks in a run; `None` if there are none. `scores` is the shape of the scores. Fails if a
    /// mask does not fit the scores.
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

    /// Writes the computation to `part`, from which [`Self::open`] reads it.
    pub fn write(&self, part: &mut Part) {
        part.number(u64::from(self.scale.is_some()));
        part.float(self.scale.unwrap_or(0.0));
        part.size(self.masks.len());
        for (index, fill) in &self.masks {
            part.size(*index);
            let (kind, with) = match *fill {
                Fill::Add => (0, 0.0),
                Fill::Replace { when, with } => (1 + u64::from(when), with),
                Fill::Lengths { with } => (3, with),
                Fill::Keep { with } => (4, with),
            };
            part.number(kind);
            part.float(with);
        }
        part.number(u64::from(self.causal));
        part.number(u64::from(self.zero_if_hidden));
    }

    /// Returns the computation that [`Self::write`] wrote. Fails if the part is damaged.
    pub fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let (has_scale, scale) = (reader.number()? != 0, reader.float()?);
        let count = reader.size()?;
        let mask = |_| {
            let (index, kind, with) = (reader.input()?, reader.number()?, reader.float()?);
            let fill = match kind {
                0 => Fill::Add,
                1 | 2 => Fill::Replace { when: kind == 2, with },
                3 => Fill::Lengths { with },
                4 => Fill::Keep { with },
                _ => return Err(Error::new("the kind of a mask is unknown")),
            };
            Ok((index, fill))
        };
        let masks = (0..count).map(mask).collect::<Result<_>>()?;
        let (causal, zero_if_hidden) = (reader.number()? != 0, reader.number()? != 0);
        Ok(Self { scale: has_scale.then_some(scale), masks, causal, zero_if_hidden, class: reader.class() })
    }
}

/// Replaces NaN by 0 in the results of queries without a visible key: all elements of such a result are NaN.
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
    /// Returns a view of `tensor`. Transposed keys are transposed back. Fails if the shape is not as expected.
    fn read<'a>(&self, tensor: &Tensor<'a>) -> Result<View<'a>> {
        let values = tensor.floats()?;
        let size = |axis: usize| tensor.shape[axis] as usize;
        let sizes = match (self.heads, tensor.shape.len()) {
            (Heads::Joined(heads), 3) if heads > 0 && size(2).is_multiple_of(heads) => {
                Sizes { batch: size(0), tokens: size(1), heads, size: size(2) / heads }
            }
            (Heads::TokensFirst, 4) => Sizes { batch: size(0), tokens: size(1), heads: size(2), size: size(3) },
            (Heads::First, 4) => Sizes { batch: size(0), heads: size(1), tokens: size(2), size: size(3) },
            (Heads::SizeFirst, 4) => {
                let sizes = Sizes { batch: size(0), heads: size(1), size: size(2), tokens: size(3) };
                return Ok(View { values: Cow::Owned(transpose(&values, sizes)), sizes, strides: self.strides(sizes) });
            }
            _ => return Err(Error(format!("an operand has the unexpected shape {:?}", tensor.shape))),
        };
        Ok(View { values, sizes, strides: self.strides(sizes) })
    }

    /// Returns the shape of an output with these sizes.
    fn shape(&self, sizes: Sizes) -> Vec<i64> {
        let Sizes { batch, tokens, heads, size } = sizes;
        let shape = match self.heads {
            Heads::Joined(_) => vec![batch, tokens, heads * size],
            Heads::TokensFirst => vec![batch, tokens, heads, size],
            Heads::First | Heads::SizeFirst => vec![batch, heads, tokens, size],
        };
        shape.into_iter().map(|size| size as i64).collect()
    }

    /// Returns the strides of a dense tensor of `sizes`.
    fn strides(&self, sizes: Sizes) -> Strides {
        match self.heads {
            Heads::Joined(_) | Heads::TokensFirst => Strides::tokens_first(sizes.tokens, sizes.heads, sizes.size),
            Heads::First | Heads::SizeFirst => Strides::heads_first(sizes.tokens, sizes.heads, sizes.size),
        }
    }

    fn write(&self, part: &mut Part) {
        let (kind, heads) = match self.heads {
            Heads::Joined(heads) => (0, heads),
            Heads::TokensFirst => (1, 0),
            Heads::First => (2, 0),
            Heads::SizeFirst => (3, 0),
        };
        part.size(self.index);
        part.number(kind);
        part.size(heads);
    }

    fn open_input(reader: &mut Reader<'_>) -> Result<Self> {
        let index = reader.input()?;
        Ok(Self { index, heads: open_heads(reader)? })
    }
}

/// Returns the order of dimensions that [`Port::write`] wrote.
fn open_heads(reader: &mut Reader<'_>) -> Result<Heads> {
    let (kind, heads) = (reader.number()?, reader.size()?);
    Ok(match kind {
        0 => Heads::Joined(heads),
        1 => Heads::TokensFirst,
        2 => Heads::First,
        _ => Heads::SizeFirst,
    })
}

/// Returns keys of batch × heads × size × tokens, transposed to batch × heads × tokens × size.
fn transpose(values: &[f32], sizes: Sizes) -> Vec<f32> {
    let mut transposed = vec![0.0; values.len()];
    let each = sizes.size * sizes.tokens;
    if each > 0 {
        for (from, to) in values.chunks_exact(each).zip(transposed.chunks_exact_mut(each)) {
            for (place, row) in from.chunks_exact(sizes.tokens).enumerate() {
                row.iter().enumerate().for_each(|(token, value)| to[token * sizes.size + place] = *value);
            }
        }
    }
    transposed
}
