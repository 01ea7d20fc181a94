//! Pictures of points by size and quality. The colour of a point shows a speed-up or the group that it belongs to.

use super::svg::{FONT, Svg, WIDTH, number, ticks, width_of};

/// A point of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Label of the point.
    pub label: String,
    /// Size of the model in MB.
    pub size: f64,
    /// Quality, or loss of quality.
    pub quality: f64,
    /// Meaning of the point's colour.
    pub colour: Colour,
}

/// What the colour of a point shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Colour {
    /// The speed-up; `None` is drawn in the same grey as a speed-up of about 1.
    Speedup(Option<f64>),
    /// The index of a group. After the third group, the colours repeat.
    Group(usize),
}

const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 76.0;
const HEIGHT: f64 = 400.0;
/// The height of pictures with more than [`CROWD`] points.
const TALL: f64 = 560.0;
const CROWD: usize = 16;
/// The ratio of the largest and the smallest quality above which the vertical axis is logarithmic.
const STEEP: f64 = 5.0;

/// The steps of the scale of speed: the largest speed-up, the colour and the label of each.
const SCALE: [(f64, &str, &str); 5] = [
    (0.95, "#c0392b", "slower"),
    (1.05, "#8a8f98", "equal"),
    (1.5, "#7fb3d5", "to 1.5x"),
    (2.5, "#2e86c1", "to 2.5x"),
    (f64::INFINITY, "#1b9e5a", "above 2.5x"),
];
/// The colours of groups.
const GROUPS: [&str; 3] = ["#2e86c1", "#1b9e5a", "#c0392b"];

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Colour::Group(index) => GROUPS[index % GROUPS.len()],
            Colour::Speedup(speedup) => {
                let step = speedup.and_then(|speedup| SCALE.iter().find(|(most, ..)| speedup <= *most));
                step.map_or("#8a8f98", |(_, colour, _)| colour)
            }
        }
    }
}

/// The area that a label or a dot covers.
#[derive(Clone, Copy)]
struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Area {
    fn meets(&self, other: &Area) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn of_dot((x, y): (f64, f64)) -> Area {
        Area { left: x - 7.0, top: y - 7.0, right: x + 7.0, bottom: y + 7.0 }
    }

    fn of_label(label: &str, (x, y): (f64, f64), anchor: &str) -> Area {
        let width = width_of(label);
        let left = match anchor {
            "start" => x,
            "end" => x - width,
            _ => x - width / 2.0,
        };
        Area { left, top: y - FONT, right: left + width, bottom: y + 4.0 }
    }
}

/// Returns the picture as SVG; `axis` is the name of the vertical axis, and `groups` are the names of the groups (empty
/// if the colours show speed-ups).
pub fn scatter(points: &[Point], axis: &str, groups: &[&str]) -> String {
    draw(points, axis, groups).finish()
}

/// Returns the picture of [`scatter`] as a separate SVG file, which follows the reader's choice of light or dark.
pub fn standalone(points: &[Point], axis: &str, groups: &[&str]) -> String {
    draw(points, axis, groups).into_file(STYLE) + "\n"
}

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#24292f}.muted{fill:#57606a}.grid{stroke:#d0d7de}\
                     .lead{stroke:#8a8f98}.dot{stroke:#fff;stroke-width:1.5}\
                     @media(prefers-color-scheme:dark){text{fill:#e6edf3}.muted{fill:#9198a1}\
                     .grid{stroke:#30363d}.dot{stroke:#0d1117}}";

fn draw(points: &[Point], axis: &str, groups: &[&str]) -> Svg {
    let height = if points.len() > CROWD { TALL } else { HEIGHT };
    let mut svg = Svg::new(height, &format!("size against {axis}"));
    let range = |of: fn(&Point) -> f64| {
        let (low, high) = points.iter().map(of).fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        let pad = ((high - low) * 0.08).max(high.abs() * 0.002).max(1e-6);
        (low - pad, high + pad)
    };
    let quality = |of: fn(f64, f64) -> f64| points.iter().map(|p| p.quality).reduce(of).unwrap_or(1.0);
    // With a linear axis, one bad result would compress all others into a line.
    let steep = quality(f64::min) > 0.0 && quality(f64::max) > STEEP * quality(f64::min);
    let (xs, mut ys) = (range(|p| p.size), range(|p| p.quality));
    if steep {
        ys = (quality(f64::min).ln() - 0.1, quality(f64::max).ln() + 0.1);
    }
    let xs = (xs.0.max(0.0), xs.1);
    let (right, bottom) = (WIDTH - RIGHT, height - BOTTOM);
    let x = |v: f64| LEFT + (v - xs.0) / (xs.1 - xs.0) * (right - LEFT);
    let y = |v: f64| bottom - (if steep { v.ln() } else { v } - ys.0) / (ys.1 - ys.0) * (bottom - TOP);
    let across = ticks(xs.0, xs.1, 7);
    let up = if steep { powers(ys.0.exp(), ys.1.exp()) } else { ticks(ys.0, ys.1, 6) };
    for at in &across {
        svg.line("grid", (x(*at), TOP), (x(*at), bottom));
        svg.text("muted", (x(*at), bottom + 18.0), "middle", &number(*at, step(&across)));
    }
    for at in &up {
        svg.line("grid", (LEFT, y(*at)), (right, y(*at)));
        let digits = if steep { *at } else { step(&up) };
        svg.text("muted", (LEFT - 8.0, y(*at) + 4.0), "end", &number(*at, digits));
    }
    svg.text("muted", (LEFT, TOP - 7.0), "start", axis);
    svg.text("muted", (right, bottom + 36.0), "end", "size, MB");
    legend(&mut svg, bottom + 58.0, groups);
    let at: Vec<(f64, f64)> = points.iter().map(|p| (x(p.size), y(p.quality))).collect();
    let mut taken: Vec<Area> = at.iter().map(|place| Area::of_dot(*place)).collect();
    let frame = Area { left: LEFT - 2.0, top: TOP, right, bottom };
    for (point, place) in points.iter().zip(&at) {
        if let Some((spot, anchor, far)) = place_for(&point.label, *place, &taken, &frame) {
            taken.push(Area::of_label(&point.label, spot, anchor));
            if far {
                svg.line("lead", *place, (spot.0, spot.1 - 4.0));
            }
            svg.text("", spot, anchor, &point.label);
        }
    }
    for (point, place) in points.iter().zip(&at) {
        let speed = match point.colour {
            Colour::Speedup(Some(speedup)) => format!(", {speedup:.2}x"),
            Colour::Speedup(None) | Colour::Group(_) => String::new(),
        };
        let title = format!("{}: {:.1} MB, {axis} {:.4}{speed}", point.label, point.size, point.quality);
        svg.dot(*place, point.colour.code(), &title);
    }
    svg
}

/// Returns the numbers 1, 2 and 5 times powers of ten from `low` to `high`.
fn powers(low: f64, high: f64) -> Vec<f64> {
    let powers = (-6..7).flat_map(|power| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(power)));
    powers.filter(|at| (low..=high).contains(at)).collect()
}

fn step(ticks: &[f64]) -> f64 {
    ticks.windows(2).next().map_or(1.0, |pair| pair[1] - pair[0])
}

/// Returns a position of a label within `frame` that overlaps none of `taken`, its anchor, and whether it is so far
/// from its dot that it needs a line to it. Returns `None` if no such position is found. The title of the dot, which
/// browsers show, contains the label in any case.
fn place_for(
    label: &str,
    (x, y): (f64, f64),
    taken: &[Area],
    frame: &Area,
) -> Option<((f64, f64), &'static str, bool)> {
    let mut tried = vec![
        ((x + 10.0, y + 4.0), "start", false),
        ((x - 10.0, y + 4.0), "end", false),
        ((x, y - 11.0), "middle", false),
        ((x, y + 20.0), "middle", false),
    ];
    let mut farther = Vec::new();
    for step in -20..=20 {
        let (dy, aside): (f64, [f64; 5]) = (12.0 * f64::from(step), [12.0, 30.0, 60.0, 100.0, 150.0]);
        farther.extend(aside.iter().flat_map(|dx| [(*dx, dy, "start"), (-dx, dy, "end")]));
    }
    // The nearest place wins, so that lines from dots to labels are short.
    farther.sort_by(|(a, b, _), (c, d, _)| f64::hypot(*a, *b).total_cmp(&f64::hypot(*c, *d)));
    tried.extend(farther.into_iter().map(|(dx, dy, anchor)| ((x + dx, y + dy + 4.0), anchor, true)));
    tried.into_iter().find(|(spot, anchor, _)| {
        let area = Area::of_label(label, *spot, anchor);
        let inside = area.left >= frame.left
            && area.right <= frame.right
            && area.top >= frame.top
            && area.bottom <= frame.bottom;
        inside && !taken.iter().any(|other| other.meets(&area))
    })
}

fn legend(svg: &mut Svg, y: f64, groups: &[&str]) {
    let mut x = LEFT;
    let mut entries: Vec<(&str, &str)> = groups.iter().zip(GROUPS).map(|(name, code)| (code, *name)).collect();
    if groups.is_empty() {
        svg.text("muted", (x, y + 4.0), "start", "speed:");
        x += 52.0;
        entries = SCALE.map(|(_, code, name)| (code, name)).to_vec();
    }
    for (code, name) in entries {
        svg.dot((x, y), code, name);
        svg.text("muted", (x + 11.0, y + 4.0), "start", name);
        x += 30.0 + width_of(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the areas of the labels of a picture.
    fn labels(picture: &str) -> Vec<(String, Area)> {
        let one = |part: &str| {
            let attribute =
                |name: &str| part.split(&format!(" {name}=\"")).nth(1)?.split('"').next().map(str::to_owned);
            let (x, y) = (attribute("x")?.parse().ok()?, attribute("y")?.parse().ok()?);
            let text = part.split('>').nth(1)?.split('<').next()?.to_owned();
            let area = Area::of_label(&text, (x, y), &attribute("text-anchor")?);
            Some((text, area))
        };
        picture.split("<text").skip(1).filter_map(one).collect()
    }

    #[test]
    fn no_label_covers_another() {
        let mut random = crate::statistics::Random::new(7);
        for crowd in [3, 8, 14] {
            let point = |i: usize| Point {
                label: format!("technique number {i}"),
                size: 20.0 + 5.0 * random.uniform(),
                quality: 0.99 + 0.005 * random.uniform(),
                colour: Colour::Speedup(Some(0.5 + 0.3 * i as f64)),
            };
            let points: Vec<Point> = (0..crowd).map(point).collect();
            let found = labels(&scatter(&points, "cosine", &[]));
            assert!(found.iter().filter(|(text, _)| text.starts_with("technique")).count() >= crowd * 3 / 4, "{crowd}");
            for (index, (a, area)) in found.iter().enumerate() {
                for (b, other) in &found[..index] {
                    assert!(!area.meets(other), "{a:?} covers {b:?} of {crowd}");
                }
            }
        }
    }

    #[test]
    fn one_point_and_equal_points_are_drawn() {
        let point = |label: &str| Point { label: label.into(), size: 1.0, quality: 1.0, colour: Colour::Speedup(None) };
        assert!(scatter(&[point("a")], "cosine", &[]).contains("a: 1.0 MB"));
        assert!(!scatter(&[point("a"), point("b")], "cosine", &[]).contains("NaN"));
        let ruined = Point { quality: 40.0, ..point("c") };
        assert!(scatter(&[point("a"), ruined], "perplexity", &[]).contains(">20</text>"));
    }

    #[test]
    fn groups_have_a_legend_and_colours_of_their_own() {
        let point =
            |label: &str, group| Point { label: label.into(), size: 1.0, quality: 2.0, colour: Colour::Group(group) };
        let picture = scatter(&[point("a", 0), point("b", 2)], "loss", &["first", "second", "third"]);
        assert!(picture.contains(">second</text>") && !picture.contains("speed:"), "{picture}");
        assert_eq!([GROUPS[0], GROUPS[1], GROUPS[2]].map(|code| picture.matches(code).count()), [2, 1, 2]);
    }
}
