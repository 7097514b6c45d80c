//! Bad input: one clear line, Docker's where it has one, the right exit status, and nothing changed.

use super::lab::Lab;

/// Everything that a refused command might have left.
fn traces(lab: &Lab) -> String {
    [
        lab.host.ip("-brief link"),
        lab.host.ip("-brief address"),
        lab.host.run("nft", &["list", "ruleset"]),
        lab.ok(&["network", "ls", "--no-trunc"]),
        lab.ok(&["ps", "-a", "--no-trunc", "-q"]),
    ]
    .join("\n")
}

#[test]
fn networks_that_cannot_be() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    let before = traces(&lab);
    let cases: &[(&[&str], &str)] = &[
        (&["one"], "network with name one already exists"),
        (
            &["--subnet", "10.10.0.0/16", "two"],
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        (
            &["--subnet", "10.10.0.128/25", "two"],
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        (
            &["--subnet", "10.11.0.0/24", "--gateway", "10.12.0.1", "two"],
            "no matching subnet for gateway 10.12.0.1",
        ),
        (&["--subnet", "10.11.0.5/24", "two"], "invalid subnet 10.11.0.5/24: it should be 10.11.0.0/24"),
        (&["--subnet", "nonsense", "two"], "nonsense"),
        (&["--subnet", "10.11.0.0/24", "--ip-range", "10.11.0.0/16", "two"], "10.11.0.0/16"),
        (
            &["--subnet", "10.11.0.0/24", "--subnet", "10.12.0.0/24", "two"],
            "bridge driver doesn't support multiple subnets",
        ),
        (&["-d", "wormhole", "two"], r#"plugin "wormhole" not found"#),
        (&["-d", "host", "two"], r#"only one instance of "host" network is allowed"#),
        (&["-d", "null", "two"], r#"only one instance of "null" network is allowed"#),
        (
            &["-o", "com.docker.network.bridge.enable_icc=maybe", "two"],
            r#"failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: parsing "maybe": invalid syntax)"#,
        ),
        (&["-o", "com.docker.network.driver.mtu=-1", "two"], "invalid MTU number: -1"),
        (&["-o", "com.docker.network.bridge.name=lo", "two"], "existing interface lo is not a bridge"),
        (&["-o", "com.docker.network.bridge.name=portmap0", "two"], "networks have same bridge name"),
        (&["bridge"], "operation is not permitted on predefined bridge network"),
        (&["default"], "operation is not permitted on predefined default network"),
        (&["  "], "invalid name: name is empty"),
        (&["--ipv4=false", "two"], "IPv4 or IPv6 must be enabled"),
        (
            &["--subnet", "10.11.0.0/24", "--gateway", "10.11.0.1", "--aux-address", "x=10.11.0.1", "two"],
            "failed to allocate secondary ip address (x:10.11.0.1): Address already in use",
        ),
    ];
    for (words, want) in cases {
        let (status, said) = lab.fails(&[&["network", "create"], *words].concat());
        assert_eq!(status, 1, "{words:?}: {said}");
        assert!(said.contains(want), "{words:?}: {said}");
    }
    assert_eq!(traces(&lab), before);
}

#[test]
fn pools_run_out() {
    let Some(lab) = Lab::new(&["--default-address-pool", "base=10.9.0.0/29,size=30"]) else { return };
    // One of the two went to the default bridge.
    lab.ok(&["network", "create", "one"]);
    let (status, said) = lab.fails(&["network", "create", "two"]);
    assert_eq!(status, 1);
    assert!(said.ends_with("all predefined address pools have been fully subnetted"), "{said}");
    lab.ok(&["run", "-d", "--net", "one", "--", "sleep", "infinity"]);
    let before = traces(&lab);
    let (status, said) = lab.fails(&["run", "--rm", "--net", "one", "--", "true"]);
    assert_eq!(status, 125);
    assert!(said.contains("no available IPv4 addresses on this network's address pools: one ("), "{said}");
    assert_eq!(traces(&lab), before);
}

#[test]
fn addresses_that_cannot_be_had() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    lab.ok(&["run", "-d", "--name", "alpha", "--net", "one", "--ip", "10.10.0.5", "--", "sleep", "infinity"]);
    let before = traces(&lab);
    for (ip, want) in [
        ("10.10.0.5", "Address already in use"),
        ("10.10.0.1", "Address already in use"),
        ("10.10.0.255", "Address already in use"),
        ("10.11.0.5", "no configured subnet contains IP address 10.11.0.5"),
        ("nonsense", "nonsense"),
    ] {
        let (status, said) = lab.fails(&["run", "--rm", "--net", "one", "--ip", ip, "--", "true"]);
        assert_eq!(status, 125, "{ip}: {said}");
        assert!(said.contains(want), "{ip}: {said}");
        assert_eq!(traces(&lab), before, "{ip}");
    }
}

#[test]
fn networks_in_use_and_predefined_ones_stay() {
    let Some(lab) = Lab::new(&[]) else { return };
    let id = lab.ok(&["network", "create", "one"]);
    lab.ok(&["network", "create", "two"]);
    lab.ok(&["run", "-d", "--name", "web", "--net", "one", "--", "sleep", "infinity"]);
    let (status, said) = lab.fails(&["network", "rm", "one"]);
    assert_eq!(status, 1);
    assert!(said.contains("network one has active endpoints (name:\"web\" id:\""), "{said}");
    for name in ["bridge", "host", "none"] {
        let (status, said) = lab.fails(&["network", "rm", name]);
        assert_eq!(status, 1);
        assert!(said.contains(&format!("{name} is a pre-defined network and cannot be removed")), "{said}");
    }
    // Several: it goes on after a failure.
    let said = lab.portmap(&["network", "rm", "bridge", "two", "nowhere"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, "two"));
    assert!(said.stderr.contains("network nowhere not found"), "{said:?}");
    // A stopped sandbox has no endpoint; without its network it doesn't start.
    lab.ok(&["stop", "-t", "1", "web"]);
    lab.ok(&["network", "rm", &id[..7]]);
    let (_, said) = lab.fails(&["start", "web"]);
    assert!(said.contains("not found"), "{said}");
}

#[test]
fn names_and_references() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["run", "-d", "--name", "web", "--", "sleep", "infinity"]);
    for (name, want) in [
        ("web", "is already in use by container"),
        ("x", "Invalid container name (x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        ("-x", "-x"),
        ("a b", "Invalid container name (a b)"),
    ] {
        let (status, said) = lab.fails(&["run", "--rm", &format!("--name={name}"), "--", "true"]);
        assert_eq!(status, 125, "{name}: {said}");
        assert!(said.contains(want), "{name}: {said}");
    }
    let (status, said) = lab.fails(&["network", "inspect", "nowhere"]);
    assert_eq!(status, 1);
    assert!(said.contains("network nowhere not found"), "{said}");
    // Sixteen more ids begin with at least one digit twice.
    let mut first: Vec<char> = Vec::new();
    let ambiguous = (0..17).find_map(|n| {
        let id = lab.ok(&["network", "create", "--subnet", &format!("10.20.{n}.0/24"), &format!("net{n}")]);
        let digit = id.chars().next().unwrap();
        let twice = first.contains(&digit);
        first.push(digit);
        twice.then_some(digit)
    });
    let (_, said) = lab.fails(&["network", "inspect", &ambiguous.unwrap().to_string()]);
    assert!(said.contains("is ambiguous (") && said.contains("matches found based on ID prefix)"), "{said}");
}
