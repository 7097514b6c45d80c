//! The command line: the clap tree and dispatch. What a command does is in its file under `cli`.

#![forbid(unsafe_code)]

mod cli;
mod client;
mod daemon;
mod seconds;
mod supervise;
mod userland_proxy;
mod view;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser};

/// What `docker run` exits with when Docker itself fails, not the command it runs.
const OUR_OWN_FAILURE: u8 = 125;

/// Gives any process what Docker's networking gives a container.
#[derive(Parser)]
#[command(
    name = "portmap",
    version,
    disable_version_flag = true,
    override_usage = "portmap [OPTIONS] -p SPEC... TARGET\n       portmap COMMAND",
    after_long_help = cli::publish::EXAMPLES
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    publish: cli::publish::Args,

    /// The daemon to talk to [env: PORTMAP_HOST] [default: unix:///run/portmap/portmap.sock]
    ///
    /// For the daemon itself: where it listens; there it may be given several times. The default is portmap.sock in the
    /// daemon's exec root, which PORTMAP_EXEC_ROOT moves for the daemon and for its clients.
    #[arg(short = 'H', long, global = true, value_name = "URL", action = ArgAction::Append)]
    host: Vec<String>,

    /// Print version
    #[arg(short, long, short_alias = 'V', action = ArgAction::Version)]
    version: (),
}

#[derive(clap::Subcommand)]
enum Command {
    /// Manage networks
    Network(Box<cli::network::Args>),
    /// Run a command in a sandbox of its own
    Run(cli::run::Args),
    /// Create a sandbox, to be started later
    Create(cli::create::Args),
    /// Start sandboxes
    Start(cli::start::Args),
    /// Stop sandboxes
    Stop(cli::stop::Args),
    /// Restart sandboxes
    Restart(cli::restart::Args),
    /// Rename a sandbox
    Rename(cli::rename::Args),
    /// Remove sandboxes, or links between them
    Rm(cli::rm::Args),
    /// Run a command in a running sandbox
    Exec(cli::exec::Args),
    /// List sandboxes
    Ps(cli::ps::Args),
    /// Show all about sandboxes and networks
    Inspect(cli::inspect::Args),
    /// Show what a sandbox's command wrote in the background
    ///
    /// The log has no limit: it grows from run to run, and goes with the sandbox.
    Logs(cli::logs::Args),
    /// Show where a sandbox's ports are published
    Port(cli::port::Args),
    /// Publish further ports of a sandbox
    ///
    /// Of one that doesn't run they are published when it starts. Prints where they are.
    Publish(cli::sandbox_publish::Args),
    /// Take back ports that were published
    ///
    /// By the same words, or by enough of them: -p 80 stands for all host ports that lead to 80/tcp, unless one was published
    /// just so. Prints where they were.
    Unpublish(cli::sandbox_publish::Args),
    /// Say why a published port answers, or why it doesn't
    ///
    /// Follows a packet's way from the host's port to what listens in the sandbox. Exits with 0 if it answers, with 1 if not.
    Explain(cli::explain::Args),
    /// Run the daemon, which keeps networks and sandboxes
    Daemon(Box<cli::daemon::Args>),
    #[command(hide = true)]
    Supervise(supervise::Args),
    /// Print a shell's completions, or write manual pages
    #[command(hide = true)]
    Completions(cli::completions::Args),
}

fn main() -> ExitCode {
    // Daemons and supervisors are started by way of /proc/self/exe, and would be called "exe" by ps and ss.
    let _ = nix::sys::prctl::set_name(c"portmap");
    let outcome = match Cli::try_parse() {
        Ok(Cli { command: Some(command), host: hosts, .. }) => {
            let host = hosts.last().cloned().or_else(host_of_environment);
            let host = host.as_deref();
            return match &command {
                Command::Network(args) => cli::network::run(host, args),
                Command::Completions(args) => cli::completions::run(args, Cli::command()),
                Command::Run(args) => cli::run::run(host, args),
                Command::Create(args) => cli::create::run(host, args),
                Command::Start(args) => cli::start::run(host, args),
                Command::Stop(args) => cli::stop::run(host, args),
                Command::Restart(args) => cli::restart::run(host, args),
                Command::Rename(args) => cli::rename::run(host, args),
                Command::Rm(args) => cli::rm::run(host, args),
                Command::Exec(args) => cli::exec::run(host, args),
                Command::Ps(args) => cli::ps::run(host, args),
                Command::Inspect(args) => cli::inspect::run(host, args),
                Command::Logs(args) => cli::logs::run(host, args),
                Command::Port(args) => cli::port::run(host, args),
                Command::Publish(args) => cli::sandbox_publish::publish(host, args),
                Command::Unpublish(args) => cli::sandbox_publish::unpublish(host, args),
                Command::Explain(args) => cli::explain::run(host, args),
                Command::Daemon(args) => cli::daemon::run(args, hosts),
                Command::Supervise(args) => supervise::run(host, args),
            };
        }
        Ok(Cli { publish, host: hosts, .. }) => {
            let host = hosts.last().cloned().or_else(host_of_environment);
            cli::publish::run(host.as_deref(), publish)
        }
        Err(error) if is_wanted(error.kind()) => to_the_end_or_enough(error.print()).context("cannot print"),
        Err(error) => {
            let typed = || std::env::args().skip(1);
            let is_about_words =
                matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand);
            let unknown = is_about_words.then(|| unknown_command(typed())).flatten();
            let text = unknown.unwrap_or_else(|| one_too_many(error.to_string()));
            Err(anyhow::anyhow!("{}", usage_error(&text, &command_path(typed()))))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "portmap: {}", one_line(&format!("{error:#}")));
            ExitCode::from(OUR_OWN_FAILURE)
        }
    }
}

/// The daemon that all commands talk to unless they are told otherwise.
fn host_of_environment() -> Option<String> {
    client::from_environment(client::HOST_VARIABLE).map(|host| host.to_string_lossy().into_owned())
}

/// Whether what clap has to say was asked for, or is the answer to half a command.
fn is_wanted(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// A reader that has gone has read what it wanted: no failure.
fn to_the_end_or_enough(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Errors quote what was typed, whatever that is: they stay one line, and move no cursor.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// clap explains at length; the first paragraph says what is wrong, and one line is enough.
fn usage_error(text: &str, command: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let first = text.split("\n\n").next().unwrap_or(text);
    let words: Vec<&str> = first.split_whitespace().collect();
    format!("{} (see {command} --help)", words.join(" "))
}

/// Where ports are published, a word that resembles a command is one too many like any other.
fn one_too_many(text: String) -> String {
    let word = text.strip_prefix("error: unrecognized subcommand ").and_then(|rest| rest.lines().next());
    word.map_or_else(|| text.clone(), |word| format!("unexpected argument {word} found"))
}

/// The command that was meant, as far as it was one: `portmap network create`.
fn command_path(typed: impl Iterator<Item = String>) -> String {
    let mut path = String::from("portmap");
    let mut command = Cli::command();
    for word in positional(typed) {
        let Some(found) = command.find_subcommand(&word).cloned() else { break };
        path.push(' ');
        path.push_str(found.get_name());
        command = found;
    }
    path
}

/// `portmap kill web`: of several words without a port to publish, the first was to be a command.
fn unknown_command(typed: impl Iterator<Item = String>) -> Option<String> {
    let typed: Vec<String> = typed.collect();
    let publishes = typed.iter().any(|word| word.starts_with("-p") || word.starts_with("--publish"));
    let mut words = positional(typed.into_iter());
    let first = words.next().filter(|word| !publishes && Cli::command().find_subcommand(word).is_none())?;
    words.next().map(|_| format!("unknown command: {first}"))
}

/// The words that are neither a flag nor the value of `--host`, which may stand before the command.
fn positional(typed: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    let mut is_value = false;
    typed.filter(move |word| {
        let skipped =
            std::mem::replace(&mut is_value, word == "-H" || word == "--host") || word.starts_with('-');
        !skipped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_usage_error_is_one_line() {
        for words in [&["--nonsense"][..], &["--ip", "x"], &["-p"], &["--drain", "-1"], &["a", "b"]] {
            let error = Cli::try_parse_from([&["portmap"], words].concat()).err().expect("it is wrong");
            let line = usage_error(&error.to_string(), "portmap");
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line:?}");
            assert!(line.ends_with("(see portmap --help)"), "{line:?}");
        }
    }

    #[test]
    fn an_error_points_to_the_help_of_its_command() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>().into_iter();
        for (typed, path) in [
            ("--nonsense", "portmap"),
            ("-p 80 a b", "portmap"),
            ("run --nonsense true", "portmap run"),
            ("-H unix:///x network create --nonsense run", "portmap network create"),
        ] {
            assert_eq!(command_path(words(typed)), path, "{typed}");
        }
        assert_eq!(unknown_command(words("kill web")).as_deref(), Some("unknown command: kill"));
        assert_eq!(unknown_command(words("-p 80 a b")), None);
        assert_eq!(unknown_command(words("172.17.0.8 --nonsense")), None);
        assert_eq!(unknown_command(words("run --nonsense true")), None);
    }
}
