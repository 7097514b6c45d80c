//! Starting a docker-proxy-compatible program as dockerd does: status pipe on fd 3, sockets on fd 4 and up.

use std::ffi::OsString;
use std::io::{PipeReader, Read};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::lab::Host;
use crate::proc::Proc;

/// The daemon gives up on a proxy that says nothing for this long.
const START: Duration = Duration::from_secs(16);

/// The writing end of the status pipe, in the child.
const STATUS_FD: RawFd = 3;

/// The first inherited socket, in the child.
const LISTEN_FD: RawFd = 4;

/// How a proxy is to be started.
#[derive(Debug)]
pub struct Start {
    program: PathBuf,
    wrapper: Vec<OsString>,
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    status: StatusFd,
    sockets: Vec<OwnedFd>,
    settling: Duration,
}

/// What the proxy finds on fd 3.
#[derive(Debug)]
enum StatusFd {
    /// A pipe that we read.
    Pipe,
    /// A pipe whose reader has gone.
    Broken,
    /// Nothing: the descriptor is closed.
    Nothing,
    /// Something else.
    Other(OwnedFd),
}

impl Start {
    /// `program` with these words.
    #[must_use]
    pub fn new<W: Into<OsString>>(program: impl Into<PathBuf>, words: impl IntoIterator<Item = W>) -> Self {
        Self {
            program: program.into(),
            wrapper: Vec::new(),
            words: words.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            status: StatusFd::Pipe,
            sockets: Vec::new(),
            settling: Duration::ZERO,
        }
    }

    /// `program` with the words dockerd uses to forward `host` to `target`.
    #[must_use]
    pub fn mapping(
        program: impl Into<PathBuf>,
        protocol: &str,
        host: SocketAddr,
        target: SocketAddr,
    ) -> Self {
        let (host_port, target_port) = (host.port().to_string(), target.port().to_string());
        let (host_ip, target_ip) = (host.ip().to_string(), target.ip().to_string());
        let words = ["-proto", protocol, "-host-ip", &host_ip, "-host-port", &host_port];
        let more = ["-container-ip", &target_ip, "-container-port", &target_port];
        Self::new(program, words.into_iter().chain(more))
    }

    /// One more word.
    #[must_use]
    pub fn word(mut self, word: impl Into<OsString>) -> Self {
        self.words.push(word.into());
        self
    }

    /// More words.
    #[must_use]
    pub fn words<W: Into<OsString>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Words in front that end by executing the rest: `prlimit --nofile=64 --`, `setpriv …`.
    #[must_use]
    pub fn through<W: Into<OsString>>(mut self, wrapper: impl IntoIterator<Item = W>) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// A socket (or whatever else) for the next descriptor from 4 on. Our own copy is closed once it runs, as dockerd
    /// closes its own.
    #[must_use]
    pub fn socket(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.sockets.push(socket.into());
        self
    }

    /// How long [`Self::serve`] leaves it alone when it says it serves.
    #[must_use]
    pub fn settling(mut self, time: Duration) -> Self {
        self.settling = time;
        self
    }

    /// No status pipe: fd 3 is closed, as for a proxy started by hand.
    #[must_use]
    pub fn without_status(mut self) -> Self {
        self.status = StatusFd::Nothing;
        self
    }

    /// A status pipe that nobody reads any more.
    #[must_use]
    pub fn broken_status(mut self) -> Self {
        self.status = StatusFd::Broken;
        self
    }

    /// Something else on fd 3.
    #[must_use]
    pub fn status_fd(mut self, other: impl Into<OwnedFd>) -> Self {
        self.status = StatusFd::Other(other.into());
        self
    }

    /// Starts it on `host`.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn spawn(self, host: &Host) -> Running {
        host.enter(|| self.spawn_here())
    }

    /// Starts it from the calling thread, which is then its parent.
    ///
    /// # Panics
    /// When it can't be started.
    #[must_use]
    pub fn spawn_here(self) -> Running {
        let (mut command, status) = self.command();
        // The command owns our copies of the descriptors, and takes them along when it goes.
        Running { proc: Proc::spawn(&mut command), status }
    }

    /// Starts it on `host` and waits until it serves.
    ///
    /// # Panics
    /// When it says anything but that it serves.
    #[must_use]
    #[track_caller]
    pub fn serve(self, host: &Host) -> Running {
        let settling = self.settling;
        let mut running = self.spawn(host);
        running.ready();
        std::thread::sleep(settling);
        running
    }

    /// Starts it on `host`, waits for its end, and tells what it reported.
    ///
    /// # Panics
    /// When it doesn't end.
    #[must_use]
    #[track_caller]
    pub fn fail(self, host: &Host) -> Failed {
        let mut running = self.spawn(host);
        let status = running.status.is_some().then(|| running.status());
        let code = running.code();
        Failed { code, status, stdout: running.stdout(), stderr: running.stderr() }
    }

    fn command(self) -> (Command, Option<PipeReader>) {
        let mut words = self.wrapper;
        words.push(self.program.into());
        words.extend(self.words);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.environment);
        let mut mappings = Vec::new();
        let mut reader = None;
        let mut map = |parent_fd, child_fd| mappings.push(FdMapping { parent_fd, child_fd });
        match self.status {
            StatusFd::Nothing => {}
            StatusFd::Other(other) => map(other, STATUS_FD),
            StatusFd::Pipe | StatusFd::Broken => {
                let (read, write) = std::io::pipe().expect("a pipe");
                map(write.into(), STATUS_FD);
                reader = matches!(self.status, StatusFd::Pipe).then_some(read);
            }
        }
        for (socket, child_fd) in self.sockets.into_iter().zip(LISTEN_FD..) {
            map(socket, child_fd);
        }
        command.fd_mappings(mappings).expect("every number is given once");
        (command, reader)
    }
}

/// A started proxy.
#[derive(Debug)]
pub struct Running {
    proc: Proc,
    /// Until it has been read.
    status: Option<PipeReader>,
}

/// How a proxy that should not serve ended.
#[derive(Debug)]
pub struct Failed {
    /// The exit code, or minus the signal.
    pub code: i32,
    /// What came through the status pipe, if there was one.
    pub status: Option<String>,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Running {
    /// Waits until the proxy says it serves, to the byte: `0\n` in one read, then the end.
    ///
    /// # Panics
    /// When it says anything else, or nothing in time.
    #[track_caller]
    pub fn ready(&mut self) {
        let mut status = self.status.take().expect("a status pipe not read yet");
        self.await_status(&status);
        let mut first = [0; 2];
        let count = status.read(&mut first).expect("the pipe can be read");
        if &first[..count] != b"0\n" {
            let mut message = first[..count].to_vec();
            let _ = status.read_to_end(&mut message);
            panic!("not ready: {:?}, stderr {:?}", String::from_utf8_lossy(&message), self.stderr());
        }
        let mut rest = Vec::new();
        self.await_status(&status);
        status.read_to_end(&mut rest).expect("the pipe can be read");
        assert!(rest.is_empty(), "the status goes on after 0\\n: {rest:?}");
    }

    /// Waits for the end of the status pipe and returns all that came.
    ///
    /// # Panics
    /// When it stays open without a word.
    #[track_caller]
    pub fn status(&mut self) -> String {
        let mut status = self.status.take().expect("a status pipe not read yet");
        self.await_status(&status);
        let mut text = String::new();
        status.read_to_string(&mut text).expect("the status is text");
        text
    }

    /// Stops it with SIGINT as dockerd does; it must end with status 0 within a second.
    ///
    /// # Panics
    /// When it doesn't.
    #[track_caller]
    pub fn stop(mut self) {
        self.proc.signal(Signal::SIGINT);
        let status = self.proc.wait_for(Duration::from_secs(1));
        assert_eq!(status.code(), Some(0), "after SIGINT: {status}");
    }

    #[track_caller]
    fn await_status(&self, status: &PipeReader) {
        let mut wanted = [PollFd::new(status.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(START).expect("fits");
        let count = poll(&mut wanted, timeout).expect("a pipe can be polled");
        assert!(count > 0, "nothing on the status pipe for {START:?}, stderr {:?}", self.proc.stderr());
    }
}

impl Deref for Running {
    type Target = Proc;

    fn deref(&self) -> &Proc {
        &self.proc
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Proc {
        &mut self.proc
    }
}
