//! Rules for matrix products.

use crate::autodiff::{Parts, Step, Tape};
use crate::error::Result;
use crate::graph::edit;

/// Returns the gradients of `A B`: `g Bᵀ` and `Aᵀ g`; broadcast batch dimensions are summed. Fails like [every
/// rule](super).
pub fn matmul(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, a, b) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let (rank_a, rank_b) = (t.rank(a)?, t.rank(b)?);
    if rank_a < 2 || rank_b < 2 {
        return vector(t, step, rank_a, rank_b);
    }
    let rank = rank_a.max(rank_b);
    let (for_a, for_b) = (t.wants(&step.node, 0), t.wants(&step.node, 1));
    let mut parts = Vec::new();
    if for_a {
        let transposed = t.transposed(b, rank_b);
        let whole = t.op("MatMul", &[g, &transposed]);
        parts.push((0, if rank_b == 2 { whole } else { unbatched(t, &whole, a, step.output()) }));
    }
    if for_b && rank_b == 2 {
        let (rows, columns) = (flat(t, a, b, 0)?, flat(t, g, b, 1)?);
        let transposed = t.transposed(if rank_a == 2 { a } else { &rows }, 2);
        parts.push((1, t.op("MatMul", &[&transposed, if rank_a == 2 { g } else { &columns }])));
    } else if for_b {
        let transposed = t.transposed(a, rank_a);
        let whole = t.op("MatMul", &[&transposed, g]);
        debug_assert!(rank >= rank_b);
        parts.push((1, unbatched(t, &whole, b, step.output())));
    }
    Ok(parts)
}

/// Returns the gradients of a product with a vector: gradient and vector become matrices of one row or column.
fn vector(t: &mut Tape, step: &Step, rank_a: usize, rank_b: usize) -> Result<Parts> {
    let (g, a, b) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let mut wide = |value: &str, axes: &[i64]| {
        let axes = t.ints(axes);
        t.op("Unsqueeze", &[value, &axes])
    };
    // y[.., m, n] = a[.., m, k] b[.., k, n], with m or n of 1.
    let left = if rank_a == 1 { wide(a, &[0]) } else { a.to_owned() };
    let right = if rank_b == 1 { wide(b, &[1]) } else { b.to_owned() };
    let g = match (rank_a, rank_b) {
        (1, 1) => wide(g, &[0, 1]),
        (1, _) => wide(g, &[-2]),
        _ => wide(g, &[-1]),
    };
    let mut parts = Vec::new();
    for (input, target) in [(0, a), (1, b)] {
        if !t.wants(&step.node, input) {
            continue;
        }
        let whole = if input == 0 {
            let transposed = t.transposed(&right, rank_b.max(2));
            t.op("MatMul", &[&g, &transposed])
        } else {
            let transposed = t.transposed(&left, rank_a.max(2));
            t.op("MatMul", &[&transposed, &g])
        };
        // A vector that several batches share gets the sum of their gradients.
        let shape = t.shape(target);
        let own = [rank_a, rank_b][input];
        parts.push((
            input,
            if own > 1 {
                t.op("Reshape", &[&whole, &shape])
            } else {
                // The gradient is [.., 1, k] or [.., k, 1]. Its elements in order are rows of k elements, which are
                // summed.
                let rows = t.ints(&[-1]);
                let rows = t.concat(&[&rows, &shape], 0);
                let rows = t.op("Reshape", &[&whole, &rows]);
                t.sum(&rows, &[0], false)
            },
        ));
    }
    Ok(parts)
}

/// Adds a `Reshape` of `value` to rows of the size that `matrix` has along `axis`, and returns the name of the result.
fn flat(t: &mut Tape, value: &str, matrix: &str, axis: usize) -> Result<String> {
    let size = t.size(matrix, axis);
    let rest = t.ints(&[-1]);
    let shape = t.op_with("Concat", &[&rest, &size], vec![edit::int_attribute("axis", 0)]);
    Ok(t.op("Reshape", &[value, &shape]))
}

/// Adds nodes that sum `whole` over the batch dimensions along which `target` was broadcast, and returns the name of
/// the sum. `out` is the output of the product.
fn unbatched(t: &mut Tape, whole: &str, target: &str, out: &str) -> String {
    if let (Some(to), Some(from)) = (t.dims(target), t.dims(out)) {
        let batch = |dims: &[crate::model::Dim]| dims[..dims.len() - 2].to_vec();
        let (to, from) = (batch(to), batch(from));
        let open = crate::model::Dim::Symbolic(String::new());
        // Equal symbols have equal sizes, and a fixed size other than 1 was not broadcast.
        let same = |(a, b): (&crate::model::Dim, &crate::model::Dim)| {
            (a == b && *a != open) || matches!(a, crate::model::Dim::Fixed(size) if *size != 1)
        };
        if to.len() == from.len() && to.iter().zip(&from).all(same) {
            return whole.to_owned();
        }
    }
    let shape = t.op("Shape", &[whole]);
    t.unbroadcast_to(whole, target, &shape)
}

/// Returns the gradients of `α op(A) op(B) + β C` (`Gemm`). Fails like [every rule](super).
pub fn gemm(t: &mut Tape, step: &Step) -> Result<Parts> {
    let (g, a, b) = (step.gradient()?, step.input(0)?, step.input(1)?);
    let node = &step.node;
    let (transposed_a, transposed_b) = (node.int("transA", 0) != 0, node.int("transB", 0) != 0);
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let product = |t: &mut Tape, left: (&str, bool), right: (&str, bool)| {
        let mut attributes =
            vec![edit::int_attribute("transA", left.1.into()), edit::int_attribute("transB", right.1.into())];
        attributes.push(crate::graph::edit::float_attribute("alpha", alpha));
        t.op_with("Gemm", &[left.0, right.0], attributes)
    };
    let mut parts = Vec::new();
    if t.wants(node, 0) {
        parts.push((
            0,
            match transposed_a {
                false => product(t, (g, false), (b, !transposed_b)),
                true => product(t, (b, transposed_b), (g, true)),
            },
        ));
    }
    if t.wants(node, 1) {
        parts.push((
            1,
            match transposed_b {
                false => product(t, (a, !transposed_a), (g, false)),
                true => product(t, (g, true), (a, transposed_a)),
            },
        ));
    }
    if t.wants(node, 2) {
        let sum = t.unbroadcast(g, &node.input[2], step.output());
        let factor = t.scalar(beta);
        parts.push((2, if beta == 1.0 { sum } else { t.op("Mul", &[&sum, &factor]) }));
    }
    Ok(parts)
}
