//! The layers of the library: a top-level module, which is a folder or a file of `src/`, imports only modules that the
//! picture in `src/lib.rs` shows to the right of it or below.

#[path = "layers/modules.rs"]
mod modules;
#[path = "layers/tokens.rs"]
mod tokens;

use modules::Modules;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// An import of one top-level module by another, with its place.
struct Import {
    from: String,
    to: String,
    file: PathBuf,
    line: usize,
    path: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")
}

/// Returns the top-level modules in the order of the picture: its lines start with the number of a layer, and two
/// spaces end the list of its modules.
fn drawn(lib: &str) -> Vec<String> {
    let lines = lib.lines().filter_map(|line| line.strip_prefix("//! "));
    let layers = lines.filter_map(|line| line.strip_prefix(|c: char| c.is_ascii_digit())?.strip_prefix("  "));
    layers.flat_map(|layer| layer.split("  ").next().unwrap_or("").split(' ').map(str::to_owned)).collect()
}

/// Returns each import of a top-level module by another. An import of a re-exported item counts as an import of the
/// module that re-exports it and of the one that defines it.
fn imports(modules: &Modules) -> Vec<Import> {
    let mut found = Vec::new();
    for (at, module) in modules.0.iter().filter(|(at, _)| !at.is_empty()) {
        for named in &module.named {
            let Some(leads) = modules.resolve(at, &named.path) else { continue };
            let tops: BTreeSet<&String> = leads.iter().filter_map(|m| m.first()).filter(|top| **top != at[0]).collect();
            found.extend(tops.into_iter().map(|top| Import {
                from: at[0].clone(),
                to: top.clone(),
                file: module.file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&module.file).to_owned(),
                line: named.line,
                path: named.path.join("::"),
            }));
        }
    }
    found
}

/// Returns the modules of each cycle: those that import each other, directly or through others.
fn cycles(imports: &[Import]) -> Vec<Vec<String>> {
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        reached.entry(&import.from).or_default().insert(&import.to);
    }
    for _ in 0..reached.len() {
        let known = reached.clone();
        for tops in reached.values_mut() {
            let further: Vec<&str> = tops.iter().filter_map(|top| known.get(top)).flatten().copied().collect();
            tops.extend(further);
        }
    }
    let reaches = |a: &str, b: &str| reached.get(a).is_some_and(|tops| tops.contains(b));
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for top in reached.keys().filter(|top| reaches(top, top)) {
        let both = reached.keys().filter(|other| reaches(top, other) && reaches(other, top));
        found.insert(both.map(|top| (*top).to_owned()).collect());
    }
    found.into_iter().collect()
}

#[test]
fn every_module_imports_only_modules_below() {
    let order = drawn(&std::fs::read_to_string(root()).unwrap());
    let modules = Modules::read(&root());
    let layer: BTreeMap<&str, usize> = order.iter().enumerate().map(|(at, top)| (top.as_str(), at)).collect();
    assert_eq!(layer.len(), order.len(), "a module is shown twice: {order:?}");
    let tops: BTreeSet<&str> = modules.0.keys().filter_map(|at| Some(at.first()?.as_str())).collect();
    let missing: Vec<_> = tops.iter().filter(|top| !layer.contains_key(*top)).collect();
    assert!(missing.is_empty(), "src/lib.rs shows no layer of {missing:?}");
    let vanished: Vec<_> = order.iter().filter(|top| !tops.contains(top.as_str())).collect();
    assert!(vanished.is_empty(), "src/lib.rs shows {vanished:?}, which do not exist");
    let imports = imports(&modules);
    println!(
        "{} modules in {} top-level modules, {} imports between these",
        modules.0.len(),
        tops.len(),
        imports.len()
    );
    let climbing: Vec<String> = imports
        .iter()
        .filter(|import| layer[import.from.as_str()] >= layer[import.to.as_str()])
        .map(|i| {
            format!("{}:{}: {}/ imports {}/, which is above it: {}", i.file.display(), i.line, i.from, i.to, i.path)
        })
        .collect();
    let cycles = cycles(&imports);
    println!("{} top-level modules in cycles: {cycles:?}", cycles.iter().map(Vec::len).sum::<usize>());
    assert!(climbing.is_empty(), "{} imports of modules above:\n{}", climbing.len(), climbing.join("\n"));
    assert!(cycles.is_empty(), "modules import each other in a cycle: {cycles:?}");
}

#[test]
fn no_import_of_a_module_is_overlooked() {
    let folder = std::env::temp_dir().join(format!("liboptimize-layers-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("low")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write("lib.rs", "pub mod high; pub mod facade; pub mod low; pub mod other;");
    write("high.rs", "pub struct Thing; pub fn act() {} pub mod deep { pub struct Far; }");
    write("facade.rs", "pub use crate::high::{Thing as Renamed, deep::*};\nimpl Base {\n    pub fn load() {}\n}");
    write("other.rs", "pub struct Base;");
    write(
        "low/mod.rs",
        "mod inner;\nuse crate::{high::{self, Thing}, other};\nfn a() { crate::high::act(); high::act() }\nuse super::facade::Renamed;\n\
         // crate::high::comment\nconst S: &str = r#\"crate::high::string \" \"#;\nconst C: char = '\"';\nfn b<'a>(x: &'a str) {}\n\
         use crate::facade::Far;\nfn l() { Base::load() }\n#[cfg(test)]\nmod tests { use crate::high::InTests; }\n#[cfg(test)]\nuse crate::high::{A, B};\n\
         #[cfg(test)]\nmod missing;\nuse inner::Own;\nuse std::fmt;",
    );
    write("low/inner.rs", "pub struct Own;\nfn c() { super::super::high::act(); super::b(\"\") }");
    let modules = Modules::read(&folder.join("lib.rs"));
    let low: BTreeSet<(String, usize, String)> = imports(&modules)
        .into_iter()
        .filter(|import| import.from == "low")
        .map(|import| (import.file.file_name().unwrap().to_str().unwrap().to_owned(), import.line, import.to))
        .collect();
    std::fs::remove_dir_all(&folder).unwrap();
    let expected = [
        ("inner.rs", 2, "high"),
        ("mod.rs", 2, "high"),
        ("mod.rs", 2, "other"),
        ("mod.rs", 3, "high"),
        ("mod.rs", 4, "facade"),
        ("mod.rs", 4, "high"),
        ("mod.rs", 9, "facade"),
        ("mod.rs", 9, "high"),
        ("mod.rs", 10, "facade"),
    ];
    let expected = expected.map(|(file, line, top)| (file.to_owned(), line, top.to_owned()));
    assert_eq!(low, BTreeSet::from(expected));
}
