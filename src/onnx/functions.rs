//! The functions that a model defines: checks of their bodies, and the size of the model when calls are expanded.

use super::proto::{FunctionProto, ModelProto, NodeProto};
use super::validate::{Scope, all_nodes, check_nodes, operator_sets};
use crate::error::{Context, Result, bail};
use crate::limits;
use std::collections::HashMap;

/// Checks the bodies of all functions of a model, and adds their numbers of nodes to `nodes`. Fails with `InvalidModel`
/// if a function is invalid, calls itself or has the key of another, and `LimitExceeded` if the model has too many
/// nodes after each call is replaced by the body of its function, as ONNX Runtime does.
pub(super) fn check(model: &ModelProto, nodes: &mut usize) -> Result<()> {
    let mut known = HashMap::new();
    for (index, function) in model.functions.iter().enumerate() {
        let name = function.name.as_deref().unwrap_or("");
        body(function, nodes).at(|| format!("functions[{index}] {name:?}"))?;
        if known.insert(key(&function.domain, &function.name, &function.overload), index).is_some() {
            bail!(InvalidModel, "two functions are named {name:?}");
        }
    }
    if known.is_empty() {
        return Ok(());
    }
    let sizes = expanded_sizes(model, &known)?;
    let main = model.graph.iter().map(|graph| expanded_size(&graph.node, &known, &sizes));
    if main.fold(0, u64::saturating_add) > limits::NODES as u64 {
        bail!(LimitExceeded, "the model has more than {} nodes after its functions are expanded", limits::NODES);
    }
    Ok(())
}

fn body(function: &FunctionProto, nodes: &mut usize) -> Result<()> {
    if function.name.as_deref().unwrap_or("").is_empty() {
        bail!(InvalidModel, "a function has no name");
    }
    operator_sets(&function.opset_import)?;
    let names = function.input.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
    let none = Scope::default();
    let scope = check_nodes(&function.node, names, &none, 0, nodes)?;
    match function.output.iter().find(|name| !name.is_empty() && !scope.sees(name)) {
        Some(output) => bail!(InvalidModel, "no node produces the output {output:?} of a function"),
        None => Ok(()),
    }
}

type Key<'a> = (&'a str, &'a str, &'a str);

/// Returns the key of a call or function: its domain (empty for both spellings of `ai.onnx`), name and overload.
fn key<'a>(domain: &'a Option<String>, name: &'a Option<String>, overload: &'a Option<String>) -> Key<'a> {
    let domain = domain.as_deref().filter(|&d| d != "ai.onnx").unwrap_or("");
    (domain, name.as_deref().unwrap_or(""), overload.as_deref().unwrap_or(""))
}

/// Returns the indices of the functions that the nodes call, also in their subgraphs, once per call.
fn calls<'a>(list: &'a [NodeProto], known: &HashMap<Key<'a>, usize>) -> Vec<usize> {
    all_nodes(list).filter_map(|node| known.get(&key(&node.domain, &node.op_type, &node.overload)).copied()).collect()
}

/// Returns the number of nodes in `list` when every call is replaced by its function's body.
fn expanded_size<'a>(list: &'a [NodeProto], known: &HashMap<Key<'a>, usize>, sizes: &[u64]) -> u64 {
    let called = calls(list, known).into_iter().map(|index| sizes[index]);
    called.fold(all_nodes(list).count() as u64, u64::saturating_add)
}

/// Returns the expanded size of every function, by index. Fails with `InvalidModel` if there is recursion.
///
/// A small file can request 10^20 nodes (each function calls the next ten times), hence saturating sums.
fn expanded_sizes<'a>(model: &'a ModelProto, known: &HashMap<Key<'a>, usize>) -> Result<Vec<u64>> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Unseen,
        Open,
        Done,
    }
    let mut states = vec![State::Unseen; model.functions.len()];
    let mut sizes = vec![0; model.functions.len()];
    for start in 0..model.functions.len() {
        // Depth-first over the calls; a function that is reached again while it is open calls itself.
        let mut stack = vec![(start, false)];
        while let Some((index, leaving)) = stack.pop() {
            let list = &model.functions[index].node;
            if leaving {
                states[index] = State::Done;
                sizes[index] = expanded_size(list, known, &sizes);
                continue;
            }
            if states[index] != State::Unseen {
                continue;
            }
            states[index] = State::Open;
            stack.push((index, true));
            for called in calls(list, known) {
                if states[called] == State::Open {
                    let name = model.functions[called].name.as_deref().unwrap_or("");
                    bail!(InvalidModel, "functions[{called}]: the function {name:?} calls itself");
                }
                stack.push((called, false));
            }
        }
    }
    Ok(sizes)
}
