//! Checks that names and versions in the bindings of Go and C# are those of the library.

use std::path::Path;

#[test]
fn bindings_know_version_and_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    let abi = if major == "0" { format!("0.{minor}") } else { major.to_owned() };
    for (file, line) in [
        ("bindings/csharp/Library.cs", format!("\"liboptimize.so.{abi}\"")),
        ("bindings/csharp/Optimize.dll.config", format!("\"liboptimize.so.{abi}\"")),
        ("bindings/csharp/Optimize.csproj", format!("<Version>{}</Version>", env!("CARGO_PKG_VERSION"))),
        ("bindings/go/go.mod", "module github.com/liboptimize/liboptimize/bindings/go\n".to_owned()),
    ] {
        assert!(
            std::fs::read_to_string(root.join(file)).is_ok_and(|text| text.contains(&line)),
            "{file} does not have {line:?}"
        );
    }
}
