//! `bench ask`: a client of a name server, on one socket and one thread. Prints one line of JSON.
//!
//! With a window it asks whenever fewer queries than that are under way: how many answers there are to be had. With a rate
//! it asks when it is time, whatever came back: then latencies count from when it was time, so that a server that stands
//! still is not asked less for it. Every answer is checked, and a wrong one ends the measurement.

use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::launch;
use crate::namespace::Namespace;
use crate::process::{Process, piped};
use crate::stats;
use crate::usage::{cpu_time, own_cpu_time};

/// An answer that takes longer counts as lost.
const LOST: Duration = Duration::from_secs(1);
/// How long the socket is waited for at a time.
const TICK: Duration = Duration::from_millis(20);
/// What starting and ending may take beyond the time asked for.
const PATIENCE: Duration = Duration::from_secs(60);
const IDS: usize = 1 << 16;
const HEADER: usize = 12;
/// What names that nobody knows end with.
const STRANGE: &str = "strangers.test";

/// The hidden subcommand.
#[derive(Args)]
pub(crate) struct Ask {
    target: SocketAddr,
    /// What is asked for in turn, and what has to be the answer: NAME=ADDRESS; without any, names that nobody knows,
    /// and whatever comes back will do
    names: Vec<String>,
    #[arg(long, conflicts_with = "rate")]
    window: Option<usize>,
    #[arg(long)]
    rate: Option<u32>,
    #[arg(long, default_value_t = 0)]
    warm_up_ms: u64,
    #[arg(long)]
    measure_ms: u64,
    /// End earlier, after so many answers
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Whose CPU clock to read
    #[arg(long)]
    server: i32,
    /// Where to run
    #[arg(long)]
    cpu: Option<usize>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) seconds: f64,
    /// Answers within that.
    pub(crate) answers: u64,
    /// Queries within that which had no answer a second later.
    pub(crate) lost: u64,
    /// CPU seconds within that.
    pub(crate) server_cpu: f64,
    pub(crate) client_cpu: f64,
    /// Latencies in microseconds, of a second for what was lost; none if nothing was asked.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// Queries in the order in which they were sent. A query's id is the end of its number.
struct Flight {
    /// When they were due, in time since the start; none once answered or given up on.
    due: Vec<Option<Duration>>,
    oldest: u64,
    next: u64,
    open: usize,
}

struct Client {
    socket: UdpSocket,
    /// Messages, but for the id, and how the answer to each ends.
    queries: Vec<(Vec<u8>, [u8; 4])>,
    start: Instant,
    flight: Flight,
    /// What of it is measured, in time since the start.
    window: (Duration, Duration),
    latencies: Vec<u32>,
    answers: u64,
    lost: u64,
}

impl Ask {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let outcome = self.measure().map_err(|error| format!("{error:#}"));
        writeln!(io::stdout(), "{}", serde_json::to_string(&outcome)?)?;
        Ok(())
    }

    fn measure(&self) -> anyhow::Result<Asked> {
        if let Some(cpu) = self.cpu {
            pin(Pid::from_raw(0), cpu)?;
        }
        // Else the kernel lets each wait last 50 µs longer.
        prctl::set_timerslack(1)?;
        let queries = self.names.iter().map(|pair| expected(pair)).collect::<anyhow::Result<Vec<_>>>()?;
        let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let socket = UdpSocket::bind(unspecified)?;
        socket.connect(self.target)?;
        socket.set_nonblocking(true)?;
        let warm_up = Duration::from_millis(self.warm_up_ms);
        let mut client = Client {
            socket,
            queries,
            start: Instant::now(),
            flight: Flight::new(),
            window: (warm_up, warm_up + Duration::from_millis(self.measure_ms)),
            latencies: Vec::new(),
            answers: 0,
            lost: 0,
        };
        let pace = self.rate.map(|rate| Duration::from_secs(1) / rate.max(1));
        let mut before = None;
        while client.answers < self.count {
            let now = client.start.elapsed();
            if now >= client.window.1 {
                break;
            }
            if now >= warm_up && before.is_none() {
                before = Some((now, self.clocks()?));
            }
            match pace {
                Some(pace) => client.keep_pace(pace)?,
                None => client.fill(self.window.unwrap_or(1))?,
            }
        }
        let end = client.start.elapsed();
        let after = self.clocks()?;
        client.window.1 = end;
        let (begun, before) = before.context("it was over before it began")?;
        let answers = client.answers;
        while client.flight.open > 0 && client.start.elapsed() < end + LOST {
            client.receive(TICK)?;
        }
        client.give_up(Duration::MAX);
        client.latencies.sort_unstable();
        let percentile = |share| stats::percentile(&client.latencies, share).map(|ns| f64::from(ns) / 1e3);
        Ok(Asked {
            seconds: (end - begun).as_secs_f64(),
            answers,
            lost: client.lost,
            server_cpu: after.0 - before.0,
            client_cpu: after.1 - before.1,
            p50: percentile(0.5),
            p99: percentile(0.99),
            max: percentile(1.0),
        })
    }

    /// The server's and our own.
    fn clocks(&self) -> nix::Result<(f64, f64)> {
        Ok((cpu_time(Pid::from_raw(self.server))?.as_secs_f64(), own_cpu_time()?.as_secs_f64()))
    }
}

impl Flight {
    fn new() -> Self {
        Self { due: vec![None; IDS], oldest: 0, next: 0, open: 0 }
    }

    /// The number of a query that is due now; none if all ids are in use.
    fn begin(&mut self, due: Duration) -> Option<u64> {
        let number = self.next;
        if number - self.oldest >= IDS as u64 {
            return None;
        }
        self.due[place(number)] = Some(due);
        (self.next, self.open) = (number + 1, self.open + 1);
        Some(number)
    }

    /// When the query with this id was due, unless it isn't under way.
    fn end(&mut self, id: u16) -> Option<Duration> {
        let due = self.due[usize::from(id)].take()?;
        self.open -= 1;
        Some(due)
    }

    /// Ends what was due before `until`.
    fn give_up(&mut self, until: Duration, mut lost: impl FnMut(Duration)) {
        while self.oldest < self.next {
            let slot = &mut self.due[place(self.oldest)];
            if slot.is_some_and(|due| due >= until) {
                return;
            }
            if let Some(due) = slot.take() {
                self.open -= 1;
                lost(due);
            }
            self.oldest += 1;
        }
    }
}

impl Client {
    /// Asks until so many queries are under way, and takes what is back.
    fn fill(&mut self, window: usize) -> anyhow::Result<()> {
        while self.flight.open < window && self.send(self.start.elapsed())? {}
        self.receive(TICK)
    }

    /// Asks what is due, and takes what comes until the next is.
    fn keep_pace(&mut self, pace: Duration) -> anyhow::Result<()> {
        let due = |number: u64| pace * u32::try_from(number).unwrap_or(u32::MAX);
        while due(self.flight.next) <= self.start.elapsed() && self.send(due(self.flight.next))? {}
        let left = due(self.flight.next).saturating_sub(self.start.elapsed());
        self.receive(left.min(TICK))
    }

    /// False if there is no room for more.
    fn send(&mut self, due: Duration) -> anyhow::Result<bool> {
        let Some(number) = self.flight.begin(due) else { return Ok(false) };
        let [.., high, low] = number.to_be_bytes();
        let mut strange = Vec::new();
        let message = match self.queries.len() {
            0 => {
                strange.extend(query(&format!("x{number}.{STRANGE}")));
                &mut strange
            }
            count => &mut self.queries[place(number) % count].0,
        };
        (message[0], message[1]) = (high, low);
        match self.socket.send(message) {
            // A full queue on the way loses the datagram, as a full buffer anywhere else does.
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error).context("can't ask"),
            _ => Ok(true),
        }
    }

    /// Takes what has arrived. Waits for the first for so long.
    fn receive(&mut self, patience: Duration) -> anyhow::Result<()> {
        let mut bytes = [0; 4096];
        let mut waited = false;
        loop {
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(got) => {
                    self.take(&bytes[..got])?;
                    waited = true;
                }
                Err(Errno::EAGAIN) if waited => break,
                Err(Errno::EAGAIN) => {
                    let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                    match ppoll(&mut ready, Some(TimeSpec::from_duration(patience)), None) {
                        Ok(0) | Err(Errno::EINTR) => break,
                        Ok(_) => waited = true,
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error).context("nobody answers"),
            }
        }
        self.give_up(self.start.elapsed().saturating_sub(LOST));
        Ok(())
    }

    /// What was due before `until` is lost, and took as long as it was waited for.
    fn give_up(&mut self, until: Duration) {
        let Self { flight, window, latencies, lost, .. } = self;
        flight.give_up(until, |due| {
            if inside(*window, due) {
                *lost += 1;
                latencies.push(u32::try_from(LOST.as_nanos()).unwrap_or(u32::MAX));
            }
        });
    }

    fn take(&mut self, reply: &[u8]) -> anyhow::Result<()> {
        let now = self.start.elapsed();
        let Some([high, low]) = reply.first_chunk() else { return Ok(()) };
        let id = u16::from_be_bytes([*high, *low]);
        let Some(due) = self.flight.end(id) else { return Ok(()) };
        if !self.queries.is_empty() {
            let (query, address) = &self.queries[usize::from(id) % self.queries.len()];
            ensure!(is_answer(query, address, reply), "a wrong answer: {reply:02x?}");
        }
        if inside(self.window, now) {
            self.answers += 1;
        }
        if inside(self.window, due) {
            let took = now.saturating_sub(due).as_nanos();
            self.latencies.push(u32::try_from(took).unwrap_or(u32::MAX));
        }
        Ok(())
    }
}

/// Where a query with this number is kept: its id.
fn place(number: u64) -> usize {
    usize::try_from(number % IDS as u64).unwrap_or_default()
}

fn inside((start, end): (Duration, Duration), at: Duration) -> bool {
    start <= at && at < end
}

/// A query without an id for the A records of a name.
fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn expected(pair: &str) -> anyhow::Result<(Vec<u8>, [u8; 4])> {
    let (name, address) = pair.split_once('=').with_context(|| format!("{pair:?} is not NAME=ADDRESS"))?;
    let address: Ipv4Addr = address.parse().with_context(|| format!("in {pair:?}"))?;
    Ok((query(name), address.octets()))
}

/// Whether the reply is a success, to this question, with one record, and ends with the address.
fn is_answer(query: &[u8], address: &[u8; 4], reply: &[u8]) -> bool {
    let question = &query[HEADER..];
    reply.len() > query.len()
        && reply[2] & 0x80 != 0
        && reply[3] & 0x0f == 0
        && reply[4..8] == [0, 1, 0, 1]
        && reply[HEADER..].get(..question.len()).is_some_and(|other| other.eq_ignore_ascii_case(question))
        && reply.ends_with(address)
}

/// What a query gets from a server that only adds an address to it.
fn answer(query: &[u8], address: [u8; 4]) -> Option<Vec<u8>> {
    let mut reply = query.to_vec();
    reply.get_mut(2..8)?.copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
    // A pointer to the name, A, IN, a TTL, four bytes.
    reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 2, 0x58, 0, 4]);
    reply.extend(address);
    Some(reply)
}

/// The hidden subcommand `answer`: the least that a server does for an answer, to see what the client and the kernel alone
/// can do.
#[derive(Args)]
pub(crate) struct Answer {
    listen: SocketAddr,
    address: Ipv4Addr,
}

impl Answer {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let socket = UdpSocket::bind(self.listen)?;
        let mut bytes = [0; 512];
        loop {
            // A client that has gone shows as a refusal of some earlier answer.
            let Ok((got, from)) = socket.recv_from(&mut bytes) else { continue };
            if let Some(reply) = answer(&bytes[..got], self.address.octets()) {
                let _ = socket.send_to(&reply, from);
            }
        }
    }
}

/// Whether a server in the network namespace of this thread answers a query of this NAME=ADDRESS at once.
pub(crate) fn answers(target: SocketAddr, pair: &str) -> anyhow::Result<bool> {
    let (query, address) = expected(pair)?;
    let socket = UdpSocket::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))?;
    socket.set_read_timeout(Some(TICK))?;
    socket.connect(target)?;
    let mut reply = [0; 512];
    // Nobody there shows as a refusal, sooner or later.
    let got = socket.send(&query).and_then(|_| socket.recv(&mut reply));
    Ok(got.is_ok_and(|got| is_answer(&query, &address, &reply[..got])))
}

/// Binds a thread to a processor.
pub(crate) fn pin(thread: Pid, cpu: usize) -> anyhow::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(thread, &only).with_context(|| format!("can't bind {thread} to processor {cpu}"))
}

/// The harness's side of a measurement.
#[derive(Clone, Copy)]
pub(crate) struct Course<'a> {
    pub(crate) names: &'a [String],
    pub(crate) pace: Pace,
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
    pub(crate) cpu: Option<usize>,
}

#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// So many queries under way.
    Window(usize),
    /// The same, until there are so many answers.
    Until(usize, u64),
    /// So many a second.
    Rate(u32),
}

/// A client that has been started.
pub(crate) struct Asking {
    process: Process,
    patience: Duration,
}

/// Starts a client in the network namespace that `inside` names, or else in `home`.
pub(crate) fn ask(
    home: &Namespace,
    inside: Option<&Path>,
    server: Pid,
    target: SocketAddr,
    course: &Course<'_>,
) -> anyhow::Result<Asking> {
    let mut command = match inside {
        Some(namespace) => {
            let mut command = launch::command(Path::new("nsenter"));
            command.arg(format!("--net={}", namespace.display())).arg(std::env::current_exe()?).arg("ask");
            command
        }
        None => launch::role("ask"),
    };
    describe(&mut command, server, target, course);
    let process = Process::start(home, "the client", piped(command))?;
    Ok(Asking { process, patience: course.warm_up + course.measure + PATIENCE })
}

fn describe(command: &mut Command, server: Pid, target: SocketAddr, course: &Course<'_>) {
    let mut flag = |name: &str, value: String| {
        command.arg(format!("--{name}={value}"));
    };
    match course.pace {
        Pace::Window(window) => flag("window", window.to_string()),
        Pace::Until(window, count) => {
            flag("window", window.to_string());
            flag("count", count.to_string());
        }
        Pace::Rate(rate) => flag("rate", rate.to_string()),
    }
    flag("warm-up-ms", course.warm_up.as_millis().to_string());
    flag("measure-ms", course.measure.as_millis().to_string());
    flag("server", server.to_string());
    if let Some(cpu) = course.cpu {
        flag("cpu", cpu.to_string());
    }
    command.arg(target.to_string()).args(course.names);
}

impl Asking {
    /// Waits for what it has measured.
    pub(crate) fn end(mut self) -> anyhow::Result<Asked> {
        let line = self.process.line(self.patience)?;
        let outcome: Result<Asked, String> = serde_json::from_str(&line)?;
        outcome.map_err(anyhow::Error::msg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_query_ends_once() {
        let mut flight = Flight::new();
        assert_eq!([1, 2, 3].map(|due| flight.begin(ms(due))), [Some(0), Some(1), Some(2)]);
        assert_eq!((flight.end(1), flight.end(1), flight.end(9)), (Some(ms(2)), None, None));
        let mut lost = Vec::new();
        flight.give_up(ms(3), |due| lost.push(due));
        assert_eq!((lost, flight.open, flight.oldest), (vec![ms(1)], 1, 2));
        assert_eq!(flight.end(0), None, "it was given up on");
    }

    #[test]
    fn ids_are_used_again_but_not_by_two() {
        let mut flight = Flight::new();
        let begun = (0..IDS as u64).filter(|_| flight.begin(ms(0)).is_some()).count();
        assert_eq!((begun, flight.begin(ms(1))), (IDS, None));
        assert_eq!(flight.end(0), Some(ms(0)));
        flight.give_up(ms(0), |_| panic!("nothing is late"));
        assert_eq!((flight.begin(ms(2)), flight.end(0)), (Some(IDS as u64), Some(ms(2))));
    }

    #[test]
    fn what_comes_and_what_is_lost_is_counted() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_read_timeout(Some(LOST / 2)).unwrap();
        let target = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((got, from)) = server.recv_from(&mut bytes) {
                if bytes[1] % 10 != 0 {
                    server.send_to(&answer(&bytes[..got], [10, 0, 0, 2]).unwrap(), from).unwrap();
                }
            }
        });
        let ask = Ask {
            target,
            names: vec!["web=10.0.0.2".to_owned()],
            window: None,
            rate: Some(500),
            warm_up_ms: 0,
            measure_ms: 400,
            count: u64::MAX,
            server: nix::unistd::getpid().as_raw(),
            cpu: None,
        };
        let asked = ask.measure().unwrap();
        answering.join().unwrap();
        assert!((15..=25).contains(&asked.lost), "{asked:?}");
        assert!(asked.answers > 100 && asked.answers + asked.lost <= 201, "{asked:?}");
        assert!(asked.p50.unwrap() < 500_000.0 && asked.p99 == Some(1e6), "{asked:?}");
    }

    #[test]
    fn an_answer_is_to_the_question_and_has_the_address() {
        let (query, address) = expected("web=10.0.0.2").unwrap();
        assert_eq!(query[HEADER..], *b"\x03web\0\0\x01\0\x01");
        let answer = answer(&query, address).unwrap();
        assert!(is_answer(&query, &address, &answer));
        assert!(!is_answer(&query, &[10, 0, 0, 3], &answer), "another address");
        assert!(!is_answer(&expected("app=10.0.0.2").unwrap().0, &address, &answer), "another question");
        for (at, byte) in [(2, 1), (3, 0x83), (7, 0)] {
            let mut bad = answer.clone();
            bad[at] = byte;
            assert!(!is_answer(&query, &address, &bad), "{at}");
        }
        assert!(!is_answer(&query, &address, &answer[..HEADER]));
        assert!(expected("web").is_err() && expected("web=x").is_err());
    }
}
