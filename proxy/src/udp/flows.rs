//! The flow table: who talks to which of our addresses, in order of idleness. No I/O, and the clock is an argument.
//!
//! All flows share one time-out, so the order of last use is the order of expiry: one list serves lookup, expiry and
//! eviction. A flow is keyed by the client *and* the address it wrote to: a client that uses one socket for two of our
//! addresses has two flows, and each reply leaves from the address its question went to.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

/// The address of ours that a datagram was sent to, and the interface where that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// Our address.
    pub ip: IpAddr,
    /// The interface, for link-local addresses; else 0.
    pub interface: u32,
}

/// What makes two datagrams belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Which of the mapping's sockets it came in on.
    pub listener: u32,
    /// The client, with its scope id where it is link-local.
    pub client: SocketAddr,
    /// Where it wrote to; `None` when the kernel didn't say.
    pub local: Option<Local>,
}

#[derive(Debug)]
struct Entry<T, V> {
    last_used: T,
    serial: u64,
    value: V,
}

/// Flows by key. `T` is an instant, `V` what the engine keeps per flow.
#[derive(Debug)]
pub struct FlowTable<T, V> {
    flows: LruCache<FlowKey, Entry<T, V>>,
    timeout: Duration,
    serial: u64,
}

impl<T, V> FlowTable<T, V>
where
    T: Copy + Ord + std::ops::Add<Duration, Output = T>,
{
    /// At most `bound` flows, each living `timeout` after its last datagram. Takes no memory until it has flows.
    #[must_use]
    pub fn new(bound: NonZeroUsize, timeout: Duration) -> Self {
        // `LruCache::new` would allocate for `bound` entries at once.
        let mut flows = LruCache::unbounded();
        flows.resize(bound);
        Self { flows, timeout, serial: 0 }
    }

    /// The flow of a datagram that just arrived from the client, marked as used.
    pub fn lookup(&mut self, key: &FlowKey, now: T) -> Option<&V> {
        let entry = self.flows.get_mut(key)?;
        entry.last_used = now;
        Some(&entry.value)
    }

    /// Marks a flow as used by a reply. `serial` is what [`insert`](Self::insert) gave, so that a flow which ended
    /// can't keep its successor under the same key alive. Returns whether it is still the one.
    pub fn touch(&mut self, key: &FlowKey, serial: u64, now: T) -> bool {
        match self.flows.peek_mut(key) {
            Some(entry) if entry.serial == serial => {
                entry.last_used = now;
                self.flows.promote(key);
                true
            }
            _ => false,
        }
    }

    /// Adds a flow. Returns its serial number and the flow that had to make room: the one idle longest.
    pub fn insert(&mut self, key: FlowKey, now: T, value: impl FnOnce(u64) -> V) -> (u64, Option<V>) {
        self.serial += 1;
        let serial = self.serial;
        let entry = Entry { last_used: now, serial, value: value(serial) };
        let out = self.flows.push(key, entry);
        (serial, out.map(|(_, entry)| entry.value))
    }

    /// Removes the flow idle longest, whatever its age: its descriptor is needed.
    pub fn evict(&mut self) -> Option<V> {
        self.flows.pop_lru().map(|(_, entry)| entry.value)
    }

    /// The flow idle longest.
    #[must_use]
    pub fn oldest(&self) -> Option<&V> {
        self.flows.peek_lru().map(|(_, entry)| &entry.value)
    }

    /// Removes one flow whose time is over at `now`; call it until there is none.
    pub fn expire(&mut self, now: T) -> Option<V> {
        let (_, oldest) = self.flows.peek_lru()?;
        if oldest.last_used + self.timeout > now {
            return None;
        }
        self.evict()
    }

    /// When the next flow will be over, if nothing happens until then.
    #[must_use]
    pub fn next_expiry(&self) -> Option<T> {
        self.flows.peek_lru().map(|(_, entry)| entry.last_used + self.timeout)
    }

    /// How many flows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock set by hand.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct At(Duration);

    impl std::ops::Add<Duration> for At {
        type Output = Self;
        fn add(self, d: Duration) -> Self {
            Self(self.0 + d)
        }
    }

    fn at(seconds: u64) -> At {
        At(Duration::from_secs(seconds))
    }

    fn table(bound: usize) -> FlowTable<At, u16> {
        FlowTable::new(NonZeroUsize::new(bound).unwrap(), Duration::from_secs(90))
    }

    fn key(port: u16) -> FlowKey {
        FlowKey { listener: 0, client: SocketAddr::from(([10, 0, 0, 1], port)), local: None }
    }

    #[test]
    fn a_flow_lives_its_time_after_the_last_datagram_either_way() {
        let mut t = table(10);
        let (serial, _) = t.insert(key(1), at(0), |_| 1);
        assert_eq!(t.lookup(&key(1), at(80)), Some(&1));
        assert!(t.touch(&key(1), serial, at(160)));
        assert_eq!(t.next_expiry(), Some(at(250)));
        assert_eq!(t.expire(at(249)), None);
        assert_eq!(t.expire(at(250)), Some(1));
        assert_eq!(t.expire(at(250)), None);
        assert!(t.is_empty() && t.next_expiry().is_none());
    }

    #[test]
    fn the_flow_idle_longest_makes_room() {
        let mut t = table(2);
        assert_eq!(t.insert(key(1), at(0), |_| 1).1, None);
        assert_eq!(t.insert(key(2), at(1), |_| 2).1, None);
        t.lookup(&key(1), at(2));
        assert_eq!(t.insert(key(3), at(3), |_| 3).1, Some(2));
        assert_eq!(t.oldest(), Some(&1));
        assert_eq!(t.evict(), Some(1));
        assert_eq!(t.len(), 1);
    }

    #[test]
    fn expiry_follows_use_not_birth() {
        let mut t = table(10);
        for port in 1..=3 {
            t.insert(key(port), at(0), |_| port);
        }
        t.lookup(&key(1), at(50));
        assert_eq!((t.expire(at(90)), t.expire(at(90)), t.expire(at(90))), (Some(2), Some(3), None));
        assert_eq!(t.next_expiry(), Some(at(140)));
    }

    #[test]
    fn an_ended_flow_does_not_keep_its_successor_alive() {
        let mut t = table(10);
        let (old, _) = t.insert(key(1), at(0), |_| 1);
        t.evict();
        let (new, _) = t.insert(key(1), at(10), |_| 2);
        assert!(!t.touch(&key(1), old, at(80)));
        assert!(t.touch(&key(1), new, at(20)));
        assert_eq!(t.next_expiry(), Some(at(110)));
    }

    #[test]
    fn one_client_socket_and_two_of_our_addresses_are_two_flows() {
        let mut t = table(10);
        let to = |ip: [u8; 4]| FlowKey { local: Some(Local { ip: ip.into(), interface: 0 }), ..key(1) };
        t.insert(to([192, 0, 2, 1]), at(0), |_| 1);
        assert_eq!(t.lookup(&to([192, 0, 2, 2]), at(0)), None);
        assert_eq!(t.lookup(&to([192, 0, 2, 1]), at(0)), Some(&1));
    }
}
