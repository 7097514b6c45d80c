//! Facts to store, and a place for them.

use std::path::PathBuf;

use crate::ipam::PoolId;
use crate::model::*;
use crate::publish::{PortRange, Proto};
use crate::store::Store;

pub(super) struct Lab {
    store: Store,
    _dir: tempfile::TempDir,
}

impl Lab {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Store::open(dir.path().join("portmap.db")).unwrap(), _dir: dir }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn path(&self) -> PathBuf {
        self.store.path().to_owned()
    }
}

fn map(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// A network with something in every field. Its id repeats `n`.
pub(super) fn network(n: u8, name: &str) -> Network {
    Network {
        id: format!("{n:02x}").repeat(32).parse().unwrap(),
        name: name.parse().unwrap(),
        driver: "bridge".into(),
        scope: Scope::Global,
        created: Timestamp::from_nanos(1_785_578_400_123_456_789),
        ipam: Ipam { driver: "default".into(), options: map(&[("o", "p")]) },
        subnets: vec![
            Subnet {
                subnet: "172.22.0.0/16".parse().unwrap(),
                range: Some("172.22.5.0/24".parse().unwrap()),
                gateway: Some("172.22.0.1".parse().unwrap()),
                aux: [(DEFAULT_GATEWAY_IPV4.to_owned(), "172.22.0.2".parse().unwrap())].into(),
                pool: Some(PoolId::new("LocalDefault/172.22.0.0/16/172.22.5.0/24")),
            },
            Subnet::new("fd00::/64".parse().unwrap()),
        ],
        internal: true,
        ipv4: true,
        ipv6: true,
        options: map(&[("com.docker.network.bridge.name", "br-test"), ("quote\"'", "ä\n")]),
        labels: map(&[("env", "test")]),
        adopted: true,
    }
}

/// A running sandbox with something in every field.
pub(super) fn sandbox(n: u8, name: &str) -> Sandbox {
    Sandbox {
        id: format!("{n:02x}").repeat(32).parse().unwrap(),
        created: Timestamp::from_nanos(1),
        config: SandboxConfig {
            name: name.parse().unwrap(),
            hostname: Some("h".into()),
            domainname: Some("example.org".into()),
            labels: map(&[("a", "b")]),
            mode: "net".parse().unwrap(),
            netns: Some("/run/netns/x".into()),
            networks: [("net".to_owned(), settings())].into(),
            dns: crate::names::resolv_conf::DnsOptions::default(),
            extra_hosts: Vec::new(),
            ports: PortsConfig {
                publish: vec!["8000-8009:80-89/udp".parse().unwrap(), "[::1]::80".parse().unwrap()],
                expose: vec!["90/tcp".parse().unwrap(), "91-92/ncp".parse().unwrap()],
                publish_all: true,
            },
            process: ProcessConfig {
                command: vec!["nginx".into(), "-g".into(), "daemon off;".into()],
                env: vec!["A=b".into()],
                directory: Some("/srv".into()),
                terminal: true,
            },
            auto_remove: true,
        },
        state: SandboxState::Running(Running {
            pid: 4711,
            start_ticks: u64::from(u32::MAX) + 1,
            boot: "0b7c1a9e-2f43-4c58-9d6e-1a2b3c4d5e6f".parse().unwrap(),
            started: Timestamp::from_nanos(2),
            netns: Some("/run/portmap/netns/x".into()),
            supervisor: Some(ProcessId { pid: 4710, start_ticks: 3 }),
            resolver: false,
        }),
    }
}

fn settings() -> EndpointSettings {
    EndpointSettings {
        aliases: vec!["www".into()],
        ip: Some("172.22.5.9".parse().unwrap()),
        ip6: Some("fd00::9".parse().unwrap()),
        link_local: vec!["169.254.34.68".parse().unwrap()],
        mac: Some("02:42:ac:16:05:09".parse().unwrap()),
        links: vec!["db:database".parse().unwrap()],
        link_targets: [("database".into(), SandboxId::from_random([7; 32]))].into(),
        gw_priority: -3,
        driver_opts: map(&[("k", "v")]),
    }
}

/// The endpoint of a sandbox on a network, with something in every field.
pub(super) fn endpoint(n: u8, network: &Network, sandbox: &Sandbox) -> Endpoint {
    Endpoint {
        id: format!("{n:02x}").repeat(32).parse().unwrap(),
        network: network.id,
        sandbox: Some(sandbox.id),
        name: sandbox.config.name.to_string(),
        ipv4: Some("172.22.5.9/16".parse().unwrap()),
        ipv6: Some("fd00::9/64".parse().unwrap()),
        gateway4: Some("172.22.0.1".parse().unwrap()),
        gateway6: Some("fd00::1".parse().unwrap()),
        mac: Some("02:42:ac:16:05:09".parse().unwrap()),
        ifname: Some("eth0".parse().unwrap()),
        host_ifname: Some("veth0123abc".parse().unwrap()),
        settings: settings(),
        publications: vec![Publication {
            spec: "8000-8009:80-89/udp".parse().unwrap(),
            proto: Proto::Udp,
            container: PortRange::new(80, 89).unwrap(),
            host: PortRange::new(8000, 8009).ok(),
            addresses: vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()],
            target: "172.18.0.2".parse().unwrap(),
        }],
    }
}
