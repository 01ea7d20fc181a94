//! The comparison of promises with what was measured.

use super::report::{Promise, Row, Verdict};

/// The share of the original's size by which a result may miss the promised size: promises are rounded, and a package
/// also contains a tokenizer and a manifest.
const ROUNDED: f64 = 0.02;

/// Returns the verdicts of a measured row, one for each promise that was measured. `because` has the reasons for
/// promises that are not met, by size, speed and quality; an empty text stands for no reason.
pub(super) fn verdicts(row: &Row, because: [&str; 3]) -> Vec<Verdict> {
    let Promise { smaller, speedup, loss } = &row.promise;
    let with = |of: &str, met: bool, mut text: String, why: &str| {
        if !met && !why.is_empty() {
            text += &format!(": {why}");
        }
        Verdict { of: of.to_owned(), met, text }
    };
    let mut found = Vec::new();
    if let Some(promised) = smaller {
        let met = row.smaller >= promised - ROUNDED;
        let short = format!("{:.0} % smaller, {:.0} % promised", 100.0 * row.smaller, 100.0 * promised);
        found.push(with("size", met, short, because[0]));
    }
    if let (Some([from, to]), Some(speed)) = (speedup, row.headline()) {
        let reached = speed.speedup.value;
        let text = format!("{reached:.2}x at {}, {from}-{to}x promised", speed.size);
        // An interval that contains 1 shows no difference, whatever its middle is.
        let unclear =
            speed.speedup.low.filter(|low| *low <= 1.0 && speed.speedup.high.is_some_and(|high| high >= *from));
        let unclear = unclear.map(|low| format!("the interval begins at {low:.2}, so no difference is shown"));
        let met = reached >= *from && unclear.is_none();
        found.push(with("speed", met, text, unclear.as_deref().unwrap_or(because[1])));
    }
    if let Some((met, text)) = quality(row, loss) {
        let promised = match loss.as_str() {
            "better" => "better promised".to_owned(),
            "varies" => "no quality promised".to_owned(),
            loss => format!("{loss} loss promised"),
        };
        found.push(with("quality", met, format!("{text}, {promised}"), because[2]));
    }
    found
}

/// Returns whether the quality is as promised, and a text with the measured value; `None` if nothing is promised or
/// nothing was measured.
fn quality(row: &Row, loss: &str) -> Option<(bool, String)> {
    let (ratio, cosine, agreement) = match loss {
        "none" => (1.002, 0.9995, 0.998),
        "minimal" => (1.03, 0.99, 0.97),
        "moderate" => (1.25, 0.95, 0.9),
        "better" => (1.0, f64::INFINITY, f64::INFINITY),
        // `varies` promises nothing.
        "varies" => (f64::NEG_INFINITY, f64::INFINITY, f64::INFINITY),
        _ => return None,
    };
    if let Some(found) = row.figure("perplexity_ratio") {
        return Some((found.value <= ratio, format!("perplexity x {:.3}", found.value)));
    }
    if let Some(found) = row.figure("accuracy_change").filter(|_| loss == "better") {
        return Some((found.value > 0.0, format!("accuracy {:+.2} points", 100.0 * found.value)));
    }
    if let Some(found) = row.figure("cosine").filter(|_| loss != "better") {
        return Some((found.value >= cosine, format!("cosine {:.4}", found.value)));
    }
    let found = row.figure("top1_agreement").filter(|_| loss != "better")?;
    Some((found.value >= agreement, format!("top-1 agreement {:.3}", found.value)))
}

#[cfg(test)]
mod tests {
    use super::super::report::{Figure, Interval, Pair, Speed, State};
    use super::*;

    fn row(smaller: f64, speedup: f64, cosine: f64) -> Row {
        let ms = |value| Interval::exactly(value);
        Row {
            name: "int8".into(),
            title: String::new(),
            state: State::Measured,
            reason: None,
            recipe: Vec::new(),
            promise: Promise { smaller: Some(0.75), speedup: Some([1.5, 2.0]), loss: "minimal".into() },
            package: None,
            bytes: 0,
            smaller,
            made_seconds: 0.0,
            load_ms: None,
            resident_bytes: None,
            speed: vec![Speed {
                size: "1x128".into(),
                latency_ms: Pair { original: ms(speedup), result: ms(1.0) },
                speedup: ms(speedup),
            }],
            quality: vec![Figure { name: "cosine".into(), value: ms(cosine) }],
            verdicts: Vec::new(),
            actions: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn promises_are_met_or_the_reason_is_given() {
        let all = verdicts(&row(0.74, 2.5, 0.995), ["a", "b", "c"]);
        assert!(all.iter().all(|verdict| verdict.met) && all.len() == 3, "{all:?}");
        let none = verdicts(&row(0.6, 1.2, 0.9), ["tables stay", "no instructions", ""]);
        assert!(none.iter().all(|verdict| !verdict.met), "{none:?}");
        assert_eq!(none[0].text, "60 % smaller, 75 % promised: tables stay");
        assert_eq!(none[1].text, "1.20x at 1x128, 1.5-2x promised: no instructions");
        assert_eq!(none[2].text, "cosine 0.9000, minimal loss promised");
        let mut unclear = row(0.8, 1.9, 0.995);
        unclear.speed[0].speedup = Interval::new(1.9, (0.05, 6.0));
        let speed = &verdicts(&unclear, ["a", "b", "c"])[1];
        let text = "1.90x at 1x128, 1.5-2x promised: the interval begins at 0.05, so no difference is shown";
        assert_eq!((speed.met, speed.text.as_str()), (false, text));
        let mut varying = row(0.6, 1.2, 0.9);
        varying.promise.loss = "varies".into();
        let all = verdicts(&varying, ["", "", "trained briefly"]);
        assert_eq!(all[2].text, "cosine 0.9000, no quality promised: trained briefly");
    }
}
