//! A data root of its own, a kernel that keeps its objects in a map, and tools that accept everything. Both can be told
//! to fail once.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ipnet::IpNet;

use crate::controller::open::Parts;
use crate::controller::{Config, Controller, ControllerError, NetworkRequest, SandboxConfigRequest, host};
use crate::firewall::{Backend, BackendChoice, ToolError, Tools};
use crate::ipam::{PoolStatus, SubnetSpec};
use crate::kernel::{Kernel, KernelError, LinkFacts, NameSockets};
use crate::model::*;
use crate::plan::{Key, Object, Step, Veth};
use crate::store::StoreError;

pub(super) const BOOT: &str = "0b7c1a9e-2f43-4c58-9d6e-1a2b3c4d5e6f";

#[derive(Clone, Default)]
pub(super) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<Key, Object>,
    pub(super) sysctls: BTreeMap<String, String>,
    pub(super) links: BTreeMap<IfName, LinkFacts>,
    pub(super) routes: Vec<IpNet>,
    pub(super) marker: String,
    pub(super) announced: Vec<IfName>,
    /// How long it takes to make an embedded server's sockets.
    pub(super) name_sockets_take: Duration,
    /// How many are being made, and were at most.
    pub(super) name_sockets_in_making: (usize, usize),
    /// Where embedded servers were made to listen for datagrams.
    pub(super) name_servers: Vec<SocketAddr>,
    /// From where the rules that lead to one were removed.
    pub(super) name_rules_removed: Vec<PathBuf>,
    /// How many steps go well before one fails.
    pub(super) fail_after: Option<usize>,
    /// What happens just before it fails.
    pub(super) sabotage: Option<Box<dyn FnOnce() + Send>>,
    /// Whether the firewall's tools fail.
    pub(super) tools_fail: bool,
    /// Inputs of the tools.
    pub(super) rules: Vec<String>,
}

impl Fake {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// Whether the rules drop what is routed for others, since they were last cleared.
    pub(super) fn drops_foreign(&self) -> bool {
        self.rules.iter().any(|rules| rules.contains("not ours"))
    }

    fn may(&mut self) -> bool {
        match self.fail_after.as_mut() {
            Some(0) => {
                self.fail_after = None;
                if let Some(sabotage) = self.sabotage.take() {
                    sabotage();
                }
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }
}

fn refused() -> KernelError {
    let reason = std::io::Error::from_raw_os_error(1);
    KernelError::Refused { operation: "change", object: "it".into(), reason, said: None }
}

impl Kernel for Fake {
    fn apply(&self, step: &Step) -> Result<(), KernelError> {
        let mut state = self.state();
        if !state.may() {
            return Err(refused());
        }
        match step {
            Step::Ensure(object) => {
                match object {
                    Object::Sysctl(sysctl) => {
                        state.sysctls.insert(sysctl.key.clone(), sysctl.value.clone());
                        return Ok(());
                    }
                    Object::Veth(veth) => {
                        assert!(state.objects.contains_key(&Key::Bridge(veth.bridge.clone())), "{veth:?}");
                        assert!(
                            state.objects.contains_key(&Key::Namespace(veth.namespace.clone())),
                            "{veth:?}"
                        );
                    }
                    Object::DefaultRoutes(routes) => {
                        assert!(state.objects.contains_key(&Key::Namespace(routes.namespace.clone())));
                    }
                    Object::Bridge(_) | Object::Namespace(_) => {}
                }
                state.objects.insert(object.key(), object.clone());
            }
            Step::Remove(object) => {
                state.objects.remove(&object.key());
                if let Object::Namespace(namespace) = object
                    && !namespace.adopted
                {
                    state.objects.remove(&Key::DefaultRoutes(namespace.path.clone()));
                }
            }
        }
        Ok(())
    }

    fn on_link_routes(&self) -> Result<Vec<IpNet>, KernelError> {
        Ok(self.state().routes.clone())
    }

    fn link(&self, name: &IfName) -> Result<Option<LinkFacts>, KernelError> {
        let state = self.state();
        let made = state.objects.get(&Key::Bridge(name.clone())).and_then(|object| match object {
            Object::Bridge(bridge) if !bridge.adopted => Some(LinkFacts {
                bridge: true,
                addresses: bridge.addresses.clone(),
                mtu: 1500,
                alias: Some(format!("portmap:{}:x", state.marker)),
            }),
            _ => None,
        });
        Ok(made.or_else(|| state.links.get(name).cloned()))
    }

    fn ours(&self, _marker: &str, _namespaces: &Path) -> Result<Vec<Key>, KernelError> {
        let ours = |object: &&Object| match object {
            Object::Bridge(bridge) => !bridge.adopted,
            Object::Namespace(namespace) => !namespace.adopted,
            Object::Veth(_) => true,
            _ => false,
        };
        Ok(self.state().objects.values().filter(ours).map(Object::key).collect())
    }

    fn sysctl(&self, key: &str) -> Result<Option<String>, KernelError> {
        Ok(self.state().sysctls.get(key).cloned())
    }

    fn announce(&self, veth: &Veth) {
        self.state().announced.push(veth.name.clone());
    }

    /// Sockets of this machine's loopback, as there is no namespace.
    fn name_sockets(&self, _: &Path, _: Option<Backend>) -> Result<NameSockets, KernelError> {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let time = {
            let mut state = self.state();
            state.name_servers.push(udp.local_addr().unwrap());
            let (now, most) = state.name_sockets_in_making;
            state.name_sockets_in_making = (now + 1, most.max(now + 1));
            state.name_sockets_take
        };
        std::thread::sleep(time);
        self.state().name_sockets_in_making.0 -= 1;
        Ok(NameSockets { udp, tcp })
    }

    fn has_ipv6(&self, _: &Path) -> Result<bool, KernelError> {
        Ok(true)
    }

    fn remove_name_rules(&self, namespace: &Path) -> Result<(), KernelError> {
        self.state().name_rules_removed.push(namespace.to_owned());
        Ok(())
    }
}

impl Tools for Fake {
    fn run(&mut self, program: &'static str, _: &[&str], input: &str) -> Result<String, ToolError> {
        let mut state = self.state();
        if state.tools_fail {
            return Err(ToolError::Refused { program, stderr: "no".into() });
        }
        state.rules.push(input.to_owned());
        Ok(String::new())
    }
}

pub(super) struct Lab {
    dir: tempfile::TempDir,
    pub(super) kernel: Fake,
}

/// All there is, to be compared.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    networks: Vec<Network>,
    sandboxes: Vec<Sandbox>,
    endpoints: Vec<Endpoint>,
    leases: Vec<Lease>,
    pools: Vec<(IpNet, PoolStatus)>,
    objects: Vec<Object>,
    files: Vec<PathBuf>,
}

impl Lab {
    pub(super) fn new() -> Self {
        let kernel = Fake::default();
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/all/disable_ipv6"] {
            kernel.state().sysctls.insert(key.into(), "0".into());
        }
        Self { dir: tempfile::tempdir().unwrap(), kernel }
    }

    pub(super) fn config(&self) -> Config {
        Config {
            data_root: self.dir.path().join("data"),
            exec_root: self.dir.path().join("exec"),
            firewall_backend: BackendChoice::Nftables,
            ..Config::default()
        }
    }

    pub(super) fn open(&self) -> Controller {
        self.try_open(self.config(), BOOT).unwrap()
    }

    pub(super) fn try_open(&self, config: Config, boot: &str) -> Result<Controller, ControllerError> {
        let kernel = self.kernel.clone();
        let make = move |marker: String| {
            kernel.state().marker = marker;
            Ok(Box::new(kernel) as Box<dyn Kernel>)
        };
        let (kernel, tools) = (Box::new(make), Box::new(self.kernel.clone()));
        Controller::open_with(config, Parts { boot: boot.parse().unwrap(), kernel, tools, home: None })
    }

    pub(super) fn snapshot(&self, controller: &Controller) -> Snapshot {
        let leases = controller.0.store.read(|tx| tx.leases()).unwrap();
        let networks = controller.networks().unwrap();
        let view = |network: &Network| controller.network(network.name.as_str()).unwrap();
        let kept = std::fs::read_dir(controller.0.root.data().join("sandboxes")).unwrap();
        let mut files = controller.0.root.runs();
        files.extend(kept.map(|entry| entry.unwrap().path()));
        files.sort();
        Snapshot {
            pools: networks.iter().flat_map(|network| view(network).pools).collect(),
            sandboxes: controller.sandboxes().unwrap().into_iter().map(|view| view.sandbox).collect(),
            endpoints: controller.endpoints().unwrap(),
            networks,
            leases,
            objects: self.kernel.state().objects.values().cloned().collect(),
            files,
        }
    }
}

/// This process: as a supervisor, one that lives.
pub(super) fn me() -> ProcessId {
    let pid = std::process::id();
    ProcessId { pid, start_ticks: host::start_ticks(pid).unwrap() }
}

pub(super) fn named(name: &str) -> NetworkRequest {
    NetworkRequest { name: name.into(), ..NetworkRequest::default() }
}

pub(super) fn with_subnet(name: &str, subnet: &str) -> NetworkRequest {
    NetworkRequest { subnets: vec![SubnetSpec::new(subnet.parse().unwrap())], ..named(name) }
}

pub(super) fn with_options(name: &str, options: &[(&str, &str)]) -> NetworkRequest {
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    NetworkRequest { options, ..named(name) }
}

pub(super) fn sandbox(name: &str, mode: &str) -> SandboxConfigRequest {
    SandboxConfigRequest {
        name: Some(name.into()),
        mode: mode.parse().unwrap(),
        ..SandboxConfigRequest::default()
    }
}

/// Creates and starts a sandbox. Its view.
pub(super) fn start(controller: &Controller, name: &str, mode: &str) -> super::super::SandboxView {
    controller.create_sandbox(sandbox(name, mode)).unwrap();
    controller.start_sandbox(name, me()).unwrap();
    controller.sandbox(name).unwrap()
}

pub(super) fn text<T: std::fmt::Debug>(result: Result<T, ControllerError>) -> (u16, String) {
    use crate::controller::Class;
    let error = result.unwrap_err();
    let status = match error.class() {
        Class::NotModified => 304,
        Class::Invalid => 400,
        Class::Forbidden => 403,
        Class::NotFound => 404,
        Class::Conflict => 409,
        Class::Internal => 500,
        Class::Unavailable => 503,
    };
    (status, error.to_string())
}

/// Facts that no operation makes.
pub(super) fn write(
    controller: &Controller,
    change: impl FnOnce(&crate::store::WriteTx<'_>) -> Result<(), StoreError> + Send + 'static,
) {
    controller.0.store.write(change).unwrap();
}
