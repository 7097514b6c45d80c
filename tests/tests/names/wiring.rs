//! How port 53 of 127.0.0.11 comes to the embedded server: rules that leave the port itself to whoever wants it, in
//! namespaces of ours and of others.

use super::lab::{IPTABLES, NFTABLES, Sandbox};
use super::tools::{HOST, Names};

/// Ways to have the daemon make rules, or none on the host.
const WAYS: [&[&str]; 3] =
    [&["--firewall-backend", NFTABLES], &["--firewall-backend", IPTABLES], &["--iptables=false"]];

/// A name server in a sandbox of its own, as a user has one: on port 53 of all addresses, UDP and TCP.
fn dnsmasq(names: &Names, name: &str, flags: &[&str]) {
    let config = ["--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=", "--user=root"];
    let serves = ["--keep-in-foreground", "--address=/mine.test/10.1.2.3"];
    let words =
        [&["run", "-d", "--name", name], flags, &["--", "dnsmasq"], &config[..], &serves[..]].concat();
    names.ok(&words);
    let listens = |udp: &str| names.sandbox(name).enter(|| sockets(udp)).iter().any(|at| at == "0.0.0.0:53");
    e2e::wait::until("dnsmasq", || listens("-u") && listens("-t"));
}

/// The addresses at which the calling thread's namespace listens.
fn sockets(kind: &str) -> Vec<String> {
    let output = std::process::Command::new("ss").args(["-H", "-n", "-l", "-a", kind]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect()
}

/// All rules of a namespace, whoever made them.
fn rules(sandbox: &Sandbox) -> String {
    let said = |program: &str, words: &[&str]| {
        let output = std::process::Command::new(program).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    sandbox.enter(|| {
        // Asking the older iptables for a table makes it.
        let tables = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
        let older = if tables.is_empty() { String::new() } else { said("iptables-legacy-save", &[]) };
        said("nft", &["list", "ruleset"]) + &older
    })
}

/// The sockets of a namespace's embedded server.
fn embedded(sandbox: &Sandbox) -> Vec<String> {
    let all = sandbox.enter(|| [sockets("-u"), sockets("-t")].concat());
    all.into_iter().filter(|at| at.starts_with("127.0.0.11:")).collect()
}

#[test]
fn a_users_own_server_on_port_53_and_ours_get_along() {
    if e2e::need::program("dnsmasq").is_none() {
        return;
    }
    for way in WAYS {
        let Some(names) = Names::new(HOST, way) else { return };
        names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
        dnsmasq(&names, "dns", &["--net", "one"]);
        names.idle("consumer", &["--net", "one"]);
        for transport in ["+notcp", "+tcp"] {
            let asks = |who: &str, words: &str| names.asks(who, &format!("{words} {transport}"));
            assert_eq!(asks("dns", "consumer"), "NOERROR 10.10.0.3", "{way:?}");
            assert_eq!(asks("dns", "@127.0.0.11 consumer"), "NOERROR 10.10.0.3", "{way:?}");
            assert_eq!(asks("dns", "@127.0.0.1 mine.test"), "NOERROR 10.1.2.3", "{way:?}");
            assert_eq!(asks("dns", "@10.10.0.2 mine.test"), "NOERROR 10.1.2.3", "{way:?}");
            assert_eq!(asks("consumer", "@dns mine.test"), "NOERROR 10.1.2.3", "{way:?}");
            assert_eq!(asks("consumer", "dns"), "NOERROR 10.10.0.2", "{way:?}");
        }
        assert_eq!(names.libc("dns", "ahostsv4", "consumer"), ["10.10.0.3"]);
        // Nothing of ours listens on port 53.
        let at = embedded(&names.sandbox("consumer"));
        assert_eq!(at.len(), 2, "{way:?}: {at:?}");
        assert!(at.iter().all(|at| !at.ends_with(":53")), "{way:?}: {at:?}");
        // Who looks for the rules finds them, where the backend has its own.
        let seen = rules(&names.sandbox("consumer"));
        let iptables = way.contains(&IPTABLES);
        assert_eq!(seen.contains("PORTMAP_OUTPUT"), iptables, "{way:?}: {seen}");
        assert_eq!(seen.contains("table ip portmap-dns"), !iptables, "{way:?}: {seen}");
        for at in &at {
            assert!(seen.contains(at.as_str()), "{way:?}: {at} in {seen}");
        }
    }
}

#[test]
fn sandboxes_without_a_server_have_neither_rules_nor_sockets() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    names.ok(&["network", "create", "one"]);
    names.idle("plain", &[]);
    let sandbox = names.sandbox("plain");
    assert_eq!((rules(&sandbox).trim(), embedded(&sandbox).len()), ("", 0));
    // The first user-defined network brings them, and they stay as long as it runs.
    names.ok(&["network", "connect", "one", "plain"]);
    assert_eq!(embedded(&sandbox).len(), 2);
    assert!(rules(&sandbox).contains("portmap-dns"));
    assert_eq!(names.asks("plain", "plain").split(' ').count(), 2);
    names.ok(&["network", "disconnect", "one", "plain"]);
    assert_eq!(embedded(&sandbox).len(), 2);
}

#[test]
fn a_dependant_has_its_targets_server() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    names.idle("provider", &["--net", "one"]);
    names.idle("consumer", &["--net", "one", "--link", "provider:giver"]);
    let before = embedded(&names.sandbox("consumer"));
    names.idle("side", &["--net", "container:consumer"]);
    assert_eq!(names.asks("side", "giver"), "NOERROR 10.10.0.2");
    assert_eq!(names.libc("side", "ahostsv4", "provider"), ["10.10.0.2"]);
    names.ok(&["rm", "-f", "side"]);
    assert_eq!(embedded(&names.sandbox("consumer")), before);
    assert_eq!(names.asks("consumer", "giver"), "NOERROR 10.10.0.2");
    assert_eq!(names.asks("consumer", "side"), "SERVFAIL", "nobody answers for the host");
}

#[test]
fn nothing_of_ours_is_left_in_somebody_elses_namespace() {
    for way in WAYS {
        let Some(names) = Names::new(HOST, way) else { return };
        let path = names.home.path("guest");
        std::fs::write(&path, "").unwrap();
        let path = path.to_str().unwrap();
        names.home.run("unshare", &[&format!("--net={path}"), "true"]).ok();
        let guest = names.stack(path);
        names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
        names.idle("peer", &["--net", "one"]);
        for end in ["stop", "kill", "rm"] {
            names.idle("guest", &["--net", "one", "--netns", path]);
            assert_eq!(names.asks("guest", "peer"), "NOERROR 10.10.0.2", "{way:?}");
            assert_eq!(embedded(&guest).len(), 2);
            match end {
                "stop" => drop(names.ok(&["stop", "-t", "0", "guest"])),
                "kill" => {
                    let pid = names.ok(&["inspect", "-f", "{{.State.Pid}}", "guest"]);
                    names.home.run("kill", &["-KILL", &pid]).ok();
                    let state = || names.ok(&["inspect", "-f", "{{.State.Status}}", "guest"]);
                    e2e::wait::until("the end", || state() == "exited");
                }
                _ => {}
            }
            names.ok(&["rm", "-f", "guest"]);
            e2e::wait::until("its sockets to go", || embedded(&guest).is_empty());
            let left = rules(&guest);
            assert!(
                !left.contains("127.0.0.11") && !left.to_lowercase().contains("portmap"),
                "{way:?} {end}: {left}"
            );
        }
    }
}

#[test]
fn the_next_daemon_makes_the_rules_again_and_with_its_own_backend() {
    let Some(mut names) = Names::new(HOST, &["--firewall-backend", NFTABLES]) else { return };
    names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    names.idle("web", &["--net", "one"]);
    let sandbox = names.sandbox("web");
    // Who asks from one port all the time must not be led to where nobody is any more.
    let client = sandbox.enter(|| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    client.connect("127.0.0.11:53").unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
    let keeps_asking = || {
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\0\0\x01\0\x01";
        client.send(query).is_ok() && client.recv(&mut [0; 512]).is_ok()
    };
    assert!(keeps_asking());
    for backend in [NFTABLES, IPTABLES, IPTABLES, NFTABLES] {
        names.end_daemon("-TERM");
        // As software does that thinks all rules are its own.
        sandbox.enter(|| std::process::Command::new("nft").args(["flush", "ruleset"]).status().unwrap());
        names.flags.pop();
        names.flags.push(backend.to_owned());
        names.start_daemon();
        for transport in ["+notcp", "+tcp"] {
            assert_eq!(names.asks("web", &format!("web {transport}")), "NOERROR 10.10.0.2", "{backend}");
        }
        e2e::wait::until("an answer to the old client", keeps_asking);
        let seen = rules(&sandbox);
        assert_eq!(seen.contains("PORTMAP_OUTPUT"), backend == IPTABLES, "{seen}");
        assert_eq!(seen.contains("portmap-dns"), backend == NFTABLES, "{seen}");
        assert_eq!(embedded(&sandbox).len(), 2, "the old ones are gone");
    }
    // Without a flush in between: the other backend's are taken away.
    names.end_daemon("-KILL");
    names.flags.pop();
    names.flags.push(IPTABLES.to_owned());
    names.start_daemon();
    let seen = rules(&sandbox);
    assert!(seen.contains("PORTMAP_OUTPUT") && !seen.contains("portmap-dns"), "{seen}");
    assert_eq!(names.asks("web", "web"), "NOERROR 10.10.0.2");
}

#[test]
fn a_sandbox_that_spoils_its_own_loopback_keeps_no_daemon_from_starting() {
    let Some(mut names) = Names::new(HOST, &[]) else { return };
    names.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    names.idle("web", &["--net", "one"]);
    names.idle("spoilt", &["--net", "one"]);
    names.ok(&["exec", "spoilt", "ip", "address", "flush", "dev", "lo"]);
    names.end_daemon("-KILL");
    names.start_daemon();
    assert_eq!(names.asks("web", "spoilt"), "NOERROR 10.10.0.3");
    names.ok(&["restart", "-t", "0", "spoilt"]);
    assert_eq!(names.asks("spoilt", "web"), "NOERROR 10.10.0.2");
}
