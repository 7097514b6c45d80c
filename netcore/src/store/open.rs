//! Opening the databases: files of our own, in the newest schema, with a write-ahead log.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::StoreError;
use super::linkgraph;

/// Marks a file as ours: "PMAP".
const APPLICATION_ID: i64 = 0x504d_4150;
/// Time between attempts at what SQLite doesn't wait for by itself.
const RETRY: Duration = Duration::from_millis(10);

/// One of the files of a connection.
struct File<'a> {
    path: &'a Path,
    /// What the connection calls it.
    schema: &'static str,
    /// What leads from each version to the next; the first from an empty file to version 1. Steps are added, never
    /// changed.
    migrations: &'static [&'static str],
}

const STORE: [&str; 1] = [include_str!("schema.sql")];
const LINKGRAPH: [&str; 1] = [linkgraph::SCHEMA];

/// Opens or makes the database, and that of links beside it. `patience` is how long another process may hold them.
pub(super) fn open(path: &Path, patience: Duration) -> Result<Connection, StoreError> {
    let store = File { path, schema: "main", migrations: &STORE };
    store.make()?;
    let sqlite = |error| StoreError::sqlite(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(patience).map_err(sqlite)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(sqlite)?; // of all files
    store.prepare(&mut connection, patience)?;

    let path = linkgraph::path_beside(path);
    let links = File { path: &path, schema: "linkgraph", migrations: &LINKGRAPH };
    links.make()?;
    let sqlite = |error| StoreError::sqlite(&path, error);
    let name = path.as_os_str().as_bytes();
    connection.execute("ATTACH DATABASE ?1 AS linkgraph", [name]).map_err(sqlite)?;
    links.prepare(&mut connection, patience)?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
    linkgraph::bring_in_step(&tx).and_then(|()| tx.commit()).map_err(sqlite)?;
    Ok(connection)
}

impl File<'_> {
    fn version(&self) -> i64 {
        i64::try_from(self.migrations.len()).unwrap_or(i64::MAX)
    }

    /// Makes an empty file if there is none. SQLite would make it readable for all. One that exists mustn't be opened beside
    /// SQLite: to close that descriptor would drop the locks that this process may have on it.
    fn make(&self) -> Result<(), StoreError> {
        let path = || self.path.to_owned();
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path) {
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                io::ErrorKind::ReadOnlyFilesystem => Err(StoreError::ReadOnly { path: path() }),
                io::ErrorKind::StorageFull => Err(StoreError::DiskFull { path: path() }),
                _ => Err(StoreError::CannotOpen { path: path(), source: Box::new(error) }),
            },
        }
    }

    /// Looks at what was opened, and brings it to what it should be.
    fn prepare(&self, connection: &mut Connection, patience: Duration) -> Result<(), StoreError> {
        let sqlite = |error| StoreError::sqlite(self.path, error);
        if connection.is_readonly(self.schema).map_err(sqlite)? {
            return Err(StoreError::ReadOnly { path: self.path.to_owned() });
        }
        self.check_owner(connection)?; // before anything is written to a file that isn't ours
        self.use_wal(connection, patience)?;
        connection.pragma_update(Some(self.schema), "synchronous", "FULL").map_err(sqlite)?;
        self.migrate(connection)
    }

    fn pragma(&self, connection: &Connection, name: &str) -> rusqlite::Result<i64> {
        connection.pragma_query_value(Some(self.schema), name, |row| row.get(0))
    }

    /// Refuses a database of somebody else or of a newer version. Gives the schema version.
    fn check_owner(&self, connection: &Connection) -> Result<i64, StoreError> {
        let pragma = |name| self.pragma(connection, name);
        let facts = || -> rusqlite::Result<(i64, i64, i64)> {
            let sql = format!("SELECT count(*) FROM {}.sqlite_schema", self.schema);
            let tables = connection.query_row(&sql, (), |row| row.get(0))?;
            Ok((pragma("application_id")?, pragma("user_version")?, tables))
        };
        // What is too short to be a database, or begins with zeros, SQLite would take for an empty one and overwrite.
        let size = std::fs::metadata(self.path).map_or(0, |file| file.len());
        let (path, known) = (|| self.path.to_owned(), self.version());
        let sqlite = |error| StoreError::sqlite(self.path, error);
        match facts().map_err(sqlite)? {
            (0, 0, 0) if size > 0 && pragma("page_count").map_err(sqlite)? == 0 => {
                Err(StoreError::NotOurs { path: path() })
            }
            (0, 0, 0) => Ok(0),
            (APPLICATION_ID, found, _) if found > known => {
                Err(StoreError::NewerSchema { path: path(), found, known })
            }
            (APPLICATION_ID, found @ 0.., _) => Ok(found),
            _ => Err(StoreError::NotOurs { path: path() }),
        }
    }

    /// The change to a write-ahead log fails at once while another process has the file, without regard to `patience`.
    fn use_wal(&self, connection: &Connection, patience: Duration) -> Result<(), StoreError> {
        let deadline = Instant::now() + patience;
        loop {
            let mode: rusqlite::Result<String> =
                connection
                    .pragma_update_and_check(Some(self.schema), "journal_mode", "WAL", |row| row.get(0));
            match mode {
                Ok(mode) if mode == "wal" => return Ok(()),
                Ok(_) => return Err(StoreError::NoWal { path: self.path.to_owned() }),
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(RETRY);
                }
                Err(error) => return Err(StoreError::sqlite(self.path, error)),
            }
        }
    }

    /// Brings the schema up to date, all steps or none. Another process may have done it while this one waited.
    fn migrate(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let sqlite = |error| StoreError::sqlite(self.path, error);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        let from = usize::try_from(self.check_owner(&tx)?).unwrap_or(usize::MAX);
        let steps = self.migrations.get(from..).unwrap_or_default();
        if steps.is_empty() {
            return Ok(());
        }
        for step in steps {
            tx.execute_batch(step).map_err(sqlite)?;
        }
        tx.pragma_update(Some(self.schema), "application_id", APPLICATION_ID).map_err(sqlite)?;
        tx.pragma_update(Some(self.schema), "user_version", self.version()).map_err(sqlite)?;
        tx.commit().map_err(sqlite)
    }
}
