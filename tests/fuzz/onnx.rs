//! Damage to protobuf fields, with all enclosing lengths corrected, so that it reaches inner code.

use crate::common::*;
use crate::mutate;

/// Returns three small models that use everything a file can contain; `weights.data` is next to them.
pub fn everything() -> [Vec<u8>; 3] {
    let body = branch("v", [node("Add", &["x", "k"], &["v"]).text(3, "add")]).message(5, bytes_tensor("k", 1));
    let other = branch("v", [node("Neg", &["x"], &["v"])]).message(13, value("v", &[-1]));
    let choose = node("If", &["c"], &["y"])
        .message(5, graph_attribute("then_branch", body))
        .message(5, graph_attribute("else_branch", other));
    let typed = tensor("t", FLOAT, &[2]).bytes(4, &[0, 0, 128, 63, 0, 0, 0, 64]);
    let wide = tensor("i", INT64, &[2]).bytes(7, &[3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    let constant = node("Constant", &[], &["c"]).message(5, tensor_attribute("value", bytes_tensor("", 1)));
    let with_if = model(graph().all(1, [constant, choose]).all(5, [typed, wide])).text(2, "seed").text(6, "doc");
    let inner = function("G", &["a"], &["b"], [node("Relu", &["a"], &["b"])]);
    let outer = function("F", &["a"], &["b"], [call("G", &["a"], &["u"]), call("G", &["u"], &["b"])])
        .message(11, Proto::new().text(1, "alpha").float(2, 0.5).int(20, 1))
        .text(6, "beta");
    let with_functions = model(graph().message(1, call("F", &["x"], &["y"])))
        .all(25, [inner, outer])
        .message(8, opset("local", 1))
        .message(14, Proto::new().text(1, "key").text(2, "value"))
        .message(99, Proto::new().text(1, "unknown"));
    let sparse = Proto::new()
        .message(1, tensor("s", FLOAT, &[1]).bytes(9, &[0; 4]))
        .message(2, tensor("i", INT64, &[1]).bytes(9, &[0; 8]))
        .int(3, 4);
    let full = [("location", "weights.data"), ("offset", "16"), ("length", "8")];
    let outside = [external_tensor("w", &full), external_tensor("u", &[("location", "weights.data")])];
    let add = node("Concat", &["w", "u"], &["z"]).message(5, Proto::new().text(1, "axis").int(3, 0).int(20, 2));
    let external = model(identity_graph().message(1, add).all(5, outside).message(15, sparse));
    [with_if, with_functions, external].map(|model| model.0)
}

/// A field of a message whose type is unknown, so that a string may be taken for a message.
#[derive(Clone)]
struct Field {
    number: u64,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Varint(u64),
    /// Content of eight or four bytes.
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn fields(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let mut take = |length: usize| {
            let (taken, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            Some(taken.to_vec())
        };
        let content = match tag & 7 {
            0 => Content::Varint(varint(&mut bytes)?),
            1 => Content::Fixed(take(8)?),
            5 => Content::Fixed(take(4)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (inner, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                let message = if length > 1 && depth < 16 { fields(inner, depth + 1) } else { None };
                message.map_or_else(|| Content::Bytes(inner.to_vec()), Content::Message)
            }
            _ => return None,
        };
        found.push(Field { number: tag >> 3, content });
    }
    Some(found)
}

fn encode(fields: &[Field]) -> Proto {
    fields.iter().fold(Proto::new(), |out, field| match &field.content {
        Content::Varint(value) => out.varint(field.number << 3).varint(*value),
        Content::Fixed(bytes) => out.varint(field.number << 3 | if bytes.len() == 8 { 1 } else { 5 }).raw(bytes),
        Content::Bytes(bytes) => out.bytes(field.number, bytes),
        Content::Message(inner) => out.message(field.number, encode(inner)),
    })
}

/// Damages one field, inner and outer ones equally often; `spare` is a copy of another field.
fn damage(fields: &mut Vec<Field>, spare: &Field, random: &mut Random) {
    if fields.is_empty() {
        return fields.push(spare.clone());
    }
    let at = random.below(fields.len());
    if let Content::Message(inner) = &mut fields[at].content
        && random.below(8) != 0
    {
        return damage(inner, spare, random);
    }
    match random.below(10) {
        0 => drop(fields.remove(at)),
        1 => fields.insert(at, fields[at].clone()),
        2 => fields.insert(at, spare.clone()),
        3 => fields[at].content = spare.content.clone(),
        4 => fields[at].number = random.below(32) as u64,
        5 => {
            let other = random.below(fields.len());
            fields.swap(at, other);
        }
        _ => change(&mut fields[at].content, random),
    }
}

fn change(content: &mut Content, random: &mut Random) {
    match content {
        Content::Varint(value) => {
            *value = match random.below(4) {
                0 => value.wrapping_add(1),
                1 => random.below(32) as u64,
                _ => mutate::extreme(random),
            }
        }
        Content::Fixed(bytes) => {
            let length = bytes.len();
            *bytes = mutate::extreme(random).to_le_bytes()[..length].to_vec();
        }
        // Offsets and lengths of external data are strings of digits.
        Content::Bytes(bytes) if random.below(3) == 0 => *bytes = mutate::extreme(random).to_string().into_bytes(),
        Content::Bytes(bytes) => *bytes = mutate::bytes(std::mem::take(bytes), |bytes| bytes.len(), random),
        Content::Message(inner) => *content = Content::Bytes(mutate::bytes(encode(inner).0, |b| b.len(), random)),
    }
}

/// Returns a random field, for which a field of each message is chosen on the way down.
fn any(fields: &[Field], random: &mut Random) -> Option<Field> {
    let field = fields.get(random.below(fields.len().max(1)))?;
    match &field.content {
        Content::Message(inner) if random.below(4) != 0 => any(inner, random).or(Some(field.clone())),
        _ => Some(field.clone()),
    }
}

pub fn mutate(file: &[u8], random: &mut Random) -> Vec<u8> {
    let Some(mut model) = fields(file, 0) else { return mutate::bytes(file.to_vec(), |bytes| bytes.len(), random) };
    let Some(spare) = any(&model, random) else { return vec![random.next() as u8] };
    damage(&mut model, &spare, random);
    encode(&model).0
}
