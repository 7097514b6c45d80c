//! How a daemon is started and told what to do, and how it leaves.

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use e2e::daemon::Home;
use e2e::proc::Proc;
use e2e::{bin, need, wait};

use super::home;

/// Sends a signal to the daemon with the default pidfile.
fn signal(home: &Home, name: &str) {
    let pid = std::fs::read_to_string(home.path("run/portmap.pid")).expect("a daemon runs");
    home.run("kill", &[&format!("-{name}"), pid.trim()]).ok();
}

fn list(home: &Home) -> Proc {
    let mut command = home.command(bin::portmap());
    command.args(["network", "ls", "-q"]);
    home.host().spawn(command)
}

#[test]
fn the_environment_says_where_a_daemon_is_for_it_and_for_its_clients() {
    let Some(home) = home() else { return };
    let bare = |words: &[&str]| {
        let mut command = home.command(bin::portmap());
        // An empty one says nothing.
        command.env("PORTMAP_HOST", "").args(words);
        command
    };
    let mut daemon = home.host().spawn(bare(&["daemon"]));
    wait::until("daemon that listens in its exec root", || {
        assert!(daemon.ended().is_none(), "the daemon has left: {}", daemon.stderr());
        home.listens()
    });
    assert!(home.path("data/portmap.db").exists() && home.path("run/portmap.pid").exists());
    assert_eq!(home.host().spawn(bare(&["network", "ls", "-q"])).code(), 0);
    signal(&home, "TERM");
    assert_eq!(daemon.code(), 0);
    assert!(!home.socket().exists());

    // On demand too.
    assert_eq!(home.host().spawn(bare(&["network", "ls", "-q"])).code(), 0);
    assert!(home.listens());
    let pid = std::fs::read_to_string(home.path("run/portmap.pid")).expect("it listens");
    assert_eq!(home.run("cat", &[&format!("/proc/{}/comm", pid.trim())]).ok(), "portmap", "what ps calls it");
    home.kill_daemon();

    // A flag is stronger.
    let other = home.path("other");
    let _daemon = home.host().spawn(bare(&["daemon", "--exec-root", other.to_str().expect("plain")]));
    wait::until("daemon that listens in its exec root", || other.join("portmap.sock").exists());
}

#[test]
fn a_hangup_repairs_what_somebody_broke() {
    let Some(home) = home() else { return };
    let daemon = home.daemon(&[]);
    home.portmap(&["run", "-d", "--name", "web", "sleep", "1000"]).ok();
    home.run("ip", &["link", "delete", "portmap0"]).ok();
    signal(&home, "HUP");
    wait::until("bridge with its address", || {
        home.run("ip", &["-4", "address", "show", "portmap0"]).stdout.contains("172.17.0.1/16")
    });
    assert!(home.listens(), "{}", daemon.stderr());
    // The sandbox's interface comes after its bridge.
    wait::until("port of the bridge", || {
        home.run("ip", &["-br", "link", "show", "master", "portmap0"]).ok().lines().count() == 1
    });
}

#[test]
fn the_sockets_group_is_the_one_that_was_asked_for() {
    let Some(home) = home() else { return };
    let mut refused = home.host().spawn(home.daemon_command(&["--group", "no-such-group"]));
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr().contains("group no-such-group not found"), "{}", refused.stderr());
    assert!(!home.host().ip("-brief link").contains("portmap0"), "the host is as it was");
    let daemon = home.daemon(&["--group", "65534"]);
    assert_eq!(std::fs::metadata(home.socket()).expect("it listens").gid(), 65534);
    let copy = home.path("portmap");
    std::fs::copy(bin::portmap(), &copy).expect("our own folder");
    let words =
        ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", copy.to_str().expect("plain")];
    let listed = home.run("setpriv", &[&words[..], &["network", "ls", "-q"]].concat());
    assert_eq!(listed.ok().lines().count(), 3);
    drop(daemon);
}

#[test]
fn nobody_is_lost_who_comes_while_the_daemon_leaves() {
    let Some(home) = home() else { return };
    // Each of these leaves as soon as it can, and each client may be the one that comes just then.
    let mut daemon = home.host().spawn(home.daemon_command(&["--idle-timeout", "20ms"]));
    for round in 0_u32..40 {
        let clients: Vec<Proc> = (0..3).map(|_| list(&home)).collect();
        for mut client in clients {
            assert_eq!(client.code(), 0, "round {round}: {}", client.stderr());
            assert_eq!(client.stdout().lines().count(), 3);
        }
        if daemon.ended().is_some() {
            // One that a client has started may be there, unless this one left only after all of them.
            if home.listens() {
                home.kill_daemon();
            }
            daemon = home.host().spawn(home.daemon_command(&["--idle-timeout", "20ms"]));
        }
        std::thread::sleep(Duration::from_millis(u64::from(round % 10) * 4));
    }
}

#[test]
fn a_left_over_socket_is_replaced_and_another_file_is_not() {
    let Some(home) = home() else { return };
    std::fs::create_dir(home.path("run")).expect("our own folder");
    drop(UnixListener::bind(home.socket()).expect("a free path"));
    let daemon = home.daemon(&[]);
    home.kill_daemon();
    drop(daemon);
    std::fs::remove_file(home.socket()).expect("it is left");
    std::fs::write(home.socket(), "precious").expect("our own folder");
    let mut refused = home.host().spawn(home.daemon_command(&[]));
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr().contains("there is a file that is no socket"), "{}", refused.stderr());
    assert_eq!(std::fs::read_to_string(home.socket()).expect("it is left"), "precious");
}

#[test]
fn of_two_at_once_one_wins_and_the_other_says_so() {
    let Some(home) = home() else { return };
    for _ in 0..5 {
        let mut two = [(); 2].map(|()| home.host().spawn(home.daemon_command(&[])));
        wait::until("one of them to leave", || two.iter_mut().any(|daemon| daemon.ended().is_some()));
        wait::until("the other one to listen", || home.listens());
        for daemon in &mut two {
            if daemon.ended().is_some() {
                assert_eq!(daemon.code(), 1);
                assert!(daemon.stderr().contains("another portmap daemon"), "{}", daemon.stderr());
            }
        }
        assert!(two.iter_mut().any(|daemon| daemon.ended().is_none()));
        assert_eq!(home.portmap(&["network", "ls", "-q"]).ok().lines().count(), 3);
        signal(&home, "TERM");
        for daemon in &mut two {
            let _ = daemon.wait();
        }
    }
}

#[test]
fn a_full_disk_changes_nothing_and_is_said_in_one_line() {
    let Some(home) = home() else { return };
    let data = home.path("data");
    std::fs::create_dir(&data).expect("our own folder");
    let data = data.to_str().expect("plain");
    home.run("mount", &["-t", "tmpfs", "-o", "size=1m", "none", data]).ok();
    let _daemon = home.daemon(&[]);
    home.portmap(&["network", "create", "before"]).ok();
    home.portmap(&["create", "--name", "early", "true"]).ok();
    let names = || home.portmap(&["network", "ls", "--format", "{{.Name}}"]).ok();
    let (known, links) = (names(), home.run("ip", &["-br", "link"]).ok());
    home.run("sh", &["-c", &format!("cat /dev/zero > {data}/filler 2>/dev/null; true")]).ok();
    // What SQLite has reserved already may still do for a few.
    let mut refused = None;
    for number in 0..400 {
        let said = home.portmap(&[
            "network",
            "create",
            "--label",
            &format!("x={}", "y".repeat(9000)),
            &format!("n{number}"),
        ]);
        if said.code != 0 {
            refused = Some(said);
            break;
        }
        home.portmap(&["network", "rm", &format!("n{number}")]);
    }
    let refused = refused.expect("the disk is full");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    assert!(refused.stderr.contains("no space is left for "), "{refused:?}");
    let refused = home.portmap(&["run", "--rm", "true"]);
    assert!(refused.code == 125 || refused.code == 0, "{refused:?}");
    assert_eq!(refused.stderr.lines().count(), usize::from(refused.code != 0), "{refused:?}");
    assert_eq!((names(), home.run("ip", &["-br", "link"]).ok()), (known, links));
    home.run("rm", &[&format!("{data}/filler")]).ok();
    home.portmap(&["network", "create", "after"]).ok();
    home.portmap(&["start", "early"]).ok();
}

#[test]
fn a_data_root_of_a_newer_version_is_left_alone() {
    let Some(home) = home() else { return };
    let Some(_) = need::program("python3") else { return };
    let daemon = home.daemon(&[]);
    signal(&home, "TERM");
    let mut daemon = daemon;
    assert_eq!(daemon.code(), 0);
    let database = home.path("data/portmap.db");
    let script =
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA user_version = 9999')";
    home.run("python3", &["-c", script, database.to_str().expect("plain")]).ok();
    let before = std::fs::read(&database).expect("it is there");
    let mut refused = home.host().spawn(home.daemon_command(&[]));
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr().contains("newer"), "{}", refused.stderr());
    assert_eq!(std::fs::read(&database).expect("it is there"), before);
}
