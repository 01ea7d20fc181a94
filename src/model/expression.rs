//! The sizes that exporters write as expressions of others: `past + sequence`, `n+1`, `floor(height/8)`.

use std::iter::Peekable;
use std::str::Chars;

/// The maximum length of an expression in bytes.
const LENGTH: usize = 256;
/// The maximum nesting of parentheses.
const DEPTH: usize = 16;

/// A size as an expression of other sizes.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// A constant number.
    Number(f64),
    /// The size with the given name.
    Name(String),
    /// The result of an operator or function, with its arguments.
    Of(Operator, Vec<Expression>),
}

/// An operator or function on sizes. The names of functions are read in upper or lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The sum `a + b`.
    Add,
    /// The difference `a - b`.
    Subtract,
    /// The product `a * b`.
    Multiply,
    /// The quotient `a / b`, not rounded.
    Divide,
    /// The quotient `a // b`, rounded down.
    DivideDown,
    /// The remainder `a % b` or `Mod(a, b)`, with the sign of `b`.
    Remainder,
    /// The integer `floor(a)`.
    Floor,
    /// The integer `ceil(a)` or `ceiling(a)`.
    Ceiling,
    /// The maximum `Max(a, b ...)`.
    Largest,
    /// The minimum `Min(a, b ...)`.
    Least,
}

impl Expression {
    /// Returns the name of a dimension as an expression; `None` if it is a plain name or a number, contains no name,
    /// has more than 256 bytes, or cannot be parsed.
    pub fn parse(text: &str) -> Option<Expression> {
        if text.len() > LENGTH {
            return None;
        }
        let mut parser = Parser { rest: text.chars().peekable(), depth: 0 };
        let found = parser.sum()?;
        parser.skip();
        let whole = parser.rest.peek().is_none() && matches!(found, Expression::Of(..));
        (whole && !found.names().is_empty()).then_some(found)
    }

    /// Returns the names in the expression, each of them once.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.collect(&mut names);
        names
    }

    fn collect<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Expression::Number(_) => {}
            Expression::Name(name) if names.contains(&name.as_str()) => {}
            Expression::Name(name) => names.push(name),
            Expression::Of(_, parts) => parts.iter().for_each(|part| part.collect(names)),
        }
    }

    /// Returns the value of the expression, rounded down; `None` if a name has no value, or if the result is negative,
    /// above 9e15 or not a number. `of` returns the value of a name.
    pub fn size(&self, of: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        let value = self.value(of)?.floor();
        (0.0..=9e15).contains(&value).then_some(value as i64)
    }

    fn value(&self, of: &dyn Fn(&str) -> Option<i64>) -> Option<f64> {
        let (operator, parts) = match self {
            Expression::Number(number) => return Some(*number),
            Expression::Name(name) => return of(name).map(|size| size as f64),
            Expression::Of(operator, parts) => (operator, parts),
        };
        let values: Vec<f64> = parts.iter().map(|part| part.value(of)).collect::<Option<_>>()?;
        let (a, b) = (*values.first()?, values.get(1).copied().unwrap_or(0.0));
        let value = match operator {
            Operator::Add => a + b,
            Operator::Subtract => a - b,
            Operator::Multiply => a * b,
            Operator::Divide => a / b,
            Operator::DivideDown => (a / b).floor(),
            Operator::Remainder => a - b * (a / b).floor(),
            Operator::Floor => a.floor(),
            Operator::Ceiling => a.ceil(),
            Operator::Largest => values.iter().copied().fold(a, f64::max),
            Operator::Least => values.iter().copied().fold(a, f64::min),
        };
        value.is_finite().then_some(value)
    }

    /// Returns a size of `name` for which the expression, rounded down, equals `size`. Returns `None` if none is found:
    /// only expressions that are linear in `name`, up to rounding, are solved. `of` returns the values of the other
    /// names.
    pub fn solve(&self, size: i64, name: &str, of: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        let with = |value: i64| self.value(&|other| if other == name { Some(value) } else { of(other) });
        // Only linear functions are solved. The slope is taken between large values, because the rounding of quotients
        // changes a value by about one.
        let (low, high) = (with(1 << 20)?, with(1 << 21)?);
        let slope = (high - low) / f64::from(1 << 20);
        if slope == 0.0 {
            return None;
        }
        let near = ((size as f64 - (low - slope * f64::from(1 << 20))) / slope).round() as i64;
        let fits = |value: &i64| *value >= 0 && with(*value).is_some_and(|found| found.floor() as i64 == size);
        [0, 1, -1, 2, -2].into_iter().map(|step| near.saturating_add(step)).find(fits)
    }

    /// Returns whether the sizes of `name` next to `found`, which gives `size`, do not give `size` as well: with
    /// rounding, several sizes may. `of` returns the values of the other names.
    pub fn is_only(&self, size: i64, name: &str, found: i64, of: &dyn Fn(&str) -> Option<i64>) -> bool {
        let with = |value: i64| self.size(&|other| if other == name { Some(value) } else { of(other) });
        with(found + 1) != Some(size) && (found == 0 || with(found - 1) != Some(size))
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
    depth: usize,
}

impl Parser<'_> {
    fn skip(&mut self) -> bool {
        let mut any = false;
        while self.rest.next_if(|c| *c == ' ').is_some() {
            any = true;
        }
        any
    }

    fn sum(&mut self) -> Option<Expression> {
        let mut left = self.product()?;
        loop {
            let space = self.skip();
            let operator = match self.rest.peek() {
                Some('+') => Operator::Add,
                Some('-') => Operator::Subtract,
                _ => return Some(left),
            };
            self.rest.next();
            let space = self.skip() || space;
            // In `seq-len`, the minus is part of a name.
            let number = self.rest.peek().is_some_and(|c| c.is_ascii_digit() || *c == '(');
            if operator == Operator::Subtract && !space && !number {
                return None;
            }
            left = Expression::Of(operator, vec![left, self.product()?]);
        }
    }

    fn product(&mut self) -> Option<Expression> {
        let mut left = self.one()?;
        loop {
            let space = self.skip();
            let operator = match self.rest.peek() {
                Some('*') => Operator::Multiply,
                Some('%') => Operator::Remainder,
                Some('/') => Operator::Divide,
                _ => return Some(left),
            };
            self.rest.next();
            let twice = operator == Operator::Divide && self.rest.next_if_eq(&'/').is_some();
            let space = self.skip() || space;
            // In `input/ids`, the slash is part of a name.
            let number = self.rest.peek().is_some_and(|c| c.is_ascii_digit() || *c == '(');
            if operator == Operator::Divide && !twice && !space && !number {
                return None;
            }
            let operator = if twice { Operator::DivideDown } else { operator };
            left = Expression::Of(operator, vec![left, self.one()?]);
        }
    }

    fn one(&mut self) -> Option<Expression> {
        self.skip();
        let first = *self.rest.peek()?;
        if first == '(' {
            return self.inside()?.into_iter().next();
        }
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | ':')) {
            word.push(c);
        }
        if first.is_ascii_digit() {
            return word.parse().ok().map(Expression::Number);
        }
        if word.is_empty() {
            return None;
        }
        if self.rest.peek() != Some(&'(') {
            return Some(Expression::Name(word));
        }
        let operator = match word.to_lowercase().as_str() {
            "floor" => Operator::Floor,
            "ceil" | "ceiling" => Operator::Ceiling,
            "max" => Operator::Largest,
            "min" => Operator::Least,
            "mod" => Operator::Remainder,
            _ => return None,
        };
        Some(Expression::Of(operator, self.inside()?))
    }

    /// Returns the arguments in parentheses, which are separated by commas; `None` if they are malformed or nested too
    /// deeply.
    fn inside(&mut self) -> Option<Vec<Expression>> {
        self.rest.next();
        self.depth += 1;
        if self.depth > DEPTH {
            return None;
        }
        let mut parts = vec![self.sum()?];
        loop {
            self.skip();
            match self.rest.next()? {
                ',' => parts.push(self.sum()?),
                ')' => break,
                _ => return None,
            }
        }
        self.depth -= 1;
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<i64> {
        match name {
            "n" => Some(10),
            "past" => Some(3),
            "height" => Some(100),
            _ => None,
        }
    }

    #[test]
    fn expressions_have_the_size_that_they_say() {
        let cases = [
            ("n+1", 11),
            ("past + n", 13),
            ("2*n - 1", 19),
            ("n // 3", 3),
            ("floor(height/8)", 12),
            ("ceiling(height/8)+1", 14),
            ("Max(1, n, past)", 10),
            ("(n + past) * 2", 26),
            ("height % 7", 2),
            ("floor(height/2 - 1/2) + 1", 50),
        ];
        for (text, size) in cases {
            assert_eq!(Expression::parse(text).and_then(|e| e.size(&of)), Some(size), "{text}");
        }
        assert_eq!(Expression::parse("n - 20").unwrap().size(&of), None);
        assert_eq!(Expression::parse("n / (past - past)").unwrap().size(&of), None);
    }

    #[test]
    fn plain_names_are_none() {
        for text in ["n", "seq-len", "input/ids:0", "", "7", "1+2", "a b", "n+", "f(n)", "(n", "batch size", "((((n"] {
            assert_eq!(Expression::parse(text), None, "{text}");
        }
        assert_eq!(Expression::parse(&"(".repeat(200)), None);
    }

    #[test]
    fn a_name_is_found_by_the_size() {
        let solve = |text: &str, size, name| Expression::parse(text).unwrap().solve(size, name, &of);
        assert_eq!(solve("m+1", 129, "m"), Some(128));
        assert_eq!(solve("past + seq", 19, "seq"), Some(16));
        assert_eq!(solve("2*m", 7, "m"), None);
        assert_eq!(solve("floor(m/8)", 12, "m").map(|m| m / 8), Some(12));
        assert_eq!(solve("n + 1", 5, "m"), None);
        assert_eq!(solve("past - m", 9, "m"), None);
        let only = |text: &str, size, found| Expression::parse(text).unwrap().is_only(size, "m", found, &of);
        assert!(only("m+1", 3, 2) && !only("floor(m/2)", 1, 2) && !only("floor(m/2)", 1, 3));
    }
}
