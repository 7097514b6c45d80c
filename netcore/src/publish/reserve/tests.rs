//! Real sockets, on loopback addresses.

use std::cell::RefCell;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{SockRef, Type};

use super::super::bindings::{HostDefaults, plan};
use super::super::ephemeral::EphemeralPorts;
use super::*;

fn groups(specs: &[&str]) -> Vec<Group> {
    let specs: Vec<_> = specs.iter().map(|text| text.parse().unwrap()).collect();
    plan(&specs, &HostDefaults::default()).unwrap()
}

fn numbers() -> Allocator {
    Allocator::new(EphemeralPorts::of_this_host())
}

/// A loopback address that nobody else uses: each test has its own, so they can't take each other's ports.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high ^ middle) & 63, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The first of `count` ports in a row that nobody on this machine uses, whatever the address. Not found out by binding:
/// a child that another test starts meanwhile would have a copy of the socket, and keep the port until it has executed
/// its program.
fn free_ports(count: u16) -> u16 {
    let tables = ["tcp", "tcp6", "udp", "udp6"].map(|table| format!("/proc/net/{table}"));
    let text: String = tables.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    let port = |line: &str| u16::from_str_radix(line.split_whitespace().nth(1)?.rsplit_once(':')?.1, 16).ok();
    let used: Vec<u16> = text.lines().filter_map(port).collect();
    let free = |port| !used.contains(&port);
    (20_000..30_000).find(|first| (*first..first + count).all(free)).expect("there are free ports")
}

/// Repeats what needs a port that was closed just now: as above, a child may keep it for a moment.
fn soon<T, E: std::fmt::Debug>(attempt: impl Fn() -> Result<T, E>) -> T {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            done => return done.unwrap(),
        }
    }
}

/// How an error tells that this process has the port.
fn by_us() -> String {
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    format!(" (by {}, process {})", name.trim_end(), std::process::id())
}

#[test]
fn each_address_gets_a_socket_of_its_family_and_protocol() {
    let addresses = [own_address(), own_address(), own_address()];
    let port = free_ports(1);
    let specs: Vec<String> = ["tcp", "udp"]
        .iter()
        .flat_map(|proto| addresses.map(|ip| format!("{ip}:{port}:80/{proto}")))
        .collect();
    let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
    let bound = reserve(&mut numbers(), &groups(&specs)).unwrap();
    assert_eq!(bound.len(), 2);
    for (reservation, kind) in bound.iter().zip([Type::STREAM, Type::DGRAM]) {
        assert_eq!(reservation.host(), PortRange::single(port));
        assert_eq!(reservation.sockets().len(), 3);
        for (socket, address) in reservation.sockets().zip(reservation.addresses()) {
            let flags = nix::fcntl::fcntl(socket, nix::fcntl::FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags, libc::FD_CLOEXEC);
            let socket = SockRef::from(&socket);
            let local = socket.local_addr().unwrap().as_socket().unwrap();
            assert_eq!(local, SocketAddr::new(*address, port));
            assert_eq!(socket.r#type().unwrap(), kind);
            assert_eq!(socket.reuse_address().unwrap(), kind == Type::STREAM);
        }
    }
}

#[test]
fn an_aligned_range_is_one_reservation() {
    let ip = own_address();
    let port = free_ports(10);
    let spec = format!("{ip}:{port}-{}:80-89", port + 9);
    let mut numbers = numbers();
    let mut bound = reserve(&mut numbers, &groups(&[&spec])).unwrap();
    let reservation = bound.remove(0);
    assert!(bound.is_empty());
    assert_eq!(reservation.sockets().len(), 10);
    assert_eq!((reservation.host().first(), reservation.container().last()), (port, 89));
    reservation.release(&mut numbers);
    let numbers = RefCell::new(numbers);
    soon(|| reserve(&mut numbers.borrow_mut(), &groups(&[&spec])));
}

#[test]
fn ephemeral_ports_of_one_spec_that_come_out_in_a_row_are_one_reservation() {
    let ip = own_address();
    let port = free_ports(4);
    let range = PortRange::new(port, port + 3).unwrap();
    let mut numbers = Allocator::new(EphemeralPorts::new(range));
    let bound =
        reserve(&mut numbers, &groups(&[&format!("{ip}::80-81"), &format!("{ip}::80-81/udp")])).unwrap();
    let got: Vec<_> =
        bound.iter().map(|r| (r.proto(), r.host().count(), r.container().to_string())).collect();
    assert_eq!(got, [(Proto::Tcp, 2, "80-81".into()), (Proto::Udp, 2, "80-81".into())]);
}

#[test]
fn a_busy_port_is_named_and_nothing_stays_bound() {
    let ip = own_address();
    let port = free_ports(2);
    let holder = TcpListener::bind((ip, port + 1)).unwrap();
    let spec = format!("{ip}:{port}-{}:80-81", port + 1);
    let mut numbers = numbers();
    let error = reserve(&mut numbers, &groups(&[&spec])).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("failed to bind host port {ip}:{}/tcp: address already in use{}", port + 1, by_us())
    );
    drop(soon(|| TcpListener::bind((ip, port)))); // the port bound first is free again
    drop(holder);
    let numbers = RefCell::new(numbers); // they were given back
    soon(|| reserve(&mut numbers.borrow_mut(), &groups(&[&spec])));
}

#[test]
fn a_choice_skips_ports_that_other_processes_hold() {
    let ip = own_address();
    let port = free_ports(16);
    let holders: Vec<_> = (port..port + 15).map(|port| TcpListener::bind((ip, port)).unwrap()).collect();
    let spec = format!("{ip}:{port}-{}:80", port + 15);
    let mut numbers = numbers();
    let bound = reserve(&mut numbers, &groups(&[&spec])).unwrap();
    assert_eq!(bound[0].host(), PortRange::single(port + 15), "more busy ports than Docker tries");
    let error = reserve(&mut numbers, &groups(&[&spec])).unwrap_err();
    assert!(error.to_string().starts_with(&format!("failed to bind host port {ip}:")), "{error}");
    drop(holders);
    let numbers = RefCell::new(numbers);
    let bound = soon(|| reserve(&mut numbers.borrow_mut(), &groups(&[&spec])));
    assert_ne!(bound[0].host(), PortRange::single(port + 15), "failed numbers were given back");
}

#[test]
fn two_binders_never_share_a_udp_port() {
    let ip = own_address();
    let port = free_ports(1);
    let spec = format!("{ip}:{port}:53/udp");
    let _first = reserve(&mut numbers(), &groups(&[&spec])).unwrap();
    let error = reserve(&mut numbers(), &groups(&[&spec])).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("failed to bind host port {ip}:{port}/udp: address already in use{}", by_us())
    );
}

#[test]
fn an_address_of_another_host_is_refused_at_once() {
    let error = reserve(&mut numbers(), &groups(&["192.0.2.9::80"])).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("failed to bind host port 192.0.2.9:"), "{text}");
    assert!(text.ends_with("/tcp: cannot assign requested address"), "{text}");
}

#[test]
fn sctp_works_or_says_that_the_kernel_has_none() {
    match reserve(&mut numbers(), &groups(&["127.0.0.1::80/sctp"])) {
        Ok(bound) => assert_eq!(bound.len(), 1),
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("failed to create socket for 127.0.0.1:"), "{text}");
            assert!(text.ends_with("/sctp: protocol not supported (this kernel has no SCTP)"), "{text}");
        }
    }
}

#[test]
fn nothing_gets_through_until_the_socket_is_to_hear() {
    let ip = own_address();
    let bound = reserve(&mut numbers(), &groups(&[&format!("{ip}::80"), &format!("{ip}::53/udp")])).unwrap();
    let [udp, tcp] = &bound[..] else { panic!("two reservations") };
    let place = |of: &Reservation| SocketAddr::new(ip.into(), of.host().first());
    let early = std::net::TcpStream::connect_timeout(&place(tcp), Duration::from_millis(50)).unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::TimedOut, "dropped, not refused");
    let sender = std::net::UdpSocket::bind((ip, 0)).unwrap();
    sender.send_to(b"early", place(udp)).unwrap();
    for reservation in &bound {
        reservation.hear().unwrap();
        reservation.hear().unwrap();
    }
    drop(std::net::TcpStream::connect_timeout(&place(tcp), Duration::from_secs(5)).unwrap());
    sender.send_to(b"late", place(udp)).unwrap();
    let socket = udp.sockets().next().unwrap().try_clone_to_owned().unwrap();
    let mut datagram = [0; 16];
    let length = std::net::UdpSocket::from(socket).recv(&mut datagram).unwrap();
    assert_eq!(&datagram[..length], b"late");
    tcp.deafen().unwrap();
    std::net::TcpStream::connect_timeout(&place(tcp), Duration::from_millis(50)).unwrap_err();
}

#[test]
fn a_reservation_is_split_without_mixing_up_its_sockets() {
    let (a, b) = (own_address(), own_address());
    let port = free_ports(2);
    let ports = format!("{port}-{}", port + 1);
    let specs = [format!("{a}:{ports}:80-81"), format!("{b}:{ports}:80-81")];
    let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
    let local = |of: &Reservation| -> Vec<SocketAddr> {
        let address = |fd| SockRef::from(&fd).local_addr().unwrap().as_socket().unwrap();
        of.sockets().map(address).collect()
    };
    let whole = reserve(&mut numbers(), &groups(&specs)).unwrap().remove(0);
    let at = |ip: Ipv4Addr, port: u16| SocketAddr::from((ip, port));
    assert_eq!(local(&whole), [at(a, port), at(b, port), at(a, port + 1), at(b, port + 1)]);
    let mut parts = whole.split_by(|_, spec| spec);
    assert_eq!(parts.len(), 2);
    for ((spec, part), ip) in parts.iter().zip([a, b]) {
        assert_eq!(
            (*spec, part.addresses(), part.specs()),
            (part.specs()[0], &[ip.into()][..], &[*spec][..])
        );
        assert_eq!(local(part), [at(ip, port), at(ip, port + 1)]);
    }
    let singles = parts.remove(1).1.split_all();
    let got: Vec<_> = singles.iter().map(|one| (local(one)[0], one.container().first())).collect();
    assert_eq!(got, [(at(b, port), 80), (at(b, port + 1), 81)]);
}

/// As a child of ours does that was made just before its port was given up.
#[test]
fn a_port_that_is_let_go_in_a_moment_is_waited_for() {
    let ip = own_address();
    let holder = TcpListener::bind((ip, 0)).unwrap();
    let spec = format!("{}:80", holder.local_addr().unwrap());
    let letting_go = thread::spawn(move || {
        thread::sleep(LINGERING / 4);
        drop(holder);
    });
    let mut numbers = numbers();
    let reserved = reserve(&mut numbers, &groups(&[&spec]));
    letting_go.join().unwrap();
    assert!(reserved.is_ok(), "{reserved:?}");
}
