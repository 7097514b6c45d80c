//! One file per command.

pub(crate) mod completions;
pub(crate) mod create;
pub(crate) mod daemon;
mod env_file;
pub(crate) mod exec;
pub(crate) mod explain;
pub(crate) mod inspect;
pub(crate) mod logs;
mod names;
pub(crate) mod network;
mod network_flag;
pub(crate) mod port;
mod ports;
pub(crate) mod ps;
pub(crate) mod publish;
pub(crate) mod rename;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod run;
mod sandbox;
pub(crate) mod sandbox_publish;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod tell;
