//! The lines that links put into `/etc/hosts`, and what each change of either end does to lines, variables and starts.

use super::lab::Lab;
use super::scenarios::blog;
use super::tools::LINKS;

/// What stands in the file of a consumer for `my_link`, and what its libc finds.
#[track_caller]
fn leads_to(lab: &Lab, consumer: &str, want: &str) {
    assert_eq!(lab.found(consumer, "my_link"), [want]);
    let lines = lab.hosts_of(consumer, "my_link");
    assert!(lines.len() == 1 && lines[0].starts_with(&format!("{want}\t")), "{lines:?}");
}

#[test]
fn a_line_says_alias_hostname_and_name() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let id = lab.idle("mysql_db", &[]);
    lab.idle("named", &["-h", "db1"]);
    lab.idle("whole", &["-h", "db1.example.com"]);
    let links = [
        "--link",
        "mysql_db:my_link",
        "--link",
        "named:x",
        "--link",
        "named",
        "--link",
        "mysql_db:db1",
        "--add-host",
        "extra:1.2.3.4",
    ];
    let blog = lab.idle("blog", &links);
    let lines = format!(
        "1.2.3.4\textra
172.17.0.2\tmy_link {short} mysql_db
172.17.0.3\tx db1 named
172.17.0.3\tnamed db1
172.17.0.2\tdb1 {short} mysql_db
172.17.0.5\t{own}",
        short = &id[..12],
        own = &blog[..12],
    );
    let hosts = lab.hosts("blog");
    assert!(hosts.ends_with(&lines), "after those of --add-host, before its own:\n{hosts}");
    for (name, want) in
        [("x", "172.17.0.3"), ("named", "172.17.0.3"), ("mysql_db", "172.17.0.2"), (&id[..12], "172.17.0.2")]
    {
        assert_eq!(lab.found("blog", name), [want], "{name}");
    }
}

#[test]
fn a_provider_with_ipv6_has_a_line_more() {
    let Some(lab) = Lab::linking(&["--ipv6", "--fixed-cidr-v6", "fd00:17::/64"]) else { return };
    let id = lab.idle("mysql_db", &[]);
    lab.idle("blog", &["--link", "mysql_db:my_link"]);
    let six = |name: &str| lab.address(name, "bridge", "GlobalIPv6Address").to_string();
    let want = |name: &str| {
        let names = format!("my_link {} mysql_db", &id[..12]);
        [format!("{}\t{names}", lab.ip(name)), format!("{}\t{names}", six(name))]
    };
    assert_eq!(lab.hosts_of("blog", "my_link"), want("mysql_db"));
    assert_eq!(lab.found_in("ahostsv6", "blog", "my_link"), [six("mysql_db")]);
    assert_eq!(lab.found("blog", "my_link"), [lab.ip("mysql_db")]);
    let before = six("mysql_db");
    lab.move_away("mysql_db");
    // Each line has the address of its family.
    assert_eq!(lab.hosts_of("blog", "my_link"), want("mysql_db"));
    assert_ne!(six("mysql_db"), before);
    assert_eq!(lab.found_in("ahostsv6", "blog", "my_link"), [six("mysql_db")]);
}

#[test]
fn lines_follow_a_provider_that_comes_and_goes() {
    let Some(mut lab) = Lab::linking(&[]) else { return };
    let [id, _] = blog(&lab);
    let whole = lab.hosts("blog");
    let told = lab.environment("blog", "MY_LINK_");
    // Restarts with the same address.
    lab.ok(&["restart", "-t", "0", "mysql_db"]);
    assert_eq!((lab.ip("mysql_db"), lab.hosts("blog")), ("172.17.0.2".to_owned(), whole.clone()));
    // With another one: in place, and nothing else changes.
    let (old, new) = lab.move_away("mysql_db");
    leads_to(&lab, "blog", &new);
    assert_eq!(lab.hosts("blog"), whole.replace(&format!("{old}\t"), &format!("{new}\t")));
    // Stopped: the line stays.
    lab.stop("mysql_db");
    leads_to(&lab, "blog", &new);
    // While nobody looks: the daemon is killed and comes back.
    lab.restart_daemon("-KILL");
    leads_to(&lab, "blog", &new);
    lab.ok(&["rm", "-f", "mysql_db-old"]);
    lab.ok(&["start", "mysql_db"]);
    leads_to(&lab, "blog", &old);
    assert_eq!(lab.hosts("blog"), whole);
    assert_eq!(lab.environment("blog", "MY_LINK_"), told, "what a process was told is never changed");
    // A further network changes nothing.
    lab.ok(&["network", "create", "shop"]);
    lab.ok(&["network", "connect", "shop", "mysql_db"]);
    assert_eq!(lab.hosts("blog"), whole);
    // Off the default network: the line stays, the next start is refused.
    lab.ok(&["network", "disconnect", "bridge", "mysql_db"]);
    assert_eq!(lab.hosts("blog"), whole);
    let said = lab.fails(&["restart", "-t", "0", "blog"]).1;
    assert!(said.contains(&format!("container {id} not attached to default bridge network")), "{said}");
    lab.ok(&["network", "connect", "bridge", "mysql_db"]);
    lab.ok(&["start", "blog"]);
    leads_to(&lab, "blog", &lab.ip("mysql_db"));
    // Connected again to the default network with another address.
    let before = lab.ip("mysql_db");
    lab.ok(&["network", "disconnect", "bridge", "mysql_db"]);
    lab.idle("squatter", &[]);
    assert_eq!(lab.ip("squatter"), before);
    lab.ok(&["network", "connect", "bridge", "mysql_db"]);
    assert_ne!(lab.ip("mysql_db"), before);
    leads_to(&lab, "blog", &lab.ip("mysql_db"));
}

#[test]
fn a_stopped_or_removed_provider_and_the_consumers_next_start() {
    let Some(lab) = Lab::linking(&[]) else { return };
    blog(&lab);
    lab.stop("mysql_db");
    let why = "Cannot link to a non running container: /mysql_db AS /blog/my_link";
    assert!(lab.fails(&["restart", "-t", "0", "blog"]).1.contains(why));
    lab.ok(&["start", "mysql_db"]);
    lab.ok(&["start", "blog"]);
    leads_to(&lab, "blog", "172.17.0.2");
    // Removed: the line stays while it runs; a new sandbox of the name isn't the one that was meant.
    lab.ok(&["rm", "-f", "mysql_db"]);
    leads_to(&lab, "blog", "172.17.0.2");
    lab.idle("squatter", &[]);
    lab.idle("mysql_db", &["--expose", "3306"]);
    leads_to(&lab, "blog", "172.17.0.2");
    assert_eq!(lab.inspect("blog", LINKS), "[]");
    lab.ok(&["restart", "-t", "0", "blog"]);
    assert_eq!(lab.found("blog", "my_link"), [""; 0]);
    assert_eq!(lab.environment("blog", "MY_LINK_"), [""; 0]);
}

#[test]
fn renames_are_followed_by_lines_and_paths() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let [id, _] = blog(&lab);
    lab.ok(&["rename", "mysql_db", "db"]);
    leads_to(&lab, "blog", "172.17.0.2");
    assert_eq!(lab.inspect("blog", LINKS), "[/db:/blog/my_link]");
    lab.ok(&["rename", "blog", "diary"]);
    assert_eq!(lab.inspect("diary", LINKS), "[/db:/diary/my_link]");
    assert_eq!(lab.environment("diary", "MY_LINK_NAME="), ["MY_LINK_NAME=/blog/my_link"]);
    // A renamed consumer is still told of a new address.
    let (_, new) = lab.move_away("db");
    leads_to(&lab, "diary", &new);
    lab.ok(&["restart", "-t", "0", "diary"]);
    assert_eq!(lab.environment("diary", "MY_LINK_NAME="), ["MY_LINK_NAME=/diary/my_link"]);
    assert_eq!(lab.hosts_of("diary", "my_link"), [format!("{new}\tmy_link {} db", &id[..12])]);
}

#[test]
fn what_somebody_wrote_into_the_file_is_left_alone() {
    let Some(lab) = Lab::linking(&[]) else { return };
    lab.idle("mysql_db", &[]);
    lab.idle(
        "blog",
        &["--link", "mysql_db:my_link", "--link", "mysql_db:altered", "--add-host", "my_link.x:9.9.9.9"],
    );
    let edit =
        "sed 's/\\taltered .*/\\taltered mine/' /etc/hosts >/tmp/$$; cat /tmp/$$ >/etc/hosts; rm /tmp/$$
        printf '8.8.8.8\\tmy_link my_link.y\\n7.7.7.7\\tother # mine\\n' >>/etc/hosts";
    lab.ok(&["exec", "blog", "sh", "-c", edit]);
    let before = lab.hosts("blog");
    let (old, new) = lab.move_away("mysql_db");
    let line = |address: &str| format!("{address}\tmy_link ");
    let want = before.replace(&line(&old), &line(&new));
    assert_eq!(lab.hosts("blog"), want);
    assert!(want.contains(&format!("{old}\taltered mine\n")), "{want}");
    assert!(want.ends_with("8.8.8.8\tmy_link my_link.y\n7.7.7.7\tother # mine"), "{want}");
    assert!(want.contains("9.9.9.9\tmy_link.x\n"), "{want}");
    // A start makes it anew.
    lab.ok(&["restart", "-t", "0", "blog"]);
    let anew = lab.hosts("blog");
    assert!(!anew.contains("mine") && anew.contains(&format!("{new}\taltered ")), "{anew}");
}

#[test]
fn everybody_follows_everybody() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let providers = ["p0", "p1", "p2"];
    providers.iter().for_each(|name| drop(lab.idle(name, &["--expose", "80"])));
    let links: Vec<String> = providers.iter().map(|name| format!("{name}:of_{name}")).collect();
    let flags: Vec<&str> = links.iter().flat_map(|link| ["--link", link]).collect();
    let consumers = ["c0", "c1", "c2"];
    consumers.iter().for_each(|name| drop(lab.idle(name, &flags)));
    lab.idle("chained", &["--link", "c0:x", "--link", "p0:my_link"]);
    let check = || {
        for (consumer, provider) in consumers.iter().flat_map(|c| providers.map(|p| (c, p))) {
            assert_eq!(
                lab.found(consumer, &format!("of_{provider}")),
                [lab.ip(provider)],
                "{consumer} {provider}"
            );
        }
        leads_to(&lab, "chained", &lab.ip("p0"));
        assert_eq!(lab.found("chained", "x"), [lab.ip("c0")]);
    };
    check();
    // All at once; each gets what is free.
    let each = |verb: &[&str]| {
        std::thread::scope(|scope| {
            providers.iter().for_each(|name| drop(scope.spawn(|| lab.ok(&[verb, &[*name]].concat()))));
        });
    };
    each(&["stop", "-t", "0"]);
    lab.idle("squatter", &[]);
    each(&["start"]);
    check();
    each(&["restart", "-t", "0"]);
    check();
    lab.move_away("c0");
    check();
}
