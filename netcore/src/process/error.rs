//! Why a command didn't start, in the words that Docker's users know, and the exit code that says the same.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::enter::Step;

/// Exit code of a program that isn't there.
const NOT_FOUND: u8 = 127;
/// Exit code of a program that is there, but can't be executed.
const NOT_EXECUTABLE: u8 = 126;

/// Why a command didn't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// No program was named.
    #[error("no command specified")]
    NoCommand,
    /// A path that no system call takes.
    #[error("invalid path {0:?}: it contains a zero byte")]
    Path(PathBuf),
    /// A file that should be a network namespace.
    #[error("cannot enter the network namespace {}: {}", path.display(), reason(cause))]
    Namespace {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// A process whose surroundings should be shared.
    #[error("cannot enter the namespaces of process {pid}: {}", reason(cause))]
    Process {
        /// Its number.
        pid: u32,
        /// What the kernel said.
        cause: io::Error,
    },
    /// No child could be made.
    #[error("cannot start a process: {}", reason(.0))]
    Fork(io::Error),
    /// The child couldn't get to its surroundings.
    #[error("cannot {what}: {}", reason(cause))]
    Step {
        /// What it was about to do.
        what: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The directory to start in.
    #[error("chdir to cwd ({path:?}) failed: {}", reason(cause))]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        cause: io::Error,
    },
    /// There is no such program on the path.
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotFound(OsString),
    /// The program couldn't be executed.
    #[error("exec: {program:?}: {}", reason(cause))]
    Exec {
        /// The program as it was given.
        program: OsString,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl SpawnError {
    /// What a shell, and `docker run`, would exit with: 127 for what isn't there, 126 for what can't be executed. `None` if
    /// it isn't the command's fault.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::NotFound(_) => Some(NOT_FOUND),
            Self::Exec { cause, .. } | Self::Directory { cause, .. } => {
                let missing = cause.kind() == io::ErrorKind::NotFound;
                Some(if missing { NOT_FOUND } else { NOT_EXECUTABLE })
            }
            _ => None,
        }
    }

    pub(super) fn of_exec(program: &OsStr, cause: io::Error) -> Self {
        let on_path = !program.as_encoded_bytes().contains(&b'/');
        let program = program.to_owned();
        match cause.raw_os_error() {
            Some(libc::ENOENT) if on_path => Self::NotFound(program),
            // The kernel calls that a denied permission.
            Some(libc::EACCES) if fs::metadata(Path::new(&program)).is_ok_and(|found| found.is_dir()) => {
                Self::Exec { program, cause: io::Error::from_raw_os_error(libc::EISDIR) }
            }
            _ => Self::Exec { program, cause },
        }
    }
}

/// The kernel's words as C and Go programs print them: lower case, without the number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// What a step is about, after "cannot".
pub(super) fn describe(step: &Step) -> String {
    match step {
        Step::Join(_, libc::CLONE_NEWNET) => "enter the sandbox's network namespace".to_owned(),
        Step::Join(..) => "enter the sandbox's namespaces".to_owned(),
        Step::Unshare(_) => "make mount and UTS namespaces".to_owned(),
        Step::Root(_) => "enter the root directory".to_owned(),
        Step::Slave => "keep mounts in the sandbox (is / a mount point?)".to_owned(),
        Step::Cover { source, target } => {
            format!("mount {} over {}", source.to_string_lossy(), target.to_string_lossy())
        }
        Step::Hostname(name) => format!("set the hostname {name:?}"),
        Step::Domainname(name) => format!("set the domain name {name:?}"),
        Step::Session => "start a session".to_owned(),
        Step::Terminal => "take the terminal".to_owned(),
        Step::Signals(_) => "reset signals".to_owned(),
        Step::Directory(path) => format!("enter the directory {}", path.to_string_lossy()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_codes_are_dockers() {
        let cases = [
            ("foo", libc::ENOENT, r#"exec: "foo": executable file not found in $PATH"#, 127),
            ("/foo", libc::ENOENT, r#"exec: "/foo": no such file or directory"#, 127),
            ("/etc/passwd", libc::EACCES, r#"exec: "/etc/passwd": permission denied"#, 126),
            ("/etc", libc::EACCES, r#"exec: "/etc": is a directory"#, 126),
            ("foo", libc::EACCES, r#"exec: "foo": permission denied"#, 126),
            ("/x", libc::ENOEXEC, r#"exec: "/x": exec format error"#, 126),
        ];
        for (program, number, text, code) in cases {
            let error = SpawnError::of_exec(program.as_ref(), io::Error::from_raw_os_error(number));
            assert_eq!((error.to_string().as_str(), error.exit_code()), (text, Some(code)));
        }
        let directory = |number| {
            let cause = io::Error::from_raw_os_error(number);
            let error = SpawnError::Directory { path: "/x".into(), cause };
            (error.to_string(), error.exit_code())
        };
        let missing = r#"chdir to cwd ("/x") failed: no such file or directory"#;
        assert_eq!(directory(libc::ENOENT), (missing.to_owned(), Some(127)));
        assert_eq!(directory(libc::ENOTDIR).1, Some(126));
        assert_eq!(SpawnError::Fork(io::Error::from_raw_os_error(libc::EAGAIN)).exit_code(), None);
    }
}
