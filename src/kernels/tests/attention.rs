use super::{Random, Threads, bits, classes, property};
use crate::kernels::*;

struct Case {
    spec: Attention,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    additive: Vec<f32>,
    lengths: Vec<i32>,
    keep: Vec<u8>,
    strides: [usize; 4],
    mask: usize,
}

impl Case {
    fn new(random: &mut Random) -> Self {
        let (batch, kv_heads) = (random.below(3) + random.below(2), 1 + random.below(3));
        let heads = kv_heads * random.pick(&[1, 1, 2, 3]);
        let any = random.size(200);
        let (queries, keys) = (random.size(40), random.pick(&[any, any, 0, 1, 7, 129, 300]));
        let sizes = [16, 24, 32, 33, 64, 80, 1];
        let (head_size, value_size) = (random.pick(&sizes), random.pick(&sizes));
        let causal = random.once_in(3);
        let past = if causal { keys.saturating_sub(queries) } else { 0 };
        let strides = |random: &mut Random, tokens, heads, size| {
            if random.once_in(2) {
                Strides::tokens_first(tokens, heads, size)
            } else {
                Strides::heads_first(tokens, heads, size)
            }
        };
        let spec = Attention {
            batch,
            queries,
            keys,
            heads,
            kv_heads,
            head_size,
            value_size,
            scale: 1.0 / (head_size as f32).sqrt(),
            causal,
            past,
            window: (causal && random.once_in(3)).then(|| 1 + random.below(keys + 1)),
            q: strides(random, queries, heads, head_size),
            k: strides(random, keys, kv_heads, head_size),
            v: strides(random, keys, kv_heads, value_size),
            out: strides(random, queries, heads, value_size),
        };
        let normal = |random: &mut Random, count: usize| (0..count).map(|_| random.normal() * 2.0).collect::<Vec<_>>();
        let (additive, keep, strides) = masks(random, [batch, heads, queries, keys]);
        Self {
            spec,
            q: normal(random, batch * heads * queries * head_size),
            k: normal(random, batch * kv_heads * keys * head_size),
            v: normal(random, batch * kv_heads * keys * value_size),
            additive,
            lengths: (0..batch).map(|_| random.below(keys + 1) as i32).collect(),
            keep,
            strides,
            mask: random.below(4),
        }
    }

    fn mask(&self) -> Mask<'_> {
        match self.mask {
            0 => Mask::None,
            1 => Mask::KeyLengths(&self.lengths),
            2 => Mask::Additive { values: &self.additive, strides: self.strides },
            _ => Mask::Keep { values: &self.keep, strides: self.strides },
        }
    }
}

/// Returns the values of an additive mask, the flags of visible keys, and the strides of both. The mask has only some
/// of the dimensions.
fn masks(random: &mut Random, sizes: [usize; 4]) -> (Vec<f32>, Vec<u8>, [usize; 4]) {
    let wide = random.pick(&[[1, 0, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]);
    let (mut strides, mut count) = ([0; 4], 1);
    for axis in (0..4).rev() {
        if wide[axis] == 1 {
            strides[axis] = count;
            count *= sizes[axis];
        }
    }
    let hidden = random.pick(&[f32::MIN, f32::NEG_INFINITY, -10000.0]);
    let often = random.pick(&[1, 2, 10]);
    let keep: Vec<u8> = (0..count).map(|_| u8::from(!random.once_in(often))).collect();
    let bias = random.once_in(2);
    let additive = keep
        .iter()
        .map(|keep| {
            if *keep == 0 {
                hidden
            } else if bias {
                random.normal()
            } else {
                0.0
            }
        })
        .collect();
    (additive, keep, strides)
}

#[test]
fn attention_is_near_float64_with_any_mask() {
    property(15, |random| {
        let mut case = Case::new(random);
        let spec = case.spec;
        let count = spec.batch * spec.heads * spec.queries * spec.value_size;
        let spoiled = random.once_in(8) && !case.q.is_empty();
        if spoiled {
            random.spoil(&mut case.q);
        }
        let mask = case.mask();
        let mut expected = vec![7.0; count];
        attention(Class::Scalar, &spec, &case.q, &case.k, &case.v, &mask, &mut expected, &Serial);
        for class in classes() {
            let (mut out, mut threaded) = (vec![7.0; count], vec![7.0; count]);
            attention(class, &spec, &case.q, &case.k, &case.v, &mask, &mut out, &Serial);
            attention(class, &spec, &case.q, &case.k, &case.v, &mask, &mut threaded, &Threads(3));
            assert_eq!(bits(&out), bits(&threaded), "{class:?} on three threads");
            // float32 numbers near -10000 have a distance of 0.001, so the rounding of scores minus 10000 is arbitrary.
            let coarse = case.mask == 2 && case.additive.iter().any(|value| *value == -10000.0);
            let bound = if coarse { 2e-2 } else { 3e-5 };
            for (index, (found, wanted)) in out.iter().zip(&expected).enumerate() {
                // A row with an infinite score has no defined result.
                let near = (found - wanted).abs() <= bound || found.is_nan() && (wanted.is_nan() || spoiled);
                assert!(near, "{class:?} {index}: {found} not {wanted}\n{spec:?} mask {}", case.mask);
            }
        }
    });
}
