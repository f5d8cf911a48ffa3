//! Rows as sets to compare: text for what must be equal, numbers for what must be near.

use std::cmp::Ordering;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// How near a number must be. Sums of doubles are exact in a pipeline and rounded at every step in batch.
const NEAR: f64 = 1e-9;

/// A column that may differ by this share of its value, as the contract grants it; whole numbers are rounded besides.
pub type Near<'a> = (&'a str, f64);

#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Text(String),
    Number(Option<f64>),
}

/// What the contract grants a column.
#[derive(Debug, Clone, Copy)]
struct Room {
    share: f64,
    absolute: f64,
}

/// All rows, sorted: by their text, and by their numbers where that is equal.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    names: Vec<String>,
    /// Columns of doubles, in the order of the names.
    doubles: Vec<bool>,
    rows: Vec<Vec<Cell>>,
}

impl Rows {
    pub fn of(batches: &[RecordBatch], near: &[Near<'_>]) -> Self {
        let names = batches.first().map(|batch| batch.schema().fields().iter().map(|field| field.name().clone()).collect());
        let doubles = batches.first().map(|batch| batch.schema().fields().iter().map(|field| field.data_type().is_floating()).collect());
        let mut rows = Vec::new();
        for batch in batches {
            let schema = batch.schema();
            let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
                let number = field.data_type().is_floating() || near.iter().any(|(name, _)| name == field.name());
                cells(column.as_ref(), number)
            });
            let columns: Vec<Vec<Cell>> = columns.collect();
            rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect::<Vec<_>>()));
        }
        rows.sort_by(|a, b| order(a, b));
        Self { names: names.unwrap_or_default(), doubles: doubles.unwrap_or_default(), rows }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
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

    /// The first difference, if there is any.
    pub fn difference(&self, expected: &Self, near: &[Near<'_>]) -> Option<String> {
        if self.rows.len() != expected.rows.len() {
            let lost = expected.rows.iter().find(|row| !self.rows.iter().any(|other| texts(other).eq(texts(row))));
            let extra = self.rows.iter().find(|row| !expected.rows.iter().any(|other| texts(other).eq(texts(row))));
            return Some(format!("{} rows instead of {}; lost {lost:?}, extra {extra:?}", self.rows.len(), expected.rows.len()));
        }
        for (found, wanted) in self.rows.iter().zip(&expected.rows) {
            let columns = self.names.iter().zip(&self.doubles);
            for ((found_cell, wanted_cell), (name, double)) in found.iter().zip(wanted).zip(columns) {
                let share = near.iter().find(|(near, _)| near == name).map_or(NEAR, |(_, share)| *share);
                if !equal(found_cell, wanted_cell, Room { share, absolute: if *double { 0.0 } else { 0.5 } }) {
                    return Some(format!("{name}: {found_cell:?} instead of {wanted_cell:?} in {found:?}, expected {wanted:?}"));
                }
            }
        }
        None
    }
}

fn cells(column: &dyn Array, number: bool) -> Vec<Cell> {
    if number {
        let doubles = cast(column, &DataType::Float64).expect("a number");
        return doubles.as_primitive::<Float64Type>().iter().map(Cell::Number).collect();
    }
    let options = FormatOptions::new().with_null("NULL");
    let formatter = ArrayFormatter::try_new(column, &options).expect("printable");
    (0..column.len()).map(|row| Cell::Text(formatter.value(row).to_string())).collect()
}

fn texts(row: &[Cell]) -> impl Iterator<Item = &str> {
    row.iter().filter_map(|cell| match cell {
        Cell::Text(text) => Some(text.as_str()),
        Cell::Number(_) => None,
    })
}

fn order(a: &[Cell], b: &[Cell]) -> Ordering {
    let numbers = |row: &[Cell]| {
        let number = |cell: &Cell| match cell {
            Cell::Number(number) => Some(number.unwrap_or(f64::NAN)),
            Cell::Text(_) => None,
        };
        row.iter().filter_map(number).collect::<Vec<f64>>()
    };
    let by_number = || {
        let (a, b) = (numbers(a), numbers(b));
        a.iter().zip(&b).map(|(a, b)| a.total_cmp(b)).find(|order| *order != Ordering::Equal).unwrap_or(Ordering::Equal)
    };
    texts(a).cmp(texts(b)).then_with(by_number)
}

fn equal(found: &Cell, wanted: &Cell, room: Room) -> bool {
    match (found, wanted) {
        (Cell::Number(Some(found)), Cell::Number(Some(wanted))) => {
            let near = (found - wanted).abs() <= wanted.abs() * room.share + room.absolute;
            found == wanted || (found.is_nan() && wanted.is_nan()) || near
        }
        _ => found == wanted,
    }
}
