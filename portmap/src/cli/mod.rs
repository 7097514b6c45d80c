//! One file per command.

pub(crate) mod network;
pub(crate) mod publish;
