//! Letting other processes read the counters of a running proxy.
//!
//! Every proxy answers on the abstract UNIX socket `netproxy/<pid>` of its network namespace (nothing to clean up after
//! `kill -9`), and on `--control-socket PATH` where one is given. Whoever connects gets one JSON line and the end of
//! stream; no request is read, so a peer can't hold anything up. Only root and the proxy's own user are answered, since
//! abstract sockets have no file mode.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

use crate::counters::Counters;

/// How long a reader waits for an answer: a proxy answers in microseconds unless it is stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// A listening control socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    /// Removed again at the end.
    path: Option<PathBuf>,
}

impl Server {
    /// The socket named after this process.
    ///
    /// # Errors
    /// When the kernel refuses; most likely another process id namespace shares the network and has the number.
    pub fn for_this_process() -> io::Result<Self> {
        Self::listen(&SocketAddr::from_abstract_name(abstract_name(std::process::id()))?, None)
    }

    /// A socket in the file system. One that nobody answers on any more is replaced.
    ///
    /// # Errors
    /// When the path is in use or can't be made.
    pub fn at(path: &Path) -> io::Result<Self> {
        let address = SocketAddr::from_pathname(path)?;
        if matches!(UnixStream::connect_addr(&address), Err(e) if e.kind() == io::ErrorKind::ConnectionRefused)
        {
            std::fs::remove_file(path)?;
        }
        Self::listen(&address, Some(path.to_owned()))
    }

    fn listen(address: &SocketAddr, path: Option<PathBuf>) -> io::Result<Self> {
        let listener = UnixListener::bind_addr(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    /// Answers one waiting reader, without ever blocking.
    ///
    /// # Errors
    /// `WouldBlock` when nobody waits; anything else is the accept's.
    pub fn answer(&self, counters: &Counters) -> io::Result<()> {
        let (mut reader, _) = self.listener.accept()?;
        let peer = getsockopt(&reader, sockopt::PeerCredentials)?;
        if peer.uid() == 0 || peer.uid() == geteuid().as_raw() {
            reader.set_nonblocking(true)?;
            // A reader that left is its own loss; the line is far below any socket buffer.
            let _ = reader.write_all((counters.json() + "\n").as_bytes());
        }
        Ok(())
    }
}

impl AsRawFd for Server {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// `path` with this process's id for `%p`: one environment serves many proxies.
#[must_use]
pub fn own_path(path: &Path) -> PathBuf {
    path.to_string_lossy().replace("%p", &std::process::id().to_string()).into()
}

/// Why no counters could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No such process.
    #[error("no process {0}")]
    NoProcess(u32),
    /// A process, but it answers nothing.
    #[error("process {0} is not a netproxy that answers")]
    NotOurs(u32, #[source] io::Error),
    /// A path, but nobody answers there.
    #[error("{path}: {}", crate::listen::reason(.source))]
    NoSocket {
        /// The path.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Connected and hung up on.
    #[error("{0} does not answer this user: only root and its own user may ask")]
    Refused(String),
}

/// The counters of the proxy `whom`, a process id or the path of a control socket, as one line of JSON.
///
/// # Errors
/// See [`ReadError`].
pub fn read(whom: &str) -> Result<String, ReadError> {
    let answer = match whom.parse::<u32>() {
        Ok(pid) => {
            if !Path::new(&format!("/proc/{pid}")).exists() {
                return Err(ReadError::NoProcess(pid));
            }
            ask_process(pid).map_err(|error| ReadError::NotOurs(pid, error))?
        }
        Err(_) => ask(&path_address(whom)?).map_err(no_socket(whom))?,
    };
    if answer.is_empty() { Err(ReadError::Refused(whom.to_owned())) } else { Ok(answer) }
}

fn path_address(path: &str) -> Result<SocketAddr, ReadError> {
    SocketAddr::from_pathname(path).map_err(no_socket(path))
}

fn no_socket(path: &str) -> impl Fn(io::Error) -> ReadError {
    move |source| ReadError::NoSocket { path: path.into(), source }
}

fn ask_process(pid: u32) -> io::Result<String> {
    let address = SocketAddr::from_abstract_name(abstract_name(pid))?;
    ask(&address).or_else(|error| {
        // Abstract names belong to a network namespace. This process only reads and exits: it may stay in the other.
        let theirs = format!("/proc/{pid}/ns/net");
        if std::fs::read_link(&theirs)? == std::fs::read_link("/proc/self/ns/net")? {
            return Err(error);
        }
        setns(std::fs::File::open(theirs)?, CloneFlags::CLONE_NEWNET)?;
        ask(&address)
    })
}

fn ask(address: &SocketAddr) -> io::Result<String> {
    let mut stream = UnixStream::connect_addr(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn abstract_name(pid: u32) -> String {
    format!("netproxy/{pid}")
}
