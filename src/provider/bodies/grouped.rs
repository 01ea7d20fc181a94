//! The body of attention with a cache, in decoders.

use std::borrow::Cow;

use super::{Body, Ports};
use crate::kernels::{Cache, Class, GroupedAttention, Rotary, Rows, Stored, StoredMut, grouped_attention};
use crate::provider::abi::{Context, Error, Result, Tensor};
use crate::provider::compiled::{Part, Reader};
use crate::provider::graph::{Element, ValueId};
use crate::provider::patterns::{GroupedForm, GroupedPlan};

/// The attention of new tokens to all tokens in a cache, to which the new ones are appended.
pub struct GroupedBody {
    // Indices of the inputs and outputs of the fused node; see `GroupedPlan`.
    q: usize,
    kv: Option<[usize; 2]>,
    past: Option<[usize; 2]>,
    lengths: usize,
    total: usize,
    angles: Option<[usize; 2]>,
    positions: Option<usize>,
    sinks: Option<usize>,
    y: usize,
    present: [usize; 2],
    /// Attributes of the node.
    form: GroupedForm,
    class: Class,
}

/// The sizes of the tensors in a run.
struct Sizes {
    /// Number of sequences.
    batch: usize,
    /// Number of new tokens per sequence.
    tokens: usize,
    /// Number of elements per head.
    size: usize,
    /// Number of tokens for which the cache has memory.
    columns: usize,
    /// Number of tokens before the new ones, for each sequence.
    past: Vec<usize>,
    /// Number of tokens, including the new ones, for each sequence.
    lengths: Vec<usize>,
    /// Number of tokens in the cache that is an input, for each sequence.
    stored: Vec<usize>,
}

impl GroupedBody {
    /// Returns the body of `plan`. Fails if a value of the plan is not an input or output of the fused node.
    pub fn new(plan: &GroupedPlan, ports: &Ports<'_>, class: Class) -> Result<Self> {
        let pair = |values: Option<[ValueId; 2]>| -> Result<Option<[usize; 2]>> {
            values.map(|[a, b]| Ok([ports.input(a)?, ports.input(b)?])).transpose()
        };
        let one = |value: Option<ValueId>| value.map(|value| ports.input(value)).transpose();
        Ok(Self {
            q: ports.input(plan.q)?,
            kv: pair(plan.kv)?,
            past: pair(plan.past)?,
            lengths: ports.input(plan.lengths)?,
            total: ports.input(plan.total)?,
            angles: pair(plan.angles)?,
            positions: one(plan.positions)?,
            sinks: one(plan.sinks)?,
            y: ports.output(plan.y)?,
            present: [ports.output(plan.present[0])?, ports.output(plan.present[1])?],
            form: plan.form,
            class,
        })
    }

    /// Returns the body of attention with a cache from a part that [`Body::write`] wrote. Fails if the part is damaged.
    pub fn open(reader: &mut Reader<'_>) -> Result<Self> {
        let pair = |reader: &mut Reader<'_>| -> Result<Option<[usize; 2]>> {
            let (a, b) = (reader.optional_input()?, reader.optional_input()?);
            Ok(a.zip(b).map(|(a, b)| [a, b]))
        };
        let q = reader.input()?;
        let (kv, past) = (pair(reader)?, pair(reader)?);
        let (lengths, total) = (reader.input()?, reader.input()?);
        let (angles, positions, sinks) = (pair(reader)?, reader.optional_input()?, reader.optional_input()?);
        let (y, present) = (reader.output()?, [reader.output()?, reader.output()?]);
        let (heads, kv_heads) = (reader.size()?, reader.size()?);
        if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Error(format!("{heads} heads cannot share {kv_heads}")));
        }
        let (scale, window, cap) = (reader.float()?, reader.number()?, reader.float()?);
        let form = GroupedForm {
            heads,
            kv_heads,
            scale: (scale != 0.0).then_some(scale),
            window: usize::try_from(window).ok().filter(|window| *window > 0),
            cap: (cap > 0.0).then_some(cap),
            smooth: reader.number()? != 0,
            interleaved: reader.number()? != 0,
        };
        let class = reader.class();
        Ok(Self { q, kv, past, lengths, total, angles, positions, sinks, y, present, form, class })
    }

    /// Returns the sizes of a run with the queries `q`. Fails if the shapes and lengths of the inputs do not fit.
    fn sizes(&self, context: &Context<'_>, q: &Tensor<'_>) -> Result<Sizes> {
        let GroupedForm { heads, kv_heads, .. } = self.form;
        let &[batch, tokens, width] = q.shape else {
            return Err(Error(format!("the queries have shape {:?}; it must have three dimensions", q.shape)));
        };
        let (batch, tokens, width) = (batch as usize, tokens as usize, width as usize);
        let parts = if self.kv.is_some() { heads } else { heads + 2 * kv_heads };
        let size = width / parts;
        if size == 0 || size * parts != width {
            return Err(Error(format!("rows of {width} values cannot be divided into {parts} heads")));
        }
        let total = context.input(self.total)?;
        let total = match &total.integers()?[..] {
            [total] => usize::try_from(*total).map_err(|_| Error(format!("total_sequence_length is {total}")))?,
            other => return Err(Error(format!("total_sequence_length has {} values", other.len()))),
        };
        let mut columns = total;
        if let Some(past) = &self.past {
            let shapes = [context.input(past[0])?.shape, context.input(past[1])?.shape];
            let fits = shapes[0] == shapes[1] && shapes[0].len() == 4;
            if !fits || [0, 1, 3].map(|axis| shapes[0][axis] as usize) != [batch, kv_heads, size] {
                let wanted = format!("{batch} x {kv_heads} x tokens x {size}");
                return Err(Error(format!("the past has the shapes {shapes:?} instead of {wanted}")));
            }
            columns = columns.max(shapes[0][2] as usize);
        }
        let given = context.input(self.lengths)?;
        let given = given.integers()?;
        if given.len() != batch {
            return Err(Error(format!("seqlens_k has {} values for {batch} sequences", given.len())));
        }
        let appended = self.kv.map_or(Ok(tokens), |kv| Ok::<_, Error>(context.input(kv[0])?.size(1)))?;
        let mut sizes =
            Sizes { batch, tokens, size, columns, past: Vec::new(), lengths: Vec::new(), stored: Vec::new() };
        for last in given.iter() {
            let length = usize::try_from(*last).map_or(0, |last| last + 1);
            let past = if tokens == total { 0 } else { length.saturating_sub(tokens) };
            if length == 0 || length > past + tokens || past + tokens > columns {
                return Err(Error(format!("seqlens_k is {last} for {tokens} of {total} tokens in {columns} columns")));
            }
            sizes.past.push(past);
            sizes.lengths.push(length);
            sizes.stored.push(if appended == 0 { length } else { past });
        }
        Ok(sizes)
    }

    /// Returns the positions of the new tokens. Fails if one is not below `rows`.
    fn positions(&self, context: &Context<'_>, sizes: &Sizes, rows: usize) -> Result<Vec<usize>> {
        let tokens = sizes.tokens;
        let positions: Vec<usize> = match self.positions {
            Some(input) => {
                let given = context.input(input)?;
                let given = given.longs()?;
                given.iter().map(|position| usize::try_from(*position).unwrap_or(usize::MAX)).collect()
            }
            None => sizes.past.iter().flat_map(|past| (0..tokens).map(move |token| past + token)).collect(),
        };
        match positions.iter().find(|position| **position >= rows) {
            Some(position) => Err(Error(format!("position {position} is not in a table of {rows} rows"))),
            None if positions.len() != sizes.batch * tokens => {
                Err(Error(format!("there are {} positions for {} x {tokens} tokens", positions.len(), sizes.batch)))
            }
            None => Ok(positions),
        }
    }

    /// Returns the tables of cosines and sines, and for each new token its row in them. Fails if the shapes of the
    /// tables do not fit, or if they have no row for a token.
    fn tables<'a>(&self, [cos, sin]: [Tensor<'a>; 2], context: &Context<'_>, sizes: &Sizes) -> Result<Tables<'a>> {
        let size = sizes.size;
        if cos.shape.len() != 2 || cos.shape != sin.shape || 2 * cos.size(1) > size {
            let shapes = [cos.shape, sin.shape];
            return Err(Error(format!("cosines and sines have the shapes {shapes:?} for heads of {size}")));
        }
        let positions = self.positions(context, sizes, cos.size(0))?;
        Ok(Tables { cos: cos.floats()?, sin: sin.floats()?, half: cos.size(1), positions })
    }

    /// Returns the cache in the outputs of the node, with room for the new tokens. The earlier tokens are copied into
    /// it, unless inputs and outputs are the same memory. Fails if the inputs do not fit.
    fn cache<'a>(&self, context: &Context<'a>, sizes: &Sizes) -> Result<Cache<'a>> {
        let Sizes { batch, size, columns, .. } = *sizes;
        let shape = [batch, self.form.kv_heads, columns, size].map(|size| size as i64);
        let input = |index: usize| self.past.map(|past| past[index]);
        // The cache may have another type than in the model when it was compiled, so the type is that of this run.
        let element = input(0).map_or(Ok(Element::Float32), |past| Ok::<_, Error>(context.input(past)?.element))?;
        let (past_keys, keys) = extended(context, input(0), (self.present[0], element), &shape)?;
        let (past_values, values) = extended(context, input(1), (self.present[1], element), &shape)?;
        let mut cache = Cache { keys, values, columns };
        let rows = past_keys.as_ref().map_or(0, |keys| keys.size(2));
        let (keys, values) = match (&past_keys, &past_values) {
            (None, None) if self.past.is_some() => return Ok(cache),
            (Some(_), Some(_)) | (None, None) => (Earlier::of(past_keys, element)?, Earlier::of(past_values, element)?),
            _ => return Err(Error::new("only one of keys and values is extended in place")),
        };
        if sizes.stored.iter().any(|stored| *stored > rows) {
            return Err(Error(format!("seqlens_k needs {:?} earlier tokens; there are {rows}", sizes.stored)));
        }
        let from = (keys.view(), values.view(), rows);
        cache.copy(from, self.form.kv_heads, size, &sizes.stored, context.pool());
        Ok(cache)
    }
}

/// Returns the earlier tokens of an input, and the memory of an output with elements of the type `output.1`, like
/// [`Context::extended`]. Fails like it, and if the type is neither float32 nor bfloat16.
fn extended<'a>(
    context: &Context<'a>,
    input: Option<usize>,
    output: (usize, Element),
    shape: &[i64],
) -> Result<(Option<Tensor<'a>>, StoredMut<'a>)> {
    Ok(match output.1 {
        Element::Bfloat16 => {
            let (past, bits) = context.extended(input, output, shape)?;
            (past, StoredMut::Bfloat16(bits))
        }
        Element::Float32 => {
            let (past, values) = context.extended(input, output, shape)?;
            (past, StoredMut::Float32(values))
        }
        other => return Err(Error(format!("a cache with elements of {other:?} is not supported"))),
    })
}

/// The keys or values of earlier tokens.
enum Earlier<'a> {
    Float32(Cow<'a, [f32]>),
    Bfloat16(Cow<'a, [u16]>),
}

impl<'a> Earlier<'a> {
    /// Returns the elements of a tensor, or none without a tensor. Fails if they are not of the type `element`.
    fn of(tensor: Option<Tensor<'a>>, element: Element) -> Result<Self> {
        let bits = || tensor.map_or(Ok(Cow::Borrowed(&[][..])), |tensor| tensor.halves(element));
        Ok(match element {
            Element::Bfloat16 => Self::Bfloat16(bits()?),
            _ => Self::Float32(tensor.map_or(Ok(Cow::Borrowed(&[][..])), |tensor| tensor.floats())?),
        })
    }

    fn view(&self) -> Stored<'_> {
        match self {
            Self::Float32(values) => Stored::Float32(values),
            Self::Bfloat16(bits) => Stored::Bfloat16(bits),
        }
    }
}

/// The cosines and sines of rotary embeddings.
struct Tables<'a> {
    cos: Cow<'a, [f32]>,
    sin: Cow<'a, [f32]>,
    /// Number of pairs of elements of a head that are rotated.
    half: usize,
    /// Row of each token in the tables.
    positions: Vec<usize>,
}

impl Body for GroupedBody {
    fn run(&self, context: &Context<'_>) -> Result<()> {
        let GroupedForm { heads, kv_heads, .. } = self.form;
        let q = context.input(self.q)?;
        let sizes = self.sizes(context, &q)?;
        let Sizes { batch, tokens, size, .. } = sizes;
        let (rows, width) = (batch * tokens, q.size(2));
        let q = q.floats()?;
        let kv = match self.kv {
            Some(kv) => Some([context.input(kv[0])?, context.input(kv[1])?]),
            None => None,
        };
        let shape = [batch, tokens, kv_heads * size].map(|size| size as i64);
        let shared = kv.is_some_and(|kv| kv.iter().all(|part| part.shape.len() == 3 && part.shape[1] == 0));
        if let Some(wrong) = kv.iter().flatten().find(|part| part.shape != shape && !shared) {
            return Err(Error(format!("keys or values have the shape {:?} instead of {shape:?}", wrong.shape)));
        }
        let parts = match &kv {
            Some([k, v]) => Some([k.floats()?, v.floats()?]),
            None => None,
        };
        let dense = |values| Rows::dense(values, rows, kv_heads * size);
        let inside = |head: usize| Rows { values: q.get(head * size..).unwrap_or_default(), rows, stride: width };
        let [k, v] = match &parts {
            Some([k, v]) => [dense(k), dense(v)],
            None => [inside(heads), inside(heads + kv_heads)],
        };
        let mut cache = self.cache(context, &sizes)?;
        let out = context.output(self.y, &[batch, tokens, heads * size].map(|size| size as i64))?;
        let angles = match self.angles {
            Some([cos, sin]) => Some([context.input(cos)?, context.input(sin)?]),
            None => None,
        };
        let tables = angles.map(|angles| self.tables(angles, context, &sizes)).transpose()?;
        let interleaved = self.form.interleaved;
        let rotary = tables.as_ref().map(|Tables { cos, sin, half, positions }| {
            let half = *half;
            Rotary { cos, sin, half, interleaved, positions }
        });
        let sinks = self.sinks(context)?;
        let spec = GroupedAttention {
            batch,
            tokens,
            heads,
            kv_heads,
            head_size: size,
            scale: self.form.scale.unwrap_or(1.0 / (size as f32).sqrt()),
            window: self.form.window,
            cap: self.form.cap,
            sinks: sinks.as_deref(),
            rotary,
            past: &sizes.past,
            lengths: &sizes.lengths,
        };
        let kv = (!shared).then_some([&k, &v]);
        let q = Rows { values: &q, rows, stride: width };
        grouped_attention(self.class, &spec, &q, kv, &mut cache, out, context.pool());
        Ok(())
    }

    fn write(&self, part: &mut Part) {
        part.kind("grouped attention");
        let pair = |part: &mut Part, ports: Option<[usize; 2]>| {
            for index in 0..2 {
                part.optional(ports.map(|ports| ports[index]));
            }
        };
        part.size(self.q);
        pair(part, self.kv);
        pair(part, self.past);
        part.size(self.lengths);
        part.size(self.total);
        pair(part, self.angles);
        part.optional(self.positions);
        part.optional(self.sinks);
        [self.y, self.present[0], self.present[1]].iter().for_each(|port| part.size(*port));
        let GroupedForm { heads, kv_heads, scale, window, cap, smooth, interleaved } = self.form;
        part.size(heads);
        part.size(kv_heads);
        part.float(scale.unwrap_or(0.0));
        part.size(window.unwrap_or(0));
        part.float(cap.unwrap_or(0.0));
        part.number(u64::from(smooth));
        part.number(u64::from(interleaved));
    }
}

impl GroupedBody {
    /// Returns the scores that take part in the softmax but have no value (attention sinks); `None` if there are none.
    /// Fails if their number is not that of the heads.
    fn sinks<'a>(&self, context: &Context<'a>) -> Result<Option<Cow<'a, [f32]>>> {
        let Some(input) = self.sinks else {
            return Ok(self.form.smooth.then(|| Cow::Owned(vec![0.0; self.form.heads])));
        };
        let sinks = context.input(input)?.floats()?;
        if sinks.len() != self.form.heads {
            return Err(Error(format!("there are {} sinks for {} heads", sinks.len(), self.form.heads)));
        }
        Ok(Some(sinks))
    }
}
