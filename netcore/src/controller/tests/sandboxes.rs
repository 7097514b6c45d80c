use std::collections::BTreeSet;
use std::fs;
use std::thread;

use super::lab::*;
use crate::controller::{Ended, NetworkRequest, SandboxConfigRequest};
use crate::model::*;
use crate::plan::{Key, Object};

fn address(view: &crate::controller::SandboxView) -> String {
    view.endpoints[0].ipv4.unwrap().to_string()
}

#[test]
fn a_sandbox_lives_and_everything_of_it_goes() {
    let lab = Lab::new();
    let controller = lab.open();
    let before = lab.snapshot(&controller);
    let created = controller
        .create_sandbox(SandboxConfigRequest { hostname: Some("www".into()), ..sandbox("web", "bridge") })
        .unwrap();
    let started = controller.start_sandbox("/web", me()).unwrap();
    assert_eq!(fs::read_to_string(&started.files.hostname).unwrap(), "www\n");
    let hosts = fs::read_to_string(&started.files.hosts).unwrap();
    assert!(
        hosts.starts_with("127.0.0.1\tlocalhost\n::1") && hosts.ends_with("\n172.17.0.2\twww\n"),
        "{hosts}"
    );
    let netns = started.netns.unwrap();
    assert!(netns.ends_with(format!("netns/{}", created.id.short())), "{netns:?}");
    let view = controller.sandbox("web").unwrap();
    assert_eq!(address(&view), "172.17.0.2/16");
    let endpoint = &view.endpoints[0];
    assert_eq!(endpoint.ifname.as_ref().unwrap().as_str(), "eth0");
    let outside = endpoint.host_ifname.as_ref().unwrap().as_str();
    assert!(outside.len() == 11 && outside.starts_with("veth"), "{outside}");
    {
        let state = lab.kernel.state();
        let Object::DefaultRoutes(routes) = &state.objects[&Key::DefaultRoutes(netns)] else { panic!() };
        assert_eq!(routes.ipv4, Some(("172.17.0.1".parse().unwrap(), "eth0".parse().unwrap())));
        assert_eq!(state.announced.len(), 0, "nobody has had the address before");
    }
    assert_eq!(text(controller.start_sandbox("web", me())).0, 304);
    controller.process_started(created.id, std::process::id()).unwrap();
    assert_eq!(controller.running().unwrap().len(), 1);
    assert_eq!(
        text(controller.remove_sandbox("web")),
        (409, "cannot remove container \"web\": container is running: stop the container before removing or force remove".into())
    );
    assert_eq!(controller.sandbox_ended(created.id, 3, None).unwrap(), Ended { auto_removed: false });
    assert_eq!(controller.sandbox_ended(created.id, 4, None).unwrap(), Ended { auto_removed: false });
    let SandboxState::Exited(exited) = controller.sandbox("web").unwrap().sandbox.state else { panic!() };
    assert_eq!(exited.code, 3);
    controller.remove_sandbox("web").unwrap();
    assert_eq!(controller.sandbox_ended(created.id, 4, None).unwrap(), Ended { auto_removed: true });
    assert_eq!(lab.snapshot(&controller), before);
}

#[test]
fn an_address_that_somebody_has_had_is_announced() {
    let lab = Lab::new();
    let controller = lab.open();
    for (name, announced) in [("first", 0), ("second", 1), ("third", 2)] {
        let id = controller.create_sandbox(sandbox(name, "bridge")).unwrap().id;
        controller.start_sandbox(name, me()).unwrap();
        assert_eq!(lab.kernel.state().announced.len(), announced, "{name}");
        controller.sandbox_ended(id, 0, None).unwrap();
    }
    // Who had it in an earlier life isn't known.
    drop(controller);
    let controller = lab.open();
    controller.create_sandbox(sandbox("fourth", "bridge")).unwrap();
    controller.start_sandbox("fourth", me()).unwrap();
    assert_eq!(lab.kernel.state().announced.len(), 3);
}

#[test]
fn who_has_left_all_networks_is_on_none() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_network(with_subnet("net", "10.1.0.0/24")).unwrap();
    let id = controller.create_sandbox(sandbox("web", "net")).unwrap().id;
    controller.start_sandbox("web", me()).unwrap();
    controller.disconnect("net", "web", false).unwrap();
    assert!(controller.sandbox("web").unwrap().sandbox.config.networks.is_empty());
    controller.sandbox_ended(id, 0, None).unwrap();
    assert_eq!(
        text(controller.disconnect("net", "web", false)).1,
        format!("container {id} is not connected to the network net")
    );
    controller.start_sandbox("web", me()).unwrap();
    assert!(controller.sandbox("web").unwrap().endpoints.is_empty());
    controller.sandbox_ended(id, 0, None).unwrap();
    let settings =
        EndpointSettings { ip: Some("10.1.0.200".parse().unwrap()), ..EndpointSettings::default() };
    controller.connect("net", "web", settings).unwrap();
    controller.start_sandbox("web", me()).unwrap();
    assert_eq!(address(&controller.sandbox("web").unwrap()), "10.1.0.200/24");
}

#[test]
fn one_that_is_to_be_removed_goes_with_its_process() {
    let lab = Lab::new();
    let controller = lab.open();
    let before = lab.snapshot(&controller);
    let request = SandboxConfigRequest { auto_remove: true, ..SandboxConfigRequest::default() };
    let sandbox = controller.create_sandbox(request).unwrap();
    assert!(sandbox.config.name.as_str().contains('_'), "{}", sandbox.config.name);
    controller.start_sandbox(&sandbox.id.to_string(), me()).unwrap();
    assert_eq!(controller.sandbox_ended(sandbox.id, 0, None).unwrap(), Ended { auto_removed: true });
    assert_eq!(lab.snapshot(&controller), before);
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_sandbox(sandbox("taken", "bridge")).unwrap();
    let settings = |key: &str, settings: EndpointSettings| [(key.to_owned(), settings)].into();
    let with_ip = EndpointSettings { ip: Some("172.17.0.9".parse().unwrap()), ..EndpointSettings::default() };
    let alias = EndpointSettings { aliases: vec!["x".into()], ..EndpointSettings::default() };
    let aliases = ["a\nb", "_db.prod-1", ""].map(str::to_owned).into();
    let broken = EndpointSettings { aliases, ..EndpointSettings::default() };
    let hostname = |hostname: &str, mode| SandboxConfigRequest {
        hostname: Some(hostname.into()),
        ..sandbox("ab", mode)
    };
    let cases = [
        (sandbox("a", "bridge"), "Invalid container name (a), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        (hostname("h", "container:x"), "conflicting options: hostname and the network mode"),
        (
            SandboxConfigRequest {
                ports: PortsConfig { publish_all: true, ..PortsConfig::default() },
                ..sandbox("ab", "container:x")
            },
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            SandboxConfigRequest {
                ports: PortsConfig { expose: vec!["80".parse().unwrap()], ..PortsConfig::default() },
                ..sandbox("ab", "container:x")
            },
            "conflicting options: port exposing and the container type network mode",
        ),
        (hostname("a_b", "bridge"), "invalid hostname format for --hostname: a_b"),
        (
            SandboxConfigRequest { networks: settings("default", with_ip), ..sandbox("ab", "bridge") },
            "user-specified IP address is supported on user-defined networks only",
        ),
        (
            SandboxConfigRequest { networks: settings("bridge", alias), ..sandbox("ab", "bridge") },
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (
            SandboxConfigRequest { networks: settings("n", broken), ..sandbox("ab", "n") },
            "invalid endpoint settings:\n* invalid network-scoped alias \"a\\nb\": use letters, digits, _ . and -, at most 63 between two dots\n* invalid network-scoped alias \"\": use letters, digits, _ . and -, at most 63 between two dots",
        ),
        (
            SandboxConfigRequest {
                networks: settings("n", EndpointSettings::default()),
                ..sandbox("ab", "bridge")
            },
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ),
        (
            SandboxConfigRequest { mac: Some(Mac::from_random([0; 6])), ..sandbox("ab", "host") },
            "conflicting options: mac-address and the network mode",
        ),
        (
            SandboxConfigRequest { netns: Some("/x".into()), ..sandbox("ab", "host") },
            "conflicting options: netns and the network mode",
        ),
    ];
    for (request, want) in cases {
        assert_eq!(text(controller.create_sandbox(request)), (400, want.to_owned()));
    }
    let (status, taken) = text(controller.create_sandbox(sandbox("taken", "bridge")));
    assert!(status == 409 && taken.starts_with("Conflict. The container name \"/taken\" is already in use"));
}

#[test]
fn names_change_and_stay_unique() {
    let lab = Lab::new();
    let controller = lab.open();
    start(&controller, "one", "bridge");
    controller.create_sandbox(sandbox("two", "bridge")).unwrap();
    assert_eq!(
        text(controller.rename_sandbox("one", "")),
        (400, "Neither old nor new names may be empty".into())
    );
    assert_eq!(
        text(controller.rename_sandbox("one", "one")),
        (400, "Renaming a container with the same name as its current name".into())
    );
    let (status, taken) = text(controller.rename_sandbox("one", "two"));
    assert!(status == 409 && taken.starts_with("Error when allocating new name: Conflict."), "{taken}");
    controller.rename_sandbox("one", "uno").unwrap();
    assert_eq!(controller.network("bridge").unwrap().endpoints[0].name, "uno");
}

#[test]
fn stacks_are_shared_with_the_host_and_with_others() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_sandbox(sandbox("dep", "container:web")).unwrap();
    let start_dep = || text(controller.start_sandbox("dep", me()));
    let missing = "joining network namespace of container: No such container: web";
    assert_eq!(start_dep(), (404, missing.into()));
    let web = controller.create_sandbox(sandbox("web", "bridge")).unwrap();
    let created = "cannot join network namespace of a non running container: container web is created";
    assert_eq!(start_dep(), (409, created.into()));
    let target = controller.start_sandbox("web", me()).unwrap();
    let objects = lab.kernel.state().objects.len();
    let dep = controller.start_sandbox("dep", me()).unwrap();
    assert_eq!((&dep.netns, &dep.files, &dep.hostname), (&target.netns, &target.files, &web.id.short()));
    assert_eq!(dep.target.unwrap().0.id, web.id);
    controller.create_sandbox(sandbox("depdep", "container:dep")).unwrap();
    assert_eq!(controller.start_sandbox("depdep", me()).unwrap().files, target.files);
    controller.create_sandbox(sandbox("self", "container:self")).unwrap();
    assert_eq!(text(controller.start_sandbox("self", me())).1, "cannot join own network namespace");
    let shared = "container sharing network namespace with another container or host cannot be connected to any other network";
    assert_eq!(text(controller.connect("none", "dep", EndpointSettings::default())), (400, shared.into()));

    controller.create_sandbox(sandbox("hosted", "host")).unwrap();
    let hosted = controller.start_sandbox("hosted", me()).unwrap();
    assert_eq!(hosted.netns, None);
    assert_eq!(controller.network("host").unwrap().endpoints[0].name, "hosted");
    assert_eq!(lab.kernel.state().objects.len(), objects, "nothing is made for a shared stack");
    assert_eq!(
        text(controller.disconnect("host", "hosted", false)).1,
        "cannot disconnect container from host network - container was created in host network mode"
    );
}

#[test]
fn the_default_route_follows_the_election() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_network(NetworkRequest { internal: true, ..with_subnet("a", "10.1.0.0/24") }).unwrap();
    controller.create_network(with_subnet("b", "10.2.0.0/24")).unwrap();
    controller.create_network(with_subnet("c", "10.3.0.0/24")).unwrap();
    let default = EndpointSettings::default;
    let mut request = sandbox("web", "a");
    request.networks = [("a".to_owned(), default()), ("c".to_owned(), default())].into();
    controller.create_sandbox(request).unwrap();
    let netns = controller.start_sandbox("web", me()).unwrap().netns.unwrap();
    let interfaces = || {
        let view = controller.sandbox("web").unwrap();
        let of = |e: &Endpoint| format!("{} {}", e.ifname.clone().unwrap(), e.ipv4.unwrap());
        view.endpoints.iter().map(of).collect::<Vec<_>>()
    };
    let route = || {
        let state = lab.kernel.state();
        let Some(Object::DefaultRoutes(routes)) = state.objects.get(&Key::DefaultRoutes(netns.clone()))
        else {
            return None;
        };
        routes.ipv4.as_ref().map(|(gateway, name)| format!("{gateway} {name}"))
    };
    assert_eq!(interfaces(), ["eth0 10.3.0.2/24", "eth1 10.1.0.2/24"]);
    assert_eq!(route().as_deref(), Some("10.3.0.1 eth0"));
    let endpoint = controller.connect("b", "web", default()).unwrap().unwrap();
    assert_eq!(endpoint.ifname.unwrap().as_str(), "eth2");
    assert_eq!(route().as_deref(), Some("10.2.0.1 eth2"));
    let hosts = controller.0.root.files(controller.sandbox("web").unwrap().sandbox.id).hosts;
    assert!(fs::read_to_string(&hosts).unwrap().contains("10.2.0.2\t"));
    controller.disconnect("c", "web", false).unwrap();
    assert!(!fs::read_to_string(&hosts).unwrap().contains("10.3.0.2\t"));
    controller.disconnect("b", "web", false).unwrap();
    assert_eq!(route(), None, "an internal network leads nowhere");
    controller.connect("c", "web", EndpointSettings { gw_priority: -1, ..default() }).unwrap();
    assert_eq!(interfaces(), ["eth1 10.1.0.2/24", "eth0 10.3.0.2/24"], "the lowest number that is free");
    controller.sandbox_ended(controller.sandbox("web").unwrap().sandbox.id, 0, None).unwrap();
    controller.start_sandbox("web", me()).unwrap();
    assert_eq!(controller.sandbox("web").unwrap().endpoints.len(), 2, "connections outlive a run");
}

#[test]
fn connecting_and_disconnecting_is_refused_with_dockers_texts() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_network(with_subnet("n", "10.1.0.0/30")).unwrap();
    let web = start(&controller, "web", "n").sandbox.id;
    start(&controller, "lone", "none");
    start(&controller, "db", "bridge");
    controller.create_sandbox(sandbox("idle", "n")).unwrap();
    let default = EndpointSettings::default;
    let ip = |ip: &str| EndpointSettings { ip: Some(ip.parse().unwrap()), ..default() };
    let id = controller.network("n").unwrap().network.id;
    let cases = [
        ("x", "web", default(), 404, "network x not found".to_owned()),
        ("n", "x", default(), 404, "No such container: x".into()),
        ("n", "web", default(), 403, "endpoint with name web already exists in network n".into()),
        ("n", "db", ip("10.9.9.9"), 400, "invalid endpoint settings:\nno configured subnet contains IP address 10.9.9.9".into()),
        ("bridge", "web", ip("172.17.0.9"), 400, "invalid endpoint settings:\nuser-specified IP address is supported on user-defined networks only".into()),
        ("n", "db", ip("10.1.0.2"), 403, "Address already in use".into()),
        ("n", "db", default(), 500, format!("no available IPv4 addresses on this network's address pools: n ({id})")),
        ("host", "web", default(), 400, "cannot connect container to host network - container must be created in host network mode".into()),
        ("n", "lone", default(), 400, "container cannot be connected to multiple networks with one of the networks in private (none) mode".into()),
    ];
    let before = lab.snapshot(&controller);
    for (network, sandbox, settings, status, want) in cases {
        assert_eq!(text(controller.connect(network, sandbox, settings)), (status, want));
    }
    assert_eq!(
        text(controller.disconnect("bridge", "web", false)),
        (400, format!("container {web} is not connected to network bridge"))
    );
    assert_eq!(text(controller.disconnect("n", "ghost", true)), (404, "endpoint ghost not found".into()));
    assert_eq!(lab.snapshot(&controller), before);
    let idle = controller.sandbox("idle").unwrap().sandbox.id;
    assert_eq!(controller.connect("n", "idle", default()).unwrap(), None, "nothing changes");
    controller.connect("bridge", "idle", default()).unwrap();
    controller.disconnect("n", "idle", false).unwrap();
    assert_eq!(
        text(controller.disconnect("n", "idle", false)),
        (400, format!("container {idle} is not connected to the network n"))
    );
    controller.start_sandbox("idle", me()).unwrap();
    assert_eq!(address(&controller.sandbox("idle").unwrap()), "172.17.0.3/16");
}

#[test]
fn an_address_is_used_again_at_once_and_a_wanted_one_is_had() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_network(with_subnet("n", "10.1.0.0/24")).unwrap();
    let first = start(&controller, "first", "n");
    start(&controller, "second", "n");
    controller.sandbox_ended(first.sandbox.id, 0, None).unwrap();
    assert_eq!(address(&start(&controller, "third", "n")), "10.1.0.2/24");
    let mut request = sandbox("fixed", "n");
    let ip = EndpointSettings { ip: Some("10.1.0.77".parse().unwrap()), ..EndpointSettings::default() };
    request.networks = [("n".to_owned(), ip)].into();
    controller.create_sandbox(request.clone()).unwrap();
    controller.start_sandbox("fixed", me()).unwrap();
    assert_eq!(address(&controller.sandbox("fixed").unwrap()), "10.1.0.77/24");
    request.name = Some("same".into());
    controller.create_sandbox(request).unwrap();
    assert_eq!(
        text(controller.start_sandbox("same", me())),
        (403, "failed to set up container networking: Address already in use".into())
    );
}

#[test]
fn a_hundred_starts_at_once_give_a_hundred_addresses() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_network(with_subnet("n", "10.1.0.0/24")).unwrap();
    let before = lab.snapshot(&controller);
    let ids: Vec<SandboxId> =
        (0..100).map(|n| controller.create_sandbox(sandbox(&format!("s{n}"), "n")).unwrap().id).collect();
    thread::scope(|scope| {
        for id in &ids {
            let controller = controller.clone();
            scope.spawn(move || controller.start_sandbox(&id.to_string(), me()).unwrap());
        }
    });
    let endpoints = controller.network("n").unwrap().endpoints;
    let addresses: BTreeSet<_> = endpoints.iter().map(|endpoint| endpoint.ipv4.unwrap()).collect();
    let names: BTreeSet<_> = endpoints.iter().map(|endpoint| endpoint.host_ifname.clone()).collect();
    assert_eq!((addresses.len(), names.len()), (100, 100));
    assert_eq!(addresses.last().unwrap().to_string(), "10.1.0.101/24", "the lowest hundred");
    thread::scope(|scope| {
        for id in &ids {
            let controller = controller.clone();
            scope.spawn(move || {
                controller.sandbox_ended(*id, 0, None).unwrap();
                controller.remove_sandbox(&id.to_string()).unwrap()
            });
        }
    });
    assert_eq!(lab.snapshot(&controller), before);
}

#[test]
fn a_namespace_somebody_made_is_adopted_by_one_sandbox() {
    let lab = Lab::new();
    let controller = lab.open();
    let adopt = |name| SandboxConfigRequest { netns: Some("/run/netns/x".into()), ..sandbox(name, "bridge") };
    let first = controller.create_sandbox(adopt("first")).unwrap();
    controller.create_sandbox(adopt("second")).unwrap();
    let started = controller.start_sandbox("first", me()).unwrap();
    assert_eq!(started.netns.as_deref(), Some(std::path::Path::new("/run/netns/x")));
    let in_use = format!("network namespace /run/netns/x is in use by container {}", first.id);
    assert_eq!(text(controller.start_sandbox("second", me())), (409, in_use));
    controller.sandbox_ended(first.id, 0, None).unwrap();
    controller.start_sandbox("second", me()).unwrap();
}

#[test]
fn settings_of_an_interface_reach_the_plan_and_others_are_refused() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_network(with_subnet("n", "10.1.0.0/24")).unwrap();
    let with = |opts: &[(&str, &str)]| EndpointSettings {
        driver_opts: opts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..EndpointSettings::default()
    };
    const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
    const IFNAME: &str = "com.docker.network.endpoint.ifname";
    start(&controller, "web", "bridge");
    let good = with(&[(SYSCTLS, "net.ipv4.conf.IFNAME.log_martians=1"), (IFNAME, "eth7")]);
    controller.connect("n", "web", good).unwrap();
    let has = |object: &Object| match object {
        Object::Veth(veth) if veth.name.as_str() == "eth7" => veth.sysctls.first().cloned(),
        _ => None,
    };
    let set = lab.kernel.state().objects.values().find_map(has).unwrap();
    assert_eq!((set.key.as_str(), set.value.as_str()), ("net/ipv4/conf/eth7/log_martians", "1"));
    controller.disconnect("n", "web", false).unwrap();
    let want = "invalid endpoint settings:\nunrecognised network interface sysctl 'net.ipv4.conf.eth0.x=1'; \
                represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'";
    let bad = with(&[(SYSCTLS, "net.ipv4.conf.eth0.x=1")]);
    assert_eq!(text(controller.connect("n", "web", bad)), (400, want.into()));
    let (status, error) = text(controller.connect("n", "web", with(&[(IFNAME, "eth0")])));
    assert_eq!((status, error.as_str()), (400, "interface name eth0 is already in use"));
}
