//! Transactions, and how a record gets into a row and back.

use std::cell::Cell;
use std::ops::Deref;
use std::path::Path;

use rusqlite::{ErrorCode, Params, Row, Transaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// A look at one state of the store.
#[derive(Debug)]
pub struct ReadTx<'c> {
    transaction: Transaction<'c>,
    path: &'c Path,
}

/// One operation on the store. Everything a [`ReadTx`] can is there too, and sees what was changed before.
#[derive(Debug)]
pub struct WriteTx<'c> {
    read: ReadTx<'c>,
    /// Whether the attached file changed too.
    is_wide: Cell<bool>,
}

impl<'c> Deref for WriteTx<'c> {
    type Target = ReadTx<'c>;

    fn deref(&self) -> &ReadTx<'c> {
        &self.read
    }
}

impl<'c> ReadTx<'c> {
    pub(super) const fn new(transaction: Transaction<'c>, path: &'c Path) -> Self {
        Self { transaction, path }
    }

    /// Where the store is.
    pub(super) const fn path(&self) -> &'c Path {
        self.path
    }

    /// All rows of a query, each through `read`.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.rows_of(self.path, sql, params, read)
    }

    /// The same of the file at `path`, which errors are about.
    pub(super) fn rows_of<T>(
        &self,
        path: &Path,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let query = || -> rusqlite::Result<Vec<T>> {
            self.transaction.prepare_cached(sql)?.query_map(params, |row| read(row))?.collect()
        };
        query().map_err(|error| StoreError::sqlite(path, error))
    }

    /// All records of a query whose only column is the record.
    pub(super) fn records<T: DeserializeOwned>(
        &self,
        table: &'static str,
        sql: &str,
        params: impl Params,
    ) -> Result<Vec<T>, StoreError> {
        let texts: Vec<String> = self.rows(sql, params, |row| row.get(0))?;
        texts.iter().map(|text| serde_json::from_str(text).map_err(|error| bad(table, &error))).collect()
    }
}

impl<'c> WriteTx<'c> {
    pub(super) const fn new(transaction: Transaction<'c>, path: &'c Path) -> Self {
        Self { read: ReadTx::new(transaction, path), is_wide: Cell::new(false) }
    }

    pub(super) fn commit(self) -> Result<(), StoreError> {
        let ReadTx { transaction, path } = self.read;
        // Files are committed one after the other. What needs space in either comes before the first.
        let flushed = if self.is_wide.get() { transaction.cache_flush() } else { Ok(()) };
        flushed.and_then(|()| transaction.commit()).map_err(|error| StoreError::sqlite(path, error))
    }

    /// Runs a statement; how many rows it changed, or which rule of the schema it broke.
    pub(super) fn change(&self, sql: &str, params: impl Params) -> Result<Result<usize, Broken>, StoreError> {
        self.run(self.path(), sql, params)
    }

    /// The same in the attached file at `path`.
    pub(super) fn change_attached(
        &self,
        path: &Path,
        sql: &str,
        params: impl Params,
    ) -> Result<Result<usize, Broken>, StoreError> {
        self.is_wide.set(true);
        self.run(path, sql, params)
    }

    fn run(&self, path: &Path, sql: &str, params: impl Params) -> Result<Result<usize, Broken>, StoreError> {
        let run = || self.transaction.prepare_cached(sql)?.execute(params);
        let failed = |error| StoreError::sqlite(path, error);
        run().map(Ok).or_else(|error| Broken::of(&error).map(Err).ok_or_else(|| failed(error)))
    }
}

/// The text of a record's row.
pub(super) fn encode<T: Serialize>(table: &'static str, record: &T) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| bad(table, &error))
}

fn bad(table: &'static str, error: &serde_json::Error) -> StoreError {
    StoreError::Record { table, reason: error.to_string() }
}

/// A rule of the schema that a statement broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// Columns that must be unique, as SQLite names them: `network.name`.
    Unique(String),
    /// A reference to a row that doesn't exist, or from one that does.
    Reference,
}

impl Broken {
    fn of(error: &rusqlite::Error) -> Option<Self> {
        let rusqlite::Error::SqliteFailure(failure, message) = error else { return None };
        if failure.code != ErrorCode::ConstraintViolation {
            return None;
        }
        let message = message.as_deref()?;
        match message.strip_prefix("UNIQUE constraint failed: ") {
            Some(columns) => Some(Self::Unique(columns.to_owned())),
            None => message.starts_with("FOREIGN KEY").then_some(Self::Reference),
        }
    }
}
