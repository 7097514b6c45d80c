//! A host of its own, and a kernel that acts in it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use netcore::kernel::{HostKernel, Kernel, KernelError, Operation};
use netcore::model::{EndpointId, IfName};
use netcore::plan::{Bridge, DefaultRoutes, Namespace, Object, Step, Veth};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use crate::lab::{Host, missing};

/// The marker of what the tests make.
pub(crate) const MARKER: &str = "test";

/// A host, a directory for pins, and the kernel under test.
pub(crate) struct World {
    pub(crate) host: Host,
    pub(crate) kernel: HostKernel,
    pins: TempDir,
    gate: Arc<Gate>,
}

/// Notes each operation, and makes one fail.
#[derive(Default)]
struct Gate {
    seen: Mutex<Vec<String>>,
    fail_in: AtomicUsize,
}

impl World {
    /// None where namespaces can't be made.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            missing("needs root for network namespaces")?;
        }
        let (host, gate) = (Host::new(), Arc::new(Gate::default()));
        let hook = Arc::clone(&gate);
        let kernel = host.enter(move || {
            HostKernel::with_gate(MARKER.to_owned(), move |operation: &Operation<'_>| hook.pass(operation))
        });
        let kernel = kernel.expect("the kernel can be talked to");
        Some(Self { host, kernel, pins: TempDir::new().expect("a directory"), gate })
    }

    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.pins.path().join("netns").join(name)
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.pins.path().join("netns")
    }

    pub(crate) fn inside(&self, name: &str) -> Host {
        Host::at(&self.pin(name))
    }

    pub(crate) fn ensure(&self, object: impl Into<Wanted>) {
        self.try_ensure(object).expect("it can be made");
    }

    pub(crate) fn try_ensure(&self, object: impl Into<Wanted>) -> Result<(), KernelError> {
        self.kernel.apply(&Step::Ensure(object.into().0))
    }

    pub(crate) fn remove(&self, object: impl Into<Wanted>) {
        self.kernel.apply(&Step::Remove(object.into().0)).expect("it can be removed");
    }

    /// Makes it once more, and says whether nothing was sent to the kernel.
    pub(crate) fn is_settled(&self, object: impl Into<Wanted>) -> bool {
        self.gate.seen.lock().expect("no panic").clear();
        self.ensure(object);
        let seen = self.gate.seen.lock().expect("no panic");
        let changes = ["create", "configure", "remove", "set the", "prepare", "pin", "unpin"];
        !seen.iter().any(|verb| changes.iter().any(|change| verb.starts_with(change)))
    }

    /// Tries to make it, with each single operation failing once; `check` sees what is left each time.
    pub(crate) fn failing_in_turn(&self, object: impl Into<Wanted>, check: impl Fn(&str)) {
        let step = Step::Ensure(object.into().0);
        let mut tried = BTreeSet::new();
        for number in 1.. {
            self.gate.seen.lock().expect("no panic").clear();
            self.gate.fail_in.store(number, Ordering::SeqCst);
            let outcome = self.kernel.apply(&step);
            let reached = self.gate.fail_in.swap(0, Ordering::SeqCst) == 0;
            let verb = self.gate.seen.lock().expect("no panic").last().cloned().expect("an operation");
            if !reached {
                outcome.expect("nothing failed");
                break;
            }
            let error = outcome.expect_err(&verb).to_string();
            assert!(error.contains("on purpose") && error.contains(&verb), "{error}");
            check(&verb);
            tried.insert(verb);
        }
        assert!(tried.len() > 1, "{tried:?}");
    }

    /// Interfaces, addresses, routes: all that a step could have changed.
    pub(crate) fn state(&self) -> String {
        state(&self.host)
    }

    /// A namespace of that name, and an endpoint in it.
    pub(crate) fn sandbox(&self, name: &str, bridge: &str, address: &str) -> Veth {
        self.ensure(self.namespace(name));
        let veth = self.veth(name, bridge, &[address]);
        self.ensure(veth.clone());
        veth
    }

    pub(crate) fn namespace(&self, name: &str) -> Namespace {
        Namespace { path: self.pin(name), adopted: false, holder: None }
    }

    pub(crate) fn veth(&self, sandbox: &str, bridge: &str, addresses: &[&str]) -> Veth {
        let number = sandbox.bytes().fold(7u64, |sum, byte| sum * 131 + u64::from(byte));
        let [.., a, b, c, d] = number.to_be_bytes();
        Veth {
            endpoint: endpoint(number),
            bridge: name(bridge),
            host: name(&format!("veth-{sandbox}")),
            namespace: self.pin(sandbox),
            name: name("eth0"),
            mac: netcore::model::Mac::from_random([2, 0, a, b, c, d]),
            addresses: addresses.iter().map(|net| net.parse().expect("a net")).collect(),
            mtu: None,
            hairpin: false,
            sysctls: Vec::new(),
        }
    }

    pub(crate) fn routes(&self, sandbox: &str, v4: Option<&str>, v6: Option<&str>) -> DefaultRoutes {
        DefaultRoutes {
            namespace: self.pin(sandbox),
            ipv4: v4.map(|gateway| (gateway.parse().expect("an address"), name("eth0"))),
            ipv6: v6.map(|gateway| (gateway.parse().expect("an address"), name("eth0"))),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let entries = std::fs::read_dir(self.pins()).into_iter().flatten().flatten();
        entries.for_each(|entry| while umount2(&entry.path(), MntFlags::MNT_DETACH).is_ok() {});
    }
}

impl Gate {
    fn pass(&self, operation: &Operation<'_>) -> io::Result<()> {
        self.seen.lock().expect("no panic").push(operation.verb.to_owned());
        let counted = |left: usize| left.checked_sub(1);
        if self.fail_in.fetch_update(Ordering::SeqCst, Ordering::SeqCst, counted) == Ok(1) {
            return Err(io::Error::other("on purpose"));
        }
        Ok(())
    }
}

/// An object, from each of its kinds.
pub(crate) struct Wanted(Object);

macro_rules! wanted {
    ($($kind:ident)*) => {$(
        impl From<$kind> for Wanted {
            fn from(object: $kind) -> Self {
                Self(Object::$kind(object))
            }
        }
    )*};
}
use netcore::plan::Sysctl;
wanted!(Sysctl Bridge Namespace Veth DefaultRoutes);

pub(crate) fn name(text: &str) -> IfName {
    text.parse().expect("an interface's name")
}

pub(crate) fn bridge(of: &str, addresses: &[&str]) -> Bridge {
    let addresses: Vec<_> = addresses.iter().map(|net| net.parse().expect("a net")).collect();
    let ipv6 = addresses.iter().any(|net: &ipnet::IpNet| net.addr().is_ipv6());
    Bridge {
        name: name(of),
        adopted: false,
        addresses,
        mtu: None,
        ipv6,
        filtered: false,
        route_localnet: false,
    }
}

pub(crate) fn state(host: &Host) -> String {
    let shown = ["ip -d -o link", "ip -o addr", "ip route", "ip -6 route"].map(|words| host.run(words, ""));
    let lines = shown.iter().flat_map(|text| text.lines());
    // Without times, whether a cable is plugged in, and link-local addresses, which come when they come; and without the
    // sizes that a bridge takes from its ports, and keeps.
    let passing = ["timer", "tso_max", "state"];
    lines
        .filter(|line| !line.contains("fe80::"))
        .map(|line| {
            let line = ["NO-CARRIER,", ",LOWER_UP", " linkdown"]
                .iter()
                .fold(line.to_owned(), |line, word| line.replace(word, ""));
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_passing = |at: usize| {
                let named = |word: &&str| passing.iter().any(|name| word.contains(name));
                named(&words[at]) || at > 0 && named(&words[at - 1])
            };
            (0..words.len()).filter(|at| !is_passing(*at)).map(|at| words[at]).collect::<Vec<_>>().join(" ")
                + "\n"
        })
        .collect()
}

fn endpoint(number: u64) -> EndpointId {
    format!("{number:064x}").parse().expect("64 digits")
}

pub(crate) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}
