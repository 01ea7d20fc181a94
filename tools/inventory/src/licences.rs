//! The licences of the linked crates, with their texts.

use crate::Package;
use crate::expression::is_met;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Beginnings of the names of files with licences.
const NAMES: [&str; 6] = ["license", "licence", "copying", "notice", "copyright", "unlicense"];
/// Folders that contain no licence of what is linked.
const OTHER: [&str; 7] = ["test", "tests", "example", "examples", "benches", "contrib", "doc"];

/// Returns the crates with their licences, and each text with the crates that contain it. Fails if one has a licence
/// that `deny`, the text of deny.toml, does not allow.
pub fn of(packages: &BTreeMap<&str, Package<'_>>, root: &str, deny: &str) -> Result<String, String> {
    let allowed = allowed(deny)?;
    let mut table = String::new();
    let mut texts: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    let mut refused = Vec::new();
    for package in packages.values().filter(|package| package.id != root) {
        let name = format!("{} {}", package.name, package.version);
        if !is_met(&package.licence, &allowed) {
            refused.push(format!("{name}: {}", package.licence));
        }
        let mut found = Vec::new();
        collect(package.folder, 2, &mut found);
        let authors = if found.is_empty() { package.authors.join(", ") } else { String::new() };
        writeln!(table, "{}", format!("{name:<40} {:<44} {authors}", package.licence).trim_end()).unwrap();
        for text in found {
            let key = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
            texts.entry(key).or_insert_with(|| (text, Vec::new())).1.push(name.clone());
        }
    }
    if !refused.is_empty() {
        return Err(format!("deny.toml does not allow the licence of\n  {}", refused.join("\n  ")));
    }
    let mut all = format!("These crates are linked into liboptimize and into the command.\n\n{table}");
    let mut texts: Vec<(String, Vec<String>)> = texts.into_values().collect();
    texts.sort_by_key(|(_, of)| std::cmp::Reverse(of.len()));
    for (text, mut of) in texts {
        of.sort();
        of.dedup();
        write!(all, "\n{}\n{}\n\n{}\n", "-".repeat(79), of.join(", "), text.trim_end()).unwrap();
    }
    Ok(all)
}

/// Returns the strings in the list `allow` of deny.toml.
fn allowed(deny: &str) -> Result<Vec<String>, String> {
    let list = deny.split_once("\nallow = [").and_then(|(_, rest)| rest.split_once(']'));
    let (list, _) = list.ok_or("deny.toml has no list `allow`")?;
    Ok(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Adds the texts of the licences in a folder, including those of C sources that the crate contains.
fn collect(folder: &Path, depth: u32, found: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_licence = NAMES.iter().any(|start| name.starts_with(start));
        if path.is_dir() && depth > 0 && !OTHER.contains(&&*name) {
            collect(&path, depth - 1, found);
        } else if path.is_file() && is_licence && !name.ends_with(".rs") {
            found.extend(std::fs::read_to_string(&path));
        }
    }
}
