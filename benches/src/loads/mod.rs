//! The loads: what is sent, by how many, and what is counted.
//!
//! One line in `ALL` is one load; one file here is one kind of traffic, with the client's and the backend's side of
//! it next to each other. Not here: when to start and stop measuring (`drive`), processes and namespaces (`rounds`).

mod bulk;
mod bursts;
mod connects;
mod echoes;
mod flood;
mod mixed;
mod round_trips;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};

/// What a small message, a request or a datagram holds, in bytes.
pub(crate) const MESSAGE: usize = 128;
/// A peer that is silent for so long is taken for broken.
const STALL: Duration = Duration::from_secs(5);

/// One way to use a forwarded port.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) protocol: Protocol,
    pub(crate) traffic: Traffic,
    /// How many connections, UDP sockets or (for `Connects`) clients there are at a time.
    pub(crate) parallel: usize,
    /// What one message holds, in bytes.
    pub(crate) size: usize,
    pub(crate) weight: Weight,
}

/// How much of a run's time a load deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// In every round.
    Main,
    /// For a closer look: in fewer rounds, and in a quick run not at all.
    Detail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// As much as goes through from client to backend.
    Upload,
    /// As much as goes through from backend to client.
    Download,
    /// A message and its echo, over and over, one at a time on each connection.
    RoundTrips,
    /// The same with a message of any size, on a few connections with a thread each.
    Echoes,
    /// Uploads, and beside them round trips on connections of their own. The uploads are the work, the round trips'
    /// latency is what it is about.
    Mixed,
    /// Connect, request, answer, close: the backend closes first, as an HTTP server does after `Connection: close`.
    Connects,
    /// Datagrams from the client, as fast as it can.
    Flood,
    /// Many datagrams at once from each client and then their echoes, over and over.
    Bursts,
}

pub(crate) const ALL: &[Load] = &[
    tcp("bulk-up", "bulk upload", Traffic::Upload, 1),
    tcp("bulk-down", "bulk download", Traffic::Download, 1),
    tcp("bulk-8", "8 parallel uploads", Traffic::Upload, 8),
    tcp("rr-1", "round trips, 1 connection", Traffic::RoundTrips, 1),
    tcp("rr-64", "round trips, 64 connections", Traffic::RoundTrips, 64),
    detail(tcp("rr-1000", "round trips, 1000 connections", Traffic::RoundTrips, 1000)),
    tcp("mixed", "4 uploads beside round trips", Traffic::Mixed, 4),
    tcp("connect", "connect, request, close", Traffic::Connects, 4),
    udp("udp-flood", "UDP one way", Traffic::Flood, 1),
    udp("udp-rr-1", "UDP round trips, 1 client", Traffic::RoundTrips, 1),
    udp("udp-rr-16", "UDP round trips, 16 clients", Traffic::RoundTrips, 16),
    udp("udp-burst", "UDP bursts, 16 clients", Traffic::Bursts, 16),
    echoes("echo-1", "echoes of 1 B", 1),
    echoes("echo-64", "echoes of 64 B", 64),
    echoes("echo-1k", "echoes of 1 KiB", 1 << 10),
    echoes("echo-16k", "echoes of 16 KiB", 16 << 10),
    echoes("echo-64k", "echoes of 64 KiB", 64 << 10),
    echoes("echo-1m", "echoes of 1 MiB", 1 << 20),
];

const fn tcp(name: &'static str, title: &'static str, traffic: Traffic, parallel: usize) -> Load {
    Load { name, title, protocol: Protocol::Tcp, traffic, parallel, size: MESSAGE, weight: Weight::Main }
}

const fn udp(name: &'static str, title: &'static str, traffic: Traffic, parallel: usize) -> Load {
    Load { protocol: Protocol::Udp, ..tcp(name, title, traffic, parallel) }
}

const fn detail(load: Load) -> Load {
    Load { weight: Weight::Detail, ..load }
}

/// On a few connections.
const fn echoes(name: &'static str, title: &'static str, size: usize) -> Load {
    Load { size, ..detail(tcp(name, title, Traffic::Echoes, 4)) }
}

pub(crate) fn find(name: &str) -> Option<&'static Load> {
    ALL.iter().find(|load| load.name == name)
}

impl Protocol {
    /// As docker-proxy's `-proto` spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Traffic {
    /// Whether the work done is counted in bytes; in messages otherwise.
    pub(crate) fn counts_bytes(self) -> bool {
        matches!(self, Self::Upload | Self::Download | Self::Mixed)
    }

    /// Whether somebody waits for an answer.
    pub(crate) fn has_latency(self) -> bool {
        matches!(self, Self::RoundTrips | Self::Echoes | Self::Mixed | Self::Connects | Self::Bursts)
    }

    /// The unit of throughput in a report.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Upload | Self::Download | Self::Mixed => "GB/s",
            Self::RoundTrips | Self::Echoes => "round trips/s",
            Self::Connects => "connections/s",
            Self::Flood | Self::Bursts => "packets/s",
        }
    }

    /// What CPU time is divided by in a report, and how much work that is.
    pub(crate) fn portion(self) -> (&'static str, f64) {
        if self.counts_bytes() { ("GB", 1e9) } else { ("million", 1e6) }
    }
}

/// Where a measurement stands; set by the time keeper, read by the workers in every turn of their loop. It begins as
/// neither of the constants: the load is running warm.
#[derive(Debug, Default)]
pub(crate) struct Phase(AtomicU8);

impl Phase {
    pub(crate) const MEASURE: u8 = 1;
    pub(crate) const STOP: u8 = 2;

    pub(crate) fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    fn now(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker did while the phase was `MEASURE`.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Bytes or messages, as the traffic counts them.
    pub(crate) work: u64,
    /// Datagrams given up on.
    pub(crate) lost: u64,
    /// Nanoseconds of every single round trip or connection.
    pub(crate) latencies: Vec<u32>,
}

impl Tally {
    fn for_latencies() -> Self {
        // Enough for a few seconds, so that no growing (and copying) disturbs the measurement.
        Self { latencies: Vec::with_capacity(1 << 20), ..Self::default() }
    }

    fn done(&mut self, took: Duration) {
        self.work += 1;
        self.took(took);
    }

    fn took(&mut self, took: Duration) {
        // Four seconds and more count as four seconds.
        self.latencies.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
    }
}

/// One of the client's threads, with its connections made.
pub(crate) type Worker = Box<dyn FnOnce(&Phase) -> io::Result<Tally> + Send>;

impl Load {
    /// Connects; the workers returned then send when they are run.
    pub(crate) fn client(&self, target: SocketAddr) -> io::Result<Vec<Worker>> {
        match self.traffic {
            Traffic::Upload => bulk::uploads(target, self.parallel),
            Traffic::Download => bulk::downloads(target, self.parallel),
            Traffic::RoundTrips => round_trips::client(self.protocol, target, self.parallel),
            Traffic::Echoes => echoes::clients(target, self.parallel, self.size),
            Traffic::Mixed => mixed::clients(target, self.parallel),
            Traffic::Connects => Ok(connects::clients(target, self.parallel)),
            Traffic::Flood => flood::client(target),
            Traffic::Bursts => bursts::client(target, self.parallel),
        }
    }

    /// Listens on `address` and serves on threads of its own. `received` counts the datagrams of a measurement.
    pub(crate) fn serve(&self, address: SocketAddr, received: Arc<AtomicU64>) -> io::Result<()> {
        match self.traffic {
            Traffic::Upload => bulk::serve_uploads(address),
            Traffic::Download => bulk::serve_downloads(address),
            Traffic::RoundTrips => round_trips::serve(self.protocol, address, self.parallel),
            Traffic::Echoes => echoes::serve(address, self.size),
            Traffic::Mixed => mixed::serve(address),
            Traffic::Connects => connects::serve(address, self.parallel),
            Traffic::Flood => flood::serve(address, received),
            Traffic::Bursts => bursts::serve(address),
        }
    }
}

/// A connected socket, either kind, that doesn't wait longer than `STALL` for anything.
pub(crate) fn connect(protocol: Protocol, target: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), kind(protocol), None)?;
    socket.set_read_timeout(Some(STALL))?;
    socket.set_write_timeout(Some(STALL))?;
    socket.connect(&SockAddr::from(target))?;
    if protocol == Protocol::Tcp {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SockAddr::from(address))?;
    // The kernel caps it at somaxconn.
    socket.listen(i32::from(u16::MAX))?;
    Ok(socket)
}

/// A UDP backend with a queue so long that what is lost is lost on the path.
fn bind_with_room(address: SocketAddr) -> io::Result<UdpSocket> {
    const RECEIVE_BUFFER: usize = 8 << 20;
    let socket = UdpSocket::bind(address)?;
    // Needs a privilege over the machine, not just the namespace; without it, as much as anyone may have.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    Ok(socket)
}

/// Serves every connection on a thread of its own. The client's end, and with it an error here, is how most
/// connections end; the client knows if that was too early.
fn for_each_connection(
    address: SocketAddr,
    serve: impl Fn(Socket) + Clone + Send + 'static,
) -> io::Result<()> {
    let listener = listen(address)?;
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            let serve = serve.clone();
            thread::spawn(move || serve(socket));
        }
    });
    Ok(())
}

fn kind(protocol: Protocol) -> Type {
    match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = ALL.iter().map(|load| load.name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    /// An address nobody uses at the moment.
    fn free(protocol: Protocol) -> SocketAddr {
        let any = (Ipv4Addr::LOCALHOST, 0);
        match protocol {
            Protocol::Tcp => TcpListener::bind(any).unwrap().local_addr().unwrap(),
            Protocol::Udp => UdpSocket::bind(any).unwrap().local_addr().unwrap(),
        }
    }

    /// What the load's workers count in `time`, all together.
    fn work_in(time: Duration, load: &Load, address: SocketAddr) -> u64 {
        let workers = load.client(address).unwrap();
        let phase = Phase::default();
        phase.set(Phase::MEASURE);
        thread::scope(|scope| {
            let phase = &phase;
            let workers: Vec<_> =
                workers.into_iter().map(|worker| scope.spawn(move || worker(phase))).collect();
            thread::sleep(time);
            phase.set(Phase::STOP);
            workers.into_iter().map(|worker| worker.join().unwrap().unwrap().work).sum()
        })
    }

    #[test]
    fn every_load_does_some_work_against_its_own_backend() {
        crate::process::raise_open_files().unwrap();
        for load in ALL {
            let address = free(load.protocol);
            let received = Arc::new(AtomicU64::new(0));
            load.serve(address, Arc::clone(&received)).unwrap();
            // A busy machine gets more time; a fast one isn't kept waiting.
            let mut times = [20, 100, 500, 5000].map(Duration::from_millis).into_iter();
            assert!(times.any(|time| work_in(time, load, address) > 0), "{}", load.name);
            if load.traffic == Traffic::Flood {
                assert!(received.load(Ordering::Relaxed) > 0);
            }
        }
    }
}
