//! A link is a name: where it stands, what it can be used for, and how it is taken back.

use serde_json::{Value, json};

use super::lab::Lab;
use super::scenarios::blog;
use super::tools::{IDLE, LINKS};

#[test]
fn both_command_lines_print_links_alike() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let [provider, _] = blog(&lab);
    let docker = |words: &[&str]| lab.home.docker(words).ok();
    let said = [lab.inspect("blog", LINKS), docker(&["inspect", "-f", LINKS, "blog"])];
    assert_eq!(said, ["[/mysql_db:/blog/my_link]"; 2]);
    let said = [lab.inspect("mysql_db", LINKS), docker(&["inspect", "-f", LINKS, "mysql_db"])];
    assert_eq!(said, ["[]"; 2]);
    let links = |name: &str| {
        let whole: Value =
            serde_json::from_str(&lab.api("GET", &format!("/containers/{name}/json"), "").1).unwrap();
        whole["HostConfig"]["Links"].clone()
    };
    assert_eq!(links("blog"), json!(["/mysql_db:/blog/my_link"]));
    assert_eq!(links("mysql_db"), Value::Null);
    lab.idle("second", &["--link", "mysql_db:db"]);
    for format in [
        &["ps", "--no-trunc", "--format", "{{.Names}}"][..],
        &["ps", "-a", "--no-trunc", "--format", "{{.Names}}"],
    ] {
        let want = ["second", "blog", "mysql_db,blog/my_link,second/db"];
        for said in [lab.ok(format), docker(format)] {
            let said: Vec<&str> = said.lines().collect();
            assert_eq!(said[..2], want[..2]);
            let mut names: Vec<&str> = said[2].split(',').collect();
            names[1..].sort_unstable();
            assert_eq!(names.join(","), want[2]);
        }
    }
    // Cut short, only the own name is left.
    let short = ["ps", "--format", "{{.Names}}"];
    assert_eq!([lab.ok(&short), docker(&short)], ["second\nblog\nmysql_db"; 2]);
    let listed: Value = serde_json::from_str(&lab.api("GET", "/containers/json", "").1).unwrap();
    let of_provider = listed.as_array().unwrap().iter().find(|one| one["Id"] == json!(provider)).unwrap();
    let mut names: Vec<&str> =
        of_provider["Names"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["/blog/my_link", "/mysql_db", "/second/db"]);
    lab.ok(&["rename", "blog", "diary"]);
    assert_eq!(lab.inspect("diary", LINKS), "[/mysql_db:/diary/my_link]");
    assert_eq!(lab.inspect("diary/my_link", "{{.Name}}"), "/mysql_db");
}

#[test]
fn the_name_that_a_link_gives_is_good_for_everything() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.ok(&["run", "-d", "--name", "mysql_db", "--", "sh", "-c", "echo ready; exec sleep infinity"]);
    lab.idle("blog", &["--link", "mysql_db:my_link"]);
    e2e::wait::until("what it writes", || lab.ok(&["logs", "mysql_db"]) == "ready");
    for name in ["blog/my_link", "/blog/my_link"] {
        assert_eq!(lab.inspect(name, "{{.Name}}"), "/mysql_db");
        assert_eq!(lab.home.docker(&["inspect", "-f", "{{.Name}}", name]).ok(), "/mysql_db");
        assert_eq!(lab.ok(&["logs", name]), "ready");
        assert_eq!(lab.ok(&["exec", name, "hostname"]), lab.ok(&["exec", "mysql_db", "hostname"]));
    }
    lab.ok(&["network", "create", "shop"]);
    lab.ok(&["network", "connect", "shop", "blog/my_link"]);
    lab.ok(&["network", "disconnect", "shop", "blog/my_link"]);
    let state = || lab.inspect("mysql_db", "{{.State.Status}}");
    lab.ok(&["stop", "-t", "0", "blog/my_link"]);
    assert_eq!(state(), "exited");
    lab.ok(&["start", "blog/my_link"]);
    assert_eq!(state(), "running");
    assert_eq!(lab.found("blog", "my_link"), [lab.ip("mysql_db")]);
    assert_eq!(lab.home.docker(&["stop", "-t", "0", "blog/my_link"]).code, 0);
    assert_eq!(state(), "exited");
    lab.ok(&["rename", "blog/my_link", "db"]);
    assert_eq!(lab.inspect("blog/my_link", "{{.Name}}"), "/db");
    assert!(lab.fails(&["inspect", "blog/nothing"]).1.contains("blog/nothing"));
    assert!(lab.fails(&["inspect", "db/my_link"]).1.contains("db/my_link"));
    lab.ok(&["rm", "-f", "blog/my_link"]);
    assert_eq!(lab.ok(&["ps", "-a", "--no-trunc", "--format", "{{.Names}}"]), "blog");
}

#[test]
fn a_link_is_taken_back_for_good() {
    let Some(mut lab) = Lab::linking(&[]) else { return };
    lab.idle("mysql_db", &["--expose", "3306"]);
    lab.idle("other", &[]);
    lab.idle("blog", &["--link", "mysql_db:my_link", "--link", "other:x", "--link", "mysql_db:again"]);
    let cases = [
        ("blog", "Conflict, cannot remove the default link name of the container"),
        ("/blog", "Conflict, cannot remove the default link name of the container"),
        ("/nobody/my_link", "Cannot get parent /nobody for link name /nobody/my_link"),
        ("nosuch", "No such container: "),
        ("blog/nothing", "No such container: "),
    ];
    for (name, why) in cases {
        for said in [lab.portmap(&["rm", "--link", name]), lab.home.docker(&["rm", "--link", name])] {
            assert!(said.code == 1 && said.stderr.contains(why), "{name}: {said:?}");
        }
    }
    let environment = lab.environment("blog", "MY_LINK_");
    assert_eq!(environment.len(), 6);
    assert_eq!(lab.ok(&["rm", "--link", "/blog/my_link"]), "/blog/my_link");
    let gone = |lab: &Lab| {
        assert_eq!(lab.inspect("blog", LINKS), "[/other:/blog/x /mysql_db:/blog/again]");
        assert_eq!(lab.found("blog", "my_link"), [""; 0]);
        assert_eq!(lab.portmap(&["inspect", "blog/my_link"]).code, 1);
        // The other links are as they were.
        assert_eq!(lab.found("blog", "x"), [lab.ip("other")]);
        assert_eq!(lab.found("blog", "again"), [lab.ip("mysql_db")]);
    };
    gone(&lab);
    assert_eq!(lab.environment("blog", "MY_LINK_"), environment, "a process keeps what it was told");
    assert!(lab.fails(&["rm", "--link", "/blog/my_link"]).1.contains("No such container"));
    lab.restart_daemon("-TERM");
    gone(&lab);
    lab.ok(&["restart", "-t", "0", "blog"]);
    gone(&lab);
    assert_eq!(lab.environment("blog", "MY_LINK_"), [""; 0]);
    assert_eq!(lab.home.docker(&["rm", "--link", "blog/x"]).ok(), "blog/x");
    assert_eq!(lab.inspect("blog", LINKS), "[/mysql_db:/blog/again]");
    // Of a consumer that doesn't run.
    lab.stop("blog");
    lab.ok(&["rm", "--link", "blog/again"]);
    lab.ok(&["start", "blog"]);
    assert_eq!((lab.inspect("blog", LINKS), lab.found("blog", "again")), ("[]".to_owned(), vec![]));
    assert_eq!(lab.ok(&["ps", "-q"]).lines().count(), 3, "links were removed, not sandboxes");
}

#[test]
fn links_go_with_either_end() {
    let Some(mut lab) = Lab::linking(&[]) else { return };
    let [_, consumer] = blog(&lab);
    lab.ok(&["rm", "-f", "blog"]);
    assert_eq!(lab.ok(&["ps", "--no-trunc", "--format", "{{.Names}}"]), "mysql_db");
    let graph = super::graph::Graph::of(&lab);
    assert!(!format!("{graph:?}").contains(&consumer), "{graph:?}");
    // A name that is free again is nobody's link.
    lab.idle("blog", &[]);
    assert_eq!(lab.portmap(&["inspect", "blog/my_link"]).code, 1);
    lab.ok(&["rm", "-f", "blog"]);
    lab.idle("blog", &["--link", "mysql_db:my_link"]);
    lab.ok(&["rm", "-f", "mysql_db"]);
    assert_eq!(lab.inspect("blog", LINKS), "[]");
    assert_eq!(lab.portmap(&["inspect", "blog/my_link"]).code, 1);
    lab.restart_daemon("-KILL");
    assert_eq!(lab.inspect("blog", LINKS), "[]");
    // Nothing keeps it from its next start.
    lab.ok(&["restart", "-t", "0", "blog"]);
    assert_eq!(lab.found("blog", "my_link"), [""; 0]);
    let (code, said) = lab.fails(&[&["run", "--name", "c1", "--link", "blog/my_link:x"], &IDLE[..]].concat());
    assert!(
        said.contains("could not get container for blog/my_link: No such container: blog/my_link"),
        "{code}: {said}"
    );
}
