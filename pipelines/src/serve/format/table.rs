//! Aligned columns, as psql prints them: a head, a rule, rows, a count. Numbers stand to the right.
//!
//! Always: widths come from the first rows, so that a long answer streams; a later value that is wider pushes its line out.

use std::io::Write;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use tidemill_engine::error::Result;

use super::gone;
use super::value::{Look, is_null, write_text};

/// Rows that widths are taken from.
const MEASURED_ROWS: usize = 1000;

pub(super) struct Table<W: Write> {
    out: W,
    names: Vec<String>,
    right: Vec<bool>,
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
}

impl<W: Write> Table<W> {
    pub(super) fn new(schema: &SchemaRef, out: W) -> Self {
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        let right = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
        Self { out, names, right, waiting: Vec::new(), widths: None }
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| {
                let mut cell = String::new();
                if !is_null(column, row) {
                    write_text(column, row, Look::Person, &mut cell);
                }
                one_line(cell)
            });
            self.waiting.push(cells.collect());
            if self.widths.is_some() || self.waiting.len() >= MEASURED_ROWS {
                self.release()?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self, rows: u64) -> Result<()> {
        self.release()?;
        let count = if rows == 1 { "(1 row)\n".to_owned() } else { format!("({rows} rows)\n") };
        self.out.write_all(count.as_bytes()).and_then(|()| self.out.flush()).map_err(|error| gone(&error))
    }

    fn release(&mut self) -> Result<()> {
        let mut text = String::new();
        let widths = match self.widths.take() {
            Some(widths) => widths,
            None => {
                let width = |index: usize, name: &String| {
                    let cells = self.waiting.iter().filter_map(|row| row.get(index)).map(|cell| columns(cell));
                    cells.max().unwrap_or(0).max(columns(name))
                };
                let widths: Vec<usize> = self.names.iter().enumerate().map(|(index, name)| width(index, name)).collect();
                let head: Vec<String> = self.names.iter().zip(&widths).map(|(name, width)| centre(name, *width)).collect();
                text.push_str(format!(" {}", head.join(" | ")).trim_end());
                text.push('\n');
                text.push_str(&widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+"));
                text.push('\n');
                widths
            }
        };
        for row in self.waiting.drain(..) {
            let cells = row.iter().zip(&widths).zip(&self.right).map(|((cell, width), right)| {
                let pad = " ".repeat(width.saturating_sub(columns(cell)));
                if *right { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
            });
            text.push_str(format!(" {}", cells.collect::<Vec<_>>().join(" | ")).trim_end());
            text.push('\n');
        }
        self.widths = Some(widths);
        self.out.write_all(text.as_bytes()).map_err(|error| gone(&error))
    }
}

/// Places a terminal needs for a text: one a character, two for those that are drawn wide.
fn columns(text: &str) -> usize {
    let wide = |c: char| matches!(u32::from(c), 0x1100..=0x115F | 0x2E80..=0xA4CF | 0xAC00..=0xD7A3 | 0xF900..=0xFAFF | 0xFE30..=0xFE6F | 0xFF00..=0xFF60 | 0xFFE0..=0xFFE6 | 0x1F300..=0x1FAFF | 0x20000..=0x3FFFD);
    text.chars().map(|c| if wide(c) { 2 } else { 1 }).sum()
}

fn centre(name: &str, width: usize) -> String {
    let free = width.saturating_sub(columns(name));
    format!("{}{name}{}", " ".repeat(free / 2), " ".repeat(free - free / 2))
}

/// Line breaks and other control characters as escapes, so that a row stays a line and a value can't drive the terminal.
fn one_line(cell: String) -> String {
    if !cell.contains(char::is_control) {
        return cell;
    }
    cell.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}
