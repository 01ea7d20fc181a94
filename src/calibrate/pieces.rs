//! The division of long lines into pieces.

/// The lengths of the pieces in characters, which are used in turn: a model that reads texts of any length needs
/// samples of several lengths.
const LENGTHS: [usize; 6] = [2000, 60, 500, 120, 1000, 250];

/// Returns the text with long lines divided into pieces of various lengths, at word boundaries where possible. Empty
/// lines are omitted, and each piece is a line of the result.
///
/// The tokens of one text are correlated: a few long texts represent the data no better than a few short ones, and
/// values fitted to long texts are worse for short ones.
pub fn pieces(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 60);
    let mut lengths = LENGTHS.iter().cycle();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut rest = line;
        while !rest.is_empty() {
            let length = *lengths.next().unwrap_or(&LENGTHS[0]);
            let (piece, after) = cut(rest, length);
            out.push_str(piece);
            out.push('\n');
            rest = after.trim_start();
        }
    }
    out
}

/// Returns the two parts of a text that is divided after `length` characters, at the end of the word there. A word that
/// continues for another `length` characters is divided.
fn cut(text: &str, length: usize) -> (&str, &str) {
    let Some((at, _)) = text.char_indices().nth(length) else { return (text, "") };
    let end = text[at..].char_indices().take(length).find(|(_, c)| c.is_whitespace());
    text.split_at(at + end.map_or(0, |(offset, _)| offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_there_once_and_lengths_vary() {
        let text = format!("short line\n\n{}\n{}", "word ".repeat(3000), "語".repeat(5000));
        let cut = pieces(&text);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<String>();
        assert_eq!(words(&cut), words(&text));
        let lengths: Vec<usize> = cut.lines().map(|line| line.chars().count()).collect();
        assert!(lengths.iter().all(|length| (1..=2010).contains(length)), "{lengths:?}");
        assert!(lengths.iter().filter(|length| **length < 300).count() > 10);
        assert!(lengths.iter().filter(|length| **length > 900).count() > 4);
        assert!(cut.lines().next() == Some("short line"));
    }
}
