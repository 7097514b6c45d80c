//! Bad input: peers that stall, reset, vanish, trickle or come by the thousand, and datagrams of every size.
//!
//! Whatever they do, no byte is lost, doubled or swapped, nothing is leaked, and nothing spins.

mod crowds;
mod datagrams;
mod scarcity;
mod stalls;
mod vanishing;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use e2e::proxy::Running;
use e2e::{servers, traffic, wait};

use crate::counters;

/// Threads of the proxies here, so that what they keep is the same on every machine.
const THREADS: usize = 2;

/// Descriptors that a proxy may keep when all traffic is over: up to four idle pipes on each thread, and what further
/// threads wait with.
const KEPT: usize = THREADS * 2 * 4 + (THREADS - 1) * 4;

/// The word that sets them.
const WITH_THREADS: [&str; 2] = ["--threads", "2"];

/// Waits until nothing is left of any connection: none is counted, no more than [`KEPT`] descriptors are open beside the
/// `before` at the start, and no processor time is used.
#[track_caller]
fn all_is_over(proxy: &Running, before: usize) {
    wait::until("end of the connections", || counters(proxy)["connections"]["open"] == 0);
    wait::until("descriptors given back", || proxy.descriptors() <= before + KEPT);
    let load = proxy.load_over(Duration::from_millis(300));
    assert!(load < 0.1, "a load of {load} with nothing to do");
}

/// Sends the pattern that starts at `seed` for as long as the peer takes it, `total` bytes at most. How many it took.
fn pour(mut stream: &TcpStream, seed: usize, total: usize) -> usize {
    let mut sent = 0;
    while sent < total
        && let Ok(n) = stream.write(traffic::piece(seed, sent, total))
    {
        sent += n;
    }
    sent
}

/// Reads until the peer says no more.
fn swallow(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(1..) = stream.read(&mut buffer) {}
}

/// Sends a first byte and takes part in whatever the backend does for it, see [`obey`].
fn order(mut stream: &TcpStream, what: u8) {
    stream.write_all(&[what]).expect("an order can be sent");
}

/// A backend that does what its client's first byte tells: `d` pours without end, `u` swallows, `D` and `U` do so for
/// 2 MiB and reset, everything else is echoed.
fn obey(mut stream: TcpStream) {
    const SOME: usize = 2 << 20;
    let mut order = [0];
    if stream.read_exact(&mut order).is_err() {
        return;
    }
    match order[0] {
        b'd' => _ = pour(&stream, 0, usize::MAX),
        b'u' => swallow(stream),
        b'D' => {
            pour(&stream, 0, SOME);
            servers::reset(stream);
        }
        b'U' => {
            let mut buffer = vec![0; 64 << 10];
            let mut got = 0;
            while got < SOME
                && let Ok(n @ 1..) = stream.read(&mut buffer)
            {
                got += n;
            }
            servers::reset(stream);
        }
        _ => servers::echo(stream),
    }
}
