//! Files of sandboxes. The host's resolv.conf is a file of the test's.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use super::lab::*;
use crate::controller::{Config, Controller, SandboxConfigRequest};
use crate::model::*;
use crate::names::resolv_conf::DnsOptions;

const TEMPLATE: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// A controller for which this is the host's resolv.conf, and the file.
fn open(lab: &Lab, resolv_conf: &str) -> (Controller, PathBuf) {
    let file = lab.config().exec_root.with_file_name("resolv.conf");
    fs::write(&file, resolv_conf).unwrap();
    let dns = DnsOptions { options: vec!["rotate".into()], ..DnsOptions::default() };
    let config = Config { resolv_conf: Some(file.clone()), dns, ..lab.config() };
    (lab.try_open(config, BOOT).unwrap(), file)
}

fn hosts_of(controller: &Controller, name: &str) -> String {
    let id = controller.sandbox(name).unwrap().sandbox.id;
    fs::read_to_string(controller.0.root.files(id).hosts).unwrap()
}

fn resolv_conf_path(controller: &Controller, name: &str) -> PathBuf {
    let id = controller.sandbox(name).unwrap().sandbox.id;
    controller.0.root.files(id).resolv_conf.unwrap()
}

/// The lines that a libc reads.
fn resolv_conf_of(controller: &Controller, name: &str) -> String {
    let text = fs::read_to_string(resolv_conf_path(controller, name)).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.collect::<Vec<_>>().join("; ")
}

fn stop(controller: &Controller, name: &str) {
    controller.sandbox_ended(controller.sandbox(name).unwrap().sandbox.id, 0, None).unwrap();
}

#[test]
fn each_mode_has_its_hosts_file() {
    let lab = Lab::new();
    let (controller, _) = open(&lab, "nameserver 10.9.9.9\n");
    controller.create_network(with_subnet("back", "10.2.0.0/24")).unwrap();
    let with = |name: &str, mode: &str, extra: &[&str]| {
        let extra_hosts = extra.iter().map(|host| host.parse().unwrap()).collect();
        let hostname = Some("c1.example.com".to_owned()).filter(|_| mode != "host");
        controller
            .create_sandbox(SandboxConfigRequest { extra_hosts, hostname, ..sandbox(name, mode) })
            .unwrap();
        controller.start_sandbox(name, me()).unwrap();
        hosts_of(&controller, name)
    };
    let extras = ["db:10.0.0.5", "here:host-gateway"];
    let own = "c1.example.com c1\n";
    assert_eq!(
        with("bridged", "bridge", &extras),
        format!("{TEMPLATE}10.0.0.5\tdb\n172.17.0.1\there\n172.17.0.2\t{own}")
    );
    assert_eq!(
        with("networked", "back", &extras),
        format!("{TEMPLATE}10.0.0.5\tdb\n172.17.0.1\there\n10.2.0.2\t{own}")
    );
    assert_eq!(with("alone", "none", &extras[..1]), format!("{TEMPLATE}10.0.0.5\tdb\n"));
    assert_eq!(with("open", "host", &extras[..1]), format!("{TEMPLATE}10.0.0.5\tdb\n"));
    assert_eq!(with("plain", "host", &[]), fs::read_to_string("/etc/hosts").unwrap());
    // A shared stack has the files of whom it is shared with, and none of its own.
    controller.create_sandbox(sandbox("beside", "container:bridged")).unwrap();
    let started = controller.start_sandbox("beside", me()).unwrap();
    assert_eq!(started.files.resolv_conf, Some(resolv_conf_path(&controller, "bridged")));
    assert_eq!(started.hostname, "c1.example.com");
    let refused = SandboxConfigRequest {
        extra_hosts: vec!["a:10.0.0.1".parse().unwrap()],
        ..sandbox("xx", "container:bridged")
    };
    assert_eq!(
        text(controller.create_sandbox(refused)),
        (400, "conflicting options: custom host-to-IP mapping and the network mode".into())
    );
}

#[test]
fn without_a_default_network_nobody_knows_the_hosts_address() {
    let lab = Lab::new();
    let mut config = lab.config();
    config.default_bridge.device = crate::controller::BridgeDevice::None;
    let extra_hosts = vec!["here:host-gateway".parse().unwrap()];
    let request = SandboxConfigRequest { extra_hosts, ..sandbox("web", "none") };
    let controller = lab.try_open(config.clone(), BOOT).unwrap();
    controller.create_sandbox(request.clone()).unwrap();
    let (status, text) = text(controller.start_sandbox("web", me()));
    assert_eq!(
        (status, text.as_str()),
        (400, "failed to set up container networking: unable to derive the IP value for host-gateway")
    );
    assert!(controller.0.root.runs().is_empty());
    drop(controller);
    config.host_gateways = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let controller = lab.try_open(config, BOOT).unwrap();
    controller.start_sandbox("web", me()).unwrap();
    assert!(hosts_of(&controller, "web").ends_with("\n192.0.2.1\there\n2001:db8::1\there\n"));
}

#[test]
fn the_mode_decides_what_becomes_of_the_hosts_resolv_conf() {
    let lab = Lab::new();
    let text =
        "nameserver 127.0.0.1\nnameserver 10.9.9.9\nnameserver fd00::1\nsearch corp.example\noptions edns0\n";
    let (controller, _) = open(&lab, text);
    controller.create_network(with_subnet("back", "10.2.0.0/24")).unwrap();
    for (name, mode) in [("bridged", "bridge"), ("networked", "back"), ("open", "host"), ("alone", "none")] {
        start(&controller, name, mode);
    }
    assert_eq!(
        resolv_conf_of(&controller, "bridged"),
        "nameserver 10.9.9.9; search corp.example; options rotate"
    );
    assert_eq!(resolv_conf_of(&controller, "alone"), resolv_conf_of(&controller, "bridged"));
    assert_eq!(
        resolv_conf_of(&controller, "networked"),
        "nameserver 127.0.0.11; search corp.example; options rotate ndots:0"
    );
    assert_eq!(
        resolv_conf_of(&controller, "open"),
        "nameserver 127.0.0.1; nameserver 10.9.9.9; nameserver fd00::1; search corp.example; options rotate"
    );
    let dns = DnsOptions {
        servers: vec!["10.0.0.1".parse().unwrap()],
        search: vec![".".into()],
        options: vec!["ndots:2".into()],
    };
    for (name, mode) in [("own", "bridge"), ("own-networked", "back")] {
        controller.create_sandbox(SandboxConfigRequest { dns: dns.clone(), ..sandbox(name, mode) }).unwrap();
        controller.start_sandbox(name, me()).unwrap();
    }
    assert_eq!(resolv_conf_of(&controller, "own"), "nameserver 10.0.0.1; options ndots:2");
    assert_eq!(resolv_conf_of(&controller, "own-networked"), "nameserver 127.0.0.11; options ndots:2");
}

#[test]
fn a_file_follows_the_hosts_at_a_start_and_is_left_alone_once_it_is_edited() {
    let lab = Lab::new();
    let (controller, host) = open(&lab, "nameserver 10.9.9.9\n");
    controller.create_network(with_subnet("back", "10.2.0.0/24")).unwrap();
    start(&controller, "web", "bridge");
    fs::write(&host, "nameserver 10.8.8.8\n").unwrap();
    assert_eq!(resolv_conf_of(&controller, "web"), "nameserver 10.9.9.9; options rotate", "it runs");
    stop(&controller, "web");
    controller.start_sandbox("web", me()).unwrap();
    assert_eq!(resolv_conf_of(&controller, "web"), "nameserver 10.8.8.8; options rotate");
    // Edited inside: a start brings the host's back, a connection doesn't.
    let path = resolv_conf_path(&controller, "web");
    fs::write(&path, "nameserver 10.1.1.1\n").unwrap();
    controller.connect("back", "web", EndpointSettings::default()).unwrap();
    assert_eq!(resolv_conf_of(&controller, "web"), "nameserver 10.1.1.1");
    controller.disconnect("back", "web", false).unwrap();
    stop(&controller, "web");
    controller.start_sandbox("web", me()).unwrap();
    assert_eq!(resolv_conf_of(&controller, "web"), "nameserver 10.8.8.8; options rotate");
    // Unedited: with the first user-defined network come the embedded server and its file, in place, and they stay.
    let inode = |path: &PathBuf| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&path);
    fs::write(&host, "nameserver 10.7.7.7\nsearch later.example\n").unwrap();
    controller.connect("back", "web", EndpointSettings::default()).unwrap();
    let embedded = "nameserver 127.0.0.11; search later.example; options rotate ndots:0";
    assert_eq!((resolv_conf_of(&controller, "web"), inode(&path)), (embedded.into(), before));
    assert!(hosts_of(&controller, "web").contains("10.2.0.2\t"));
    controller.disconnect("back", "web", false).unwrap();
    assert_eq!(resolv_conf_of(&controller, "web"), embedded);
    let SandboxState::Running(running) = controller.sandbox("web").unwrap().sandbox.state else { panic!() };
    assert!(running.resolver);
}

#[test]
fn whatever_the_hosts_file_is_there_is_an_answer() {
    let lab = Lab::new();
    let (controller, host) = open(&lab, "");
    controller.create_network(with_subnet("back", "10.2.0.0/24")).unwrap();
    controller.create_sandbox(sandbox("web", "back")).unwrap();
    controller.create_sandbox(sandbox("old", "bridge")).unwrap();
    let public = "nameserver 8.8.8.8; nameserver 8.8.4.4; options rotate";
    let restart = || {
        for name in ["web", "old"] {
            controller.start_sandbox(name, me()).unwrap();
        }
        let texts = (resolv_conf_of(&controller, "web"), resolv_conf_of(&controller, "old"));
        ["web", "old"].iter().for_each(|name| stop(&controller, name));
        texts
    };
    let embedded = "nameserver 127.0.0.11; options rotate ndots:0";
    assert_eq!(restart(), (embedded.into(), public.into()), "empty");
    fs::remove_file(&host).unwrap();
    assert_eq!(restart(), (embedded.into(), public.into()), "missing");
    nix::unistd::mkfifo(&host, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert_eq!(restart(), (embedded.into(), public.into()), "a pipe that nobody writes to");
    fs::remove_file(&host).unwrap();
    std::os::unix::fs::symlink("elsewhere", &host).unwrap();
    assert_eq!(restart(), (embedded.into(), public.into()), "a link to nothing");
    fs::write(
        host.with_file_name("elsewhere"),
        b"nameserver x\xff\nnameserver 10.9.9.9\0\n\x01\x02 garbage\n",
    )
    .unwrap();
    let (_, legacy) = restart();
    assert!(legacy.contains("nameserver 8.8.8.8") && legacy.contains("garbage"), "{legacy}");
    fs::write(host.with_file_name("elsewhere"), "search ".to_owned() + &"x".repeat(70_000)).unwrap();
    let (status, text) = text(controller.start_sandbox("web", me()));
    assert_eq!(status, 500);
    assert!(text.ends_with("line 1 of resolv.conf is longer than 65536 bytes"), "{text}");
    assert!(controller.0.root.runs().is_empty());
}

/// How an embedded server answers a query for the IPv4 addresses of a name: the response code, and how many there are.
fn ask(server: SocketAddr, name: &str) -> (u8, u8) {
    let length = u8::try_from(name.len()).unwrap();
    let query = [&[7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, length], name.as_bytes(), &[0, 0, 1, 0, 1]].concat();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send_to(&query, server).unwrap();
    let mut reply = [0; 512];
    assert!(socket.recv(&mut reply).unwrap() > 12);
    (reply[3] & 15, reply[7])
}

#[test]
fn names_of_who_runs_go_on_whatever_the_hosts_file_becomes() {
    const SERVFAIL: u8 = 2;
    let lab = Lab::new();
    let (controller, host) = open(&lab, "nameserver 10.9.9.9\n");
    controller.create_network(with_subnet("back", "10.2.0.0/24")).unwrap();
    controller.create_network(with_subnet("front", "10.3.0.0/24")).unwrap();
    // Asked from a namespace that isn't there: what isn't known here nobody knows.
    let dns = DnsOptions { servers: vec!["10.0.0.1".parse().unwrap()], ..DnsOptions::default() };
    controller.create_sandbox(SandboxConfigRequest { dns, ..sandbox("web", "back") }).unwrap();
    controller.start_sandbox("web", me()).unwrap();
    let server = lab.kernel.state().name_servers[0];
    start(&controller, "db", "front");
    assert_eq!(ask(server, "db"), (SERVFAIL, 0));
    controller.connect("front", "web", EndpointSettings::default()).unwrap();
    assert_eq!(ask(server, "db"), (0, 1));
    fs::write(&host, "search ".to_owned() + &"x".repeat(70_000)).unwrap();
    controller.disconnect("front", "web", false).unwrap();
    assert_eq!(ask(server, "db"), (SERVFAIL, 0), "it is where nobody is any more");
    controller.connect("front", "web", EndpointSettings::default()).unwrap();
    drop(controller);
    lab.kernel.state().name_servers.clear();
    let config = Config { resolv_conf: Some(host), ..lab.config() };
    let controller = lab.try_open(config, BOOT).unwrap();
    let servers = lab.kernel.state().name_servers.clone();
    assert_eq!(servers.len(), 2);
    for server in servers {
        assert_eq!((ask(server, "web"), ask(server, "db")), ((0, 1), (0, 1)));
    }
    drop(controller);
}

#[test]
fn nothing_of_a_server_stays_in_a_namespace_of_somebody_elses() {
    let lab = Lab::new();
    let (controller, _) = open(&lab, "");
    controller.create_network(with_subnet("back", "10.2.0.0/24")).unwrap();
    let netns = lab.config().exec_root.with_file_name("theirs");
    let request = SandboxConfigRequest { netns: Some(netns.clone()), ..sandbox("web", "back") };
    controller.create_sandbox(request).unwrap();
    controller.start_sandbox("web", me()).unwrap();
    stop(&controller, "web");
    assert_eq!(lab.kernel.state().name_rules_removed, [netns.clone()], "it ended");
    let gone = ProcessId { start_ticks: 1, ..me() };
    controller.start_sandbox("web", gone).unwrap();
    controller.reconcile().unwrap();
    assert_eq!(lab.kernel.state().name_rules_removed, [netns.clone(), netns], "it was gone");
}

#[test]
fn everybody_inside_may_read_the_files() {
    let lab = Lab::new();
    let (controller, _) = open(&lab, "");
    controller.create_sandbox(sandbox("web", "bridge")).unwrap();
    let handle = controller.clone();
    std::thread::spawn(move || {
        // This thread's own mask.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        handle.start_sandbox("web", me()).unwrap();
    })
    .join()
    .unwrap();
    let id = controller.sandbox("web").unwrap().sandbox.id;
    let files = controller.0.root.files(id);
    for path in [files.hosts, files.hostname, files.resolv_conf.unwrap()] {
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o644, "{}", path.display());
    }
}

#[test]
fn of_two_links_of_one_alias_the_last_counts() {
    let lab = Lab::new();
    let (controller, _) = open(&lab, "");
    controller.create_network(with_subnet("back", "10.2.0.0/24")).unwrap();
    start(&controller, "first", "back");
    let links = ["first:x", "later:x"].iter().map(|link| link.parse().unwrap()).collect();
    let settings = EndpointSettings { links, ..EndpointSettings::default() };
    let request =
        SandboxConfigRequest { networks: [("back".into(), settings)].into(), ..sandbox("web", "back") };
    controller.create_sandbox(request).unwrap();
    controller.start_sandbox("web", me()).unwrap();
    start(&controller, "later", "back");
    let view = controller.sandbox("web").unwrap();
    assert!(view.endpoints[0].settings.link_targets.is_empty(), "it doesn't follow the first");
}
