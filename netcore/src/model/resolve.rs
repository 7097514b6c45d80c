//! Which object a NETWORK or SANDBOX argument means: exact id, then exact name, then a prefix of one id only.
//!
//! Not here: the look-up in the store, which does the same with indexes and uses the errors of this module.

use std::fmt;

/// The kind of object an argument names, which decides over the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A network.
    Network,
    /// A sandbox, which Docker's texts call a container.
    Sandbox,
}

/// What an ambiguous argument was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchedOn {
    /// The full name.
    Name,
    /// The beginning of an id.
    IdPrefix,
}

/// Why an argument names no object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResolveError {
    /// The argument is empty.
    Empty(Kind),
    /// Nothing matches.
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// The argument.
        argument: String,
    },
    /// Several objects match.
    Ambiguous {
        /// What was looked for.
        kind: Kind,
        /// The argument.
        argument: String,
        /// How many match.
        matches: usize,
        /// In what way.
        on: MatchedOn,
    },
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty(Kind::Network) => f.write_str("invalid network name or ID: value is empty"),
            Self::Empty(Kind::Sandbox) => f.write_str("invalid container name or ID: value is empty"),
            Self::NotFound { kind: Kind::Network, argument } => write!(f, "network {argument} not found"),
            Self::NotFound { kind: Kind::Sandbox, argument } => write!(f, "No such container: {argument}"),
            Self::Ambiguous { kind: Kind::Sandbox, argument, .. } => {
                write!(f, "multiple IDs found with provided prefix: {argument}")
            }
            Self::Ambiguous { kind: Kind::Network, argument, matches, on } => {
                let how = match on {
                    MatchedOn::Name => "on name",
                    MatchedOn::IdPrefix => "based on ID prefix",
                };
                write!(f, "network {argument} is ambiguous ({matches} matches found {how})")
            }
        }
    }
}

impl std::error::Error for ResolveError {}

/// Finds the one of `candidates`, pairs of id and name, that `argument` means. A sandbox's argument may open with a
/// slash, as its name does in Docker's API.
///
/// # Errors
/// If the argument is empty, nothing matches, or several do.
pub fn resolve<'a, I>(
    kind: Kind,
    argument: &str,
    candidates: impl IntoIterator<Item = (I, &'a str)>,
) -> Result<I, ResolveError>
where
    I: Copy + ToString,
{
    if argument.is_empty() {
        return Err(ResolveError::Empty(kind));
    }
    let name = name_of(kind, argument);
    let (mut named, mut prefixed) = (Vec::new(), Vec::new());
    for (id, candidate) in candidates {
        let text = id.to_string();
        if text == argument {
            return Ok(id);
        }
        if candidate == name {
            named.push(id);
        }
        if text.starts_with(argument) {
            prefixed.push(id);
        }
    }
    let ambiguous =
        |matches, on| ResolveError::Ambiguous { kind, argument: argument.to_owned(), matches, on };
    match (named.as_slice(), prefixed.as_slice()) {
        ([id], _) | ([], [id]) => Ok(*id),
        ([], []) => Err(ResolveError::NotFound { kind, argument: argument.to_owned() }),
        ([], many) => Err(ambiguous(many.len(), MatchedOn::IdPrefix)),
        (many, _) => Err(ambiguous(many.len(), MatchedOn::Name)),
    }
}

/// The name an argument would be.
pub(crate) fn name_of(kind: Kind, argument: &str) -> &str {
    match kind {
        Kind::Network => argument,
        Kind::Sandbox => argument.strip_prefix('/').unwrap_or(argument),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::NetworkId;
    use super::*;

    fn id(prefix: &str) -> NetworkId {
        format!("{prefix:f<64}").parse().unwrap()
    }

    #[test]
    fn order_and_texts_are_dockers() {
        let full = id("ab12").to_string();
        let networks = [
            (id("ab12"), "web"),
            (id("ab34"), "ab12"),
            (id("cd"), "twice"),
            (id("ce"), "twice"),
            (id("d0"), "Web"),
            (id("e1"), full.as_str()),
        ];
        let cases = [
            (full.as_str(), Ok("ab12")), // the id wins over a name
            ("ab12", Ok("ab34")),        // the name wins over a prefix
            ("web", Ok("ab12")),
            ("Web", Ok("d0")),
            ("ab1", Ok("ab12")),
            ("d", Ok("d0")),
            ("D0", Err("network D0 not found")),
            ("ab", Err("network ab is ambiguous (2 matches found based on ID prefix)")),
            ("c", Err("network c is ambiguous (2 matches found based on ID prefix)")),
            ("twice", Err("network twice is ambiguous (2 matches found on name)")),
            ("we", Err("network we not found")),
            ("/web", Err("network /web not found")),
            ("b12", Err("network b12 not found")),
            ("", Err("invalid network name or ID: value is empty")),
        ];
        for (argument, want) in cases {
            let got = resolve(Kind::Network, argument, networks).map_err(|e| e.to_string());
            assert_eq!(got, want.map(id).map_err(str::to_owned), "{argument:?}");
        }
    }

    #[test]
    fn sandboxes_have_texts_of_their_own_and_may_be_written_with_a_slash() {
        let sandboxes = [(id("88a"), "web"), (id("88b"), "db")];
        let cases = [
            ("/web", Ok("88a")),
            ("88b", Ok("88b")),
            ("88", Err("multiple IDs found with provided prefix: 88")),
            ("x", Err("No such container: x")),
            ("", Err("invalid container name or ID: value is empty")),
        ];
        for (argument, want) in cases {
            let got = resolve(Kind::Sandbox, argument, sandboxes).map_err(|e| e.to_string());
            assert_eq!(got, want.map(id).map_err(str::to_owned), "{argument:?}");
        }
    }

    proptest! {
        #[test]
        fn resolution_agrees_with_three_plain_searches(
            stems in prop::collection::btree_set("[ab]{1,4}", 0..8),
            names in prop::collection::vec("[abx]{1,4}", 8),
            argument in "[abx]{1,5}",
        ) {
            let all: Vec<(NetworkId, &str)> =
                stems.iter().map(|stem| id(stem)).zip(names.iter().map(String::as_str)).collect();
            let search = |hit: &dyn Fn(&(NetworkId, &str)) -> bool| -> Vec<NetworkId> {
                all.iter().filter(|c| hit(c)).map(|c| c.0).collect()
            };
            let steps = [
                search(&|c| c.0.to_string() == argument),
                search(&|c| c.1 == argument),
                search(&|c| c.0.to_string().starts_with(&argument)),
            ];
            let want = steps.into_iter().find(|hits| !hits.is_empty()).unwrap_or_default();
            match resolve(Kind::Network, &argument, all.iter().copied()) {
                Ok(found) => prop_assert_eq!(want, vec![found]),
                Err(ResolveError::NotFound { .. }) => prop_assert!(want.is_empty()),
                Err(ResolveError::Ambiguous { matches, .. }) => {
                    prop_assert!(matches > 1);
                    prop_assert_eq!(want.len(), matches);
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
