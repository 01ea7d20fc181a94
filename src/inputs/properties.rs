//! Tests of random signatures and contracts: chosen sizes satisfy all constraints.

use super::sizes::TRIALS;
use super::{Sizes, Wanted};
use crate::model::contract::{Contract, InputShape, Range, Size};
use crate::model::expression::Expression;
use crate::model::names::meaningful;
use crate::model::{Dim, ValueInfo};
use crate::onnx::dtype::DataType;
use crate::statistics::Random;
use std::collections::HashMap;

const NAMES: [&str; 8] = ["b", "n", "seq_len", "height", "past_len", "samples", "num_nodes", "batch"];
const NOTHING: [&str; 7] = ["?", "None", "unk__1", "DynamicDimension.0", "-1", "", "dynamic"];
const SUMS: [&str; 5] = ["n+1", "2*n", "b + n", "floor(n/2)", "past_len + seq_len"];

fn cases() -> u64 {
    std::env::var("OPTIMIZE_PROPERTY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(500)
}

fn signature(random: &mut Random) -> Vec<ValueInfo> {
    let names = ["x", "input_ids", "attention_mask", "past_key_values.0.key", "waveform", "image"];
    let dim = |random: &mut Random| match random.below(8) {
        0 | 1 => Dim::Fixed([1, 2, 3, 80][random.index(4)]),
        2..=4 => Dim::Symbolic(NAMES[random.index(NAMES.len())].to_owned()),
        5 | 6 => Dim::Symbolic(NOTHING[random.index(NOTHING.len())].to_owned()),
        _ => Dim::Symbolic(SUMS[random.index(SUMS.len())].to_owned()),
    };
    let count = 1 + random.index(4);
    let one = |index: usize| {
        let rank = random.index(5);
        let shape = Some((0..rank).map(|_| dim(random)).collect());
        ValueInfo { name: names[index].to_owned(), dtype: Some(DataType::Float32), shape }
    };
    (0..count).map(one).collect()
}

/// Returns a random contract that the signature allows: each name is free, bounded or fixed, and dimensions without a
/// name may share a range.
fn contract(infos: &[ValueInfo], random: &mut Random) -> Contract {
    let mut decided: HashMap<String, Size> = HashMap::new();
    let mut decide = |key: &str, random: &mut Random| -> Size {
        let known = decided.entry(key.to_owned()).or_insert_with(|| {
            let min = random.below(200) as i64;
            let max = [None, Some(min), Some(min + 7), Some(min + 300)][random.index(4)];
            match random.below(4) {
                0 => Size::Fixed(min),
                1 => Size::Range(Range { name: format!("r_{key}"), min: 0, max: None }),
                _ => Size::Range(Range { name: format!("r_{key}"), min, max }),
            }
        });
        known.clone()
    };
    let mut fresh = 0;
    let mut size = |dim: &Dim, random: &mut Random| match dim {
        Dim::Fixed(size) => Size::Fixed(*size),
        Dim::Symbolic(name) if Expression::parse(name).is_some() => {
            fresh += 1;
            Size::Range(Range { name: format!("sum{fresh}"), min: 0, max: None })
        }
        Dim::Symbolic(name) if name.is_empty() => {
            let key = if random.below(2) == 0 { format!("m{}", random.below(2)) } else { format!("own{fresh}") };
            fresh += 1;
            decide(&key, random)
        }
        Dim::Symbolic(name) => decide(name, random),
    };
    let mut inputs = Vec::new();
    for info in infos {
        let dims = info.shape.iter().flatten().map(|dim| size(dim, random)).collect();
        inputs.push(InputShape { name: info.name.clone(), dtype: Some("float32".to_owned()), dims: Some(dims) });
    }
    Contract { inputs }
}

/// Checks that shapes agree with a signature: equal names are equal sizes, fixed sizes are kept, and sums are correct.
fn agrees(infos: &[ValueInfo], shapes: &[(String, Vec<i64>)]) -> std::result::Result<(), String> {
    let mut known: HashMap<&str, i64> = HashMap::new();
    for (info, (_, shape)) in infos.iter().zip(shapes) {
        for (dim, size) in info.shape.iter().flatten().zip(shape) {
            match dim {
                Dim::Fixed(fixed) if fixed != size => return Err(format!("{fixed} became {size}")),
                Dim::Symbolic(name) if !name.is_empty() && Expression::parse(name).is_none() => {
                    let first = *known.entry(name).or_insert(*size);
                    if first != *size {
                        return Err(format!("{name} is {first} and {size}"));
                    }
                }
                _ => {}
            }
        }
    }
    for (info, (_, shape)) in infos.iter().zip(shapes) {
        for (dim, size) in info.shape.iter().flatten().zip(shape) {
            let Dim::Symbolic(name) = dim else { continue };
            let Some(sum) = Expression::parse(name) else { continue };
            let right = sum.size(&|name| known.get(name).copied());
            if right.is_some_and(|right| right != *size) {
                return Err(format!("{name} is {size}, not {right:?}"));
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_chosen_satisfies_names_sums_and_contracts() {
    let (mut bounded, mut equal) = (0u64, 0u64);
    for case in 0..cases() {
        let mut random = Random::part(20, case);
        let raw = signature(&mut random);
        let infos = meaningful(&raw);
        let contract = contract(&infos, &mut random);
        let mut sizes = Sizes::of(&raw);
        let inside = random.below(4) > 0;
        if inside {
            sizes.within(&contract);
            bounded += 1;
        }
        let within = sizes.clone();
        let sequential = [false, true, true, false];
        let wanted = Wanted { batch: 1, sequence: 16, sequential: &sequential, ..Wanted::default() };
        for trial in 0..TRIALS {
            let mut sizes = within.clone();
            sizes.choose(&Wanted { trial, ..wanted });
            // Sizes that are multiples of a large guess may be above the limit; all others must be valid.
            let Ok(shapes) = sizes.all() else { continue };
            let told = format!("case {case}, trial {trial}: {raw:?} {contract:?} gave {shapes:?}");
            agrees(&infos, &shapes).unwrap_or_else(|e| panic!("{e}: {told}"));
            let given: Vec<_> = shapes.iter().map(|(n, s)| (n.as_str(), DataType::Float32, &s[..])).collect();
            if inside {
                contract.check(&given).unwrap_or_else(|e| panic!("{e}: {told}"));
                equal += 1;
            }
            // If one shape is given, it is kept, and the sizes that it implies apply to the others.
            let mut again = Sizes::of(&raw);
            let first = random.index(raw.len());
            again.bind(first, &shapes[first].1).unwrap_or_else(|e| panic!("{e}: {told}"));
            again.choose(&wanted);
            let Ok(others) = again.all() else { continue };
            assert_eq!(others[first], shapes[first], "{told}");
            agrees(&infos, &others).unwrap_or_else(|e| panic!("bound {first}: {e}: {others:?}: {told}"));
        }
    }
    println!("{} signatures, {bounded} of them within contracts, {equal} contracts checked", cases());
    assert!(bounded > 0 && equal > 0);
}
