//! The kernel of this host, in the network namespace in which it was opened.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::errno::Errno;

use super::announce::Announcer;
use super::error::Refusal;
use super::link::{self, Kind};
use super::netlink::Socket;
use super::netns::{self, Found};
use super::procfs::Instances;
use super::resolver::{self, NameSockets};
use super::{Kernel, KernelError, LinkFacts, address, bridge, route, sysctl, veth};
use crate::firewall::Backend;
use crate::model::IfName;
use crate::plan::{Key, Object, Step, Veth};

/// The kernel of this host. It acts in the network namespace of the thread that made it, whichever thread uses it.
pub struct HostKernel {
    /// The namespace.
    home: File,
    marker: String,
    /// Whether this kernel has IPv6 at all.
    pub(super) ipv6: bool,
    socket: Mutex<Socket>,
    /// For settings in sandboxes.
    pub(super) procfs: Instances,
    announcer: Announcer,
    gate: Option<Gate>,
}

type Gate = Box<dyn Fn(&Operation<'_>) -> io::Result<()> + Send + Sync>;

/// One thing that is about to be done: what a test can make fail.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What: `create`.
    pub verb: &'static str,
    /// To what: `bridge br-x`.
    pub object: &'a str,
}

/// An object being worked on: what its operations are called when they fail.
pub(super) struct Work<'a> {
    pub(super) kernel: &'a HostKernel,
    object: String,
}

impl HostKernel {
    /// Acts in the network namespace of the calling thread. What it makes bears the marker, which tells it from what other
    /// instances make.
    ///
    /// # Errors
    /// If the kernel can't be talked to.
    pub fn new(marker: String) -> Result<Self, KernelError> {
        let open = || -> io::Result<Self> {
            Ok(Self {
                home: netns::current()?,
                marker,
                ipv6: Path::new("/proc/sys/net/ipv6").exists(),
                socket: Mutex::new(Socket::open()?),
                procfs: Instances::default(),
                announcer: Announcer::default(),
                gate: None,
            })
        };
        open().map_err(|error| Refusal::from(error).about("open", "the kernel's network"))
    }

    /// As [`new`](Self::new), with something asked before each single operation: its error is what happens instead.
    ///
    /// # Errors
    /// If the kernel can't be talked to.
    #[doc(hidden)]
    pub fn with_gate(
        marker: String,
        gate: impl Fn(&Operation<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self, KernelError> {
        Ok(Self { gate: Some(Box::new(gate)), ..Self::new(marker)? })
    }

    pub(super) fn work(&self, object: String) -> Work<'_> {
        Work { kernel: self, object }
    }

    /// The socket of the host's namespace.
    pub(super) fn socket(&self) -> MutexGuard<'_, Socket> {
        // After a panic it is as good as new: answers to earlier requests are told by their numbers.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that is another namespace than the host's.
    pub(super) fn is_elsewhere(&self, namespace: &File) -> bool {
        let place = |file: &File| file.metadata().map(|file| (file.dev(), file.ino())).ok();
        place(&self.home) != place(namespace)
    }

    /// Runs `work` in the host's namespace, for what the kernel does in that of the calling thread.
    pub(super) fn at_home<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let (home, here) = (self.home.metadata()?, netns::current()?.metadata()?);
        if (home.dev(), home.ino()) == (here.dev(), here.ino()) {
            return Ok(work());
        }
        netns::inside(&self.home, work)
    }

    /// Runs one operation in the host's namespace.
    pub(super) fn at_home_run<T: Send>(
        &self,
        work: &Work<'_>,
        verb: &'static str,
        operation: impl FnOnce() -> T + Send,
    ) -> Result<T, KernelError> {
        work.run(verb, || self.at_home(operation))
    }

    /// Makes a setting of the host's namespace have a value.
    pub(super) fn set(&self, work: &Work<'_>, key: &str, value: &str) -> Result<(), KernelError> {
        let path = sysctl::path(key).ok_or_else(|| KernelError::BadSysctl(key.to_owned()))?;
        work.run("set sysctls of", || self.at_home(|| sysctl::ensure(&path, value)).flatten())
    }

    /// A sandbox's namespace, which must be there.
    pub(super) fn namespace(&self, work: &Work<'_>, path: &Path) -> Result<File, KernelError> {
        match work.run("find the namespace of", || netns::find(path))? {
            Found::Namespace(file) => Ok(file),
            Found::Nothing => Err(KernelError::NoNamespace(path.to_owned())),
            Found::File | Found::Other => Err(KernelError::NotANamespace(path.to_owned())),
        }
    }

    /// What begins the alias of what is ours.
    pub(super) fn alias_prefix(&self) -> String {
        alias_prefix(&self.marker)
    }
}

impl Kernel for HostKernel {
    fn apply(&self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::Ensure(Object::Sysctl(wanted)) => {
                let work = self.work(format!("sysctl {}", wanted.key));
                let path =
                    sysctl::path(&wanted.key).ok_or_else(|| KernelError::BadSysctl(wanted.key.clone()))?;
                work.run("set", || self.at_home(|| sysctl::ensure(&path, &wanted.value)).flatten())
            }
            Step::Ensure(Object::Bridge(wanted)) => bridge::ensure(self, wanted),
            Step::Ensure(Object::Namespace(wanted)) => netns::ensure(self, wanted),
            Step::Ensure(Object::Veth(wanted)) => veth::ensure(self, wanted),
            Step::Ensure(Object::DefaultRoutes(wanted)) => route::ensure(self, wanted),
            // Others may have come to rely on it.
            Step::Remove(Object::Sysctl(_)) => Ok(()),
            Step::Remove(Object::Bridge(old)) => bridge::remove(self, old),
            Step::Remove(Object::Namespace(old)) => netns::remove(self, old),
            Step::Remove(Object::Veth(old)) => veth::remove(self, old),
            Step::Remove(Object::DefaultRoutes(old)) => route::remove(self, old),
        }
    }

    fn on_link_routes(&self) -> Result<Vec<IpNet>, KernelError> {
        let alias = self.alias_prefix();
        self.work("the host's routes".to_owned()).run("list", || route::on_link(&mut self.socket(), &alias))
    }

    fn link(&self, name: &IfName) -> Result<Option<LinkFacts>, KernelError> {
        let work = self.work(format!("interface {name}"));
        let Some(link) = work.run("find", || link::find(&mut self.socket(), name))? else { return Ok(None) };
        // It may go between the two questions: then it is as if it hadn't been there for the first.
        let listed = work.try_run("list the addresses of", || address::list(&mut self.socket(), link.index));
        let addresses = match listed {
            Err(refusal) if refusal.is(Errno::ENODEV) => return Ok(None),
            listed => listed.map_err(|refusal| work.failed("list the addresses of", refusal))?,
        };
        let bridge = link.kind == Kind::Bridge;
        Ok(Some(LinkFacts { bridge, addresses, mtu: link.mtu, alias: link.alias }))
    }

    fn ours(&self, marker: &str, namespaces: &Path) -> Result<Vec<Key>, KernelError> {
        let (prefix, mut keys) = (alias_prefix(marker), Vec::new());
        let work = self.work("the host's interfaces".to_owned());
        for link in work.run("list", || link::list(&mut self.socket()))? {
            let half_made = marker == self.marker && bridge::is_half_made(self, &link);
            let marked = half_made || link.alias.is_some_and(|alias| alias.starts_with(&prefix));
            let Some(name) = link.name.parse::<IfName>().ok().filter(|_| marked) else { continue };
            match link.kind {
                Kind::Bridge => keys.push(Key::Bridge(name)),
                Kind::Veth => keys.push(Key::Veth(name)),
                Kind::Other => {}
            }
        }
        let work = self.work(format!("the namespaces in {}", namespaces.display()));
        keys.extend(work.run("list", || netns::pinned(namespaces))?.into_iter().map(Key::Namespace));
        keys.sort_unstable();
        Ok(keys)
    }

    fn sysctl(&self, key: &str) -> Result<Option<String>, KernelError> {
        let path = sysctl::path(key).ok_or_else(|| KernelError::BadSysctl(key.to_owned()))?;
        self.work(format!("sysctl {key}")).run("read", || self.at_home(|| sysctl::read(&path)).flatten())
    }

    fn await_port(&self, veth: &Veth) {
        let deadline = Instant::now() + PORT_TIME;
        let is_down = |name| matches!(link::find(&mut self.socket(), name), Ok(Some(link)) if link.is_down);
        // The bridge comes up with its first port.
        while (is_down(&veth.host) || is_down(&veth.bridge)) && Instant::now() < deadline {
            std::thread::sleep(PORT_POLL);
        }
    }

    fn announce(&self, veth: &Veth) {
        self.announcer.announce(veth);
    }

    fn has_ipv6(&self, namespace: &Path) -> Result<bool, KernelError> {
        let work = self.work(format!("IPv6 of namespace {}", namespace.display()));
        let namespace = self.namespace(&work, namespace)?;
        let Some(path) = sysctl::path("net/ipv6/conf/lo/disable_ipv6") else { return Ok(false) };
        let disabled = work.run("find", || netns::inside(&namespace, || sysctl::read(&path)).flatten())?;
        Ok(disabled.as_deref() == Some("0"))
    }

    fn name_sockets(&self, namespace: &Path, backend: Option<Backend>) -> Result<NameSockets, KernelError> {
        let work = self.work(format!("name server of namespace {}", namespace.display()));
        let namespace = self.namespace(&work, namespace)?;
        let settings = self.procfs.get();
        let flows = settings.setting(resolver::FLOWS);
        work.run("make the sockets of", || {
            netns::inside(&namespace, || {
                // That of a namespace that somebody else made may be down.
                netns::loopback_up()?;
                Ok::<_, Refusal>(resolver::make(backend, flows.as_deref())?)
            })?
        })
    }

    fn remove_name_rules(&self, namespace: &Path) -> Result<(), KernelError> {
        let work = self.work(format!("name server of namespace {}", namespace.display()));
        let namespace = self.namespace(&work, namespace)?;
        work.run("remove the rules of", || netns::inside(&namespace, resolver::remove_rules).flatten())
    }
}

/// How long a bridge may take to open a port, and how often it is looked at.
const PORT_TIME: Duration = Duration::from_millis(200);
const PORT_POLL: Duration = Duration::from_micros(500);

/// What begins the alias of what bears a marker.
pub(super) fn alias_prefix(marker: &str) -> String {
    format!("portmap:{marker}:")
}

impl Work<'_> {
    /// Does one thing, or says why not.
    pub(super) fn run<T, E: Into<Refusal>>(
        &self,
        verb: &'static str,
        operation: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, KernelError> {
        self.try_run(verb, operation).map_err(|refusal| refusal.about(verb, &self.object))
    }

    /// As `run`, for callers that make something of the error.
    pub(super) fn try_run<T, E: Into<Refusal>>(
        &self,
        verb: &'static str,
        operation: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, Refusal> {
        if let Some(gate) = &self.kernel.gate {
            gate(&Operation { verb, object: &self.object })?;
        }
        operation().map_err(Into::into)
    }

    pub(super) fn failed(&self, verb: &'static str, refusal: Refusal) -> KernelError {
        refusal.about(verb, &self.object)
    }
}
