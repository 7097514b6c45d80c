//! netproxy in docker-proxy's place, under a real dockerd with real containers.
//!
//! What the proxy sees of the traffic is what dockerd's firewall rules leave to it: loopback, IPv6, and containers that
//! call the host's addresses. The tests ask for all of it, and share one dockerd.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use e2e::bin;
use e2e::dockerd::{Dockerd, UDP_TIMEOUT};
use e2e::lab::{Host, v4, v6};
use e2e::traffic::{PAYLOAD, receive};
use e2e::wait;

/// Where the default network's bridge puts the host.
const BRIDGE: &str = "172.17.0.1";

/// The body of a web page.
fn get(connected: io::Result<TcpStream>) -> io::Result<String> {
    let mut stream = connected?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 OK\r\n") => Ok(body.trim().to_owned()),
        _ => Err(io::Error::other(answer)),
    }
}

/// Sends a datagram and takes only an answer that comes from the very address it went to.
fn ask_connected(socket: &UdpSocket, to: SocketAddr) -> Vec<u8> {
    socket.connect(to).expect("an address that can be reached");
    socket.send(PAYLOAD).expect("the datagram can be sent");
    receive(socket).0
}

fn address(ip: &str, port: u16) -> SocketAddr {
    (ip.parse::<IpAddr>().expect("an address"), port).into()
}

/// Every address that the host itself can call: loopback, the bridge's, the interface's.
fn own_addresses(host: &Host, port: u16) -> Vec<SocketAddr> {
    let link_local = SocketAddrV6::new(host.link_local("eth0"), port, 0, host.index("eth0"));
    let others = [BRIDGE, "127.1.2.3", "192.0.2.1", "2001:db8::1"].map(|ip| address(ip, port));
    [&[v4(port), v6(port), link_local.into()][..], &others].concat()
}

/// Every address that the neighbour can call.
fn outer_addresses(port: u16) -> [SocketAddr; 2] {
    ["192.0.2.1", "2001:db8::1"].map(|ip| address(ip, port))
}

#[test]
fn a_published_tcp_port_answers_on_every_address() {
    let Some(dockerd) = Dockerd::shared() else { return };
    let _web = dockerd.web("everywhere", &["-p", "8080:80"]);
    for to in own_addresses(&dockerd.host, 8080) {
        let page = get(dockerd.host.connect(to));
        assert_eq!(page.expect("a page"), "everywhere", "{to} from the host");
    }
    for to in outer_addresses(8080) {
        let page = get(dockerd.neighbour.connect(to));
        assert_eq!(page.expect("a page"), "everywhere", "{to} from the neighbour");
    }
}

#[test]
fn a_published_udp_port_answers_from_the_address_that_was_asked() {
    let Some(dockerd) = Dockerd::shared() else { return };
    let web = dockerd.web("datagrams", &["-p", "5300:53/udp"]);
    let _echo = web.udp_echo(53);
    let any = |to: &SocketAddr| if to.is_ipv4() { address("0.0.0.0", 0) } else { address("::", 0) };
    for to in own_addresses(&dockerd.host, 5300) {
        assert_eq!(ask_connected(&dockerd.host.udp(any(&to)), to), PAYLOAD, "{to} from the host");
    }
    for to in outer_addresses(5300) {
        assert_eq!(ask_connected(&dockerd.neighbour.udp(any(&to)), to), PAYLOAD, "{to} from the neighbour");
    }
}

#[test]
fn containers_reach_a_published_port_by_the_hosts_addresses() {
    let Some(dockerd) = Dockerd::shared() else { return };
    dockerd.docker(&["network", "create", "other"]);
    let web = dockerd.web("hairpin", &["-p", "8081:80", "-p", "5301:53/udp"]);
    let _echo = web.udp_echo(53);
    let peer = dockerd.web("same-bridge", &[]);
    let stranger = dockerd.web("other-bridge", &["--network", "other"]);
    for (who, client) in [("itself", &web), ("its peer", &peer), ("the other bridge", &stranger)] {
        for host in [BRIDGE, "192.0.2.1"] {
            let page = get(client.connect(address(host, 8081)));
            assert_eq!(page.expect("a page"), "hairpin", "{host} from {who}");
            assert_eq!(ask_connected(&client.udp(), address(host, 5301)), PAYLOAD, "{host}/udp from {who}");
        }
    }
}

#[test]
fn an_ipv6_port_leads_to_an_ipv4_container() {
    let Some(dockerd) = Dockerd::shared() else { return };
    let web = dockerd.web("six-to-four", &["-p", "[::1]::80"]);
    let page = get(dockerd.host.connect(v6(web.host_port("80/tcp"))));
    assert_eq!(page.expect("a page"), "six-to-four");
}

#[test]
fn two_loopback_addresses_lead_to_two_containers() {
    let Some(dockerd) = Dockerd::shared() else { return };
    let _first = dockerd.web("first", &["-p", "127.0.1.2:1716:80"]);
    let _second = dockerd.web("second", &["-p", "127.0.1.3:1716:80"]);
    for (ip, name) in [("127.0.1.2", "first"), ("127.0.1.3", "second")] {
        assert_eq!(get(dockerd.host.connect(address(ip, 1716))).expect("a page"), name, "{ip}");
    }
    assert!(dockerd.host.connect(v4(1716)).is_err(), "127.0.0.1 was not published");
}

#[test]
fn ps_shows_the_words_of_docker_proxy() {
    let Some(dockerd) = Dockerd::shared() else { return };
    let _web = dockerd.web("words", &["-p", "127.0.0.1:8083:80"]);
    let proxies = dockerd.proxies_of(8083);
    let [proxy] = proxies.as_slice() else { panic!("one proxy for one address: {proxies:?}") };
    let program = bin::netproxy();
    assert_eq!(proxy.words[0], program.to_string_lossy());
    let wanted =
        [("-proto", "tcp"), ("-host-ip", "127.0.0.1"), ("-host-port", "8083"), ("-container-port", "80")];
    for (flag, value) in wanted {
        assert_eq!(proxy.value(flag).map(String::as_str), Some(value), "{flag} in {:?}", proxy.words);
    }
}

#[test]
fn options_come_through_dockerds_environment() {
    let Some(dockerd) = Dockerd::shared() else { return };
    let web = dockerd.web("options", &["-p", "127.0.0.1:5304:53/udp"]);
    let echo = web.udp_echo(53);
    let proxies = dockerd.proxies_of(5304);
    let has_option = |name, value| proxies.iter().all(|proxy| proxy.has_environment(name, value));
    assert!(proxies.len() == 1 && has_option(UDP_TIMEOUT.0, UDP_TIMEOUT.1), "{proxies:?}");

    // A flow that ended shows by its successor's port.
    let client = dockerd.host.udp(address("0.0.0.0", 0));
    let port_seen = || {
        assert_eq!(ask_connected(&client, v4(5304)), PAYLOAD);
        echo.last_client().expect("it answered somebody")
    };
    let first = port_seen();
    assert_eq!(port_seen(), first, "one flow");
    thread::sleep(Duration::from_secs(3)); // silence is what ends a flow: more than twice the time-out
    assert_ne!(port_seen(), first, "a new flow after {}={}", UDP_TIMEOUT.0, UDP_TIMEOUT.1);
}

#[test]
fn a_removed_containers_port_is_free_at_once() {
    let Some(dockerd) = Dockerd::shared() else { return };
    for round in ["before", "after"] {
        let web = dockerd.web("phoenix", &["-p", "1780:80"]);
        // Served and closed by our side: this connection waits in TIME_WAIT on the published port.
        for _ in 0..3 {
            assert_eq!(get(dockerd.host.connect(v4(1780))).expect("a page"), "phoenix", "{round}");
        }
        assert_eq!(dockerd.proxies_of(1780).len(), 2, "one for IPv4, one for IPv6");
        web.remove();
        assert_eq!(dockerd.proxies_of(1780), [], "no proxy outlives its container");
    }
    drop((dockerd.host.listen(address("0.0.0.0", 1780)), dockerd.host.listen(address("::1", 1780))));
}

#[test]
fn stopping_and_starting_a_container_frees_and_takes_its_port() {
    let Some(dockerd) = Dockerd::shared() else { return };
    let _web = dockerd.web("restarted", &["-p", "127.0.0.1:8085:80"]);
    dockerd.docker(&["stop", "--time", "0", "restarted"]);
    assert_eq!(dockerd.proxies_of(8085), [], "none while it is stopped");
    drop(dockerd.host.listen(v4(8085)));
    dockerd.docker(&["start", "restarted"]);
    wait::until("page from the restarted container", || get(dockerd.host.connect(v4(8085))).is_ok());
}

#[test]
fn a_busy_port_is_reported_in_dockers_words() {
    let Some(dockerd) = Dockerd::shared() else { return };
    let _taken = dockerd.host.listen(v4(8086));
    let output = dockerd.try_docker(&[
        "run",
        "--detach",
        "--name",
        "late",
        "-p",
        "127.0.0.1:8086:80",
        "busybox:local",
        "/bin/sh",
    ]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    for text in ["Error starting userland proxy: ", "address already in use"] {
        assert!(said.contains(text), "{text:?} in {said:?}");
    }
    assert_eq!(dockerd.proxies_of(8086), []);
}

#[test]
fn proxies_die_with_dockerd() {
    let Some(dockerd) = Dockerd::start(&bin::netproxy()).map(std::sync::Arc::new) else { return };
    let _web = dockerd.web("orphan", &["-p", "8087:80", "-p", "5307:53/udp"]);
    assert_eq!(dockerd.proxies().len(), 4, "two protocols, two families");
    dockerd.kill();
    wait::until("proxies' end", || dockerd.proxies().is_empty());
    drop((dockerd.host.listen(v4(8087)), dockerd.host.udp((Ipv4Addr::UNSPECIFIED, 5307).into())));
}
