//! `tidemill verify`: the declared SQL as one batch over the same records, compared with what a run has written.
//!
//! Always: the batch reads each source from where its run began to where the epoch stands, leaves out what the contract leaves out by rules of its own
//! (it never asks an operator), and compares every output's rows, its late events, the dead letters and the accounts. A log that no
//! longer holds the records is refused; it is never a difference. `log` reads, `lowering` plans, `batch` runs, `compare` compares.

mod accounts;
mod aside;
mod batch;
mod compare;
mod exact;
mod grant;
mod kept;
mod log;
mod lowering;
mod ordered;
mod report;
mod spool;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};
use datafusion::prelude::SessionContext;
use tidemill_engine::epoch::manifest::Manifest;
use tidemill_engine::epoch::recover::{check_plan, newest};
use tidemill_engine::epoch::store::LocalStore;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::Dataflow;

use crate::runner::Pipeline;
use crate::serve::output_table;
use crate::sources::Connections;
use batch::{Batch, OutputWorld, stream};
pub use compare::Sample;
use compare::{Compared, compare, failed};
use grant::Grant;
pub use report::{Check, Report};

/// Microseconds; NULL before the partition's first row.
pub(crate) const WATERMARK: &str = "__watermark";
/// The source's number in the pipeline.
pub(crate) const SOURCE: &str = "__source";
pub(crate) const PARTITION: &str = "__partition";
pub(crate) const OFFSET: &str = "__offset";
/// What every source row carries through its plan.
pub(crate) const CARRIED: [&str; 4] = [WATERMARK, SOURCE, PARTITION, OFFSET];
/// A last column that all compared rows have, so that there is something to sort by.
const SAME: &str = "__same";

/// What a user may set.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder.
    pub data: PathBuf,
    /// Brokers of sources that name none.
    pub brokers: Option<String>,
    /// librdkafka properties.
    pub kafka: Vec<(String, String)>,
    /// Threads.
    pub threads: usize,
    /// Memory of the batch; what does not fit is spilled.
    pub memory_bytes_max: usize,
    /// Where the records and what is spilled lie meanwhile.
    pub folder: PathBuf,
    /// Differing rows that are kept of each kind.
    pub rows_max: usize,
}

/// Told what happens on the way.
pub trait Told {
    /// Something is waited for (a broker that does not answer).
    fn waiting(&self, what: &str);
    /// The epoch, and how many records will be read.
    fn begins(&self, epoch: u64, records: u64);
    /// So many of them have been read.
    fn read(&self, records: u64);
    /// An output is compared.
    fn comparing(&self, output: &str);
}

/// Compares a pipeline's newest epoch with a batch.
pub fn verify(pipeline: &Pipeline, options: &Options, told: &dyn Told) -> Result<Report> {
    let folder = options.data.join(pipeline.name());
    let store = LocalStore::at(&folder);
    let manifest = newest(&store)?.ok_or_else(|| {
        Error::refused(format!(
            "pipeline {} has no tables in {}: `tidemill run` makes them; --data names another folder",
            pipeline.name(),
            options.data.display()
        ))
    })?;
    let connections = Connections::new(options.brokers.clone(), options.kafka.clone(), pipeline.name(), 1);
    let flow = pipeline.dataflow(&connections, Some(&manifest))?;
    check_plan(&flow, &manifest)?;
    against(pipeline, &flow, &manifest, &store, &connections, options, told)
}

/// Compares with what `pipeline` says, whatever plan the manifest was made by.
fn against(
    pipeline: &Pipeline,
    flow: &Dataflow,
    manifest: &Manifest,
    store: &LocalStore,
    connections: &Connections,
    options: &Options,
    told: &dyn Told,
) -> Result<Report> {
    let records: u64 = manifest.sources.iter().flat_map(|entry| &entry.partitions).map(|position| position.rows).sum();
    told.begins(manifest.epoch, records);
    let spill = options.folder.join("spill");
    std::fs::create_dir_all(&spill).map_err(|error| Error::external(format!("{}: {error}", spill.display())))?;
    let logs = read_logs(pipeline, manifest, connections, &options.folder, told)?;
    let batch = Batch { pipeline, flow, manifest, store, logs };
    let context = batch::context(options.threads, options.memory_bytes_max, &spill)?;
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(options.threads.max(1)).enable_all().build();
    let threads = threads.map_err(|error| Error::failed(format!("threads can't be started: {error}")))?;
    threads.block_on(async {
        let verifier = Verifier { batch: &batch, context: &context, rows_max: options.rows_max };
        let mut report = Report::new(pipeline.name(), manifest, records);
        let known: Vec<&str> = manifest.plan.iter().map(|entry| entry.output.as_str()).collect();
        for planned in &pipeline.planned {
            if !known.contains(&planned.name.as_str()) {
                report.notes.push(format!("output {} is new in the file and has no table yet", planned.name));
                continue;
            }
            if pipeline.program.outputs.iter().any(|output| output.name == planned.name && output.insert.is_some()) {
                report.notes.push(format!("{} goes to a sink: its rows are not compared, the tables it is made of are", planned.name));
                continue;
            }
            told.comparing(&planned.name);
            let world = verifier.world(&planned.name, &mut report).await?;
            report.checks.push(verifier.rows(&planned.name, &world).await?);
            verifier.late(&planned.name, &world, &mut report).await?;
        }
        told.comparing("dead letters");
        verifier.dead(&mut report).await?;
        told.comparing("accounts");
        verifier.accounts(&mut report).await?;
        Ok(report)
    })
}

fn read_logs(
    pipeline: &Pipeline,
    manifest: &Manifest,
    connections: &Connections,
    folder: &Path,
    told: &dyn Told,
) -> Result<BTreeMap<(String, u32), log::Log>> {
    let mut logs = BTreeMap::new();
    let mut records = 0;
    for entry in &manifest.sources {
        let found = pipeline.program.sources.iter().enumerate().find(|(_, source)| source.name == entry.name);
        let (index, source) = found.ok_or_else(|| Error::failed(format!("no source {}", entry.name)))?;
        if let Some(lost) = connections.lost(source, entry, &mut |what| told.waiting(what))? {
            return Err(log::gone(lost));
        }
        let log = log::read(source, index, entry, connections, folder, told, records)?;
        records += log.records;
        logs.insert((entry.name.clone(), entry.reading), log);
    }
    Ok(logs)
}

/// Compares, one thing after another.
struct Verifier<'a> {
    batch: &'a Batch<'a>,
    context: &'a SessionContext,
    rows_max: usize,
}

impl Verifier<'_> {
    /// An output's rows.
    async fn rows(&self, output: &str, world: &OutputWorld<'_>) -> Result<Check> {
        let mut check = Check::new(output, "rows");
        let planned = self.batch.planned(output)?;
        let Some(grants) = grant::grants(&planned.analyzed, &|scan| self.batch.inlined(scan, world.reading)) else {
            check.note = Some("not compared: which rows it has depends on an approximate value".to_owned());
            return Ok(check);
        };
        check.note = grant::note(&grants, planned.analyzed.schema().as_arrow());
        let rules = self.batch.rules(output);
        let provisional = rules.closed_only && self.batch.manifest.published_open;
        if provisional && report::hides_windows(&planned.analyzed) {
            check.note = Some(
                "not compared: it adds windows up that an earlier --bounded run published open; compare after another --bounded run"
                    .to_owned(),
            );
            return Ok(check);
        }
        if !self.batch.manifest.ended && report::joins(&planned.analyzed, &|scan| self.batch.plan_of(scan)) {
            check.note = Some(
                "not compared while the run goes on: it joins, and a row without a match waits for one; stop the run first".to_owned(),
            );
            return Ok(check);
        }
        let expected = match lowering::rows(&planned.analyzed, rules, world) {
            Ok(plan) => plan,
            Err(error) => {
                check.note = Some(format!("not compared: {}", failed(&error)));
                return Ok(check);
            }
        };
        let compared = match self.compare(output, &grants, expected).await {
            Err(error) if error.kind() == tidemill_engine::error::Kind::Failed => {
                check.wrong = Some(format!("the batch fails, and the run did not: {error}"));
                return Ok(check);
            }
            other => other?,
        };
        check.take(compared);
        if rules.closed_only && check.extra.total > 0 {
            // A window that is open may be published: by the end of a bounded run, or early where it hops. It is then as right as the
            // others, if it is what the batch has for it.
            let all = lowering::Rules { closed_only: false, ..rules };
            let all = lowering::rows(&planned.analyzed, all, world).map_err(|error| failed(&error))?;
            check.extra = self.compare(output, &grants, all).await?.extra;
        }
        Ok(check)
    }

    async fn compare(&self, output: &str, grants: &[Grant], expected: LogicalPlan) -> Result<Compared> {
        let table = output_table(self.batch.store, self.batch.table(&format!("tables/{output}"))?);
        let schema = table.schema();
        let wrong = |error: datafusion::common::DataFusionError| failed(&error);
        let found = self.context.read_table(table).map_err(wrong)?.into_unoptimized_plan();
        self.compare_plans(&schema, grants, expected, found).await
    }

    /// Compares two plans whose columns are those of `schema` in its order.
    async fn compare_plans(&self, schema: &SchemaRef, grants: &[Grant], expected: LogicalPlan, found: LogicalPlan) -> Result<Compared> {
        let wrong = |error: datafusion::common::DataFusionError| failed(&error);
        let expected = stream(self.context, sorted(expected, schema, grants).map_err(wrong)?).await.map_err(wrong)?;
        let found = stream(self.context, sorted(found, schema, grants).map_err(wrong)?).await.map_err(wrong)?;
        let schema = expected.schema();
        let mut grants = grants.to_vec();
        grants.resize(schema.fields().len(), Grant::Exact);
        compare(&schema, &grants, expected, found, self.rows_max).await
    }
}

/// The columns of `schema` by position, in its types and under its names, sorted by those that must be equal.
fn sorted(plan: LogicalPlan, schema: &SchemaRef, grants: &[Grant]) -> datafusion::common::Result<LogicalPlan> {
    let columns = plan.schema().columns().into_iter().zip(schema.fields());
    let mut exprs: Vec<Expr> =
        columns.map(|(column, field)| cast(Expr::Column(column), field.data_type().clone()).alias(field.name())).collect();
    exprs.push(lit(0_i64).alias(SAME));
    let exact = |index: &usize| grants.get(*index).is_none_or(|grant| *grant == Grant::Exact);
    let keys =
        schema.fields().iter().map(|field| field.name().as_str()).enumerate().filter(|(index, _)| exact(index)).map(|(_, name)| name);
    let column = |name: &str| Expr::Column(datafusion::common::Column::new_unqualified(name)).sort(true, true);
    let keys: Vec<_> = keys.map(column).chain([column(SAME)]).collect();
    LogicalPlanBuilder::from(plan).project(exprs)?.sort(keys)?.build()
}

/// Nothing set aside.
fn nothing() -> Arc<spool::Aside> {
    Arc::new(spool::Aside::default())
}
