//! Rows as text for people and programs: `table`, `csv`, `json` (one object a line) and `arrow` (an IPC stream).
//!
//! Always: every value keeps all its digits; NULL and the empty string differ wherever the format can say so; timestamps are UTC. A printer
//! streams: memory does not grow with the answer. The command writes answers of `Serve` with it.

mod csv;
mod table;
mod value;

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::writer::StreamWriter;
use tidemill_engine::error::{Error, Result};

pub use value::{write_json, write_json_row};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Aligned columns and a row count.
    #[default]
    Table,
    /// RFC 4180 with a header; NULL is empty, an empty string is `""`.
    Csv,
    /// One object a line.
    Json,
    /// An Arrow IPC stream.
    Arrow,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "table" => Ok(Self::Table),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            "arrow" => Ok(Self::Arrow),
            _ => Err(Error::refused(format!("there is no format {name}: use table, csv, json or arrow"))),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Arrow => "arrow",
        })
    }
}

/// Writes one answer.
pub struct Printer<W: Write> {
    kind: Kind<W>,
    rows: u64,
}

enum Kind<W: Write> {
    Table(table::Table<W>),
    Csv(W),
    Json(W),
    Arrow(Box<StreamWriter<W>>),
}

impl<W: Write> Printer<W> {
    /// Begins an answer; what has a header writes it.
    pub fn new(format: Format, schema: &SchemaRef, mut out: W) -> Result<Self> {
        let kind = match format {
            Format::Table => Kind::Table(table::Table::new(schema, out)),
            Format::Csv => {
                out.write_all(csv::header(schema).as_bytes()).map_err(|error| gone(&error))?;
                Kind::Csv(out)
            }
            Format::Json => Kind::Json(out),
            Format::Arrow => Kind::Arrow(Box::new(StreamWriter::try_new(out, schema)?)),
        };
        Ok(Self { kind, rows: 0 })
    }

    /// Writes rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        match &mut self.kind {
            Kind::Table(table) => table.write(batch),
            Kind::Csv(out) => text(out, batch, csv::row),
            Kind::Json(out) => {
                let names: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
                text(out, batch, |batch, row, line| {
                    write_json_row(&names, batch, row, line);
                    line.push('\n');
                })
            }
            Kind::Arrow(out) => Ok(out.write(batch)?),
        }
    }

    /// Ends the answer; says how many rows there were.
    pub fn finish(self) -> Result<u64> {
        match self.kind {
            Kind::Table(table) => table.finish(self.rows)?,
            Kind::Csv(mut out) | Kind::Json(mut out) => out.flush().map_err(|error| gone(&error))?,
            Kind::Arrow(mut out) => out.finish()?,
        }
        Ok(self.rows)
    }
}

fn text(out: &mut impl Write, batch: &RecordBatch, line: impl Fn(&RecordBatch, usize, &mut String)) -> Result<()> {
    let mut lines = String::new();
    for row in 0..batch.num_rows() {
        line(batch, row, &mut lines);
        if lines.len() > 64 * 1024 {
            out.write_all(lines.as_bytes()).map_err(|error| gone(&error))?;
            lines.clear();
        }
    }
    out.write_all(lines.as_bytes()).map_err(|error| gone(&error))
}

fn gone(error: &io::Error) -> Error {
    Error::external(format!("writing the answer: {error}"))
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
