//! Rows as sorted text, to compare and to keep in golden files.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// All rows, sorted by their text; doubles behind the rest, as they are read.
pub struct Rows {
    names: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Text(String),
    Number(Option<f64>),
}

impl Rows {
    pub fn of(batches: &[RecordBatch]) -> Self {
        let names = batches.first().map(|batch| batch.schema().fields().iter().map(|field| field.name().clone()).collect());
        let mut rows = Vec::new();
        for batch in batches {
            let columns: Vec<Vec<Cell>> = batch.columns().iter().map(|column| cells(column.as_ref())).collect();
            rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect::<Vec<_>>()));
        }
        let texts = |row: &Vec<Cell>| row.iter().filter_map(Cell::text).collect::<Vec<_>>();
        let numbers = |row: &Vec<Cell>| row.iter().filter_map(Cell::number).collect::<Vec<f64>>();
        rows.sort_by(|a, b| {
            let by_number = || numbers(a).iter().zip(&numbers(b)).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
            texts(a).cmp(&texts(b)).then_with(|| by_number().unwrap_or(std::cmp::Ordering::Equal))
        });
        Self { names: names.unwrap_or_default(), rows }
    }

    /// One line a row.
    pub fn text(&self) -> String {
        let line = |cells: &Vec<Cell>| {
            let shown = cells.iter().map(|cell| match cell {
                Cell::Text(text) => text.clone(),
                Cell::Number(Some(number)) => format!("{number:?}"),
                Cell::Number(None) => "NULL".to_owned(),
            });
            shown.collect::<Vec<_>>().join(" | ") + "\n"
        };
        let rows: String = self.rows.iter().map(line).collect();
        if self.names.is_empty() { rows } else { format!("{}\n{rows}", self.names.join(" | ")) }
    }
}

impl Cell {
    fn text(&self) -> Option<String> {
        if let Self::Text(text) = self { Some(text.clone()) } else { None }
    }

    fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(number.unwrap_or(f64::NAN)) } else { None }
    }
}

fn cells(column: &dyn Array) -> Vec<Cell> {
    if column.data_type().is_floating() {
        let doubles = cast(column, &DataType::Float64).expect("a number");
        return doubles.as_primitive::<Float64Type>().iter().map(Cell::Number).collect();
    }
    let options = FormatOptions::new().with_null("NULL");
    let formatter = ArrayFormatter::try_new(column, &options).expect("printable");
    (0..column.len()).map(|row| Cell::Text(formatter.value(row).to_string())).collect()
}
