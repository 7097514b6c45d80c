//! What is refused, when, and in which words; and what isn't.

use serde_json::json;

use super::lab::Lab;
use super::tools::{IDLE, LINKS, NOT_STARTED};

const HOST: &str = "conflicting options: host type networking can't be used with links. This would result in undefined behavior";
const CONTAINER: &str = "conflicting options: container type network can't be used with links. This would result in undefined behavior";

/// Asks for a sandbox `c1` with these links, past what the command line looks at.
#[track_caller]
fn asks_for(lab: &Lab, mode: &str, links: &[&str]) -> (u16, String) {
    let body = json!({ "Cmd": ["sleep", "infinity"], "HostConfig": { "NetworkMode": mode, "Links": links } });
    lab.api("POST", "/portmap/sandboxes/create?name=c1", &body.to_string())
}

/// What `run` with these flags says, which must fail and leave nothing.
#[track_caller]
fn refused(lab: &Lab, flags: &[&str]) -> String {
    let before = lab.ok(&["ps", "-aq"]);
    let (code, said) = lab.fails(&[&["run", "--name", "c1"], flags, &IDLE].concat());
    assert_eq!(code, NOT_STARTED, "{flags:?}: {said}");
    assert_eq!(lab.ok(&["ps", "-aq"]), before, "{flags:?}: the name is free again");
    said
}

#[test]
fn what_is_no_link_is_refused_on_both_ways_in() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.create("aa", &[]);
    let cases = [
        ("", "empty string specified for links"),
        ("aa:b:c", "bad format for links: aa:b:c"),
        ("aa:", "bad format for links: aa:"),
        (":b", "bad format for links: :b"),
        (":", "bad format for links: :"),
        ("aa:_b", "bad format for links: aa:_b"),
        ("aa:b c", "bad format for links: aa:b c"),
        ("aa:b/c", "bad format for links: aa:b/c"),
        ("aa:..", "bad format for links: aa:.."),
    ];
    lab.ok(&["network", "create", "shop"]);
    for (link, why) in cases {
        let said = refused(&lab, &["--link", link]);
        assert!(said.contains("\"--link\" flag: ") && said.contains(why), "{link:?}: {said}");
        assert!(refused(&lab, &["--net", "shop", "--link", link]).contains(why), "{link:?}");
        let (status, answer) = asks_for(&lab, "default", &[link]);
        assert_eq!((status, answer), (400, json!({ "message": why }).to_string()), "{link:?}");
        let settings = json!({ "Container": "aa", "EndpointConfig": { "Links": [link] } }).to_string();
        let (status, answer) = lab.api("POST", "/networks/shop/connect", &settings);
        assert_eq!((status, answer), (400, json!({ "message": why }).to_string()), "{link:?}");
        let (code, said) = lab.fails(&["network", "connect", "--link", link, "shop", "aa"]);
        assert!(code != 0 && said.contains(why), "{link:?}: {said}");
    }
    // What would add a line to a file.
    let why = json!({ "message": "bad format for links: aa:b\n1.2.3.4\tx" }).to_string();
    assert_eq!(asks_for(&lab, "default", &["aa:b\n1.2.3.4\tx"]), (400, why));
    for links in [json!("aa"), json!([1]), json!({})] {
        let body = json!({ "Cmd": ["true"], "HostConfig": { "Links": links } }).to_string();
        assert_eq!(lab.api("POST", "/portmap/sandboxes/create?name=c1", &body).0, 400, "{links}");
    }
    let null = json!({ "Cmd": ["true"], "HostConfig": { "Links": null } }).to_string();
    assert_eq!(lab.api("POST", "/portmap/sandboxes/create?name=c1", &null).0, 201);
}

#[test]
fn a_provider_is_named_as_any_container_is() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let id = lab.idle("mysql_db", &[]);
    let address = lab.ip("mysql_db");
    let forms = [
        ("mysql_db".to_owned(), "mysql_db"),
        ("mysql_db:My.link-1_x".to_owned(), "My.link-1_x"),
        (format!("{id}:by_id"), "by_id"),
        (format!("{}:by_prefix", &id[..12]), "by_prefix"),
        (id[..12].to_owned(), &id[..12]),
        ("/mysql_db:/blog/my_link".to_owned(), "my_link"),
        ("c0/mysql_db:by_path".to_owned(), "by_path"),
    ];
    for (at, (link, alias)) in forms.iter().enumerate() {
        let name = format!("c{at}");
        lab.idle(&name, &["--link", link]);
        assert_eq!(lab.inspect(&name, LINKS), format!("[/mysql_db:/{name}/{alias}]"), "{link}");
        assert_eq!(lab.found(&name, alias), [address.as_str()], "{link}");
    }
    // What inspect prints can be given again.
    let printed = lab.inspect("c5", "{{index .HostConfig.Links 0}}");
    lab.idle("again", &["--link", &printed]);
    assert_eq!(lab.inspect("again", LINKS), "[/mysql_db:/again/my_link]");
}

#[test]
fn the_modes_of_both_ends_decide_at_create() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.idle("target", &["--expose", "80"]);
    lab.idle("on_host", &["--net", "host"]);
    lab.idle("side", &["--net", "container:target"]);
    lab.idle("beside", &["--net", "container:side"]);
    lab.idle("beside_host", &["--net", "container:on_host"]);
    for (flags, why) in [
        (&["--link", "on_host:x"][..], HOST),
        (&["--link", "beside_host:x"], HOST),
        (&["--net", "host", "--link", "target:x"], HOST),
        (&["--net", "container:target", "--link", "side:x"], CONTAINER),
        (&["--link", "nosuch:x"], "could not get container for nosuch: No such container: nosuch"),
        (
            &["--link", "target:x", "--link", "nosuch:y"],
            "could not get container for nosuch: No such container: nosuch",
        ),
        (&["--link", "c1:x"], "Cannot set self as child"),
        (&["--net", "name=bridge,link=target:x"], "links are only supported for user-defined networks"),
        (
            &["--net", "name=nowhere,link=target:x", "--link", "target:y"],
            "conflicting options: cannot specify both --link and per-network links",
        ),
    ] {
        let said = refused(&lab, flags);
        assert!(said.contains(why), "{flags:?}: {said}");
    }
    for (mode, link, why) in [
        ("default", "nosuch:x", "could not get container for nosuch: No such container: nosuch"),
        ("default", "on_host:x", HOST),
        ("host", "target:x", HOST),
        ("container:target", "side:x", CONTAINER),
        ("default", "c1:x", "Cannot set self as child"),
    ] {
        let answer = asks_for(&lab, mode, &[link]);
        assert_eq!(answer, (400, json!({ "message": why }).to_string()), "{mode} {link}");
    }
    lab.idle("c1", &["--link", "beside:x"]);
    assert_eq!(lab.inspect("c1", LINKS), "[/target:/c1/x]");
    assert_eq!(lab.found("c1", "x"), [lab.ip("target")]);
    assert_eq!(lab.environment("c1", "X_PORT="), [format!("X_PORT=tcp://{}:80", lab.ip("target"))]);
    lab.idle("c2", &["--net", "none", "--link", "target:x"]);
    assert_eq!(lab.environment("c2", "X_"), [""; 0]);
    assert_eq!(lab.hosts_of("c2", "x"), [""; 0]);
}

#[test]
fn a_start_needs_every_provider_running_on_the_default_network() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.ok(&["network", "create", "local_bridge"]);
    let elsewhere = lab.idle("elsewhere", &["--net", "local_bridge"]);
    let none = lab.idle("nowhere", &["--net", "none"]);
    lab.idle("running", &[]);
    lab.create("p1", &[]);
    lab.create("p2", &[]);
    let stopped = |name: &str| format!("Cannot link to a non running container: /{name} AS /c1/{name}");
    let off = |id: &str| format!("container {id} not attached to default bridge network");
    for (providers, why) in [
        (&["p1"][..], stopped("p1")),
        (&["running", "p2", "p1", "elsewhere"], stopped("p2")),
        (&["running", "p1", "p2"], stopped("p1")),
        (&["elsewhere", "p1"], off(&elsewhere)),
        (&["nowhere"], off(&none)),
    ] {
        let flags: Vec<&str> = providers.iter().flat_map(|name| ["--link", name]).collect();
        let (code, said) = lab.fails(&[&["run", "--name", "c1"], &flags[..], &IDLE].concat());
        assert!(code == NOT_STARTED && said.contains(&why), "{providers:?}: {code}: {said}");
        // The created one is left, and says it again.
        assert_eq!(lab.inspect("c1", "{{.State.Status}}"), "created");
        let (code, said) = lab.fails(&["start", "c1"]);
        assert!(code == 1 && said.contains(&why), "{code}: {said}");
        lab.ok(&["rm", "c1"]);
        let (code, said) = lab.fails(&[&["run", "--rm", "--name", "c1"], &flags[..], &IDLE].concat());
        assert!(code == NOT_STARTED && said.contains(&why), "{code}: {said}");
        assert_eq!(lab.portmap(&["inspect", "c1"]).code, 1, "--rm leaves nothing");
    }
    assert_eq!(lab.inspect("p1", "{{.State.Status}}"), "created", "nobody is started for a consumer");
    // As soon as they are there, it starts.
    lab.create("c1", &["--link", "p1", "--link", "elsewhere"]);
    lab.ok(&["start", "p1"]);
    assert!(lab.fails(&["start", "c1"]).1.contains(&off(&elsewhere)));
    lab.ok(&["network", "connect", "bridge", "elsewhere"]);
    lab.ok(&["start", "c1"]);
    assert_eq!(lab.found("c1", "elsewhere"), [lab.ip("elsewhere")]);
    lab.stop("p1");
    assert_eq!(lab.ok(&["exec", "c1", "echo", "hello"]), "hello", "a running consumer isn't disturbed");
}
