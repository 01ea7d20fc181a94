//! Writes GGUF files, valid and damaged ones.

use bytes::Bytes;

/// Value of a key: the number of its type, and its bytes.
pub type Value = (u32, Vec<u8>);

/// A tensor: its dimensions with the length of a row first, the number of its type, and its bytes.
#[derive(Clone)]
pub struct Tensor {
    pub name: Vec<u8>,
    pub dims: Vec<u64>,
    pub kind: u32,
    pub data: Vec<u8>,
    /// Offset of the data; `None` puts it after the previous tensor.
    pub offset: Option<u64>,
}

/// A file that is being built. Every field may have an invalid value.
#[derive(Clone)]
pub struct File {
    pub magic: [u8; 4],
    pub version: u32,
    pub keys: Vec<(Vec<u8>, Value)>,
    pub tensors: Vec<Tensor>,
    /// Counts of tensors and keys that are written instead of the true ones.
    pub counts: Option<(u64, u64)>,
}

pub fn u32(value: u32) -> Value {
    (4, value.to_le_bytes().to_vec())
}

pub fn f32(value: f32) -> Value {
    (6, value.to_le_bytes().to_vec())
}

pub fn flag(value: u8) -> Value {
    (7, vec![value])
}

pub fn text(value: &str) -> Value {
    (8, string(value.as_bytes()))
}

pub fn texts(values: &[&str]) -> Value {
    let content: Vec<u8> = values.iter().flat_map(|value| string(value.as_bytes())).collect();
    array(8, values.len() as u64, &content)
}

pub fn integers(values: &[i32]) -> Value {
    let content: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    array(5, values.len() as u64, &content)
}

pub fn floats(values: &[f32]) -> Value {
    let content: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    array(6, values.len() as u64, &content)
}

pub fn array(kind: u32, count: u64, content: &[u8]) -> Value {
    (9, [&kind.to_le_bytes()[..], &count.to_le_bytes(), content].concat())
}

pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()
}

impl File {
    /// Sets the value of a key, in place or at the end.
    pub fn set(&mut self, key: &str, value: Value) -> &mut File {
        match self.keys.iter_mut().find(|(name, _)| name == key.as_bytes()) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.as_bytes().to_vec(), value)),
        }
        self
    }

    /// Removes a key from the file.
    pub fn unset(&mut self, key: &str) -> &mut File {
        self.keys.retain(|(name, _)| name != key.as_bytes());
        self
    }

    /// Adds a tensor whose bytes match its shape; its values vary smoothly.
    pub fn tensor(&mut self, name: &str, dims: &[u64], kind: u32) -> &mut File {
        let (elements, bytes) = match kind {
            0 => (1, 4),
            1 => (1, 2),
            2 => (32, 18),
            3 => (32, 20),
            8 => (32, 34),
            other => panic!("type {other}"),
        };
        let count: u64 = dims.iter().product();
        // The bytes are such that half-precision scales are below 1 and above 2^-12 in every form.
        let data = (0..count / elements * bytes).map(|i| (i * 37 % 48) as u8).collect();
        self.tensors.push(Tensor { name: name.into(), dims: dims.to_vec(), kind, data, offset: None });
        self
    }

    /// Returns the tensor `name` of the file.
    pub fn find(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name.as_bytes()).unwrap()
    }

    /// Returns the bytes of the file, and the offset at which its header ends.
    pub fn write(&self) -> (Bytes, usize) {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        let (tensors, keys) = self.counts.unwrap_or((self.tensors.len() as u64, self.keys.len() as u64));
        out.extend(tensors.to_le_bytes());
        out.extend(keys.to_le_bytes());
        for (key, (kind, value)) in &self.keys {
            out.extend(string(key));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        let header = out.len();
        out.resize(header.next_multiple_of(32), 0);
        out.extend(data);
        (out.into(), header)
    }
}

/// Returns a valid small model of one layer: Llama with a tied output layer, in three forms.
pub fn small() -> File {
    let mut file = File { magic: *b"GGUF", version: 3, keys: Vec::new(), tensors: Vec::new(), counts: None };
    file.set("general.architecture", text("llama"))
        .set("llama.block_count", u32(1))
        .set("llama.context_length", u32(64))
        .set("llama.embedding_length", u32(32))
        .set("llama.feed_forward_length", u32(64))
        .set("llama.attention.head_count", u32(2))
        .set("llama.attention.head_count_kv", u32(1))
        .set("llama.attention.layer_norm_rms_epsilon", f32(1e-5))
        .set("llama.rope.freq_base", f32(1e4))
        .set("tokenizer.ggml.model", text("gpt2"))
        .set("tokenizer.ggml.pre", text("gpt-2"))
        .set("tokenizer.ggml.tokens", texts(&["<end>", "a", "b", "c", "ab", "abc", "<user>", "bc"]))
        .set("tokenizer.ggml.token_type", integers(&[3, 1, 1, 1, 1, 1, 4, 1]))
        .set("tokenizer.ggml.merges", texts(&["a b", "b c", "ab c"]))
        .set("tokenizer.ggml.bos_token_id", u32(0))
        .set("tokenizer.ggml.eos_token_id", u32(0))
        .set("tokenizer.chat_template", text("{{ messages[0].content }}"));
    file.tensor("token_embd.weight", &[32, 8], 8)
        .tensor("output_norm.weight", &[32], 0)
        .tensor("blk.0.attn_norm.weight", &[32], 0)
        .tensor("blk.0.attn_q.weight", &[32, 32], 3)
        .tensor("blk.0.attn_k.weight", &[32, 16], 3)
        .tensor("blk.0.attn_v.weight", &[32, 16], 2)
        .tensor("blk.0.attn_output.weight", &[32, 32], 2)
        .tensor("blk.0.ffn_norm.weight", &[32], 0)
        .tensor("blk.0.ffn_gate.weight", &[32, 64], 3)
        .tensor("blk.0.ffn_up.weight", &[32, 64], 1)
        .tensor("blk.0.ffn_down.weight", &[64, 32], 8);
    file
}
