//! The elements of pictures, as SVG.

use std::fmt::Write;

/// The width of all pictures.
pub const WIDTH: f64 = 720.0;
/// The size of the font of labels.
pub const FONT: f64 = 12.0;

/// A picture that is being drawn.
pub struct Svg {
    body: String,
    height: f64,
    label: String,
}

impl Svg {
    /// Returns an empty picture; `label` is the description for screen readers.
    pub fn new(height: f64, label: &str) -> Svg {
        Svg { body: String::new(), height, label: escaped(label) }
    }

    /// Draws a line; `class` is its CSS class, as in the other functions.
    pub fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = write!(self.body, r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
    }

    /// Draws a rectangle, whose width and height are at least 0.5.
    pub fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        let (width, height) = (width.max(0.5), height.max(0.5));
        let _ = write!(
            self.body,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2"/>"#
        );
    }

    /// Draws a dot with a colour, and a title that browsers show on it.
    pub fn dot(&mut self, (x, y): (f64, f64), fill: &str, title: &str) {
        let title = escaped(title);
        let _ = write!(
            self.body,
            r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="6" style="fill:{fill}"><title>{title}</title></circle>"#
        );
    }

    /// Writes a text; `anchor` is `start`, `middle` or `end`.
    pub fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
        let text = escaped(text);
        let _ =
            write!(self.body, r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
    }

    /// Draws a line through the points `points`.
    pub fn polyline(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(self.body, r#"<polyline class="{class}" points="{}"/>"#, points.join(" "));
    }

    /// Returns the picture as an element of a page.
    pub fn finish(self) -> String {
        self.element("", "")
    }

    /// Returns the picture as the content of an SVG file with the CSS rules `style`.
    pub fn into_file(self, style: &str) -> String {
        self.element(r#" xmlns="http://www.w3.org/2000/svg""#, &format!("<style>{style}</style>"))
    }

    fn element(self, attributes: &str, style: &str) -> String {
        let Svg { body, height, label } = self;
        format!(
            r#"<svg{attributes} viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{label}">{style}{body}</svg>"#
        )
    }
}

/// Returns a text with the special characters of HTML escaped.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Returns an estimate of the width of a label.
pub fn width_of(text: &str) -> f64 {
    0.58 * FONT * text.chars().count() as f64
}

/// Returns a text of at most `most` characters: `text`, or an ellipsis and the end of `text` if it is longer.
pub fn shortened(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    // The end of a node's name tells more than its beginning.
    let tail: String = text.chars().skip(count - (most - 1)).collect();
    format!("\u{2026}{tail}")
}

/// Returns about `count` round numbers from `low` to `high`.
pub fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let span = (high - low).max(1e-12);
    let rough = span / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    (first..).map(|n| n as f64 * step).take_while(|x| *x <= high + 1e-9 * span).collect()
}

/// Returns the text for a number, with as many decimals as are needed to tell numbers apart that differ by `step`.
pub fn number(value: f64, step: f64) -> String {
    let digits = if step >= 1.0 { 0 } else { (-step.log10().floor()) as usize };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks(0.0, 100.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(0.93, 1.0, 3).len(), 2);
        assert_eq!((number(0.5, 0.05), number(20.0, 20.0)), ("0.50".to_owned(), "20".to_owned()));
    }

    #[test]
    fn texts_are_escaped_and_shortened() {
        assert_eq!(escaped("a<b & \"c\""), "a&lt;b &amp; &quot;c&quot;");
        assert_eq!(shortened("/encoder/layer.0/query", 8), "\u{2026}0/query");
    }
}
