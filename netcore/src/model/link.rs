//! The grammar of `--link`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `--link name[:alias]`: a name for another sandbox that only this one knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LinkSpec {
    /// The other sandbox, by name or id.
    pub target: String,
    /// The name for it: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
    pub alias: String,
}

/// Why a `--link` was refused: Docker's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nothing was given.
    #[error("empty string specified for links")]
    Empty,
    /// More than two parts, an empty one, or an alias that can't be a name.
    #[error("bad format for links: {0}")]
    Format(String),
}

impl FromStr for LinkSpec {
    type Err = LinkError;

    /// A target with a slash before it is as `inspect` prints it: its alias is the last part of a path then.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        if text.is_empty() {
            return Err(LinkError::Empty);
        }
        let (target, alias) = text.split_once(':').unwrap_or((text, text));
        let name = target.trim_start_matches('/');
        let alias = match name == target {
            true => alias,
            false => alias.rsplit_once('/').map_or(alias, |(_, last)| last),
        };
        let target = name;
        if target.is_empty() || !is_alias(alias) {
            return Err(LinkError::Format(text.to_owned()));
        }
        Ok(Self { target: target.to_owned(), alias: alias.to_owned() })
    }
}

/// Docker takes any text. But an alias ends up in lines of files, in names of variables and in paths.
fn is_alias(text: &str) -> bool {
    let is_inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(is_inner)
}

impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.target, self.alias)
    }
}

impl TryFrom<String> for LinkSpec {
    type Error = LinkError;

    /// As it was kept: what is accepted may have been another thing then.
    fn try_from(text: String) -> Result<Self, LinkError> {
        let parts = text.split_once(':');
        let (target, alias) = parts.ok_or_else(|| LinkError::Format(text.clone()))?;
        Ok(Self { target: target.to_owned(), alias: alias.to_owned() })
    }
}

impl From<LinkSpec> for String {
    fn from(link: LinkSpec) -> Self {
        link.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_parse() {
        let bad = |text: &str| Err(format!("bad format for links: {text}"));
        let cases = [
            ("db", Ok("db:db")),
            ("db:database", Ok("db:database")),
            ("1dd4b0384bae", Ok("1dd4b0384bae:1dd4b0384bae")),
            ("/mysql_db:/blog/my_link", Ok("mysql_db:my_link")),
            ("/mysql_db:my_link", Ok("mysql_db:my_link")),
            ("/mysql_db", Ok("mysql_db:mysql_db")),
            ("blog/my_link:x", Ok("blog/my_link:x")),
            ("db:My-link_2.x", Ok("db:My-link_2.x")),
            ("", Err("empty string specified for links".to_owned())),
            ("a:b:c", bad("a:b:c")),
            (":b", bad(":b")),
            ("/:b", bad("/:b")),
            ("//:b", bad("//:b")),
            ("//db", Ok("db:db")),
            ("a:", bad("a:")),
            (":", bad(":")),
            ("a:b/c", bad("a:b/c")),
            ("a:/b/c", bad("a:/b/c")),
            ("/a:/b/", bad("/a:/b/")),
            ("blog/my_link", bad("blog/my_link")),
            ("a:_b", bad("a:_b")),
            ("a:-b", bad("a:-b")),
            ("a:b c", bad("a:b c")),
            ("a:b\n127.0.0.1\tc", bad("a:b\n127.0.0.1\tc")),
            ("a:b=c", bad("a:b=c")),
            ("a:ä", bad("a:ä")),
        ];
        for (text, want) in cases {
            let got = text.parse::<LinkSpec>().map(|link| link.to_string()).map_err(|e| e.to_string());
            assert_eq!(got, want.map(str::to_owned), "{text:?}");
        }
    }

    /// One record that can't be read keeps a daemon from opening all.
    #[test]
    fn what_was_kept_is_read_whatever_is_accepted_now() {
        for text in ["db", "//db:d", "/mysql_db:/blog/my_link", "blog/my_link:x"] {
            let link: LinkSpec = text.parse().unwrap();
            let kept = serde_json::to_string(&link).unwrap();
            assert_eq!(serde_json::from_str::<LinkSpec>(&kept).unwrap(), link, "{text:?}");
        }
        // Aliases were free once.
        let link: LinkSpec = serde_json::from_str(r#""/db:_my link""#).unwrap();
        assert_eq!((link.target.as_str(), link.alias.as_str()), ("/db", "_my link"));
        assert!(serde_json::from_str::<LinkSpec>(r#""db""#).is_err());
    }
}
