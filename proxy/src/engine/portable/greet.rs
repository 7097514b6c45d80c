//! The PROXY protocol at a connection's two ends: the header a trusted client begins with is taken off its stream, and
//! the one for the backend goes ahead of it.
//!
//! Bytes are peeked at before they are taken, so what follows the header stays in the kernel, for the relay to find.
//! While the header is incomplete all that came is taken, so that "readable" always means something new.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Shared;
use crate::tcp::proxy_protocol::{Addresses, Incoming, Parsed, Rejection, Why, encode};

/// How much of a header is looked at at once. Most fit; on the stack, and only for the call.
const PIECE: usize = 512;

/// Hears the client's header, if it is one of those that must send one, and returns what the backend is to get first.
///
/// # Errors
/// The client's fault, or `None` when it has reset already and nobody can tell any more who it was.
pub(super) async fn greet(client: &TcpStream, shared: &Shared) -> Result<Vec<u8>, Option<Rejection>> {
    let options = &shared.options;
    if options.proxy_protocol.is_none() && options.accept_proxy_protocol.is_empty() {
        return Ok(Vec::new());
    }
    let (Ok(peer), Ok(local)) = (client.peer_addr(), client.local_addr()) else { return Err(None) };
    let mut addresses = Addresses::of_socket(peer, local);
    let from = addresses.source;
    if options.accept_proxy_protocol.iter().any(|network| network.contains(from.ip())) {
        let heard = hear(client, from, options.connect_timeout).await?;
        addresses = heard.unwrap_or(addresses);
    }
    Ok(options.proxy_protocol.map(|version| encode(version, &addresses)).unwrap_or_default())
}

/// Takes the header off the client's stream.
async fn hear(
    client: &TcpStream,
    from: SocketAddr,
    patience: Duration,
) -> Result<Option<Addresses>, Rejection> {
    let header = async {
        let mut incoming = Incoming::default();
        loop {
            let piece = match client.readable().await {
                Ok(()) => client.try_io(Interest::READABLE, || take(client, &mut incoming)),
                Err(error) => Err(error),
            };
            match piece {
                Ok(Parsed::Done { addresses, .. }) => return Ok(addresses),
                Ok(Parsed::Incomplete) => {}
                Ok(Parsed::Bad(why)) => return Err(why.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Why::Ended(incoming.held())),
            }
        }
    };
    let result = timeout(patience, header).await.unwrap_or(Err(Why::Late(patience)));
    result.map_err(|why| Rejection { client: from, why })
}

/// Takes what belongs to the header of what has come. The end of the stream is an error here.
fn take(client: &TcpStream, incoming: &mut Incoming) -> io::Result<Parsed> {
    let mut piece = [0; PIECE];
    let came = recv(client.as_raw_fd(), &mut piece, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
    if came == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let parsed = incoming.feed(&piece[..came]);
    let taken = match parsed {
        Parsed::Incomplete => came,
        Parsed::Done { len, .. } => len,
        Parsed::Bad(_) => 0,
    };
    // Just seen, and nobody else reads here: it comes in one piece.
    recv(client.as_raw_fd(), &mut piece[..taken], MsgFlags::MSG_DONTWAIT)?;
    Ok(parsed)
}

/// Sends the header, which isn't kept for the connection's life. A new socket's buffer always has room for it; the loop
/// is for the letter of the contract.
pub(super) async fn announce(backend: &TcpStream, header: Vec<u8>) -> io::Result<()> {
    let mut rest = header.as_slice();
    while !rest.is_empty() {
        match backend.try_write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => backend.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
