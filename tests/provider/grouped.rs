//! `GroupQueryAttention` in all forms that are claimed, compared with ONNX Runtime's.

use super::common::Random;
use super::graphs::{Builder, of, text};
use super::host::{Host, Input, Session};
use super::support::build::value;
use super::values;
use optimize::graph::edit::{float_attribute, int_attribute, node};
use optimize::model::Model;
use optimize::onnx::dtype::DataType;

/// The attributes and inputs of a node.
#[derive(Debug, Clone)]
struct Form {
    heads: usize,
    few: usize,
    size: usize,
    /// Number of rotated pairs; 0 without rotary positions.
    half: usize,
    interleaved: bool,
    packed: bool,
    window: Option<usize>,
    cap: bool,
    smooth: bool,
    sinks: bool,
}

/// Number of rows of the tables of cosines and sines.
const ROWS: usize = 320;

impl Form {
    fn random(random: &mut Random) -> Self {
        let few = 1 + random.below(2);
        let size = [16, 32, 64][random.below(3)];
        let extra = random.below(3);
        Self {
            heads: few * [1, 2, 3][random.below(3)],
            few,
            size,
            half: [0, size / 2, size / 4 / 8 * 8][random.below(3)],
            interleaved: random.below(2) == 0,
            packed: random.below(3) == 0,
            window: (random.below(3) == 0).then(|| 1 + random.below(20)),
            cap: random.below(3) == 0,
            smooth: extra == 1,
            sinks: extra == 2,
        }
    }

    fn width(&self) -> usize {
        (if self.packed { self.heads + 2 * self.few } else { self.heads }) * self.size
    }

    fn model(&self, random: &mut Random) -> Model {
        let mut b = Builder::new();
        let mut inputs = vec!["q", "k", "v", "past_key", "past_value", "lengths", "total", "", "", "", "", ""];
        if self.packed {
            (inputs[1], inputs[2]) = ("", "");
        }
        let angles: Vec<f32> = values(random, ROWS * self.half).iter().map(|x| x * 3.0).collect();
        let shape = [ROWS, self.half];
        let cos = b.floats(&shape, &angles.iter().map(|x| x.cos()).collect::<Vec<_>>());
        let sin = b.floats(&shape, &angles.iter().map(|x| x.sin()).collect::<Vec<_>>());
        let sinks = b.floats(&[self.heads], &values(random, self.heads));
        if self.half > 0 {
            (inputs[7], inputs[8]) = (&cos, &sin);
        }
        if self.sinks {
            inputs[11] = &sinks;
        }
        let mut made = node("GroupQueryAttention", &inputs, &["y", "key", "value"]);
        made.domain = Some("com.microsoft".into());
        let number = |name: &str, value: usize| int_attribute(name, value as i64);
        made.attribute = vec![number("num_heads", self.heads), number("kv_num_heads", self.few)];
        made.attribute.push(number("do_rotary", usize::from(self.half > 0)));
        made.attribute.push(number("rotary_interleaved", usize::from(self.interleaved)));
        made.attribute.extend(self.window.map(|window| number("local_window_size", window)));
        made.attribute.extend(self.cap.then(|| float_attribute("softcap", 3.0)));
        made.attribute.push(number("smooth_softmax", usize::from(self.smooth)));
        made.attribute.push(text("k_quant_type", "NONE"));
        b.nodes.push(made);
        let open = |name: &str, rank: usize| value(name, DataType::Float32, &[-1, -2, -3, -4][..rank]);
        let mut taken = vec![value("q", DataType::Float32, &[-1, -2, self.width() as i64])];
        if !self.packed {
            taken.extend(
                ["k", "v"].map(|name| value(name, DataType::Float32, &[-1, -2, (self.few * self.size) as i64])),
            );
        }
        taken.extend(
            ["past_key", "past_value"]
                .map(|name| value(name, DataType::Float32, &[-1, self.few as i64, -5, self.size as i64])),
        );
        taken.extend([value("lengths", DataType::Int32, &[-1]), value("total", DataType::Int32, &[])]);
        of(b, taken, vec![open("y", 3), open("key", 4), open("value", 4)])
    }
}

/// The caches of two sessions with the same model, and the number of tokens in them by sequence.
struct Text<'a> {
    form: &'a Form,
    lengths: Vec<usize>,
    columns: usize,
    cache: Vec<Vec<f32>>,
}

impl Text<'_> {
    /// Runs new tokens of each sequence in both sessions, and compares the results. `valid` is the number of tokens in
    /// each sequence that are not padding.
    fn step(&mut self, random: &mut Random, sessions: [&mut Session; 2], tokens: usize, valid: &[usize], room: usize) {
        let (form, batch) = (self.form, self.lengths.len());
        self.lengths.iter_mut().zip(valid).for_each(|(length, valid)| *length += valid);
        let first = self.columns == 0;
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        let total = if first { tokens } else { longest };
        let floats = |random: &mut Random, shape: Vec<usize>| {
            let count = shape.iter().product();
            Input::Floats(shape, values(random, count))
        };
        let mut inputs = vec![("q", floats(random, vec![batch, tokens, form.width()]))];
        if !form.packed {
            let shape = vec![batch, tokens, form.few * form.size];
            inputs.extend(["k", "v"].map(|name| (name, floats(random, shape.clone()))));
        }
        let shape = vec![batch, form.few, self.columns, form.size];
        let past = [("past_key", 0), ("past_value", 1)];
        let cache = |index: usize| self.cache.get(index).cloned().unwrap_or_default();
        inputs.extend(past.map(|(name, index)| (name, Input::Floats(shape.clone(), cache(index)))));
        let last = self.lengths.iter().map(|length| *length as i32 - 1).collect();
        inputs.push(("lengths", Input::Integers(vec![batch], last)));
        inputs.push(("total", Input::Integers(vec![], vec![total as i32])));
        let [stock, ours] = sessions;
        let (expected, found) = (stock.run(&inputs), ours.run(&inputs));
        let columns = self.columns.max(total);
        let width = form.heads * form.size;
        for (row, valid) in valid.iter().enumerate() {
            let at = row * tokens * width..(row * tokens + valid) * width;
            near(&expected[0][at.clone()], &found[0][at], 1e-4, form);
            for head in row * form.few..(row + 1) * form.few {
                let at = head * columns * form.size..(head * columns + self.lengths[row]) * form.size;
                (1..3).for_each(|part| near(&expected[part][at.clone()], &found[part][at.clone()], 1e-5, form));
            }
        }
        // The cache becomes the next past, with room for more tokens.
        let grown = |from: &Vec<f32>| {
            let heads = from
                .chunks(columns * form.size)
                .flat_map(|head| head.iter().copied().chain(std::iter::repeat_n(0.0, room * form.size)));
            heads.collect()
        };
        self.cache = expected[1..].iter().map(grown).collect();
        self.columns = columns + room;
    }
}

fn near(expected: &[f32], found: &[f32], bound: f32, form: &Form) {
    assert_eq!(expected.len(), found.len(), "{form:?}");
    for (index, (a, b)) in expected.iter().zip(found).enumerate() {
        assert!((a - b).abs() <= bound, "{index}: {a} and {b}: {form:?}");
    }
}

#[test]
fn attention_with_a_cache_in_any_form_is_claimed_and_gives_what_onnx_runtime_gives() {
    let host = Host::open();
    let mut random = Random(21);
    let rounds = std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(12);
    for _ in 0..rounds {
        let form = Form::random(&mut random);
        let model = host.save(&form.model(&mut random));
        let (mut stock, mut ours) = (host.stock(&model), host.session(&model, &[]));
        assert_eq!(ours.claims(), ["GroupQueryAttention"], "{form:?}");
        // A prompt in chunks, then single tokens.
        let mut text = Text { form: &form, lengths: vec![0], columns: 0, cache: vec![] };
        for (tokens, room) in [(1 + random.below(150), 0), (1 + random.below(9), 9), (1, 0), (1 + random.below(5), 2)] {
            text.step(&mut random, [&mut stock, &mut ours], tokens, &[tokens], room);
        }
        // Sequences of different lengths, then one token of each.
        let tokens = 1 + random.below(20);
        let valid: Vec<usize> = (0..3).map(|row| if row == 1 { tokens } else { 1 + random.below(tokens) }).collect();
        let mut text = Text { form: &form, lengths: vec![0; 3], columns: 0, cache: vec![] };
        text.step(&mut random, [&mut stock, &mut ours], tokens, &valid, 5);
        text.step(&mut random, [&mut stock, &mut ours], 1, &[1; 3], 0);
    }
}

#[test]
fn lengths_outside_of_the_cache_are_refused() {
    let host = Host::open();
    let mut random = Random(22);
    let form = Form { packed: false, half: 8, size: 16, ..Form::random(&mut random) };
    let mut ours = host.session(&host.save(&form.model(&mut random)), &[]);
    let floats = |shape: [usize; 4], rank: usize| {
        Input::Floats(shape[..rank].to_vec(), vec![0.5; shape[..rank].iter().product()])
    };
    for (last, total) in [(9, 4), (-1, 4), (i32::MAX, i32::MAX), (3, -4), (399, 400)] {
        let inputs = [
            ("q", floats([1, 1, form.width(), 0], 3)),
            ("k", floats([1, 1, form.few * 16, 0], 3)),
            ("v", floats([1, 1, form.few * 16, 0], 3)),
            ("past_key", floats([1, form.few, 3, 16], 4)),
            ("past_value", floats([1, form.few, 3, 16], 4)),
            ("lengths", Input::Integers(vec![1], vec![last])),
            ("total", Input::Integers(vec![], vec![total])),
        ];
        let message = ours.try_run(&inputs).unwrap_err();
        let named = ["seqlens_k", "total_sequence_length", "position"].iter().any(|name| message.contains(name));
        assert!(named, "{last} of {total}: {message}");
    }
}
