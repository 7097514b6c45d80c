//! Tells the neighbours of a sandbox who has its addresses now: gratuitous ARP, unsolicited neighbour advertisements.
//!
//! Hardware addresses are random, addresses are given out again: without this, whoever talked to the one that had an
//! address before keeps sending to it until its entry times out.
//!
//! All announcements of a kernel are one thread's. It is never in anybody's way: a queue that is full is skipped, and
//! what is left of it when the process ends is nobody's loss.

use std::fs::File;
use std::io;
use std::mem::{size_of, size_of_val};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::{self, Found};
use crate::model::{IfName, Mac};
use crate::plan::Veth;

/// How often each is said.
const TIMES: u32 = 3;
/// The time between.
const PAUSE: Duration = Duration::from_secs(1);
/// More than start in the time that one takes; each holds a descriptor meanwhile.
const QUEUE: usize = 1024;

/// Speaks for the sandboxes of one kernel.
#[derive(Default)]
pub(super) struct Announcer {
    /// To the thread, once there is one. It ends when this is dropped and all is said.
    queue: Mutex<Option<SyncSender<Announcement>>>,
}

/// What is to be said, and where.
struct Announcement {
    namespace: File,
    interface: IfName,
    mac: Mac,
    addresses: Vec<IpAddr>,
    left: u32,
    due: Instant,
}

impl Announcer {
    /// Has it said, soon and twice more.
    pub(super) fn announce(&self, veth: &Veth) {
        if veth.addresses.is_empty() {
            return;
        }
        let outcome = match netns::find(&veth.namespace) {
            Ok(Found::Namespace(namespace)) => self.queue(Announcement {
                namespace,
                interface: veth.name.clone(),
                mac: veth.mac,
                addresses: veth.addresses.iter().map(ipnet::IpNet::addr).collect(),
                left: TIMES,
                due: Instant::now(),
            }),
            Ok(_) => Err(io::Error::from(io::ErrorKind::NotFound)),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::warn!(interface = %veth.name, %error, "addresses not announced");
        }
    }

    fn queue(&self, announcement: Announcement) -> io::Result<()> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let unsent = match &*queue {
            None => announcement,
            Some(sender) => match sender.try_send(announcement) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => return Err(io::Error::other("too many at once")),
                Err(TrySendError::Disconnected(announcement)) => announcement,
            },
        };
        let (sender, receiver) = mpsc::sync_channel(QUEUE);
        thread::Builder::new().name("announce".to_owned()).spawn(move || speak(&receiver))?;
        let _ = sender.try_send(unsent);
        *queue = Some(sender);
        Ok(())
    }
}

/// Says all that comes, each at its times.
fn speak(queue: &mpsc::Receiver<Announcement>) {
    // In the order in which they are due: each comes back at the end.
    let mut waiting: std::collections::VecDeque<Announcement> = std::collections::VecDeque::new();
    let mut open = true;
    while open || !waiting.is_empty() {
        let pause = waiting.front().map(|next| next.due.saturating_duration_since(Instant::now()));
        let come = match pause {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(pause) if open => queue.recv_timeout(pause),
            Some(pause) => {
                thread::sleep(pause);
                Err(RecvTimeoutError::Timeout)
            }
        };
        let next = match come {
            Ok(announcement) => Some(announcement),
            Err(RecvTimeoutError::Timeout) => waiting.pop_front(),
            Err(RecvTimeoutError::Disconnected) => {
                open = false;
                None
            }
        };
        let Some(mut next) = next else { continue };
        let said = netns::inside(&next.namespace, || say(&next)).flatten();
        if let Err(error) = said {
            // Most likely the sandbox ended meanwhile.
            tracing::debug!(interface = %next.interface, %error, "addresses not announced");
            continue;
        }
        next.left -= 1;
        next.due = Instant::now() + PAUSE;
        if next.left > 0 && waiting.len() < QUEUE {
            waiting.push_back(next);
        }
    }
}

/// Once, in the calling thread's namespace.
fn say(announcement: &Announcement) -> io::Result<()> {
    let interface = if_nametoindex(announcement.interface.as_str())?;
    let outcomes: Vec<io::Result<()>> = announcement
        .addresses
        .iter()
        .map(|address| match address {
            IpAddr::V4(address) => say_v4(interface, announcement.mac, *address),
            IpAddr::V6(address) => say_v6(interface, announcement.mac, *address),
        })
        .collect();
    outcomes.into_iter().collect()
}

/// A gratuitous ARP request: sender and target are the same. More systems take it than take a reply.
fn say_v4(interface: u32, mac: Mac, address: Ipv4Addr) -> io::Result<()> {
    let protocol = u16::try_from(libc::ETH_P_ARP).map_err(io::Error::other)?.to_be();
    // SAFETY: socket takes no pointers.
    let raw = unsafe {
        libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just made it, so nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let to = libc::sockaddr_ll {
        sll_family: libc::sa_family_t::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: protocol,
        sll_ifindex: i32::try_from(interface).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    };
    let packet = arp(mac, address);
    let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open; both pointers and sizes describe locals that outlive the call, and the kernel only
    // reads them.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            packet.as_ptr().cast(),
            size_of_val(&packet),
            0,
            (&raw const to).cast(),
            size,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn arp(mac: Mac, address: Ipv4Addr) -> [u8; 28] {
    let mut packet = [0; 28];
    // Ethernet, IPv4, lengths of their addresses, request.
    packet[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    packet[8..14].copy_from_slice(&mac.octets());
    packet[14..18].copy_from_slice(&address.octets());
    packet[24..28].copy_from_slice(&address.octets());
    packet
}

/// An unsolicited neighbour advertisement to all nodes. The kernel adds the checksum.
fn say_v6(interface: u32, mac: Mac, address: Ipv6Addr) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_nonblocking(true)?;
    // Others are ignored: 255 proves that no router was in between.
    socket.set_multicast_hops_v6(255)?;
    socket.bind(&SocketAddrV6::new(address, 0, 0, interface).into())?;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    socket.send_to(&advertisement(mac, address), &SocketAddrV6::new(all_nodes, 0, 0, interface).into())?;
    Ok(())
}

fn advertisement(mac: Mac, address: Ipv6Addr) -> [u8; 32] {
    let mut packet = [0; 32];
    // Type; flag: take this in the place of what you know.
    (packet[0], packet[4]) = (136, 0x20);
    packet[8..24].copy_from_slice(&address.octets());
    // Option: target's hardware address, one unit of eight bytes.
    (packet[24], packet[25]) = (2, 1);
    packet[26..32].copy_from_slice(&mac.octets());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_the_standards_have_them() {
        let mac: Mac = "02:00:00:00:00:07".parse().unwrap();
        let packet = arp(mac, Ipv4Addr::new(10, 1, 2, 3));
        assert_eq!(packet[6..18], [0, 1, 2, 0, 0, 0, 0, 7, 10, 1, 2, 3]);
        assert_eq!(packet[18..], [0, 0, 0, 0, 0, 0, 10, 1, 2, 3]);
        let packet = advertisement(mac, Ipv6Addr::LOCALHOST);
        assert_eq!(
            (packet[0], packet[4], packet[23], &packet[24..]),
            (136, 0x20, 1, &[2, 1, 2, 0, 0, 0, 0, 7][..])
        );
    }
}
