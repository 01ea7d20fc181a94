//! The evaluation of expressions.

use super::arguments::Given;
use super::ast::{Arguments, Comparison, Const, Expr, Filter};
use super::engine::Engine;
use super::value::Value;
use super::{checks, filters};
use crate::error::{Result, bail};
use std::cmp::Ordering;
use std::rc::Rc;

impl Engine {
    /// Returns the value of an expression. Fails with `InvalidArgument` where jinja2 raises an error, with
    /// `Unsupported` for what is not implemented, and with `LimitExceeded` for too many steps or too deep nesting.
    pub fn evaluate(&mut self, expr: &Expr) -> Result<Value> {
        self.deeper(|engine| match expr {
            Expr::Const(value) => Ok(constant(value)),
            Expr::Name(name) => Ok(engine.lookup(name)),
            Expr::Tuple(items) => Value::tuple(engine.all(items)?),
            Expr::List(items) => Value::list(engine.all(items)?),
            Expr::Dict(items) => engine.dict(items),
            Expr::Attribute(value, name) => {
                let value = engine.evaluate(value)?;
                engine.attribute(&value, name)
            }
            Expr::Item(value, index) => {
                let (value, index) = (engine.evaluate(value)?, engine.evaluate(index)?);
                engine.item(&value, &index)
            }
            Expr::Slice(value, bounds) => engine.sliced(value, bounds),
            Expr::Call(callee, arguments) => {
                let callee = engine.evaluate(callee)?;
                let given = engine.given(arguments)?;
                engine.call(&callee, given)
            }
            Expr::Filter(filter) => engine.filter(filter, None),
            Expr::Test(test) => engine.test(test),
            Expr::Not(value) => {
                let value = engine.evaluate(value)?;
                Ok(Value::Bool(!engine.truth(&value)))
            }
            Expr::Negative(value) => {
                let value = engine.evaluate(value)?;
                engine.unary(&value, true)
            }
            Expr::Positive(value) => {
                let value = engine.evaluate(value)?;
                engine.unary(&value, false)
            }
            Expr::Binary(operator, sides) => {
                let (a, b) = (engine.evaluate(&sides.0)?, engine.evaluate(&sides.1)?);
                engine.binary(*operator, &a, &b)
            }
            Expr::Concat(parts) => engine.concat(parts),
            Expr::And(sides) => engine.either(&sides.0, &sides.1, false),
            Expr::Or(sides) => engine.either(&sides.0, &sides.1, true),
            Expr::Compare(first, rest) => engine.compare(first, rest),
            Expr::Choice(choice) => engine.choice(&choice.0, &choice.1, choice.2.as_ref()),
        })
    }

    /// Returns the values of several expressions. Fails like [`Engine::evaluate`].
    pub fn all(&mut self, items: &[Expr]) -> Result<Vec<Value>> {
        items.iter().map(|item| self.evaluate(item)).collect()
    }

    fn dict(&mut self, items: &[(Expr, Expr)]) -> Result<Value> {
        let mut pairs = Vec::with_capacity(items.len());
        for (key, value) in items {
            pairs.push((self.evaluate(key)?, self.evaluate(value)?));
        }
        Value::dict(pairs)
    }

    fn sliced(&mut self, value: &Expr, bounds: &[Option<Expr>; 3]) -> Result<Value> {
        let value = self.evaluate(value)?;
        let mut values = [Value::None, Value::None, Value::None];
        for (into, bound) in values.iter_mut().zip(bounds) {
            if let Some(bound) = bound {
                *into = self.evaluate(bound)?;
            }
        }
        if let Value::Undefined(message) = &value {
            bail!(InvalidArgument, "{message}");
        }
        self.slice(&value, [&values[0], &values[1], &values[2]])
    }

    fn concat(&mut self, parts: &[Expr]) -> Result<Value> {
        let mut text = String::new();
        for value in self.all(parts)? {
            text.push_str(&self.text(&value)?);
        }
        self.spend_bytes(text.len())?;
        Ok(Value::text(text))
    }

    /// Returns `a or b` if `or` is set, otherwise `a and b`.
    fn either(&mut self, a: &Expr, b: &Expr, or: bool) -> Result<Value> {
        let first = self.evaluate(a)?;
        if self.truth(&first) == or { Ok(first) } else { self.evaluate(b) }
    }

    fn choice(&mut self, test: &Expr, value: &Expr, otherwise: Option<&Expr>) -> Result<Value> {
        let test = self.evaluate(test)?;
        match (self.truth(&test), otherwise) {
            (true, _) => self.evaluate(value),
            (false, Some(otherwise)) => self.evaluate(otherwise),
            (false, None) => Ok(Value::Undefined("the condition of an inline if without else is false".into())),
        }
    }

    fn compare(&mut self, first: &Expr, rest: &[(Comparison, Expr)]) -> Result<Value> {
        let mut left = self.evaluate(first)?;
        for (comparison, right) in rest {
            let right = self.evaluate(right)?;
            if !self.holds(*comparison, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    /// Returns whether a comparison is true. Fails with `InvalidArgument` for values that cannot be compared.
    pub fn holds(&mut self, comparison: Comparison, a: &Value, b: &Value) -> Result<bool> {
        Ok(match comparison {
            Comparison::Equal => a.equals(b)?,
            Comparison::NotEqual => !a.equals(b)?,
            Comparison::In => self.contains(b, a)?,
            Comparison::NotIn => !self.contains(b, a)?,
            Comparison::Less => self.order(a, b)? == Some(Ordering::Less),
            Comparison::Greater => self.order(a, b)? == Some(Ordering::Greater),
            Comparison::LessEqual => matches!(self.order(a, b)?, Some(Ordering::Less | Ordering::Equal)),
            Comparison::GreaterEqual => matches!(self.order(a, b)?, Some(Ordering::Greater | Ordering::Equal)),
        })
    }

    /// Returns the arguments of a call. Fails like [`Engine::evaluate`], and with `InvalidArgument` if a keyword is not
    /// a string or is given twice.
    pub fn given(&mut self, arguments: &Arguments) -> Result<Given> {
        let mut positional = self.all(&arguments.positional)?;
        let mut named: Vec<(Rc<str>, Value)> = Vec::new();
        for (name, value) in &arguments.named {
            named.push((name.as_str().into(), self.evaluate(value)?));
        }
        if let Some(more) = &arguments.more {
            let more = self.evaluate(more)?;
            positional.extend(self.iterate(&more)?);
        }
        if let Some(more) = &arguments.more_named {
            match self.evaluate(more)? {
                Value::Dict(dict) => {
                    for (key, value) in &dict.entries {
                        let Value::Text(key) = key else { bail!(InvalidArgument, "keywords must be strings") };
                        named.push((key.clone(), value.clone()));
                    }
                }
                other => bail!(InvalidArgument, "the argument after ** is a {}, not a dict", other.type_name()),
            }
        }
        let twice =
            named.iter().enumerate().find(|(at, (name, _))| named[..*at].iter().any(|(other, _)| other == name));
        if let Some((_, (name, _))) = twice {
            bail!(InvalidArgument, "the keyword {name:?} is given twice");
        }
        Ok(Given { positional, named })
    }

    /// Returns the result of a filter for an expression, or for the text of a block. Fails like [`Engine::evaluate`],
    /// and with `InvalidArgument` if there is no input.
    pub fn filter(&mut self, filter: &Filter, block: Option<&Value>) -> Result<Value> {
        let value = match (&filter.input, block) {
            // Filters of a block are chained: the first one has no input.
            (Some(Expr::Filter(inner)), Some(_)) => self.filter(inner, block)?,
            (Some(input), _) => self.evaluate(input)?,
            (None, Some(block)) => block.clone(),
            (None, None) => bail!(InvalidArgument, "the filter {} has no input", filter.name),
        };
        let given = self.given(&filter.arguments)?;
        filters::apply(self, &filter.name, &value, given)
    }

    fn test(&mut self, test: &Filter) -> Result<Value> {
        let value = test.input.as_ref().map_or_else(|| Ok(Value::None), |input| self.evaluate(input))?;
        let given = self.given(&test.arguments)?;
        checks::apply(self, &test.name, &value, given).map(Value::Bool)
    }
}

fn constant(value: &Const) -> Value {
    match value {
        Const::None => Value::None,
        Const::Bool(value) => Value::Bool(*value),
        Const::Int(value) => Value::Int(*value),
        Const::Float(value) => Value::Float(*value),
        Const::Text(text) => Value::text(text),
    }
}
