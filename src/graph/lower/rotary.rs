//! Lowering of rotary embeddings.

use super::{Lowering, input};
use crate::error::{Result, bail};
use crate::onnx::proto::NodeProto;

impl Lowering {
    /// Lowers `RotaryEmbedding` of the standard or of ONNX Runtime. `at` has the indices of the inputs with values,
    /// cosines, sines and positions.
    pub(super) fn rotary(&mut self, node: &NodeProto, at: [usize; 4]) -> Result<()> {
        let [x, cos, sin] = [input(node, at[0])?, input(node, at[1])?, input(node, at[2])?];
        if node.int("is_packed_batching", 0) != 0 || node.float("scale", 1.0) != 1.0 {
            bail!(Unsupported, "a RotaryEmbedding with packed batches or scaling is not supported");
        }
        let (rank, half) = (self.rank(x)?, self.size(cos, -1)?);
        let apart = match rank {
            4 => x.to_owned(),
            3 => {
                let shape = match node.int("num_heads", 0) {
                    0 => [0, 0, -1, 2 * half],
                    heads => [0, 0, heads, -1],
                };
                let apart = self.w.reshaped(x, &shape);
                self.w.permuted(&apart, &[0, 2, 1, 3])
            }
            _ => bail!(Unsupported, "a RotaryEmbedding with an input of {rank} dimensions is not supported"),
        };
        let positions = match node.input_at(at[3]) {
            Some(name) if self.rank(name)? == 1 => {
                let shape = self.w.op("Shape", &[&apart]);
                let size = self.w.slice(&shape, 2, 3, 0);
                let steps = self.w.count_to(&size);
                Some(self.w.op("Add", &[&steps, name]))
            }
            other => other.map(str::to_owned),
        };
        let mut tables = Vec::new();
        for table in [cos, sin] {
            let rows = match &positions {
                Some(positions) => self.w.op("Gather", &[table, positions]),
                None => table.to_owned(),
            };
            let heads = self.w.ints(&[-3]);
            tables.push(self.w.op("Unsqueeze", &[&rows, &heads]));
        }
        let Ok(tables) = <[String; 2]>::try_from(tables) else { bail!(Internal, "two tables") };
        // Size of a head. If only a part of the head may be rotated, the exact size is not needed, because the
        // unchanged rest is sliced up to the end.
        let whole = if node.int("rotary_embedding_dim", 0) == 0 { 2 * half } else { i64::MAX };
        let rotated = self.w.rotate(&apart, &tables, (whole, 2 * half), node.int("interleaved", 0) != 0);
        if rank == 4 {
            self.w.op_to("Identity", &[&rotated], &node.output[0], Vec::new());
        } else {
            self.together(&rotated, &node.output[0]);
        }
        Ok(())
    }

    /// Adds nodes that concatenate heads `[batch, heads, sequence, size]` to the value `output` `[batch, sequence,
    /// width]`.
    pub(super) fn together(&mut self, x: &str, output: &str) {
        let transposed = self.w.permuted(x, &[0, 2, 1, 3]);
        let shape = self.w.ints(&[0, 0, -1]);
        self.w.op_to("Reshape", &[&transposed, &shape], output, Vec::new());
    }
}
