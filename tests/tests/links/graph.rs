//! `linkgraph.db`: what stands in it, that this is in step with the sandboxes, and what becomes of a file that isn't right.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::lab::Lab;
use super::scenarios::blog;
use super::tools::LINKS;

/// Puts something where the file should be.
type Make<'a> = &'a dyn Fn(&Path);
/// Entity, parent and name.
pub(crate) type Edge = (String, Option<String>, String);

/// What stands in the file, or should.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    pub(crate) entities: BTreeSet<String>,
    /// Sorted: the same one twice would be two.
    pub(crate) edges: Vec<Edge>,
}

/// The file.
fn path(lab: &Lab) -> PathBuf {
    lab.home.path("data/linkgraph.db")
}

/// A connection that only reads, whoever else writes.
fn reader(path: &Path) -> Connection {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(e2e::wait::PATIENCE).unwrap();
    connection
}

fn edge(entity: &str, parent: Option<&str>, name: &str) -> Edge {
    (entity.to_owned(), parent.map(str::to_owned), name.to_owned())
}

impl Graph {
    /// What the file says now, whether or not a daemon has it open.
    #[track_caller]
    pub(crate) fn of(lab: &Lab) -> Self {
        let connection = reader(&path(lab));
        let rows = |sql: &str| -> Vec<Edge> {
            let mut statement = connection.prepare(sql).unwrap();
            let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let mut edges = rows("SELECT entity_id, parent_id, name FROM edge");
        edges.sort();
        let entities = rows("SELECT id, NULL, '' FROM entity");
        Self { entities: entities.into_iter().map(|(id, ..)| id).collect(), edges }
    }

    /// What it has to say about the sandboxes that there are.
    #[track_caller]
    pub(crate) fn that_should_be(lab: &Lab) -> Self {
        let get = |path: &str| -> Value { serde_json::from_str(&lab.api("GET", path, "").1).unwrap() };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let all = get("/containers/json?all=1");
        let all: Vec<Value> = all
            .as_array()
            .unwrap()
            .iter()
            .map(|one| get(&format!("/containers/{}/json", text(&one["Id"]))))
            .collect();
        let id_of = |name: &str| text(&all.iter().find(|one| one["Name"] == name).unwrap()["Id"]);
        let mut edges = vec![edge("0", None, "/")];
        for one in &all {
            let (id, name) = (text(&one["Id"]), text(&one["Name"]));
            edges.push(edge(&id, Some("0"), &name[1..]));
            for link in one["HostConfig"]["Links"].as_array().into_iter().flatten() {
                let (provider, alias) = link.as_str().unwrap().split_once(':').unwrap();
                let alias = alias.strip_prefix(&format!("{name}/")).unwrap();
                edges.push(edge(&id_of(provider), Some(&id), alias));
            }
        }
        edges.sort();
        let ids = all.iter().map(|one| text(&one["Id"]));
        Self { entities: ids.chain(["0".to_owned()]).collect(), edges }
    }
}

/// Checks that the file and the sandboxes agree.
#[track_caller]
pub(crate) fn is_in_step(lab: &Lab) -> Graph {
    let graph = Graph::of(lab);
    assert_eq!(graph, Graph::that_should_be(lab));
    graph
}

#[test]
fn the_schema_is_dockers() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let connection = reader(&path(&lab));
    let rows = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map((), |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let named = "SELECT type || ' ' || name || ' ' || tbl_name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name";
    assert_eq!(rows(named), ["table edge edge", "table entity entity", "index name_parent_ix edge"]);
    let columns = |table: &str| {
        let sql =
            "SELECT name || ' ' || lower(type) || ' ' || \"notnull\" || ' ' || pk FROM pragma_table_info";
        rows(&format!("{sql}('{table}')"))
    };
    assert_eq!(columns("entity"), ["id text 1 1"]);
    assert_eq!(columns("edge"), ["entity_id text 1 0", "parent_id text 0 0", "name text 1 0"]);
    let keys = "SELECT \"from\" || ' ' || \"table\" || ' ' || \"to\" FROM pragma_foreign_key_list('edge') ORDER BY 1";
    assert_eq!(rows(keys), ["entity_id entity id", "parent_id entity id"]);
    let sql = rows("SELECT sql FROM sqlite_schema WHERE name = 'edge'").concat().to_lowercase();
    assert!(
        sql.contains("constraint entity_fk foreign key") && sql.contains("constraint parent_fk foreign key"),
        "{sql}"
    );
    let unique = "SELECT name || ' ' || \"unique\" FROM pragma_index_list('edge')";
    assert_eq!(rows(unique), ["name_parent_ix 1"]);
    assert_eq!(
        rows("SELECT name FROM pragma_index_info('name_parent_ix') ORDER BY seqno"),
        ["parent_id", "name"]
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path(&lab)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(is_in_step(&lab).edges, [edge("0", None, "/")]);
}

#[test]
fn rows_follow_each_change_at_once() {
    let Some(lab) = Lab::linking(&[]) else { return };
    let [provider, consumer] = blog(&lab);
    let root = edge("0", None, "/");
    let check = |more: &[Edge]| {
        let mut want = [std::slice::from_ref(&root), more].concat();
        want.sort();
        assert_eq!(is_in_step(&lab).edges, want);
    };
    let named = |id: &str, name: &str| edge(id, Some("0"), name);
    let link = |alias: &str| edge(&provider, Some(&consumer), alias);
    check(&[named(&provider, "mysql_db"), named(&consumer, "blog"), link("my_link")]);
    lab.ok(&["rename", "mysql_db", "db"]);
    check(&[named(&provider, "db"), named(&consumer, "blog"), link("my_link")]);
    lab.ok(&["rename", "blog", "diary"]);
    check(&[named(&provider, "db"), named(&consumer, "diary"), link("my_link")]);
    // Refused: nothing of it stands there.
    lab.fails(&["create", "--name", "c1", "--link", "db:x", "--link", "nosuch:y", "true"]);
    let taken = lab.fails(&["create", "--name", "db", "true"]).1;
    let short = &provider[..12];
    assert!(taken.contains("Conflict. The ") && taken.contains(short), "{taken}");
    lab.fails(&["rename", "diary", "db"]);
    check(&[named(&provider, "db"), named(&consumer, "diary"), link("my_link")]);
    let third = lab.create("third", &["--link", "db:x", "--link", "diary:y"]);
    let x = edge(&provider, Some(&third), "x");
    let y = edge(&consumer, Some(&third), "y");
    check(&[
        named(&provider, "db"),
        named(&consumer, "diary"),
        named(&third, "third"),
        link("my_link"),
        x,
        y.clone(),
    ]);
    lab.ok(&["rm", "--link", "third/x"]);
    check(&[named(&provider, "db"), named(&consumer, "diary"), named(&third, "third"), link("my_link"), y]);
    lab.ok(&["rm", "-f", "diary"]);
    check(&[named(&provider, "db"), named(&third, "third")]);
    lab.ok(&["rm", "-f", "db", "third"]);
    check(&[]);
}

/// A daemon that must not start over this file says so, and after what it advises all sandboxes are there.
#[track_caller]
fn refuses(lab: &mut Lab, why: &str, advice: impl FnOnce(&Lab)) {
    let flags: Vec<&str> = lab.flags.iter().map(String::as_str).collect();
    let mut daemon = lab.host.spawn(lab.home.daemon_command(&flags));
    assert_eq!(daemon.code(), 1, "{why}");
    let said = daemon.stderr();
    assert!(said.contains(why) && said.contains("linkgraph.db"), "{why}: {said}");
    advice(lab);
    lab.start_daemon();
    let names = lab.ok(&["ps", "--format", "{{.Names}}"]);
    assert_eq!(names, "blog\nmysql_db", "{why}");
    is_in_step(lab);
}

fn move_away(lab: &Lab) {
    for end in ["", "-wal", "-shm"] {
        let file = lab.home.path(&format!("data/linkgraph.db{end}"));
        if file.exists() {
            std::fs::rename(&file, lab.home.path(&format!("moved{end}"))).unwrap();
        }
    }
}

#[test]
fn a_file_that_is_not_ours_is_neither_used_nor_harmed() {
    let Some(mut lab) = Lab::linking(&[]) else { return };
    blog(&lab);
    let write = |lab: &mut Lab, make: Make<'_>| {
        lab.end_daemon("-KILL");
        move_away(lab);
        make(&path(lab));
        std::fs::read(path(lab)).unwrap_or_default()
    };
    let random: Vec<u8> = (0..=255).cycle().take(40_000).collect();
    let mut header = b"SQLite format 3\0".to_vec();
    header.extend(&random);
    let schema = "CREATE TABLE entity (id text NOT NULL PRIMARY KEY); INSERT INTO entity VALUES ('0');";
    let cases: [(&str, Make<'_>); 5] = [
        ("is no database of portmap's: move it away", &|path| {
            Connection::open(path).unwrap().execute_batch(schema).unwrap()
        }),
        ("is no database of portmap's: move it away", &|path| std::fs::write(path, "hello").unwrap()),
        ("move it away", &|path| std::fs::write(path, &random).unwrap()),
        ("move it away", &|path| std::fs::write(path, &header).unwrap()),
        ("cannot open", &|path| std::fs::create_dir(path).unwrap()),
    ];
    for (why, make) in cases {
        let before = write(&mut lab, make);
        refuses(&mut lab, why, |lab| {
            assert_eq!(std::fs::read(path(lab)).unwrap_or_default(), before, "{why}");
            if path(lab).is_dir() {
                std::fs::remove_dir(path(lab)).unwrap();
            } else {
                move_away(lab);
            }
        });
    }
    // Links were in the file alone. What runs keeps its line.
    assert_eq!(lab.inspect("blog", LINKS), "[]");
    assert_eq!(lab.found("blog", "my_link"), [lab.ip("mysql_db")]);
    lab.ok(&["restart", "-t", "0", "blog"]);
    // A damaged part of a file that is ours.
    lab.ok(&["rm", "-f", "blog"]);
    lab.idle("blog", &["--link", "mysql_db:my_link"]);
    lab.end_daemon("-TERM");
    let mut bytes = std::fs::read(path(&lab)).unwrap();
    bytes[100..].fill(0xa5);
    std::fs::write(path(&lab), &bytes).unwrap();
    refuses(&mut lab, "is damaged: move it away to start with an empty one", move_away);
}

#[test]
fn a_file_that_can_not_be_written_is_told_of() {
    let Some(mut lab) = Lab::linking(&[]) else { return };
    blog(&lab);
    let file = path(&lab);
    let file = file.to_str().unwrap();
    lab.end_daemon("-TERM");
    lab.home.run("mount", &["--bind", file, file]).ok();
    lab.home.run("mount", &["-o", "remount,bind,ro", file]).ok();
    refuses(&mut lab, "it is read-only", |lab| drop(lab.home.run("umount", &[file]).ok()));
    assert_eq!(lab.inspect("blog", LINKS), "[/mysql_db:/blog/my_link]");
}

#[test]
fn a_file_that_is_out_of_step_is_put_right() {
    let Some(mut lab) = Lab::linking(&[]) else { return };
    let [provider, consumer] = blog(&lab);
    let want = is_in_step(&lab);
    let nobody = "f".repeat(64);
    let harm = [
        "DELETE FROM edge WHERE parent_id = '0'".to_owned(),
        "DELETE FROM edge WHERE parent_id IS NULL".to_owned(),
        "DELETE FROM entity WHERE id = '0'".to_owned(),
        format!("UPDATE edge SET name = 'another' WHERE entity_id = '{provider}' AND parent_id = '0'"),
        // The names of the two are swapped.
        format!(
            "UPDATE edge SET name = '-' WHERE entity_id = '{provider}' AND parent_id = '0';
            UPDATE edge SET name = 'mysql_db' WHERE entity_id = '{consumer}' AND parent_id = '0';
            UPDATE edge SET name = 'blog' WHERE entity_id = '{provider}' AND parent_id = '0'"
        ),
        format!(
            "INSERT INTO entity VALUES ('{nobody}'); INSERT INTO edge VALUES ('{nobody}', '0', 'nobody')"
        ),
        format!("INSERT INTO edge VALUES ('{nobody}', '{consumer}', 'nobody')"),
        format!("INSERT INTO edge VALUES ('{provider}', '{nobody}', 'x')"),
        format!("INSERT INTO edge VALUES ('{consumer}', '{consumer}', 'self')"),
        format!(
            "INSERT INTO edge VALUES ('{provider}', '{consumer}', 'a b'), ('{provider}', '{consumer}', 'x/y')"
        ),
        "INSERT INTO edge VALUES ('0', NULL, '/')".to_owned(),
    ];
    for sql in harm {
        lab.end_daemon("-KILL");
        // As another program would, which keeps no references.
        let connection = Connection::open(path(&lab)).unwrap();
        connection.execute_batch(&format!("PRAGMA foreign_keys = off; {sql}")).unwrap();
        drop(connection);
        lab.start_daemon();
        assert_eq!(is_in_step(&lab), want, "{sql}");
    }
    // No file at all: names come back, links were there alone.
    lab.end_daemon("-TERM");
    move_away(&lab);
    lab.start_daemon();
    assert_eq!(is_in_step(&lab).edges.len(), 3);
    assert_eq!(lab.ok(&["ps", "-q"]).lines().count(), 2);
}
