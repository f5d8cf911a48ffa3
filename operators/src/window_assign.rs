//! `WindowAssign`: adds `window_start` and `window_end` to rows, for plans that use windowed rows without GROUP BY.
//!
//! Always: one row a window (a tumble: one), windows ascending; a source row's missed windows are dropped and reported, and its
//! tokens stay with its first copy. Keeps nothing. Called for `SELECT … FROM tumble(…)` and for top-k over it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, Tokens};

use crate::judge::Judge;

/// See the module doc.
pub struct WindowAssign {
    judge: Judge,
    time: usize,
    schema: SchemaRef,
}

impl WindowAssign {
    /// Assigns by input column `time`; `schema` is the input's columns, then `window_start` and `window_end`.
    pub fn new(judge: Judge, time: usize, schema: SchemaRef) -> Self {
        Self { judge, time, schema }
    }

    /// Tokens for copies of rows: with the first copy of each.
    fn tokens(tokens: &Tokens, first: &[bool], at: &[u32]) -> Tokens {
        let of = |source| at.iter().zip(first).map(|(row, first)| if *first { tokens.of(source, *row as usize) } else { 0 }).collect();
        match tokens {
            Tokens::Each(source) if first.iter().all(|first| *first) => Tokens::Each(*source),
            Tokens::Each(source) => Tokens::Counts(vec![(*source, of(*source))]),
            Tokens::Counts(columns) => Tokens::Counts(columns.iter().map(|(source, _)| (*source, of(*source))).collect()),
        }
    }
}

impl Operator for WindowAssign {
    fn name(&self) -> &'static str {
        "window_assign"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        let times =
            rows.batch.columns().get(self.time).ok_or_else(|| Error::failed("a window over a column that its input does not have"))?;
        let entered = self.judge.assign(&rows, times, out)?;
        let all = || 0..rows.len() as u32;
        let mut windows = vec![None; rows.len()];
        for entered in &entered {
            let mut enter = |row: u32| windows[row as usize] = Some(entered.entry);
            match &entered.rows {
                Some(rows) => rows.iter().for_each(|row| enter(*row)),
                None => all().for_each(enter),
            }
        }
        let (mut at, mut first, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (row, entry) in all().zip(&windows) {
            let Some((enter, last)) = entry else { continue };
            for k in *enter..=*last {
                at.push(row);
                first.push(k == *enter);
                starts.push(self.judge.windows().start(k));
                ends.push(self.judge.windows().end(k));
            }
        }
        let tokens = Self::tokens(&rows.tokens, &first, &at);
        let taken = rows.take(&UInt32Array::from(at))?;
        let mut columns = taken.batch.columns().to_vec();
        columns.extend([starts, ends].map(|times| Arc::new(TimestampMicrosecondArray::from(times)) as ArrayRef));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        out.emit(Rows { tokens, ..taken.with_batch(batch) });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use crate::windows::Windows;
    use arrow::datatypes::{Field, Schema};

    #[test]
    fn a_hop_copies_a_row_for_each_window_it_did_not_miss() {
        let mut fields: Vec<_> = log_schema().fields().iter().cloned().collect();
        fields.extend(["window_start", "window_end"].map(|name| Arc::new(Field::new(name, timestamp(), false))));
        let windows = Windows::hop(5, 10, 0).expect("windows");
        let mut operator = WindowAssign::new(Judge::new(windows, 0), 2, Arc::new(Schema::new(fields)));
        let record = |offset, time, watermark| Record { partition: 0, offset, key: Some(offset), name: None, time, value: None, watermark };
        let rows = source_rows(&[record(0, Some(7), i64::MIN), record(1, Some(7), 10), record(2, None, 10), record(3, Some(2), 99)]);
        let mut out = Output::default();
        operator.on_rows(0, rows, &mut out).expect("assigns");
        let rows = &out.rows[0];
        let lines: Vec<String> = (0..rows.len()).map(|row| line(&rows.batch, row)).collect();
        assert_eq!(lines, ["0|NULL|7|NULL|0|10", "0|NULL|7|NULL|5|15", "1|NULL|7|NULL|5|15"]);
        assert_eq!((rows.tokens.of(0, 0), rows.tokens.of(0, 1), rows.tokens.of(0, 2)), (1, 0, 1));
        assert_eq!((out.counts.of(0).late, out.counts.of(0).filtered), (1, 1));
        let missed: Vec<_> = out.late.iter().map(|event| (event.offset, event.window_start)).collect();
        assert_eq!(missed, [(1, Some(0)), (3, Some(-5)), (3, Some(0))]);
    }
}
