//! What can go wrong with the store, and with what is asked of it.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use rusqlite::ffi;

use crate::model::{NetworkName, ResolveError, SandboxId, SandboxName};

/// Why the store, or an operation on it, failed. Where Docker refuses the same thing, the text is Docker's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file can't be opened or made.
    #[error("cannot open {path}: the file and its directory must exist and be writable", path = path.display())]
    CannotOpen {
        /// The database.
        path: PathBuf,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file can be read only.
    #[error("cannot write to {path}: it is read-only, or its directory is", path = path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{path} is no database of portmap's: move it away to start with an empty one", path = path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version.
    #[error(
        "{path} has schema version {found}, and this portmap knows versions up to {known}: use the newer portmap, or another data root",
        path = path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The file system can't share memory between processes, as network file systems can't.
    #[error("cannot keep a write-ahead log beside {path}: the data root must be on a local file system", path = path.display())]
    NoWal {
        /// The database.
        path: PathBuf,
    },
    /// No space is left. Nothing was changed.
    #[error("no space is left for {path}; nothing was changed", path = path.display())]
    DiskFull {
        /// The database.
        path: PathBuf,
    },
    /// Another process holds the database for too long. Nothing was changed.
    #[error("{path} is in use by another process; nothing was changed", path = path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("{path} is damaged: move it away to start with an empty one", path = path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A record can't be read or written.
    #[error("a {table} in the store can't be read or written: {reason}")]
    Record {
        /// The kind of record.
        table: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The database failed otherwise.
    #[error("the store at {path} failed", path = path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The store was called from inside one of its own transactions.
    #[error("a transaction can't start another one")]
    Nested,
    /// The thread that owns the connection is gone.
    #[error("the store has stopped")]
    Stopped,

    /// A network of this name exists.
    #[error("network with name {0} already exists")]
    NetworkExists(NetworkName),
    /// A sandbox of this name exists.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    SandboxExists {
        /// The name.
        name: SandboxName,
        /// Who has it.
        owner: SandboxId,
    },
    /// The network has an endpoint of this name, or of this sandbox.
    #[error("endpoint with name {name} already exists in network {network}")]
    EndpointExists {
        /// The endpoint's name.
        name: String,
        /// The network's name.
        network: String,
    },
    /// A sandbox can't have a link to itself.
    #[error("Cannot set self as child")]
    OwnChild,
    /// The address is taken.
    #[error("Address already in use")]
    AddressTaken,
    /// An id was drawn twice.
    #[error("a {table} of id {id} exists")]
    IdExists {
        /// The kind of record.
        table: &'static str,
        /// The id.
        id: String,
    },
    /// A network with endpoints can't be deleted.
    #[error("error while removing network: network {network} has active endpoints ({endpoints})")]
    NetworkInUse {
        /// The network's name.
        network: String,
        /// Names and short ids.
        endpoints: String,
    },
    /// A record refers to one that doesn't exist, or is referred to.
    #[error("a {table} refers to what doesn't exist, or is still referred to")]
    Reference {
        /// The kind of record.
        table: &'static str,
    },
    /// A record to change or delete doesn't exist.
    #[error("{table} {id} not found")]
    Gone {
        /// The kind of record.
        table: &'static str,
        /// Its id.
        id: String,
    },
    /// An argument names nothing, or too much.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
}

impl StoreError {
    /// Sorts SQLite's errors by what can be done about them.
    pub(super) fn sqlite(path: &std::path::Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        let Some(failure) = source.sqlite_error() else { return Self::Sqlite { path, source } };
        match failure.code {
            ErrorCode::DiskFull => Self::DiskFull { path },
            // The log's index is a file of its own, and the only reason why it doesn't grow is a full disk.
            _ if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Self::DiskFull { path },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Self::Busy { path },
            ErrorCode::ReadOnly => Self::ReadOnly { path },
            ErrorCode::NotADatabase => Self::NotOurs { path },
            ErrorCode::DatabaseCorrupt => Self::Damaged { path, source },
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                Self::CannotOpen { path, source: Box::new(source) }
            }
            _ => Self::Sqlite { path, source },
        }
    }
}
