//! `portmap run` and its kin: signals, terminals, exit codes, output, and what is left of it all.
//!
//! Needs root, for the daemon and for namespaces.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::daemon::{Home, Said};
use e2e::lab::Host;
use e2e::proc::Proc;
use e2e::{bin, need, wait};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Says `ready` as soon as it listens to signals, and goes on until one ends it.
const PATIENT: &str = "echo ready; while :; do sleep 0.02; done";

fn home() -> Option<Home> {
    Home::new(&Host::new("host")?)
}

fn spawn(home: &Home, words: &[&str]) -> Proc {
    let mut command = home.command(bin::portmap());
    command.args(words);
    home.host().spawn(command)
}

/// Exit code, output and complaints.
fn said(said: Said) -> (i32, String, String) {
    (said.code, said.stdout, said.stderr)
}

/// The process behind nsenter, which waits for it.
fn inner(outer: &Proc) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", outer.pid());
    let pid = wait::some("inner process", wait::PATIENCE, || {
        fs::read_to_string(&children).ok()?.trim().parse().ok()
    });
    Pid::from_raw(pid)
}

fn inspect(home: &Home, what: &str, sandbox: &str) -> String {
    home.portmap(&["inspect", "-f", what, sandbox]).ok()
}

/// How many sleep for this time.
fn running(time: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| *line == format!("sleep\0{time}\0").as_bytes()).count()
}

/// A number of seconds that nobody else sleeps.
fn odd_time(test: u32) -> String {
    format!("{}.{test}", 10_000 + std::process::id())
}

#[test]
fn a_command_has_its_surroundings_and_the_daemon_hears_of_its_end() {
    let Some(home) = home() else { return };
    let script = "uname -n; cat /etc/hosts; echo $HOSTNAME $A; pwd; exit 7";
    let words = ["run", "--name", "web", "-h", "shop", "-e", "A=b", "-w", "/usr", "--", "sh", "-c", script];
    let (code, out, err) = said(home.portmap(&words));
    assert_eq!((code, err.as_str()), (7, ""));
    assert!(out.starts_with("shop\n") && out.ends_with("shop b\n/usr"), "{out}");
    assert!(out.contains("172.17.0.2\tshop"), "{out}");
    assert_eq!(inspect(&home, "{{.State.Status}} {{.State.ExitCode}}|{{.State.Error}}", "web"), "exited 7|");
}

#[test]
fn a_command_that_cannot_start_is_explained() {
    let Some(home) = home() else { return };
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
        let (status, out, err) = said(home.portmap(words));
        assert_eq!((status, out.as_str(), err), (code, "", format!("portmap: {text}")), "{words:?}");
        let last = home.portmap(&["ps", "-a", "-q", "-n", "1"]).ok();
        let state = inspect(&home, "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}", &last);
        assert_eq!(state, format!("exited {reported} {text}"));
    }
}

#[test]
fn our_own_failures_are_125() {
    let Some(home) = home() else { return };
    for words in [
        &["run"][..],
        &["run", "-p", "80:80:80", "true"],
        &["run", "--nonsense", "true"],
        &["run", "--netns", "/dev/null", "true"],
        &["run", "--net", "a", "--net", "a", "true"],
        &["run", "-i", "-t", "true"],
        &["create", "-w", "relative", "true"],
    ] {
        let (code, out, err) = said(home.portmap(words));
        assert_eq!((code, out.as_str(), err.lines().count()), (125, "", 1), "{words:?}: {err}");
        assert!(err.starts_with("portmap: "), "{err}");
    }
    // Nobody was asked, so nobody was started.
    assert!(!home.listens());
}

#[test]
fn stdin_and_a_signals_end_come_through() {
    let Some(home) = home() else { return };
    let mut command = home.command(bin::portmap());
    command.args(["run", "sh", "-c", "cat; kill -9 $$"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = home.host().enter(move || command.spawn().unwrap());
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(137), &b"hello"[..]));
}

#[test]
fn signals_are_passed_on() {
    let Some(home) = home() else { return };
    let script =
        format!("trap 'echo hup' HUP; trap 'echo usr' USR1; trap 'echo term; exit 4' TERM; {PATIENT}");
    let mut run = spawn(&home, &["run", "--name", "web", "sh", "-c", &script]);
    for (signal, word) in [
        (None, "ready"),
        (Some(Signal::SIGHUP), "hup"),
        (Some(Signal::SIGUSR1), "usr"),
        (Some(Signal::SIGTERM), "term"),
    ] {
        if let Some(signal) = signal {
            kill(inner(&run), signal).unwrap();
        }
        wait::until(word, || run.stdout().contains(word));
    }
    assert_eq!(run.code(), 4);
    assert_eq!(run.stdout(), "ready\nhup\nusr\nterm\n");
    assert_eq!(inspect(&home, "{{.State.ExitCode}}", "web"), "4");
}

#[test]
fn what_a_command_leaves_behind_ends_with_it() {
    let Some(home) = home() else { return };
    let time = odd_time(1);
    let script =
        format!("sleep {time} & setsid sleep {time} & setsid unshare -m sleep {time} & sleep 0.2; echo done");
    let (code, out, _) = said(home.portmap(&["run", "sh", "-c", &script]));
    assert_eq!((code, out.as_str(), running(&time)), (0, "done", 0));
}

#[test]
fn a_command_dies_with_its_supervisor() {
    let Some(home) = home() else { return };
    let time = odd_time(2);
    let mut run = spawn(&home, &["run", "--name", "web", "sleep", &time]);
    wait::until("command", || running(&time) == 1);
    // A further command goes with it, though the supervisor can't see to that any more.
    home.portmap(&["exec", "-d", "web", "sleep", &time]).ok();
    kill(inner(&run), Signal::SIGKILL).unwrap();
    run.wait();
    wait::until("end of the command", || running(&time) == 0);
}

#[test]
fn a_daemon_that_comes_back_hears_of_the_end() {
    let Some(home) = home() else { return };
    let script = format!("trap 'exit 3' TERM; {PATIENT}");
    let mut run = spawn(&home, &["run", "--name", "web", "sh", "-c", &script]);
    wait::until("ready", || run.stdout().contains("ready"));
    home.kill_daemon();
    kill(inner(&run), Signal::SIGTERM).unwrap();
    assert_eq!(run.code(), 3);
    assert_eq!(inspect(&home, "{{.State.Status}} {{.State.ExitCode}}", "web"), "exited 3");
    assert_eq!(run.stderr(), "");
}

#[test]
fn a_background_commands_output_is_kept() {
    let Some(home) = home() else { return };
    let script = "echo out; echo err >&2; echo again; printf part";
    let (code, id, err) = said(home.portmap(&["run", "-d", "--name", "bg", "sh", "-c", script]));
    assert_eq!((code, id.len(), err.as_str()), (0, 64, ""));
    assert_eq!(ended(&home, "bg"), 0);
    let (code, out, err) = said(home.portmap(&["logs", "bg"]));
    assert_eq!((code, out.as_str(), err.as_str()), (0, "out\nagain\npart", "err"));
    let (_, out, err) = said(home.portmap(&["logs", "--tail", "1", "-t", "bg"]));
    let (time, rest) = out.split_once(' ').unwrap();
    assert_eq!((time.len(), time.ends_with('Z'), rest, err.as_str()), (30, true, "part", ""), "{out}");
    // A second run's output comes behind the first's.
    assert_eq!(said(home.portmap(&["start", "bg"])), (0, "bg".to_owned(), String::new()));
    wait::until("second output", || said(home.portmap(&["logs", "bg"])).1.ends_with("partout\nagain\npart"));
}

#[test]
fn logs_are_followed_to_the_end() {
    let Some(home) = home() else { return };
    let script = "echo one; read line < go; echo two; exit 1";
    let fifo = home.path("go");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let folder = home.path("").to_str().unwrap().to_owned();
    let started = said(home.portmap(&["run", "-d", "--name", "bg", "-w", &folder, "sh", "-c", script]));
    assert_eq!(started.0, 0, "{started:?}");
    let mut logs = spawn(&home, &["logs", "-f", "bg"]);
    wait::until("first line", || logs.stdout() == "one\n");
    fs::write(&fifo, "go\n").unwrap();
    assert_eq!((logs.code(), logs.stdout().as_str()), (0, "one\ntwo\n"));
}

#[test]
fn a_background_command_can_have_a_terminal() {
    let Some(home) = home() else { return };
    let words = ["run", "-d", "-t", "--name", "bg", "sh", "-c", "test -t 0 && test -t 1 && stty size"];
    assert_eq!(said(home.portmap(&words)).0, 0);
    assert_eq!(ended(&home, "bg"), 0);
    assert_eq!(said(home.portmap(&["logs", "bg"])).1, "24 80");
}

#[test]
fn exec_joins_and_ends_with_the_sandbox() {
    let Some(home) = home() else { return };
    let mut run = spawn(&home, &["run", "--name", "web", "-e", "A=b", "sh", "-c", PATIENT]);
    wait::until("ready", || run.stdout().contains("ready"));
    let exec = |words: &[&str]| said(home.portmap(&[&["exec"], words].concat()));
    let script = "uname -n; cat /etc/hosts; echo $A $C; pwd; exit 5";
    let (code, out, err) = exec(&["-e", "C=d", "-w", "/usr", "web", "sh", "-c", script]);
    assert_eq!((code, err.as_str()), (5, ""));
    assert!(out.ends_with("b d\n/usr") && out.contains("172.17.0.2\t"), "{out}");
    let missing = "exec failed: exec: \"nonsense\": executable file not found in $PATH";
    assert_eq!(exec(&["web", "nonsense"]), (127, String::new(), missing.to_owned()));
    assert_eq!(exec(&["web", "/etc/passwd"]).0, 126);
    let nobody = "Error response from daemon: No such container: nobody";
    assert_eq!(exec(&["nobody", "true"]), (1, String::new(), nobody.to_owned()));

    let time = odd_time(3);
    assert_eq!(exec(&["-d", "web", "sleep", &time]), (0, String::new(), String::new()));
    let mut guest = spawn(&home, &["exec", "web", "sleep", &time]);
    wait::until("guests", || running(&time) == 2);
    kill(inner(&run), Signal::SIGTERM).unwrap();
    assert_eq!((run.code(), guest.code()), (143, 137));
    wait::until("end of the guests", || running(&time) == 0);
    let (code, _, err) = exec(&["web", "true"]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with("Error response from daemon: container ") && err.ends_with(" is not running"),
        "{err}"
    );
}

/// Waits for a sandbox's end; gives its exit code.
fn ended(home: &Home, sandbox: &str) -> i32 {
    let what = "{{.State.Status}} {{.State.ExitCode}}";
    wait::some("end of the sandbox", wait::PATIENCE, || {
        inspect(home, what, sandbox).strip_prefix("exited ")?.parse().ok()
    })
}

/// A shell with job control on a terminal of its own, as people have it.
struct Seat {
    master: File,
    seen: String,
    _shell: Proc,
}

impl Seat {
    fn new(home: &Home) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let slave: OwnedFd = slave;
        let mut shell: Command = home.command("setsid");
        shell.args(["--ctty", "bash", "--norc", "--noprofile", "-i"]);
        shell.env("PS1", "$ ").env("P", bin::portmap());
        let shell = home.host().enter(move || Proc::on_terminal(&mut shell, slave));
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
    let Some(_) = need::program("bash") else { return };
    let Some(home) = home() else { return };
    let mut seat = Seat::new(&home);
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
    let Some(_) = need::program("bash") else { return };
    let Some(home) = home() else { return };
    let mut seat = Seat::new(&home);
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

#[test]
fn whoever_is_told_to_end_early_leaves_nothing_running() {
    let Some(home) = home() else { return };
    let mut daemon = home.daemon(&[]);
    for delay in (0..60).step_by(3) {
        let signal = if delay % 2 == 0 { Signal::SIGTERM } else { Signal::SIGINT };
        let mut run = spawn(&home, &["run", "--rm", "sleep", "1000"]);
        let pid = inner(&run);
        std::thread::sleep(Duration::from_millis(delay));
        let _ = kill(pid, signal);
        let ended = run.wait();
        assert!(!ended.success(), "{ended:?}");
        assert_eq!(run.stderr(), "");
    }
    wait::until("end of all", || home.portmap(&["ps", "-q"]).ok().is_empty());
    wait::until("end of their interfaces", || {
        home.run("ip", &["-br", "link", "show", "master", "portmap0"]).stdout.is_empty()
    });
    let pins = home.seen(home.path("run/netns").to_str().unwrap());
    wait::until("end of their namespaces", || {
        assert!(daemon.ended().is_none(), "the daemon has left: {}", daemon.stderr());
        fs::read_dir(&pins).unwrap().count() == 0
    });
}

#[test]
fn closed_descriptors_are_no_trouble() {
    let Some(home) = home() else { return };
    let _daemon = home.daemon(&[]);
    let portmap = bin::portmap().display().to_string();
    for (redirected, code) in [
        ("run --rm sh -c 'exit 7' <&- >&- 2>&-", 7),
        ("run --rm cat <&-", 0),
        ("run -d --rm sleep 1 <&- >&- 2>&-", 0),
        ("ps -q <&- >&- 2>&-", 0),
        ("run --rm true >/dev/full", 0),
        ("ps >/dev/full", 1),
    ] {
        let said = home.run("sh", &["-c", &format!("{portmap} {redirected}")]);
        assert_eq!(said.code, code, "{redirected}: {said:?}");
    }
    // A command gets those that we got, and none of ours.
    let ours = home.run("sh", &["-c", "ls /proc/self/fd"]).ok();
    assert_eq!(home.run("sh", &["-c", &format!("{portmap} run --rm ls /proc/self/fd")]).ok(), ours);
}
