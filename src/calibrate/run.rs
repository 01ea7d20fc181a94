//! The arguments of work on calibration data: the data, ONNX Runtime, and the call to report to.

use super::Batch;
use crate::call::Ticket;
use crate::runtime::{Runtime, Stop};

/// Calibration data, with the ONNX Runtime that runs models on them.
#[derive(Clone, Copy)]
pub struct Data<'d> {
    /// ONNX Runtime that runs models on the data.
    pub runtime: &'static Runtime,
    /// Batches of inputs on which the model is run.
    pub batches: &'d [Batch],
}

/// A part of a call on calibration data.
#[derive(Clone, Copy)]
pub struct Run<'r> {
    /// ONNX Runtime that runs models on the data.
    pub runtime: &'static Runtime,
    /// Batches of inputs on which the model is run.
    pub batches: &'r [Batch],
    /// Number of threads of each session; 0 for one per physical core.
    pub threads: usize,
    /// Ticket that counts the finished work, and ends it when the call ends.
    pub ticket: &'r Ticket,
    /// Stop that ends a run of a session when the call ends.
    pub stop: &'r Stop,
}

impl<'d> Data<'d> {
    /// Returns the arguments of a part of a call on these data.
    pub fn run<'r>(self, threads: usize, ticket: &'r Ticket, stop: &'r Stop) -> Run<'r>
    where
        'd: 'r,
    {
        let Data { runtime, batches } = self;
        Run { runtime, batches, threads, ticket, stop }
    }
}
