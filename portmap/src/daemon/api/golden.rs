//! What clients of several versions get: files that were looked at once, and change on purpose only. To write them anew:
//! `UPDATE_GOLDEN=1 cargo test -p portmap golden`.

use std::path::Path;

use netcore::firewall::Backend;
use netcore::model::Timestamp;
use serde_json::{Value, json};

use super::system::{self, Facts, info_view};
use super::version::Version;
use super::{containers, networks};
use crate::daemon::bus::Event;
use crate::daemon::settings::{Given, Settings};

/// The versions that clients in use speak.
const VERSIONS: [u32; 5] = [24, 41, 44, 47, 51];
/// What differs from host to host.
const OF_THE_HOST: [&str; 12] = [
    "Arch",
    "IPv4Forwarding",
    "NFd",
    "NGoroutines",
    "SystemTime",
    "KernelVersion",
    "OperatingSystem",
    "OSVersion",
    "Architecture",
    "NCPU",
    "MemTotal",
    "Name",
];

/// The text without what differs from host to host, line by line: the order of fields stays.
fn of_any_host(text: &str) -> String {
    let known = |line: &str| {
        OF_THE_HOST.iter().find(|key| line.trim_start().starts_with(&format!("{key:?}:"))).copied()
    };
    let is_name = |key: &str| key == "Name" && text.contains("\"Components\"");
    let lines = text.lines().map(|line| match known(line) {
        Some(key) if !is_name(key) => {
            let indent = &line[..line.len() - line.trim_start().len()];
            format!("{indent}{key:?}: \u{2026},\n")
        }
        _ => format!("{line}\n"),
    });
    lines.collect()
}

fn info(version: Version) -> String {
    let given = Given::from([("default-address-pools", vec!["base=10.10.0.0/16,size=24".to_owned()])]);
    let settings = Settings::of(&given).unwrap();
    let facts = Facts {
        id: "7c2f3a1e-5b1d-4f0e-9a61-0d9f1f1a2b3c",
        settings: &settings,
        listeners: 1,
        backend: Some(Backend::Nftables),
        sandboxes: 3,
        running: 2,
    };
    of_any_host(&serde_json::to_string_pretty(&info_view(&facts, version)).unwrap())
}

async fn version() -> String {
    let shown = serde_json::to_string_pretty(&system::version().await.0).unwrap();
    of_any_host(&shown.replace(env!("CARGO_PKG_VERSION"), "0.0.0"))
}

/// Of all versions that we have, events have the old fields too.
fn events() -> String {
    let at = Timestamp::from_nanos(1_785_578_401_000_000_001);
    let pairs = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let network = [("container", "88b5"), ("name", "front"), ("type", "bridge")];
    let events = [
        Event::new(
            "container",
            "die",
            "88b5".to_owned(),
            pairs(&[("exitCode", "3"), ("image", "host"), ("name", "web")]),
            at,
        ),
        Event::new("network", "disconnect", "1196".to_owned(), pairs(&network), at),
        Event::new("network", "prune", String::new(), pairs(&[("reclaimed", "0")]), at),
        Event::new("daemon", "reload", "7c2f".to_owned(), pairs(&[("name", "7c2f")]), at),
    ];
    events.map(|event| serde_json::to_string(&event).unwrap()).join("\n")
}

#[tokio::test]
async fn every_version_gets_what_it_knows() {
    for minor in VERSIONS {
        let version = Version::new(1, minor);
        let mut documents = networks::tests::documents(version);
        documents.extend(containers::tests::documents(version));
        documents.push(("GET /info", info(version)));
        documents.push(("GET /version", self::version().await));
        documents.push(("GET /events", events()));
        let text: String =
            documents.iter().map(|(path, body)| format!("# {path}\n{}\n\n", body.trim_end())).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/daemon/api/golden/1.{minor}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, golden, "what 1.{minor} gets isn't what {} has", path.display());
    }
}

/// The gates by name, so that a golden file that is written anew can't lose one unseen.
#[tokio::test]
async fn every_gate_is_one() {
    let body = |minor, of: fn(Version) -> Vec<(&'static str, String)>, path: &str| -> Value {
        let documents = of(Version::new(1, minor));
        let (_, body) = documents.into_iter().find(|(known, _)| *known == path).unwrap();
        serde_json::from_str(&body).unwrap()
    };
    let list = |minor| body(minor, networks::tests::documents, "GET /networks")[0]["Containers"].clone();
    assert_eq!((list(27).as_object().unwrap().len(), list(28)), (1, json!({})));
    let endpoint = |minor, network: &str, key: &str| {
        let inspected = body(minor, containers::tests::documents, "GET /containers/web/json");
        inspected["NetworkSettings"]["Networks"][network].get(key).cloned()
    };
    assert_eq!(endpoint(43, "front", "DNSNames"), None);
    let names = json!(["web", "www", "88b5d2c3f1e0", "shop.example.com"]);
    assert_eq!(endpoint(44, "front", "DNSNames"), Some(names));
    assert_eq!(endpoint(24, "front", "Links"), Some(json!(["provider:giver"])));
    assert_eq!(endpoint(44, "bridge", "DNSNames"), Some(Value::Null));
    assert_eq!(endpoint(44, "front", "Aliases"), Some(json!(["www", "web", "88b5d2c3f1e0"])));
    assert_eq!(endpoint(45, "front", "Aliases"), Some(json!(["www", "web", "www"])));
    assert_eq!(endpoint(44, "bridge", "Aliases"), Some(Value::Null));
    let has = |minor, what: &str| info(Version::new(1, minor)).contains(what);
    assert!(has(48, "\"Expected\"") && !has(49, "\"Expected\""));
    assert!(!has(48, "\"FirewallBackend\"") && has(49, "\"FirewallBackend\""));
    assert!(has(49, "\"BridgeNfIp6tables\"") && !has(50, "\"BridgeNf"));
    assert!(!has(40, "\"DefaultAddressPools\"") && has(41, "\"DefaultAddressPools\""));
}
