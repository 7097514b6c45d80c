//! The programs that the contract suite runs against, and where they are known to differ.
//!
//! Every scenario runs three times: netproxy with a socket it is handed, netproxy binding its own, and the installed
//! docker-proxy binding its own. docker-proxy is the reference; where ours is better on purpose, a [`Difference`] says
//! so, and the scenario asserts both behaviours. Nothing is left out for either program in silence.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::lab::Host;
use crate::proxy::Start;
use crate::{bin, need};

/// A program under test, and how it comes by its socket.
#[derive(Clone, Debug)]
pub struct Subject {
    program: PathBuf,
    mode: Mode,
    differences: Vec<Difference>,
}

/// How a proxy comes by its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It binds one, as under Docker up to 27.
    Binding,
    /// It finds one on fd 4, as under Docker from 28 on.
    Inheriting,
}

/// What docker-proxy does otherwise than netproxy. The numbers of defects are those of its bug reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Doesn't know `-use-listen-fd` (before 28.0): exit 2 without a status.
    NoListenFd,
    /// Doesn't know `-v` (before 28.0): exit 2.
    NoVersion,
    /// Takes any text for an address (before 28.0); what is none, or not given, listens on every IPv6 address.
    TextForAddress,
    /// Reports a failed bind without saying where (before 28.0).
    BareBindError,
    /// Says nothing about a protocol it doesn't know (before 28.0), it only exits with 1.
    SilentAboutProtocol,
    /// Says it serves before its signal handler is in place: a signal right then kills it.
    RacesWithSignals,
    /// Starts without a port to forward to, and fails at the first connection.
    NoTargetCheck,
    /// Ports beyond 65535 are left to Go's resolver or cut to 16 bits.
    NoPortCheck,
    /// Takes one port for each side, not a range.
    NoRanges,
    /// A target that refuses, or can't be reached, looks like one that closes politely (moby#16976, moby#18189).
    PoliteRefusal,
    /// Waits for a target as long as the kernel does, two minutes (moby#47537).
    NoConnectTimeout,
    /// A reset becomes an orderly end: cut transfers look complete.
    ResetBecomesEnd,
    /// Sends keepalive probes to clients but not to the target (before 28.0, for the Go it was built with).
    WatchesClientsOnly,
    /// Ends, with status 0, when it runs out of descriptors (moby#6402, moby#45152).
    DiesOfDescriptors,
    /// Doesn't ask for the address a datagram was sent to: replies leave from whichever the kernel likes
    /// (moby#11998; later versions remember a flow's first address only).
    ReplyFromAnyAddress,
    /// Forgets a flow when its target refuses a datagram (before 28.0).
    ForgetsFlowOnRefusal,
    /// Takes two clients for one that have the same link-local address on different links.
    ConfusesLinks,
    /// Loses datagrams without payload.
    LosesEmptyDatagrams,
    /// Cuts IPv6 datagrams to IPv4's largest payload.
    CutsLargestDatagrams,
    /// Forgets a flow when a single reply can't be delivered.
    ForgetsFlowOnSendError,
}

/// All of them, for the docker-proxy of Docker 20.10 to 27.
const BEFORE_28: &[Difference] = &[
    Difference::NoListenFd,
    Difference::NoVersion,
    Difference::TextForAddress,
    Difference::BareBindError,
    Difference::ForgetsFlowOnRefusal,
    Difference::WatchesClientsOnly,
    Difference::SilentAboutProtocol,
    Difference::ReplyFromAnyAddress,
];

/// Those of every docker-proxy there has been.
const ALWAYS: &[Difference] = &[
    Difference::NoTargetCheck,
    Difference::NoPortCheck,
    Difference::NoRanges,
    Difference::RacesWithSignals,
    Difference::PoliteRefusal,
    Difference::NoConnectTimeout,
    Difference::ResetBecomesEnd,
    Difference::DiesOfDescriptors,
    Difference::ConfusesLinks,
    Difference::LosesEmptyDatagrams,
    Difference::CutsLargestDatagrams,
    Difference::ForgetsFlowOnSendError,
];

impl Subject {
    /// netproxy, handed its socket.
    #[must_use]
    pub fn netproxy_inheriting() -> Option<Self> {
        Some(Self { program: bin::netproxy(), mode: Mode::Inheriting, differences: Vec::new() })
    }

    /// netproxy, binding its socket.
    #[must_use]
    pub fn netproxy_binding() -> Option<Self> {
        Some(Self { program: bin::netproxy(), mode: Mode::Binding, differences: Vec::new() })
    }

    /// The docker-proxy installed here, binding its socket as every version can.
    ///
    /// # Panics
    /// When it can't be executed.
    #[must_use]
    pub fn docker_proxy() -> Option<Self> {
        let program = need::docker_proxy()?;
        let help = Command::new(&program).arg("-h").output().expect("docker-proxy prints its usage");
        let is_new = String::from_utf8_lossy(&help.stderr).contains("use-listen-fd");
        let mut differences = ALWAYS.to_vec();
        if !is_new {
            differences.extend(BEFORE_28);
        }
        Some(Self { program, mode: Mode::Binding, differences })
    }

    /// Whether this is one of its differences.
    #[must_use]
    pub fn has(&self, difference: Difference) -> bool {
        self.differences.contains(&difference)
    }

    /// Whether this is netproxy.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.differences.is_empty()
    }

    /// The program with just these words.
    #[must_use]
    pub fn with(&self, words: &[&str]) -> Start {
        self.settled(Start::new(&self.program, words))
    }

    fn settled(&self, start: Start) -> Start {
        if self.has(Difference::RacesWithSignals) { start.settling(Duration::from_millis(30)) } else { start }
    }

    /// Forwards TCP from `at` on `host` to `target`, on a socket come by in this subject's way.
    #[must_use]
    pub fn tcp(&self, host: &Host, at: SocketAddr, target: SocketAddr) -> Start {
        let start = self.settled(Start::mapping(&self.program, "tcp", at, target));
        match self.mode {
            Mode::Binding => start,
            Mode::Inheriting => start.word("-use-listen-fd").socket(host.tcp_listener(at)),
        }
    }

    /// The same for UDP.
    #[must_use]
    pub fn udp(&self, host: &Host, at: SocketAddr, target: SocketAddr) -> Start {
        let start = self.settled(Start::mapping(&self.program, "udp", at, target));
        match self.mode {
            Mode::Binding => start,
            Mode::Inheriting => start.word("-use-listen-fd").socket(host.udp_listener(at)),
        }
    }

    /// The same for SCTP.
    #[must_use]
    pub fn sctp(&self, host: &Host, at: SocketAddr, target: SocketAddr) -> Start {
        let start = self.settled(Start::mapping(&self.program, "sctp", at, target));
        match self.mode {
            Mode::Binding => start,
            Mode::Inheriting => start.word("-use-listen-fd").socket(host.sctp_listener(at)),
        }
    }
}

/// Runs a scenario for one subject on a host of its own, unless either can't be had.
pub fn run(subject: Option<Subject>, scenario: fn(&Subject, &Host)) {
    if let Some(subject) = subject
        && let Some(host) = Host::new("host")
    {
        scenario(&subject, &host);
    }
}

/// Makes tests of scenarios, `fn(&Subject, &Host)`: those under `every` for each subject, those under `binding` for
/// the subjects that bind their own socket.
#[macro_export]
macro_rules! contract {
    (every: [$($every:ident),* $(,)?], binding: [$($binding:ident),* $(,)?] $(,)?) => {
        $crate::contract!(@ netproxy_inheriting: $($every)*);
        $crate::contract!(@ netproxy_binding: $($every)* $($binding)*);
        $crate::contract!(@ docker_proxy: $($every)* $($binding)*);
    };
    (@ $subject:ident: $($scenario:ident)*) => {
        mod $subject {
            $(
                #[test]
                fn $scenario() {
                    $crate::contract::run($crate::contract::Subject::$subject(), super::$scenario);
                }
            )*
        }
    };
}
