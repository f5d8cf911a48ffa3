//! The workloads: their SQL, the same answer computed plainly, and one run of each through the real planner, workers and epochs.
//!
//! Always: one worker, an epoch a second, durable in a folder; a run stops when all bids are read, without a closing publish, and what it
//! has published until then must be what the plain computation says. No cold tier: `kafka` measures that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tidemill_engine::epoch::coordinator::EpochOptions;
use tidemill_engine::epoch::manifest::{Manifest, SourceEntry};
use tidemill_engine::epoch::recover::hot_rows;
use tidemill_engine::epoch::recover::{Identity, create};
use tidemill_engine::epoch::store::{LocalStore, Store};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::run::Run;
use tidemill_engine::source::Position;
use tidemill_engine::worker::{Shared, WorkerOptions};
use tidemill_pipelines::lower::lower;
use tidemill_pipelines::runner::Pipeline;

use crate::bids::{Bids, COLUMNS, FULL, LONG, PARTITIONS, Pace};
use crate::memory::Memory;
use crate::usage;

/// Windows of a workload, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// None: three of seven columns, of which a filter lets nothing pass.
    Project,
    /// Slide and size; a tumble's are equal.
    Hop(i64, i64),
    /// The gap.
    Session(i64),
    /// None: something else that is kept.
    Kept(Kept),
}

/// What is kept that is no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Each bid with the newest bid of its bidder among one in ten, read as a second stream.
    AsOf,
    /// Each of one bid in ten, read as a second stream, with the bids of its bidder in the two seconds before.
    Interval,
    /// The ten highest bids of each auction.
    Top,
    /// The first bid of each bidder.
    First,
    /// The first bid of each bidder on each auction: most keys are new.
    FirstOfPair,
}

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Its name in the table.
    pub name: &'static str,
    /// Its windows.
    pub windows: Windows,
    /// Its bids.
    pub pace: Pace,
}

/// All of them.
pub const ALL: [Workload; 12] = [
    Workload { name: "decode + project 3 of 7", windows: Windows::Project, pace: FULL },
    Workload { name: "tumble 10 s", windows: Windows::Hop(10_000_000, 10_000_000), pace: FULL },
    Workload { name: "hop 10 s / 2 s", windows: Windows::Hop(2_000_000, 10_000_000), pace: FULL },
    Workload { name: "session 1 s", windows: Windows::Session(1_000_000), pace: FULL },
    Workload { name: "as-of join, two streams, 100,000 keys", windows: Windows::Kept(Kept::AsOf), pace: FULL },
    Workload { name: "interval join, two streams, 100,000 keys", windows: Windows::Kept(Kept::Interval), pace: FULL },
    Workload { name: "top 10 of each of 100,000 keys", windows: Windows::Kept(Kept::Top), pace: FULL },
    Workload { name: "first of each of 100,000 keys", windows: Windows::Kept(Kept::First), pace: FULL },
    Workload { name: "first of each pair, mostly new keys", windows: Windows::Kept(Kept::FirstOfPair), pace: FULL },
    Workload { name: "hop 10 s / 2 s, 1,000 keys, 5 panes", windows: Windows::Hop(2_000_000, 10_000_000), pace: LONG },
    Workload { name: "hop 10 min / 1 s, 1,000 keys, 600 panes", windows: Windows::Hop(1_000_000, 600_000_000), pace: LONG },
    Workload { name: "hop 1 h / 1 s, 1,000 keys, 1,200 panes", windows: Windows::Hop(1_000_000, 3_600_000_000), pace: LONG },
];

/// Rows of the output and the bids they count.
pub type Answer = (i64, i64);

impl Workload {
    /// The pipeline.
    pub fn sql(&self, topic: &str) -> String {
        let source = format!(
            "SET pipeline = 'bench'; CREATE TABLE bids ({COLUMNS}) WITH (connector = 'kafka', topic = '{topic}', format = 'json');"
        );
        let grouped = |windows: String| {
            format!(
                "{source} CREATE MATERIALIZED VIEW out AS SELECT window_start, window_end, auction, count(*) AS bids FROM {windows} \
                 GROUP BY window_start, window_end, auction;"
            )
        };
        let seconds = |us: i64| format!("INTERVAL '{} seconds'", us / 1_000_000);
        match self.windows {
            Windows::Project => {
                format!("{source} CREATE MATERIALIZED VIEW out AS SELECT auction, price, dateTime FROM bids WHERE price < 0;")
            }
            Windows::Hop(slide, size) if slide == size => grouped(format!("tumble(bids, dateTime, {})", seconds(size))),
            Windows::Hop(slide, size) => grouped(format!("hop(bids, dateTime, {}, {})", seconds(slide), seconds(size))),
            Windows::Session(gap) => grouped(format!("session(bids, dateTime, {}, auction)", seconds(gap))),
            Windows::Kept(kept) => {
                let others =
                    || format!("{source} CREATE TABLE others ({COLUMNS}) WITH (connector = 'kafka', topic = '{topic}', format = 'json');");
                let first = |by: &str| {
                    format!(
                        "{source} CREATE MATERIALIZED VIEW out AS SELECT auction, bidder, price FROM \
                         (SELECT *, row_number() OVER (PARTITION BY {by} ORDER BY dateTime) AS place FROM bids) WHERE place = 1;"
                    )
                };
                match kept {
                    Kept::AsOf => format!(
                        "{} CREATE MATERIALIZED VIEW out AS SELECT b.auction, b.price, \
                         CASE WHEN o.price IS NULL THEN CAST(0 AS BIGINT) ELSE CAST(1 AS BIGINT) END AS bids FROM bids b ASOF JOIN \
                         (SELECT * FROM others WHERE price % 10 = 0) o MATCH_CONDITION (b.dateTime >= o.dateTime) ON b.bidder = o.bidder;",
                        others()
                    ),
                    Kept::Interval => format!(
                        "{} CREATE MATERIALIZED VIEW out AS SELECT b.auction, b.price, o.price AS other FROM bids b JOIN others o \
                         ON b.bidder = o.bidder AND o.price % 10 = 0 AND b.dateTime BETWEEN o.dateTime - INTERVAL '2 seconds' AND o.dateTime;",
                        others()
                    ),
                    Kept::Top => format!(
                        "{source} CREATE MATERIALIZED VIEW out AS SELECT auction, price, place FROM \
                         (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS place FROM bids) WHERE place <= 10;"
                    ),
                    Kept::First => first("bidder"),
                    Kept::FirstOfPair => first("bidder, auction"),
                }
            }
        }
    }

    /// How many streams are read, each all bids.
    pub fn streams(&self) -> usize {
        if let Windows::Kept(kept) = self.windows { kept.streams() } else { 1 }
    }

    /// The right answer when the watermark has come to `watermark_us`.
    pub fn expected(&self, bids: &Bids, watermark_us: i64) -> Answer {
        match self.windows {
            Windows::Project => (0, 0),
            Windows::Hop(slide, size) => hops(bids, slide, size, watermark_us),
            Windows::Session(gap) => sessions(bids, gap, watermark_us),
            Windows::Kept(kept) => kept.expected(bids, watermark_us),
        }
    }
}

impl Kept {
    /// How many streams are read.
    fn streams(self) -> usize {
        if matches!(self, Self::AsOf | Self::Interval) { 2 } else { 1 }
    }

    fn expected(self, bids: &Bids, watermark_us: i64) -> Answer {
        let all = || bids.bidders().iter().zip(bids.prices()).enumerate();
        match self {
            Self::AsOf => {
                // Of one instant all count, so the newest is looked for when the instant is over.
                let (mut rows, mut matched) = (0, 0);
                let mut since: HashMap<u32, i64> = HashMap::new();
                for (bid, (bidder, price)) in all() {
                    if price % 10 == 0 {
                        since.entry(*bidder).or_insert_with(|| bids.time_us(bid));
                    }
                }
                for (bid, (bidder, _)) in all().filter(|(bid, _)| bids.time_us(*bid) < watermark_us) {
                    rows += 1;
                    matched += i64::from(since.get(bidder).is_some_and(|since| *since <= bids.time_us(bid)));
                }
                (rows, matched)
            }
            Self::Interval => {
                let mut times: HashMap<u32, Vec<i64>> = HashMap::new();
                all().for_each(|(bid, (bidder, _))| times.entry(*bidder).or_default().push(bids.time_us(bid)));
                let near = |bid: usize, bidder: u32| {
                    let (now, times) = (bids.time_us(bid), times.get(&bidder).map(Vec::as_slice).unwrap_or_default());
                    times.partition_point(|time| *time <= now) - times.partition_point(|time| *time < now - 2_000_000)
                };
                let pairs = all().filter(|(_, (_, price))| *price % 10 == 0).map(|(bid, (bidder, _))| near(bid, *bidder));
                (pairs.sum::<usize>() as i64, 0)
            }
            Self::Top => {
                let mut counts: HashMap<u32, i64> = HashMap::new();
                bids.auctions().iter().for_each(|auction| *counts.entry(*auction).or_default() += 1);
                (counts.values().map(|count| (*count).min(10)).sum(), 0)
            }
            Self::First => (bids.bidders().iter().collect::<HashSet<_>>().len() as i64, 0),
            Self::FirstOfPair => (bids.bidders().iter().zip(bids.auctions()).collect::<HashSet<_>>().len() as i64, 0),
        }
    }
}

/// Bids by window and key, in the order of time.
fn hops(bids: &Bids, slide: i64, size: i64, watermark_us: i64) -> Answer {
    let times: Vec<i64> = (0..bids.len()).map(|bid| bids.time_us(bid)).collect();
    let Some((first, last)) = times.first().zip(times.last()) else { return (0, 0) };
    let (mut rows, mut counted) = (0, 0);
    let mut start = (first - size).div_euclid(slide) * slide + slide;
    // The bids of one window after the other, by key: what enters, what leaves.
    let (mut inside, mut keys, mut from, mut to) = (HashMap::<u32, i64>::new(), 0_i64, 0, 0);
    while start <= *last && start + size <= watermark_us {
        while times.get(to).is_some_and(|time| *time < start + size) {
            let count = bids.auctions().get(to).map(|auction| inside.entry(*auction).or_default());
            keys += count.map_or(0, |count| i64::from(std::mem::replace(count, *count + 1) == 0));
            to += 1;
        }
        while from < to && times.get(from).is_some_and(|time| *time < start) {
            let count = bids.auctions().get(from).map(|auction| inside.entry(*auction).or_default());
            keys -= count.map_or(0, |count| i64::from(std::mem::replace(count, *count - 1) == 1));
            from += 1;
        }
        rows += keys;
        counted += (to - from) as i64;
        start += slide;
    }
    (rows, counted)
}

fn sessions(bids: &Bids, gap: i64, watermark_us: i64) -> Answer {
    let mut open: HashMap<u32, (i64, i64)> = HashMap::new();
    let (mut rows, mut counted) = (0, 0);
    for (bid, auction) in bids.auctions().iter().enumerate() {
        let time = bids.time_us(bid);
        let session = open.entry(*auction).or_insert((time, 0));
        if time > session.0 + gap {
            if session.0 + gap <= watermark_us {
                (rows, counted) = (rows + 1, counted + session.1);
            }
            session.1 = 0;
        }
        *session = (time, session.1 + 1);
    }
    for (_, count) in open.into_values().filter(|(last, _)| last.saturating_add(gap) <= watermark_us) {
        (rows, counted) = (rows + 1, counted + count);
    }
    (rows, counted)
}

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// CPU seconds of the process.
    pub cpu_s: f64,
    /// Seconds of wall clock.
    pub wall_s: f64,
    /// Peak memory above what was held before, in bytes.
    pub memory: u64,
    /// Epochs committed.
    pub epochs: u64,
    /// Bytes of state at the end.
    pub state: u64,
    /// Rows published and bids counted in them.
    pub answer: Answer,
}

/// Runs a workload over all bids.
pub fn run(workload: &Workload, bids: &Arc<Bids>) -> Result<Took> {
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(folder.path())?);
    let pipeline = Pipeline::parse("bench.sql", &workload.sql("bids"))?;
    let flow = lower(&pipeline.program, &pipeline.planned, &Memory(Arc::clone(bids)), 1, &|_| 0)?;
    let identity = Identity { pipeline: "bench".into(), incarnation: "one".into(), build: "bench".into(), workers: 1 };
    let entry = |source: &tidemill_engine::source::SourceSpec| {
        let partitions = (0..PARTITIONS as i32).map(|partition| Position::new(partition, 0)).collect();
        SourceEntry { name: source.name.clone(), reading: 0, topic: "bids".into(), topic_id: None, partitions }
    };
    let sources = flow.sources.iter().map(entry).collect();
    let manifest = create(&flow, &identity, "bench".into(), sources)?;
    let shared = Arc::new(Shared::new(1));
    let mut options = WorkerOptions::default();
    options.read.idle = false;
    usage::forget_peak();
    let (before, began, cpu) = (usage::memory().1, Instant::now(), usage::cpu_s());
    let (watched, all) = (Arc::clone(&shared), (bids.len() * workload.streams()) as u64);
    let watch = thread::spawn(move || {
        while watched.rows_in.load(Ordering::Relaxed) < all && !watched.failed.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        watched.stop.store(true, Ordering::Release);
    });
    let seen = Arc::clone(&shared);
    let ended = tidemill_engine::run::run(Run {
        flow,
        workers: 1,
        options,
        epochs: EpochOptions::default(),
        store: Arc::clone(&store),
        manifest,
        publisher: None,
        deliver: None,
        ends: None,
        shared,
        on_epoch: Box::new(|_| {}),
    });
    let took = Took {
        cpu_s: usage::cpu_s() - cpu,
        wall_s: began.elapsed().as_secs_f64(),
        memory: usage::memory().0.saturating_sub(before),
        epochs: 0,
        state: seen.state_bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum(),
        answer: (0, 0),
    };
    let _ = watch.join();
    let ended = ended?;
    let answer = published(store.as_ref(), &ended)?;
    let expected = workload.expected(bids, bids.watermark_us());
    if answer != expected {
        return Err(Error::failed(format!("{}: published (rows, bids) {answer:?}, expected {expected:?}", workload.name)));
    }
    let read: i64 = ended.accounts.iter().map(|account| account.counts.rows_in).sum();
    if read != (bids.len() * workload.streams()) as i64 || ended.accounts.iter().any(|account| account.counts.imbalance() != 0) {
        return Err(Error::failed(format!("{}: {read} bids read, accounts {:?}", workload.name, ended.accounts)));
    }
    Ok(Took { epochs: ended.epoch, answer, ..took })
}

fn published(store: &dyn Store, manifest: &Manifest) -> Result<Answer> {
    let (mut rows, mut counted) = (0, 0);
    let hot = hot_rows(store, manifest)?;
    for (_, batch) in manifest.tables.iter().zip(hot).filter(|(table, _)| table.name == "out").flat_map(|(_, hot)| hot) {
        let int = |name: &str| batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let Some(weights) = int("_weight") else { return Err(Error::failed("hot rows without a weight")) };
        rows += weights.values().iter().sum::<i64>();
        if let Some(bids) = int("bids") {
            counted += bids.values().iter().zip(weights.values()).map(|(bids, weight)| bids * weight).sum::<i64>();
        }
    }
    Ok((rows, counted))
}
