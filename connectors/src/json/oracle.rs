//! The naive decoder that the tests hold the real one against: a tree of the whole record, strings for numbers, no tricks.
//!
//! It shares no code with the decoder but the declarations. Test only.

use super::{Column, Options, TimeUnitOption};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use std::fmt::Write;

#[derive(Debug, Clone)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// The values of the built columns as [`cell`] writes them, or nothing for a dead letter.
pub(super) fn judge(columns: &[Column], digits: &[u32], options: Options, payload: &[u8]) -> Option<Vec<String>> {
    let record = parse(payload, options.depth_max)?;
    let Json::Object(_) = record else { return None };
    let cursors: Vec<Cursor<'_>> = columns.iter().map(|column| (column.path.as_slice(), &column.data_type)).collect();
    if options.reject_unknown && !known(&record, &cursors) {
        return None;
    }
    let mut cells = Vec::new();
    for (column, digits) in columns.iter().zip(digits) {
        let mut place = Some(&record);
        for key in &column.path {
            place = place.and_then(|value| field(value, key));
        }
        let text = read(place.unwrap_or(&Json::Null), &column.data_type, *digits, column.unit, options.coerce)?;
        if text == "NULL" && !column.nullable {
            return None;
        }
        if column.build {
            cells.push(text);
        }
    }
    Some(cells)
}

fn field<'a>(value: &'a Json, key: &str) -> Option<&'a Json> {
    match value {
        Json::Object(fields) => fields.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value),
        _ => None,
    }
}

type Cursor<'a> = (&'a [String], &'a DataType);

/// Whether every field of every object that somebody looks into has a name.
fn known(value: &Json, cursors: &[Cursor<'_>]) -> bool {
    let looks = cursors.iter().any(|(path, kind)| !path.is_empty() || matches!(kind, DataType::Struct(_)));
    match value {
        Json::Object(fields) if looks => fields.iter().all(|(key, inner)| {
            let mut next: Vec<Cursor<'_>> = Vec::new();
            for (path, kind) in cursors {
                match (path.split_first(), kind) {
                    (Some((first, rest)), _) if first == key => next.push((rest, kind)),
                    (None, DataType::Struct(parts)) => {
                        next.extend(parts.iter().filter(|part| part.name() == key).map(|part| (*path, part.data_type())))
                    }
                    _ => {}
                }
            }
            !next.is_empty() && known(inner, &next)
        }),
        Json::List(elements) => cursors.iter().all(|(path, kind)| match kind {
            DataType::List(part) if path.is_empty() => elements.iter().all(|element| known(element, &[(&[], part.data_type())])),
            _ => true,
        }),
        _ => true,
    }
}

fn read(value: &Json, kind: &DataType, digits: u32, unit: TimeUnitOption, coerce: bool) -> Option<String> {
    if let Json::Null = value {
        return Some("NULL".into());
    }
    let number = match value {
        Json::Number(text) => Some(text.clone()),
        Json::Text(text) if (coerce || matches!(kind, DataType::Decimal128(..))) && is_number(text) => Some(text.clone()),
        _ => None,
    };
    let whole = |limit: i128| {
        number.as_deref().and_then(|text| scaled(text, 0)).filter(|v| (-limit - 1..=limit).contains(v)).map(|v| v.to_string())
    };
    match (kind, value) {
        (DataType::Boolean, Json::Bool(value)) => Some(value.to_string()),
        (DataType::Boolean, Json::Text(text)) if coerce && (text == "true" || text == "false") => Some(text.clone()),
        (DataType::Int16, _) => whole(i128::from(i16::MAX)),
        (DataType::Int32, _) => whole(i128::from(i32::MAX)),
        (DataType::Int64, _) => whole(i128::from(i64::MAX)),
        (DataType::Float32, _) => number?.parse::<f32>().ok().filter(|v| v.is_finite()).map(|v| format!("{:08x}", v.to_bits())),
        (DataType::Float64, _) => number?.parse::<f64>().ok().filter(|v| v.is_finite()).map(|v| format!("{:016x}", v.to_bits())),
        (DataType::Decimal128(precision, scale), _) => {
            let limit = 10_i128.pow(u32::from(*precision));
            scaled(&number?, i64::from(*scale)).filter(|v| -limit < *v && *v < limit).map(|v| v.to_string())
        }
        (DataType::Utf8View, Json::Text(text)) => Some(format!("{text:?}")),
        (DataType::Utf8View, Json::Number(text)) if coerce => Some(format!("{text:?}")),
        (DataType::Binary, Json::Text(text)) => base64(text).map(|bytes| format!("{bytes:x?}")),
        (DataType::Date32, Json::Text(text)) => date(text).map(|days| days.to_string()),
        (DataType::Timestamp(..), _) => {
            let micros = match value {
                Json::Text(text) => time(text),
                _ => None,
            };
            let nanos_per_unit = match unit {
                TimeUnitOption::S => 1_000_000_000,
                TimeUnitOption::Ms => 1_000_000,
                TimeUnitOption::Us => 1_000,
                TimeUnitOption::Ns => 1,
            };
            let micros = micros.or_else(|| {
                let count = scaled(&number?, 0).filter(|v| i64::try_from(*v).is_ok())?;
                let nanos = count.checked_mul(nanos_per_unit)?;
                (nanos % 1_000 == 0).then_some(nanos / 1_000).and_then(|v| i64::try_from(v).ok())
            })?;
            (micros % 10_i64.pow(6 - digits) == 0).then(|| micros.to_string())
        }
        (DataType::Struct(parts), Json::Object(_)) => {
            let mut text = String::from("{");
            for part in parts {
                let inner = read(field(value, part.name()).unwrap_or(&Json::Null), part.data_type(), digits, unit, coerce)?;
                write!(text, "{}:{inner},", part.name()).ok()?;
            }
            Some(text + "}")
        }
        (DataType::List(part), Json::List(elements)) => {
            let mut text = String::from("[");
            for element in elements {
                write!(text, "{},", read(element, part.data_type(), digits, unit, coerce)?).ok()?;
            }
            Some(text + "]")
        }
        _ => None,
    }
}

/// A built value, as the oracle writes it.
pub(super) fn cell(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".into();
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => format!("{:08x}", array.as_primitive::<Float32Type>().value(row).to_bits()),
        DataType::Float64 => format!("{:016x}", array.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row).to_string(),
        DataType::Utf8View => format!("{:?}", array.as_string_view().value(row)),
        DataType::Binary => format!("{:x?}", array.as_binary::<i32>().value(row)),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).to_string(),
        DataType::Timestamp(..) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Struct(parts) => {
            let columns = array.as_struct().columns();
            parts
                .iter()
                .zip(columns)
                .fold(String::from("{"), |text, (part, column)| format!("{text}{}:{},", part.name(), cell(column, row)))
                + "}"
        }
        DataType::List(_) => {
            let inner = array.as_list::<i32>().value(row);
            (0..inner.len()).fold(String::from("["), |text, i| format!("{text}{},", cell(&inner, i))) + "]"
        }
        other => panic!("no cell of {other}"),
    }
}

pub(super) fn row(batch: &RecordBatch, row: usize) -> Vec<String> {
    batch.columns().iter().map(|column| cell(column, row)).collect()
}

/// A number's value times 10^scale if that is whole and under 10^39 or so.
fn scaled(text: &str, scale: i64) -> Option<i128> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(if exponent.starts_with('-') { -1_000_000_000 } else { 1_000_000_000 });
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or((1, mantissa), |rest| (-1, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}").trim_start_matches('0').to_string();
    if digits.is_empty() {
        return Some(0);
    }
    let mut power = exponent.checked_sub(fraction.len() as i64)?.checked_add(scale)?;
    while power < 0 {
        if digits.pop()? != '0' {
            return None;
        }
        power += 1;
    }
    if digits.len() as i64 + power > 38 {
        return None;
    }
    digits.push_str(&"0".repeat(power as usize));
    digits.parse::<i128>().ok().map(|v| sign * v)
}

fn is_number(text: &str) -> bool {
    let mut at = 0;
    let chars: Vec<char> = text.chars().collect();
    number(&chars, &mut at).is_some() && at == chars.len()
}

fn base64(text: &str) -> Option<Vec<u8>> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    if padding > 0 && (padding > 2 || !text.len().is_multiple_of(4)) {
        return None;
    }
    let mut bits = String::new();
    for letter in body.chars() {
        write!(bits, "{:06b}", LETTERS.find(letter)?).ok()?;
    }
    let used = bits.len() / 8 * 8;
    if bits.len() - used >= 6 || bits[used..].contains('1') {
        return None;
    }
    (0..used / 8).map(|i| u8::from_str_radix(&bits[8 * i..8 * i + 8], 2).ok()).collect()
}

fn date(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return None };
    let count = |part: &str, width: usize| {
        (part.len() == width && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<u32>().ok()).flatten()
    };
    let (year, month, day) = (count(year, 4)?, count(month, 2)?, count(day, 2)?);
    let found = chrono::NaiveDate::from_ymd_opt(year as i32, month, day)?;
    (year > 0).then(|| (found - chrono::NaiveDate::default()).num_days())
}

fn time(text: &str) -> Option<i64> {
    let days = date(text.get(..10)?)?;
    let rest = text.get(10..)?.strip_prefix(['T', 't', ' '])?;
    let two = |part: &str| (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<i64>().ok()).flatten();
    let clock = |hours: &str, minutes: &str| two(hours).filter(|h| *h < 24).zip(two(minutes).filter(|m| *m < 60)).map(|(h, m)| h * 60 + m);
    let minutes = clock(rest.get(..2)?, rest.get(2..5)?.strip_prefix(':')?)?;
    let seconds = two(rest.get(5..8)?.strip_prefix(':')?).filter(|s| *s < 60)?;
    let rest = rest.get(8..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            (Some(&rest[..end]).filter(|f| !f.is_empty())?, &rest[end..])
        }
        None => ("", rest),
    };
    let ahead = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
            sign * clock(hours, minutes)?
        }
    };
    let fraction = format!("{fraction:0<6}");
    if fraction[6..].contains(|c| c != '0') {
        return None;
    }
    Some((days * 86_400 + minutes * 60 + seconds - ahead * 60) * 1_000_000 + fraction[..6].parse::<i64>().ok()?)
}

/// One JSON value and nothing else but white space.
pub(super) fn parse(payload: &[u8], depth_max: usize) -> Option<Json> {
    let chars: Vec<char> = std::str::from_utf8(payload).ok()?.chars().collect();
    let mut at = 0;
    let found = value(&chars, &mut at, depth_max)?;
    blank(&chars, &mut at);
    (at == chars.len()).then_some(found)
}

fn blank(chars: &[char], at: &mut usize) {
    while matches!(chars.get(*at), Some(' ' | '\t' | '\n' | '\r')) {
        *at += 1;
    }
}

fn eat(chars: &[char], at: &mut usize, wanted: char) -> Option<()> {
    blank(chars, at);
    let found = chars.get(*at) == Some(&wanted);
    *at += usize::from(found);
    found.then_some(())
}

fn value(chars: &[char], at: &mut usize, depth: usize) -> Option<Json> {
    blank(chars, at);
    for (word, literal) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
        if chars[*at..].iter().take(word.len()).collect::<String>() == word {
            *at += word.len();
            return Some(literal);
        }
    }
    match chars.get(*at)? {
        '"' => text(chars, at).map(Json::Text),
        '{' => {
            let depth = depth.checked_sub(1)?;
            *at += 1;
            let mut fields = Vec::new();
            if eat(chars, at, '}').is_some() {
                return Some(Json::Object(fields));
            }
            loop {
                blank(chars, at);
                let key = text(chars, at)?;
                eat(chars, at, ':')?;
                fields.push((key, value(chars, at, depth)?));
                if eat(chars, at, '}').is_some() {
                    return Some(Json::Object(fields));
                }
                eat(chars, at, ',')?;
            }
        }
        '[' => {
            let depth = depth.checked_sub(1)?;
            *at += 1;
            let mut elements = Vec::new();
            if eat(chars, at, ']').is_some() {
                return Some(Json::List(elements));
            }
            loop {
                elements.push(value(chars, at, depth)?);
                if eat(chars, at, ']').is_some() {
                    return Some(Json::List(elements));
                }
                eat(chars, at, ',')?;
            }
        }
        _ => number(chars, at).map(Json::Number),
    }
}

fn run(chars: &[char], at: &mut usize) -> Option<()> {
    let start = *at;
    while chars.get(*at).is_some_and(char::is_ascii_digit) {
        *at += 1;
    }
    (*at > start).then_some(())
}

fn number(chars: &[char], at: &mut usize) -> Option<String> {
    let start = *at;
    *at += usize::from(chars.get(*at) == Some(&'-'));
    let first = *at;
    run(chars, at)?;
    if chars.get(first) == Some(&'0') && *at > first + 1 {
        return None;
    }
    if chars.get(*at) == Some(&'.') {
        *at += 1;
        run(chars, at)?;
    }
    if matches!(chars.get(*at), Some('e' | 'E')) {
        *at += 1;
        *at += usize::from(matches!(chars.get(*at), Some('+' | '-')));
        run(chars, at)?;
    }
    Some(chars[start..*at].iter().collect())
}

fn text(chars: &[char], at: &mut usize) -> Option<String> {
    if chars.get(*at) != Some(&'"') {
        return None;
    }
    *at += 1;
    let mut units: Vec<u16> = Vec::new();
    loop {
        let next = *chars.get(*at)?;
        *at += 1;
        let plain = match next {
            '"' => return String::from_utf16(&units).ok(),
            '\u{0}'..='\u{1f}' => return None,
            '\\' => {
                let letter = *chars.get(*at)?;
                *at += 1;
                match letter {
                    '"' | '\\' | '/' => letter,
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'u' => {
                        let hex: String = chars.get(*at..*at + 4)?.iter().collect();
                        if !hex.chars().all(|c| c.is_ascii_hexdigit()) {
                            return None;
                        }
                        *at += 4;
                        units.push(u16::from_str_radix(&hex, 16).ok()?);
                        continue;
                    }
                    _ => return None,
                }
            }
            _ => next,
        };
        units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
}
