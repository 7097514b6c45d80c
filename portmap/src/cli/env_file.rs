//! Files of environment variables or labels, a line each, by Docker's rules: nothing is unquoted or trimmed but the line's
//! beginning.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

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
    let text = fs::read(path).with_context(|| format!("open {}", path.display()))?;
    parse(&text, variable).with_context(|| path.display().to_string())
}

fn parse(text: &[u8], variable: &impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Ok(line) = std::str::from_utf8(line) else { bail!("invalid utf8 bytes at line {number}") };
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
        assert_eq!(read(b"A=1\nB=\xff").unwrap_err(), "invalid utf8 bytes at line 2");
    }
}
