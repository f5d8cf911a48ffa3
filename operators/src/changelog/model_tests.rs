//! `LiveMap` and `Latest` against a naive model: the last change of each key and partition, the greatest of them by time and place.

use std::collections::BTreeMap;

use arrow::array::BooleanArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::*;
use crate::expression::Expression;
use crate::testing::*;

/// name, value | key | deleted | ts
fn change_schema() -> SchemaRef {
    let log = log_schema();
    let mut fields: Vec<Field> = [1, 3, 0].map(|index| log.field(index).clone()).to_vec();
    fields.push(Field::new("deleted", DataType::Boolean, true));
    fields.push(log.field(2).clone());
    Arc::new(Schema::new(fields))
}

/// A record without a name, or of value 4, deletes.
fn deletes(record: &Record) -> bool {
    record.name.is_none() || record.value == Some(4)
}

/// Rows with a value of -4 don't pass.
fn passes(record: &Record) -> bool {
    record.value.is_none_or(|value| value != -4)
}

/// Makes changes of the log's rows.
struct Changed;

impl Operator for Changed {
    fn name(&self) -> &'static str {
        "changed"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        let column = |name: &str| Arc::clone(rows.batch.column_by_name(name).expect("of the log"));
        let (names, values) = (column("name"), column("value"));
        let values = values.as_primitive::<Int64Type>().clone();
        let deleted: BooleanArray =
            (0..rows.len()).map(|row| Some(names.is_null(row) || (values.is_valid(row) && values.value(row) == 4))).collect();
        let columns: Vec<ArrayRef> = vec![column("name"), column("value"), column("key"), Arc::new(deleted), column("ts")];
        let batch = RecordBatch::try_new(change_schema(), columns)?;
        out.emit(rows.with_batch(batch));
        Ok(())
    }
}

/// Hashes keys, as an exchange does.
struct Hashed;

impl Operator for Hashed {
    fn name(&self) -> &'static str {
        "hashed"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        let hashes = hash_columns(&[Arc::clone(rows.batch.column(2))], rows.len())?;
        out.emit(Rows { hashes: Some(hashes.into()), ..rows });
        Ok(())
    }
}

struct Column(usize);

impl Expression for Column {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        Ok(Arc::clone(batch.column(self.0)))
    }

    fn text(&self) -> &str {
        "a column"
    }
}

/// The value is not -4; fails on what `fails` says.
struct NotMinusFour {
    fails: Option<i64>,
}

impl Expression for NotMinusFour {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let values = batch.column(1).as_primitive::<Int64Type>();
        if values.iter().any(|value| value.is_some() && value == self.fails) {
            return Err(Error::failed("it can't be"));
        }
        Ok(Arc::new(values.iter().map(|value| Some(value != Some(-4))).collect::<BooleanArray>()))
    }

    fn text(&self) -> &str {
        "value <> -4"
    }
}

fn live_map(fails: Option<i64>) -> LiveMap {
    LiveMap::new(vec![Arc::new(NotMinusFour { fails })], vec![Arc::new(Column(1)), Arc::new(Column(0))], 2, 3, mapped_schema())
}

/// value, name | key | deleted | ts
fn mapped_schema() -> SchemaRef {
    let schema = change_schema();
    Arc::new(Schema::new([1, 0, 2, 3, 4].map(|index| schema.field(index).clone()).to_vec()))
}

fn model(log: &[Record]) -> Results {
    let mut last: BTreeMap<(Option<i64>, i32), &Record> = BTreeMap::new();
    for record in log {
        last.insert((record.key, record.partition), record);
    }
    let mut best: BTreeMap<Option<i64>, &Record> = BTreeMap::new();
    let rank = |record: &Record| (record.time.unwrap_or(i64::MIN), record.partition, record.offset);
    for ((key, _), record) in last {
        let held = best.entry(key).or_insert(record);
        if rank(record) > rank(held) {
            *held = record;
        }
    }
    let mut results = Results::new();
    for record in best.into_values().filter(|record| !deletes(record) && passes(record)) {
        *results.entry(format!("{}|{:?}", text(record.value), record.name.clone().unwrap_or_default())).or_default() += 1;
    }
    results
}

#[test]
fn any_run_equals_the_model() {
    for seed in 0..120 * SEEDS {
        drive(
            &Subject {
                name: "latest",
                make: &|workers| {
                    let chain = || Chain::new(vec![Box::new(Changed), Box::new(live_map(None)), Box::new(Hashed)]);
                    let plan = ChangePlan { width: 2, keys: 1, timed: true, input: mapped_schema(), source: 0 };
                    (
                        (0..workers).map(|_| Box::new(chain()) as Box<dyn Operator>).collect(),
                        (0..workers).map(|_| Box::new(Latest::new(plan.clone()).expect("a plan")) as Box<dyn Operator>).collect(),
                    )
                },
                workers: &[1, 2, 4],
                holds_none: true,
                publishes: Publishes::EachEpoch,
                model: &|log, _| (model(log), Late::new()),
            },
            seed,
        );
    }
}

#[test]
fn a_change_on_which_an_expression_fails_is_a_dead_letter_and_the_others_go_on() {
    let record = |offset: i64, name: Option<&str>, value: i64| Record {
        partition: 0,
        offset,
        key: Some(offset),
        name: name.map(str::to_owned),
        time: Some(1),
        value: Some(value),
        watermark: 0,
    };
    // The third deletes: the expression never sees it.
    let log = [record(1, Some("a"), 1), record(2, Some("b"), 3), record(3, None, 3), record(4, Some("d"), -4), record(5, Some("e"), 2)];
    let mut out = Output::default();
    Changed.on_rows(0, source_rows(&log), &mut out).expect("takes");
    let changes = out.rows.remove(0);
    let mut out = Output::default();
    live_map(Some(3)).on_rows(0, changes, &mut out).expect("takes");
    assert_eq!(out.dead.iter().map(|letter| (letter.offset, letter.reason.as_str())).collect::<Vec<_>>(), [(2, "expression")]);
    assert_eq!(out.counts.of(0).dead, 1);
    let passed: Vec<(i64, Option<bool>)> = out
        .rows
        .iter()
        .flat_map(|rows| {
            let offsets = rows.origin.as_ref().expect("of a source").offsets.to_vec();
            offsets.into_iter().zip(rows.batch.column(3).as_boolean().iter().collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(passed, [(1, Some(false)), (3, Some(true)), (4, Some(true)), (5, Some(false))]);
}
