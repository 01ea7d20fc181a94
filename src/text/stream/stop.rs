//! The search for stop strings in a text that arrives in pieces.

/// A finder of stop strings in a text that arrives in pieces. Special tokens that the text does not show are
/// considered, too: `<|im_end|>` is found where the model generates that token.
#[derive(Debug, Clone, Default)]
pub struct StopFinder {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string, including hidden text.
    held: String,
    /// Ranges of the hidden text in `held`, in order.
    hidden: Vec<(usize, usize)>,
}

impl StopFinder {
    /// Returns a finder of any of `stops`; empty ones are ignored.
    pub fn new(stops: &[String]) -> StopFinder {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        StopFinder { stops, ..StopFinder::default() }
    }

    /// Returns whether there are no stop strings.
    pub fn is_idle(&self) -> bool {
        self.stops.is_empty()
    }

    /// Adds a piece. Returns the text that is certainly before any stop string, and whether a stop string was found.
    /// The text from the stop string on is dropped.
    ///
    /// `open` is the text that would follow the piece if this were the last one: a stop string in it counts as well.
    /// `hidden` is the text of a special token after both that is not shown.
    pub fn push(&mut self, piece: &str, hidden: &str, open: &str) -> (String, bool) {
        if self.stops.is_empty() {
            return (piece.to_owned(), false);
        }
        self.held.push_str(piece);
        if let Some(text) = self.before_stop(open, hidden) {
            self.held.clear();
            self.hidden.clear();
            return (text, true);
        }
        if !hidden.is_empty() {
            self.hidden.push((self.held.len(), self.held.len() + hidden.len()));
            self.held.push_str(hidden);
        }
        (self.release(), false)
    }

    /// Returns the text that was held back, without the hidden parts. Nothing more follows, so this text cannot be the
    /// beginning of a stop string.
    pub fn finish(&mut self) -> String {
        let text = self.shown();
        self.held.clear();
        self.hidden.clear();
        text
    }

    /// Returns the held text without the hidden parts.
    fn shown(&self) -> String {
        self.shown_before(self.held.len())
    }

    /// Returns the held text up to an offset, without the hidden parts.
    fn shown_before(&self, end: usize) -> String {
        let mut text = String::new();
        let mut from = 0;
        for &(start, stop) in self.hidden.iter().filter(|(start, _)| *start < end) {
            text.push_str(&self.held[from..start]);
            from = stop.min(end);
        }
        text + &self.held[from..end]
    }

    /// Returns the text before the first stop string in the held text, followed by `open` and the hidden text `hidden`;
    /// `None` if there is none.
    fn before_stop(&self, open: &str, hidden: &str) -> Option<String> {
        let first = |text: &str| self.stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
        let shown = self.shown() + open;
        let in_shown = first(&shown).map(|at| shown[..at].to_owned());
        if self.hidden.is_empty() && hidden.is_empty() {
            return in_shown;
        }
        let in_all = first(&format!("{}{open}{hidden}", self.held)).map(|at| match at.checked_sub(self.held.len()) {
            Some(beyond) => self.shown() + &open[..beyond.min(open.len())],
            None => self.shown_before(at),
        });
        match (in_shown, in_all) {
            (Some(a), Some(b)) => Some(if a.len() < b.len() { a } else { b }),
            (a, b) => a.or(b),
        }
    }

    /// Returns and removes the text in which no stop string can begin.
    fn release(&mut self) -> String {
        let shown = self.shown();
        let in_shown = self.begins(&shown);
        let in_all = if self.hidden.is_empty() { in_shown } else { self.begins(&self.held) };
        let given = in_shown.min(self.shown_before(in_all).len());
        if given == shown.len() && in_all == self.held.len() {
            self.held.clear();
            self.hidden.clear();
            return shown;
        }
        // The offset in the held text, which has hidden parts, that corresponds to `given` bytes of shown text.
        let mut from = given;
        for &(start, stop) in &self.hidden {
            if start < from || (start == from && stop <= in_all) {
                from += stop - start;
            }
        }
        self.held.drain(..from);
        self.hidden.retain(|(start, _)| *start >= from);
        self.hidden.iter_mut().for_each(|(start, stop)| (*start, *stop) = (*start - from, *stop - from));
        shown[..given].to_owned()
    }

    /// Returns the position at which the first incomplete stop string may begin; the length of `text` if there is none.
    fn begins(&self, text: &str) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        // Only the last characters can begin a stop string.
        let from = text.len().saturating_sub(longest);
        let begins =
            |at: &usize| text.is_char_boundary(*at) && self.stops.iter().any(|stop| stop.starts_with(&text[*at..]));
        (from..text.len()).find(begins).unwrap_or(text.len())
    }
}
