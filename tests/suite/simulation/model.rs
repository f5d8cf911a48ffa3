//! What should come out, by reading the log once, and what did.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use tidemill_engine::epoch::recover::hot_rows;
use tidemill_engine::epoch::system::LATE_EVENTS;
use tidemill_engine::sim::Outcome;

use super::flows::{DELAY_US, Kind, PLACES, Record, Shape};
use super::joins;

/// Rows of the output, and (partition, offset, window start) of late events.
#[derive(Debug, Default, PartialEq)]
pub struct Tables {
    pub rows: BTreeSet<Vec<i64>>,
    pub late: BTreeSet<(i64, i64, i64)>,
}

/// The starts of the hopping windows that hold a time.
fn windows(shape: Shape, ts: i64) -> impl Iterator<Item = i64> {
    let first = ts.div_euclid(shape.slide_us) * shape.slide_us;
    (0..).map(move |back| first - back * shape.slide_us).take_while(move |start| *start > ts - shape.size_us)
}

/// The tables of a log.
pub fn model(records: &[Vec<Record>], shape: Shape) -> Tables {
    if matches!(shape.kind, Kind::Join | Kind::AsOf | Kind::Latest) {
        return joins::model(records, shape, DELAY_US);
    }
    let mut tables = Tables::default();
    let mut groups: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
    let mut kept: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    let mut all = (0, 0);
    for (partition, records) in records.iter().enumerate() {
        let mut watermark: Option<i64> = None;
        for (offset, record) in records.iter().enumerate() {
            let Some((key, ts, value)) = *record else { continue };
            let late = |end: i64| watermark.is_some_and(|watermark| end + shape.lateness_us <= watermark);
            let mut miss = |start: i64| tables.late.insert((partition as i64, offset as i64, start));
            match shape.kind {
                Kind::Global => all = (all.0 + 1, all.1 + value),
                Kind::Join | Kind::AsOf | Kind::Latest => {}
                Kind::Sessions if late(ts + shape.size_us) => {
                    miss(ts);
                }
                Kind::Sessions => kept.entry(key).or_default().push((ts, value)),
                Kind::Windows | Kind::Top => {
                    for start in windows(shape, ts) {
                        if late(start + shape.size_us) {
                            miss(start);
                        } else {
                            let group = groups.entry((key, start)).or_default();
                            *group = (group.0 + 1, group.1 + value);
                        }
                    }
                }
            }
            watermark = watermark.max(Some(ts - DELAY_US));
        }
    }
    match shape.kind {
        Kind::Global if all.0 > 0 => {
            tables.rows.insert(vec![all.0, all.1]);
        }
        Kind::Global | Kind::Join | Kind::AsOf | Kind::Latest => {}
        Kind::Sessions => tables.rows = chains(kept, shape.size_us),
        Kind::Windows => tables.rows = groups.iter().map(|(group, sums)| windowed(shape, group, sums)).collect(),
        Kind::Top => {
            let mut by_window: BTreeMap<i64, Vec<Vec<i64>>> = BTreeMap::new();
            for (group, sums) in &groups {
                by_window.entry(group.1).or_default().push(windowed(shape, group, sums));
            }
            for mut rows in by_window.into_values() {
                rows.sort_by_key(|row| (-row[3], row[0]));
                tables.rows.extend(rows.into_iter().take(PLACES).zip(1..).map(|(mut row, place)| {
                    row.push(place);
                    row
                }));
            }
        }
    }
    tables
}

fn windowed(shape: Shape, (key, start): &(i64, i64), (count, sum): &(i64, i64)) -> Vec<i64> {
    vec![*key, *start, start + shape.size_us, *count, *sum]
}

/// Rows at most the gap apart, chained.
fn chains(kept: BTreeMap<i64, Vec<(i64, i64)>>, gap_us: i64) -> BTreeSet<Vec<i64>> {
    let mut rows = BTreeSet::new();
    for (key, mut events) in kept {
        events.sort_unstable();
        for chain in events.chunk_by(|a, b| b.0 - a.0 <= gap_us) {
            let sum = chain.iter().map(|event| event.1).sum();
            rows.insert(vec![key, chain[0].0, chain[chain.len() - 1].0 + gap_us, chain.len() as i64, sum]);
        }
    }
    rows
}

/// Changes of a table: those in the cold tier, then those that are still hot.
fn changes(outcome: &Outcome, folder: &str) -> Vec<RecordBatch> {
    let mut all = outcome.cold.changes(folder);
    let hot = hot_rows(outcome.store.as_ref(), &outcome.manifest).unwrap();
    for (table, hot) in outcome.manifest.tables.iter().zip(hot) {
        if table.folder == folder {
            all.extend(hot.into_iter().filter(|(epoch, _)| *epoch > table.covered).map(|(_, batch)| batch));
        }
    }
    all
}

fn ints(batch: &RecordBatch, column: usize) -> Vec<i64> {
    let column = batch.column(column);
    match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().values().to_vec(),
        DataType::Int32 => column.as_primitive::<Int32Type>().values().iter().map(|value| i64::from(*value)).collect(),
        _ => column.as_primitive::<TimestampMicrosecondType>().values().to_vec(),
    }
}

/// The tables of a run; an error when a row is there twice or less than not at all.
pub fn found(outcome: &Outcome) -> Result<Tables, String> {
    let mut weights: BTreeMap<Vec<i64>, i64> = BTreeMap::new();
    for batch in changes(outcome, "tables/out") {
        let columns: Vec<Vec<i64>> = (0..batch.num_columns()).map(|column| ints(&batch, column)).collect();
        let Some((weight, values)) = columns.split_last() else { continue };
        for row in 0..batch.num_rows() {
            *weights.entry(values.iter().map(|column| column[row]).collect()).or_insert(0) += weight[row];
        }
    }
    weights.retain(|_, weight| *weight != 0);
    if let Some((row, weight)) = weights.iter().find(|(_, weight)| **weight != 1) {
        return Err(format!("row {row:?} with weight {weight}"));
    }
    let mut late = BTreeSet::new();
    for batch in changes(outcome, LATE_EVENTS) {
        let (partitions, offsets, starts) = (ints(&batch, 3), ints(&batch, 4), ints(&batch, 7));
        for row in 0..batch.num_rows() {
            if !late.insert((partitions[row], offsets[row], starts[row])) {
                return Err(format!("partition {} offset {} is late twice for one window", partitions[row], offsets[row]));
            }
        }
    }
    Ok(Tables { rows: weights.into_keys().collect(), late })
}
