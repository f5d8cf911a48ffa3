//! Delivery against a sink that is slow, knows some epochs already, or fails.

use std::time::{Duration, Instant};

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::epoch::recover::{Identity, create};
use crate::graph::{Dataflow, NodeKind, OutputSpec};

#[derive(Default)]
struct Sink {
    epochs: Mutex<Vec<u64>>,
    held: AtomicBool,
    knows: Option<u64>,
    breaks_at: u64,
}

struct To(Arc<Sink>);

impl Deliver for To {
    fn begin(&mut self, manifest: &Manifest) -> Result<Vec<Option<u64>>> {
        let entry = manifest.sinks.first().expect("a sink");
        check_arrived(entry, manifest.epoch, self.0.knows, "the sink")?;
        Ok(vec![self.0.knows])
    }

    fn deliver(&mut self, epoch: u64, _rows: &[(usize, RecordBatch)], stop: &AtomicBool) -> Result<()> {
        while self.0.held.load(Ordering::Acquire) && !stop.load(Ordering::Acquire) {
            thread::yield_now();
        }
        if epoch == self.0.breaks_at {
            return Err(Error::external("the sink is gone"));
        }
        self.0.epochs.lock().expect("no panic").push(epoch);
        Ok(())
    }
}

fn batch() -> RecordBatch {
    RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1])) as _)]).expect("a batch")
}

fn manifest(epoch: u64, delivered: u64) -> Manifest {
    let mut flow = Dataflow::default();
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    flow.outputs.push(OutputSpec {
        name: "out".into(),
        delivered: true,
        schema,
        key: vec![],
        visible: 1,
        plan_hash: String::new(),
        reading: 0,
        behind_us: 0,
    });
    flow.add("out/sink", vec![], NodeKind::Sink(0));
    let identity = Identity { pipeline: "p".into(), incarnation: "i".into(), build: "b".into(), workers: 1 };
    let mut manifest = create(&flow, &identity, "u".into(), Vec::new()).expect("a manifest");
    assert!(manifest.tables.iter().all(|table| table.name != "out"), "a sink is no table");
    manifest.epoch = epoch;
    manifest.sinks[0].delivered = delivered;
    manifest
}

fn begin(sink: &Arc<Sink>, manifest: &Manifest, sealed: &[u64]) -> Result<Delivery> {
    let sealed = sealed.iter().map(|epoch| (*epoch, vec![(0, batch())])).collect();
    Delivery::begin(Box::new(To(Arc::clone(sink))), manifest, sealed, DeliveryLimits { epochs_max: 3, bytes_max: 1 << 20 })
}

#[test]
fn what_the_sink_knows_is_not_sent_again_and_the_rest_in_order() {
    let sink = Arc::new(Sink { knows: Some(4), ..Sink::default() });
    let mut delivery = begin(&sink, &manifest(7, 3), &[3, 4, 6]).expect("begins");
    delivery.send(8, vec![(0, batch())]).expect("sends");
    delivery.send(9, Vec::new()).expect("sends");
    delivery.finish().expect("arrives");
    assert_eq!((sink.epochs.lock().expect("no panic").as_slice(), delivery.arrived()), (&[6, 8][..], 9));
}

#[test]
fn a_sink_that_knows_more_or_less_than_the_manifest_is_refused() {
    for (knows, said) in [(Some(8), "newest epoch is 7"), (Some(2), "knows only of epoch 2"), (None, "knows of none")] {
        let sink = Arc::new(Sink { knows, ..Sink::default() });
        let error = begin(&sink, &manifest(7, 3), &[]).err().expect("refused");
        assert!(error.message().contains(said), "{error}");
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a deadline for a test")]
fn a_slow_sink_fills_the_backlog_and_a_broken_one_is_told() {
    let sink = Arc::new(Sink { held: true.into(), breaks_at: 4, ..Sink::default() });
    let mut delivery = begin(&sink, &manifest(0, 0), &[]).expect("begins");
    for epoch in 1..=3 {
        assert!(!delivery.is_full());
        delivery.send(epoch, vec![(0, batch())]).expect("sends");
    }
    assert!(delivery.is_full());
    sink.held.store(false, Ordering::Release);
    let begun = Instant::now();
    while delivery.is_full() {
        delivery.look().expect("goes well");
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing arrives");
    }
    delivery.send(4, vec![(0, batch())]).expect("sends");
    let error = delivery.finish().expect_err("it broke");
    assert_eq!((error.message(), delivery.arrived()), ("the sink is gone", 3));
}

#[test]
fn dropping_it_ends_one_that_waits() {
    let sink = Arc::new(Sink { held: true.into(), ..Sink::default() });
    let mut delivery = begin(&sink, &manifest(0, 0), &[]).expect("begins");
    delivery.send(1, vec![(0, batch())]).expect("sends");
    drop(delivery);
}
