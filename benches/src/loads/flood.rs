//! A flood of datagrams one way, as fast as one thread can send.
//!
//! Every datagram carries the phase it was sent in, so that sender and receiver count the same ones although
//! some are under way when a phase ends.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::{MESSAGE, Phase, Protocol, Tally, Worker, bind_with_room, connect};

pub(super) fn client(target: SocketAddr) -> io::Result<Vec<Worker>> {
    let mut socket = connect(Protocol::Udp, target)?;
    Ok(vec![Box::new(move |phase: &Phase| {
        let mut tally = Tally::default();
        loop {
            let now = phase.now();
            if now == Phase::STOP {
                return Ok(tally);
            }
            match socket.write(&[now; MESSAGE]) {
                Ok(_) => tally.work += u64::from(now == Phase::MEASURE),
                // A full queue on the way loses the datagram, as a full buffer anywhere else does.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::OutOfMemory) => {
                    tally.work += u64::from(now == Phase::MEASURE);
                }
                Err(error) => return Err(error),
            }
        }
    })])
}

pub(super) fn serve(address: SocketAddr, received: Arc<AtomicU64>) -> io::Result<()> {
    let socket = bind_with_room(address)?;
    thread::spawn(move || {
        let mut message = [0; MESSAGE];
        loop {
            if socket.recv(&mut message).is_ok() && message[0] == Phase::MEASURE {
                received.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    Ok(())
}
