//! The check that the class names of a configuration match the built graph.

use super::config::{Config, shown};
use super::{Build, Family};
use crate::error::{Result, bail};

/// Returns warnings about classes and code in a configuration that do not belong to the family. With `sentence`, the
/// class does not matter, because only the hidden states of the model are used.
///
/// Fails with [`crate::error::Kind::Unsupported`] for decoders whose head does not generate text; the heads of encoders
/// are checked when they are built.
pub(super) fn check(family: &Family, config: &Config<'_>, sentence: bool) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let own = |name: &str| family.classes.iter().any(|class| name.starts_with(class));
    if let Some(class) = config.architectures().first().copied().filter(|_| !sentence) {
        let writes = class.ends_with("ForCausalLM")
            || class.ends_with("ForConditionalGeneration")
            || class.ends_with("Model") && !class.ends_with("DoubleHeadsModel");
        if matches!(family.build, Build::Decoder(_)) && !writes {
            bail!(Unsupported, "{class}: only decoders for text generation are supported");
        }
        let heads = ["For", "LMHeadModel"].iter().any(|head| class.contains(head));
        let bare = family.classes.iter().any(|own| class.strip_prefix(own) == Some("Model"));
        if !own(class) || !(heads || bare || matches!(family.build, Build::Decoder(_))) {
            let name = family.name;
            warnings.push(format!("the class {class} is not known: the model is built as {name:?} of transformers"));
        }
    }
    if let Some(map) = config.object("auto_map")? {
        let last = |name: &str| name.rsplit('.').next().unwrap_or("").to_owned();
        let foreign = map.entries().find(|(_, value)| !value.as_str().is_some_and(|name| own(&last(name))));
        warnings.extend(foreign.map(|(key, value)| {
            let (name, value) = (family.name, shown(value));
            format!("the code in auto_map ({key}: {value}) is not run: the model is built as {name:?} of transformers")
        }));
    }
    Ok(warnings)
}
