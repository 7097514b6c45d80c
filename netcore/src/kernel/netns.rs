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
use std::path::{Path, PathBuf};
use std::thread;

use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use rtnetlink::LinkUnspec;

use super::error::Refusal;
use super::host::Work;
use super::netlink::{Request, Socket};
use super::{HostKernel, KernelError, PidFd, sysctl};
use crate::model::ProcessId;
use crate::plan::Namespace;

/// The thread's own namespace.
const CURRENT: &str = "/proc/thread-self/ns/net";
/// A new namespace's loopback interface has always this number.
const LOOPBACK: u32 = 1;
/// What Docker lets everybody in a sandbox do: ping, and bind low ports.
const SETTINGS: [(&str, &str); 2] =
    [("net/ipv4/ping_group_range", "0 2147483647"), ("net/ipv4/ip_unprivileged_port_start", "0")];
/// What such a thread does needs little room.
pub(super) const STACK: usize = 256 << 10;

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

/// Makes a sandbox's namespace be there. One that is pinned is complete: the pin comes last.
pub(super) fn ensure(kernel: &HostKernel, namespace: &Namespace) -> Result<(), KernelError> {
    let path = &namespace.path;
    let work = kernel.work(format!("network namespace {}", path.display()));
    match work.run("find", || find(path))? {
        Found::Namespace(_) => return Ok(()),
        Found::Nothing if namespace.adopted => return Err(KernelError::NoNamespace(path.clone())),
        Found::Nothing => {}
        // What a crash between making the file and pinning leaves, or a pin from before a reboot.
        Found::File if !namespace.adopted => {}
        Found::File | Found::Other => return Err(KernelError::NotANamespace(path.clone())),
    }
    let lived_in = namespace.holder.and_then(|process| lived_in(kernel, process));
    let made = work.run("prepare the file of", || prepare(path)).and_then(|()| match lived_in {
        Some(there) => work.run("pin", || pin(&there, path)),
        None => work.run("create", || make(|| furnish(&work, path)))?,
    });
    if made.is_err() {
        // If the file was there before, it was of no use.
        if let Err(error) = unpin(path) {
            tracing::warn!(path = %path.display(), %error, "half-made network namespace left behind");
        }
    }
    made
}

/// Makes a sandbox's namespace be gone, if it is ours.
pub(super) fn remove(kernel: &HostKernel, namespace: &Namespace) -> Result<(), KernelError> {
    if namespace.adopted {
        return Ok(());
    }
    let work = kernel.work(format!("network namespace {}", namespace.path.display()));
    work.run("unpin", || unpin(&namespace.path))
}

/// What each sandbox has, in the calling thread's namespace, and at last its pin.
fn furnish(work: &Work<'_>, path: &Path) -> Result<(), KernelError> {
    work.run("set up the loopback interface of", loopback_up)?;
    let settings = work.kernel.procfs.get();
    for (key, value) in SETTINGS {
        work.run("set sysctls of", || {
            match settings.setting(key).map_or(Ok(()), |path| sysctl::write(&path, value)) {
                // In a user namespace that has no such group numbers: whoever is in there pings as root, or not at all.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
                written => written,
            }
        })?;
    }
    work.run("pin", || pin(Path::new(CURRENT), path))
}

/// Sets up the loopback interface of the calling thread's namespace.
pub(super) fn loopback_up() -> Result<(), Refusal> {
    let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
    Socket::open()?.batch(vec![Request::change(RouteNetlinkMessage::SetLink(up))])
}

/// The namespace of a process, if it still runs and isn't at home with us.
fn lived_in(kernel: &HostKernel, process: ProcessId) -> Option<PathBuf> {
    let alive = PidFd::find(process).ok()?;
    let path = PathBuf::from(format!("/proc/{}/ns/net", process.pid));
    let elsewhere = kernel.is_elsewhere(&File::open(&path).ok()?);
    (elsewhere && !alive.has_ended()).then_some(path)
}

/// The calling thread's network namespace.
pub(super) fn current() -> io::Result<File> {
    File::open(CURRENT)
}

/// Looks at a path.
pub(super) fn find(path: &Path) -> io::Result<Found> {
    // Not opened before it is known to be a namespace: opening some devices has effects.
    match statfs(path) {
        Ok(on) if on.filesystem_type() == NSFS_MAGIC => {}
        Ok(_) => return Ok(if fs::metadata(path)?.is_file() { Found::File } else { Found::Other }),
        Err(Errno::ENOENT) => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    }
    let file = File::open(path)?;
    // SAFETY: the descriptor is open, and this request takes no argument and touches no memory. To another kind of file
    // that took the path meanwhile it means nothing.
    let kind = unsafe { namespace_kind(file.as_raw_fd()) }?;
    Ok(if kind == libc::CLONE_NEWNET { Found::Namespace(file) } else { Found::Other })
}

/// Runs `work` on a throw-away thread in a namespace.
pub(super) fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_a_thread(|| {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    })
}

/// Makes a namespace and runs `work` in it, on a throw-away thread. Unless `work` pins it, it ends with that.
fn make<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
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
fn prepare(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o444).open(path).map(drop)
}

/// Pins a namespace.
fn pin(namespace: &Path, path: &Path) -> io::Result<()> {
    Ok(mount(Some(namespace), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Unpins whatever is there, so often as it is pinned, and removes the file. What isn't there is fine.
fn unpin(path: &Path) -> io::Result<()> {
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

/// The files in a directory, which are what namespaces are pinned on, now or once. No directory is one without files.
pub(super) fn pinned(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}
