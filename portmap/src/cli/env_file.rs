//! Files of environment variables or labels, a line each, by Docker's rules: nothing is unquoted or trimmed but the line's
//! beginning.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

/// The environment that was asked for: the files first, then single entries.
pub(super) fn gather(
    files: &[PathBuf],
    entries: &[String],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<String>> {
    let mut env = Vec::new();
    for file in files {
        env.extend(read(file, &variable)?);
    }
    for entry in entries {
        ensure!(!entry.is_empty() && !entry.starts_with('='), "invalid environment variable: {entry}");
        if entry.contains('=') {
            env.push(entry.clone());
        } else if let Some(value) = variable(entry) {
            env.push(format!("{entry}={value}"));
        }
    }
    Ok(env)
}

/// The lines as `NAME=value`. A name alone gets its value from `variable`; without one it is left out.
pub(super) fn read(path: &Path, variable: &impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let name = path.display();
    let mut file = File::open(path).map_err(|error| anyhow!("open {name}: {}", reason(&error)))?;
    let mut text = Vec::new();
    let whole = file.read_to_end(&mut text).map_err(|error| anyhow!("read {name}: {}", reason(&error)));
    let lines = whole.and_then(|_| parse(&text, variable));
    lines.with_context(|| format!("invalid env file ({name})"))
}

/// The kernel's words as Go prints them.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

fn parse(text: &[u8], variable: &impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Ok(line) = std::str::from_utf8(line) else {
            let bytes = line.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
            bail!("invalid utf8 bytes at line {number}: [{bytes}]")
        };
        let line = if number == 1 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
        ensure!(!name.is_empty(), "no variable name on line '{line}'");
        ensure!(!name.contains(char::is_whitespace), "variable '{name}' contains whitespaces");
        if let Some(value) = value.map(str::to_owned).or_else(|| variable(name)) {
            found.push(format!("{name}={value}"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let here = |name: &str| (name == "HERE").then(|| "there".to_owned());
        let read = |text: &[u8]| parse(text, &here).map_err(|error| error.to_string());
        let text = b"\xef\xbb\xbf# comment\nA=1\n\n  B= x \r\nC=\"q\"\nHERE\nNOWHERE\n\t#D=1\nE=a=b";
        assert_eq!(read(text).unwrap(), ["A=1", "B= x ", "C=\"q\"", "HERE=there", "E=a=b"]);
        assert_eq!(read(b"=x").unwrap_err(), "no variable name on line '=x'");
        assert_eq!(read(b"A=1\nx y=1").unwrap_err(), "variable 'x y' contains whitespaces");
        assert_eq!(read(b"A=1\n#\n\xffB=\r\n").unwrap_err(), "invalid utf8 bytes at line 3: [255 66 61]");
    }

    #[test]
    fn an_error_names_the_file() {
        let error = |path: &str| format!("{:#}", read(Path::new(path), &|_| None).unwrap_err());
        assert_eq!(error("/no/such.env"), "open /no/such.env: no such file or directory");
        assert_eq!(error("/proc"), "invalid env file (/proc): read /proc: is a directory");
        let path = std::env::temp_dir().join(format!("portmap-env-{}", std::process::id()));
        std::fs::write(&path, "A=1\n=x\n").unwrap();
        let said = error(path.to_str().unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(said, format!("invalid env file ({}): no variable name on line '=x'", path.display()));
    }
}
