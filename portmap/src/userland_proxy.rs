//! Finds the proxy program.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::unistd::{AccessFlags, access};

const NAME: &str = "netproxy";

/// The program the user named; else `netproxy` beside our own executable, where a build and a package put it; else the
/// first one in `PATH`.
pub(crate) fn find(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        check(path).with_context(|| format!("invalid userland-proxy-path: {}", path.display()))?;
        // One without a slash would be looked for in PATH when it is started.
        return std::path::absolute(path)
            .with_context(|| format!("invalid userland-proxy-path: {}", path.display()));
    }
    let beside = env::current_exe().ok().and_then(|own| own.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(NAME))
        .find(|candidate| candidate.is_absolute() && check(candidate).is_ok())
        .ok_or_else(|| {
            anyhow!("no {NAME} beside portmap or in $PATH: say where it is with --userland-proxy-path")
        })
}

/// Whether it is a file that we may execute.
fn check(path: &Path) -> io::Result<()> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    Ok(access(path, AccessFlags::X_OK)?)
}
