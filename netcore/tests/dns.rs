//! Embedded servers in real namespaces, with each backend's rules: who answers on port 53, from where others are asked, and
//! what one sandbox's greed costs the next.

#[allow(dead_code, reason = "the firewall's tests use the rest")]
#[path = "lab/backends.rs"]
mod backends;
#[allow(dead_code, reason = "the firewall's tests use the rest")]
mod lab;
#[path = "dns/load.rs"]
mod load;
#[path = "dns/world.rs"]
mod world;

use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use backends::with_each_backend;
use netcore::dns::Asked;
use netcore::firewall::Backend;
use netcore::kernel::{Place, listeners};
use world::{Upstream, World, ask, query, stops_answering};

with_each_backend! {
    names_are_answered_on_port_53
    the_sandbox_may_have_a_server_of_its_own_there
    the_rules_are_replaced_and_never_doubled
    rules_of_the_other_backend_go
    a_sandboxs_own_servers_are_asked_from_inside
    the_hosts_servers_are_asked_from_the_hosts_namespace
    a_link_local_server_is_asked_over_its_interface
    an_end_leaves_no_socket
}

/// The first line of what dig says.
fn dig(world: &World, words: &str) -> String {
    let said = world.sandbox.run(&format!("dig @127.0.0.11 +short +tries=1 +time=2 {words}"), "");
    said.lines().next().unwrap_or_default().to_owned()
}

fn names_are_answered_on_port_53(backend: Backend) {
    let world = World::new(backend);
    for way in ["+notcp", "+tcp"] {
        assert_eq!(dig(&world, &format!("{way} web A")), "172.22.0.2");
        assert_eq!(dig(&world, &format!("{way} web.lan AAAA")), "fd00:22::2");
        assert_eq!(dig(&world, &format!("{way} -x 172.22.0.2")), "web.lan.");
        assert_eq!(dig(&world, &format!("{way} web TXT")), "");
    }
    // What a name stands for may change, and a name may go.
    world.join("172.22.0.7");
    assert_eq!(dig(&world, "web A"), "172.22.0.7");
    world.leave();
    let gone = world.sandbox.run("dig @127.0.0.11 +tries=1 +time=2 web A", "");
    assert!(gone.contains("status: SERVFAIL"), "nobody to ask is told at once: {gone}");
}

fn the_sandbox_may_have_a_server_of_its_own_there(backend: Backend) {
    let world = World::new(backend);
    let (udp, tcp) = world.sandbox.enter(|| {
        (
            UdpSocket::bind("0.0.0.0:53").expect("the port is free"),
            TcpListener::bind("0.0.0.0:53").expect("free"),
        )
    });
    assert_eq!((dig(&world, "web A"), dig(&world, "+tcp web A")), ("172.22.0.2".into(), "172.22.0.2".into()));
    // On every other address it is the sandbox's that hears.
    let client = world.sandbox.enter(|| UdpSocket::bind("127.0.0.1:0")).expect("a socket");
    client.send_to(b"its own", "127.0.0.1:53").expect("it is sent");
    udp.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    let mut heard = [0; 16];
    let (length, from) = udp.recv_from(&mut heard).expect("it comes");
    assert_eq!((&heard[..length], from), (&b"its own"[..], client.local_addr().expect("bound")));
    let stream = world.sandbox.enter(|| TcpStream::connect("127.0.0.1:53")).expect("it listens");
    let (_, from) = tcp.accept().expect("a connection");
    assert_eq!(from, stream.local_addr().expect("connected"));
    // Nothing of what was asked of 127.0.0.11 came here.
    udp.set_nonblocking(true).expect("a setting");
    assert!(udp.recv_from(&mut heard).is_err());
}

fn the_rules_are_replaced_and_never_doubled(backend: Backend) {
    let world = World::new(backend);
    let rules = || match backend {
        // Priorities as numbers, whatever names this nft has for them.
        Backend::Nftables => world.sandbox.run("nft -s -y list ruleset", ""),
        Backend::Iptables => world.sandbox.rules(backend),
    };
    let count = rules().lines().count();
    let client = world.client();
    assert!(ask(&client, &query(1, "web")).is_some());
    for _ in 0..2 {
        let sockets = world.sockets(Some(backend));
        let [udp, tcp] = [sockets.udp.local_addr(), sockets.tcp.local_addr()].map(|at| at.expect("bound"));
        let now = rules();
        assert_eq!(now.lines().count(), count, "{now}");
        let lines = match backend {
            Backend::Nftables => [
                "table ip portmap-dns {".to_owned(),
                "type nat hook output priority -100; policy accept;".to_owned(),
                "type nat hook postrouting priority 100; policy accept;".to_owned(),
                format!("ip daddr 127.0.0.11 udp dport 53 counter dnat to {udp}"),
                format!("ip daddr 127.0.0.11 tcp dport 53 counter dnat to {tcp}"),
                format!("ip saddr 127.0.0.11 udp sport {} counter snat to :53", udp.port()),
                format!("ip saddr 127.0.0.11 tcp sport {} counter snat to :53", tcp.port()),
            ],
            Backend::Iptables => [
                "-A OUTPUT -d 127.0.0.11/32 -j PORTMAP_OUTPUT".to_owned(),
                "-A POSTROUTING -d 127.0.0.11/32 -j PORTMAP_POSTROUTING".to_owned(),
                format!(
                    "-A PORTMAP_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination {udp}"
                ),
                format!(
                    "-A PORTMAP_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination {tcp}"
                ),
                format!(
                    "-A PORTMAP_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport {} -j SNAT --to-source :53",
                    udp.port()
                ),
                format!(
                    "-A PORTMAP_POSTROUTING -s 127.0.0.11/32 -p tcp -m tcp --sport {} -j SNAT --to-source :53",
                    tcp.port()
                ),
                "*nat".to_owned(),
            ],
        };
        for line in lines {
            assert_eq!(now.lines().filter(|there| there.trim() == line).count(), 1, "{line} in\n{now}");
        }
        world.serve(sockets, Asked::These(vec![]));
        assert_eq!(
            (dig(&world, "web A"), dig(&world, "+tcp web A")),
            ("172.22.0.2".into(), "172.22.0.2".into())
        );
    }
}

fn rules_of_the_other_backend_go(backend: Backend) {
    let world = World::new(backend);
    let other = match backend {
        Backend::Nftables => Backend::Iptables,
        Backend::Iptables => Backend::Nftables,
    };
    world.serve(world.sockets(Some(other)), Asked::These(vec![]));
    assert_eq!((dig(&world, "web A"), dig(&world, "+tcp web A")), ("172.22.0.2".into(), "172.22.0.2".into()));
    let (iptables, nftables) =
        (world.sandbox.rules(Backend::Iptables), world.sandbox.rules(Backend::Nftables));
    assert_eq!(iptables.contains("PORTMAP_OUTPUT"), other == Backend::Iptables, "{iptables}");
    assert_eq!(nftables.contains("portmap-dns"), other == Backend::Nftables, "{nftables}");
}

fn a_sandboxs_own_servers_are_asked_from_inside(backend: Backend) {
    let world = World::new(backend);
    // An address that each namespace has for itself.
    let inside = Upstream::new(&world.sandbox, "127.0.0.53:53", [10, 0, 0, 1]);
    let outside = Upstream::new(&world.host, "127.0.0.53:53", [10, 0, 0, 2]);
    world.update(Asked::These(vec!["127.0.0.53".parse().expect("an address")]));
    for way in ["+notcp", "+tcp"] {
        assert_eq!(dig(&world, &format!("{way} example.com A")), "10.0.0.1");
    }
    assert_eq!((inside.asked(), outside.asked()), (2, 0));
}

fn the_hosts_servers_are_asked_from_the_hosts_namespace(backend: Backend) {
    let world = World::new(backend);
    let inside = Upstream::new(&world.sandbox, "127.0.0.53:53", [10, 0, 0, 1]);
    let outside = Upstream::new(&world.host, "127.0.0.53:53", [10, 0, 0, 2]);
    world.host_file("nameserver 127.0.0.53\n");
    world.update(Asked::Host { ipv6: false });
    for way in ["+notcp", "+tcp"] {
        assert_eq!(dig(&world, &format!("{way} example.com A")), "10.0.0.2");
    }
    assert_eq!((inside.asked(), outside.asked()), (0, 2));
}

fn a_link_local_server_is_asked_over_its_interface(backend: Backend) {
    let world = World::new(backend);
    world.host.ip("link add d0 index 7 type veth peer name d1");
    world.host.ip("addr add fe80::53/64 dev d0 nodad");
    world.host.ip("link set d0 up");
    world.host.ip("link set d1 up");
    let there = Upstream::new(&world.host, "[fe80::53%7]:53", [10, 0, 0, 3]);
    world.host_file("nameserver fe80::53%d0\n");
    world.update(Asked::Host { ipv6: true });
    for way in ["+notcp", "+tcp"] {
        assert_eq!(dig(&world, &format!("{way} example.com A")), "10.0.0.3");
    }
    assert_eq!(there.asked(), 2);
}

fn an_end_leaves_no_socket(backend: Backend) {
    let world = World::new(backend);
    world.update(Asked::These(vec!["127.0.0.53".parse().expect("an address")]));
    let silent = world.sandbox.enter(|| UdpSocket::bind("127.0.0.53:53")).expect("a socket");
    // A connection, and queries that wait inside.
    let mut stream = world.sandbox.enter(|| TcpStream::connect("127.0.0.11:53")).expect("it listens");
    let client = world.sandbox.enter(|| UdpSocket::bind("127.0.0.1:0")).expect("a socket");
    for id in 0..20 {
        client.send_to(&query(id, "example.com"), "127.0.0.11:53").expect("it is sent");
    }
    silent.recv(&mut [0; 512]).expect("it is asked");
    drop(silent);
    world.server.end(world.id);
    assert!(!world.server.serves(world.id));
    let path = world.sandbox.path();
    let own = client.local_addr().expect("bound");
    let left: Vec<_> = netcore::kernel::sockets(Place::Pinned(&path)).expect("a list");
    // The client's, and ends of the connection that no process holds.
    assert!(
        left.iter().all(|socket| socket.local == own || !socket.listens && socket.local.port() != 53),
        "{left:?}"
    );
    assert_eq!(listeners(Place::Pinned(&path)).expect("a list").len(), 1, "the client's");
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    stops_answering(&world);
    // It can be served again.
    world.serve(world.sockets(Some(backend)), Asked::These(vec![]));
    assert_eq!(dig(&world, "web A"), "172.22.0.2");
    let began = Instant::now();
    assert!(ask(&world.client(), &query(7, "web")).is_some());
    assert!(began.elapsed() < Duration::from_secs(1));
}
