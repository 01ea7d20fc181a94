use super::*;
use crate::error::Kind;
use crate::model::{SideContent, SideFile};
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::runtime::testing::{graph, model, node, value};
use bytes::Bytes;

const F32: i32 = 1;
const I32: i32 = 6;
const I64: i32 = 7;

fn layers(past: &str, present: &str, dims: &[&str]) -> (Vec<ValueInfoProto>, Vec<ValueInfoProto>) {
    let names = |pattern: &str| -> Vec<String> {
        let parts = if pattern.contains("{part}") { vec!["key", "value"] } else { vec![""] };
        let one = |n: usize| parts.iter().map(move |p| (n, *p)).collect::<Vec<_>>();
        let fill = |(n, p): (usize, &str)| pattern.replace("{n}", &n.to_string()).replace("{part}", p);
        (0..2).flat_map(one).map(fill).collect()
    };
    let values = |pattern: &str| names(pattern).iter().map(|name| value(name, F32, dims)).collect();
    (values(past), values(present))
}

fn decoder(
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    card: Card,
) -> Result<Decoder> {
    let mut outputs = outputs;
    outputs.insert(0, value("logits", F32, &["b", "s", "99"]));
    Decoder::of(&with_card(model(graph(nodes, inputs, outputs)), card))
}

fn with_card(proto: ModelProto, card: Card) -> Model {
    Model::assemble(proto, card, "test".as_ref(), Vec::new())
}

fn ids() -> ValueInfoProto {
    value("input_ids", I64, &["b", "s"])
}

fn card(config: serde_json::Value) -> Card {
    Card { config: config.as_object().unwrap().clone(), ..Card::default() }
}

#[test]
fn optimum_exports_are_read() {
    let (past, present) =
        layers("past_key_values.{n}.{part}", "present.{n}.{part}", &["batch_size", "3", "past_sequence_length", "64"]);
    let mut inputs = vec![ids(), value("attention_mask", I64, &["b", "t"]), value("position_ids", I64, &["b", "s"])];
    inputs.extend(past.clone());
    let read =
        decoder(inputs.clone(), present.clone(), vec![], card(serde_json::json!({"max_position_embeddings": 77})));
    let read = read.unwrap();
    assert_eq!((read.kind, read.pads, read.context), (CacheKind::Concatenated, true, Some(77)));
    assert_eq!(read.cache.len(), 4);
    let first = &read.cache[1];
    assert_eq!((first.past.as_str(), first.present.as_str()), ("past_key_values.0.value", "present.0.value"));
    assert_eq!((first.shape.as_slice(), first.batch, first.sequence), (&[0, 3, 0, 64][..], 0, 2));
    // Merged files have an input for whether there is a past; without positions, rows cannot be padded.
    inputs[2] = value("use_cache_branch", 9, &["1"]);
    let read = decoder(inputs, present, vec![], Card::default()).unwrap();
    assert_eq!((read.use_cache_branch.as_deref(), read.pads, read.context), (Some("use_cache_branch"), false, None));
}

#[test]
fn genai_names_and_integers_of_32_bits_are_read() {
    let (past, present) = layers("cache_{n}_{part}_in", "cache_{n}_{part}_out", &["b", "kv", "p", "kv_cache_dim"]);
    let config = serde_json::json!({"model": {"decoder": {
        "head_size": 64, "num_key_value_heads": 3,
        "inputs": {"input_ids": "tokens", "past_key_names": "cache_%d_key_in", "past_value_names": "cache_%d_value_in"},
        "outputs": {"present_key_names": "cache_%d_key_out", "present_value_names": "cache_%d_value_out"}}}});
    let content = SideContent::Bytes(Bytes::from(config.to_string()));
    let side_files = vec![SideFile { name: "genai_config.json".into(), content }];
    let mut inputs = vec![value("tokens", I32, &["b", "s"])];
    inputs.extend(past);
    let read = decoder(inputs, present, vec![], Card { side_files, ..Card::default() }).unwrap();
    assert_eq!((read.input_ids.name.as_str(), read.input_ids.dtype), ("tokens", DataType::Int32));
    assert_eq!((read.cache[3].present.as_str(), &read.cache[3].shape[..]), ("cache_1_value_out", &[0, 3, 0, 64][..]));
    let tensor = read.input_ids.tensor(&[1, 2], vec![5, 6]).unwrap();
    assert_eq!(tensor.as_slice::<i32>().unwrap(), [5, 6]);
}

#[test]
fn older_exports_and_open_sizes_are_read() {
    let (past, present) = layers("past_{n}", "present_{n}", &["2", "b", "12", "p", "64"]);
    let inputs: Vec<_> = [ids()].into_iter().chain(past).collect();
    let read = decoder(inputs, present, vec![], Card::default()).unwrap();
    assert_eq!(
        (read.cache[1].shape.as_slice(), read.cache[1].batch, read.cache[1].sequence),
        (&[2, 0, 12, 0, 64][..], 1, 3)
    );
    let open = || layers("past_key_values.{n}.{part}", "present.{n}.{part}", &["b", "heads", "p", "size"]);
    let config = serde_json::json!({"num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64});
    let (past, present) = open();
    let inputs: Vec<_> = [ids()].into_iter().chain(past).collect();
    let read = decoder(inputs.clone(), present.clone(), vec![], card(config)).unwrap();
    assert_eq!(read.cache[0].shape, [0, 2, 0, 8]);
    let e = decoder(inputs, present, vec![], Card::default()).unwrap_err();
    assert!(e.message().contains("its head size"), "{e}");
}

#[test]
fn fused_attention_over_every_cache_value_is_written_in_place() {
    let (past, present) = layers("past_key_values.{n}.{part}", "present.{n}.{part}", &["b", "3", "p", "64"]);
    let attention = |n: usize| NodeProto {
        domain: Some("com.microsoft".into()),
        output: vec![format!("o{n}"), format!("present.{n}.key"), format!("present.{n}.value")],
        ..node(
            "GroupQueryAttention",
            &[
                "q",
                "k",
                "v",
                &format!("past_key_values.{n}.key"),
                &format!("past_key_values.{n}.value"),
                "l",
                "t",
                "cos",
                "sin",
            ],
            "",
        )
    };
    let inputs: Vec<_> = [ids(), value("attention_mask", I64, &["b", "t"])].into_iter().chain(past).collect();
    let mut body: GraphProto = graph(vec![attention(0), attention(1)], inputs.clone(), present.clone());
    body.output.insert(0, value("logits", F32, &["b", "s", "99"]));
    body.initializer = vec![TensorProto { name: Some("cos".into()), dims: vec![40, 32], ..TensorProto::default() }];
    let config = || card(serde_json::json!({"max_position_embeddings": 100}));
    let mut computed = body.clone();
    let read = Decoder::of(&with_card(model(body), config())).unwrap();
    assert_eq!((read.kind, read.pads, read.context), (CacheKind::Shared, true, Some(40)));
    // The number of rows of a table that is computed is that of its positions.
    let end = TensorProto {
        name: Some("end".into()),
        data_type: Some(F32),
        raw_data: Some(30f32.to_le_bytes().to_vec().into()),
        ..TensorProto::default()
    };
    computed.initializer = vec![end];
    computed.node.extend([
        node("Range", &["start", "end", "step"], "rows"),
        node("Unsqueeze", &["rows", "axis"], "column"),
        node("Mul", &["column", "inverse"], "angles"),
        node("Cos", &["angles"], "cos"),
    ]);
    let read = Decoder::of(&with_card(model(computed), config())).unwrap();
    assert_eq!(read.context, Some(30));
    // With a layer of another kind, caches cannot be updated in place, and padding on the left is not safe.
    let read = decoder(inputs, present, vec![attention(0)], config()).unwrap();
    assert_eq!((read.kind, read.pads, read.context), (CacheKind::Concatenated, false, Some(100)));
}

#[test]
fn models_without_a_cache_read_everything_again() {
    let read = decoder(vec![ids()], vec![], vec![], Card::default()).unwrap();
    assert_eq!((read.kind, read.pads, read.cache.len()), (CacheKind::Recompute, false, 0));
}

#[test]
fn what_cannot_be_fed_is_named() {
    let message = |inputs: Vec<ValueInfoProto>, outputs| {
        let e = decoder(inputs, outputs, vec![], Card::default()).unwrap_err();
        assert_eq!(e.kind(), Kind::Unsupported);
        e.to_string()
    };
    assert!(message(vec![value("pixels", F32, &["b"])], vec![]).contains("inputs are pixels"));
    assert!(message(vec![value("input_ids", F32, &["b", "s"])], vec![]).contains("float32[b, s]"));
    assert!(message(vec![ids(), value("past_conv.0", F32, &["b", "4", "p"])], vec![]).contains("present"));
    assert!(message(vec![ids(), value("mystery", F32, &["b"])], vec![]).contains("\"mystery\""));
    assert!(message(vec![ids(), value("encoder_hidden_states", F32, &["b"])], vec![]).contains("encoder-decoder"));
    let fixed = || vec![ids(), value("past_key_values.0.key", F32, &["b", "3", "128", "64"])];
    let present = vec![value("present.0.key", F32, &["b", "3", "128", "64"])];
    assert!(message(fixed(), present).contains("fixed length"));
    let none =
        Decoder::of(&with_card(model(graph(vec![], vec![ids()], vec![value("y", F32, &["b"])])), Card::default()));
    assert!(none.unwrap_err().message().contains("outputs are y"));
}
