//! The encoding of pairs of texts as one input, as cross-encoders read them.

use super::{Batch, Encoding, Tokenizer, guarded};
use crate::error::{Context, Result, bail};
use tokenizers::{PostProcessor as _, TruncationDirection};

impl Tokenizer {
    /// Returns the token ids of pairs of texts with the special tokens between and around them, padded on the right to
    /// the longest pair. With `max_length`, the longer text of a pair is truncated first. No prompt is added.
    ///
    /// Fails like [`Tokenizer::encode_batch`].
    pub fn encode_pairs<T: AsRef<str>>(&self, pairs: &[(T, T)], max_length: Option<usize>) -> Result<Batch> {
        let encode = |(index, (first, second)): (usize, &(T, T))| {
            let encoding = self.encode_pair_within((first.as_ref(), second.as_ref()), max_length);
            encoding.at(|| format!("pair {}", index + 1))
        };
        Ok(self.padded(pairs.iter().enumerate().map(encode).collect::<Result<_>>()?))
    }

    /// Returns the tokens of a pair up to `max_length`, and the number of truncated tokens.
    fn encode_pair_within(
        &self,
        (first, second): (&str, &str),
        max_length: Option<usize>,
    ) -> Result<(Encoding, usize)> {
        let mut parts = [self.encoding_of(first, false)?, self.encoding_of(second, false)?];
        let special = self.inner.get_post_processor().map_or(0, |step| step.added_tokens(true));
        let most = max_length.unwrap_or(usize::MAX);
        let Some(room) = most.checked_sub(special) else {
            bail!(InvalidArgument, "a length of {most} is too short for {special} special tokens");
        };
        let lengths = [parts[0].len(), parts[1].len()];
        let kept = longest_first(lengths, room);
        let left = self.settings.cut_left;
        let side = if left { TruncationDirection::Left } else { TruncationDirection::Right };
        parts.iter_mut().zip(kept).for_each(|(part, length)| part.truncate(length, 0, side));
        let [first, second] = parts;
        let encoded = guarded(|| self.inner.post_process(first, Some(second), true))?;
        let wide = |values: &[u32]| values.iter().map(|value| i64::from(*value)).collect::<Vec<i64>>();
        let encoding = Encoding {
            ids: wide(encoded.get_ids()),
            attention_mask: wide(encoded.get_attention_mask()),
            type_ids: if self.settings.untyped { vec![0; encoded.len()] } else { wide(encoded.get_type_ids()) },
        };
        Ok((encoding, lengths.iter().sum::<usize>() - kept.iter().sum::<usize>()))
    }
}

/// Returns the number of tokens of each text of a pair that remain if the pair has at most `room` tokens: tokens of the
/// longer text are removed first (the strategy `longest_first` of the tokenizers library).
fn longest_first([first, second]: [usize; 2], room: usize) -> [usize; 2] {
    if first.saturating_add(second) <= room {
        return [first, second];
    }
    let short = first.min(second);
    let (mut short, mut long) = (short, if short > room { short } else { short.max(room - short) });
    if short + long > room {
        short = room / 2;
        long = short + room % 2;
    }
    if first > second { [long, short] } else { [short, long] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_text_is_truncated_first() {
        for ([first, second], room, kept) in [
            ([3, 4], 7, [3, 4]),
            ([3, 40], 10, [3, 7]),
            ([40, 3], 10, [7, 3]),
            ([40, 30], 11, [6, 5]),
            ([30, 40], 11, [5, 6]),
            ([4, 4], 0, [0, 0]),
        ] {
            assert_eq!(longest_first([first, second], room), kept, "{first} {second} {room}");
        }
    }
}
