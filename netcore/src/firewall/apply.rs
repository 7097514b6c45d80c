//! Loads the rules: chooses a backend once, and keeps in mind what it has loaded, so that the next change is small.
//!
//! Not here: which rules (`nftables`, `iptables`), how a tool is run (`tools`).

use std::fmt;
use std::str::FromStr;

use super::facts::{Facts, Family};
use super::iptables::{self, Present};
use super::nftables;
use super::tools::{HostTools, ToolError, Tools};

/// `--firewall-backend`, or [`BackendChoice::None`] for `--iptables=false`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// nftables if it works, unless iptables already drops by policy what no rule of its own accepts; else iptables.
    #[default]
    Auto,
    /// `nft`.
    Nftables,
    /// `iptables-restore` and `ip6tables-restore`.
    Iptables,
    /// No rule is touched, not even one of ours.
    None,
}

/// A backend that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `nft`.
    Nftables,
    /// `iptables-restore` and `ip6tables-restore`.
    Iptables,
}

/// Not a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid firewall backend {0:?}: allowed values are \"auto\", \"nftables\", \"iptables\" and \"none\""
)]
pub struct UnknownBackend(pub String);

/// The rules of this host, or rather of the network namespace of the thread that calls.
#[derive(Debug)]
pub struct Firewall<T = HostTools> {
    choice: BackendChoice,
    tools: T,
    backend: Option<Backend>,
    applied: Option<Facts>,
}

impl FromStr for BackendChoice {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        match text {
            "auto" | "" => Ok(Self::Auto),
            "nftables" => Ok(Self::Nftables),
            "iptables" => Ok(Self::Iptables),
            "none" => Ok(Self::None),
            _ => Err(UnknownBackend(text.to_owned())),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        })
    }
}

impl Firewall {
    /// With the tools of this host. Runs none yet.
    pub const fn new(choice: BackendChoice) -> Self {
        Self::with_tools(choice, HostTools)
    }
}

impl<T: Tools> Firewall<T> {
    /// With other tools.
    pub const fn with_tools(choice: BackendChoice, tools: T) -> Self {
        Self { choice, tools, backend: None, applied: None }
    }

    /// Makes the rules what `facts` ask for.
    ///
    /// The first time everything is replaced, and what another backend had of ours is removed. Later only what differs
    /// is changed; if that doesn't fit any more, because somebody else changed our rules, all is replaced.
    ///
    /// # Errors
    /// If the tools are missing or refuse. The rules are as before then (with iptables: each table of each family).
    pub fn apply(&mut self, facts: &Facts) -> Result<(), ToolError> {
        let Some(backend) = self.backend()? else { return Ok(()) };
        match backend {
            Backend::Nftables => self.apply_nftables(facts)?,
            Backend::Iptables => self.apply_iptables(facts)?,
        }
        if self.applied.is_none() {
            self.remove_of_other(backend, facts);
        }
        self.applied = Some(facts.clone());
        Ok(())
    }

    /// Removes everything of ours.
    ///
    /// # Errors
    /// As for [`Self::apply`].
    pub fn remove(&mut self) -> Result<(), ToolError> {
        let Some(backend) = self.backend()? else { return Ok(()) };
        let was = self.applied.clone().unwrap_or_default();
        match backend {
            Backend::Nftables => self.nft(&nftables::remove())?,
            Backend::Iptables => {
                self.remove_iptables(&was, Family::V4)?;
                let result = self.remove_iptables(&was, Family::V6);
                if was.needs(Family::V6) {
                    result?;
                }
            }
        }
        self.applied = None;
        Ok(())
    }

    /// Forgets what was loaded, so that the next [`Self::apply`] replaces everything: for when somebody else has been at
    /// the rules.
    pub fn forget(&mut self) {
        self.applied = None;
    }

    /// The backend in use; none if no rule is to be touched.
    ///
    /// # Errors
    /// If it has still to be chosen and neither works.
    pub fn backend(&mut self) -> Result<Option<Backend>, ToolError> {
        if self.backend.is_none() {
            self.backend = match self.choice {
                BackendChoice::None => None,
                BackendChoice::Nftables => Some(Backend::Nftables),
                BackendChoice::Iptables => Some(Backend::Iptables),
                BackendChoice::Auto => Some(self.choose()?),
            };
        }
        Ok(self.backend)
    }

    fn choose(&mut self) -> Result<Backend, ToolError> {
        let iptables = self.present(Family::V4);
        if iptables.as_ref().is_ok_and(Present::forward_drops) {
            return Ok(Backend::Iptables);
        }
        // Checked by the kernel too, but not carried out.
        let nft = self.tools.run("nft", &["-c", "-f", "-"], "add table inet portmap\n");
        match (nft, iptables) {
            (Ok(_), _) => Ok(Backend::Nftables),
            (Err(_), Ok(_)) => Ok(Backend::Iptables),
            (Err(error), Err(_)) => Err(error),
        }
    }

    fn apply_nftables(&mut self, facts: &Facts) -> Result<(), ToolError> {
        if let Some(before) = &self.applied {
            let change = nftables::change(before, facts);
            if change.is_empty() || self.nft(&change).is_ok() {
                return Ok(());
            }
        }
        self.nft(&nftables::replace(facts))
    }

    fn apply_iptables(&mut self, facts: &Facts) -> Result<(), ToolError> {
        if self.applied.as_ref() == Some(facts) {
            return Ok(());
        }
        let was = self.applied.clone().unwrap_or_default();
        if self.applied.is_some() && was.has_networks_and_host_of(facts) && iptables::is_small(&was, facts) {
            let mut changes =
                Family::BOTH.map(|family| (family, iptables::change(&was, facts, family))).into_iter();
            if changes.all(|(family, change)| self.restore(family, &change).is_ok()) {
                return Ok(());
            }
        }
        self.replace_iptables(&was, facts, Family::V4)?;
        let result = self.replace_iptables(&was, facts, Family::V6);
        // A host without IPv6 needs no rules for it.
        if facts.needs(Family::V6) || was.needs(Family::V6) { result } else { Ok(()) }
    }

    fn replace_iptables(&mut self, was: &Facts, facts: &Facts, family: Family) -> Result<(), ToolError> {
        let present = self.present(family)?;
        self.restore(family, &iptables::replace(was, facts, family, &present))
    }

    fn remove_iptables(&mut self, was: &Facts, family: Family) -> Result<(), ToolError> {
        let present = self.present(family)?;
        self.restore(family, &iptables::remove(was, family, &present))
    }

    /// After a change of backend. That one's tools may well be gone, and then so may its rules: no error.
    fn remove_of_other(&mut self, backend: Backend, facts: &Facts) {
        match backend {
            Backend::Iptables => drop(self.nft(&nftables::remove())),
            Backend::Nftables => {
                for family in [Family::V4, Family::V6] {
                    drop(self.remove_iptables(facts, family));
                }
            }
        }
    }

    fn present(&mut self, family: Family) -> Result<Present, ToolError> {
        let program = match family {
            Family::V4 => "iptables-save",
            Family::V6 => "ip6tables-save",
        };
        self.tools.run(program, &[], "").map(|saved| Present::parse(&saved))
    }

    fn restore(&mut self, family: Family, input: &str) -> Result<(), ToolError> {
        if input.is_empty() {
            return Ok(());
        }
        let program = match family {
            Family::V4 => "iptables-restore",
            Family::V6 => "ip6tables-restore",
        };
        self.tools.run(program, &["-w", "5", "--noflush"], input).map(drop)
    }

    fn nft(&mut self, transaction: &str) -> Result<(), ToolError> {
        self.tools.run("nft", &["-f", "-"], transaction).map(drop)
    }
}
