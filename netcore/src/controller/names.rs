//! What a sandbox sees of names: its files under `/etc`.
//!
//! The files are written anew at every start. While the sandbox runs, its hosts file gains and loses the lines of a network
//! that it joins or leaves and follows its links (`links`), and its resolv.conf is written again when it joins a network,
//! unless somebody has edited it.
//!
//! Not here: the texts (`names`), and the embedded server (`resolver`).

use std::fs::{self, Permissions};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::{ControllerError, file};
use super::known::found;
use super::links::Provider;
use super::plans::Attachment;
use super::root::{remove_dir, write};
use super::{Files, Inner, Result, host};
use crate::dns::read_host_file;
use crate::model::{NetworkMode, Predefined, Running, Sandbox, SandboxState};
use crate::names::hosts;
use crate::names::resolv_conf::{self, Generated, Kind, Moment, ResolvConf};

/// The host's own, which a sandbox in the host's stack gets a copy of.
const HOSTS: &str = "/etc/hosts";

/// Files of a sandbox, and what it is called.
pub(super) struct Etc {
    pub(super) files: Files,
    pub(super) hostname: String,
    pub(super) domainname: String,
}

impl Inner {
    /// Writes what a sandbox that starts sees under `/etc`. One that shares the stack of `target` has the files of that.
    pub(super) fn etc(
        &self,
        sandbox: &Sandbox,
        attached: &[Attachment],
        target: Option<&(Sandbox, Running)>,
        linked: &[Provider],
    ) -> Result<Etc> {
        let owner = match target {
            Some((target, _)) => self.owner_of_files(target.clone())?,
            None => sandbox.clone(),
        };
        let mut files = self.root.files(owner.id);
        let (hostname, domainname) =
            (self.hostname(&owner), owner.config.domainname.clone().unwrap_or_default());
        if target.is_some() {
            // One that was started by an older version has none.
            files.resolv_conf = files.resolv_conf.filter(|path| path.exists());
        } else if let Err(error) = self.write_etc(sandbox, attached, &files, linked) {
            remove_dir(&self.root.run(sandbox.id));
            return Err(error);
        }
        Ok(Etc { files, hostname, domainname })
    }

    fn write_etc(
        &self,
        sandbox: &Sandbox,
        attached: &[Attachment],
        files: &Files,
        linked: &[Provider],
    ) -> Result<()> {
        let links = self.link_lines(attached, linked);
        let hosts = self.hosts(sandbox, attached, &links)?;
        self.root.make_run(sandbox.id)?;
        write(&files.hosts, &hosts)?;
        if !links.is_empty() {
            write(&self.root.link_lines(sandbox.id), &links)?;
        }
        write(&files.hostname, hosts::hostname(&self.hostname(sandbox)))?;
        self.write_resolv_conf(sandbox, attached, Moment::Start)?;
        // Also those inside who aren't root read them, whatever mask this process was started with.
        for path in [&files.hosts, &files.hostname].into_iter().chain(&files.resolv_conf) {
            fs::set_permissions(path, Permissions::from_mode(0o644)).map_err(file("change mode of", path))?;
        }
        Ok(())
    }

    fn hosts(&self, sandbox: &Sandbox, attached: &[Attachment], links: &str) -> Result<Vec<u8>> {
        let extra = &sandbox.config.extra_hosts;
        if sandbox.config.mode == NetworkMode::Host && extra.is_empty() {
            // Byte for byte, in whatever encoding its comments are.
            return Ok(fs::read(HOSTS).unwrap_or_else(|_| hosts::template(true).into_bytes()));
        }
        let gateways = if extra.is_empty() { Vec::new() } else { self.host_gateways()? };
        let extra = hosts::extra_lines(extra, &gateways, self.has_ipv6(sandbox))?;
        let own = hosts::lines(attached.iter().flat_map(Attachment::addresses), &self.own_names(sandbox));
        Ok(format!("{}{extra}{links}{own}", hosts::template(self.has_ipv6(sandbox))).into_bytes())
    }

    /// The host as sandboxes reach it: what was configured, or the gateways of the default network.
    fn host_gateways(&self) -> Result<Vec<IpAddr>> {
        if !self.config.host_gateways.is_empty() {
            return Ok(self.config.host_gateways.clone());
        }
        let bridge = Predefined::Bridge.into();
        let bridge = self.store.read(move |tx| tx.network_named(&bridge))?;
        let gateways = bridge.map(|bridge| bridge.subnets).unwrap_or_default();
        Ok(gateways.into_iter().filter_map(|subnet| subnet.gateway).collect())
    }

    /// Whether a sandbox's loopback interface has an IPv6 address. In a namespace that somebody else made, that is his
    /// choice.
    pub(super) fn has_ipv6(&self, sandbox: &Sandbox) -> bool {
        let adopted = sandbox.config.netns.as_ref();
        adopted.and_then(|path| self.kernel.has_ipv6(path).ok()).unwrap_or(self.ipv6)
    }

    pub(super) fn hostname(&self, sandbox: &Sandbox) -> String {
        match (&sandbox.config.mode, &sandbox.config.hostname) {
            (NetworkMode::Host, None) => host::hostname(),
            _ => sandbox.hostname(),
        }
    }

    fn own_names(&self, sandbox: &Sandbox) -> String {
        let domainname = sandbox.config.domainname.as_deref().unwrap_or_default();
        hosts::own_names(&self.hostname(sandbox), domainname)
    }

    /// Whose files a sandbox has that may itself share the stack of another.
    fn owner_of_files(&self, mut sandbox: Sandbox) -> Result<Sandbox> {
        self.store.read(move |tx| {
            let mut seen = vec![sandbox.id];
            while let NetworkMode::Container(target) = &sandbox.config.mode {
                match found(tx.resolve_sandbox(target))? {
                    Some(target) if !seen.contains(&target.id) => sandbox = target,
                    _ => break,
                }
                seen.push(sandbox.id);
            }
            Ok(sandbox)
        })
    }

    /// Adds or removes a sandbox's lines for an endpoint. A failure is only logged: its file is a convenience, and may have
    /// been replaced by somebody.
    pub(super) fn change_hosts(&self, sandbox: &Sandbox, attachment: &Attachment, there: bool) {
        let lines = hosts::lines(attachment.addresses(), &self.own_names(sandbox));
        let change = if there { hosts::with } else { hosts::without };
        let path: PathBuf = self.root.files(sandbox.id).hosts;
        // The other hand that changes it, whoever's operation that is part of.
        let _turn = self.linking();
        let text = fs::read_to_string(&path).map_err(file("read", &path));
        let changed = text.and_then(|text| write(&path, change(&text, &lines)));
        if let Err(error) = changed {
            tracing::warn!(path = %path.display(), %error, "a hosts file can't be changed");
        }
    }

    /// What a running sandbox's resolv.conf is by what the host's says now.
    fn resolv_conf(&self, sandbox: &Sandbox, attached: &[Attachment]) -> Result<Generated> {
        let (path, host) = self.host_says(sandbox)?;
        Ok(self.generated(sandbox, attached, &path, &host))
    }

    /// Whether the `ndots` of a running sandbox was chosen by somebody. A host's file that can't be read chooses none: names
    /// of who runs don't depend on it.
    pub(super) fn is_ndots_given(&self, sandbox: &Sandbox, attached: &[Attachment]) -> bool {
        let (path, host) = self.host_says(sandbox).unwrap_or_default();
        self.generated(sandbox, attached, &path, &host).ndots_given
    }

    fn generated(
        &self,
        sandbox: &Sandbox,
        attached: &[Attachment],
        path: &Path,
        host: &ResolvConf,
    ) -> Generated {
        let ipv6 = attached.iter().any(|attachment| attachment.endpoint.ipv6.is_some());
        let kind = match (&sandbox.config.mode, &sandbox.state) {
            (NetworkMode::Host, _) => Kind::Host,
            (_, SandboxState::Running(Running { resolver: true, .. })) => Kind::Embedded { ipv6 },
            _ => Kind::Legacy { ipv6 },
        };
        let dns = sandbox.config.dns.or(&self.config.dns);
        resolv_conf::generate(host, path, &dns, kind)
    }

    /// The file of the host's that counts for a sandbox, and what it says.
    fn host_says(&self, sandbox: &Sandbox) -> Result<(PathBuf, ResolvConf)> {
        let mut path = self.config.host_resolv_conf();
        let mut host = read(&path)?;
        // Which file counts follows from the mode, also where other networks were joined.
        let legacy = matches!(sandbox.config.mode, NetworkMode::Bridge | NetworkMode::None);
        if legacy && self.config.resolv_conf.is_none() {
            let source = resolv_conf::source(Kind::Legacy { ipv6: false }, &host);
            if source != path {
                (path, host) = (source.to_owned(), read(source)?);
            }
        }
        Ok((path, host))
    }

    /// Writes a sandbox's resolv.conf, if that is due, and what tells later whether somebody has edited it.
    pub(super) fn write_resolv_conf(
        &self,
        sandbox: &Sandbox,
        attached: &[Attachment],
        moment: Moment,
    ) -> Result<()> {
        let (path, digest) =
            (self.root.run(sandbox.id).join("resolv.conf"), self.root.resolv_conf_digest(sandbox.id));
        let edited = || {
            let written = fs::read_to_string(&digest).ok();
            fs::read(&path).map_or(true, |text| resolv_conf::is_edited(&text, written.as_deref()))
        };
        if !resolv_conf::is_due(moment, moment != Moment::Start && edited()) {
            return Ok(());
        }
        let text = self.resolv_conf(sandbox, attached)?.text;
        write(&path, &text)?;
        write(&digest, resolv_conf::digest(text.as_bytes()))
    }
}

/// Whether a sandbox that starts on these networks has an embedded server.
pub(super) fn has_resolver(attached: &[Attachment]) -> bool {
    attached.iter().any(|attachment| !attachment.network.is_predefined())
}

fn read(path: &Path) -> Result<ResolvConf> {
    let text = read_host_file(path).map_err(file("read", path))?;
    ResolvConf::parse(&text).map_err(|source| ControllerError::ResolvConf { path: path.to_owned(), source })
}
