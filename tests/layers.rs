//! The floors of the library: a room, which is a folder or a file of `src/`, imports only rooms that the picture in
//! `src/lib.rs` draws to the right of it or below.

#[path = "layers/modules.rs"]
mod modules;
#[path = "layers/tokens.rs"]
mod tokens;

use modules::Modules;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One room's need of another, and where it says so.
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

/// Returns the rooms in the order of the picture: its lines start with the number of a floor, and its rooms end where
/// two spaces are.
fn drawn(lib: &str) -> Vec<String> {
    let lines = lib.lines().filter_map(|line| line.strip_prefix("//! "));
    let floors = lines.filter_map(|line| line.strip_prefix(|c: char| c.is_ascii_digit())?.strip_prefix("  "));
    floors.flat_map(|floor| floor.split("  ").next().unwrap_or("").split(' ').map(str::to_owned)).collect()
}

/// Returns each import of a room by another. What comes through a facade is an import of the room that offers it and of
/// the one in which it is.
fn imports(modules: &Modules) -> Vec<Import> {
    let mut found = Vec::new();
    for (at, module) in modules.0.iter().filter(|(at, _)| !at.is_empty()) {
        for named in &module.named {
            let Some(leads) = modules.resolve(at, &named.path) else { continue };
            let rooms: BTreeSet<&String> =
                leads.iter().filter_map(|m| m.first()).filter(|room| **room != at[0]).collect();
            found.extend(rooms.into_iter().map(|room| Import {
                from: at[0].clone(),
                to: room.clone(),
                file: module.file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&module.file).to_owned(),
                line: named.line,
                path: named.path.join("::"),
            }));
        }
    }
    found
}

/// Returns the rooms of each cycle: those that reach one another.
fn cycles(imports: &[Import]) -> Vec<Vec<String>> {
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        reached.entry(&import.from).or_default().insert(&import.to);
    }
    for _ in 0..reached.len() {
        let known = reached.clone();
        for rooms in reached.values_mut() {
            let further: Vec<&str> = rooms.iter().filter_map(|room| known.get(room)).flatten().copied().collect();
            rooms.extend(further);
        }
    }
    let reaches = |a: &str, b: &str| reached.get(a).is_some_and(|rooms| rooms.contains(b));
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for room in reached.keys().filter(|room| reaches(room, room)) {
        let both = reached.keys().filter(|other| reaches(room, other) && reaches(other, room));
        found.insert(both.map(|room| (*room).to_owned()).collect());
    }
    found.into_iter().collect()
}

#[test]
fn every_room_imports_only_rooms_below() {
    let order = drawn(&std::fs::read_to_string(root()).unwrap());
    let modules = Modules::read(&root());
    let floor: BTreeMap<&str, usize> = order.iter().enumerate().map(|(at, room)| (room.as_str(), at)).collect();
    assert_eq!(floor.len(), order.len(), "a room is drawn twice: {order:?}");
    let rooms: BTreeSet<&str> = modules.0.keys().filter_map(|at| Some(at.first()?.as_str())).collect();
    let missing: Vec<_> = rooms.iter().filter(|room| !floor.contains_key(*room)).collect();
    assert!(missing.is_empty(), "src/lib.rs draws no floor for {missing:?}");
    let vanished: Vec<_> = order.iter().filter(|room| !rooms.contains(room.as_str())).collect();
    assert!(vanished.is_empty(), "src/lib.rs draws {vanished:?}, which are not there");
    let imports = imports(&modules);
    println!("{} modules in {} rooms, {} imports between rooms", modules.0.len(), rooms.len(), imports.len());
    let climbing: Vec<String> = imports
        .iter()
        .filter(|import| floor[import.from.as_str()] >= floor[import.to.as_str()])
        .map(|i| {
            format!("{}:{}: {}/ imports {}/, which is above it: {}", i.file.display(), i.line, i.from, i.to, i.path)
        })
        .collect();
    let cycles = cycles(&imports);
    println!("{} rooms in cycles: {cycles:?}", cycles.iter().map(Vec::len).sum::<usize>());
    assert!(climbing.is_empty(), "{} imports climb:\n{}", climbing.len(), climbing.join("\n"));
    assert!(cycles.is_empty(), "rooms import each other in a circle: {cycles:?}");
}

#[test]
fn nothing_that_imports_rooms_is_overlooked() {
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
    let expected = expected.map(|(file, line, room)| (file.to_owned(), line, room.to_owned()));
    assert_eq!(low, BTreeSet::from(expected));
}
