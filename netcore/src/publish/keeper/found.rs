//! Proxies that an earlier keeper left behind: found by their environment, their sockets taken by descriptor.
//!
//! Anybody may write anything into his own environment. What counts is a process of our user, which no other user can
//! make, and of our network: a daemon in another one may have the same data root by name, in a mount namespace of its own.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use socket2::{SockRef, Type};

use super::mark::KeeperMark;
use crate::kernel::PidFd;
use crate::publish::mapping::Mapping;
use crate::publish::ports::Proto;

/// One of them, alive when it was looked at.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) pid: u32,
    pub(super) handle: PidFd,
    pub(super) mapping: Mapping,
}

/// All that run.
pub(super) fn predecessors(mark: &KeeperMark) -> Vec<Found> {
    let (Ok(processes), Some(ours)) = (fs::read_dir("/proc"), Kin::of("thread-self")) else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            let mapping = mark.of_predecessor(pid)?;
            let handle = PidFd::of_number(pid).ok()?;
            let kin = Kin::of(&pid.to_string()).as_ref() == Some(&ours);
            // Only now is it sure that all are about one process.
            let same = kin && mark.of_predecessor(pid).as_ref() == Some(&mapping) && !handle.has_ended();
            same.then_some(Found { pid, handle, mapping })
        })
        .collect()
}

/// What a process has in common with its children, and with nobody who means us harm.
#[derive(PartialEq, Eq)]
struct Kin {
    /// All four ids: a program that runs as our user for somebody else has the environment he gave it.
    users: String,
    /// Device and inode of its network namespace.
    network: (u64, u64),
}

impl Kin {
    fn of(process: &str) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let users = status.lines().find(|line| line.starts_with("Uid:"))?.to_owned();
        let network = fs::metadata(format!("/proc/{process}/ns/net")).ok()?;
        Some(Self { users, network: (network.dev(), network.ino()) })
    }
}

impl Found {
    /// Duplicates of the sockets on which it serves its mapping, in a reservation's order. `None` if not all of them can
    /// be had: it may hide its descriptors, or we have none left.
    pub(super) fn sockets(&self) -> Option<Vec<OwnedFd>> {
        let wanted: Vec<SocketAddr> = self.mapping.places().collect();
        let mut got: Vec<Option<OwnedFd>> = wanted.iter().map(|_| None).collect();
        let mut left = wanted.len();
        let at: std::collections::HashMap<SocketAddr, usize> =
            wanted.into_iter().enumerate().map(|(at, place)| (place, at)).collect();
        for number in self.descriptors() {
            let Ok(socket) = self.handle.duplicate(number) else { continue };
            let place = served_at(&socket, self.mapping.proto).and_then(|place| at.get(&place));
            if let Some(slot) = place.and_then(|at| got.get_mut(*at))
                && slot.is_none()
            {
                *slot = Some(socket);
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        got.into_iter().collect()
    }

    /// Numbers of its sockets, those that a proxy is started with first.
    fn descriptors(&self) -> Vec<u32> {
        let Ok(listing) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return Vec::new() };
        let mut numbers: Vec<u32> = listing
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let leads_to = fs::read_link(entry.path()).ok()?;
                leads_to.to_str()?.starts_with("socket:").then_some(())?;
                entry.file_name().to_str()?.parse().ok()
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }
}

/// Where a socket takes what arrives from anybody; `None` if it doesn't, or is of another protocol.
fn served_at(socket: &OwnedFd, proto: Proto) -> Option<SocketAddr> {
    let fd = socket.as_fd();
    let socket = SockRef::from(&fd);
    let serves = match proto {
        Proto::Tcp => socket.protocol().ok()? == Some(socket2::Protocol::TCP) && socket.is_listener().ok()?,
        Proto::Sctp => {
            socket.protocol().ok()? == Some(socket2::Protocol::SCTP) && socket.is_listener().ok()?
        }
        // One with a peer belongs to a flow.
        Proto::Udp => socket.r#type().ok()? == Type::DGRAM && socket.peer_addr().is_err(),
    };
    serves
        .then(|| socket.local_addr().ok()?.as_socket())
        .flatten()
        .map(|at| SocketAddr::new(at.ip(), at.port()))
}
