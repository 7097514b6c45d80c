//! UDP clients that never pause: what the kernel remembers of them must not keep them from a port that comes or moves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use e2e::wait;

use super::lab::{IPTABLES, Lab, NFTABLES};
use super::ports::{HOST4, answers_udp, idle, told};

/// A client with one port of its own, that sends every 20 ms.
fn client(lab: &Lab, from_neighbour: bool) -> UdpSocket {
    let (host, address) = if from_neighbour {
        (&lab.neighbour, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)))
    } else {
        (&lab.host, Ipv4Addr::LOCALHOST.into())
    };
    let socket = host.udp((address, 45_678).into());
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket
}

/// Sends so long that the kernel has every reason to remember, to nobody: once what was on its way has arrived, nothing
/// comes back.
fn insist(socket: &UdpSocket, to: SocketAddr) {
    wait::until("silence", || told(socket, to).is_none());
    for _ in 0..3 {
        assert_eq!(told(socket, to), None);
    }
}

/// Waits until the client is answered by `word`, and by nobody else afterwards.
#[track_caller]
fn reaches(socket: &UdpSocket, to: SocketAddr, word: &str) {
    wait::until(&format!("an answer by {word}"), || told(socket, to).as_deref() == Some(word));
    for _ in 0..3 {
        let answer = told(socket, to);
        assert!(answer.is_none() || answer.as_deref() == Some(word), "{answer:?} instead of {word}");
    }
}

#[test]
fn who_sends_all_the_while_reaches_a_port_that_is_published_later_and_one_that_moves() {
    const ON: &str = "--userland-proxy=true";
    const OFF: &str = "--userland-proxy=false";
    for (backend, proxy) in [(NFTABLES, ON), (NFTABLES, OFF), (IPTABLES, OFF)] {
        let Some(lab) = Lab::new(&["--firewall-backend", backend, proxy]) else { return };
        idle(&lab, "one", &[]);
        idle(&lab, "two", &[]);
        let _one = answers_udp(&lab, "one", 53, "one");
        let _two = answers_udp(&lab, "two", 53, "two");
        let far: SocketAddr = (HOST4, 5300).into();
        let near = e2e::lab::v4(5300);
        let (remote, local) = (client(&lab, true), client(&lab, false));
        insist(&remote, far);
        insist(&local, near);
        // The host's port isn't the sandbox's: what is forgotten goes by the former.
        for name in ["one", "two"] {
            lab.ok(&["publish", name, "-p", "5300:53/udp"]);
            reaches(&remote, far, name);
            reaches(&local, near, name);
            lab.ok(&["unpublish", name, "-p", "5300:53/udp"]);
            insist(&remote, far);
            insist(&local, near);
        }
    }
}

#[test]
fn who_sends_all_the_while_finds_a_sandbox_that_starts_again_elsewhere() {
    let Some(lab) = Lab::new(&[]) else { return };
    let far: SocketAddr = (HOST4, 5300).into();
    let remote = client(&lab, true);
    idle(&lab, "one", &["-p", "5300:53/udp"]);
    {
        let _server = answers_udp(&lab, "one", 53, "first");
        reaches(&remote, far, "first");
    }
    lab.ok(&["stop", "-t", "0", "one"]);
    insist(&remote, far);
    // Another one gets its address.
    idle(&lab, "other", &[]);
    let _other = answers_udp(&lab, "other", 53, "wrong");
    lab.ok(&["start", "one"]);
    let _server = answers_udp(&lab, "one", 53, "second");
    reaches(&remote, far, "second");
}

#[test]
fn flows_to_other_ports_are_left_alone() {
    let Some(lab) = Lab::new(&[]) else { return };
    idle(&lab, "one", &["-p", "53:5300/udp"]);
    let _one = answers_udp(&lab, "one", 5300, "one");
    let far: SocketAddr = (HOST4, 53).into();
    let remote = client(&lab, true);
    reaches(&remote, far, "one");
    let flows = || {
        let all = lab.host.run("cat", &["/proc/net/nf_conntrack"]);
        let line = all.lines().find(|line| line.contains("sport=45678 dport=53 ")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{all}"))
    };
    assert!(flows().contains("ASSURED") || !flows().is_empty());
    // The number of the sandbox's port elsewhere, and the same host port of another protocol.
    idle(&lab, "two", &["-p", "5300:53/udp", "-p", "53:53/tcp"]);
    lab.ok(&["rm", "-f", "two"]);
    let _ = flows();
    reaches(&remote, far, "one");
}
