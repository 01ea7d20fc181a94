use super::*;
use crate::error::Kind;
use serde_json::Map;
use std::time::{Duration, UNIX_EPOCH};

/// Snippets, and the output of Python's jinja2 for them with the settings of transformers 5.24; `text` is null if it
/// raises an exception. The file is written by snippets.py in its folder.
const SNIPPETS: &str = include_str!("../../../tests/fixtures/chat/snippets.json");

fn render(source: &str) -> Result<String> {
    Template::new(source)?.render(&Map::new(), None)
}

#[test]
fn snippets_are_rendered_as_in_python_or_refused() {
    let fixture: serde_json::Value = serde_json::from_str(SNIPPETS).unwrap();
    let variables = fixture["variables"].as_object().unwrap();
    // 2024-02-09 03:04:05.000006, as in snippets.py.
    let now = Some(UNIX_EPOCH + Duration::new(1_707_447_845, 6000));
    let (mut alike, mut raised, mut refused) = (0, 0, Vec::new());
    for case in fixture["cases"].as_array().unwrap() {
        let source = case["template"].as_str().unwrap();
        let rendered = Template::new(source).and_then(|template| template.render(variables, now));
        match (rendered, case["text"].as_str()) {
            (Ok(text), expected) => {
                assert_eq!(Some(text.as_str()), expected, "{source}");
                alike += 1;
            }
            (Err(e), None) => {
                assert!(e.kind() != Kind::Internal && !e.to_string().is_empty(), "{source}: {e}");
                raised += 1;
            }
            (Err(e), Some(_)) => {
                // An error only here must be one of an unsupported feature.
                assert!(matches!(e.kind(), Kind::Unsupported | Kind::InvalidArgument), "{source}: {e}");
                refused.push(format!("{source}: {e}"));
            }
        }
    }
    println!("{alike} rendered alike, {raised} raise in both, {} refused here alone", refused.len());
    assert!(alike >= 495 && raised >= 150 && refused.len() <= 8, "{alike} {raised} {refused:#?}");
}

#[test]
fn damaged_templates_are_errors() {
    let whole = include_str!("../../../tests/fixtures/chat/headers.jinja");
    for (at, _) in whole.char_indices() {
        let _ = render(&whole[..at]);
        let _ = render(&whole[at..]);
    }
    for source in [
        "{%",
        "{%}",
        "{% %}",
        "{%-",
        "{{",
        "{{}}",
        "{#",
        "{%}{%}",
        "{%é%}",
        "{{é",
        "{% raw %}",
        "{%-%}",
        "{{ '\\",
        "{{ 'é",
    ] {
        assert!(render(source).is_err(), "{source}");
    }
    assert_eq!(render("a{#é#}b{#é-#} c{#+#}").unwrap(), "abc");
    assert_eq!(render("{").unwrap() + &render("}}").unwrap() + &render("é{ %}").unwrap(), "{}}é{ %}");
}

#[test]
fn what_is_deep_or_endless_is_refused() {
    let deep = |open: &str, inside: &str, close: &str| open.repeat(5000) + inside + &close.repeat(5000);
    let long = |first: &str, more: &str| format!("{{{{ {first}{} }}}}", more.repeat(100_000));
    let sources = [
        format!("{{{{ {} }}}}", deep("(", "1", ")")),
        format!("{{{{ {} }}}}", deep("[", "1", "]")),
        format!("{{{{ {} }}}}", deep("not ", "1", "")),
        format!("{{{{ {} }}}}", deep("-", "1", "")),
        deep("{% if 1 %}", "x", "{% endif %}"),
        long("x", ".a"),
        long("x", "|d"),
        long("1", "+1"),
        long("1", " if 1"),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}"
            .to_owned(),
        "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}".to_owned(),
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}".to_owned(),
        "{{ 'a' * 99999999999 }}".to_owned(),
        "{{ [1] * 99999999999 }}".to_owned(),
        "{{ 'a'.center(99999999999) }}{{ '%99999999999d' % 1 }}".to_owned(),
        "{{ '{:99999999999}'.format(1) }}".to_owned(),
        "{{ 'aaaa'.replace('', 'x' * 60000000) }}".to_owned(),
    ];
    for source in sources {
        let e = render(&source).unwrap_err();
        let start: String = source.chars().take(60).collect();
        assert!(matches!(e.kind(), Kind::LimitExceeded | Kind::InvalidArgument), "{start}: {e}");
    }
    // Nested namespaces are not a chain that is dropped recursively.
    let chain = "{% set ns = namespace() %}{% for i in range(9999) %}{% set ns.x = namespace(x=ns.x) %}{% endfor %}ok";
    assert_eq!(render(chain).unwrap(), "ok");
}

#[test]
fn errors_name_the_line() {
    let e = render("a\n{{ 1 }}\n{{ 'x' + 1 }}").unwrap_err();
    assert!(e.to_string().starts_with("line 3: "), "{e}");
    let e = render("a\n\n{% zork %}").unwrap_err();
    assert_eq!(e.to_string(), "line 3: there is no tag \"zork\"");
    let e = render("\n{{ 'a' | wordwrap }}").unwrap_err();
    assert_eq!((e.kind(), e.to_string().contains("wordwrap")), (Kind::Unsupported, true), "{e}");
}

/// Python's JSON has integers of any size; the parser here turns those beyond 64 bits into floats.
#[test]
fn integers_of_more_than_64_bits_in_variables_are_refused() {
    let written = |number: &str| {
        let variables: Map<String, serde_json::Value> = serde_json::from_str(&format!("{{\"n\": {number}}}")).unwrap();
        Template::new("{{ n }}")?.render(&variables, None)
    };
    for number in ["18446744073709551615", "-9223372036854775808", "-1000.0", "9.2e+17"] {
        assert!(written(number).is_ok(), "{number}");
    }
    for number in ["18446744073709551616", "-9223372036854775809", "-18446744073709551616"] {
        assert_eq!(written(number).err().unwrap().kind(), Kind::Unsupported, "{number}");
    }
}
