//! What a child does between fork and exec to get into its surroundings, and what a parent must know of processes.
//!
//! The child carries out a list of [`Step`]s that was prepared before the fork: it allocates nothing and takes no lock.
//! The step that fails is named to the parent through a pipe, because an error number alone doesn't say what was denied.
//!
//! Not here: which steps there are to make, and what failing means (`process`).

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

/// One change of the child's surroundings.
#[derive(Debug)]
pub(crate) enum Step {
    /// Enters namespaces of these `CLONE_NEW…` kinds: of a process, or the one behind a file.
    Join(OwnedFd, libc::c_int),
    /// Leaves those of the parent for new ones.
    Unshare(libc::c_int),
    /// Has this directory for its root.
    Root(OwnedFd),
    /// Keeps what is mounted here from the place it was copied from; the other way it goes on.
    Slave,
    /// Lays a file over another, if that is there.
    Cover {
        /// What is laid.
        source: CString,
        /// Over what; symbolic links are followed.
        target: CString,
    },
    /// Sets the hostname.
    Hostname(String),
    /// Sets the NIS domain name.
    Domainname(String),
    /// Leaves the session and its terminal.
    Session,
    /// Makes stdin the session's terminal.
    Terminal,
    /// Gives signals back the actions and the mask that programs expect; the actions of these stay.
    Signals(&'static [libc::c_int]),
    /// Goes to a directory.
    Directory(CString),
}

/// Why a child didn't start.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is none.
    Fork(io::Error),
    /// It ended at a step, given by its place in the list.
    Step(usize, io::Error),
    /// It was where it should be, but the program couldn't be executed.
    Exec(io::Error),
}

/// Reported when all steps are made.
const READY: u32 = u32::MAX;
/// Reported when the parent is gone or can't be watched; no list is that long.
const ORPHAN: u32 = u32::MAX - 1;
/// A report: which step, and the error's number.
const REPORT_SIZE: usize = 8;

/// Starts `command` after `steps`. The child is killed when the calling **thread** ends.
pub(crate) fn spawn(mut command: Command, steps: Vec<Step>) -> Result<Child, Failure> {
    let (mut answer, report) = match pipe2(OFlag::O_CLOEXEC) {
        Ok((answer, report)) => (File::from(answer), report),
        Err(error) => return Err(Failure::Fork(error.into())),
    };
    let parent = std::process::id();
    let enter = move || {
        let tell = |step: u32, error: &io::Error| tell(report.as_raw_fd(), step, error);
        if let Err(error) = end_with_parent(parent) {
            tell(ORPHAN, &error);
            return Err(error);
        }
        for (at, step) in (0..).zip(&steps) {
            if let Err(error) = make(step) {
                tell(at, &error);
                return Err(error);
            }
        }
        tell(READY, &io::Error::from_raw_os_error(0));
        Ok(())
    };
    // SAFETY: between fork and exec `enter` only makes async-signal-safe system calls and reads memory that was filled
    // before; it allocates nothing (errors made of a number are the number), and takes no lock.
    unsafe { command.pre_exec(enter) };
    let started = command.spawn();
    // With it goes our copy of the pipe's other end: what is read now is what the child wrote.
    drop(command);
    started.map_err(|error| {
        let mut record = [0; REPORT_SIZE];
        if answer.read_exact(&mut record).is_err() {
            return Failure::Fork(error);
        }
        let [a, b, c, d, rest @ ..] = record;
        let cause = io::Error::from_raw_os_error(i32::from_ne_bytes(rest));
        match u32::from_ne_bytes([a, b, c, d]) {
            READY => Failure::Exec(error),
            ORPHAN => Failure::Fork(cause),
            step => Failure::Step(usize::try_from(step).unwrap_or(usize::MAX), cause),
        }
    })
}

fn tell(report: RawFd, step: u32, error: &io::Error) {
    let mut record = [0; REPORT_SIZE];
    let (place, cause) = record.split_at_mut(REPORT_SIZE / 2);
    place.copy_from_slice(&step.to_ne_bytes());
    cause.copy_from_slice(&error.raw_os_error().unwrap_or(0).to_ne_bytes());
    // SAFETY: the buffer is as long as said and outlives the call. Eight bytes fit an empty pipe; if the parent is gone,
    // nobody misses them.
    let _ = unsafe { libc::write(report, record.as_ptr().cast(), record.len()) };
}

fn make(step: &Step) -> io::Result<()> {
    match step {
        // SAFETY: setns touches no memory; the descriptor is owned by the list.
        Step::Join(namespace, kinds) => check(unsafe { libc::setns(namespace.as_raw_fd(), *kinds) }),
        // SAFETY: unshare touches no memory, and the child has one thread.
        Step::Unshare(kinds) => check(unsafe { libc::unshare(*kinds) }),
        Step::Root(root) => {
            // SAFETY: fchdir touches no memory; the descriptor is owned by the list.
            check(unsafe { libc::fchdir(root.as_raw_fd()) })?;
            // SAFETY: the path is a literal that ends in NUL.
            check(unsafe { libc::chroot(c".".as_ptr()) })
        }
        Step::Slave => enslave_mounts(),
        Step::Cover { source, target } => cover(source, target),
        // SAFETY: the text is as long as said.
        Step::Hostname(name) => check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }),
        // SAFETY: the text is as long as said.
        Step::Domainname(name) => check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }),
        // SAFETY: setsid has no preconditions.
        Step::Session => check(unsafe { libc::setsid() }),
        // SAFETY: this request takes a number.
        Step::Terminal => check(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) }),
        Step::Signals(kept) => default_signals(kept),
        // SAFETY: the path ends in NUL.
        Step::Directory(path) => check(unsafe { libc::chdir(path.as_ptr()) }),
    }
}

fn enslave_mounts() -> io::Result<()> {
    let (none, flags) = (ptr::null(), libc::MS_REC | libc::MS_SLAVE);
    // SAFETY: the path is a literal that ends in NUL; source, type and data may be null for a change of propagation.
    check(unsafe { libc::mount(none, c"/".as_ptr(), none, flags, ptr::null()) })
}

/// Leaves this thread's mount namespace for a copy of it, in which what is mounted in the original appears but not the
/// other way, and gives the copy and its root. The thread has to end now: it isn't where the others are.
pub(crate) fn copy_mounts() -> io::Result<(OwnedFd, OwnedFd)> {
    // SAFETY: unshare touches no memory. It gives this thread a root and a directory of its own too.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    enslave_mounts()?;
    let namespace = File::open("/proc/thread-self/ns/mnt")?;
    let root = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/")?;
    Ok((namespace.into(), root.into()))
}

fn cover(source: &CString, target: &CString) -> io::Result<()> {
    // Asked first, because mount(2) doesn't say which of the two is missing.
    // SAFETY: the path ends in NUL.
    check(unsafe { libc::access(source.as_ptr(), libc::F_OK) })?;
    // SAFETY: both paths end in NUL; a bind mount needs neither type nor data.
    let bound = check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), ptr::null(), libc::MS_BIND, ptr::null())
    });
    match bound {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        bound => bound,
    }
}

fn default_signals(kept: &[libc::c_int]) -> io::Result<()> {
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| !kept.contains(signal)) {
        // Of some numbers nobody may change the action.
        // SAFETY: the default action runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset fills the set it is given, sigprocmask reads it; the old mask isn't asked for.
    check(unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut())
    })
}

/// Asks for SIGKILL when the parent ends; fails if it has ended already.
fn end_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // SAFETY: getppid has no preconditions.
    let now = unsafe { libc::getppid() };
    if u32::try_from(now) == Ok(parent) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

/// A descriptor for a process: what is done through it can't meet another of the same number.
pub(crate) fn open_process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers; an unknown process is an error, not a hazard.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let raw = RawFd::try_from(opened).map_err(|_| io::ErrorKind::InvalidData)?;
    check(raw)?;
    // SAFETY: the call has just made this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Kills the process behind a descriptor.
pub(crate) fn kill(process: &OwnedFd) -> io::Result<()> {
    let (fd, none) = (process.as_raw_fd(), ptr::null::<libc::siginfo_t>());
    // SAFETY: without further information the kernel fills it in itself; no memory is touched.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether this process ignores a signal, as it does under nohup.
pub(crate) fn is_ignored(signal: libc::c_int) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action changes nothing, and the old one is written to memory of its own size.
    if unsafe { libc::sigaction(signal, ptr::null(), now.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the successful call above filled it.
    unsafe { now.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// The `CLONE_NEW…` kind of the namespace behind a file; `None` if there is no namespace behind it.
pub(crate) fn namespace_kind(file: &File) -> Option<libc::c_int> {
    // SAFETY: the request takes no argument; other files refuse it.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
    (kind > 0).then_some(kind)
}

fn check(outcome: libc::c_int) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
