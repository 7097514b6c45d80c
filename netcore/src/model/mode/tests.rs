//! Every row of Docker's tables, and what the rows leave out.

use super::super::id::SandboxId;
use super::*;

const CONTAINER_LINKS: &str = "conflicting options: container type network can't be used with links. This would result in undefined behavior";
const HOST_LINKS: &str = "conflicting options: host type networking can't be used with links. This would result in undefined behavior";
const SHARED: &str = "container sharing network namespace with another container or host cannot be connected to any other network";
const PRIVATE: &str =
    "container cannot be connected to multiple networks with one of the networks in private (none) mode";

/// Mode of the sandbox, its networks, the network to connect, what comes of it.
type Connection<'a> = (&'a str, &'a [&'a str], &'a str, Result<(), &'a str>);

fn mode(text: &str) -> NetworkMode {
    text.parse().unwrap()
}

fn text<E: ToString>(result: Result<(), E>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}

#[test]
fn modes_parse_as_docker_reads_them() {
    let network = |name: &str| NetworkMode::Network(name.to_owned());
    let cases = [
        ("", NetworkMode::Bridge, "bridge"),
        ("default", NetworkMode::Bridge, "bridge"),
        ("bridge", NetworkMode::Bridge, "bridge"),
        ("host", NetworkMode::Host, "host"),
        ("none", NetworkMode::None, "none"),
        ("container:web", NetworkMode::Container("web".to_owned()), "container:web"),
        ("container:a:b", NetworkMode::Container("a:b".to_owned()), "container:a:b"),
        ("Host", network("Host"), "Host"),
        ("containers", network("containers"), "containers"),
        ("a:b", network("a:b"), "a:b"),
        ("20d412d86f5f", network("20d412d86f5f"), "20d412d86f5f"),
    ];
    for (given, want, printed) in cases {
        assert_eq!(given.parse().as_ref(), Ok(&want), "{given:?}");
        assert_eq!(want.to_string(), printed);
        assert_eq!(
            serde_json::from_str::<NetworkMode>(&serde_json::to_string(&want).unwrap()).unwrap(),
            want
        );
    }
    for given in ["container", "container:"] {
        let error = given.parse::<NetworkMode>().unwrap_err().to_string();
        assert_eq!(error, "invalid network mode: invalid container format container:<name|id>");
    }
}

#[test]
fn refused_combinations() {
    use Setting::*;
    let address = "user-specified IP address is supported on user-defined networks only";
    let alias = "network-scoped aliases are only supported for user-defined networks";
    let links = "links are only supported for user-defined networks";
    let cases: &[(&str, &[Setting], &str)] = &[
        ("container:x", &[EndpointLinks], CONTAINER_LINKS),
        ("host", &[EndpointLinks], HOST_LINKS),
        ("bridge", &[EndpointLinks], links),
        ("none", &[Links, EndpointLinks], links),
        ("container:x", &[Hostname], "conflicting options: hostname and the network mode"),
        ("container:x", &[Links], CONTAINER_LINKS),
        ("container:x", &[Dns], "conflicting options: dns and the network mode"),
        ("container:x", &[ExtraHosts], "conflicting options: custom host-to-IP mapping and the network mode"),
        (
            "container:x",
            &[Publish],
            "conflicting options: port publishing and the container type network mode",
        ),
        ("container:x", &[Expose], "conflicting options: port exposing and the container type network mode"),
        ("container:x", &[Mac], "conflicting options: mac-address and the network mode"),
        ("host", &[Mac], "conflicting options: mac-address and the network mode"),
        ("host", &[Links], HOST_LINKS),
        ("bridge", &[HostUts, Hostname], "conflicting options: hostname and the UTS mode"),
        ("net", &[Hostname, HostUts], "conflicting options: hostname and the UTS mode"),
        ("bridge", &[Address], address),
        ("host", &[Address], address),
        ("none", &[Address], address),
        ("container:x", &[Address], address),
        ("bridge", &[Alias], alias),
        ("host", &[Alias], alias),
        ("none", &[Alias], alias),
        ("container:x", &[Alias], alias),
        // of several refusals the first of Docker's order is told, in whichever order the settings come
        ("container:x", &[Alias, Expose, Publish, Mac, ExtraHosts, Dns, Links], CONTAINER_LINKS),
        (
            "container:x",
            &[Expose, Publish],
            "conflicting options: port publishing and the container type network mode",
        ),
        ("host", &[Alias, Links], HOST_LINKS),
    ];
    for (given, settings, want) in cases {
        assert_eq!(text(mode(given).check(settings)), Err((*want).to_owned()), "{given} {settings:?}");
    }
}

#[test]
fn accepted_combinations() {
    use Setting::*;
    let all_but_uts = [Hostname, Links, EndpointLinks, Dns, ExtraHosts, Mac, Publish, Expose, Address, Alias];
    let own_stack = [Hostname, Links, Dns, ExtraHosts, Mac, Publish, Expose];
    let cases: &[(&str, &[Setting])] = &[
        ("net", &all_but_uts),
        ("bridge", &own_stack),
        ("none", &own_stack),
        ("host", &[Hostname, Dns, ExtraHosts, Publish, Expose]),
        ("container:x", &[HostUts]),
        ("container:x", &[]),
    ];
    for (given, settings) in cases {
        assert_eq!(mode(given).check(settings), Ok(()), "{given} {settings:?}");
    }
    assert_eq!(
        mode("host").warning(&[Publish]),
        Some("Published ports are discarded when using host network mode")
    );
    assert_eq!(mode("host").warning(&[Expose]), None);
    assert_eq!(mode("bridge").warning(&[Publish]), None);
}

#[test]
fn several_networks() {
    let mixed = "conflicting options: cannot attach both user-defined and non-user-defined network-modes";
    let cases: &[(&[&str], Result<(), &str>)] = &[
        (&[], Ok(())),
        (&["host"], Ok(())),
        (&["a", "b", "c"], Ok(())),
        (&["a", "b", "a"], Err("network \"a\" is specified multiple times")),
        (&["default", "bridge"], Err("network \"bridge\" is specified multiple times")),
        (&["a", "bridge"], Err(mixed)),
        (&["host", "a"], Err(mixed)),
        (&["bridge", "none"], Err(PRIVATE)),
        (&["bridge", "host"], Err(SHARED)),
        (&["container:x", "bridge"], Err(SHARED)),
    ];
    for (modes, want) in cases {
        let parsed: Vec<NetworkMode> = modes.iter().map(|given| mode(given)).collect();
        assert_eq!(text(check_together(&parsed)), want.map_err(str::to_owned), "{modes:?}");
    }
}

#[test]
fn connect_and_disconnect() {
    let to_host = "cannot connect container to host network - container must be created in host network mode";
    let cases: &[Connection<'_>] = &[
        ("bridge", &["bridge"], "net", Ok(())),
        ("net", &["net", "other"], "bridge", Ok(())),
        ("net", &[], "none", Ok(())),
        ("bridge", &["bridge"], "host", Err(to_host)),
        ("container:x", &[], "host", Err(to_host)),
        ("host", &["host"], "net", Err(SHARED)),
        ("host", &["host"], "host", Err(SHARED)),
        ("container:x", &[], "net", Err(SHARED)),
        ("none", &["none"], "net", Err(PRIVATE)),
        ("bridge", &["bridge"], "none", Err(PRIVATE)),
    ];
    for (given, attached, target, want) in cases {
        let got = text(check_connect(&mode(given), attached, target));
        assert_eq!(got, want.map_err(str::to_owned), "{given} {target}");
    }
    let from_host =
        "cannot disconnect container from host network - container was created in host network mode";
    assert_eq!(text(check_disconnect(&mode("host"))), Err(from_host.to_owned()));
    assert_eq!(text(check_disconnect(&mode("container:x"))), Err(SHARED.to_owned()));
    assert_eq!(check_disconnect(&mode("bridge")), Ok(()));
}

#[test]
fn targets_of_container_mode() {
    let (me, other) = (SandboxId::from_random([0xaa; 32]), SandboxId::from_random([0xbb; 32]));
    let idle = "cannot join network namespace of a non running container: container x is";
    let restarting = "cannot join network namespace of container: Container x is restarting, wait until the container is running";
    let cases = [
        (None, Err("joining network namespace of container: No such container: x".to_owned())),
        (Some((me, TargetState::Running)), Err("cannot join own network namespace".to_owned())),
        (Some((other, TargetState::Exited)), Err(format!("{idle} exited"))),
        (Some((other, TargetState::Created)), Err(format!("{idle} created"))),
        (Some((other, TargetState::Restarting)), Err(restarting.to_owned())),
        (Some((other, TargetState::Running)), Ok(())),
    ];
    for (found, want) in cases {
        assert_eq!(text(check_target(me, "x", found)), want);
    }
}
