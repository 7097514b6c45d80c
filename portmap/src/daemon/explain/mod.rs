//! Why a published port answers, or doesn't: the way of a packet, from the host's port to what listens in the sandbox.
//!
//! | module | what |
//! |---|---|
//! | [`question`] | what is asked about: a port or a sandbox |
//! | [`facts`] | what there is to know, as plain data |
//! | [`gather`] | asks the controller, the kernel and the firewall's tools for it |
//! | [`firewall`] | whether rules drop a packet, and whether ours lead it |
//! | [`reason`] | what follows from the facts: the steps of the way, and advice. Pure |
//!
//! Nothing is sent to try it out: whoever listens in the sandbox isn't disturbed.

mod facts;
mod firewall;
mod gather;
mod question;
mod reason;

use serde::Serialize;

pub(crate) use self::gather::explain;

/// What is to be said about a port or a sandbox.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Report {
    /// Whether it answers.
    answers: bool,
    /// The ways packets take, each step by step.
    paths: Vec<Path>,
    /// What to do, or why there is nothing to do.
    advice: String,
}

/// One way of packets.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Path {
    /// From where to where.
    title: String,
    steps: Vec<Step>,
}

/// One thing on the way.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Step {
    mark: Mark,
    text: String,
}

/// What it means for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    /// It passes.
    Yes,
    /// It doesn't.
    No,
    /// It may be worth knowing.
    Note,
}
