//! The `optimize` command. Each command has a file; this one says which there are and turns errors into
//! exit codes: 0 done, 1 failed, 2 usage, 3 a gate not met.

mod benchmark;
mod common;
mod compile;
mod distill;
mod ensemble;
mod evaluate;
mod generate;
mod inspect;
mod progress;
mod providers;
mod prune;
mod quantize;
mod run;
mod table;
mod tensorrt;

use clap::{Parser, Subcommand};
use optimize::error::{Error, Kind};
use std::process::ExitCode;

/// Make trained models smaller and faster, and run them. No Python needed.
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
    /// Say what is inside a model: inputs, outputs, operators, weights.
    Inspect(inspect::Arguments),
    /// Make a model's weights int8: a quarter of the size, and faster.
    Quantize(quantize::Arguments),
    /// Make weights zero, or take neurons, channels and heads out.
    Prune(prune::Arguments),
    /// Let several models answer together, or make one of them.
    Ensemble(ensemble::Arguments),
    /// Train a smaller model to answer as a larger one does, from a text file.
    Distill(distill::Arguments),
    /// Make a package: one artefact that a program opens and runs.
    Compile(compile::Arguments),
    /// Make a TensorRT engine, for NVIDIA's devices.
    Tensorrt(tensorrt::Arguments),
    /// Measure a model against another: speed, size, memory, closeness.
    Benchmark(benchmark::Arguments),
    /// Measure what a model is worth on data: perplexity, accuracy, embeddings.
    Evaluate(evaluate::Arguments),
    /// Write text with a decoder, streaming.
    Generate(generate::Arguments),
    /// Run a model once and print its outputs.
    Run(run::Arguments),
    /// Say what models can run on here, and why not on the rest.
    Providers(providers::Arguments),
}

fn main() -> ExitCode {
    // A closed pipe (`optimize inspect ... | head`) should end the command quietly, as it ends others.
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
