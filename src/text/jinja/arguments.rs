//! The arguments of functions, methods and filters, and their parameter names.

use super::value::Value;
use crate::error::{Result, bail};
use std::rc::Rc;

/// The arguments of a call.
#[derive(Default)]
pub struct Given {
    /// Values without a name, in order.
    pub positional: Vec<Value>,
    /// Names and values of keyword arguments, in order.
    pub named: Vec<(Rc<str>, Value)>,
}

impl Given {
    /// Returns the arguments by the parameters of a function; `None` for one that is not given. A parameter whose name
    /// begins with `/` is positional only.
    ///
    /// Fails with [`crate::error::Kind::InvalidArgument`] for too many arguments, unknown keywords and arguments that
    /// are given twice.
    pub fn bind<const N: usize>(self, function: &str, parameters: [&str; N]) -> Result<[Option<Value>; N]> {
        if self.positional.len() > N {
            bail!(InvalidArgument, "{function} takes at most {N} arguments, not {}", self.positional.len());
        }
        let mut bound = [const { None }; N];
        for (into, value) in bound.iter_mut().zip(self.positional) {
            *into = Some(value);
        }
        for (name, value) in self.named {
            match parameters.iter().position(|parameter| *parameter == &*name) {
                Some(at) if bound[at].is_none() => bound[at] = Some(value),
                Some(_) => bail!(InvalidArgument, "{function} is given {name:?} twice"),
                None => bail!(InvalidArgument, "{function} takes no keyword {name:?}"),
            }
        }
        Ok(bound)
    }

    /// Fails with `InvalidArgument` if there are any arguments.
    pub fn none(self, function: &str) -> Result<()> {
        self.bind(function, []).map(|_: [Option<Value>; 0]| ())
    }
}

/// Returns a required argument. Fails with `InvalidArgument` if it is missing.
pub fn required(value: Option<Value>, function: &str, name: &str) -> Result<Value> {
    match value {
        Some(value) => Ok(value),
        None => bail!(InvalidArgument, "{function} requires the argument {name:?}"),
    }
}

/// Returns a string argument; `None` if the argument is missing or is `none`. Fails with
/// [`crate::error::Kind::InvalidArgument`] for a value of another type.
pub fn text_or_none(value: Option<Value>, function: &str) -> Result<Option<Rc<str>>> {
    match value {
        None | Some(Value::None) => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(Value::Undefined(message)) => bail!(InvalidArgument, "{message}"),
        Some(other) => bail!(InvalidArgument, "{function} requires a string, not a {}", other.type_name()),
    }
}

/// Returns an integer argument, or the default if it is missing. Fails with `InvalidArgument` for a value of another
/// type.
pub fn int_or(value: Option<Value>, function: &str, default: i128) -> Result<i128> {
    match value {
        None => Ok(default),
        Some(Value::Undefined(message)) => bail!(InvalidArgument, "{message}"),
        Some(other) => match other.as_int() {
            Some(int) => Ok(int),
            None => bail!(InvalidArgument, "{function} requires an integer, not a {}", other.type_name()),
        },
    }
}
