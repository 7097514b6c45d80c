//! Backends: servers on threads, with sockets in a host's namespace. They end when their handle goes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{SockRef, Socket};

use crate::lab::Host;
use crate::wait;

/// The largest datagram there is (IPv6 without extension headers; IPv4's is 20 bytes shorter).
const DATAGRAM: usize = 65_527;

/// A TCP server with a thread per connection.
#[derive(Debug)]
pub struct TcpServer {
    /// Where it listens.
    pub addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl TcpServer {
    /// Listens on `host` at `at` (port 0: any) and hands each connection to `serve`, which closes it by returning.
    ///
    /// # Panics
    /// When the address is taken or not the host's.
    #[must_use]
    pub fn start(host: &Host, at: SocketAddr, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::with(host.listen(at), serve)
    }

    /// Serves a listener made elsewhere.
    ///
    /// # Panics
    /// When the listener has no address.
    #[must_use]
    pub fn with(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let addr = listener.local_addr().expect("a listener has an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let (listening, counter, serve) = (listener.try_clone(), Arc::clone(&accepted), Arc::new(serve));
        let listening = listening.expect("a second handle");
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = listening.accept() {
                counter.fetch_add(1, Ordering::SeqCst);
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(stream));
            }
        });
        Self { addr, accepted, listener, thread: Some(thread) }
    }

    /// How many connections it has had.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both); // wakes the accept
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tells who connects the address it is seen under, and closes.
pub fn witness(mut stream: TcpStream) {
    if let Ok(peer) = stream.peer_addr() {
        let _ = stream.write_all(peer.ip().to_string().as_bytes());
    }
}

/// Sends back what arrives, as it arrives.
pub fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Reads to the end, then sends everything back and closes.
pub fn half_close_echo(mut stream: TcpStream) {
    let mut all = Vec::new();
    if stream.read_to_end(&mut all).is_ok() {
        let _ = stream.write_all(&all);
    }
}

/// Resets at once.
pub fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Holds the connection without reading until the peer is gone.
pub fn silent(stream: TcpStream) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    // Not POLLIN: data stays in the kernel.
    let gone = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
    let mut wanted = [PollFd::new(stream.as_fd(), gone)];
    while let Err(nix::errno::Errno::EINTR) = poll(&mut wanted, PollTimeout::NONE) {}
}

/// An SCTP server that sends back what arrives, one association after the other.
#[derive(Debug)]
pub struct SctpEcho {
    listener: Socket,
    thread: Option<JoinHandle<()>>,
}

impl SctpEcho {
    /// Listens on `host` at `at`.
    ///
    /// # Panics
    /// When the kernel has no SCTP, or the address is taken or not the host's.
    #[must_use]
    pub fn start(host: &Host, at: SocketAddr) -> Self {
        let listener = host.sctp_listener(at);
        let listening = listener.try_clone().expect("a second handle");
        let thread = thread::spawn(move || {
            while let Ok((mut association, _)) = listening.accept() {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(count @ 1..) = association.read(&mut buffer) {
                    let _ = association.write_all(&buffer[..count]);
                }
            }
        });
        Self { listener, thread: Some(thread) }
    }
}

impl Drop for SctpEcho {
    fn drop(&mut self) {
        let _ = self.listener.shutdown(Shutdown::Both); // wakes the accept
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a UDP server does with a datagram.
pub type Reply = dyn Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync;

/// A UDP server that remembers what came from where.
#[derive(Debug)]
pub struct UdpServer {
    /// Where it is bound.
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Datagram>>>,
    socket: UdpSocket,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A datagram that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// Its payload.
    pub bytes: Vec<u8>,
}

impl UdpServer {
    /// Sends back what arrives.
    #[must_use]
    pub fn echo(host: &Host, at: SocketAddr) -> Self {
        Self::start(host, at, Arc::new(|bytes: &[u8]| vec![bytes.to_vec()]))
    }

    /// Never answers.
    #[must_use]
    pub fn silent(host: &Host, at: SocketAddr) -> Self {
        Self::start(host, at, Arc::new(|_: &[u8]| Vec::new()))
    }

    /// Answers with what `reply` makes of a datagram.
    ///
    /// # Panics
    /// When the address is taken or not the host's.
    #[must_use]
    pub fn start(host: &Host, at: SocketAddr, reply: Arc<Reply>) -> Self {
        Self::with(host.udp(at), reply)
    }

    /// Serves a socket made elsewhere.
    ///
    /// # Panics
    /// When the socket has no address.
    #[must_use]
    pub fn with(socket: UdpSocket, reply: Arc<Reply>) -> Self {
        Self::serve(socket, move |datagram| reply(&datagram.bytes))
    }

    /// Serves a socket made elsewhere, and answers with the address that each datagram came from, as text.
    ///
    /// # Panics
    /// When the socket has no address.
    #[must_use]
    pub fn witness(socket: UdpSocket) -> Self {
        Self::serve(socket, |datagram| vec![datagram.from.ip().to_string().into_bytes()])
    }

    /// Serves a socket made elsewhere, and answers with what `reply` makes of a datagram and its sender.
    ///
    /// # Panics
    /// When the socket has no address.
    #[must_use]
    pub fn serve(socket: UdpSocket, reply: impl Fn(&Datagram) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        /// How long a server may go on after its end.
        const TURN: Duration = Duration::from_millis(50);
        let addr = socket.local_addr().expect("a bound socket has an address");
        socket.set_read_timeout(Some(TURN)).expect("a time-out can be set");
        let (seen, over) = (Arc::<Mutex<Vec<Datagram>>>::default(), Arc::new(AtomicBool::new(false)));
        let (log, stop) = (Arc::clone(&seen), Arc::clone(&over));
        let receiving = socket.try_clone().expect("a second handle");
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; DATAGRAM + 1];
            while !stop.load(Ordering::SeqCst) {
                // A time-out, or the ICMP complaint of a client that left: neither ends a server.
                let Ok((count, from)) = receiving.recv_from(&mut buffer) else { continue };
                let datagram = Datagram { from, bytes: buffer[..count].to_vec() };
                let answers = reply(&datagram);
                log.lock().unwrap_or_else(PoisonError::into_inner).push(datagram);
                for answer in answers {
                    let _ = receiving.send_to(&answer, from);
                }
            }
        });
        Self { addr, seen, socket, over, thread: Some(thread) }
    }

    /// What has arrived so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Datagram> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until at least `count` datagrams have arrived, and returns all.
    ///
    /// # Panics
    /// When fewer arrive.
    #[track_caller]
    #[must_use]
    pub fn wait_for(&self, count: usize) -> Vec<Datagram> {
        wait::until(&format!("{count} datagrams"), || self.seen().len() >= count);
        self.seen()
    }

    /// From now on has the kernel cut what it sends into datagrams of `size` bytes.
    ///
    /// # Panics
    /// When the kernel can't.
    pub fn send_in_batches(&self, size: usize) {
        let size = i32::try_from(size).expect("the size of a datagram");
        setsockopt(&self.socket, sockopt::UdpGsoSegment, &size).expect("Linux can since 4.18");
    }

    /// Sends a datagram without being asked.
    ///
    /// # Panics
    /// When the kernel refuses it.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) {
        let sent: io::Result<usize> = self.socket.send_to(bytes, to);
        assert_eq!(sent.expect("a datagram can be sent"), bytes.len());
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How a connection ended for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Politely.
    Closed,
    /// By a reset.
    Reset,
    /// Not at all before the read time-out.
    Open,
}

/// Reads until the connection ends: what came, and how it ended.
///
/// # Panics
/// When it ends in a way no peer can cause.
#[track_caller]
pub fn read_to_ending(stream: &mut TcpStream) -> (Vec<u8>, Ending) {
    let mut all = Vec::new();
    let ending = match stream.read_to_end(&mut all) {
        Ok(_) => Ending::Closed,
        Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ending::Reset,
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ending::Open,
        Err(e) => panic!("reading to the end: {e}"),
    };
    (all, ending)
}
