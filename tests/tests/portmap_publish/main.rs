//! `portmap -p` as a user meets it: ports that answer, proxies that come back, errors of one line, nothing left behind.
//!
//! Each test runs in a network namespace of its own with nothing but loopback, so it may use any port. Needs root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

mod ends;
mod reach;
mod refusals;

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

/// Runs a shell script. Files that are executed later are written by a child: while this process had them open, any child
/// forked just then would keep them from being executed.
fn sh(script: &str, words: &[&Path]) {
    let status = Command::new("sh").args(["-euc", script]).args(words).status().unwrap();
    assert!(status.success(), "{script}");
}
