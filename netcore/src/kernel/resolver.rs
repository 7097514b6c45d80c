//! Sockets of the embedded server: its own in each sandbox's namespace, and those that ask servers from there.
//!
//! A socket belongs for life to the namespace that it was made in, so each is made inside and used from the server's
//! thread. The server's own are on ports of the kernel's choice, and rules in the namespace's nat hooks lead port 53 to
//! them.
//!
//! Not here: what is received and sent (`dns::server`), and the words for iptables (`firewall::resolver`).

mod nftables;

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockRef, Socket, Type};

use super::conntrack::{Flow, forget_flows};
use super::netns::{self, Found};
use super::sysctl;
use crate::dns::Transport;
use crate::firewall::Backend;
use crate::firewall::resolver::{self as iptables, NamePorts};
use crate::names::resolv_conf::{EMBEDDED, Nameserver};
use crate::publish::{PortRange, Proto};

/// Where name servers are.
pub(crate) const PORT: u16 = 53;
/// Room for datagrams that come faster than they are answered for a moment. One that is lost costs its sender 5 s: that is
/// when glibc asks again.
const RECEIVE_ROOM: usize = 1 << 20;

/// How many flows the kernel remembers in a namespace.
pub(super) const FLOWS: &str = "net/netfilter/nf_conntrack_count";

/// The sockets of one sandbox's embedded server. They don't block.
#[derive(Debug)]
pub struct NameSockets {
    /// For datagrams.
    pub udp: UdpSocket,
    /// For connections.
    pub tcp: TcpListener,
}

/// Makes them in the calling thread's namespace, and leads port 53 to them. `flows` is the file of [`FLOWS`].
pub(super) fn make(backend: Option<Backend>, flows: Option<&Path>) -> io::Result<NameSockets> {
    let sockets = bind(0)?;
    let ports = NamePorts { udp: sockets.udp.local_addr()?.port(), tcp: sockets.tcp.local_addr()?.port() };
    let led = match backend {
        Some(backend) => lead(backend, ports, flows),
        None => lead(Backend::Nftables, ports, flows).or_else(|_| lead(Backend::Iptables, ports, flows)),
    };
    let Err(reason) = led else { return Ok(sockets) };
    let direct = bind(PORT).map_err(|error| {
        io::Error::other(format!("no rule leads port {PORT} to it: {reason}; nor can it be had: {error}"))
    })?;
    tracing::warn!(
        error = %reason,
        "the embedded name server has port 53 of 127.0.0.11 to itself: no server on port 53 of all addresses can run in \
         the sandbox"
    );
    Ok(direct)
}

/// Takes the rules away from the calling thread's namespace, whichever backend they were made with.
pub(super) fn remove_rules() -> io::Result<()> {
    // Where nftables isn't to be had, nothing of it is left.
    let removed = nftables::remove();
    if has_legacy_table() || nftables::has_iptables_chain().unwrap_or(false) {
        iptables::remove_iptables().map_err(io::Error::other)?;
    }
    removed
}

fn bind(port: u16) -> io::Result<NameSockets> {
    let udp = UdpSocket::bind((EMBEDDED, port))?;
    let tcp = TcpListener::bind((EMBEDDED, port))?;
    // Without the right to have more than others may, that has to do.
    if setsockopt(&udp, sockopt::RcvBufForce, &RECEIVE_ROOM).is_err() {
        SockRef::from(&udp).set_recv_buffer_size(RECEIVE_ROOM)?;
    }
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok(NameSockets { udp, tcp })
}

/// Loads the rules with one backend, and takes away those that the other left when it was in use.
fn lead(backend: Backend, ports: NamePorts, flows: Option<&Path>) -> io::Result<()> {
    match backend {
        Backend::Nftables => {
            nftables::load(ports)?;
            // The rules are there by now: not to know of others is no reason to do without these.
            let others = nftables::has_iptables_chain().unwrap_or(false) || has_legacy_table();
            if others && let Err(error) = iptables::remove_iptables() {
                // Its tools may be gone, and then perhaps its rules are.
                tracing::debug!(%error, "iptables rules of an embedded name server left behind");
            }
        }
        Backend::Iptables => {
            // Where nftables isn't to be had, nothing of it is left.
            let _ = nftables::remove();
            iptables::load_iptables(ports).map_err(io::Error::other)?;
        }
    }
    if knows_flows(flows) {
        forget_clients();
    }
    Ok(())
}

/// Whether the kernel remembers any flow in the calling thread's namespace: `flows` is the file of [`FLOWS`]. Where a sandbox
/// starts there is none. Not asked of the rules that were there: somebody may have flushed those, and flows outlive them.
fn knows_flows(flows: Option<&Path>) -> bool {
    let count = flows.and_then(|path| sysctl::read(path).ok()).flatten().unwrap_or_default();
    count != "0"
}

/// Who asked before from some port is led to the old server's sockets as long as the kernel remembers that.
fn forget_clients() {
    let flow = |proto| Flow { proto, host_ip: EMBEDDED.into(), host: PortRange::single(PORT), target: None };
    if let Err(error) = forget_flows(&[flow(Proto::Udp), flow(Proto::Tcp)]) {
        tracing::debug!(%error, "clients of an earlier embedded name server may have to ask from other ports");
    }
}

/// Whether the older iptables has a nat table in the calling thread's namespace. Reading doesn't make one.
fn has_legacy_table() -> bool {
    let tables = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    tables.lines().any(|table| table == "nat")
}

/// A network namespace to come back to.
#[derive(Debug)]
pub(crate) struct Home(File);

impl Home {
    /// The calling thread's.
    pub(crate) fn here() -> io::Result<Self> {
        netns::current().map(Self)
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Moves the calling thread there, which has to be one that is ours alone.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let place = |file: &File| file.metadata().map(|file| (file.dev(), file.ino()));
        if place(&self.0)? != place(&netns::current()?)? {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
        }
        Ok(())
    }
}

/// A socket for asking a server, not connected yet. It doesn't block.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) socket: Socket,
    pub(crate) server: SocketAddr,
}

/// Makes a socket in the calling thread's namespace. The kernel gives it a random port when it is connected.
pub(crate) fn outgoing(server: &Nameserver, port: u16, transport: Transport) -> io::Result<Outgoing> {
    let at = match server.ip {
        IpAddr::V4(ip) => SocketAddr::from((ip, port)),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope(server.zone.as_deref())?).into(),
    };
    let kind = match transport {
        Transport::Udp => Type::DGRAM,
        Transport::Tcp => Type::STREAM,
    };
    Ok(Outgoing { socket: Socket::new(Domain::for_address(at), kind.nonblocking(), None)?, server: at })
}

/// The number of a zone: it is one, or an interface's name in the calling thread's namespace.
fn scope(zone: Option<&str>) -> io::Result<u32> {
    zone.map_or(Ok(0), |zone| zone.parse().or_else(|_| Ok(nix::net::if_::if_nametoindex(zone)?)))
}

/// Makes sockets in sandboxes' namespaces, on a thread of its own that hops from one to the other. It waits at home, so it
/// keeps no namespace alive.
#[derive(Debug, Default)]
pub(crate) struct SocketMaker(Option<Sender<Order>>);

type Order = Box<dyn FnOnce(&Home) -> io::Result<()> + Send>;

impl SocketMaker {
    /// Makes a socket for a server and its port in the pinned namespace, and passes it to `done`, on that thread. If it can't be made at all, `done` is
    /// dropped.
    pub(crate) fn make(
        &mut self,
        namespace: PathBuf,
        server: (Nameserver, u16),
        transport: Transport,
        done: impl FnOnce(io::Result<Outgoing>) + Send + 'static,
    ) {
        self.order(Box::new(move |home| {
            let (made, back) = elsewhere(&namespace, home, || outgoing(&server.0, server.1, transport));
            done(made);
            back
        }));
    }

    /// Calls `done` when everything that was ordered before is made and passed on.
    pub(crate) fn settle(&mut self, done: impl FnOnce() + Send + 'static) {
        match &self.0 {
            None => done(),
            Some(_) => self.order(Box::new(move |_| {
                done();
                Ok(())
            })),
        }
    }

    fn order(&mut self, order: Order) {
        let refused = match &self.0 {
            Some(orders) => orders.send(order).err().map(|refused| refused.0),
            None => Some(order),
        };
        let Some(order) = refused else { return };
        match start() {
            Ok(orders) => {
                // It waits for orders as long as it isn't lost.
                let _ = orders.send(order);
                self.0 = Some(orders);
            }
            Err(error) => tracing::debug!(%error, "no thread for sockets in sandboxes"),
        }
    }
}

/// The thread ends with its last sender, or when it can't find home.
fn start() -> io::Result<Sender<Order>> {
    let (orders, ordered) = mpsc::channel::<Order>();
    let home = Home::here()?;
    thread::Builder::new().name("dns-sockets".to_owned()).stack_size(netns::STACK).spawn(move || {
        for order in ordered {
            if let Err(error) = order(&home) {
                tracing::debug!(%error, "no way back from a sandbox's namespace");
                return;
            }
        }
    })?;
    Ok(orders)
}

/// Runs `work` in a namespace and comes back; the second result is whether that worked.
fn elsewhere<T>(
    namespace: &Path,
    home: &Home,
    work: impl FnOnce() -> io::Result<T>,
) -> (io::Result<T>, io::Result<()>) {
    let there = match netns::find(namespace) {
        Ok(Found::Namespace(file)) => file,
        Ok(_) => return (Err(io::ErrorKind::NotFound.into()), Ok(())),
        Err(error) => return (Err(error), Ok(())),
    };
    if let Err(error) = setns(&there, CloneFlags::CLONE_NEWNET) {
        return (Err(error.into()), Ok(()));
    }
    let done = work();
    (done, setns(&home.0, CloneFlags::CLONE_NEWNET).map_err(io::Error::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_an_interfaces_name_or_number() {
        let scope = |zone| scope(zone).map_err(|error| error.raw_os_error());
        assert_eq!((scope(None), scope(Some("7")), scope(Some("lo"))), (Ok(0), Ok(7), Ok(1)));
        assert_eq!(scope(Some("no-such-one")), Err(Some(libc::ENODEV)));
        assert_eq!(scope(Some("with\0nul")), Err(Some(libc::EINVAL)));
    }
}
