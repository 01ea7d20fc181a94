//! Pooling of token vectors to one vector per text, as nodes of a graph and in memory.

use crate::model::Pooling;
use crate::onnx::dtype::DataType::{Bool, Float32, Int64};
use crate::source::builder::{Attribute, Builder};

/// The maximum over no tokens.
const LEAST: f32 = -1e9;

/// The mask of a batch of texts, and the number of tokens that are not pooled.
pub(super) struct Tokens<'a> {
    /// Name of the mask, int64 `[batch, sequence]`: 1 for tokens, 0 for padding after them.
    pub mask: &'a str,
    /// Number of tokens at the beginning of a text that are read but not pooled.
    pub prompt: usize,
}

/// Adds pooling of `[batch, sequence, width]` to `[batch, width]` and returns the name of the result.
pub(super) fn nodes(b: &mut Builder<'_>, kind: Pooling, hidden: &str, tokens: &Tokens<'_>) -> String {
    let (last, one) = (b.ints(&[-1]), b.ints(&[1]));
    let (keep, gone) = ([("keepdims", Attribute::Int(1))], [("keepdims", Attribute::Int(0))]);
    let cast = |b: &mut Builder<'_>, x: &str, to: crate::onnx::dtype::DataType| {
        b.op("Cast", &[x], &[("to", Attribute::Int(i64::from(to.to_onnx())))])
    };
    match kind {
        Pooling::Cls => {
            let first = b.int(tokens.prompt as i64);
            b.op("Gather", &[hidden, &first], &[("axis", Attribute::Int(1))])
        }
        Pooling::Mean | Pooling::MeanSqrtLen | Pooling::WeightedMean => {
            let kept = counted(b, tokens);
            let mut weights = cast(b, &kept, Float32);
            if kind == Pooling::WeightedMean {
                let places = places(b, tokens.mask, 1);
                let places = cast(b, &places, Float32);
                weights = b.op("Mul", &[&weights, &places], &[]);
            }
            let column = b.op("Unsqueeze", &[&weights, &last], &[]);
            let weighted = b.op("Mul", &[hidden, &column], &[]);
            let sum = b.op("ReduceSum", &[&weighted, &one], &gone);
            let count = b.op("ReduceSum", &[&column, &one], &gone);
            let least = b.float(1e-9);
            let mut count = b.op("Max", &[&count, &least], &[]);
            if kind == Pooling::MeanSqrtLen {
                count = b.op("Sqrt", &[&count], &[]);
            }
            b.op("Div", &[&sum, &count], &[])
        }
        Pooling::Max => {
            let kept = counted(b, tokens);
            let kept = cast(b, &kept, Bool);
            let kept = b.op("Unsqueeze", &[&kept, &last], &[]);
            let least = b.float(LEAST);
            let masked = b.op("Where", &[&kept, hidden, &least], &[]);
            b.op("ReduceMax", &[&masked, &one], &gone)
        }
        Pooling::LastToken => {
            let count = b.op("ReduceSum", &[tokens.mask, &one], &keep);
            let one = b.int(1);
            let index = b.op("Sub", &[&count, &one], &[]);
            b.op("GatherND", &[hidden, &index], &[("batch_dims", Attribute::Int(1))])
        }
    }
}

/// Adds the mask without the tokens of the prompt, and returns its name.
fn counted(b: &mut Builder<'_>, tokens: &Tokens<'_>) -> String {
    if tokens.prompt == 0 {
        return tokens.mask.to_owned();
    }
    let places = places(b, tokens.mask, 0);
    let prompt = b.int(tokens.prompt as i64);
    let after = b.op("GreaterOrEqual", &[&places, &prompt], &[]);
    let after = b.op("Cast", &[&after], &[("to", Attribute::Int(i64::from(Int64.to_onnx())))]);
    b.op("Mul", &[tokens.mask, &after], &[])
}

/// Adds the indices of the columns of the mask from `first` on, and returns their name: int64 `[sequence]`.
fn places(b: &mut Builder<'_>, mask: &str, first: i64) -> String {
    let (one, first) = (b.int(1), b.int(first));
    let shape = b.op("Shape", &[mask], &[]);
    let length = b.op("Gather", &[&shape, &one], &[]);
    let end = b.op("Add", &[&length, &first], &[]);
    b.op("Range", &[&first, &end, &one], &[])
}

/// Returns one vector from the vectors of a text's tokens, each of `width` elements, without padding. The first
/// `prompt` tokens are not pooled. If none remain, the elements are 0, or `LEAST` for [`Pooling::Max`];
/// [`Pooling::LastToken`] selects the last token even if it is one of the first `prompt`.
pub fn by_hand(kind: Pooling, tokens: &[&[f32]], prompt: usize, width: usize) -> Vec<f32> {
    let kept = tokens.get(prompt..).unwrap_or_default();
    let nothing = || vec![0.0; width];
    let column = |index: usize| kept.iter().map(move |token| f64::from(token[index]));
    let columns = |of: &dyn Fn(usize) -> f64| (0..width).map(|index| of(index) as f32).collect();
    let count = kept.len().max(1) as f64;
    match kind {
        Pooling::Cls => kept.first().map_or_else(nothing, |token| token.to_vec()),
        Pooling::LastToken => tokens.last().map_or_else(nothing, |token| token.to_vec()),
        Pooling::Max => columns(&|i| column(i).fold(f64::from(LEAST), f64::max)),
        Pooling::Mean => columns(&|i| column(i).sum::<f64>() / count),
        Pooling::MeanSqrtLen => columns(&|i| column(i).sum::<f64>() / count.sqrt()),
        Pooling::WeightedMean => {
            let weights: Vec<f64> = (prompt..tokens.len()).map(|place| place as f64 + 1.0).collect();
            let sum = weights.iter().sum::<f64>().max(1e-9);
            columns(&|i| column(i).zip(&weights).map(|(value, weight)| value * weight).sum::<f64>() / sum)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_pooled_as_by_pencil() {
        let tokens = [[9.0, 9.0], [1.0, 2.0], [3.0, 6.0]];
        let tokens: Vec<&[f32]> = tokens.iter().map(|token| &token[..]).collect();
        let of = |kind, tokens: &[&[f32]], prompt| by_hand(kind, tokens, prompt, 2);
        assert_eq!(of(Pooling::Mean, &tokens[1..], 0), [2.0, 4.0]);
        assert_eq!(of(Pooling::Mean, &tokens, 1), [2.0, 4.0]);
        assert_eq!(of(Pooling::Cls, &tokens, 1), [1.0, 2.0]);
        assert_eq!(of(Pooling::LastToken, &tokens, 1), [3.0, 6.0]);
        assert_eq!(of(Pooling::Max, &tokens, 1), [3.0, 6.0]);
        assert_eq!(of(Pooling::MeanSqrtLen, &tokens[1..], 0), [4.0 / 2f32.sqrt(), 8.0 / 2f32.sqrt()]);
        // Positions keep their weights, 2 and 3, if a prompt is omitted.
        assert_eq!(of(Pooling::WeightedMean, &tokens, 1), [11.0 / 5.0, 22.0 / 5.0]);
        assert_eq!(of(Pooling::Cls, &[], 0), [0.0, 0.0]);
    }
}
