//! The throughput harness: prints one table, in Markdown, of every workload from memory and from Kafka beside the batch floor.
//!
//! `cargo run --release -p tidemill-benches --bin throughput -- --help` says what can be set; RESULTS.md says what was found. Every
//! number of a row is the median of `--runs`, with the best and the worst; a wrong answer ends the program.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tidemill_benches::bids::{Bids, FULL};
use tidemill_benches::floor::{self, Answered, Question};
use tidemill_benches::{kafka, workloads};
use tidemill_engine::error::{Error, Result};

#[derive(Parser)]
struct Options {
    /// Bids from memory
    #[arg(long, default_value_t = 6_000_000)]
    bids: usize,
    /// Bids the batch engines read
    #[arg(long, default_value_t = 2_000_000)]
    floor_bids: usize,
    /// Bids from Kafka
    #[arg(long, default_value_t = 5_000_000)]
    kafka_bids: usize,
    /// Runs a row
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only workloads whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// No run from memory
    #[arg(long)]
    no_memory: bool,
    /// No batch floor
    #[arg(long)]
    no_floor: bool,
    /// A broker, for the runs from Kafka
    #[arg(long)]
    kafka: Option<String>,
    /// The command that runs from Kafka
    #[arg(long, default_value = "target/release/tidemill")]
    binary: PathBuf,
    /// A Python that has duckdb
    #[arg(long, default_value = "python3")]
    python: String,
    /// Further arguments of `tidemill run`
    #[arg(last = true)]
    more: Vec<String>,
}

fn main() -> ExitCode {
    match measure(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    println!("| work | engine | events per CPU-second, median (worst-best) | events/s of wall | peak memory | rows out | note |");
    println!("|---|---|---|---|---|---|---|");
    let chosen = |name: &str| name.contains(&options.only);
    if !options.no_memory {
        let mut bids = Arc::new(Bids::new(0, FULL));
        for workload in workloads::ALL.iter().filter(|workload| chosen(workload.name)) {
            if bids.is_empty() || bids.pace() != workload.pace {
                bids = Arc::new(Bids::new(options.bids, workload.pace));
            }
            let runs = (0..options.runs).map(|_| workloads::run(workload, &bids)).collect::<Result<Vec<_>>>()?;
            let used = runs.iter().map(|run| (run.cpu_s, run.wall_s)).collect();
            let (memory, last) = (runs.iter().map(|run| run.memory).max(), runs.last());
            let state = last.map_or(0, |run| run.state);
            let note = format!("memory; {} epochs; {:.1} MB of state at the end", last.map_or(0, |run| run.epochs), state as f64 / 1e6);
            row(
                workload.name,
                "Tidemill, 1 worker",
                bids.len() * workload.streams(),
                used,
                memory,
                last.map_or(0, |run| run.answer.0),
                &note,
            );
        }
    }
    if !options.no_floor {
        batch(options, &chosen)?;
    }
    if let Some(brokers) = &options.kafka {
        let bids = Bids::new(options.kafka_bids, FULL);
        let topic = format!("bench-bids-{}", options.kafka_bids);
        kafka::produce(brokers, &topic, &bids)?;
        for workload in
            workloads::ALL.iter().filter(|workload| ["tumble 10 s", "hop 10 s / 2 s"].contains(&workload.name) && chosen(workload.name))
        {
            let run = |_| kafka::run(&options.binary, brokers, &topic, workload, &bids, &options.more);
            let runs = (0..options.runs).map(run).collect::<Result<Vec<_>>>()?;
            let used = runs.iter().map(|run| (run.cpu_s, run.wall_s)).collect();
            let (memory, rows) = (runs.iter().map(|run| run.memory).max(), runs.last().map_or(0, |run| run.answer.0));
            row(workload.name, "Tidemill", bids.len(), used, memory, rows, "Kafka to table, whole process");
        }
    }
    Ok(())
}

fn batch(options: &Options, chosen: &dyn Fn(&str) -> bool) -> Result<()> {
    let bids = Bids::new(options.floor_bids, FULL);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bids.ndjson");
    write(&bids, &file)?;
    let tumble = workloads::ALL.iter().find(|workload| workload.name == "tumble 10 s");
    let windows = tumble.map_or(0, |tumble| tumble.expected(&bids, i64::MAX).0);
    for (name, question, rows) in
        [("decode + project 3 of 7", Question::Project, bids.len() as i64), ("tumble 10 s", Question::Tumble, windows)]
    {
        if !chosen(name) {
            continue;
        }
        let right = |answered: Answered| {
            let wanted = (rows, bids.len() as i64);
            if (answered.2, answered.3) == wanted {
                Ok(answered)
            } else {
                Err(Error::failed(format!("{name}: {answered:?}, expected {wanted:?}")))
            }
        };
        let runs = (0..options.runs).map(|_| floor::datafusion(&file, question).and_then(right)).collect::<Result<Vec<_>>>()?;
        row(name, "DataFusion, 1 partition", bids.len(), runs.iter().map(|run| (run.0, run.1)).collect(), None, rows, "batch, NDJSON file");
        match (0..options.runs).map(|_| floor::duckdb(&options.python, &file, question)).collect::<std::result::Result<Vec<_>, _>>() {
            Ok(runs) => {
                let runs = runs.into_iter().map(right).collect::<Result<Vec<_>>>()?;
                row(
                    name,
                    "DuckDB, 1 thread",
                    bids.len(),
                    runs.iter().map(|run| (run.0, run.1)).collect(),
                    None,
                    rows,
                    "batch, NDJSON file",
                );
            }
            Err(reason) => println!("| {name} | DuckDB | not measured: {reason} | | | | |"),
        }
    }
    Ok(())
}

fn write(bids: &Bids, file: &Path) -> Result<()> {
    let mut to = BufWriter::new(File::create(file)?);
    for payload in (0..bids.len()).filter_map(|bid| bids.payload(bid)) {
        to.write_all(payload)?;
        to.write_all(b"\n")?;
    }
    to.flush()?;
    Ok(())
}

fn row(work: &str, engine: &str, bids: usize, used: Vec<(f64, f64)>, memory: Option<u64>, rows: i64, note: &str) {
    let rates = |of: fn(&(f64, f64)) -> f64| {
        let mut rates: Vec<f64> = used.iter().map(|each| bids as f64 / of(each).max(1e-9) / 1e6).collect();
        rates.sort_by(f64::total_cmp);
        rates
    };
    let (cpu, wall) = (rates(|each| each.0), rates(|each| each.1));
    let middle = |rates: &[f64]| rates.get(rates.len() / 2).copied().unwrap_or_default();
    let (worst, best) = (cpu.first().copied().unwrap_or_default(), cpu.last().copied().unwrap_or_default());
    let memory = memory.map_or_else(String::new, |bytes| format!("{} MB", bytes >> 20));
    println!("| {work} | {engine} | {:.2} M ({worst:.2}-{best:.2}) | {:.2} M | {memory} | {rows} | {note} |", middle(&cpu), middle(&wall));
}
