//! What a command leaves in its sandbox ends. Alone in its file, because it ends what other tests run, too. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use netcore::process::{Files, Leftovers, Program, Session, Surroundings, spawn};
use nix::sys::prctl::set_child_subreaper;
use nix::unistd::geteuid;

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "no {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn program(script: &str) -> Program {
    Program {
        command: ["sh", "-c", script].map(Into::into).into(),
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        directory: "/".into(),
        session: Session::Shared,
        stdio: [Stdio::null(), Stdio::null(), Stdio::null()],
    }
}

/// Processes with this word in their command line that have not ended.
fn running(word: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|part| part == word.as_bytes())).count()
}

#[test]
fn leftovers_end() {
    if !geteuid().is_root() {
        let required = std::env::var_os("E2E_REQUIRED").is_some_and(|value| value == "1");
        assert!(!required, "needs root for namespaces, and E2E_REQUIRED=1 allows no skipping");
        let _ = writeln!(std::io::stderr(), "SKIP leftovers_end: needs root for namespaces");
        return;
    }
    set_child_subreaper(true).unwrap();
    let surroundings = Surroundings::Own {
        netns: None,
        hostname: "web".into(),
        domainname: String::new(),
        files: Files::default(),
    };
    let sleep = format!("{}.5", std::process::id());
    // Orphans: one in the sandbox's mount namespace, one that has left it for another, and its own child.
    let script = format!(
        "setsid sleep {sleep} & setsid unshare -m sh -c 'sleep {sleep} & sleep {sleep}; :' & sleep 60; :"
    );
    let mut command = spawn(program(&script), &surroundings).unwrap();
    let leftovers = Leftovers::of(command.id());
    until("three sleepers", || running(&sleep) == 3);
    // One that was started there by somebody else.
    let mut guest = spawn(program(&format!("sleep {sleep}; :")), &Surroundings::Of(command.id())).unwrap();
    // One that is no leftover, though it is our child.
    let mut neighbour = std::process::Command::new("sleep").arg(&sleep).spawn().unwrap();
    until("five sleepers", || running(&sleep) == 5);

    command.kill().unwrap();
    command.wait().unwrap();
    until("end of the leftovers", || leftovers.kill() == 0);
    assert_eq!(running(&sleep), 1);
    assert!(neighbour.try_wait().unwrap().is_none());
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
    // It was collected with the others, or is still to be.
    let _ = guest.wait();
}
