//! The division of a long text into windows that a model can read, such that each token that can be predicted is scored
//! once.

use std::ops::Range;

/// A part of a text that the model reads at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Range of the tokens in the text.
    pub tokens: Range<usize>,
    /// Number of scored tokens, at the end of the window. Those before them are context.
    pub scored: usize,
}

/// Returns windows of up to `length` tokens over a text of `count` tokens, each starting `stride` tokens after the
/// previous one.
///
/// A window scores the tokens that no earlier one has scored, so from the second window on each scored token has at
/// least `length - stride` tokens before it. A token with nothing before it cannot be predicted: without a `prefix`
/// (tokens before every window), the first token of the text is not scored, nor, if windows do not overlap (`stride
/// == length`), the first of any window. `length` and `stride` are at least 1, `stride` at most `length`. Source: the
/// strided sliding window of the transformers documentation, "Perplexity of fixed-length models".
pub fn windows(count: usize, length: usize, stride: usize, prefix: bool) -> impl Iterator<Item = Window> {
    let mut done = 0;
    // There is one window, and one more for each stride of the tokens after it.
    let number = if count == 0 { 0 } else { 1 + count.saturating_sub(length).div_ceil(stride.max(1)) };
    (0..number).map(move |index| {
        let begin = index * stride;
        let end = count.min(begin + length);
        let predictable = end - begin - usize::from(!prefix);
        let scored = (end - done).min(predictable);
        done = end;
        Window { tokens: begin..end, scored }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(count: usize, length: usize, stride: usize, prefix: bool) -> Vec<(Range<usize>, usize)> {
        windows(count, length, stride, prefix).map(|w| (w.tokens, w.scored)).collect()
    }

    #[test]
    fn windows_are_those_by_hand() {
        assert_eq!(all(10, 4, 2, false), [(0..4, 3), (2..6, 2), (4..8, 2), (6..10, 2)]);
        assert_eq!(all(11, 4, 2, false), [(0..4, 3), (2..6, 2), (4..8, 2), (6..10, 2), (8..11, 1)]);
        assert_eq!(all(10, 4, 3, true), [(0..4, 4), (3..7, 3), (6..10, 3)]);
        assert_eq!(all(3, 8, 4, false), [(0..3, 2)]);
        assert_eq!(all(8, 8, 1, false), [(0..8, 7)]);
        assert_eq!(all(9, 8, 1, false), [(0..8, 7), (1..9, 1)]);
        assert_eq!(all(1, 8, 4, false), [(0..1, 0)]);
        assert_eq!(all(1, 8, 4, true), [(0..1, 1)]);
        assert_eq!(all(0, 8, 4, true), []);
        // Windows that do not overlap lose the first token of each, unless a prefix precedes it.
        assert_eq!(all(10, 4, 4, false), [(0..4, 3), (4..8, 3), (8..10, 1)]);
        assert_eq!(all(9, 4, 4, false), [(0..4, 3), (4..8, 3), (8..9, 0)]);
        assert_eq!(all(10, 4, 4, true), [(0..4, 4), (4..8, 4), (8..10, 2)]);
    }

    #[test]
    fn each_token_is_scored_once_with_the_context_that_was_promised() {
        for count in 0..40 {
            for length in 2..12 {
                for stride in 1..length {
                    for prefix in [false, true] {
                        let mut seen = vec![0; count];
                        for (index, window) in windows(count, length, stride, prefix).enumerate() {
                            assert!(window.tokens.len() <= length && window.scored > 0 || count == 1);
                            let first = window.tokens.end - window.scored;
                            assert!(index == 0 || first - window.tokens.start >= length - stride);
                            (first..window.tokens.end).for_each(|token| seen[token] += 1);
                        }
                        let unscored = seen.iter().filter(|times| **times == 0).count();
                        assert!(seen.iter().all(|times| *times <= 1));
                        assert_eq!(unscored, usize::from(!prefix && count > 0), "{count} {length} {stride} {prefix}");
                    }
                }
            }
        }
    }
}
