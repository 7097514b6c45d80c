//! The table of what links must do, row by row: one test each, by its number there.

use e2e::wait;

use super::lab::{IPTABLES, Lab, NFTABLES};
use super::tools::{IDLE, LINKS, NOT_STARTED};
use super::witness::side_by_side;

/// The two sandboxes of the worked example, `mysql_db` and `blog`; their ids.
#[track_caller]
pub(crate) fn blog(lab: &Lab) -> [String; 2] {
    let provider = lab.idle("mysql_db", &["--expose", "3306", "-e", "MYSQL_ROOT_PASSWORD=s3cr3t"]);
    [provider, lab.idle("blog", &["--link", "mysql_db:my_link"])]
}

#[test]
fn s01_a_provider_that_does_not_exist_is_refused_at_create() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let text = "could not get container for nosuch: No such container: nosuch";
    for verb in ["create", "run"] {
        let (code, said) = lab.fails(&[&[verb, "--name", "c1", "--link", "nosuch:x"], &IDLE[..]].concat());
        assert!(code == NOT_STARTED && said.contains(text), "{code}: {said}");
    }
    assert_eq!(lab.ok(&["ps", "-aq"]), "");
    lab.create("c1", &[]);
}

#[test]
fn s02_a_stopped_provider_is_refused_at_start() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.create("p1", &[]);
    lab.create("c1", &["--link", "p1:x"]);
    let (code, said) = lab.fails(&["start", "c1"]);
    assert_eq!(code, 1);
    assert!(said.contains("Cannot link to a non running container: /p1 AS /c1/x"), "{said}");
    assert_eq!(lab.inspect("c1", "{{.State.Status}}"), "created");
    lab.ok(&["start", "p1"]);
    lab.ok(&["start", "c1"]);
    assert_eq!(lab.found("c1", "x"), [lab.ip("p1")]);
}

#[test]
fn s03_s05_s16_the_worked_example_is_shown_found_and_kept() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let [provider, consumer] = blog(&lab);
    assert_eq!(lab.inspect("blog", LINKS), "[/mysql_db:/blog/my_link]");
    let line = format!("172.17.0.2\tmy_link {} mysql_db", &provider[..12]);
    assert_eq!(lab.hosts_of("blog", "my_link"), [line]);
    assert_eq!(lab.found("blog", "my_link"), ["172.17.0.2"]);
    assert_eq!(lab.hosts_of("mysql_db", "blog"), [""; 0], "links have a direction");
    let edges = super::graph::Graph::of(&lab).edges;
    let row = |entity: &str, parent: Option<&str>, name: &str| {
        (entity.to_owned(), parent.map(str::to_owned), name.to_owned())
    };
    let mut want = vec![
        row("0", None, "/"),
        row(&provider, Some("0"), "mysql_db"),
        row(&consumer, Some("0"), "blog"),
        row(&provider, Some(&consumer), "my_link"),
    ];
    want.sort();
    assert_eq!(edges, want);
}

#[test]
fn s04_several_links_are_listed_in_the_order_of_their_flags() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.idle("zz", &[]);
    lab.idle("aa", &[]);
    let links = ["--link", "zz:y", "--link", "aa:z", "--link", "zz:x"];
    lab.idle("blog", &links);
    assert_eq!(lab.inspect("blog", LINKS), "[/zz:/blog/y /aa:/blog/z /zz:/blog/x]");
    let [zz, aa] = ["zz", "aa"].map(|name| lab.ip(name));
    assert_eq!(["y", "z", "x"].map(|name| lab.found("blog", name)), [[zz.clone()], [aa], [zz]]);
}

#[test]
fn s06_hosts_follow_a_new_address_and_the_environment_only_at_the_next_start() {
    let Some(lab) = Lab::linking(&[]) else { return };
    blog(&lab);
    let url = |address: &str| format!("MY_LINK_PORT=tcp://{address}:3306");
    let (old, new) = lab.move_away("mysql_db");
    assert_eq!(lab.found("blog", "my_link"), [new.as_str()]);
    let lines = lab.hosts_of("blog", "my_link");
    assert!(lines.len() == 1 && lines[0].starts_with(&format!("{new}\tmy_link ")), "{lines:?}");
    assert_eq!(lab.environment("blog", "MY_LINK_PORT="), [url(&old)]);
    lab.ok(&["restart", "-t", "0", "blog"]);
    assert_eq!(lab.found("blog", "my_link"), [new.as_str()]);
    assert_eq!(lab.environment("blog", "MY_LINK_PORT="), [url(&new)]);
}

#[test]
fn s07_a_renamed_provider_stays_linked() {
    let Some(lab) = Lab::linking(&[]) else { return };
    blog(&lab);
    lab.ok(&["rename", "mysql_db", "db"]);
    assert_eq!(lab.inspect("blog", LINKS), "[/db:/blog/my_link]");
    assert_eq!(lab.found("blog", "my_link"), [lab.ip("db")]);
}

/// Runs it with sandboxes kept apart, by each backend.
pub(crate) fn apart(test: impl Fn(&mut Lab) + Sync) {
    side_by_side([NFTABLES, IPTABLES], |backend| {
        let lab = Lab::linking(&["--icc=false", "--firewall-backend", backend]);
        lab.into_iter().for_each(|mut lab| test(&mut lab));
    });
}

#[test]
fn s08_apart_a_link_opens_the_exposed_port() {
    apart(|lab| {
        lab.database("mysql_db", &["--expose", "3306"]);
        lab.idle("blog", &["--link", "mysql_db:my_link"]);
        lab.idle("stranger", &[]);
        assert!(lab.reaches("blog", "my_link", 3306));
        assert!(lab.is_cut_off("stranger", &lab.ip("mysql_db"), 3306));
    });
}

#[test]
fn s09_apart_nothing_is_open_that_is_not_exposed() {
    apart(|lab| {
        lab.database("mysql_db", &[]);
        lab.idle("blog", &["--link", "mysql_db:my_link"]);
        assert_eq!(lab.found("blog", "my_link"), [lab.ip("mysql_db")]);
        assert!(lab.is_cut_off("blog", "my_link", 3306));
    });
}

#[test]
fn s10_of_two_links_with_one_alias_the_first_counts() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.idle("aa", &[]);
    lab.idle("bb", &[]);
    lab.idle("blog", &["--link", "aa:x", "--link", "bb:x"]);
    assert_eq!(lab.found("blog", "x"), [lab.ip("aa")]);
    assert_eq!(lab.inspect("blog", LINKS), "[/aa:/blog/x]");
}

#[test]
fn s11_a_published_port_is_told_by_its_number_inside() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.idle("web", &["-p", "8080:80"]);
    lab.idle("blog", &["--link", "web:a"]);
    let told = lab.environment("blog", "A_");
    assert!(told.contains(&format!("A_PORT_80_TCP=tcp://{}:80", lab.ip("web"))), "{told:?}");
    assert!(!told.concat().contains("8080"), "{told:?}");
}

#[test]
fn s12_the_consumers_own_variables_win() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.idle("mysql_db", &["--expose", "3306"]);
    lab.idle("blog", &["--link", "mysql_db:my_link", "-e", "MY_LINK_PORT=z"]);
    for told in [lab.environment("blog", "MY_LINK_PORT="), lab.exec_environment("blog", "MY_LINK_PORT=")] {
        assert_eq!(told, ["MY_LINK_PORT=z"]);
    }
}

#[test]
fn s13_s14_s15_on_an_own_network_a_link_is_a_private_name() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.ok(&["network", "create", "local_bridge"]);
    lab.idle("consumer", &["--net", "local_bridge", "--link", "third:bar"]);
    assert_eq!(lab.found("consumer", "bar"), [""; 0]);
    lab.idle("third", &["--net", "local_bridge", "--expose", "80", "-e", "K=v"]);
    let third = lab.address("third", "local_bridge", "IPAddress").to_string();
    wait::until("the name", || lab.found("consumer", "bar") == [third.as_str()]);
    lab.idle("other", &["--net", "local_bridge"]);
    assert_eq!(lab.found("other", "third"), [third]);
    assert_eq!(lab.found("other", "bar"), [""; 0]);
    assert_eq!(lab.environment("consumer", "BAR_"), [""; 0]);
    assert_eq!(lab.exec_environment("consumer", "BAR_"), [""; 0]);
    assert_eq!(lab.hosts_of("consumer", "bar"), [""; 0]);
}

#[test]
fn s17_the_hosts_own_stack_has_no_links() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.idle("x1", &[]);
    let (code, said) =
        lab.fails(&[&["run", "--name", "c1", "--net", "host", "--link", "x1"], &IDLE[..]].concat());
    let text = "conflicting options: host type networking can't be used with links. This would result in undefined behavior";
    assert!(code == NOT_STARTED && said.contains(text), "{code}: {said}");
}

#[test]
fn s18_a_dash_of_an_alias_is_an_underscore_in_variables() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.idle("mysql_db", &["--expose", "3306"]);
    lab.idle("blog", &["--link", "mysql_db:my-link"]);
    assert_eq!(lab.environment("blog", "MY_LINK_NAME="), ["MY_LINK_NAME=/blog/my-link"]);
    assert_eq!(lab.found("blog", "my-link"), [lab.ip("mysql_db")]);
}
