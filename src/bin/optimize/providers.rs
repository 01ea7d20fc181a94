//! The subcommand `optimize providers`, which lists the execution providers that can be used on this machine.

use crate::common::{self, Machine, Output};
use clap::Args;
use optimize::error::Result;
use optimize::runtime::{Provider, available};

/// Arguments of `providers`.
#[derive(Args)]
pub struct Arguments {
    /// Index of the device, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    device: u32,
    #[command(flatten, next_help_heading = "Runtime")]
    machine: Machine,
    #[command(flatten, next_help_heading = "Output")]
    output: Output,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> Result<()> {
    let runtime = arguments.machine.runtime()?;
    let found = available(runtime, arguments.device);
    if arguments.output.json {
        let text = serde_json::to_string_pretty(&found).unwrap_or_default();
        return common::print(&format!("{text}\n"));
    }
    common::print(&format!("ONNX Runtime {}  {}\n", runtime.version(), runtime.path().display()))?;
    for one in &found {
        let answer = one.reason.as_ref().map_or_else(|| "can be used".to_owned(), ToString::to_string);
        common::print(&format!("{:<9} {answer}\n", one.provider.name()))?;
        if one.provider == Provider::Cpu {
            let kernels = one.kernels_unused.as_ref().map_or_else(|| "can be used".to_owned(), |reason| reason.clone());
            common::print(&format!("{:<9} {kernels}\n", "kernels"))?;
        }
    }
    Ok(())
}
