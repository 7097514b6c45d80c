//! Commands in surroundings of their own, for real: what they see, how they fail, how they end. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;

use netcore::process::{
    Files, Mounts, Program, Session, SpawnError, Surroundings, Terminal, spawn, spawn_in,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, chroot, geteuid};

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        let required = std::env::var_os("E2E_REQUIRED").is_some_and(|value| value == "1");
        assert!(!required, "needs root for namespaces, and E2E_REQUIRED=1 allows no skipping");
        let test = thread::current().name().unwrap_or("test").to_owned();
        let _ = writeln!(std::io::stderr(), "SKIP {test}: needs root for namespaces");
    }
    root
}

fn own(files: Files) -> Surroundings {
    Surroundings::Own { netns: None, hostname: "web".into(), domainname: "lan".into(), files }
}

fn program(command: &[&str]) -> Program {
    Program {
        command: command.iter().map(OsString::from).collect(),
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()), ("A".into(), "b".into())],
        directory: "/".into(),
        session: Session::Shared,
        stdio: [Stdio::null(), Stdio::piped(), Stdio::inherit()],
    }
}

/// What a shell prints that runs `script`.
fn printed(script: &str, surroundings: &Surroundings) -> String {
    printed_in(script, surroundings, None)
}

/// The same, with and without a mount namespace that was prepared.
fn printed_both_ways(script: &str, surroundings: &Surroundings) -> String {
    let text = printed(script, surroundings);
    assert_eq!(printed_in(script, surroundings, Some(Mounts::prepare())), text, "{script}");
    text
}

fn printed_in(script: &str, surroundings: &Surroundings, mounts: Option<Mounts>) -> String {
    let mut child = spawn_in(program(&["sh", "-c", script]), surroundings, mounts).unwrap();
    let text = text(&mut child);
    assert!(child.wait().unwrap().success(), "{script}: {text}");
    text
}

fn text(child: &mut Child) -> String {
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_command_has_names_and_files_of_its_own() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        Some(path)
    };
    let before = fs::read_to_string("/etc/hosts").unwrap();
    let files = Files {
        hosts: file("hosts", "10.0.0.2 web\n"),
        hostname: file("hostname", "web\n"),
        resolv_conf: None,
    };
    let seen = printed_both_ways(
        "uname -n; cat /proc/sys/kernel/domainname /etc/hosts; echo $A $HOME",
        &own(files.clone()),
    );
    assert_eq!(seen, "web\nlan\n10.0.0.2 web\nb\n");
    // Written in place by us, seen inside; the host's is untouched.
    let mut waiting = program(&["sh", "-c", "read line; cat /etc/hosts"]);
    waiting.stdio[0] = Stdio::piped();
    let mut child = spawn(waiting, &own(files)).unwrap();
    file("hosts", "10.0.0.3 db\n");
    drop(child.stdin.take());
    assert_eq!(text(&mut child), "10.0.0.3 db\n");
    child.wait().unwrap();
    assert_eq!(fs::read_to_string("/etc/hosts").unwrap(), before);
}

#[test]
fn mounts_stay_inside() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs none {0} && touch {0}/inside && ls {0}", folder.path().display());
    assert_eq!(printed_both_ways(&script, &own(Files::default())), "inside\n");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_command_keeps_the_root_of_who_starts_it() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    fs::write(root.join("marker"), "").unwrap();
    let places = ["usr", "bin", "lib", "lib64", "proc", "dev"];
    places.iter().for_each(|place| fs::create_dir(root.join(place)).unwrap());
    let confined = thread::spawn(move || {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some(&root), &root, none, MsFlags::MS_BIND, none).unwrap();
        for place in places.iter().filter(|place| Path::new("/").join(place).exists()) {
            let from = Path::new("/").join(place);
            mount(Some(&from), &root.join(place), none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
        }
        chroot(&root).unwrap();
        printed_both_ways("ls -d /marker; pwd", &own(Files::default()))
    });
    assert_eq!(confined.join().unwrap(), "/marker\n/\n");
}

#[test]
fn a_command_is_in_the_namespace_it_was_given() {
    if !is_root() {
        return;
    }
    let namespace = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    let namespace = namespace.join().unwrap();
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()));
    let want = fs::read_link(&path).unwrap();
    let surroundings = Surroundings::Own {
        netns: Some(path.clone()),
        hostname: "a".into(),
        domainname: String::new(),
        files: Files::default(),
    };
    assert_eq!(printed("readlink /proc/self/ns/net", &surroundings).trim(), want.to_str().unwrap());
    netcore::process::check_namespace(&path).unwrap();

    for not_one in ["/dev/null", "/proc/self/ns/mnt", "/etc"] {
        let error = netcore::process::check_namespace(Path::new(not_one)).unwrap_err().to_string();
        assert_eq!(error, format!("cannot enter the network namespace {not_one}: not a network namespace"));
        let netns = Some(not_one.into());
        let surroundings = match surroundings.clone() {
            Surroundings::Own { hostname, domainname, files, .. } => {
                Surroundings::Own { netns, hostname, domainname, files }
            }
            other => other,
        };
        let error = spawn(program(&["true"]), &surroundings).unwrap_err();
        assert_eq!(error.to_string(), "cannot enter the sandbox's network namespace: invalid argument");
        assert_eq!(error.exit_code(), None);
    }
}

#[test]
fn others_join_a_running_command() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, "10.0.0.2 web\n").unwrap();
    let surroundings = own(Files { hosts: Some(hosts), ..Files::default() });
    let mut target = spawn(program(&["sleep", "60"]), &surroundings).unwrap();
    let pid = target.id();
    assert!(netcore::process::is_apart(pid) && !netcore::process::is_apart(std::process::id()));

    let script = "uname -n; cat /etc/hosts; readlink /proc/self/ns/mnt";
    let seen = printed(script, &Surroundings::Of(pid));
    let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_eq!(seen, format!("web\n10.0.0.2 web\n{}\n", namespace.display()));
    let seen = printed(script, &Surroundings::Shared { netns: None, with: pid });
    assert!(seen.starts_with("web\n10.0.0.2 web\nmnt:"), "{seen}");
    assert!(!seen.contains(namespace.to_str().unwrap()), "what it mounts stays its own");

    target.kill().unwrap();
    target.wait().unwrap();
    let error = spawn(program(&["true"]), &Surroundings::Of(pid)).unwrap_err().to_string();
    assert_eq!(error, format!("cannot enter the namespaces of process {pid}: no such process"));
}

#[test]
fn what_fails_is_named() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    let script = script.to_str().unwrap();
    let none = Files::default();
    let missing = Files { hosts: Some("/no/such/file".into()), ..Files::default() };
    let cases = [
        (
            &["nonsense-command"][..],
            &none,
            "/",
            r#"exec: "nonsense-command": executable file not found in $PATH"#,
            Some(127),
        ),
        (&["/no/such"], &none, "/", r#"exec: "/no/such": no such file or directory"#, Some(127)),
        (&["/etc/passwd"], &none, "/", r#"exec: "/etc/passwd": permission denied"#, Some(126)),
        (&["/etc"], &none, "/", r#"exec: "/etc": is a directory"#, Some(126)),
        (&[""], &none, "/", "no command specified", None),
        (
            &["true"],
            &none,
            "/no/such",
            r#"chdir to cwd ("/no/such") failed: no such file or directory"#,
            Some(127),
        ),
        (
            &["true"],
            &none,
            "/etc/passwd",
            r#"chdir to cwd ("/etc/passwd") failed: not a directory"#,
            Some(126),
        ),
        (
            &["true"],
            &missing,
            "/",
            "cannot mount /no/such/file over /etc/hosts: no such file or directory",
            None,
        ),
        (&[script], &none, "/", &format!("exec: {script:?}: permission denied"), Some(126)),
    ];
    for (command, files, directory, text, code) in cases {
        let mut program = program(command);
        program.directory = directory.into();
        let error = spawn(program, &own(files.clone())).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.exit_code()), (text, code));
    }
    let mut session = program(&["true"]);
    session.session = Session::OwnWithTerminal;
    let error = spawn(session, &own(none)).unwrap_err().to_string();
    assert_eq!(error, "cannot take the terminal: inappropriate ioctl for device");
}

#[test]
fn the_path_is_the_commands() {
    if !is_root() {
        return;
    }
    let mut lost = program(&["true"]);
    lost.env = vec![("PATH".into(), "/no/such".into())];
    let error = spawn(lost, &own(Files::default())).unwrap_err();
    assert!(matches!(error, SpawnError::NotFound(_)), "{error}");
}

#[test]
fn signals_have_their_usual_effect_inside() {
    if !is_root() {
        return;
    }
    let status = printed("cat /proc/self/status", &own(Files::default()));
    let is_set = |line: &&str| ["SigBlk", "SigIgn", "SigCgt"].iter().any(|name| line.starts_with(name));
    for line in status.lines().filter(is_set) {
        // SIGHUP, SIGINT and SIGQUIT may have been ignored when these tests were started; 32 and 33 are the C library's own.
        let set = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        assert_eq!(set & !(0b111 | 0b11 << 31), 0, "{line}");
    }
    let mut child = spawn(program(&["sleep", "60"]), &own(Files::default())).unwrap();
    nix::sys::signal::kill(Pid::from_raw(child.id().try_into().unwrap()), nix::sys::signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(15));
}

#[test]
fn a_command_dies_with_the_thread_that_started_it() {
    if !is_root() {
        return;
    }
    let started = thread::spawn(|| spawn(program(&["sleep", "60"]), &own(Files::default())).unwrap());
    let mut child = started.join().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn a_terminal_is_the_commands_own() {
    if !is_root() {
        return;
    }
    let ([stdin, stdout, stderr], master) = Terminal::open().unwrap().into_parts().unwrap();
    let mut program = program(&["sh", "-c", "tty; stty size; read line; echo got $line; kill -9 $$"]);
    program.stdio = [stdin, stdout, stderr];
    program.session = Session::OwnWithTerminal;
    let mut child = spawn(program, &own(Files::default())).unwrap();
    let mut master = File::from(master);
    master.write_all(b"hello\n").unwrap();
    let mut said = Vec::new();
    // Its end is an error: nobody has the other end open.
    let _ = master.read_to_end(&mut said);
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.contains("/dev/pts/") && said.contains("24 80\r\n") && said.contains("got hello\r\n"),
        "{said:?}"
    );
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}
