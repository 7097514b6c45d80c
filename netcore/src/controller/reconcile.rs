//! Everything made as the facts have it: at the start, and whenever somebody has been at the kernel or the firewall.
//!
//! There is no other repair, also not for an operation that misses what somebody has removed: what is missing is made by the plan that an operation would have made it by, what bears our
//! mark and no plan asks for is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::error::ControllerError;
use super::known::attached;
use super::links::all_openings;
use super::locks::{Access, Key as Lock};
use super::plans::Attachment;
use super::ports::rules_of;
use super::resolver::Serving;
use super::root::remove_dir;
use super::sandboxes::{LOST, end_facts};
use super::{Controller, Inner, Result, host, now};
use crate::driver;
use crate::firewall::EndpointLinks;
use crate::kernel::KernelError;
use crate::model::{
    Endpoint, EndpointId, Exited, Lease, Mac, Network, ProcessId, Running, Sandbox, SandboxId, SandboxState,
};
use crate::plan::{Bridge, DefaultRoutes, Key, Namespace, Object, Plan, Step, Sysctl, Veth};
use crate::publish::Proto;
use crate::store::{ReadTx, StoreError, WriteTx};

/// The exit code of what vanished with its boot.
const LOST_WITH_BOOT: i32 = 255;
/// How many sandboxes are served anew at the same time.
const AT_ONCE: usize = 16;

/// A sandbox that runs, and where it is.
type Lives = (Sandbox, Vec<Attachment>);

/// What all is made from.
struct Facts {
    networks: Vec<Network>,
    running: Vec<Lives>,
    links: Vec<(EndpointId, EndpointLinks)>,
    /// All sandboxes.
    known: BTreeSet<SandboxId>,
}

/// A sandbox that was ended because its process was gone.
pub(super) struct Stale {
    sandbox: Sandbox,
    leases: Vec<Lease>,
    endpoints: Vec<Endpoint>,
}

impl Controller {
    /// Makes everything as the facts have it. Sandboxes whose processes are gone are ended.
    ///
    /// # Errors
    /// The first thing that couldn't be done; everything else is.
    pub fn reconcile(&self) -> Result<()> {
        let inner = &*self.0;
        let _guard = inner.locks.take([(Lock::All, Access::Alone)].into());
        let ended = inner.end_stale()?;
        let made = inner.make_true();
        for stale in ended {
            inner.give_up_stale(&stale);
            let removed = stale.sandbox.config.auto_remove;
            inner.forget_run(stale.sandbox.id, stale.leases, made.is_ok(), removed);
        }
        made
    }
}

impl Controller {
    /// Runs an operation, and if it fails because somebody has removed what is ours, once more after that was made again.
    pub(super) fn repairing<T>(&self, operation: impl Fn() -> Result<T>) -> Result<T> {
        match operation() {
            Err(error) if self.0.misses_what_is_ours(&error) => {
                tracing::warn!(%error, "somebody has removed what is portmap's: everything is made again");
                // What can't be made is logged; the operation tells whether it needs it.
                let _ = self.reconcile();
                operation()
            }
            done => done,
        }
    }
}

impl Inner {
    fn misses_what_is_ours(&self, error: &ControllerError) -> bool {
        match error {
            ControllerError::Start(cause) => self.misses_what_is_ours(cause),
            ControllerError::Kernel(KernelError::NoBridge { .. }) => true,
            ControllerError::Kernel(KernelError::NoNamespace(path) | KernelError::NotANamespace(path)) => {
                path.starts_with(self.root.namespaces())
            }
            _ => false,
        }
    }

    /// Ends the sandboxes that don't run any more, in the facts.
    pub(super) fn end_stale(&self) -> Result<Vec<Stale>> {
        let boot = self.boot.clone();
        self.store.write(move |tx: &WriteTx<'_>| -> Result<Vec<Stale>> {
            let mut ended = Vec::new();
            for sandbox in tx.sandboxes()? {
                let SandboxState::Running(running) = &sandbox.state else { continue };
                let code = match running {
                    running if running.boot != boot => LOST_WITH_BOOT,
                    running if !is_alive(running) => LOST,
                    _ => continue,
                };
                let exited = Exited { code, started: Some(running.started), finished: now(), error: None };
                tracing::info!(name = %sandbox.config.name, code, "sandbox is gone");
                let endpoints = tx.endpoints_of_sandbox(sandbox.id)?;
                let leases = end_facts(tx, sandbox.clone(), exited, sandbox.config.auto_remove)?;
                ended.push(Stale { sandbox, leases, endpoints });
            }
            Ok(ended)
        })
    }

    /// Gives up the names and ports of a sandbox that was ended. Rules lead to them no more.
    pub(super) fn give_up_stale(&self, stale: &Stale) {
        self.leave_zones(&stale.endpoints);
        self.end_server(&stale.sandbox);
        let ports = stale.endpoints.iter().flat_map(|endpoint| &endpoint.publications);
        self.give_up(&ports.cloned().collect::<Vec<_>>(), |proto| proto == Proto::Udp);
    }

    /// Makes kernel and firewall as the facts have them, as far as that is possible. What the kernel refused is told as
    /// [`ControllerError::Kernel`], what an embedded server lacks as [`ControllerError::Resolver`]; any other error means that
    /// nothing was made.
    pub(super) fn make_true(&self) -> Result<()> {
        let Facts { networks, running: sandboxes, links, known } = self.store.read(facts)?;
        let mut first = Ok(());
        let mut note = |done: Result<()>| {
            if let Err(error) = done {
                tracing::warn!(%error, "left as it is");
                if first.is_ok() {
                    first = Err(error);
                }
            }
        };
        let plans: Vec<Plan> = networks.iter().map(|network| self.network_plan(network)).collect();
        let mut plan: Plan = plans.iter().flat_map(Plan::objects).cloned().collect();
        for (sandbox, attached) in &sandboxes {
            plan.extend(self.sandbox_plan(sandbox, attached).objects().cloned());
        }
        note(self.remove_strays(&plan));
        // What guards the networks comes first. Without it nothing is opened.
        self.remember_forwarding(&plan)?;
        let rules = networks.iter().filter_map(|network| {
            Some((network.id, driver::named(&network.driver).ok()?.firewall(network)?))
        });
        let rules: BTreeMap<_, _> = rules.collect();
        let ports = sandboxes.iter().flat_map(|(_, attached)| attached);
        let ports = ports.filter_map(|attachment| Some((attachment.endpoint.id, rules_of(attachment)?)));
        self.rules().replace(rules, ports.collect(), links)?;
        for step in plan.ensure() {
            note(self.kernel.apply(&step).map_err(ControllerError::from));
        }
        self.open_all_names(&sandboxes).into_iter().for_each(&mut note);
        note(self.follow_all_links(&sandboxes));
        self.remove_files(&sandboxes, &known);
        first
    }

    /// Serves all sandboxes anew, several at a time: replacing a server's rules is waiting for the kernel.
    fn open_all_names(&self, sandboxes: &[Lives]) -> Vec<Result<()>> {
        let next = AtomicUsize::new(0);
        let work = || -> Vec<Result<()>> {
            let mine = std::iter::from_fn(|| sandboxes.get(next.fetch_add(1, Ordering::Relaxed)));
            mine.map(|(sandbox, attached)| self.open_names(sandbox, attached, Serving::Anew)).collect()
        };
        thread::scope(|scope| {
            let helpers = 1..AT_ONCE.min(sandboxes.len());
            // If no thread can be had, there is less help.
            let helpers = helpers.filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok());
            let helpers: Vec<_> = helpers.collect();
            let mut done = work();
            for helper in helpers {
                done.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            done
        })
    }

    /// Removes what bears our mark and isn't asked for. The addresses that were held because of it are free then.
    fn remove_strays(&self, plan: &Plan) -> Result<()> {
        let ours: BTreeSet<Key> =
            self.kernel.ours(&self.marker, &self.root.namespaces())?.into_iter().collect();
        let mut first = Ok(());
        for key in ours.into_iter().rev().filter(|key| plan.get(key).is_none()) {
            tracing::info!(?key, "removing what nobody asks for");
            let removed = self.kernel.apply(&Step::Remove(stray(key)));
            first = first.and(removed);
        }
        if first.is_ok() {
            self.addresses.release_held();
        }
        Ok(first?)
    }

    /// Removes the files of runs that are over, and of sandboxes that are gone.
    fn remove_files(&self, running: &[Lives], known: &BTreeSet<SandboxId>) {
        let kept: BTreeSet<PathBuf> = running.iter().map(|(sandbox, _)| self.root.run(sandbox.id)).collect();
        self.root.runs().iter().filter(|path| !kept.contains(*path)).for_each(|path| remove_dir(path));
        let gone = self.root.all_kept().into_iter().filter(|id| !known.contains(id));
        gone.for_each(|id| remove_dir(&self.root.kept(id)));
    }
}

fn facts(tx: &ReadTx<'_>) -> Result<Facts> {
    let all = tx.sandboxes()?;
    let known = all.iter().map(|sandbox| sandbox.id).collect();
    let running = all.into_iter().filter(|sandbox| matches!(sandbox.state, SandboxState::Running(_)));
    let with_endpoints = |sandbox: Sandbox| -> Result<_, StoreError> {
        let attached = attached(tx, &sandbox)?;
        Ok((sandbox, attached))
    };
    let running = running.map(with_endpoints).collect::<Result<Vec<_>, StoreError>>()?;
    Ok(Facts { networks: tx.networks()?, running, links: all_openings(tx)?, known })
}

/// Whether somebody looks after a sandbox still: its supervisor, who tells its end, or without one its process.
fn is_alive(running: &Running) -> bool {
    let process = ProcessId { pid: running.pid, start_ticks: running.start_ticks };
    let watched = running.supervisor.unwrap_or(process);
    host::start_ticks(watched.pid) == Some(watched.start_ticks)
}

/// An object that is to be removed, of which nothing is known but its key: that is all that removing asks for.
fn stray(key: Key) -> Object {
    match key {
        Key::Sysctl(key) => Object::Sysctl(Sysctl { key, value: String::new() }),
        Key::Bridge(name) => Object::Bridge(Bridge {
            name,
            adopted: false,
            addresses: Vec::new(),
            mtu: None,
            ipv6: false,
            filtered: false,
            route_localnet: false,
        }),
        Key::Namespace(path) => Object::Namespace(Namespace { path, adopted: false, holder: None }),
        Key::Veth(host) => Object::Veth(Veth {
            endpoint: EndpointId::from_random([0; 32]),
            bridge: host.clone(),
            name: host.clone(),
            host,
            namespace: PathBuf::new(),
            mac: Mac::from_random([0; 6]),
            addresses: Vec::new(),
            mtu: None,
            hairpin: false,
            sysctls: Vec::new(),
        }),
        Key::DefaultRoutes(namespace) => {
            Object::DefaultRoutes(DefaultRoutes { namespace, ipv4: None, ipv6: None })
        }
    }
}
