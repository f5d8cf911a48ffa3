//! A snapshot of state: taking the whole table out of an operator, writing it as an Arrow IPC stream, reading, merging and loading it again.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tidemill_benches::bids::{Bids, FULL};
use tidemill_benches::plans::{feed, ticks, windowed};
use tidemill_engine::epoch::segment::{Segment, read_batches};
use tidemill_engine::operator::Operator;
use tidemill_engine::state::{Changes, Merge};

const BIDS: usize = 2_000_000;
const HOUR_US: i64 = 3_600_000_000;

fn full() -> Option<(Box<dyn Operator>, Changes)> {
    let mut operator = windowed(HOUR_US, HOUR_US).ok()?;
    feed(operator.as_mut(), &ticks(&Bids::new(BIDS, FULL)).ok()?).ok()?;
    let changes = operator.changes(0, true).ok()?;
    Some((operator, changes))
}

fn snapshot(c: &mut Criterion) {
    let Some((mut operator, changes)) = full() else { return };
    let Some(spec) = operator.tables().into_iter().next() else { return };
    let rows: usize = changes.upserts.iter().map(|batch| batch.num_rows()).sum();
    let mut segment = Segment::new("segment");
    assert!(rows > 90_000 && segment.append_batches(&spec.schema, &changes.upserts).is_ok());
    let mut group = c.benchmark_group("snapshot");
    group.throughput(Throughput::Elements(rows as u64));
    group.bench_function("changes", |b| b.iter(|| operator.changes(0, true).map(|changes| changes.upserts.len())));
    group.bench_function("encode", |b| {
        b.iter(|| Segment::new("segment").append_batches(&spec.schema, &changes.upserts).map(|section| section.length));
    });
    group.bench_function("decode, merge and load", |b| {
        b.iter_batched(
            || windowed(HOUR_US, HOUR_US),
            |made| {
                let (Ok(mut operator), Ok(mut merge), Ok((_, upserts))) = (made, Merge::new(spec.clone()), read_batches(segment.bytes()))
                else {
                    panic!("nothing to load")
                };
                let applied = merge.apply(Changes { upserts, full: true, ..Changes::default() });
                let left = merge.finish(|_| true).unwrap_or_default();
                assert!(applied.is_ok() && left.iter().map(|batch| batch.num_rows()).sum::<usize>() == rows);
                assert!(left.iter().all(|batch| operator.load(0, batch).is_ok()));
                operator
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, snapshot);
criterion_main!(benches);
