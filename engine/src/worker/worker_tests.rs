//! Workers driven by hand: idle partitions let windows close on every worker, and state at its limit ends the run by name.

use std::sync::atomic::AtomicI64;

use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::*;
use crate::graph::{Node, OutputSpec};
use crate::operator::{Operator, Output};
use crate::rows::Rows;
use crate::sim::doubles::{Entry, Log, LogPartition};
use crate::source::{Position, SourceSpec, TimeSpec};

const SECOND: i64 = 1_000_000;

/// Remembers the greatest watermark it was told and claims some bytes of state.
struct Watcher(Arc<AtomicI64>, usize);

impl Operator for Watcher {
    fn name(&self) -> &'static str {
        "watcher"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        out.emit(rows);
        Ok(())
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.0.fetch_max(watermark.unwrap_or(BEGINNING), Ordering::Relaxed);
        out.watermark = watermark;
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.1
    }
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), false)]))
}

fn partition(seconds: i64) -> LogPartition {
    let times = TimestampMicrosecondArray::from_iter_values((0..seconds).map(|second| second * SECOND));
    let rows = RecordBatch::try_new(schema(), vec![Arc::new(times)]).expect("a batch");
    let entries = (0..seconds).map(|row| Entry { row: Some(row as u32), payload: vec![b'x'] }).collect();
    LogPartition { rows, entries }
}

/// source -> operator -> exchange -> operator -> sink, over one topic.
fn flow(log: &Log, seen: &Arc<AtomicI64>, bytes: usize) -> Dataflow {
    let mut flow = Dataflow::default();
    let (log, seen) = (log.clone(), Arc::clone(seen));
    flow.sources.push(SourceSpec {
        name: "c".into(),
        reading: 0,
        letters: true,
        topic: "c".into(),
        schema: schema(),
        time: Some(TimeSpec { column: 0, delay_us: 0 }),
        future_max_us: None,
        idle_after_us: 10_000,
        open: Arc::new(move || Ok(log.reader(0))),
    });
    flow.outputs.push(OutputSpec {
        name: "t".into(),
        delivered: false,
        schema: schema(),
        key: vec![],
        visible: 1,
        plan_hash: String::new(),
        reading: 0,
        behind_us: 0,
    });
    let node = |id: &str, inputs, kind| Node { id: id.into(), inputs, kind };
    flow.nodes = vec![
        node("c", vec![], NodeKind::Source(0)),
        node("t_before", vec![0], NodeKind::Operator(Arc::new(|| Ok(Box::new(Watcher(Arc::default(), 0)))))),
        node("t_exchange", vec![1], NodeKind::Exchange(vec![0])),
        node("t_after", vec![2], NodeKind::Operator(Arc::new(move || Ok(Box::new(Watcher(Arc::clone(&seen), bytes)))))),
        node("t_sink", vec![3], NodeKind::Sink(0)),
    ];
    flow
}

/// Steps `count` workers in turn for a while of virtual time. Answers the greatest watermark behind the exchange.
fn drive(log: &Log, count: usize, bytes: usize, state_bytes_max: u64) -> Result<i64> {
    let seen = Arc::new(AtomicI64::new(BEGINNING));
    let flow = Arc::new(flow(log, &seen, bytes));
    let layout = Arc::new(Layout::of(&flow)?);
    let shared = Arc::new(Shared::new(count));
    let (parts, _parts) = bounded(count);
    let (peers, inboxes) = channels(count, &layout);
    let options = WorkerOptions { epoch_us: i64::MAX, tick_us_max: 1_000, state_bytes_max, ..WorkerOptions::default() };
    let mut workers = Vec::new();
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let mine = log.partitions(0).filter(|partition| *partition as usize % count == index);
        let positions: Vec<_> = mine.map(|partition| Position::new(partition, 0)).collect();
        let reader = if positions.is_empty() { None } else { Some(Reader::open(0, &flow.sources[0], positions, None)?) };
        workers.push(Worker::new(Setup {
            index,
            count,
            flow: Arc::clone(&flow),
            layout: Arc::clone(&layout),
            readers: vec![reader],
            options,
            shared: Arc::clone(&shared),
            inbox,
            peers: peers.clone(),
            parts: parts.clone(),
            sealed: vec![None],
        })?);
    }
    for step in 0..20_000_i64 {
        for worker in &mut workers {
            worker.step(step * 50)?;
        }
    }
    Ok(seen.load(Ordering::Relaxed))
}

#[test]
fn empty_partitions_hold_no_window_whatever_worker_reads_them() {
    let log = Log::new(vec![vec![partition(25), partition(0), partition(0)]]);
    for count in [1, 2, 3, 5] {
        assert_eq!(drive(&log, count, 0, u64::MAX).expect("runs"), 24 * SECOND, "{count} workers");
    }
}

#[test]
fn a_partition_that_fell_silent_lets_the_others_pass() {
    let log = Log::new(vec![vec![partition(40), partition(3)]]);
    for count in [1, 2] {
        let reached = drive(&log, count, 0, u64::MAX).expect("runs");
        assert!(reached >= 2 * SECOND, "{count} workers: {reached}");
    }
}

#[test]
fn state_at_its_limit_ends_the_run_and_says_whose_it_is() {
    let log = Log::new(vec![vec![partition(5)]]);
    assert!(drive(&log, 1, 100, 100).is_ok());
    let error = drive(&log, 2, 100, 150).expect_err("200 bytes are too many").to_string();
    for part in ["200 bytes", "state_bytes_max is 150", "operator t_after (100 bytes in one of 2 workers)"] {
        assert!(error.contains(part), "{error}");
    }
}
