//! Tests of rejected cases: missing or other libraries, operators, untrusted engines, a full disk.

use super::*;

/// Creates a library that reports a version, and ends the process if another function of it is called.
fn pretender(folder: &Path, names: [&str; 2], version: i32) -> PathBuf {
    let code = format!(
        "#include <stdlib.h>\nint getInferLibVersion(void) {{ return {version}; }}\n\
         void *createInferBuilder_INTERNAL(void *l, int v) {{ abort(); }}\n\
         void *createInferRuntime_INTERNAL(void *l, int v) {{ abort(); }}\n\
         void *createNvOnnxParser_INTERNAL(void *n, void *l, int v) {{ abort(); }}\n"
    );
    let source = folder.join("pretender.c");
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(&source, code).unwrap();
    for name in names {
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let done = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(folder.join(name)).arg(&source).status();
        assert!(done.unwrap().success());
    }
    folder.to_owned()
}

#[test]
fn what_is_missing_has_a_status_of_its_own() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let (folder, model) = (scratch("tensorrt-missing"), minilm());
    let at = folder.join("m.engine");
    let with = |backend, library: PathBuf| {
        kind_of(build(&model, &at, &TensorRtOptions { backend, library: Some(library), ..text(Precision::Fp32) }))
    };
    let (kind, message) = with(Choice::Auto, folder.join("nowhere"));
    assert!(kind == Kind::BackendMissing && message.contains("libnvinfer.so.11"), "{message}");
    assert!(message.contains("libtensorrt_rtx.so.1"), "{message}");
    let rtx = ["libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"];
    let (kind, message) = with(Choice::TensorRtRtx, pretender(&folder.join("old"), rtx, 10_600));
    assert!(kind == Kind::Unsupported && message.contains("1.6.0"), "{message}");
    let (kind, message) = with(Choice::TensorRtRtx, pretender(&folder.join("new"), rtx, 20_000));
    assert!(kind == Kind::Unsupported && message.contains("2.0.0"), "{message}");
    if tensorrt::device().is_err() {
        // The library would end the process if it were called.
        let proper = ["libnvinfer.so.11", "libnvonnxparser.so.11"];
        let (kind, message) = with(Choice::TensorRt, pretender(&folder.join("proper"), proper, 110_400));
        assert!(kind == Kind::DeviceMissing && message.contains("libcuda.so.1"), "{message}");
    }
    let (kind, message) = kind_of(build(&model, &at, &TensorRtOptions { sequence_length: 0, ..text(Precision::Fp32) }));
    assert!(kind == Kind::InvalidArgument && message.contains("dimension 1"), "{message}");
    assert!(!at.exists());
}

#[test]
fn an_operator_that_there_is_not_is_named() {
    if lacks("tensorrt-rtx") {
        return;
    }
    use optimize::graph::edit::{node, value};
    use optimize::onnx::dtype::DataType::Float32;
    use optimize::onnx::proto::NodeProto;
    let made = |change: &dyn Fn(&mut NodeProto)| {
        let mut proto = overflowing().proto().clone();
        let graph = proto.graph.as_deref_mut().unwrap();
        let mut only = NodeProto { name: Some("strange".into()), ..node("Relu", &["x"], &["y"]) };
        change(&mut only);
        graph.node = vec![only];
        graph.input = vec![value("x", Float32, 2)];
        Model::from_proto(proto)
    };
    let at = scratch("tensorrt-operator");
    let sizes = TensorRtOptions {
        profiles: vec![GivenProfile { opt: parse_shapes("x:2x16").unwrap(), ..Default::default() }],
        ..options()
    };
    let contrib = made(&|node| (node.op_type, node.domain) = (Some("Inverse".into()), Some("com.microsoft".into())));
    let (kind, message) = kind_of(build(&contrib, &at, &sizes));
    assert!(kind == Kind::Unsupported && message.contains("com.microsoft.Inverse (node \"strange\")"), "{message}");
    let unknown = made(&|node| node.op_type = Some("Det".into()));
    let (kind, message) = kind_of(build(&unknown, &at, &sizes));
    assert!(kind == Kind::Unsupported && message.contains("strange"), "{message}");
    // Operators that only ONNX Runtime has are lowered to standard ones.
    let gelu = made(&|node| (node.op_type, node.domain) = (Some("Gelu".into()), Some("com.microsoft".into())));
    let report = build(&gelu, &at, &sizes).unwrap();
    assert_eq!(report.summary["nodes_lowered"], 1);
}

#[test]
fn engines_are_looked_at_before_they_are_used() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let folder = scratch("tensorrt-engines");
    let model = minilm();
    let engine = folder.join("t.engine");
    build(&model, &engine, &text(Precision::Fp16)).unwrap();
    let look = |trust: bool, sha256: Option<&str>| {
        let library = Some(deps("tensorrt-rtx"));
        let options = OpenOptions { trust, library, model_sha256: sha256.map(str::to_owned), ..OpenOptions::default() };
        tensorrt::open(&engine, &options)
    };
    let own = model.identity(&Call::default()).unwrap().sha256;
    assert_eq!(look(true, Some(&own)).unwrap().key.model_sha256, own);
    assert_eq!(look(false, Some(&own)).err().unwrap().kind(), Kind::Untrusted);
    assert_eq!(look(true, Some("00")).err().unwrap().kind(), Kind::Mismatch);
    // The engine is arbitrary bytes, with a manifest that matches them.
    let junk = b"this is no engine at all, whatever its manifest says".repeat(100);
    let mut manifest = Manifest::read(&engine).unwrap().unwrap();
    std::fs::write(&engine, &junk).unwrap();
    assert_eq!(look(true, None).err().unwrap().kind(), Kind::InvalidModel);
    manifest.engine_bytes = junk.len() as u64;
    manifest.engine_sha256 = tensorrt::manifest::sha256(&junk);
    let beside = tensorrt::manifest::path_of(&engine);
    std::fs::write(&beside, manifest.to_json()).unwrap();
    let error = look(true, None).err().unwrap();
    assert!(error.kind() == Kind::InvalidModel && error.message().contains("magicTag"), "{error}");
    manifest.key.backend_version = "1.9.0".to_owned();
    std::fs::write(&beside, manifest.to_json()).unwrap();
    assert_eq!(look(true, None).err().unwrap().kind(), Kind::Mismatch);
    std::fs::write(&beside, "{").unwrap();
    assert_eq!(look(true, None).err().unwrap().kind(), Kind::InvalidModel);
    std::fs::remove_file(&beside).unwrap();
    assert_eq!(look(true, None).err().unwrap().kind(), Kind::Untrusted);
    // Existing files that cannot be reused are replaced.
    assert_eq!(build(&model, &engine, &text(Precision::Fp16)).unwrap().summary["reused"], false);
}

#[test]
fn a_full_disk_leaves_nothing() {
    if lacks("tensorrt-rtx") {
        return;
    }
    let folder = scratch("tensorrt-full");
    let script = "trap '' XFSZ; ulimit -f 2000; exec \"$0\" tensorrt --model \"$1\" --batch-size 1 --sequence-length 16 \
                  --tensorrt-library \"$2\" --output \"$3\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_optimize")]).arg(deps("models/paraphrase-MiniLM-L3-v2"));
    let output = command.arg(deps("tensorrt-rtx")).arg(folder.join("f.engine")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("f.engine") && said.contains("too large"), "{said}");
    assert_eq!(std::fs::read_dir(&*folder).unwrap().count(), 0);
}
