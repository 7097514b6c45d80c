//! Reaching the backend, within the connect time-out, for as long as the client wants it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::listen::tcp_options;
use crate::tcp::{DialFailure, is_passing};

/// How long to wait for descriptors or ports before trying again.
const PAUSE: Duration = Duration::from_millis(20);

/// Connects to `target`. Stops when `client` resets meanwhile: its wish is gone.
///
/// # Errors
/// See [`DialFailure`].
pub(super) async fn dial(
    target: SocketAddr,
    client: &TcpStream,
    patience: Duration,
) -> Result<TcpStream, DialFailure> {
    let attempts = async {
        loop {
            match connect(target).await {
                Err(error) if is_passing(&error) => sleep(PAUSE).await,
                result => return result.map_err(|error| DialFailure::from_connect(target, error)),
            }
        }
    };
    tokio::select! {
        biased;
        result = timeout(patience, attempts) => {
            result.unwrap_or(Err(DialFailure::TimedOut(target, patience)))
        }
        _ = client.ready(Interest::ERROR) => Err(DialFailure::ClientLeft(target)),
    }
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    tcp_options(&SockRef::from(&socket))?;
    socket.connect(target).await
}
