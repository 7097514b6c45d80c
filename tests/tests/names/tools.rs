//! A host whose resolv.conf is the test's, and the two ways to ask for a name inside a sandbox.

use std::path::PathBuf;

use e2e::need;
use e2e::wait;
use tempfile::TempDir;

use super::lab::Lab;

/// Where the host's name server is, for sandboxes and for who reads this.
pub(crate) const U: &str = "192.0.2.1";
/// A file that names it.
pub(crate) const HOST: &str = "nameserver 192.0.2.1\n";

/// A [`Lab`] with a file that stands for the host's resolv.conf.
pub(crate) struct Names {
    lab: Lab,
    // After the lab: the daemon ends first.
    folder: TempDir,
}

impl std::ops::Deref for Names {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl std::ops::DerefMut for Names {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}

impl Names {
    /// With what the host's file says, and further flags of the daemon's.
    pub(crate) fn new(text: &str, flags: &[&str]) -> Option<Self> {
        need::program("dig")?;
        let (folder, path) = host_file(text);
        let lab = Lab::new(&[&["--resolv-conf", path.to_str().unwrap()], flags].concat())?;
        Some(Self { lab, folder })
    }

    /// With `/etc/resolv.conf` itself saying so, for all that is around the daemon.
    pub(crate) fn on_etc(text: &str) -> Option<Self> {
        need::program("dig")?;
        let (folder, path) = host_file(text);
        let lab = Lab::new(&[])?;
        lab.home.run("mount", &["--bind", path.to_str().unwrap(), "/etc/resolv.conf"]).ok();
        Some(Self { lab, folder })
    }

    /// The file that stands for the host's.
    pub(crate) fn host_file(&self) -> PathBuf {
        self.folder.path().join("resolv.conf")
    }

    /// Has the host's file say something else.
    pub(crate) fn host_says(&self, text: &str) {
        std::fs::write(self.host_file(), text).unwrap();
    }

    /// Starts a sandbox that does nothing, and returns its id.
    #[track_caller]
    pub(crate) fn idle(&self, name: &str, flags: &[&str]) -> String {
        let words = [&["run", "-d", "--name", name], flags, &["--", "sleep", "infinity"]];
        self.ok(&words.concat())
    }

    /// What a file says inside a sandbox.
    #[track_caller]
    pub(crate) fn file(&self, sandbox: &str, path: &str) -> String {
        // `Said` loses the last lines' ends.
        let text = self.ok(&["exec", sandbox, "sh", "-c", &format!("cat {path}; echo .")]);
        text.trim_end_matches('.').to_owned()
    }

    /// Asks the server that the sandbox's own resolv.conf names.
    #[track_caller]
    pub(crate) fn dig(&self, sandbox: &str, words: &str) -> Dig {
        let words: Vec<&str> = words.split_whitespace().collect();
        let said = self.portmap(&[&["exec", sandbox, "dig", "+tries=1", "+time=8"], &words[..]].concat());
        assert_eq!(said.code, 0, "{words:?}: {said:?}");
        Dig::parse(&said.stdout)
    }

    /// `NOERROR` and the answers' data, sorted; or another status.
    #[track_caller]
    pub(crate) fn asks(&self, sandbox: &str, words: &str) -> String {
        self.dig(sandbox, words).brief()
    }

    /// The addresses that the sandbox's libc finds, as `getent DATABASE NAME` prints them, sorted and each once.
    #[track_caller]
    pub(crate) fn libc(&self, sandbox: &str, database: &str, name: &str) -> Vec<String> {
        let said = self.portmap(&["exec", sandbox, "getent", database, name]);
        assert!(matches!(said.code, 0 | 2), "{said:?}");
        let mut found: Vec<String> = said
            .stdout
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// Waits until a name stands for these IPv4 addresses in a sandbox.
    #[track_caller]
    pub(crate) fn comes_to(&self, sandbox: &str, words: &str, want: &str) {
        wait::until(&format!("{words} = {want}"), || self.asks(sandbox, words) == want);
    }
}

fn host_file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::Builder::new().prefix("portmap-names-").tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// A reply, as dig shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dig {
    pub(crate) status: String,
    /// As `qr rd ra`.
    pub(crate) flags: String,
    pub(crate) answers: Vec<Answer>,
    /// Bytes of the message.
    pub(crate) size: usize,
    /// Whether it came over a connection.
    pub(crate) tcp: bool,
    pub(crate) edns: bool,
    /// How long it took.
    pub(crate) millis: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) owner: String,
    pub(crate) ttl: u32,
    pub(crate) kind: String,
    pub(crate) data: String,
}

impl Dig {
    #[track_caller]
    fn parse(text: &str) -> Self {
        let after = |mark: &str, end: char| {
            let rest = text.lines().rev().find_map(|line| line.split_once(mark)).map(|(_, rest)| rest);
            rest.and_then(|rest| rest.split(end).next()).map(|found| found.trim().to_owned())
        };
        let status = after("status: ", ',').unwrap_or_else(|| panic!("no reply: {text}"));
        let answers = text.lines().skip_while(|line| *line != ";; ANSWER SECTION:").skip(1);
        let answers = answers.take_while(|line| !line.is_empty()).map(Answer::parse).collect();
        let millis = after(";; Query time: ", ' ').and_then(|millis| millis.parse().ok()).unwrap();
        let size = after("MSG SIZE  rcvd: ", ' ').and_then(|size| size.parse().ok()).unwrap_or(0);
        let tcp = after(";; SERVER: ", '\n').is_some_and(|server| server.ends_with("(TCP)"));
        let edns = text.contains("; EDNS: ");
        Self { status, flags: after(";; flags: ", ';').unwrap(), answers, size, tcp, edns, millis }
    }

    pub(crate) fn data(&self) -> Vec<&str> {
        let mut data: Vec<&str> = self.answers.iter().map(|answer| answer.data.as_str()).collect();
        data.sort_unstable();
        data
    }

    pub(crate) fn brief(&self) -> String {
        [&[self.status.as_str()], &self.data()[..]].concat().join(" ")
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.flags.split(' ').any(|flag| flag == "tc")
    }
}

impl Answer {
    #[track_caller]
    fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace().map(str::to_owned);
        let mut word = || words.next().unwrap_or_else(|| panic!("no record: {line}"));
        let (owner, ttl, _class, kind) = (word(), word().parse().unwrap(), word(), word());
        Self { owner, ttl, kind, data: words.collect::<Vec<_>>().join(" ") }
    }
}
