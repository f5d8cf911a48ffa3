//! Joins, as-of joins and changelogs as they are simulated: one log, of which a record with a value below zero is a left row and any other is
//! a right row, a version or a change.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use tidemill_engine::error::Result;
use tidemill_engine::graph::{Dataflow, Make, NodeId, NodeKind};
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::Rows;
use tidemill_operators::asof::{Asof, AsofPlan};
use tidemill_operators::changelog::{ChangePlan, Latest};
use tidemill_operators::hold_back::HoldBack;
use tidemill_operators::join::{self, Join, JoinPlan, SidePlan};

use super::flows::{Kind, Parts, Record, Shape};
use super::model::Tables;

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// A record of one partition: partition, offset, key, time, value.
type Placed = (i64, i64, i64, i64, i64);

fn is_left(value: i64) -> bool {
    value < 0
}

fn deletes(value: i64) -> bool {
    value % 7 == 0
}

/// What a left row is joined with: times from `low` to `high` around it.
fn span(shape: Shape) -> (i64, i64) {
    (-shape.slide_us, shape.size_us - shape.slide_us / 2)
}

fn fields(names: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>()))
}

fn left_schema() -> SchemaRef {
    let int = DataType::Int64;
    fields(&[("k", int.clone()), ("ts", TIME), ("v", int.clone()), ("__k", int), ("__time", TIME)])
}

fn right_schema() -> SchemaRef {
    let int = DataType::Int64;
    fields(&[("ts", TIME), ("v", int.clone()), ("__k", int), ("__time", TIME)])
}

fn change_schema() -> SchemaRef {
    let int = DataType::Int64;
    fields(&[("k", int.clone()), ("ts", TIME), ("v", int.clone()), ("__k", int), ("__deleted", DataType::Boolean), ("__time", TIME)])
}

/// The columns of a joined table: both rows, and their places in the log.
fn joined_schema() -> SchemaRef {
    let int = || DataType::Int64;
    let places = ["left_partition", "left_offset", "right_partition", "right_offset"].map(|name| (name, int()));
    fields(&[&[("k", int()), ("ts", TIME), ("v", int()), ("other_ts", int()), ("other_v", int())], &places[..]].concat())
}

/// The output's columns and key.
pub fn output(kind: Kind) -> (SchemaRef, Vec<usize>) {
    match kind {
        Kind::Latest => (fields(&[("k", DataType::Int64), ("ts", TIME), ("v", DataType::Int64)]), vec![0]),
        _ => (joined_schema(), vec![5, 6, 7, 8]),
    }
}

/// Turns the rows that it wants into others; the rest are another's.
struct Turned {
    wanted: fn(i64) -> bool,
    columns: fn(&RecordBatch) -> Vec<ArrayRef>,
    schema: SchemaRef,
}

fn value(batch: &RecordBatch) -> &Int64Array {
    batch.column(2).as_primitive::<Int64Type>()
}

impl Operator for Turned {
    fn name(&self) -> &'static str {
        "turned"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        let mask: BooleanArray = value(&rows.batch).iter().map(|value| Some((self.wanted)(value.unwrap_or(0)))).collect();
        let rows = rows.filter(&mask)?;
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), (self.columns)(&rows.batch))?;
        out.emit(rows.with_batch(batch));
        Ok(())
    }
}

fn picked(batch: &RecordBatch, columns: &[usize]) -> Vec<ArrayRef> {
    columns.iter().map(|column| Arc::clone(batch.column(*column))).collect()
}

/// A joined row without the names of sources, as numbers; what is not there is -1.
fn placed(batch: &RecordBatch) -> Vec<ArrayRef> {
    let mut columns = picked(batch, &[0, 1, 2]);
    // An as-of join names the left row alone.
    for column in [3, 4, 6, 7, 9, 10] {
        let there = batch.columns().get(column).map(|column| cast(column, &DataType::Int64).unwrap());
        let numbers = (0..batch.num_rows()).map(|row| {
            let column = there.as_ref().map(|column| column.as_primitive::<Int64Type>());
            column.filter(|column| column.is_valid(row)).map_or(-1, |column| column.value(row))
        });
        columns.push(Arc::new(Int64Array::from_iter_values(numbers)));
    }
    columns
}

fn turned(
    flow: &mut Dataflow,
    id: &str,
    input: NodeId,
    wanted: fn(i64) -> bool,
    columns: fn(&RecordBatch) -> Vec<ArrayRef>,
    schema: SchemaRef,
) -> NodeId {
    let make: Make = Arc::new(move || Ok(Box::new(Turned { wanted, columns, schema: Arc::clone(&schema) })));
    flow.add(id, vec![input], NodeKind::Operator(make))
}

/// Both sides at their workers, held back by the lateness.
fn sides(flow: &mut Dataflow, source: NodeId, shape: Shape) -> Vec<NodeId> {
    let left = turned(flow, "out/left", source, is_left, |batch| picked(batch, &[0, 1, 2, 0, 1]), left_schema());
    let right = turned(flow, "out/right", source, |value| !is_left(value), |batch| picked(batch, &[1, 2, 0, 1]), right_schema());
    let mut both = Vec::new();
    for (side, node, key) in [("left", left, 3), ("right", right, 2)] {
        let exchanged = flow.add(format!("out/exchange_{side}"), vec![node], NodeKind::Exchange(vec![key]));
        let make: Make = Arc::new(move || Ok(Box::new(HoldBack::new(shape.lateness_us))));
        both.push(flow.add(format!("out/held_{side}"), vec![exchanged], NodeKind::Operator(make)));
    }
    both
}

/// The flow of a kind that joins or replaces.
pub fn flow(flow: &mut Dataflow, source: NodeId, shape: Shape, parts: &Parts) -> NodeId {
    let wrap = parts.wrap;
    let source_names = vec![(0, "log".to_owned())];
    match shape.kind {
        Kind::Latest => {
            let columns = |batch: &RecordBatch| {
                let mut columns = picked(batch, &[0, 1, 2, 0]);
                columns.push(Arc::new(value(batch).iter().map(|value| Some(deletes(value.unwrap_or(0)))).collect::<BooleanArray>()));
                columns.push(Arc::clone(batch.column(1)));
                columns
            };
            let changes = turned(flow, "out/changes", source, |_| true, columns, change_schema());
            let exchanged = flow.add("out/exchange", vec![changes], NodeKind::Exchange(vec![3]));
            let plan = ChangePlan { width: 3, keys: 1, timed: true, input: change_schema(), source: 0 };
            let make: Make = Arc::new(move || Ok(wrap(Box::new(Latest::new(plan.clone())?))));
            flow.add("out/1_latest", vec![exchanged], NodeKind::Operator(make))
        }
        Kind::AsOf => {
            let inputs = sides(flow, source, shape);
            let plan = AsofPlan {
                left: left_schema(),
                right: right_schema(),
                left_width: 3,
                right_width: 2,
                keys: 1,
                left_derived: false,
                deletions: false,
                strict: shape.pre_aggregate,
                lateness_us: shape.lateness_us,
                sources: vec![0],
                source_names,
            };
            let make: Make = Arc::new(move || Ok(wrap(Box::new(Asof::new(plan.clone())?))));
            let joined = flow.add("out/1_asof", inputs, NodeKind::Operator(make));
            flow_end(flow, joined)
        }
        _ => {
            let inputs = sides(flow, source, shape);
            let side = |schema, width| SidePlan { schema, width, names: None, windowed: false };
            let (low_us, high_us) = span(shape);
            let plan = JoinPlan {
                kind: join::Kind::Full,
                sides: [side(left_schema(), 3), side(right_schema(), 2)],
                keys: 1,
                low_us,
                high_us: high_us.max(low_us),
                condition: None,
                lateness_us: shape.lateness_us,
                sources: vec![0],
                source_names,
            };
            let make: Make = Arc::new(move || Ok(wrap(Box::new(Join::new(plan.clone())?))));
            let joined = flow.add("out/1_join", inputs, NodeKind::Operator(make));
            flow_end(flow, joined)
        }
    }
}

/// The places of joined rows as numbers.
struct Places;

impl Operator for Places {
    fn name(&self) -> &'static str {
        "placed"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        let batch = RecordBatch::try_new(joined_schema(), placed(&rows.batch))?;
        out.emit(rows.with_batch(batch));
        Ok(())
    }
}

fn flow_end(flow: &mut Dataflow, joined: NodeId) -> NodeId {
    flow.add("out/placed", vec![joined], NodeKind::Operator(Arc::new(|| Ok(Box::new(Places)))))
}

/// What should come out.
pub fn model(records: &[Vec<Record>], shape: Shape, delay_us: i64) -> Tables {
    let mut tables = Tables::default();
    let mut in_time: Vec<Placed> = Vec::new();
    let mut last: BTreeMap<(i64, i64), Placed> = BTreeMap::new();
    for (partition, records) in (0..).zip(records) {
        let mut watermark: Option<i64> = None;
        for (offset, record) in (0..).zip(records) {
            let Some((key, ts, value)) = *record else { continue };
            let row = (partition, offset, key, ts, value);
            last.insert((key, partition), row);
            if watermark.is_some_and(|watermark| ts + shape.lateness_us < watermark) {
                tables.late.insert((partition, offset, 0));
            } else {
                in_time.push(row);
            }
            watermark = watermark.max(Some(ts - delay_us));
        }
    }
    let (left, right): (Vec<Placed>, Vec<Placed>) = in_time.into_iter().partition(|row| is_left(row.4));
    let pair = |left: Option<&Placed>, right: Option<&Placed>| {
        let (k, ts, v) = left.map_or((0, 0, 0), |row| (row.2, row.3, row.4));
        let (other_ts, other_v) = right.map_or((-1, -1), |row| (row.3, row.4));
        let place = |row: Option<&Placed>| row.map_or((-1, -1), |row| (row.0, row.1));
        let (one, other) = (place(left), place(right));
        vec![k, ts, v, other_ts, other_v, one.0, one.1, other.0, other.1]
    };
    match shape.kind {
        Kind::Latest => {
            tables.late.clear();
            let mut keys: BTreeMap<i64, Placed> = BTreeMap::new();
            for ((key, _), row) in last {
                let best = keys.entry(key).or_insert(row);
                if (row.3, row.0, row.1) > (best.3, best.0, best.1) {
                    *best = row;
                }
            }
            tables.rows = keys.into_values().filter(|row| !deletes(row.4)).map(|row| vec![row.2, row.3, row.4]).collect();
        }
        Kind::AsOf => {
            for row in &left {
                let valid = right.iter().filter(|each| each.2 == row.2 && (each.3 < row.3 || (each.3 == row.3 && !shape.pre_aggregate)));
                let newest = valid.max_by_key(|each| (each.3, each.0, each.1));
                let mut joined = pair(Some(row), newest);
                // The version's place is not told.
                (joined[7], joined[8]) = (-1, -1);
                tables.rows.insert(joined);
            }
        }
        _ => {
            let (low, high) = span(shape);
            let near = |left: &Placed, right: &Placed| left.2 == right.2 && (low..=high.max(low)).contains(&(right.3 - left.3));
            for row in &left {
                let before = tables.rows.len();
                tables.rows.extend(right.iter().filter(|other| near(row, other)).map(|other| pair(Some(row), Some(other))));
                if tables.rows.len() == before {
                    tables.rows.insert(pair(Some(row), None));
                }
            }
            let alone = right.iter().filter(|row| !left.iter().any(|other| near(other, row)));
            tables.rows.extend(alone.map(|row| pair(None, Some(row))));
        }
    }
    tables
}
