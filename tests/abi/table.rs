//! `tests/abi/table.txt`: the ABI that programs linked to the library rely on, as the C compiler sees it: functions
//! with their parameters, values of enums, sizes of structs, and the offset and size of each of their fields.
//!
//! The table may only grow: existing lines stay, except that an option struct (one that begins with `struct_size`)
//! may become larger.

use crate::header::{Header, Struct};
use crate::program::{compile, new_folder};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

/// Environment variable that is `write` to add new lines to the committed table.
const VARIABLE: &str = "OPTIMIZE_ABI_TABLE";

/// Returns a C program that prints the table. Linking it shows that the library has every function.
fn source(header: &Header) -> String {
    let mut prints = String::new();
    let mut line = |format: &str, values: &str| writeln!(prints, "    printf({format:?} \"\\n\"{values});").unwrap();
    for one in &header.enums {
        for constant in &one.constants {
            line(&format!("enum {} {constant} = %lld", one.name), &format!(", (long long){constant}"));
        }
        line(&format!("enum {} : %zu bytes", one.name), &format!(", sizeof({})", one.name));
    }
    for Struct { name, fields } in &header.structs {
        for field in fields {
            let (declared, place) = (&field.ctype, format!("{name}, {}", field.name));
            line(
                &format!("field {name}.{} at %zu : %zu bytes, {declared}", field.name),
                &format!(", offsetof({place}), sizeof((({name} *)0)->{})", field.name),
            );
        }
        line(&format!("struct {name} : %zu bytes"), &format!(", sizeof({name})"));
    }
    for callback in &header.callbacks {
        line(&format!("callback {callback}"), "");
    }
    let mut functions = String::new();
    for function in &header.functions {
        let types: Vec<&str> = function.params.iter().map(|p| p.ctype.as_str()).collect();
        let declared = format!("function {} {}({})", function.returns, function.name, types.join(", "));
        line(&declared, "");
        writeln!(functions, "    (function)&{},", function.name).unwrap();
    }
    format!(
        "#include <optimize.h>\n#include <stdio.h>\n\ntypedef void (*function)(void);\n\
         function all[] = {{\n{functions}}};\n\nint main(void) {{\n{prints}    return 0;\n}}\n"
    )
}

/// Returns the table of the header and the library, sorted.
fn current(header: &Header) -> Vec<String> {
    let folder = new_folder("table");
    let program = compile(&folder, &source(header));
    let output = Command::new(&program).env("LD_LIBRARY_PATH", &folder).output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    drop(std::fs::remove_dir_all(&folder));
    let mut lines: Vec<String> = String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Returns the lines of `before` that are no longer true.
fn broken<'a>(before: &'a [String], now: &[String], header: &Header) -> Vec<&'a str> {
    let sizes: BTreeMap<&str, u64> = now.iter().filter_map(|line| size_of(line)).collect();
    let may_grow = |name: &str| header.struct_named(name).is_some_and(|s| s.fields[0].name == "struct_size");
    let holds = |line: &String| {
        now.binary_search(line).is_ok()
            || size_of(line)
                .is_some_and(|(name, size)| may_grow(name) && sizes.get(name).is_some_and(|now| *now > size))
    };
    before.iter().filter(|line| !holds(line)).map(String::as_str).collect()
}

/// Returns the name and the size in a line `struct NAME : SIZE bytes`.
fn size_of(line: &str) -> Option<(&str, u64)> {
    let (name, size) = line.strip_prefix("struct ")?.strip_suffix(" bytes")?.split_once(" : ")?;
    Some((name, size.parse().ok()?))
}

#[test]
fn the_interface_only_grows() {
    let header = crate::header();
    let now = current(&header);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/abi/table.txt");
    let mut before: Vec<String> =
        std::fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect();
    before.sort();
    let broken = broken(&before, &now, &header);
    assert!(broken.is_empty(), "programs rely on what is no longer so:\n{}", broken.join("\n"));
    if std::env::var(VARIABLE).is_ok_and(|value| value == "write") {
        std::fs::write(&path, now.join("\n") + "\n").expect("tests/abi/table.txt");
        return;
    }
    let new: Vec<&str> = now.iter().filter(|line| before.binary_search(line).is_err()).map(String::as_str).collect();
    assert!(new.is_empty(), "tests/abi/table.txt does not have ({VARIABLE}=write adds it):\n{}", new.join("\n"));
}

#[test]
fn a_change_that_breaks_programs_is_seen() {
    let header = Header::read(
        "typedef struct { uint32_t struct_size; uint32_t a; } options_t; typedef struct { uint32_t a; } fixed_t;",
    );
    let before = ["enum e A = 0", "field options_t.a at 4 : 4 bytes, uint32_t", "struct fixed_t : 4 bytes"];
    let before: Vec<String> = before.iter().chain(&["struct options_t : 8 bytes"]).map(|l| (*l).to_owned()).collect();
    let changed = |from: &str, to: &str| {
        let mut now: Vec<String> = before.iter().map(|line| line.replace(from, to)).collect();
        now.push("enum e B = 1".to_owned());
        now.sort();
        broken(&before, &now, &header).len()
    };
    assert_eq!(changed("nothing", ""), 0);
    assert_eq!(changed("options_t : 8", "options_t : 16"), 0, "option structs may grow");
    for (from, to) in [("A = 0", "A = 1"), ("at 4", "at 8"), ("options_t : 8", "options_t : 4"), ("t : 4 b", "t : 8 b")]
    {
        assert_eq!(changed(from, to), 1, "{from} became {to}");
    }
}
