//! The `optimize` command. Each subcommand has its own file; this one dispatches them and maps errors to exit codes:
//! 0 success, 1 failure, 2 usage error, 3 limit not met, 128 and the number of the signal that interrupted it.

mod apply;
mod benchmark;
mod classify;
mod common;
mod compile;
mod distill;
mod embed;
mod ensemble;
mod evaluate;
mod generate;
mod help;
mod inspect;
mod lines;
mod manual;
mod plan;
mod progress;
mod providers;
mod prune;
mod quantize;
mod read;
mod run;
mod signals;
mod table;
mod tag;
mod technique;
mod techniques;
mod tensorrt;
mod texts;
mod version;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use optimize::error::{Error, Kind, Result};
use std::process::ExitCode;

/// Make trained models smaller and faster, and run them without Python.
///
/// Results go to stdout, everything else to stderr.
#[derive(Parser)]
#[command(name = "optimize", max_term_width = 100, arg_required_else_help = true, after_help = help::COMMAND)]
struct Arguments {
    /// Print the version; with --verbose also the commit, ONNX Runtime, TensorRT and the processor
    #[arg(short = 'V', long)]
    version: bool,
    #[arg(short, long, requires = "version", hide = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Show the contents of a model: inputs, outputs, operators, weights.
    #[command(after_help = help::INSPECT)]
    Inspect(inspect::Arguments),
    /// Store the weights of a model in 8, 4 or 2 bits: smaller and often faster.
    #[command(after_help = help::QUANTIZE)]
    Quantize(quantize::Arguments),
    /// Set weights of a model to zero, or remove its neurons, channels, heads and layers.
    #[command(after_help = help::PRUNE)]
    Prune(prune::Arguments),
    /// Combine the outputs of several models, or merge the models into one.
    #[command(after_help = help::ENSEMBLE)]
    Ensemble(ensemble::Arguments),
    /// Train a small model to predict what a large one predicts, on a text file.
    #[command(after_help = help::DISTILL)]
    Distill(distill::Arguments),
    /// Write a package: a model prepared for programs that open and run it.
    #[command(after_help = help::COMPILE)]
    Compile(compile::Arguments),
    /// Build a TensorRT engine for NVIDIA GPUs.
    #[command(after_help = help::TENSORRT)]
    Tensorrt(tensorrt::Arguments),
    /// Apply a recipe, a list of techniques, to a model.
    #[command(after_help = help::APPLY)]
    Apply(apply::Arguments),
    /// Apply every technique to models, and measure size, speed, memory and quality.
    #[command(after_help = help::TABLE)]
    Table(techniques::Arguments),
    /// Compare two models: speed, size, memory, and outputs.
    #[command(after_help = help::BENCHMARK)]
    Benchmark(benchmark::Arguments),
    /// Measure the quality of a model on data: perplexity, accuracy, embeddings.
    #[command(after_help = help::EVALUATE)]
    Evaluate(evaluate::Arguments),
    /// Generate text with a decoder.
    #[command(after_help = help::GENERATE)]
    Generate(generate::Arguments),
    /// Compute vectors (embeddings) of texts.
    #[command(after_help = help::EMBED)]
    Embed(embed::Arguments),
    /// Compute scores of classes for texts or pairs of texts.
    #[command(after_help = help::CLASSIFY)]
    Classify(classify::Arguments),
    /// Find entities in texts, or label their words.
    #[command(after_help = help::TAG)]
    Tag(tag::Arguments),
    /// Run a model once and print its outputs.
    #[command(after_help = help::RUN)]
    Run(run::Arguments),
    /// List the available execution providers, and why others are not available.
    #[command(after_help = help::PROVIDERS)]
    Providers(providers::Arguments),
    /// Print a script that completes commands and flags in a shell.
    #[command(after_help = help::COMPLETIONS)]
    Completions(manual::Completions),
    /// Print the manual page of the command.
    #[command(after_help = help::MAN)]
    Man(manual::Man),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    signals::install();
    let outcome = match &arguments.command {
        _ if arguments.version => common::print(&if arguments.verbose { version::long() } else { version::short() }),
        None => Arguments::command().error(ErrorKind::MissingSubcommand, "a command is required").exit(),
        Some(command) => run(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Quantize(arguments) => quantize::run(arguments),
        Command::Prune(arguments) => prune::run(arguments),
        Command::Ensemble(arguments) => ensemble::run(arguments),
        Command::Distill(arguments) => distill::run(arguments),
        Command::Compile(arguments) => compile::run(arguments),
        Command::Tensorrt(arguments) => tensorrt::run(arguments),
        Command::Apply(arguments) => apply::run(arguments),
        Command::Table(arguments) => techniques::run(arguments),
        Command::Benchmark(arguments) => benchmark::run(arguments),
        Command::Evaluate(arguments) => evaluate::run(arguments),
        Command::Generate(arguments) => generate::run(arguments),
        Command::Embed(arguments) => embed::run(arguments),
        Command::Classify(arguments) => classify::run(arguments),
        Command::Tag(arguments) => tag::run(arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Providers(arguments) => providers::run(arguments),
        Command::Completions(arguments) => manual::completions(arguments),
        Command::Man(arguments) => manual::man(arguments),
    }
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("optimize: {error}");
    match error.kind() {
        Kind::InvalidArgument => ExitCode::from(2),
        Kind::GateNotMet => ExitCode::from(3),
        Kind::Cancelled => signals::exit_code().map_or(ExitCode::FAILURE, ExitCode::from),
        _ => ExitCode::FAILURE,
    }
}
