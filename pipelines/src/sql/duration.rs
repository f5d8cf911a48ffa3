//! Durations as people write them: `'5 minutes'`, `'500 ms'`, `'1 hour 30 minutes'`, `INTERVAL '1' HOUR`.
//!
//! Always microseconds, always a fixed length: months and years have none and are refused. Used by WITH options, WATERMARK and the
//! window functions, so all three accept the same words.

use datafusion::sql::sqlparser::ast::{DateTimeField, Expr, Interval, Spanned, UnaryOperator, Value};

use super::error::{Checked, Complaint, place};

const UNITS: &[(&[&str], i64)] = &[
    (&["us", "microsecond", "microseconds"], 1),
    (&["ms", "msec", "msecs", "millisecond", "milliseconds"], 1_000),
    (&["s", "sec", "secs", "second", "seconds"], 1_000_000),
    (&["m", "min", "mins", "minute", "minutes"], 60_000_000),
    (&["h", "hr", "hrs", "hour", "hours"], 3_600_000_000),
    (&["d", "day", "days"], 86_400_000_000),
    (&["w", "week", "weeks"], 604_800_000_000),
];

/// Reads a duration in microseconds; it may be negative. The error is a sentence without a place.
pub fn parse(text: &str) -> Result<i64, String> {
    let shape = || format!("'{text}' is not a duration; write a number and a unit, such as '5 minutes', '1 hour' or '500 ms'");
    let mut total: i64 = 0;
    let mut parts = split(text);
    if parts.is_empty() {
        return Err(shape());
    }
    while !parts.is_empty() {
        let number = parts.remove(0);
        if parts.is_empty() {
            return Err(shape());
        }
        let unit = parts.remove(0).to_lowercase();
        if ["month", "months", "mon", "mons", "year", "years", "y", "quarter", "quarters"].contains(&unit.as_str()) {
            return Err(format!("a {} has no fixed length; write it in days, such as '30 days'", unit.trim_end_matches('s')));
        }
        let Some((_, unit_us)) = UNITS.iter().find(|(names, _)| names.contains(&unit.as_str())) else { return Err(shape()) };
        let part = scaled(&number, *unit_us).ok_or_else(shape)?;
        total = total.checked_add(part).ok_or_else(|| format!("'{text}' is too long"))?;
    }
    Ok(total)
}

/// Splits `1h 30 min` into `1`, `h`, `30`, `min`.
fn split(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut kind = ' ';
    for each in text.chars() {
        let now = match each {
            '0'..='9' | '.' | '-' | '+' => '0',
            each if each.is_whitespace() => ' ',
            _ => 'a',
        };
        match (now == kind, parts.last_mut()) {
            _ if now == ' ' => {}
            (true, Some(last)) => last.push(each),
            _ => parts.push(each.to_string()),
        }
        kind = now;
    }
    parts
}

/// `number * unit_us`, exactly: a number with more digits than microseconds can hold is none.
fn scaled(number: &str, unit_us: i64) -> Option<i64> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty())
        || fraction.len() > 12
        || !(whole.to_owned() + fraction).bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let power = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let value: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scaled = value.checked_mul(i128::from(unit_us))?;
    if scaled % power != 0 {
        return None;
    }
    let scaled = i64::try_from(scaled / power).ok()?;
    Some(if negative { -scaled } else { scaled })
}

/// Reads `INTERVAL '1 minute'`, `INTERVAL '1' MINUTE`, `INTERVAL 1 MINUTE` and their negation.
pub(super) fn interval(expr: &Expr) -> Checked<i64> {
    let here = place(expr.span());
    match expr {
        Expr::Nested(inner) => interval(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Ok(-interval(expr)?),
        Expr::Interval(Interval {
            value,
            leading_field,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        }) => {
            let here = place(value.span()).or(here);
            let text = match value.as_ref() {
                Expr::Value(value) => match &value.value {
                    Value::SingleQuotedString(text) => text.clone(),
                    Value::Number(number, _) => number.clone(),
                    _ => return Err(shape(here)),
                },
                _ => return Err(shape(here)),
            };
            let text = match leading_field {
                Some(field) => format!("{text} {}", unit(field)),
                None => text,
            };
            parse(&text).map_err(|message| Complaint::new(here, message))
        }
        _ => Err(shape(here)),
    }
}

fn unit(field: &DateTimeField) -> String {
    field.to_string().to_lowercase()
}

fn shape(here: Option<super::program::Place>) -> Complaint {
    Complaint::new(here, "an interval is expected here").help("write it as INTERVAL '1 minute'")
}

/// A duration as `parse` reads it, in the largest unit that divides it: for messages.
pub fn show(us: i64) -> String {
    let (name, unit) = [("day", 86_400_000_000), ("hour", 3_600_000_000), ("minute", 60_000_000), ("second", 1_000_000), ("ms", 1_000)]
        .into_iter()
        .find(|(_, unit)| us != 0 && us % unit == 0)
        .unwrap_or(if us == 0 { ("second", 1_000_000) } else { ("us", 1) });
    let count = us / unit;
    if count == 1 || name.ends_with('s') { format!("{count} {name}") } else { format!("{count} {name}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, us) in [
            ("5 minutes", 300_000_000),
            ("1 hour", 3_600_000_000),
            ("500 ms", 500_000),
            ("0 seconds", 0),
            ("1 hour 30 minutes", 5_400_000_000),
            ("1.5 seconds", 1_500_000),
            ("10s", 10_000_000),
            ("2 Days", 172_800_000_000),
            ("-5 seconds", -5_000_000),
        ] {
            assert_eq!(parse(text), Ok(us), "{text}");
        }
    }

    #[test]
    fn refuses_what_has_no_length() {
        for (text, part) in [
            ("", "not a duration"),
            ("5", "not a duration"),
            ("minutes", "not a duration"),
            ("5 parsecs", "not a duration"),
            ("1 month", "no fixed length"),
            ("2 years", "no fixed length"),
            ("99999999999999 days", "not a duration"),
            ("0.0000001 s", "not a duration"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn shows_what_it_reads() {
        for (us, text) in [(0, "0 seconds"), (60_000_000, "1 minute"), (90_000_000, "90 seconds"), (500_000, "500 ms"), (1, "1 us")] {
            assert_eq!(show(us), text);
            assert_eq!(parse(text), Ok(us));
        }
    }
}
