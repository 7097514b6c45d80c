//! What the target of a `container:` mode must be when its dependant starts.

use super::super::id::SandboxId;

/// What is known of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// It was created and never started.
    Created,
    /// It runs.
    Running,
    /// It is between two runs.
    Restarting,
    /// It ran and ended.
    Exited,
}

/// Why a sandbox can't have its target's stack: Docker's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// There is no such sandbox.
    #[error("joining network namespace of container: No such container: {0}")]
    Missing(String),
    /// The sandbox names itself.
    #[error("cannot join own network namespace")]
    Own,
    /// The target has no stack at present.
    #[error("cannot join network namespace of a non running container: container {target} is {state}")]
    NotRunning {
        /// The target as it was given.
        target: String,
        /// Its state in a word.
        state: &'static str,
    },
    /// The target will have another stack in a moment.
    #[error(
        "cannot join network namespace of container: Container {0} is restarting, wait until the container is running"
    )]
    Restarting(String),
}

/// Checks `target` for the sandbox `dependant`; `found` is the sandbox it names, if there is one, and its state.
///
/// # Errors
/// If the dependant can't have the target's stack now.
pub fn check_target(
    dependant: SandboxId,
    target: &str,
    found: Option<(SandboxId, TargetState)>,
) -> Result<(), TargetError> {
    let not_running = |state| Err(TargetError::NotRunning { target: target.to_owned(), state });
    match found {
        None => Err(TargetError::Missing(target.to_owned())),
        Some((id, _)) if id == dependant => Err(TargetError::Own),
        Some((_, TargetState::Created)) => not_running("created"),
        Some((_, TargetState::Exited)) => not_running("exited"),
        Some((_, TargetState::Restarting)) => Err(TargetError::Restarting(target.to_owned())),
        Some((_, TargetState::Running)) => Ok(()),
    }
}
