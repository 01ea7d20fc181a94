//! The paths of modules, and patterns over them.

use super::analysis::Analysis;
use crate::error::{Result, error};
use crate::onnx::proto::NodeProto;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The path of the module that applies a weight: the scope in its node's name, else the weight's name, else that of
/// the bias added behind it, else what the node goes by.
pub fn path(analysis: &Analysis<'_>, node: u32, constant: &str) -> String {
    let node = &analysis.graph.node[node as usize];
    let scope = node.name.as_deref().filter(|name| name.contains('/')).and_then(|name| name.rsplit_once('/'));
    if let Some((scope, _)) = scope.filter(|(scope, _)| !scope.trim_matches('/').is_empty()) {
        return scope.trim_matches('/').replace('/', ".");
    }
    let named = |name: &str| !name.is_empty() && !name.starts_with("onnx::");
    let bare = |name: &str| {
        let ends = [".weight", ".bias", "_weight", "_bias"];
        ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).replace('/', ".")
    };
    if named(constant) && constant.contains(['.', '/', '_']) {
        return bare(constant);
    }
    match bias(analysis, node).filter(|name| named(name)) {
        Some(bias) => bare(bias),
        None if named(constant) => bare(constant),
        None => node.label().to_owned(),
    }
}

/// The constant that is added to what a node gives.
fn bias<'m>(analysis: &Analysis<'m>, node: &'m NodeProto) -> Option<&'m str> {
    if let Some(bias) = node.input_at(2).filter(|_| matches!(node.op(), "Gemm" | "Conv")) {
        return analysis.constants.contains_key(bias).then_some(bias);
    }
    let output = node.output.first()?;
    let adds = |n: &&&NodeProto| n.is("Add") && n.input.contains(output);
    let add = analysis.graph.node.iter().collect::<Vec<_>>();
    let add = add.iter().find(adds)?;
    add.input.iter().map(String::as_str).find(|name| analysis.constants.contains_key(name))
}

/// The short name that people know a module by: the last part of its path that is a word.
pub fn short(path: &str) -> &str {
    let word = |part: &&str| !part.is_empty() && !part.bytes().all(|b| b.is_ascii_digit());
    path.split('.').rfind(word).unwrap_or(path)
}

/// Patterns over module paths: each a name or glob that some run of a path's parts must match.
pub struct Patterns {
    set: GlobSet,
    count: usize,
}

impl Patterns {
    /// An error for a pattern that is no glob.
    pub fn new(patterns: &[String]) -> Result<Patterns> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let glob = GlobBuilder::new(pattern).build();
            set.add(glob.map_err(|e| error!(InvalidArgument, "the pattern {pattern:?} is not valid: {}", e.kind()))?);
        }
        let set = set.build().map_err(|e| error!(InvalidArgument, "the patterns are not valid: {e}"))?;
        Ok(Patterns { set, count: patterns.len() })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The patterns that match a module, its node or its weight.
    pub fn matching(&self, path: &str, others: [&str; 2]) -> Vec<usize> {
        let mut found: Vec<usize> = others.iter().flat_map(|name| self.set.matches(name)).collect();
        let starts = std::iter::once(0).chain(path.match_indices('.').map(|(at, _)| at + 1));
        for start in starts {
            let ends = path.match_indices('.').map(|(at, _)| at).filter(|at| *at > start);
            for end in ends.chain(std::iter::once(path.len())) {
                found.extend(self.set.matches(&path[start..end]));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}
