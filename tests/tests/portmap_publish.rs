//! `portmap -p` as a user meets it: ports that answer, proxies that come back, errors of one line, nothing left behind.
//!
//! Each test runs in a network namespace of its own with nothing but loopback, so it may use any port. Needs root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use e2e::bin;
use e2e::lab::Host;
use e2e::proc::Proc;
use e2e::wait::{self, PATIENCE};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Runs a test on a thread inside a network namespace of its own.
fn in_namespace(body: impl FnOnce() + Send) {
    if let Some(host) = Host::new("host") {
        host.enter(body);
    }
}

/// Answers every connection with `name`, then with what it receives.
fn tcp_echo(address: (IpAddr, u16), name: &'static str) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let _ = stream.write_all(name.as_bytes());
                let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
            });
        }
    });
}

fn udp_echo(address: (IpAddr, u16)) {
    let socket = UdpSocket::bind(address).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], client);
        }
    });
}

/// Kills a proxy and waits for its end: a ring may still accept while its process dies, and what it accepted dies too.
fn kill_proxy(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let stat = format!("/proc/{pid}/stat");
    wait::until("end of the proxy", || fs::read_to_string(&stat).map_or(true, |line| line.contains(") Z ")));
}

/// What the backend behind `address` calls itself, after it has echoed a word.
fn ask_tcp(address: impl Into<SocketAddr>) -> String {
    converse(TcpStream::connect(address.into()).unwrap())
}

fn converse(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"/ping").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.strip_suffix("/ping").expect("the word comes back").to_owned()
}

fn ask_udp(address: impl Into<SocketAddr>) -> String {
    let address = address.into();
    let local = if address.is_ipv4() { V4 } else { V6 };
    let socket = UdpSocket::bind((local, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(address).unwrap();
    socket.send(b"ping").unwrap();
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn can_bind(address: (IpAddr, u16)) -> bool {
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

fn refuses(address: (IpAddr, u16)) -> bool {
    TcpStream::connect(SocketAddr::from(address)).is_err()
}

/// A `portmap -p` that has printed its table.
struct Portmap {
    process: Proc,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    host: String,
    target: String,
    proto: String,
    proxy: i32,
}

impl Row {
    fn port(&self) -> u16 {
        self.host.rsplit_once(':').unwrap().1.parse().unwrap()
    }
}

impl Portmap {
    /// Starts it and waits for its table, which must have so many rows.
    fn start(rows: usize, words: &[&str]) -> Self {
        let mut command = Command::new(bin::portmap());
        command.args(words);
        Self::start_command(rows, command)
    }

    fn start_command(rows: usize, mut command: Command) -> Self {
        let mut process = Proc::spawn(&mut command);
        let table = wait::some("table", PATIENCE, || {
            assert!(process.ended().is_none(), "portmap gave up: {}", process.stderr());
            Some(process.stdout()).filter(|text| text.ends_with('\n'))
        });
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(lines.next().unwrap(), ["HOST", "TARGET", "PROTO", "PROXY"]);
        let row = |columns: Vec<&str>| {
            let [host, target, proto, proxy] = columns[..] else { panic!("four columns: {columns:?}") };
            let (host, target, proto) = (host.to_owned(), target.to_owned(), proto.to_owned());
            Row { host, target, proto, proxy: proxy.parse().unwrap() }
        };
        let portmap = Self { process, rows: lines.map(row).collect() };
        assert_eq!(portmap.rows.len(), rows, "{table}");
        portmap
    }
}

fn is_gone(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).read_link().is_err()
}

/// Runs a `portmap` that must fail: exit status 125, one line on stderr, which is returned without its prefix.
fn refusal(words: &[&str]) -> String {
    let mut command = Command::new(bin::portmap());
    command.args(words);
    refusal_of(command)
}

fn refusal_of(mut command: Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(125), &b""[..]), "{command:?} {stderr}");
    let line = stderr.strip_prefix("portmap: ").unwrap_or_else(|| panic!("{command:?}: {stderr:?}"));
    assert_eq!(line.matches('\n').count(), 1, "one line: {stderr:?}");
    line.trim_end().to_owned()
}

#[test]
fn tcp_and_udp_answer_on_both_families() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        udp_echo((V4, 53));
        let portmap = Portmap::start(4, &["-p", "8080:80", "-p", "5353:53/udp", "127.0.0.1"]);
        let hosts: Vec<_> = portmap.rows.iter().map(|row| (row.host.as_str(), row.proto.as_str())).collect();
        let want =
            [("0.0.0.0:5353", "udp"), ("[::]:5353", "udp"), ("0.0.0.0:8080", "tcp"), ("[::]:8080", "tcp")];
        assert_eq!(hosts, want);
        assert_eq!(portmap.rows[2].target, "127.0.0.1:80");
        assert_eq!(portmap.rows[2].proxy, portmap.rows[3].proxy, "one process for both families");
        for ip in [V4, V6] {
            assert_eq!(ask_tcp((ip, 8080)), "web");
            assert_eq!(ask_udp((ip, 5353)), "ping");
        }
        assert_eq!(portmap.process.stderr(), "");
    });
}

#[test]
fn an_address_given_is_the_only_one() {
    in_namespace(|| {
        tcp_echo((V6, 80), "six");
        let portmap = Portmap::start(2, &["-p", "127.0.0.1:8080:80", "--publish=[::1]:8081:80", "[::1]"]);
        assert_eq!(portmap.rows[0].target, "[::1]:80");
        assert_eq!((ask_tcp((V4, 8080)), ask_tcp((V6, 8081))), ("six".into(), "six".into()));
        assert!(refuses((V6, 8080)) && refuses((V4, 8081)) && refuses(([127, 0, 0, 2].into(), 8080)));
    });
}

#[test]
fn the_default_address_can_be_set() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let portmap = Portmap::start(1, &["--ip", "127.0.0.2", "-p", "8080:80", "127.0.0.1"]);
        assert_eq!(portmap.rows[0].host, "127.0.0.2:8080");
        assert_eq!(ask_tcp(([127, 0, 0, 2], 8080)), "web");
        assert!(refuses((V4, 8080)));
    });
}

#[test]
fn a_range_is_one_process_and_each_port_leads_to_its_own() {
    in_namespace(|| {
        tcp_echo((V4, 9000), "first");
        tcp_echo((V4, 9500), "middle");
        tcp_echo((V4, 9999), "last");
        // As few descriptors as a shell gives, and more ports than that.
        let mut command = Command::new("sh");
        let script = "ulimit -Sn 256; exec \"$0\" -p 127.0.0.1:7000-7999:9000-9999 127.0.0.1";
        command.arg("-c").arg(script).arg(bin::portmap());
        let portmap = Portmap::start_command(1, command);
        assert_eq!(portmap.rows[0].host, "127.0.0.1:7000-7999");
        assert_eq!(portmap.rows[0].target, "127.0.0.1:9000-9999");
        let answers = [7000, 7500, 7999].map(|port| ask_tcp((V4, port)));
        assert_eq!(answers, ["first", "middle", "last"]);
    });
}

#[test]
fn a_port_nobody_chose_is_printed_and_works() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        udp_echo((V4, 81));
        let portmap =
            Portmap::start(4, &["-p", "80", "-p", "127.0.0.1::80-81/udp", "-p", "[::1]::80", "127.0.0.1"]);
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let ends: Vec<u16> = range.split_whitespace().map(|end| end.parse().unwrap()).collect();
        let tcp: Vec<&Row> = portmap.rows.iter().filter(|row| row.proto == "tcp").collect();
        for row in &tcp {
            assert!((ends[0]..=ends[1]).contains(&row.port()), "{row:?}");
            let ip = if row.host.starts_with('[') { V6 } else { V4 };
            assert_eq!(ask_tcp((ip, row.port())), "web", "{row:?}");
        }
        let udp = portmap.rows.iter().find(|row| row.proto == "udp").unwrap();
        let last: u16 = udp.host.rsplit_once('-').unwrap().1.parse().unwrap();
        assert_eq!(ask_udp((V4, last)), "ping");
    });
}

#[test]
fn the_kernels_ephemeral_range_and_reserved_ports_are_respected() {
    in_namespace(|| {
        // These files show and change the network namespace of whoever opens them: this test's own.
        let set = |name, text| fs::write(Path::new("/proc/sys/net/ipv4").join(name), text).unwrap();
        set("ip_local_port_range", "50000 50003");
        set("ip_local_reserved_ports", "50000-50001");
        let portmap = Portmap::start(4, &["-p", "80", "-p", "81", "127.0.0.1"]);
        let ports: Vec<u16> = portmap.rows.iter().map(Row::port).collect();
        assert_eq!(ports, [50002, 50002, 50003, 50003]);
        assert_eq!(
            refusal(&["-p", "80", "127.0.0.1"]),
            "failed to bind host port 0.0.0.0:50003/tcp: address already in use"
        );
    });
}

#[test]
fn a_host_without_ipv6_gets_ipv4_only() {
    in_namespace(|| {
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        tcp_echo((V4, 80), "web");
        let _portmap = Portmap::start(1, &["-p", "8080:80", "127.0.0.1"]);
        assert_eq!(ask_tcp((V4, 8080)), "web");
    });
}

#[test]
fn a_choice_of_ports_skips_those_that_others_hold() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let _held: Vec<_> = (8000..8015).map(|port| TcpListener::bind((ANY, port)).unwrap()).collect();
        let portmap = Portmap::start(2, &["-p", "8000-8015:80", "127.0.0.1"]);
        assert_eq!(portmap.rows[0].host, "0.0.0.0:8015");
        assert_eq!(ask_tcp((V4, 8015)), "web");
        assert!(
            refusal(&["-p", "8000-8015:80", "127.0.0.1"])
                .ends_with("failed to bind host port 0.0.0.0:8015/tcp: address already in use")
        );
    });
}

#[test]
fn a_target_may_be_a_name() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let portmap = Portmap::start(2, &["-p", "8080:80", "localhost"]);
        assert_eq!(portmap.rows[0].target, "127.0.0.1:80");
        assert_eq!(ask_tcp((V4, 8080)), "web");
    });
}

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

/// Runs a shell script. Files that are executed later are written by a child: while this process had them open, any child
/// forked just then would keep them from being executed.
fn sh(script: &str, words: &[&Path]) {
    let status = Command::new("sh").args(["-euc", script]).args(words).status().unwrap();
    assert!(status.success(), "{script}");
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

#[test]
fn a_busy_port_stops_everything_with_dockers_words() {
    in_namespace(|| {
        let _holder = TcpListener::bind((ANY, 8081)).unwrap();
        let line = refusal(&["-p", "8080:80", "-p", "8081:81", "-p", "8082:82/udp", "127.0.0.1"]);
        assert_eq!(line, "failed to bind host port 0.0.0.0:8081/tcp: address already in use");
        for port in [8080, 8082] {
            assert!(can_bind((ANY, port)), "{port} is free again");
        }
        let line = refusal(&["-p", "192.0.2.9:8080:80", "127.0.0.1"]);
        assert_eq!(line, "failed to bind host port 192.0.2.9:8080/tcp: cannot assign requested address");
        let line = refusal(&["-p", "[fe80::1]:8080:80", "127.0.0.1"]);
        assert_eq!(
            line,
            "failed to bind host port [fe80::1]:8080/tcp: invalid argument (a link-local address says nothing \
             without its interface, which -p can't name: publish on [::] instead)"
        );
    });
}

#[test]
fn an_ordinary_user_may_publish_ordinary_ports() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        // The build directory may be closed to others, so the user gets copies.
        let folder = tempfile::tempdir().unwrap();
        let programs = [bin::portmap(), bin::netproxy()];
        sh("chmod 755 \"$0\"; cp \"$1\" \"$2\" \"$0\"", &[folder.path(), &programs[0], &programs[1]]);
        let as_nobody = |words: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
            command.arg(folder.path().join("portmap")).args(words);
            command
        };
        let _portmap = Portmap::start_command(2, as_nobody(&["-p", "8080:80", "127.0.0.1"]));
        assert_eq!(ask_tcp((V4, 8080)), "web");
        assert_eq!(
            refusal_of(as_nobody(&["-p", "443:80", "127.0.0.1"])),
            "failed to bind host port 0.0.0.0:443/tcp: permission denied \
             (ports below 1024 need CAP_NET_BIND_SERVICE or root)"
        );
    });
}

#[test]
fn specs_in_each_others_way_are_named() {
    let line = refusal(&["-p", "8080:80", "-p", "127.0.0.1:8080:81", "127.0.0.1"]);
    assert_eq!(line, "8080:80 and 127.0.0.1:8080:81 overlap: both want 127.0.0.1:8080/tcp");
    assert_eq!(refusal(&["-p", "8080:80", "-p", "8080:80", "127.0.0.1"]), "8080:80 is published twice");
}

#[test]
fn publishing_to_oneself_is_refused() {
    in_namespace(|| {
        let loops: [&[&str]; 4] = [
            &["-p", "8080:8080", "127.0.0.1"],
            &["-p", "[::1]:8080:8080", "::1"],
            &["-p", "8000-8010:8005-8015", "localhost"],
            &["-p", "8080:8081", "-p", "8081:8080", "127.0.0.1"],
        ];
        for words in loops {
            let line = refusal(words);
            assert!(
                line.starts_with("cannot publish to ")
                    && line.ends_with("/tcp: this very command listens there"),
                "{line}"
            );
        }
        // The same number on another address is no loop.
        tcp_echo((V4, 8080), "web");
        let _portmap = Portmap::start(1, &["-p", "127.0.0.2:8080:8080", "127.0.0.1"]);
        assert_eq!(ask_tcp(([127, 0, 0, 2], 8080)), "web");
    });
}

#[test]
fn bad_specs_get_dockers_text() {
    let cases = [
        ("", "no port specified: <empty>"),
        ("8080:", "no port specified: 8080:<empty>"),
        ("80/xyz", "invalid proto: xyz"),
        ("-1:80", "invalid hostPort: -1"),
        ("65536", "invalid containerPort: 65536"),
        ("localhost:8080:80", "invalid IP address: localhost"),
        ("[::1:80:80", "invalid IP address [::1: address [::1:: missing ']' in address"),
        ("8000:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000"),
        ("80:0", "invalid port specification: \"0/tcp\""),
        ("0-5:80", "invalid port range: 0-5"),
        ("target=80,published", "invalid publish opts format (should be name=value but got 'published')"),
        ("80\n81\u{1b}[2J", "invalid containerPort: 80\\n81\\u{1b}[2J"),
    ];
    for (spec, want) in cases {
        assert_eq!(refusal(&["-p", spec, "127.0.0.1"]), want, "spec {spec:?}");
    }
}

#[test]
fn bad_targets_are_named() {
    let line = refusal(&["-p", "80", "nosuch.invalid"]);
    assert!(line.starts_with("cannot resolve \"nosuch.invalid\": "), "{line}");
    let cases = [
        (" ", "the target is empty: give an IP address or a host name, as in: portmap -p 8080:80 172.17.0.8"),
        ("", "the target is empty: give an IP address or a host name, as in: portmap -p 8080:80 172.17.0.8"),
        ("[nonsense]", "invalid IP address: nonsense"),
        (
            "127.0.0.1:90",
            "invalid target \"127.0.0.1:90\": neither an IP address nor a host name (ports go into -p)",
        ),
        (
            "http://web/",
            "invalid target \"http://web/\": neither an IP address nor a host name (ports go into -p)",
        ),
        ("fe80::1%lo", "cannot publish to \"fe80::1%lo\": addresses with a zone are not supported"),
        ("0.0.0.0", "cannot publish to 0.0.0.0: it stands for no particular host"),
        ("[::]", "cannot publish to ::: it stands for no particular host"),
    ];
    for (target, want) in cases {
        assert_eq!(refusal(&["-p", "80", target]), want, "target {target:?}");
    }
}

#[test]
fn bad_command_lines_get_one_line() {
    let cases: [(&[&str], &str); 10] = [
        (&[], "nothing to publish: give ports and a target, as in: portmap -p 8080:80 172.17.0.8"),
        (
            &["-p", "80"],
            "-p needs a target, an IP address or a host name, as in: portmap -p 8080:80 172.17.0.8",
        ),
        (&["172.17.0.8"], "no port to publish to 172.17.0.8: give one, as in: portmap -p 8080:80 172.17.0.8"),
        (&["-p"], "a value is required for '--publish <SPEC>' but none was supplied (see portmap --help)"),
        (&["-p", "80", "a", "b"], "unexpected argument 'b' found (see portmap --help)"),
        (&["--nonsense"], "unexpected argument '--nonsense' found (see portmap --help)"),
        (
            &["--ip", "x", "-p", "80", "127.0.0.1"],
            "invalid value 'x' for '--ip <ADDR>': invalid IP address syntax (see portmap --help)",
        ),
        (
            &["--drain", "soon", "-p", "80", "127.0.0.1"],
            "invalid value 'soon' for '--drain <SECONDS>': seconds are needed, like 10, 0.5, 500ms or 2m \
             (see portmap --help)",
        ),
        (
            &["--drain", "-1", "-p", "80", "127.0.0.1"],
            "invalid value '-1' for '--drain <SECONDS>': seconds are needed, like 10, 0.5, 500ms or 2m \
             (see portmap --help)",
        ),
        (
            &["--userland-proxy-path", "/nonexistent", "-p", "80", "127.0.0.1"],
            "invalid userland-proxy-path: /nonexistent: No such file or directory (os error 2)",
        ),
    ];
    for (words, want) in cases {
        assert_eq!(refusal(words), want, "{words:?}");
    }
}

#[test]
fn the_environment_may_say_how_long_to_drain() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let with_variable = |value: &str, words: &[&str]| {
            let mut command = Command::new(bin::portmap());
            command.env("NETPROXY_DRAIN", value).args(words).args(["-p", "127.0.0.1:8080:80", "127.0.0.1"]);
            command
        };
        for value in ["", "soon"] {
            assert_eq!(
                refusal_of(with_variable(value, &[])),
                format!(
                    "invalid value {value:?} in NETPROXY_DRAIN: seconds are needed, like 10, 0.5, 500ms or 2m"
                )
            );
        }
        // The proxies have the variable too: an open connection outlives the signal by what portmap gives a proxy anyway.
        let mut portmap = Portmap::start_command(1, with_variable("2m", &[]));
        let mut client = TcpStream::connect((V4, 8080)).unwrap();
        client.read_exact(&mut [0; 3]).unwrap();
        portmap.process.signal(Signal::SIGINT);
        thread::sleep(Duration::from_millis(2500));
        assert!(portmap.process.ended().is_none() && !is_gone(portmap.rows[0].proxy));
        client.write_all(b"/ping").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(portmap.process.code(), 0);

        // What was typed wins, for portmap and for its proxies: nobody waits for the connection.
        let mut portmap = Portmap::start_command(1, with_variable("2m", &["--drain", "0"]));
        let mut client = TcpStream::connect((V4, 8080)).unwrap();
        client.read_exact(&mut [0; 3]).unwrap();
        let asked = Instant::now();
        portmap.process.signal(Signal::SIGINT);
        assert_eq!(portmap.process.code(), 0);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    });
}

#[test]
fn a_proxy_path_may_be_relative() {
    in_namespace(|| {
        let mut command = Command::new(bin::portmap());
        command.current_dir(bin::netproxy().parent().unwrap());
        command.args(["--userland-proxy-path", "netproxy", "-p", "8080:80", "127.0.0.1"]);
        command.env("PATH", "/usr/bin:/bin");
        Portmap::start_command(2, command);
    });
}

#[test]
fn a_program_that_is_no_proxy_is_refused_and_the_ports_are_free_again() {
    in_namespace(|| {
        let line = refusal(&["--userland-proxy-path", "/bin/true", "-p", "8080:80", "127.0.0.1"]);
        assert_eq!(
            line,
            "failed to start userland proxy for port mapping 0.0.0.0:8080:127.0.0.1:80/tcp: \
             /bin/true exited with status 0 before it was ready"
        );
        let line = refusal(&["--userland-proxy-path", "/etc/passwd", "-p", "8080:80", "127.0.0.1"]);
        assert!(line.starts_with("invalid userland-proxy-path: /etc/passwd: "), "{line}");
        assert!(can_bind((ANY, 8080)));
    });
}

#[test]
fn a_reader_that_has_gone_does_no_harm() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child =
            Command::new(bin::portmap()).args(["-p", "8080:80", "127.0.0.1"]).stdout(writer).spawn().unwrap();
        wait::until("open port", || !refuses((V4, 8080)));
        assert_eq!(ask_tcp((V4, 8080)), "web");
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn a_table_that_cannot_be_written_is_reported_and_the_ports_are_served() {
    in_namespace(|| {
        tcp_echo((V4, 80), "web");
        let full = || fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(bin::portmap());
        command.args(["-p", "8080:80", "127.0.0.1"]).stdout(full()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        wait::until("open port", || !refuses((V4, 8080)));
        assert_eq!(ask_tcp((V4, 8080)), "web");
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        let mut said = String::new();
        child.stderr.unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "portmap: cannot print the table: No space left on device (os error 28)\n");

        let out = Command::new(bin::portmap()).arg("--help").stdout(full()).output().unwrap();
        assert_eq!(out.status.code(), Some(125));
    });
}

#[test]
fn help_and_version_succeed() {
    for (flag, part) in [
        ("--help", "portmap -p 8080:80 172.17.0.8"),
        ("-h", "Usage:"),
        ("--version", "portmap "),
        ("-v", "portmap "),
    ] {
        let out = Command::new(bin::portmap()).arg(flag).output().unwrap();
        assert_eq!((out.status.code(), out.stderr.len()), (Some(0), 0), "{flag}");
        assert!(String::from_utf8(out.stdout).unwrap().contains(part), "{flag}");
    }
}
