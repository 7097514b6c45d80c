//! What is read of the host besides its network: random bytes, processes, the boot, a few files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;

use super::error::{ControllerError, file};
use crate::model::BootId;

/// A source of random bytes.
#[derive(Debug)]
pub(super) struct Random(File);

impl Random {
    pub(super) fn open() -> Result<Self, ControllerError> {
        let path = Path::new("/dev/urandom");
        File::open(path).map(Self).map_err(file("open", path))
    }

    pub(super) fn bytes<const N: usize>(&self) -> Result<[u8; N], ControllerError> {
        let mut bytes = [0; N];
        (&self.0).read_exact(&mut bytes).map_err(file("read", Path::new("/dev/urandom")))?;
        Ok(bytes)
    }
}

/// This boot.
pub(super) fn boot() -> Result<BootId, ControllerError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(file("read", path))?;
    text.parse().map_err(|bad| file("read", path)(io::Error::new(io::ErrorKind::InvalidData, bad)))
}

/// When the kernel started a process, in clock ticks since boot; `None` if there is none, or only what is left of one.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in parentheses may contain anything, parentheses too. Behind it, the state is field 3 of the line.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") { None } else { fields.nth(18)?.parse().ok() }
}

/// The name servers of the host; none if it has no such file.
pub(super) fn name_servers() -> Vec<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        // A zone says through which interface; as a prefix to stay clear of, the address is all that counts.
        let address = words.next().filter(|_| is_server)?.split('%').next()?.to_owned();
        address.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

/// The hostname of the host.
pub(super) fn hostname() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    text.trim_end().to_owned()
}

/// A number that follows from texts and stays the same from one release to the next (FNV-1a), as the
/// standard library's hashes need not.
pub(super) fn fingerprint(texts: &[&[u8]]) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let bytes = texts.iter().flat_map(|text| text.iter().copied().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_and_a_zombie_is_none() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_stat(&format!("7 (a) b) {rest}")), Some(4711));
        assert_eq!(parse_stat(&format!("7 (a) {}", rest.replacen('S', "Z", 1))), None);
        assert_eq!(parse_stat("7 (a"), None);
        assert!(start_ticks(std::process::id()).is_some());
        assert_eq!(start_ticks(u32::MAX), None);
    }

    #[test]
    fn a_fingerprint_never_changes() {
        assert_eq!(fingerprint(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fingerprint(&[b"a"]), fingerprint(&[b"a"]));
        assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"a", b"bc"]));
    }
}
