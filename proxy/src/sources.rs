//! The local addresses that connections to the backend leave from, in turn. Pure.
//!
//! A connection is told from another by its four numbers: both addresses and both ports. To one backend only the
//! source port differs, so one source address carries as many connections at once as `ip_local_port_range` has ports:
//! 28,232 unless somebody widened it. Each further address carries as many again.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where to connect from. Shared by all threads of a mapping.
#[derive(Debug, Default)]
pub struct Sources {
    ips: Box<[IpAddr]>,
    next: AtomicUsize,
}

impl Sources {
    /// In this order; none leaves the choice to the kernel.
    #[must_use]
    pub fn new(ips: &[IpAddr]) -> Self {
        Self { ips: ips.into(), next: AtomicUsize::new(0) }
    }

    /// Whether the choice is the kernel's.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ips.is_empty()
    }

    /// What one connection should try, in order: each address once, beginning one further than the connection before.
    /// `None` stands for the kernel's choice, and is all there is where no addresses were given.
    pub fn turn(&self) -> impl Iterator<Item = Option<IpAddr>> + use<'_> {
        let count = self.ips.len();
        let first = if count > 1 { self.next.fetch_add(1, Relaxed) % count } else { 0 };
        let kernels_choice = self.ips.is_empty().then_some(None);
        let (before, from) = self.ips.split_at(first);
        kernels_choice.into_iter().chain(from.iter().chain(before).map(|ip| Some(*ip)))
    }
}

/// Whether an address has no port left for this target, or is gone: another may do. `EADDRNOTAVAIL` is `connect`'s
/// word for it on TCP, `EADDRINUSE` and `EAGAIN` are `bind`'s and `connect`'s on UDP.
#[must_use]
pub fn is_spent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE | libc::EAGAIN))
}

/// Runs `attempt` for each address of a turn until one isn't spent; the last error when all are.
///
/// # Errors
/// Those of `attempt`.
pub fn first_unspent<T>(
    sources: &Sources,
    mut attempt: impl FnMut(Option<IpAddr>) -> io::Result<T>,
) -> io::Result<T> {
    let mut spent = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
    for source in sources.turn() {
        match attempt(source) {
            Err(error) if is_spent(&error) => spent = error,
            result => return result,
        }
    }
    Err(spent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    fn turn(sources: &Sources) -> Vec<Option<IpAddr>> {
        sources.turn().collect()
    }

    #[test]
    fn each_connection_begins_one_further() {
        let sources = Sources::new(&[ip(1), ip(2), ip(3)]);
        for first in [1, 2, 3, 1] {
            let order = [first, first % 3 + 1, (first + 1) % 3 + 1];
            assert_eq!(turn(&sources), order.map(|n| Some(ip(n))));
        }
        let one = Sources::new(&[ip(1)]);
        assert_eq!((turn(&one), turn(&one)), (vec![Some(ip(1))], vec![Some(ip(1))]));
        assert_eq!(turn(&Sources::default()), [None]);
    }

    #[test]
    fn counting_on_past_the_end_of_numbers_is_no_trouble() {
        let sources = Sources { next: AtomicUsize::new(usize::MAX), ..Sources::new(&[ip(1), ip(2)]) };
        for _ in 0..3 {
            assert_eq!(turn(&sources).len(), 2);
        }
    }

    #[test]
    fn a_spent_address_makes_way_for_the_next() {
        let sources = Sources::new(&[ip(1), ip(2)]);
        let no_port = || io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        let only = |good: u8| {
            move |source: Option<IpAddr>| (source == Some(ip(good))).then_some(good).ok_or_else(no_port)
        };
        for good in [1, 2, 1, 1, 2, 2] {
            assert_eq!(first_unspent(&sources, only(good)).unwrap(), good);
        }
        let none = first_unspent(&sources, only(9)).unwrap_err();
        assert_eq!(none.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        let mut tried = 0;
        let refused = first_unspent(&sources, |_| {
            tried += 1;
            Err::<(), _>(io::Error::from_raw_os_error(libc::ECONNREFUSED))
        });
        assert_eq!((refused.unwrap_err().raw_os_error(), tried), (Some(libc::ECONNREFUSED), 1));
    }
}
