//! Network namespaces: making, pinning, entering.
//!
//! `setns` and `unshare` concern one thread. Each thread that changes its namespace here was made for it and ends with
//! it, so none goes back to a pool in a place where nobody expects it.
//!
//! A namespace lives as long as something refers to it; a pin is a file on which it is mounted. The mount goes where the
//! directory's own mount propagates to, and no further. Copies in mount namespaces that were made meanwhile don't keep a
//! namespace: unlinking the file drops them too.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// The thread's own namespace.
const CURRENT: &str = "/proc/thread-self/ns/net";
/// What such a thread does needs little room.
const STACK: usize = 256 << 10;

nix::ioctl_none_bad!(
    /// Says of what kind a namespace is.
    namespace_kind,
    libc::NS_GET_NSTYPE
);

/// What a path is.
pub(super) enum Found {
    /// Nothing is there.
    Nothing,
    /// A network namespace.
    Namespace(File),
    /// A file on which no namespace is mounted.
    File,
    /// Something else.
    Other,
}

/// The calling thread's network namespace.
pub(super) fn current() -> io::Result<File> {
    File::open(CURRENT)
}

/// Looks at a path.
pub(super) fn find(path: &Path) -> io::Result<Found> {
    // Not blocking: it may be a pipe.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    if fstatfs(&file)?.filesystem_type() == NSFS_MAGIC {
        // SAFETY: the descriptor is open, and this request takes no argument and touches no memory.
        let kind = unsafe { namespace_kind(file.as_raw_fd()) }?;
        return Ok(if kind == libc::CLONE_NEWNET { Found::Namespace(file) } else { Found::Other });
    }
    Ok(if file.metadata()?.is_file() { Found::File } else { Found::Other })
}

/// Runs `work` on a throw-away thread in a namespace.
pub(super) fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// Makes a namespace and runs `work` in it, on a throw-away thread. Unless `work` pins it, it ends with that.
pub(super) fn make<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).stack_size(STACK);
        let ended = thread.spawn_scoped(scope, work)?.join();
        ended.unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

/// Makes the file that a namespace is to be pinned on, and its directory. A file that is there serves.
pub(super) fn prepare(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o444).open(path).map(drop)
}

/// Pins the calling thread's namespace.
pub(super) fn pin(path: &Path) -> io::Result<()> {
    Ok(mount(Some(CURRENT), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Unpins whatever is there, so often as it is pinned, and removes the file. What isn't there is fine.
pub(super) fn unpin(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL) => break,
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
