//! Short connections: connect, one request, its answer, the end.
//!
//! The backend closes first. So TIME_WAIT stays on the accepting side of each hop, and no connecting side runs out
//! of ports or has to search for one.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use socket2::Socket;

use super::{MESSAGE, Phase, Protocol, Tally, Worker, connect, listen};

pub(super) fn clients(target: SocketAddr, parallel: usize) -> Vec<Worker> {
    (0..parallel).map(|_| -> Worker { Box::new(move |phase| client(target, phase)) }).collect()
}

fn client(target: SocketAddr, phase: &Phase) -> io::Result<Tally> {
    let mut tally = Tally::for_latencies();
    loop {
        let start = Instant::now();
        ask(target)?;
        match phase.now() {
            Phase::MEASURE => tally.done(start.elapsed()),
            Phase::STOP => return Ok(tally),
            _ => {}
        }
    }
}

fn ask(target: SocketAddr) -> io::Result<()> {
    let mut socket = connect(Protocol::Tcp, target)?;
    socket.write_all(&[0x5a; MESSAGE])?;
    // One byte of room more than the answer has, so that its end is seen as an end.
    let mut answer = [0; MESSAGE + 1];
    let mut length = 0;
    loop {
        match socket.read(&mut answer[length..])? {
            0 if length == MESSAGE => return Ok(()),
            0 => return Err(io::Error::new(ErrorKind::UnexpectedEof, "an answer was cut short")),
            bytes => length += bytes,
        }
    }
}

pub(super) fn serve(address: SocketAddr, parallel: usize) -> io::Result<()> {
    let listener = Arc::new(listen(address)?);
    // A thread is busy until its client's request has come, and a proxy may dial ahead of that: some in reserve.
    for _ in 0..parallel * 2 {
        let listener = Arc::clone(&listener);
        thread::spawn(move || {
            while let Ok((socket, _)) = listener.accept() {
                // The client reports what is missing.
                let _ = answer(socket);
            }
        });
    }
    Ok(())
}

fn answer(mut socket: Socket) -> io::Result<()> {
    let mut request = [0; MESSAGE];
    socket.read_exact(&mut request)?;
    socket.write_all(&request)
}
