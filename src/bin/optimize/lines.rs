//! `--progress json`: progress as lines of JSON on stderr.

use optimize::call::{Progress, Seldom, Stage};
use serde::Serialize;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::io::Write;
use std::time::Instant;

/// The writer of the lines of JSON about one operation.
#[derive(Default)]
pub struct Lines {
    seldom: Seldom,
    /// The stage, the units that were done when it began, and its beginning.
    began: RefCell<Option<(String, u64, Instant)>>,
    /// The last number of units done.
    done: RefCell<u64>,
    /// The name of a stage, and additional fields of its lines.
    fields: RefCell<(String, Map<String, Value>)>,
}

/// A line of JSON, with the fields that `docs/command.md` describes.
#[derive(Serialize)]
struct Line<'l> {
    stage: &'l str,
    /// The part of the stage's name after `: `, which is the row that `optimize table` measures.
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<&'l str>,
    done: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    unit: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_left: Option<f64>,
    #[serde(flatten)]
    fields: &'l Map<String, Value>,
}

impl Lines {
    /// Writes a line, unless the previous one is recent. Errors of writing are ignored.
    pub fn write(&self, progress: &Progress<'_>) {
        let seconds_left = self.seconds_left(progress);
        if !self.seldom.passes(progress) {
            return;
        }
        let (stage, row) = match progress.stage.split_once(": ") {
            Some((stage, row)) => (stage, Some(row)),
            None => (progress.stage, None),
        };
        let of_stage = self.fields.borrow();
        let none = Map::new();
        let fields = if of_stage.0 == stage { &of_stage.1 } else { &none };
        // An operation may estimate its remaining time itself.
        let seconds_left = seconds_left.filter(|_| !fields.contains_key("seconds_left"));
        let (done, total, unit) = (progress.done, (progress.total > 0).then_some(progress.total), progress.unit);
        let line = Line { stage, row, done, total, unit, seconds_left, fields };
        let text = serde_json::to_string(&line).unwrap_or_default() + "\n";
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
    }

    /// Adds fields to the following lines of a stage, instead of those that were added before.
    pub fn say(&self, stage: Stage, fields: Value) {
        if let Value::Object(fields) = fields {
            *self.fields.borrow_mut() = (stage.name.to_owned(), fields);
        }
    }

    /// Returns the remaining time of the stage if it goes on at the same speed; `None` if that is not known yet.
    fn seconds_left(&self, progress: &Progress<'_>) -> Option<f64> {
        let stage = progress.stage.split(": ").next().unwrap_or_default();
        let before = self.done.replace(progress.done);
        let mut began = self.began.borrow_mut();
        let (start, since) = match &*began {
            Some((name, start, since)) if name == stage && progress.done >= before => (*start, *since),
            _ => {
                let now = Instant::now();
                *began = Some((stage.to_owned(), progress.done, now));
                (progress.done, now)
            }
        };
        let (worked, left) = (progress.done.checked_sub(start)?, progress.total.checked_sub(progress.done)?);
        let seconds = since.elapsed().as_secs_f64() * left as f64 / worked as f64;
        (worked > 0 && progress.total > 0).then(|| (seconds * 1000.0).round() / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_time_is_that_of_the_stage() {
        let lines = Lines::default();
        let left = |stage, done, total| lines.seconds_left(&Progress { stage, done, total, unit: "steps" });
        assert_eq!(left("build", 0, 4), None);
        std::thread::sleep(std::time::Duration::from_millis(30));
        let (half, rest) = (left("build", 2, 4).unwrap(), left("build", 3, 4).unwrap());
        assert!(half >= 0.03 && rest >= 0.01, "{half} {rest}");
        assert_eq!(left("build", 4, 4), Some(0.0));
        assert_eq!(left("build", 1, 4), None, "a second pass begins");
        assert_eq!(left("precision", 2, 0), None);
        assert_eq!(left("precision", 3, 0), None, "the total is unknown");
    }
}
