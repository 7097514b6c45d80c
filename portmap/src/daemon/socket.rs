//! The Unix sockets that the daemon listens on.
//!
//! Mode and group are the only protection, so the file never has wider ones: it is made under a strict umask. A file
//! that is left of a daemon that was killed is replaced; one behind which somebody listens is not.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Group, chown};

/// The group whose members may use the daemon, where none is named and there is one.
const GROUP: &str = "portmap";

/// A socket that is listened on.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) listener: UnixListener,
    /// Its file, if we made it.
    file: Option<Made>,
}

#[derive(Debug)]
struct Made {
    path: PathBuf,
    /// Tells it from one that took its place.
    inode: (u64, u64),
}

impl Listening {
    /// Takes over a socket that a service manager opened.
    pub(super) fn inherit(socket: OwnedFd) -> Result<Self> {
        let listener = UnixListener::from(socket);
        listener.local_addr().context("an inherited socket is no Unix socket")?;
        listener.set_nonblocking(true).context("cannot use an inherited socket")?;
        Ok(Self { listener, file: None })
    }

    /// Makes a socket for its owner and a group.
    pub(super) fn bind(path: &Path, group: Option<&str>) -> Result<Self> {
        let about = || format!("cannot listen on unix://{}", path.display());
        if let Some(folder) = path.parent() {
            super::make_folder(folder)?;
        }
        remove_stale(path).with_context(about)?;
        let group = resolve_group(group)?;
        // Nothing else of this process makes files yet.
        let before = umask(Mode::from_bits_truncate(0o117));
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener.with_context(about)?;
        chown(path, None, group).with_context(about)?;
        listener.set_nonblocking(true).with_context(about)?;
        let metadata = fs::symlink_metadata(path).with_context(about)?;
        let file = Made { path: path.to_owned(), inode: (metadata.dev(), metadata.ino()) };
        Ok(Self { listener, file: Some(file) })
    }

    /// Where it is, for messages.
    pub(super) fn shown(&self) -> String {
        match &self.file {
            Some(made) => format!("unix://{}", made.path.display()),
            None => "fd://".to_owned(),
        }
    }

    /// Whether nobody finds it any more once it is [removed](Self::remove).
    pub(super) const fn is_ours(&self) -> bool {
        self.file.is_some()
    }

    /// Removes the file. Whoever is in the queue already can still be accepted.
    pub(super) fn remove(&self) {
        let Some(Made { path, inode }) = &self.file else { return };
        if fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == *inode) {
            let _ = fs::remove_file(path);
        }
    }
}

fn remove_stale(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        bail!("there is a file that is no socket");
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("somebody listens there already"),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(error) => Err(error.into()),
    }
}

/// A named group must exist; a number need not. The one that nobody named is looked for in the file alone: whatever else
/// knows groups is a library that would stay in memory.
pub(super) fn resolve_group(name: Option<&str>) -> Result<Option<Gid>> {
    let file = fs::read_to_string("/etc/group").unwrap_or_default();
    let found = |name: &str| match in_file(&file, name) {
        Some(gid) => Ok::<_, io::Error>(Some(gid)),
        None => Ok(Group::from_name(name)?.map(|group| group.gid)),
    };
    match name {
        None => Ok(in_file(&file, GROUP)),
        Some(name) => match (found(name)?, name.parse()) {
            (Some(gid), _) => Ok(Some(gid)),
            (None, Ok(number)) => Ok(Some(Gid::from_raw(number))),
            (None, Err(_)) => bail!("group {name} not found"),
        },
    }
}

/// A group by the lines of `/etc/group`: name, password, number, members.
fn in_file(file: &str, name: &str) -> Option<Gid> {
    let number = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    };
    file.lines().find_map(number).map(Gid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_stale_file_is_replaced_and_a_live_one_is_not() {
        let folder = std::env::temp_dir().join(format!("portmap-socket-{}", std::process::id()));
        let path = folder.join("p.sock");
        let first = Listening::bind(&path, None).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = Listening::bind(&path, None).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            format!("cannot listen on unix://{}: somebody listens there already", path.display())
        );
        drop(first);
        let second = Listening::bind(&path, None).unwrap();
        fs::remove_file(&path).unwrap();
        let third = Listening::bind(&path, None).unwrap();
        second.remove();
        assert!(path.exists(), "that one is another's");
        third.remove();
        assert!(!path.exists());
        fs::write(&path, "x").unwrap();
        assert!(Listening::bind(&path, None).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_group_is_found_by_its_line() {
        let file = "root:x:0:\nportmap:x:998:ann,bob\nbroken\nportmap2:x:7:\n";
        assert_eq!(in_file(file, "portmap"), Some(Gid::from_raw(998)));
        assert_eq!((in_file(file, "broken"), in_file(file, "port")), (None, None));
    }

    #[test]
    fn a_group_that_is_named_exists() {
        assert!(resolve_group(Some("no-such-group")).unwrap_err().to_string().contains("no-such-group"));
        assert_eq!(resolve_group(Some("4711")).unwrap(), Some(Gid::from_raw(4711)));
        assert_eq!(resolve_group(Some("root")).unwrap(), Some(Gid::from_raw(0)));
    }
}
