//! `portmap run` and its kin as a user meets them: exit codes, signals, terminals, logs, and what is left of it.
//!
//! The daemon's part is played by a stand-in, so no network is made. Needs root for mount and UTS namespaces.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use e2e::need;
use e2e::proc::Proc;
use e2e::standin::StandIn;
use e2e::wait;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Says `ready` as soon as it listens to signals, and goes on until one ends it.
const PATIENT: &str = "echo ready; while :; do sleep 0.02; done";

fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn names(told: &[(String, Value)]) -> Vec<&str> {
    told.iter().map(|(name, _)| name.as_str()).collect()
}

/// Processes with this word in their command line.
fn running(word: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|part| part == word.as_bytes())).count()
}

/// A number of seconds that nobody else sleeps.
fn odd_time(test: u32) -> String {
    format!("{}.{test}", 10_000 + std::process::id())
}

#[test]
fn the_daemon_hears_of_a_life_in_order() {
    let Some(()) = need::root() else { return };
    let daemon = StandIn::new();
    let script = "sleep 0.1; uname -n; cat /etc/hosts; echo $HOSTNAME $A; pwd; exit 7";
    let words = ["run", "--name", "web", "-h", "shop", "-e", "A=b", "-w", "/usr", "--", "sh", "-c", script];
    let (code, out, err) = said(&output(daemon.portmap(&words)));
    assert_eq!((code, out.as_str(), err.as_str()), (7, "shop\n10.1.2.3 shop\nshop b\n/usr\n", ""));
    let told = daemon.told();
    assert_eq!(names(&told), ["create", "start", "started", "exited"]);
    assert_eq!(told[3].1["ExitCode"], 7);
    assert_ne!(told[1].1["Pid"], told[2].1["Pid"]);
}

#[test]
fn a_command_that_cannot_start_is_explained() {
    let Some(()) = need::root() else { return };
    let cases = [
        (
            &["run", "nonsense-command"][..],
            127,
            127,
            r#"exec: "nonsense-command": executable file not found in $PATH"#,
        ),
        (&["run", "/etc/passwd"], 126, 126, r#"exec: "/etc/passwd": permission denied"#),
        (
            &["run", "-w", "/no/such", "true"],
            127,
            127,
            r#"chdir to cwd ("/no/such") failed: no such file or directory"#,
        ),
        (
            &["run", "-d", "nonsense-command"],
            127,
            127,
            r#"exec: "nonsense-command": executable file not found in $PATH"#,
        ),
    ];
    for (words, code, reported, text) in cases {
        let daemon = StandIn::new();
        let (status, out, err) = said(&output(daemon.portmap(words)));
        assert_eq!((status, out.as_str(), err), (code, "", format!("portmap: {text}\n")), "{words:?}");
        let told = daemon.told();
        assert_eq!(names(&told), ["create", "start", "exited"]);
        assert_eq!((&told[2].1["ExitCode"], &told[2].1["Error"]), (&reported.into(), &text.into()));
    }
}

#[test]
fn our_own_failures_are_125() {
    let daemon = StandIn::new();
    for words in [
        &["run"][..],
        &["run", "-p", "80:80", "true"],
        &["run", "--nonsense", "true"],
        &["run", "--netns", "/dev/null", "true"],
        &["run", "--net", "a", "--net", "a", "true"],
        &["run", "-i", "-t", "true"],
        &["create", "-w", "relative", "true"],
    ] {
        let (code, out, err) = said(&output(daemon.portmap(words)));
        assert_eq!((code, out.as_str(), err.lines().count()), (125, "", 1), "{words:?}: {err}");
        assert!(err.starts_with("portmap: "), "{err}");
    }
    assert!(daemon.told().is_empty());
}

#[test]
fn stdin_and_a_signals_end_come_through() {
    let Some(()) = need::root() else { return };
    let daemon = StandIn::new();
    let mut command = daemon.portmap(&["run", "sh", "-c", "cat; kill -9 $$"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    let (code, out, _) = said(&child.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (137, "hello"));
}

#[test]
fn signals_are_passed_on() {
    let Some(()) = need::root() else { return };
    let daemon = StandIn::new();
    let script =
        format!("trap 'echo hup' HUP; trap 'echo usr' USR1; trap 'echo term; exit 4' TERM; {PATIENT}");
    let mut run = Proc::spawn(&mut daemon.portmap(&["run", "sh", "-c", &script]));
    for (signal, word) in [
        (None, "ready"),
        (Some(Signal::SIGHUP), "hup"),
        (Some(Signal::SIGUSR1), "usr"),
        (Some(Signal::SIGTERM), "term"),
    ] {
        if let Some(signal) = signal {
            run.signal(signal);
        }
        wait::until(word, || run.stdout().contains(word));
    }
    assert_eq!(run.code(), 4);
    assert_eq!(run.stdout(), "ready\nhup\nusr\nterm\n");
    assert_eq!(daemon.hears("exited")["ExitCode"], 4);
}

#[test]
fn what_a_command_leaves_behind_ends_with_it() {
    let Some(()) = need::root() else { return };
    let daemon = StandIn::new();
    let time = odd_time(1);
    let script =
        format!("sleep {time} & setsid sleep {time} & setsid unshare -m sleep {time} & sleep 0.2; echo done");
    let (code, out, _) = said(&output(daemon.portmap(&["run", "sh", "-c", &script])));
    assert_eq!((code, out.as_str(), running(&time)), (0, "done\n", 0));
}

#[test]
fn a_command_dies_with_its_supervisor() {
    let Some(()) = need::root() else { return };
    let daemon = StandIn::new();
    let time = odd_time(2);
    let mut run = Proc::spawn(&mut daemon.portmap(&["run", "--name", "web", "sleep", &time]));
    let _ = daemon.hears("started");
    // A further command goes with it, though the supervisor can't see to that any more.
    assert_eq!(said(&output(daemon.portmap(&["exec", "-d", "web", "sleep", &time]))).0, 0);
    run.signal(Signal::SIGKILL);
    run.wait();
    wait::until("end of the command", || running(&time) == 0);
}

#[test]
fn a_daemon_that_comes_back_hears_of_the_end() {
    let Some(()) = need::root() else { return };
    let daemon = StandIn::new();
    let mut run =
        Proc::spawn(&mut daemon.portmap(&["run", "sh", "-c", &format!("trap 'exit 3' TERM; {PATIENT}")]));
    wait::until("ready", || run.stdout().contains("ready"));
    let _ = daemon.hears("started");
    daemon.cut();
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), 3);
    assert_eq!(daemon.hears("exited")["ExitCode"], 3);
    assert_eq!(run.stderr(), "");
}

#[test]
fn a_background_commands_output_is_kept() {
    let Some(()) = need::root() else { return };
    let daemon = StandIn::new();
    let script = "echo out; echo err >&2; echo again; printf part";
    let (code, id, err) = said(&output(daemon.portmap(&["run", "-d", "--name", "bg", "sh", "-c", script])));
    assert_eq!((code, id.len(), err.as_str()), (0, 65, ""));
    assert_eq!(daemon.hears("exited")["ExitCode"], 0);
    let (code, out, err) = said(&output(daemon.portmap(&["logs", "bg"])));
    assert_eq!((code, out.as_str(), err.as_str()), (0, "out\nagain\npart", "err\n"));
    let (_, out, err) = said(&output(daemon.portmap(&["logs", "--tail", "1", "-t", "bg"])));
    let (time, rest) = out.split_once(' ').unwrap();
    assert_eq!((time.len(), time.ends_with('Z'), rest, err.as_str()), (30, true, "part", ""), "{out}");
    // A second run's output comes behind the first's.
    assert_eq!(said(&output(daemon.portmap(&["start", "bg"]))), (0, "bg\n".to_owned(), String::new()));
    wait::until("second output", || {
        said(&output(daemon.portmap(&["logs", "bg"]))).1.ends_with("partout\nagain\npart")
    });
}

#[test]
fn logs_are_followed_to_the_end() {
    let Some(()) = need::root() else { return };
    let daemon = StandIn::new();
    let script = "echo one; read line < go; echo two; exit 1";
    let fifo = daemon.path().join("go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let folder = daemon.path().to_str().unwrap().to_owned();
    let started =
        said(&output(daemon.portmap(&["run", "-d", "--name", "bg", "-w", &folder, "sh", "-c", script])));
    assert_eq!(started.0, 0, "{started:?}");
    let mut logs = Proc::spawn(&mut daemon.portmap(&["logs", "-f", "bg"]));
    wait::until("first line", || logs.stdout() == "one\n");
    fs::write(&fifo, "go\n").unwrap();
    assert_eq!((logs.code(), logs.stdout().as_str()), (0, "one\ntwo\n"));
}

#[test]
fn a_background_command_can_have_a_terminal() {
    let Some(()) = need::root() else { return };
    let daemon = StandIn::new();
    let words = ["run", "-d", "-t", "--name", "bg", "sh", "-c", "test -t 0 && test -t 1 && stty size"];
    assert_eq!(said(&output(daemon.portmap(&words))).0, 0);
    assert_eq!(daemon.hears("exited")["ExitCode"], 0);
    assert_eq!(said(&output(daemon.portmap(&["logs", "bg"]))).1, "24 80\r\n");
}

#[test]
fn exec_joins_and_ends_with_the_sandbox() {
    let Some(()) = need::root() else { return };
    let daemon = StandIn::new();
    let mut run =
        Proc::spawn(&mut daemon.portmap(&["run", "--name", "web", "-e", "A=b", "sh", "-c", PATIENT]));
    let _ = daemon.hears("started");
    let exec = |words: &[&str]| said(&output(daemon.portmap(&[&["exec"], words].concat())));
    let script = "uname -n; cat /etc/hosts; echo $A $C; pwd; exit 5";
    let (code, out, err) = exec(&["-e", "C=d", "-w", "/usr", "web", "sh", "-c", script]);
    assert_eq!((code, err.as_str()), (5, ""));
    assert!(out.ends_with("b d\n/usr\n") && out.contains("10.1.2.3 "), "{out}");
    let missing = "exec failed: exec: \"nonsense\": executable file not found in $PATH\n";
    assert_eq!(exec(&["web", "nonsense"]), (127, String::new(), missing.to_owned()));
    assert_eq!(exec(&["web", "/etc/passwd"]).0, 126);
    let nobody = "Error response from daemon: No such container: nobody\n";
    assert_eq!(exec(&["nobody", "true"]), (1, String::new(), nobody.to_owned()));

    let time = odd_time(3);
    assert_eq!(exec(&["-d", "web", "sleep", &time]), (0, String::new(), String::new()));
    let mut guest = Proc::spawn(&mut daemon.portmap(&["exec", "web", "sleep", &time]));
    // Two commands, and two of ours with the same words.
    wait::until("guests", || running(&time) == 4);
    run.signal(Signal::SIGTERM);
    assert_eq!((run.code(), guest.code()), (143, 137));
    wait::until("end of the guests", || running(&time) == 0);
    let (code, _, err) = exec(&["web", "true"]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with("Error response from daemon: container ") && err.ends_with(" is not running\n"),
        "{err}"
    );
}

/// A shell with job control on a terminal of its own, as people have it.
struct Seat {
    master: File,
    seen: String,
    _shell: Proc,
}

impl Seat {
    fn new(daemon: &StandIn) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let slave: OwnedFd = slave;
        let socket = daemon.path().join("socket");
        let mut shell = Command::new("setsid");
        shell.args(["--ctty", "bash", "--norc", "--noprofile", "-i"]);
        shell
            .env("PS1", "$ ")
            .env("PORTMAP_HOST", format!("unix://{}", socket.display()))
            .env("P", e2e::bin::portmap());
        let shell = Proc::on_terminal(&mut shell, slave);
        Self { master: master.into(), seen: String::new(), _shell: shell }
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until `word` is shown, and forgets what came before.
    #[track_caller]
    fn sees(&mut self, word: &str) {
        let deadline = Instant::now() + wait::PATIENCE;
        while !self.seen.contains(word) {
            assert!(Instant::now() < deadline, "no {word:?} in {:?}", self.seen);
            let mut ready = [nix::poll::PollFd::new(
                std::os::fd::AsFd::as_fd(&self.master),
                nix::poll::PollFlags::POLLIN,
            )];
            if nix::poll::poll(&mut ready, 100u8).unwrap() > 0 {
                let mut buffer = [0; 4096];
                let length = self.master.read(&mut buffer).unwrap();
                self.seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        }
        let end = self.seen.find(word).unwrap() + word.len();
        self.seen.drain(..end);
    }
}

// What is typed is echoed: quotes inside of words keep that apart from what is printed.
#[test]
fn a_terminals_keys_reach_the_command_once() {
    let Some(()) = need::root() else { return };
    let Some(_) = need::program("bash") else { return };
    let daemon = StandIn::new();
    let mut seat = Seat::new(&daemon);
    seat.types("$P run sh -c 'trap \"n=x\\$n; echo in\"\"t-\\$n-\" INT; trap \"exit 4\" TERM; echo re\"\"ady; while :; do sleep 0.02; done'\r");
    seat.sees("ready");
    seat.types("\x03");
    seat.sees("int-x-");
    seat.types("\x03");
    seat.sees("int-xx-");
    seat.types("\x1c");
    seat.types("\recho co\"\"de=$?\r");
    seat.sees("code=131");
    seat.types("$P run sh -c 'echo re\"\"ady; exec sleep 100'\r");
    seat.sees("ready");
    seat.types("\x03");
    seat.types("\recho co\"\"de=$?\r");
    seat.sees("code=130");
}

#[test]
fn a_command_can_be_stopped_and_continued() {
    let Some(()) = need::root() else { return };
    let Some(_) = need::program("bash") else { return };
    let daemon = StandIn::new();
    let mut seat = Seat::new(&daemon);
    // By the terminal.
    seat.types("$P run sh -c 'trap \"exit 9\" TERM; echo re\"\"ady; while :; do sleep 0.02; done'\r");
    seat.sees("ready");
    seat.types("\x1a");
    seat.sees("Stopped");
    seat.types("kill %1; fg; echo co\"\"de=$?\r");
    seat.sees("code=9");
    // By itself.
    seat.types("$P run sh -c 'kill -STOP $$; echo wo\"\"ke; exit 8'\r");
    seat.sees("Stopped");
    seat.types("fg; echo co\"\"de=$?\r");
    seat.sees("woke");
    seat.sees("code=8");
    // A shell inside, with jobs of its own.
    seat.types("$P run -i -t bash --norc --noprofile -i\r");
    seat.types("sleep 100; echo in\"\"side=$?\r");
    std::thread::sleep(Duration::from_millis(300));
    seat.types("\x03");
    seat.types("echo in\"\"side=$?; exit 6\r");
    seat.sees("inside=130");
    seat.types("echo co\"\"de=$?\r");
    seat.sees("code=6");
}
