//! The daemon is killed while names and links change, again and again: what was done is done, and `linkgraph.db` and the
//! sandboxes agree.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::graph::is_in_step;
use super::lab::Lab;
use super::tools::LINKS;

/// How often it is killed.
const TIMES: u32 = 10;

/// The sandboxes that requests which were answered have left: name and links, as they are shown.
type Sure = BTreeMap<String, String>;

/// Changes sandboxes until there is no answer. The one that the last request was about isn't among those that are sure.
fn changes(lab: &Lab, round: u32, sure: &mut Sure) {
    let body = json!({ "Cmd": ["true"], "HostConfig": { "Links": ["base:x", "other:y"] } }).to_string();
    let done = |method: &str, path: &str| {
        let answer = lab.request(method, path, if path.contains("create") { &body } else { "" });
        answer.is_some_and(|(status, said)| {
            assert!(status < 300, "{method} {path}: {status} {said}");
            true
        })
    };
    // An end, should it not be killed.
    for turn in 0..2000 {
        let (made, name) = (format!("made{round}-{turn}"), format!("s{round}-{turn}"));
        let linked = done("POST", &format!("/portmap/sandboxes/create?name={made}"))
            && done("POST", &format!("/containers/{made}/rename?name={name}"))
            && done("DELETE", &format!("/containers/{name}%2Fx?link=1"));
        if !linked {
            return;
        }
        // Two of three go again.
        if turn % 3 == 0 {
            sure.insert(name.clone(), format!("[/other:/{name}/y]"));
        } else if !done("DELETE", &format!("/containers/{name}")) {
            return;
        }
    }
}

#[test]
fn whenever_the_daemon_is_killed_names_and_links_are_right() {
    let Some(mut lab) = Lab::linking(&[]) else { return };
    lab.idle("base", &["--expose", "80"]);
    lab.idle("other", &[]);
    lab.idle("blog", &["--link", "base:x", "--link", "other:y"]);
    let mut sure = Sure::new();
    for round in 0..TIMES {
        thread::scope(|scope| {
            let lab = &lab;
            let changing = scope.spawn(|| changes(lab, round, &mut sure));
            // Another moment each time: from within the first command to after some.
            thread::sleep(Duration::from_millis(u64::from(10 + round * round * 4)));
            lab.home.kill_daemon();
            changing.join().unwrap();
        });
        lab.start_daemon();
        let graph = is_in_step(&lab);
        for (name, links) in &sure {
            assert_eq!(lab.inspect(name, LINKS), *links, "round {round}: {graph:?}");
        }
        assert_eq!(lab.inspect("blog", LINKS), "[/base:/blog/x /other:/blog/y]");
        assert_eq!(lab.inspect("blog/x", "{{.Name}}"), "/base");
        // Every one can be dealt with: nothing is left that keeps a name.
        for name in lab.ok(&["ps", "-a", "--filter", "status=created", "--format", "{{.Names}}"]).lines() {
            if !sure.contains_key(name) {
                lab.ok(&["rm", name]);
                lab.create(name, &["--link", "base:x"]);
                lab.ok(&["rm", name]);
            }
        }
    }
    assert!(!sure.is_empty(), "something has been done between the kills");
    is_in_step(&lab);
    assert_eq!(lab.found("blog", "x"), [lab.ip("base")]);
}
