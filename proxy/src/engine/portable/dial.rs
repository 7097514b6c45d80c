//! Reaching the backend, within the connect time-out, for as long as the client wants it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::listen::{connect_from, tcp_options};
use crate::sources::{Sources, is_spent};
use crate::tcp::{DialFailure, is_passing};

/// How long to wait for descriptors or ports before trying again: at first, and when that didn't help. Each try for a
/// port looks at all of them.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Connects to `target`. Stops when `client` resets meanwhile: its wish is gone.
///
/// # Errors
/// See [`DialFailure`].
pub(super) async fn dial(
    target: SocketAddr,
    client: &TcpStream,
    sources: &Sources,
    patience: Duration,
) -> Result<TcpStream, DialFailure> {
    let over = Instant::now() + patience;
    let attempts = async {
        let mut pause = PAUSE;
        loop {
            match timeout_at(over, connect(target, sources)).await {
                Ok(Ok(backend)) => return Ok(backend),
                Ok(Err(error)) if is_passing(&error) && Instant::now() < over => {
                    sleep_until(over.min(Instant::now() + pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                // A shortage until the end is the reason, not the backend's silence.
                Ok(Err(error)) => return Err(DialFailure::from_connect(target, error)),
                Err(_) => return Err(DialFailure::TimedOut(target, patience)),
            }
        }
    };
    tokio::select! {
        biased;
        result = attempts => result,
        _ = client.ready(Interest::ERROR) => Err(DialFailure::ClientLeft(target)),
    }
}

/// From the first source that has a port left.
async fn connect(target: SocketAddr, sources: &Sources) -> io::Result<TcpStream> {
    let mut turn = sources.turn().peekable();
    while let Some(source) = turn.next() {
        match connect_out(target, source).await {
            Err(error) if is_spent(&error) && turn.peek().is_some() => {}
            result => return result,
        }
    }
    Err(io::ErrorKind::AddrNotAvailable.into()) // a turn is never empty
}

async fn connect_out(target: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    tcp_options(&SockRef::from(&socket))?;
    if let Some(source) = source {
        connect_from(&SockRef::from(&socket), source)?;
    }
    socket.connect(target).await
}
