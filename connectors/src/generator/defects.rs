//! A catalogue of bad and odd records: every way in which a record of JSON is known to go wrong, and the odd ones that are legal.
//!
//! What always holds: each entry says what must become of it ([`Fate`]), by the rules for JSON sources: a record is bad if it is anything
//! but one JSON object in valid UTF-8, lacks a NOT NULL column, or holds a value that does not fit its column exactly. No entry holds a line
//! feed. Not here: late and repeated records, which are good JSON (see [`super::arrivals`]).

use super::json::write_int;
use super::rng::Rng;

/// What must become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A dead letter, by its bytes and the declared columns alone.
    Dead,
    /// A dead letter by `max_future`: good JSON from a clock that runs far ahead.
    Future,
    /// A good record, however odd.
    Good,
    /// A good record of long ago: late for every window.
    Late,
}

/// A good record to be spoilt, and the names of the columns to spoil. The columns must be fields of the outermost object.
#[derive(Clone, Copy, Debug)]
pub struct Victim<'a> {
    /// One JSON object as [`super::json::Object`] writes it.
    pub json: &'a [u8],
    /// Its arrival, in milliseconds since 1970.
    pub now_ms: i64,
    pub columns: Columns,
}

/// The columns that the entries spoil.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// VARCHAR NOT NULL.
    pub text: &'static str,
    /// VARCHAR that may be null.
    pub nullable_text: &'static str,
    /// BIGINT NOT NULL.
    pub bigint: &'static str,
    /// SMALLINT NOT NULL.
    pub smallint: &'static str,
    /// TIMESTAMP NOT NULL, the event time, a number of milliseconds.
    pub time: &'static str,
}

/// An entry of the catalogue.
pub struct Defect {
    pub name: &'static str,
    pub fate: Fate,
    /// Writes the record's value into the empty buffer; false stands for a null payload.
    pub write: fn(&Victim<'_>, &mut Rng, &mut Vec<u8>) -> bool,
}

/// The value over 2 MB: legal, but most brokers refuse it as it stands, so it is not in [`DEFECTS`].
pub static HUGE: Defect =
    Defect { name: "over 2 MB", fate: Fate::Good, write: |v, _, out| put(v, v.columns.nullable_text, &quoted(2 << 20), out) };

/// 2026 is long past at the first of these; the second is a date that every field can hold.
const EPOCH_1970_MS: i64 = 86_399_000;
const EPOCH_2099_MS: i64 = 4_070_908_800_000;

/// Every entry. To add one: one line here.
#[rustfmt::skip]
pub static DEFECTS: &[Defect] = &[
    // No JSON object.
    Defect { name: "not JSON", fate: Fate::Dead, write: |_, rng, out| bytes(rng.pick(NOT_JSON).as_bytes(), out) },
    Defect { name: "empty payload", fate: Fate::Dead, write: |_, _, _| true },
    Defect { name: "null payload", fate: Fate::Dead, write: |_, _, _| false },
    Defect { name: "cut short", fate: Fate::Dead, write: |v, rng, out| { let length = 1 + rng.below(v.json.len() as u64 - 1) as usize; bytes(&v.json[..length], out) } },
    Defect { name: "trailing garbage", fate: Fate::Dead, write: |v, _, out| around(b"", v.json, b"]", out) },
    Defect { name: "two objects", fate: Fate::Dead, write: |v, _, out| around(v.json, b" ", v.json, out) },
    Defect { name: "byte order mark", fate: Fate::Dead, write: |v, _, out| around(b"\xef\xbb\xbf", v.json, b"", out) },
    Defect { name: "an array around it", fate: Fate::Dead, write: |v, _, out| around(b"[", v.json, b"]", out) },
    Defect { name: "single quotes", fate: Fate::Dead, write: |v, _, out| { out.extend(v.json.iter().map(|byte| if *byte == b'"' { b'\'' } else { *byte })); true } },
    Defect { name: "a comma too many", fate: Fate::Dead, write: |v, _, out| around(&v.json[..v.json.len() - 1], b",", b"}", out) },
    Defect { name: "nesting of 200", fate: Fate::Dead, write: |v, _, out| nested(v, 200, out) },
    Defect { name: "nesting of 10,000", fate: Fate::Dead, write: |v, _, out| nested(v, 10_000, out) },
    // Text that is no text.
    Defect { name: "invalid UTF-8", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.nullable_text, b"\"caf\xe9\"", out) },
    Defect { name: "overlong UTF-8", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.nullable_text, b"\"\xc0\xaf\"", out) },
    Defect { name: "lone surrogate", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.nullable_text, br#""\ud83d""#, out) },
    Defect { name: "raw control character", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.nullable_text, b"\"a\x01b\"", out) },
    Defect { name: "unknown escape", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.nullable_text, br#""C:\xampp""#, out) },
    // Columns missing, or of another type.
    Defect { name: "NOT NULL missing", fate: Fate::Dead, write: |v, _, out| rename(v, v.columns.text, out) },
    Defect { name: "NOT NULL is null", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.text, b"null", out) },
    Defect { name: "event time missing", fate: Fate::Dead, write: |v, _, out| rename(v, v.columns.time, out) },
    Defect { name: "number for text", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.text, b"42", out) },
    Defect { name: "text for a number", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.smallint, b"\"302\"", out) },
    Defect { name: "object for text", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.nullable_text, b"{\"$ne\":null}", out) },
    Defect { name: "list for a number", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.smallint, b"[302]", out) },
    Defect { name: "true for a number", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.smallint, b"true", out) },
    // Numbers that do not fit.
    Defect { name: "past 16 bits", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.smallint, b"32768", out) },
    Defect { name: "past 64 bits", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.bigint, b"9223372036854775808", out) },
    Defect { name: "no whole number", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.bigint, b"1.5", out) },
    Defect { name: "past a double", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.smallint, b"1e999", out) },
    Defect { name: "NaN", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.smallint, b"NaN", out) },
    Defect { name: "leading zero", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.smallint, b"0302", out) },
    // Clocks.
    Defect { name: "no such day", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.time, b"\"2026-02-30T00:00:00Z\"", out) },
    Defect { name: "time out of range", fate: Fate::Dead, write: |v, _, out| put(v, v.columns.time, b"99999999999999999", out) },
    Defect { name: "2099", fate: Fate::Future, write: |v, _, out| put(v, v.columns.time, &digits(EPOCH_2099_MS), out) },
    Defect { name: "an hour ahead", fate: Fate::Future, write: |v, _, out| put(v, v.columns.time, &digits(v.now_ms + 3_600_000), out) },
    Defect { name: "1970", fate: Fate::Late, write: |v, rng, out| put(v, v.columns.time, &digits(rng.between(0, EPOCH_1970_MS)), out) },
    // Odd, and legal.
    Defect { name: "escaped NUL", fate: Fate::Good, write: |v, _, out| put(v, v.columns.nullable_text, br#""a\u0000b""#, out) },
    Defect { name: "escaped surrogate pair", fate: Fate::Good, write: |v, _, out| put(v, v.columns.nullable_text, br#""\ud83d\ude80""#, out) },
    Defect { name: "escaped field name", fate: Fate::Good, write: |v, _, out| escaped_name(v, v.columns.text, out) },
    Defect { name: "SQL in a text", fate: Fate::Good, write: |v, _, out| put(v, v.columns.nullable_text, b"\"'; DROP TABLE clicks; --\"", out) },
    Defect { name: "HTML in a text", fate: Fate::Good, write: |v, _, out| put(v, v.columns.nullable_text, br#""<img src=x onerror=\"alert(1)\">""#, out) },
    Defect { name: "duplicate field", fate: Fate::Good, write: |v, _, out| { out.extend_from_slice(b"{\""); bytes(v.columns.smallint.as_bytes(), out); around(b"\":404,", &v.json[1..], b"", out) } },
    Defect { name: "unknown field", fate: Fate::Good, write: |v, _, out| around(&v.json[..v.json.len() - 1], b",\"added_later\":[{\"a\":[]},1e5,null]", b"}", out) },
    Defect { name: "nesting of 100", fate: Fate::Good, write: |v, _, out| nested(v, 100, out) },
    Defect { name: "spaces between tokens", fate: Fate::Good, write: |v, _, out| around(b" \t{ \r ", &v.json[1..], b" \t ", out) },
    Defect { name: "whole number with an exponent", fate: Fate::Good, write: |v, _, out| put(v, v.columns.smallint, b"3.02e2", out) },
    Defect { name: "time as text", fate: Fate::Good, write: |v, _, out| put(v, v.columns.time, &rfc_3339(v.now_ms), out) },
];

const NOT_JSON: &[&str] =
    &["GET / HTTP/1.1", "<xml/>", "event_id=1&ts=2", "hello", "\u{0}\u{1}\u{2}", "null", "-", "{\"a\"}", "{", "\"{}\""];

fn bytes(source: &[u8], out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(source);
    true
}

fn around(before: &[u8], middle: &[u8], after: &[u8], out: &mut Vec<u8>) -> bool {
    bytes(before, out);
    bytes(middle, out);
    bytes(after, out)
}

fn digits(number: i64) -> Vec<u8> {
    let mut out = Vec::new();
    write_int(&mut out, number);
    out
}

fn quoted(length: usize) -> Vec<u8> {
    let mut out = vec![b'a'; length + 2];
    out[0] = b'"';
    out[length + 1] = b'"';
    out
}

/// Where a field's name (with its quotes) and its value stand. Nothing is found in a record that lacks the field.
fn field(json: &[u8], name: &str) -> Option<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let pattern = [b"\"", name.as_bytes(), b"\":"].concat();
    let start = json.windows(pattern.len()).position(|window| window == pattern)?;
    let value = start + pattern.len();
    let (mut depth, mut in_text, mut escaped) = (0_u32, false, false);
    for (at, byte) in json.iter().enumerate().skip(value) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b',' | b'}' | b']' if depth == 0 => return Some((start..value - 1, value..at)),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The record with another value in a column, which is added if it was missing.
fn put(victim: &Victim<'_>, name: &str, value: &[u8], out: &mut Vec<u8>) -> bool {
    match field(victim.json, name) {
        Some((_, place)) => around(&victim.json[..place.start], value, &victim.json[place.end..], out),
        None => {
            bytes(&victim.json[..victim.json.len() - 1], out);
            around(b",\"", name.as_bytes(), b"\":", out);
            around(value, b"}", b"", out)
        }
    }
}

/// The record without a column: its field gets a name that no column has.
fn rename(victim: &Victim<'_>, name: &str, out: &mut Vec<u8>) -> bool {
    match field(victim.json, name) {
        Some((place, _)) => around(&victim.json[..place.start], b"\"renamed\"", &victim.json[place.end..], out),
        None => bytes(victim.json, out),
    }
}

/// The record with the first letter of a field's name written as an escape.
fn escaped_name(victim: &Victim<'_>, name: &str, out: &mut Vec<u8>) -> bool {
    let Some((place, _)) = field(victim.json, name) else { return bytes(victim.json, out) };
    let letter = victim.json[place.start + 1];
    let escape = [b'"', b'\\', b'u', b'0', b'0', hex(letter >> 4), hex(letter & 15)];
    around(&victim.json[..place.start], &escape, &victim.json[place.start + 2..], out)
}

fn hex(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

/// The record with a field no column reads, whose lists are nested until the whole is `depth` deep (the object counts as one).
fn nested(victim: &Victim<'_>, depth: usize, out: &mut Vec<u8>) -> bool {
    bytes(&victim.json[..victim.json.len() - 1], out);
    bytes(b",\"deep\":", out);
    out.resize(out.len() + depth - 1, b'[');
    out.resize(out.len() + depth - 1, b']');
    bytes(b"}", out)
}

/// Milliseconds since 1970 as a JSON string in RFC 3339, with a zone offset that is not zero. Civil-from-days as by Howard Hinnant.
fn rfc_3339(ms: i64) -> Vec<u8> {
    let local = ms + 2 * 3_600_000;
    let (days, in_day) = (local.div_euclid(86_400_000), local.rem_euclid(86_400_000));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second, milli) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1_000 % 60, in_day % 1_000);
    format!("\"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}+02:00\"").into_bytes()
}

#[cfg(test)]
#[path = "defects_tests.rs"]
mod tests;
