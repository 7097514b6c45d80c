//! Proxy programs that are shell scripts, keepers that use them, and what is to be seen of both from outside.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::model::GatewayMode;
use crate::publish::PublishSpec;
use crate::publish::bindings::{HostDefaults, plan};
use crate::publish::destination::{Destination, publications};
use crate::publish::keeper::*;

pub(super) const SERVE: &str = "printf '0\\n' >&3; exec 3>&-; exec sleep 1000";
pub(super) const MANY: &str = "echo '-container-port -use-listen-fd -listen-fds'";
pub(super) const ONE: &str = "echo '-container-port -use-listen-fd'";
pub(super) const NOTHING: &str = "echo '-container-port'";

/// A proxy program, keepers that use it, and a marker that no other test has.
pub(super) struct Fixture {
    folder: tempfile::TempDir,
    pub(super) help: &'static str,
}

impl Fixture {
    pub(super) fn new(help: &'static str, script: &str) -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap(), help };
        fixture.program(script);
        fixture
    }

    /// Written by a shell: a descriptor of our own might be copied into a child of another test, and a program that is
    /// open for writing can't be executed.
    pub(super) fn program(&self, script: &str) {
        let here = self.folder.path().display();
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = --help ] && {{ {}; exit 0; }}\necho \"$*\" >> {here}/calls\n{script}\n",
            self.help
        );
        let done = std::process::Command::new("/bin/sh")
            .args([
                "-c",
                "printf %s \"$1\" > \"$2.new\" && chmod 755 \"$2.new\" && mv \"$2.new\" \"$2\"",
                "sh",
                &text,
            ])
            .arg(self.path())
            .status();
        assert!(done.unwrap().success());
        assert_eq!(fs::metadata(self.path()).unwrap().permissions().mode() & 0o777, 0o755);
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("proxy")
    }

    pub(super) fn marker(&self) -> String {
        self.folder.path().display().to_string()
    }

    pub(super) fn keeper(&self) -> Keeper {
        Keeper::new(KeeperSettings { marker: self.marker(), proxy: Some(self.path()) })
    }

    pub(super) fn without_proxy(&self) -> Keeper {
        Keeper::new(KeeperSettings { marker: self.marker(), proxy: None })
    }

    /// What the proxies were started with, one line each.
    pub(super) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// Nothing that a test has started outlives it.
impl Drop for Fixture {
    fn drop(&mut self) {
        for found in found::predecessors(&KeeperMark::new(&self.marker())) {
            let _ = Process::adopted(found.pid, found.handle).end();
        }
    }
}

pub(super) fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | (high ^ middle) & 63, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn reserved(keeper: &Keeper, specs: &[String]) -> Vec<(Reservation, Publication)> {
    let specs: Vec<PublishSpec> = specs.iter().map(|text| text.parse().unwrap()).collect();
    let groups = plan(&specs, &HostDefaults::default()).unwrap();
    let to = Destination {
        v4: Some(Ipv4Addr::new(172, 17, 0, 2)),
        v6: None,
        v6_elsewhere: false,
        mode4: GatewayMode::Nat,
        mode6: GatewayMode::Nat,
        default_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        host_ipv6: true,
        proxy: true,
    };
    publications(keeper.reserve(&groups).unwrap(), &specs, &to)
}

pub(super) fn served(keeper: &Keeper, specs: &[String]) -> Vec<Publication> {
    let mappings = reserved(keeper, specs);
    let published = mappings.iter().map(|(_, publication)| publication.clone()).collect();
    keeper.serve(mappings).unwrap();
    // In the middle of an exec, which a real proxy doesn't do any more, a process has no environment to be known by.
    eventually("all have become what they stay", || {
        pids(keeper).iter().all(|pid| serves(*pid)).then_some(())
    });
    published
}

pub(super) fn one(keeper: &Keeper) -> Publication {
    served(keeper, &[format!("{}::80", own_address())]).remove(0)
}

/// A range of two ports that is served.
pub(super) fn two_in_a_row(keeper: &Keeper) -> Publication {
    let ip = own_address();
    let first = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
    eventually("two ports in a row", || {
        let spec: PublishSpec = format!("{ip}:{first}-{}:80-81", first.checked_add(1)?).parse().unwrap();
        let mut bound = keeper.reserve(&plan(&[spec], &HostDefaults::default()).unwrap()).ok()?;
        let reservation = bound.remove(0);
        let publication = Publication {
            spec,
            proto: reservation.proto(),
            container: reservation.container(),
            host: Some(reservation.host()),
            addresses: reservation.addresses().to_vec(),
            target: "172.17.0.2".parse().unwrap(),
        };
        keeper.serve(vec![(reservation, publication.clone())]).unwrap();
        Some(publication)
    })
}

pub(super) fn place(publication: &Publication) -> SocketAddr {
    SocketAddr::new(publication.addresses[0], publication.host.unwrap().first())
}

pub(super) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
}

pub(super) fn pids(keeper: &Keeper) -> Vec<u32> {
    keeper.proxies().into_iter().filter_map(|(_, pid)| pid).collect()
}

/// The one proxy that serves, other than some.
pub(super) fn another(keeper: &Keeper, than: &[u32]) -> u32 {
    eventually("another proxy", || pids(keeper).into_iter().find(|pid| !than.contains(pid) && serves(*pid)))
}

/// Whether it has come so far as to serve.
pub(super) fn serves(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
}

pub(super) fn kill(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
}

/// Which sockets the proxy has: their order is nobody's business.
pub(super) fn sockets_of(pid: u32) -> Vec<PathBuf> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut sockets: Vec<PathBuf> =
        links.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect();
    sockets.retain(|path| path.to_str().unwrap().starts_with("socket:"));
    sockets.sort();
    assert!(!sockets.is_empty());
    sockets
}

/// Whether somebody completes handshakes there.
pub(super) fn listens(publication: &Publication) -> bool {
    TcpStream::connect_timeout(&place(publication), Duration::from_millis(100)).is_ok()
}

pub(super) fn is_free(publication: &Publication) -> bool {
    TcpListener::bind(place(publication)).is_ok()
}
