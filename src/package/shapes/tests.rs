//! The cases of `torch.export` (torch 2.15), and random shapes against a checker written apart.

use super::*;

fn info(name: &str, dims: &[&str]) -> ValueInfo {
    let dim = |text: &&str| text.parse().map_or_else(|_| Dim::Symbolic((*text).to_owned()), Dim::Fixed);
    ValueInfo { name: name.to_owned(), dtype: Some(DataType::Float32), shape: Some(dims.iter().map(dim).collect()) }
}

fn two() -> Contract {
    Contract::open(&[info("x", &["a", "4"]), info("y", &["b", "c"])])
}

fn narrowed(json: &str) -> Result<Contract> {
    let mut contract = two();
    contract.narrow(&DynamicShapes::from_json(json)?)?;
    Ok(contract)
}

fn refused(json: &str, words: &[&str]) {
    let e = narrowed(json).unwrap_err();
    assert_eq!(e.kind(), crate::error::Kind::InvalidArgument);
    for word in words {
        assert!(e.to_string().contains(word), "{e} does not say {word}");
    }
}

#[test]
fn ranges_are_enforced_to_the_letter() {
    let contract = narrowed(r#"{"x": {"0": {"name": "batch", "min": 2, "max": 8}}}"#).unwrap();
    let check = |x: &[i64], y: &[i64]| contract.check(&[("x", x), ("y", y)]);
    check(&[2, 4], &[1, 1]).unwrap();
    check(&[8, 4], &[100, 7]).unwrap();
    let e = check(&[9, 4], &[1, 1]).unwrap_err().to_string();
    assert_eq!(e, "input \"x\": dimension 0 is 9; the package takes 2 to 8");
    // torch accepts 1 where the least is 2.
    assert!(check(&[1, 4], &[1, 1]).is_err());
    assert!(check(&[2, 5], &[1, 1]).unwrap_err().to_string().contains("dimension 1 is 5; the package takes 4"));
    assert!(check(&[2, 4, 1], &[1, 1]).unwrap_err().to_string().contains("3 dimensions"));
}

#[test]
fn one_name_is_one_size() {
    let batch = r#"{"name": "batch", "min": 1, "max": 8}"#;
    let contract = narrowed(&format!(r#"{{"0": {{"0": {batch}}}, "y": {{"0": {batch}}}}}"#)).unwrap();
    contract.check(&[("x", &[3, 4]), ("y", &[3, 1])]).unwrap();
    let e = contract.check(&[("x", &[3, 4]), ("y", &[2, 1])]).unwrap_err().to_string();
    assert_eq!(e, "input \"y\": dimension 0 (batch) is 2, but dimension 0 of input \"x\" is 3");
    // What the model calls by one name gets the range that one of them was given.
    let mut same = Contract::open(&[info("x", &["n"]), info("y", &["n"])]);
    same.narrow(&DynamicShapes::from_json(r#"{"x": {"0": {"max": 4}}}"#).unwrap()).unwrap();
    assert!(same.check(&[("x", &[4]), ("y", &[4])]).is_ok() && same.check(&[("x", &[5]), ("y", &[5])]).is_err());
}

#[test]
fn what_means_nothing_is_refused_when_it_is_packaged() {
    refused(r#"{"x": {"0": {"name": "b", "max": 8}}, "y": {"0": {"name": "b", "max": 9}}}"#, &["\"b\"", "elsewhere"]);
    refused(r#"{"x": {"0": {"min": 3, "max": 2}}}"#, &["min is 3 and max 2", "input \"x\", dimension 0"]);
    refused(r#"{"x": {"0": {"min": -1}}}"#, &["min is -1"]);
    refused(r#"{"x": {"0": {"name": "1st"}}}"#, &["\"1st\" is not a name"]);
    refused(r#"{"x": {"0": {"name": "a b"}}}"#, &["is not a name"]);
    refused(r#"{"x": {"2": {}}}"#, &["has 2 dimensions, so there is no dimension 2"]);
    refused(r#"{"x": {"1": {}}}"#, &["the model always has 4 there"]);
    refused(r#"{"z": {"0": {}}}"#, &["no input \"z\"", "x, y"]);
    refused(r#"{"7": {"0": {}}}"#, &["no input \"7\""]);
    refused(r#"{"x": {"first": {}}}"#, &["\"first\" is not the number of a dimension"]);
    refused(r#"{"x": {"0": {"most": 3}}}"#, &["\"most\" is not known"]);
    refused(r#"{"x": {"0": {"max": "many"}}}"#, &["dimension 0"]);
    refused(r#"{"x": 3}"#, &["input \"x\" is not an object"]);
    refused("[]", &["not an object"]);
    refused("{", &["not JSON"]);
    let mut same = Contract::open(&[info("x", &["n"]), info("y", &["n"])]);
    let asked = DynamicShapes::from_json(r#"{"x": {"0": {"max": 4}}, "y": {"0": {"max": 5}}}"#).unwrap();
    assert!(same.narrow(&asked).unwrap_err().to_string().contains("calls it \"n\""));
}

#[test]
fn without_ranges_the_example_is_the_contract() {
    let example = [("x".to_owned(), vec![3, 4]), ("y".to_owned(), vec![5, 6])];
    let mut fixed = two();
    fixed.fix(&example, &DynamicShapes::default()).unwrap();
    fixed.check(&[("x", &[3, 4]), ("y", &[5, 6])]).unwrap();
    assert!(fixed.check(&[("x", &[2, 4]), ("y", &[5, 6])]).is_err());
    let asked = DynamicShapes::from_json(r#"{"y": {"1": {"min": 2, "max": 9}}}"#).unwrap();
    let mut one = two();
    one.narrow(&asked).unwrap();
    one.fix(&example, &asked).unwrap();
    one.check(&[("x", &[3, 4]), ("y", &[5, 9])]).unwrap();
    assert!(one.check(&[("x", &[3, 4]), ("y", &[4, 9])]).is_err());
    let json = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<Contract>(&json).unwrap(), one, "{json}");
    assert!(two().fix(&example[..1], &DynamicShapes::default()).is_err());
}

#[test]
fn ten_thousand_random_shapes_are_judged_as_by_hand() {
    let mut state = 9u64;
    let mut below = |end: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as i64) % end
    };
    let names = ["", "n", "m"];
    let mut taken = 0;
    for _ in 0..10_000 {
        // Ranges by name, so that one name has one range.
        let ranges: Vec<(i64, Option<i64>)> = (0..3)
            .map(|_| {
                let min = below(4);
                (min, (below(4) > 0).then(|| min + below(5)))
            })
            .collect();
        let inputs: Vec<InputContract> = (0..1 + below(3))
            .map(|input| {
                let size = |kind: i64, fixed: i64| match kind {
                    3 => Size::Fixed(fixed),
                    kind => {
                        let (min, max) = ranges[kind as usize];
                        Size::Dynamic(Range { name: names[kind as usize].to_owned(), min, max })
                    }
                };
                let dims = (0..below(4)).map(|_| size(below(4), below(6))).collect();
                InputContract { name: format!("i{input}"), dtype: "float32".to_owned(), dims: Some(dims) }
            })
            .collect();
        let contract = Contract { inputs };
        let shapes: Vec<(String, Vec<i64>)> = contract
            .inputs
            .iter()
            .map(|input| {
                let dims = input.dims.as_ref().unwrap();
                let rank = if below(12) == 0 { below(4) } else { dims.len() as i64 };
                let near = |at: i64, random: i64| match dims.get(at as usize) {
                    Some(Size::Fixed(size)) if random > 0 => *size,
                    _ => random,
                };
                (input.name.clone(), (0..rank).map(|at| near(at, below(7))).collect())
            })
            .collect();
        let mut fits = true;
        for name in 0..3 {
            let mut found = Vec::new();
            for (input, (_, shape)) in contract.inputs.iter().zip(&shapes) {
                let dims = input.dims.as_ref().unwrap();
                fits &= dims.len() == shape.len();
                for (dim, got) in dims.iter().zip(shape) {
                    match dim {
                        Size::Fixed(size) => fits &= size == got,
                        Size::Dynamic(range) if range.name == names[name] => {
                            let (min, max) = ranges[name];
                            fits &= (min..=max.unwrap_or(i64::MAX)).contains(got);
                            found.push(*got);
                        }
                        Size::Dynamic(_) => {}
                    }
                }
            }
            fits &= name == 0 || found.windows(2).all(|pair| pair[0] == pair[1]);
        }
        let given: Vec<(&str, &[i64])> = shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        assert_eq!(contract.check(&given).is_ok(), fits, "{contract:?} {shapes:?}");
        taken += usize::from(fits);
    }
    assert!((1000..9000).contains(&taken), "{taken} of 10,000 fit: the test judges one side only");
}
