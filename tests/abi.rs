//! Calls every function of `include/optimize.h` with invalid arguments: each must return a status and never crash.
//!
//! The calls are generated from the header, so that no new function is forgotten: a function with a parameter that
//! `abi/cases.rs` does not know fails these tests. Each test makes a C program of its cases, compiles it against the
//! shared library, and runs it in its own process.

#[path = "abi/cases.rs"]
mod cases;
#[path = "abi/fixtures.rs"]
mod fixtures;
#[path = "abi/header.rs"]
mod header;
#[path = "abi/program.rs"]
mod program;
#[path = "abi/table.rs"]
mod table;

use cases::{Answer, Case, Change, INVALID_ARGUMENT, Kind, Null, OK, answer_of, arguments, case, free_of, maker_of};
use header::{Function, Header, Variable};
use program::run;

const PRELUDE: &str = include_str!("abi/prelude.h");

fn header() -> Header {
    Header::read(include_str!("../include/optimize.h"))
}

/// Runs the cases that `make` returns for every function.
fn for_all(make: impl Fn(&Header, &Function) -> Vec<Case>) -> Vec<Case> {
    let header = header();
    header.functions.iter().flat_map(|function| make(&header, function)).collect()
}

#[test]
fn the_header_is_understood() {
    let header = header();
    assert!(header.functions.len() > 40 && header.structs.len() > 8 && header.enums.len() > 5);
    for handle in &header.handles {
        let (maker, free) = (maker_of(handle), free_of(handle));
        assert!(PRELUDE.contains(&format!("{handle} *{maker}(void)")), "tests/abi/prelude.h has no {maker}");
        assert!(header.functions.iter().any(|f| f.name == free), "there is no {free}");
    }
    for function in &header.functions {
        // Functions that create or change something can fail, and so return a status.
        let is_status = function.returns == "optimize_status_t" && function.name != "optimize_error_status";
        assert_eq!(is_status, function.is_fallible(), "{}", function.name);
    }
    for options in header.structs.iter().filter(|s| s.fields[0].name == "struct_size") {
        for field in &options.fields {
            // Pointers to functions are as wide as pointers.
            let fixed = ["uint32_t", "int32_t", "uint64_t", "int64_t", "float", "double"];
            let function = field.ctype.ends_with("_fn");
            let name = format!("{}.{}", options.name, field.name);
            let pointer = function || field.ctype.ends_with('*');
            assert!(fixed.contains(&field.ctype.as_str()) || pointer, "{name} is of no fixed width");
            assert!(
                field.ctype != "int32_t" || enum_of(&header, field).is_some(),
                "{name} does not say of which enum it is"
            );
        }
    }
}

/// Returns the constants of the enum that a field's comment names: "An optimize_dtype_t."
fn enum_of<'a>(header: &'a Header, field: &Variable) -> Option<&'a [String]> {
    let found = header.enums.iter().find(|e| field.doc.contains(&format!("n {}", e.name)));
    found.map(|e| e.constants.as_slice())
}

#[test]
fn valid_calls_succeed() {
    run("valid", &for_all(|header, function| vec![case(header, function, "valid", &Change::default(), OK)]));
}

#[test]
fn null_is_answered_wherever_it_is_given() {
    run("null", &for_all(null_cases));
}

fn null_cases(header: &Header, function: &Function) -> Vec<Case> {
    let mut cases = Vec::new();
    let refused = Answer::StatusOrEmpty(match function.name.as_str() {
        "optimize_error_status" => "OPTIMIZE_INVALID_HANDLE",
        _ => "OPTIMIZE_INVALID_ARGUMENT",
    });
    let arguments = arguments(header, function);
    let last = arguments.len().saturating_sub(1);
    let mut all = Change::default();
    for (index, argument) in arguments.iter().enumerate() {
        let name = &function.params[index].name;
        let mut change = Change::value(index, "NULL");
        match argument.null {
            Null::Never => continue,
            Null::Taken => cases.push(case(header, function, &format!("{name} is NULL"), &change, OK)),
            Null::Refused => {
                cases.push(case(header, function, &format!("{name} is NULL"), &change, refused));
                if function.is_fallible() {
                    change.values.push((last, "NULL".to_owned()));
                    cases.push(case(header, function, &format!("{name} and error are NULL"), &change, refused));
                }
            }
        }
        if matches!(argument.kind, Kind::Texts | Kind::Handles(_)) {
            let change = Change::before(format!("{}[0] = NULL;", argument.local));
            cases.push(case(header, function, &format!("{name}[0] is NULL"), &change, refused));
        }
        if let Kind::Sized(options) = &argument.kind {
            cases.extend(list_cases(header, function, options, &argument.local));
        }
        all.values.push((index, "NULL".to_owned()));
    }
    if !all.values.is_empty() {
        cases.push(case(header, function, "every pointer is NULL", &all, Answer::Failure));
    }
    cases
}

/// Returns cases in which the fields `things` and `thing_count` (or `thing` and `thing_count`) of options do not match.
fn list_cases(header: &Header, function: &Function, options: &str, local: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for (list, count) in lists(header, options) {
        for (list_value, count_value) in [("NULL", "1"), ("nothing", "1"), ("strings_data", "UINT64_MAX")] {
            let what = format!("{list} is {list_value} of {count_value}");
            let change = set_list(local, (list, list_value), (count, count_value));
            cases.push(case(header, function, &what, &change, INVALID_ARGUMENT));
        }
    }
    cases
}

/// Returns the fields of a struct that are lists of strings, each with the field of its length.
fn lists<'a>(header: &'a Header, options: &str) -> Vec<(&'a str, &'a str)> {
    let fields = &header.struct_named(options).expect("a struct").fields;
    let texts = fields.iter().filter(|f| f.ctype == "const char *const *");
    let with_count = |list: &'a Variable| {
        let wanted = [format!("{}_count", list.name), format!("{}_count", list.name.trim_end_matches('s'))];
        let count = fields.iter().find(|f| wanted.contains(&f.name))?;
        Some((list.name.as_str(), count.name.as_str()))
    };
    texts.filter_map(with_count).collect()
}

fn set_list(local: &str, (list, list_value): (&str, &str), (count, count_value): (&str, &str)) -> Change {
    Change::before(format!(
        "const char *const nothing[] = {{NULL}}, *const no_text[] = {{\"\\xff\"}};\n    \
         {local}.known.{list} = {list_value};\n    \
         {local}.known.{count} = {count_value};\n    \
         (void)nothing, (void)no_text;"
    ))
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    run("text", &for_all(text_cases));
}

fn text_cases(header: &Header, function: &Function) -> Vec<Case> {
    // The text must be longer than any in the valid calls, because their sizes are passed with it.
    let no_text = "not_utf_8";
    let mut cases = Vec::new();
    for (index, argument) in arguments(header, function).iter().enumerate() {
        let (local, name) = (&argument.local, &function.params[index].name);
        let mut add = |name: &str, change: &Change| {
            cases.push(case(header, function, &format!("{name} is not UTF-8"), change, INVALID_ARGUMENT));
        };
        match &argument.kind {
            Kind::Text => add(name, &Change::value(index, no_text)),
            Kind::Texts => add(&format!("{name}[0]"), &Change::before(format!("{local}[0] = {no_text};"))),
            Kind::Sized(options) if function.params[index].ctype.starts_with("const ") => {
                for (list, count) in lists(header, options) {
                    add(&format!("{list}[0]"), &set_list(local, (list, "no_text"), (count, "1")));
                }
                let fields = &header.struct_named(options).expect("a struct").fields;
                for field in fields.iter().filter(|f| f.ctype == "const char *") {
                    add(&field.name, &Change::before(format!("{local}.known.{} = {no_text};", field.name)));
                }
            }
            _ => {}
        }
    }
    cases
}

#[test]
fn handles_of_another_kind_are_refused() {
    run("handles", &for_all(handle_cases));
}

fn handle_cases(header: &Header, function: &Function) -> Vec<Case> {
    let refused = Answer::StatusOrEmpty("OPTIMIZE_INVALID_HANDLE");
    let mut cases = Vec::new();
    for (index, argument) in arguments(header, function).iter().enumerate() {
        let (local, name) = (&argument.local, &function.params[index].name);
        // The required handle type of each argument, and the change that passes a handle of another type.
        let places: Vec<(String, Change)> = match &argument.kind {
            Kind::Handle(kind) => vec![(kind.clone(), Change::value(index, "(void *)wrong"))],
            Kind::Handles(kind) => vec![(kind.clone(), Change::before(format!("{local}[0] = (void *)wrong;")))],
            Kind::Sized(options) => {
                let fields = &header.struct_named(options).expect("a struct").fields;
                let handle_of = |f: &Variable| f.ctype.strip_prefix("const ")?.strip_suffix(" *").map(str::to_owned);
                let handles = fields.iter().filter_map(|f| Some((f, handle_of(f)?)));
                let handles = handles.filter(|(_, kind)| header.handles.contains(kind));
                handles
                    .map(|(f, kind)| (kind, Change::before(format!("{local}.known.{} = (void *)wrong;", f.name))))
                    .collect()
            }
            _ => Vec::new(),
        };
        for (wanted, place) in places {
            for other in header.handles.iter().filter(|other| **other != wanted) {
                let change = Change {
                    before: format!("{other} *wrong = {}();\n    {}", maker_of(other), place.before),
                    after: format!("{}(wrong);", free_of(other)),
                    values: place.values.clone(),
                };
                cases.push(case(header, function, &format!("{name} is an {other}"), &change, refused));
            }
        }
    }
    cases
}

#[test]
fn unknown_enum_values_are_refused_and_known_ones_taken() {
    run("enums", &for_all(enum_cases));
}

fn enum_cases(header: &Header, function: &Function) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, argument) in arguments(header, function).iter().enumerate() {
        let name = &function.params[index].name;
        for value in ["12345", "-1", "INT32_MAX", "INT32_MIN"] {
            if argument.kind == Kind::Enum {
                let what = format!("{name} is {value}");
                cases.push(case(header, function, &what, &Change::value(index, value), INVALID_ARGUMENT));
            }
        }
        let Kind::Sized(options) = &argument.kind else { continue };
        if !function.params[index].ctype.starts_with("const ") {
            continue; // its content is written, not read
        }
        let fields = &header.struct_named(options).expect("a struct").fields;
        for field in fields.iter().filter(|f| f.ctype == "int32_t") {
            let set = |value: &str| Change::before(format!("{}.known.{} = {value};", argument.local, field.name));
            for value in ["12345", "-1", "INT32_MAX", "INT32_MIN"] {
                cases.push(case(
                    header,
                    function,
                    &format!("{} is {value}", field.name),
                    &set(value),
                    INVALID_ARGUMENT,
                ));
            }
            for value in enum_of(header, field).unwrap_or(&[]) {
                let what = format!("{} is {value}", field.name);
                cases.push(case(header, function, &what, &set(value), answer_of(function, value)));
            }
        }
    }
    cases
}

#[test]
fn structs_of_other_sizes_are_understood_or_refused() {
    run("structs", &for_all(struct_cases));
}

fn struct_cases(header: &Header, function: &Function) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, argument) in arguments(header, function).iter().enumerate() {
        let Kind::Sized(_) = &argument.kind else { continue };
        let (local, name) = (&argument.local, &function.params[index].name);
        // The fields beyond the struct of this version are read only for input structs.
        let beyond = if argument.null == Null::Taken { INVALID_ARGUMENT } else { OK };
        let sizes = [
            ("0", "", INVALID_ARGUMENT),
            ("3", "", INVALID_ARGUMENT),
            ("1u << 30", "", INVALID_ARGUMENT),
            ("UINT32_MAX", "", INVALID_ARGUMENT),
            // A struct of an older version, and one of a newer version.
            ("4", "", OK),
            ("sizeof LOCAL.known - 4", "", OK),
            ("sizeof LOCAL", "", OK),
            ("sizeof LOCAL", "LOCAL.tail[63] = 1;", beyond),
            ("sizeof LOCAL", "LOCAL.tail[0] = 1;", beyond),
        ];
        for (size, tail, answer) in sizes {
            let set = format!("LOCAL.known.struct_size = (uint32_t)({size}); {tail}").replace("LOCAL", local);
            let what = format!("{name}->struct_size is {size} {tail}").replace("LOCAL", "struct");
            cases.push(case(header, function, what.trim_end(), &Change::before(set), answer));
        }
    }
    cases
}

#[test]
fn sizes_that_no_memory_has_are_refused() {
    run("sizes", &for_all(size_cases));
}

fn size_cases(header: &Header, function: &Function) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, argument) in arguments(header, function).iter().enumerate() {
        if argument.kind != Kind::Size {
            continue;
        }
        let name = &function.params[index].name;
        for value in ["SIZE_MAX", "SIZE_MAX / 2", "SIZE_MAX / 8 + 1"] {
            let mut change = Change::value(index, value);
            if function.name == "optimize_session_run" && name == "output_count" {
                // The function cannot set so many results to NULL. If `outputs` is replaced, the case does not check
                // that.
                let outputs = function.params.iter().position(|p| p.name == "outputs").expect("outputs");
                change.values.push((outputs, "&a_outputs".to_owned()));
            }
            cases.push(case(header, function, &format!("{name} is {value}"), &change, Answer::Failure));
        }
    }
    cases
}
