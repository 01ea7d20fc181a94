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

/// Returns what the logits of the members are. Fails with [`crate::error::Kind::InvalidArgument`] if they differ, or if
/// the method does not combine such logits.
pub(super) fn kind(members: &[Member], method: Method) -> Result<LogitKind> {
    let kinds: Vec<LogitKind> = members.iter().map(|member| LogitKind::of(&member.model)).collect();
    let first = kinds.first().copied().unwrap_or_default();
    if let Some(index) = kinds.iter().position(|kind| *kind != first) {
        bail!(
            InvalidArgument,
            "the logits of {} are {}, but those of {} are {}",
            place(0),
            first.describe(),
            place(index),
            kinds[index].describe()
        );
    }
    let has_mean = !matches!(method, Method::Product | Method::Vote);
    if first == LogitKind::Numbers && !has_mean {
        bail!(
            InvalidArgument,
            "the method `{}` combines classes, but the outputs of the members are {}: use `mean`, `weighted`, `logits`, \
             `max` or `median`",
            name_of(method),
            first.describe()
        );
    }
    Ok(first)
}
