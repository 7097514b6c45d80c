//! Round trips: a small message goes out, its echo comes back, and only then the next one goes.
//!
//! One connection is one blocking thread on either side: the fewest system calls. Many connections are one epoll
//! loop on either side: the fewest threads to switch between. UDP is the same, but a lost datagram must be given up on.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::Socket;

use super::{MESSAGE, Phase, Protocol, STALL, Tally, Worker, connect, listen};

/// An echo that takes longer counts as lost; far above what a path with full queues needs.
const LOST: Duration = Duration::from_millis(200);
/// How often the loop over many connections looks at the phase, and for lost datagrams, when nothing happens.
const TICK_MS: u16 = 50;
const EVENTS: usize = 256;

pub(super) fn client(protocol: Protocol, target: SocketAddr, parallel: usize) -> io::Result<Vec<Worker>> {
    let sockets = (0..parallel).map(|_| connect(protocol, target)).collect::<io::Result<Vec<_>>>()?;
    Ok(vec![on(protocol, sockets)])
}

/// A worker for all these connections.
pub(super) fn on(protocol: Protocol, sockets: Vec<Socket>) -> Worker {
    let mut peers: Vec<Peer> = sockets.into_iter().map(|socket| Peer::new(protocol, socket)).collect();
    match peers.pop() {
        Some(only) if peers.is_empty() => Box::new(move |phase: &Phase| alone(only, phase)),
        last => {
            peers.extend(last);
            Box::new(move |phase: &Phase| many(peers, phase))
        }
    }
}

/// One side of a round trip; every message is numbered, so that a late echo isn't taken for the next one's.
struct Peer {
    socket: Socket,
    protocol: Protocol,
    sent: Instant,
    number: u64,
    echo: [u8; MESSAGE],
    echoed: usize,
}

impl Peer {
    fn new(protocol: Protocol, socket: Socket) -> Self {
        Self { socket, protocol, sent: Instant::now(), number: 0, echo: [0; MESSAGE], echoed: 0 }
    }

    fn send(&mut self) -> io::Result<()> {
        self.number += 1;
        self.echoed = 0;
        self.sent = Instant::now();
        let mut message = [0x5a; MESSAGE];
        message[..8].copy_from_slice(&self.number.to_ne_bytes());
        // One message fits into any socket's buffer, so this doesn't block and isn't cut short.
        (&self.socket).write_all(&message)
    }

    /// Reads what has arrived; true when the echo is complete.
    fn receive(&mut self) -> io::Result<bool> {
        match (&self.socket).read(&mut self.echo[self.echoed..]) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "a connection was closed early")),
            Ok(bytes) => {
                self.echoed += bytes;
                Ok(self.echoed == MESSAGE && self.is_mine()?)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_mine(&mut self) -> io::Result<bool> {
        if self.echo.starts_with(&self.number.to_ne_bytes()) {
            return Ok(true);
        }
        self.echoed = 0;
        match self.protocol {
            Protocol::Udp => Ok(false),
            Protocol::Tcp => Err(io::Error::new(ErrorKind::InvalidData, "an echo came back altered")),
        }
    }

    /// Sends again if the echo is overdue; true if so. On TCP nothing is lost, so there that is an error.
    fn give_up(&mut self) -> io::Result<bool> {
        let elapsed = self.sent.elapsed();
        match self.protocol {
            Protocol::Udp if elapsed > LOST => self.send().map(|()| true),
            Protocol::Tcp if elapsed > STALL => {
                Err(io::Error::new(ErrorKind::TimedOut, "a connection stalled"))
            }
            _ => Ok(false),
        }
    }
}

fn alone(mut peer: Peer, phase: &Phase) -> io::Result<Tally> {
    let mut tally = Tally::for_latencies();
    let patience = if peer.protocol == Protocol::Udp { LOST } else { STALL };
    peer.socket.set_read_timeout(Some(patience))?;
    peer.send()?;
    loop {
        let complete = peer.receive()?;
        let now = phase.now();
        if complete {
            if now == Phase::MEASURE {
                tally.done(peer.sent.elapsed());
            }
            peer.send()?;
        } else {
            let lost = peer.give_up()?;
            tally.lost += u64::from(lost && now == Phase::MEASURE);
        }
        if now == Phase::STOP {
            return Ok(tally);
        }
    }
}

fn many(mut peers: Vec<Peer>, phase: &Phase) -> io::Result<Tally> {
    let mut tally = Tally::for_latencies();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.socket.set_nonblocking(true)?;
        epoll.add(&peer.socket, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
        peer.send()?;
    }
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut last_look = Instant::now();
    loop {
        let ready = wait(&epoll, &mut events)?;
        let now = phase.now();
        for event in &events[..ready] {
            let peer = &mut peers[index(event)];
            if peer.receive()? {
                if now == Phase::MEASURE {
                    tally.done(peer.sent.elapsed());
                }
                peer.send()?;
            }
        }
        if now == Phase::STOP {
            return Ok(tally);
        }
        if last_look.elapsed() > LOST / 2 {
            last_look = Instant::now();
            for peer in &mut peers {
                let lost = peer.give_up()?;
                tally.lost += u64::from(lost && now == Phase::MEASURE);
            }
        }
    }
}

pub(super) fn wait(epoll: &Epoll, events: &mut [EpollEvent]) -> io::Result<usize> {
    match epoll.wait(events, EpollTimeout::from(TICK_MS)) {
        Err(nix::errno::Errno::EINTR) => Ok(0),
        ready => Ok(ready?),
    }
}

/// The number that a descriptor was registered with: always an index of ours.
pub(super) fn index(event: &EpollEvent) -> usize {
    usize::try_from(event.data()).unwrap_or(usize::MAX)
}

pub(super) fn serve(protocol: Protocol, address: SocketAddr, parallel: usize) -> io::Result<()> {
    if protocol == Protocol::Udp {
        let socket = UdpSocket::bind(address)?;
        thread::spawn(move || echo_datagrams(&socket));
        return Ok(());
    }
    let listener = listen(address)?;
    if parallel == 1 {
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                // The client reports an early end; here it is how every connection ends.
                let _ = echo_stream(&socket);
            }
        });
    } else {
        let mut backend = Backend::new(listener)?;
        thread::spawn(move || backend.run());
    }
    Ok(())
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut message = [0; MESSAGE];
    loop {
        // A client that has gone shows as a refusal of some earlier echo; the next datagram is not concerned.
        if let Ok((bytes, from)) = socket.recv_from(&mut message) {
            let _ = socket.send_to(&message[..bytes], from);
        }
    }
}

pub(super) fn echo_stream(mut socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let mut message = [0; MESSAGE];
    loop {
        let bytes = socket.read(&mut message)?;
        if bytes == 0 {
            return Ok(());
        }
        socket.write_all(&message[..bytes])?;
    }
}

/// Echoes on many connections from one thread. Index 0 of the epoll set is the listener, `at + 1` a connection.
struct Backend {
    epoll: Epoll,
    listener: Socket,
    connections: Vec<Option<Socket>>,
}

impl Backend {
    fn new(listener: Socket) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        listener.set_nonblocking(true)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self { epoll, listener, connections: Vec::new() })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let ready = wait(&self.epoll, &mut events)?;
            for event in &events[..ready] {
                match index(event).checked_sub(1) {
                    None => self.accept()?,
                    Some(at) => self.echo(at),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    socket.set_nonblocking(true)?;
                    socket.set_tcp_nodelay(true)?;
                    let number = self.connections.len() as u64 + 1;
                    self.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
                    self.connections.push(Some(socket));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// An end or an error closes the connection; the client notices.
    fn echo(&mut self, at: usize) {
        let mut message = [0; MESSAGE];
        let slot = &mut self.connections[at];
        let Some(socket) = slot.as_mut() else { return };
        let echoed = socket.read(&mut message).and_then(|bytes| {
            socket.write_all(&message[..bytes])?;
            Ok(bytes)
        });
        match echoed {
            Ok(bytes) if bytes > 0 => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => *slot = None,
        }
    }
}
