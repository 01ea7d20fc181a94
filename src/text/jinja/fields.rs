//! The method `str.format`: `'...'.format(...)`.

use super::arguments::Given;
use super::engine::Engine;
use super::format::{Layout, ascii, bounded, float_as};
use super::value::Value;
use crate::error::{Result, bail};

/// The numbering of the fields of a format: automatic (`{}`) or manual (`{0}`), which cannot be mixed.
#[derive(Default)]
struct Numbers {
    next: usize,
    counted: bool,
    named: bool,
}

impl Engine {
    /// Returns the result of `format.format(...)` in Python. Fails with `InvalidArgument` where Python raises an error,
    /// with `Unsupported` for what is not implemented, and with `LimitExceeded` if the text is too long.
    pub fn format(&mut self, format: &str, given: Given) -> Result<Value> {
        let text = self.fields(format, &given, &mut Numbers::default(), 3)?;
        self.spend_bytes(text.len())?;
        Ok(Value::text(text))
    }

    fn fields(&mut self, format: &str, given: &Given, numbers: &mut Numbers, depth: usize) -> Result<String> {
        let Some(depth) = depth.checked_sub(1) else { bail!(InvalidArgument, "a format is nested too deep") };
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            let Some(length) = closing(after).filter(|_| brace == "{") else {
                bail!(InvalidArgument, "a format contains an unmatched {brace:?}");
            };
            let text = self.field(&after[..length], given, numbers, depth)?;
            out.push_str(&text);
            rest = &after[length + 1..];
        }
        Ok(out + rest)
    }

    fn field(&mut self, field: &str, given: &Given, numbers: &mut Numbers, depth: usize) -> Result<String> {
        let mut inside = 0;
        let ends = |c: char| {
            match c {
                '[' => inside = 1,
                ']' => inside = 0,
                _ => {}
            }
            inside == 0 && matches!(c, '!' | ':')
        };
        let end = field.find(ends).unwrap_or(field.len());
        let (name, rest) = field.split_at(end);
        if name.contains('{') {
            bail!(InvalidArgument, "the name of a replacement field contains a brace");
        }
        let (conversion, spec) = match rest.strip_prefix('!') {
            Some(rest) => {
                let Some(conversion) = rest.chars().next() else { bail!(InvalidArgument, "a conversion is missing") };
                let after = &rest[conversion.len_utf8()..];
                match after.strip_prefix(':') {
                    Some(spec) => (Some(conversion), spec),
                    None if after.is_empty() => (Some(conversion), ""),
                    None => bail!(InvalidArgument, "a colon is expected after a conversion"),
                }
            }
            None => (None, rest.strip_prefix(':').unwrap_or_default()),
        };
        let mut value = self.named_field(name, given, numbers)?;
        value = match conversion {
            None => value,
            Some('s') => Value::Text(self.text(&value)?),
            Some('r') => Value::text(self.repr(&value)?),
            Some('a') => Value::text(ascii(&self.repr(&value)?)),
            Some(other) => bail!(InvalidArgument, "there is no conversion !{other}"),
        };
        let spec = self.fields(spec, given, numbers, depth)?;
        self.with_spec(&value, &spec)
    }

    /// Returns the value of a field, `name.attribute[index]`.
    fn named_field(&mut self, name: &str, given: &Given, numbers: &mut Numbers) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let number: Option<usize> = if first.is_empty() {
            numbers.counted = true;
            numbers.next += 1;
            Some(numbers.next - 1)
        } else {
            let number = first.bytes().all(|byte| byte.is_ascii_digit()).then(|| first.parse().unwrap_or(usize::MAX));
            numbers.named |= number.is_some();
            number
        };
        if numbers.counted && numbers.named {
            bail!(InvalidArgument, "a format mixes automatic and manual field numbers");
        }
        let found = match number {
            Some(at) => given.positional.get(at),
            None => given.named.iter().find(|(name, _)| &**name == first).map(|(_, value)| value),
        };
        let Some(mut value) = found.cloned() else { bail!(InvalidArgument, "a format has no value for {name:?}") };
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                value = self.attribute(&value, &after[..end])?;
                rest = &after[end..];
            } else {
                let inside = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
                let Some((index, after)) = inside else {
                    bail!(InvalidArgument, "the replacement field {name:?} is invalid")
                };
                let number = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
                let index = if number { Value::Int(index.parse().unwrap_or(i128::MAX)) } else { Value::text(index) };
                value = self.item(&value, &index)?;
                rest = after;
            }
        }
        Ok(value)
    }

    /// Returns the result of `format(value, spec)` in Python.
    fn with_spec(&self, value: &Value, spec: &str) -> Result<String> {
        if spec.is_empty() {
            return Ok(self.text(value)?.to_string());
        }
        let spec = Spec::read(spec)?;
        match value {
            Value::Text(text) => {
                if !matches!(spec.kind, None | Some('s'))
                    || spec.sign.is_some()
                    || spec.grouped.is_some()
                    || spec.inner()
                {
                    bail!(InvalidArgument, "a format specification of numbers is used for a string");
                }
                let kept: String = text.chars().take(spec.layout.precision.unwrap_or(usize::MAX)).collect();
                Ok(spec.padded("", &kept, '<'))
            }
            Value::Float(float) => spec.float(*float),
            other => match (other.as_int(), spec.kind) {
                (Some(int), Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')) => spec.float(int as f64),
                (Some(int), _) => spec.int(int),
                _ => bail!(InvalidArgument, "a {} accepts no format specification", other.type_name()),
            },
        }
    }
}

/// Returns the position of the brace that closes a field; `None` if there is none.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

/// A format specification, `[[fill]align][sign][#][0][width][,|_][.precision][type]`.
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    grouped: Option<char>,
    kind: Option<char>,
    layout: Layout,
}

impl Spec {
    fn read(text: &str) -> Result<Spec> {
        let is_align = |c: char| matches!(c, '<' | '>' | '=' | '^');
        let mut chars = text.chars().peekable();
        let (first, second) = (text.chars().next(), text.chars().nth(1));
        let mut spec =
            Spec { fill: None, align: None, sign: None, grouped: None, kind: None, layout: Layout::default() };
        if let Some(align) = second.filter(|c| is_align(*c)) {
            (spec.fill, spec.align) = (first, Some(align));
            chars.nth(1);
        } else if let Some(align) = first.filter(|c| is_align(*c)) {
            spec.align = Some(align);
            chars.next();
        }
        spec.sign = chars.next_if(|c| matches!(c, '+' | '-' | ' '));
        spec.layout.alternate = chars.next_if_eq(&'#').is_some();
        spec.layout.zeros = chars.next_if_eq(&'0').is_some();
        let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            (!digits.is_empty()).then(|| bounded(digits.parse().unwrap_or(u128::MAX))).transpose()
        };
        spec.layout.width = number(&mut chars)?.unwrap_or(0);
        spec.grouped = chars.next_if(|c| matches!(c, ',' | '_'));
        if chars.next_if_eq(&'.').is_some() {
            let Some(precision) = number(&mut chars)? else { bail!(InvalidArgument, "a format has no precision") };
            spec.layout.precision = Some(precision);
        }
        spec.kind = chars.next();
        if chars.next().is_some() {
            bail!(InvalidArgument, "the format specification {text:?} is invalid");
        }
        Ok(spec)
    }

    /// Returns whether the specification has parts that only numbers support.
    fn inner(&self) -> bool {
        self.layout.alternate || self.align == Some('=')
    }

    /// Returns a text or a number padded to its width, after its sign.
    fn padded(&self, sign: &str, text: &str, usual: char) -> String {
        let fill = self.fill.unwrap_or(if self.layout.zeros { '0' } else { ' ' });
        // By default, zeros are inserted between the sign and the digits of a number, and after a text.
        let align = self.align.unwrap_or(if self.layout.zeros && usual == '>' { '=' } else { usual });
        let missing = self.layout.width.saturating_sub(sign.chars().count() + text.chars().count());
        let fills = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
        match align {
            '<' => format!("{sign}{text}{}", fills(missing)),
            '^' => format!("{}{sign}{text}{}", fills(missing / 2), fills(missing - missing / 2)),
            '=' => format!("{sign}{}{text}", fills(missing)),
            _ => format!("{}{sign}{text}", fills(missing)),
        }
    }

    fn sign(&self, negative: bool) -> &'static str {
        match (negative, self.sign) {
            (true, _) => "-",
            (false, Some('+')) => "+",
            (false, Some(' ')) => " ",
            _ => "",
        }
    }

    fn int(&self, int: i128) -> Result<String> {
        if self.layout.precision.is_some() {
            bail!(InvalidArgument, "the format specification of an integer has a precision");
        }
        let size = int.unsigned_abs();
        let (prefix, digits, group) = match self.kind {
            None | Some('d') => ("", size.to_string(), 3),
            Some('x') => ("0x", format!("{size:x}"), 4),
            Some('X') => ("0X", format!("{size:X}"), 4),
            Some('o') => ("0o", format!("{size:o}"), 4),
            Some('b') => ("0b", format!("{size:b}"), 4),
            Some(other) => bail!(Unsupported, "the format {other:?} of an integer is not supported in chat templates"),
        };
        let prefix = if self.layout.alternate { prefix } else { "" };
        let sign = format!("{}{prefix}", self.sign(int < 0));
        if self.grouped == Some(',') && group == 4 {
            bail!(InvalidArgument, "commas are supported only between decimal digits");
        }
        self.finish(&sign, &digits, "", group)
    }

    fn float(&self, float: f64) -> Result<String> {
        if self.layout.alternate || !float.is_finite() {
            bail!(Unsupported, "this format of a float is not supported in chat templates");
        }
        let size = float.abs();
        let text = match (self.kind, self.layout.precision) {
            (Some(kind @ ('e' | 'E' | 'f' | 'F' | 'g' | 'G')), precision) => {
                float_as(size, kind, precision.unwrap_or(6))?
            }
            (Some('%'), precision) => float_as(size * 100.0, 'f', precision.unwrap_or(6))? + "%",
            (None, None) => super::text::float_text(size),
            _ => bail!(Unsupported, "this format of a float is not supported in chat templates"),
        };
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, rest) = text.split_at(end);
        self.finish(self.sign(float.is_sign_negative()), digits, rest, 3)
    }

    /// Returns the text for a number: sign, grouped digits and the rest.
    fn finish(&self, sign: &str, digits: &str, rest: &str, group: usize) -> Result<String> {
        let Some(separator) = self.grouped else { return Ok(self.padded(sign, &format!("{digits}{rest}"), '>')) };
        if self.layout.zeros || self.align == Some('=') {
            bail!(Unsupported, "a format with both separators and leading zeros is not supported in chat templates");
        }
        let mut grouped = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(group) {
                grouped.push(separator);
            }
            grouped.push(digit);
        }
        Ok(self.padded(sign, &format!("{grouped}{rest}"), '>'))
    }
}
