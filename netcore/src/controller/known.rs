//! What an operation on a sandbox has to know, and the locks that keep it true.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::error::ControllerError;
use super::locks::{Access, Guard, Key, Wanted};
use super::plans::{Attachment, in_order};
use super::{Inner, Result};
use crate::model::{EndpointSettings, Network, NetworkId, NetworkMode, Predefined, ResolveError, Sandbox};
use crate::store::{ReadTx, StoreError};

/// A sandbox with all that belongs to it, as the facts are.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) sandbox: Sandbox,
    /// The networks it is to be on when it starts.
    pub(super) wanted: Vec<Attach>,
    /// The networks it is on, in the order in which they count.
    pub(super) attached: Vec<Attachment>,
    /// The sandbox whose stack it is to share.
    pub(super) target: Option<Sandbox>,
}

/// A network that a sandbox is to be on.
#[derive(Clone, Debug)]
pub(super) struct Attach {
    /// As it was given.
    pub(super) key: String,
    pub(super) settings: EndpointSettings,
    pub(super) network: std::result::Result<Network, ResolveError>,
}

impl Known {
    fn networks(&self) -> impl Iterator<Item = NetworkId> {
        let wanted = self.wanted.iter().filter_map(|attach| attach.network.as_ref().ok()).map(|net| net.id);
        wanted.chain(self.attached.iter().map(|attachment| attachment.network.id))
    }

    fn keys(&self) -> BTreeSet<Key> {
        let target = self.target.iter().map(|target| Key::Sandbox(target.id));
        let namespace: Option<&PathBuf> = self.sandbox.config.netns.as_ref();
        let networks = self.networks().map(Key::Network);
        networks.chain(target).chain(namespace.map(|path| Key::Namespace(path.clone()))).collect()
    }

    /// What is wanted of the network, under whatever name it was given.
    pub(super) fn wanted_on(&self, network: NetworkId) -> impl Iterator<Item = &Attach> {
        self.wanted.iter().filter(move |attach| attach.network.as_ref().is_ok_and(|net| net.id == network))
    }
}

impl Inner {
    /// Takes a sandbox alone, shares its networks and `also`, and looks at the facts. What another operation changed
    /// while this one waited may need other locks: then it begins again.
    pub(super) fn take_sandbox(&self, reference: &str, also: Option<NetworkId>) -> Result<(Guard, Known)> {
        let mut known = self.known(reference)?;
        let id = known.sandbox.id.to_string();
        loop {
            let shared = known.keys();
            let mut wanted: Wanted = shared.iter().map(|key| (key.clone(), Access::Shared)).collect();
            wanted.extend(also.map(|network| (Key::Network(network), Access::Shared)));
            if let Some(path) = &known.sandbox.config.netns {
                wanted.insert(Key::Namespace(path.clone()), Access::Alone);
            }
            wanted.insert(Key::Sandbox(known.sandbox.id), Access::Alone);
            let guard = self.locks.take(wanted);
            known = self.known(&id).map_err(|error| match error {
                ControllerError::Store(StoreError::Resolve(ResolveError::NotFound { kind, .. })) => {
                    StoreError::from(ResolveError::NotFound { kind, argument: reference.to_owned() }).into()
                }
                other => other,
            })?;
            if known.keys().is_subset(&shared) {
                return Ok((guard, known));
            }
        }
    }

    fn known(&self, reference: &str) -> Result<Known> {
        let reference = reference.to_owned();
        let no_bridge = self.config.default_bridge.device == super::BridgeDevice::None;
        self.store.read(move |tx| {
            let sandbox = tx.resolve_sandbox(&reference)?;
            let attached = attached(tx, &sandbox)?;
            let target = match &sandbox.config.mode {
                NetworkMode::Container(target) => found(tx.resolve_sandbox(target))?,
                _ => None,
            };
            let mut wanted = Vec::new();
            for (key, settings) in networks_of(&sandbox) {
                // Without a default network, who would be on it has nothing but loopback.
                let name = if no_bridge && key == Predefined::Bridge.name() {
                    Predefined::None.name()
                } else {
                    key.as_str()
                };
                let network = match tx.resolve_network(name) {
                    Ok(network) => Ok(network),
                    Err(StoreError::Resolve(error)) => Err(error),
                    Err(error) => return Err(error.into()),
                };
                wanted.push(Attach { key, settings, network });
            }
            Ok(Known { sandbox, wanted, attached, target })
        })
    }
}

/// The networks of a sandbox's configuration.
fn networks_of(sandbox: &Sandbox) -> Vec<(String, EndpointSettings)> {
    let networks = sandbox.config.networks.iter();
    networks.map(|(key, settings)| (key.clone(), settings.clone())).collect()
}

/// The endpoints of a sandbox with their networks, in the order in which they count.
pub(super) fn attached(tx: &ReadTx<'_>, sandbox: &Sandbox) -> Result<Vec<Attachment>, StoreError> {
    let mut attached = Vec::new();
    for endpoint in tx.endpoints_of_sandbox(sandbox.id)? {
        // The schema lets no network go that has endpoints.
        if let Some(network) = tx.network(endpoint.network)? {
            attached.push(Attachment { network, endpoint });
        }
    }
    Ok(in_order(attached))
}

/// Nothing found is no error here.
pub(super) fn found<T>(looked_up: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match looked_up {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Resolve(ResolveError::NotFound { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}
