//! The classes of members that classify: their order, and what their logits are.

use super::{Member, Method, name_of, place};
use crate::encoder::LogitKind;
use crate::error::{Result, bail};
use crate::meaning::Order;

/// An order of classes; `None` for the present one.
pub(super) type ClassOrder = Option<Vec<usize>>;

/// Returns the order in which each member's classes match those of the first (`None` if they already do), and notes.
/// Fails with [`crate::error::Kind::InvalidArgument`] if a member has different classes.
pub(super) fn orders(members: &[Member]) -> Result<(Vec<ClassOrder>, Vec<String>)> {
    let (mut orders, mut notes) = (vec![None], Vec::new());
    for (index, member) in members.iter().enumerate().skip(1) {
        let order = Order::of(members[0].model.card(), member.model.card(), &place(0), &place(index));
        notes.extend(order.note(&place(0), &place(index)));
        orders.push(order.mapping()?);
    }
    Ok((orders, notes))
}

/// Returns what the outputs of the members have, and whether they are scores instead of logits. Fails with
/// [`crate::error::Kind::InvalidArgument`] if they differ, or if the method does not combine such outputs.
pub(super) fn kind(members: &[Member], method: Method) -> Result<(LogitKind, bool)> {
    let kinds: Vec<(LogitKind, bool)> = members.iter().map(|member| LogitKind::with_scores(&member.model)).collect();
    let first = kinds.first().copied().unwrap_or_default();
    if let Some(index) = kinds.iter().position(|kind| *kind != first) {
        let of = |(kind, scores): (LogitKind, bool)| match scores {
            true => format!("scores of {}", kind.describe()),
            false => format!("logits of {}", kind.describe()),
        };
        bail!(
            InvalidArgument,
            "{} has {}, but {} has {}: these cannot be combined",
            place(0),
            of(first),
            place(index),
            of(kinds[index])
        );
    }
    if first.0 == LogitKind::Numbers && matches!(method, Method::Product | Method::Vote) {
        bail!(
            InvalidArgument,
            "the method `{}` combines classes, but the outputs of the members are {}: use `mean`, `weighted`, \
             `logits`, `max` or `median`",
            name_of(method),
            first.0.describe()
        );
    }
    Ok(first)
}
