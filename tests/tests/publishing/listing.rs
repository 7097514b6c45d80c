//! Where published ports are shown, and that Docker's own command line shows the same of our daemon.

use e2e::daemon::Said;

use super::lab::Lab;
use super::ports::{idle, shown};

/// A sandbox with ports of every kind, and the first ephemeral port.
fn lab_with_ports() -> Option<Lab> {
    let lab = Lab::new(&[])?;
    lab.host.sysctl("net/ipv4/ip_local_port_range", "40000 40099");
    let flags = [
        "-p",
        "8080:80",
        "-p",
        "127.0.0.1:9000-9002:90-92",
        "-p",
        "5353:53/udp",
        "-p",
        "[::1]:7000:70",
        "-p",
        "6000-6005:60",
        "-p",
        "0.0.0.0:7100-7102:7100-7102",
        "--publish",
        "53",
        "--expose",
        "3000-3001",
        "--expose",
        "99/udp",
        "--expose",
        "80",
        "-P",
    ];
    idle(&lab, "web", &flags);
    Some(lab)
}

#[test]
fn every_port_is_shown_where_it_is() {
    let Some(lab) = lab_with_ports() else { return };
    let want = [
        "53/tcp -> 0.0.0.0:40000",
        "53/tcp -> [::]:40000",
        "53/udp -> 0.0.0.0:5353",
        "53/udp -> [::]:5353",
        "60/tcp -> 0.0.0.0:6000",
        "60/tcp -> [::]:6000",
        "70/tcp -> [::1]:7000",
        "80/tcp -> 0.0.0.0:8080",
        "80/tcp -> [::]:8080",
        "90/tcp -> 127.0.0.1:9000",
        "91/tcp -> 127.0.0.1:9001",
        "92/tcp -> 127.0.0.1:9002",
        "99/udp -> 0.0.0.0:40000",
        "99/udp -> [::]:40000",
        "3000/tcp -> 0.0.0.0:40001",
        "3000/tcp -> [::]:40001",
        "3001/tcp -> 0.0.0.0:40002",
        "3001/tcp -> [::]:40002",
        "7100/tcp -> 0.0.0.0:7100",
        "7101/tcp -> 0.0.0.0:7101",
        "7102/tcp -> 0.0.0.0:7102",
    ];
    assert_eq!(shown(&lab, "web"), want);
    let column = lab.ok(&["ps", "--format", "{{.Ports}}"]);
    for part in [
        "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
        "127.0.0.1:9000->90/tcp, 127.0.0.1:9001->91/tcp",
        "0.0.0.0:7100-7102->7100-7102/tcp",
        "[::1]:7000->70/tcp",
    ] {
        assert!(column.contains(part), "{part} in {column}");
    }
    for (filter, found) in
        [("publish=8080", 1), ("publish=80", 0), ("expose=80", 1), ("expose=81", 0), ("publish=5353/udp", 1)]
    {
        let listed = lab.ok(&["ps", "-q", "-f", filter]);
        assert_eq!(listed.lines().count(), found, "{filter}");
    }
}

#[test]
fn docker_shows_what_we_show() {
    let Some(lab) = lab_with_ports() else { return };
    if e2e::need::program("docker").is_none() {
        return;
    }
    let version = lab.home.docker(&["version", "--format", "{{.Client.Version}}"]).ok();
    let major: u32 = version.split('.').next().unwrap().parse().unwrap();
    lab.ok(&["create", "--name", "later", "-p", "8080:80", "--expose", "7", "--", "true"]);
    idle(&lab, "bare", &["--expose", "7-9"]);
    let lines: &[&[&str]] = &[
        &["port", "web"],
        &["port", "web", "80"],
        &["port", "web", "80/tcp"],
        &["port", "web", "80/udp"],
        &["port", "web", "53/udp"],
        &["port", "web", "3000"],
        &["port", "web", "1"],
        &["port", "web", "x"],
        &["port", "web", "70000"],
        &["port", "web", ""],
        &["port", "bare"],
        &["port", "bare", "7"],
        &["port", "later"],
        &["port", "nobody"],
        &["ps", "-a", "--format", "{{.Names}} {{.Ports}}"],
        &["ps", "--no-trunc", "--format", "{{.Ports}}"],
        &["ps", "-q", "-f", "publish=8080"],
        &["ps", "-q", "-f", "publish=9001-9005/tcp"],
        &["ps", "-q", "-f", "publish=1"],
        &["ps", "-aq", "-f", "expose=7"],
        &["ps", "-aq", "-f", "expose=99/udp", "-f", "expose=8"],
        &["ps", "-q", "-f", "publish=x"],
        &["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"],
        &["inspect", "-f", "{{json .NetworkSettings.Ports}}", "bare"],
        &["inspect", "-f", "{{json .NetworkSettings.Ports}}", "later"],
        &["inspect", "-f", "{{json .HostConfig.PortBindings}}", "web"],
        &["inspect", "-f", "{{json .HostConfig.PortBindings}}", "later"],
        &["inspect", "-f", "{{json .Config.ExposedPorts}}", "web"],
        &["inspect", "-f", "{{.HostConfig.PublishAllPorts}}", "web", "bare"],
        &["inspect", "-f", r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#, "web"],
        &[
            "inspect",
            "-f",
            "{{range $p, $conf := .NetworkSettings.Ports}} {{$p}} -> {{(index $conf 0).HostPort}} {{end}}",
            "web",
        ],
    ];
    let mut differing = Vec::new();
    for words in lines {
        let (theirs, ours) = (lab.home.docker(words), lab.portmap(words));
        let (theirs, ours) = (plain(theirs), plain(ours));
        // Older ones print no brackets and another order, and ask for less.
        if major >= 28 && theirs != ours {
            differing.push(format!("{words:?}\n-- docker\n{theirs}\n-- portmap\n{ours}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n\n"));
}

/// Without what explains a command below an error: that is each program's own.
fn plain(said: Said) -> String {
    let err = said.stderr.split("\n\nUsage:").next().unwrap_or_default().trim_end();
    format!("{}\n{}\n{err}", said.code, said.stdout)
}

#[test]
fn exposed_ports_and_stopped_sandboxes_are_published_nowhere() {
    let Some(lab) = Lab::new(&[]) else { return };
    idle(&lab, "bare", &["--expose", "80", "--expose", "90-91/udp"]);
    assert_eq!(lab.ok(&["port", "bare"]), "");
    assert_eq!(lab.ok(&["ps", "--format", "{{.Ports}}"]), "80/tcp, 90-91/udp");
    let ports = "{{json .NetworkSettings.Ports}}";
    assert_eq!(lab.ok(&["inspect", "-f", ports, "bare"]), r#"{"80/tcp":null,"90/udp":null,"91/udp":null}"#);
    lab.ok(&["create", "--name", "later", "-p", "8080:80", "--", "sleep", "infinity"]);
    assert_eq!(lab.ok(&["port", "later"]), "");
    assert_eq!(lab.ok(&["inspect", "-f", ports, "later"]), "{}");
    let wish = r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#;
    assert_eq!(lab.ok(&["inspect", "-f", "{{json .HostConfig.PortBindings}}", "later"]), wish);
    lab.ok(&["start", "later"]);
    assert_eq!(lab.ok(&["port", "later", "80"]), "0.0.0.0:8080\n[::]:8080");
    lab.ok(&["stop", "-t", "0", "later"]);
    assert_eq!(lab.ok(&["port", "later"]), "");
    assert_eq!(lab.ok(&["inspect", "-f", "{{json .HostConfig.PortBindings}}", "later"]), wish);
}
