//! `linkgraph.db`.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::lab::Lab;

/// What stands in the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Graph {
    pub(crate) entities: Vec<String>,
    /// Entity, parent and name.
    pub(crate) edges: Vec<(String, Option<String>, String)>,
}

/// The file.
pub(crate) fn path(lab: &Lab) -> PathBuf {
    lab.home.path("data/linkgraph.db")
}

/// A connection that only reads, whoever else writes.
pub(crate) fn reader(path: &Path) -> Connection {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.busy_timeout(e2e::wait::PATIENCE).unwrap();
    connection
}

impl Graph {
    /// What the file says now, sorted.
    #[track_caller]
    pub(crate) fn of(lab: &Lab) -> Self {
        let connection = reader(&path(lab));
        let rows = |sql: &str| -> Vec<(String, Option<String>, String)> {
            let mut statement = connection.prepare(sql).unwrap();
            let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let mut edges = rows("SELECT entity_id, parent_id, name FROM edge");
        edges.sort();
        let entities = rows("SELECT id, NULL, '' FROM entity ORDER BY id");
        Self { entities: entities.into_iter().map(|(id, ..)| id).collect(), edges }
    }
}
