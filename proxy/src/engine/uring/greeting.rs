//! The PROXY protocol at a connection's two ends: the header a trusted client begins with, and the one for the backend.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use socket2::SockRef;

use crate::flags::Options;
use crate::tcp::proxy_protocol::{Addresses, Incoming, Parsed, Rejection, Why, encode};

/// Listening to a trusted client's header.
#[derive(Debug)]
pub(super) struct Greeting {
    incoming: Incoming,
    addresses: Addresses,
}

/// How a connection begins.
#[derive(Debug)]
pub(super) enum Beginning {
    /// By dialling at once; the backend is to get this first.
    Dial(Vec<u8>),
    /// With the client's header.
    Listen(Box<Greeting>),
    /// It has ended: the client has reset already, and nobody can tell any more who it was.
    Over,
}

/// What a piece of the client's stream did.
#[derive(Debug)]
pub(super) enum Heard {
    /// The header goes on.
    More,
    /// It ended after `len` bytes of the piece; the backend is to get `header` first.
    All { len: usize, header: Vec<u8> },
    /// It was none.
    Rejected(Rejection),
}

impl Beginning {
    /// Of a connection just accepted.
    pub(super) fn of(client: BorrowedFd<'_>, options: &Options) -> Self {
        if options.proxy_protocol.is_none() && options.accept_proxy_protocol.is_empty() {
            return Self::Dial(Vec::new());
        }
        let socket = SockRef::from(&client);
        let address = |found: std::io::Result<socket2::SockAddr>| found.ok().and_then(|a| a.as_socket());
        let (Some(peer), Some(local)) = (address(socket.peer_addr()), address(socket.local_addr())) else {
            return Self::Over;
        };
        let addresses = Addresses::of_socket(peer, local);
        let from = addresses.source.ip();
        if options.accept_proxy_protocol.iter().any(|network| network.contains(from)) {
            Self::Listen(Box::new(Greeting { incoming: Incoming::default(), addresses }))
        } else {
            Self::Dial(header(&addresses, options))
        }
    }
}

impl Greeting {
    /// The next piece of the client's stream.
    pub(super) fn hear(&mut self, piece: &[u8], options: &Options) -> Heard {
        match self.incoming.feed(piece) {
            Parsed::Incomplete => Heard::More,
            Parsed::Done { len, addresses } => {
                Heard::All { len, header: header(&addresses.unwrap_or(self.addresses), options) }
            }
            Parsed::Bad(why) => Heard::Rejected(self.rejected(why.into())),
        }
    }

    /// The client's stream ended.
    pub(super) fn ended(&self) -> Rejection {
        self.rejected(Why::Ended(self.incoming.held()))
    }

    /// The client took too long.
    pub(super) fn late(&self, patience: Duration) -> Rejection {
        self.rejected(Why::Late(patience))
    }

    fn rejected(&self, why: Why) -> Rejection {
        Rejection { client: self.client(), why }
    }

    fn client(&self) -> SocketAddr {
        self.addresses.source
    }
}

fn header(addresses: &Addresses, options: &Options) -> Vec<u8> {
    options.proxy_protocol.map(|version| encode(version, addresses)).unwrap_or_default()
}
