//! The host's resolv.conf, read anew when it changed.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::names::resolv_conf::ResolvConf;

/// How often the file is looked at, at most.
const PAUSE: Duration = Duration::from_secs(1);
/// A longer file is read so far: it has to be garbage, and may have no end.
const LONGEST: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct HostFile {
    path: PathBuf,
    looked: Option<Instant>,
    stamp: Option<Stamp>,
    says: ResolvConf,
    /// How often it said something new.
    edition: u64,
}

/// What differs if a file was written or replaced.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    size: u64,
    file: (u64, u64),
}

impl HostFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, looked: None, stamp: None, says: ResolvConf::default(), edition: 1 }
    }

    /// The next look isn't put off.
    pub(super) fn look_again(&mut self) {
        self.looked = None;
    }

    /// What it says, and a number that changes with that. A file that isn't there or can't be read is empty.
    pub(super) fn look(&mut self, now: Instant) -> (&ResolvConf, u64) {
        if self.looked.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE) {
            self.looked = Some(now);
            let there = fs::metadata(&self.path).ok().map(|file| stamp(&file));
            if there != self.stamp {
                let says =
                    read(&self.path).and_then(|text| ResolvConf::parse(&text).map_err(io::Error::other));
                self.says = says.unwrap_or_else(|error| {
                    tracing::debug!(path = %self.path.display(), %error, "the host's name servers can't be read");
                    ResolvConf::default()
                });
                self.stamp = there;
                self.edition += 1;
            }
        }
        (&self.says, self.edition)
    }
}

/// What a host's resolv.conf has. One that is missing has nothing, and neither has what is no file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        // Not opened: that can have effects, or take for ever.
        Ok(there) if !there.is_file() => return Ok(Vec::new()),
        there => there?,
    };
    // A pipe that took the file's place meanwhile isn't waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn stamp(file: &Metadata) -> Stamp {
    Stamp { modified: (file.mtime(), file.mtime_nsec()), size: file.size(), file: (file.dev(), file.ino()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn servers(file: &mut HostFile, now: Instant) -> String {
        let (says, _) = file.look(now);
        says.nameservers.iter().map(|server| format!("{server} ")).collect()
    }

    #[test]
    fn it_is_read_when_it_changed_and_looked_at_once_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let (mut file, start) = (HostFile::new(path.clone()), Instant::now());
        assert_eq!(servers(&mut file, start), "");
        fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        assert_eq!(servers(&mut file, start + PAUSE / 2), "", "not yet");
        assert_eq!(servers(&mut file, start + PAUSE), "10.0.0.1 ");
        let edition = file.look(start + 2 * PAUSE).1;
        // Replaced, as most do it, by a link to elsewhere.
        let other = dir.path().join("other");
        fs::write(&other, "nameserver 10.0.0.2\n").unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&other, &path).unwrap();
        assert_eq!(servers(&mut file, start + 3 * PAUSE), "10.0.0.2 ");
        assert_ne!(file.look(start + 3 * PAUSE).1, edition);
        fs::remove_file(&other).unwrap();
        assert_eq!(servers(&mut file, start + 4 * PAUSE), "");
    }

    #[test]
    fn what_is_no_text_file_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, now) = (dir.path().join("resolv.conf"), Instant::now());
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(servers(&mut HostFile::new(path), now), "");
        assert_eq!(servers(&mut HostFile::new(dir.path().to_owned()), now), "");
        let path = dir.path().join("garbage");
        fs::write(&path, [&[0xff; 70_000][..], b"\nnameserver 10.0.0.1\n"].concat()).unwrap();
        assert_eq!(servers(&mut HostFile::new(path), now), "");
    }

    #[test]
    fn a_file_without_end_is_read_so_far() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("long");
        fs::write(&path, [&b"nameserver 10.0.0.1\n"[..], &vec![b'\n'; 3 << 20]].concat()).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, LONGEST);
        assert_eq!(servers(&mut HostFile::new(path), Instant::now()), "10.0.0.1 ");
        assert!(read(Path::new("/dev/zero")).unwrap().is_empty());
    }
}
