//! NDJSON: one JSON object a line.
//!
//! Always: a line is what lies before a line feed, or after the last one unless that is nothing; so an empty line in between is a record
//! (a dead letter of reason `empty`), and what follows the last line feed is not.

use std::path::Path;

use tidemill_engine::error::Result;

use super::RECORD_BYTES_MAX;
use super::lines::{Line, Lines, Reader, without_feed};

pub(super) struct Ndjson {
    reader: Reader,
    line: Vec<u8>,
}

impl Ndjson {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self { reader: Reader::open(path)?, line: Vec::new() })
    }
}

/// How many lines a file has.
pub(super) fn count(path: &Path) -> Result<i64> {
    let (mut reader, mut line, mut lines) = (Reader::open(path)?, Vec::new(), 0);
    while reader.append_line(&mut line)? {
        line.clear();
        lines += 1;
    }
    Ok(lines)
}

impl Lines for Ndjson {
    fn next(&mut self) -> Result<Option<Line<'_>>> {
        self.line.clear();
        if !self.reader.append_line(&mut self.line)? {
            return Ok(None);
        }
        let raw = without_feed(&self.line);
        if raw.len() > RECORD_BYTES_MAX {
            return Ok(Some(Line::Bad {
                raw,
                reason: "too_long",
                detail: format!("a line of {} bytes, {RECORD_BYTES_MAX} are allowed", raw.len()),
            }));
        }
        Ok(Some(Line::Json { json: raw, raw }))
    }
}
