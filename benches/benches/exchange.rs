//! The exchange: hashing a key column of bids and splitting the rows over four workers.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tidemill_benches::bids::{Bids, FULL};
use tidemill_engine::hash::hash_columns;
use tidemill_engine::rows::{Rows, Tokens};
use tidemill_engine::worker::split;

const ROWS: usize = 65_536;
const WORKERS: usize = 4;

fn exchange(c: &mut Criterion) {
    let bids = Bids::new(ROWS, FULL);
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(bids.auctions().iter().map(|key| i64::from(*key))));
    let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(bids.auctions().iter().map(|key| format!("a-longer-key-{key}"))));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values((0..ROWS).map(|bid| bids.time_us(bid))));
    let Ok(batch) = RecordBatch::try_from_iter([("key", keys), ("text", texts), ("time", times)]) else { return };
    let mut group = c.benchmark_group("exchange");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, key) in [("hash bigint", 0), ("hash varchar", 1)] {
        let columns = [Arc::clone(batch.column(key))];
        group.bench_function(name, |b| b.iter(|| hash_columns(black_box(&columns), ROWS).map(|hashes| hashes.len())));
    }
    group.bench_function("hash bigint and split", |b| {
        b.iter_batched(
            || (Rows::derived(batch.clone(), None, Tokens::Each(0)), vec![Vec::new(); WORKERS]),
            |(rows, mut outgoing)| {
                let done = split(rows, &[0], WORKERS, &mut outgoing);
                assert!(done.is_ok() && outgoing.iter().flatten().map(Rows::len).sum::<usize>() == ROWS);
                outgoing
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, exchange);
criterion_main!(benches);
