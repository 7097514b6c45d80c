//! `--network NAME` and its long form `name=NAME,alias=…,ip=…`.
//!
//! Docker's command line writes the long form's keys and values in lower case, so that networks with capitals can't be named in
//! it; here only the keys are.

use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use netcore::model::{LinkSpec, NetworkMode};
use serde_json::{Map, Value, json};

/// What was asked for on one network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkFlag {
    /// The network, or another mode.
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) links: Vec<String>,
    pub(crate) ip: Option<String>,
    pub(crate) ip6: Option<String>,
    pub(crate) mac: Option<String>,
    pub(crate) link_local: Vec<String>,
    driver_opts: Map<String, Value>,
    gw_priority: i32,
}

impl NetworkFlag {
    /// A network of which nothing else is asked.
    pub(crate) fn plain(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// Whether nothing was asked for.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::plain(self.name.clone())
    }

    /// As the daemon is asked for it.
    pub(crate) fn settings(&self) -> Result<Value> {
        ensure!(!self.name.trim().is_empty(), "no name set for network");
        let own = self.name.parse::<NetworkMode>().is_ok_and(|mode| mode.is_user_defined());
        ensure!(
            own || self.aliases.is_empty(),
            "network-scoped aliases are only supported for user-defined networks"
        );
        ensure!(own || self.links.is_empty(), "links are only supported for user-defined networks");
        Ok(json!({
            "IPAMConfig": {
                "IPv4Address": self.ip.clone().unwrap_or_default(),
                "IPv6Address": self.ip6.clone().unwrap_or_default(),
                "LinkLocalIPs": self.link_local,
            },
            "Aliases": self.aliases,
            "Links": self.links,
            "MacAddress": self.mac.clone().unwrap_or_default(),
            "GwPriority": self.gw_priority,
            "DriverOpts": self.driver_opts,
        }))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "name" => value.clone_into(&mut self.name),
            "alias" => self.aliases.push(value.to_owned()),
            "link" => {
                value.parse::<LinkSpec>()?;
                self.links.push(value.to_owned());
            }
            "ip" => self.ip = Some(value.to_owned()),
            "ip6" => self.ip6 = Some(value.to_owned()),
            "mac-address" => self.mac = Some(value.to_owned()),
            "link-local-ip" => self.link_local.push(value.to_owned()),
            "gw-priority" => {
                self.gw_priority = value.parse().with_context(|| format!("invalid gw-priority {value:?}"))?;
            }
            "driver-opt" => {
                let option = value.split_once('=').filter(|(key, _)| !key.trim().is_empty());
                let (key, value) = option.context("invalid key/value pair format in driver options")?;
                self.driver_opts.insert(key.trim().to_owned(), value.trim().into());
            }
            _ => bail!("invalid field key {key}"),
        }
        Ok(())
    }
}

impl FromStr for NetworkFlag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut flag = Self::default();
        if !is_long_form(text) {
            text.clone_into(&mut flag.name);
            return Ok(flag);
        }
        for field in fields(text) {
            let pair = field.split_once('=').filter(|(key, _)| !key.is_empty());
            let (key, value) = pair.with_context(|| format!("invalid field {field}"))?;
            flag.set(&key.trim().to_lowercase(), value.trim())?;
        }
        ensure!(!flag.name.is_empty(), "network name/id is not specified");
        Ok(flag)
    }
}

/// Docker's rule: somewhere an equals sign stands between two letters, digits or underscores.
fn is_long_form(text: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.as_bytes().windows(3).any(|three| is_word(&three[0]) && three[1] == b'=' && is_word(&three[2]))
}

/// Fields between commas; one in double quotes may contain commas, and double quotes written twice.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let (mut quoted, mut letters) = (false, text.chars().peekable());
    while let Some(letter) = letters.next() {
        let field = fields.last_mut().expect("there is one from the start");
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            letter => field.push(letter),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let parse = |text: &str| text.parse::<NetworkFlag>().map_err(|error| error.to_string());
        for plain in ["web", "container:db", "host", "My-Net", "a=", "=b"] {
            assert_eq!(parse(plain).unwrap(), NetworkFlag::plain(plain.to_owned()));
        }
        let flag =
            parse("NAME=Shop,alias=Web,alias=w2,link=db:d,link=x,ip=10.0.0.2,ip6=fd00::2,mac-address=02:42:00:00:00:01")
                .unwrap();
        assert_eq!((flag.name.as_str(), flag.aliases.join(" ")), ("Shop", "Web w2".to_owned()));
        assert_eq!(flag.settings().unwrap()["Links"], json!(["db:d", "x"]));
        assert_eq!((flag.ip.as_deref(), flag.ip6.as_deref()), (Some("10.0.0.2"), Some("fd00::2")));
        let option = r#"name=a,"driver-opt=com.docker.network.endpoint.sysctls=a=1,b=2",gw-priority=7"#;
        let flag = parse(option).unwrap();
        assert_eq!(flag.driver_opts["com.docker.network.endpoint.sysctls"], "a=1,b=2");
        assert_eq!(flag.gw_priority, 7);
        let cases = [
            ("name=a,alias", "invalid field alias"),
            ("name=a,x=1", "invalid field key x"),
            ("ip=1.2.3.4", "network name/id is not specified"),
            ("name=a,driver-opt=x", "invalid key/value pair format in driver options"),
            ("name=a,link=a:b:c", "bad format for links: a:b:c"),
            ("name=a,gw-priority=x", r#"invalid gw-priority "x""#),
        ];
        for (text, why) in cases {
            assert_eq!(parse(text).unwrap_err(), why, "{text}");
        }
    }
}
