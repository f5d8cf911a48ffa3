//! What every kind of file gives: one record after the other, as a JSON object and as the bytes it was.
//!
//! Always: lengths are bounded (`RECORD_BYTES_MAX`, `RECORD_BYTES_STOP`). Implemented by `ndjson`, `csv`, `parquet`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Take};
use std::path::Path;

use tidemill_engine::error::{Error, Result};

use super::RECORD_BYTES_STOP;

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// One record.
pub(super) enum Line<'a> {
    /// To be decoded.
    Json {
        /// One object.
        json: &'a [u8],
        /// What stood in the file.
        raw: &'a [u8],
    },
    /// No record.
    Bad {
        /// What stood in the file.
        raw: &'a [u8],
        /// The dead letter's.
        reason: &'static str,
        /// The dead letter's.
        detail: String,
    },
}

/// A file's records in order.
pub(super) trait Lines: Send {
    /// The next one; `None` at the end.
    fn next(&mut self) -> Result<Option<Line<'_>>>;
}

/// A file read line by line, as long as it was when it was opened.
pub(super) struct Reader(BufReader<Take<File>>);

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self(BufReader::with_capacity(CHUNK_BYTES, file.take(length))))
    }

    /// Appends the next line with its line feed (which the last one may lack); false at the end.
    pub(super) fn append_line(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        let room = RECORD_BYTES_STOP.saturating_sub(line.len());
        let got = (&mut self.0).take(room as u64 + 1).read_until(b'\n', line)?;
        if got > room {
            return Err(Error::failed(format!("a record is longer than {} MB", RECORD_BYTES_STOP >> 20)));
        }
        Ok(got > 0)
    }
}

/// The line without its line feed.
pub(super) fn without_feed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}
