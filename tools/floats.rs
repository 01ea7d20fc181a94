//! Writes a GGUF model as float32 ONNX with slightly changed weights: `cargo bench --bench floats -- IN.gguf OUT`.
//!
//! `tools/table.sh` measures quantization of a float32 decoder. The weights of the GGUF file were quantized before, and
//! quantizing them again in the same blocks would lose nothing. Each element of a float32 weight of more than 64 KiB is
//! therefore multiplied by 1 plus 2 % of a random number from a standard normal distribution.

use optimize::call::Call;
use optimize::error::Result;
use optimize::model::Model;
use optimize::onnx::save::ExternalData;
use optimize::recipe::Target;
use optimize::source::gguf;
use std::path::Path;

/// A generator of numbers of a standard normal distribution, the same in every run.
struct Normal(u64);

impl Normal {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns the sum of twelve uniform numbers minus 6, whose variance is 1.
    fn next(&mut self) -> f32 {
        let word = |bits: u64| (0..4).map(|part| (bits >> (16 * part) & 0xffff) as f32 / 65_536.0).sum::<f32>();
        (0..3).map(|_| word(self.bits())).sum::<f32>() - 6.0
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [from, to] = arguments.as_slice() else { return Ok(()) };
    let model = Model::load(from.as_ref())?;
    let floats = gguf::as_floats(&model)?.map_or(model, |floats| floats.model);
    let mut proto = floats.proto().clone();
    let mut normal = Normal(1);
    let large = |raw: &bytes::Bytes| raw.len() > 1 << 16;
    for tensor in proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
        if tensor.data_type != Some(1) {
            continue;
        }
        if let Some(raw) = tensor.raw_data.as_mut().filter(|raw| large(raw)) {
            let number = |four: &[u8]| f32::from_le_bytes(four.try_into().unwrap_or_default());
            let change = |four: &[u8]| (number(four) * (1.0 + 0.02 * normal.next())).to_le_bytes();
            *raw = raw.chunks_exact(4).flat_map(change).collect::<Vec<u8>>().into();
        }
    }
    let target = Target::prepare(Path::new(to))?;
    floats.derive(proto).save(&target.file, ExternalData::Auto, &Call::default())?;
    target.carry_along(&floats)
}
