//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// Places where packages put docker-proxy, most specific first; `$PATH` comes after them.
const DOCKER_PROXY: &[&str] = &[
    "/usr/local/libexec/docker/docker-proxy",
    "/usr/libexec/docker/docker-proxy",
    "/usr/local/lib/docker/docker-proxy",
    "/usr/lib/docker/docker-proxy",
    "/usr/sbin/docker-proxy",
];

/// Our proxy.
#[must_use]
pub fn netproxy() -> PathBuf {
    ours("netproxy")
}

/// Our command line.
#[must_use]
pub fn portmap() -> PathBuf {
    ours("portmap")
}

/// Docker's proxy, where it is installed.
#[must_use]
pub fn docker_proxy() -> Option<PathBuf> {
    DOCKER_PROXY.iter().map(PathBuf::from).find(|p| p.exists()).or_else(|| on_path("docker-proxy"))
}

/// The first file called `name` in the folders of `$PATH`.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|p| p.is_file())
}

/// `$PORTMAP_BIN_DIR`, else `bin` in the target directory this test was built into.
fn ours(name: &str) -> PathBuf {
    let folder = std::env::var_os("PORTMAP_BIN_DIR").map_or_else(|| target_dir().join("bin"), PathBuf::from);
    let program = folder.join(name);
    assert!(program.exists(), "{} is missing: run `make build` first", program.display());
    program
}

/// The folder above this test that cargo marked as its own. Not asked of cargo: a test may run without it.
fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a process has an executable");
    let marked = test.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    marked.map_or_else(|| PathBuf::from("target"), Path::to_owned)
}
