//! Settings under `/proc/sys`, by their path below it.
//!
//! Keys have slashes: with dots, as the crate `sysctl` has them, an interface called `eth0.1` splits in two.
//! `/proc/sys/net` is that of the calling thread's namespace.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The file of a setting; `None` for a key that could lead out of `/proc/sys`.
pub(super) fn path(key: &str) -> Option<PathBuf> {
    let inner = Path::new(key);
    let plain = inner.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !key.is_empty()).then(|| Path::new("/proc/sys").join(inner))
}

/// The value, without the line's end; `None` if this kernel has no such setting.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(mut value) => {
            value.truncate(value.trim_end().len());
            Ok(Some(value))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the value. A setting that this kernel lacks is an error.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    // Not created: a file of that name in somebody's `/proc/sys` would be no setting.
    io::Write::write_all(&mut fs::OpenOptions::new().write(true).open(path)?, value.as_bytes())
}

/// Makes it have the value.
pub(super) fn ensure(path: &Path, value: &str) -> io::Result<()> {
    match read(path)? {
        Some(present) if same(&present, value) => Ok(()),
        _ => write(path, value),
    }
}

/// Whether two texts are one value: the kernel writes tabs where people write blanks.
fn same(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_below_proc_sys() {
        let good = path("net/ipv4/conf/eth0.1/forwarding").unwrap();
        assert_eq!(good, Path::new("/proc/sys/net/ipv4/conf/eth0.1/forwarding"));
        for bad in ["", "/etc/passwd", "../etc/passwd", "net/../../etc/passwd", "./net"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn values_are_compared_word_by_word() {
        assert!(same("0\t2147483647", "0 2147483647"));
        assert!(!same("0 1", "0 11"));
    }

    #[test]
    fn a_missing_setting_is_read_as_none_and_not_made() {
        let nowhere = path("net/ipv4/no_such_setting").unwrap();
        assert_eq!(read(&nowhere).unwrap(), None);
        assert!(write(&nowhere, "1").is_err());
        assert!(read(&path("kernel/ostype").unwrap()).unwrap().is_some());
    }
}
