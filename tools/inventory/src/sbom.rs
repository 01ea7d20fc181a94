//! The bill of materials.

use crate::Package;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Returns a CycloneDX document. `others` are components that are not crates, `NAME=VERSION=LICENCE=PURL=SHA256`.
pub fn of(packages: &BTreeMap<&str, Package<'_>>, root: &str, lock: &str, others: &[String]) -> Result<String, String> {
    let sums = checksums(lock);
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    for package in packages.values() {
        let used = package.uses.iter().filter_map(|id| packages.get(id)).map(purl);
        dependencies.push(json!({ "ref": purl(package), "dependsOn": used.collect::<Vec<_>>() }));
        if package.id != root {
            components.push(component(package, sums.get(&(package.name, package.version)).copied()));
        }
    }
    for other in others {
        let [name, version, licence, purl, sha256] = other.split('=').collect::<Vec<_>>()[..] else {
            return Err(format!("{other} is not NAME=VERSION=LICENCE=PURL=SHA256"));
        };
        components.push(json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
            "licenses": [{ "expression": licence }], "hashes": [{ "alg": "SHA-256", "content": sha256 }],
        }));
    }
    let root = packages.get(root).ok_or("cargo metadata names no root package")?;
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(root, None) },
        "components": components,
        "dependencies": dependencies,
    });
    Ok(format!("{document:#}\n"))
}

fn purl(package: &Package<'_>) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version.replace('+', "%2B"))
}

fn component(package: &Package<'_>, sha256: Option<&str>) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version,
        "purl": purl(package),
        "licenses": [{ "expression": package.licence }],
    });
    if let Some(sha256) = sha256 {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
    }
    if let Some(url) = package.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": url }]);
    }
    component
}

/// Returns the checksums in Cargo.lock by name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    let value = |entry: &'_ str, key: &str| -> Option<(usize, usize)> {
        let start = entry.find(&format!("\n{key} = \""))? + key.len() + 5;
        Some((start, start + entry[start..].find('"')?))
    };
    let of = |entry: &'_ str| Some((value(entry, "name")?, value(entry, "version")?, value(entry, "checksum")?));
    let entries = lock.split("[[package]]").filter_map(|entry| Some((entry, of(entry)?)));
    entries
        .map(|(entry, (name, version, sum))| {
            ((&entry[name.0..name.1], &entry[version.0..version.1]), &entry[sum.0..sum.1])
        })
        .collect()
}
