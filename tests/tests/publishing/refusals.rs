//! Ports that can't be had: one line, Docker's where it has one, status 125, and nothing left on the host.

use e2e::lab::{Host, v4};

use super::lab::{IPTABLES, Lab, NFTABLES};
use super::ports::{HOST4, ask, idle, named, proxies, shown, sockets, traces};

/// Runs a sandbox that must not come to run, and gives what is said about it without the name and the ids.
#[track_caller]
fn refused(lab: &Lab, flags: &[&str]) -> String {
    let before = traces(lab);
    let words = [&["run", "-d", "--name", "refused"], flags, &["--", "sleep", "infinity"]].concat();
    let (code, said) = lab.fails(&words);
    assert_eq!(code, 125, "{flags:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{flags:?}: {said}");
    assert_eq!(traces(lab), before, "{flags:?}");
    lab.portmap(&["rm", "-f", "refused"]);
    let Some((start, rest)) = said.split_once("on endpoint refused (") else { return said };
    let docker = "portmap: Error response from daemon: failed to set up container networking: \
                  driver failed programming external connectivity ";
    assert_eq!(start, docker);
    rest.split_once("): ").unwrap().1.to_owned()
}

#[test]
fn a_taken_port_is_refused_with_dockers_words() {
    for backend in [NFTABLES, IPTABLES] {
        let Some(lab) = Lab::new(&["--firewall-backend", backend]) else { return };
        let _web = named(&lab, "web", &["-p", "8080:80", "-p", "127.0.0.1:9000-9009:90-99"]);
        let cases: &[(&[&str], &str)] = &[
            (&["-p", "8080:81"], "Bind for 0.0.0.0:8080 failed: port is already allocated"),
            (&["-p", "[::]:8080:81"], "Bind for :::8080 failed: port is already allocated"),
            (&["-p", "127.0.0.5:8080:81"], "Bind for 127.0.0.5:8080 failed: port is already allocated"),
            (&["-p", "9009:81"], "Bind for 0.0.0.0:9009 failed: port is already allocated"),
            (&["-p", "9005-9015:90-100"], "Bind for 0.0.0.0:9005 failed: port is already allocated"),
            (&["-p", "127.0.0.1:9003-9005:80"], "all ports are allocated"),
            // What could be had is given back.
            (
                &["-p", "7000:70", "-p", "71", "-p", "7100-7200:7100-7200/udp", "-p", "8080:80"],
                "Bind for 0.0.0.0:8080 failed: port is already allocated",
            ),
        ];
        for (flags, want) in cases {
            assert_eq!(refused(&lab, flags), *want, "{flags:?}");
        }
        assert_eq!(ask(&lab.host, v4(8080)), "web");
        idle(&lab, "other", &["-p", "7000:70", "-p", "7100-7200:7100-7200/udp", "-p", "127.0.0.2:9000:90"]);
    }
}

#[test]
fn a_foreign_process_that_has_the_port_is_named() {
    let Some(lab) = Lab::new(&[]) else { return };
    let mut command = lab.home.command("busybox");
    command.args(["httpd", "-f", "-p", "0.0.0.0:8080"]);
    let _foreign = lab.host.spawn(command);
    e2e::wait::until("the foreign listener", || sockets(&lab) == ["tcp 0.0.0.0:8080"]);
    // The number that our daemon knows it under.
    let pid = lab.home.run("pidof", &["busybox"]).ok();
    let said = refused(&lab, &["-p", "8079-8081:79-81"]);
    let kernel = "failed to bind host port 0.0.0.0:8080/tcp: address already in use";
    let advice = said.strip_prefix(kernel).unwrap_or_else(|| panic!("{said}"));
    assert!(advice.contains("busybox") && advice.contains(&pid), "{said}");
    // Where nobody can tell, nothing is told.
    let _unseen = lab.host.tcp_listener("[::]:9090".parse().unwrap());
    let said = refused(&lab, &["-p", "9090:80"]);
    assert_eq!(said, "failed to bind host port [::]:9090/tcp: address already in use");
    let _unseen = lab.host.udp_listener("127.0.0.1:9091".parse().unwrap());
    let said = refused(&lab, &["-p", "127.0.0.1:9091:80/udp"]);
    assert_eq!(said, "failed to bind host port 127.0.0.1:9091/udp: address already in use");
}

#[test]
fn addresses_that_are_not_the_hosts_are_refused() {
    let Some(lab) = Lab::new(&[]) else { return };
    for (spec, place) in [
        ("192.0.2.9:8080:80", "192.0.2.9:8080/tcp"),
        ("198.51.100.1:8080:80/udp", "198.51.100.1:8080/udp"),
        ("[2001:db8::1]:8080:80", "[2001:db8::1]:8080/tcp"),
        ("192.0.2.9::80", "192.0.2.9:"),
    ] {
        let said = refused(&lab, &["-p", "7000:70", "-p", spec]);
        assert!(said.starts_with(&format!("failed to bind host port {place}")), "{spec}: {said}");
        assert!(said.ends_with(": cannot assign requested address"), "{spec}: {said}");
    }
}

#[test]
fn specs_that_do_not_go_together_are_refused() {
    let Some(lab) = Lab::new(&[]) else { return };
    for (flags, want) in [
        (&["-p", "8080:80", "-p", "8080:80"][..], "8080:80 is published twice"),
        (
            &["-p", "8080:80", "-p", "127.0.0.1:8080:81"],
            "8080:80 and 127.0.0.1:8080:81 overlap: both want 127.0.0.1:8080/tcp",
        ),
        (&["-p", "0-5:80"], "invalid port range: 0-5"),
        (&["--expose", "80/ncp", "-P"], "unknown protocol"),
    ] {
        assert_eq!(refused(&lab, flags), want, "{flags:?}");
    }
}

#[test]
fn modes_without_ports_of_their_own_say_so() {
    let Some(lab) = Lab::new(&[]) else { return };
    idle(&lab, "web", &[]);
    let before = traces(&lab);
    for (flags, want) in [
        (&["-p", "8080:80"][..], "conflicting options: port publishing and the container type network mode"),
        (&["-P"], "conflicting options: port publishing and the container type network mode"),
        (&["--expose", "80"], "conflicting options: port exposing and the container type network mode"),
    ] {
        let words = [&["run", "--rm", "--net", "container:web"], flags, &["--", "true"]].concat();
        let (code, said) = lab.fails(&words);
        assert_eq!((code, said), (125, format!("portmap: Error response from daemon: {want}")), "{flags:?}");
    }
    // The host's own ports need no publishing.
    let said =
        lab.portmap(&["run", "-d", "--name", "guest", "--net", "host", "-p", "8080:80", "sleep", "infinity"]);
    assert_eq!(said.code, 0, "{said:?}");
    let warning = "WARNING: Published ports are discarded when using host network mode";
    assert_eq!(said.stderr, warning);
    // Without a way out there is none in.
    lab.ok(&["run", "-d", "--name", "alone", "--net", "none", "-p", "8080:80", "sleep", "infinity"]);
    for name in ["guest", "alone"] {
        assert_eq!(lab.ok(&["port", name]), "", "{name}");
        lab.ok(&["rm", "-f", name]);
    }
    assert_eq!(traces(&lab), before);
    assert!(sockets(&lab).is_empty() && proxies(&lab).is_empty());
}

#[test]
fn without_rules_and_proxies_there_is_no_way_in() {
    let Some(lab) = Lab::new(&["--iptables=false", "--userland-proxy=false"]) else { return };
    let want =
        "ports can't be published: with --iptables=false and --userland-proxy=false there is no way in";
    let said = refused(&lab, &["-p", "8080:80"]);
    assert!(said.ends_with(want), "{said}");
    idle(&lab, "web", &["--expose", "80"]);
    let before = traces(&lab);
    let (code, said) = lab.fails(&["publish", "web", "-p", "8080:80"]);
    assert_eq!(code, 1);
    assert!(said.ends_with(want), "{said}");
    assert_eq!(traces(&lab), before);
}

#[test]
fn without_rules_everything_goes_through_the_proxy_which_is_said() {
    let Some(lab) = Lab::new(&["--iptables=false"]) else { return };
    let _web = named(&lab, "web", &["-p", "8080:80"]);
    assert_eq!(lab.host.run("nft", &["list", "ruleset"]), "");
    for from in [&lab.host, &lab.neighbour] {
        assert_eq!(ask(from, (HOST4, 8080)), "web");
    }
}

/// A tool that is there no longer, for those who run in the daemon's mount namespace.
fn lose(lab: &Lab, tool: &str) {
    let path = std::fs::canonicalize(e2e::need::program(tool).unwrap()).unwrap();
    lab.home.run("mount", &["--bind", "/dev/null", path.to_str().unwrap()]).ok();
}

#[test]
fn a_firewall_that_cannot_be_changed_publishes_nothing() {
    // On some systems all of iptables' programs are one file, so whichever comes first is missing.
    for (backend, tool, named_tool) in [(NFTABLES, "nft", "nft"), (IPTABLES, "iptables-restore", "iptables")]
    {
        let Some(lab) = Lab::new(&["--firewall-backend", backend]) else { return };
        if e2e::need::program(tool).is_none() {
            return;
        }
        let _web = named(&lab, "web", &["-p", "8080:80"]);
        idle(&lab, "other", &[]);
        let path = std::fs::canonicalize(e2e::need::program(tool).unwrap()).unwrap();
        lose(&lab, tool);
        let before = traces(&lab);
        let (code, said) = lab.fails(&["publish", "other", "-p", "8081:80"]);
        assert_eq!(code, 1);
        assert!(said.contains(named_tool) && said.lines().count() == 1, "{said}");
        assert_eq!(traces(&lab), before);
        assert_eq!(lab.ok(&["inspect", "-f", "{{len .HostConfig.PortBindings}}", "other"]), "0");
        let said = refused(&lab, &["-p", "8082:80"]);
        assert!(said.contains(named_tool), "{said}");
        assert_eq!(ask(&lab.host, v4(8080)), "web");
        lab.home.run("umount", &[path.to_str().unwrap()]).ok();
        lab.ok(&["publish", "other", "-p", "8081:80"]);
        assert_eq!(shown(&lab, "other").len(), 2);
    }
}

#[test]
fn a_proxy_that_does_not_serve_publishes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("silent-proxy");
    // Written by a child: while this process had it open, any child forked just then would keep it from being executed.
    let written = format!(
        "printf '#!/bin/sh\\nprintf \"1\\\\nno ink left\" >&3; exit 1\\n' > {0}; chmod 755 {0}",
        script.display()
    );
    assert!(std::process::Command::new("sh").args(["-c", &written]).status().unwrap().success());
    let Some(lab) = Lab::new(&["--userland-proxy-path", script.to_str().unwrap()]) else { return };
    let said = refused(&lab, &["-p", "8080:80"]);
    assert!(said.contains("no ink left"), "{said}");
    idle(&lab, "web", &[]);
    let before = traces(&lab);
    let (_, said) = lab.fails(&["publish", "web", "-p", "8080:80"]);
    assert!(said.contains("no ink left"), "{said}");
    assert_eq!(traces(&lab), before);
    assert_eq!(lab.ok(&["port", "web"]), "");
}

#[test]
fn too_few_descriptors_are_told_once_and_leave_nothing() {
    let Some(lab) = Lab::new(&[]) else { return };
    let _web = named(&lab, "web", &["-p", "8080:80"]);
    let daemon = std::fs::read_to_string(lab.home.path("run/portmap.pid")).unwrap();
    let limit = |soft: &str| {
        lab.home.run("prlimit", &["--pid", daemon.trim(), &format!("--nofile={soft}:")]).ok();
    };
    let before =
        std::fs::read_to_string(format!("/proc/{}/limits", lab.home.processes("portmap")[0])).unwrap();
    let soft = before.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = soft.split_whitespace().nth(3).unwrap().to_owned();
    limit("300");
    for _ in 0..3 {
        let said = refused(&lab, &["-p", "20000-20999:20000-20999"]);
        assert!(said.to_lowercase().contains("too many open files"), "{said}");
    }
    idle(&lab, "other", &["-p", "8081:80"]);
    let traces_of_both = traces(&lab);
    let (_, said) = lab.fails(&["publish", "other", "-p", "20000-20999:20000-20999/udp"]);
    assert!(said.to_lowercase().contains("too many open files"), "{said}");
    assert_eq!(traces(&lab), traces_of_both);
    limit(&soft);
    lab.ok(&["publish", "other", "-p", "20000-20999:20000-20999"]);
    assert_eq!(ask(&lab.host, v4(8080)), "web");
}

#[test]
fn a_full_disk_publishes_nothing() {
    let Some(mut lab) = Lab::new(&[]) else { return };
    lab.end_daemon("-TERM");
    let data = lab.home.path("data");
    let data = data.to_str().unwrap();
    lab.home.run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", data]).ok();
    lab.start_daemon();
    let _web = named(&lab, "web", &["-p", "8080:80"]);
    idle(&lab, "other", &[]);
    let fill = format!("{data}/fill");
    assert_ne!(lab.home.run("dd", &["if=/dev/zero", &format!("of={fill}"), "bs=4k"]).code, 0);
    let before = traces(&lab);
    for words in [&["publish", "other", "-p", "8081:80"][..], &["unpublish", "web", "-p", "8080:80"]] {
        let (code, said) = lab.fails(words);
        assert_eq!(code, 1);
        assert!(said.to_lowercase().contains("no space"), "{words:?}: {said}");
        assert_eq!(traces(&lab), before, "{words:?}");
        assert_eq!(ask(&lab.host, v4(8080)), "web");
        assert_eq!((shown(&lab, "web").len(), shown(&lab, "other").len()), (2, 0));
    }
    lab.home.run("rm", &[&fill]).ok();
    lab.ok(&["publish", "other", "-p", "8081:80"]);
    lab.ok(&["unpublish", "web", "-p", "8080:80"]);
}

#[test]
fn a_daemon_needs_a_proxy_or_none() {
    let Some(host) = Host::new("host") else { return };
    let Some(home) = e2e::daemon::Home::new(&host) else { return };
    let mut refused = host.spawn(home.daemon_command(&["--userland-proxy-path", "/nonexistent"]));
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr().contains("invalid userland-proxy-path: /nonexistent"), "{}", refused.stderr());
    let _daemon = home.daemon(&["--userland-proxy=false", "--userland-proxy-path", "/nonexistent"]);
}
