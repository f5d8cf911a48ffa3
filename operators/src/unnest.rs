//! `Unnest`: a row for each element of its lists. Stateless: what a row becomes depends on that row alone.
//!
//! Always: elements keep their order, shorter lists of a row are filled up with NULL; a row without elements is dropped and settled as
//! filtered, else its first copy carries its tokens. Copies keep the row's origin, so a window judges each of them as it would the row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::SchemaRef;
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, Tokens};

use crate::tokens::settle_row;

/// What an output column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// An input column, the same for every copy of a row.
    Column(usize),
    /// The elements of an input column of lists.
    Elements(usize),
}

/// See the module doc.
pub struct Unnest {
    from: Vec<From>,
    /// A NULL list gives one row with NULL.
    keeps_null: bool,
    schema: SchemaRef,
}

impl Unnest {
    /// One output column for each of `from`, named and typed by `schema`.
    pub fn new(from: Vec<From>, keeps_null: bool, schema: SchemaRef) -> Self {
        Self { from, keeps_null, schema }
    }

    fn lists<'a>(&self, rows: &'a Rows) -> Result<Vec<&'a ListArray>> {
        let list = |index: usize| rows.batch.columns().get(index).and_then(|column| column.as_list_opt::<i32>());
        let indexes = self.from.iter().filter_map(|from| if let From::Elements(index) = from { Some(*index) } else { None });
        indexes.map(|index| list(index).ok_or_else(|| Error::failed("unnest was planned over a column that is no list"))).collect()
    }
}

/// The tokens of copies: the first of each row has them.
fn tokens(tokens: &Tokens, at: &[u32]) -> Tokens {
    let of = |source| {
        let mut before = None;
        at.iter().map(|row| if before.replace(*row) == Some(*row) { 0 } else { tokens.of(source, *row as usize) }).collect()
    };
    match tokens {
        Tokens::Each(source) => Tokens::Counts(vec![(*source, of(*source))]),
        Tokens::Counts(columns) => Tokens::Counts(columns.iter().map(|(source, _)| (*source, of(*source))).collect()),
    }
}

impl Operator for Unnest {
    fn name(&self) -> &'static str {
        "unnest"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        let lists = self.lists(&rows)?;
        let length = |list: &ListArray, row: usize| if list.is_null(row) { 0 } else { list.value_length(row) as usize };
        let mut at: Vec<u32> = Vec::new();
        let mut elements: Vec<Vec<Option<u32>>> = vec![Vec::new(); lists.len()];
        for row in 0..rows.len() {
            let longest = lists.iter().map(|list| length(list, row)).max().unwrap_or(0);
            let null = self.keeps_null && longest == 0 && lists.iter().all(|list| list.is_null(row));
            let copies = if null { 1 } else { longest };
            if copies == 0 {
                settle_row(&mut out.counts, Fate::Filtered, &rows.tokens, row);
            }
            at.extend(std::iter::repeat_n(row as u32, copies));
            for (places, list) in elements.iter_mut().zip(&lists) {
                let first = list.offsets().get(row).copied().unwrap_or(0) as u32;
                let held = length(list, row) as u32;
                places.extend((0..copies as u32).map(|copy| (copy < held).then_some(first + copy)));
            }
        }
        let tokens = tokens(&rows.tokens, &at);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.from.len());
        let count = at.len();
        let at = UInt32Array::from(at);
        let taken = rows.take(&at)?;
        let mut unnested = lists.iter().zip(elements);
        for (from, field) in self.from.iter().zip(self.schema.fields()) {
            let column = match from {
                From::Column(index) => taken.batch.columns().get(*index).cloned(),
                From::Elements(_) => match unnested.next() {
                    Some((list, places)) => Some(take(list.values(), &UInt32Array::from(places), None)?),
                    None => None,
                },
            };
            let column = column.ok_or_else(|| Error::failed("unnest was planned over a column that its input does not have"))?;
            columns.push(if column.data_type() == field.data_type() { column } else { cast(&column, field.data_type())? });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        out.emit(Rows { tokens, ..taken.with_batch(batch) });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    fn unnested(keeps_null: bool) -> (Rows, Output) {
        let first = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
            Some(vec![Some(1), None, Some(3)]),
            None,
            Some(vec![]),
            Some(vec![Some(4)]),
        ]);
        let second =
            ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(10)]), None, None, Some(vec![Some(40), Some(41)])]);
        let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "d"]));
        let columns: Vec<(&str, ArrayRef)> = vec![("x", Arc::new(first)), ("name", names), ("y", Arc::new(second))];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).expect("a batch");
        let fields = [("name", DataType::Utf8), ("x", DataType::Int64), ("y", DataType::Int64)];
        let schema = Schema::new(fields.map(|(name, data_type)| Field::new(name, data_type, true)).to_vec());
        let from = vec![From::Column(1), From::Elements(0), From::Elements(2)];
        let mut operator = Unnest::new(from, keeps_null, Arc::new(schema));
        let mut out = Output::default();
        operator.on_rows(0, Rows::derived(batch, Some(vec![1, 1, 1, -1].into()), Tokens::Each(0)), &mut out).expect("unnests");
        (out.rows.remove(0), out)
    }

    fn shown(rows: &Rows) -> Vec<String> {
        let number = |column: usize, row: usize| {
            let column = rows.batch.column(column).as_primitive::<Int64Type>();
            if column.is_null(row) { "-".to_owned() } else { Int64Array::value(column, row).to_string() }
        };
        let name = |row: usize| rows.batch.column(0).as_string::<i32>().value(row).to_owned();
        (0..rows.len())
            .map(|row| format!("{} {} {} {} {}", name(row), number(1, row), number(2, row), rows.weight(row), rows.tokens.of(0, row)))
            .collect()
    }

    #[test]
    fn a_row_for_each_element_and_its_token_once() {
        let (rows, mut out) = unnested(false);
        assert_eq!(shown(&rows), ["a 1 10 1 1", "a - - 1 0", "a 3 - 1 0", "d 4 40 -1 1", "d - 41 -1 0"]);
        assert_eq!(out.counts.of(0).filtered, 2);
    }

    #[test]
    fn null_lists_may_stay() {
        let (rows, mut out) = unnested(true);
        assert_eq!(shown(&rows), ["a 1 10 1 1", "a - - 1 0", "a 3 - 1 0", "b - - 1 1", "d 4 40 -1 1", "d - 41 -1 0"]);
        assert_eq!(out.counts.of(0).filtered, 1);
    }
}
