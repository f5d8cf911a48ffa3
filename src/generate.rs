//! `tidemill generate CASE`: a case study's records, into Kafka topics or NDJSON files.
//!
//! Always: the same seed and partitions give the same bytes in the same order; Ctrl-C ends after what was made has been delivered. The
//! records are `tidemill_connectors::generator`'s.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tidemill_connectors::generator::{self, CASES, Case, Generated, Settings, Workload};
use tidemill_connectors::kafka::{Admin, KafkaProducer, WAIT_MS};
use tidemill_engine::error::{Error, Result};

use crate::cli::{Common, GenerateArgs};
use crate::console::{self, LIVE, count, number, say};
use crate::exit::{Outcome, refused};
use crate::signals;

const LIVE_EVERY: Duration = Duration::from_millis(250);
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// The clock is looked at once in so many records.
const LOOK_EVERY: u64 = 256;

/// Where records go.
enum Sink {
    Kafka(Box<KafkaProducer>),
    Files { folder: PathBuf, files: BTreeMap<&'static str, BufWriter<File>>, left_out: u64 },
}

pub fn generate(args: &GenerateArgs, common: &Common) -> Outcome {
    let case = find(&args.case)?;
    let (mut sink, partitions, place) = match (&args.out, common.brokers()) {
        (Some(folder), _) => (Sink::files(folder)?, args.partitions, folder.display().to_string()),
        (None, Some(brokers)) => {
            let partitions = topics(case, &brokers, args.partitions, common)?;
            (Sink::Kafka(Box::new(KafkaProducer::new(&brokers, &common.kafka)?)), partitions, brokers)
        }
        (None, None) => return Err(refused("where shall the records go? Give --brokers HOST:PORT, or --out DIR for files")),
    };
    let settings =
        Settings { seed: args.seed, partitions, rate_per_s: args.event_rate.unwrap_or(case.demo_rate_per_s), ..Settings::default() };
    let mut workload = (case.make)(&settings);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    signals::on_stop(move || asked.store(true, Ordering::Release))?;
    let total = if args.count == 0 { u64::MAX } else { args.count };
    let mut pace = Pace::new(args.rate, common.quiet);
    let mut record = Generated::default();
    let mut made = 0;
    while made < total && !stop.load(Ordering::Relaxed) {
        workload.next_into(&mut record);
        sink.write(&record)?;
        made += 1;
        if made % pace.look_every == 0 {
            pace.look(made, total, &stop);
        }
    }
    sink.finish()?;
    console::clear();
    if !common.quiet {
        let seconds = pace.begun.elapsed().as_secs_f64();
        let left_out = match &sink {
            Sink::Files { left_out: 1.., .. } => ", those without a payload left out",
            _ => "",
        };
        say(&format!(
            "{} of {} in {place}{left_out}, in {} ({}/s)",
            count(made, "record"),
            case.name,
            console::seconds(seconds),
            number((made as f64 / seconds.max(0.001)) as u64)
        ));
    }
    Ok(())
}

/// The generator of a case.
pub fn find(name: &str) -> Outcome<&'static Case> {
    generator::find(name).ok_or_else(|| {
        let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        refused(format!("there is no case {name}; there is {}", known.join(", ")))
    })
}

/// Makes the case's topics where they are missing; how many partitions they have.
fn topics(case: &Case, brokers: &str, partitions: u32, common: &Common) -> Outcome<u32> {
    let admin = Admin::new(brokers, &common.kafka, WAIT_MS)?;
    let quiet = common.quiet;
    let mut waiting = |what: &str| {
        if !quiet {
            say(&format!("{what}; waiting for it, a minute at most"));
        }
    };
    let mut fewest = partitions;
    for topic in case.topics {
        // Made-up event times are not those of the broker's clock: with retention by age the records would be gone at once.
        let made = admin.create_topic(topic, partitions as i32, &[("retention.ms", "-1")], &mut waiting)?;
        let there = u32::try_from(admin.topic(topic, &mut waiting)?.partitions).unwrap_or(partitions);
        if !quiet {
            let how = if made { "made" } else { "there already; records are added" };
            say(&format!("topic {topic} with {} at {brokers}: {how}", count(u64::from(there), "partition")));
        }
        fewest = fewest.min(there);
        if !made && case.topics.len() == 1 {
            fewest = there;
        }
    }
    Ok(fewest)
}

impl Sink {
    fn files(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| Error::refused(format!("{}: {error}", folder.display())))?;
        Ok(Self::Files { folder: folder.to_owned(), files: BTreeMap::new(), left_out: 0 })
    }

    fn write(&mut self, record: &Generated) -> Result<()> {
        match self {
            Self::Kafka(producer) => {
                producer.send(record.topic, record.partition as i32, record.key.as_deref(), record.value.as_deref(), record.timestamp_ms)
            }
            Self::Files { folder, files, left_out } => {
                let Some(value) = record.value.as_ref().filter(|value| !value.is_empty()) else {
                    *left_out += 1;
                    return Ok(());
                };
                if !files.contains_key(record.topic) {
                    let path = folder.join(format!("{}.ndjson", record.topic));
                    let file = File::create(&path).map_err(|error| Error::refused(format!("{}: {error}", path.display())))?;
                    files.insert(record.topic, BufWriter::with_capacity(1 << 20, file));
                }
                let Some(file) = files.get_mut(record.topic) else { return Ok(()) };
                file.write_all(value)?;
                Ok(file.write_all(b"\n")?)
            }
        }
    }

    fn finish(&mut self) -> Result<()> {
        match self {
            Self::Kafka(producer) => producer.flush(),
            Self::Files { files, .. } => files.values_mut().try_for_each(|file| Ok(file.flush()?)),
        }
    }
}

/// Keeps to the rate and tells how far things are.
struct Pace {
    begun: Instant,
    shown: Instant,
    rate: Option<u64>,
    look_every: u64,
    quiet: bool,
}

impl Pace {
    fn new(rate: Option<u64>, quiet: bool) -> Self {
        // A slow rate is kept record by record.
        let look_every = rate.map_or(LOOK_EVERY, |rate| (rate / 100).clamp(1, LOOK_EVERY));
        Self { begun: Instant::now(), shown: Instant::now(), rate, look_every, quiet }
    }

    fn look(&mut self, made: u64, total: u64, stop: &AtomicBool) {
        if !self.quiet && self.shown.elapsed() >= if *LIVE { LIVE_EVERY } else { PLAIN_EVERY } {
            self.shown = Instant::now();
            let of = if total == u64::MAX { String::new() } else { format!(" of {}", number(total)) };
            let line =
                format!("{}{of} records, {}/s", number(made), number((made as f64 / self.begun.elapsed().as_secs_f64().max(0.001)) as u64));
            if *LIVE { console::rewrite(&line) } else { say(&line) }
        }
        let Some(rate) = self.rate else { return };
        let due = Duration::from_secs_f64(made as f64 / rate as f64);
        while let Some(early) = due.checked_sub(self.begun.elapsed()).filter(|early| !early.is_zero()) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(early.min(Duration::from_millis(100)));
        }
    }
}

/// A case's workload with everything but seed and partitions left to it.
pub fn demo_workload(case: &Case, seed: u64, partitions: u32) -> Box<dyn Workload> {
    (case.make)(&Settings { seed, partitions, rate_per_s: case.demo_rate_per_s, ..Settings::default() })
}
