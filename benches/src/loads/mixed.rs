//! Round trips beside bulk: how long a small message waits while others fill the path.
//!
//! Uploads and round trips are connections to the same port; the first byte of a connection tells the backend which
//! one it is. Only the uploads count as work, so that throughput is one quantity; of the round trips it is the
//! latency that is kept.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use socket2::Socket;

use super::{Phase, Protocol, Tally, Worker, bulk, connect, for_each_connection, round_trips};

const UPLOAD: u8 = b'u';
const ROUND_TRIPS: u8 = b'r';
/// How many connections have round trips.
const WAITING: usize = 4;

pub(super) fn clients(target: SocketAddr, streams: usize) -> io::Result<Vec<Worker>> {
    let waiting = (0..WAITING).map(|_| connect_as(ROUND_TRIPS, target)).collect::<io::Result<Vec<_>>>()?;
    let waiting = round_trips::on(Protocol::Tcp, waiting);
    let only_latency =
        |phase: &Phase| waiting(phase).map(|tally| Tally { work: 0, latencies: tally.latencies, ..tally });
    let uploads = (0..streams).map(|_| connect_as(UPLOAD, target).map(bulk::upload));
    let mut workers = uploads.collect::<io::Result<Vec<_>>>()?;
    workers.push(Box::new(only_latency));
    Ok(workers)
}

fn connect_as(kind: u8, target: SocketAddr) -> io::Result<Socket> {
    let mut socket = connect(Protocol::Tcp, target)?;
    socket.write_all(&[kind])?;
    Ok(socket)
}

pub(super) fn serve(address: SocketAddr) -> io::Result<()> {
    for_each_connection(address, |mut socket| {
        let mut kind = [0];
        match socket.read_exact(&mut kind) {
            Ok(()) if kind == [UPLOAD] => bulk::swallow(&socket),
            Ok(()) => {
                // The client reports an early end; here it is how every connection ends.
                let _ = round_trips::echo_stream(&socket);
            }
            Err(_) => {}
        }
    })
}
