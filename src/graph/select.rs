//! Patterns that select weights, nodes and modules by name: for example those that quantization includes, that pruning
//! removes, that distillation does not train, or that a TensorRT engine keeps in float32.

use super::{BodyId, View, modules};
use crate::error::{Result, error};
use globset::{GlobBuilder, GlobMatcher};

/// The part of a name that a pattern must match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The glob must match the whole name; `*` also matches dots and slashes.
    Name,
    /// The glob must match one or several consecutive parts of the name, which dots and slashes separate. An empty
    /// pattern matches nothing.
    Parts,
    /// The glob must match the whole name, or its text must be equal to one of the parts of the name.
    NameOrPart,
    /// The text of the pattern must be equal to the whole name; `*`, `?`, `[` and `{` stand for themselves.
    Literal,
}

/// A pattern for names, and whether it has matched one.
#[derive(Debug)]
pub struct Pattern {
    /// Text of the pattern.
    pub text: String,
    fit: Fit,
    matcher: Option<GlobMatcher>,
    /// Whether the pattern has matched a name.
    pub used: bool,
}

impl Pattern {
    /// Returns a pattern for names. Fails with [`crate::error::Kind::InvalidArgument`] if the text is not a valid glob;
    /// a [`Fit::Literal`] pattern may be any text.
    pub fn new(text: &str, fit: Fit) -> Result<Pattern> {
        let glob = (fit != Fit::Literal).then(|| GlobBuilder::new(text).build()).transpose();
        let glob = glob.map_err(|e| error!(InvalidArgument, "the pattern {text:?} is not valid: {}", e.kind()))?;
        let matcher = glob.map(|glob| glob.compile_matcher());
        Ok(Pattern { text: text.to_owned(), fit, matcher, used: false })
    }

    /// Returns whether the text of the pattern has none of the characters `*`, `?`, `[` and `{`.
    pub fn is_plain(&self) -> bool {
        !self.text.contains(['*', '?', '[', '{'])
    }

    /// Returns whether the pattern matches one of the names; if so, sets `used`.
    pub fn matches(&mut self, names: &[impl AsRef<str>]) -> bool {
        let matches = names.iter().any(|name| self.fits(name.as_ref()));
        self.used |= matches;
        matches
    }

    fn fits(&self, name: &str) -> bool {
        let glob = |name: &str| self.matcher.as_ref().is_some_and(|matcher| matcher.is_match(name));
        match self.fit {
            Fit::Name => glob(name),
            Fit::Literal => self.text == name,
            Fit::NameOrPart => glob(name) || name.split(['.', '/']).any(|part| part == self.text),
            Fit::Parts if self.text.is_empty() => false,
            Fit::Parts => {
                let bounds = || name.match_indices(['.', '/']).map(|(at, _)| at);
                let mut starts = std::iter::once(0).chain(bounds().map(|at| at + 1));
                starts.any(|start| {
                    let mut ends = bounds().filter(|end| *end > start).chain([name.len()]);
                    ends.any(|end| glob(&name[start..end]))
                })
            }
        }
    }
}

/// A list of patterns, which selects a name if at least one of them matches.
#[derive(Debug)]
pub struct Selector(pub Vec<Pattern>);

impl Selector {
    /// Returns a selector with these patterns. Fails like [`Pattern::new`].
    pub fn new(texts: &[String], fit: Fit) -> Result<Selector> {
        texts.iter().map(|text| Pattern::new(text, fit)).collect::<Result<_>>().map(Selector)
    }

    /// Returns whether the selector has no patterns.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a pattern matches one of the names.
    pub fn matches(&self, names: &[impl AsRef<str>]) -> bool {
        self.0.iter().any(|pattern| names.iter().any(|name| pattern.fits(name.as_ref())))
    }
}

/// Returns the names by which patterns can select a weight that a node reads: the module names ([`modules::paths`]),
/// the name of the weight, and that of the node.
pub fn names_of(view: &View<'_>, body: BodyId, node: usize, weight: &str) -> Vec<String> {
    let mut names = modules::paths(view, body, node, weight);
    names.extend([weight, view.node(body, node).label()].into_iter().filter(|n| !n.is_empty()).map(str::to_owned));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fit_compares_its_part_of_a_name() {
        let names = ["model.layers.3.mlp.down_proj", "/layers.3/mlp/MatMul"];
        for (text, fits) in [
            // The columns are the fits: the whole name, its parts, the name or a part, and the literal text.
            ("down_proj", [false, true, true, false]),
            ("mlp", [false, true, true, false]),
            ("layers.3", [false, true, false, false]),
            ("layers.*.mlp.*", [false, true, false, false]),
            ("layers.3/mlp", [false, true, false, false]),
            ("model.*", [true, true, true, false]),
            ("*mlp*", [true, true, true, false]),
            ("/layers.3/mlp/MatMul", [true, true, true, true]),
            ("proj", [false; 4]),
            ("layers.4", [false; 4]),
        ] {
            let found = [Fit::Name, Fit::Parts, Fit::NameOrPart, Fit::Literal]
                .map(|fit| Pattern::new(text, fit).unwrap().matches(&names));
            assert_eq!(found, fits, "{text}");
        }
        assert!(!Pattern::new("", Fit::Parts).unwrap().matches(&names));
        assert!(Pattern::new("[a", Fit::Parts).is_err() && Pattern::new("[a", Fit::Literal).is_ok());
    }
}
