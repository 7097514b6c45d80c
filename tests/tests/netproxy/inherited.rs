//! What a proxy finds on descriptors 3 and 4: sockets of every kind, and things that are none.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use e2e::lab::{self, Host, v4, v6};
use e2e::need;
use e2e::proxy::Start;
use e2e::servers::{self, TcpServer, UdpServer};
use e2e::traffic::{PAYLOAD, ask, ask_udp};
use e2e::wait;
use socket2::{Domain, Socket, Type};

use crate::{FRONT, netproxy, tcp, udp};

/// A socket on `[::]` that takes IPv4 as well.
fn dual_stack(host: &Host, kind: Type) -> Socket {
    host.enter(|| {
        let socket = Socket::new(Domain::IPV6, kind, None).unwrap();
        socket.set_only_v6(false).unwrap();
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, FRONT)).into()).unwrap();
        if kind == Type::STREAM {
            socket.listen(128).unwrap();
        }
        socket
    })
}

#[test]
fn a_dual_stack_listener_serves_both_families() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v6(0), servers::echo);
    let start = tcp(v6(FRONT), backend.addr).word("-use-listen-fd").socket(dual_stack(&host, Type::STREAM));
    let _proxy = start.serve(&host);
    for address in [v4(FRONT), v6(FRONT)] {
        assert_eq!(ask(&mut host.connect(address).unwrap(), PAYLOAD), PAYLOAD, "{address}");
    }
}

#[test]
fn a_dual_stack_udp_socket_answers_both_families_from_the_address_asked() {
    let Some(host) = Host::new("host") else { return };
    let Some(neighbour) = Host::new("neighbour") else { return };
    lab::cable(
        (&host, "eth0", &["10.0.0.1/24", "10.0.0.3/24", "fd00::1/64", "fd00::3/64"]),
        (&neighbour, "eth0", &["10.0.0.2/24", "fd00::2/64"]),
    );
    let backend = UdpServer::echo(&host, v4(0));
    // Whether told of an IPv4 or an IPv6 address: the socket is what counts.
    for informational in [v4(FRONT), v6(FRONT)] {
        let start = udp(informational, backend.addr).word("-use-listen-fd");
        let proxy = start.socket(dual_stack(&host, Type::DGRAM)).serve(&host);
        let (four, six) = (neighbour.udp(([0; 4], 0).into()), neighbour.udp(([0_u16; 8], 0).into()));
        for (client, address) in
            [(&four, "10.0.0.3"), (&six, "[fd00::3]"), (&four, "10.0.0.1"), (&six, "[fd00::1]")]
        {
            let to: SocketAddr = format!("{address}:{FRONT}").parse().unwrap();
            assert_eq!(ask_udp(client, to, PAYLOAD), (PAYLOAD.to_vec(), to));
        }
        proxy.stop();
    }
}

#[test]
fn clients_that_came_before_the_proxy_are_served() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let listener = host.tcp_listener(v4(FRONT));
    let mut clients: Vec<_> = (0..50).map(|_| host.connect(v4(FRONT)).unwrap()).collect();
    let _proxy = tcp(v4(FRONT), backend.addr).word("-use-listen-fd").socket(listener).serve(&host);
    for client in &mut clients {
        assert_eq!(ask(client, PAYLOAD), PAYLOAD);
    }
}

#[test]
fn a_killed_proxy_is_replaced_behind_the_same_socket() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let listener = host.tcp_listener(v4(FRONT));
    let start = || {
        let copy = listener.try_clone().unwrap();
        tcp(v4(FRONT), backend.addr).word("-use-listen-fd").socket(copy).serve(&host)
    };
    let mut proxy = start();
    proxy.signal(nix::sys::signal::Signal::SIGKILL);
    proxy.wait();
    let mut client = host.connect(v4(FRONT)).unwrap();
    let _successor = start();
    assert_eq!(ask(&mut client, PAYLOAD), PAYLOAD);
}

#[test]
fn the_number_of_the_host_port_is_only_informational() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    for words in ["-host-ip 192.0.2.1 -host-port 7", ""] {
        let target = format!("-container-ip 127.0.0.1 -container-port {}", backend.addr.port());
        let start = netproxy(&format!("{words} {target} -use-listen-fd"));
        let proxy = start.socket(host.tcp_listener(v4(FRONT))).serve(&host);
        assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD, "{words}");
        proxy.stop();
    }
}

/// `-use-listen-fd` with `socket` on descriptor 4: refused with status 1 and this reason.
#[track_caller]
fn refused(host: &Host, start: Start, reason: &str) {
    let failed = start.word("-use-listen-fd").fail(host);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    let status = failed.status.unwrap_or_default();
    assert!(status.starts_with("1\n") && status.contains(reason), "{status:?} instead of {reason:?}");
    // Whoever reads the status tells people; saying it again would make it two lines.
    assert_eq!(failed.stderr, "");
}

#[test]
fn what_is_no_socket_to_serve_is_reported() {
    let Some(host) = Host::new("host") else { return };
    let (start, udp_start) = (|| tcp(v4(FRONT), v4(9000)), || udp(v4(FRONT), v4(9000)));
    let folder = tempfile::tempdir().unwrap();
    let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
    let unbound = host.enter(|| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap());
    let (reader, _writer) = std::io::pipe().unwrap();
    let connected = UnixStream::pair().unwrap().0;

    refused(&host, start(), "fd 4");
    refused(&host, start().socket(tempfile::tempfile().unwrap()), "unexpected socket type for listener fd");
    refused(&host, start().socket(reader), "unexpected socket type for listener fd");
    refused(&host, start().socket(unix), "unexpected socket type for listener fd: unix");
    refused(&host, start().socket(connected), "unexpected socket type for listener fd: unix");
    refused(&host, start().socket(host.udp(v4(0))), "unexpected socket type for listener fd: udp");
    refused(&host, udp_start().socket(host.listen(v4(0))), "unexpected socket type for listener fd: tcp");
    refused(&host, start().socket(unbound), "not listening");
}

#[test]
fn descriptor_4_is_left_alone_unless_told_otherwise() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let proxy = tcp(v4(FRONT), backend.addr).socket(theirs).serve(&host);
    assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
    let link = std::fs::read_link(format!("/proc/{}/fd/4", proxy.pid())).unwrap();
    assert!(link.to_string_lossy().starts_with("socket:"), "{link:?}");
    // Neither read, nor written, nor closed, nor made non-blocking.
    ours.set_nonblocking(true).unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/4", proxy.pid())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    let flags = i32::from_str_radix(flags, 8).unwrap();
    assert_eq!(flags & nix::libc::O_NONBLOCK, 0, "{info}");
    proxy.stop();
    // Its end was the only one.
    ours.set_nonblocking(false).unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
}

#[test]
fn started_by_hand_it_says_what_it_forwards() {
    let Some(host) = Host::new("host") else { return };
    let backend = TcpServer::start(&host, v4(9000), servers::echo);
    let mut file = tempfile::tempfile().unwrap();
    let device = File::options().write(true).open("/dev/null").unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let (unreadable, _other): (OwnedFd, _) = (reader.into(), ());
    // No descriptor 3, or something there that nobody can be waiting behind.
    for start in [
        tcp(v4(FRONT), backend.addr).without_status(),
        tcp(v4(FRONT), backend.addr).status_fd(file.try_clone().unwrap()),
        tcp(v4(FRONT), backend.addr).status_fd(device),
        tcp(v4(FRONT), backend.addr).status_fd(unreadable),
    ] {
        let proxy = start.spawn(&host);
        wait::until("announcement", || proxy.stderr().ends_with('\n'));
        assert_eq!(proxy.stderr(), "netproxy: forwarding tcp 127.0.0.1:25587 -> 127.0.0.1:9000\n");
        assert_eq!(ask(&mut host.connect(v4(FRONT)).unwrap(), PAYLOAD), PAYLOAD);
        proxy.stop();
    }
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "", "a file on descriptor 3 is none of its business");
}

#[test]
fn failures_by_hand_are_told_on_stderr() {
    let Some(host) = Host::new("host") else { return };
    let _occupied = host.listen(v4(FRONT));
    let failed = tcp(v4(FRONT), v4(9000)).without_status().fail(&host);
    assert_eq!(failed.code, 1);
    assert_eq!(failed.stderr, "netproxy: failed to listen on 127.0.0.1:25587: address already in use\n");
    let failed = netproxy("-nonsense").without_status().fail(&host);
    assert_eq!(failed.code, 2);
}

#[test]
fn an_inherited_socket_needs_no_rights() {
    let Some(host) = Host::new("host") else { return };
    if need::program("setpriv").is_none() {
        return;
    }
    let backend = TcpServer::start(&host, v4(0), servers::echo);
    // Nobody's binary: the one under test may lie where nobody may go.
    let folder = tempfile::Builder::new().permissions(open_to_all()).tempdir().unwrap();
    let program = folder.path().join("netproxy");
    std::fs::copy(e2e::bin::netproxy(), &program).unwrap();
    let start = Start::mapping(program, "tcp", v4(80), backend.addr)
        .through(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"])
        .word("-use-listen-fd");
    let proxy = start.socket(host.tcp_listener(v4(80))).serve(&host);
    let mut client = host.connect(v4(80)).unwrap();
    client.write_all(PAYLOAD).unwrap();
    assert_eq!(ask(&mut host.connect(v4(80)).unwrap(), PAYLOAD), PAYLOAD);
    proxy.stop();
}

fn open_to_all() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}
