//! The modules of a crate, read from its source, and what each of them imports.

use super::tokens::{Token, closing, tokens, without_tests};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A path in the source, such as `["crate", "graph", "edit"]`, and the line that contains it.
pub struct Named {
    pub path: Vec<String>,
    pub line: usize,
}

/// One module: a file, or a part of it in braces.
pub struct Module {
    pub file: PathBuf,
    pub named: Vec<Named>,
    tokens: Vec<Token>,
    children: BTreeSet<String>,
    defined: BTreeSet<String>,
    /// Items that `pub use` re-exports here: the name (`*` for all items) and the path of each.
    reexported: Vec<(String, Vec<String>)>,
}

/// The modules of a crate by their path, which is empty for the root.
pub struct Modules(pub BTreeMap<Vec<String>, Module>);

impl Modules {
    /// Reads the crate whose root is `file`, following each `mod` that is not a test.
    pub fn read(file: &Path) -> Modules {
        let mut modules = Modules(BTreeMap::new());
        modules.read_file(Vec::new(), file, file.parent().unwrap());
        modules.name_methods_from_afar();
        modules
    }

    fn read_file(&mut self, path: Vec<String>, file: &Path, folder: &Path) {
        let source = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.read_module(path, without_tests(&tokens(&source)), file, folder);
    }

    fn read_module(&mut self, path: Vec<String>, tokens: Vec<Token>, file: &Path, folder: &Path) {
        let mut module = Module {
            file: file.to_owned(),
            named: Vec::new(),
            tokens: Vec::new(),
            children: BTreeSet::new(),
            defined: BTreeSet::new(),
            reexported: Vec::new(),
        };
        let mut at = 0;
        while at < tokens.len() {
            let next = |offset: usize| tokens.get(at + offset).map_or("", |t| t.text.as_str());
            match tokens[at].text.as_str() {
                "mod" if next(2) == ";" || next(2) == "{" => {
                    module.children.insert(next(1).to_owned());
                    let child = [path.as_slice(), &[next(1).to_owned()]].concat();
                    let inner = folder.join(next(1));
                    if next(2) == "{" {
                        let end = closing(&tokens, at + 2);
                        self.read_module(child, tokens[at + 3..end].to_vec(), file, &inner);
                        at = end;
                    } else {
                        let flat = inner.with_extension("rs");
                        self.read_file(child, &if flat.exists() { flat } else { inner.join("mod.rs") }, &inner);
                    }
                }
                "use" if next(1) != "<" => {
                    let public = at > 0 && (tokens[at - 1].is("pub") || tokens[at - 1].is(")"));
                    let end = at + tokens[at..].iter().position(|t| t.is(";")).unwrap();
                    module.read_use(&[], &tokens[at + 1..end], public);
                    at = end;
                }
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" => {
                    module.defined.insert(next(1).to_owned());
                }
                "crate" | "super" | "self" if next(1) == "::" => {
                    let (line, mut parts) = (tokens[at].line, vec![tokens[at].text.clone()]);
                    while tokens.get(at + 1).is_some_and(|t| t.is("::"))
                        && tokens.get(at + 2).is_some_and(Token::is_word)
                    {
                        parts.push(tokens[at + 2].text.clone());
                        at += 2;
                    }
                    module.named.push(Named { path: parts, line });
                }
                _ => {}
            }
            at += 1;
        }
        module.tokens = tokens;
        self.0.insert(path, module);
    }

    /// Adds functions that an `impl` in one top-level module adds to a type of another: a call of `Type::function`
    /// depends on the first module, although nothing is imported from it. (Methods, which are called by their name
    /// alone, are not found.)
    fn name_methods_from_afar(&mut self) {
        let mut added = Vec::new();
        for (path, module) in &self.0 {
            for (at, _) in module.tokens.iter().enumerate().filter(|(_, token)| token.is("impl")) {
                let of: Vec<&Token> = module.tokens[at + 1..].iter().take(2).collect();
                let [name, brace] = of.as_slice() else { continue };
                let own = |(other, m): (&Vec<String>, &Module)| {
                    other.first() == path.first() && m.defined.contains(&name.text)
                };
                if !brace.is("{") || self.0.iter().any(own) {
                    continue;
                }
                let body = &module.tokens[at + 2..=closing(&module.tokens, at + 2)];
                for (at, _) in body.iter().enumerate().filter(|(_, t)| t.is("fn")) {
                    let parameters = body[at + 3..].iter().take_while(|t| ![",", ")", ":"].contains(&t.text.as_str()));
                    // Methods are called by their name alone, so they are skipped.
                    if parameters.into_iter().any(|t| t.is("self")) {
                        continue;
                    }
                    added.push((name.text.clone(), body[at + 1].text.clone(), path.clone()));
                }
            }
        }
        for (name, function, path) in added {
            let path = [&["crate".to_owned()], path.as_slice()].concat();
            for module in self.0.values_mut() {
                let calls = module.tokens.windows(3).filter(|t| t[0].is(&name) && t[1].is("::") && t[2].is(&function));
                let lines: Vec<usize> = calls.map(|t| t[0].line).collect();
                module.named.extend(lines.into_iter().map(|line| Named { path: path.clone(), line }));
            }
        }
    }

    /// Returns the module to which `path` leads when it is used in `module`, and the module that defines the item:
    /// another one if the first only re-exports it.
    pub fn resolve(&self, module: &[String], path: &[String]) -> Option<[Vec<String>; 2]> {
        let named = self.descend(module, path)?;
        let mut defined = named.clone();
        for _ in 0..8 {
            let (at, rest) = &defined;
            let Some(next) = rest.first().and_then(|name| self.offered(at, name)) else { break };
            let rest = [next.as_slice(), &rest[1..]].concat();
            let Some(found) = self.descend(at, &rest) else { break };
            defined = found;
        }
        Some([named.0, defined.0])
    }

    /// Follows `path` from `module` through modules; returns the last one and what remains.
    fn descend(&self, module: &[String], path: &[String]) -> Option<(Vec<String>, Vec<String>)> {
        let (mut at, mut rest) = (module.to_vec(), path);
        let relative = path.first().is_some_and(|name| self.0[module].children.contains(name));
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" => at.clear(),
                "self" => {}
                "super" => drop(at.pop()),
                name if self.0.get(&at)?.children.contains(name) && (relative || rest.len() < path.len()) => {
                    at.push(first.clone())
                }
                _ => break,
            }
            rest = others;
        }
        (rest.len() < path.len()).then(|| (at, rest.to_vec()))
    }

    /// Returns the path of the item that `module` re-exports as `name`; `None` if it re-exports no such item.
    fn offered(&self, module: &[String], name: &str) -> Option<Vec<String>> {
        let offers = &self.0.get(module)?.reexported;
        let by_name = offers.iter().find(|(offered, _)| offered == name).map(|(_, path)| path.clone());
        by_name.or_else(|| {
            let of_all = offers.iter().filter(|(offered, _)| offered == "*");
            let mut holding = of_all.filter(|(_, path)| {
                let found = self.descend(module, path).and_then(|(at, _)| self.0.get(&at));
                found.is_some_and(|m| m.defined.contains(name) || m.reexported.iter().any(|(n, _)| n == name))
            });
            holding.next().map(|(_, path)| [path.as_slice(), &[name.to_owned()]].concat())
        })
    }
}

impl Module {
    /// Adds the tree of a `use` statement: `a::{self, b::C as D}`.
    fn read_use(&mut self, before: &[String], tree: &[Token], public: bool) {
        let Some(first) = tree.first() else { return };
        let (mut path, mut at) = (before.to_vec(), 0);
        while at < tree.len() && (tree[at].is_word() || tree[at].is("*")) && !tree[at].is("as") {
            path.push(tree[at].text.clone());
            at += 1 + usize::from(tree.get(at + 1).is_some_and(|t| t.is("::")));
        }
        if tree.get(at).is_some_and(|t| t.is("{")) {
            let inner = &tree[at + 1..closing(tree, at)];
            let (mut start, mut depth) = (0, 0);
            for (end, token) in inner.iter().enumerate() {
                depth += i32::from(token.is("{")) - i32::from(token.is("}"));
                if depth == 0 && token.is(",") {
                    self.read_use(&path, &inner[start..end], public);
                    start = end + 1;
                }
            }
            return self.read_use(&path, &inner[start..], public);
        }
        if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        let name = if tree.get(at).is_some_and(|t| t.is("as")) {
            tree.get(at + 1).map(|t| t.text.clone())
        } else {
            path.last().cloned()
        };
        if public {
            self.reexported.extend(name.map(|name| (name, path.clone())));
        }
        path.retain(|name| name != "*");
        self.named.push(Named { path, line: first.line });
    }
}
