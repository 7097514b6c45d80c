//! Ports of sandboxes: published, and withdrawn again.

use super::{Controller, Result, SandboxView};
use crate::publish::PublishSpec;

impl Controller {
    /// Publishes further ports of a sandbox. Of one that doesn't run they are published when it starts. Gives the sandbox as
    /// it is then.
    ///
    /// # Errors
    /// If there is no such sandbox, it has no ports of its own, or one of them can't be had. All is as before then.
    pub fn publish(&self, reference: &str, specs: Vec<PublishSpec>) -> Result<SandboxView> {
        let (_guard, known) = self.0.take_sandbox(reference, None)?;
        let mut sandbox = known.sandbox;
        sandbox.config.ports.publish.extend(specs);
        self.0.store.write(move |tx| tx.update_sandbox(&sandbox))?;
        self.sandbox(reference)
    }

    /// Takes back ports that were published by these specs. Gives the sandbox as it is then.
    ///
    /// # Errors
    /// If there is no such sandbox, or one of the specs isn't published by it. All is as before then.
    pub fn unpublish(&self, reference: &str, specs: &[PublishSpec]) -> Result<SandboxView> {
        let (_guard, known) = self.0.take_sandbox(reference, None)?;
        let mut sandbox = known.sandbox;
        sandbox.config.ports.publish.retain(|spec| !specs.contains(spec));
        self.0.store.write(move |tx| tx.update_sandbox(&sandbox))?;
        self.sandbox(reference)
    }
}
