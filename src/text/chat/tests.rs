use super::*;
use crate::error::Kind;
use crate::runtime::test_deps;
use std::time::{Duration, UNIX_EPOCH};

/// Conversations, templates and the results of Python's jinja2 as transformers 5 configures it.
const CASES: &str = include_str!("../../../tests/fixtures/chat/cases.json");

/// Returns the chat template in SmolLM2's GGUF file: a string after its key, its type (8) and its length.
fn smollm2() -> String {
    let file = std::fs::read(test_deps("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let key = b"tokenizer.chat_template\x08\0\0\0";
    let at = file.windows(key.len()).position(|w| w == key).unwrap() + key.len();
    let length = u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    String::from_utf8(file[at + 8..at + 8 + length].to_vec()).unwrap()
}

fn template(source: &str) -> ChatTemplate {
    let template = ChatTemplate::new(source).unwrap();
    template.with_token("bos_token", "<|begin_of_text|>").with_token("eos_token", "<|eot_id|>")
}

fn render(source: &str) -> Result<String> {
    ChatTemplate::new(source)?.render(&[message("user", "Hi")], &ChatOptions::default())
}

#[test]
fn templates_render_as_in_python() {
    let cases: Vec<Map<String, Value>> = serde_json::from_str(CASES).unwrap();
    let smollm2 = smollm2();
    assert!(cases.len() > 30);
    for case in cases {
        let source = match case["template"].as_str().unwrap() {
            "headers" => include_str!("../../../tests/fixtures/chat/headers.jinja"),
            "thinking" => include_str!("../../../tests/fixtures/chat/thinking.jinja"),
            "smollm2" => &smollm2,
            source => source,
        };
        let options = ChatOptions {
            add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
            tools: case["tools"].as_array().cloned(),
            variables: case["variables"].as_object().unwrap().clone(),
            now: Some(UNIX_EPOCH + Duration::from_secs(1_709_210_096)),
        };
        let text = template(source).render(case["messages"].as_array().unwrap(), &options).unwrap();
        assert_eq!(text, case["expected"].as_str().unwrap(), "{source}");
    }
}

#[test]
fn refusals_and_mistakes_name_the_line() {
    let e = render("{{ messages[0].content }}\n\n{{ raise_exception('roles must alternate') }}").unwrap_err();
    assert_eq!(
        (e.kind(), e.to_string().as_str()),
        (Kind::InvalidArgument, "chat template: line 3: roles must alternate")
    );
    let e = render("a\n{% if %}").unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidModel);
    assert!(e.to_string().starts_with("chat template: line 2: "), "{e}");
    let e = render("a\n{{ nothing.inside }}").unwrap_err();
    assert!(e.to_string().contains("line 2"), "{e}");
    let e = render("{{ messages | no_such_filter }}").unwrap_err();
    assert!(e.to_string().contains("no_such_filter"), "{e}");
}

#[test]
fn templates_that_never_end_or_write_without_end_are_stopped() {
    let many = "{% for a in range(99999) %}".repeat(3) + "{% endfor %}{% endfor %}{% endfor %}";
    let e = render(&many).unwrap_err();
    assert_eq!(e.kind(), Kind::LimitExceeded);
    assert!(e.to_string().contains("steps"), "{e}");
    let e = render("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}").unwrap_err();
    assert!(e.to_string().contains("line 1"), "{e}");
    let double = "{% set x %}{{ x }}{{ x }}{% endset %}".repeat(40);
    let e = render(&format!("{{% set x = '{}' %}}{double}", "a".repeat(1000))).unwrap_err();
    assert_eq!(e.kind(), Kind::LimitExceeded);
    assert!(e.to_string().contains("bytes"), "{e}");
    let e = ChatTemplate::new(&"a".repeat(limits::TEMPLATE_BYTES + 1)).err().unwrap();
    assert_eq!(e.kind(), Kind::LimitExceeded);
}

#[test]
fn nothing_outside_the_values_is_reached() {
    assert!(render("{% include 'other' %}").is_err());
    assert!(render("{{ messages.__class__ }}").unwrap().is_empty());
    assert_eq!(render("{{ ''.__class__ is defined }}").unwrap(), "False");
}

#[test]
fn a_template_is_shared_between_threads() {
    let template = ChatTemplate::new("{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..50 {
                    let text = template.render(&[message("user", &i.to_string())], &ChatOptions::default()).unwrap();
                    assert_eq!(text, i.to_string());
                }
            });
        }
    });
}

#[test]
fn messages_are_seen_as_in_transformers() {
    let messages = [
        serde_json::json!({"role": "assistant", "content": null, "reasoning": "r", "name": "n"}),
        serde_json::json!({"role": "user", "content": "c", "thinking": null}),
    ];
    let source = "{% for m in messages %}{{ m }}{{ m.content is defined }}{% endfor %}";
    let text = ChatTemplate::new(source).unwrap().render(&messages, &ChatOptions::default()).unwrap();
    let first = "{'thinking': 'r', 'role': 'assistant', 'reasoning': 'r', 'name': 'n', 'reasoning_content': 'r'}False";
    assert_eq!(text, format!("{first}{{'role': 'user', 'content': 'c'}}True"));
    let e = ChatTemplate::new("x").unwrap().render(&["text".into()], &ChatOptions::default()).unwrap_err();
    assert!(e.to_string().contains("message 1"), "{e}");
}
