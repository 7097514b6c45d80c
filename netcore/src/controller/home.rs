//! One controller for one network namespace: two would take each other's rules for leftovers, and both want the same bridge.
//!
//! What it takes is a name among the abstract sockets. These belong to a network namespace, and the kernel gives the name
//! back with the process, however that ends.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use super::Result;
use super::error::ControllerError;

const NAME: &[u8] = b"portmap/networks";
/// What a daemon that was killed had just forked may have the name a moment longer.
const PATIENCE: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(10);

/// The right to the networks of a namespace, held for as long as this is.
#[derive(Debug)]
pub(super) struct Home {
    _name: Option<UnixListener>,
}

/// Takes the calling thread's network namespace.
pub(super) fn take() -> Result<Home> {
    let address = SocketAddr::from_abstract_name(NAME).map_err(ControllerError::Home)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixListener::bind_addr(&address) {
            Ok(name) => return Ok(Home { _name: Some(name) }),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                return Err(ControllerError::Home(error));
            }
            Err(_) => {}
        }
        match holder(&address) {
            // Anybody may take such a name: a user's process must not keep root's daemon from starting.
            Some((pid, false)) => {
                tracing::warn!(pid, "another user's process poses as this host's portmap daemon");
                return Ok(Home { _name: None });
            }
            Some((pid, true)) if Instant::now() > deadline => return Err(ControllerError::HomeTaken(pid)),
            _ => thread::sleep(RETRY),
        }
    }
}

/// The process that has the name, and whether it is this user's.
fn holder(address: &SocketAddr) -> Option<(i32, bool)> {
    let stream = UnixStream::connect_addr(address).ok()?;
    let peer = getsockopt(&stream, sockopt::PeerCredentials).ok()?;
    Some((peer.pid(), peer.uid() == geteuid().as_raw()))
}
