//! Promise 2: a pipeline over a log gives the same answer as the same SQL run in batch by DataFusion over the same records.
//!
//! Always: both read one file; the comparison is the product's own `verify`, of every table, late event, dead letter and account, for several
//! numbers of workers and lengths of epochs.

mod rows;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidemill_engine::epoch::manifest::Manifest;
use tidemill_engine::worker::Shared;
use tidemill_pipelines::runner::{self, Options, Pipeline, Watch};
use tidemill_pipelines::serve::{Language, QueryOptions, Serve};
use tidemill_pipelines::sources::Connections;
use tidemill_pipelines::verify::{self, Report, Told};

use crate::support::{over_files, steady_accounts};
pub use rows::Rows;

/// Workers and length of an epoch in milliseconds: what must not matter.
const WAYS: [(usize, u64); 3] = [(1, 1000), (2, 50), (4, 1000)];

struct Silent;

impl Watch for Silent {
    fn waiting(&self, what: &str) {
        panic!("a file is not waited for: {what}");
    }

    fn started(&self, _shared: &Arc<Shared>, _connections: &Connections) {}

    fn epoch(&self, _manifest: &Manifest) {}
}

impl Told for Silent {
    fn waiting(&self, what: &str) {
        panic!("a file is not waited for: {what}");
    }

    fn begins(&self, _epoch: u64, _records: u64) {}

    fn read(&self, _records: u64) {}

    fn comparing(&self, _output: &str) {}
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// A run's tables, read as a user reads them.
pub struct Tables {
    serve: Serve,
}

impl Tables {
    /// Runs a pipeline to the end of its input.
    pub fn run(pipeline: &Pipeline, data: &Path, (workers, epoch_ms): (usize, u64)) -> Self {
        let options =
            Options { data: data.to_owned(), brokers: None, kafka: Vec::new(), workers, epoch_ms, bounded: true, set: Vec::new() };
        let watch: Arc<dyn Watch> = Arc::new(Silent);
        runner::run(pipeline, &options, &Arc::new(Shared::new(workers)), &watch).unwrap_or_else(|error| panic!("{error}"));
        let options = QueryOptions { threads: 1, ..QueryOptions::default() };
        Self { serve: Serve::new(data, Language::default(), options).expect("opens") }
    }

    pub fn ask(&self, query: &str) -> Vec<RecordBatch> {
        block(async { self.serve.query(query).await.unwrap_or_else(|error| panic!("{query}: {error}")).collect().await }).expect("answers")
    }
}

/// Compares what a run has written with a batch, as `tidemill verify` does.
fn verified(pipeline: &Pipeline, data: &Path) -> Report {
    let folder = tempfile::tempdir().expect("a folder");
    let options = verify::Options {
        data: data.to_owned(),
        brokers: None,
        kafka: Vec::new(),
        threads: 1,
        memory_bytes_max: 1 << 30,
        folder: folder.path().to_owned(),
        rows_max: 3,
    };
    verify::verify(pipeline, &options, &Silent).unwrap_or_else(|error| panic!("{error}"))
}

/// Fails if a report says that something differs, or was not compared.
fn equal(report: &Report, way: (usize, u64)) {
    for check in &report.checks {
        let rows = [&check.missing, &check.extra].map(|sample| Rows::of(&sample.rows).text());
        assert!(!check.differs(), "{way:?}: {check:?}\nonly in the batch:\n{}only in the run:\n{}", rows[0], rows[1]);
        assert!(!check.note.as_ref().is_some_and(|note| note.starts_with("not compared")), "{check:?}");
    }
}

/// Runs a pipeline in every way and compares each with batch. The text of the first way's tables is returned, and its report.
pub fn proven(pipeline: &Pipeline, show: &dyn Fn(&Tables) -> String) -> (String, Report) {
    let mut first: Option<(String, Report)> = None;
    for way in WAYS {
        let data = tempfile::tempdir().expect("a folder");
        let tables = Tables::run(pipeline, data.path(), way);
        let report = verified(pipeline, data.path());
        equal(&report, way);
        let text = show(&tables);
        match &first {
            Some((shown, _)) => assert_eq!(*shown, text, "{way:?}"),
            None => first = Some((text, report)),
        }
    }
    first.expect("there is a way")
}

fn case_over(defects: bool, records: usize) {
    let case = tidemill_pipelines::cases::find("url_shortener").expect("is there");
    let generated = tidemill_connectors::generator::find("url_shortener").expect("is there");
    let settings = tidemill_connectors::generator::Settings {
        seed: 11,
        partitions: 3,
        rate_per_s: generated.demo_rate_per_s,
        defects,
        ..Default::default()
    };
    let mut workload = (generated.make)(&settings);
    let mut files: BTreeMap<(&str, u32), Vec<u8>> = BTreeMap::new();
    for _ in 0..records {
        let record = workload.next();
        // A file's records have no key, so nothing in it deletes.
        if record.value.is_none() && record.topic != "url.clicks" {
            continue;
        }
        let file = files.entry((record.topic, record.partition)).or_default();
        file.extend(record.value.unwrap_or_default());
        file.push(b'\n');
    }
    let folder = tempfile::tempdir().expect("a folder");
    for ((topic, partition), bytes) in files {
        std::fs::create_dir_all(folder.path().join(topic)).expect("made");
        std::fs::write(folder.path().join(topic).join(format!("{partition}.ndjson")), bytes).expect("written");
    }
    let pipeline = Pipeline::parse("pipeline.sql", &over_files(case.pipeline_sql, folder.path())).unwrap_or_else(|error| panic!("{error}"));
    let everything = |tables: &Tables| {
        let late = tables.ask("SELECT output, CAST(count(*) AS BIGINT) AS late FROM url_shortener.late_events GROUP BY output");
        let dead = tables.ask("SELECT \"partition\", \"offset\", reason FROM url_shortener.dead_letters");
        Rows::of(&late).text() + &Rows::of(&dead).text() + &Rows::of(&tables.ask(&steady_accounts("url_shortener"))).text()
    };
    let (_, report) = proven(&pipeline, &everything);
    let compared = |what: &str| report.checks.iter().filter(|check| check.what == what).map(|check| check.expected).sum::<u64>();
    let (rows, late) = (compared("rows"), compared("late events"));
    assert!(rows > records as u64 && late > 50, "{rows} rows and {late} late events compare too little");
    assert_eq!(compared("dead letters") > 0, defects);
}

#[test]
fn the_case_equals_batch() {
    case_over(false, 20_000);
}

#[test]
fn the_case_equals_batch_with_defects() {
    case_over(true, 10_000);
}
