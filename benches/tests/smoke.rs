//! The bench itself, run as a user runs it, over nothing that this repository's other tests need.
#![allow(clippy::unwrap_used, reason = "these are tests, and so are their helpers")]

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Contenders that are in every checkout; the rest depends on what is installed.
const ARGUMENTS: [&str; 8] = [
    "--contenders",
    "direct,tokio-splice",
    "--only",
    "rr-1,udp-rr-1,mixed",
    "--rounds",
    "1",
    "--seconds",
    "0.2",
];

fn bench(arguments: &[&str], out: &Path) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).arg("--out").arg(out).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The files of a report by their endings; a second run in the same second would replace the first.
fn reports(out: &Path) -> Vec<String> {
    let ending = |entry: fs::DirEntry| entry.path().extension().unwrap().to_str().unwrap().to_owned();
    let mut endings: Vec<String> = fs::read_dir(out).unwrap().map(|entry| ending(entry.unwrap())).collect();
    endings.sort_unstable();
    endings
}

#[test]
fn a_short_run_is_reported_and_can_be_reported_again() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: network namespaces need root");
        assert!(env::var_os("E2E_REQUIRED").is_none(), "a test was left out");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let first = bench(&ARGUMENTS, out.path());
    assert!(first.contains("round trips beside 4 uploads"), "{first}");
    assert_eq!(reports(out.path()), ["html", "json", "md"]);

    let json = fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().path());
    let json = json.into_iter().find(|path| path.extension().unwrap() == "json").unwrap();
    let again = tempfile::tempdir().unwrap();
    assert_eq!(bench(&["--from", json.to_str().unwrap()], again.path()), first);
    assert_eq!(reports(again.path()), ["html", "json", "md"]);
}

#[test]
fn unknown_names_are_refused_before_anything_starts() {
    for (flag, name) in [("--only", "bulk"), ("--contenders", "docker")] {
        let output = Command::new(env!("CARGO_BIN_EXE_bench")).args([flag, name]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flag} {name}");
    }
}
