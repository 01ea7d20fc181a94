//! Charts of horizontal bars, one below another, with intervals.

use super::svg::{Svg, WIDTH, number, shortened, ticks};

/// A bar of a chart.
pub struct Bar {
    /// Label of the bar.
    pub label: String,
    /// Value that the length of the bar represents; a negative value is drawn as 0.
    pub value: f64,
    /// Ends of the interval of the value; `None` draws none.
    pub interval: Option<(f64, f64)>,
    /// Text at the end of the bar.
    pub text: String,
    /// CSS class of the bar in `page.html`, which sets its colour.
    pub class: &'static str,
}

const ROW: f64 = 26.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 8.0;

/// Returns the chart as SVG. `axis` names the axis of the values. With `from`, a line is drawn at that value, for
/// example at a speed-up of 1.
pub fn bars(bars: &[Bar], axis: &str, from: Option<f64>) -> String {
    let height = TOP + ROW * bars.len() as f64 + 44.0;
    let mut svg = Svg::new(height, axis);
    let reach = |bar: &Bar| bar.interval.map_or(bar.value, |(_, high)| high.max(bar.value));
    let most = bars.iter().map(reach).fold(from.unwrap_or(0.0), f64::max).max(1e-12) * 1.02;
    let x = |value: f64| LEFT + value.clamp(0.0, most) / most * (WIDTH - LEFT - RIGHT);
    let bottom = TOP + ROW * bars.len() as f64;
    let across = ticks(0.0, most, 5);
    let step = across.get(1).copied().unwrap_or(1.0);
    for at in &across {
        svg.line("grid", (x(*at), TOP), (x(*at), bottom));
        svg.text("muted", (x(*at), bottom + 16.0), "middle", &number(*at, step));
    }
    for (index, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * index as f64;
        svg.text("", (LEFT - 8.0, y + 17.0), "end", &shortened(&bar.label, 34));
        svg.rect(bar.class, (x(0.0), y + 5.0), (x(bar.value) - x(0.0), ROW - 10.0));
        if let Some((low, high)) = bar.interval {
            let middle = y + ROW / 2.0;
            svg.line("whisker", (x(low), middle), (x(high), middle));
            for end in [low, high] {
                svg.line("whisker", (x(end), middle - 4.0), (x(end), middle + 4.0));
            }
        }
        svg.text("muted", (x(reach(bar)) + 6.0, y + 17.0), "start", &bar.text);
    }
    if let Some(from) = from {
        svg.line("mark", (x(from), TOP), (x(from), bottom));
    }
    svg.text("muted", (LEFT, bottom + 34.0), "start", axis);
    svg.finish()
}
