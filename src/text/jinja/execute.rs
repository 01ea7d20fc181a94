//! The execution of statements.

use super::ast::{Expr, For, Kind, Macro, Node, Target};
use super::engine::{Engine, LoopState, Object};
use super::value::{Dict, Value};
use crate::error::{Result, bail};
use std::rc::Rc;
use std::sync::Arc;

/// The way in which a block ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Done,
    Break,
    Continue,
}

impl Engine {
    /// Runs statements, up to one that leaves a loop, and returns the way in which they ended. Fails like
    /// [`Engine::evaluate`], and with `LimitExceeded` for too much output.
    pub fn run(&mut self, nodes: &[Node], out: &mut String) -> Result<Flow> {
        self.deeper(|engine| {
            for node in nodes {
                engine.line = node.line;
                let flow = engine.statement(&node.kind, out)?;
                if flow != Flow::Done {
                    return Ok(flow);
                }
            }
            Ok(Flow::Done)
        })
    }

    fn statement(&mut self, kind: &Kind, out: &mut String) -> Result<Flow> {
        self.spend(1)?;
        match kind {
            Kind::Text(text) => self.write(text, out)?,
            Kind::Write(value) => {
                let value = self.evaluate(value)?;
                let text = self.text(&value)?;
                self.write(&text, out)?;
            }
            Kind::For(of) => return self.for_loop(of, out),
            Kind::If(branches, otherwise) => return self.branch(branches, otherwise, out),
            Kind::With(pairs, body) => return self.with(pairs, body, out),
            Kind::Set(target, value) => {
                let value = self.evaluate(value)?;
                self.assign_to(target, value)?;
            }
            Kind::SetBlock(target, filter, body) => return self.set_block(target, filter.as_ref(), body),
            Kind::CallBlock(call, block) => {
                let text = self.call_block(call, block)?;
                self.write(&text, out)?;
            }
            Kind::FilterBlock(filter, body) => {
                let mut text = String::new();
                let entered = self.enter(self.scope);
                let flow = self.run(body, &mut text)?;
                if let (Flow::Done, Expr::Filter(filter)) = (flow, filter) {
                    let value = self.filter(filter, Some(&Value::text(text)))?;
                    let text = self.text(&value)?;
                    self.write(&text, out)?;
                }
                self.leave(entered);
                return Ok(flow);
            }
            Kind::Macro(definition) => {
                let bound = self.bind(definition.clone());
                self.assign(definition.name.as_deref().unwrap_or_default(), bound);
            }
            Kind::Generation(body) => {
                let entered = self.enter(self.scope);
                self.run(body, out)?;
                self.leave(entered);
            }
            Kind::Block(body) => {
                let entered = self.enter(Engine::ROOT);
                self.run(body, out)?;
                self.leave(entered);
            }
            Kind::Break => return Ok(Flow::Break),
            Kind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Done)
    }

    /// Assigns the text of a block, through a filter if there is one, to a name. Returns the way in which the block
    /// ended; nothing is assigned if the block left a loop.
    fn set_block(&mut self, target: &Target, filter: Option<&Expr>, body: &[Node]) -> Result<Flow> {
        let mut text = String::new();
        let entered = self.enter(self.scope);
        let flow = self.run(body, &mut text)?;
        if flow != Flow::Done {
            self.leave(entered);
            return Ok(flow);
        }
        let mut value = Value::text(text);
        if let Some(Expr::Filter(filter)) = filter {
            value = self.filter(filter, Some(&value))?;
        }
        self.leave(entered);
        self.assign_to(target, value)?;
        Ok(Flow::Done)
    }

    fn branch(&mut self, branches: &[(Expr, Vec<Node>)], otherwise: &[Node], out: &mut String) -> Result<Flow> {
        for (test, body) in branches {
            let test = self.evaluate(test)?;
            if self.truth(&test) {
                return self.run(body, out);
            }
        }
        self.run(otherwise, out)
    }

    fn with(&mut self, pairs: &[(Target, Expr)], body: &[Node], out: &mut String) -> Result<Flow> {
        // All values are evaluated outside of the scope.
        let values: Vec<Value> = pairs.iter().map(|(_, value)| self.evaluate(value)).collect::<Result<_>>()?;
        let entered = self.enter(self.scope);
        for ((target, _), value) in pairs.iter().zip(values) {
            self.assign_to(target, value)?;
        }
        let flow = self.run(body, out)?;
        self.leave(entered);
        Ok(flow)
    }

    fn assign_to(&mut self, target: &Target, value: Value) -> Result<()> {
        match target {
            Target::Name(name) => self.assign(name, value),
            Target::Tuple(targets) => {
                let values = self.iterate(&value)?;
                if values.len() != targets.len() {
                    bail!(InvalidArgument, "{} values are assigned to {} names", values.len(), targets.len());
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign_to(target, value)?;
                }
            }
            Target::Attribute(namespace, name) => {
                let found = self.lookup(namespace);
                let Value::Object(number) = found else {
                    bail!(InvalidArgument, "{namespace} is not a namespace, so {name} cannot be set");
                };
                let Object::Namespace(names) = self.object(number) else {
                    bail!(InvalidArgument, "{namespace} is not a namespace, so {name} cannot be set");
                };
                if name.starts_with('_') {
                    bail!(InvalidArgument, "the name {name:?} in a namespace begins with an underscore");
                }
                names.insert(Value::text(name), value)?;
            }
        }
        Ok(())
    }

    fn for_loop(&mut self, of: &Arc<For>, out: &mut String) -> Result<Flow> {
        let items = self.evaluate(&of.items)?;
        self.looped(of, &items, 0, out)
    }

    /// Runs a loop over a value. `depth` is the number of enclosing recursive calls of the loop. Fails like
    /// [`Engine::run`].
    pub fn looped(&mut self, of: &Arc<For>, items: &Value, depth: usize, out: &mut String) -> Result<Flow> {
        let around = self.scope;
        let shared = match items {
            Value::Object(number) if matches!(self.object(*number), Object::Iterator(_)) => Some(*number),
            _ => None,
        };
        let mut values = self.iterate(items)?;
        if let Some(test) = &of.test {
            let mut kept = Vec::new();
            for value in values {
                let entered = self.enter(around);
                self.assign_to(&of.target, value.clone())?;
                let test = self.evaluate(test)?;
                self.leave(entered);
                if self.truth(&test) {
                    kept.push(value);
                }
            }
            values = kept;
        }
        if let Some(number) = shared {
            *self.object(number) = Object::Busy;
        }
        let values = Rc::new(values);
        let recursive = of.recursive.then(|| (of.clone(), around));
        let state = LoopState { items: values.clone(), at: 0, depth, changed: None, peeked: 0, recursive };
        let state = self.add(Object::Loop(state));
        let Value::Object(number) = state else { return Ok(Flow::Done) };
        let mut ended = false;
        for (at, value) in values.iter().enumerate() {
            self.spend(1)?;
            if let Object::Loop(state) = self.object(number) {
                (state.at, state.peeked) = (at, state.peeked.saturating_sub(usize::from(state.peeked != usize::MAX)));
            }
            let entered = self.enter(around);
            self.assign("loop", Value::Object(number));
            self.assign_to(&of.target, value.clone())?;
            let flow = self.run(&of.body, out)?;
            self.leave(entered);
            ended |= flow == Flow::Done;
            if flow == Flow::Break {
                self.give_back(shared, number, &values[at + 1..], of.test.is_some())?;
                break;
            }
        }
        if let Some(shared) = shared.filter(|shared| matches!(self.object(*shared), Object::Busy)) {
            *self.object(shared) = Object::Iterator(Default::default());
        }
        // As in jinja2, an iteration counts only if it reaches its end: `else` also runs if `break` or `continue` ended
        // all of them.
        if !ended && !of.otherwise.is_empty() {
            let entered = self.enter(around);
            let flow = self.run(&of.otherwise, out)?;
            self.leave(entered);
            return Ok(flow);
        }
        Ok(Flow::Done)
    }

    /// Returns the remaining items to the iterator `shared`, if there is one, when a loop over it ends early.
    fn give_back(&mut self, shared: Option<usize>, state: usize, rest: &[Value], filtered: bool) -> Result<()> {
        let Some(shared) = shared else { return Ok(()) };
        if filtered && !rest.is_empty() {
            bail!(Unsupported, "leaving a loop over an iterator with a condition is not supported in chat templates");
        }
        let peeked = match self.object(state) {
            Object::Loop(state) => state.peeked.min(rest.len()),
            _ => 0,
        };
        *self.object(shared) = Object::Iterator(rest[peeked..].iter().cloned().collect());
        Ok(())
    }

    fn call_block(&mut self, call: &Expr, block: &Arc<Macro>) -> Result<Rc<str>> {
        let Expr::Call(callee, arguments) = call else { bail!(InvalidArgument, "a call block requires a call") };
        let caller = self.bind(block.clone());
        let callee = self.evaluate(callee)?;
        let mut given = self.given(arguments)?;
        given.named.push(("caller".into(), caller));
        let value = self.call(&callee, given)?;
        self.text(&value)
    }

    /// Returns the text that a macro writes. `scope` is the scope of its definition. Fails like [`Engine::run`], and
    /// with `InvalidArgument` for arguments that the macro does not take.
    pub fn call_macro(&mut self, definition: &Macro, scope: usize, given: super::arguments::Given) -> Result<Value> {
        let name = definition.name.as_deref().unwrap_or("caller");
        let (count, mut named) = (definition.parameters.len(), given.named);
        let mut positional = given.positional.into_iter();
        let mut values: Vec<Option<Value>> = positional.by_ref().take(count).map(Some).collect();
        for parameter in &definition.parameters[values.len()..] {
            let at = named.iter().position(|(name, _)| **name == **parameter);
            values.push(at.map(|at| named.remove(at).1));
        }
        let caller = named.iter().position(|(name, _)| &**name == "caller");
        let explicit = definition.parameters.iter().any(|parameter| parameter == "caller");
        let uses_caller = definition.uses.caller && !explicit;
        let caller = caller.filter(|_| uses_caller).map(|at| named.remove(at).1);
        if let (false, Some((keyword, _))) = (definition.uses.kwargs, named.first()) {
            bail!(InvalidArgument, "the macro {name} takes no keyword {keyword:?}");
        }
        let rest: Vec<Value> = positional.collect();
        if !definition.uses.varargs && !rest.is_empty() {
            bail!(InvalidArgument, "the macro {name} takes at most {count} arguments");
        }
        let line = self.line;
        let entered = self.enter(scope);
        if uses_caller {
            self.assign("caller", caller.unwrap_or_else(|| Value::Undefined("there is no caller".into())));
        }
        if definition.uses.kwargs {
            let mut dict = Dict::default();
            named.into_iter().try_for_each(|(name, value)| dict.insert(Value::Text(name), value))?;
            self.assign("kwargs", Value::Dict(Rc::new(dict)));
        }
        if definition.uses.varargs {
            self.assign("varargs", Value::tuple(rest)?);
        }
        let first_default = count - definition.defaults.len();
        for (at, (parameter, value)) in definition.parameters.iter().zip(values).enumerate() {
            let value = match (value, at.checked_sub(first_default)) {
                (Some(value), _) => value,
                (None, Some(at)) => self.evaluate(&definition.defaults[at])?,
                (None, None) => Value::Undefined(format!("the parameter {parameter:?} was not given").into()),
            };
            self.assign(parameter, value);
        }
        let mut text = String::new();
        self.run(&definition.body, &mut text)?;
        self.leave(entered);
        self.line = line;
        Ok(Value::text(text))
    }
}
