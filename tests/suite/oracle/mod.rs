//! Promise 2: a pipeline over a log gives the same answer as the same SQL run in batch by DataFusion over the same records.
//!
//! Always: both read one file; the batch leaves out what the contract leaves out, by rules of its own (`log`, `lowering`), and every
//! table, late event and account is compared, for several numbers of workers and lengths of epochs.

mod exact;
mod log;
mod lowering;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::prelude::{SessionConfig, SessionContext};
use tidemill_engine::epoch::manifest::Manifest;
use tidemill_engine::worker::Shared;
use tidemill_pipelines::runner::{self, Options, Pipeline, Watch};
use tidemill_pipelines::serve::{Language, QueryOptions, Serve};
use tidemill_pipelines::sources::Connections;
use tidemill_pipelines::sql::SourceTable;

use crate::support::{over_file, steady_accounts};
pub use rows::{Near, Rows};

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

    /// Rows of whole numbers.
    fn numbers<const N: usize>(&self, query: &str) -> Vec<[i64; N]> {
        numbers(&self.ask(query))
    }
}

fn numbers<const N: usize>(batches: &[RecordBatch]) -> Vec<[i64; N]> {
    let mut all = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|column| cast(column, &DataType::Int64).expect("numbers")).collect();
        let value = |column: usize, row: usize| columns[column].as_primitive::<Int64Type>().value(row);
        all.extend((0..batch.num_rows()).map(|row| std::array::from_fn(|column| value(column, row))));
    }
    all
}

/// A late row's place and the start of the window it missed, in microseconds.
type Late = BTreeSet<[i64; 3]>;

/// What batch says of each output.
pub struct Expected {
    outputs: BTreeMap<String, (Vec<RecordBatch>, Late)>,
}

impl Expected {
    /// Runs every output in batch. `dead` are the places of records on which an output's expressions fail.
    pub fn of(pipeline: &Pipeline, dead: impl Fn(&str) -> Vec<(i64, i64)>) -> Self {
        let sources: BTreeMap<String, RecordBatch> =
            pipeline.program.sources.iter().map(|source| (source.name.clone(), log::read(source))).collect();
        let mut outputs: BTreeMap<String, (Vec<RecordBatch>, Late)> = BTreeMap::new();
        for planned in &pipeline.planned {
            let declared = pipeline.program.outputs.iter().find(|output| output.name == planned.name).expect("is declared");
            let dead = dead(&planned.name);
            let rows: BTreeMap<&String, RecordBatch> = sources.iter().map(|(name, rows)| (name, log::without(rows, &dead))).collect();
            let table = |scan: &TableScan| -> Arc<dyn TableProvider> {
                let name = scan.table_name.table();
                let batches = match scan.source.downcast_ref::<SourceTable>() {
                    Some(source) => vec![rows[&source.name].clone()],
                    None => outputs[name].0.clone(),
                };
                let schema = batches.first().map_or_else(|| scan.source.schema(), RecordBatch::schema);
                Arc::new(MemTable::try_new(schema, vec![batches]).expect("one schema"))
            };
            let wrong = |error: datafusion::common::DataFusionError| -> ! { panic!("{}: {error}", planned.name) };
            let plan = lowering::rows(&planned.analyzed, declared.lateness_us, &table).unwrap_or_else(|error| wrong(error));
            let found = execute(plan).unwrap_or_else(|error| wrong(error));
            let mut late = Late::new();
            for plan in lowering::late(&planned.plan, declared.lateness_us, &table).unwrap_or_else(|error| wrong(error)) {
                late.extend(numbers::<3>(&execute(plan).unwrap_or_else(|error| wrong(error))));
            }
            outputs.insert(planned.name.clone(), (found, late));
        }
        Self { outputs }
    }

    /// Compares a run with batch; says what differs.
    pub fn check(&self, pipeline: &str, tables: &Tables, near: &dyn Fn(&str) -> Vec<Near<'static>>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (output, (batches, late)) in &self.outputs {
            let near = near(output);
            let found = Rows::of(&tables.ask(&format!("SELECT * FROM {pipeline}.{output}")), &near);
            if let Some(difference) = found.difference(&Rows::of(batches, &near), &near) {
                wrong.push(format!("{output}: {difference}"));
            }
            let query = format!(
                "SELECT \"partition\", \"offset\", CAST(window_start AS BIGINT) FROM {pipeline}.late_events WHERE output = '{output}'"
            );
            let all = tables.numbers::<3>(&query);
            let found: Late = all.iter().copied().collect();
            if found.len() != all.len() || found != *late {
                let difference: Vec<_> = found.symmetric_difference(late).take(3).collect();
                wrong.push(format!(
                    "{output}: {} late events ({} different) instead of {}: {difference:?}",
                    all.len(),
                    found.len(),
                    late.len()
                ));
            }
        }
        wrong
    }

    /// Rows and late events of all outputs.
    fn sizes(&self) -> (usize, usize) {
        let outputs = self.outputs.values();
        outputs.fold((0, 0), |(rows, late), (batches, missed)| {
            (rows + batches.iter().map(RecordBatch::num_rows).sum::<usize>(), late + missed.len())
        })
    }
}

fn execute(plan: LogicalPlan) -> datafusion::common::Result<Vec<RecordBatch>> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    // These two move struct fields through projections and mistake a renamed column for the one it was made from.
    for rule in ["extract_leaf_expressions", "push_down_leaf_projections"] {
        assert!(context.remove_optimizer_rule(rule), "DataFusion has no rule {rule} any more");
    }
    block(async { context.execute_logical_plan(plan).await?.collect().await })
}

/// Runs a pipeline in every way and compares each with batch. The text of the first way's tables is returned.
pub fn proven(pipeline: &Pipeline, near: &dyn Fn(&str) -> Vec<Near<'static>>, show: &dyn Fn(&Tables) -> String) -> String {
    let name = pipeline.name();
    let mut expected = None;
    let mut shown: Option<String> = None;
    for way in WAYS {
        let data = tempfile::tempdir().expect("a folder");
        let tables = Tables::run(pipeline, data.path(), way);
        let expected = expected.get_or_insert_with(|| {
            Expected::of(pipeline, |output| {
                let query = format!("SELECT \"partition\", \"offset\" FROM {name}.dead_letters WHERE output = '{output}'");
                tables.numbers::<2>(&query).into_iter().map(|[partition, offset]| (partition, offset)).collect()
            })
        });
        let wrong = expected.check(name, &tables, near);
        assert!(wrong.is_empty(), "{way:?}\n{}", wrong.join("\n"));
        let unplaced = format!("SELECT output, unplaced FROM ({}) WHERE unplaced <> 0", steady_accounts(name));
        let unplaced = tables.ask(&unplaced);
        assert_eq!(unplaced.iter().map(RecordBatch::num_rows).sum::<usize>(), 0, "{way:?}: {unplaced:?}");
        let text = show(&tables);
        assert_eq!(*shown.get_or_insert_with(|| text.clone()), text, "{way:?}");
    }
    shown.unwrap_or_default()
}

/// How near the case's approximate columns must be.
fn near_of_case(output: &str) -> Vec<Near<'static>> {
    match output {
        "links_per_hour" => vec![("visitors", 0.033), ("p95_redirect_us", 0.01)],
        "countries_per_minute" | "devices_per_hour" => vec![("visitors", 0.033)],
        "referrers_per_hour" => vec![("visitors", 0.033), ("links", 0.033)],
        "audience_per_minute" => vec![("links", 0.033)],
        _ => Vec::new(),
    }
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
    let mut files: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for _ in 0..records {
        let record = workload.next();
        let file = files.entry(record.partition).or_default();
        file.extend(record.value.unwrap_or_default());
        file.push(b'\n');
    }
    let folder = tempfile::tempdir().expect("a folder");
    for (partition, bytes) in files {
        std::fs::write(folder.path().join(format!("{partition}.ndjson")), bytes).expect("written");
    }
    let pipeline = Pipeline::parse("pipeline.sql", &over_file(case.pipeline_sql, folder.path())).unwrap_or_else(|error| panic!("{error}"));
    let everything = |tables: &Tables| {
        let late = tables.ask("SELECT output, CAST(count(*) AS BIGINT) AS late FROM url_shortener.late_events GROUP BY output");
        let dead = tables.ask("SELECT \"partition\", \"offset\", reason FROM url_shortener.dead_letters");
        Rows::of(&late, &[]).text() + &Rows::of(&dead, &[]).text() + &Rows::of(&tables.ask(&steady_accounts("url_shortener")), &[]).text()
    };
    proven(&pipeline, &near_of_case, &everything);
    let (rows, late) = Expected::of(&pipeline, |_| Vec::new()).sizes();
    assert!(rows > records && late > 50, "{rows} rows and {late} late events compare too little");
}

#[test]
fn the_case_equals_batch() {
    case_over(false, 20_000);
}

#[test]
fn the_case_equals_batch_with_defects() {
    case_over(true, 10_000);
}

#[test]
fn a_wrong_row_is_found() {
    let batch = |clicks: i64| {
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(arrow::array::StringArray::from(vec!["a", "b"])),
            Arc::new(arrow::array::Int64Array::from(vec![100, clicks])),
            Arc::new(arrow::array::Float64Array::from(vec![Some(0.5), None])),
        ];
        let names = ["code", "clicks", "mean"];
        RecordBatch::try_from_iter(names.into_iter().zip(columns)).expect("one length")
    };
    let rows = |clicks: i64, near: &[Near<'_>]| Rows::of(&[batch(clicks)], near);
    assert_eq!(rows(7, &[]).len(), 2);
    assert_eq!(rows(7, &[]).difference(&rows(7, &[]), &[]), None);
    assert!(rows(7, &[]).difference(&rows(8, &[]), &[]).is_some());
    let near = [("clicks", 0.01)];
    assert_eq!(rows(1003, &near).difference(&rows(1000, &near), &near), None);
    assert!(rows(1012, &near).difference(&rows(1000, &near), &near).is_some());
    assert!(Rows::of(&[], &[]).difference(&rows(7, &[]), &[]).is_some());
}
