//! The subcommands `optimize completions` and `optimize man`, which generate their output from the definition of the
//! command.

use crate::common;
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use optimize::error::{Context, Result};
use std::path::PathBuf;

/// Arguments of `completions`.
#[derive(Args)]
pub struct Completions {
    /// The shell for which to print completions
    #[arg(value_name = "bash|zsh|fish|elvish|powershell", hide_possible_values = true)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Args)]
pub struct Man {
    /// The subcommand whose page is printed [default: the page of the whole command]
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    command: Option<String>,
    /// Write the pages of all commands into this folder
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

fn definition() -> Command {
    crate::Arguments::command()
}

/// Prints the completion script for a shell. Fails with `Io` if standard output cannot be written.
pub fn completions(arguments: &Completions) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut definition(), "optimize", &mut text);
    common::print(&String::from_utf8_lossy(&text))
}

/// Prints a manual page, or writes all manual pages. Fails with `InvalidArgument` for an unknown command, and with
/// `NotFound` or `Io` if a page cannot be written.
pub fn man(arguments: &Man) -> Result<()> {
    if let Some(folder) = &arguments.output {
        std::fs::create_dir_all(folder).at(|| folder.display())?;
        return clap_mangen::generate_to(definition().disable_help_subcommand(true), folder).at(|| folder.display());
    }
    let mut command = definition();
    command.build();
    if let Some(name) = &arguments.command {
        let Some(found) = command.find_subcommand(name) else {
            optimize::error::bail!(InvalidArgument, "there is no command {name}");
        };
        command = found.clone().display_name(format!("optimize-{name}"));
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text).at(|| "standard output")?;
    common::print(&String::from_utf8_lossy(&text))
}
