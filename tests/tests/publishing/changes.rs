//! Ports that come and go while a sandbox runs, or before it does.

use std::net::SocketAddr;

use e2e::lab::{v4, v6};

use super::lab::Lab;
use super::ports::{
    HOST4, HOST6, PROXY, answers, answers_udp, ask, ask_udp, host_port, idle, named, proxies, refuses, shown,
    sockets, traces,
};

#[test]
fn a_port_is_published_and_taken_back_while_the_sandbox_runs() {
    let Some(lab) = Lab::new(&[]) else { return };
    let _web = named(&lab, "web", &[]);
    let before = traces(&lab);
    let lines = "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080";
    assert_eq!(lab.ok(&["publish", "web", "-p", "8080:80"]), lines);
    assert_eq!(lab.ok(&["port", "web"]), lines);
    for place in [v4(8080), v6(8080), (HOST4, 8080).into(), (HOST6, 8080).into()] {
        assert_eq!(ask(&lab.host, place), "web", "{place}");
    }
    for address in [HOST4, HOST6] {
        assert_eq!(ask(&lab.neighbour, (address, 8080)), "web", "{address}");
    }
    assert_eq!(proxies(&lab).len(), 1);
    // More of it, beside what is there.
    let _dns = answers_udp(&lab, "web", 53, "dns");
    let said = lab.ok(&["publish", "web", "-p", "127.0.0.1:5353:53/udp", "-p", "9000-9001:80"]);
    assert_eq!(said, "53/udp -> 127.0.0.1:5353\n80/tcp -> 0.0.0.0:9000\n80/tcp -> [::]:9000");
    assert_eq!(ask_udp(&lab.host, v4(5353)), "dns");
    assert_eq!(ask(&lab.neighbour, (HOST4, 9000)), "web");
    assert_eq!(shown(&lab, "web").len(), 5);
    // And back, each with its own words.
    assert_eq!(lab.ok(&["unpublish", "web", "-p", "8080:80"]), lines);
    assert!(refuses(&lab.host, v4(8080)) && refuses(&lab.neighbour, (HOST4, 8080)));
    assert_eq!(ask(&lab.host, v4(9000)), "web", "the others stay");
    lab.ok(&["unpublish", "web", "-p", "5353:53/udp", "-p", "9000-9001:80"]);
    assert_eq!(traces(&lab), before);
}

#[test]
fn what_was_chosen_can_be_taken_back_by_what_it_became() {
    let Some(lab) = Lab::new(&[]) else { return };
    let _web = named(&lab, "web", &["-p", "80"]);
    let port = host_port(&lab, "web", "80");
    let gone = lab.ok(&["unpublish", "web", "-p", &format!("{port}:80")]);
    assert_eq!(gone, format!("80/tcp -> 0.0.0.0:{port}\n80/tcp -> [::]:{port}"));
    assert_eq!(lab.ok(&["port", "web"]), "");
    assert!(refuses(&lab.host, v4(port)));
    // What is there to the letter is meant before what could be meant as well.
    lab.ok(&["publish", "web", "-p", "8080:80", "-p", "80"]);
    lab.ok(&["unpublish", "web", "-p", "80"]);
    assert_eq!(shown(&lab, "web"), ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]);
    let gone = lab.ok(&["unpublish", "web", "-p", "80"]);
    assert_eq!(gone, "80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080");
    lab.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(lab.ok(&["port", "web"]), "", "nor is it published again");
}

#[test]
fn of_a_stopped_sandbox_ports_are_published_when_it_starts() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["create", "--name", "web", "-p", "8080:80", "--", "sleep", "infinity"]);
    let before = traces(&lab);
    assert_eq!(lab.ok(&["publish", "web", "-p", "8081:81", "-p", "8082:82"]), "");
    assert_eq!(lab.ok(&["unpublish", "web", "-p", "8080:80", "-p", "8082:82"]), "");
    assert_eq!(traces(&lab), before, "nothing happens to the host");
    assert_eq!(
        lab.ok(&["inspect", "-f", "{{json .HostConfig.PortBindings}}", "web"]),
        r#"{"81/tcp":[{"HostIp":"","HostPort":"8081"}]}"#
    );
    lab.ok(&["start", "web"]);
    assert_eq!(shown(&lab, "web"), ["81/tcp -> 0.0.0.0:8081", "81/tcp -> [::]:8081"]);
    assert_eq!(sockets(&lab), ["tcp 0.0.0.0:8081", "tcp [::]:8081"]);
}

#[test]
fn the_short_form_publishes_to_a_running_sandbox() {
    let Some(lab) = Lab::new(&[]) else { return };
    let _web = named(&lab, "web", &[]);
    let said = lab.ok(&["-p", "8080:80", "-p", "127.0.0.1:8081:80", "web"]);
    assert_eq!(
        said, "80/tcp -> 0.0.0.0:8080\n80/tcp -> 127.0.0.1:8081\n80/tcp -> [::]:8080",
        "and doesn't stay"
    );
    assert_eq!(ask(&lab.neighbour, (HOST4, 8080)), "web");
    let id = lab.ok(&["ps", "-q"]);
    lab.ok(&["-p", "8082:80", &id]);
    assert_eq!(ask(&lab.host, v4(8082)), "web");
    lab.ok(&["stop", "-t", "0", "web"]);
    let (code, words) = lab.fails(&["-p", "8083:80", "web"]);
    assert_eq!(code, 125);
    let want =
        "portmap: sandbox web is not running: portmap publish changes what is published when it starts";
    assert_eq!(words, want);
}

#[test]
fn what_cannot_be_changed_changes_nothing() {
    let Some(lab) = Lab::new(&[]) else { return };
    let _web = named(&lab, "web", &["-p", "8080:80"]);
    idle(&lab, "other", &[]);
    lab.ok(&["run", "-d", "--name", "guest", "--net", "host", "--", "sleep", "infinity"]);
    let _foreign = lab.host.tcp_listener("0.0.0.0:7000".parse().unwrap());
    let before = traces(&lab);
    let bindings =
        || lab.ok(&["inspect", "-f", "{{json .HostConfig.PortBindings}}", "web", "other", "guest"]);
    let wishes = bindings();
    let cases: &[(&[&str], &str)] = &[
        (
            &["publish", "other", "-p", "8081:81", "-p", "8080:80"],
            "Bind for 0.0.0.0:8080 failed: port is already allocated",
        ),
        (
            &["publish", "other", "-p", "8081:81", "-p", "7000:80"],
            "failed to bind host port 0.0.0.0:7000/tcp: address already in use",
        ),
        (
            &["publish", "web", "-p", "8081:80", "-p", "127.0.0.1:8080:80"],
            "Bind for 127.0.0.1:8080 failed: port is already allocated",
        ),
        (&["publish", "other", "-p", "80:80", "-p", "80:80"], "80:80 is published twice"),
        (&["publish", "other", "-p", "0-5:80"], "invalid port range: 0-5"),
        (&["publish", "other", "-p", "80:0"], r#"invalid port specification: "0/tcp""#),
        (&["publish", "other", "-p", "8080:65536"], "invalid containerPort: 65536"),
        (&["publish", "nobody", "-p", "80"], "No such container: nobody"),
        (
            &["publish", "guest", "-p", "8081:80"],
            "container guest has no ports of its own to publish: its network mode is host",
        ),
        (&["unpublish", "web", "-p", "8080:81"], "8080:81 is not published by container web"),
        (&["unpublish", "web", "-p", "8080:80", "-p", "81"], "81 is not published by container web"),
        (&["unpublish", "other", "-p", "8080:80"], "8080:80 is not published by container other"),
    ];
    for (words, want) in cases {
        let (code, said) = lab.fails(words);
        assert_eq!(code, 1, "{words:?}: {said}");
        assert!(said.contains(want) && said.lines().count() == 1, "{words:?}: {said}");
        assert_eq!(traces(&lab), before, "{words:?}");
        assert_eq!(bindings(), wishes, "{words:?}");
        assert_eq!(ask(&lab.host, v4(8080)), "web");
    }
}

#[test]
fn explicit_ports_stay_over_stops_and_starts() {
    let Some(lab) = Lab::new(&[]) else { return };
    idle(&lab, "web", &["-p", "8080:80", "-p", "127.0.0.1:9000-9002:80-82", "-p", "5353:53/udp"]);
    let nothing = |lab: &Lab| sockets(lab).is_empty() && proxies(lab).is_empty();
    lab.ok(&["publish", "web", "-p", "8081:81"]);
    let ports = shown(&lab, "web");
    let bound = sockets(&lab);
    assert_eq!(bound.len(), 9);
    for words in [&["restart", "-t", "0", "web"][..], &["stop", "-t", "0", "web"], &["start", "web"]] {
        lab.ok(words);
        if words[0] == "stop" {
            assert!(nothing(&lab), "{:?} {:?}", sockets(&lab), lab.home.processes(PROXY));
            let set = lab.host.run("nft", &["list", "ruleset"]);
            assert!(!set.contains("8080"), "{set}");
        } else {
            assert_eq!(shown(&lab, "web"), ports);
            assert_eq!(sockets(&lab), bound);
            let _server = answers(&lab, "web", 81, "again");
            assert_eq!(ask(&lab.neighbour, SocketAddr::from((HOST4, 8081))), "again");
        }
    }
    // Of a sandbox that ends by itself nothing is left either.
    lab.ok(&["run", "--rm", "-p", "8090:80", "--", "true"]);
    assert_eq!(sockets(&lab), bound);
    lab.ok(&["rm", "-f", "web"]);
    assert!(nothing(&lab));
}
