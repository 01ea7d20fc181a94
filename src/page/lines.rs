//! Curves over steps, such as the loss of a training.

use super::svg::{Svg, WIDTH, number, ticks};

const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 24.0;
const HEIGHT: f64 = 260.0;
const BOTTOM: f64 = 46.0;

/// Returns the curve through the points, in their order, as SVG. `across` and `up` name the horizontal and the vertical
/// axis.
pub fn lines(points: &[(f64, f64)], across: &str, up: &str) -> String {
    let mut svg = Svg::new(HEIGHT, up);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        let pad = ((high - low) * 0.05).max(1e-9);
        (low - pad, high + pad)
    };
    let (xs, ys) = (range(&mut points.iter().map(|p| p.0)), range(&mut points.iter().map(|p| p.1)));
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let x = |v: f64| LEFT + (v - xs.0) / (xs.1 - xs.0) * (right - LEFT);
    let y = |v: f64| bottom - (v - ys.0) / (ys.1 - ys.0) * (bottom - TOP);
    let (columns, rows) = (ticks(xs.0.max(0.0), xs.1, 7), ticks(ys.0, ys.1, 5));
    let step = |ticks: &[f64]| ticks.windows(2).next().map_or(1.0, |pair| pair[1] - pair[0]);
    for at in &columns {
        svg.line("grid", (x(*at), TOP), (x(*at), bottom));
        svg.text("muted", (x(*at), bottom + 16.0), "middle", &number(*at, step(&columns)));
    }
    for at in &rows {
        svg.line("grid", (LEFT, y(*at)), (right, y(*at)));
        svg.text("muted", (LEFT - 8.0, y(*at) + 4.0), "end", &number(*at, step(&rows)));
    }
    svg.text("muted", (LEFT, TOP - 9.0), "start", up);
    svg.text("muted", (right, bottom + 34.0), "end", across);
    let drawn: Vec<(f64, f64)> = points.iter().map(|(a, b)| (x(*a), y(*b))).collect();
    svg.polyline("curve", &drawn);
    for (place, (a, b)) in drawn.iter().zip(points) {
        svg.dot(*place, "var(--accent)", &format!("{across} {a}: {b:.4}"));
    }
    svg.finish()
}
