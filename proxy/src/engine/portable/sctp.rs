//! Relays one SCTP association: whole messages, until either side ends.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::accept::reset_on_close;
use crate::counters::Traffic;
use crate::engine::turned_away;
use crate::listen::IPPROTO_SCTP;
use crate::sctp;
use crate::sys::watch;
use crate::tcp::{DialFailure, is_passing};

/// One receive call. A longer message is put together from several.
const BUFFER: usize = 64 * 1024;
/// The longest message passed on. Linux refuses to send one larger than the send buffer anyway.
const LONGEST: usize = 16 * 1024 * 1024;
const PAUSE: Duration = Duration::from_millis(20);

/// An association's whole life.
pub(super) async fn converse(socket: OwnedFd, target: SocketAddr, shared: &Shared) -> io::Result<()> {
    let client = watch(Socket::from(socket))?;
    sctp::prepare(client.as_fd())?;
    let patience = shared.options.connect_timeout;
    let dialled = timeout(patience, dial(target)).await;
    let backend = match dialled.unwrap_or(Err(DialFailure::TimedOut(target, patience))) {
        Ok(backend) => backend,
        Err(failure) => {
            turned_away(&failure, &shared.counters);
            reset_on_close(&client);
            return Ok(());
        }
    };
    let counters = &shared.counters;
    tokio::select! {
        result = pass_on(&client, &backend, &counters.to_backend) => result,
        result = pass_on(&backend, &client, &counters.to_client) => result,
    }
}

async fn dial(target: SocketAddr) -> Result<AsyncFd<Socket>, DialFailure> {
    loop {
        match connect(target).await {
            Err(error) if is_passing(&error) => sleep(PAUSE).await,
            result => return result.map_err(|error| DialFailure::from_connect(target, error)),
        }
    }
}

async fn connect(target: SocketAddr) -> io::Result<AsyncFd<Socket>> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(target), kind, Some(IPPROTO_SCTP.into()))?;
    sctp::prepare(socket.as_fd())?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let socket = watch(socket)?;
    let _ = socket.writable().await?;
    socket.get_ref().take_error()?.map_or(Ok(socket), Err)
}

async fn pass_on(from: &AsyncFd<Socket>, to: &AsyncFd<Socket>, traffic: &Traffic) -> io::Result<()> {
    let mut message = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let mut ready = from.readable().await?;
        let Ok(received) = ready.try_io(|from| sctp::receive(from.as_fd(), &mut buffer)) else { continue };
        let received = received?;
        if received.len == 0 {
            return Ok(());
        }
        message.extend_from_slice(&buffer[..received.len]);
        if message.len() > LONGEST {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        if !received.complete {
            continue;
        }
        loop {
            let mut ready = to.writable().await?;
            if let Ok(sent) = ready.try_io(|to| sctp::send(to.as_fd(), &message, received.envelope)) {
                sent?;
                break;
            }
        }
        traffic.packet(message.len());
        message.clear();
    }
}
