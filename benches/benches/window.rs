//! Updating windows: decoded bids through the operators that keep a count by key, results and all.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tidemill_benches::bids::{Bids, FULL};
use tidemill_benches::plans::{feed, sessions, ticks, windowed};
use tidemill_benches::workloads::ALL;
use tidemill_benches::workloads::Windows;

const BIDS: usize = 3_000_000;

fn window(c: &mut Criterion) {
    let bids = Bids::new(BIDS, FULL);
    let Ok(ticks) = ticks(&bids) else { return };
    let watermark = ticks.last().map_or(0, |(_, watermark)| *watermark);
    let mut group = c.benchmark_group("window");
    group.throughput(Throughput::Elements(BIDS as u64)).sample_size(10);
    for workload in ALL {
        let make = match workload.windows {
            Windows::Project | Windows::Kept(_) => continue,
            Windows::Hop(slide, size) => Box::new(move || windowed(slide, size)) as Box<dyn Fn() -> _>,
            Windows::Session(gap) => Box::new(move || sessions(gap)),
        };
        let expected = workload.expected(&bids, watermark).0 as usize;
        group.bench_function(workload.name, |b| {
            b.iter_batched(
                &make,
                |made| {
                    let Ok(mut operator) = made else { panic!("no operator") };
                    assert_eq!(feed(operator.as_mut(), &ticks).ok(), Some(expected));
                    operator
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, window);
criterion_main!(benches);
