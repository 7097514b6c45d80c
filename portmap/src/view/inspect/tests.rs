use super::{Empty, Inspector, Types};

const TYPES: Types = Types {
    renamed: &[("", "Id", "ID")],
    left_out: &[
        ("IPAM.Config.*", "Gateway", Empty::Text),
        ("", "Peers", Empty::List),
        ("", "Services", Empty::Map),
        ("", "Links", Empty::List),
    ],
    times: &["Created"],
};

const WEB: &str = r#"{"Name":"web","Id":"01","Created":"2026-08-01T10:00:00.12Z",
 "IPAM":{"Options":{},"Config":[{"Subnet":"10.0.0.0/8","IPRange":"10.0.0.0/9"},{"Subnet":"fd00::/64","Gateway":"fd00::1"}]},"Labels":{"Id":"<x>"},"N":1.5,"Links":null}
"#;

fn inspect(format: Option<&str>, objects: &[&str]) -> Result<String, String> {
    let mut inspector = Inspector::new(format).map_err(|error| error.to_string())?;
    for object in objects {
        inspector.add(object, &TYPES).map_err(|error| error.to_string())?;
    }
    Ok(inspector.finish())
}

#[test]
fn json_is_as_the_daemon_sent_it() {
    let compact = "{\"Name\":\"web\",\"Id\":\"01\",\"Created\":\"2026-08-01T10:00:00.12Z\",\"IPAM\":{\"Options\":{},\
                   \"Config\":[{\"Subnet\":\"10.0.0.0/8\",\"IPRange\":\"10.0.0.0/9\"},{\"Subnet\":\"fd00::/64\",\
                   \"Gateway\":\"fd00::1\"}]},\"Labels\":{\"Id\":\"<x>\"},\"N\":1.5,\"Links\":null}";
    assert_eq!(inspect(Some("json"), &[WEB, "{}"]).unwrap(), format!("[{compact},{{}}]\n"));
    assert_eq!(inspect(Some("{{json .}}"), &[WEB]).unwrap(), format!("{compact}\n"));
    let indented = "[\n    {\n        \"b\": {},\n        \"a\": [\n            1\n        ]\n    }\n]\n";
    assert_eq!(inspect(None, &[r#"{"b":{},"a":[1]}"#]).unwrap(), indented);
    assert_eq!(inspect(Some(""), &[]).unwrap(), "[]\n");
    assert_eq!(inspect(Some("json"), &[]).unwrap(), "[]\n");
}

#[test]
fn templates_see_gos_types_and_else_the_json() {
    let cases = [
        ("{{.ID}}", "01"),
        ("{{.Id}} {{.Name}}", "01 web"),
        ("{{.Labels.Id}}", "<x>"),
        ("{{range .IPAM.Config}}[{{.Gateway}}]{{end}}", "[][fd00::1]"),
        (
            "{{json .IPAM.Config}}",
            r#"[{"Subnet":"10.0.0.0/8","IPRange":"10.0.0.0/9"},{"Subnet":"fd00::/64","Gateway":"fd00::1"}]"#,
        ),
        ("{{json (index .IPAM.Config 0)}}", r#"{"Subnet":"10.0.0.0/8","IPRange":"10.0.0.0/9"}"#),
        ("{{.Created}} {{json .Created}}", r#"2026-08-01 10:00:00.12 +0000 UTC "2026-08-01T10:00:00.12Z""#),
        ("{{len .Peers}} {{.Services}} {{json .N}}", "0 map[] 1.5"),
        ("{{.Links}} {{len .Links}} {{range .Links}}x{{end}} {{json .Links}}", "[] 0  null"),
        (r"\n\t", r"\n\t"),
    ];
    for (template, want) in cases {
        assert_eq!(inspect(Some(template), &[WEB]).as_deref(), Ok(&*format!("{want}\n")), "{template}");
    }
    assert_eq!(inspect(Some("{{.Name}}"), &[WEB, WEB]).unwrap(), "web\nweb\n");
    assert_eq!(inspect(Some("{{.Name}}"), &[]).unwrap(), "\n");
}

#[test]
fn what_neither_has_is_an_error() {
    let want = "template parsing error: template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"";
    assert_eq!(inspect(Some("{{.Nope}}"), &[WEB]).unwrap_err(), want);
    assert_eq!(
        inspect(Some("{{.Name"), &[]).unwrap_err(),
        "template parsing error: template: :1: unclosed action"
    );
    let error = inspect(Some("{{.Name}}"), &["<html>"]).unwrap_err();
    assert!(error.starts_with("the daemon's answer is not JSON: "), "{error}");
}
