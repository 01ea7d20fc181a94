use super::{Random, Threads, bits, classes, property};
use crate::kernels::*;

/// The projections of some sequences of tokens, and how they are computed.
struct Case {
    heads: [usize; 2],
    size: usize,
    lengths: Vec<usize>,
    columns: usize,
    q: Vec<f32>,
    kv: [Vec<f32>; 2],
    angles: [Vec<f32>; 2],
    half: usize,
    interleaved: bool,
    sinks: Option<Vec<f32>>,
    window: Option<usize>,
    cap: Option<f32>,
}

impl Case {
    fn new(random: &mut Random) -> Self {
        let few = 1 + random.below(3);
        let heads = few * random.pick(&[1, 1, 2, 3, 9]);
        let size = random.pick(&[7, 8, 16, 24, 40, 64]);
        let most = random.pick(&[3, 20, 140, 300]);
        let lengths: Vec<usize> = (0..1 + random.below(3)).map(|_| 1 + random.below(most)).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let columns = longest + random.below(9);
        let half = if random.once_in(4) { 0 } else { 1 + random.below(size / 2) };
        let rows = lengths.len() * longest;
        let normal = |random: &mut Random, count: usize| (0..count).map(|_| random.normal() * 2.0).collect::<Vec<_>>();
        let turns = normal(random, columns * half);
        Self {
            heads: [heads, few],
            size,
            columns,
            q: normal(random, rows * heads * size),
            kv: [normal(random, rows * few * size), normal(random, rows * few * size)],
            angles: [turns.iter().map(|x| x.cos()).collect(), turns.iter().map(|x| x.sin()).collect()],
            half,
            interleaved: random.once_in(3),
            sinks: random.once_in(3).then(|| normal(random, heads)),
            window: random.once_in(3).then(|| 1 + random.below(most)),
            cap: random.once_in(3).then(|| 0.5 + random.below(20) as f32),
            lengths,
        }
    }

    fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// Computes the attention of all tokens at once, with sequences padded at their end, or in chunks of at most `most`
    /// tokens. Returns the results of the tokens, and the cache.
    fn run(&self, class: Class, most: usize, parallel: &dyn Parallel) -> (Vec<f32>, [Vec<f32>; 2]) {
        // The content of the cache where there are no tokens must not matter.
        let stored = self.stored();
        let [mut keys, mut values] = [vec![f32::NAN; stored], vec![f32::NAN; stored]];
        let cache = (&mut keys[..], &mut values[..]);
        let result = self.run_in(cache, |values| StoredMut::Float32(values), (class, true), most, parallel);
        (result, [keys, values])
    }

    /// Returns the number of elements of the keys in the cache.
    fn stored(&self) -> usize {
        self.lengths.len() * self.heads[1] * self.columns * self.size
    }

    /// Returns the results like [`Self::run`], with a cache whose elements have the type of `stored`. Its tokens are
    /// appended only if `append` is true.
    fn run_in<T>(
        &self,
        (keys, values): (&mut [T], &mut [T]),
        stored: fn(&mut [T]) -> StoredMut<'_>,
        (class, append): (Class, bool),
        most: usize,
        parallel: &dyn Parallel,
    ) -> Vec<f32> {
        let ([heads, few], size, longest) = (self.heads, self.size, self.longest());
        let whole = heads * size;
        let mut result = vec![0.0; self.lengths.len() * longest * whole];
        for (batch, length) in self.lengths.iter().enumerate() {
            let mut done = 0;
            while done < *length {
                let tokens = most.min(length - done);
                let each = few * self.columns * size;
                let mut cache = Cache {
                    keys: stored(&mut keys[batch * each..][..each]),
                    values: stored(&mut values[batch * each..][..each]),
                    columns: self.columns,
                };
                let first = batch * longest + done;
                let out = &mut result[first * whole..][..tokens * whole];
                let lengths = (&[done][..], &[done + tokens][..]);
                self.attend((class, append), (first, tokens), lengths, &mut cache, out, parallel);
                done += tokens;
            }
        }
        result
    }

    fn attend(
        &self,
        (class, append): (Class, bool),
        (first, tokens): (usize, usize),
        (past, lengths): (&[usize], &[usize]),
        cache: &mut Cache<'_>,
        out: &mut [f32],
        parallel: &dyn Parallel,
    ) {
        let ([heads, few], size) = (self.heads, self.size);
        let positions: Vec<usize> = past.iter().flat_map(|past| (0..tokens).map(move |token| past + token)).collect();
        let rotary = (self.half > 0).then_some(Rotary {
            cos: &self.angles[0],
            sin: &self.angles[1],
            half: self.half,
            interleaved: self.interleaved,
            positions: &positions,
        });
        let spec = GroupedAttention {
            batch: past.len(),
            tokens,
            heads,
            kv_heads: few,
            head_size: size,
            scale: 1.0 / (size as f32).sqrt(),
            window: self.window,
            cap: self.cap,
            sinks: self.sinks.as_deref(),
            rotary,
            past,
            lengths,
        };
        let rows = past.len() * tokens;
        let at = |values: &'_ Vec<f32>, width: usize| values[first * width..][..rows * width].to_vec();
        let (q, k, v) = (at(&self.q, heads * size), at(&self.kv[0], few * size), at(&self.kv[1], few * size));
        let q = Rows::dense(&q, rows, heads * size);
        let [k, v] = [&k, &v].map(|values| Rows::dense(values, rows, few * size));
        grouped_attention(class, &spec, &q, append.then_some([&k, &v]), cache, out, parallel);
    }

    /// Returns the results of all tokens of all sequences in one call; those of padding are 0.
    fn padded(&self, class: Class, parallel: &dyn Parallel) -> Vec<f32> {
        let ([heads, _], longest) = (self.heads, self.longest());
        let [mut keys, mut values] = [vec![f32::NAN; self.stored()], vec![f32::NAN; self.stored()]];
        let [keys, values] = [&mut keys, &mut values].map(|values| StoredMut::Float32(values));
        let mut cache = Cache { keys, values, columns: self.columns };
        let mut out = vec![0.0; self.lengths.len() * longest * heads * self.size];
        let past = vec![0; self.lengths.len()];
        self.attend((class, true), (0, longest), (&past, &self.lengths), &mut cache, &mut out, parallel);
        for (batch, length) in self.lengths.iter().enumerate() {
            let width = heads * self.size;
            out[(batch * longest + length) * width..(batch + 1) * longest * width].fill(0.0);
        }
        out
    }
}

#[test]
fn attention_with_a_cache_is_near_float64_and_chunks_and_threads_change_no_bit() {
    property(4, |random| {
        let case = Case::new(random);
        let (expected, [keys, values]) = case.run(Class::Scalar, usize::MAX, &Serial);
        let few = 1 + random.below(20);
        for class in classes() {
            let (found, [found_keys, found_values]) = case.run(class, usize::MAX, &Serial);
            let near = |a: &[f32], b: &[f32], bound: f32| {
                a.iter().zip(b).all(|(a, b)| (a - b).abs() <= bound || a.is_nan() && b.is_nan())
            };
            assert!(near(&found_keys, &keys, 1e-5) && near(&found_values, &values, 0.0), "{class:?}: the cache");
            for (index, (found, wanted)) in found.iter().zip(&expected).enumerate() {
                assert!((found - wanted).abs() <= 5e-5, "{class:?} {index}: {found} not {wanted}");
            }
            if class == Class::Scalar {
                continue;
            }
            for most in [1, few] {
                for threads in [1, 3] {
                    let (chunks, _) = case.run(class, most, &Threads(threads));
                    assert_eq!(bits(&chunks), bits(&found), "{class:?}: chunks of {most} on {threads} threads");
                }
            }
            assert_eq!(bits(&case.padded(class, &Threads(2))), bits(&found), "{class:?}: padded");
        }
    });
}

/// Returns the bits of values, with one pattern for all NaN.
fn canonical(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

/// Numbers that are rounded to NaN, infinity, the largest number, denormals and 0, and between two numbers.
const SPECIAL: [f32; 10] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    f32::MIN_POSITIVE,
    -1e-40,
    1e-45,
    -0.0,
    1.003_906_3,
    1.011_718_8,
];

#[test]
fn a_bfloat16_cache_has_rounded_tokens_and_the_bits_of_a_float32_cache_with_their_values() {
    property(6, |random| {
        let mut case = Case::new(random);
        if random.once_in(2) {
            let values = &mut case.kv[random.below(2)];
            for _ in 0..3 {
                let index = random.below(values.len());
                values[index] = random.pick(&SPECIAL);
            }
        }
        let few = 1 + random.below(20);
        classes().into_iter().for_each(|class| check_narrow(&case, class, few));
    });
}

fn check_narrow(case: &Case, class: Class, few: usize) {
    let stored: fn(&mut [u16]) -> StoredMut<'_> = |bits| StoredMut::Bfloat16(bits);
    let [mut keys, mut values] = [vec![!0u16; case.stored()], vec![!0u16; case.stored()]];
    let cache = (&mut keys[..], &mut values[..]);
    let found = case.run_in(cache, stored, (class, true), usize::MAX, &Serial);
    let wide = |bits: &[u16]| bits.iter().map(|bits| half::bf16::from_bits(*bits).to_f32()).collect::<Vec<f32>>();
    // Where there are no tokens, both caches have NaN.
    let (_, exact) = case.run(class, usize::MAX, &Serial);
    for (narrow, exact) in [&keys, &values].into_iter().zip(&exact) {
        let rounded: Vec<f32> = exact.iter().map(|value| half::bf16::from_f32(*value).to_f32()).collect();
        assert_eq!(canonical(&wide(narrow)), canonical(&rounded), "{class:?}: the cache");
    }
    let [mut same_keys, mut same_values] = [wide(&keys), wide(&values)];
    let same = (&mut same_keys[..], &mut same_values[..]);
    let wide = case.run_in(same, |values| StoredMut::Float32(values), (class, false), usize::MAX, &Serial);
    assert_eq!(canonical(&found), canonical(&wide), "{class:?}: attention");
    if found.iter().any(|value| !value.is_finite()) {
        // A later value that is not finite makes the results of earlier queries in its block NaN, because its product
        // with a weight of 0 is NaN.
        return;
    }
    for (most, threads) in [(1, 1), (1, 3), (few, 1), (few, 3)] {
        let cache = (&mut keys[..], &mut values[..]);
        let chunks = case.run_in(cache, stored, (class, true), most, &Threads(threads));
        assert_eq!(canonical(&chunks), canonical(&found), "{class:?}: chunks of {most} on {threads} threads");
    }
}

#[test]
fn a_cache_is_copied_with_zeros_behind_the_tokens() {
    let from: Vec<f32> = (1..=2 * 2 * 3 * 2).map(|value| value as f32).collect();
    let (mut keys, mut values) = (vec![7.0; 2 * 2 * 4 * 2], vec![7.0; 2 * 2 * 4 * 2]);
    let [to_keys, to_values] = [&mut keys, &mut values].map(|values| StoredMut::Float32(values));
    let mut cache = Cache { keys: to_keys, values: to_values, columns: 4 };
    let stored = Stored::Float32(&from);
    cache.copy((stored, stored, 3), 2, 2, &[3, 1], &Threads(2));
    let first = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 0.0, 0.0];
    let second = [13.0, 14.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 19.0, 20.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    assert_eq!(keys, [first, second].concat());
    assert_eq!(values, keys);
}
