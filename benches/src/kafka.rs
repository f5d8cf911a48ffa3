//! From a broker to a table: bids into a topic, `tidemill run --bounded` over it as a process of its own, the table read back.
//!
//! Always: the whole of the process counts: start, planning, the closing publish, the last epoch. The broker runs on the same cores and its
//! CPU time is not counted.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use tidemill_connectors::kafka::{Admin, KafkaProducer, WAIT_MS};
use tidemill_engine::error::{Error, Result};

use crate::bids::{Bids, PARTITIONS};
use crate::usage;
use crate::workloads::{Answer, Workload};

/// Makes `topic` and fills it, unless it is there already; the records are the same every time.
pub fn produce(brokers: &str, topic: &str, bids: &Bids) -> Result<()> {
    let admin = Admin::new(brokers, &[], WAIT_MS)?;
    let mut quiet = |_: &str| {};
    let partitions: Vec<i32> = (0..PARTITIONS as i32).collect();
    if !admin.create_topic(topic, PARTITIONS as i32, &[("retention.ms", "-1")], &mut quiet)? {
        let held: i64 = admin.end_offsets(topic, &partitions, &mut quiet)?.iter().map(|(_, end)| end).sum();
        if held == bids.len() as i64 {
            return Ok(());
        }
        return Err(Error::refused(format!("topic {topic} holds {held} records, not {}: name another", bids.len())));
    }
    let own = [("compression.type", "lz4"), ("linger.ms", "50"), ("batch.size", "1000000")];
    let mut producer = KafkaProducer::new(brokers, &own.map(|(key, value)| (key.to_owned(), value.to_owned())))?;
    for bid in 0..bids.len() {
        producer.send(topic, (bid % PARTITIONS) as i32, None, bids.payload(bid), bids.time_us(bid) / 1_000)?;
    }
    producer.flush()
}

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// CPU seconds of the process.
    pub cpu_s: f64,
    /// Seconds of wall clock.
    pub wall_s: f64,
    /// Peak memory in bytes.
    pub memory: u64,
    /// Rows of the table and bids counted in them.
    pub answer: Answer,
}

/// Runs a workload from the topic to a table.
pub fn run(binary: &Path, brokers: &str, topic: &str, workload: &Workload, bids: &Bids, more: &[String]) -> Result<Took> {
    let folder = tempfile::tempdir()?;
    let (file, data) = (folder.path().join("bench.sql"), folder.path().join("data"));
    fs::write(&file, workload.sql(topic))?;
    let began = Instant::now();
    let mut command = Command::new(binary);
    command
        .arg("run")
        .arg(&file)
        .args(["--bounded", "--quiet", "--brokers", brokers, "--epoch-ms", "1000", "--data"])
        .arg(&data)
        .args(more);
    let child = command.stdin(Stdio::null()).spawn()?;
    let (status, cpu_s, memory) = usage::wait(child)?;
    let wall_s = began.elapsed().as_secs_f64();
    if !status.success() {
        return Err(Error::failed(format!("{} run: {status}", binary.display())));
    }
    let asked = Command::new(binary)
        .args(["sql", "--format", "csv", "--data"])
        .arg(&data)
        .args(["-c", "SELECT count(*), sum(bids) FROM bench.out"])
        .output()?;
    let said = String::from_utf8_lossy(&asked.stdout);
    let numbers: Vec<i64> = said.lines().last().unwrap_or_default().split(',').filter_map(|word| word.trim().parse().ok()).collect();
    let expected = workload.expected(bids, i64::MAX);
    match numbers.as_slice() {
        [rows, counted] if (*rows, *counted) == expected => Ok(Took { cpu_s, wall_s, memory, answer: expected }),
        _ => Err(Error::failed(format!("{}: the table says {said:?}, expected {expected:?}", workload.name))),
    }
}
