//! Shared by several tests: temporary folders, seeded numbers, and models written byte by byte.
//!
//! The models are built without the library's own writer, so that an error in it is not repeated.

#![allow(dead_code)] // each test uses its own part

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A new folder that is removed when dropped: under `OPTIMIZE_TEST_TMP` if set, otherwise under `target/tmp`.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let base = std::env::var_os("OPTIMIZE_TEST_TMP").map_or(env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("{name}-{}-{unique}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Returns the names of all files in the folder, including hidden ones, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A generator of pseudorandom numbers that are the same in every run (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }
}

/// A protobuf message under construction. Field numbers are those of `onnx.proto`.
#[derive(Clone, Default)]
pub struct Proto(pub Vec<u8>);

impl Proto {
    pub fn new() -> Proto {
        Proto::default()
    }

    pub fn varint(mut self, mut value: u64) -> Proto {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub fn int(self, field: u64, value: i64) -> Proto {
        self.varint(field << 3).varint(value as u64)
    }

    pub fn float(self, field: u64, value: f32) -> Proto {
        self.varint(field << 3 | 5).raw(&value.to_le_bytes())
    }

    pub fn bytes(self, field: u64, value: &[u8]) -> Proto {
        self.varint(field << 3 | 2).varint(value.len() as u64).raw(value)
    }

    pub fn text(self, field: u64, value: &str) -> Proto {
        self.bytes(field, value.as_bytes())
    }

    pub fn message(self, field: u64, value: Proto) -> Proto {
        self.bytes(field, &value.0)
    }

    pub fn all(self, field: u64, values: impl IntoIterator<Item = Proto>) -> Proto {
        values.into_iter().fold(self, |whole, value| whole.message(field, value))
    }

    /// Appends bytes unchanged, valid or not.
    pub fn raw(mut self, bytes: &[u8]) -> Proto {
        self.0.extend_from_slice(bytes);
        self
    }
}

pub const FLOAT: i64 = 1;
pub const UINT8: i64 = 2;
pub const INT64: i64 = 7;

/// Returns a tensor without elements.
pub fn tensor(name: &str, dtype: i64, dims: &[i64]) -> Proto {
    dims.iter().fold(Proto::new(), |t, &dim| t.int(1, dim)).int(2, dtype).text(8, name)
}

/// Returns a tensor of zeros in `raw_data`.
pub fn bytes_tensor(name: &str, count: usize) -> Proto {
    tensor(name, UINT8, &[count as i64]).bytes(9, &vec![0; count])
}

/// Returns a tensor of 8 bytes in another file.
pub fn external_tensor(name: &str, entries: &[(&str, &str)]) -> Proto {
    tensor(name, UINT8, &[8]).all(13, entries.iter().map(|(k, v)| Proto::new().text(1, k).text(2, v))).int(14, 1)
}

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> Proto {
    let node = inputs.iter().fold(Proto::new(), |n, input| n.text(1, input));
    outputs.iter().fold(node, |n, output| n.text(2, output)).text(4, op)
}

pub fn graph_attribute(name: &str, graph: Proto) -> Proto {
    Proto::new().text(1, name).message(6, graph).int(20, 5)
}

pub fn tensor_attribute(name: &str, tensor: Proto) -> Proto {
    Proto::new().text(1, name).message(5, tensor).int(20, 4)
}

/// Returns a value of type float; a negative dimension is the symbol `n`.
pub fn value(name: &str, dims: &[i64]) -> Proto {
    let dim = |&d: &i64| if d < 0 { Proto::new().text(2, "n") } else { Proto::new().int(1, d) };
    let shape = Proto::new().all(1, dims.iter().map(dim));
    let kind = Proto::new().message(1, Proto::new().int(1, FLOAT).message(2, shape));
    Proto::new().text(1, name).message(2, kind)
}

/// Returns a graph with the input `x` and the output `y`, to which nodes and initializers are added.
pub fn graph() -> Proto {
    Proto::new().text(2, "main").message(11, value("x", &[1])).message(12, value("y", &[1]))
}

/// Returns a [`graph`] with one node.
pub fn identity_graph() -> Proto {
    graph().message(1, node("Identity", &["x"], &["y"]))
}

/// Returns a branch of an `If`: no inputs, one output that the nodes have to compute.
pub fn branch(output: &str, nodes: impl IntoIterator<Item = Proto>) -> Proto {
    Proto::new().text(2, "branch").all(1, nodes).message(12, value(output, &[1]))
}

pub fn opset(domain: &str, version: i64) -> Proto {
    Proto::new().text(1, domain).int(2, version)
}

/// Returns a model of IR version 10, opset 21.
pub fn model(graph: Proto) -> Proto {
    Proto::new().int(1, 10).message(7, graph).message(8, opset("", 21))
}

pub fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: impl IntoIterator<Item = Proto>) -> Proto {
    let function = inputs.iter().fold(Proto::new().text(1, name), |f, input| f.text(4, input));
    let function = outputs.iter().fold(function, |f, output| f.text(5, output));
    function.all(7, nodes).message(9, opset("", 21)).text(10, "local")
}

/// Returns a node that calls a [`function`].
pub fn call(name: &str, inputs: &[&str], outputs: &[&str]) -> Proto {
    node(name, inputs, outputs).text(7, "local")
}
