//! Bursts of datagrams: every client sends many at once and waits for their echoes, as DNS clients and games do.
//!
//! The load is closed, nothing is sent before the last burst has come back, and no socket of the client's or the
//! backend's can overflow with what is under way. So what is lost is lost by the way between them: it has a queue
//! that is too short for the pace at which it empties it. A burst that doesn't come back whole is given up on.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::Socket;

use super::round_trips::{index, wait};
use super::{MESSAGE, Phase, Protocol, Tally, Worker, bind_with_room, connect};

/// Datagrams in a burst: a bit each.
const BURST: u32 = 32;
/// Far above what a path with full queues needs.
const LOST: Duration = Duration::from_millis(100);
const EVENTS: usize = 64;

pub(super) fn client(target: SocketAddr, parallel: usize) -> io::Result<Vec<Worker>> {
    let peer =
        |_| Ok(Peer { socket: connect(Protocol::Udp, target)?, burst: 0, back: 0, sent: Instant::now() });
    let peers = (0..parallel).map(peer).collect::<io::Result<Vec<_>>>()?;
    Ok(vec![Box::new(move |phase: &Phase| run(peers, phase))])
}

/// One client, with one burst under way.
struct Peer {
    socket: Socket,
    burst: u32,
    /// The bits of the datagrams that are back.
    back: u32,
    sent: Instant,
}

impl Peer {
    fn send(&mut self) -> io::Result<()> {
        self.burst = self.burst.wrapping_add(1);
        self.back = 0;
        self.sent = Instant::now();
        let mut message = [0x5a; MESSAGE];
        message[..4].copy_from_slice(&self.burst.to_ne_bytes());
        for at in 0..BURST {
            message[4..8].copy_from_slice(&at.to_ne_bytes());
            match (&self.socket).write(&message) {
                Ok(_) => {}
                // A full queue on the way loses the datagram, as a full buffer anywhere else does.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::OutOfMemory) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what has arrived; true when the whole burst is back.
    fn receive(&mut self) -> io::Result<bool> {
        let mut message = [0; MESSAGE];
        loop {
            match (&self.socket).read(&mut message) {
                Ok(MESSAGE) => {}
                Ok(_) => return Err(io::Error::new(ErrorKind::InvalidData, "an echo came back altered")),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(self.back == u32::MAX),
                Err(error) => return Err(error),
            }
            let (burst, rest) = message.split_at(4);
            // An echo of a burst given up on may still come.
            if burst == self.burst.to_ne_bytes()
                && let Some(at) = rest.first_chunk().map(|at| u32::from_ne_bytes(*at))
            {
                self.back |= 1 << (at % BURST);
            }
        }
    }

    /// Counts what is back of a burst and what isn't.
    fn count(&self, tally: &mut Tally) {
        let back = self.back.count_ones();
        tally.work += u64::from(back);
        tally.lost += u64::from(BURST - back);
    }
}

fn run(mut peers: Vec<Peer>, phase: &Phase) -> io::Result<Tally> {
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
        if now == Phase::STOP {
            return Ok(tally);
        }
        for event in &events[..ready] {
            let peer = &mut peers[index(event)];
            if peer.receive()? {
                if now == Phase::MEASURE {
                    tally.took(peer.sent.elapsed());
                    peer.count(&mut tally);
                }
                peer.send()?;
            }
        }
        if last_look.elapsed() > LOST / 2 {
            last_look = Instant::now();
            for peer in peers.iter_mut().filter(|peer| peer.sent.elapsed() > LOST) {
                if now == Phase::MEASURE {
                    peer.count(&mut tally);
                }
                peer.send()?;
            }
        }
    }
}

pub(super) fn serve(address: SocketAddr) -> io::Result<()> {
    let socket = bind_with_room(address)?;
    thread::spawn(move || {
        let mut message = [0; MESSAGE];
        loop {
            // A client that has gone shows as a refusal of some earlier echo; the next datagram is not concerned.
            if let Ok((bytes, from)) = socket.recv_from(&mut message) {
                let _ = socket.send_to(&message[..bytes], from);
            }
        }
    });
    Ok(())
}
