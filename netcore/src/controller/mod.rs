//! The façade: every operation there is on networks, sandboxes and endpoints.
#![allow(unused, clippy::todo, reason = "signatures first")]

mod config;
mod error;
mod request;

use std::sync::Arc;

pub use config::{BridgeDevice, Config, DEFAULT_BRIDGE, DefaultBridge};
pub use error::{Class, ControllerError, SettingsError};
pub use request::{Ended, Files, NetworkRequest, NetworkView, SandboxConfigRequest, SandboxView, Started};

use crate::model::*;

/// The networks and sandboxes of one data root. Handles may be cloned and used from any thread; operations block.
#[derive(Clone, Debug)]
pub struct Controller(Arc<()>);

type Result<T> = std::result::Result<T, ControllerError>;

#[allow(missing_docs, clippy::missing_errors_doc, reason = "signatures first")]
impl Controller {
    pub fn open(config: Config) -> Result<Self> {
        todo!()
    }
    pub fn boot(&self) -> &BootId {
        todo!()
    }
    pub fn create_network(&self, request: NetworkRequest) -> Result<Network> {
        todo!()
    }
    pub fn networks(&self) -> Result<Vec<Network>> {
        todo!()
    }
    pub fn network(&self, reference: &str) -> Result<NetworkView> {
        todo!()
    }
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        todo!()
    }
    pub fn remove_network(&self, reference: &str) -> Result<Network> {
        todo!()
    }
    pub fn prune_networks(&self, wanted: impl Fn(&Network) -> bool) -> Result<Vec<Network>> {
        todo!()
    }
    pub fn create_sandbox(&self, request: SandboxConfigRequest) -> Result<Sandbox> {
        todo!()
    }
    pub fn sandboxes(&self) -> Result<Vec<SandboxView>> {
        todo!()
    }
    pub fn sandbox(&self, reference: &str) -> Result<SandboxView> {
        todo!()
    }
    pub fn start_sandbox(&self, reference: &str, supervisor: ProcessId) -> Result<Started> {
        todo!()
    }
    pub fn process_started(&self, id: SandboxId, pid: u32) -> Result<()> {
        todo!()
    }
    pub fn sandbox_ended(&self, id: SandboxId, code: i32, error: Option<String>) -> Result<Ended> {
        todo!()
    }
    pub fn remove_sandbox(&self, reference: &str) -> Result<Sandbox> {
        todo!()
    }
    pub fn rename_sandbox(&self, reference: &str, name: &str) -> Result<Sandbox> {
        todo!()
    }
    /// The endpoint, if the sandbox runs.
    pub fn connect(
        &self,
        network: &str,
        sandbox: &str,
        settings: EndpointSettings,
    ) -> Result<Option<Endpoint>> {
        todo!()
    }
    pub fn disconnect(&self, network: &str, sandbox: &str, force: bool) -> Result<()> {
        todo!()
    }
    pub fn reconcile(&self) -> Result<()> {
        todo!()
    }
    pub fn running(&self) -> Result<Vec<(SandboxId, Running)>> {
        todo!()
    }
}
