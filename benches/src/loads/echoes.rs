//! Echoes of messages of any size, on a few connections with a thread each on either side.
//!
//! The backend answers when it has the whole message. So one side writes while the other reads, and whatever the
//! buffers on the path hold, nobody waits for each other.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use socket2::Socket;

use super::{Phase, Protocol, Tally, Worker, connect, for_each_connection};

pub(super) fn clients(target: SocketAddr, parallel: usize, size: usize) -> io::Result<Vec<Worker>> {
    let worker = |_| -> io::Result<Worker> {
        let socket = connect(Protocol::Tcp, target)?;
        Ok(Box::new(move |phase| client(socket, size, phase)))
    };
    (0..parallel).map(worker).collect()
}

fn client(mut socket: Socket, size: usize, phase: &Phase) -> io::Result<Tally> {
    let mut tally = Tally::for_latencies();
    let (mut message, mut echo) = (vec![0x5a; size], vec![0; size]);
    let mut number = 0_u64;
    loop {
        number += 1;
        let mark = number.to_ne_bytes();
        let marked = size.min(mark.len());
        message[..marked].copy_from_slice(&mark[..marked]);
        let start = Instant::now();
        socket.write_all(&message)?;
        socket.read_exact(&mut echo)?;
        let took = start.elapsed();
        if echo[..marked] != message[..marked] {
            return Err(io::Error::new(ErrorKind::InvalidData, "an echo came back altered"));
        }
        match phase.now() {
            Phase::MEASURE => tally.done(took),
            Phase::STOP => return Ok(tally),
            _ => {}
        }
    }
}

pub(super) fn serve(address: SocketAddr, size: usize) -> io::Result<()> {
    for_each_connection(address, move |socket| {
        // The client reports an early end; here it is how every connection ends.
        let _ = echo(socket, size);
    })
}

fn echo(mut socket: Socket, size: usize) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let mut message = vec![0; size];
    loop {
        socket.read_exact(&mut message)?;
        socket.write_all(&message)?;
    }
}
