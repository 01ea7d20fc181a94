//! Packages that several threads compile at once.

use super::{dynamic, minilm, runtime, small};
use crate::common::Folder;
use optimize::call::Call;
use optimize::package::{CompileOptions, OpenOptions, Package, compile};

/// Temporary files of one thread are not those of another, also if both packages are in one folder: ONNX Runtime's
/// optimized graph is mapped.
#[test]
fn threads_compile_packages_in_one_folder() {
    let folder = Folder::new("package-threads");
    let made = |name: &str, model: &optimize::model::Model, options: &CompileOptions| {
        let path = folder.join(name);
        let report = compile(runtime(), model, &path, options, &Call::default()).unwrap();
        assert_eq!(report.warnings, Vec::<String>::new(), "{name}");
        let package = Package::open(&path, &OpenOptions::default()).unwrap();
        package.verify(None, &Call::default()).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for single_file in [false, true] {
                made(&format!("large-{single_file}"), &minilm(), &CompileOptions { single_file, ..dynamic() });
            }
        });
        scope.spawn(|| (0..30).for_each(|count| made(&format!("small-{}", count % 3), &small(), &Default::default())));
    });
    let left: Vec<_> = std::fs::read_dir(folder.join("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}
