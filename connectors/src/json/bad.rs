//! Why a payload is a dead letter: a stable reason, an exact sentence and the byte it is about.
//!
//! Inside the decoder a fault is two words ([`Fault`]) and costs no allocation; the sentence is written only when a record turns out
//! bad. Nothing here decides whether it is. Called by `walk` and the decoder.

use super::plan::Plan;
use super::skip;
use std::fmt;

/// Why a payload is no record. The text of [`Reason::as_str`] is stable: it is a column of `dead_letters`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No bytes, or only white space.
    Empty,
    /// The payload opens with a byte order mark.
    ByteOrderMark,
    /// The bytes are no UTF-8.
    InvalidUtf8,
    /// The bytes break the grammar of JSON.
    NotJson,
    /// The payload ends inside its JSON value.
    Truncated,
    /// A JSON value, but no object.
    NotObject,
    /// Something follows the object.
    TrailingBytes,
    /// Objects and arrays are nested deeper than allowed.
    Depth,
    /// A `\u` escape is half of a surrogate pair.
    Surrogate,
    /// The payload is longer than 2 GiB.
    Size,
    /// A field that no column names, where those are rejected.
    UnknownField,
    /// A NOT NULL column has no field.
    Missing,
    /// A NOT NULL column is null.
    Null,
    /// A JSON value of another type than the column's.
    Type,
    /// A number the column can't hold exactly (or, for REAL and DOUBLE, at all).
    Range,
    /// No RFC 3339 time, no whole number of the unit, or outside what the column can hold.
    Timestamp,
    /// No ISO date.
    Date,
    /// No base64 text.
    Base64,
}

impl Reason {
    /// The stable lower-case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::ByteOrderMark => "byte_order_mark",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::NotJson => "not_json",
            Self::Truncated => "truncated",
            Self::NotObject => "not_object",
            Self::TrailingBytes => "trailing_bytes",
            Self::Depth => "depth",
            Self::Surrogate => "surrogate",
            Self::Size => "size",
            Self::UnknownField => "unknown_field",
            Self::Missing => "missing",
            Self::Null => "null",
            Self::Type => "type",
            Self::Range => "range",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Base64 => "base64",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One bad record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// The stable reason.
    pub reason: Reason,
    /// One sentence for a person, with the column where there is one and the byte.
    pub detail: String,
    /// The byte of the payload it is about; the payload's length where something is missing.
    pub offset: usize,
}

/// A fault on its way up, before anybody knows whether it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub reason: Reason,
    pub offset: usize,
}

/// The text breaks the grammar at `offset`: at its end it is cut off, before that it is wrong.
#[cold]
#[inline(never)]
pub(super) fn grammar(bytes: &[u8], offset: usize) -> Fault {
    if offset >= bytes.len() { Fault { reason: Reason::Truncated, offset: bytes.len() } } else { Fault { reason: Reason::NotJson, offset } }
}

/// Longest piece of a payload a sentence quotes.
const QUOTE_BYTES_MAX: usize = 60;

/// The sentence for a fault of the text itself.
#[cold]
pub(super) fn of_text(bytes: &[u8], fault: Fault) -> Bad {
    let Fault { reason, offset } = fault;
    let what = match reason {
        Reason::Empty => "the payload is empty".to_string(),
        Reason::ByteOrderMark => "the payload starts with a byte order mark".to_string(),
        Reason::InvalidUtf8 => "no valid UTF-8".to_string(),
        Reason::Truncated => "the payload ends inside a JSON value".to_string(),
        Reason::NotObject => "the payload is JSON but no object".to_string(),
        Reason::TrailingBytes => format!("{} follows the object", found(bytes, offset)),
        Reason::Depth => "objects and arrays are nested too deep".to_string(),
        Reason::Surrogate => "a \\u escape that is half of a surrogate pair".to_string(),
        Reason::Size => "the payload is longer than 2 GiB".to_string(),
        Reason::UnknownField => format!("no column names the field {}", quote(bytes, offset)),
        _ => format!("no JSON: {} is not allowed here", found(bytes, offset)),
    };
    Bad { reason, detail: format!("{what} at byte {offset}"), offset }
}

/// The sentence for a value that its column can't take.
#[cold]
pub(super) fn of_column(plan: &Plan, slot: usize, bytes: &[u8], fault: Fault) -> Bad {
    let Fault { reason, offset } = fault;
    let (label, kind) = plan.uses.get(slot).map_or(("?", String::new()), |of| (of.label.as_str(), of.kind.sql()));
    let what = match reason {
        Reason::Missing => "no such field, but the column is NOT NULL".to_string(),
        Reason::Null => "null, but the column is NOT NULL".to_string(),
        Reason::Type => format!("{} is {}, not {kind}", quote(bytes, offset), json_type(bytes, offset)),
        Reason::Base64 => format!("{} is no base64", quote(bytes, offset)),
        Reason::Date | Reason::Timestamp => format!("{} is no {kind}", quote(bytes, offset)),
        _ => format!("{} does not fit {kind}", quote(bytes, offset)),
    };
    Bad { reason, detail: format!("column {label}: {what} at byte {offset}"), offset }
}

/// The JSON value at `offset`, shortened.
fn quote(bytes: &[u8], offset: usize) -> String {
    let end = skip::value(bytes, offset, 0, skip::DEPTH_MAX).unwrap_or(offset);
    let text = bytes.get(offset..end).unwrap_or_default();
    let shown = text.get(..QUOTE_BYTES_MAX).unwrap_or(text);
    let shown = shown.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    if shown.len() < text.len() { format!("{shown}…") } else { shown.to_string() }
}

fn json_type(bytes: &[u8], offset: usize) -> &'static str {
    match bytes.get(offset) {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// The character at `offset`, readable.
fn found(bytes: &[u8], offset: usize) -> String {
    let rest = bytes.get(offset..).unwrap_or_default();
    let rest = rest.get(..4).unwrap_or(rest);
    let first = rest.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
    first.map_or_else(|| "the end".to_string(), |c| format!("{c:?}"))
}
