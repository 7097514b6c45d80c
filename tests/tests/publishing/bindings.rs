//! Host addresses of ports: what a spec without one gets, and that a port on one address is on no other.

use std::net::{IpAddr, SocketAddr};

use e2e::wait::PATIENCE;

use super::lab::Lab;
use super::witness::{Place, by_each, side_by_side, with_both, with_each, witnessed};

/// An address of the host's besides those on its cable.
const SECOND: [&str; 2] = ["198.51.100.1", "fd00:51::1"];

fn with_second_address(lab: &Lab) {
    lab.host.address("lo", &["198.51.100.1/32", "fd00:51::1/128"]);
}

/// On these of the host's addresses the neighbour, and on all of them the host itself, finds the port or doesn't.
fn answers(lab: &Lab, port: u16, cases: &[(&str, bool)]) {
    side_by_side(by_each(cases), |((address, found), proto)| {
        let to = SocketAddr::from((address.parse::<IpAddr>().unwrap(), port));
        let remote = !to.ip().is_loopback();
        if *found {
            lab.host.ask(proto, to);
            assert!(!remote || lab.neighbour.ask_for(PATIENCE, proto, to).is_some(), "{to}/{proto}");
        } else {
            assert!(lab.host.is_cut_off(proto, to), "the host reaches {to}/{proto}");
            assert!(!remote || lab.neighbour.is_cut_off(proto, to), "a neighbour reaches {to}/{proto}");
        }
    });
}

#[test]
fn a_network_may_have_an_address_for_ports_without_one() {
    with_both(&[], |lab| {
        with_second_address(lab);
        let binding = "com.docker.network.bridge.host_binding_ipv4=192.0.2.1";
        lab.ok(&["network", "create", "--ipv6", "--subnet", "fd00:10::/64", "-o", binding, "one"]);
        let _first = witnessed(lab, "server", "8080", &["--net", "one"]);
        assert_eq!(lab.ok(&["port", "server", "80"]), "192.0.2.1:8080");
        answers(
            lab,
            8080,
            &[("192.0.2.1", true), (SECOND[0], false), ("127.0.0.1", false), ("fd00:ff::1", false)],
        );
        // An address in the spec says more.
        lab.ok(&["publish", "server", "-p", "198.51.100.1:8081:80", "-p", "198.51.100.1:8081:80/udp"]);
        answers(lab, 8081, &[("192.0.2.1", false), (SECOND[0], true)]);
        lab.ok(&["publish", "server", "-p", "[fd00:51::1]:8082:80", "-p", "[fd00:51::1]:8082:80/udp"]);
        answers(lab, 8082, &[("fd00:ff::1", false), (SECOND[1], true), ("192.0.2.1", false)]);
    });
}

#[test]
fn a_network_may_keep_its_ports_to_the_host() {
    with_both(&[], |lab| {
        let binding = "com.docker.network.bridge.host_binding_ipv4=127.0.0.1";
        lab.ok(&["network", "create", "-o", binding, "one"]);
        let _first = witnessed(lab, "server", "8080", &["--net", "one"]);
        assert_eq!(lab.ok(&["port", "server", "80"]), "127.0.0.1:8080");
        answers(lab, 8080, &[("127.0.0.1", true), ("192.0.2.1", false), ("::1", false)]);
    });
}

#[test]
fn the_daemons_address_is_the_default_bridges() {
    with_both(&["--ip", "192.0.2.1"], |lab| {
        with_second_address(lab);
        let _first = witnessed(lab, "on-default", "8080", &[]);
        assert_eq!(lab.ok(&["port", "on-default", "80"]), "192.0.2.1:8080");
        answers(
            lab,
            8080,
            &[("192.0.2.1", true), (SECOND[0], false), ("127.0.0.1", false), ("fd00:ff::1", false)],
        );
        lab.ok(&["network", "create", "one"]);
        let _second = witnessed(lab, "on-one", "8081", &["--net", "one"]);
        assert_eq!(lab.ok(&["port", "on-one", "80"]), "0.0.0.0:8081\n[::]:8081");
        answers(
            lab,
            8081,
            &[("192.0.2.1", true), (SECOND[0], true), ("127.0.0.1", true), ("fd00:ff::1", true)],
        );
    });
}

#[test]
fn a_port_on_one_address_is_on_no_other() {
    with_each(&[&["--userland-proxy=true"], &["--userland-proxy=false"]], |lab| {
        with_second_address(lab);
        lab.ok(&["network", "create", "--ipv6", "--subnet", "fd00:10::/64", "one"]);
        // Two servers behind the same number.
        let _first = witnessed(lab, "first", "192.0.2.1:8080", &["--net", "one"]);
        let _second = witnessed(lab, "second", "[fd00:51::1]:8080", &["--net", "one"]);
        let (first, second) = (("192.0.2.1", true), (SECOND[1], true));
        let others = [SECOND[0], "127.0.0.1", "fd00:ff::1", "::1"].map(|other| (other, false));
        answers(lab, 8080, &[&[first, second], &others[..]].concat());
    });
}
