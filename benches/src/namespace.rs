//! A network namespace that is a thread.
//!
//! The thread makes the namespace, is its only permanent member and carries out what is asked of it inside. Nothing
//! names the namespace on disk: when the thread ends, by drop or because the process is killed, the kernel takes the
//! namespace down with every link in it.

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, anyhow};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getpid, gettid};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace of our own; what is spawned inside lives there.
pub(crate) struct Namespace {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (tell, made) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("netns".to_owned()).spawn(move || {
            let entered = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid());
            let inside = entered.is_ok();
            if tell.send(entered).is_ok() && inside {
                inbox.into_iter().for_each(|job| job());
            }
        })?;
        let tid = made
            .recv()
            .context("the namespace's thread ended early")?
            .context("can't make a network namespace")?;
        let path = PathBuf::from(format!("/proc/{}/task/{tid}/ns/net", getpid()));
        Ok(Self { path, jobs: Some(jobs), thread: Some(thread) })
    }

    /// The file by which others can move links into the namespace.
    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Runs `job` on the namespace's thread. A process started there is born inside the namespace, and, having this
    /// thread for its parent, can ask the kernel to be killed when the thread ends.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (tell, done) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            // The receiver waits below and only goes away if this whole process does.
            let _ = tell.send(job());
        });
        let gone = || anyhow!("the namespace's thread is gone");
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        done.recv().map_err(|_| gone())?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Its only way to fail is a panic in a job, and that was reported by `run`.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_namespace_is_not_ours_and_goes_with_its_owner() {
        let Ok(inside) = Namespace::new() else {
            eprintln!("not run: making a network namespace needs root");
            return;
        };
        let here = fs::read_link("/proc/self/ns/net").unwrap();
        let there = inside.run(|| Ok(fs::read_link("/proc/thread-self/ns/net")?)).unwrap();
        assert_ne!(here, there);
        let path = inside.path().clone();
        drop(inside);
        assert!(fs::read_link(path).is_err());
    }
}
