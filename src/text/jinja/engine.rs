//! The state of a rendering: scopes, stateful objects, and the steps used so far.

use super::ast::{For, Macro};
use super::value::{Bound, Dict, Value};
use crate::error::{Result, bail};
use crate::limits;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

/// The number of bytes of text that count as one step, so that a template cannot fill the memory within its steps.
const BYTES_A_STEP: usize = 64;
/// The maximum nesting of expressions, blocks and calls while a template is rendered.
const DEPTH: usize = 200;

/// The state of one rendering of a template.
pub struct Engine {
    steps: Cell<u64>,
    written: usize,
    depth: usize,
    /// Line of the template that is being rendered.
    pub line: usize,
    /// Time that templates show, in UTC; `None` for the current local time.
    pub now: Option<SystemTime>,
    scopes: Vec<Scope>,
    /// Index of the innermost scope, in which names are looked up first.
    pub scope: usize,
    /// Number of scopes that belong to macros and are kept.
    kept_scopes: usize,
    objects: Vec<Object>,
}

/// Names and their values, with the enclosing scope.
struct Scope {
    names: Vec<(Rc<str>, Value)>,
    around: Option<usize>,
}

/// An object with a state, which values refer to by its index.
pub enum Object {
    Namespace(Dict),
    Loop(LoopState),
    /// An iterator, which returns each value once.
    Iterator(VecDeque<Value>),
    /// An iterator that a loop is running through.
    Busy,
    Cycler(Vec<Value>, usize),
    /// A joiner with its separator, and whether it has been called before.
    Joiner(Value, bool),
}

impl Object {
    /// Returns the name of the object for error messages.
    pub fn name(&self) -> &'static str {
        match self {
            Object::Namespace(_) => "a namespace",
            Object::Loop(_) => "a loop",
            Object::Iterator(_) | Object::Busy => "an iterator (the result of map, select, ...: use the filter list)",
            Object::Cycler(..) => "a cycler",
            Object::Joiner(..) => "a joiner",
        }
    }
}

/// The state of the variable `loop`.
pub struct LoopState {
    /// All items of the loop.
    pub items: Rc<Vec<Value>>,
    /// Index of the current item.
    pub at: usize,
    /// Number of enclosing recursive calls of the loop.
    pub depth: usize,
    /// Arguments of the last call of `loop.changed`.
    pub changed: Option<Vec<Value>>,
    /// Number of items that were read ahead of the current one, which are skipped if the loop ends here.
    pub peeked: usize,
    /// Loop that calling `loop` runs, and its scope.
    pub recursive: Option<(Arc<For>, usize)>,
}

impl Engine {
    /// The index of the scope with the variables and the template's own assignments.
    pub const ROOT: usize = 1;

    /// Returns an engine for a rendering with these variables.
    pub fn new(variables: Vec<(Rc<str>, Value)>, now: Option<SystemTime>) -> Engine {
        let globals = ["range", "dict", "lipsum", "cycler", "joiner", "namespace", "raise_exception", "strftime_now"];
        let functions = globals.iter().map(|name| (Rc::from(*name), Value::Function(name))).collect();
        let scopes = vec![Scope { names: functions, around: None }, Scope { names: variables, around: Some(0) }];
        Engine {
            steps: Cell::new(0),
            written: 0,
            depth: 0,
            line: 1,
            now,
            scopes,
            scope: Engine::ROOT,
            kept_scopes: 2,
            objects: Vec::new(),
        }
    }

    /// Counts steps. Fails with [`crate::error::Kind::LimitExceeded`] above [`limits::TEMPLATE_STEPS`].
    pub fn spend(&self, steps: u64) -> Result<()> {
        let spent = self.steps.get().saturating_add(steps);
        self.steps.set(spent);
        if spent > limits::TEMPLATE_STEPS {
            bail!(LimitExceeded, "the template does not end within {} steps", limits::TEMPLATE_STEPS);
        }
        Ok(())
    }

    /// Counts the steps for a text of `bytes` bytes. Fails like [`Engine::spend`].
    pub fn spend_bytes(&self, bytes: usize) -> Result<()> {
        if bytes > limits::TEXT_BYTES {
            bail!(LimitExceeded, "the template writes more than {} bytes", limits::TEXT_BYTES);
        }
        self.spend((bytes / BYTES_A_STEP) as u64)
    }

    /// Appends a text to the output. Text of captured blocks counts too, so that a template cannot double its text
    /// without limit. Fails with `LimitExceeded` above [`limits::TEXT_BYTES`] in all.
    pub fn write(&mut self, text: &str, out: &mut String) -> Result<()> {
        self.written = self.written.saturating_add(text.len());
        if self.written > limits::TEXT_BYTES {
            bail!(LimitExceeded, "the template writes more than {} bytes", limits::TEXT_BYTES);
        }
        out.push_str(text);
        Ok(())
    }

    /// Runs nested work one level deeper and returns its result. Fails with `LimitExceeded` if that is too deep.
    pub fn deeper<T>(&mut self, work: impl FnOnce(&mut Engine) -> Result<T>) -> Result<T> {
        self.spend(1)?;
        if self.depth >= DEPTH {
            bail!(LimitExceeded, "macros and values are nested more than {DEPTH} deep");
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    /// Enters a new scope inside another. Returns the state for [`Engine::leave`].
    pub fn enter(&mut self, around: usize) -> Entered {
        let entered = Entered { scope: self.scope, scopes: self.scopes.len() };
        self.scopes.push(Scope { names: Vec::new(), around: Some(around) });
        self.scope = self.scopes.len() - 1;
        entered
    }

    /// Returns to the previous scope. The scope of a macro's definition is kept for calls of the macro.
    pub fn leave(&mut self, entered: Entered) {
        self.scopes.truncate(entered.scopes.max(self.kept_scopes));
        self.scope = entered.scope;
    }

    /// Returns a macro as a value, bound to the current scope.
    pub fn bind(&mut self, definition: Arc<Macro>) -> Value {
        self.kept_scopes = self.scopes.len();
        Value::Macro(Rc::new(Bound { definition, scope: self.scope }))
    }

    /// Assigns a name in the current scope.
    pub fn assign(&mut self, name: &str, value: Value) {
        let names = &mut self.scopes[self.scope].names;
        match names.iter_mut().find(|(known, _)| &**known == name) {
            Some((_, old)) => *old = value,
            None => names.push((name.into(), value)),
        }
    }

    /// Returns the value of a name; an undefined value if there is none.
    pub fn lookup(&self, name: &str) -> Value {
        let mut scope = Some(self.scope);
        while let Some(Scope { names, around }) = scope.map(|at| &self.scopes[at]) {
            if let Some((_, value)) = names.iter().find(|(known, _)| &**known == name) {
                return value.clone();
            }
            scope = *around;
        }
        Value::undefined(name)
    }

    /// Returns all stateful objects; a [`Value::Object`] has the index of one.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// Returns the object with this index. Panics if there is none.
    pub fn object(&mut self, number: usize) -> &mut Object {
        &mut self.objects[number]
    }

    /// Adds an object, and returns it as a value.
    pub fn add(&mut self, object: Object) -> Value {
        self.objects.push(object);
        Value::Object(self.objects.len() - 1)
    }

    /// Returns an iterator over values.
    pub fn iterator(&mut self, values: Vec<Value>) -> Value {
        self.add(Object::Iterator(values.into()))
    }
}

/// The state before a scope was entered.
#[derive(Clone, Copy)]
pub struct Entered {
    scope: usize,
    scopes: usize,
}
