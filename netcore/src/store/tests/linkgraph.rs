//! `linkgraph.db`: what is in it, and that it keeps in step with the sandboxes.

use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;

use super::fixtures::{Lab, sandbox};
use crate::model::{Sandbox, SandboxId};
use crate::store::{Link, Store, StoreError, WriteTx};

fn id(n: u8) -> SandboxId {
    SandboxId::from_random([n; 32])
}

/// Of an id as the fixtures have it.
fn named(n: u8, name: &str) -> Sandbox {
    Sandbox { id: id(n), ..sandbox(n, name) }
}

fn link(consumer: u8, alias: &str, provider: u8) -> Link {
    Link { consumer: id(consumer), alias: alias.to_owned(), provider: id(provider) }
}

fn file(lab: &Lab) -> PathBuf {
    lab.path().with_file_name("linkgraph.db")
}

/// The rows of the file as somebody else reads it.
fn dump(lab: &Lab) -> (Vec<String>, Vec<String>) {
    let other = Connection::open(file(lab)).unwrap();
    let rows = |sql: &str| -> Vec<String> {
        let mut statement = other.prepare(sql).unwrap();
        statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let edges =
        "SELECT substr(entity_id, 1, 4) || ' ' || ifnull(substr(parent_id, 1, 4), 'NULL') || ' ' || name
        FROM edge ORDER BY rowid";
    (rows("SELECT id FROM entity ORDER BY id"), rows(edges))
}

fn write(lab: &Lab, operation: impl FnOnce(&WriteTx<'_>) -> Result<(), StoreError> + Send + 'static) {
    lab.store().write(operation).unwrap();
}

/// A database, its blog, and the link between.
fn blog(lab: &Lab) {
    write(lab, |tx| {
        tx.insert_sandbox(&named(0xa1, "mysql_db"))?;
        tx.insert_sandbox(&named(0xb2, "blog"))?;
        assert!(tx.add_link(&link(0xb2, "my_link", 0xa1))?);
        Ok(())
    });
}

#[test]
fn names_and_links_are_dockers_rows() {
    let lab = Lab::new();
    blog(&lab);
    let (entities, edges) = dump(&lab);
    assert_eq!(entities, ["0".to_owned(), id(0xa1).to_string(), id(0xb2).to_string()]);
    assert_eq!(edges, ["0 NULL /", "a1a1 0 mysql_db", "b2b2 0 blog", "a1a1 b2b2 my_link"]);
    let other = Connection::open(file(&lab)).unwrap();
    let columns = |table: &str| -> Vec<String> {
        let sql = format!(
            "SELECT name || ' ' || lower(type) || ' ' || \"notnull\" || ' ' || pk FROM pragma_table_info('{table}')"
        );
        let mut statement = other.prepare(&sql).unwrap();
        statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(columns("entity"), ["id text 1 1"]);
    assert_eq!(columns("edge"), ["entity_id text 1 0", "parent_id text 0 0", "name text 1 0"]);
    let unique: i64 = other
        .query_row(
            "SELECT \"unique\" FROM pragma_index_list('edge') WHERE name = 'name_parent_ix'",
            (),
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(unique, 1);
}

#[test]
fn links_are_found_from_both_ends_and_by_their_paths() {
    let lab = Lab::new();
    blog(&lab);
    write(&lab, |tx| {
        tx.insert_sandbox(&named(0x1c, "cache"))?;
        assert!(tx.add_link(&link(0xb2, "a", 0x1c))?);
        assert!(tx.add_link(&link(0x1c, "deep", 0xa1))?);
        // The first of two wins; two names for one are two links.
        assert!(!tx.add_link(&link(0xb2, "my_link", 0x1c))?);
        assert!(tx.add_link(&link(0xb2, "again", 0xa1))?);
        Ok(())
    });
    let got = lab
        .store()
        .read(|tx| -> Result<_, StoreError> {
            Ok((tx.links_of(id(0xb2))?, tx.consumers_of(id(0xa1))?, tx.links_of(id(0xa1))?, tx.links()?))
        })
        .unwrap();
    let (of, to) = (
        vec![link(0xb2, "my_link", 0xa1), link(0xb2, "a", 0x1c), link(0xb2, "again", 0xa1)],
        vec![link(0x1c, "deep", 0xa1), link(0xb2, "my_link", 0xa1), link(0xb2, "again", 0xa1)],
    );
    let all = [vec![link(0x1c, "deep", 0xa1)], of.clone()].concat();
    assert_eq!(got, (of, to, vec![], all));
    let b2 = id(0xb2).to_string();
    let cases = [
        ("blog/my_link", Ok(0xa1)),
        ("/blog/my_link", Ok(0xa1)),
        ("/blog/a", Ok(0x1c)),
        ("blog/a/deep", Ok(0xa1)),
        ("blog", Ok(0xb2)),
        (&b2, Ok(0xb2)),
        ("1c", Ok(0x1c)),
        ("blog/none", Err("No such container: blog/none")),
        ("blog/", Err("No such container: blog/")),
        ("//blog", Err("No such container: //blog")),
        ("mysql_db/my_link", Err("No such container: mysql_db/my_link")),
        ("/", Err("No such container: /")),
    ];
    for (argument, want) in cases {
        let owned = argument.to_owned();
        let got = lab.store().read(move |tx| tx.resolve_sandbox(&owned)).map(|found| found.id);
        assert_eq!(got.map_err(|e| e.to_string()), want.map(id).map_err(str::to_owned), "{argument:?}");
    }
}

#[test]
fn what_cannot_be_linked_is_refused() {
    let lab = Lab::new();
    blog(&lab);
    let refused = |link: Link| lab.store().write(move |tx| tx.add_link(&link)).unwrap_err().to_string();
    assert_eq!(refused(link(0xb2, "me", 0xb2)), "Cannot set self as child");
    let unknown = "a link refers to what doesn't exist, or is still referred to";
    assert_eq!(refused(link(0xb2, "x", 0xee)), unknown);
    assert_eq!(refused(link(0xee, "x", 0xb2)), unknown);
}

#[test]
fn names_follow_and_links_go_with_either_end() {
    let lab = Lab::new();
    blog(&lab);
    write(&lab, |tx| {
        tx.update_sandbox(&named(0xa1, "db"))?;
        tx.update_sandbox(&named(0xb2, "mysql_db"))
    });
    assert_eq!(dump(&lab).1, ["0 NULL /", "a1a1 b2b2 my_link", "a1a1 0 db", "b2b2 0 mysql_db"]);
    let error = lab.store().write(|tx| tx.update_sandbox(&named(0xb2, "db"))).unwrap_err();
    assert!(matches!(error, StoreError::SandboxExists { .. }), "{error}");
    write(&lab, |tx| {
        assert!(!tx.remove_link(id(0xb2), "other")?);
        assert!(tx.remove_link(id(0xb2), "my_link")?);
        assert!(!tx.remove_link(id(0xb2), "my_link")?);
        assert!(tx.add_link(&link(0xb2, "back", 0xa1))?);
        Ok(())
    });
    write(&lab, |tx| tx.delete_sandbox(id(0xa1)));
    assert_eq!(dump(&lab).1, ["0 NULL /", "b2b2 0 mysql_db"], "a provider's");
    write(&lab, |tx| {
        tx.insert_sandbox(&named(0x1c, "cache"))?;
        tx.add_link(&link(0xb2, "a", 0x1c))?;
        tx.delete_sandbox(id(0xb2))
    });
    assert_eq!(
        dump(&lab),
        (vec!["0".to_owned(), id(0x1c).to_string()], vec!["0 NULL /".into(), "1c1c 0 cache".into()])
    );
}

#[test]
fn an_operation_that_fails_changes_neither_file() {
    let lab = Lab::new();
    blog(&lab);
    let before = dump(&lab);
    let failed = lab.store().write(|tx| -> Result<(), StoreError> {
        tx.insert_sandbox(&named(0x1c, "cache"))?;
        tx.add_link(&link(0x1c, "x", 0xb2))?;
        tx.add_link(&link(0x1c, "y", 0xee)).map(drop)
    });
    assert!(failed.is_err());
    assert_eq!(dump(&lab), before);
    assert_eq!(lab.store().read(|tx| tx.sandboxes()).unwrap().len(), 2);
}

/// As a loss of power may leave it, and as somebody may who edits it.
#[test]
fn a_file_that_is_out_of_step_is_brought_in_step() {
    let changes = [
        // Committed in the store alone: a sandbox, a removal, another name.
        "DELETE FROM edge WHERE entity_id LIKE 'b2%' AND parent_id = '0'",
        "INSERT INTO entity VALUES ('c3'); INSERT INTO edge VALUES ('c3', '0', 'gone'); INSERT INTO edge VALUES ('c3', (SELECT id FROM entity WHERE id LIKE 'b2%'), 'x')",
        "UPDATE edge SET name = 'old' WHERE name = 'mysql_db'",
        "UPDATE edge SET name = 'swap' WHERE name = 'blog'; UPDATE edge SET name = 'blog' WHERE name = 'mysql_db'; UPDATE edge SET name = 'mysql_db' WHERE name = 'swap'",
        // Somebody's hand.
        "DELETE FROM edge WHERE parent_id IS NULL",
        "INSERT INTO edge VALUES ('0', NULL, '/')",
        "INSERT INTO edge VALUES ('0', NULL, 'other')",
        "INSERT INTO edge VALUES ('nobody', (SELECT id FROM entity WHERE id LIKE 'b2%'), 'x')",
        "INSERT INTO edge SELECT id, 'nobody', id FROM entity",
        "INSERT INTO edge SELECT a.id, b.id, 'two' || char(10) || 'lines' FROM entity a, entity b WHERE a.id LIKE 'a1%' AND b.id LIKE 'b2%'",
        "INSERT INTO edge SELECT a.id, b.id, '' FROM entity a, entity b WHERE a.id LIKE 'a1%' AND b.id LIKE 'b2%'",
        "INSERT INTO edge SELECT id, id, 'self' FROM entity WHERE id <> '0'",
    ];
    for change in changes {
        let lab = Lab::new();
        blog(&lab);
        let other = Connection::open(file(&lab)).unwrap();
        other.pragma_update(None, "foreign_keys", false).unwrap();
        other.execute_batch(change).unwrap_or_else(|error| panic!("{change}: {error}"));
        drop(other);
        drop(Store::open(lab.path()).unwrap());
        let (entities, mut edges) = dump(&lab);
        assert_eq!(entities, ["0".to_owned(), id(0xa1).to_string(), id(0xb2).to_string()], "{change}");
        edges.sort();
        assert_eq!(edges, ["0 NULL /", "a1a1 0 mysql_db", "a1a1 b2b2 my_link", "b2b2 0 blog"], "{change}");
    }
}

#[test]
fn sandboxes_of_a_store_without_the_file_get_their_names() {
    let lab = Lab::new();
    blog(&lab);
    let path = lab.path();
    let kept = tempfile::tempdir().unwrap();
    let copy = kept.path().join("portmap.db");
    Connection::open(&path).unwrap().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
    let store = Store::open(&copy).unwrap();
    let (links, found) = store
        .read(|tx| -> Result<_, StoreError> { Ok((tx.links()?, tx.resolve_sandbox("/blog")?.id)) })
        .unwrap();
    assert_eq!((links, found), (vec![], id(0xb2)));
    let file = Connection::open(copy.with_file_name("linkgraph.db")).unwrap();
    let names: i64 =
        file.query_row("SELECT count(*) FROM edge WHERE parent_id = '0'", (), |row| row.get(0)).unwrap();
    assert_eq!(names, 2);
}

#[test]
fn a_file_of_somebody_elses_or_a_damaged_one_is_named_and_left_alone() {
    let contents =
        [("short", b"x".to_vec()), ("long", b"no database ".repeat(1000)), ("zeros", vec![0; 4096])];
    let refused = |path: &std::path::Path, content: &[u8], what: &str| {
        fs::write(path.with_file_name("linkgraph.db"), content).unwrap();
        let error = Store::open(path).map(drop).unwrap_err();
        assert!(error.to_string().contains("linkgraph.db"), "{what}: {error}");
        assert_eq!(fs::read(path.with_file_name("linkgraph.db")).unwrap(), content, "{what}");
        error
    };
    for (what, content) in contents {
        let dir = tempfile::tempdir().unwrap();
        let error = refused(&dir.path().join("portmap.db"), &content, what);
        assert!(matches!(error, StoreError::NotOurs { .. }), "{what}: {error:?}");
    }
    // Docker's own is somebody else's.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.db");
    let docker =
        "CREATE TABLE entity (id text NOT NULL PRIMARY KEY); CREATE TABLE edge (entity_id text NOT NULL)";
    Connection::open(&path).unwrap().execute_batch(docker).unwrap();
    let error = refused(&dir.path().join("portmap.db"), &fs::read(path).unwrap(), "docker");
    assert!(matches!(error, StoreError::NotOurs { .. }), "{error:?}");
    // One of a version to come.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portmap.db");
    drop(Store::open(&path).unwrap());
    let newer = path.with_file_name("linkgraph.db");
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let error = refused(&path, &fs::read(&newer).unwrap(), "newer");
    assert!(matches!(error, StoreError::NewerSchema { found: 7, known: 1, .. }), "{error:?}");
    // And one of ours of which a page is lost.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portmap.db");
    drop(Store::open(&path).unwrap());
    let mut content = fs::read(path.with_file_name("linkgraph.db")).unwrap();
    content[4096..].fill(0xff);
    let error = refused(&path, &content, "damaged");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
}
