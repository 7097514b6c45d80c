//! Bulk transfers: one side writes without end, the other reads.
//!
//! Writers copy from memory as programs do. Readers let the kernel discard what arrived (`MSG_TRUNC`) instead of
//! copying it out: the machine's few cores should be busy with the path, not with the load generator.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;

use nix::sys::socket::MsgFlags;
use socket2::Socket;

use super::{Phase, Protocol, Tally, Worker, connect, for_each_connection};

/// Small enough to stay in the processor's cache, large enough to make system calls rare.
const CHUNK: usize = 128 << 10;

pub(super) fn uploads(target: SocketAddr, streams: usize) -> io::Result<Vec<Worker>> {
    (0..streams).map(|_| connect(Protocol::Tcp, target).map(upload)).collect()
}

pub(super) fn downloads(target: SocketAddr, streams: usize) -> io::Result<Vec<Worker>> {
    (0..streams).map(|_| connect(Protocol::Tcp, target).map(download)).collect()
}

pub(super) fn upload(socket: Socket) -> Worker {
    let chunk = vec![0x5a; CHUNK];
    Box::new(move |phase| transfer(phase, &mut || (&socket).write(&chunk)))
}

fn download(socket: Socket) -> Worker {
    let mut space = vec![MaybeUninit::uninit(); CHUNK];
    Box::new(move |phase| transfer(phase, &mut || discard(&socket, &mut space)))
}

fn transfer(phase: &Phase, step: &mut impl FnMut() -> io::Result<usize>) -> io::Result<Tally> {
    let mut tally = Tally::default();
    loop {
        let bytes = step()?;
        if bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended early"));
        }
        match phase.now() {
            Phase::MEASURE => tally.work += bytes as u64,
            Phase::STOP => return Ok(tally),
            _ => {}
        }
    }
}

fn discard(socket: &Socket, space: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
    socket.recv_with_flags(space, MsgFlags::MSG_TRUNC.bits())
}

pub(super) fn serve_uploads(address: SocketAddr) -> io::Result<()> {
    for_each_connection(address, |socket| swallow(&socket))
}

pub(super) fn swallow(socket: &Socket) {
    let mut space = vec![MaybeUninit::uninit(); CHUNK];
    while discard(socket, &mut space).is_ok_and(|bytes| bytes > 0) {}
}

pub(super) fn serve_downloads(address: SocketAddr) -> io::Result<()> {
    for_each_connection(address, |mut socket| {
        let chunk = vec![0x5a; CHUNK];
        while socket.write(&chunk).is_ok() {}
    })
}
