//! A host with a daemon, and a neighbour who knows the way to every sandbox.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use e2e::daemon::{Home, Said};
use e2e::lab::{Host, cable};
use e2e::proc::Proc;
use nix::sched::{CloneFlags, setns};

/// How long a packet may take until it counts as dropped.
const LOST: Duration = Duration::from_millis(700);

pub(crate) const NFTABLES: &str = "nftables";
pub(crate) const IPTABLES: &str = "iptables";

/// ```text
/// sandboxes ── bridges ── host ── neighbour      192.0.2.1, .2; fd00:ff::1, ::2
/// ```
pub(crate) struct Lab {
    daemon: Option<Proc>,
    /// The daemon's; of the next one, if they are changed.
    pub(crate) flags: Vec<String>,
    pub(crate) home: Home,
    pub(crate) neighbour: Host,
    pub(crate) host: Host,
}

impl Lab {
    /// With these flags of the daemon's.
    pub(crate) fn new(flags: &[&str]) -> Option<Self> {
        Self::prepared(flags, |_| ())
    }

    /// The same, on a host that its administrator has prepared before the daemon came.
    pub(crate) fn prepared(flags: &[&str], prepare: impl FnOnce(&Host)) -> Option<Self> {
        let (host, neighbour) = (Host::new("host")?, Host::new("neighbour")?);
        cable(
            (&host, "out", &["192.0.2.1/24", "fd00:ff::1/64"]),
            (&neighbour, "in", &["192.0.2.2/24", "fd00:ff::2/64"]),
        );
        // Everything but the cable: what a hostile neighbour would set.
        neighbour.ip("route add default via 192.0.2.1");
        neighbour.ip("-6 route add default via fd00:ff::1");
        // Neighbour discovery on a new cable may take a second, which isn't what the tests are about.
        let listener = neighbour.listen("[fd00:ff::2]:1".parse().unwrap());
        e2e::wait::until("the cable", || connects(&host, listener.local_addr().unwrap()));
        prepare(&host);
        let home = Home::new(&host)?;
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut lab = Self { daemon: None, flags, home, neighbour, host };
        lab.start_daemon();
        Some(lab)
    }

    /// Starts the daemon, again.
    pub(crate) fn start_daemon(&mut self) {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        self.daemon = Some(self.home.daemon(&flags));
    }

    /// Ends the daemon as an administrator does, or with `kill -9`.
    pub(crate) fn end_daemon(&mut self, signal: &str) {
        let pid = std::fs::read_to_string(self.home.path("run/portmap.pid")).unwrap();
        self.home.run("kill", &[signal, pid.trim()]).ok();
        let mut daemon = self.daemon.take().unwrap();
        daemon.wait();
    }

    pub(crate) fn portmap(&self, words: &[&str]) -> Said {
        self.home.portmap(words)
    }

    /// What a command that must succeed writes.
    #[track_caller]
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let said = self.portmap(words);
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        said.stdout
    }

    /// The status and the words of a command that must fail.
    #[track_caller]
    pub(crate) fn fails(&self, words: &[&str]) -> (i32, String) {
        let said = self.portmap(words);
        assert_ne!(said.code, 0, "{words:?} succeeded: {said:?}");
        (said.code, said.stderr)
    }

    /// Starts a sandbox that serves HTTP on port 80 of all its addresses.
    #[track_caller]
    pub(crate) fn serve(&self, name: &str, flags: &[&str]) {
        let words = [&["run", "-d", "--name", name], flags, &["--", "busybox", "httpd", "-f", "-p", "80"]];
        self.ok(&words.concat());
        let sandbox = self.sandbox(name);
        let listens = || sandbox.connects("127.0.0.1:80".parse().unwrap());
        e2e::wait::until("busybox httpd", listens);
    }

    /// A running sandbox's stack.
    #[track_caller]
    pub(crate) fn sandbox(&self, name: &str) -> Sandbox {
        let key = self.ok(&["inspect", "-f", "{{.NetworkSettings.SandboxKey}}", name]);
        self.stack(&key)
    }

    /// The stack that a file of the daemon's mount namespace pins.
    #[track_caller]
    pub(crate) fn stack(&self, path: &str) -> Sandbox {
        Sandbox(File::open(self.home.seen(path)).unwrap_or_else(|e| panic!("{path}: {e}")))
    }

    /// The address of a sandbox on a network, in one family.
    #[track_caller]
    pub(crate) fn address(&self, name: &str, network: &str, field: &str) -> IpAddr {
        let template = format!("{{{{(index .NetworkSettings.Networks {network:?}).{field}}}}}");
        let address = self.ok(&["inspect", "-f", &template, name]);
        address.parse().unwrap_or_else(|_| panic!("{name} on {network} has {field} {address:?}"))
    }

    pub(crate) fn v4(&self, name: &str, network: &str) -> SocketAddr {
        (self.address(name, network, "IPAddress"), 80).into()
    }

    pub(crate) fn v6(&self, name: &str, network: &str) -> SocketAddr {
        (self.address(name, network, "GlobalIPv6Address"), 80).into()
    }
}

/// Whether a connection comes about before a packet counts as lost.
pub(crate) fn connects(from: &Host, to: SocketAddr) -> bool {
    from.enter(|| TcpStream::connect_timeout(&to, LOST).is_ok())
}

/// A sandbox's network namespace.
#[derive(Debug)]
pub(crate) struct Sandbox(File);

impl Sandbox {
    /// Runs `work` on a throw-away thread inside.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        let result = thread::scope(|scope| scope.spawn(inside).join());
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    pub(crate) fn connects(&self, to: SocketAddr) -> bool {
        self.enter(|| TcpStream::connect_timeout(&to, LOST).is_ok())
    }

    /// `ip WORDS` inside, and what it said.
    #[track_caller]
    pub(crate) fn ip(&self, words: &str) -> String {
        let output = self.enter(|| Command::new("ip").args(words.split_whitespace()).output().unwrap());
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}
