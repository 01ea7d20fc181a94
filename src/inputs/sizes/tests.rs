use super::*;
use crate::onnx::dtype::DataType;

/// Returns the declaration of an input with the given dimensions, for example `"batch, 3, height"`; `?` is a dimension
/// without a name.
pub fn info(name: &str, dims: &str) -> ValueInfo {
    let dim = |text: &str| text.trim().parse().map_or_else(|_| Dim::Symbolic(text.trim().into()), Dim::Fixed);
    let shape = dims.split(',').filter(|d| !d.trim().is_empty()).map(dim).collect();
    ValueInfo { name: name.into(), dtype: Some(DataType::Float32), shape: Some(shape) }
}

fn wanted(batch: i64, sequence: i64) -> Wanted<'static> {
    Wanted { batch, sequence, ..Wanted::default() }
}

fn shapes(infos: &[ValueInfo], wanted: &Wanted<'_>) -> Vec<Vec<i64>> {
    let mut sizes = Sizes::of(infos);
    sizes.choose(wanted);
    sizes.all().unwrap().into_iter().map(|(_, shape)| shape).collect()
}

fn shape(dims: &str) -> Vec<i64> {
    shapes(&[info("x", dims)], &wanted(4, 128)).remove(0)
}

#[test]
fn names_say_what_size_they_are() {
    assert_eq!(shape("batch, 3, height, width"), [4, 3, 224, 224]);
    assert_eq!(shape("N, sequence_length, 768"), [4, 128, 768]);
    assert_eq!(shape("?, ?"), [4, 128]);
    assert_eq!(shape("time, batch_size, anything"), [128, 4, 128]);
    assert_eq!(shape("batch, past_sequence_length + sequence_length"), [4, 128]);
    assert_eq!(shape("batch, past_length + 1"), [4, 1]);
    assert_eq!(shape(""), [0i64; 0]);
    let ids = [info("input_ids", "?, ?")];
    assert_eq!(shapes(&ids, &Wanted { sequential: &[true], ..wanted(2, 9) }), [[2, 9]]);
}

#[test]
fn places_say_it_where_names_do_not() {
    assert_eq!(shape("?, 3, ?, ?"), [4, 3, 224, 224]);
    assert_eq!(shape("unk__1, unk__2, unk__3, 3"), [4, 224, 224, 3]);
    assert_eq!(shape("d, 1, d, d"), [4, 1, 224, 224]);
    assert_eq!(shape("?, 3, 48, ?"), [4, 3, 48, 224]);
    assert_eq!(shape("3, h, w"), [3, 224, 224]);
    assert_eq!(shape("batch, samples"), [4, 16000]);
    assert_eq!(shape("samples"), [16000]);
    assert_eq!(shape("num_atoms, 16"), [128, 16]);
    assert_eq!(shape("frames, 80"), [128, 80]);
    assert_eq!(shape("n, n"), [128, 128]);
    assert_eq!(shapes(&[info("waveform", "b, ?")], &wanted(1, 128)), [[1, 16000]]);
}

#[test]
fn names_that_mean_nothing_are_not_equal() {
    let infos = [info("x", "?, 3, ?, ?"), info("scale", "?, 2")];
    assert_eq!(shapes(&infos, &wanted(1, 128)), [vec![1, 3, 224, 224], vec![1, 2]]);
    let mut sizes = Sizes::of(&infos);
    sizes.bind(0, &[2, 3, 48, 320]).unwrap();
    sizes.choose(&wanted(1, 128));
    assert_eq!(sizes.shape(1).unwrap(), [1, 2]);
}

#[test]
fn a_cache_begins_empty() {
    for dims in ["batch, 12, past_sequence_length, 64", "?, 12, ?, 64"] {
        assert_eq!(shapes(&[info("past_key_values.0.key", dims)], &wanted(2, 16)), [[2, 12, 0, 64]]);
    }
    // A cache may use the name of the text's length for its own.
    let merged = [info("past_key_values.0.key", "b, 2, s, 4"), info("input_ids", "b, s")];
    assert_eq!(shapes(&merged, &Wanted { sequential: &[false, true], ..wanted(1, 9) }), [vec![1, 2, 9, 4], vec![1, 9]]);
}

#[test]
fn equal_names_are_equal_sizes_wherever_they_are() {
    let lengths = [info("x", "t, b, 64"), info("l", "b")];
    assert_eq!(shapes(&lengths, &wanted(3, 128)), [vec![3, 3, 64], vec![3]]);
    let states = [info("stacked", "batch, ?, 80"), info("h0", "2, batch, 64")];
    assert_eq!(shapes(&states, &wanted(3, 128))[1], [2, 3, 64]);
    let nameless = [info("input", "?, ?"), info("state", "2, ?, 128"), info("hidden_states", "1, ?, 64")];
    assert_eq!(shapes(&nameless, &wanted(3, 128)), [vec![3, 128], vec![2, 3, 128], vec![1, 128, 64]]);
    let sums = [info("y", "n+1"), info("z", "2*n"), info("x", "b, n")];
    assert_eq!(shapes(&sums, &wanted(1, 128)), [vec![129], vec![256], vec![1, 128]]);
    let mut sizes = Sizes::of(&[info("a", "b, s"), info("b", "b, s, 5"), info("c", "b, 4")]);
    sizes.bind(0, &[3, 77]).unwrap();
    let e = sizes.bind(2, &[2, 4]).unwrap_err().to_string();
    assert_eq!(e, "input \"c\": the shape [2, 4] sets \"b\" to 2; elsewhere it is 3");
    let shape = Some(vec![Dim::Symbolic(String::new()), Dim::Fixed(5)]);
    let mut nameless = Sizes::of(&[ValueInfo { shape, ..info("a", "") }]);
    nameless.bind(0, &[3, 5]).unwrap();
    let e = nameless.bind(0, &[4, 5]).unwrap_err().to_string();
    assert_eq!(e, "input \"a\": the shape [4, 5] has a dimension of 4 that must be 3");
    assert!(sizes.bind(2, &[3, 5]).unwrap_err().to_string().contains("float32[b, 4]"));
    assert!(sizes.bind(2, &[3]).is_err());
    sizes.choose(&wanted(1, 128));
    assert_eq!(sizes.shape(1).unwrap(), [3, 77, 5]);
}

#[test]
fn the_size_of_an_expression_says_that_of_its_names() {
    let mut sizes = Sizes::of(&[info("mask", "b, past + seq"), info("ids", "b, seq"), info("past", "b, past")]);
    sizes.bind(0, &[2, 20]).unwrap();
    sizes.bind(1, &[2, 16]).unwrap();
    sizes.choose(&wanted(1, 128));
    assert_eq!(sizes.shape(2).unwrap(), [2, 4]);
    // The expression `floor(n/2)`, which rounds, does not determine `n`, but `n+1` does.
    let mut sizes = Sizes::of(&[info("y", "floor(n/2), n+1"), info("x", "n")]);
    sizes.bind(0, &[0, 2]).unwrap();
    sizes.choose(&wanted(1, 128));
    assert_eq!(sizes.shape(1).unwrap(), [1]);
}

#[test]
fn a_contract_fixes_bounds_and_joins() {
    let infos = [info("x", "b, n"), info("y", "?, m")];
    let range = |name: &str, min, max| Range { name: name.to_owned(), min, max };
    let mut sizes = Sizes::of(&infos);
    sizes.limit(0, 0, &range("batch", 4, Some(64)));
    sizes.limit(1, 0, &range("batch", 4, Some(64)));
    sizes.limit(1, 1, &range("m", 1, Some(32)));
    sizes.choose(&wanted(1, 128));
    assert_eq!((sizes.shape(0).unwrap(), sizes.shape(1).unwrap()), (vec![4, 128], vec![4, 32]));
    let mut sizes = Sizes::of(&infos);
    sizes.limit(0, 0, &range("batch", 4, Some(64)));
    let e = sizes.bind(0, &[1, 8]).unwrap_err().to_string();
    assert!(e.contains("sets \"batch\" to 1; the package accepts 4 to 64"), "{e}");
}

#[test]
fn shapes_that_are_unknown_or_too_large_are_refused() {
    let one = |info: ValueInfo| {
        let mut sizes = Sizes::of(&[info]);
        sizes.choose(&wanted(1, 1));
        sizes.shape(0).unwrap_err()
    };
    let unknown = ValueInfo { name: "x".into(), dtype: Some(DataType::Float32), shape: None };
    let e = one(unknown.clone()).to_string();
    assert!(e.contains("\"x\"") && e.contains("`shapes`"), "{e}");
    let e = one(ValueInfo { dtype: None, ..unknown.clone() });
    assert!(e.kind() == Kind::Unsupported && e.to_string().contains("not a tensor but a sequence"), "{e}");
    one(info("x", "1099511627776, 2"));
    assert!(Sizes::of(&[unknown]).bind(0, &[-1]).is_err());
}
