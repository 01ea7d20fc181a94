//! The `optimize` command. Each subcommand has its own file; this one dispatches them and maps errors to exit codes:
//! 0 success, 1 failure, 2 usage error, 3 limit not met.

mod benchmark;
mod common;
mod compile;
mod distill;
mod ensemble;
mod evaluate;
mod generate;
mod inspect;
mod plan;
mod progress;
mod providers;
mod prune;
mod quantize;
mod run;
mod table;
mod technique;
mod tensorrt;

use clap::{Parser, Subcommand};
use optimize::error::{Error, Kind};
use std::process::ExitCode;

/// Make trained models smaller and faster, and run them without Python.
///
/// Results go to stdout, everything else to stderr.
#[derive(Parser)]
#[command(name = "optimize", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the contents of a model: inputs, outputs, operators, weights.
    Inspect(inspect::Arguments),
    /// Store weights in 8, 4 or 2 bits: a smaller and often faster model.
    Quantize(quantize::Arguments),
    /// Set weights to zero, or remove neurons, channels, heads and layers.
    Prune(prune::Arguments),
    /// Combine the outputs of several models, or merge them into one.
    Ensemble(ensemble::Arguments),
    /// Train a small model to answer like a large one, on a text file.
    Distill(distill::Arguments),
    /// Write a package that a program opens and runs.
    Compile(compile::Arguments),
    /// Build a TensorRT engine for NVIDIA GPUs.
    Tensorrt(tensorrt::Arguments),
    /// Compare a model with another: speed, size, memory, closeness.
    Benchmark(benchmark::Arguments),
    /// Measure a model on data: perplexity, accuracy, embeddings.
    Evaluate(evaluate::Arguments),
    /// Generate text with a decoder, streaming.
    Generate(generate::Arguments),
    /// Run a model once and print its outputs.
    Run(run::Arguments),
    /// List the execution providers that can be used here, and why not the others.
    Providers(providers::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Quantize(arguments) => quantize::run(arguments),
        Command::Prune(arguments) => prune::run(arguments),
        Command::Ensemble(arguments) => ensemble::run(arguments),
        Command::Distill(arguments) => distill::run(arguments),
        Command::Compile(arguments) => compile::run(arguments),
        Command::Tensorrt(arguments) => tensorrt::run(arguments),
        Command::Benchmark(arguments) => benchmark::run(arguments),
        Command::Evaluate(arguments) => evaluate::run(arguments),
        Command::Generate(arguments) => generate::run(arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Providers(arguments) => providers::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    eprintln!("optimize: {error}");
    match error.kind() {
        Kind::InvalidArgument => ExitCode::from(2),
        Kind::GateNotMet => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    }
}
