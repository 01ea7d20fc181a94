//! The iteration, length, membership and order of values.

use super::engine::{Engine, Object};
use super::value::{Value, View, compare_numbers};
use crate::error::{Result, bail};
use std::cmp::Ordering;

impl Engine {
    /// Returns the values of an iteration. If `value` is an iterator, they are then consumed. Fails with
    /// `InvalidArgument` or `Unsupported` for values that cannot be iterated, and with `LimitExceeded` for too many
    /// steps.
    pub fn iterate(&mut self, value: &Value) -> Result<Vec<Value>> {
        let values = match value {
            Value::Undefined(_) => Vec::new(),
            Value::Text(text) | Value::Markup(text) => {
                text.chars().map(|c| Value::text(c.encode_utf8(&mut [0; 4]))).collect()
            }
            Value::List(items) | Value::Tuple(items) => items.values.clone(),
            Value::Dict(dict) => dict.entries.iter().map(|(key, _)| key.clone()).collect(),
            Value::View(view, dict) => {
                let of = |(key, value): &(Value, Value)| match view {
                    View::Keys => Ok(key.clone()),
                    View::Values => Ok(value.clone()),
                    View::Items => Value::tuple(vec![key.clone(), value.clone()]),
                };
                dict.entries.iter().map(of).collect::<Result<_>>()?
            }
            Value::Range(range) => (0..range.len()).map(|index| range.get(index)).collect(),
            Value::Object(number) => match self.object(*number) {
                Object::Iterator(values) => std::mem::take(values).into(),
                Object::Busy => bail!(Unsupported, "using an iterator inside of the loop over it is not supported"),
                other => bail!(Unsupported, "iterating over {} is not supported", other.name()),
            },
            other => bail!(InvalidArgument, "a {} cannot be iterated over", other.type_name()),
        };
        self.spend(values.len() as u64)?;
        Ok(values)
    }

    /// Returns whether the value can be iterated over in Python. [`Engine::iterate`] fails for some of these values:
    /// for loops, and for an iterator inside of the loop over it.
    pub fn is_iterable(&self, value: &Value) -> bool {
        match value {
            Value::Object(number) => {
                matches!(self.objects()[*number], Object::Iterator(_) | Object::Busy | Object::Loop(_))
            }
            other => !matches!(
                other,
                Value::None
                    | Value::Bool(_)
                    | Value::Int(_)
                    | Value::Float(_)
                    | Value::Macro(_)
                    | Value::Function(_)
                    | Value::Method(_)
            ),
        }
    }

    /// Returns the result of `len(value)` in Python; `None` if the value has no length.
    pub fn length(&self, value: &Value) -> Option<usize> {
        Some(match value {
            Value::Undefined(_) => 0,
            Value::Text(text) | Value::Markup(text) => text.chars().count(),
            Value::List(items) | Value::Tuple(items) => items.values.len(),
            Value::Dict(dict) | Value::View(_, dict) => dict.entries.len(),
            Value::Range(range) => range.len(),
            Value::Object(number) => match &self.objects()[*number] {
                Object::Loop(state) => state.items.len(),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// Returns the result of `bool(value)` in Python.
    pub fn truth(&self, value: &Value) -> bool {
        match value {
            Value::None => false,
            Value::Float(value) => *value != 0.0,
            other => match other.as_int() {
                Some(value) => value != 0,
                None => self.length(other).is_none_or(|length| length > 0),
            },
        }
    }

    /// Returns the result of `item in container` in Python. Fails with `InvalidArgument` where Python raises an error,
    /// and with `Unsupported` for values that cannot be compared here.
    pub fn contains(&mut self, container: &Value, item: &Value) -> Result<bool> {
        match (container, item) {
            (Value::Text(text) | Value::Markup(text), _) => match item.as_text() {
                Some(part) => Ok(text.contains(part)),
                None => {
                    bail!(InvalidArgument, "'in <string>' requires a string on its left, not a {}", item.type_name())
                }
            },
            (Value::Dict(dict) | Value::View(View::Keys, dict), _) => Ok(dict.get(item)?.is_some()),
            (Value::Object(number), _) => {
                let number = *number;
                let Object::Iterator(values) = self.object(number) else {
                    bail!(InvalidArgument, "the right operand of \"in\" cannot be iterated over");
                };
                let mut rest = std::mem::take(values);
                let mut found = false;
                while !found && !rest.is_empty() {
                    let Some(value) = rest.pop_front() else { break };
                    found = value.equals(item)?;
                }
                *self.object(number) = Object::Iterator(rest);
                Ok(found)
            }
            _ => {
                for value in self.iterate(container)? {
                    if value.equals(item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    /// Returns the order of two values; `None` if they are unordered numbers (NaN). Fails with `InvalidArgument` for
    /// values that cannot be compared.
    pub fn order(&self, a: &Value, b: &Value) -> Result<Option<Ordering>> {
        if let (Some(a), Some(b)) = (a.as_text(), b.as_text()) {
            return Ok(Some(a.cmp(b)));
        }
        let is_number = |value: &Value| value.as_int().is_some() || matches!(value, Value::Float(_));
        if is_number(a) && is_number(b) {
            return Ok(compare_numbers(a, b));
        }
        match (a, b) {
            (Value::List(x), Value::List(y)) | (Value::Tuple(x), Value::Tuple(y)) => {
                for (a, b) in x.values.iter().zip(&y.values) {
                    self.spend(1)?;
                    if !a.equals(b)? {
                        return self.order(a, b);
                    }
                }
                Ok(Some(x.values.len().cmp(&y.values.len())))
            }
            (Value::Undefined(message), _) | (_, Value::Undefined(message)) => bail!(InvalidArgument, "{message}"),
            _ => bail!(InvalidArgument, "a {} and a {} cannot be compared", a.type_name(), b.type_name()),
        }
    }

    /// Returns the second values of `pairs` sorted by the first ones; the sort is stable, reversed or not. Fails with
    /// `InvalidArgument` if two values cannot be compared, and with `Unsupported` for NaN.
    pub fn sort(&self, mut pairs: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<Value>> {
        let mut width = 1;
        while width < pairs.len() {
            let mut merged = Vec::with_capacity(pairs.len());
            let mut rest = pairs.into_iter();
            loop {
                let left: Vec<_> = rest.by_ref().take(width).collect();
                let right: Vec<_> = rest.by_ref().take(width).collect();
                if left.is_empty() {
                    break;
                }
                self.merge(left, right, reverse, &mut merged)?;
            }
            pairs = merged;
            width *= 2;
        }
        Ok(pairs.into_iter().map(|(_, value)| value).collect())
    }

    fn merge(
        &self,
        left: Vec<(Value, Value)>,
        right: Vec<(Value, Value)>,
        reverse: bool,
        into: &mut Vec<(Value, Value)>,
    ) -> Result<()> {
        let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            self.spend(1)?;
            let Some(order) = self.order(&a.0, &b.0)? else {
                bail!(Unsupported, "sorting values without an order (nan) is not supported in chat templates");
            };
            let order = if reverse { order.reverse() } else { order };
            into.extend(if order == Ordering::Greater { right.next() } else { left.next() });
        }
        into.extend(left);
        into.extend(right);
        Ok(())
    }
}
