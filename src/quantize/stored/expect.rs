//! The forms in which weights will be stored, for estimates.

use super::{Form, Stored, blocks, code, form, reported};
use crate::call::Ticket;
use crate::error::Result;
use crate::files::Scratch;
use crate::graph::View;
use crate::quantize::QuantizeOptions;
use crate::quantize::planner::Plan;
use rayon::prelude::*;

/// The maximum number of elements of a weight that is coded to learn its form. Larger weights have so many inputs per
/// channel that errors average out, so only their shape is considered.
const CODED: u64 = 1 << 20;

/// Returns the plan with the bits that each stored weight will have, without those that will stay in float. Fails with
/// `Io` if scratch storage cannot be written, and with `Internal` if threads cannot be started.
pub fn expect<'a>(plan: &Plan<'a>, view: &View<'_>, options: &QuantizeOptions) -> Result<Plan<'a>> {
    let folder = options.scratch_folder.clone().unwrap_or_else(std::env::temp_dir);
    let all = || plan.stored.par_iter().map(|stored| expected(stored, options, &folder)).collect::<Result<Vec<Form>>>();
    let forms = crate::threads::pool(options.threads)?.install(all)?;
    let mut plan = reported(plan, view, &forms);
    let mut forms = forms.iter();
    plan.stored.retain_mut(|stored| match forms.next() {
        Some(Ok((bits, _))) => {
            stored.bits = if *bits < 8 { stored.bits } else { (8, 0) };
            true
        }
        _ => false,
    });
    Ok(plan)
}

fn expected(stored: &Stored<'_>, options: &QuantizeOptions, folder: &std::path::Path) -> Result<Form> {
    if stored.elements() <= CODED {
        // One scratch file per weight: its space is free again when the form is known.
        return Ok(form(&code::one(stored, options, &Scratch::new(folder), &Ticket::default())?));
    }
    if stored.bits.0 >= 8 {
        return Ok(Ok((8, "int8 weight".to_owned())));
    }
    Ok(Ok(match blocks::block_size(stored) {
        Ok(block) => (4, format!("4 bits in blocks of {block}")),
        Err(reason) => (8, format!("int8 weight, as {reason}")),
    }))
}
