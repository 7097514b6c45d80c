//! Instances of procfs that nobody else sees, for settings of sandboxes.
//!
//! In one instance, the first look under `/proc/sys/net` from a new network namespace passes by what the kernel remembers
//! of the same names in all others: they are one chain of its cache, told apart entry by entry (`proc_sys_compare`). With
//! five hundred namespaces that is 0.6 ms for `ipv4` and as much for `ipv6`. An instance that few have looked through costs
//! nothing of that, so there is a new one now and then, which is mounted nowhere.
//!
//! Where none can be had – before Linux 5.2, or in a user namespace that may not see all of procfs – it is `/proc` itself.

use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use super::sysctl;

/// How many look through one. To make one and to drop it takes about 35 µs.
const LOOKS: u32 = 32;

// Of `linux/mount.h`, all since 5.2.
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const NOTHING_IN_IT_RUNS: libc::c_uint = 2 | 4 | 8; // MOUNT_ATTR_NOSUID, _NODEV, _NOEXEC

/// The instance that is in use.
#[derive(Debug, Default)]
pub(super) struct Instances(Mutex<Current>);

#[derive(Debug, Default)]
struct Current {
    instance: Arc<Instance>,
    left: u32,
}

/// One instance; none is `/proc`.
#[derive(Debug, Default)]
pub(super) struct Instance(Option<OwnedFd>);

impl Instances {
    /// One that few have looked through, for the settings of one namespace.
    pub(super) fn get(&self) -> Arc<Instance> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.left == 0 {
            *current = Current { instance: Arc::new(Instance(open().ok())), left: LOOKS };
        }
        current.left -= 1;
        current.instance.clone()
    }
}

impl Instance {
    /// As [`sysctl::path`], through this instance; good for as long as it is there.
    pub(super) fn setting(&self, key: &str) -> Option<PathBuf> {
        let path = sysctl::path(key)?;
        let Some(root) = &self.0 else { return Some(path) };
        let inner = path.strip_prefix("/proc").ok()?;
        Some(PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())).join(inner))
    }
}

fn open() -> io::Result<OwnedFd> {
    let kind: &CStr = c"proc";
    // SAFETY: the name ends in NUL and outlives the call, which reads no other memory.
    let context = made(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let (none, number): (*const libc::c_char, c_int) = (ptr::null(), 0);
    let context_number = context.as_raw_fd();
    // SAFETY: the descriptor is open; this command takes no key and no value, so both are null.
    let created =
        unsafe { libc::syscall(libc::SYS_fsconfig, context_number, FSCONFIG_CMD_CREATE, none, none, number) };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open; the call takes three numbers.
    made(unsafe { libc::syscall(libc::SYS_fsmount, context_number, FSMOUNT_CLOEXEC, NOTHING_IN_IT_RUNS) })
}

fn made(answer: libc::c_long) -> io::Result<OwnedFd> {
    let raw = RawFd::try_from(answer).ok().filter(|raw| *raw >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where one can be had (as root, outside containers) it must be one, and show what `/proc` shows.
    #[test]
    fn settings_are_the_same_through_any_instance() {
        const KEY: &str = "net/ipv4/ip_default_ttl";
        let instances = Instances::default();
        let wanted = sysctl::read(&sysctl::path(KEY).unwrap()).unwrap();
        let first = instances.get();
        for _ in 0..=LOOKS {
            let path = instances.get().setting(KEY).unwrap();
            assert_eq!(sysctl::read(&path).unwrap(), wanted, "{}", path.display());
        }
        // The others have been through others meanwhile; this one is still good.
        assert_eq!(sysctl::read(&first.setting(KEY).unwrap()).unwrap(), wanted);
        assert_eq!(first.0.is_some(), open().is_ok());
        assert!(!Arc::ptr_eq(&first, &instances.get()) || first.0.is_none());
    }

    #[test]
    fn without_an_instance_it_is_proc_itself() {
        let path = Instance::default().setting("net/ipv4/ip_forward");
        assert_eq!(path, sysctl::path("net/ipv4/ip_forward"));
        assert_eq!(Instance::default().setting("../etc/passwd"), None);
    }
}
