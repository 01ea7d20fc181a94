//! Tests of the targets of a save: the model itself, invalid places, and the files that an interrupted save has left.

use super::*;

#[test]
fn a_model_can_be_saved_over_the_file_it_is_mapped_from() {
    let folder = Folder::new("over");
    let path = folder.join("m.onnx");
    let original = with_weights(&[("w", Random(3).bytes(3 << 20))]);
    saved(&original, &path, ExternalData::Never).unwrap();
    let mut mapped = Model::load(&path).unwrap();
    for external in [ExternalData::Always, ExternalData::Always, ExternalData::Never] {
        saved(&mapped, &path, external).unwrap();
        assert_eq!(mapped.proto(), original.proto(), "the old content stays readable");
        mapped = Model::load(&path).unwrap();
        assert_eq!(mapped.proto(), original.proto());
    }
    assert_eq!(folder.names(), ["m.onnx"]);
}

#[test]
fn impossible_targets_are_refused_and_nothing_is_left() {
    let folder = Folder::new("targets");
    let model = with_weights(&[("w", vec![1; 5000])]);
    std::fs::create_dir(folder.join("folder")).unwrap();
    std::fs::create_dir(folder.join("read-only")).unwrap();
    std::fs::write(folder.join("file"), "x").unwrap();
    let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    std::fs::set_permissions(folder.join("read-only"), read_only).unwrap();
    // Root can write everywhere except in the kernel's own folders.
    let root = std::fs::write(folder.join("read-only/probe"), "").is_ok();
    let closed = if root { PathBuf::from("/sys/m.onnx") } else { folder.join("read-only/m.onnx") };
    let cases = [
        (folder.join("absent/m.onnx"), Kind::NotFound, "does not exist"),
        (folder.join("file/m.onnx"), Kind::NotFound, "does not exist"),
        (folder.join("folder"), Kind::InvalidArgument, "is a folder"),
        (folder.join("folder/.."), Kind::InvalidArgument, "is a folder"),
        (PathBuf::new(), Kind::InvalidArgument, "does not name a file"),
        (PathBuf::from("/"), Kind::InvalidArgument, "is a folder"),
        (PathBuf::from("/dev/null"), Kind::InvalidArgument, "not a regular file"),
        (folder.join("nul\0.onnx"), Kind::Io, "Invalid argument"),
        (folder.join(&"n".repeat(256)), Kind::Io, "File name too long"),
        (closed, Kind::Io, "Permission denied"),
    ];
    let here = std::fs::read_dir(".").unwrap().count();
    for (path, kind, phrase) in cases {
        for external in LAYOUTS {
            let error = saved(&model, &path, external).err().unwrap_or_else(|| panic!("{path:?} {external:?}"));
            let text = error.to_string();
            assert!(error.kind() == kind && text.contains(phrase), "{path:?} {external:?}: {:?} {text}", error.kind());
            let shown = path.display().to_string();
            assert!(shown.len() < 2 || text.matches(&shown).count() == 1, "names the path once: {text}");
        }
    }
    assert_eq!(std::fs::read_dir(folder.join("folder")).unwrap().count(), 0);
    assert_eq!(folder.names(), ["file", "folder", "read-only"]);
    assert_eq!(std::fs::read_dir(".").unwrap().count(), here);
}

#[test]
fn a_dropped_file_leaves_nothing_and_a_committed_one_replaces() {
    let folder = Folder::new("atomic");
    let target = folder.join("f");
    let content = || std::fs::read(&target).unwrap();
    files::replace(&target, b"old").unwrap();
    let mut file = files::AtomicFile::create(&target).unwrap();
    std::io::Write::write_all(&mut file, b"new").unwrap();
    drop(file);
    assert_eq!(content(), b"old");
    files::replace(&target, b"new").unwrap();
    assert_eq!((content(), folder.names().len()), (b"new".to_vec(), 1));
}

#[test]
fn a_model_that_points_to_files_is_not_written() {
    let folder = Folder::new("pointing");
    let tensor = external_tensor("w", &[("location", "../../secret")]);
    let proto = Reader::new(Bytes::from(model(identity_graph().message(5, tensor)).0)).read_message().unwrap();
    let error = saved(&Model::from_proto(proto), &folder.join("m.onnx"), ExternalData::Auto).err().unwrap();
    assert!(error.kind() == Kind::InvalidModel && error.to_string().contains("external data"), "{error}");
    assert!(folder.names().is_empty());
}

#[test]
fn a_save_that_is_stopped_leaves_the_old_file_and_nothing_else() {
    let _alone = DISK.lock().unwrap();
    let folder = Folder::new("stopped");
    let path = folder.join("m.onnx");
    let old = with_weights(&[("w", Random(4).bytes(5000))]);
    // One save is stopped while it writes weights, and one when its data file is complete.
    let weights = with_weights(&[("w", vec![0; 192 << 20])]);
    let typed = tensor("t", FLOAT, &[32 << 20]).bytes(4, &vec![0; 128 << 20]);
    let structure = parse(model(identity_graph().all(5, [typed, bytes_tensor("w", 5000)])).0);
    for (new, external) in
        [(&weights, ExternalData::Never), (&weights, ExternalData::Always), (&structure, ExternalData::Always)]
    {
        saved(&old, &path, ExternalData::Always).unwrap();
        let before = folder.names();
        let seen = Cell::new((0, 0));
        let stop = |p: Progress<'_>| {
            seen.set((p.done, p.total));
            if p.done > 5000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let cancelled = new.save(&path, external, &Call { progress: Some(&stop), ..Call::default() });
        assert_eq!(cancelled.err().map(|e| e.kind()), Some(Kind::Cancelled), "stopped at {:?}", seen.get());
        let call = Call { deadline: Some(Instant::now() + Duration::from_millis(20)), ..Call::default() };
        assert_eq!(new.save(&path, external, &call).err().map(|e| e.kind()), Some(Kind::Timeout));
        assert_eq!(folder.names(), before);
        assert_eq!(Model::load(&path).unwrap().proto(), old.proto());
    }
}

#[test]
fn progress_ends_at_the_total() {
    let folder = Folder::new("progress");
    let weights = [("a", vec![1; 9 << 20]), ("b", vec![2; 70_001]), ("c", vec![3; 5 << 20])];
    for external in LAYOUTS {
        let last = Cell::new((0, 0));
        let progress = |p: Progress<'_>| {
            assert!(p.stage == "save" && p.done >= last.get().0 && p.done <= p.total);
            last.set((p.done, p.total));
            ControlFlow::Continue(())
        };
        let call = Call { progress: Some(&progress), ..Call::default() };
        let report = with_weights(&weights).save(&folder.join("m.onnx"), external, &call).unwrap();
        let bytes: u64 = report.files.iter().map(|file| file.bytes).sum();
        assert_eq!(last.get(), (bytes, bytes), "{external:?}");
    }
}
