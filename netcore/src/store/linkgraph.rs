//! `linkgraph.db`: names and links of sandboxes, as Docker 1.9 kept them.
//!
//! An entity is a sandbox, an edge a name that it has below another one: below the root `0` its own, below a sandbox the
//! alias by which that one is linked to it. A name path, `blog/my_link`, follows edges from the root.
//!
//! The file is attached to the store's connection, so that a transaction covers both. It does so whole unless the host
//! loses power: each file has a log of its own, and with write-ahead logs SQLite commits them one after the other, the
//! store's first. Names therefore are only a copy of what the sandboxes say, and are [brought in step](bring_in_step) when
//! the store is opened; links are here alone, and the worst that is left is a sandbox without the links that it was being
//! created with, or whose removal nobody was told of.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::tx::Broken;
use super::{ReadTx, StoreError, WriteTx};
use crate::model::{Sandbox, SandboxId};

const TABLE: &str = "link";
/// What leads to the first version of the schema.
pub(super) const SCHEMA: &str = include_str!("linkgraph.sql");

/// Makes root, names and links agree with the sandboxes there are. Writes only what differs.
const IN_STEP: [&str; 8] = [
    "DELETE FROM linkgraph.entity WHERE id <> '0' AND id NOT IN (SELECT id FROM main.sandbox)",
    "INSERT OR IGNORE INTO linkgraph.entity (id) VALUES ('0')",
    "INSERT OR IGNORE INTO linkgraph.entity (id) SELECT id FROM main.sandbox",
    // What somebody put there who keeps no references.
    "DELETE FROM linkgraph.edge WHERE entity_id NOT IN (SELECT id FROM linkgraph.entity)
        OR parent_id NOT IN (SELECT id FROM linkgraph.entity)
        OR (parent_id IS NULL AND (entity_id, name) <> ('0', '/'))
        OR (parent_id <> '0' AND (entity_id IN ('0', parent_id) OR name GLOB '[^a-zA-Z0-9]*' OR name GLOB '*[^a-zA-Z0-9_.-]*' OR name = ''))",
    "DELETE FROM linkgraph.edge WHERE parent_id = '0' AND (entity_id, name) NOT IN (SELECT id, name FROM main.sandbox)",
    "DELETE FROM linkgraph.edge WHERE parent_id IS NULL
        AND rowid > (SELECT min(rowid) FROM linkgraph.edge WHERE parent_id IS NULL)",
    "INSERT INTO linkgraph.edge (entity_id, parent_id, name)
        SELECT '0', NULL, '/' WHERE NOT EXISTS (SELECT 1 FROM linkgraph.edge WHERE parent_id IS NULL)",
    "INSERT OR IGNORE INTO linkgraph.edge (entity_id, parent_id, name) SELECT id, '0', name FROM main.sandbox",
];

/// A link on the default network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who has it.
    pub consumer: SandboxId,
    /// What the consumer calls the other one.
    pub alias: String,
    /// The other one.
    pub provider: SandboxId,
}

/// Beside the store at `path`.
pub(super) fn path_beside(path: &Path) -> PathBuf {
    path.with_file_name("linkgraph.db")
}

/// Within a transaction.
pub(super) fn bring_in_step(connection: &Connection) -> rusqlite::Result<()> {
    IN_STEP.iter().try_for_each(|sql| connection.execute(sql, ()).map(drop))
}

impl ReadTx<'_> {
    /// The links that a sandbox has, in the order in which they were added.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn links_of(&self, consumer: SandboxId) -> Result<Vec<Link>, StoreError> {
        let sql = "SELECT entity_id, parent_id, name FROM linkgraph.edge WHERE parent_id = ?1 ORDER BY rowid";
        self.links_by(sql, [consumer.to_string()])
    }

    /// The links that lead to a sandbox, by consumer and then in the order in which they were added.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn consumers_of(&self, provider: SandboxId) -> Result<Vec<Link>, StoreError> {
        // Ids are behind the root's, so this is the part of the index that links are in: names aren't gone through.
        let sql = "SELECT entity_id, parent_id, name FROM linkgraph.edge
            WHERE parent_id > '0' AND entity_id = ?1 ORDER BY parent_id, rowid";
        self.links_by(sql, [provider.to_string()])
    }

    /// All links, by consumer and then in the order in which they were added.
    ///
    /// # Errors
    /// If the store can't be read.
    pub fn links(&self) -> Result<Vec<Link>, StoreError> {
        let sql = "SELECT entity_id, parent_id, name FROM linkgraph.edge WHERE parent_id > '0' ORDER BY parent_id, rowid";
        self.links_by(sql, ())
    }

    /// The id of the sandbox that a name path of two or more parts leads to.
    pub(super) fn at_path(&self, path: &str) -> Result<Option<String>, StoreError> {
        if !path.contains('/') {
            return Ok(None);
        }
        let mut at = "0".to_owned();
        for name in path.split('/') {
            let sql = "SELECT entity_id FROM linkgraph.edge WHERE parent_id = ?1 AND name = ?2";
            match self.rows_of(&self.graph(), sql, (&at, name), |row| row.get(0))?.pop() {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The file that errors are about.
    fn graph(&self) -> PathBuf {
        path_beside(self.path())
    }

    fn links_by(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Link>, StoreError> {
        let rows: Vec<[String; 3]> =
            self.rows_of(&self.graph(), sql, params, |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
        let id = |text: String| {
            text.parse().map_err(|error: crate::model::BadId| StoreError::Record {
                table: TABLE,
                reason: error.to_string(),
            })
        };
        let link = |[provider, consumer, alias]: [String; 3]| {
            Ok(Link { consumer: id(consumer)?, alias, provider: id(provider)? })
        };
        rows.into_iter().map(link).collect()
    }
}

impl WriteTx<'_> {
    /// Links a sandbox to another one. Of two links of one alias the first wins: whether this is it.
    ///
    /// # Errors
    /// If they are the same, or one of them doesn't exist.
    pub fn add_link(&self, link: &Link) -> Result<bool, StoreError> {
        if link.consumer == link.provider {
            return Err(StoreError::OwnChild);
        }
        let row = (link.provider.to_string(), link.consumer.to_string(), &link.alias);
        let sql = "INSERT OR IGNORE INTO linkgraph.edge (entity_id, parent_id, name) VALUES (?1, ?2, ?3)";
        Ok(self.change_graph(sql, row)? > 0)
    }

    /// Removes a link. Whether there was one of this alias.
    ///
    /// # Errors
    /// If the store can't be written.
    pub fn remove_link(&self, consumer: SandboxId, alias: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM linkgraph.edge WHERE parent_id = ?1 AND name = ?2";
        Ok(self.change_graph(sql, (consumer.to_string(), alias))? > 0)
    }

    /// Adds the name of a sandbox that was added.
    pub(super) fn insert_name(&self, sandbox: &Sandbox) -> Result<(), StoreError> {
        let id = sandbox.id.to_string();
        self.change_graph("INSERT OR IGNORE INTO linkgraph.entity (id) VALUES (?1)", [&id])?;
        // The sandbox has the name, whoever is said here to have it.
        let sql = "INSERT OR REPLACE INTO linkgraph.edge (entity_id, parent_id, name) VALUES (?1, '0', ?2)";
        self.change_graph(sql, (&id, sandbox.config.name.as_str())).map(drop)
    }

    /// Replaces the name of a sandbox. Its links hang on ids and stay.
    pub(super) fn change_name(&self, sandbox: &Sandbox, before: &str) -> Result<(), StoreError> {
        let sql = "DELETE FROM linkgraph.edge WHERE parent_id = '0' AND name = ?1";
        self.change_graph(sql, [before])?;
        self.insert_name(sandbox)
    }

    /// Removes the name of a sandbox, its links, and those to it.
    pub(super) fn delete_name(&self, id: SandboxId) -> Result<(), StoreError> {
        self.change_graph("DELETE FROM linkgraph.entity WHERE id = ?1", [id.to_string()]).map(drop)
    }

    fn change_graph(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, StoreError> {
        self.change_attached(&self.graph(), sql, params)?.map_err(|broken| match broken {
            Broken::Unique(_) | Broken::Reference => StoreError::Reference { table: TABLE },
        })
    }
}
