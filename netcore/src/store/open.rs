//! Opening the database: a file of our own, in the newest schema, with a write-ahead log.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::StoreError;

/// Marks the file as ours: "PMAP".
const APPLICATION_ID: i64 = 0x504d_4150;
/// What leads from each version to the next; the first from an empty file to version 1. Steps are added, never changed.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];
/// The version those lead to.
const VERSION: i64 = 1;
/// Time between attempts at what SQLite doesn't wait for by itself.
const RETRY: Duration = Duration::from_millis(10);

/// Opens or makes the database. `patience` is how long another process may hold it.
pub(super) fn open(path: &Path, patience: Duration) -> Result<Connection, StoreError> {
    let cannot = |source: io::Error| match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { path: path.to_owned() },
        io::ErrorKind::StorageFull => StoreError::DiskFull { path: path.to_owned() },
        _ => StoreError::CannotOpen { path: path.to_owned(), source: Box::new(source) },
    };
    // SQLite would make the file readable for all. One that exists mustn't be opened beside it: to close that descriptor
    // would drop the locks that this process may have on it.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cannot(error)),
        _ => {}
    }
    let sqlite = |error| StoreError::sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(patience).map_err(sqlite)?;
    if connection.is_readonly("main").map_err(sqlite)? {
        return Err(StoreError::ReadOnly { path: path.to_owned() });
    }
    check_owner(&connection, path)?; // before anything is written to a file that isn't ours
    use_wal(&connection, path, patience)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(sqlite)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Refuses a database of somebody else or of a newer version. Gives the schema version.
fn check_owner(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let facts = || -> rusqlite::Result<(i64, i64, i64)> {
        let tables = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
        Ok((pragma(connection, "application_id")?, pragma(connection, "user_version")?, tables))
    };
    // What is too short to be a database, or begins with zeros, SQLite would take for an empty one and overwrite.
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    let sqlite = |error| StoreError::sqlite(path, error);
    let facts = facts().map_err(sqlite)?;
    match facts {
        (0, 0, 0) if size > 0 && pragma(connection, "page_count").map_err(sqlite)? == 0 => {
            Err(StoreError::NotOurs { path: path.to_owned() })
        }
        (0, 0, 0) => Ok(0),
        (APPLICATION_ID, found, _) if found > VERSION => {
            Err(StoreError::NewerSchema { path: path.to_owned(), found, known: VERSION })
        }
        (APPLICATION_ID, found @ 0.., _) => Ok(found),
        _ => Err(StoreError::NotOurs { path: path.to_owned() }),
    }
}

/// The change to a write-ahead log fails at once while another process has the file, without regard to `patience`.
fn use_wal(connection: &Connection, path: &Path, patience: Duration) -> Result<(), StoreError> {
    let deadline = Instant::now() + patience;
    loop {
        let mode: rusqlite::Result<String> =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0));
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(_) => return Err(StoreError::NoWal { path: path.to_owned() }),
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(RETRY);
            }
            Err(error) => return Err(StoreError::sqlite(path, error)),
        }
    }
}

/// Brings the schema up to date, all steps or none. Another process may have done it while this one waited.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let sqlite = |error| StoreError::sqlite(path, error);
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    let from = usize::try_from(check_owner(&tx, path)?).unwrap_or(usize::MAX);
    let steps = MIGRATIONS.get(from..).unwrap_or_default();
    if steps.is_empty() {
        return Ok(());
    }
    for step in steps {
        tx.execute_batch(step).map_err(sqlite)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
    tx.pragma_update(None, "user_version", VERSION).map_err(sqlite)?;
    tx.commit().map_err(sqlite)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_is_the_number_of_steps() {
        assert_eq!(usize::try_from(super::VERSION), Ok(super::MIGRATIONS.len()));
    }
}
