//! Transactions, and how a record gets into a row and back.

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
pub struct WriteTx<'c>(ReadTx<'c>);

impl<'c> Deref for WriteTx<'c> {
    type Target = ReadTx<'c>;

    fn deref(&self) -> &ReadTx<'c> {
        &self.0
    }
}

impl<'c> ReadTx<'c> {
    pub(super) const fn new(transaction: Transaction<'c>, path: &'c Path) -> Self {
        Self { transaction, path }
    }

    pub(super) fn sqlite(&self, error: rusqlite::Error) -> StoreError {
        StoreError::sqlite(self.path, error)
    }

    /// All rows of a query, each through `read`.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let query = || -> rusqlite::Result<Vec<T>> {
            self.transaction.prepare_cached(sql)?.query_map(params, |row| read(row))?.collect()
        };
        query().map_err(|error| self.sqlite(error))
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
        Self(ReadTx::new(transaction, path))
    }

    pub(super) fn commit(self) -> Result<(), StoreError> {
        let ReadTx { transaction, path } = self.0;
        transaction.commit().map_err(|error| StoreError::sqlite(path, error))
    }

    /// Runs a statement; how many rows it changed, or which rule of the schema it broke.
    pub(super) fn change(&self, sql: &str, params: impl Params) -> Result<Result<usize, Broken>, StoreError> {
        let run = || self.transaction.prepare_cached(sql)?.execute(params);
        run().map(Ok).or_else(|error| Broken::of(&error).map(Err).ok_or_else(|| self.sqlite(error)))
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
