use std::collections::HashMap;
use std::sync::Arc;

use gotmpl::Value;
use serde_json::json;

use super::{Document, Template};

fn render(template: &str, data: &serde_json::Value) -> Result<String, String> {
    let root: Value = gotmpl::to_value(data).unwrap();
    let document = Document { root, texts: Arc::new(HashMap::new()) };
    Template::parse(template)
        .and_then(|template| template.render(&document))
        .map_err(|error| error.to_string())
}

fn network() -> serde_json::Value {
    json!({
        "Name": "web", "Id": "0123", "Driver": "bridge",
        "IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}]},
        "Containers": {"b": {"Name": "two", "IPv4Address": "172.18.0.3/16"}, "a": {"Name": "one", "IPv4Address": "172.18.0.2/16"}, "c": {"Name": "three", "IPv4Address": ""}},
        "Options": {"c": "3", "a": "1", "b": "2"}, "Empty": {}, "Nothing": null, "Number": 7, "Big": 18_446_744_073_709_551_615_u64
    })
}

/// What another engine would have to do as well.
#[test]
fn templates_print_what_go_prints() {
    let cases = [
        ("{{(index .IPAM.Config 0).Subnet}}", "172.18.0.0/16"),
        (
            "{{range $c := .Containers}}{{$c.Name}} -> {{$c.IPv4Address}}    {{end}}",
            "one -> 172.18.0.2/16    two -> 172.18.0.3/16    three ->     ",
        ),
        ("{{range $c := .Containers}}{{$.Name}} {{end}}", "web web web "),
        ("{{range $k, $v := .Options}}{{$k}}={{$v}};{{end}}", "a=1;b=2;c=3;"),
        ("{{range .Containers}}{{.Name}} {{end}}", "one two three "),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Nothing}}x{{end}}", ""),
        ("{{len .Containers}}", "3"),
        ("{{.Options}}", "map[a:1 b:2 c:3]"),
        ("{{printf \"%q\" .Name}} {{printf \"%-5s|%3d\" .Name .Number}}", "\"web\" web  |  7"),
        ("{{eq .Name \"a\" \"web\"}} {{ne .Number 7}} {{gt .Number 6}}", "true false true"),
        ("{{if and .Name (not .Empty)}}yes{{else}}no{{end}}", "yes"),
        ("{{range .Containers}}{{.Name}}{{break}}{{end}}", "one"),
        ("{{range .Containers}}{{if eq .Name \"two\"}}{{continue}}{{end}}{{.Name}} {{end}}", "one three "),
        ("{{slice .Name 1 3}}", "eb"),
        ("{{$x := 1}}{{$x = 2}}{{$x}}", "2"),
        ("{{with .IPAM}}{{len .Config}}{{end}}", "1"),
        ("{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" .Name}}", "<web>"),
        ("{{- .Name -}}  x", "webx"),
        ("{{/* nothing */}}{{println .Name}}{{print .Number .Name}}", "web\n7web"),
        ("{{index .Options \"b\"}} {{index .Containers \"a\" \"Name\"}}", "2 one"),
        ("{{.Name | printf \"%s!\" | upper}}", "WEB!"),
        ("a\\nb", "a\\nb"),
        ("{{.Options.a}}{{.Options.nope}} {{index .Options \"nope\"}}{{index .Empty \"x\"}}", "1<no value> "),
        ("{{$n := .}}{{$n.Options.b}}{{range .Containers}}{{$.Options.c}}{{end}}", "2333"),
        ("{{.Big}}", "18446744073709551615"),
        ("", ""),
    ];
    for (template, want) in cases {
        assert_eq!(render(template, &network()).as_deref(), Ok(want), "{template}");
    }
}

#[test]
fn dockers_functions() {
    let data = json!({
        "s": "hello wORLD, it's föö", "list": ["a", "b"], "path": "a/b/c", "": "", "html": "<a href=\"x\">&</a>",
        "m": {"b": [1, 2.5, null, true], "a": "x"},
    });
    let cases = [
        ("{{json .m}}", r#"{"a":"x","b":[1,2.5,null,true]}"#),
        (
            "{{json .html}} {{json .list}} {{json 3}} {{json nil}}",
            r#""<a href=\"x\">&</a>" ["a","b"] 3 null"#,
        ),
        (
            "{{split .path \"/\"}} {{len (split .path \"/\")}} {{json (split \"é!\" \"\")}}",
            r#"[a b c] 3 ["é","!"]"#,
        ),
        ("{{join .list \", \"}}|{{join (split .path \"/\") \"-\"}}", "a, b|a-b-c"),
        ("{{title .s}}", "Hello WORLD, It's Föö"),
        ("{{lower .s}}", "hello world, it's föö"),
        ("{{upper .s}}", "HELLO WORLD, IT'S FÖÖ"),
        ("[{{pad .path 1 2}}] [{{pad \"\" 1 2}}]", "[ a/b/c  ] []"),
        ("{{truncate .s 5}} {{truncate .path 99}} {{truncate \"föö\" 2}}", "hello a/b/c f"),
    ];
    for (template, want) in cases {
        assert_eq!(render(template, &data).as_deref(), Ok(want), "{template}");
    }
}

#[test]
fn errors_read_as_dockers() {
    let cases = [
        ("{{.Name", "template: :1: unclosed action"),
        ("a\n{{.Name", "template: :2: unclosed action"),
        ("{{nope}}", "template: :1: function \"nope\" not defined"),
        ("{{if .Name}}\n{{.Name | nope 1}}{{end}}", "template: :2: function \"nope\" not defined"),
        ("{{range}}", "template: :1: empty command"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{if .Name}}x\n", "template: :2: unexpected EOF"),
        ("{{with .Name}}{{range .IPAM}}{{else}}x{{end}}", "template: :1: unexpected EOF"),
        ("{{$x := 1}}{{$y}}", "template: :1: undefined variable \"$y\""),
        (
            "{{range $i, $c := .Containers}}{{$i}}{{$d.Name}}{{end}}",
            "template: :1: undefined variable \"$d\"",
        ),
        ("{{.Id}}-{{.ID}}", "template: :1:10: executing \"\" at <.ID>: map has no entry for key \"ID\""),
        (
            "\n {{.IPAM.Nope}}",
            "template: :2:8: executing \"\" at <.IPAM.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            "{{range $c := .Containers}}{{$c.Nope}}{{end}}",
            "template: :1:31: executing \"\" at <$c.Nope>: map has no entry for key \"Nope\"",
        ),
    ];
    for (template, want) in cases {
        let want = format!("template parsing error: {want}");
        assert_eq!(render(template, &network()), Err(want), "{template}");
    }
    for template in [
        "{{join .Name \",\"}}",
        "{{join}}",
        "{{split .Name}}",
        "{{upper .Number}}",
        "{{pad .Name 1 -2}}",
        "{{pad .Name 1 999999999999}}",
        "{{truncate .Name -1}}",
        "{{index .IPAM.Config 5}}",
        "{{.Name.Nope}}",
        "{{template \"x\"}}",
        "{{define \"t\"}}{{template \"t\"}}{{end}}{{template \"t\"}}",
        "{{.Name \"argument\"}}",
        "{{define \"t\"}}{{.Name}}",
        "{{break}}",
        "{{end}}",
        "x{{end}}y",
        "{{if .Name}}{{end}}{{else}}",
        "{{.Name}}{{end -}}",
        "{{",
    ] {
        let error = render(template, &network()).expect_err(template);
        assert!(
            error.starts_with("template parsing error: ") && !error.contains('\0'),
            "{template}: {error}"
        );
    }
}
