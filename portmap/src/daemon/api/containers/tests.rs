use netcore::controller::LinkView;
use netcore::model::{
    Endpoint, EndpointSettings, Exited, NetworkId, NetworkMode, PortsConfig, ProcessConfig, Running, Sandbox,
    SandboxConfig, SandboxName, Timestamp,
};
use netcore::names::resolv_conf::DnsOptions;

use super::*;
use crate::daemon::api::ports::tests::publication;

pub(in crate::daemon::api) fn view(state: SandboxState) -> SandboxView {
    let sandbox = Sandbox {
        id: "88b5d2c3f1e04a0ea8d1c3f6b7e5a49f7d0c2b1a0f9e8d7c6b5a4938271605f4".parse().unwrap(),
        created: Timestamp::from_nanos(1_785_578_400_000_000_000),
        config: SandboxConfig {
            dns: DnsOptions::default(),
            extra_hosts: Vec::new(),
            ports: PortsConfig::default(),
            name: "web".parse().unwrap(),
            hostname: None,
            domainname: None,
            labels: [("team".to_owned(), "a".to_owned())].into(),
            mode: NetworkMode::Bridge,
            netns: None,
            networks: [("bridge".to_owned(), Default::default())].into(),
            process: ProcessConfig {
                command: vec!["python3".to_owned(), "-m".to_owned()],
                ..Default::default()
            },
            auto_remove: false,
        },
        state,
    };
    SandboxView { sandbox, endpoints: Vec::new(), links: Vec::new() }
}

pub(in crate::daemon::api) fn running() -> SandboxState {
    SandboxState::Running(Running {
        pid: 4711,
        start_ticks: 1,
        boot: "0b7c1a9e-2f43-4c58-9d6e-1a2b3c4d5e6f".parse().unwrap(),
        started: Timestamp::from_nanos(1_785_578_401_000_000_000),
        netns: Some("/run/portmap/netns/88b5d2c3f1e0".into()),
        supervisor: None,
        resolver: false,
    })
}

pub(in crate::daemon::api) fn exited(code: i32) -> SandboxState {
    let finished = Timestamp::from_nanos(1_785_578_402_000_000_000);
    SandboxState::Exited(Exited { code, started: None, finished, error: None })
}

pub(in crate::daemon::api) fn endpoint(network: &str, address: &str, aliases: &[&str]) -> Endpoint {
    Endpoint {
        id: "2c1b3a495867768594a3b2c1d0e0f1e2d3c4b5a69788796a5b4c3d2e1f0a9b8c".parse().unwrap(),
        network: network.repeat(64).parse().unwrap(),
        sandbox: None,
        name: "web".to_owned(),
        ipv4: Some(address.parse().unwrap()),
        ipv6: None,
        gateway4: Some("172.21.0.1".parse().unwrap()),
        gateway6: None,
        mac: Some("02:42:ac:15:05:02".parse().unwrap()),
        ifname: None,
        host_ifname: None,
        settings: EndpointSettings {
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            gw_priority: 5,
            ..Default::default()
        },
        publications: Vec::new(),
    }
}

/// Its own name, and one that a link gives it.
fn names(view: &SandboxView) -> Vec<String> {
    let mut other = view.clone();
    other.sandbox.config.name = "blog".parse().unwrap();
    other.links = vec![link(&view.sandbox.config.name, "my_link")];
    LinkNames::of(&[other]).names(view)
}

fn link(provider: &SandboxName, alias: &str) -> LinkView {
    LinkView { provider: provider.clone(), alias: alias.to_owned() }
}

/// What a client of this version gets of a sandbox on the default bridge and on another network.
pub(in crate::daemon::api) fn documents(version: Version) -> Vec<(&'static str, String)> {
    let now = Timestamp::from_nanos(1_785_578_701_000_000_000);
    let mut view = view(running());
    view.endpoints =
        vec![endpoint("a", "172.17.0.2/16", &[]), endpoint("b", "172.21.5.2/16", &["www", "web", "www"])];
    view.sandbox.config.hostname = Some("shop.example.com".to_owned());
    view.sandbox.config.dns = DnsOptions {
        servers: vec!["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()],
        search: vec!["example.com".to_owned()],
        options: vec!["ndots:1".to_owned()],
    };
    view.sandbox.config.extra_hosts =
        vec!["db:10.0.0.5".parse().unwrap(), "me=host-gateway".parse().unwrap()];
    view.links = vec![link(&"mysql_db".parse().unwrap(), "db"), link(&"cache".parse().unwrap(), "c")];
    view.endpoints[1].settings.links = vec!["provider:giver".parse().unwrap()];
    let ports = &mut view.sandbox.config.ports;
    ports.publish = vec!["8080:80".parse().unwrap(), "7000-7001:7000-7001/udp".parse().unwrap()];
    ports.expose = vec!["443".parse().unwrap()];
    view.endpoints[0].publications = vec![
        publication("7000-7001:7000-7001/udp 7000-7001 7000-7001 127.0.0.1"),
        publication("8080:80 80 8080 0.0.0.0 ::"),
    ];
    let name = |id: NetworkId| if id.to_string().starts_with('a') { "bridge" } else { "front" }.to_owned();
    let places = Places::of(&Default::default(), view.sandbox.id);
    vec![
        (
            "GET /containers/json",
            serde_json::to_string_pretty(&[Listed::of(&view, names(&view), &name, version, now)]).unwrap(),
        ),
        (
            "GET /containers/web/json",
            serde_json::to_string_pretty(&Inspected::of(&view, &places, &name, version)).unwrap(),
        ),
    ]
}

#[test]
fn a_line_of_ps_is_shown_as_dockerd_does() {
    let now = Timestamp::from_nanos(1_785_578_701_000_000_000);
    let view = view(running());
    let listed = Listed::of(&view, names(&view), &|_| "bridge".to_owned(), Version::own(), now);
    let shown = serde_json::to_string(&listed).unwrap();
    assert!(
        shown.starts_with(concat!(
            r#"{"Id":"88b5d2c3f1e04a0ea8d1c3f6b7e5a49f7d0c2b1a0f9e8d7c6b5a4938271605f4","Names":["/web","/blog/my_link"],"Image":"host","ImageID":"","#,
            r#""Command":"python3 -m","Created":1785578400,"Ports":[],"Labels":{"team":"a"},"State":"running","#,
            r#""Status":"Up 5 minutes","HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{"bridge":{"IPAMConfig":null,"#,
        )),
        "{shown}"
    );
    assert!(shown.ends_with(r#""Mounts":[]}"#), "{shown}");
}

#[test]
fn filters_decide_which_are_shown() {
    let cases = [
        (r"{}", false, true, false),
        (r"{}", true, true, true),
        (r#"{"status":["exited"]}"#, true, false, true),
        (r#"{"status":["running","exited"]}"#, true, true, true),
        (r#"{"exited":["3"]}"#, true, false, true),
        (r#"{"exited":["4"]}"#, true, false, false),
        (r#"{"name":["/web"]}"#, true, true, true),
        (r#"{"name":["^/we"]}"#, true, true, true),
        (r#"{"name":["db"]}"#, true, false, false),
        (r#"{"name":["blog/my_link"]}"#, true, true, true),
        (r#"{"name":["my_"]}"#, true, true, true),
        (r#"{"id":["88b5"]}"#, true, true, true),
        (r#"{"label":["team=a"]}"#, true, true, true),
        (r#"{"publish":["80"]}"#, true, false, false),
    ];
    let has = |wanted: &Wanted, state| {
        let view = view(state);
        wanted.has(&view, &names(&view))
    };
    for (text, all, runs, ended) in cases {
        let wanted = Wanted::of(&Filters::for_test(text), all).unwrap();
        assert_eq!((has(&wanted, running()), has(&wanted, exited(3))), (runs, ended), "{text} {all}");
    }
    let odd = Wanted::of(&Filters::for_test(r#"{"status":["x"]}"#), true).err().unwrap();
    assert_eq!(odd.shown(), "400 invalid filter 'status=x'");
}

#[test]
fn what_runs_is_inspected_with_its_process() {
    let places = Places::of(&Default::default(), view(running()).sandbox.id);
    let of = |state| {
        serde_json::to_value(Inspected::of(&view(state), &places, &|_| String::new(), Version::new(1, 43)))
            .unwrap()
    };
    let runs = of(running());
    assert_eq!(runs["State"]["Pid"], 4711);
    assert_eq!((&runs["Path"], &runs["Args"][0]), (&"python3".into(), &"-m".into()));
    assert_eq!(runs["Config"]["Hostname"], "88b5d2c3f1e0");
    let host = &runs["HostConfig"];
    assert_eq!([&host["Dns"], &host["DnsSearch"], &host["DnsOptions"]], [&serde_json::json!([]); 3]);
    assert!(host["ExtraHosts"].is_null() && host["Links"].is_null());
    assert!(runs["HostsPath"].as_str().unwrap().ends_with("/hosts"));
    assert_eq!(runs["NetworkSettings"]["SandboxKey"], "/run/portmap/netns/88b5d2c3f1e0");
    assert_eq!(runs["NetworkSettings"]["Networks"]["bridge"].get("DNSNames"), None, "that is new in 1.44");
    let ended = of(exited(3));
    assert_eq!(
        (&ended["State"]["ExitCode"], &ended["State"]["StartedAt"]),
        (&3.into(), &"0001-01-01T00:00:00Z".into())
    );
    assert_eq!(ended["NetworkSettings"]["SandboxKey"], "");
}
