//! Ports follow the default route: networks that a running sandbox joins and leaves.

use e2e::lab::{v4, v6};

use super::lab::{IPTABLES, Lab, NFTABLES};
use super::ports::{
    HOST4, HOST6, answers, ask, host_port, idle, named, proxies, refuses, shown, sockets, traces,
};

/// The gateway that a sandbox sends through.
fn gateway(lab: &Lab, name: &str) -> String {
    let routes = lab.sandbox(name).ip("-4 route show default");
    routes.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

#[test]
fn on_an_internal_network_nothing_is_published_until_there_is_a_way_out() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--internal", "inside"]);
    let web = named(&lab, "web", &["--net", "inside", "-p", "8080:80"]);
    assert_eq!(lab.ok(&["port", "web"]), "");
    assert!(sockets(&lab).is_empty() && proxies(&lab).is_empty());
    assert!(refuses(&lab.host, v4(8080)) && refuses(&lab.neighbour, (HOST4, 8080)));
    let before = traces(&lab);
    lab.ok(&["network", "connect", "bridge", "web"]);
    assert_eq!(shown(&lab, "web"), ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]);
    for place in [v4(8080), v6(8080)] {
        assert_eq!(ask(&lab.host, place), "web");
    }
    assert_eq!(ask(&lab.neighbour, (HOST4, 8080)), "web");
    lab.ok(&["network", "disconnect", "bridge", "web"]);
    assert!(refuses(&lab.neighbour, (HOST4, 8080)));
    assert_eq!(lab.ok(&["port", "web"]), "");
    assert_eq!(traces(&lab), before);
    // What is in the way of the port is in the way of the connection, and changes nothing.
    idle(&lab, "other", &["-p", "8080:80"]);
    let before = traces(&lab);
    let (code, said) = lab.fails(&["network", "connect", "bridge", "web"]);
    assert_eq!(code, 1);
    assert!(said.ends_with("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{said}");
    assert_eq!(traces(&lab), before);
    assert_eq!(lab.ok(&["inspect", "-f", "{{len .NetworkSettings.Networks}}", "web"]), "1");
    drop(web);
}

#[test]
fn ports_stay_when_the_gateway_moves() {
    for (backend, proxy) in [(NFTABLES, "true"), (IPTABLES, "true"), (NFTABLES, "false")] {
        let proxy = format!("--userland-proxy={proxy}");
        let Some(lab) = Lab::new(&["--firewall-backend", backend, &proxy]) else { return };
        for (name, subnet) in [("mid", "10.10.0.0/24"), ("low", "10.11.0.0/24"), ("high", "10.12.0.0/24")] {
            lab.ok(&["network", "create", "--subnet", subnet, name]);
        }
        let _web = named(
            &lab,
            "web",
            &["--net", "mid", "-p", "9000:80", "-p", "70", "-p", "9100-9149:9100-9149/udp"],
        );
        let _seventy = answers(&lab, "web", 70, "seventy");
        let chosen = host_port(&lab, "web", "70");
        let (places, lines) = (sockets(&lab), shown(&lab, "web"));
        let works = |via: &str| {
            assert_eq!(gateway(&lab, "web"), via);
            for from in [&lab.host, &lab.neighbour] {
                assert_eq!(ask(from, (HOST4, 9000)), "web", "{backend} {proxy} via {via}");
                assert_eq!(ask(from, (HOST4, chosen)), "seventy", "{backend} {proxy} via {via}");
            }
            assert_eq!(ask(&lab.host, v4(9000)), "web", "{backend} {proxy} via {via}");
            assert_eq!(shown(&lab, "web"), lines, "via {via}");
            assert_eq!(sockets(&lab), places, "via {via}");
        };
        works("10.10.0.1");
        lab.ok(&["network", "connect", "--gw-priority", "1", "high", "web"]);
        works("10.12.0.1");
        lab.ok(&["network", "disconnect", "high", "web"]);
        works("10.10.0.1");
        lab.ok(&["network", "connect", "--gw-priority", "-1", "low", "web"]);
        works("10.10.0.1");
        lab.ok(&["network", "disconnect", "mid", "web"]);
        works("10.11.0.1");
        lab.ok(&["rm", "-f", "web"]);
        assert!(sockets(&lab).is_empty() && proxies(&lab).is_empty());
        assert!(!lab.host.run("nft", &["list", "ruleset"]).contains("9000"));
        assert!(!lab.host.run("iptables-save", &[]).contains("9000"));
    }
}

#[test]
fn each_family_has_a_gateway_of_its_own() {
    for proxy in ["--userland-proxy=false", "--userland-proxy=true"] {
        let Some(lab) = Lab::new(&[proxy]) else { return };
        lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "four"]);
        lab.ok(&["network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd00:6::/64", "six"]);
        lab.ok(&[
            "create", "--name", "web", "--net", "four", "-p", "8000:80", "--expose", "81", "sleep",
            "infinity",
        ]);
        lab.ok(&["network", "connect", "six", "web"]);
        lab.ok(&["start", "web"]);
        let _web = answers(&lab, "web", 80, "web");
        assert_eq!(
            lab.ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]),
            r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8000"},{"HostIp":"::","HostPort":"8000"}],"81/tcp":null}"#
        );
        for from in [&lab.host, &lab.neighbour] {
            assert_eq!(ask(from, (HOST4, 8000)), "web", "{proxy}");
            assert_eq!(ask(from, (HOST6, 8000)), "web", "{proxy}");
        }
        // Who loses one family loses its ports alone, or has them through the other.
        lab.ok(&["network", "disconnect", "six", "web"]);
        assert_eq!(ask(&lab.neighbour, (HOST4, 8000)), "web");
        if proxy.ends_with("true") {
            assert_eq!(ask(&lab.neighbour, (HOST6, 8000)), "web");
        } else {
            assert_eq!(shown(&lab, "web"), ["80/tcp -> 0.0.0.0:8000"]);
            assert!(refuses(&lab.neighbour, (HOST6, 8000)));
        }
        lab.ok(&["network", "connect", "six", "web"]);
        assert_eq!(ask(&lab.neighbour, (HOST6, 8000)), "web", "{proxy}");
    }
}

#[test]
fn without_proxies_an_ipv4_sandbox_has_no_ipv6_ports() {
    let Some(lab) = Lab::new(&["--userland-proxy=false"]) else { return };
    let _web = named(&lab, "web", &["-p", "8080:80", "-p", "[::1]:8081:80"]);
    assert_eq!(shown(&lab, "web"), ["80/tcp -> 0.0.0.0:8080"]);
    assert_eq!(sockets(&lab), ["tcp 0.0.0.0:8080"]);
    assert_eq!(ask(&lab.host, v4(8080)), "web");
}
