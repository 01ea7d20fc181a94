//! Progress on stderr: a bar, or lines of JSON.

use crate::lines::Lines;
use crate::signals;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use optimize::call::{Call, Progress, Stage};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::ControlFlow;

/// Values of `--progress`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A bar, if stderr is a terminal
    #[default]
    Auto,
    /// One JSON object per line on stderr, at most 20 per second
    Json,
    /// No progress
    None,
}

/// The progress of an operation, shown on stderr.
pub struct Bar {
    /// The bar; hidden if no bar is shown.
    bar: ProgressBar,
    /// The writer of lines of JSON; `None` without `--progress json`.
    lines: Option<Lines>,
    stage: RefCell<String>,
    /// Warnings that were already printed; `None` if no warnings are printed.
    said: RefCell<Option<HashSet<String>>>,
}

impl Bar {
    /// Returns the progress in the form that `--progress` and `--quiet` select. A bar is hidden if stderr is not a
    /// terminal.
    pub fn new(form: Form, quiet: bool) -> Bar {
        let target = match form {
            Form::Auto if !quiet => ProgressDrawTarget::stderr(),
            _ => ProgressDrawTarget::hidden(),
        };
        Bar {
            bar: ProgressBar::with_draw_target(None, target),
            lines: (form == Form::Json).then(Lines::default),
            stage: RefCell::default(),
            said: RefCell::new((!quiet).then(HashSet::new)),
        }
    }

    /// Calls `body` with a [`Call`] that reports to this bar and is cancelled by SIGINT or SIGTERM, and returns the
    /// result of `body`.
    pub fn call<T>(&self, body: impl FnOnce(&Call<'_>) -> T) -> T {
        let progress = |p: Progress<'_>| {
            self.show(&p);
            ControlFlow::Continue(())
        };
        signals::cancelling(|cancel| body(&Call { progress: Some(&progress), cancel: Some(cancel), deadline: None }))
    }

    fn show(&self, progress: &Progress<'_>) {
        if let Some(lines) = &self.lines {
            return lines.write(progress);
        }
        // The rows of a table are one stage, whose remaining time is that of all rows.
        let (stage, row) = progress.stage.split_once(": ").unwrap_or((progress.stage, ""));
        if *self.stage.borrow() != stage {
            *self.stage.borrow_mut() = stage.to_owned();
            let units = match progress.unit {
                "thousandths" => "{percent} % {prefix}".to_owned(),
                "bytes" => "{bytes}/{total_bytes}".to_owned(),
                unit => format!("{{pos}}/{{len}} {unit}"),
            };
            // Distillation estimates its remaining time itself.
            let end = if stage == "distill" { "{prefix}" } else { "{eta}" };
            let template = format!("{{msg:10}} [{{bar:30}}] {units} {end}");
            if let Ok(style) = ProgressStyle::with_template(&template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
            self.bar.reset();
            self.bar.set_message(stage.to_owned());
        }
        if !row.is_empty() {
            self.bar.set_prefix(row.to_owned());
        }
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
    }

    /// Prints a warning above the bar, unless it was printed before or `--quiet` is given.
    pub fn warn(&self, text: &str) {
        if self.said.borrow_mut().as_mut().is_some_and(|said| said.insert(text.to_owned())) {
            self.bar.suspend(|| eprintln!("optimize: warning: {text}"));
        }
    }

    /// Shows details of a stage: as a short text next to the bar, or as fields of the following lines of JSON.
    pub fn say(&self, stage: Stage, text: &str, fields: Value) {
        match &self.lines {
            Some(lines) => lines.say(stage, fields),
            None => self.bar.set_prefix(text.to_owned()),
        }
    }

    /// Removes the bar from the terminal.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
