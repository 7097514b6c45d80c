//! What the tests ask of sandboxes: their files, their processes' environment, what their libc finds.

use super::lab::Lab;

/// The template for a sandbox's links on the default bridge.
pub(crate) const LINKS: &str = "{{.HostConfig.Links}}";
/// What runs where nothing has to happen.
pub(crate) const IDLE: [&str; 3] = ["--", "sleep", "infinity"];
/// Where on the host a name server would be.
pub(crate) const NAME_SERVER: &str = "192.0.2.1";
/// How `run` and Docker's command line say that the container couldn't be created or started.
pub(crate) const NOT_STARTED: i32 = 125;

impl Lab {
    /// With these flags of the daemon's. Its sandboxes ask the host for names that nobody here has; unless a test has a
    /// server there, they learn at once that there is none.
    pub(crate) fn linking(flags: &[&str]) -> Option<Self> {
        Self::new(&[&["--dns", NAME_SERVER], flags].concat())
    }

    /// Starts a sandbox that does nothing, and returns its id.
    #[track_caller]
    pub(crate) fn idle(&self, name: &str, flags: &[&str]) -> String {
        self.ok(&[&["run", "-d", "--name", name], flags, &IDLE].concat())
    }

    /// The same, only created.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, flags: &[&str]) -> String {
        self.ok(&[&["create", "--name", name], flags, &IDLE].concat())
    }

    /// What `inspect` makes of a template.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str, template: &str) -> String {
        self.ok(&["inspect", "-f", template, name])
    }

    /// The variables that a sandbox's process was started with and whose names begin so, sorted.
    #[track_caller]
    pub(crate) fn environment(&self, name: &str, prefix: &str) -> Vec<String> {
        let pid = self.inspect(name, "{{.State.Pid}}");
        let all = self.home.run("cat", &[&format!("/proc/{pid}/environ")]).ok();
        sorted(all.split('\0').filter(|entry| entry.starts_with(prefix)))
    }

    /// Those that a command gets that is run in a sandbox now.
    #[track_caller]
    pub(crate) fn exec_environment(&self, name: &str, prefix: &str) -> Vec<String> {
        let all = self.ok(&["exec", name, "env"]);
        sorted(all.lines().filter(|entry| entry.starts_with(prefix)))
    }

    /// The hosts file inside.
    #[track_caller]
    pub(crate) fn hosts(&self, name: &str) -> String {
        self.ok(&["exec", name, "cat", "/etc/hosts"])
    }

    /// The lines of the hosts file inside on which a name stands.
    #[track_caller]
    pub(crate) fn hosts_of(&self, sandbox: &str, name: &str) -> Vec<String> {
        let hosts = self.hosts(sandbox);
        let has = |line: &&str| line.split_whitespace().skip(1).any(|word| word == name);
        hosts.lines().filter(has).map(str::to_owned).collect()
    }

    /// The addresses that the libc inside finds for a name, in one database of `getent`, each once.
    #[track_caller]
    pub(crate) fn found_in(&self, database: &str, sandbox: &str, name: &str) -> Vec<String> {
        let said = self.portmap(&["exec", sandbox, "getent", database, name]);
        assert!(matches!(said.code, 0 | 2), "{said:?}");
        let addresses = said.stdout.lines().filter_map(|line| line.split_whitespace().next());
        let mut found = sorted(addresses);
        found.dedup();
        found
    }

    /// The IPv4 addresses that the libc inside finds for a name.
    #[track_caller]
    pub(crate) fn found(&self, sandbox: &str, name: &str) -> Vec<String> {
        self.found_in("ahostsv4", sandbox, name)
    }

    /// A request as it is, and the status and the body of the answer.
    #[track_caller]
    pub(crate) fn api(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.request(method, path, body).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// The same, where there may be no daemon: other than a command this starts none.
    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let socket = self.home.socket();
        let words = ["-s", "-w", "\n%{http_code}", "-H", "Content-Type: application/json", "-X", method];
        let data: &[&str] = if body.is_empty() { &[] } else { &["-d", body] };
        let to = ["--unix-socket", socket.to_str().unwrap(), &format!("http://x{path}")];
        let said = self.home.run("curl", &[&words, data, &to].concat());
        let (body, status) = said.stdout.rsplit_once('\n').filter(|_| said.code == 0)?;
        Some((status.parse().unwrap(), body.trim_end().to_owned()))
    }

    /// Its address on the default bridge.
    #[track_caller]
    pub(crate) fn ip(&self, name: &str) -> String {
        self.address(name, "bridge", "IPAddress").to_string()
    }

    /// Stops a sandbox.
    #[track_caller]
    pub(crate) fn stop(&self, name: &str) {
        self.ok(&["stop", "-t", "0", name]);
    }

    /// Has a sandbox come back with another address; whoever has the old one now is called `NAME-old`.
    #[track_caller]
    pub(crate) fn move_away(&self, name: &str) -> (String, String) {
        let old = self.ip(name);
        self.stop(name);
        let squatter = format!("{name}-old");
        self.idle(&squatter, &[]);
        assert_eq!(self.ip(&squatter), old, "the lowest free address");
        self.ok(&["start", name]);
        let new = self.ip(name);
        assert_ne!(old, new);
        (old, new)
    }

    /// Starts a sandbox with servers on ports 3306 and 3307, for as long as it runs and again when it starts again.
    #[track_caller]
    pub(crate) fn database(&self, name: &str, flags: &[&str]) {
        let servers = "busybox httpd -f -p 3306 & exec busybox httpd -f -p 3307";
        self.ok(&[&["run", "-d", "--name", name], flags, &["--", "sh", "-c", servers]].concat());
        self.serves(name);
    }

    /// Waits until the servers of a [database](Self::database) listen.
    #[track_caller]
    pub(crate) fn serves(&self, name: &str) {
        let sandbox = self.sandbox(name);
        let listens = |port: u16| sandbox.connects(([127, 0, 0, 1], port).into());
        e2e::wait::until("servers in a sandbox", || listens(3306) && listens(3307));
    }

    /// Whether a program in a sandbox gets an answer from a [database](Self::database), whose name the libc there looks up.
    #[track_caller]
    pub(crate) fn reaches(&self, sandbox: &str, to: &str, port: u16) -> bool {
        self.asks(sandbox, to, port, "10")
    }

    /// Whether it gets none.
    #[track_caller]
    pub(crate) fn is_cut_off(&self, sandbox: &str, to: &str, port: u16) -> bool {
        !self.asks(sandbox, to, port, "1")
    }

    #[track_caller]
    fn asks(&self, sandbox: &str, to: &str, port: u16, seconds: &str) -> bool {
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w {seconds} {to} {port}");
        let said = self.portmap(&["exec", sandbox, "sh", "-c", &ask]);
        assert!(!said.stderr.contains("bad address"), "{said:?}");
        said.stdout.starts_with("HTTP/")
    }

    /// A restart that ends the daemon so and leaves its sandboxes running.
    pub(crate) fn restart_daemon(&mut self, signal: &str) {
        self.end_daemon(signal);
        self.start_daemon();
    }
}

fn sorted<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut texts: Vec<String> = texts.map(str::to_owned).collect();
    texts.sort();
    texts
}
