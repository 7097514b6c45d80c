//! Real processes: shell scripts that play the proxy's part of the agreement.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::allocator::Allocator;
use super::super::bindings::{HostDefaults, plan};
use super::super::ephemeral::EphemeralPorts;
use super::super::reserve::reserve;
use super::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

/// A forked child holds a script open for writing until it execs, and then nobody can run it: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Fixture {
    folder: tempfile::TempDir,
    interrupt: (UnixStream, UnixStream),
    _turn: MutexGuard<'static, ()>,
}

impl Fixture {
    fn new(script: &str) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let text = format!("#!/bin/sh\ncd {}\n{script}\n", folder.path().display());
        fs::write(folder.path().join("proxy"), text).unwrap();
        fs::set_permissions(folder.path().join("proxy"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, interrupt: UnixStream::pair().unwrap(), _turn: turn }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> ProxyCommand {
        ProxyCommand::new(self.path("proxy"))
    }

    fn start(&self, command: ProxyCommand) -> Result<Supervisor, ProxyError> {
        let reservations = reserved(&["127.0.0.1::80"]);
        Supervisor::start(command, with_target(reservations), self.interrupt.0.as_fd())
    }
}

fn reserved(specs: &[&str]) -> Vec<Reservation> {
    let specs: Vec<_> = specs.iter().map(|text| text.parse().unwrap()).collect();
    let groups = plan(&specs, &HostDefaults::default()).unwrap();
    reserve(&mut Allocator::new(EphemeralPorts::of_this_host()), &groups).unwrap()
}

fn with_target(reservations: Vec<Reservation>) -> Vec<(Reservation, IpAddr)> {
    reservations.into_iter().map(|reservation| (reservation, "172.17.0.2".parse().unwrap())).collect()
}

/// Asks again and again, for ten seconds at most.
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pid(proxies: &Supervisor) -> Option<u32> {
    proxies.statuses().next().unwrap().pid
}

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
}

const SERVE: &str = "printf '0\\n' >&3; exec 3>&-; exec sleep 1000";

#[test]
fn the_command_line_is_dockerds() {
    let command = ProxyCommand::new("/x".into()).option(["--drain", "5"]);
    let words = |specs: &[&str]| {
        let reservation = reserved(specs).remove(0);
        let words = command.arguments(&reservation, "172.17.0.2".parse().unwrap(), Takes::Many);
        let port = reservation.host().first().to_string();
        words.iter().map(|word| word.to_str().unwrap().replace(&port, "H")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        words(&["127.0.0.1::80/udp"]),
        "-proto udp -host-ip 127.0.0.1 -host-port H -container-ip 172.17.0.2 -container-port 80 \
         -use-listen-fd --drain 5"
    );
    assert_eq!(
        words(&["127.0.0.1::80", "127.0.0.2::80"]),
        "-proto tcp -host-ip 127.0.0.1 -host-port H -container-ip 172.17.0.2 -container-port 80 \
         -use-listen-fd --listen-fds 2 --drain 5"
    );
}

#[test]
fn the_proxy_finds_its_descriptors_in_place_and_no_others() {
    let fixture = Fixture::new(&format!("ls -l /proc/$$/fd > fds\n{SERVE}"));
    let sockets = reserved(&["127.0.0.1::80", "127.0.0.2::80", "127.0.0.3::80"]);
    let _others = reserved(&["127.0.0.1::80", "127.0.0.1::80/udp"]);
    let proxies =
        Supervisor::start(fixture.command(), with_target(sockets), fixture.interrupt.0.as_fd()).unwrap();
    let listing = fs::read_to_string(fixture.path("fds")).unwrap();
    let kind = |number: u32| {
        let line = listing.lines().find(|line| line.contains(&format!(" {number} -> ")))?;
        Some(line.split(" -> ").nth(1)?.split(':').next()?.to_owned())
    };
    let kinds: Vec<_> = (3..10).filter_map(kind).collect();
    assert_eq!(kinds, ["pipe", "socket", "socket", "socket"], "{listing}");
    assert_eq!(kind(0).as_deref(), Some("/dev/null"), "{listing}");
    drop(proxies);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let fixture = Fixture::new(SERVE);
    let error = fixture.start(ProxyCommand::new("/nowhere/proxy".into())).unwrap_err().to_string();
    assert!(
        error.ends_with(":172.17.0.2:80/tcp: /nowhere/proxy: No such file or directory (os error 2)"),
        "{error}"
    );
}

#[test]
fn a_proxy_that_says_why_it_cannot_serve_is_quoted() {
    let fixture = Fixture::new("printf '1\\nunsupported protocol xyz' >&3; exit 1");
    let error = fixture.start(fixture.command()).unwrap_err().to_string();
    assert!(
        error.starts_with("failed to start userland proxy for port mapping 127.0.0.1:")
            && error.ends_with(":172.17.0.2:80/tcp: error starting userland proxy: unsupported protocol xyz"),
        "{error}"
    );
}

#[test]
fn a_program_that_is_no_proxy_is_named_with_its_exit() {
    let fixture = Fixture::new("exit 2");
    let error = fixture.start(fixture.command()).unwrap_err().to_string();
    assert!(error.ends_with("/proxy exited with status 2 before it was ready"), "{error}");
    let missing = ProxyCommand::new("/nonexistent/proxy".into());
    let error = fixture.start(missing).unwrap_err().to_string();
    assert!(error.contains("No such file or directory"), "{error}");
}

#[test]
fn a_proxy_that_stays_silent_is_given_up_and_killed() {
    let fixture = Fixture::new("echo $$ > pid; exec sleep 1000");
    let command = fixture.command().start_timeout(Duration::from_millis(300));
    let error = fixture.start(command).unwrap_err().to_string();
    assert!(error.ends_with(": timed out starting the userland proxy"), "{error}");
    let pid = fs::read_to_string(fixture.path("pid")).unwrap();
    assert!(!runs(pid.trim().parse().unwrap()));
}

#[test]
fn a_start_can_be_interrupted() {
    let fixture = Fixture::new("exec sleep 1000");
    (&fixture.interrupt.1).write_all(b"!").unwrap();
    assert!(matches!(fixture.start(fixture.command()), Err(ProxyError::Interrupted)));
}

#[test]
fn a_killed_proxy_is_replaced_at_once() {
    let fixture = Fixture::new(SERVE);
    let mut proxies = fixture.start(fixture.command()).unwrap();
    assert!(proxies.tend(Instant::now()).is_empty() && proxies.next_deadline().is_none());
    let first = pid(&proxies).unwrap();
    kill(Pid::from_raw(first.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let events = eventually("the death is noticed", || {
        Some(proxies.tend(Instant::now())).filter(|events| !events.is_empty())
    });
    let lines: Vec<String> = events.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with("/tcp was killed by SIGKILL, starting another"), "{lines:?}");
    let second = pid(&proxies).unwrap();
    assert_ne!(first, second);
    assert!(lines[1].starts_with(&format!("userland proxy {second} now serves 127.0.0.1:")), "{lines:?}");
    eventually("the new one serves", || {
        proxies.tend(Instant::now());
        proxies.next_deadline().is_none().then_some(())
    });
    drop(proxies);
    assert!(!runs(second));
}

#[test]
fn a_proxy_that_keeps_dying_is_started_ever_more_slowly_but_never_given_up() {
    let fixture = Fixture::new(&format!("[ -e broken ] && {{ printf '1\\nno luck' >&3; exit 1; }}\n{SERVE}"));
    let mut proxies = fixture.start(fixture.command()).unwrap();
    fs::write(fixture.path("broken"), "").unwrap();
    kill(Pid::from_raw(pid(&proxies).unwrap().try_into().unwrap()), Signal::SIGKILL).unwrap();
    // Time is a parameter: each death is answered by jumping to the end of the pause.
    let mut now = Instant::now();
    let mut pauses = Vec::new();
    while pauses.len() < 9 {
        for event in proxies.tend(now) {
            if let ProxyEvent::Exited { pause, exit, .. } = event {
                pauses.push(pause.as_millis());
                now += pause;
                let said = exit.to_string();
                assert!(pauses.len() == 1 || said == "exited with status 1 (no luck)", "{said}");
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1000, 1000, 1000]);
    fs::remove_file(fixture.path("broken")).unwrap();
    eventually("it serves again", || {
        proxies.tend(now);
        (pid(&proxies).is_some() && proxies.next_deadline().is_none()).then_some(())
    });
}

#[test]
fn a_replacement_that_hangs_before_it_serves_is_replaced_too() {
    let fixture = Fixture::new(&format!("[ -e stuck ] && exec sleep 1000\n{SERVE}"));
    let mut proxies = fixture.start(fixture.command()).unwrap();
    fs::write(fixture.path("stuck"), "").unwrap();
    kill(Pid::from_raw(pid(&proxies).unwrap().try_into().unwrap()), Signal::SIGKILL).unwrap();
    eventually("the death is noticed", || (!proxies.tend(Instant::now()).is_empty()).then_some(()));
    let (stuck, deadline) = (pid(&proxies).unwrap(), proxies.next_deadline().unwrap());
    fs::remove_file(fixture.path("stuck")).unwrap();
    let events = proxies.tend(deadline);
    assert!(!events.is_empty() && !runs(stuck));
    assert_ne!(pid(&proxies), Some(stuck));
}

#[test]
fn a_stop_asks_with_sigint_and_a_drop_insists() {
    let obedient = Fixture::new(SERVE);
    let mut proxies = obedient.start(obedient.command()).unwrap();
    proxies.request_stop();
    eventually("it ends", || {
        assert!(proxies.tend(Instant::now()).is_empty(), "an end that was asked for is no event");
        proxies.is_over().then_some(())
    });
    drop((proxies, obedient));

    let stubborn = Fixture::new(&format!("trap '' INT TERM\n{SERVE}"));
    let mut proxies = stubborn.start(stubborn.command()).unwrap();
    let pid = pid(&proxies).unwrap();
    proxies.request_stop();
    proxies.tend(Instant::now());
    assert!(!proxies.is_over() && runs(pid));
    drop(proxies);
    assert!(!runs(pid));
}

#[test]
fn proxies_end_with_the_thread_that_started_them() {
    let fixture = Fixture::new(SERVE);
    let pid = std::thread::scope(|scope| {
        let proxies = scope.spawn(|| std::mem::ManuallyDrop::new(fixture.start(fixture.command()).unwrap()));
        pid(&proxies.join().unwrap()).unwrap()
    });
    eventually("it is gone", || (!runs(pid)).then_some(()));
}
