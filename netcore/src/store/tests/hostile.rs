//! Files that aren't ours, versions to come, crashes and full disks. Crashes happen in a child: this test binary, asked
//! for one ignored test.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;

use super::fixtures::{Lab, network};
use crate::store::{Store, StoreError};

const PATH: &str = "PORTMAP_STORE_TEST_PATH";

fn refused(path: &Path) -> StoreError {
    Store::open(path).map(drop).unwrap_err()
}

#[test]
fn an_empty_file_becomes_a_database_of_the_newest_version() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portmap.db");
    fs::write(&path, "").unwrap();
    assert_eq!(Store::open(&path).unwrap().read(|tx| tx.networks()).unwrap(), []);
    let raw = Connection::open(&path).unwrap();
    let version: i64 = raw.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let journal: String = raw.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!((version, journal.as_str()), (1, "wal"));
    // and a second start finds nothing to do
    Store::open(&path).unwrap().write(|tx| tx.insert_network(&network(1, "net"))).unwrap();
    assert_eq!(Store::open(&path).unwrap().read(|tx| tx.networks()).unwrap(), [network(1, "net")]);
}

#[test]
fn a_new_file_is_for_its_owner_only() {
    let lab = Lab::new();
    assert_eq!(fs::metadata(lab.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portmap.db");
    drop(Store::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let error = refused(&path);
    assert!(matches!(error, StoreError::NewerSchema { found: 7, known: 1, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("schema version 7") && text.contains("up to 1"), "{text}");
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in
        [("short", b"x".to_vec()), ("long", b"no database ".repeat(1000)), ("zeros", vec![0; 4096])]
    {
        let path = dir.path().join(name);
        fs::write(&path, &content).unwrap();
        let error = refused(&path);
        assert!(matches!(error, StoreError::NotOurs { .. }), "{name}: {error:?}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    let path = dir.path().join("sqlite");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(refused(&path), StoreError::NotOurs { .. }));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn places_that_take_no_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    for place in ["missing/portmap.db", "file/portmap.db", "."] {
        let error = refused(&dir.path().join(place));
        assert!(matches!(error, StoreError::CannotOpen { .. }), "{place}: {error:?}");
    }
    assert!(matches!(refused(Path::new("/proc/portmap.db")), StoreError::CannotOpen { .. }));
}

#[test]
fn a_record_that_does_not_parse_is_named() {
    let lab = Lab::new();
    lab.store().write(|tx| tx.insert_network(&network(1, "net"))).unwrap();
    let sql = "UPDATE network SET data = json_set(data, '$.driver', 5)";
    Connection::open(lab.path()).unwrap().execute_batch(sql).unwrap();
    let error = lab.store().read(|tx| tx.networks()).unwrap_err().to_string();
    assert!(error.starts_with("a network in the store can't be read or written: invalid type"), "{error}");
}

fn child(test: &str, path: &Path) -> Vec<std::ffi::OsString> {
    let name = format!("store::tests::hostile::{test}");
    let mut words =
        vec!["env".into(), format!("{PATH}={}", path.display()).into(), env::current_exe().unwrap().into()];
    words.extend([name.as_str(), "--exact", "--ignored", "--nocapture"].map(Into::into));
    words
}

#[test]
fn a_kill_in_mid_transaction_leaves_the_old_state() {
    let lab = Lab::new();
    lab.store().write(|tx| tx.insert_network(&network(1, "old"))).unwrap();
    let words = child("killed_child", &lab.path());
    let mut child = Command::new(&words[0]).args(&words[1..]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("half done")), "the child got that far");
    child.kill().unwrap();
    child.wait().unwrap();
    let reopened = Store::open(lab.path()).unwrap();
    assert_eq!(reopened.read(|tx| tx.networks()).unwrap(), [network(1, "old")]);
    reopened.write(|tx| tx.insert_network(&network(3, "next"))).unwrap();
}

#[test]
#[ignore = "the child of another test, which kills it"]
fn killed_child() {
    let store = Store::open(env::var_os(PATH).unwrap()).unwrap();
    let _ = store.write(|tx| -> Result<(), StoreError> {
        tx.delete_network(network(1, "old").id)?;
        // more than the page cache holds, so that uncommitted pages are in the log
        for n in 0..2000u32 {
            let mut net = network(0, &format!("new{n}"));
            net.id = format!("{n:064x}").parse().unwrap();
            net.labels.insert("pad".into(), "x".repeat(4000));
            tx.insert_network(&net)?;
        }
        println!("half done");
        std::io::stdout().flush().unwrap();
        loop {
            std::thread::park();
        }
    });
}

/// Runs a child test on a file system of its own, which takes root.
fn on_tmpfs(test: &str, options: &str, then: &str) {
    let skip = |why: &str| {
        let required = env::var_os("E2E_REQUIRED").is_some_and(|value| value == "1");
        assert!(!required, "{test}: {why}, and E2E_REQUIRED=1 allows no skipping");
        println!("SKIP {test}: {why}");
    };
    let dir = tempfile::tempdir().unwrap();
    let able = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs"]).arg(dir.path()).output();
    match able {
        Ok(output) if output.status.success() => {}
        Ok(output) => return skip(&format!("no mounts: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => return skip(&format!("no unshare: {error}")),
    }
    let words = child(test, &dir.path().join("portmap.db"));
    let script = format!("set -e; mount -t tmpfs -o {options} tmpfs \"$0\"; {then} exec \"$@\"");
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .arg(dir.path())
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_full_disk_is_called_that_and_changes_nothing() {
    on_tmpfs("full_child", "size=512k", "");
}

#[test]
#[ignore = "the child of another test, on a small file system"]
fn full_child() {
    let path = env::var_os(PATH).unwrap();
    let store = Store::open(&path).unwrap();
    let mut stored = 0u32;
    let error = loop {
        let mut net = network(0, &format!("net{stored}"));
        net.id = format!("{stored:064x}").parse().unwrap();
        net.labels.insert("pad".into(), "x".repeat(20_000));
        match store.write(move |tx| tx.insert_network(&net)) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "the disk never fills");
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    assert_eq!(store.read(|tx| tx.networks()).unwrap().len(), stored as usize);
    drop(store);
    let reopened = Store::open(&path).unwrap();
    assert_eq!(reopened.read(|tx| tx.networks()).unwrap().len(), stored as usize);
}

#[test]
fn a_read_only_file_system_is_refused() {
    on_tmpfs("read_only_child", "size=512k", "mount -o remount,ro \"$0\";");
}

#[test]
#[ignore = "the child of another test, on a read-only file system"]
fn read_only_child() {
    let error = Store::open(env::var_os(PATH).unwrap()).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
}
