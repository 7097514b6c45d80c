//! JSON as Go writes it: white space by Go's rules, and strings with its escapes. The order of members is kept.

/// Compact: all white space between tokens removed.
pub(crate) fn compact(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    tokens(raw, |token| out.push_str(token));
    out
}

/// One member or element per line, `indent` per level, as Go's `json.Indent`; `{}` and `[]` stay together.
pub(crate) fn indented(raw: &str, indent: &str) -> String {
    let mut out = String::with_capacity(raw.len() * 2);
    let mut depth = 0_usize;
    let mut just_opened = false;
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(indent, depth));
    };
    tokens(raw, |token| {
        let closes = matches!(token, "}" | "]");
        if closes {
            depth = depth.saturating_sub(1);
        }
        // Opening brackets are followed by a new line, except by their own end.
        if closes != just_opened {
            new_line(&mut out, depth);
        }
        out.push_str(token);
        match token {
            "," => new_line(&mut out, depth),
            ":" => out.push(' '),
            _ => {}
        }
        just_opened = matches!(token, "{" | "[");
        if just_opened {
            depth += 1;
        }
    });
    out
}

/// A string with its quotes. Go escapes two line separators that JSON needn't, and so do we; `<`, `>`, `&` stay.
pub(crate) fn quoted(text: &str) -> String {
    let plain = serde_json::Value::from(text).to_string();
    plain.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// Brackets, commas, colons, strings and bare words one by one, of text that is JSON.
fn tokens(raw: &str, mut each: impl FnMut(&str)) {
    const PUNCTUATION: &[u8] = b"{}[],:";
    let bytes = raw.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        at += 1;
        match bytes[start] {
            b' ' | b'\t' | b'\n' | b'\r' => continue,
            b'"' => {
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(bytes.len());
            }
            byte if PUNCTUATION.contains(&byte) => {}
            _ => {
                let end = |b: &u8| b.is_ascii_whitespace() || PUNCTUATION.contains(b) || *b == b'"';
                at = bytes[at..].iter().position(end).map_or(bytes.len(), |length| at + length);
            }
        }
        // Every token begins and ends at an ASCII byte or at an end of the text.
        each(&raw[start..at]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_gos() {
        let raw = r#" { "b" : [ ] , "a" : { } , "s" : "x, {\"é\\" , "n":[1,-2.5e3,true, null,{"z":0}] }
"#;
        assert_eq!(compact(raw), r#"{"b":[],"a":{},"s":"x, {\"é\\","n":[1,-2.5e3,true,null,{"z":0}]}"#);
        let want = r#"{
  "b": [],
  "a": {},
  "s": "x, {\"é\\",
  "n": [
    1,
    -2.5e3,
    true,
    null,
    {
      "z": 0
    }
  ]
}"#;
        assert_eq!(indented(raw, "  "), want);
        assert_eq!(indented("[[],[{}]]", " "), "[\n [],\n [\n  {}\n ]\n]");
        assert_eq!([compact("true "), indented("1", "  ")], ["true", "1"]);
    }

    #[test]
    fn broken_json_ends_too() {
        for raw in ["\"", "\"\\", "}", "]]", "{", "\"é\\"] {
            let _ = (compact(raw), indented(raw, " "));
        }
    }

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        assert_eq!(quoted("<&>\"\\\n\u{1}é\u{2028}"), r#""<&>\"\\\n\u0001é\u2028""#);
    }
}
