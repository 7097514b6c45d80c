//! What clients send, and how they check what comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::OnceLock;

/// A short payload whose parts can be told apart.
pub const PAYLOAD: &[u8; 71] = b"Buffalo1 buffalo2 buffalo3 buffalo4 buffalo5 buffalo6 buffalo7 buffalo8";

/// Bytes of a pattern that repeats only after this many. A prime, so that nothing of a power of two's size that is
/// lost, doubled or swapped goes unnoticed.
const PERIOD: usize = 1_000_003;

/// Sends `payload` and returns as many bytes of answer.
///
/// # Panics
/// When the connection ends first.
#[track_caller]
pub fn ask(stream: &mut TcpStream, payload: &[u8]) -> Vec<u8> {
    stream.write_all(payload).expect("the request can be sent");
    let mut answer = vec![0; payload.len()];
    stream.read_exact(&mut answer).expect("an answer of the same length");
    answer
}

/// Sends a datagram to `to` and returns the first that comes back, and from where.
///
/// # Panics
/// When nothing comes back.
#[track_caller]
pub fn ask_udp(socket: &UdpSocket, to: SocketAddr, payload: &[u8]) -> (Vec<u8>, SocketAddr) {
    socket.send_to(payload, to).expect("the datagram can be sent");
    receive(socket)
}

/// The next datagram, and from where.
///
/// # Panics
/// When none comes.
#[track_caller]
pub fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (count, from) = socket.recv_from(&mut buffer).expect("an answer");
    buffer.truncate(count);
    (buffer, from)
}

/// Writes `total` bytes of the pattern that starts at `seed`.
///
/// # Panics
/// When the connection ends first.
#[track_caller]
pub fn send_pattern(stream: &mut TcpStream, seed: usize, total: usize) {
    let mut sent = 0;
    while sent < total {
        let piece = piece(seed, sent, total);
        stream.write_all(piece).unwrap_or_else(|e| panic!("after {sent} of {total} bytes: {e}"));
        sent += piece.len();
    }
}

/// Reads `total` bytes, which must be the pattern that starts at `seed`.
///
/// # Panics
/// When they differ or end early.
#[track_caller]
pub fn check_pattern(stream: &mut TcpStream, seed: usize, total: usize) {
    let mut buffer = vec![0; 256 << 10];
    let mut got = 0;
    while got < total {
        let wanted = piece(seed, got, total);
        let room = wanted.len().min(buffer.len());
        let count = stream.read(&mut buffer[..room]);
        let count = count.unwrap_or_else(|e| panic!("after {got} of {total} bytes: {e}"));
        assert!(count > 0, "end of stream after {got} of {total} bytes");
        assert!(buffer[..count] == wanted[..count], "wrong bytes between {got} and {}", got + count);
        got += count;
    }
}

/// The first `size` bytes of the pattern that starts at `seed`.
#[must_use]
pub fn pattern(seed: usize, size: usize) -> Vec<u8> {
    let first = piece(seed, 0, size);
    [first, piece(seed, first.len(), size)].concat()
}

/// The longest run of the pattern that starts at `seed`, after the first `done` of its `total` bytes.
#[must_use]
pub fn piece(seed: usize, done: usize, total: usize) -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        std::iter::repeat_with(next).take(PERIOD).collect()
    });
    let start = (seed + done) % PERIOD;
    &pattern[start..PERIOD.min(start.saturating_add(total - done))]
}
