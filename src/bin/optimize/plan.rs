//! The option `optimize inspect --plan`, which estimates the result of each common type of quantization, and on request
//! measures it.

use crate::benchmark::{self, Inputs};
use crate::common::{self, Machine, Output};
use crate::progress::Bar;
use crate::table::{Table, bytes};
use optimize::benchmark::{attach, brief};
use optimize::error::{Kind, Result};
use optimize::model::Model;
use optimize::quantize::{QuantizeOptions, QuantizeType, forecast, quantize};
use optimize::report::Report;

/// The flags for measuring the results; `None` if the results are only estimated.
type Measuring<'m> = Option<(&'m Inputs, &'m Machine)>;

/// The flags of a type of quantization, and its report or the reason why it is not possible.
type Planned = (&'static str, Result<Report>);

/// Prints a row for each type of quantization that is possible. Fails if none is possible.
pub fn run(model: &Model, measuring: Measuring<'_>, output: &Output) -> Result<()> {
    let reports = common::with_bar(output, |bar| {
        let one = |(form, options)| match planned(model, &options, measuring, bar) {
            Err(e) if e.kind() != Kind::Unsupported => Err(e),
            report => Ok((form, report)),
        };
        forms().into_iter().map(one).collect::<Result<Vec<Planned>>>()
    })?;
    print(reports, measuring.is_some(), output)
}

/// Returns the common types of quantization: the flags of `optimize quantize`, and the options.
fn forms() -> [(&'static str, QuantizeOptions); 4] {
    let weight_only = |bits, block_size| QuantizeOptions {
        quantize_type: QuantizeType::WeightOnly,
        bits,
        block_size,
        ..QuantizeOptions::default()
    };
    [
        ("--type dynamic", QuantizeOptions::default()),
        ("--type weight-only --bits 8", weight_only(8, 0)),
        ("--type weight-only --bits 4 --block-size 16", weight_only(4, 16)),
        ("--type weight-only --bits 4", weight_only(4, 0)),
    ]
}

/// Returns the estimate for a type of quantization. If measuring is requested, the estimate also has the results of a
/// brief benchmark, or the reason why there are none in `not_measured`.
fn planned(model: &Model, options: &QuantizeOptions, measuring: Measuring<'_>, bar: &Bar) -> Result<Report> {
    let mut report = forecast(model, options)?;
    let Some((inputs, machine)) = measuring else { return Ok(report) };
    let runtime = machine.runtime()?;
    let tokenizer = common::tokenizer(inputs.tokenizer.as_deref(), model)?;
    let how = benchmark::options(inputs, machine, Vec::new(), None)?;
    let measured = bar.call(|call| {
        let (result, _) = quantize(model, options, call)?;
        brief(runtime, model, &result, tokenizer.as_ref(), &how, call)
    });
    match measured {
        Ok((speed, quality)) => attach(&mut report, &speed, &quality),
        Err(e) if matches!(e.kind(), Kind::Cancelled | Kind::Timeout) => return Err(e),
        Err(e) => drop(report.summary.insert("not_measured".into(), e.to_string().into())),
    }
    Ok(report)
}

fn print(mut reports: Vec<Planned>, measured: bool, output: &Output) -> Result<()> {
    if reports.iter().all(|(_, report)| report.is_err()) {
        return reports.swap_remove(0).1.map(drop);
    }
    if output.json {
        let text: Vec<String> = reports.iter().flat_map(|(_, report)| report).map(Report::to_json).collect();
        return common::print(&format!("[{}]\n", text.join(",")));
    }
    let mut table = Table::default();
    let mut heads = vec!["optimize quantize", "size", "of the original", "nodes", "stored", "left"];
    heads.extend(["time", "memory", "kernels"]);
    if measured {
        heads.extend(["speed-up", "cosine", "KL (nats)"]);
    }
    table.row(&heads);
    let mut notes = String::new();
    for (form, report) in reports {
        let report = match report {
            Ok(report) => report,
            Err(e) => {
                notes.push_str(&format!("\n{form} is not possible: {e}.\n"));
                continue;
            }
        };
        let mut cells = estimated(form, &report);
        if measured {
            cells.extend(figures(&report));
        }
        if let Some(why) = report.summary.get("not_measured").and_then(|why| why.as_str()) {
            notes.push_str(&format!("\n{form} was not measured: {why}.\n"));
        }
        table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    common::print(&(table.render() + &notes))
}

fn estimated(form: &str, report: &Report) -> Vec<String> {
    let number = |key: &str| report.summary.get(key).and_then(|value| value.as_f64()).unwrap_or(0.0);
    let kernels = report.summary.get("kernels").and_then(|value| value.as_str()).unwrap_or("");
    vec![
        form.to_owned(),
        bytes(number("bytes_after") as u64),
        format!("{:.1} %", 100.0 * number("bytes_after") / number("bytes_before")),
        number("nodes_quantized").to_string(),
        number("nodes_stored").to_string(),
        number("nodes_left").to_string(),
        format!("{:.1} s", number("seconds")),
        bytes(number("memory_bytes") as u64),
        kernels.to_owned(),
    ]
}

/// Returns the measured results as text: the speed-up with its interval, and the closeness of the outputs.
fn figures(report: &Report) -> Vec<String> {
    let of = |part: &Option<serde_json::Value>, path: &str| part.as_ref()?.pointer(path)?.as_f64();
    let speed = |key| of(&report.benchmark, &format!("/speedup/{key}"));
    let speed = match (speed("median"), speed("low"), speed("high")) {
        (Some(ratio), Some(low), Some(high)) => format!("{ratio:.2}x [{low:.2}, {high:.2}]"),
        _ => String::new(),
    };
    let quality = |path, digits: usize| of(&report.quality, path).map_or(String::new(), |v| format!("{v:.digits$}"));
    vec![speed, quality("/cosine", 5), quality("/kl", 5)]
}
