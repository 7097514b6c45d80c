//! `--net`: whose stack a sandbox has, and what doesn't go with it.

use super::lab::Lab;

/// The namespace that a command of a sandbox is in.
fn namespace(lab: &Lab, name: &str) -> String {
    lab.ok(&["exec", name, "readlink", "/proc/self/ns/net"])
}

#[test]
fn each_mode_has_its_stack() {
    let Some(lab) = Lab::new(&[]) else { return };
    let links = ["--", "ip", "-brief", "link"];
    let show = |flags: &[&str]| lab.ok(&[&["run", "--rm"], flags, &links[..]].concat());
    let own = show(&[]);
    assert!(own.contains("lo ") && own.contains("eth0"), "{own}");
    assert_eq!(show(&["--net", "bridge"]).lines().count(), own.lines().count());
    let none = show(&["--net", "none"]);
    assert!(none.starts_with("lo ") && none.lines().count() == 1, "{none}");
    let host = show(&["--net", "host"]);
    assert!(host.contains("portmap0") && host.contains("out@"), "{host}");
}

#[test]
fn a_dependant_shares_stack_and_hostname() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.serve("web", &["-h", "shop"]);
    lab.ok(&["run", "-d", "--name", "side", "--net", "container:web", "--", "sleep", "infinity"]);
    assert_eq!(namespace(&lab, "web"), namespace(&lab, "side"));
    assert_eq!(lab.ok(&["exec", "side", "hostname"]), "shop");
    let fetched = lab.ok(&[
        "run",
        "--rm",
        "--net",
        "container:web",
        "--",
        "busybox",
        "nc",
        "-w",
        "1",
        "127.0.0.1",
        "80",
    ]);
    assert_eq!(fetched, "", "the connection came about");
    let (status, words) = lab.fails(&["network", "connect", "bridge", "side"]);
    assert_eq!(status, 1);
    assert!(words.ends_with("container sharing network namespace with another container or host cannot be connected to any other network"), "{words}");
    // Whoever has no stack lends none.
    lab.ok(&["stop", "-t", "1", "web"]);
    let (status, words) = lab.fails(&["run", "--rm", "--net", "container:web", "--", "true"]);
    assert_eq!(status, 125);
    assert!(
        words.contains("cannot join network namespace of a non running container: container web is exited"),
        "{words}"
    );
    let (_, words) = lab.fails(&["run", "--rm", "--net", "container:nobody", "--", "true"]);
    assert!(words.contains("joining network namespace of container: No such container: nobody"), "{words}");
}

#[test]
fn what_does_not_go_together_is_refused_with_dockers_words() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["run", "-d", "--name", "web", "--", "sleep", "infinity"]);
    let cases: &[(&[&str], &str)] = &[
        (&["--net", "container"], "invalid network mode: invalid container format container:<name|id>"),
        (&["--net", "container:"], "invalid network mode: invalid container format container:<name|id>"),
        (&["--net", "container:web", "-h", "x"], "conflicting options: hostname and the network mode"),
        (
            &["--net", "container:web", "--mac-address", "02:00:00:00:00:01"],
            "conflicting options: mac-address and the network mode",
        ),
        (
            &["--net", "host", "--mac-address", "02:00:00:00:00:01"],
            "conflicting options: mac-address and the network mode",
        ),
        (&["--ip", "172.17.0.9"], "user-specified IP address is supported on user-defined networks only"),
        (&["--ip6", "fd00::9"], "user-specified IP address is supported on user-defined networks only"),
        (&["--net-alias", "x"], "network-scoped aliases are only supported for user-defined networks"),
        (
            &["--net", "host", "--net-alias", "x"],
            "network-scoped aliases are only supported for user-defined networks",
        ),
        (&["--net", "nowhere"], "network nowhere not found"),
    ];
    for (flags, want) in cases {
        let (status, words) = lab.fails(&[&["run", "--rm"], *flags, &["--", "true"]].concat());
        assert_eq!(status, 125, "{flags:?}: {words}");
        assert!(words.contains(want), "{flags:?}: {words}");
    }
    assert_eq!(lab.ok(&["ps", "-aq"]).lines().count(), 1, "nothing is left of any of them");
}

#[test]
fn a_namespace_somebody_else_made_is_adopted_and_stays() {
    let Some(lab) = Lab::new(&[]) else { return };
    let path = lab.home.path("guest");
    std::fs::write(&path, "").unwrap();
    let path = path.to_str().unwrap();
    lab.home.run("unshare", &[&format!("--net={path}"), "true"]).ok();
    let other = lab.stack(path);
    other.ip("link set lo up");
    lab.ok(&["network", "create", "--subnet", "10.10.0.0/24", "one"]);
    lab.serve("peer", &["--net", "one"]);
    let seen =
        lab.ok(&["run", "--rm", "--net", "one", "--netns", path, "--", "ip", "-brief", "-4", "address"]);
    assert!(seen.contains("eth0") && seen.contains("10.10.0.3/24"), "{seen}");
    assert!(!other.ip("link").contains("eth0"), "what we brought went with us");
    lab.ok(&["run", "-d", "--name", "guest", "--net", "one", "--netns", path, "--", "sleep", "infinity"]);
    assert!(other.connects(lab.v4("peer", "one")), "who lives there uses it too");
    lab.ok(&["rm", "-f", "guest"]);
    assert!(other.ip("link").contains("lo"));
    for bad in ["/etc/hostname", "/nowhere", "/proc/self/ns/uts"] {
        let (status, words) = lab.fails(&["run", "--rm", "--netns", bad, "--", "true"]);
        assert_eq!(status, 125, "{bad}: {words}");
        assert!(words.contains(bad), "{words}");
    }
}

#[test]
fn the_hostname_is_the_short_id_or_what_was_asked_for() {
    let Some(lab) = Lab::new(&[]) else { return };
    let id = lab.ok(&["run", "-d", "--name", "alpha", "--", "sleep", "infinity"]);
    assert_eq!(id.len(), 64);
    assert_eq!(lab.ok(&["exec", "alpha", "hostname"]), id[..12]);
    assert_eq!(lab.ok(&["exec", "alpha", "cat", "/etc/hostname"]), id[..12]);
    let hosts = lab.ok(&["exec", "alpha", "cat", "/etc/hosts"]);
    let address = lab.address("alpha", "bridge", "IPAddress").to_string();
    assert!(hosts.lines().any(|line| line.starts_with(&address) && line.ends_with(&id[..12])), "{hosts}");
    assert_eq!(lab.ok(&["run", "--rm", "-h", "shop.example.org", "--", "hostname"]), "shop.example.org");
    // The host keeps its own.
    assert_ne!(std::fs::read_to_string("/etc/hostname").unwrap_or_default().trim(), &id[..12]);
}
