//! Bulk transfers: one side writes without end, the other reads.
//!
//! Writers copy from memory as programs do. Readers let the kernel discard what arrived (`MSG_TRUNC`) instead of
//! copying it out: the machine's few cores should be busy with the path, not with the load generator.

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::thread;

use nix::sys::socket::MsgFlags;
use socket2::Socket;

use super::{Phase, Protocol, Tally, Worker, connect, listen};

/// Small enough to stay in the processor's cache, large enough to make system calls rare.
const CHUNK: usize = 128 << 10;

pub(super) fn uploads(target: SocketAddr, streams: usize) -> io::Result<Vec<Worker>> {
    workers(target, streams, |socket| {
        let chunk = vec![0x5a; CHUNK];
        move || (&socket).write(&chunk)
    })
}

pub(super) fn downloads(target: SocketAddr, streams: usize) -> io::Result<Vec<Worker>> {
    workers(target, streams, |socket| {
        let mut space = vec![MaybeUninit::uninit(); CHUNK];
        move || discard(&socket, &mut space)
    })
}

fn workers<Step>(target: SocketAddr, streams: usize, step: impl Fn(Socket) -> Step) -> io::Result<Vec<Worker>>
where
    Step: FnMut() -> io::Result<usize> + Send + 'static,
{
    let worker = |_| -> io::Result<Worker> {
        let mut step = step(connect(Protocol::Tcp, target)?);
        Ok(Box::new(move |phase: &Phase| transfer(phase, &mut step)))
    };
    (0..streams).map(worker).collect()
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
    for_each_connection(address, |socket| {
        let mut space = vec![MaybeUninit::uninit(); CHUNK];
        while discard(&socket, &mut space).is_ok_and(|bytes| bytes > 0) {}
    })
}

pub(super) fn serve_downloads(address: SocketAddr) -> io::Result<()> {
    for_each_connection(address, |mut socket| {
        let chunk = vec![0x5a; CHUNK];
        while socket.write(&chunk).is_ok() {}
    })
}

/// The client's end, and with it an error here, is how every stream ends; the client knows if that was too early.
fn for_each_connection(address: SocketAddr, serve: fn(Socket)) -> io::Result<()> {
    let listener = listen(address)?;
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            thread::spawn(move || serve(socket));
        }
    });
    Ok(())
}
