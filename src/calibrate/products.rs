//! Products of large matrices, with the kernels of ONNX Runtime.

use crate::call::Call;
use crate::error::{Result, bail};
use crate::graph::edit;
use crate::model::Model;
use crate::onnx::dtype::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto};
use crate::runtime::{Runtime, Session, SessionOptions, Stop, Tensor};

/// Two sessions of ONNX Runtime, which compute the products `A B` and `Aᵀ B` of float32 matrices.
pub struct Products {
    plain: Session,
    transposed: Session,
}

impl Products {
    /// Creates the two sessions with this number of threads each (0 for one per physical core), and returns them. Fails
    /// like [`Session::new`].
    pub fn new(runtime: &'static Runtime, threads: usize) -> Result<Products> {
        Ok(Products { plain: session(runtime, threads, false)?, transposed: session(runtime, threads, true)? })
    }

    /// Returns `A B`, row by row; `a` is `[m, k]` and `b` is `[k, n]`. Fails like [`Session::run_until`].
    pub fn product(&mut self, a: &Tensor, b: &Tensor, stop: &Stop) -> Result<Vec<f32>> {
        run(&self.plain, a, b, stop)
    }

    /// Returns `Aᵀ B`, row by row; `a` is `[k, m]` and `b` is `[k, n]`. Fails like [`Session::run_until`].
    pub fn transposed(&mut self, a: &Tensor, b: &Tensor, stop: &Stop) -> Result<Vec<f32>> {
        run(&self.transposed, a, b, stop)
    }
}

fn session(runtime: &'static Runtime, threads: usize, transposed: bool) -> Result<Session> {
    let mut nodes = Vec::new();
    if transposed {
        let mut turn = edit::node("Transpose", &["a"], &["at"]);
        turn.attribute = vec![edit::ints_attribute("perm", &[1, 0])];
        nodes.push(turn);
    }
    nodes.push(edit::node("MatMul", &[if transposed { "at" } else { "a" }, "b"], &["y"]));
    let info = |name| edit::value(name, DataType::Float32, 2);
    let graph = GraphProto {
        name: Some("product".to_owned()),
        node: nodes,
        input: vec![info("a"), info("b")],
        output: vec![info("y")],
        ..Default::default()
    };
    let opset = OperatorSetIdProto { version: Some(17), ..Default::default() };
    let proto = ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset],
        graph: Some(Box::new(graph)),
        ..Default::default()
    };
    let options = SessionOptions { threads, varying_sizes: true, ..SessionOptions::stock() };
    Session::new(runtime, &Model::from_proto(proto), &options, &Call::default())
}

fn run(session: &Session, a: &Tensor, b: &Tensor, stop: &Stop) -> Result<Vec<f32>> {
    let Some((_, y)) = session.run_until(&[("a", a), ("b", b)], &["y"], stop)?.pop() else {
        bail!(Internal, "a product has no result");
    };
    y.to_f32_vec()
}
