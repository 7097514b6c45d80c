//! A real dockerd on a host of its own, with a proxy of our choice, and its containers.
//!
//! dockerd, its containerd, the shims, the containers and the proxies live in one process-id namespace, whose first
//! process reads a pipe that only this test holds. When the test lets go of it, or dies however suddenly, that process
//! ends and the kernel kills all the others; the shell around them then removes their directory and cgroups. What
//! they mount is in a mount namespace that ends with them.
//!
//! Not here: what is expected of a proxy under dockerd (`tests/dockerd.rs`).

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::lab::{Host, cable};
use crate::wait::{self, PATIENCE};
use crate::{bin, need};

/// The host's addresses on the cable to its neighbour.
const HOST: [&str; 2] = ["192.0.2.1/24", "2001:db8::1/64"];
/// The environment dockerd gets beside the test's own, and hands on to its proxies.
pub const UDP_TIMEOUT: (&str, &str) = ("NETPROXY_UDP_TIMEOUT", "1");

/// How long dockerd may take to start, on a machine that is busy with other things.
const START: Duration = Duration::from_secs(60);
/// The image of every container: busybox and an empty web site.
const IMAGE: &str = "busybox:local";

/// Around everything: `$1` is the directory, `$2` the cgroup.
const OUTER: &str = r#"
unshare --mount --pid --fork --kill-child --mount-proc sh -c "$INNER" sh "$1"
tries=100
while [ $tries -gt 0 ] && [ -n "$(find /sys/fs/cgroup -type d -name "$2")" ]; do
    find /sys/fs/cgroup -depth -type d \( -path "*/$2" -o -path "*/$2/*" \) -exec rmdir {} + 2>/dev/null || sleep 0.05
    tries=$((tries - 1))
done
rm -rf "$1"
"#;

/// The first process of the namespace. Background processes of a shell have no stdin: only `cat` holds the pipe.
const INNER: &str = r#"
mount -t tmpfs tmpfs /run
dockerd --config-file "$1/daemon.json" >"$1/log" 2>&1 &
cat
exit
"#;

/// A running dockerd.
#[derive(Debug)]
pub struct Dockerd {
    /// The host it publishes on, with a network namespace of its own.
    pub host: Host,
    /// Another machine, on the other end of the host's `eth0`.
    pub neighbour: Host,
    directory: PathBuf,
    proxy: PathBuf,
    /// The outer shell, in a process group of its own.
    shell: Child,
    pid: u32,
    /// The process-id namespace of it and everything it started.
    processes: PathBuf,
}

impl Dockerd {
    /// The one with netproxy that tests share as long as they overlap.
    ///
    /// # Panics
    /// When it doesn't start, or didn't for an earlier test: one time-out is enough.
    #[must_use]
    pub fn shared() -> Option<Arc<Self>> {
        static RUNNING: Mutex<Weak<Dockerd>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().expect("dockerd starts, which it didn't for another test");
        if let Some(dockerd) = running.upgrade() {
            return Some(dockerd);
        }
        let dockerd = Arc::new(Self::start(&bin::netproxy())?);
        *running = Arc::downgrade(&dockerd);
        Some(dockerd)
    }

    /// Starts one whose `userland-proxy-path` is `proxy`.
    ///
    /// # Panics
    /// When it doesn't start.
    #[must_use]
    pub fn start(proxy: &Path) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let host = Host::new("host")?;
        let neighbour = Host::new("neighbour")?;
        for program in ["dockerd", "docker", "busybox", "ip", "iptables", "tar"] {
            need::program(program)?;
        }
        cable((&host, "eth0", &HOST), (&neighbour, "eth0", &["192.0.2.2/24", "2001:db8::2/64"]));

        let name = format!("portmap-e2e-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir(&directory).expect("a new directory");
        fs::write(directory.join("daemon.json"), configuration(&directory, &name, proxy))
            .expect("a file in it");
        let mut command = Command::new("sh");
        command.args(["-c", OUTER, "sh"]).arg(&directory).arg(&name);
        command.env("INNER", INNER).env(UDP_TIMEOUT.0, UDP_TIMEOUT.1);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let shell = host.enter(move || command.spawn().expect("a shell starts"));
        let mut dockerd = Self {
            host,
            neighbour,
            directory,
            proxy: proxy.to_owned(),
            shell,
            pid: 0,
            processes: PathBuf::new(),
        };
        wait::some("dockerd that answers", START, || dockerd.answers().then_some(()));
        let configuration = dockerd.directory.join("daemon.json");
        let is_it =
            |pid: &u32| command_line(*pid).get(2).is_some_and(|word| Path::new(word) == configuration);
        dockerd.pid = processes().find(is_it).expect("it answers, so it runs");
        dockerd.processes = namespace_of(dockerd.pid).expect("a running process has namespaces");
        dockerd.import_image();
        Some(dockerd)
    }

    /// Runs the docker command line against it.
    ///
    /// # Panics
    /// When that can't be started.
    #[must_use]
    pub fn try_docker(&self, words: &[&str]) -> Output {
        let socket = format!("unix://{}", self.directory.join("docker.sock").display());
        let mut command = Command::new("docker");
        // A configuration of its own: the user's may name another Docker.
        command.env("DOCKER_HOST", socket).env("DOCKER_CONFIG", self.directory.join("client"));
        command.env_remove("DOCKER_CONTEXT").args(words).stdin(Stdio::null());
        command.output().expect("docker starts")
    }

    /// Runs it, and it must succeed. Returns what it printed.
    ///
    /// # Panics
    /// When it fails, with what it said.
    #[track_caller]
    pub fn docker(&self, words: &[&str]) -> String {
        let output = self.try_docker(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {words:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Starts a container whose web server on port 80 says the container's name.
    ///
    /// # Panics
    /// When it doesn't start.
    #[must_use]
    #[track_caller]
    pub fn web(self: &Arc<Self>, name: &str, options: &[&str]) -> Container {
        let serve = format!("echo {name} >/www/index.html; exec busybox httpd -f -p 80 -h /www");
        let words =
            [&["run", "--detach", "--name", name], options, &[IMAGE, "/bin/sh", "-c", &serve]].concat();
        self.docker(&words);
        let container = Container::open(self, name);
        wait::until("web server in the container", || container.connect((Ipv4Addr::LOCALHOST, 80)).is_ok());
        container
    }

    /// The proxies that run for it.
    #[must_use]
    pub fn proxies(&self) -> Vec<Proxy> {
        let ours = processes().filter(|pid| namespace_of(*pid).is_some_and(|space| space == self.processes));
        let proxies = ours.map(|pid| Proxy { pid, words: command_line(pid) });
        proxies
            .filter(|proxy| proxy.words.first().is_some_and(|word| Path::new(word) == self.proxy))
            .collect()
    }

    /// The proxies that listen on a port.
    #[must_use]
    pub fn proxies_of(&self, port: u16) -> Vec<Proxy> {
        let port = port.to_string();
        let mut proxies = self.proxies();
        proxies.retain(|proxy| proxy.value("-host-port") == Some(&port));
        proxies
    }

    /// Kills it like the kernel does when memory is short. Containers live on.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn kill(&self) {
        kill(nix_pid(self.pid), Signal::SIGKILL).expect("dockerd runs");
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn answers(&mut self) -> bool {
        let ended = self.shell.try_wait().expect("our own child");
        assert!(ended.is_none(), "dockerd's shell ended: {ended:?}");
        self.try_docker(&["version"]).status.success()
    }

    fn import_image(&self) {
        let (root, archive) = (self.directory.join("image"), self.directory.join("image.tar"));
        let busybox = bin::on_path("busybox").expect("needed, so it is there");
        for file in std::iter::once(busybox.clone()).chain(libraries_of(&busybox)) {
            let copy = if file == busybox { Path::new("bin/busybox") } else { below_root(&file) };
            let copy = root.join(copy);
            fs::create_dir_all(copy.parent().expect("it is below the root")).expect("a directory");
            fs::copy(&file, &copy).unwrap_or_else(|e| panic!("copy {}: {e}", file.display()));
        }
        fs::create_dir(root.join("www")).expect("a directory");
        std::os::unix::fs::symlink("busybox", root.join("bin/sh")).expect("a link");
        let tar = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status();
        assert!(tar.expect("tar starts").success(), "tar -cf {}", archive.display());
        self.docker(&["import", archive.to_str().expect("made of ASCII"), IMAGE]);
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("dockerd said:\n{}", self.log());
        }
        drop(self.shell.stdin.take());
        let deadline = std::time::Instant::now() + 2 * PATIENCE;
        while matches!(self.shell.try_wait(), Ok(None)) {
            if std::time::Instant::now() >= deadline {
                let _ = killpg(nix_pid(self.shell.id()), Signal::SIGKILL);
                let _ = self.shell.wait();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// dockerd's configuration file, as an administrator would write it.
fn configuration(directory: &Path, cgroup: &str, proxy: &Path) -> String {
    let socket = format!("unix://{}", directory.join("docker.sock").display());
    let configuration = serde_json::json!({
        "userland-proxy-path": proxy,
        "hosts": [socket],
        "data-root": directory.join("data"),
        "exec-root": directory.join("exec"),
        "pidfile": directory.join("pid"),
        "deprecated-key-path": directory.join("key.json"),
        // Works on every file system, also on one that is an overlay itself.
        "storage-driver": "vfs",
        "log-level": "warn",
        "cgroup-parent": format!("/{cgroup}"),
        // systemd can't be asked for cgroups from in here.
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
    });
    configuration.to_string()
}

/// A running proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its process id.
    pub pid: u32,
    /// Its command line, as `ps` shows it.
    pub words: Vec<String>,
}

impl Proxy {
    /// The word after `flag`.
    #[must_use]
    pub fn value(&self, flag: &str) -> Option<&String> {
        self.words.iter().skip_while(|word| *word != flag).nth(1)
    }

    /// Whether it was started with `name=value` in its environment.
    #[must_use]
    pub fn has_environment(&self, name: &str, value: &str) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        let wanted = format!("{name}={value}");
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    }
}

/// A running container; removed when the handle goes.
#[derive(Debug)]
pub struct Container {
    dockerd: Arc<Dockerd>,
    name: String,
    namespace: File,
}

impl Container {
    fn open(dockerd: &Arc<Dockerd>, name: &str) -> Self {
        let path = dockerd.docker(&["inspect", "--format", "{{.NetworkSettings.SandboxKey}}", name]);
        // Mounted where only dockerd and its children see it.
        let namespace = File::open(format!("/proc/{}/root{path}", dockerd.pid));
        let namespace = namespace.unwrap_or_else(|e| panic!("network namespace of {name}, {path}: {e}"));
        Self { dockerd: Arc::clone(dockerd), name: name.to_owned(), namespace }
    }

    /// Runs `work` on a thread inside the container's network namespace.
    ///
    /// # Panics
    /// When `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.dockerd.host.enter(|| {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("root enters any namespace");
            work()
        })
    }

    /// Connects to `to` from inside.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(&self, to: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let to = to.into();
        self.enter(|| {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        })
    }

    /// A UDP socket inside, on any port.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn udp(&self) -> UdpSocket {
        let socket = self.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).expect("a free port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        socket
    }

    /// Starts a UDP server inside that sends back what arrives.
    #[must_use]
    pub fn udp_echo(&self, port: u16) -> UdpEcho {
        UdpEcho::start(self.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))).expect("a free port"))
    }

    /// The host port that docker says the container's `port` (`80/tcp`) has.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn host_port(&self, port: &str) -> u16 {
        let answer = self.dockerd.docker(&["port", &self.name, port]);
        let number = answer.lines().next().and_then(|line| line.rsplit(':').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("docker port {} {port}: {answer:?}", self.name))
    }

    /// Removes it, as its handle's end does, but not in silence.
    ///
    /// # Panics
    /// When docker can't.
    #[track_caller]
    pub fn remove(self) {
        self.dockerd.docker(&["rm", "--force", &self.name]);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // What is left of it goes with dockerd.
        let _ = self.dockerd.try_docker(&["rm", "--force", &self.name]);
    }
}

/// A UDP server in a container that remembers who asked; it ends with its handle.
#[derive(Debug)]
pub struct UdpEcho {
    clients: Arc<Mutex<Vec<SocketAddr>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpEcho {
    fn start(socket: UdpSocket) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time-out can be set");
        let clients = Arc::<Mutex<Vec<SocketAddr>>>::default();
        let over = Arc::new(AtomicBool::new(false));
        let (seen, stop) = (Arc::clone(&clients), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::SeqCst) {
                // A time-out, or the complaint of a client that left: neither ends a server.
                let Ok((count, client)) = socket.recv_from(&mut buffer) else { continue };
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(client);
                let _ = socket.send_to(&buffer[..count], client);
            }
        });
        Self { clients, over, thread: Some(thread) }
    }

    /// Who sent the last datagram.
    #[must_use]
    pub fn last_client(&self) -> Option<SocketAddr> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).last().copied()
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The loader and the libraries of a program; none if it is static.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("ldd starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn below_root(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("procfs is mounted");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The words a process was started with; none when it has ended.
fn command_line(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.split_terminator('\0').map(str::to_owned).collect()
}

fn namespace_of(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

fn nix_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("the kernel's process ids are positive"))
}
