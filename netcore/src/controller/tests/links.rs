//! Links on the default network: what they bring, and how that follows the other end.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use super::lab::*;
use crate::controller::{Config, Controller, ControllerError, LinkView, SandboxConfigRequest};
use crate::model::*;

/// What `--link`, `--expose` and `-e` say.
fn request(name: &str, mode: &str, links: &[&str], expose: &[&str], env: &[&str]) -> SandboxConfigRequest {
    let mut request = sandbox(name, mode);
    request.links = links.iter().map(|link| link.parse().unwrap()).collect();
    request.ports.expose = expose.iter().map(|port| port.parse().unwrap()).collect();
    request.process.env = env.iter().map(|entry| (*entry).to_owned()).collect();
    request
}

/// Sandboxes of the default network are kept apart.
fn open(lab: &Lab) -> Controller {
    let mut config = lab.config();
    config.default_bridge.icc = false;
    lab.try_open(config, BOOT).unwrap()
}

/// A database, running, and its blog, created.
fn blog(controller: &Controller) {
    let db = SandboxConfigRequest {
        hostname: Some("db1".into()),
        ..request("mysql_db", "bridge", &[], &["3306"], &["PASSWORD=x"])
    };
    controller.create_sandbox(db).unwrap();
    controller.start_sandbox("mysql_db", me()).unwrap();
    controller.create_sandbox(request("blog", "bridge", &["mysql_db:my_link"], &["80"], &[])).unwrap();
}

fn go(controller: &Controller, name: &str) -> Vec<String> {
    controller.start_sandbox(name, me()).unwrap().link_env
}

fn stop(controller: &Controller, name: &str) {
    controller.sandbox_ended(controller.sandbox(name).unwrap().sandbox.id, 0, None).unwrap();
}

fn address(controller: &Controller, name: &str) -> String {
    let view = controller.sandbox(name).unwrap();
    view.endpoints[0].ipv4.unwrap().addr().to_string()
}

/// The lines behind those that every file begins with.
fn hosts(controller: &Controller, name: &str) -> Vec<String> {
    let id = controller.sandbox(name).unwrap().sandbox.id;
    let text = fs::read_to_string(controller.0.root.files(id).hosts).unwrap();
    text.lines().skip(6).map(str::to_owned).collect()
}

fn links(controller: &Controller, name: &str) -> Vec<String> {
    let shown = |LinkView { provider, alias }: &LinkView| format!("/{provider}:/{name}/{alias}");
    controller.sandbox(name).unwrap().links.iter().map(shown).collect()
}

/// What the rules let through between sandboxes, by all that was ever loaded.
fn openings(lab: &Lab) -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for text in &lab.kernel.state().rules {
        for line in text.lines() {
            let elements = |line: &str| -> Vec<String> {
                let (_, list) = line.split_once(" { ").unwrap();
                list.trim_end_matches(" }").split(", ").map(str::to_owned).collect()
            };
            if line == "delete table inet portmap" {
                open.clear();
            } else if line.starts_with("delete element inet portmap link") {
                elements(line).iter().for_each(|element| assert!(open.remove(element), "{element}"));
            } else if line.starts_with("add element inet portmap link") {
                open.extend(elements(line));
            }
        }
    }
    open
}

/// As the only opening.
fn only(controller: &Controller, from: &str, to: &str, port: u16) -> BTreeSet<String> {
    [format!("{} . {} . tcp . {port}", address(controller, from), address(controller, to))].into()
}

#[test]
fn a_link_brings_variables_a_line_and_a_way() {
    let lab = Lab::new();
    let controller = open(&lab);
    blog(&controller);
    let env = go(&controller, "blog");
    let ip = address(&controller, "mysql_db");
    assert_eq!(env[0], format!("MY_LINK_PORT=tcp://{ip}:3306"));
    assert!(
        env.contains(&"MY_LINK_NAME=/blog/my_link".into()) && env.contains(&"MY_LINK_ENV_PASSWORD=x".into())
    );
    assert_eq!(controller.link_env("blog").unwrap(), env);
    assert_eq!(controller.link_env("mysql_db").unwrap(), [""; 0]);
    let own = format!(
        "{}\t{}",
        address(&controller, "blog"),
        controller.sandbox("blog").unwrap().sandbox.id.short()
    );
    assert_eq!(hosts(&controller, "blog"), [format!("{ip}\tmy_link db1 mysql_db"), own]);
    assert_eq!(hosts(&controller, "mysql_db"), [format!("{ip}\tdb1")], "a link has a direction");
    assert_eq!(openings(&lab), only(&controller, "blog", "mysql_db", 3306));
    assert_eq!(links(&controller, "blog"), ["/mysql_db:/blog/my_link"]);
    let all = controller.sandboxes().unwrap();
    assert_eq!(all.iter().map(|view| view.links.len()).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(controller.sandbox("/blog/my_link").unwrap().sandbox.config.name.as_str(), "mysql_db");
    // Beside other lines, after those that were asked for.
    let mut beside = request("beside", "bridge", &["mysql_db", "blog:web"], &[], &[]);
    beside.extra_hosts = vec!["my_link:10.0.0.5".parse().unwrap()];
    controller.create_sandbox(beside).unwrap();
    go(&controller, "beside");
    let web = controller.sandbox("blog").unwrap().sandbox.id.short();
    let lines = hosts(&controller, "beside");
    let want = [
        "10.0.0.5\tmy_link".to_owned(),
        format!("{ip}\tmysql_db db1"),
        format!("{}\tweb {web} blog", address(&controller, "blog")),
    ];
    assert_eq!(lines[..3], want);
    assert_eq!(links(&controller, "beside"), ["/mysql_db:/beside/mysql_db", "/blog:/beside/web"], "as given");
    // It ends: nothing of it is open.
    stop(&controller, "beside");
    assert_eq!(openings(&lab), only(&controller, "blog", "mysql_db", 3306));
    stop(&controller, "blog");
    assert_eq!(openings(&lab), BTreeSet::new());
}

#[test]
fn where_sandboxes_are_not_kept_apart_no_rule_is_made() {
    let lab = Lab::new();
    let controller = lab.open();
    blog(&controller);
    let before = lab.kernel.state().rules.len();
    go(&controller, "blog");
    stop(&controller, "mysql_db");
    go(&controller, "mysql_db");
    stop(&controller, "blog");
    assert_eq!(lab.kernel.state().rules.len(), before);
}

#[test]
fn without_copies_only_the_providers_variables_are_missing() {
    let lab = Lab::new();
    let controller = lab.try_open(Config { link_env: false, ..lab.config() }, BOOT).unwrap();
    blog(&controller);
    let env = go(&controller, "blog");
    assert_eq!(env.len(), 6, "{env:?}");
    assert!(!env.iter().any(|entry| entry.contains("_ENV_")));
}

#[test]
fn what_cannot_be_linked_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_sandbox(sandbox("one", "bridge")).unwrap();
    controller.create_sandbox(sandbox("open", "host")).unwrap();
    controller.create_sandbox(sandbox("beside", "container:one")).unwrap();
    controller.create_sandbox(sandbox("behind", "container:beside")).unwrap();
    controller.create_sandbox(sandbox("open-too", "container:open")).unwrap();
    let before = lab.snapshot(&controller);
    let host = "conflicting options: host type networking can't be used with links. This would result in undefined behavior";
    let container = "conflicting options: container type network can't be used with links. This would result in undefined behavior";
    let cases = [
        ("bridge", "nosuch:x", "could not get container for nosuch: No such container: nosuch"),
        ("none", "nosuch:x", "could not get container for nosuch: No such container: nosuch"),
        ("bridge", "open:x", host),
        ("bridge", "open-too:x", host),
        ("host", "one:x", host),
        ("container:one", "one:x", container),
        ("bridge", "two:x", "Cannot set self as child"),
    ];
    for (mode, link, want) in cases {
        let refused = controller.create_sandbox(request("two", mode, &["one:first", link], &[], &[]));
        assert_eq!(text(refused), (400, want.to_owned()), "{mode} {link}");
        assert_eq!(lab.snapshot(&controller), before);
    }
    // Who shares a stack stands for whose it is; the first of two aliases wins; a mode without networks has no use for it.
    controller
        .create_sandbox(request("two", "bridge", &["behind:x", "one:y", "beside:y"], &[], &[]))
        .unwrap();
    assert_eq!(links(&controller, "two"), ["/one:/two/x", "/one:/two/y"]);
    controller.create_sandbox(request("lonely", "none", &["one:x"], &[], &[])).unwrap();
    assert_eq!(links(&controller, "lonely"), ["/one:/lonely/x"]);
    assert_eq!(go(&controller, "lonely"), [""; 0]);
    // On a network of its own, the endpoint's settings have them.
    controller.create_network(with_subnet("back", "10.2.0.0/24")).unwrap();
    controller.create_sandbox(request("three", "back", &["nosuch:x"], &[], &[])).unwrap();
    assert_eq!(links(&controller, "three"), [""; 0]);
    let settings = EndpointSettings { links: vec!["one:x".parse().unwrap()], ..EndpointSettings::default() };
    let refused = controller.connect("bridge", "three", settings.clone());
    assert_eq!(
        text(refused),
        (400, "invalid endpoint settings:\nlinks are only supported for user-defined networks".into())
    );
    let mut on_bridge = sandbox("four", "bridge");
    on_bridge.networks.insert("bridge".into(), settings);
    let refused = controller.create_sandbox(on_bridge);
    assert_eq!(text(refused), (400, "links are only supported for user-defined networks".into()));
}

#[test]
fn a_provider_must_run_on_the_default_network_when_the_consumer_starts() {
    let lab = Lab::new();
    let controller = open(&lab);
    controller.create_network(with_subnet("back", "10.2.0.0/24")).unwrap();
    controller.create_sandbox(sandbox("p1", "bridge")).unwrap();
    let p2 = start(&controller, "p2", "back").sandbox.id;
    controller.create_sandbox(request("c1", "bridge", &["p1:x", "p2:y"], &[], &[])).unwrap();
    let before = lab.snapshot(&controller);
    let not_running = |name: &str, alias: &str| {
        (500, format!("Cannot link to a non running container: /{name} AS /c1/{alias}"))
    };
    assert_eq!(text(controller.start_sandbox("c1", me())), not_running("p1", "x"));
    assert_eq!(lab.snapshot(&controller), before);
    go(&controller, "p1");
    let elsewhere = (500, format!("container {p2} not attached to default bridge network"));
    assert_eq!(text(controller.start_sandbox("c1", me())), elsewhere);
    stop(&controller, "p2");
    assert_eq!(text(controller.start_sandbox("c1", me())), not_running("p2", "y"));
    go(&controller, "p2");
    stop(&controller, "p2");
    controller.connect("bridge", "p2", EndpointSettings::default()).unwrap();
    go(&controller, "p2");
    go(&controller, "c1");
    // A provider that ends disturbs nobody: its variables are what is left of it.
    stop(&controller, "p1");
    assert_eq!(controller.link_env("c1").unwrap()[0], "X_NAME=/c1/x");
    controller.remove_sandbox("p1").unwrap();
    stop(&controller, "c1");
    go(&controller, "c1");
    assert_eq!(links(&controller, "c1"), ["/p2:/c1/y"]);
}

#[test]
fn lines_and_rules_follow_the_provider() {
    let lab = Lab::new();
    let controller = open(&lab);
    blog(&controller);
    go(&controller, "blog");
    let own = hosts(&controller, "blog").pop().unwrap();
    let first = address(&controller, "mysql_db");
    // It stops: the line stays, the way is closed, for somebody else may get the address.
    stop(&controller, "mysql_db");
    assert_eq!(hosts(&controller, "blog"), [format!("{first}\tmy_link db1 mysql_db"), own.clone()]);
    assert_eq!(openings(&lab), BTreeSet::new());
    // Renamed meanwhile, and back with another address.
    controller.rename_sandbox("mysql_db", "db").unwrap();
    assert_eq!(hosts(&controller, "blog"), [format!("{first}\tmy_link db1 db"), own.clone()]);
    assert_eq!(links(&controller, "blog"), ["/db:/blog/my_link"]);
    let taker = (0..)
        .map(|n| start(&controller, &format!("taker{n}"), "bridge"))
        .find(|view| view.endpoints[0].ipv4.unwrap().addr().to_string() == first);
    assert!(taker.is_some());
    go(&controller, "db");
    let second = address(&controller, "db");
    assert_ne!(second, first);
    assert_eq!(hosts(&controller, "blog"), [format!("{second}\tmy_link db1 db"), own.clone()]);
    assert_eq!(openings(&lab), only(&controller, "blog", "db", 3306));
    controller.rename_sandbox("db", "my_link").unwrap();
    assert_eq!(hosts(&controller, "blog"), [format!("{second}\tmy_link db1"), own.clone()], "said once");
    // It leaves the network, and comes back.
    controller.disconnect("bridge", "my_link", false).unwrap();
    assert_eq!(hosts(&controller, "blog"), [format!("{second}\tmy_link db1"), own.clone()]);
    assert_eq!(openings(&lab), BTreeSet::new());
    controller.connect("bridge", "my_link", EndpointSettings::default()).unwrap();
    let third = address(&controller, "my_link");
    assert_eq!(hosts(&controller, "blog"), [format!("{third}\tmy_link db1"), own.clone()]);
    assert_eq!(openings(&lab), only(&controller, "blog", "my_link", 3306));
    // A line that somebody altered is left alone.
    let path = controller.0.root.files(controller.sandbox("blog").unwrap().sandbox.id).hosts;
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("my_link db1", "my_link db1 mine")).unwrap();
    controller.rename_sandbox("my_link", "again").unwrap();
    assert_eq!(hosts(&controller, "blog"), [format!("{third}\tmy_link db1 mine"), own]);
}

#[test]
fn whoever_was_killed_over_a_hosts_file_knows_its_own_lines_again() {
    let lab = Lab::new();
    let controller = open(&lab);
    blog(&controller);
    go(&controller, "blog");
    let own = hosts(&controller, "blog").pop().unwrap();
    let id = controller.sandbox("blog").unwrap().sandbox.id;
    let (path, record) = (controller.0.root.files(id).hosts, controller.0.root.link_lines(id));
    let (before, text) = (fs::read_to_string(&record).unwrap(), fs::read_to_string(&path).unwrap());
    let after = before.replace(&address(&controller, "mysql_db"), "172.17.0.99");
    // Before the file was written, and after.
    for text in [text.clone(), text.replace(&before, &after)] {
        fs::write(&record, format!("{before}{after}")).unwrap();
        fs::write(&path, text).unwrap();
        controller.disconnect("bridge", "mysql_db", false).unwrap();
        controller.connect("bridge", "mysql_db", EndpointSettings::default()).unwrap();
        let line = before.replace(before.split('\t').next().unwrap(), &address(&controller, "mysql_db"));
        assert_eq!(hosts(&controller, "blog"), [line.trim_end().to_owned(), own.clone()]);
        assert_eq!(fs::read_to_string(&record).unwrap(), line);
    }
}

#[test]
fn the_consumers_own_endpoint_counts_too() {
    let lab = Lab::new();
    let controller = open(&lab);
    blog(&controller);
    go(&controller, "blog");
    controller.disconnect("bridge", "blog", false).unwrap();
    assert_eq!(openings(&lab), BTreeSet::new());
    controller.connect("bridge", "blog", EndpointSettings::default()).unwrap();
    assert_eq!(openings(&lab), only(&controller, "blog", "mysql_db", 3306));
    // Renamed, it tells so when it starts next.
    controller.rename_sandbox("blog", "site").unwrap();
    assert_eq!(links(&controller, "site"), ["/mysql_db:/site/my_link"]);
    assert!(controller.link_env("site").unwrap().contains(&"MY_LINK_NAME=/site/my_link".into()));
}

#[test]
fn a_port_that_is_published_later_is_open_to_who_is_linked() {
    let lab = Lab::new();
    let mut config = Config { userland_proxy: false, ..lab.config() };
    config.default_bridge.icc = false;
    let controller = lab.try_open(config, BOOT).unwrap();
    blog(&controller);
    go(&controller, "blog");
    let before = openings(&lab);
    let spec = || vec!["127.77.0.1::81/udp".parse().unwrap()];
    controller.publish("mysql_db", spec()).unwrap();
    let (from, to) = (address(&controller, "blog"), address(&controller, "mysql_db"));
    let mut want = before.clone();
    want.insert(format!("{from} . {to} . udp . 81"));
    assert_eq!(openings(&lab), want);
    controller.unpublish("mysql_db", &spec()).unwrap();
    assert_eq!(openings(&lab), before);
}

#[test]
fn a_provider_that_is_removed_at_its_end_takes_the_way_with_it() {
    let lab = Lab::new();
    let controller = open(&lab);
    let db = SandboxConfigRequest { auto_remove: true, ..request("db", "bridge", &[], &["1-9/udp"], &[]) };
    controller.create_sandbox(db).unwrap();
    go(&controller, "db");
    controller.create_sandbox(request("web", "bridge", &["db"], &[], &[])).unwrap();
    go(&controller, "web");
    assert_eq!(openings(&lab).len(), 1);
    let before = hosts(&controller, "web");
    stop(&controller, "db");
    assert_eq!((openings(&lab), links(&controller, "web").len()), (BTreeSet::new(), 0));
    assert_eq!(hosts(&controller, "web"), before);
    // Another one of that name is not the one that was meant.
    controller.create_sandbox(request("db", "bridge", &[], &["1"], &[])).unwrap();
    go(&controller, "db");
    assert_eq!((openings(&lab), links(&controller, "web").len()), (BTreeSet::new(), 0));
}

#[test]
fn a_link_is_removed_by_its_path_and_for_good() {
    let lab = Lab::new();
    let controller = open(&lab);
    blog(&controller);
    controller.create_sandbox(request("both", "bridge", &["mysql_db:a", "mysql_db:b"], &[], &[])).unwrap();
    go(&controller, "blog");
    go(&controller, "both");
    assert_eq!(openings(&lab).len(), 2);
    let own = "Conflict, cannot remove the default link name of the container";
    assert_eq!(text(controller.remove_link("/blog")), (409, own.into()));
    assert_eq!(text(controller.remove_link("nosuch")), (404, "No such container: nosuch".into()));
    assert_eq!(text(controller.remove_link("blog/none")), (404, "No such container: blog/none".into()));
    let parent = "Cannot get parent /nosuch for link name /nosuch/my_link";
    assert_eq!(text(controller.remove_link("nosuch/my_link")), (404, parent.into()));
    let lines = hosts(&controller, "both");
    controller.remove_link("/both/a").unwrap();
    assert_eq!(hosts(&controller, "both"), lines[1..], "the other link is as it was");
    assert_eq!((links(&controller, "both").len(), openings(&lab).len()), (1, 2));
    controller.remove_link("blog/my_link").unwrap();
    assert_eq!(hosts(&controller, "blog").len(), 1);
    assert_eq!(openings(&lab), only(&controller, "both", "mysql_db", 3306));
    assert_eq!(text(controller.sandbox("blog/my_link")).0, 404);
    // Of one that doesn't run.
    stop(&controller, "both");
    controller.remove_link("/both/b").unwrap();
    drop(controller);
    let controller = open(&lab);
    assert_eq!(links(&controller, "blog"), [""; 0]);
    assert_eq!(go(&controller, "both"), [""; 0]);
}

#[test]
fn a_later_daemon_makes_the_rules_again_and_goes_on_following() {
    let lab = Lab::new();
    let controller = open(&lab);
    blog(&controller);
    go(&controller, "blog");
    drop(controller);
    lab.kernel.state().rules.clear();
    let controller = open(&lab);
    assert_eq!(openings(&lab), only(&controller, "blog", "mysql_db", 3306));
    lab.kernel.state().rules.clear();
    controller.reconcile().unwrap();
    assert_eq!(openings(&lab), only(&controller, "blog", "mysql_db", 3306));
    let ip = address(&controller, "mysql_db");
    controller.rename_sandbox("mysql_db", "db").unwrap();
    assert_eq!(hosts(&controller, "blog")[0], format!("{ip}\tmy_link db1 db"));
}

#[test]
fn a_start_that_fails_leaves_no_way_and_no_line() {
    let lab = Lab::new();
    let controller = open(&lab);
    blog(&controller);
    for turn in 0.. {
        let before = lab.snapshot(&controller);
        lab.kernel.state().fail_after = Some(turn);
        let started = controller.start_sandbox("blog", me());
        if lab.kernel.state().fail_after.take().is_some() {
            started.unwrap();
            break;
        }
        started.unwrap_err();
        assert_eq!((openings(&lab), lab.snapshot(&controller)), (BTreeSet::new(), before));
    }
    stop(&controller, "blog");
    // Without its rules it doesn't start.
    let before = lab.snapshot(&controller);
    lab.kernel.state().tools_fail = true;
    assert!(matches!(controller.start_sandbox("blog", me()), Err(ControllerError::Start(_))));
    lab.kernel.state().tools_fail = false;
    assert_eq!(lab.snapshot(&controller), before);
    // A provider that can't start again: the way stays closed.
    go(&controller, "blog");
    stop(&controller, "mysql_db");
    lab.kernel.state().fail_after = Some(1);
    controller.start_sandbox("mysql_db", me()).unwrap_err();
    assert_eq!(openings(&lab), BTreeSet::new());
    go(&controller, "mysql_db");
    assert_eq!(openings(&lab), only(&controller, "blog", "mysql_db", 3306));
}

/// Each is a provider of the next one and of the one after.
#[test]
fn ends_of_links_come_and_go_side_by_side() {
    let lab = Lab::new();
    let controller = open(&lab);
    let name = |n: usize| format!("s{n}");
    for n in 0..6 {
        let before: Vec<String> = (0..n).rev().take(2).map(|p| format!("s{p}:a{p}")).collect();
        let before: Vec<&str> = before.iter().map(String::as_str).collect();
        controller.create_sandbox(request(&name(n), "bridge", &before, &["80"], &[])).unwrap();
        go(&controller, &name(n));
    }
    thread::scope(|scope| {
        for n in 0..6 {
            let controller = &controller;
            scope.spawn(move || {
                for turn in 0..20 {
                    stop(controller, &name(n));
                    while let Err(error) = controller.start_sandbox(&name(n), me()) {
                        // A provider is down just now.
                        assert!(matches!(error, ControllerError::LinkNotRunning { .. }), "{error}");
                        thread::yield_now();
                    }
                    if turn % 5 == n % 5 {
                        controller.reconcile().unwrap();
                    }
                }
            });
        }
    });
    let mut want = BTreeSet::new();
    for n in 1..6 {
        for p in (0..n).rev().take(2) {
            let (from, to) = (address(&controller, &name(n)), address(&controller, &name(p)));
            want.insert(format!("{from} . {to} . tcp . 80"));
            let line = format!("{to}\ta{p} ");
            let lines = hosts(&controller, &name(n));
            assert_eq!(lines.iter().filter(|other| other.starts_with(&line)).count(), 1, "{line}: {lines:?}");
        }
    }
    assert_eq!(openings(&lab), want);
}
