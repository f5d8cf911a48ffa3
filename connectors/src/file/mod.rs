//! Files as a bounded source: NDJSON, CSV and Parquet, one file or a folder of them.
//!
//! Always: one file is one partition, numbered in the order of names; an offset counts its records from 0; every record goes through the
//! JSON decoder, so a value is good or bad by the same rules everywhere. A file is read up to the length it had when its reader opened
//! it. Records have no key and no timestamp; `_topic` is the path. Not here: compressed files, sub-folders, object stores.

mod csv;
mod lines;
mod ndjson;
mod parquet;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_engine::error::{Error, Result};
use tidemill_engine::rows::RawRecord;
use tidemill_engine::source::{Limits, Polled, Source};

use crate::OpenSource;
use crate::arena::Arena;
use crate::format::{DecodeConfig, RecordDecoder};
use lines::{Line, Lines};

/// A longer record (an NDJSON line, a CSV record) is a dead letter of reason `too_long`.
pub const RECORD_BYTES_MAX: usize = 16 << 20;
/// At a record longer than this the run stops: it would have to be held in memory whole.
pub const RECORD_BYTES_STOP: usize = 256 << 20;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// One JSON object a line.
    Json,
    /// RFC 4180 with a header. An empty field is NULL, a quoted empty one is ''.
    Csv,
    /// Columns by name.
    Parquet,
}

impl FileFormat {
    /// Reads the source's option `format`.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "parquet" => Ok(Self::Parquet),
            _ => Err(Error::refused(format!("format {name:?}: a file is json (one object a line), csv or parquet"))),
        }
    }

    fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Json => &["ndjson", "json", "jsonl"],
            Self::Csv => &["csv"],
            Self::Parquet => &["parquet"],
        }
    }
}

/// Which files.
#[derive(Debug, Clone)]
pub struct FileConfig {
    /// As the user wrote it; `_topic` shows it.
    pub path: PathBuf,
    /// What they hold.
    pub format: FileFormat,
    /// Partition p is file p: see `partitions`.
    pub files: Vec<PathBuf>,
}

impl FileConfig {
    /// Finds the files: `path` itself, or those in it that have one of the format's endings, in the order of their names. Refused: a path
    /// that is not there, a folder without such files.
    pub fn find(path: &Path, format: FileFormat) -> Result<Self> {
        let shown = path.display();
        let metadata = std::fs::metadata(path).map_err(|error| Error::refused(format!("{shown}: {error}")))?;
        let mut files = vec![path.to_path_buf()];
        if metadata.is_dir() {
            let ends = |file: &PathBuf| file.extension().and_then(|end| end.to_str()).is_some_and(|end| format.extensions().contains(&end));
            let hidden = |file: &PathBuf| file.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
            let listed = std::fs::read_dir(path).map_err(|error| Error::external(format!("{shown}: {error}")))?;
            files = listed
                .map(|entry| Ok(entry?.path()))
                .collect::<std::io::Result<_>>()
                .map_err(|error| Error::external(format!("{shown}: {error}")))?;
            files.retain(|file| file.is_file() && ends(file) && !hidden(file));
            files.sort();
            if files.is_empty() {
                return Err(Error::refused(format!("{shown} has no file that ends in .{}", format.extensions().join(", ."))));
            }
        }
        Ok(Self { path: path.to_path_buf(), format, files })
    }

    /// How many there are.
    pub fn partitions(&self) -> usize {
        self.files.len()
    }

    /// Where each ends now: its number of records. (Reads the files, all of them.)
    pub fn end_offsets(&self) -> Result<Vec<(i32, i64)>> {
        let count = |file: &PathBuf| {
            match self.format {
                FileFormat::Json => ndjson::count(file),
                FileFormat::Csv => csv::count(file),
                FileFormat::Parquet => parquet::count(file),
            }
            .map_err(|error| error.context(file.display()))
        };
        self.files.iter().zip(0..).map(|(file, partition)| Ok((partition, count(file)?))).collect()
    }
}

/// What opens the readers. Refused: columns that the format can't have.
pub fn file_source(config: FileConfig, decode: DecodeConfig) -> Result<OpenSource> {
    let mut decode = decode;
    match config.format {
        FileFormat::Json => {}
        // Cells are text.
        FileFormat::Csv => decode.options.coerce = true,
        FileFormat::Parquet => decode.columns.iter_mut().for_each(|column| column.unit = crate::json::TimeUnitOption::Us),
    }
    if config.format != FileFormat::Json
        && let Some(column) = decode.columns.iter().find(|column| column.path.len() != 1)
    {
        return Err(Error::refused(format!("column {:?}: json_path with more than one step is for format 'json'", column.name)));
    }
    RecordDecoder::new("", &decode)?;
    Ok(Arc::new(move || Ok(Box::new(FileSource::new(config.clone(), decode.clone())?))))
}

/// One reader.
pub struct FileSource {
    config: FileConfig,
    decode: DecodeConfig,
    decoder: RecordDecoder,
    files: Vec<Reading>,
}

struct Reading {
    partition: i32,
    lines: Box<dyn Lines>,
    /// The offset of the record that `lines` gives next.
    at: i64,
    next: i64,
    ended: bool,
}

impl FileSource {
    fn new(config: FileConfig, decode: DecodeConfig) -> Result<Self> {
        let decoder = RecordDecoder::new(&config.path.to_string_lossy(), &decode)?;
        Ok(Self { config, decode, decoder, files: Vec::new() })
    }

    fn open(&self, partition: i32) -> Result<Box<dyn Lines>> {
        let file = usize::try_from(partition).ok().and_then(|at| self.config.files.get(at));
        let file = file.ok_or_else(|| Error::failed(format!("{}: there is no file number {partition}", self.config.path.display())))?;
        let opened: Result<Box<dyn Lines>> = match self.config.format {
            FileFormat::Json => ndjson::Ndjson::open(file).map(|lines| Box::new(lines) as _),
            FileFormat::Csv => csv::Csv::open(file, &self.decode.columns).map(|lines| Box::new(lines) as _),
            FileFormat::Parquet => parquet::ParquetRows::open(file, &self.decode.columns).map(|lines| Box::new(lines) as _),
        };
        opened.map_err(|error| error.context(file.display()))
    }
}

impl Source for FileSource {
    fn assign(&mut self, partitions: &[(i32, i64)]) -> Result<()> {
        self.files = partitions
            .iter()
            .map(|(partition, next)| Ok(Reading { partition: *partition, lines: self.open(*partition)?, at: 0, next: *next, ended: false }))
            .collect::<Result<_>>()?;
        Ok(())
    }

    fn poll(&mut self, partition: i32, limits: Limits) -> Result<Polled> {
        let path = self.config.path.display();
        let from = self.files.iter_mut().find(|each| each.partition == partition);
        let from = from.ok_or_else(|| Error::failed(format!("{path}: partition {partition} is not assigned to this reader")))?;
        let mut raw = Arena::default();
        self.decoder.begin(partition);
        while self.decoder.records() < limits.rows_max && self.decoder.bytes() < limits.bytes_max && from.next < limits.end && !from.ended {
            let line = from.lines.next().map_err(|error| error.context(format!("{path}, file {partition}, record {}", from.at)))?;
            let Some(line) = line else {
                from.ended = true;
                break;
            };
            let offset = from.at;
            from.at += 1;
            if offset < from.next {
                continue;
            }
            from.next = from.at;
            let record = |payload| RawRecord { key: None, payload: Some(payload), timestamp_ms: None };
            match line {
                Line::Json { json, raw: bytes } => {
                    // The decoder sees the JSON, the letters and the raw table the bytes of the file.
                    self.decoder.push_as(offset, record(bytes), json);
                    raw.push(offset, record(bytes));
                }
                Line::Bad { raw: bytes, reason, detail } => {
                    self.decoder.push_bad(offset, record(bytes), reason, detail);
                    raw.push(offset, record(bytes));
                }
            }
        }
        let at_end = from.ended;
        let read = if self.decoder.records() > 0 { Some(self.decoder.finish(from.next, Arc::new(raw))?) } else { None };
        Ok(Polled { read, at_end })
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
