//! The hostile files of this folder, generated: `OPTIMIZE_WRITE_CORPUS=1 cargo test --test hostile` writes them and
//! `index.txt`, and the same test checks that they match this file.

use crate::common::*;
use optimize::error::Kind::{self, *};

/// A hostile model: its files, and the expected error of loading the first of them.
pub struct Case {
    /// Paths in the corpus with the contents of the files; the model comes first.
    pub files: Vec<(String, Vec<u8>)>,
    pub kind: Kind,
    /// Part of the expected message.
    pub phrase: &'static str,
}

/// Returns all cases, in the order of the index.
pub fn cases() -> Vec<Case> {
    let all = [not_models(), wire(), structure(), names(), tensors(), sparse(), functions(), locations(), hidden()];
    all.into_iter().flatten().collect()
}

/// Returns the index that belongs to [`cases`].
pub fn index() -> String {
    let line = |c: &Case| format!("{} | {} | {}\n", c.files[0].0, c.kind.name(), c.phrase);
    cases().iter().map(line).collect()
}

fn case(name: &str, content: impl Into<Vec<u8>>, kind: Kind, phrase: &'static str) -> Case {
    Case { files: vec![(format!("{name}.onnx"), content.into())], kind, phrase }
}

impl From<Proto> for Vec<u8> {
    fn from(proto: Proto) -> Vec<u8> {
        proto.0
    }
}

/// Returns files that users pass by mistake.
fn not_models() -> Vec<Case> {
    let foreign = |name: &str, start: &[u8], phrase| case(name, [start, &[0; 40]].concat(), InvalidModel, phrase);
    vec![
        case("empty", [], InvalidModel, "is empty"),
        case("text", *b"model: resnet50\nlayers: 50\n", InvalidModel, "a text file"),
        case("html", *b"\n<!DOCTYPE html><html><body>404</body></html>", InvalidModel, "HTML"),
        case("zeros", [0; 64], InvalidModel, "field number 0 at byte 0"),
        foreign("zip", b"PK\x03\x04\x00\x00archive/data.pkl", "a zip archive"),
        foreign("gzip", b"\x1f\x8b\x08", "a gzip archive"),
        foreign("pickle", b"\x80\x02}q\x00X\x06", "a Python pickle"),
        foreign("hdf5", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        foreign("gguf", b"GGUF\x03\x00\x00\x00", "a GGUF file"),
        foreign("ort", b"\x18\x00\x00\x00ORTM", "an ONNX Runtime .ort file"),
        foreign("tflite", b"\x1c\x00\x00\x00TFL3", "a TensorFlow Lite file"),
        foreign("safetensors", b"\x12\x00\x00\x00\x00\x00\x00\x00{\"__metadata__\":{}}", "a safetensors file"),
        case(
            "git-lfs-pointer",
            *b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1337\n",
            InvalidModel,
            "a Git LFS pointer",
        ),
    ]
}

/// Returns bytes that are not protobuf, or do not have the structure of a model.
fn wire() -> Vec<Case> {
    let valid = model(identity_graph()).0;
    let start = || Proto::new().int(1, 10);
    let sequence = |inner| Proto::new().message(4, Proto::new().message(1, inner));
    let deep_type = (0..60).fold(Proto::new(), |inner, _| sequence(inner));
    let deep_value = Proto::new().text(1, "x").message(2, deep_type);
    let ir_as_text = Proto::new().text(1, "10").raw(&valid);
    let element = |field: &[u8]| model(identity_graph().message(5, tensor("w", FLOAT, &[1]).raw(field)));
    vec![
        case("half", &valid[..valid.len() / 2], InvalidModel, "claims 58 bytes, but only 30"),
        case("last-byte-missing", &valid[..valid.len() - 1], InvalidModel, "but only 3 are left"),
        case("cut-in-key", start().raw(&[0xba]), InvalidModel, "ends inside a varint at byte 3"),
        case("cut-in-number", start().raw(&[0x28, 0xff, 0xff]), InvalidModel, "ends inside a varint at byte 5"),
        case("cut-in-length", start().raw(&[0x3a, 0x80]), InvalidModel, "ends inside a varint at byte 4"),
        case("cut-in-unknown-fixed64", start().raw(&[0xf9, 0x07, 1, 2]), InvalidModel, "inside a 8-byte value"),
        case("cut-in-float", element(&[0x25, 1, 2]), InvalidModel, "inside a 4-byte value"),
        case("cut-in-packed-doubles", element(&[0x52, 3, 1, 2, 3]), InvalidModel, "TensorProto.double_data"),
        case("cut-in-packed-integers", element(&[0x3a, 2, 1, 0x80]), InvalidModel, "TensorProto.int64_data"),
        case("number-too-long", [[0x08].as_slice(), &[0xff; 10]].concat(), InvalidModel, "more than 64 bits"),
        case("field-number-zero", start().raw(&[0x02, 0x00]), InvalidModel, "field number 0 at byte 2"),
        case("field-number-huge", start().varint(1 << 40).raw(&[0]), InvalidModel, "field number 137438953472"),
        case("wire-type-wrong", ir_as_text, InvalidModel, "wire type 2 instead of 0"),
        case("wire-type-seven", start().raw(&[0x7f]), InvalidModel, "wire type 7"),
        case("group-as-graph", start().raw(&[0x3b, 0x3c]), InvalidModel, "wire type 3 instead of 2"),
        case("group-not-closed", start().raw(&[0x83, 0x08, 0x08, 0x01]), InvalidModel, "varint at byte 6"),
        case("group-closed-as-another", start().raw(&[0x83, 0x08, 0x94, 0x08]), InvalidModel, "is closed as 130"),
        case("group-end-alone", start().raw(&[0x84, 0x08]), InvalidModel, "wire type 4"),
        case("groups-deep", start().raw(&[0x83, 0x08].repeat(200)), LimitExceeded, "groups are nested deeper"),
        case("messages-deep", model(graph().message(13, deep_value)), LimitExceeded, "messages are nested deeper"),
        case("length-of-2-60", start().raw(&[0x3a]).varint(1 << 60), InvalidModel, "claims 1152921504606846976"),
        case("length-of-2-64", start().raw(&[0x3a]).varint(u64::MAX), InvalidModel, "claims 18446744073709551615"),
        case(
            "inner-longer-than-outer",
            model(Proto::new().raw(&[0x0a, 0x7f, 0x0a])).raw(&[0; 200]),
            InvalidModel,
            "claims 127 bytes, but only 1",
        ),
        case("name-not-utf8", model(graph().bytes(2, b"\xff\xfe")), InvalidModel, "not UTF-8"),
        case(
            "name-half-a-character",
            model(graph().bytes(2, "é".as_bytes()[..1].as_ref())),
            InvalidModel,
            "incomplete",
        ),
    ]
}

/// Returns well-formed messages that are not models.
fn structure() -> Vec<Case> {
    let with_opset = |version| Proto::new().int(1, 8).message(7, identity_graph()).message(8, opset("", version));
    let deep = (0..17).fold(branch("v", [node("Constant", &[], &["v"])]), |inner, _| {
        branch("v", [node("If", &["x"], &["v"]).message(5, graph_attribute("then_branch", inner))])
    });
    let dims = |dim: Proto, count: usize| {
        let shape = Proto::new().all(1, vec![dim; count]);
        let kind = Proto::new().message(1, Proto::new().int(1, FLOAT).message(2, shape));
        model(identity_graph().message(11, Proto::new().text(1, "z").message(2, kind)))
    };
    vec![
        case("no-graph", Proto::new().int(1, 8).message(8, opset("", 13)), InvalidModel, "the file has no graph"),
        case("no-ir-version", Proto::new().message(7, identity_graph()), InvalidModel, "has no IR version"),
        case("ir-version-zero", model(identity_graph()).int(1, 0), InvalidModel, "the IR version 0"),
        case("ir-version-negative", model(identity_graph()).int(1, -1), InvalidModel, "the IR version -1"),
        case(
            "ir-version-absurd",
            model(identity_graph()).int(1, 1 << 40),
            InvalidModel,
            "the IR version 1099511627776",
        ),
        case("opset-zero", with_opset(0), InvalidModel, "has version 0"),
        case("opset-negative", with_opset(-3), InvalidModel, "has version -3"),
        case("no-operator", model(graph().message(1, node("", &["x"], &["y"]))), InvalidModel, "no operator type"),
        case("subgraphs-deep", model(graph().message(1, if_node(deep))), LimitExceeded, "graphs are nested deeper"),
        case("dimension-twice", dims(Proto::new().int(1, 4).text(2, "n"), 1), InvalidModel, "both a size and a name"),
        case("input-rank", dims(Proto::new().int(1, 1), 65), LimitExceeded, "has 65 dimensions"),
    ]
}

fn if_node(then_branch: Proto) -> Proto {
    node("If", &["x"], &["y"]).text(3, "choose").message(5, graph_attribute("then_branch", then_branch))
}

/// Returns models with names that are undefined, or defined twice.
fn names() -> Vec<Case> {
    let nodes = |list: &[Proto]| model(graph().all(1, list.iter().cloned()));
    let relu = |from: &str, to: &str| node("Relu", &[from], &[to]);
    let captures = |name: &str, nodes: &[Proto]| {
        let inner = branch("v", [node("Neg", &[name], &["v"])]);
        model(graph().all(1, nodes.iter().cloned()).message(1, if_node(inner)))
    };
    let bad = |name: &str, model: Proto, phrase| case(name, model, InvalidModel, phrase);
    vec![
        bad("input-unnamed", model(identity_graph().message(11, Proto::new())), "input[1] has no name"),
        bad("input-twice", model(identity_graph().message(11, value("x", &[2]))), "two inputs are named \"x\""),
        bad("output-twice", model(identity_graph().message(12, value("y", &[2]))), "two outputs are named \"y\""),
        bad("output-unknown", nodes(&[relu("x", "z")]), "output[0] \"y\" is not produced by any node"),
        bad("output-unnamed", model(identity_graph().message(12, Proto::new())), "output[1] \"\""),
        bad("initializer-unnamed", model(identity_graph().message(5, bytes_tensor("", 1))), "initializer[0] has no"),
        bad(
            "initializer-twice",
            model(identity_graph().message(5, bytes_tensor("w", 1)).message(5, bytes_tensor("w", 1))),
            "two initializers are named \"w\"",
        ),
        bad("value-twice", nodes(&[relu("x", "y"), relu("x", "y")]), "node[1] Relu: the value \"y\" is produced twice"),
        bad("value-twice-in-one-node", nodes(&[node("Split", &["x"], &["y", "y"])]), "Split: the value \"y\""),
        bad("value-is-an-input", nodes(&[relu("x", "y"), relu("y", "x")]), "the value \"x\" is produced twice"),
        bad("value-unknown", nodes(&[relu("nowhere", "y")]), "the input \"nowhere\" is not produced by any node"),
        bad(
            "cycle",
            nodes(&[relu("b", "a"), relu("a", "b"), relu("x", "y")]),
            "node[0] Relu: the node is part of a cycle",
        ),
        bad("cycle-of-one", nodes(&[node("Add", &["x", "y"], &["y"])]), "node[0] Add: the node is part of a cycle"),
        bad(
            "cycle-through-subgraph",
            captures("c", &[relu("x", "z"), relu("y", "c")]),
            "node[1] Relu: the node is part of a cycle",
        ),
        bad("cycle-of-one-through-subgraph", captures("y", &[]), "If \"choose\": the node is part of a cycle"),
        bad("subgraph-value-unknown", captures("q", &[]), "If \"choose\": node[0] Neg: the input \"q\""),
        bad("subgraph-output-unknown", model(graph().message(1, if_node(branch("v", [])))), "output[0] \"v\""),
        bad(
            "subgraph-value-used-outside",
            nodes(&[if_node(branch("v", [relu("x", "v")])), relu("v", "z")]),
            "the input \"v\" is not produced by any node",
        ),
    ]
}

/// Returns models with tensors whose parts disagree.
fn tensors() -> Vec<Case> {
    let bad = |name: &str, tensor: Proto, phrase| {
        case(name, model(identity_graph().message(5, tensor)), InvalidModel, phrase)
    };
    let float = |dims: &[i64]| tensor("w", FLOAT, dims);
    let raw = |dims: &[i64], bytes: usize| float(dims).bytes(9, &vec![0; bytes]);
    vec![
        bad("dimension-negative", raw(&[2, -2], 16), "the dimension -2 is negative"),
        bad("dimension-least", raw(&[i64::MIN], 0), "the dimension -9223372036854775808 is negative"),
        bad("dimensions-overflow", raw(&[1 << 40, 1 << 40], 4), "more elements than fit 64 bits"),
        bad("dimensions-overflow-in-bytes", raw(&[i64::MAX], 4), "do not fit an address space"),
        bad(
            "dimension-of-2-58-raw",
            raw(&[1 << 58], 4),
            "the tensor has 4 bytes, but float32 of shape [288230376151711744]",
        ),
        bad("dimension-of-2-60-typed", float(&[1 << 60]).bytes(4, &[0; 4]), "the tensor has 1 values, but float32"),
        bad("raw-too-short", raw(&[3], 8), "the tensor has 8 bytes, but float32 of shape [3] needs 12"),
        bad("raw-too-long", raw(&[3], 16), "the tensor has 16 bytes"),
        bad("raw-of-scalar", raw(&[], 8), "shape [] needs 4"),
        bad("raw-int4", tensor("w", 22, &[3]).bytes(9, &[0; 3]), "int4 of shape [3] needs 2"),
        bad(
            "typed-too-few",
            float(&[3]).bytes(4, &[0; 8]),
            "the tensor has 2 values, but float32 of shape [3] needs 3",
        ),
        bad("typed-none", float(&[3]), "the tensor has 0 values"),
        bad("typed-complex", tensor("w", 14, &[2]).bytes(4, &[0; 8]), "complex64 of shape [2] needs 4"),
        bad("typed-in-wrong-field", float(&[1]).bytes(4, &[0; 4]).bytes(5, &[0; 2]), "2 values in fields that are not"),
        bad("raw-and-typed", raw(&[1], 4).bytes(4, &[0; 4]), "the tensor has its elements twice"),
        bad("type-undefined", tensor("w", 0, &[1]).bytes(9, &[0; 4]), "has no element type"),
        bad("strings-raw", tensor("w", 8, &[1]).bytes(9, b"text"), "strings cannot be stored as raw bytes"),
        bad("strings-too-few", tensor("w", 8, &[2]).bytes(6, b"text"), "string of shape [2] needs 2"),
        Case { kind: LimitExceeded, ..bad("tensor-rank", raw(&[1; 65], 4), "has 65 dimensions") },
    ]
}

/// Returns models with sparse tensors, which are small in the file and large in memory.
fn sparse() -> Vec<Case> {
    let values = |count: i64| tensor("s", FLOAT, &[count]).bytes(9, &vec![0; count as usize * 4]);
    let indices = |count: i64| tensor("i", INT64, &[count]).bytes(9, &vec![0; count as usize * 8]);
    let with = |parts: Proto, dims: &[i64]| dims.iter().fold(parts, |s, &dim| s.int(3, dim));
    let bad = |name: &str, sparse: Proto, phrase| {
        case(name, model(identity_graph().message(15, sparse)), InvalidModel, phrase)
    };
    let both = |v: i64, i: i64| Proto::new().message(1, values(v)).message(2, indices(i));
    let huge = bad("sparse-huge", with(both(1, 1), &[1 << 20, 1 << 21]), "a sparse tensor of 2199023255552 elements");
    vec![
        bad("sparse-without-values", with(Proto::new().message(2, indices(1)), &[4]), "lacks its values"),
        bad("sparse-overflow", with(both(1, 1), &[1 << 40, 1 << 40]), "sparse_initializer: the shape"),
        bad("sparse-dimension-negative", with(both(1, 1), &[-4]), "the dimension -4 is negative"),
        bad("sparse-more-values-than-room", with(both(2, 2), &[1]), "2 sparse values"),
        bad("sparse-indices-too-few", with(both(2, 1), &[8]), "indices of shape [1]"),
        Case { kind: LimitExceeded, ..huge },
    ]
}

/// Returns models with functions that never end, or grow exponentially.
fn functions() -> Vec<Case> {
    let calls = |name: &str, callees: &[&str]| {
        let node = |(i, callee): (usize, &&str)| call(callee, &["a"], &[&format!("v{i}")]);
        function(name, &["a"], &["v0"], callees.iter().enumerate().map(node))
    };
    let with = |functions: Vec<Proto>| model(graph().message(1, call("F", &["x"], &["y"]))).all(25, functions);
    let relu = |name: &str| function(name, &["a"], &["b"], [node("Relu", &["a"], &["b"])]);
    let inside = branch("v", [call("F", &["a"], &["v"])]);
    let hidden = node("If", &["a"], &["b"]).message(5, graph_attribute("then_branch", inside));
    let bomb: Vec<Proto> = ["F", "F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8"]
        .windows(2)
        .map(|pair| calls(pair[0], &[pair[1]; 8]))
        .chain([relu("F8")])
        .collect();
    let bad = |name: &str, model: Proto, phrase| case(name, model, InvalidModel, phrase);
    vec![
        bad("function-calls-itself", with(vec![calls("F", &["F"])]), "functions[0]: the function \"F\" calls itself"),
        bad("functions-call-each-other", with(vec![relu("Z"), calls("F", &["G"]), calls("G", &["F"])]), "functions[1]"),
        bad(
            "functions-call-in-a-ring",
            with(vec![relu("Z"), calls("G", &["H"]), calls("H", &["Z", "F"]), calls("F", &["G"])]),
            "functions[1]: the function \"G\" calls itself",
        ),
        bad(
            "function-calls-itself-in-subgraph",
            with(vec![relu("Y"), relu("Z"), function("F", &["a"], &["b"], [hidden])]),
            "functions[2]: the function \"F\" calls itself",
        ),
        Case { kind: LimitExceeded, ..bad("functions-explode", with(bomb), "after its functions are expanded") },
        bad("function-twice", with(vec![relu("F"), relu("F")]), "two functions are named \"F\""),
        bad("function-unnamed", with(vec![relu("")]), "a function has no name"),
        bad("function-output-unknown", with(vec![function("F", &["a"], &["b"], [])]), "the output \"b\" of a function"),
        bad(
            "function-sees-no-outer-value",
            with(vec![function("F", &["a"], &["b"], [node("Relu", &["x"], &["b"])])]),
            "functions[0] \"F\": node[0] Relu: the input \"x\" is not produced by any node",
        ),
        bad("function-opset-zero", with(vec![relu("F").message(9, opset("z", 0))]), "opset_import \"z\" has version 0"),
    ]
}

/// Returns a model in its own folder, next to `data.bin` with 16 bytes and `inner/data.bin`.
fn folder(name: &str, model: Proto, kind: Kind, phrase: &'static str) -> Case {
    let side = |path: &str| (format!("{name}/{path}"), (0..16).collect());
    let files = vec![(format!("{name}/model.onnx"), model.0), side("data.bin"), side("inner/data.bin")];
    Case { files, kind, phrase }
}

/// Returns models with external data in forbidden places, or missing.
fn locations() -> Vec<Case> {
    let weights = |tensor: Proto| model(identity_graph().message(5, tensor));
    let at = |name: &str, entries: &[(&str, &str)], phrase| {
        folder(&format!("external-{name}"), weights(external_tensor("w", entries)), InvalidModel, phrase)
    };
    let location = |name: &str, location: &str, phrase| at(name, &[("location", location)], phrase);
    let data = |name: &str, key: &str, value: &str, phrase| at(name, &[("location", "data.bin"), (key, value)], phrase);
    let odd =
        |name: &str, tensor: Proto, phrase| folder(&format!("external-{name}"), weights(tensor), InvalidModel, phrase);
    let here = || external_tensor("w", &[("location", "data.bin")]);
    let not_utf8 = tensor("w", UINT8, &[8]).message(13, Proto::new().text(1, "location").bytes(2, b"\xff")).int(14, 1);
    vec![
        location("parent", "../index.txt", "\"../index.txt\" is not a relative path inside"),
        location("parent-inside", "inner/../data.bin", "\"inner/../data.bin\" is not a relative path"),
        location("absolute", "/etc/hostname", "\"/etc/hostname\" is not a relative path"),
        location("backslash", "inner\\data.bin", "\"inner\\\\data.bin\" is not a relative path"),
        location("nul", "data.bin\0.txt", "\"data.bin\\0.txt\" is not a relative path"),
        location("empty-location", "", "\"\" is not a relative path"),
        location("folder", "inner", "\"inner\" is not a regular file"),
        location("folder-itself", ".", "\".\" is not a regular file"),
        location("memory-address", "*/_ORT_MEM_ADDR_/*", "is a memory address"),
        Case { kind: NotFound, ..location("missing", "absent.bin", "absent.bin: No such file") },
        Case { kind: Io, ..location("file-as-folder", "data.bin/x", "Not a directory") },
        data("offset-beyond", "offset", "9", "bytes 9+8 lie outside \"data.bin\", which has 16"),
        data("offset-overflow", "offset", "18446744073709551610", "bytes 18446744073709551610+8 lie outside"),
        data("offset-negative", "offset", "-8", "offset is \"-8\", not a count"),
        data("offset-not-a-number", "offset", "0x8", "offset is \"0x8\", not a count"),
        data("length-too-long", "length", "16", "has length 16, but shape and type need 8"),
        data("length-too-short", "length", "4", "has length 4"),
        data("length-of-2-64", "length", "18446744073709551616", "length is \"18446744073709551616\""),
        data("unknown-key", "transform", "xor", "the unknown key \"transform\""),
        data("location-twice", "location", "other.bin", "has the key location twice"),
        at("no-location", &[("offset", "0")], "external_data has no location"),
        odd("location-not-utf8", not_utf8, "\"location\" is not UTF-8"),
        odd("and-raw", here().bytes(9, &[0; 8]), "both raw_data and external_data"),
        odd("and-typed", here().bytes(5, &[0; 8]), "in raw_data and in 8 typed values"),
        odd("not-said", here().int(14, 0), "data_location is not EXTERNAL"),
        odd("unknown-kind", here().int(14, 2), "data_location 2 is unknown"),
        odd("strings", here().int(2, 8).text(8, "words"), "tensor \"words\": strings cannot"),
        odd("type-unknown", here().int(2, 99), "the element type 99 is unknown"),
        odd("too-large", here().int(1, 1 << 50), "bytes 0+9007199254740992 lie outside"),
    ]
}

/// Returns models with the same invalid location, at every place where a tensor can be.
fn hidden() -> Vec<Case> {
    let bad = || external_tensor("w", &[("location", "../index.txt")]);
    let good = |name: &str| bytes_tensor(name, 8);
    let attribute = |attribute: Proto| node("Constant", &[], &["c"]).message(5, attribute);
    let in_graph = |node: Proto| model(identity_graph().message(1, node));
    let sparse = |values: Proto, indices: Proto| Proto::new().message(1, values).message(2, indices).int(3, 8);
    let body = branch("v", [node("Relu", &["x"], &["v"])]).message(5, bad());
    let list = |field, item: Proto| Proto::new().text(1, "list").message(field, item);
    let with = |function: Proto| model(identity_graph()).message(25, function);
    let training = |field| model(identity_graph()).message(20, Proto::new().message(field, graph().message(5, bad())));
    let relu = || function("F", &["a"], &["b"], [node("Relu", &["a"], &["b"])]);
    let at = |name: &str, model: Proto, phrase| folder(&format!("hidden-{name}"), model, InvalidModel, phrase);
    let choose = |attribute: Proto| node("If", &["x"], &["z"]).message(5, attribute);
    vec![
        at("in-attribute", in_graph(attribute(tensor_attribute("value", bad()))), "attribute \"value\": tensor"),
        at("in-tensor-list", in_graph(attribute(list(10, bad()))), "attribute \"list\": tensor"),
        at(
            "in-sparse-attribute",
            in_graph(attribute(list(22, sparse(bad(), good("i"))).text(1, "sparse"))),
            "attribute \"sparse\"",
        ),
        at("in-sparse-list", in_graph(attribute(list(23, sparse(good("s"), bad()))).text(3, "n")), "Constant \"n\""),
        at(
            "in-subgraph",
            in_graph(choose(graph_attribute("then_branch", body.clone()))),
            "\"then_branch\": initializer",
        ),
        at("in-graph-list", in_graph(choose(list(11, body))), "attribute \"list\": initializer[0]"),
        at("in-sparse-values", model(identity_graph().message(15, sparse(bad(), good("i")))), "sparse_initializer[0]"),
        at(
            "in-sparse-indices",
            model(identity_graph().message(15, sparse(good("s"), bad().text(8, "i")))),
            "sparse_initializer[0]: tensor \"i\"",
        ),
        at("in-function", with(relu().message(7, attribute(tensor_attribute("value", bad())))), "functions[0]"),
        at("in-function-default", with(relu().message(11, tensor_attribute("d", bad()))), "attribute \"d\""),
        at("in-training-initialization", training(1), "training_info[0].initialization: initializer[0]"),
        at("in-training-algorithm", training(2), "training_info[0].algorithm"),
    ]
}
