//! Names of modules, and patterns for them.

use crate::error::{Result, error};
use crate::graph::{BodyId, View, modules};
use globset::{GlobBuilder, GlobMatcher};

/// Returns the names of a weight: the paths of its module, best first, its own name and that of the node.
pub fn names_of(view: &View<'_>, body: BodyId, node: usize, weight: &str) -> Vec<String> {
    let mut names = modules::paths(view, body, node, weight);
    names.extend([weight, view.node(body, node).label()].into_iter().filter(|n| !n.is_empty()).map(str::to_owned));
    names
}

/// A pattern for names, and whether it matched.
pub struct Pattern {
    /// The text of the pattern.
    pub text: String,
    matcher: GlobMatcher,
    /// Whether it has no wildcards.
    pub plain: bool,
    /// Whether it matched a name.
    pub used: bool,
}

impl Pattern {
    /// Returns a pattern; fails if the text is not a glob.
    pub fn new(text: &str) -> Result<Pattern> {
        let glob = GlobBuilder::new(text).build();
        let glob = glob.map_err(|e| error!(InvalidArgument, "the pattern {text:?} is not valid: {}", e.kind()))?;
        let plain = !text.contains(['*', '?', '[', '{']);
        Ok(Pattern { text: text.to_owned(), matcher: glob.compile_matcher(), plain, used: false })
    }

    /// Returns several patterns.
    pub fn all(texts: &[String]) -> Result<Vec<Pattern>> {
        texts.iter().map(|text| Pattern::new(text)).collect()
    }

    /// Returns whether the pattern matches a part of one of the names, from dot or slash to dot or slash.
    pub fn matches(&mut self, names: &[String]) -> bool {
        let fits = |name: &String| {
            let bounds = || name.match_indices(['.', '/']).map(|(at, _)| at);
            let starts = std::iter::once(0).chain(bounds().map(|at| at + 1));
            starts.into_iter().any(|start| {
                let ends = bounds().filter(|end| *end > start).chain([name.len()]);
                ends.into_iter().any(|end| self.matcher.is_match(&name[start..end]))
            })
        };
        let matches = !self.text.is_empty() && names.iter().any(fits);
        self.used |= matches;
        matches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_parts_of_names() {
        let names = ["model.layers.3.mlp.down_proj".to_owned(), "/layers.3/mlp/MatMul".to_owned()];
        for (text, fits) in [
            ("down_proj", true),
            ("mlp", true),
            ("layers.3", true),
            ("layers.*.mlp.*", true),
            ("layers.3/mlp", true),
            ("model.*", true),
            ("proj", false),
            ("layers.4", false),
            ("", false),
        ] {
            assert_eq!(Pattern::new(text).unwrap().matches(&names), fits, "{text}");
        }
        assert!(Pattern::new("[a").is_err());
    }
}
