//! One SCTP message and its envelope: the socket API of RFC 6458, sections 5.3.4, 5.3.5 and 8.1.29.
//!
//! Neither `libc` nor `nix` names these structures, so the control messages are encoded here, as bytes.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use crate::sys;
use crate::sys::message::{self, Control};

const SOL_SCTP: i32 = 132;
/// Socket options (linux/sctp.h).
const SCTP_INITMSG: i32 = 2;
const SCTP_NODELAY: i32 = 3;
const SCTP_RECVRCVINFO: i32 = 32;
/// Control message types.
const SCTP_SNDINFO: i32 = 2;
const SCTP_RCVINFO: i32 = 3;
/// `MSG_NOTIFICATION`: an event, not data.
const MSG_NOTIFICATION: i32 = 0x8000;
/// The one flag that must be passed on: deliver out of order.
const SCTP_UNORDERED: u16 = 1;

/// What travels with a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    stream: u16,
    unordered: bool,
    /// In network order, opaque to us.
    payload_protocol: u32,
}

/// What a receive call brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes put into the buffer; 0 is the end of the association.
    pub len: usize,
    /// Whether this was the last part of the message.
    pub complete: bool,
    /// The message's envelope.
    pub envelope: Envelope,
}

/// Asks for as many streams as there can be, for envelopes, and for no delay. The first must come before `connect`.
///
/// # Errors
/// When the kernel refuses one of them.
pub fn prepare(socket: BorrowedFd<'_>) -> io::Result<()> {
    // struct sctp_initmsg: outgoing streams, incoming streams, attempts, initial time-out; 0 keeps a default.
    let init: Vec<u8> = [u16::MAX, 0, 0, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
    sys::set_option(socket, SOL_SCTP, SCTP_INITMSG, &init)?;
    sys::set_option(socket, SOL_SCTP, SCTP_NODELAY, &1_i32.to_ne_bytes())?;
    sys::set_option(socket, SOL_SCTP, SCTP_RECVRCVINFO, &1_i32.to_ne_bytes())
}

/// Receives a message or the next part of one.
///
/// # Errors
/// The kernel's; `WouldBlock` when nothing is there.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    loop {
        let got = message::receive(socket, buffer)?;
        if got.flags & MSG_NOTIFICATION != 0 {
            continue;
        }
        let envelope = message::find(got.control.bytes(), SOL_SCTP, SCTP_RCVINFO)
            .map(Envelope::decode)
            .unwrap_or_default();
        return Ok(Received { len: got.len, complete: got.flags & libc::MSG_EOR != 0, envelope });
    }
}

/// Sends one whole message.
///
/// # Errors
/// The kernel's; `WouldBlock` when there is no room for the whole of it.
pub fn send(socket: BorrowedFd<'_>, payload: &[u8], envelope: Envelope) -> io::Result<()> {
    let mut control = Control::new();
    control.push(SOL_SCTP, SCTP_SNDINFO, &envelope.encode());
    message::send(socket, &[IoSlice::new(payload)], None, &control)
}

impl Envelope {
    /// `struct sctp_rcvinfo`: stream, sequence number, flags, padding, payload protocol, and more we don't need.
    fn decode(bytes: &[u8]) -> Self {
        let half = |at: usize| bytes.get(at..at + 2).map_or(0, |b| u16::from_ne_bytes([b[0], b[1]]));
        let word =
            |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        Self { stream: half(0), unordered: half(4) & SCTP_UNORDERED != 0, payload_protocol: word(8) }
    }

    /// `struct sctp_sndinfo`: stream, flags, payload protocol, context, association.
    fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0..2].copy_from_slice(&self.stream.to_ne_bytes());
        bytes[2..4].copy_from_slice(&u16::from(self.unordered).to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.payload_protocol.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_carried_in_it_carries_out() {
        let mut received = [0_u8; 28];
        received[0..2].copy_from_slice(&7_u16.to_ne_bytes());
        received[2..4].copy_from_slice(&99_u16.to_ne_bytes());
        received[4..6].copy_from_slice(&SCTP_UNORDERED.to_ne_bytes());
        received[8..12].copy_from_slice(&0xdead_beef_u32.to_ne_bytes());
        let envelope = Envelope::decode(&received);
        assert_eq!(envelope, Envelope { stream: 7, unordered: true, payload_protocol: 0xdead_beef });
        let sent = envelope.encode();
        assert_eq!(sent[0..2], 7_u16.to_ne_bytes());
        assert_eq!(sent[2..4], SCTP_UNORDERED.to_ne_bytes());
        assert_eq!(sent[4..8], 0xdead_beef_u32.to_ne_bytes());
        assert_eq!(Envelope::decode(&[]), Envelope::default());
    }
}
