//! Queries that come as datagrams.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::desk::Served;
use super::forward;
use crate::dns::{Transport, Verdict};

/// How many datagrams are taken before the other sandboxes have their turn.
const TURN: usize = 16;
/// After an error that isn't about one datagram.
const PAUSE: Duration = Duration::from_millis(10);

/// Answers what comes on a socket.
pub(super) async fn serve(served: Rc<Served>, socket: Rc<UdpSocket>) {
    loop {
        match socket.readable().await.and_then(|()| take_turn(&served, &socket)) {
            Ok(()) => yield_now().await,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                served.shared.complain("an embedded name server can't receive", &error);
                sleep(PAUSE).await;
            }
        }
    }
}

fn take_turn(served: &Rc<Served>, socket: &Rc<UdpSocket>) -> io::Result<()> {
    for _ in 0..TURN {
        let (verdict, from) = {
            let mut scratch = served.shared.scratch.borrow_mut();
            let (length, from) = socket.try_recv_from(&mut scratch)?;
            (served.decide(&scratch[..length], Transport::Udp), from)
        };
        match verdict {
            Verdict::Drop => {}
            Verdict::Reply(reply) => send(served, socket, &reply, from),
            Verdict::Forward(query) => forward::datagram(served, socket, *query, from),
        }
    }
    Ok(())
}

/// A reply that can't be sent now is lost, as datagrams may be; who asked will ask again.
pub(super) fn send(served: &Served, socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    match socket.try_send_to(reply, to) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => {
            served.shared.complain("a reply of an embedded name server can't be sent", &error);
        }
        _ => {}
    }
}
