//! Whether rules drop a packet, and whether ours lead it: decided on listings of `nft` and `iptables-save`. Pure.
//!
//! Of a packet that somebody may send some things are known before it comes, and others aren't: who sends it, and by which
//! interface. A rule that depends on those may match; one whose meaning isn't known here may, too.
//!
//! Not here: running the tools (`gather`).

pub(super) mod iptables;
pub(super) mod nft;
mod own;

use std::collections::BTreeMap;
use std::net::IpAddr;

use netcore::publish::Proto;

pub(super) use self::own::{is_led_by_iptables, is_led_by_nft};
use super::facts::Obstacle;

/// Chains that call each other deeper than this are a circle.
const DEEPEST: usize = 16;

/// What is known of a packet at one of the places where rules look at it.
#[derive(Clone, Debug)]
pub(super) struct Packet<'a> {
    pub(super) hook: Hook,
    pub(super) proto: Proto,
    /// Where it goes now; `None` for one of several addresses.
    pub(super) to: Option<IpAddr>,
    pub(super) is_ipv6: bool,
    pub(super) port: u16,
    /// The port it was sent to.
    pub(super) first_port: u16,
    /// Whether its address was translated.
    pub(super) is_translated: bool,
    /// The interface it comes by: `lo`, or `None` for one that leads outside.
    pub(super) by: Option<&'a str>,
    /// The bridge it leaves by.
    pub(super) bridge: &'a str,
}

/// Where rules look at a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    Prerouting,
    Input,
    Forward,
}

/// Whether a rule is about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fits {
    No,
    Maybe,
    Yes,
}

/// What becomes of a packet that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// The next rule.
    Next,
}

/// A rule, as far as it is about one packet.
#[derive(Clone, Debug)]
struct Rule {
    fits: Fits,
    verdict: Verdict,
    text: String,
}

#[derive(Clone, Debug, Default)]
struct Chain {
    rules: Vec<Rule>,
    /// What drops whatever no rule is about.
    policy: Option<String>,
}

/// The chains of a table by their names.
#[derive(Clone, Debug, Default)]
struct Table {
    name: String,
    chains: BTreeMap<String, Chain>,
}

/// How a chain is left.
enum Left {
    Accepted,
    Dropped,
    Through,
}

impl Fits {
    const fn from(is_so: bool) -> Self {
        if is_so { Self::Yes } else { Self::No }
    }

    const fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }

    const fn negated_if(self, negated: bool) -> Self {
        if negated { self.not() } else { self }
    }
}

impl Packet<'_> {
    /// By an interface of that name, which may end in a wildcard.
    fn comes_by(&self, name: &str) -> Fits {
        match self.by {
            Some(by) => Fits::from(is_called(by, name)),
            // From outside: neither our own nor that of the sandbox itself.
            None if name == "lo" || is_called(self.bridge, name) && !name.ends_with(['*', '+']) => Fits::No,
            None => Fits::Maybe,
        }
    }

    fn leaves_by(&self, name: &str) -> Fits {
        match self.hook {
            Hook::Forward => Fits::from(is_called(self.bridge, name)),
            Hook::Prerouting | Hook::Input => Fits::No,
        }
    }

    fn goes_to(&self, is_there: impl Fn(IpAddr) -> bool) -> Fits {
        self.to.map_or(Fits::Maybe, |to| Fits::from(is_there(to)))
    }

    /// The state of its connection: it is the first of it.
    fn is_in_state(&self, state: &str) -> Fits {
        match state.to_ascii_lowercase().as_str() {
            "new" => Fits::Yes,
            "dnat" => Fits::from(self.is_translated),
            _ => Fits::No,
        }
    }
}

fn is_called(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix(['*', '+']) {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

impl Table {
    /// What drops the packet in this chain and those it calls.
    fn obstacles(&self, chain: &str) -> Vec<Obstacle> {
        let mut walk = Walked { table: self, obstacles: Vec::new(), doubt: false };
        walk.chain(chain, 0);
        // What certainly drops it comes last; before, only what may.
        walk.obstacles
    }
}

struct Walked<'a> {
    table: &'a Table,
    obstacles: Vec<Obstacle>,
    /// Whether it may have left already.
    doubt: bool,
}

impl Walked<'_> {
    fn chain(&mut self, name: &str, depth: usize) -> Left {
        let Some(chain) = self.table.chains.get(name).filter(|_| depth < DEEPEST) else {
            return Left::Through;
        };
        for rule in &chain.rules {
            if rule.fits == Fits::No {
                continue;
            }
            let was = self.doubt;
            let is_sure = rule.fits == Fits::Yes;
            self.doubt |= !is_sure;
            let left = match &rule.verdict {
                Verdict::Next => Left::Through,
                Verdict::Accept => Left::Accepted,
                Verdict::Drop => self.dropped(name, &rule.text),
                Verdict::Return if is_sure => return Left::Through,
                // It may go on after the call instead: from here on nothing is sure.
                Verdict::Return => {
                    self.doubt = true;
                    continue;
                }
                Verdict::Jump(to) | Verdict::Goto(to) => self.chain(to, depth + 1),
            };
            match left {
                Left::Accepted | Left::Dropped if is_sure => return left,
                Left::Accepted => self.doubt = true,
                // It goes on if it wasn't that kind of packet.
                Left::Dropped | Left::Through => self.doubt = was,
            }
            if is_sure && matches!(rule.verdict, Verdict::Goto(_)) {
                return Left::Through;
            }
        }
        match &chain.policy {
            Some(policy) => self.dropped(name, policy),
            None => Left::Through,
        }
    }

    fn dropped(&mut self, chain: &str, rule: &str) -> Left {
        let place = format!("table {}, chain {chain}", self.table.name);
        self.obstacles.push(Obstacle { is_certain: !self.doubt, place, rule: rule.to_owned() });
        Left::Dropped
    }
}
