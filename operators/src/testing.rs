//! What the model tests share: a random log with partitions and watermarks, the account, and the net of weighted rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use tidemill_engine::account::{Counts, NodeCounts};
use tidemill_engine::error::Result;
use tidemill_engine::hash::{key_group, owner};
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Origin, RawRecord, RawRecords, Rows, Tokens};
use tidemill_engine::state::{Changes, Merge, Scalars, TableSpec};
use tidemill_engine::time::Watermark;

/// A small generator of numbers: same seed, same numbers.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A record of the test log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<i64>,
    pub name: Option<String>,
    pub time: Option<i64>,
    pub value: Option<i64>,
    /// Of its partition, before it.
    pub watermark: i64,
}

struct Raw;

impl RawRecords for Raw {
    fn record(&self, _offset: i64) -> Option<RawRecord<'_>> {
        Some(RawRecord { key: None, payload: Some(b"{}"), timestamp_ms: None })
    }
}

/// key, name, ts, value.
pub fn log_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("ts", timestamp(), true),
        Field::new("value", DataType::Int64, true),
    ]))
}

pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// Records of one partition as source rows.
pub fn source_rows(records: &[Record]) -> Rows {
    let batch = RecordBatch::try_new(
        log_schema(),
        vec![
            Arc::new(records.iter().map(|record| record.key).collect::<Int64Array>()),
            Arc::new(records.iter().map(|record| record.name.clone()).collect::<StringArray>()),
            Arc::new(records.iter().map(|record| record.time).collect::<TimestampMicrosecondArray>()),
            Arc::new(records.iter().map(|record| record.value).collect::<Int64Array>()),
        ],
    )
    .expect("a log batch");
    let mut rows = Rows::derived(batch, None, Tokens::Each(0));
    rows.origin = Some(Origin {
        source: 0,
        partition: records.first().map_or(0, |record| record.partition),
        offsets: records.iter().map(|record| record.offset).collect(),
        watermarks: records.iter().map(|record| record.watermark).collect(),
        raw: Arc::new(Raw),
    });
    rows
}

/// How the random log is made.
pub struct LogShape {
    pub partitions: i32,
    pub records: usize,
    pub keys: u64,
    /// Event time between records, at most.
    pub step: u64,
    /// How far a record may lie behind.
    pub disorder: u64,
    /// Watermark delay.
    pub delay: i64,
}

/// A log with disorder, duplicates, NULLs and rows far behind; partitions take turns at random, each with its own clock.
pub fn random_log(rng: &mut Rng, shape: &LogShape) -> Vec<Record> {
    let mut clocks: Vec<i64> = (0..shape.partitions).map(|_| rng.below(5) as i64 - 20).collect();
    let mut offsets = vec![0_i64; shape.partitions as usize];
    let mut watermarks = vec![i64::MIN; shape.partitions as usize];
    let mut log: Vec<Record> = Vec::new();
    for _ in 0..shape.records {
        let partition = rng.below(shape.partitions as u64) as usize;
        clocks[partition] += if rng.one_in(60) { rng.below(shape.step * 40) as i64 } else { rng.below(shape.step + 1) as i64 };
        let behind = if rng.one_in(12) { rng.below(shape.disorder * 6 + 1) } else { rng.below(shape.disorder + 1) } as i64;
        let time = if rng.one_in(40) { None } else { Some(clocks[partition] - behind) };
        let key = if rng.one_in(15) { None } else { Some(rng.below(shape.keys) as i64) };
        let name = if rng.one_in(15) {
            None
        } else {
            Some(["", "a", "bb", "a string longer than twelve bytes", "ü"][rng.below(5) as usize].to_owned())
        };
        let value = if rng.one_in(8) { None } else { Some(rng.below(9) as i64 - 4) };
        let mut record =
            Record { partition: partition as i32, offset: offsets[partition], key, name, time, value, watermark: watermarks[partition] };
        if let Some(twin) = log.iter().rev().take(3).find(|other| other.partition == partition as i32).filter(|_| rng.one_in(10)) {
            record = Record { offset: record.offset, watermark: record.watermark, ..twin.clone() };
        }
        offsets[partition] += 1 + i64::from(rng.one_in(9));
        if let Some(time) = record.time {
            watermarks[partition] = watermarks[partition].max(time - shape.delay);
        }
        log.push(record);
    }
    log
}

/// The watermark over all partitions after `read` records of the log.
pub fn watermark_after(read: &[Record], partitions: i32, delay: i64) -> Option<i64> {
    (0..partitions)
        .map(|partition| {
            read.iter()
                .filter(|record| record.partition == partition)
                .filter_map(|record| record.time)
                .max()
                .map_or(i64::MIN, |time| time.saturating_sub(delay))
        })
        .min()
}

/// One value as text; timestamps as microseconds.
pub fn cell(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => array.as_primitive::<TimestampMicrosecondType>().value(row).to_string(),
        DataType::Utf8 => format!("{:?}", array.as_string::<i32>().value(row)),
        DataType::Utf8View => format!("{:?}", array.as_string_view().value(row)),
        other => panic!("no text for {other}"),
    }
}

/// A row as text.
pub fn line(batch: &RecordBatch, row: usize) -> String {
    batch.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|")
}

/// A value of the model as text.
pub fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or("NULL".to_owned(), |value| value.to_string())
}

/// What came out so far.
#[derive(Default)]
pub struct Collected {
    /// Rows by text: the sum of their weights.
    pub net: BTreeMap<String, i64>,
    /// Tokens that went out.
    pub out: i64,
    /// (partition, offset, window_start).
    pub late: Vec<(i32, i64, Option<i64>)>,
    /// Settled and held before the last restart.
    pub before: NodeCounts,
    /// The least weight a row ever had.
    pub least: i64,
    /// A row replaces the one with the same first columns, as many as this says.
    pub by_key: Option<usize>,
}

impl Collected {
    /// Takes what an operator put out in a tick.
    pub fn take(&mut self, out: &mut Output) -> Vec<Rows> {
        self.late.extend(out.late.drain(..).map(|event| (event.partition, event.offset, event.window_start)));
        std::mem::take(&mut out.rows)
    }

    /// Adds final rows.
    pub fn add(&mut self, rows: &Rows) {
        rows.tokens.sums(rows.len(), |_, tokens| self.out += tokens);
        for row in 0..rows.len() {
            let line = line(&rows.batch, row);
            if let (Some(columns), true) = (self.by_key, rows.weight(row) > 0) {
                let key = |line: &str| line.split('|').take(columns).map(str::to_owned).collect::<Vec<_>>();
                self.net.retain(|held, _| key(held) != key(&line));
            }
            let sum = self.net.entry(line.clone()).or_default();
            *sum += rows.weight(row);
            self.least = self.least.min(*sum);
            if *sum == 0 {
                self.net.remove(&line);
            }
        }
    }
}

/// The part of rows that each of `workers` owns.
pub fn split(rows: &Rows, workers: usize) -> Vec<Rows> {
    let hashes = rows.hashes.clone().expect("rows to exchange have hashes");
    (0..workers)
        .map(|worker| {
            let mine: UInt32Array =
                (0..rows.len() as u32).filter(|row| owner(key_group(hashes[*row as usize]), workers) == worker).collect();
            rows.take(&mine).expect("takes")
        })
        .collect()
}

/// All epochs written by all instances of an operator, and the way back.
#[derive(Default)]
pub struct Store {
    epochs: Vec<Vec<Changes>>,
    scalars: Vec<Scalars>,
}

impl Store {
    /// Writes an epoch of every instance; the first one wholly.
    pub fn cut(&mut self, instances: &mut [Box<dyn Operator>]) {
        let full = self.epochs.is_empty();
        self.scalars = instances.iter().map(|instance| instance.scalars()).collect();
        for instance in instances {
            let tables = instance.tables().len();
            self.epochs.push((0..tables).map(|table| instance.changes(table, full).expect("changes")).collect());
        }
    }

    /// Loads fresh instances.
    pub fn restore(&self, instances: &mut [Box<dyn Operator>]) {
        let workers = instances.len();
        for (worker, instance) in instances.iter_mut().enumerate() {
            self.scalars.iter().for_each(|scalars| instance.load_scalars(scalars));
            let specs: Vec<TableSpec> = instance.tables();
            for (table, spec) in specs.into_iter().enumerate() {
                let mut merge = Merge::new(spec).expect("a merge");
                self.epochs.iter().filter_map(|epoch| epoch.get(table)).for_each(|changes| merge.apply(changes.clone()).expect("applies"));
                for batch in merge.finish(|hash| owner(key_group(hash), workers) == worker).expect("finishes") {
                    instance.load(table, &batch).expect("loads");
                }
            }
        }
    }
}

/// Settled (late, filtered) and held over all counts.
pub fn totals<'a>(counts: impl Iterator<Item = &'a NodeCounts>) -> Counts {
    let mut sum = Counts::default();
    counts.flat_map(|counts| counts.sources()).for_each(|counts| sum.add(counts));
    sum
}

/// The net rows that should be there.
pub type Results = BTreeMap<String, i64>;
/// (partition, offset, window_start) of every window that a row missed.
pub type Late = BTreeSet<(i32, i64, Option<i64>)>;
/// Makes the operators before and after the exchange for a number of workers; none before it: the rows of all go to the one after.
pub type Make<'a> = &'a dyn Fn(usize) -> (Vec<Box<dyn Operator>>, Vec<Box<dyn Operator>>);

/// When an operator under test has published what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishes {
    /// After each tick, what the watermark has passed.
    AtWatermark,
    /// After each epoch, everything.
    EachEpoch,
    /// The same; a row replaces the one with the same first columns, as many as this says, without its being retracted.
    EachEpochByKey(usize),
    /// After each epoch, what the watermark has passed.
    BothWays,
}

/// What is tested against what.
pub struct Subject<'a> {
    pub name: &'a str,
    pub make: Make<'a>,
    /// Numbers of workers to try.
    pub workers: &'a [usize],
    /// Every row is read by some result in the end, or dropped: none stays held.
    pub holds_none: bool,
    /// When results are there.
    pub publishes: Publishes,
    /// The results of a log for windows whose end is published, and the late rows.
    pub model: &'a dyn Fn(&[Record], &dyn Fn(i64) -> bool) -> (Results, Late),
}

/// Logs a model test tries per configuration.
pub const SEEDS: u64 = 2;

/// The operators of `workers` workers and what came out of them.
struct Cluster<'a> {
    make: Make<'a>,
    partials: Vec<Box<dyn Operator>>,
    finals: Vec<Box<dyn Operator>>,
    outputs: Vec<(Output, Output)>,
}

impl<'a> Cluster<'a> {
    fn new(make: Make<'a>, workers: usize) -> Self {
        let (partials, finals) = make(workers);
        Self { make, partials, finals, outputs: (0..workers).map(|_| <(Output, Output)>::default()).collect() }
    }

    fn tick(&mut self, records: &[Record], partitions: i32, watermark: Option<i64>, collected: &mut Collected) {
        let workers = self.finals.len();
        let mut exchanged: Vec<Vec<Rows>> = vec![Vec::new(); workers];
        for worker in 0..workers {
            for partition in (0..partitions).filter(|partition| *partition as usize % workers == worker) {
                let own: Vec<Record> = records.iter().filter(|record| record.partition == partition).cloned().collect();
                let rows = source_rows(&own);
                match self.partials.get_mut(worker) {
                    Some(partial) => partial.on_rows(0, rows, &mut self.outputs[worker].0).expect("takes rows"),
                    None => exchanged[0].push(rows),
                }
            }
            if let Some(partial) = self.partials.get_mut(worker) {
                partial.on_tick(watermark, &mut self.outputs[worker].0).expect("ticks");
                for rows in collected.take(&mut self.outputs[worker].0) {
                    split(&rows, workers).into_iter().enumerate().for_each(|(to, part)| exchanged[to].push(part));
                }
            }
        }
        for (worker, rows) in exchanged.into_iter().enumerate() {
            rows.into_iter().for_each(|rows| self.finals[worker].on_rows(0, rows, &mut self.outputs[worker].1).expect("takes rows"));
            self.finals[worker].on_tick(watermark, &mut self.outputs[worker].1).expect("ticks");
        }
        self.collect(collected);
    }

    fn each(&mut self, collected: &mut Collected, mut f: impl FnMut(&mut dyn Operator, &mut Output)) {
        for (operator, out) in self.finals.iter_mut().zip(&mut self.outputs) {
            f(operator.as_mut(), &mut out.1);
        }
        self.collect(collected);
    }

    fn collect(&mut self, collected: &mut Collected) {
        for (_, out) in &mut self.outputs {
            collected.take(out).iter().for_each(|rows| collected.add(rows));
        }
    }

    fn counts(&self) -> NodeCounts {
        let mut sum = NodeCounts::default();
        self.outputs.iter().for_each(|(partial, last)| {
            sum.add(&partial.counts);
            sum.add(&last.counts);
        });
        sum
    }

    fn restart(&mut self, store: &Store, workers: usize, collected: &mut Collected) {
        collected.before.add(&self.counts());
        *self = Self::new(self.make, workers);
        store.restore(&mut self.finals);
    }
}

fn balance(cluster: &Cluster, collected: &Collected, read: usize, at: &str) {
    let now = cluster.counts();
    let sum = totals([&now, &collected.before].into_iter());
    assert_eq!(
        read as i64,
        collected.out + sum.out + sum.late + sum.filtered + sum.held,
        "tokens in = out + settled + held {at}: {sum:?} out {}",
        collected.out
    );
    assert!(sum.held >= 0 && sum.late >= 0 && sum.filtered >= 0, "{at}: {sum:?}");
}

/// Runs a random log through the operators and compares with the model all along.
pub fn drive(subject: &Subject<'_>, seed: u64) {
    let name = subject.name;
    let mut rng = Rng(seed);
    let shape = LogShape {
        partitions: 1 + rng.below(3) as i32,
        records: 40 + rng.below(250) as usize,
        keys: 1 + rng.below(12),
        step: 1 + rng.below(4),
        disorder: rng.below(20),
        delay: rng.below(8) as i64,
    };
    let log = random_log(&mut rng, &shape);
    let any = |rng: &mut Rng| subject.workers[rng.below(subject.workers.len() as u64) as usize];
    let mut workers = any(&mut rng);
    let mut cluster = Cluster::new(subject.make, workers);
    let by_key = if let Publishes::EachEpochByKey(columns) = subject.publishes { Some(columns) } else { None };
    let (mut collected, mut store) = (Collected { by_key, ..Collected::default() }, Store::default());
    let (mut read, mut tick_rows, mut ended) = (0, 1 + rng.below(30) as usize, false);
    while read < log.len() {
        let to = (read + rng.below(tick_rows as u64 + 1) as usize).min(log.len());
        let watermark = watermark_after(&log[..to], shape.partitions, shape.delay).filter(|watermark| *watermark != i64::MIN);
        cluster.tick(&log[read..to], shape.partitions, watermark, &mut collected);
        read = to;
        let at = format!("{name} seed {seed} workers {workers} after {read}");
        balance(&cluster, &collected, read, &at);
        let cut = rng.one_in(4);
        let end = rng.one_in(25);
        if end {
            cluster.each(&mut collected, |operator, out| operator.on_end(out).expect("ends"));
            ended = true;
        } else if cut {
            cluster.each(&mut collected, |operator, out| operator.on_cut(out).expect("cuts"));
        }
        if cut || end {
            store.cut(&mut cluster.finals);
        }
        if !ended && (subject.publishes == Publishes::AtWatermark || cut) {
            let (results, late) = (subject.model)(&log[..read], &|end| {
                subject.publishes == Publishes::EachEpoch || by_key.is_some() || watermark.is_some_and(|watermark| end <= watermark)
            });
            assert_eq!(collected.net, results, "{at}");
            assert_eq!(collected.late.iter().copied().collect::<BTreeSet<_>>(), late, "{at}");
        }
        if end {
            let (results, _) = (subject.model)(&log[..read], &|_| true);
            assert_eq!(collected.net, results, "closing publish, {at}");
        }
        if end || (cut && rng.one_in(3)) {
            workers = any(&mut rng);
            cluster.restart(&store, workers, &mut collected);
            tick_rows = 1 + rng.below(30) as usize;
        }
        balance(&cluster, &collected, read, &at);
    }
    cluster.each(&mut collected, |operator, out| operator.on_end(out).expect("ends"));
    let (results, late) = (subject.model)(&log, &|_| true);
    assert_eq!(collected.net, results, "{name} seed {seed}");
    assert_eq!(collected.late.len(), late.len(), "a late event twice: {name} seed {seed}");
    assert_eq!(collected.late.iter().copied().collect::<BTreeSet<_>>(), late, "{name} seed {seed}");
    assert!(collected.least >= 0, "a row was retracted that was not there: {name} seed {seed}");
    balance(&cluster, &collected, log.len(), "at the end");
    let sum = totals([&cluster.counts(), &collected.before].into_iter());
    assert!(sum.held == 0 || !subject.holds_none, "all is published: {name} seed {seed}");
}

/// Operators one after the other on one worker.
pub struct Chain(Vec<(Box<dyn Operator>, Output)>);

impl Chain {
    pub fn new(operators: Vec<Box<dyn Operator>>) -> Self {
        Self(operators.into_iter().map(|operator| (operator, Output::default())).collect())
    }

    fn each(&mut self, out: &mut Output, mut end: impl FnMut(&mut dyn Operator, &mut Output) -> Result<()>) -> Result<()> {
        let mut rows = Vec::new();
        for (operator, own) in &mut self.0 {
            for rows in rows {
                operator.on_rows(0, rows, own)?;
            }
            end(operator.as_mut(), own)?;
            rows = std::mem::take(&mut own.rows);
            out.late.append(&mut own.late);
            out.counts.add(&std::mem::take(&mut own.counts));
        }
        out.rows.extend(rows);
        Ok(())
    }
}

impl Operator for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, _out: &mut Output) -> Result<()> {
        let (first, own) = &mut self.0[0];
        first.on_rows(0, rows, own)
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        let mut watermark = watermark;
        self.each(out, |operator, out| {
            operator.on_tick(watermark, out)?;
            watermark = out.watermark;
            Ok(())
        })?;
        out.watermark = watermark;
        Ok(())
    }

    fn on_cut(&mut self, out: &mut Output) -> Result<()> {
        self.each(out, |operator, out| operator.on_cut(out))
    }

    fn on_end(&mut self, out: &mut Output) -> Result<()> {
        self.each(out, |operator, out| operator.on_end(out))
    }

    fn tables(&self) -> Vec<TableSpec> {
        self.0.iter().flat_map(|(operator, _)| operator.tables()).collect()
    }

    fn changes(&mut self, table: usize, full: bool) -> Result<Changes> {
        let mut with_tables = self.0.iter_mut().filter(|(operator, _)| !operator.tables().is_empty());
        with_tables.nth(table).map_or(Ok(Changes::default()), |(operator, _)| operator.changes(0, full))
    }

    fn load(&mut self, table: usize, rows: &RecordBatch) -> Result<()> {
        let mut with_tables = self.0.iter_mut().filter(|(operator, _)| !operator.tables().is_empty());
        with_tables.nth(table).map_or(Ok(()), |(operator, _)| operator.load(0, rows))
    }

    fn scalars(&self) -> Scalars {
        let prefixed = |(at, (operator, _)): (usize, &(Box<dyn Operator>, Output))| {
            operator.scalars().into_iter().map(move |(name, value)| (format!("{at}.{name}"), value))
        };
        self.0.iter().enumerate().flat_map(prefixed).collect()
    }

    fn load_scalars(&mut self, scalars: &Scalars) {
        for (at, (operator, _)) in self.0.iter_mut().enumerate() {
            let prefix = format!("{at}.");
            operator
                .load_scalars(&scalars.iter().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_owned(), *value))).collect());
        }
    }
}
