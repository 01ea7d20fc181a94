//! The scales and zero points that follow from ranges.

use crate::calibrate::Range;
use crate::onnx::dtype::DataType;
use crate::quantize::weights::Int8Matrix;
use bytes::Bytes;

/// The scale and zero point of an activation: `q = clamp(round(x / scale) + zero, 0, 255)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Difference between the values of two adjacent codes.
    pub scale: f32,
    /// Zero point, the code of zero.
    pub zero: u8,
}

impl Scale {
    /// Returns the scale with which the codes 0 to 255 span a range (which contains zero).
    pub fn of(range: Range) -> Scale {
        let scale = (f64::from(range.high) - f64::from(range.low)) / 255.0;
        // If the range is too small for a scale, all values become zero.
        if scale < f64::from(f32::MIN_POSITIVE) {
            return Scale { scale: 1.0, zero: 0 };
        }
        let zero = (-f64::from(range.low) / scale).round().clamp(0.0, 255.0) as u8;
        Scale { scale: scale as f32, zero }
    }

    /// Returns the value that a code represents.
    pub fn value(&self, code: u8) -> f32 {
        self.scale * (f32::from(code) - f32::from(self.zero))
    }

    /// Returns the smallest and the largest representable value.
    pub fn ends(&self) -> (f32, f32) {
        (self.value(0), self.value(255))
    }

    /// Returns the code that is nearest to a value.
    pub fn code(&self, value: f32) -> u8 {
        ((value / self.scale).round_ties_even() + f32::from(self.zero)).clamp(0.0, 255.0) as u8
    }
}

/// The maximum code of a bias, which leaves room in 32 bits for the sums that it is added to.
const BIAS: f64 = (1i64 << 30) as f64;

/// Returns the int32 codes of a bias (little-endian), and their scales `input * weight`, which are those of the sums
/// that the bias is added to. `input` is the scale of the input, `weight` are the scales of the weight.
pub fn bias(values: &[f32], input: f32, weight: &[f32]) -> (Bytes, Vec<f32>) {
    let scales: Vec<f32> = weight.iter().map(|w| input * w).collect();
    let code = |(index, value): (usize, &f32)| {
        let scale = f64::from(scales[if scales.len() == 1 { 0 } else { index }]);
        (f64::from(*value) / scale).round_ties_even().clamp(-BIAS, BIAS) as i32
    };
    (values.iter().enumerate().flat_map(|v| code(v).to_le_bytes()).collect(), scales)
}

/// Increases the scales of channels whose bias would not fit 32 bits, because their weights are nearly zero, and
/// changes the codes accordingly.
///
/// `values` is the bias, `input` the scale of the input; `channel` returns the channel of an element of the matrix.
pub fn make_room(matrix: &mut Int8Matrix, values: &[f32], input: f32, channel: impl Fn(usize) -> usize) {
    let single = matrix.scales.len() == 1;
    let mut factors = vec![1f32; matrix.scales.len()];
    for (index, value) in values.iter().enumerate() {
        let at = if single { 0 } else { index };
        let least = (f64::from(value.abs()) / (f64::from(input) * BIAS)) as f32;
        let scale = &mut matrix.scales[at];
        if *scale < least {
            factors[at] *= *scale / least;
            *scale = least;
        }
    }
    if factors.iter().all(|factor| *factor == 1.0) {
        return;
    }
    let code = |(index, code): (usize, &u8)| {
        let factor = factors[if single { 0 } else { channel(index) }];
        (f32::from(*code as i8) * factor).round_ties_even() as i8 as u8
    };
    matrix.data = matrix.data.iter().enumerate().map(code).collect();
}

/// Returns whether the sums of all channels fit 32 bits together with a bias, for any input. `channel` returns the
/// channel of an element of the matrix, below `channels`.
pub fn sums_fit(matrix: &Int8Matrix, channels: usize, channel: impl Fn(usize) -> usize) -> bool {
    const MOST: u64 = (BIAS as u64) / 255;
    if matrix.data.len() as u64 / channels.max(1) as u64 * 127 < MOST {
        return true;
    }
    let mut sums = vec![0u64; channels.max(1)];
    for (index, code) in matrix.data.iter().enumerate() {
        sums[channel(index)] += u64::from((*code as i8).unsigned_abs());
    }
    sums.iter().all(|sum| *sum < MOST)
}

/// The element type of the codes of a bias.
pub const BIAS_TYPE: DataType = DataType::Int32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_a_code_and_the_ends_are_reached() {
        let scale = Scale::of(Range { low: -1.0, high: 3.0 });
        assert_eq!((scale.code(0.0), scale.zero), (64, 64));
        assert_eq!((scale.code(-9.0), scale.code(9.0)), (0, 255));
        assert_eq!(Scale::of(Range { low: 0.0, high: 6.0 }), Scale { scale: 6.0 / 255.0, zero: 0 });
        assert_eq!(Scale::of(Range { low: -2.0, high: 0.0 }).zero, 255);
        assert_eq!(Scale::of(Range::ZERO), Scale { scale: 1.0, zero: 0 });
    }

    #[test]
    fn a_bias_that_fits_no_32_bits_gets_room() {
        let mut matrix = Int8Matrix { data: Bytes::from(vec![127, 1, 0x81, 100]), scales: vec![1e-12, 0.5] };
        make_room(&mut matrix, &[1.0, 1.0], 0.01, |index| index % 2);
        assert!(matrix.scales[0] > 9e-8 && matrix.scales[1] == 0.5);
        assert_eq!(matrix.data.as_ref(), [0, 1, 0, 100]);
        let (codes, scales) = bias(&[1.0, -1.0], 0.01, &matrix.scales);
        let codes: Vec<i32> = codes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
        assert!((codes[0] as f32 * scales[0] - 1.0).abs() < 1e-3 && codes[1] == -200, "{codes:?}");
    }
}
