//! Dates in the format of Python's `datetime.strftime` on Linux, in the C locale.

use crate::error::{Result, bail};
use crate::files::{LocalTime, local_time};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
/// The maximum width of a field in characters.
const WIDEST: usize = 1000;

/// Returns a time as text in a format of `strftime`: `time` in UTC, or the current local time for `None`. Fails with
/// `Unsupported` for time zones, and `LimitExceeded` for a field above [`WIDEST`].
pub fn show(time: Option<SystemTime>, format: &str) -> Result<String> {
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let elapsed = since(time.unwrap_or_else(SystemTime::now));
    let seconds = i64::try_from(elapsed.as_secs()).unwrap_or(0);
    let local = match time {
        None => local_time(seconds).unwrap_or_else(|| utc(seconds)),
        Some(_) => utc(seconds),
    };
    let moment = Moment { local, seconds, microseconds: elapsed.subsec_micros() };
    let mut out = String::new();
    moment.write(format, &mut out)?;
    Ok(out)
}

/// A date and a time of day.
struct Moment {
    local: LocalTime,
    seconds: i64,
    microseconds: u32,
}

/// The flags and the width between a percent sign and its letter.
#[derive(Clone, Copy)]
struct Field {
    pad: Option<char>,
    upper: bool,
    swap: bool,
    width: Option<usize>,
}

impl Moment {
    fn write(&self, format: &str, out: &mut String) -> Result<()> {
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let directive = &rest[at..];
            let length = self.directive(directive, out)?;
            rest = &directive[length..];
        }
        out.push_str(rest);
        Ok(())
    }

    /// Writes the directive at the start of `text`, which is a percent sign, and returns its length in bytes.
    fn directive(&self, text: &str, out: &mut String) -> Result<usize> {
        let mut field = Field { pad: None, upper: false, swap: false, width: None };
        let mut chars = text.char_indices().skip(1).peekable();
        while let Some((_, flag)) = chars.next_if(|(_, c)| matches!(c, '_' | '-' | '0' | '^' | '#')) {
            match flag {
                '^' => field.upper = true,
                '#' => field.swap = true,
                pad => field.pad = Some(pad),
            }
        }
        while let Some((_, digit)) = chars.next_if(|(_, c)| c.is_ascii_digit()) {
            let width = field.width.unwrap_or(0).saturating_mul(10);
            field.width = Some(width.saturating_add(digit as usize - '0' as usize));
        }
        if field.width.is_some_and(|width| width > WIDEST) {
            bail!(LimitExceeded, "a field of a date is wider than {WIDEST} characters");
        }
        let plain = chars.peek().is_some_and(|(at, _)| *at == 1);
        // `E` and `O` select alternative forms of years and numbers, which the C locale does not have.
        let modifier = chars.next_if(|(_, c)| matches!(c, 'E' | 'O')).map(|(_, c)| c);
        let Some((at, letter)) = chars.next() else {
            out.push_str(text);
            return Ok(text.len());
        };
        let whole = &text[..at + letter.len_utf8()];
        let takes = match modifier {
            Some('E') => "cCxXyY".contains(letter),
            Some(_) => "deHIkmMSuUVwWylBbp".contains(letter),
            None => true,
        };
        match letter {
            // Python itself replaces `%z`, `%Z` and `%f`, which take no flags. For a time without a zone, `%z` and `%Z`
            // are empty.
            'z' | 'Z' if plain => {}
            'f' if plain => {
                let _ = write!(out, "{:06}", self.microseconds);
            }
            'z' | 'Z' | '+' => bail!(Unsupported, "the directive {whole:?} of a date is not supported"),
            _ if !takes || !self.known(letter, field, out) => {
                // Unknown directives are kept, padded to their width.
                let missing = field.width.unwrap_or(0).saturating_sub(whole.chars().count());
                out.extend(std::iter::repeat_n(if field.pad == Some('0') { '0' } else { ' ' }, missing));
                out.push_str(whole);
            }
            _ => {}
        }
        Ok(whole.len())
    }

    /// Writes a directive that is a number. Other letters are passed to [`Moment::named`]. Returns `false` for an
    /// unknown letter.
    fn known(&self, letter: char, field: Field, out: &mut String) -> bool {
        let LocalTime { year, month, day, hour, minute, second, weekday, day_of_year } = self.local;
        let twelve = (hour + 11) % 12 + 1;
        let (week_year, week) = self.iso_week();
        let mut number = |value: i64, width: usize, pad: char| field.number(value, width, pad, out);
        match letter {
            'Y' => number(year, 1, '0'),
            'C' => number(year.div_euclid(100), 2, '0'),
            'y' => number(year.rem_euclid(100), 2, '0'),
            'G' => number(week_year, 1, '0'),
            'g' => number(week_year.rem_euclid(100), 2, '0'),
            'm' => number(month, 2, '0'),
            'd' => number(day, 2, '0'),
            'e' => number(day, 2, '_'),
            'j' => number(day_of_year, 3, '0'),
            'H' => number(hour, 2, '0'),
            'k' => number(hour, 2, '_'),
            'I' => number(twelve, 2, '0'),
            'l' => number(twelve, 2, '_'),
            'M' => number(minute, 2, '0'),
            'S' => number(second, 2, '0'),
            's' => number(self.seconds, 1, '0'),
            'u' => number((weekday + 6) % 7 + 1, 1, '0'),
            'w' => number(weekday, 1, '0'),
            'U' => number((day_of_year - 1 + 7 - weekday) / 7, 2, '0'),
            'W' => number((day_of_year - 1 + 7 - (weekday + 6) % 7) / 7, 2, '0'),
            'V' => number(week, 2, '0'),
            _ => return self.named(letter, field, out),
        }
        true
    }

    /// Writes directives that are words, or that combine several others. Returns `false` for an unknown letter.
    fn named(&self, letter: char, field: Field, out: &mut String) -> bool {
        let name = |names: &[&'static str], at: i64| names[usize::try_from(at).unwrap_or(0) % names.len()];
        let (month, day) = (name(&MONTHS, self.local.month - 1), name(&DAYS, self.local.weekday));
        let half = if self.local.hour < 12 { "AM" } else { "PM" };
        let several = match letter {
            'B' => return field.text(month, out),
            'b' | 'h' => return field.text(&month[..3], out),
            'A' => return field.text(day, out),
            'a' => return field.text(&day[..3], out),
            'p' if field.swap => return field.text(&half.to_lowercase(), out),
            'p' => return field.text(half, out),
            'P' => return field.text(&half.to_lowercase(), out),
            'n' => return field.text("\n", out),
            't' => return field.text("\t", out),
            '%' => return field.text("%", out),
            'c' => "%a %b %e %H:%M:%S %Y",
            'x' | 'D' => "%m/%d/%y",
            'X' | 'T' => "%H:%M:%S",
            'r' => "%I:%M:%S %p",
            'R' => "%H:%M",
            'F' => "%Y-%m-%d",
            _ => return false,
        };
        let mut text = String::new();
        // None of these can fail.
        let _ = self.write(several, &mut text);
        field.text(&text, out)
    }

    /// Returns the year and the week number by ISO 8601.
    fn iso_week(&self) -> (i64, i64) {
        let monday = (self.local.weekday + 6) % 7;
        let week = (self.local.day_of_year - 1 - monday + 10) / 7;
        let year = self.local.year;
        let weeks = |year: i64| {
            // The weekday of 31 December, Sunday being 0.
            let last =
                |year: i64| (year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400)).rem_euclid(7);
            if last(year) == 4 || last(year - 1) == 3 { 53 } else { 52 }
        };
        match week {
            0 => (year - 1, weeks(year - 1)),
            week if week > weeks(year) => (year + 1, 1),
            week => (year, week),
        }
    }
}

impl Field {
    fn number(self, value: i64, width: usize, usual: char, out: &mut String) {
        let pad = self.pad.unwrap_or(usual);
        let width = match (self.width, pad) {
            (Some(width), _) => width,
            (None, '-') => 0,
            (None, _) => width,
        };
        let _ = match pad {
            '0' => write!(out, "{value:0width$}"),
            _ => write!(out, "{value:width$}"),
        };
    }

    fn text(self, text: &str, out: &mut String) -> bool {
        let text = if self.upper || (self.swap && text.len() > 2) { text.to_uppercase() } else { text.to_owned() };
        let missing = self.width.unwrap_or(0).saturating_sub(text.len());
        out.extend(std::iter::repeat_n(if self.pad == Some('0') { '0' } else { ' ' }, missing));
        out.push_str(&text);
        true
    }
}

/// Returns a time in UTC from the seconds since 1970.
fn utc(seconds: i64) -> LocalTime {
    let (mut days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let weekday = (days + 4).rem_euclid(7);
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    // Whole spans of 400 years are subtracted first, because they all have the same number of days.
    let mut year = 1970 + days.div_euclid(146_097) * 400;
    days = days.rem_euclid(146_097);
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let day_of_year = days + 1;
    let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    LocalTime { year, month: month + 1, day: days + 1, hour, minute, second: second % 60, weekday, day_of_year }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds: u64, pattern: &str| show(Some(UNIX_EPOCH + Duration::from_secs(seconds)), pattern).unwrap();
        assert_eq!(at(0, "%A %d %B %Y %H:%M:%S"), "Thursday 01 January 1970 00:00:00");
        // date -u -d @1709210096
        assert_eq!(at(1_709_210_096, "%d %b %Y"), "29 Feb 2024");
        assert_eq!(at(1_709_210_096, "%a %F %T %I%p %j"), "Thu 2024-02-29 12:34:56 12PM 060");
        assert_eq!(at(951_782_400, "%-d/%-m/%y|%e|%%|%Q|%"), "29/2/00|29|%|%Q|%");
        assert_eq!(at(4_107_542_400, "%F"), "2100-03-01");
        // ISO 8601 weeks at the ends of years: 2021-01-03, 2024-12-30, 2026-12-31, 2020-12-31.
        for (day, week) in [(1_609_632_000, "2020-53"), (1_735_516_800, "2025-01"), (1_798_675_200, "2026-53")] {
            assert_eq!(at(day, "%G-%V"), week);
        }
    }

    /// The expected values are Python 3.11's output for 2024-02-09 03:04:05.000006.
    #[test]
    fn directives_are_those_of_python() {
        let time = UNIX_EPOCH + Duration::new(1_707_447_845, 6000);
        let at = |pattern: &str| show(Some(time), pattern).unwrap();
        let cases = [
            ("%c|%x|%X|%r|%R", "Fri Feb  9 03:04:05 2024|02/09/24|03:04:05|03:04:05 AM|03:04"),
            ("%T|%D|%F", "03:04:05|02/09/24|2024-02-09"),
            ("%U %W %V %G %g %u %w %j %C %e %k %l %s", "05 06 06 2024 24 5 5 040 20  9  3  3 1707447845"),
            ("%-d %_d %05d %^a %#a %^B %#p %P %p %h %n %t", "9  9 00009 FRI FRI FEBRUARY am am AM Feb \n \t"),
            ("%z|%Z|%f|a%|", "||000006|a%|"),
            ("%-f|%Q|%5Q|%E|%Ey|%Od|%N|%:z", "%-f|%Q|  %5Q|%E|24|09|%N|%:z"),
            ("%10Y|%_10Y|%3d|%10a|%010a", "0000002024|      2024|009|       Fri|0000000Fri"),
            ("%20c|%EY %OH %Oy %EQ|é%Yé%", "Fri Feb  9 03:04:05 2024|2024 03 24 %EQ|é2024é%"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(at(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn without_a_time_it_is_the_local_time_now() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let now: u64 = show(None, "%s").unwrap().parse().unwrap();
        assert!(now.abs_diff(before) < 60);
        let local = local_time(now as i64).unwrap();
        let shown = show(None, "%Y-%m-%d").unwrap();
        assert_eq!(shown, format!("{}-{:02}-{:02}", local.year, local.month, local.day));
    }
}
