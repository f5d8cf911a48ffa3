//! CSV (RFC 4180) with a header, each record rendered as the JSON object that says the same.
//!
//! Always: an unquoted empty field is NULL (left out), a quoted empty one is ''; a record may span lines inside quotes; a record with more or
//! fewer fields than the header is a dead letter. Refused: a header without a NOT NULL column, or with a name twice.

use std::path::Path;

use tidemill_engine::error::{Error, Result};

use super::RECORD_BYTES_MAX;
use super::lines::{Line, Lines, Reader, without_feed};
use crate::json::Column;

pub(super) struct Csv {
    reader: Reader,
    /// The header as JSON keys with their colons.
    keys: Vec<Vec<u8>>,
    record: Vec<u8>,
    fields: Fields,
    json: Vec<u8>,
}

/// The fields of one record, unquoted, in one buffer.
#[derive(Default)]
struct Fields {
    bytes: Vec<u8>,
    /// Where each ends in `bytes`, and whether it was quoted.
    ends: Vec<(usize, bool)>,
}

impl Csv {
    pub(super) fn open(path: &Path, columns: &[Column]) -> Result<Self> {
        let mut reader = Reader::open(path)?;
        let (mut record, mut fields) = (Vec::new(), Fields::default());
        append_record(&mut reader, &mut record)?;
        let header = record.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&record);
        fields.split(trimmed(header)).map_err(|detail| Error::refused(format!("CSV header: {detail}")))?;
        let names = fields.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>();
        for (at, name) in names.iter().enumerate() {
            if names.iter().take(at).any(|before| before == name) {
                return Err(Error::refused(format!("CSV header: {name:?} stands there twice")));
            }
        }
        if let Some(column) =
            columns.iter().find(|column| !column.nullable && !column.path.first().is_some_and(|name| names.contains(name)))
        {
            return Err(Error::refused(format!(
                "the CSV header has no {:?}, but the column is NOT NULL: it has {}",
                column.name,
                names.join(", ")
            )));
        }
        let keys = names.iter().map(|name| json_key(name)).collect();
        Ok(Self { reader, keys, record, fields, json: Vec::new() })
    }
}

/// How many records a file has below its header.
pub(super) fn count(path: &Path) -> Result<i64> {
    let (mut reader, mut record, mut records) = (Reader::open(path)?, Vec::new(), 0);
    while append_record(&mut reader, &mut record)? {
        record.clear();
        records += 1;
    }
    Ok((records - 1).max(0))
}

impl Lines for Csv {
    fn next(&mut self) -> Result<Option<Line<'_>>> {
        self.record.clear();
        if !append_record(&mut self.reader, &mut self.record)? {
            return Ok(None);
        }
        let raw = trimmed(&self.record);
        if raw.len() > RECORD_BYTES_MAX {
            return Ok(Some(Line::Bad {
                raw,
                reason: "too_long",
                detail: format!("a record of {} bytes, {RECORD_BYTES_MAX} are allowed", raw.len()),
            }));
        }
        if raw.is_empty() {
            return Ok(Some(Line::Bad { raw, reason: "empty", detail: "the line is empty".into() }));
        }
        if let Err(detail) = self.fields.split(raw) {
            return Ok(Some(Line::Bad { raw, reason: "csv", detail }));
        }
        if self.fields.ends.len() != self.keys.len() {
            let detail = format!("{} fields, but the header has {}", self.fields.ends.len(), self.keys.len());
            return Ok(Some(Line::Bad { raw, reason: "csv", detail }));
        }
        self.json.clear();
        self.json.push(b'{');
        for (key, (value, quoted)) in self.keys.iter().zip(self.fields.iter()) {
            if value.is_empty() && !quoted {
                continue;
            }
            if self.json.len() > 1 {
                self.json.push(b',');
            }
            self.json.extend_from_slice(key);
            append_quoted(&mut self.json, value);
        }
        self.json.push(b'}');
        Ok(Some(Line::Json { json: &self.json, raw }))
    }
}

/// Where the bytes of a record have led to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote inside quotes: the end of the field, or the first half of `""`.
    Closed,
}

/// Appends lines until no quoted field is open. A quote inside an unquoted field opens nothing (and makes the record bad), so a stray one
/// costs its own record only.
fn append_record(reader: &mut Reader, record: &mut Vec<u8>) -> Result<bool> {
    let mut place = Place::FieldStart;
    loop {
        let before = record.len();
        if !reader.append_line(record)? {
            return Ok(!record.is_empty());
        }
        for byte in record.get(before..).unwrap_or_default() {
            place = match (place, byte) {
                (Place::FieldStart | Place::Closed, b'"') => Place::Quoted,
                (Place::Quoted, b'"') => Place::Closed,
                (Place::Quoted, _) => Place::Quoted,
                (_, b',') => Place::FieldStart,
                _ => Place::Plain,
            };
        }
        if place != Place::Quoted {
            return Ok(true);
        }
    }
}

fn trimmed(record: &[u8]) -> &[u8] {
    let record = without_feed(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

fn json_key(name: &str) -> Vec<u8> {
    let mut key = Vec::new();
    append_quoted(&mut key, name.as_bytes());
    key.push(b':');
    key
}

/// Writes bytes that should be UTF-8 as a JSON string; the decoder judges whether they are.
fn append_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out.push(b'"');
}

impl Fields {
    fn iter(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(end, _)| *end));
        starts.zip(&self.ends).map(|(start, (end, quoted))| (self.bytes.get(start..*end).unwrap_or_default(), *quoted))
    }

    /// Splits one record; the error says what is wrong with its quotes.
    fn split(&mut self, record: &[u8]) -> std::result::Result<(), String> {
        self.bytes.clear();
        self.ends.clear();
        let mut rest = record;
        loop {
            rest = match rest.strip_prefix(b"\"") {
                Some(inside) => self.quoted(inside, record.len())?,
                None => {
                    let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
                    let (field, rest) = rest.split_at(end);
                    if field.contains(&b'"') {
                        return Err(format!("a quote inside an unquoted field (number {})", self.ends.len() + 1));
                    }
                    self.bytes.extend_from_slice(field);
                    self.ends.push((self.bytes.len(), false));
                    rest
                }
            };
            match rest.split_first() {
                None => return Ok(()),
                Some((_, after)) => rest = after,
            }
        }
    }

    /// Takes a quoted field, whose opening quote is gone; what is left begins with a comma or is empty.
    fn quoted<'a>(&mut self, mut inside: &'a [u8], length: usize) -> std::result::Result<&'a [u8], String> {
        loop {
            let end = inside.iter().position(|byte| *byte == b'"').ok_or_else(|| format!("a quote is not closed in {length} bytes"))?;
            let (text, after) = inside.split_at(end);
            self.bytes.extend_from_slice(text);
            match after {
                [_, b'"', more @ ..] => {
                    self.bytes.push(b'"');
                    inside = more;
                }
                [_] | [_, b',', ..] => {
                    self.ends.push((self.bytes.len(), true));
                    return Ok(after.get(1..).unwrap_or_default());
                }
                _ => return Err(format!("something follows the closing quote of field number {}", self.ends.len() + 1)),
            }
        }
    }
}
