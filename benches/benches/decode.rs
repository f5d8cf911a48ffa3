//! Decoding JSON bids of about 200 bytes: ours, arrow-json and sonic-rs, on the same records.
//!
//! `3 of 7` declares seven columns and builds three, which still checks every value of every record; `3 declared` leaves four unknown.
//! arrow-json builds the same three columns. The two sonic-rs cases only pull the three values out of each record, which no Arrow
//! column comes from, and check less; sonic-rs picks its SIMD when it is compiled, so it is at its best with `-C target-cpu=native`
//! only. Throughput is in records per second of this thread's CPU time, so a busy machine disturbs it less.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::json::ReaderBuilder;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde::Deserialize;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use tidemill_connectors::json::{Column, JsonDecoder, Options, TEXT_TYPE, TimeUnitOption};

const RECORDS: usize = 8_192;
const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// Bids with 100 k keys, half of them among 100, and where each ends.
fn bids() -> (Vec<u8>, Vec<usize>) {
    let mut state = 42_u64;
    let mut random = move |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let mut all = Vec::new();
    let ends = (0..RECORDS)
        .map(|i| {
            let auction = if random(2) == 0 { random(100) } else { random(100_000) };
            let (bidder, price, channel) = (random(100_000), 100 + random(100_000_000), random(10_000));
            let (minute, second, milli) = (i / 60 % 60, i % 60, random(1_000));
            let path: String = (0..5 + random(20)).map(|_| char::from(b'a' + random(26) as u8)).collect();
            let extra: String = (0..random(30)).map(|_| char::from(b'a' + random(26) as u8)).collect();
            let record = format!(
                r#"{{"auction":{auction},"bidder":{bidder},"price":{price},"channel":"channel-{channel}","url":"https://www.nexmark.com/{path}/item.htm?query=1","dateTime":"2024-05-17T08:{minute:02}:{second:02}.{milli:03}Z","extra":"{extra}"}}"#
            );
            all.extend_from_slice(record.as_bytes());
            all.len()
        })
        .collect();
    (all, ends)
}

fn columns(declared: &[&str], built: &[&str]) -> Vec<Column> {
    declared
        .iter()
        .map(|name| Column {
            name: name.to_lowercase(),
            path: vec![(*name).to_string()],
            data_type: match *name {
                "auction" | "bidder" | "price" => DataType::Int64,
                "dateTime" => TIMESTAMP,
                _ => TEXT_TYPE,
            },
            nullable: false,
            unit: TimeUnitOption::Ms,
            build: built.contains(name),
        })
        .collect()
}

#[derive(Deserialize)]
struct Bid<'a> {
    auction: i64,
    price: i64,
    #[serde(rename = "dateTime", borrow)]
    date_time: &'a str,
}

fn decode(c: &mut Criterion<CpuTime>) {
    const ALL: [&str; 7] = ["auction", "bidder", "price", "channel", "url", "dateTime", "extra"];
    const THREE: [&str; 3] = ["auction", "price", "dateTime"];
    // One after the other in memory, as a fetch from the broker leaves them.
    let (all, ends) = bids();
    let records: Vec<&[u8]> = ends.iter().scan(0, |start, end| all.get(std::mem::replace(start, *end)..*end)).collect();
    let mut group = c.benchmark_group(format!("decode/{}B", all.len() / records.len()));
    group.throughput(Throughput::Elements(records.len() as u64));
    for (name, declared, built) in [("ours 3 of 7", &ALL[..], &THREE[..]), ("ours 3 declared", &THREE, &THREE), ("ours 7 of 7", &ALL, &ALL)]
    {
        let Ok(mut decoder) = JsonDecoder::new(columns(declared, built), Options::default()) else { return };
        group.bench_function(name, |b| {
            b.iter(|| {
                for record in &records {
                    assert!(decoder.decode(record).is_ok());
                }
                decoder.finish().map(|batch| batch.num_rows())
            });
        });
    }
    let fields = [("auction", DataType::Int64), ("price", DataType::Int64), ("dateTime", TIMESTAMP)];
    let schema = Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, false)).to_vec()));
    let lines = records.join(&b'\n');
    group.bench_function("arrow-json 3 of 7", |b| {
        b.iter_batched(
            || ReaderBuilder::new(Arc::clone(&schema)).with_batch_size(RECORDS).build_decoder(),
            |decoder| {
                let mut decoder = decoder?;
                decoder.decode(&lines)?;
                decoder.flush().map(|batch| batch.map(|batch| batch.num_rows()))
            },
            BatchSize::LargeInput,
        );
    });
    let mut tree = sonic_rs::PointerTree::new();
    for name in THREE {
        tree.add_path([name]);
    }
    group.bench_function("sonic-rs get_many 3 of 7", |b| {
        b.iter(|| {
            let mut sum = 0_i64;
            for record in &records {
                if let Ok(found) = sonic_rs::get_many(*record, &tree) {
                    for value in found.iter().flatten() {
                        let raw = value.as_raw_str();
                        sum += raw.parse::<i64>().unwrap_or(raw.len() as i64);
                    }
                }
            }
            sum
        });
    });
    group.bench_function("sonic-rs struct 3 of 7", |b| {
        b.iter(|| {
            let mut sum = 0_i64;
            for record in &records {
                if let Ok(bid) = sonic_rs::from_slice::<Bid<'_>>(record) {
                    sum += bid.auction + bid.price + black_box(bid.date_time).len() as i64;
                }
            }
            sum
        });
    });
    group.finish();
}

/// The CPU time of the calling thread, shown like wall time.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes one timespec, to which the pointer is valid.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
    }

    fn end(&self, start: Duration) -> Duration {
        self.start().saturating_sub(start)
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

criterion_group!(name = benches; config = Criterion::default().with_measurement(CpuTime); targets = decode);
criterion_main!(benches);
