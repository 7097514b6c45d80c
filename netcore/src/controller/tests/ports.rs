//! Ports: what stands in the facts and in the rules, and that nothing half-made remains. Sockets are real, on loopback
//! addresses of this process's own; there are no proxies behind them, or none that serves.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::lab::*;
use crate::controller::{Config, Controller, SandboxView};
use crate::model::{EndpointSettings, PortsConfig};
use crate::publish::PublishSpec;

/// A loopback address that no other test uses.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | (high ^ middle) & 63, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

fn without_proxy(lab: &Lab) -> Controller {
    lab.try_open(Config { userland_proxy: false, ..lab.config() }, BOOT).unwrap()
}

fn specs(texts: &[String]) -> Vec<PublishSpec> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn create(controller: &Controller, name: &str, mode: &str, ports: &[String]) {
    let ports = PortsConfig { publish: specs(ports), ..PortsConfig::default() };
    controller.create_sandbox(super::super::SandboxConfigRequest { ports, ..sandbox(name, mode) }).unwrap();
}

/// `host -> target` of all that stands, in the order of the endpoints.
fn standing(view: &SandboxView) -> Vec<String> {
    let all = view.endpoints.iter().flat_map(|endpoint| &endpoint.publications);
    let host =
        |ports: Option<crate::publish::PortRange>| ports.map_or_else(|| "-".to_owned(), |p| p.to_string());
    all.map(|p| format!("{} -> {}:{}/{}", host(p.host), p.target, p.container, p.proto)).collect()
}

/// Whether a port is free, be it in a moment: a child of another test may hold a copy of its socket.
fn becomes_free(ip: Ipv4Addr, port: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpListener::bind((ip, port)).is_err() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

#[test]
fn a_start_that_fails_anywhere_leaves_no_port_taken() {
    let (lab, ip) = (Lab::new(), own_address());
    let controller = without_proxy(&lab);
    create(&controller, "web", "bridge", &[format!("{ip}:8080:80"), format!("{ip}:9000-9009:90-99")]);
    let before = lab.snapshot(&controller);
    // The namespace, the interface, the routes; then the rules.
    for turn in 0..3 {
        lab.kernel.state().fail_after = Some(turn);
        controller.start_sandbox("web", me()).unwrap_err();
        assert_eq!(lab.snapshot(&controller), before, "step {turn}");
        assert!(becomes_free(ip, 8080) && becomes_free(ip, 9009), "step {turn}");
    }
    lab.kernel.state().tools_fail = true;
    let refused = text(controller.start_sandbox("web", me()));
    lab.kernel.state().tools_fail = false;
    assert_eq!(refused.0, 500);
    assert!(
        refused.1.starts_with("failed to set up container networking: driver failed programming"),
        "{refused:?}"
    );
    assert_eq!(lab.snapshot(&controller), before);
    assert!(becomes_free(ip, 8080));
    controller.start_sandbox("web", me()).unwrap();
    let view = controller.sandbox("web").unwrap();
    assert_eq!(standing(&view), ["8080 -> 172.17.0.2:80/tcp", "9000-9009 -> 172.17.0.2:90-99/tcp"]);
    assert!(TcpListener::bind((ip, 8080)).is_err(), "it is taken while it is published");
    controller.sandbox_ended(view.sandbox.id, 0, None).unwrap();
    assert!(becomes_free(ip, 8080) && becomes_free(ip, 9000));
    assert!(standing(&controller.sandbox("web").unwrap()).is_empty());
}

#[test]
fn without_its_proxy_no_port_is_published() {
    let (lab, ip) = (Lab::new(), own_address());
    let config = Config { userland_proxy_path: PathBuf::from("/bin/false"), ..lab.config() };
    let controller = lab.try_open(config, BOOT).unwrap();
    create(&controller, "web", "bridge", &[format!("{ip}:8080:80")]);
    let before = lab.snapshot(&controller);
    let (status, said) = text(controller.start_sandbox("web", me()));
    assert_eq!(status, 500);
    assert!(said.contains("failed to start userland proxy for port mapping"), "{said}");
    assert_eq!(lab.snapshot(&controller), before);
    assert!(becomes_free(ip, 8080));
    let last = lab.kernel.state().rules.last().cloned().unwrap();
    assert!(
        last.contains("delete element") && last.contains("172.17.0.2"),
        "the rules are taken back: {last}"
    );
}

#[test]
fn ports_of_a_running_sandbox_come_and_go() {
    let (lab, ip) = (Lab::new(), own_address());
    let controller = without_proxy(&lab);
    start(&controller, "web", "bridge");
    let before = lab.snapshot(&controller);
    let wanted = specs(&[format!("{ip}:8080:80"), format!("{ip}:8081:81/udp")]);
    lab.kernel.state().tools_fail = true;
    assert_eq!(text(controller.publish("web", wanted.clone())).0, 500);
    lab.kernel.state().tools_fail = false;
    assert_eq!(lab.snapshot(&controller), before);
    let view = controller.publish("web", wanted.clone()).unwrap();
    assert_eq!(standing(&view), ["8080 -> 172.17.0.2:80/tcp", "8081 -> 172.17.0.2:81/udp"]);
    assert_eq!(view.sandbox.config.ports.publish, wanted);
    let (status, said) = text(controller.publish("web", wanted[..1].to_vec()));
    assert_eq!(status, 500);
    assert!(said.ends_with(&format!("Bind for {ip}:8080 failed: port is already allocated")), "{said}");
    let stranger = specs(&["9999:80".into()]);
    assert_eq!(
        text(controller.unpublish("web", &stranger)),
        (404, "9999:80 is not published by container web".into())
    );
    // Free ports enough, but the next start would refuse two that can't be told apart.
    let free = specs(&[format!("{ip}::82")]);
    let once = controller.publish("web", free.clone()).unwrap();
    let (_, said) = text(controller.publish("web", free.clone()));
    assert!(said.ends_with(&format!("{ip}::82 is published twice")), "{said}");
    assert_eq!(standing(&controller.sandbox("web").unwrap()), standing(&once));
    controller.publish("web", specs(&[format!("{ip}:8083:82")])).unwrap();
    let view = controller.unpublish("web", &free).unwrap();
    assert_eq!(standing(&view).len(), 3, "others of the same port stay: {view:?}");
    controller.unpublish("web", &specs(&[format!("{ip}:8083:82")])).unwrap();
    // What says enough is enough.
    let view = controller.unpublish("web", &specs(&["8081:81/udp".into()])).unwrap();
    assert_eq!(standing(&view), ["8080 -> 172.17.0.2:80/tcp"]);
    controller.unpublish("web", &wanted[..1]).unwrap();
    assert_eq!(lab.snapshot(&controller), before);
    assert!(becomes_free(ip, 8080));
}

#[test]
fn rules_that_cannot_be_removed_go_with_the_next_change() {
    let (lab, ip) = (Lab::new(), own_address());
    let controller = without_proxy(&lab);
    create(&controller, "web", "bridge", &[format!("{ip}:8080:80")]);
    let web = controller.start_sandbox("web", me()).unwrap().sandbox.id;
    lab.kernel.state().tools_fail = true;
    controller.sandbox_ended(web, 0, None).unwrap();
    lab.kernel.state().tools_fail = false;
    create(&controller, "next", "bridge", &[format!("{ip}:8081:80")]);
    lab.kernel.state().rules.clear();
    controller.start_sandbox("next", me()).unwrap();
    let said = lab.kernel.state().rules.concat();
    let has = |port: u16| said.contains(&format!("{ip} . tcp . {port}"));
    assert!(said.contains("delete table") && has(8081) && !has(8080), "{said}");
}

#[test]
fn of_two_who_want_one_port_exactly_one_gets_it() {
    let (lab, ip) = (Lab::new(), own_address());
    let controller = without_proxy(&lab);
    for name in ["one", "two"] {
        start(&controller, name, "bridge");
    }
    for port in 8000..8020 {
        let wanted = specs(&[format!("{ip}:{port}:80")]);
        let publish = |name| controller.publish(name, wanted.clone()).is_ok();
        let won = std::thread::scope(|scope| {
            let other = scope.spawn(|| publish("two"));
            [publish("one"), other.join().unwrap()]
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
    }
}

#[test]
fn ports_follow_the_default_route() {
    let (lab, ip) = (Lab::new(), own_address());
    let controller = without_proxy(&lab);
    controller.create_network(with_subnet("a", "10.1.0.0/24")).unwrap();
    controller.create_network(with_subnet("b", "10.2.0.0/24")).unwrap();
    let internal = super::super::NetworkRequest { internal: true, ..with_subnet("inside", "10.3.0.0/24") };
    controller.create_network(internal).unwrap();
    create(&controller, "web", "inside", &[format!("{ip}::80"), format!("{ip}:8080:81")]);
    controller.start_sandbox("web", me()).unwrap();
    assert!(standing(&controller.sandbox("web").unwrap()).is_empty(), "from outside there is no way in");
    let connect = |network: &str, gw_priority| {
        let settings = EndpointSettings { gw_priority, ..EndpointSettings::default() };
        controller.connect(network, "web", settings).unwrap();
        standing(&controller.sandbox("web").unwrap())
    };
    let first = connect("a", 0);
    assert_eq!(first[0], "8080 -> 10.1.0.2:81/tcp");
    let moved = connect("b", 1);
    let elsewhere = |line: &String| line.replace("10.1.0.2", "10.2.0.2");
    assert_eq!(moved, first.iter().map(elsewhere).collect::<Vec<_>>(), "the ports are the same");
    assert!(TcpListener::bind((ip, 8080)).is_err());
    let last = lab.kernel.state().rules.last().cloned().unwrap();
    assert!(
        last.contains("delete element") && last.contains("10.1.0.2") && last.contains("10.2.0.2"),
        "{last}"
    );
    controller.disconnect("b", "web", false).unwrap();
    assert_eq!(standing(&controller.sandbox("web").unwrap()), first);
    controller.disconnect("a", "web", false).unwrap();
    assert!(standing(&controller.sandbox("web").unwrap()).is_empty());
    assert!(becomes_free(ip, 8080));
}

#[test]
fn exposed_ports_are_published_once_wherever_they_lead() {
    let (lab, ip) = (Lab::new(), own_address());
    let controller = without_proxy(&lab);
    for (name, subnet) in [("a", "10.1.0.0/24"), ("b", "10.2.0.0/24")] {
        let mut network = with_subnet(name, subnet);
        let binding = (crate::model::options::HOST_BINDING_IPV4.to_owned(), ip.to_string());
        network.options.extend([binding]);
        controller.create_network(network).unwrap();
    }
    let ports =
        PortsConfig { expose: vec!["80-82".parse().unwrap()], publish_all: true, ..PortsConfig::default() };
    let request = super::super::SandboxConfigRequest { ports, ..sandbox("web", "a") };
    controller.create_sandbox(request).unwrap();
    controller.start_sandbox("web", me()).unwrap();
    let further = specs(&[format!("{ip}:8081:81"), "82".into()]);
    let before = standing(&controller.publish("web", further).unwrap());
    let settings = EndpointSettings { gw_priority: 1, ..EndpointSettings::default() };
    controller.connect("b", "web", settings).unwrap();
    let mut expected: Vec<String> = before.iter().map(|line| line.replace("10.1.", "10.2.")).collect();
    let mut now = standing(&controller.sandbox("web").unwrap());
    expected.sort();
    now.sort();
    assert_eq!(now, expected);
}

#[test]
fn who_has_no_way_in_is_told() {
    let lab = Lab::new();
    let config = Config { userland_proxy: false, iptables: false, ..lab.config() };
    let controller = lab.try_open(config, BOOT).unwrap();
    start(&controller, "web", "bridge");
    let (_, said) = text(controller.publish("web", specs(&["8080:80".into()])));
    assert_eq!(
        said,
        "ports can't be published: with --iptables=false and --userland-proxy=false there is no way in"
    );
    start(&controller, "hosted", "host");
    assert_eq!(
        text(controller.publish("hosted", specs(&["8080:80".into()]))),
        (400, "container hosted has no ports of its own to publish: its network mode is host".into())
    );
}

#[test]
fn a_new_daemon_has_the_ports_of_the_old_one() {
    let (lab, ip) = (Lab::new(), own_address());
    let controller = without_proxy(&lab);
    create(&controller, "web", "bridge", &[format!("{ip}:8080:80")]);
    controller.start_sandbox("web", me()).unwrap();
    drop(controller);
    assert!(becomes_free(ip, 8080), "nobody holds it while there is no daemon");
    lab.kernel.state().rules.clear();
    let controller = without_proxy(&lab);
    assert!(TcpListener::bind((ip, 8080)).is_err());
    assert!(lab.kernel.state().rules.concat().contains(&format!("{ip} . tcp . 8080")));
    let (_, said) = text(controller.publish("web", specs(&[format!("{ip}:8080:81")])));
    assert!(said.ends_with("port is already allocated"), "{said}");
}
