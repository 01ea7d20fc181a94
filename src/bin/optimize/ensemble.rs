//! The subcommand `optimize ensemble`, which combines or merges several models.

use crate::common::{self, Machine, Output, Target};
use crate::generate::{self, Prompts, Writing};
use crate::read;
use crate::signals::Running;
use crate::table::Table;
use clap::Args;
use optimize::ensemble::fit::FitOptions;
use optimize::ensemble::{
    Ensemble, EnsembleOptions, EnsembleTask, FitReport, MergeMethod, MergeOptions, Method, merge,
};
use optimize::error::{Context, Result, bail};
use optimize::inputs::InputOptions;
use optimize::model::Model;
use optimize::onnx::save::ExternalData;
use optimize::report::Report;
use optimize::runtime::SessionOptions;
use optimize::verify::{self, Kept};
use std::path::{Path, PathBuf};

/// Arguments of `ensemble`.
#[derive(Args)]
pub struct Arguments {
    /// The member models
    #[arg(long, value_name = "MODEL", num_args = 1.., required = true)]
    models: Vec<PathBuf>,
    /// Text file to which the weights of the members are fitted; - reads standard input
    #[arg(long, value_name = "FILE")]
    fit: Option<PathBuf>,
    /// Number of tokens of that text to use [default: 8192]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, requires = "fit")]
    fit_tokens: usize,
    /// Path of the ensemble: a folder for its manifest, which --model of every command accepts; with --fuse or
    /// --merge an .onnx file or a folder for the model
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Write a model that contains all members as branches and combines their outputs
    #[arg(long, requires = "output", conflicts_with = "merge")]
    fuse: bool,
    #[command(flatten, next_help_heading = "Method")]
    how: How,
    #[command(flatten, next_help_heading = "Merging")]
    merging: Merging,
    #[command(flatten, next_help_heading = "Prompt")]
    prompts: Prompts,
    #[command(flatten, next_help_heading = "Sampling")]
    writing: Writing,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    report: Output,
}

/// Arguments for the combination of the members' outputs.
#[derive(Args)]
struct How {
    /// Method by which the distributions of the members are combined
    #[arg(long, value_enum, default_value_t = Method::Mean)]
    method: Method,
    /// Weights of the members, as A,B,C; their sum is normalized to 1 [default: equal weights]
    #[arg(long, value_name = "W,W,...", value_delimiter = ',')]
    weights: Vec<f64>,
    /// Temperatures of the members' logits, as A,B,C [default: 1]
    #[arg(long, value_name = "T,T,...", value_delimiter = ',')]
    temperatures: Vec<f64>,
    /// Combine distributions only if the members' most probable tokens differ; otherwise use that of the first member
    #[arg(long)]
    gate: bool,
    /// Allow members with different vocabularies, which are combined by the text of their tokens
    #[arg(long)]
    allow_different_vocabularies: bool,
    /// Rerank: number of texts that each member generates [default: 1]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    candidates: usize,
    /// Rerank: exponent of the number of tokens by which the log-probability of a text is divided [default: 1]
    #[arg(long, value_name = "X")]
    length_penalty: Option<f64>,
    /// Task of the members [default: detected from the members]
    #[arg(long, value_enum)]
    task: Option<EnsembleTask>,
}

/// Arguments for merging weights.
#[derive(Args)]
struct Merging {
    /// Write a model with the merged weights of the members
    #[arg(long, value_enum, requires = "output")]
    merge: Option<MergeMethod>,
    /// Ties: the base model, from which the members were trained
    #[arg(long, value_name = "MODEL", requires = "merge")]
    base: Option<PathBuf>,
    /// Ties: share of each member's changes to keep
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    density: f64,
    /// Ties: factor by which the mean change is multiplied
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    scale: f64,
}

impl How {
    fn options(&self, fits: bool) -> EnsembleOptions {
        let method = match self.method {
            // The option `--fit` determines the weights.
            Method::Weighted if fits && self.weights.is_empty() => Method::Mean,
            given => given,
        };
        EnsembleOptions {
            method,
            weights: self.weights.clone(),
            temperatures: self.temperatures.clone(),
            gate: self.gate,
            allow_different_vocabularies: self.allow_different_vocabularies,
            candidates: self.candidates,
            length_penalty: self.length_penalty,
            task: self.task.map(Into::into),
        }
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let bar = arguments.report.bar();
    let load = |path: &PathBuf| common::load(path, &bar);
    let models = arguments.models.iter().map(load).collect::<Result<Vec<_>>>()?;
    if let Some(method) = arguments.merging.merge {
        let outcome = merged(arguments, method, &models, &bar);
        bar.finish();
        return outcome;
    }
    let mut ensemble = Ensemble::new(models, arguments.how.options(arguments.fit.is_some()))?;
    let mut fitted = None;
    if let Some(file) = &arguments.fit {
        let text = read::text(file)?;
        let options = FitOptions {
            max_tokens: arguments.fit_tokens,
            threads: arguments.machine.threads,
            ..FitOptions::default()
        };
        let runtime = arguments.machine.runtime()?;
        let found = bar.call(|call| ensemble.fit(runtime, &text, &options, call)).at(|| file.display())?;
        ensemble = found.0;
        fitted = Some(found.1);
    }
    bar.finish();
    ensemble.notes().iter().for_each(|note| arguments.report.warn(note));
    if let Some(found) = &fitted {
        show_fit(arguments, found)?;
    }
    let asked = arguments.prompts.asked();
    match &arguments.output {
        Some(output) if arguments.fuse => fused(arguments, &ensemble, output, &bar)?,
        Some(output) => {
            let file = ensemble.save(output)?;
            if !arguments.report.quiet && !arguments.report.json {
                common::print(&format!("{}  {} members\n", file.display(), ensemble.members().len()))?;
            }
        }
        None if !asked && fitted.is_none() => {
            bail!(InvalidArgument, "one of --prompt, --output and --fit is required")
        }
        None => {}
    }
    if !asked {
        return Ok(());
    }
    let runtime = arguments.machine.runtime()?;
    let session = SessionOptions { threads: arguments.machine.threads, ..SessionOptions::default() };
    let mut generator = bar.call(|call| ensemble.generator(runtime, &session, call))?;
    bar.finish();
    let model = &ensemble.members()[0].model;
    generate::write(&arguments.prompts, &arguments.writing, &arguments.report, model, &mut *generator)
}

fn fused(arguments: &Arguments, ensemble: &Ensemble, output: &Path, bar: &crate::progress::Bar) -> Result<()> {
    let (model, mut report) = bar.call(|call| ensemble.fuse(call))?;
    let members: Vec<&Model> = ensemble.members().iter().map(|member| &member.model).collect();
    let (machine, alike) = (&arguments.machine, ensemble.has_outputs_alike());
    match machine.runtime() {
        Ok(runtime) => bar.call(|call| {
            verify::examine_fused(runtime, (&members, &model), machine.threads, alike, &mut report, call)
        })?,
        Err(e) => drop(report.summary.insert("not_verified".into(), e.to_string().into())),
    }
    save(arguments, &model, output, &mut report, bar)
}

fn merged(arguments: &Arguments, method: MergeMethod, models: &[Model], bar: &crate::progress::Bar) -> Result<()> {
    // The parser requires --output together with --merge.
    let Some(output) = &arguments.output else { bail!(InvalidArgument, "--merge needs --output") };
    let base = arguments.merging.base.as_ref().map(|path| common::load(path, bar)).transpose()?;
    let _running = Running::begin();
    let target = Target::prepare(output)?;
    let options = MergeOptions {
        method,
        weights: arguments.how.weights.clone(),
        density: arguments.merging.density,
        scale: arguments.merging.scale,
        scratch_folder: Some(target.scratch()),
    };
    let (model, mut report) = bar.call(|call| merge(models, base.as_ref(), &options, call))?;
    let inputs = InputOptions::default();
    common::examine(&arguments.machine, (&models[0], &model), Kept::Exactly, &inputs, &mut report, bar)?;
    common::notes(&report).for_each(|note| arguments.report.warn(note));
    save(arguments, &model, output, &mut report, bar)
}

fn save(
    arguments: &Arguments,
    model: &Model,
    output: &Path,
    report: &mut Report,
    bar: &crate::progress::Bar,
) -> Result<()> {
    let _running = Running::begin();
    let target = Target::prepare(output)?;
    let saved = bar.call(|call| model.save(&target.file, ExternalData::Auto, call))?;
    target.carry_along(model)?;
    report.output = Some(saved.identity());
    bar.finish();
    arguments.report.warn_of(report);
    if arguments.report.json {
        common::print(&report.to_json())?;
    } else if !arguments.report.quiet {
        let mut table = Table::default();
        table.row(&["", "bytes"]);
        for path in &arguments.models {
            let size = Model::load(path).map_or(0, |model| model.bytes());
            table.row(&[&path.display().to_string(), &size.to_string()]);
        }
        let bytes = saved.identity().bytes.to_string();
        table.row(&[&target.file.display().to_string(), &bytes]);
        common::print(&table.render())?;
    }
    Ok(())
}

fn show_fit(arguments: &Arguments, found: &FitReport) -> Result<()> {
    if arguments.report.json {
        // The command prints one JSON object: about the fused model or the generated text if there is one, otherwise
        // about the fit.
        if !arguments.prompts.asked() && !arguments.fuse {
            let text = serde_json::to_string(found).unwrap_or_default();
            common::print(&format!("{text}\n"))?;
        }
        return Ok(());
    }
    if arguments.report.quiet {
        return Ok(());
    }
    let mut table = Table::default();
    table.row(&["", "weight", "nats per token", "perplexity"]);
    let figures = |nll: f64| (format!("{nll:.4}"), format!("{:.3}", nll.exp()));
    for ((path, weight), nll) in arguments.models.iter().zip(&found.weights).zip(&found.member_nll) {
        let (nats, perplexity) = figures(*nll);
        table.row(&[&path.display().to_string(), &format!("{weight:.4}"), &nats, &perplexity]);
    }
    for (name, nll) in [("equal weights", found.equal_nll), ("fitted weights", found.fitted_nll)] {
        let (nats, perplexity) = figures(nll);
        table.row(&[name, "", &nats, &perplexity]);
    }
    // If the command also generates text, stdout contains only the text.
    if arguments.prompts.asked() {
        eprint!("{}", table.render());
        return Ok(());
    }
    common::print(&table.render())
}
