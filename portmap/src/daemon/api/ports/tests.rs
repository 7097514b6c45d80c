use netcore::model::{Endpoint, NetworkId};
use serde_json::{Value, json};

use super::super::containers::tests as sandboxes;
use super::*;

/// `SPEC CONTAINER-PORTS HOST-PORTS ADDRESS…`, where a dash stands for no host port.
pub(in crate::daemon::api) fn publication(line: &str) -> Publication {
    let words: Vec<&str> = line.split(' ').collect();
    let [spec, container, host, addresses @ ..] = words.as_slice() else { panic!("{line}") };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        PortRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap()
    };
    let spec: PublishSpec = spec.parse().unwrap();
    Publication {
        spec,
        proto: spec.proto(),
        container: range(container),
        host: (*host != "-").then(|| range(host)),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        target: "172.17.0.2".parse().unwrap(),
    }
}

fn config(publish: &[&str], expose: &[&str]) -> PortsConfig {
    PortsConfig {
        publish: publish.iter().map(|text| text.parse().unwrap()).collect(),
        expose: expose.iter().map(|text| text.parse().unwrap()).collect(),
        publish_all: false,
    }
}

fn view(mode: &str, config: PortsConfig, publications: &[&str]) -> SandboxView {
    let mut view = sandboxes::view(sandboxes::running());
    view.sandbox.config.mode = mode.parse().unwrap();
    view.sandbox.config.ports = config;
    view.endpoints = vec![Endpoint {
        publications: publications.iter().map(|line| publication(line)).collect(),
        ..sandboxes::endpoint("a", "172.17.0.2/16", &[])
    }];
    view
}

fn value(shown: impl Serialize) -> Value {
    serde_json::to_value(shown).unwrap()
}

#[test]
fn what_was_asked_for_is_shown_port_by_port() {
    let config = config(
        &["8080:80", "127.0.0.1::53/udp", "8000-8002:81", "9000-9001:90-91", "[::1]:8081:80"],
        &["443", "90/tcp", "7/ncp"],
    );
    let binding = |ip: &str, port: &str| json!({"HostIp": ip, "HostPort": port});
    let want = json!({
        "53/udp": [binding("127.0.0.1", "")],
        "80/tcp": [binding("", "8080"), binding("::1", "8081")],
        "81/tcp": [binding("", "8000-8002")],
        "90/tcp": [binding("", "9000")],
        "91/tcp": [binding("", "9001")],
    });
    assert_eq!(value(bindings(&config)), want);
    let keys: Vec<String> = exposed(&config).into_keys().collect();
    assert_eq!(keys, ["443/tcp", "53/udp", "7/ncp", "80/tcp", "81/tcp", "90/tcp", "91/tcp"]);
    assert_eq!(value(Nothing {}), json!({}));
}

#[test]
fn what_stands_is_shown_port_by_port() {
    let publications = [
        "8081:80 80 8081 127.0.0.1",
        "8080:80 80 8080 0.0.0.0 ::",
        "9000-9001:90-91/udp 90-91 9000-9001 0.0.0.0",
        "82 82 - 0.0.0.0",
    ];
    let of = |mode: &str| view(mode, config(&["8080:80", "82"], &["443", "7/ncp"]), &publications);
    let binding = |ip: &str, port: &str| json!({"HostIp": ip, "HostPort": port});
    let want = json!({
        "443/tcp": null,
        "7/ncp": null,
        "80/tcp": [binding("0.0.0.0", "8080"), binding("::", "8080"), binding("127.0.0.1", "8081")],
        "82/tcp": [binding("0.0.0.0", "")],
        "90/udp": [binding("0.0.0.0", "9000")],
        "91/udp": [binding("0.0.0.0", "9001")],
    });
    assert_eq!(value(published(&of("shop"))), want);
    let listed = value(listed(&of("shop")));
    let want = json!([
        {"PrivatePort": 7, "Type": "ncp"},
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 8081, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 82, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 90, "PublicPort": 9000, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 91, "PublicPort": 9001, "Type": "udp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]);
    assert_eq!(listed, want);
}

#[test]
fn who_has_no_bridge_or_does_not_run_has_no_ports() {
    let exposed = config(&["8080:80"], &["443"]);
    for mode in ["host", "none", "container:db"] {
        let view = view(mode, exposed.clone(), &[]);
        assert_eq!((published(&view), listed(&view)), (PortMap::new(), Vec::new()), "{mode}");
    }
    let mut ended = view("bridge", exposed, &["8080:80 80 8080 0.0.0.0"]);
    ended.sandbox.state = sandboxes::exited(0);
    assert_eq!((published(&ended), listed(&ended)), (PortMap::new(), Vec::new()));
}

/// A publication per family, as they are kept, is one port to look at.
#[test]
fn families_and_endpoints_are_brought_together() {
    let mut view = view("shop", config(&["8080:80"], &[]), &["8080:80 80 8080 0.0.0.0"]);
    let second = Endpoint {
        network: NetworkId::from_random([7; 32]),
        publications: vec![publication("8080:80 80 8080 ::"), publication("8080:80 80 - ::")],
        ..view.endpoints[0].clone()
    };
    view.endpoints.push(second);
    let want = json!({"80/tcp": [
        {"HostIp": "0.0.0.0", "HostPort": "8080"},
        {"HostIp": "::", "HostPort": "8080"},
        {"HostIp": "::", "HostPort": ""},
    ]});
    assert_eq!(value(published(&view)), want);
}

#[test]
fn requests_name_ports_as_the_command_line_does() {
    let wanted =
        |body: &str| wanted(&Fields::parse(body.as_bytes()).unwrap()).map_err(|refusal| refusal.shown());
    let got = wanted(
        r#"{"Publish": ["8080:80", "target=53,protocol=udp"], "Expose": ["9/ncp"],
            "HostConfig": {"PublishAllPorts": true}}"#,
    );
    let want = PortsConfig { publish_all: true, ..config(&["8080:80", "53/udp"], &["9/ncp"]) };
    assert_eq!(got, Ok(want));
    assert_eq!(wanted("{}"), Ok(PortsConfig::default()));
    for (body, why) in [
        (r#"{"Publish": ["80/xyz"]}"#, "400 invalid proto: xyz"),
        (r#"{"Publish": ["80:0"]}"#, r#"400 invalid port specification: "0/tcp""#),
        (r#"{"Publish": ["0-65535/udp"]}"#, r#"400 invalid port specification: "0/udp""#),
        (r#"{"Expose": ["0-3/ncp"]}"#, r#"400 invalid port specification: "0/ncp""#),
        (
            r#"{"Expose": ["x"]}"#,
            "400 invalid range format for --expose: invalid start port 'x': invalid syntax",
        ),
        (r#"{"Publish": "80"}"#, "400 invalid JSON: cannot unmarshal string into Publish of type array"),
    ] {
        assert_eq!(wanted(body), Err(why.to_owned()), "{body}");
    }
}

#[test]
fn filters_find_ports_by_either_side() {
    let view = view("shop", config(&["8080:80"], &["443", "7/ncp"]), &["8080:80 80 8080 0.0.0.0 ::"]);
    let has = |filters: &str| PortFilter::of(&Filters::for_test(filters)).unwrap().has(&view);
    for (filters, found) in [
        ("{}", true),
        (r#"{"publish": ["8080"]}"#, true),
        (r#"{"publish": ["8080/tcp"]}"#, true),
        (r#"{"publish": ["8000-8100/tcp"]}"#, true),
        (r#"{"publish": ["8080/udp"]}"#, false),
        (r#"{"publish": ["80"]}"#, false),
        (r#"{"publish": ["443"]}"#, false),
        (r#"{"expose": ["80"]}"#, true),
        (r#"{"expose": ["443"]}"#, true),
        (r#"{"expose": ["7/ncp"]}"#, true),
        (r#"{"expose": ["8080"]}"#, false),
        (r#"{"publish": ["1"], "expose": ["443"]}"#, true),
        (r#"{"publish": ["1", "8080"]}"#, true),
    ] {
        assert_eq!(has(filters), found, "{filters}");
    }
    let refused = |filters: &str| PortFilter::of(&Filters::for_test(filters)).unwrap_err().shown();
    assert_eq!(
        refused(r#"{"publish": ["80:80"]}"#),
        "400 filter for 'publish' should not contain ':': 80:80"
    );
    assert_eq!(
        refused(r#"{"expose": ["82-80"]}"#),
        "400 error while looking up for expose 82-80: invalid port range: 82-80"
    );
    assert_eq!(
        refused(r#"{"publish": ["x"]}"#),
        "400 error while looking up for publish x: invalid start port 'x': invalid syntax"
    );
}
