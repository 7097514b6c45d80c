use netcore::model::PortsConfig;

use super::super::facts::{Network, Obstacle};
use super::*;

const PROXY: u32 = 50;
const DAEMON: u32 = 4;

fn host() -> Host {
    Host {
        listeners: vec![
            listener("0.0.0.0:8080", Some((PROXY, "netproxy"))),
            listener("[::]:8080", Some((PROXY, "netproxy"))),
        ],
        has_proxies: true,
        has_rules: true,
        forwards_v4: true,
        forwards_v6: true,
        daemon: DAEMON,
        proxies: vec![PROXY],
    }
}

fn listener(at: &str, by: Option<(u32, &str)>) -> Listener {
    let by = by.map(|(pid, name)| Process { pid, name: name.to_owned() });
    Listener { proto: Proto::Tcp, at: at.parse().unwrap(), by }
}

/// `web` with 80/tcp at 8080, on all addresses, and nginx on it.
fn web() -> Sandbox {
    Sandbox {
        name: "web".to_owned(),
        stack: Stack::Own,
        is_running: true,
        ports: ports(&["8080:80"], &[]),
        networks: vec![Network { name: "net".to_owned(), is_internal: false }],
        published: vec![published("80", Some("8080"), &["0.0.0.0", "::"], "172.17.0.2")],
        listeners: Ok(vec![listener("0.0.0.0:80", Some((9, "nginx")))]),
    }
}

fn ports(publish: &[&str], expose: &[&str]) -> PortsConfig {
    PortsConfig {
        publish: publish.iter().map(|spec| spec.parse().unwrap()).collect(),
        expose: expose.iter().map(|spec| spec.parse().unwrap()).collect(),
        publish_all: false,
    }
}

fn published(container: &str, host: Option<&str>, addresses: &[&str], target: &str) -> Published {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        PortRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
    };
    let publication = Publication {
        spec: "80".parse().unwrap(),
        proto: Proto::Tcp,
        container: range(container),
        host: host.map(range),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        target: target.parse().unwrap(),
    };
    Published {
        publication,
        network: "net".to_owned(),
        proxy: Some(PROXY),
        is_led: Some(true),
        obstacles: Vec::new(),
        unseen: None,
        route: Route::Direct,
    }
}

fn ask(what: &str, host: Host, sandboxes: Vec<Sandbox>) -> Report {
    reason(&Facts { question: Question::parse(what).unwrap(), host, sandboxes })
}

/// The steps that aren't passed, and the advice.
fn failing(report: &Report) -> (Vec<&str>, &str) {
    let steps = report.paths.iter().flat_map(|path| &path.steps).filter(|step| step.mark == Mark::No);
    let steps: Vec<&str> = steps.map(|step| step.text.as_str()).collect();
    assert_eq!(report.answers, steps.is_empty(), "{report:?}");
    (steps, &report.advice)
}

fn notes(report: &Report) -> Vec<&str> {
    let steps = report.paths.iter().flat_map(|path| &path.steps).filter(|step| step.mark == Mark::Note);
    steps.map(|step| step.text.as_str()).collect()
}

#[test]
fn a_port_answers_when_nothing_is_in_the_way() {
    for what in ["8080", "127.0.0.1:8080", "[::1]:8080", "192.0.2.1:8080", "web"] {
        let report = ask(what, host(), vec![web()]);
        assert_eq!(failing(&report), (vec![], "It answers: nothing is in the way."), "{what}");
        assert_eq!(report.paths[0].title, "web: 80/tcp at 0.0.0.0:8080 and [::]:8080");
    }
    let carried = "the proxy carries it to the sandbox's other family: the sandbox sees the host's address, not the client's";
    assert_eq!(notes(&ask("[::1]:8080", host(), vec![web()])), [carried]);
    assert_eq!(notes(&ask("8080", host(), vec![web()])), Vec::<&str>::new());
}

/// What is changed of the host and of `web`, and what is said then: where it fails, and the advice.
type Case = (&'static str, &'static str, fn(&mut Host, &mut Sandbox), &'static str, &'static str);

#[test]
fn what_is_in_the_way_is_named_with_what_to_do_about_it() {
    let cases: [Case; 16] = [
        (
            "nothing listens",
            "8080",
            |_, web| web.listeners = Ok(vec![]),
            "nothing listens on 80/tcp in the sandbox",
            "Start what is to answer in web, on port 80.",
        ),
        (
            "something else listens",
            "8080",
            |_, web| web.listeners = Ok(vec![listener("0.0.0.0:81", Some((9, "nginx")))]),
            "nothing listens on 80/tcp in the sandbox; nginx (pid 9) listens on 0.0.0.0:81",
            "Have nginx (pid 9) listen on port 80, or publish the port it listens on: portmap publish web -p 81/tcp",
        ),
        (
            "loopback only",
            "8080",
            |_, web| web.listeners = Ok(vec![listener("127.0.0.1:80", Some((9, "nginx")))]),
            "nginx (pid 9) listens only on 127.0.0.1:80, which nobody outside of the sandbox reaches",
            "Have nginx (pid 9) listen on 0.0.0.0:80 instead.",
        ),
        (
            "another address only",
            "8080",
            |_, web| web.listeners = Ok(vec![listener("172.18.0.9:80", None)]),
            "a process listens only on 172.18.0.9:80, and packets come for 172.17.0.2",
            "Have a process listen on 0.0.0.0:80 instead.",
        ),
        (
            "IPv4 only, packets come by IPv6",
            "8080",
            |_, web| web.published = vec![published("80", Some("8080"), &["::"], "fd00::2")],
            "nginx (pid 9) listens only on 0.0.0.0:80, and packets come for fd00::2",
            "Have nginx (pid 9) listen on [::]:80 instead.",
        ),
        (
            "an administrator's rule",
            "8080",
            |_, web| {
                web.published[0].obstacles.push(Obstacle {
                    is_certain: true,
                    place: "table inet admin, chain f".to_owned(),
                    rule: "tcp dport 80 drop".to_owned(),
                });
            },
            "a firewall rule that isn't portmap's drops it: tcp dport 80 drop (table inet admin, chain f)",
            "Change or remove that rule in table inet admin, chain f, or accept the port before it.",
        ),
        (
            "a stranger has the port",
            "8080",
            |host, web| {
                host.listeners = vec![listener("0.0.0.0:8080", Some((7, "apache")))];
                web.published[0].proxy = None;
            },
            "apache (pid 7) holds 0.0.0.0:8080, not portmap",
            "End apache (pid 7), or have it listen elsewhere: the port is taken back by itself.",
        ),
        (
            "no proxy",
            "8080",
            |host, web| {
                host.listeners = vec![listener("0.0.0.0:8080", Some((DAEMON, "portmap")))];
                web.published[0].proxy = None;
            },
            "no proxy runs for the host's port",
            "The daemon's log says why; it tries again by itself.",
        ),
        (
            "flushed",
            "8080",
            |_, web| web.published[0].is_led = Some(false),
            "portmap's rules for it are missing: somebody has removed them",
            "Have the daemon write them again: kill -HUP 4",
        ),
        (
            "forwarding off",
            "8080",
            |host, _| host.forwards_v4 = false,
            "the host doesn't forward packets (net.ipv4.ip_forward is 0): only its own processes get through",
            "Turn forwarding on: sysctl -w net.ipv4.ip_forward=1",
        ),
        (
            "IPv6 forwarding off",
            "8080",
            |host, web| {
                host.forwards_v6 = false;
                web.published = vec![published("80", Some("8080"), &["::"], "fd00::2")];
                web.listeners = Ok(vec![listener("[::]:80", None)]);
            },
            "the host doesn't forward packets (net.ipv6.conf.all.forwarding is 0): only its own processes get through",
            "Turn forwarding on: sysctl -w net.ipv6.conf.all.forwarding=1",
        ),
        (
            "no route",
            "8080",
            |_, web| web.published[0].route = Route::None,
            "the host has no route to 172.17.0.2 on network net",
            "Restart the daemon, which makes the network again, or the sandbox: portmap restart web",
        ),
        (
            "another route",
            "8080",
            |_, web| web.published[0].route = Route::Elsewhere("192.0.2.1".parse().unwrap()),
            "the host sends packets for 172.17.0.2 another way, from 192.0.2.1, and not to network net",
            "Look for the route that leads there: ip route get 172.17.0.2",
        ),
        (
            "::1 without proxies",
            "[::1]:8080",
            |host, web| {
                host.has_proxies = false;
                web.published = vec![published("80", Some("8080"), &["::"], "fd00::2")];
                web.listeners = Ok(vec![listener("[::]:80", None)]);
            },
            "without the userland proxy nothing leads from ::1: the kernel can't route it",
            "Use 127.0.0.1 or another address of the host, or run the daemon with --userland-proxy=true.",
        ),
        (
            "nobody keeps the port",
            "8080",
            |host, web| {
                (host.has_proxies, host.listeners) = (false, Vec::new());
                web.published[0].proxy = None;
            },
            "nobody keeps the host's port",
            "The daemon's log says why; it tries again by itself.",
        ),
        (
            "neither rules nor proxies",
            "8080",
            |host, web| {
                (host.has_rules, host.has_proxies) = (false, false);
                (web.published[0].proxy, web.published[0].is_led) = (None, None);
            },
            "nothing leads to it: the daemon has neither rules (--iptables=false) nor proxies (--userland-proxy=false)",
            "Run the daemon without one of these flags.",
        ),
    ];
    for (name, what, change, step, advice) in cases {
        let (mut host, mut web) = (host(), web());
        change(&mut host, &mut web);
        assert_eq!(failing(&ask(what, host, vec![web])), (vec![step], advice), "{name}");
    }
}

#[test]
fn what_others_do_not_pass_is_no_matter_on_loopback() {
    let mut off = host();
    off.forwards_v4 = false;
    assert!(ask("127.0.0.1:8080", off.clone(), vec![web()]).answers);
    off.has_proxies = false;
    off.listeners = vec![listener("0.0.0.0:8080", Some((DAEMON, "portmap")))];
    let mut web = web();
    web.published[0].proxy = None;
    let report = ask("127.0.0.1:8080", off, vec![web]);
    assert!(report.answers, "{report:?}");
    assert_eq!(notes(&report).len(), 1);
}

#[test]
fn what_is_not_sure_is_a_note() {
    let mut web = web();
    let (place, rule) = ("chain f".to_owned(), "iifname eth0 drop".to_owned());
    web.published[0].obstacles.push(Obstacle { is_certain: false, place, rule });
    web.published[0].unseen = Some("nft failed".to_owned());
    web.listeners = Err("no such process".to_owned());
    let report = ask("8080", host(), vec![web]);
    assert!(report.answers);
    assert_eq!(
        notes(&report),
        [
            "some clients may be dropped by a rule that isn't portmap's: iifname eth0 drop (chain f)",
            "rules of others couldn't be looked at: nft failed",
            "what listens in the sandbox couldn't be looked at: no such process",
        ]
    );
}

#[test]
fn without_rules_the_proxy_carries_everything() {
    let mut host = host();
    (host.has_rules, host.forwards_v4) = (false, false);
    let mut web = web();
    web.published[0].is_led = None;
    let report = ask("8080", host, vec![web]);
    assert!(report.answers, "{report:?}");
}

#[test]
fn a_range_answers_where_one_of_its_ports_does() {
    let mut web = web();
    web.published = vec![published("80-89", Some("8080-8089"), &["0.0.0.0"], "172.17.0.2")];
    web.listeners = Ok(vec![listener("[::]:82", None), listener("0.0.0.0:85", None)]);
    let report = ask("web", host(), vec![web.clone()]);
    assert!(report.answers);
    assert_eq!(report.paths[0].title, "web: 80-89/tcp at 0.0.0.0:8080-8089");
    assert_eq!(
        report.paths[0].steps.last().unwrap().text,
        "2 of the 10 ports have a listener in the sandbox"
    );
    let mut held = host();
    held.listeners.push(listener("0.0.0.0:8082", Some((PROXY, "netproxy"))));
    assert!(ask("8082", held.clone(), vec![web.clone()]).answers, "IPv6's wildcard takes IPv4, too");
    let report = ask("8083", held, vec![web]);
    assert_eq!(report.paths[0].title, "web: 83/tcp at 0.0.0.0:8083");
    assert!(!report.answers);
}

#[test]
fn in_routed_mode_the_sandbox_itself_is_asked_about() {
    let mut web = web();
    web.published = vec![published("80", None, &["0.0.0.0"], "172.17.0.2")];
    web.published[0].proxy = None;
    for what in ["80", "172.17.0.2:80", "web"] {
        let report = ask(what, host(), vec![web.clone()]);
        assert!(report.answers, "{report:?}");
        assert_eq!(report.paths[0].title, "web: 80/tcp at its own address 172.17.0.2");
    }
    web.published[0].is_led = Some(false);
    assert!(!ask("web", host(), vec![web]).answers);
}

/// As [`Case`], with what is asked for at last.
type AbsentCase = (&'static str, fn(&mut Sandbox), &'static str, &'static str);

#[test]
fn a_port_that_is_led_nowhere_may_have_been_meant_otherwise() {
    let cases: [AbsentCase; 10] = [
        (
            "1234",
            |_| {},
            "no sandbox publishes it, and nothing on the host listens there",
            "Publish it: portmap publish SANDBOX -p 1234:PORT/tcp",
        ),
        (
            "8080/udp",
            |_| {},
            "web publishes 8080/tcp, not 8080/udp",
            "Ask for 8080/tcp, or publish udp too: portmap publish web -p 8080:8080/udp",
        ),
        ("80", |_| {}, "web publishes its port 80/tcp as 8080 of the host", "Use port 8080."),
        (
            "[::1]:8080",
            |web| web.published = vec![published("80", Some("8080"), &["0.0.0.0"], "172.17.0.2")],
            "web publishes it on IPv4 only, at 0.0.0.0, and not on IPv6",
            "Use an IPv4 address of the host, or publish it there too: portmap publish web -p [::1]:8080:80/tcp",
        ),
        (
            "192.0.2.1:8080",
            |web| web.published = vec![published("80", Some("8080"), &["127.0.0.1"], "172.17.0.2")],
            "web publishes it only at 127.0.0.1",
            "Use 127.0.0.1, or publish it there too: portmap publish web -p 192.0.2.1:8080:80/tcp",
        ),
        (
            "8080",
            |web| web.is_running = false,
            "web publishes it, but doesn't run",
            "Start it: portmap start web",
        ),
        (
            "8080",
            |web| {
                web.published = Vec::new();
                web.networks[0].is_internal = true;
            },
            "web asks for it, but it is only on internal networks (net), which nothing is published of",
            "Connect it to a network that has a way out: portmap network connect bridge web",
        ),
        (
            "443",
            |web| web.ports = ports(&[], &["443"]),
            "web exposes 443/tcp, which publishes nothing",
            "Publish it: portmap publish web -p 443:443/tcp",
        ),
        (
            "9000",
            |web| web.listeners = Ok(vec![listener("0.0.0.0:9000", Some((9, "nginx")))]),
            "nginx (pid 9) listens on 0.0.0.0:9000 in web, which doesn't publish it",
            "Publish it: portmap publish web -p 9000:9000/tcp",
        ),
        (
            "8080",
            |web| {
                web.published = vec![published("80", None, &["0.0.0.0"], "172.17.0.2")];
                web.published[0].publication.spec = "8080:80".parse().unwrap();
            },
            "web asks for it, but network net is in routed mode and takes no port of the host's",
            "Use the sandbox's own address: 172.17.0.2:80",
        ),
    ];
    for (what, change, step, advice) in cases {
        let (mut host, mut web) = (host(), web());
        // Ours, which lead elsewhere.
        host.listeners.push(listener("[::]:8080", Some((DAEMON, "portmap"))));
        change(&mut web);
        let report = ask(what, host, vec![web]);
        let (steps, given) = failing(&report);
        assert_eq!((steps[0], given), (step, advice), "{what}");
    }
}

#[test]
fn a_port_of_somebody_elses_answers_but_not_from_a_sandbox() {
    let mut other = host();
    other.listeners = vec![listener("[::]:8888", Some((7, "apache")))];
    let report = ask("127.0.0.1:8888", other.clone(), vec![web()]);
    assert_eq!(failing(&report), (vec![], "It is answered by apache (pid 7), not by a sandbox."));

    other.listeners = vec![listener("0.0.0.0:8080", None)];
    let mut off = web();
    off.is_running = false;
    let report = ask("8080", other, vec![off]);
    assert!(report.answers);
    let advice = "It is answered by another process, not by a sandbox. End that one first, then: Start it: portmap start web";
    assert_eq!(report.advice, advice);
}

/// What is changed of `web`, and what is said then.
type SilentCase = (fn(&mut Sandbox), &'static str, &'static str);

#[test]
fn a_sandbox_without_published_ports_is_told_why() {
    let cases: [SilentCase; 7] = [
        (|web| web.is_running = false, "it doesn't run", "Start it: portmap start web"),
        (
            |web| web.stack = Stack::Host,
            "it has the host's network: what it listens on is the host's own port",
            "Run it on a network of its own to publish ports: portmap run -p …",
        ),
        (
            |web| web.stack = Stack::None,
            "it has no network (--net none)",
            "Run it on a network of its own to publish ports: portmap run -p …",
        ),
        (
            |web| web.stack = Stack::Of("db".to_owned()),
            "it shares the network of db, which publishes ports for both",
            "Run it on a network of its own to publish ports: portmap run -p …",
        ),
        (
            |web| web.ports = ports(&[], &["80"]),
            "it publishes no ports",
            "Publish one: portmap publish web -p 8080:80",
        ),
        (
            |web| web.networks = Vec::new(),
            "it is on no network",
            "Connect it to a network that has a way out: portmap network connect bridge web",
        ),
        (
            |web| {
                web.ports = ports(&[], &[]);
                web.ports.publish_all = true;
            },
            "it publishes all exposed ports (-P), but exposes none",
            "Publish one: portmap publish web -p 8080:80",
        ),
    ];
    for (change, step, advice) in cases {
        let mut web = web();
        web.published = Vec::new();
        change(&mut web);
        assert_eq!(failing(&ask("web", host(), vec![web])), (vec![step], advice));
    }
}
