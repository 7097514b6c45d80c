//! What `network ls`, `prune`, `ps` and `inspect` choose among several.

use super::lab::Lab;

/// Names in the order in which they are listed.
fn names(lab: &Lab, filters: &[&str]) -> String {
    let words: Vec<&str> = filters.iter().flat_map(|filter| ["-f", filter]).collect();
    lab.ok(&[&["network", "ls", "--format", "{{.Name}}"], &words[..]].concat()).replace('\n', " ")
}

#[test]
fn networks_are_found_by_what_they_are() {
    let Some(lab) = Lab::new(&[]) else { return };
    let id = lab.ok(&["network", "create", "--label", "tier=front", "--label", "public", "local_bridge"]);
    lab.ok(&["network", "create", "--label", "tier=back", "net2"]);
    lab.ok(&["network", "create", "net10"]);
    lab.ok(&["run", "-d", "--net", "net10", "--", "sleep", "infinity"]);
    let cases: &[(&[&str], &str)] = &[
        (&[], "bridge host local_bridge net2 net10 none"),
        (&["name=dge"], "bridge local_bridge"),
        (&["name=^net"], "net2 net10"),
        (&["name=("], ""),
        (&["driver=bridge"], "bridge local_bridge net2 net10"),
        (&["driver=null"], "none"),
        (&["type=builtin"], "bridge host none"),
        (&["type=custom"], "local_bridge net2 net10"),
        (&["type=custom", "type=builtin"], "bridge host local_bridge net2 net10 none"),
        (&["label=tier"], "local_bridge net2"),
        (&["label=tier=back"], "net2"),
        (&["label=tier", "label=public"], "local_bridge"),
        (&["scope=local", "scope=global"], "bridge host local_bridge net2 net10 none"),
        (&["dangling=true"], "local_bridge net2"),
        (&["dangling=false"], "bridge host net10 none"),
        // As the course has it: several are alternatives, and nothing is listed twice.
        (&["name=net2", "driver=null"], "net2 none"),
        (&["name=bridge", "driver=bridge", "type=builtin"], "bridge host local_bridge net2 net10 none"),
    ];
    for (filters, want) in cases {
        assert_eq!(names(&lab, filters), *want, "{filters:?}");
    }
    assert_eq!(names(&lab, &[&format!("id={}", &id[..20])]), "local_bridge");
    let and = [
        "network",
        "ls",
        "-q",
        "--no-trunc",
        "--filter-mode",
        "and",
        "-f",
        "label=tier",
        "-f",
        "name=bridge",
    ];
    assert_eq!(lab.ok(&and), id);
    for (filter, status, want) in [
        ("colour=red", 1, "invalid filter 'colour'"),
        ("type=odd", 1, "invalid filter: 'type'='odd'"),
        ("dangling=maybe", 1, "invalid value for filter 'dangling'"),
        ("name", 125, "bad format of filter (expected name=value)"),
    ] {
        let (code, said) = lab.fails(&["network", "ls", "-f", filter]);
        assert_eq!(code, status, "{filter}: {said}");
        assert!(said.contains(want), "{filter}: {said}");
    }
}

#[test]
fn what_nobody_uses_is_pruned() {
    let Some(lab) = Lab::new(&[]) else { return };
    for (name, label) in [("keep", "keep=yes"), ("old", "age=old"), ("used", "age=old"), ("rest", "age=new")]
    {
        lab.ok(&["network", "create", "--label", label, name]);
    }
    lab.ok(&["run", "-d", "--net", "used", "--", "sleep", "infinity"]);
    lab.ok(&["create", "--net", "rest", "--", "true"]);
    let prune = |words: &[&str]| lab.ok(&[&["network", "prune", "-f"], words].concat());
    assert_eq!(prune(&["--filter", "until=1h"]), "", "none is that old");
    assert_eq!(prune(&["--filter", "label=age=old"]), "Deleted Networks:\nold");
    for (words, want) in [
        (&["--filter", "until=1h", "--filter", "until=2h"][..], "more than one until filter specified"),
        (&["--filter", "colour=red"], "invalid filter 'colour'"),
    ] {
        let (status, said) = lab.fails(&[&["network", "prune", "-f"], words].concat());
        assert_eq!(status, 1);
        assert!(said.contains(want), "{said}");
    }
    // Nobody says yes.
    let said = lab.portmap(&["network", "prune"]);
    assert!(said.stdout.starts_with("WARNING! This will remove all custom networks not used"), "{said:?}");
    assert_eq!(names(&lab, &["type=custom"]), "keep rest used");
    // One that only a stopped sandbox is on counts as unused.
    assert_eq!(prune(&["--filter", "label!=keep", "--filter", "until=0s"]), "Deleted Networks:\nrest");
    assert_eq!(names(&lab, &["type=custom"]), "keep used");
    assert_eq!(lab.host.ip("-brief link").matches("br-").count(), 2);
}

#[test]
fn sandboxes_are_found_by_what_they_are() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "one"]);
    lab.ok(&["run", "-d", "--name", "web1", "-l", "tier=front", "--net", "one", "--", "sleep", "infinity"]);
    let web2 = lab.ok(&["run", "-d", "--name", "web2", "-l", "tier", "--", "sleep", "infinity"]);
    assert_eq!(lab.portmap(&["run", "--name", "done", "--", "sh", "-c", "exit 3"]).code, 3);
    lab.ok(&["create", "--name", "new", "--", "true"]);
    let list =
        |words: &[&str]| lab.ok(&[&["ps", "--format", "{{.Names}}"], words].concat()).replace('\n', " ");
    for (words, want) in [
        (&[][..], "web2 web1"),
        (&["-a"], "new done web2 web1"),
        (&["-l"], "new"),
        (&["-n", "2"], "new done"),
        (&["-f", "name=web"], "web2 web1"),
        (&["-f", "label=tier=front"], "web1"),
        (&["-f", "label=tier"], "web2 web1"),
        (&["-f", "network=one"], "web1"),
        (&["-a", "-f", "status=exited"], "done"),
        (&["-a", "-f", "status=created"], "new"),
        (&["-a", "-f", &format!("id={}", &web2[..16])], "web2"),
    ] {
        assert_eq!(list(words), want, "{words:?}");
    }
    let (status, said) = lab.fails(&["ps", "-f", "colour=red"]);
    assert_eq!(status, 1);
    assert!(said.contains("invalid filter 'colour'"), "{said}");
    assert_eq!(lab.ok(&["ps", "-q", "--no-trunc", "-f", "name=web2"]), web2);
    assert!(lab.ok(&["ps", "-a", "-f", "name=done"]).contains("Exited (3) "));
}

#[test]
fn a_prefix_must_mean_one() {
    let Some(lab) = Lab::new(&[]) else { return };
    // Of seventeen ids two begin with the same digit.
    let ids: Vec<String> = (0..17).map(|_| lab.ok(&["create", "--", "true"])).collect();
    let twice =
        ids.iter().map(|id| &id[..1]).find(|digit| ids.iter().filter(|id| id.starts_with(digit)).count() > 1);
    let twice = twice.unwrap();
    for words in [&["start"][..], &["stop"], &["rm"], &["logs"], &["restart"]] {
        let (status, said) = lab.fails(&[words, &[twice]].concat());
        assert_eq!(status, 1, "{words:?}: {said}");
        assert!(
            said.contains(twice) && said.to_lowercase().contains("multiple ids found"),
            "{words:?}: {said}"
        );
    }
    for id in &ids {
        lab.ok(&["rm", &id[..12]]);
    }
    assert_eq!(lab.ok(&["ps", "-aq"]), "");
}

#[test]
fn the_courses_templates_work() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.ok(&["network", "create", "--subnet", "172.22.0.0/16", "local_bridge"]);
    for name in ["elegant_roentgen", "big_bhabha"] {
        lab.ok(&["run", "-d", "--name", name, "--net=local_bridge", "--", "sleep", "infinity"]);
    }
    let show = |template: &str| lab.ok(&["network", "inspect", "-f", template, "local_bridge"]);
    assert_eq!(show("{{(index .IPAM.Config 0).Subnet}}"), "172.22.0.0/16");
    // In the order of their ids, which are random.
    let sorted = |text: &str| {
        let mut parts: Vec<String> = text.split("    ").map(|part| part.trim().to_owned()).collect();
        parts.sort();
        parts
    };
    let shown = show("{{range $c := .Containers}}{{$.Name}} -> {{$c.IPv4Address}}    {{end}}");
    assert_eq!(
        sorted(&shown),
        sorted("local_bridge -> 172.22.0.2/16    local_bridge -> 172.22.0.3/16"),
        "{shown}"
    );
    let shown = show("{{range $c := .Containers}}{{$c.Name}} -> {{$c.IPv4Address}}    {{end}}");
    assert_eq!(
        sorted(&shown),
        sorted("elegant_roentgen -> 172.22.0.2/16    big_bhabha -> 172.22.0.3/16"),
        "{shown}"
    );
}
