//! The stages of long operations, and the units in which their progress is counted.

/// A stage of an operation. The documentation of `optimize_progress_fn` in `ffi/call.rs` lists all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// The name, as progress callbacks receive it.
    pub name: &'static str,
    /// The unit in which the work of the stage is counted.
    pub unit: &'static str,
}

/// Defines a constant of [`Stage`] for each stage, with its name and unit, and the list of all stages.
macro_rules! stages {
    ($($constant:ident: $name:literal, $unit:literal;)*) => {
        impl Stage {
            $(
                #[doc = concat!("The stage `", $name, "`, in ", $unit, ".")]
                pub const $constant: Stage = Stage { name: $name, unit: $unit };
            )*
            /// All stages.
            pub const ALL: &[Stage] = &[$(Stage::$constant),*];
        }
    };
}

stages! {
    BENCHMARK: "benchmark", "steps";
    BUILD: "build", "steps";
    CALIBRATE: "calibrate", "runs";
    CLASSIFY: "classify", "texts";
    DISTILL: "distill", "steps";
    EMBED: "embed", "texts";
    EVALUATE_TEXTS: "evaluate", "texts";
    EVALUATE_TOKENS: "evaluate", "tokens";
    FIT: "fit", "tokens";
    FUSE: "fuse", "models";
    GENERATE: "generate", "tokens";
    HASH: "hash", "bytes";
    INFLUENCE: "influence", "layers";
    LOAD: "load", "bytes";
    MERGE: "merge", "tensors";
    PACKAGE: "package", "bytes";
    PRECISION: "precision", "measurements";
    PROMPT: "prompt", "tokens";
    PRUNE: "prune", "bytes";
    QUANTIZE: "quantize", "bytes";
    RECONSTRUCT: "reconstruct", "tensors";
    SAVE: "save", "bytes";
    SCALE: "scale", "tensors";
    SENSITIVITY: "sensitivity", "measurements";
    SPEED: "speed", "measurements";
    TABLE: "table", "thousandths";
    TAG: "tag", "texts";
    VERIFY: "verify", "bytes";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_lists_every_stage_with_its_unit() {
        let header = include_str!("../../include/optimize.h").replace("\n * ", " ");
        let (_, list) = header.split_once("Stages (units):").unwrap();
        for Stage { name, unit } in Stage::ALL {
            let (_, after) = list.split_once(&format!("\"{name}")).unwrap_or_else(|| panic!("{name:?} is missing"));
            let units = after.split(['(', ')']).nth(1).unwrap();
            assert!(units.contains(unit), "{name:?} is in {unit}, but the header says {units}");
        }
    }
}
