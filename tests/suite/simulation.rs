//! Whole runs on one thread under a seed: crashes, failing writes, restarts with other worker counts, several bounded runs. What
//! comes out is compared with a model that reads the log once; the accounting must balance.
//!
//! `TIDEMILL_SEEDS=10000 cargo test --test suite simulation -- --nocapture` runs more seeds; `TIDEMILL_SEED=7` runs one again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use tidemill_engine::epoch::system::LATE_EVENTS;
use tidemill_engine::graph::{Dataflow, Make, NodeKind, OutputSpec};
use tidemill_engine::operator::Operator;
use tidemill_engine::sim::doubles::{Entry, Log, LogPartition};
use tidemill_engine::sim::rng::Rng;
use tidemill_engine::sim::{Outcome, Simulation, hot_rows};
use tidemill_engine::source::{SourceSpec, TimeSpec};
use tidemill_operators::aggregate::{Function, Spec};
use tidemill_operators::window_aggregate::{Aggregation, Call, Emit, Final, Input, Partial, Windowing};
use tidemill_operators::windows::Windows;

const DELAY_US: i64 = 20;

fn input_schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("ts", time, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn output_schema() -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("window_start", time(), true),
        Field::new("window_end", time(), true),
        Field::new("n", DataType::Int64, true),
        Field::new("sum", DataType::Int64, true),
    ]))
}

/// What one simulated pipeline is.
#[derive(Debug, Clone, Copy)]
struct Shape {
    slide_us: i64,
    size_us: i64,
    lateness_us: i64,
    partitions: usize,
    rows: usize,
    pre_aggregate: bool,
}

/// A record of the log: key, time, value; `None` is undecodable.
type Record = Option<(i64, i64, i64)>;

fn records(rng: &mut Rng, shape: Shape) -> Vec<Vec<Record>> {
    let partition = |rng: &mut Rng| {
        let mut clock = rng.below(100) as i64;
        (0..rng.below(shape.rows as u64 + 1))
            .map(|_| {
                clock += rng.below(8) as i64;
                // Mostly within the watermark's delay, sometimes far behind it.
                let behind = if rng.chance(8) { rng.below(300) } else { rng.below(DELAY_US as u64) } as i64;
                (!rng.chance(3)).then(|| (rng.below(6) as i64, clock - behind, rng.below(100) as i64 - 50))
            })
            .collect()
    };
    (0..shape.partitions).map(|_| partition(rng)).collect()
}

fn log_of(records: &[Vec<Record>]) -> Log {
    let partition = |records: &Vec<Record>| {
        let good: Vec<_> = records.iter().flatten().collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(good.iter().map(|row| row.0))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(good.iter().map(|row| row.1))),
            Arc::new(Int64Array::from_iter_values(good.iter().map(|row| row.2))),
        ];
        let mut next = 0;
        let entry = |(offset, record): (usize, &Record)| {
            let row = record.map(|_| {
                next += 1;
                next - 1
            });
            Entry { row, payload: format!("record {offset}").into_bytes() }
        };
        LogPartition {
            rows: RecordBatch::try_new(input_schema(), columns).unwrap(),
            entries: records.iter().enumerate().map(entry).collect(),
        }
    };
    Log::new(vec![records.iter().map(partition).collect()])
}

fn flow(log: &Log, shape: Shape) -> Dataflow {
    let call = |function, argument: Option<usize>| Call {
        spec: Spec { function, input: argument.map(|_| DataType::Int64), output: DataType::Int64, retracts: false },
        argument,
        filter: None,
    };
    let aggregation = Arc::new(Aggregation {
        keys: vec![0],
        windowing: Some(Windowing {
            time: 1,
            windows: Windows::hop(shape.slide_us, shape.size_us, 0).unwrap(),
            lateness_us: shape.lateness_us,
            retention_extra_us: 0,
        }),
        calls: vec![call(Function::CountStar, None), call(Function::Sum, Some(2))],
        input: input_schema(),
        output: output_schema(),
        sources: vec![0],
        emit: Emit::Final,
        retracts: false,
        rows_per_tick_max: 1_000,
    });
    let mut flow = Dataflow::default();
    let reader = log.clone();
    flow.sources.push(SourceSpec {
        name: "log".into(),
        topic: "log".into(),
        schema: input_schema(),
        time: Some(TimeSpec { column: 1, delay_us: DELAY_US }),
        future_max_us: None,
        idle_after_us: 1_000_000,
        open: Arc::new(move || Ok(reader.reader(0))),
    });
    flow.outputs.push(OutputSpec { name: "out".into(), schema: output_schema(), key: vec![0, 1, 2], visible: 5, plan_hash: "same".into() });
    let mut node = flow.add("source/log", vec![], NodeKind::Source(0));
    if shape.pre_aggregate {
        let aggregation = Arc::clone(&aggregation);
        let make: Make = Arc::new(move || Ok(Box::new(Partial::new(Arc::clone(&aggregation))?) as Box<dyn Operator>));
        node = flow.add("out/partial", vec![node], NodeKind::Operator(make));
    }
    let exchange = flow.add("out/exchange", vec![node], NodeKind::Exchange(vec![0]));
    let input = if shape.pre_aggregate { Input::Partials } else { Input::Raw };
    let make: Make = Arc::new(move || Ok(Box::new(Final::new(Arc::clone(&aggregation), input)?) as Box<dyn Operator>));
    let kept = flow.add("out/1_aggregate", vec![exchange], NodeKind::Operator(make));
    flow.add("out/sink", vec![kept], NodeKind::Sink(0));
    flow
}

/// (key, window start) -> (count, sum), and the windows each late record missed.
type Model = (BTreeMap<(i64, i64), (i64, i64)>, BTreeSet<(i64, i64, i64)>);

fn model(records: &[Vec<Record>], shape: Shape) -> Model {
    let (mut groups, mut late) = (BTreeMap::new(), BTreeSet::new());
    for (partition, records) in records.iter().enumerate() {
        let mut watermark = i64::MIN;
        for (offset, record) in records.iter().enumerate() {
            let Some((key, ts, value)) = *record else { continue };
            let mut start = ts.div_euclid(shape.slide_us) * shape.slide_us;
            while start > ts - shape.size_us {
                if watermark != i64::MIN && start + shape.size_us + shape.lateness_us <= watermark {
                    late.insert((partition as i64, offset as i64, start));
                } else {
                    let group: &mut (i64, i64) = groups.entry((key, start)).or_default();
                    *group = (group.0 + 1, group.1 + value);
                }
                start -= shape.slide_us;
            }
            watermark = watermark.max(ts - DELAY_US);
        }
    }
    (groups, late)
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
        DataType::Int32 => column.as_primitive::<arrow::datatypes::Int32Type>().values().iter().map(|value| i64::from(*value)).collect(),
        _ => column.as_primitive::<TimestampMicrosecondType>().values().to_vec(),
    }
}

fn found(outcome: &Outcome) -> (BTreeMap<(i64, i64), (i64, i64)>, BTreeSet<(i64, i64, i64)>) {
    let mut rows: BTreeMap<(i64, i64, i64, i64), i64> = BTreeMap::new();
    for batch in changes(outcome, "tables/out") {
        let (keys, starts, counts, sums, weights) = (ints(&batch, 0), ints(&batch, 1), ints(&batch, 3), ints(&batch, 4), ints(&batch, 5));
        for row in 0..batch.num_rows() {
            *rows.entry((keys[row], starts[row], counts[row], sums[row])).or_insert(0) += weights[row];
        }
    }
    rows.retain(|_, weight| *weight != 0);
    let mut groups = BTreeMap::new();
    for ((key, start, count, sum), weight) in rows {
        assert_eq!(weight, 1, "key {key} window {start}: ({count}, {sum}) with weight {weight}");
        assert!(groups.insert((key, start), (count, sum)).is_none(), "key {key} window {start} twice");
    }
    let mut late = BTreeSet::new();
    for batch in changes(outcome, LATE_EVENTS) {
        let (partitions, offsets, starts) = (ints(&batch, 3), ints(&batch, 4), ints(&batch, 7));
        for row in 0..batch.num_rows() {
            assert!(late.insert((partitions[row], offsets[row], starts[row])), "a late event twice");
        }
    }
    (groups, late)
}

fn try_seed(seed: u64) -> (u32, u64) {
    let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(17));
    let shape = Shape {
        slide_us: 1 + rng.below(40) as i64,
        size_us: 1 + rng.below(60) as i64,
        lateness_us: if rng.chance(50) { 0 } else { rng.below(80) as i64 },
        partitions: 1 + rng.below(4) as usize,
        rows: 1 + rng.below(120) as usize,
        pre_aggregate: rng.chance(50),
    };
    let records = records(&mut rng, shape);
    let make = |log: &Log| flow(log, shape);
    let simulation =
        Simulation { seed, flow: &make, log: log_of(&records), workers: &[1, 2, 3, 4], crashes_max: 6, runs: 1 + rng.below(3) as u32 };
    let outcome = simulation.run().unwrap_or_else(|error| panic!("seed {seed} ({shape:?}): {error}"));
    let (expected, expected_late) = model(&records, shape);
    let (groups, late) = found(&outcome);
    let again = format!("seed {seed}: TIDEMILL_SEED={seed} cargo test --test suite simulation; {shape:?}");
    assert_eq!(groups, expected, "{again}");
    assert_eq!(late, expected_late, "{again}");
    let total: usize = records.iter().map(Vec::len).sum();
    let dead = records.iter().flatten().filter(|record| record.is_none()).count();
    for account in &outcome.manifest.accounts {
        let counts = account.counts;
        assert_eq!(counts.imbalance(), 0, "{again}: {counts:?}");
        assert_eq!((counts.rows_in, counts.dead), (total as i64, dead as i64), "{again}: {counts:?}");
        assert_eq!(counts.held, 0, "everything is published at the end; {again}: {counts:?}");
    }
    (outcome.crashes, outcome.steps)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn tables_late_events_and_accounts_survive_crashes_on_every_seed() {
    if let Some(seed) = number("TIDEMILL_SEED") {
        try_seed(seed);
        return;
    }
    let (mut crashes, mut steps) = (0, 0);
    let seeds = number("TIDEMILL_SEEDS").unwrap_or(1_000);
    for seed in 0..seeds {
        let (crashed, stepped) = try_seed(seed);
        crashes += u64::from(crashed);
        steps += stepped;
    }
    println!("{seeds} seeds, {crashes} crashes, {steps} steps");
    assert!(crashes > seeds / 4, "only {crashes} crashes in {seeds} seeds: the simulation does not test recovery");
}
