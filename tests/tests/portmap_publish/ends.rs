//! How it ends: killed proxies, Ctrl-C, kill -9, stubborn proxies.

use super::*;

#[test]
fn a_killed_proxy_is_replaced_and_who_waits_is_served() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let portmap = Portmap::start(1, &["-p", "127.0.0.1:8080:80", "127.0.0.1"]);
        let proxy = portmap.rows[0].proxy;
        assert_eq!(ask_tcp((V4, 8080)), "web");
        // Stopped, it accepts nobody: this client is in the backlog when it dies.
        kill(Pid::from_raw(proxy), Signal::SIGSTOP).unwrap();
        let waiting = TcpStream::connect((V4, 8080)).unwrap();
        kill_proxy(proxy);
        assert_eq!(converse(waiting), "web");
        wait::until("line about it", || portmap.process.stderr().contains("now serves"));
        let log = portmap.process.stderr();
        let mapping = "127.0.0.1:8080:127.0.0.1:80/tcp";
        let first =
            format!("portmap: userland proxy {proxy} of {mapping} was killed by SIGKILL, starting another");
        assert_eq!(log.lines().next(), Some(first.as_str()));
        assert!(log.lines().nth(1).unwrap().ends_with(&format!(" now serves {mapping}")), "{log}");
        assert_eq!(log.lines().count(), 2, "{log}");
    });
}

#[test]
fn a_killed_proxy_is_replaced_where_ends_of_children_are_ignored() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        // Whoever starts us may have had us ignore SIGCHLD: the kernel then says nothing about children.
        let mut command = Command::new("env");
        command.arg("--ignore-signal=CHLD").arg(bin::portmap()).args([
            "-p",
            "127.0.0.1:8080:80",
            "127.0.0.1",
        ]);
        let mut portmap = Portmap::start_command(1, command);
        kill_proxy(portmap.rows[0].proxy);
        assert_eq!(ask_tcp((V4, 8080)), "web");
        portmap.process.signal(Signal::SIGINT);
        assert_eq!(portmap.process.code(), 0);
        wait::until("free port", || can_bind((ANY, 8080)));
    });
}

#[test]
fn ctrl_c_and_sigterm_free_the_ports() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut portmap = Portmap::start(4, &["-p", "8080:80", "-p", "8080:80/udp", "127.0.0.1"]);
            let mut client = TcpStream::connect((V4, 8080)).unwrap();
            client.read_exact(&mut [0; 3]).unwrap();
            portmap.process.signal(signal);
            assert_eq!(portmap.process.code(), 0, "{signal}");
            assert!(!matches!(client.read(&mut [0]), Ok(1..)), "its connection is cut");
            assert!(portmap.rows.iter().all(|row| is_gone(row.proxy)));
            assert_eq!(portmap.process.stderr(), "");
        }
        assert!(can_bind((ANY, 8080)));
    });
}

#[test]
fn killing_portmap_leaves_nothing() {
    in_namespace(|| {
        for signal in [Signal::SIGKILL, Signal::SIGHUP] {
            let mut portmap = Portmap::start(4, &["-p", "8080:80", "-p", "8081:80", "127.0.0.1"]);
            portmap.process.signal(signal);
            portmap.process.wait();
            wait::until("end of the proxies", || portmap.rows.iter().all(|row| is_gone(row.proxy)));
            wait::until("free ports", || can_bind((ANY, 8080)) && can_bind((ANY, 8081)));
        }
    });
}

/// A program in the proxy's place that says it serves and then never ends by itself.
fn stubborn_proxy(folder: &Path) -> PathBuf {
    let path = folder.join("stubborn");
    let script = r#"
        cat > "$0" <<'END'
#!/bin/sh
trap '' INT TERM
printf '0\n' >&3
exec 3>&-
exec sleep 1000
END
        chmod 755 "$0""#;
    sh(script, &[&path]);
    path
}

#[test]
fn a_proxy_that_ignores_the_stop_is_killed_and_a_second_ctrl_c_does_it_at_once() {
    in_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = stubborn_proxy(folder.path());
        let words = ["--userland-proxy-path", path.to_str().unwrap(), "-p", "8080:80", "127.0.0.1"];
        let mut portmap = Portmap::start(2, &words);
        portmap.process.signal(Signal::SIGINT);
        assert_eq!(portmap.process.code(), 0);
        assert!(is_gone(portmap.rows[0].proxy));

        let mut portmap = Portmap::start(2, &[&["--drain", "600"], &words[..]].concat());
        portmap.process.signal(Signal::SIGINT);
        // The first is taken note of once its copy of the socket is closed; equal signals would merge before that.
        let pid = portmap.process.pid();
        wait::until("start of the stop", || open_sockets(pid) == 0);
        portmap.process.signal(Signal::SIGINT);
        assert_eq!(portmap.process.code(), 0);
        assert!(is_gone(portmap.rows[0].proxy));
    });
}

fn open_sockets(pid: u32) -> usize {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let is_socket =
        |path: PathBuf| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
    entries.filter(|entry| entry.as_ref().is_ok_and(|entry| is_socket(entry.path()))).count()
}
