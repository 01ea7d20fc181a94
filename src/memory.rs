//! Limits on memory: what a context may hold for its models and sessions.
//!
//! Memory is charged to a [`Budget`], a limit with the number of bytes in use. These allocations are charged, mostly
//! before they are made: contents of files that a program provides, what ONNX Runtime allocates for sessions, weights
//! that this library's kernels pack, and caches of generators. Mapped files are not charged, because the system can
//! take their pages back at any time. Other allocations are not charged.
//!
//! A thread works within one budget at a time ([`within`]). Allocations by the threads to which it passes parts of its
//! work are not charged.

use crate::error::{Result, error};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Budget>>> = const { RefCell::new(None) };
    /// The size of the last allocation that the current budget refused on this thread, and the number of bytes that
    /// were in use; 0 for none.
    static REFUSED: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    /// What [`reserved`] has charged on this thread.
    static RESERVED: Cell<Reserved> = const { Cell::new(Reserved { budget: std::ptr::null(), total: 0, taken: 0 }) };
}

/// Bytes that were charged before they are allocated.
#[derive(Clone, Copy)]
struct Reserved {
    /// Address of the budget that they are charged to.
    budget: *const Budget,
    /// Number of bytes that were charged before.
    total: u64,
    /// Number of bytes that allocations of this thread have taken, which may be more than `total`.
    taken: u64,
}

impl Reserved {
    /// Returns the number of bytes that are charged in addition to the reserved ones if `taken` bytes are allocated.
    fn beyond(&self, taken: u64) -> u64 {
        taken.saturating_sub(self.total)
    }
}

/// A memory limit, and the number of bytes that are charged to it. Threads may share it.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// Returns a budget of `limit` bytes, to which nothing is charged.
    pub fn new(limit: u64) -> Arc<Budget> {
        Arc::new(Budget { limit, used: AtomicU64::new(0) })
    }

    /// Returns the number of bytes that are charged.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Charges bytes, and returns whether the limit allows them; if not, nothing is charged. Bytes that this thread has
    /// reserved ([`reserved`]) are charged already and used first.
    pub(crate) fn add(&self, bytes: u64) -> bool {
        self.take(bytes, self.limit)
    }

    fn take(&self, bytes: u64, limit: u64) -> bool {
        let reserved = self.reserved();
        let Some(taken) = reserved.taken.checked_add(bytes) else { return false };
        let more = reserved.beyond(taken) - reserved.beyond(reserved.taken);
        let fits = |used: u64| used.checked_add(more).filter(|sum| *sum <= limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                self.set_taken(reserved, taken);
                true
            }
            Err(used) => {
                REFUSED.set((bytes, used));
                false
            }
        }
    }

    /// Gives charged bytes back, first those beyond the bytes that this thread has reserved.
    pub(crate) fn subtract(&self, bytes: u64) {
        let reserved = self.reserved();
        let taken = reserved.taken.saturating_sub(bytes);
        let earlier = bytes - (reserved.taken - taken);
        self.used.fetch_sub(earlier + reserved.beyond(reserved.taken) - reserved.beyond(taken), Ordering::Relaxed);
        self.set_taken(reserved, taken);
    }

    fn set_taken(&self, reserved: Reserved, taken: u64) {
        if reserved.total > 0 {
            RESERVED.set(Reserved { taken, ..reserved });
        }
    }

    /// Returns the reservation of this thread from this budget; an empty one if there is none.
    fn reserved(&self) -> Reserved {
        match RESERVED.get() {
            reserved if std::ptr::eq(reserved.budget, self) => reserved,
            _ => Reserved { budget: self, total: 0, taken: 0 },
        }
    }

    fn refusal(&self, (bytes, used): (u64, u64)) -> crate::error::Error {
        error!(
            LimitExceeded,
            "{bytes} more bytes exceed the memory limit of the context: {used} of {} are in use", self.limit
        )
    }
}

/// Bytes that are charged until this value is dropped.
#[derive(Debug, Default)]
pub struct Charge(Option<(Arc<Budget>, u64)>);

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some((budget, bytes)) = &self.0 {
            budget.subtract(*bytes);
        }
    }
}

/// Returns the budget of this thread; `None` if there is no limit.
pub(crate) fn current() -> Option<Arc<Budget>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Charges bytes to the budget of this thread until the returned value is dropped; without a budget, nothing is
/// charged. Fails with [`crate::error::Kind::LimitExceeded`] if the budget does not allow them.
pub fn charge(bytes: u64) -> Result<Charge> {
    let Some(budget) = current() else { return Ok(Charge::default()) };
    match budget.add(bytes) {
        true => Ok(Charge(Some((budget, bytes)))),
        false => Err(budget.refusal(REFUSED.get())),
    }
}

/// Charges bytes to the budget of this thread until the returned value is dropped, even beyond the limit. If they
/// exceed it, [`check`] fails afterwards.
pub(crate) fn charge_anyway(bytes: u64) -> Charge {
    let Some(budget) = current() else { return Charge::default() };
    if !budget.add(bytes) {
        budget.take(bytes, u64::MAX);
    }
    Charge(Some((budget, bytes)))
}

/// Reserves `bytes` of the budget of this thread during `work`: they are charged before it, and the charged allocations
/// of `work` use them up before they charge more. Returns the result of `work`, and the charge for the bytes that no
/// such allocation has used. Fails before `work` with [`crate::error::Kind::LimitExceeded`] if the budget does not
/// allow the bytes.
///
/// It is meant for the weights of sessions: ONNX Runtime copies them with its own allocator, which is not charged, and
/// may later replace a copy by one in memory that is charged.
pub(crate) fn reserved<T>(bytes: u64, work: impl FnOnce() -> Result<T>) -> Result<(T, Charge)> {
    let charge = charge(bytes)?;
    let budget = charge.0.as_ref().map_or(std::ptr::null(), |(budget, _)| Arc::as_ptr(budget));
    let before = RESERVED.replace(Reserved { budget, total: bytes, taken: 0 });
    let mut reservation = Reservation { before: Some(before), charge };
    let result = work();
    let charge = reservation.end();
    Ok((result?, charge))
}

/// A guard that ends a reservation of this thread, also after a panic.
struct Reservation {
    /// Reservation of the thread before this one; `None` after the end of this one.
    before: Option<Reserved>,
    charge: Charge,
}

impl Reservation {
    /// Ends the reservation, and returns the charge for the bytes that no allocation has taken.
    fn end(&mut self) -> Charge {
        let mut charge = std::mem::take(&mut self.charge);
        if let Some(before) = self.before.take() {
            let reserved = RESERVED.replace(before);
            if let Some((_, bytes)) = &mut charge.0 {
                *bytes = reserved.total.saturating_sub(reserved.taken);
            }
        }
        charge
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        drop(self.end());
    }
}

/// Checks whether the budget of this thread has refused an allocation since the thread entered it ([`within`]). Fails
/// with [`crate::error::Kind::LimitExceeded`] if so.
pub(crate) fn check() -> Result<()> {
    match (current(), REFUSED.get()) {
        (Some(budget), refused) if refused.0 > 0 => Err(budget.refusal(refused)),
        _ => Ok(()),
    }
}

/// Runs `work` on this thread within a budget, and returns the result; with `None`, the thread keeps the budget that it
/// has. If `work` fails after the budget has refused an allocation, the error is `LimitExceeded` with the sizes of
/// that allocation, unless the caller ended the operation (`Cancelled`, `Timeout`).
pub fn within<T>(budget: Option<&Arc<Budget>>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(budget) = budget else { return work() };
    let _before = Before(CURRENT.replace(Some(budget.clone())), REFUSED.replace((0, 0)));
    work().map_err(|e| if e.kind().ends_a_call() { e } else { check().err().unwrap_or(e) })
}

/// A guard that restores the previous budget and refusal of this thread, also after a panic.
struct Before(Option<Arc<Budget>>, (u64, u64));

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
        REFUSED.set(self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, bail};

    #[test]
    fn what_is_charged_is_limited_and_given_back() {
        let budget = Budget::new(100);
        assert!(charge(u64::MAX).is_ok(), "no limit outside of a budget");
        let kept = within(Some(&budget), || {
            let first = charge(60)?;
            let refused = charge(41).unwrap_err();
            assert_eq!(refused.kind(), Kind::LimitExceeded);
            assert!(refused.message().starts_with("41 more bytes") && refused.message().contains("60 of 100"));
            assert!(charge(u64::MAX).is_err() && charge(40).is_ok());
            Ok(first)
        });
        assert_eq!(budget.used(), 60);
        drop(kept);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_failure_after_a_refusal_is_the_refusal() {
        let budget = Budget::new(100);
        let work = |bytes: u64, kind: Kind| {
            let failed = within(Some(&budget), || {
                let _ = budget.add(bytes);
                Err::<(), _>(crate::error::Error::new(kind, "std::bad_alloc"))
            });
            budget.used.store(0, Ordering::Relaxed);
            failed.unwrap_err().kind()
        };
        assert_eq!(work(101, Kind::Runtime), Kind::LimitExceeded);
        assert_eq!(work(100, Kind::Runtime), Kind::Runtime);
        assert_eq!(work(101, Kind::Cancelled), Kind::Cancelled);
        let beyond = within(Some(&budget), || {
            let charge = charge_anyway(150);
            assert_eq!(budget.used(), 150);
            drop(charge);
            check()
        });
        assert_eq!((beyond.unwrap_err().kind(), budget.used()), (Kind::LimitExceeded, 0));
        let inner = || -> Result<()> { bail!(Runtime, "of no budget") };
        assert_eq!(within(None, inner).unwrap_err().kind(), Kind::Runtime);
    }

    #[test]
    fn what_is_reserved_is_taken_by_allocations_and_the_rest_stays_charged() {
        let budget = Budget::new(100);
        let made = within(Some(&budget), || {
            reserved(60, || {
                // Two allocations are freed, and a third one stays. A later one exceeds the reserved bytes and is
                // charged.
                for _ in 0..2 {
                    assert!(budget.add(50));
                    budget.subtract(50);
                }
                assert!(budget.add(20) && budget.used() == 60);
                assert!(!budget.add(81) && budget.add(80) && budget.used() == 100);
                budget.subtract(80);
                Ok(())
            })
        });
        let ((), left) = made.unwrap();
        assert_eq!(budget.used(), 60);
        budget.subtract(20);
        assert_eq!(budget.used(), 40);
        drop(left);
        assert_eq!(budget.used(), 0);
        let failed = within(Some(&budget), || reserved(10, || -> Result<()> { bail!(Runtime, "no") }));
        assert_eq!((failed.unwrap_err().kind(), budget.used()), (Kind::Runtime, 0));
        let refused = within(Some(&budget), || reserved(101, || -> Result<()> { panic!("was started") }));
        assert_eq!(refused.unwrap_err().kind(), Kind::LimitExceeded);
    }
}
