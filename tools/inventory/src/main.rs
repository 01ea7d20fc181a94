//! Lists the crates that are linked into a release, from `cargo metadata` on standard input:
//!
//!     inventory licences [DENY]     their licences with their texts; fails if deny.toml does not allow one
//!     inventory sbom [LOCK] [FILE...]   a bill of materials (CycloneDX 1.5, JSON) with the checksums of Cargo.lock
//!
//! Build scripts, procedural macros and dependencies of tests are not listed, because they are not linked into a release.

mod expression;
mod licences;
mod sbom;

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

/// A crate that is linked into the release.
pub struct Package<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub version: &'a str,
    /// Licences of the crate as an SPDX expression.
    pub licence: String,
    pub authors: Vec<&'a str>,
    pub repository: Option<&'a str>,
    pub folder: &'a Path,
    /// Ids of the crates that the crate uses.
    pub uses: BTreeSet<&'a str>,
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Returns the crates that the root package links, by id, and the id of the root package.
fn linked(metadata: &Value) -> (BTreeMap<&str, Package<'_>>, &str) {
    let packages: BTreeMap<&str, &Value> = array(&metadata["packages"]).map(|one| (text(one, "id"), one)).collect();
    let nodes: BTreeMap<&str, &Value> =
        array(&metadata["resolve"]["nodes"]).map(|one| (text(one, "id"), one)).collect();
    let is_macro = |id: &str| {
        array(&packages[id]["targets"]).flat_map(|target| array(&target["kind"])).any(|kind| kind == "proc-macro")
    };
    let root = text(&metadata["resolve"], "root");
    let mut found = BTreeMap::new();
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        if found.contains_key(id) {
            continue;
        }
        let normal = |dep: &&Value| array(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null());
        let uses = array(&nodes[id]["deps"]).filter(normal).map(|dep| text(dep, "pkg"));
        let uses: BTreeSet<&str> = uses.filter(|id| !is_macro(id)).collect();
        open.extend(&uses);
        let one = packages[id];
        let package = Package {
            id,
            name: text(one, "name"),
            version: text(one, "version"),
            // The form with a slash is older than SPDX.
            licence: text(one, "license").replace(" / ", "/").replace('/', " OR "),
            authors: array(&one["authors"]).filter_map(Value::as_str).collect(),
            repository: one["repository"].as_str(),
            folder: Path::new(text(one, "manifest_path")).parent().unwrap_or(Path::new("")),
            uses,
        };
        found.insert(id, package);
    }
    (found, root)
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).map_err(|e| format!("standard input: {e}"))?;
    let metadata: Value = serde_json::from_str(&input).map_err(|e| format!("the output of cargo metadata: {e}"))?;
    let (packages, root) = linked(&metadata);
    let read = |path: &String| std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output =
        match words[..] {
            ["licences", _] => licences::of(&packages, root, &read(&arguments[1])?)?,
            ["sbom", _, ..] => sbom::of(&packages, root, &read(&arguments[1])?, &arguments[2..])?,
            _ => return Err(
                "usage: inventory licences deny.toml | inventory sbom Cargo.lock [NAME=VERSION=LICENCE=PURL=SHA256...]"
                    .into(),
            ),
        };
    print!("{output}");
    Ok(())
}
