//! What is simulated: random logs, and dataflows as the planner makes them, small enough to be a thousand seeds.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tidemill_engine::graph::{Dataflow, Make, NodeId, NodeKind, OutputSpec};
use tidemill_engine::operator::Operator;
use tidemill_engine::sim::doubles::{Entry, Log, LogPartition};
use tidemill_engine::sim::rng::Rng;
use tidemill_engine::source::{SourceSpec, TimeSpec};
use tidemill_operators::aggregate::{Function, Spec};
use tidemill_operators::session::{self, Sessions};
use tidemill_operators::top_k::{Ranking, TopK};
use tidemill_operators::window_aggregate::{Aggregation, Call, Emit, Final, Input, Partial, Windowing};
use tidemill_operators::windows::Windows;

use super::joins;

/// The watermark's delay.
pub const DELAY_US: i64 = 20;
/// Rows a window keeps in the top-k.
pub const PLACES: usize = 2;

/// Which dataflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `GROUP BY k` over hopping windows.
    Windows,
    /// `GROUP BY k` over sessions; the gap is `size_us`.
    Sessions,
    /// The first of each hopping window by count.
    Top,
    /// Aggregates without GROUP BY: one row.
    Global,
    /// A FULL JOIN within a span of time.
    Join,
    /// `ASOF JOIN`.
    AsOf,
    /// A changelog's rows.
    Latest,
}

pub const KINDS: [Kind; 7] = [Kind::Windows, Kind::Sessions, Kind::Top, Kind::Global, Kind::Join, Kind::AsOf, Kind::Latest];

/// What one simulated pipeline is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub kind: Kind,
    pub slide_us: i64,
    pub size_us: i64,
    pub lateness_us: i64,
    pub partitions: usize,
    pub rows: usize,
    pub pre_aggregate: bool,
}

impl Shape {
    pub fn draw(rng: &mut Rng, kind: Kind) -> Self {
        Self {
            kind,
            slide_us: 1 + rng.below(40) as i64,
            size_us: 1 + rng.below(60) as i64,
            lateness_us: if rng.chance(50) { 0 } else { rng.below(80) as i64 },
            partitions: 1 + rng.below(4) as usize,
            rows: 1 + rng.below(120) as usize,
            pre_aggregate: rng.chance(50),
        }
    }
}

/// A record of the log: key, time, value; `None` is undecodable.
pub type Record = Option<(i64, i64, i64)>;

/// A log, partition by partition.
pub fn records(rng: &mut Rng, shape: Shape) -> Vec<Vec<Record>> {
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

/// The double that serves it.
pub fn log_of(records: &[Vec<Record>]) -> Log {
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

fn schema(fields: &[(&str, bool)]) -> SchemaRef {
    let kind = |time: bool| if time { DataType::Timestamp(TimeUnit::Microsecond, None) } else { DataType::Int64 };
    Arc::new(Schema::new(fields.iter().map(|(name, time)| Field::new(*name, kind(*time), true)).collect::<Vec<_>>()))
}

fn input_schema() -> SchemaRef {
    schema(&[("k", false), ("ts", true), ("v", false)])
}

fn windowed_schema() -> SchemaRef {
    schema(&[("k", false), ("window_start", true), ("window_end", true), ("n", false), ("sum", false)])
}

fn calls() -> Vec<Call> {
    let call = |function, argument: Option<usize>| Call {
        spec: Spec { function, input: argument.map(|_| DataType::Int64), output: DataType::Int64, retracts: false },
        argument,
        filter: None,
    };
    vec![call(Function::CountStar, None), call(Function::Sum, Some(2))]
}

/// What the tests of the tests replace.
#[derive(Clone)]
pub struct Parts {
    /// The columns by which rows find their worker.
    pub exchange: Vec<usize>,
    /// Put around the operator that keeps state.
    pub wrap: fn(Box<dyn Operator>) -> Box<dyn Operator>,
}

impl Parts {
    /// As the planner has them.
    pub fn right(shape: Shape) -> Self {
        Self { exchange: if shape.kind == Kind::Global { Vec::new() } else { vec![0] }, wrap: |operator| operator }
    }
}

/// The dataflow of a shape over a log.
pub fn flow(log: &Log, shape: Shape, parts: &Parts) -> Dataflow {
    let mut flow = Dataflow::default();
    let reader = log.clone();
    flow.sources.push(SourceSpec {
        name: "log".into(),
        reading: 0,
        letters: true,
        topic: "log".into(),
        schema: input_schema(),
        time: Some(TimeSpec { column: 1, delay_us: DELAY_US }),
        future_max_us: None,
        idle_after_us: 1_000_000,
        open: Arc::new(move || Ok(reader.reader(0))),
    });
    let source = flow.add("source/log", vec![], NodeKind::Source(0));
    let (last, schema, key) = match shape.kind {
        Kind::Windows => (aggregated(&mut flow, source, shape, parts), windowed_schema(), vec![0, 1, 2]),
        Kind::Global => (aggregated(&mut flow, source, shape, parts), schema(&[("n", false), ("sum", false)]), vec![]),
        Kind::Sessions => (sessions(&mut flow, source, shape, parts), windowed_schema(), vec![0, 1, 2]),
        Kind::Top => {
            let below = aggregated(&mut flow, source, shape, parts);
            (ranked(&mut flow, below, shape), ranked_schema(), vec![1, 2, 5])
        }
        Kind::Join | Kind::AsOf | Kind::Latest => {
            let (schema, key) = joins::output(shape.kind);
            (joins::flow(&mut flow, source, shape, parts), schema, key)
        }
    };
    let visible = schema.fields().len();
    flow.outputs.push(OutputSpec {
        name: "out".into(),
        delivered: false,
        schema,
        key,
        visible,
        plan_hash: "same".into(),
        reading: 0,
        behind_us: 0,
    });
    flow.add("out/sink", vec![last], NodeKind::Sink(0));
    flow
}

fn operator(flow: &mut Dataflow, id: &str, input: NodeId, make: Make) -> NodeId {
    flow.add(id, vec![input], NodeKind::Operator(make))
}

fn aggregated(flow: &mut Dataflow, source: NodeId, shape: Shape, parts: &Parts) -> NodeId {
    let global = shape.kind == Kind::Global;
    let windowing = Windowing {
        time: 1,
        windows: Windows::hop(shape.slide_us, shape.size_us, 0).unwrap(),
        lateness_us: shape.lateness_us,
        retention_extra_us: 0,
    };
    let aggregation = Arc::new(Aggregation {
        keys: if global { Vec::new() } else { vec![0] },
        windowing: (!global).then_some(windowing),
        calls: calls(),
        input: input_schema(),
        output: if global { schema(&[("n", false), ("sum", false)]) } else { windowed_schema() },
        sources: vec![0],
        emit: if global { Emit::Changes } else { Emit::Final },
        retracts: false,
        rows_per_tick_max: 1_000,
    });
    let mut node = source;
    if shape.pre_aggregate {
        let aggregation = Arc::clone(&aggregation);
        node = operator(flow, "out/partial", node, Arc::new(move || Ok(Box::new(Partial::new(Arc::clone(&aggregation))?) as _)));
    }
    let exchange = flow.add("out/exchange", vec![node], NodeKind::Exchange(parts.exchange.clone()));
    let input = if shape.pre_aggregate { Input::Partials } else { Input::Raw };
    let wrap = parts.wrap;
    operator(flow, "out/1_aggregate", exchange, Arc::new(move || Ok(wrap(Box::new(Final::new(Arc::clone(&aggregation), input)?)))))
}

fn sessions(flow: &mut Dataflow, source: NodeId, shape: Shape, parts: &Parts) -> NodeId {
    let sessions = Arc::new(Sessions {
        keys: vec![0],
        time: 1,
        gap_us: shape.size_us,
        lateness_us: shape.lateness_us,
        calls: calls(),
        input: input_schema(),
        output: windowed_schema(),
        sources: vec![0],
        emit: Emit::Final,
        latest: false,
    });
    let mut node = source;
    if shape.pre_aggregate {
        let sessions = Arc::clone(&sessions);
        node = operator(flow, "out/partial", node, Arc::new(move || Ok(Box::new(session::Partial::new(Arc::clone(&sessions))?) as _)));
    }
    let exchange = flow.add("out/exchange", vec![node], NodeKind::Exchange(parts.exchange.clone()));
    let input = if shape.pre_aggregate { Input::Partials } else { Input::Raw };
    let wrap = parts.wrap;
    operator(flow, "out/1_session", exchange, Arc::new(move || Ok(wrap(Box::new(session::Final::new(Arc::clone(&sessions), input)?)))))
}

fn ranked_schema() -> SchemaRef {
    let mut fields: Vec<Field> = windowed_schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("place", DataType::Int64, true));
    Arc::new(Schema::new(fields))
}

/// The rows of each window with the greatest counts, the lesser key first among equals.
fn ranked(flow: &mut Dataflow, below: NodeId, shape: Shape) -> NodeId {
    let ranking = Ranking {
        partition: vec![1, 2],
        order: vec![(3, SortOptions { descending: true, nulls_first: true }), (0, SortOptions { descending: false, nulls_first: false })],
        k: PLACES,
        identity: vec![0, 1, 2],
        row_number: true,
        window_end: Some(2),
        retention_us: shape.lateness_us,
        retracts: true,
        input: windowed_schema(),
        output: ranked_schema(),
        sources: vec![0],
        emit: Emit::Final,
    };
    let exchange = flow.add("out/exchange_2", vec![below], NodeKind::Exchange(vec![1, 2]));
    operator(flow, "out/2_top_k", exchange, Arc::new(move || Ok(Box::new(TopK::new(ranking.clone())?) as _)))
}
