//! The environment of a command.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Ours, with what the sandbox is called, and then `asked`: what its links say, and what was asked for. Of equal names the last
/// counts. A name alone takes a variable away.
pub(crate) fn environment(
    ours: impl Iterator<Item = (OsString, OsString)>,
    hostname: &str,
    domainname: &str,
    asked: &[String],
) -> BTreeMap<OsString, OsString> {
    let mut env: BTreeMap<OsString, OsString> = ours.collect();
    if !hostname.is_empty() {
        let dot = if domainname.is_empty() { "" } else { "." };
        env.insert("HOSTNAME".into(), format!("{hostname}{dot}{domainname}").into());
    }
    for entry in asked {
        match entry.split_once('=') {
            Some((name, value)) => env.insert(name.into(), value.into()),
            None => env.remove(&OsString::from(entry)),
        };
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_wins() {
        let ours = [("A", "1"), ("B", "2"), ("HOSTNAME", "here")];
        let ours = || ours.into_iter().map(|(name, value)| (name.into(), value.into()));
        let show = |env: BTreeMap<OsString, OsString>| {
            let pairs =
                env.into_iter().map(|(name, value)| format!("{}={}", name.display(), value.display()));
            pairs.collect::<Vec<_>>().join(" ")
        };
        let asked = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(show(environment(ours(), "web", "", &[])), "A=1 B=2 HOSTNAME=web");
        assert_eq!(show(environment(ours(), "web", "lan", &[])), "A=1 B=2 HOSTNAME=web.lan");
        assert_eq!(show(environment(ours(), "", "", &asked(&["A=x=y", "B"]))), "A=x=y HOSTNAME=here");
        let linked = ["A=link", "DB_PORT=tcp://172.17.0.2:3306", "A=own"];
        let want = "A=own B=2 DB_PORT=tcp://172.17.0.2:3306 HOSTNAME=web";
        assert_eq!(show(environment(ours(), "web", "", &asked(&linked))), want);
        assert_eq!(
            show(environment(ours(), "web", "", &asked(&["HOSTNAME=", "C="]))),
            "A=1 B=2 C= HOSTNAME="
        );
    }
}
