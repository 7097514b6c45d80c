//! `/etc/hosts` and `/etc/hostname` of sandboxes, and what they are called.

use super::tools::{HOST, Names};

const TEMPLATE: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";
const HOSTS: &str = "/etc/hosts";

fn networks(flags: &[&str]) -> Option<Names> {
    let names = Names::new(HOST, flags)?;
    names.ok(&["network", "create", "--subnet", "172.22.0.0/16", "local_bridge"]);
    let dual = ["--ipv6", "--subnet", "172.23.0.0/16", "--subnet", "fd5a:1:2:3::/64", "dual"];
    names.ok(&[&["network", "create"], &dual[..]].concat());
    Some(names)
}

#[test]
fn a_file_has_template_extras_and_a_line_for_each_own_address() {
    let Some(names) = networks(&[]) else { return };
    let flags =
        ["-h", "c1.example.com", "--net", "local_bridge", "--ip", "172.22.0.3", "--add-host", "db:10.0.0.5"];
    names.idle("c1", &flags);
    let alone = format!("{TEMPLATE}10.0.0.5\tdb\n172.22.0.3\tc1.example.com c1\n");
    assert_eq!(names.file("c1", HOSTS), alone);
    assert_eq!(names.file("c1", "/etc/hostname"), "c1.example.com\n");
    let node = names.ok(&["exec", "c1", "stat", "-c", "%i %a", HOSTS]);
    assert!(node.ends_with(" 644"), "{node}");
    names.ok(&["network", "connect", "dual", "c1"]);
    let joined = "172.23.0.2\tc1.example.com c1\nfd5a:1:2:3::2\tc1.example.com c1\n";
    assert_eq!(names.file("c1", HOSTS), format!("{alone}{joined}"));
    assert_eq!(names.ok(&["exec", "c1", "stat", "-c", "%i %a", HOSTS]), node, "written in place");
    assert_eq!(names.libc("c1", "ahostsv4", "db"), ["10.0.0.5"]);
    assert_eq!(names.libc("c1", "ahostsv6", "c1"), ["fd5a:1:2:3::2"]);
    names.ok(&["network", "disconnect", "dual", "c1"]);
    assert_eq!(names.file("c1", HOSTS), alone);
    names.ok(&["network", "disconnect", "local_bridge", "c1"]);
    assert_eq!(names.file("c1", HOSTS), format!("{TEMPLATE}10.0.0.5\tdb\n"));
}

#[test]
fn lines_that_somebody_edited_stay_until_the_next_start() {
    let Some(names) = networks(&[]) else { return };
    names.idle("web", &["-h", "web", "--net", "local_bridge"]);
    names.ok(&["network", "connect", "dual", "web"]);
    let edit = "sed 's/^172.23.0.2\tweb$/172.23.0.2\tweb www/' /etc/hosts > /tmp/$$ && { echo '# mine'; cat /tmp/$$; } > /etc/hosts; rm /tmp/$$";
    names.ok(&["exec", "web", "sh", "-c", edit]);
    names.ok(&["network", "disconnect", "dual", "web"]);
    let kept = format!("# mine\n{TEMPLATE}172.22.0.2\tweb\n172.23.0.2\tweb www\n");
    assert_eq!(names.file("web", HOSTS), kept);
    names.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(names.file("web", HOSTS), format!("{TEMPLATE}172.22.0.2\tweb\n"));
    // Of several networks that it starts on, the one that is its way out comes first.
    names.ok(&["stop", "-t", "0", "web"]);
    names.ok(&["network", "connect", "dual", "web"]);
    names.ok(&["start", "web"]);
    let own = "172.23.0.2\tweb\nfd5a:1:2:3::2\tweb\n172.22.0.2\tweb\n";
    assert_eq!(names.file("web", HOSTS), format!("{TEMPLATE}{own}"));
}

#[test]
fn neighbours_are_in_no_file() {
    let Some(names) = networks(&[]) else { return };
    names.idle("web", &["-h", "web", "--net", "local_bridge"]);
    let before = names.file("web", HOSTS);
    names.idle("other", &["--net", "local_bridge", "--net-alias", "app"]);
    assert_eq!(names.file("web", HOSTS), before);
}

#[test]
fn each_mode_has_its_file() {
    let Some(names) = networks(&[]) else { return };
    let extra = ["--add-host", "db:10.0.0.5", "--add-host", "six=[fd00::5]"];
    let extras = "10.0.0.5\tdb\nfd00::5\tsix\n";
    let shown = |flags: &[&str]| {
        let words = [&["run", "--rm", "-h", "web"], flags, &["--", "sh", "-c", "cat /etc/hosts; echo ."]];
        names.ok(&words.concat()).trim_end_matches('.').to_owned()
    };
    let with = |flags: &[&'static str]| [&extra[..], flags].concat();
    assert_eq!(shown(&[]), format!("{TEMPLATE}172.17.0.2\tweb\n"));
    assert_eq!(shown(&with(&[])), format!("{TEMPLATE}{extras}172.17.0.2\tweb\n"));
    assert_eq!(shown(&with(&["--net", "local_bridge"])), format!("{TEMPLATE}{extras}172.22.0.2\tweb\n"));
    assert_eq!(shown(&["--net", "none"]), TEMPLATE);
    assert_eq!(shown(&with(&["--net", "none"])), format!("{TEMPLATE}{extras}"));
    assert_eq!(shown(&["--net", "host"]), std::fs::read_to_string(HOSTS).unwrap());
    assert_eq!(shown(&with(&["--net", "host"])), format!("{TEMPLATE}{extras}"));
    names.idle("target", &["--net", "local_bridge", "--add-host", "db:10.0.0.5", "-h", "shop"]);
    names.idle("side", &["--net", "container:target"]);
    names.ok(&["network", "connect", "dual", "target"]);
    for path in [HOSTS, "/etc/hostname", "/etc/resolv.conf"] {
        assert_eq!(names.file("side", path), names.file("target", path), "{path}");
    }
    assert!(names.file("side", HOSTS).ends_with("\tshop\n"));
    let said =
        names.portmap(&["run", "--rm", "--net", "container:target", "--add-host", "a:1.2.3.4", "--", "true"]);
    assert_eq!(said.code, 125, "{said:?}");
}

#[test]
fn the_host_gateway_is_the_default_bridges_or_what_the_daemon_is_told() {
    let line = |names: &Names, flags: &[&str]| {
        let words = [&["run", "--rm", "--add-host", "me:host-gateway"], flags, &["--", "grep", "me$", HOSTS]];
        names.portmap(&words.concat())
    };
    let Some(mut names) = Names::new(HOST, &[]) else { return };
    names.ok(&["network", "create", "--subnet", "172.22.0.0/16", "one"]);
    for flags in [&[][..], &["--net", "one"], &["--net", "none"], &["--net", "host"]] {
        assert_eq!(line(&names, flags).ok(), "172.17.0.1\tme", "{flags:?}");
    }
    names.end_daemon("-TERM");
    let told = ["--host-gateway-ip", "192.0.2.1", "--host-gateway-ip", "fd00:ff::1"];
    names.flags.extend(told.map(str::to_owned));
    names.start_daemon();
    assert_eq!(line(&names, &["--net", "one"]).ok(), "192.0.2.1\tme\nfd00:ff::1\tme");
    names.end_daemon("-TERM");
    let kept = names.flags.len() - told.len();
    names.flags.truncate(kept);
    names.flags.extend(["--bridge", "none"].map(str::to_owned));
    names.start_daemon();
    let said = line(&names, &["--net", "one"]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("unable to derive the IP value for host-gateway"), "{said:?}");
}

#[test]
fn what_is_no_extra_host_is_refused_in_dockers_words() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    let cases = [
        ("db", r#"bad format for add-host: "db""#),
        ("", r#"bad format for add-host: """#),
        (":1.2.3.4", r#"bad format for add-host: ":1.2.3.4""#),
        ("db:", r#"invalid IP address in add-host: """#),
        ("db:nowhere", r#"invalid IP address in add-host: "nowhere""#),
        ("db:1.2.3.4:5", r#"invalid IP address in add-host: "1.2.3.4:5""#),
        ("db=10.0.0.256", r#"invalid IP address in add-host: "10.0.0.256""#),
    ];
    for (given, want) in cases {
        let said = names.portmap(&["run", "--rm", "--add-host", given, "--", "true"]);
        assert_eq!(said.code, 125, "{given:?}: {said:?}");
        assert!(said.stderr.contains(want), "{given:?}: {said:?}");
    }
    assert_eq!(names.ok(&["ps", "-aq"]), "");
}

#[test]
fn hostnames_are_what_was_asked_for() {
    let Some(names) = networks(&[]) else { return };
    let host = names.home.run("uname", &["-n"]).ok();
    let script = "uname -n; cat /etc/hostname; cat /proc/sys/kernel/domainname; echo $HOSTNAME";
    let shown = |flags: &[&str]| {
        let said = names.ok(&[&["run", "--rm"], flags, &["--", "sh", "-c", script]].concat());
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    names.idle("target", &["-h", "shop"]);
    let cases: &[(&[&str], [&str; 4])] = &[
        (&["-h", "web"], ["web", "web", "", "web"]),
        (&["-h", "web.example.com"], ["web.example.com", "web.example.com", "", "web.example.com"]),
        (&["-h", "web", "--domainname", "example.com"], ["web", "web", "example.com", "web.example.com"]),
        (&["--net", "local_bridge", "-h", "web"], ["web", "web", "", "web"]),
        (&["--net", "host"], [&host, &host, "", &host]),
        (&["--net", "host", "-h", "web"], ["web", "web", "", "web"]),
        (&["--net", "container:target"], ["shop", "shop", "", "shop"]),
    ];
    for (flags, want) in cases {
        assert_eq!(shown(flags), want, "{flags:?}");
    }
    let id = names.idle("alpha", &["--net", "local_bridge"]);
    let short = &id[..12];
    assert_eq!(names.ok(&["exec", "alpha", "sh", "-c", script]).lines().next(), Some(short));
    assert_eq!(names.file("alpha", "/etc/hostname"), format!("{short}\n"));
    names.ok(&["rename", "alpha", "beta"]);
    assert_eq!(names.file("beta", "/etc/hostname"), format!("{short}\n"));
    assert_eq!(names.ok(&["exec", "beta", "uname", "-n"]), short);
    assert!(names.file("beta", HOSTS).ends_with(&format!("\t{short}\n")));
    assert_eq!(names.home.run("uname", &["-n"]).ok(), host);
}

#[test]
fn what_is_no_hostname_is_refused() {
    let Some(names) = Names::new(HOST, &[]) else { return };
    let long = "a".repeat(65);
    for bad in ["-web", "web-", "we_b", "web..com", ".web", "web.", "w b", &long] {
        let said = names.portmap(&["run", "--rm", &format!("--hostname={bad}"), "--", "true"]);
        assert_eq!(said.code, 125, "{bad}: {said:?}");
        assert!(
            said.stderr.contains(&format!("invalid hostname format for --hostname: {bad}")),
            "{bad}: {said:?}"
        );
    }
    let fits = "a".repeat(64);
    assert_eq!(names.ok(&["run", "--rm", "-h", &fits, "--", "uname", "-n"]), fits);
    names.idle("target", &[]);
    let said = names.portmap(&["run", "--rm", "--net", "container:target", "-h", "web", "--", "true"]);
    assert!(said.stderr.contains("conflicting options: hostname and the network mode"), "{said:?}");
}
