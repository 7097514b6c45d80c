use netcore::model::{Endpoint, Subnet, Timestamp};

use super::*;

const ID: &str = "1196a4c5af43a21ae38ef34515b6af19236a3fc48122cf585e3f3054d509679b";

fn network() -> Network {
    let aux = [("router".to_owned(), "172.21.0.2".parse().unwrap())].into();
    Network {
        id: ID.parse().unwrap(),
        name: "isolated_nw".parse().unwrap(),
        driver: "bridge".to_owned(),
        scope: netcore::model::Scope::Local,
        created: Timestamp::from_nanos(1_785_578_400_123_456_789),
        ipam: Ipam::default(),
        subnets: vec![Subnet {
            range: Some("172.21.5.0/24".parse().unwrap()),
            gateway: Some("172.21.0.1".parse().unwrap()),
            aux,
            ..Subnet::new("172.21.0.0/16".parse().unwrap())
        }],
        internal: false,
        ipv4: true,
        ipv6: false,
        options: [("com.docker.network.bridge.name".to_owned(), "br-test".to_owned())].into(),
        labels: [("env".to_owned(), "test".to_owned())].into(),
        adopted: false,
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        id: "2c1b3a495867768594a3b2c1d0e0f1e2d3c4b5a69788796a5b4c3d2e1f0a9b8c".parse().unwrap(),
        network: ID.parse().unwrap(),
        sandbox: Some("88b5d2c3f1e04a0ea8d1c3f6b7e5a49f7d0c2b1a0f9e8d7c6b5a4938271605f4".parse().unwrap()),
        name: "web".to_owned(),
        ipv4: Some("172.21.5.2/16".parse().unwrap()),
        ipv6: None,
        gateway4: None,
        gateway6: None,
        mac: Some("02:42:ac:15:05:02".parse().unwrap()),
        ifname: None,
        host_ifname: None,
        settings: Default::default(),
        publications: Vec::new(),
    }
}

/// What a client of this version gets of the network.
pub(in crate::daemon::api) fn documents(version: Version) -> Vec<(&'static str, String)> {
    let (network, endpoint) = (network(), endpoint());
    let inspected = NetworkView::of(&network, [&endpoint].into_iter());
    let listed = NetworkView::listed(&network, [&endpoint].into_iter(), version);
    vec![
        ("GET /networks/isolated_nw", serde_json::to_string_pretty(&inspected).unwrap()),
        ("GET /networks", serde_json::to_string_pretty(&[listed]).unwrap()),
    ]
}

#[test]
fn a_network_is_shown_as_dockerd_does() {
    let endpoint = endpoint();
    let shown = serde_json::to_string(&NetworkView::of(&network(), [&endpoint].into_iter())).unwrap();
    assert_eq!(
        shown,
        concat!(
            r#"{"Name":"isolated_nw","Id":"1196a4c5af43a21ae38ef34515b6af19236a3fc48122cf585e3f3054d509679b","#,
            r#""Created":"2026-08-01T10:00:00.123456789Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"#,
            r#""IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"172.21.0.0/16","IPRange":"172.21.5.0/24","Gateway":"172.21.0.1","#,
            r#""AuxiliaryAddresses":{"router":"172.21.0.2"}}]},"#,
            r#""Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"#,
            r#""Containers":{"88b5d2c3f1e04a0ea8d1c3f6b7e5a49f7d0c2b1a0f9e8d7c6b5a4938271605f4":{"Name":"web","#,
            r#""EndpointID":"2c1b3a495867768594a3b2c1d0e0f1e2d3c4b5a69788796a5b4c3d2e1f0a9b8c","MacAddress":"02:42:ac:15:05:02","#,
            r#""IPv4Address":"172.21.5.2/16","IPv6Address":""}},"#,
            r#""Options":{"com.docker.network.bridge.name":"br-test"},"Labels":{"env":"test"}}"#,
        )
    );
}

#[test]
fn an_endpoint_of_somebody_elses_has_its_own_key() {
    let endpoint = Endpoint { sandbox: None, mac: None, ipv4: None, ..endpoint() };
    let shown = serde_json::to_value(NetworkView::of(&network(), [&endpoint].into_iter())).unwrap();
    let key = format!("ep-{}", endpoint.id);
    assert_eq!(shown["Containers"][key]["IPv4Address"], "");
}

#[test]
fn filters_are_anded_between_keys_and_ored_within() {
    let cases = [
        (r#"{"driver":["bridge","overlay"],"type":["custom"]}"#, true),
        (r#"{"driver":["overlay"]}"#, false),
        (r#"{"type":["builtin"]}"#, false),
        (r#"{"name":["solated"],"id":["^1196"]}"#, true),
        (r#"{"name":["^solated"]}"#, false),
        (r#"{"label":["env=test"]}"#, true),
        (r#"{"label":["env=test","x"]}"#, false),
        (r#"{"scope":["global"]}"#, false),
    ];
    for (text, want) in cases {
        assert_eq!(matches(&Filters::for_test(text), &network()), want, "{text}");
    }
    let odd = check_types(&Filters::for_test(r#"{"type":["x"]}"#)).unwrap_err();
    assert_eq!(odd.shown(), "400 invalid filter: 'type'='x'");
}

#[test]
fn a_request_is_read_by_version() {
    let body = br#"{"Name":"n","CheckDuplicate":true,"EnableIPv4":false,"EnableIPv6":true,"IPAM":null,"ConfigFrom":null,
        "options":{"k":"v"},"Labels":null}"#;
    let fields = Fields::parse(body).unwrap();
    let new = request(&fields, Version::new(1, 48)).unwrap();
    assert_eq!((new.ipv4, new.ipv6, new.driver.as_str()), (Some(false), Some(true), ""));
    assert_eq!(new.options["k"], "v");
    assert_eq!(request(&fields, Version::new(1, 47)).unwrap().ipv4, None);
    let scope = Fields::parse(br#"{"Scope":"swarm"}"#).unwrap();
    assert!(request(&scope, Version::own()).unwrap_err().shown().starts_with("400 "));
    let attachable = Fields::parse(br#"{"Attachable":true}"#).unwrap();
    assert_eq!(
        request(&attachable, Version::own()).unwrap_err().shown(),
        "501 attachable networks are not supported by portmap"
    );
}

#[test]
fn every_part_that_is_no_address_is_named() {
    let read = |text: &[u8]| subnets(&Fields::parse(text).unwrap().objects("Config").unwrap());
    let one = read(br#"{"Config":[{"Subnet":"10.0.0.0"}]}"#).unwrap_err();
    assert_eq!(
        one.shown(),
        "400 invalid network config:\ninvalid subnet 10.0.0.0: invalid CIDR block notation"
    );
    let two = read(br#"{"Config":[{"Subnet":"10.0.0.0/24","IPRange":"x","Gateway":"y"}]}"#).unwrap_err();
    assert_eq!(
        two.shown(),
        "400 invalid network config:\n* invalid ip-range x: invalid CIDR block notation\n* invalid gateway y: invalid address"
    );
    assert_eq!(read(br#"{"Config":[{}]}"#).unwrap(), []);
}
