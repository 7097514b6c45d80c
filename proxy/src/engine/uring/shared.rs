//! What the threads of a mapping share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use crate::counters::Counters;
use crate::flags::Options;
use crate::limits::FOR_CLIENTS;
use crate::sources::Sources;

/// Options, counters, targets, and how many descriptors there are left.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) counters: Arc<Counters>,
    /// Where each listener leads, by its number.
    pub(super) targets: Box<[SocketAddr]>,
    pub(super) budget: Budget,
    pub(super) sources: Sources,
}

/// Descriptors that traffic may still take; see [`crate::limits`].
#[derive(Debug)]
pub(super) struct Budget(AtomicI64);

impl Budget {
    pub(super) fn new(descriptors: usize) -> Self {
        Self(AtomicI64::new(i64::try_from(descriptors).unwrap_or(i64::MAX)))
    }

    /// What is left.
    pub(super) fn left(&self) -> i64 {
        self.0.load(Relaxed)
    }

    /// Takes `n` if there are as many.
    pub(super) fn try_take(&self, n: u32) -> bool {
        let n = i64::from(n);
        self.0.fetch_update(Relaxed, Relaxed, |left| (left >= n).then(|| left - n)).is_ok()
    }

    /// Takes `n` if clients have enough left.
    pub(super) fn try_take_spare(&self, n: u32) -> bool {
        self.left() >= i64::from(FOR_CLIENTS + n) && self.try_take(n)
    }

    /// Takes `n` that are in use already, whether there are as many or not.
    pub(super) fn take(&self, n: u32) {
        self.0.fetch_sub(i64::from(n), Relaxed);
    }

    pub(super) fn give_back(&self, n: u32) {
        self.0.fetch_add(i64::from(n), Relaxed);
    }
}
