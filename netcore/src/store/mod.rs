//! Facts on disk: SQLite, one transaction per operation. Links have a file of their own beside it (`linkgraph`), in the same
//! transactions.
//!
//! A [`Store`] is a handle to a thread that owns the only connection. Handles may be cloned and used from any thread;
//! what is asked runs there one after the other, as a closure over a transaction:
//!
//! * [`Store::write`] commits if the closure gives `Ok`, and undoes everything if it gives `Err` or panics. The panic
//!   goes on in the caller, the store stays usable.
//! * [`Store::read`] sees one state of the store from beginning to end.
//!
//! Both block until the closure has run: asynchronous callers use a blocking thread. A closure must not wait for
//! anything, the kernel above all, because everybody else waits for it; it gets only what it can move in, which keeps
//! locks of a request out.
//!
//! `Ok` from `write` means that the change is on the disk and survives a power failure.
//!
//! Not here: keeping a second daemon away. Two processes on one file wait for each other, for a few seconds.

mod error;
mod linkgraph;
mod open;
mod records;
mod tx;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

pub use error::StoreError;
pub use linkgraph::Link;
pub use tx::{ReadTx, WriteTx};

/// How long another process may hold the database before an operation fails.
pub const PATIENCE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The facts of one daemon. See the [module](self).
#[derive(Clone, Debug)]
pub struct Store(Arc<Owner>);

#[derive(Debug)]
struct Owner {
    path: PathBuf,
    thread_id: ThreadId,
    /// Taken away at the end: the thread ends when no one can send.
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the database at `path`, or makes one. Its directory must exist.
    ///
    /// # Errors
    /// If the file can't be written, is no database of ours or of a newer version, or no space is left.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, PATIENCE)
    }

    /// As [`open`](Self::open), with a time limit of one's own for what another process holds.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, patience: Duration) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let mut connection = open::open(&path, patience)?;
        let (jobs, todo) = mpsc::channel::<Job>();
        let serve = move || todo.into_iter().for_each(|job| job(&mut connection));
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(serve)
            .map_err(|source| StoreError::CannotOpen { path: path.clone(), source: Box::new(source) })?;
        let thread_id = thread.thread().id();
        Ok(Self(Arc::new(Owner { path, thread_id, jobs: Mutex::new(Some(jobs)), thread: Some(thread) })))
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Runs one operation: all of it happens, or nothing.
    ///
    /// # Errors
    /// What the operation gives, or that it can't be begun or committed; nothing was changed then.
    pub fn write<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        F: FnOnce(&WriteTx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.run(TransactionBehavior::Immediate, move |transaction, path| {
            let tx = WriteTx::new(transaction, path);
            let value = operation(&tx)?;
            tx.commit()?;
            Ok(value)
        })
    }

    /// Looks at one state of the store.
    ///
    /// # Errors
    /// What the closure gives, or that the store can't be read.
    pub fn read<T, E, F>(&self, look: F) -> Result<T, E>
    where
        F: FnOnce(&ReadTx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.run(TransactionBehavior::Deferred, move |transaction, path| {
            look(&ReadTx::new(transaction, path))
        })
    }

    fn run<T, E, F>(&self, behavior: TransactionBehavior, body: F) -> Result<T, E>
    where
        F: FnOnce(Transaction<'_>, &Path) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        if thread::current().id() == self.0.thread_id {
            return Err(StoreError::Nested.into());
        }
        let (answer, result) = mpsc::sync_channel::<Result<Result<T, E>, Box<dyn Any + Send>>>(1);
        let path = self.0.path.clone();
        let job: Job = Box::new(move |connection| {
            let transact = || {
                // Dropped without a commit, which is what an error or a panic does, a transaction is rolled back.
                let begun = connection.transaction_with_behavior(behavior);
                body(begun.map_err(|error| StoreError::sqlite(&path, error))?, &path)
            };
            // Whatever the closure broke was moved into it and is gone; the connection is as it was before.
            let outcome = catch_unwind(AssertUnwindSafe(transact));
            let _ = answer.send(outcome); // the caller waits below
        });
        let sent = {
            let jobs = self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
        };
        match result.recv() {
            Ok(Ok(value)) if sent => value,
            Ok(Err(panic)) => resume_unwind(panic),
            _ => Err(StoreError::Stopped.into()),
        }
    }
}

impl Drop for Owner {
    /// Waits until the database is closed, so that it can be opened or removed at once.
    fn drop(&mut self) {
        self.jobs.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.take()
            && thread::current().id() != self.thread_id
        {
            let _ = thread.join(); // it only ever runs jobs, whose panics are caught
        }
    }
}

#[cfg(test)]
mod tests;
