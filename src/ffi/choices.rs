//! A test that the enums of the header have the same values with the same numbers as the enums of the library.

use std::collections::BTreeMap;

/// Constants of the header whose names do not end with the name of the library's value. Each constant is followed by
/// that name.
const OTHER_NAMES: [(&str, &str); 3] = [
    ("OPTIMIZE_OPTIMIZATION_DEFAULT", "all"),
    ("OPTIMIZE_TENSORRT_NVINFER", "tensorrt"),
    ("OPTIMIZE_TENSORRT_RTX", "tensorrt-rtx"),
];

/// Returns the constants of an enum of the header by their numbers. Panics if the header has no such enum.
fn constants(c_name: &str) -> BTreeMap<i32, &'static str> {
    let header = include_str!("../../include/optimize.h");
    let (before, _) = header.split_once(&format!("}} {c_name};")).unwrap_or_else(|| panic!("there is no {c_name}"));
    let (_, body) = before.rsplit_once(&format!("typedef enum {c_name} {{")).expect("an enum");
    let constant = |line: &'static str| {
        let (name, number) = line.trim().strip_suffix(',')?.split_once(" = ")?;
        Some((number.parse().ok()?, name))
    };
    body.lines().filter_map(constant).collect()
}

/// Compares values of the library, as number and name, with an enum of the header. Panics if they differ.
fn compare(c_name: &str, values: &[(i32, &str)]) {
    let constants = constants(c_name);
    for (number, name) in values {
        let constant = constants.get(number).unwrap_or_else(|| panic!("{c_name} has no {number}, which is {name}"));
        let usual = constant.ends_with(&format!("_{}", name.to_uppercase().replace('-', "_")));
        assert!(usual || OTHER_NAMES.contains(&(constant, name)), "{constant} is {number}, and so is {name}");
    }
    // In some enums of the header, 0 stands for the default of the model, which is not a value of the library.
    let extra: Vec<_> = constants.iter().filter(|(number, _)| values.iter().all(|(n, _)| n != *number)).collect();
    assert!(extra.iter().all(|(number, _)| **number == 0), "the library has no {extra:?}");
}

macro_rules! compare_all {
    ($($enum:ty),+ $(,)?) => {
        $( compare(<$enum>::C_NAME, &<$enum>::ALL.iter().map(|v| (v.code(), v.name())).collect::<Vec<_>>()); )+
    };
}

#[test]
fn enums_of_the_header_have_the_values_of_the_library() {
    compare_all!(
        crate::counters::CountersFormat,
        crate::distill::Divergence,
        crate::distill::Schedule,
        crate::ensemble::EnsembleTask,
        crate::ensemble::MergeMethod,
        crate::ensemble::Method,
        crate::encoder::Aggregation,
        crate::encoder::ScoreFunction,
        crate::evaluate::Bos,
        crate::evaluate::EvaluateTask,
        crate::onnx::save::ExternalData,
        crate::log::LogLevel,
        crate::runtime::Kernels,
        crate::runtime::KvCacheType,
        crate::runtime::SessionPrecision,
        crate::prune::Importance,
        crate::prune::PruneMethod,
        crate::quantize::Algorithm,
        crate::quantize::CalibrationMethod,
        crate::quantize::QuantizeType,
        crate::quantize::ReduceRange,
        crate::quantize::ScaleType,
        crate::runtime::OptimizationLevel,
        crate::runtime::ProviderChoice,
        crate::tensorrt::Choice,
        crate::tensorrt::Precision,
        crate::text::FinishReason,
    );
}
