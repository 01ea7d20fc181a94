//! The progress bar of the command.

use crate::signals;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use optimize::call::{Call, Progress};
use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::ControlFlow;

/// The stages that count rounds, texts or tokens; the others count bytes.
const COUNTED: [&str; 7] = ["benchmark", "build", "distill", "evaluate", "generate", "precision", "prompt"];

/// A progress bar on stderr, which shows the stages of an operation. It is hidden if stderr is not a terminal.
pub struct Bar {
    bar: ProgressBar,
    stage: RefCell<String>,
    /// Warnings that were already printed; `None` if no warnings are printed.
    said: RefCell<Option<HashSet<String>>>,
}

impl Bar {
    /// Returns a progress bar. It is visible if `visible` is set and stderr is a terminal.
    pub fn new(visible: bool) -> Bar {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let said = RefCell::new(visible.then(HashSet::new));
        Bar { bar: ProgressBar::with_draw_target(None, target), stage: RefCell::default(), said }
    }

    /// Calls `body` with a [`Call`] that reports to this bar, and returns its result.
    pub fn call<T>(&self, body: impl FnOnce(&Call<'_>) -> T) -> T {
        let progress = |p: Progress<'_>| {
            self.show(&p);
            ControlFlow::Continue(())
        };
        signals::cancelling(|cancel| body(&Call { progress: Some(&progress), cancel: Some(cancel), deadline: None }))
    }

    fn show(&self, progress: &Progress<'_>) {
        // The rows of a table are one stage, whose remaining time is that of all rows.
        let (stage, part) = progress.stage.split_once(": ").unwrap_or((progress.stage, ""));
        if *self.stage.borrow() != stage {
            *self.stage.borrow_mut() = stage.to_owned();
            let units = match stage {
                "table" => "{percent} % {prefix}",
                stage if COUNTED.contains(&stage) => "{pos}/{len}",
                _ => "{bytes}/{total_bytes}",
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
        if !part.is_empty() {
            self.bar.set_prefix(part.to_owned());
        }
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.done);
    }

    /// Prints a warning above the bar, unless it was printed before.
    pub fn warn(&self, text: &str) {
        if self.said.borrow_mut().as_mut().is_some_and(|said| said.insert(text.to_owned())) {
            self.bar.suspend(|| eprintln!("optimize: warning: {text}"));
        }
    }

    /// Shows a short text next to the bar.
    pub fn say(&self, text: &str) {
        self.bar.set_prefix(text.to_owned());
    }

    /// Removes the bar from the terminal.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
