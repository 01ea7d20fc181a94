//! The subcommand `optimize table`, which measures every technique on every model.

use crate::common::{self, Machine, Output};
use crate::read;
use clap::Args;
use optimize::error::{Kind, Result, bail};
use optimize::model::Model;
use optimize::table::{Row, State, Table, TableOptions, names, table};
use std::path::PathBuf;

/// Arguments of `table`.
#[derive(Args)]
pub struct Arguments {
    /// The models to which the techniques are applied
    #[arg(short, long, value_name = "MODEL", num_args = 1.., required_unless_present = "list_rows")]
    models: Vec<PathBuf>,
    /// The folder for table.md, table.json, table.html, and the measured packages
    #[arg(short, long, value_name = "FOLDER", required_unless_present = "list_rows")]
    output: Option<PathBuf>,
    /// A text for calibration, training and quality; if its lines have a label, a tab and a text, the accuracy of
    /// classifiers and embedding models is measured, too; - reads standard input [default: built-in sentences for
    /// quality; rows that need a text are skipped]
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Names of the rows to measure [default: all]
    #[arg(long, value_name = "ROW", num_args = 1.., value_delimiter = ',')]
    rows: Vec<String>,
    /// Only print the names of the rows
    #[arg(long, conflicts_with_all = ["models", "output", "rows"])]
    list_rows: bool,
    /// A second model for the row ensemble [default: the result of the row distill]
    #[arg(long, value_name = "MODEL")]
    with: Option<PathBuf>,
    /// Maximum number of timed rounds, for each size of the input and each of three sessions of a model
    #[arg(long, value_name = "N", default_value_t = 15)]
    runs: usize,
    /// Time limit in seconds for the rounds of one session with one size of the input
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
    max_seconds: f64,
    /// Time limit in seconds of each training
    #[arg(long, value_name = "SECONDS", default_value_t = 120.0)]
    training_seconds: f64,
    /// Also write the table as an HTML page to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    reporting: Output,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Some(output) = &arguments.output else {
        return common::print(&(names().join("\n") + "\n"));
    };
    let made = common::with_bar(&arguments.reporting, |bar| {
        let runtime = arguments.machine.runtime()?;
        let models = arguments.models.iter().map(|path| common::load(path, bar)).collect::<Result<Vec<Model>>>()?;
        let options = TableOptions {
            data: arguments.data.as_deref().map(read::text).transpose()?,
            rows: arguments.rows.clone(),
            with: arguments.with.clone(),
            threads: arguments.machine.threads,
            runs: arguments.runs,
            max_seconds: arguments.max_seconds,
            training_seconds: arguments.training_seconds,
            more: Some(optimize::page::files_of_table),
        };
        bar.call(|call| table(runtime, &models, &options, output, call))
    });
    if made.as_ref().is_err_and(|e| e.kind() == Kind::Cancelled) && !arguments.reporting.quiet {
        eprintln!("optimize: finished rows are in {}; the same command continues", output.display());
    }
    let made = made?;
    let page = output.join("table.html");
    if let Some(html) = &arguments.html {
        optimize::files::replace(html, &optimize::files::read(&page, optimize::limits::CONFIG_BYTES)?)?;
    }
    if arguments.reporting.json {
        common::print(&(serde_json::to_string_pretty(&made).unwrap_or_default() + "\n"))?;
    } else if !arguments.reporting.quiet {
        common::print(&(shown(&made) + &format!("\n{}\n", page.display())))?;
    }
    failures(&made, &arguments.reporting)
}

/// Prints the reasons of failed rows as warnings. Fails with `Unsupported` if rows failed and none was measured.
fn failures(made: &Table, output: &Output) -> Result<()> {
    let mut count = 0;
    for (model, row) in made.models.iter().flat_map(|model| model.rows.iter().map(move |row| (model, row))) {
        if row.state == State::Failed {
            let reason = row.reason.as_deref().unwrap_or_default();
            count += 1;
            output.warn(&format!("{}: the row {} failed: {}", model.name, row.name, reason));
        }
    }
    let measured = |model: &optimize::table::ModelTable| model.rows.iter().any(|row| row.state == State::Measured);
    if count > 0 && !made.models.iter().any(measured) {
        bail!(Unsupported, "no row was measured, and {count} failed");
    }
    Ok(())
}

/// Returns the table for a terminal, with a line per row.
fn shown(made: &Table) -> String {
    let mut text = String::new();
    for model in &made.models {
        let mut table = crate::table::Table::default();
        table.row(&[&model.name, "size", "speed-up", "load", "quality"]);
        model.rows.iter().for_each(|row| line(&mut table, row));
        text += &table.render();
        text.push('\n');
    }
    text
}

fn line(table: &mut crate::table::Table, row: &Row) {
    if row.state != State::Measured {
        let state = if row.state == State::Failed { "failed" } else { "not measured" };
        return table.row(&[&row.name, state]);
    }
    let size = format!("{:+.0} %", -100.0 * row.smaller);
    let speed = row.headline().map_or(String::new(), |speed| {
        let (value, of) = (speed.speedup, &speed.size);
        match (value.low, value.high) {
            (Some(low), Some(high)) => format!("{:.2}x [{low:.2}, {high:.2}] at {of}", value.value),
            _ => format!("{:.2}x at {of}", value.value),
        }
    });
    let load = row.load_ms.map_or(String::new(), |load| format!("{:.0} ms", load.result.value));
    let quality = row.quality.first();
    let quality = quality.map_or(String::new(), |figure| format!("{} {:.4}", figure.name, figure.value.value));
    table.row(&[&row.name, &size, &speed, &load, &quality]);
}
