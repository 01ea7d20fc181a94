//! Reads `include/optimize.h`: functions with their parameters, structs with their fields, enums, handles.
//!
//! This is not a C parser: it knows the output of cbindgen, and panics at anything else.

/// The declarations of the header.
#[derive(Default)]
pub struct Header {
    pub functions: Vec<Function>,
    /// Structs of the header that have fields.
    pub structs: Vec<Struct>,
    pub enums: Vec<Enum>,
    /// Structs without fields, such as `optimize_model_t`.
    pub handles: Vec<String>,
    /// Types of pointers to functions, each with its declaration on one line.
    pub callbacks: Vec<String>,
}

pub struct Function {
    pub name: String,
    /// Returned type: `optimize_status_t`, `const char *`, `void` …
    pub returns: String,
    pub params: Vec<Variable>,
}

pub struct Struct {
    pub name: String,
    pub fields: Vec<Variable>,
}

pub struct Enum {
    pub name: String,
    pub constants: Vec<String>,
}

/// A parameter or a field.
pub struct Variable {
    /// Type of the variable, without `struct` and `enum`, with spaces as in `const char *const *`.
    pub ctype: String,
    pub name: String,
    /// Comment above the variable.
    pub doc: String,
}

impl Header {
    pub fn read(text: &str) -> Header {
        let mut header = Header::default();
        for (_, declaration) in pieces(&without_preprocessor(text), ';') {
            header.add(declaration.trim());
        }
        header
    }

    fn add(&mut self, declaration: &str) {
        if let Some(rest) = declaration.strip_prefix("typedef enum ") {
            let (name, body) = braced(rest);
            let constants = pieces(body, ',').into_iter().map(|(_, code)| code);
            let name_of = |code: String| code.split('=').next().unwrap_or("").trim().to_owned();
            self.enums.push(Enum { name, constants: constants.map(name_of).filter(|name| !name.is_empty()).collect() });
        } else if let Some(rest) = declaration.strip_prefix("typedef struct ") {
            if rest.contains('{') {
                let (name, body) = braced(rest);
                let fields = pieces(body, ';').into_iter().map(|(doc, code)| variable(&doc, &code)).collect();
                self.structs.push(Struct { name, fields });
            } else {
                self.handles.push(rest.split_whitespace().next().expect("a name").to_owned());
            }
        } else if declaration.starts_with("typedef ") {
            assert!(declaration.contains("(*"), "not understood: {declaration}");
            self.callbacks.push(declaration.split_whitespace().collect::<Vec<_>>().join(" "));
        } else if !declaration.is_empty() {
            let declaration = declaration.strip_prefix("OPTIMIZE_API").expect("a function is declared OPTIMIZE_API");
            self.functions.push(function(declaration.trim_start()));
        }
    }

    pub fn struct_named(&self, name: &str) -> Option<&Struct> {
        self.structs.iter().find(|s| s.name == name)
    }
}

impl Struct {
    /// Returns whether fields of the struct are required, so that neither NULL nor zeros are valid.
    pub fn is_required(&self) -> bool {
        matches!(self.name.as_str(), "optimize_source_t" | "optimize_sink_t" | "optimize_output_t")
    }
}

impl Function {
    /// Returns whether the function can fail: it returns a status and has an error parameter.
    pub fn is_fallible(&self) -> bool {
        self.params.last().is_some_and(|p| p.name == "error" && p.ctype == "optimize_error_t **")
    }
}

/// Returns the lines that C sees: no `#` lines, nothing between `#ifdef __cplusplus` and `#endif`.
fn without_preprocessor(text: &str) -> String {
    let mut cpp = false;
    let mut kept = String::new();
    for line in text.lines() {
        match line.trim_start() {
            line if line.starts_with("#ifdef __cplusplus") => cpp = true,
            line if line.starts_with("#endif") => cpp = false,
            line if cpp || line.starts_with('#') => {}
            line => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    kept
}

/// Splits a text at `separator` outside braces; returns the comments outside braces and the rest of each piece.
fn pieces(text: &str, separator: char) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut doc, mut code, mut depth) = (String::new(), String::new(), 0);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let comment = if rest.starts_with("/*") { rest.find("*/").map(|end| end + 2) } else { None };
        if let Some(end) = comment {
            // Comments inside braces are kept: they are split off when the inside is read.
            if depth == 0 { &mut doc } else { &mut code }.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c == separator && depth == 0 {
            found.push((std::mem::take(&mut doc), std::mem::take(&mut code)));
        } else {
            code.push(c);
        }
    }
    found.push((doc, code));
    found.retain(|(_, code)| !code.trim().is_empty());
    found
}

/// Returns the name and the body of `NAME { BODY } NAME`.
fn braced(text: &str) -> (String, &str) {
    let (open, close) = (text.find('{').expect("{"), text.rfind('}').expect("}"));
    (text[close + 1..].trim().to_owned(), &text[open + 1..close])
}

fn function(declaration: &str) -> Function {
    let (head, params) = declaration.split_once('(').unwrap_or_else(|| panic!("not understood: {declaration}"));
    let head = variable("", head);
    let params = params.trim().strip_suffix(')').unwrap_or_else(|| panic!("not understood: {declaration}"));
    let params =
        if params.trim() == "void" { Vec::new() } else { params.split(',').map(|p| variable("", p)).collect() };
    Function { name: head.name, returns: head.ctype, params }
}

fn variable(doc: &str, code: &str) -> Variable {
    let code = code.replace("struct ", "").replace("enum ", "");
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let start = code.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |at| at + 1);
    let (ctype, name) = (code[..start].trim().to_owned(), code[start..].to_owned());
    assert!(!ctype.is_empty() && !name.is_empty(), "not understood: {code}");
    Variable { ctype, name, doc: doc.to_owned() }
}
