//! Which host port a wish without an exact one ends up with.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::lab::Lab;
use super::ports::{ask, host_port, idle, named, shown};

const RANGE: &str = "net/ipv4/ip_local_port_range";
const RESERVED: &str = "net/ipv4/ip_local_reserved_ports";

fn any4(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn any6(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// A lab whose host gives away these ephemeral ports.
fn lab_with(range: &str, reserved: &str) -> Option<Lab> {
    let lab = Lab::new(&[])?;
    lab.host.sysctl(RANGE, range);
    lab.host.sysctl(RESERVED, reserved);
    Some(lab)
}

/// Publishes port 80 of a new sandbox somewhere; where?
#[track_caller]
fn next(lab: &Lab, name: &str) -> u16 {
    idle(lab, name, &["-p", "80"]);
    host_port(lab, name, "80")
}

#[test]
fn an_ephemeral_port_is_the_next_of_the_range_that_isnt_reserved() {
    let Some(lab) = lab_with("40000 40006", "40000,40002-40003") else { return };
    assert_eq!([next(&lab, "s1"), next(&lab, "s2")], [40001, 40004]);
    lab.ok(&["rm", "-f", "s1"]);
    assert_eq!(next(&lab, "s3"), 40005, "a port that was just given back isn't the next");
    assert_eq!([next(&lab, "s4"), next(&lab, "s5")], [40006, 40001], "round once");
    let (code, words) = lab.fails(&["run", "-p", "80", "--", "true"]);
    assert_eq!(code, 125);
    assert!(words.ends_with(": all ports are allocated"), "{words}");
    // UDP has its own.
    idle(&lab, "s6", &["-p", "80/udp"]);
    assert_eq!(host_port(&lab, "s6", "80/udp"), 40001);
    // What the administrator changes counts from then on; who names a port gets it though it is reserved.
    lab.host.sysctl(RANGE, "41000 41010");
    lab.host.sysctl(RESERVED, "41000");
    assert_eq!(next(&lab, "s7"), 41001);
    idle(&lab, "s8", &["-p", "41000:80", "-p", "40002-40003:81"]);
    assert_eq!([host_port(&lab, "s8", "80"), host_port(&lab, "s8", "81")], [41000, 40002]);
}

#[test]
fn both_families_have_the_same_port() {
    let Some(lab) = lab_with("40000 40019", "") else { return };
    let _six = lab.host.tcp_listener(any6(40000));
    let _four = lab.host.tcp_listener(any4(40001));
    let _udp = lab.host.udp_listener(any4(40002));
    let _web = named(&lab, "web", &["-p", "80", "-p", "22"]);
    assert_eq!(
        shown(&lab, "web"),
        [
            "22/tcp -> 0.0.0.0:40002",
            "22/tcp -> [::]:40002",
            "80/tcp -> 0.0.0.0:40003",
            "80/tcp -> [::]:40003"
        ]
    );
    for place in [e2e::lab::v4(40003), e2e::lab::v6(40003)] {
        assert_eq!(ask(&lab.host, place), "web");
    }
    // On other addresses the same numbers are free.
    idle(&lab, "two", &["-p", "127.0.0.1::80", "-p", "127.0.0.2:40009:80"]);
    idle(&lab, "three", &["-p", "127.0.0.1:40009:80"]);
}

#[test]
fn foreign_ports_are_skipped_however_many_there_are() {
    let Some(lab) = lab_with("40000 40099", "") else { return };
    let foreign: Vec<_> = (40000..40030).map(|port| lab.host.tcp_listener(any4(port))).collect();
    assert_eq!(next(&lab, "s1"), 40030);
    idle(&lab, "s2", &["-p", "40010-40040:80"]);
    assert_eq!(host_port(&lab, "s2", "80"), 40031);
    let (_, words) = lab.fails(&["run", "-p", "40010-40029:80", "--", "true"]);
    assert!(words.contains("failed to bind host port 0.0.0.0:40029/tcp: address already in use"), "{words}");
    drop(foreign);
    let free = || lab.portmap(&["run", "-d", "--name", "s3", "-p", "40010-40029:80", "sleep", "9"]).code == 0;
    e2e::wait::until("a port of the range", free);
}

#[test]
fn a_host_range_for_one_port_gives_a_free_one() {
    let Some(lab) = Lab::new(&[]) else { return };
    let foreign = lab.host.tcp_listener(any4(8001));
    for round in 0..2 {
        let names = [format!("a{round}"), format!("b{round}"), format!("c{round}")];
        let mut ports: Vec<u16> = Vec::new();
        for name in &names {
            idle(&lab, name, &["-p", "8000-8003:80"]);
            ports.push(host_port(&lab, name, "80"));
        }
        ports.sort_unstable();
        assert_eq!(ports, [8000, 8002, 8003]);
        let (_, words) = lab.fails(&["run", "-p", "8000-8003:80", "--", "true"]);
        assert!(words.contains("0.0.0.0:8001/tcp: address already in use"), "{words}");
        lab.ok(&["rm", "-f", &names[0], &names[1], &names[2]]);
    }
    drop(foreign);
}

#[test]
fn exact_ports_win_over_choices() {
    let Some(lab) = lab_with("40000 40099", "") else { return };
    assert_eq!(next(&lab, "first"), 40000);
    // moby's issue 12148: the ephemeral port must not take what the second wish names.
    idle(&lab, "second", &["-P", "-p", "80", "-p", "40001:8080", "--expose", "70"]);
    assert_eq!(host_port(&lab, "second", "8080"), 40001);
    assert_eq!(host_port(&lab, "second", "70"), 40002);
    assert_eq!(host_port(&lab, "second", "80"), 40003);
    idle(&lab, "third", &["-p", "12345-12346:80", "-p", "12345:81"]);
    assert_eq!([host_port(&lab, "third", "80"), host_port(&lab, "third", "81")], [12346, 12345]);
}

#[test]
fn all_exposed_ports_get_one_each() {
    let Some(lab) = lab_with("40000 40099", "") else { return };
    idle(&lab, "web", &["--expose", "3000-3003", "--expose", "53/udp", "-p", "8080:3001", "-P"]);
    assert_eq!(host_port(&lab, "web", "3001"), 8080, "what has a binding is left alone");
    let mut others = ["3000", "3002", "3003"].map(|port| host_port(&lab, "web", port));
    others.sort_unstable();
    assert_eq!(others, [40000, 40001, 40002]);
    assert_eq!(host_port(&lab, "web", "53/udp"), 40000);
    assert_eq!(lab.ok(&["inspect", "-f", "{{.HostConfig.PublishAllPorts}}", "web"]), "true");
}
