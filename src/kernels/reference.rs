//! The reference implementation of every kernel: the class `Scalar` uses it, and the tests compare the others with it.

use super::attention::{Decoding, Tensors};
use super::pack::{Blocks, Dense, Int8, inverse};
use super::{Activation, Attention, Epilogue, Mask, Norm, PackedLinear, Precision, Rows, StaticInput, StaticValues};

/// Returns the number of values of an input that share a scale, for weights in blocks of `block` values.
pub fn activation_block(block: usize) -> usize {
    block.min(64)
}

/// Returns the values of a row or block quantized to int8, and their scale, which is NaN if a value is not finite.
pub fn round(values: &[f32]) -> (Vec<i32>, f32) {
    if values.iter().any(|value| !value.is_finite()) {
        return (vec![0; values.len()], f32::NAN);
    }
    let scale = values.iter().fold(0f32, |largest, value| largest.max(value.abs())) / 127.0;
    let inverse = inverse(scale);
    (values.iter().map(|value| (value * inverse).round_ties_even() as i32).collect(), scale)
}

/// Computes a linear layer with weights that are packed for any class.
pub fn linear(x: &Rows<'_>, weights: &PackedLinear, epilogue: &Epilogue<'_>, out: &mut [f32]) {
    let (k, n, bytes, header) = (weights.k(), weights.n(), weights.bytes(), weights.header());
    for row in 0..x.rows {
        let values = &x.values[row * x.stride..][..k];
        let to = &mut out[row * n..][..n];
        match weights.precision() {
            Precision::Float32 | Precision::Bfloat16 => {
                let dense = Dense::of(&header);
                for (column, to) in to.iter_mut().enumerate() {
                    let sum: f64 = (0..k).map(|k| f64::from(values[k]) * f64::from(dense.at(bytes, k, column))).sum();
                    *to = sum as f32 + bias(epilogue, column);
                }
            }
            Precision::Int8 => {
                let int8 = Int8::of(&header);
                let (codes, scale) = round(values);
                for (column, to) in to.iter_mut().enumerate() {
                    let zero_point = int8.zero_points(bytes)[column];
                    let sum: i32 = (0..k).map(|k| codes[k] * (int8.at(bytes, k, column) - zero_point)).sum();
                    *to = (sum as f32).mul_add(scale * int8.scales(bytes)[column], bias(epilogue, column));
                }
            }
            Precision::Blocks => block_row(values, weights, epilogue, to),
            Precision::ExactBlocks => exact_block_row(values, weights, epilogue, to),
        }
        finish(epilogue, row * n, to);
    }
}

fn block_row(values: &[f32], weights: &PackedLinear, epilogue: &Epilogue<'_>, to: &mut [f32]) {
    let (blocks, bytes) = (Blocks::of(&weights.header()), weights.bytes());
    let size = activation_block(blocks.block);
    let rounded: Vec<_> = values.chunks(size).map(round).collect();
    for (column, to) in to.iter_mut().enumerate() {
        let mut sum = 0f32;
        for (index, (codes, scale)) in rounded.iter().enumerate() {
            let weight = |k: usize| blocks.at(bytes, index * size + k, column);
            let product: i32 = codes.iter().enumerate().map(|(k, code)| code * weight(k).0).sum();
            let (_, zero_point, weight_scale) = weight(0);
            let product = (-zero_point).mul_add(codes.iter().sum::<i32>() as f32, product as f32);
            sum = product.mul_add(scale * weight_scale, sum);
        }
        *to = sum + bias(epilogue, column);
    }
}

fn exact_block_row(values: &[f32], weights: &PackedLinear, epilogue: &Epilogue<'_>, to: &mut [f32]) {
    let (blocks, bytes) = (Blocks::of(&weights.header()), weights.bytes());
    for (column, to) in to.iter_mut().enumerate() {
        let mut sum = 0f32;
        for (index, values) in values.chunks(blocks.block).enumerate() {
            let weight = |k: usize| blocks.at(bytes, index * blocks.block + k, column);
            let add = |sum: f32, (k, value): (usize, &f32)| value.mul_add(weight(k).0 as f32, sum);
            let product = values.iter().enumerate().fold(0.0, add);
            let (_, zero_point, scale) = weight(0);
            sum = (-zero_point).mul_add(lane_sum(values), product).mul_add(scale, sum);
        }
        *to = sum + bias(epilogue, column);
    }
}

/// Returns the sum of some values, which are added in eight lanes and then lane by lane, as the kernels add them.
#[inline(always)]
pub fn lane_sum(values: &[f32]) -> f32 {
    let mut lanes = [0f32; 8];
    for values in values.chunks(8) {
        lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane += value);
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

pub fn linear_static(x: &StaticInput<'_>, weights: &PackedLinear, epilogue: &Epilogue<'_>, out: &mut [f32]) {
    let (k, n, bytes) = (weights.k(), weights.n(), weights.bytes());
    let int8 = Int8::of(&weights.header());
    for row in 0..x.rows {
        let codes: Vec<i32> = (row * k..row * k + k).map(|index| static_code(x, index) - x.zero_point).collect();
        let to = &mut out[row * n..][..n];
        for (column, to) in to.iter_mut().enumerate() {
            let zero_point = int8.zero_points(bytes)[column];
            let product = |k: usize| codes[k].wrapping_mul(int8.at(bytes, k, column) - zero_point);
            let sum = (0..k).map(product).fold(0, i32::wrapping_add);
            *to = (sum as f32).mul_add(x.scale * int8.scales(bytes)[column], bias(epilogue, column));
        }
        finish(epilogue, row * n, to);
    }
}

/// Returns the quantized form of an input value, rounded like `QuantizeLinear`.
fn static_code(x: &StaticInput<'_>, index: usize) -> i32 {
    match x.values {
        StaticValues::Unsigned(codes) => i32::from(codes[index]),
        StaticValues::Signed(codes) => i32::from(codes[index]),
        StaticValues::Float32 { values, signed } => {
            let (low, high) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
            // The conversion to i32 makes NaN 0.
            ((values[index] / x.scale).round_ties_even() + x.zero_point as f32).clamp(low, high) as i32
        }
    }
}

fn bias(epilogue: &Epilogue<'_>, column: usize) -> f32 {
    epilogue.bias.map_or(0.0, |bias| bias[column])
}

fn finish(epilogue: &Epilogue<'_>, start: usize, to: &mut [f32]) {
    for (column, to) in to.iter_mut().enumerate() {
        *to = activation(epilogue.activation, *to);
        if let Some(residual) = epilogue.residual {
            *to += residual[start + column];
        }
    }
}

/// Returns the result of an activation function for a value, computed in float64.
pub fn activation(activation: Activation, value: f32) -> f32 {
    let x = f64::from(value);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    (match activation {
        Activation::None => return value,
        Activation::Relu => return if value < 0.0 { 0.0 } else { value },
        Activation::Gelu if value == f32::NEG_INFINITY => -0.0,
        Activation::Gelu => 0.5 * x * erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
        Activation::GeluTanh if value == f32::NEG_INFINITY => -0.0,
        // x/2 (1 + tanh(y)) = x · sigmoid(2 y), which has no cancellation where tanh is near -1.
        Activation::GeluTanh => {
            x * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + f64::from(0.044715f32) * x * x * x))
        }
        Activation::Silu if value == f32::NEG_INFINITY => -0.0,
        Activation::Silu => x * sigmoid(x),
        Activation::QuickGelu if value == f32::NEG_INFINITY => -0.0,
        Activation::QuickGelu => x * sigmoid(f64::from(1.702f32) * x),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
    }) as f32
}

/// Returns 1 - erf(x): below 2.5 by the series of erf, whose terms are all positive, above by the continued fraction.
fn erfc(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let size = x.abs();
    let density = (-size * size).exp() / std::f64::consts::PI.sqrt();
    let upper = if size < 2.5 {
        let (mut term, mut sum) = (size, size);
        for n in 1..80 {
            term *= 2.0 * size * size / f64::from(2 * n + 1);
            sum += term;
        }
        1.0 - 2.0 * density * sum
    } else {
        let fraction = (1..100).rev().fold(0.0, |tail, n| f64::from(n) / 2.0 / (size + tail));
        if density == 0.0 { 0.0 } else { density / (size + fraction) }
    };
    if x < 0.0 { 2.0 - upper } else { upper }
}

pub fn norm(x: &[f32], norm: &Norm<'_>, centered: bool, mut sums: Option<&mut [f32]>, out: &mut [f32]) {
    let width = norm.width;
    if width == 0 {
        return;
    }
    for (row, (values, to)) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
        for (column, (value, to)) in values.iter().zip(to.iter_mut()).enumerate() {
            let residual = norm.residual.map_or(0.0, |it| it.values[row % it.rows * width + column]);
            *to = value + residual + norm.bias.map_or(0.0, |bias| bias[column]);
        }
        if let Some(sums) = sums.as_deref_mut() {
            sums[row * width..][..width].copy_from_slice(to);
        }
        let average = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / width as f64;
        let mean = if centered { average(&mut to.iter().map(|value| f64::from(*value))) } else { 0.0 };
        let variance = average(&mut to.iter().map(|value| (f64::from(*value) - mean).powi(2)));
        let inverse = 1.0 / (variance + f64::from(norm.epsilon)).sqrt();
        for (column, to) in to.iter_mut().enumerate() {
            let scaled = ((f64::from(*to) - mean) * inverse) as f32 * norm.gamma[column];
            *to = scaled + norm.beta.map_or(0.0, |beta| beta[column]);
        }
    }
}

/// Returns the factor that the sum of the weighted values is multiplied by if the score `sink` takes part in the
/// softmax. `total` is the sum of the exponentials of the other scores minus their maximum `largest`.
pub fn with_sink(largest: f32, total: f32, sink: f32) -> f32 {
    let shift = largest.max(sink);
    let factor = (largest - shift).exp();
    factor / (total * factor + (sink - shift).exp())
}

/// Computes the attention of a decoder, whose sequences have different lengths.
pub fn grouped(spec: &Attention, tensors: &Tensors<'_>, out: &mut [f32]) {
    let Some(Decoding { past, lengths, cap, sinks }) = tensors.decoding else { return };
    let group = spec.heads / spec.kv_heads;
    for (batch, head) in (0..spec.batch).flat_map(|batch| (0..spec.heads).map(move |head| (batch, head))) {
        let spec = Attention { past: past[batch], keys: lengths[batch], ..*spec };
        for query in 0..spec.queries {
            let q = &tensors.q[batch * spec.q.batch + head * spec.q.head + query * spec.q.token..][..spec.head_size];
            let at = |key: usize| batch * spec.k.batch + head / group * spec.k.head + key * spec.k.token;
            let score = |key: usize| {
                let products = q.iter().enumerate().map(|(i, a)| f64::from(*a) * f64::from(tensors.k.at(at(key) + i)));
                let score = products.sum::<f64>() * f64::from(spec.scale);
                cap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh())
            };
            let keys = seen(&spec, query);
            let sink = sinks.map_or(f64::NEG_INFINITY, |sinks| f64::from(sinks[head]));
            let scores: Vec<f64> = keys.clone().map(score).collect();
            let largest = scores.iter().copied().fold(sink, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total = weights.iter().sum::<f64>() + (sink - largest).exp();
            let start = batch * spec.out.batch + head * spec.out.head + query * spec.out.token;
            for (column, to) in out[start..][..spec.value_size].iter_mut().enumerate() {
                let values = keys.clone().zip(&weights);
                let sum: f64 = values.map(|(key, weight)| weight * f64::from(tensors.v.at(at(key) + column))).sum();
                *to = if keys.is_empty() { 0.0 } else { (sum / total) as f32 };
            }
        }
    }
}

pub fn attention(spec: &Attention, q: &[f32], k: &[f32], v: &[f32], mask: &Mask<'_>, out: &mut [f32]) {
    let group = spec.heads / spec.kv_heads.max(1);
    for (batch, head) in (0..spec.batch).flat_map(|batch| (0..spec.heads).map(move |head| (batch, head))) {
        for query in 0..spec.queries {
            let start = batch * spec.q.batch + head * spec.q.head + query * spec.q.token;
            let one = &q[start..][..spec.head_size];
            let seen = seen(spec, query);
            let key = |key: usize| &k[batch * spec.k.batch + head / group * spec.k.head + key * spec.k.token..];
            let scores: Vec<f32> = seen
                .clone()
                .map(|index| {
                    let product: f64 = one.iter().zip(key(index)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    masked(mask, product as f32 * spec.scale, [batch, head, query, index])
                })
                .collect();
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let shift = if largest == f32::NEG_INFINITY { 0.0 } else { largest };
            let weights: Vec<f64> = scores.iter().map(|score| f64::from(score - shift).exp()).collect();
            let total: f64 = weights.iter().sum();
            let start = batch * spec.out.batch + head * spec.out.head + query * spec.out.token;
            for (column, to) in out[start..][..spec.value_size].iter_mut().enumerate() {
                let value =
                    |key: usize| v[batch * spec.v.batch + head / group * spec.v.head + key * spec.v.token + column];
                let sum: f64 =
                    weights.iter().zip(seen.clone()).map(|(weight, key)| weight * f64::from(value(key))).sum();
                *to = if seen.is_empty() { 0.0 } else { (sum / total) as f32 };
            }
        }
    }
}

/// Returns the range of keys that a query attends to if there is no mask.
pub fn seen(spec: &Attention, query: usize) -> std::ops::Range<usize> {
    if !spec.causal {
        return 0..spec.keys;
    }
    let end = (spec.past + query + 1).min(spec.keys);
    let start = spec.window.map_or(0, |window| (spec.past + query + 1).saturating_sub(window));
    start.min(end)..end
}

/// Returns the score of a query and a key after the mask is applied.
pub fn masked(mask: &Mask<'_>, score: f32, place: [usize; 4]) -> f32 {
    let at = |strides: &[usize; 4]| strides.iter().zip(place).map(|(stride, index)| stride * index).sum::<usize>();
    let hidden = match mask {
        Mask::None => false,
        Mask::Additive { values, strides } => return score + values[at(strides)],
        Mask::KeyLengths(lengths) => place[3] as i64 >= i64::from(lengths[place[0]]),
        Mask::Keep { values, strides } => values[at(strides)] == 0,
    };
    if hidden { f32::MIN } else { score }
}
