//! The batch's world: which rows each scan reads, how far time has come for whom, and DataFusion with limits to run it all.
//!
//! Always: an output that another one reads is read from its own table, which is compared by itself, so each comparison is of one output alone;
//! one that has no table in this reading of the sources is computed on the way.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result as DfResult, plan_datafusion_err};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use tidemill_engine::epoch::manifest::{Manifest, TableEntry};
use tidemill_engine::epoch::store::LocalStore;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::Dataflow;

use super::log::Log;
use super::lowering::{Reads, Rules, World};
use super::spool::{Aside, SpoolTable};
use crate::runner::Pipeline;
use crate::serve::output_table;
use crate::sql::{Checked, Emit, OutputTable, PlannedOutput, SourceTable};

/// Disk for what the batch spills.
const SPILL_BYTES_MAX: u64 = 1 << 40;
/// These move struct fields through projections and mistake a renamed column for the one it was made from.
const RULES_LEFT_OUT: [&str; 2] = ["extract_leaf_expressions", "push_down_leaf_projections"];

/// DataFusion with a limit on memory, and a folder for what is beyond.
pub fn context(threads: usize, memory_bytes_max: usize, spill: &Path) -> Result<SessionContext> {
    let wrong = |error: DataFusionError| Error::failed(error.strip_backtrace());
    let pool = TrackConsumersPool::new(FairSpillPool::new(memory_bytes_max), NonZeroUsize::MIN);
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![spill.to_owned()]))
        .with_max_temp_directory_size(SPILL_BYTES_MAX);
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_disk_manager_builder(disk).build_arc().map_err(wrong)?;
    let mut config = SessionConfig::new().with_target_partitions(threads.max(1));
    // It compares which columns may be NULL, which its own rules narrow in one plan and not in the other.
    config.options_mut().execution.skip_physical_aggregate_schema_check = true;
    let context = SessionContext::new_with_config_rt(config, runtime);
    context.add_analyzer_rule(Arc::new(Checked { sums: false }));
    for rule in RULES_LEFT_OUT {
        if !context.remove_optimizer_rule(rule) {
            return Err(Error::failed(format!("DataFusion has no rule {rule} any more")));
        }
    }
    Ok(context)
}

/// Runs a plan.
pub async fn stream(context: &SessionContext, plan: LogicalPlan) -> DfResult<SendableRecordBatchStream> {
    context.execute_logical_plan(plan).await?.execute_stream().await
}

/// A pipeline at an epoch, and its logs.
pub struct Batch<'a> {
    /// What was declared.
    pub pipeline: &'a Pipeline,
    /// What runs.
    pub flow: &'a Dataflow,
    /// The epoch.
    pub manifest: &'a Manifest,
    /// Where its tables lie.
    pub store: &'a LocalStore,
    /// By source and reading.
    pub logs: BTreeMap<(String, u32), Log>,
}

impl Batch<'_> {
    /// The reading of an output.
    pub fn reading(&self, output: &str) -> u32 {
        self.flow.outputs.iter().find(|each| each.name == output).map_or(0, |each| each.reading)
    }

    /// An output's plan.
    pub fn planned(&self, output: &str) -> Result<&PlannedOutput> {
        let planned = self.pipeline.planned.iter().find(|each| each.name == output);
        planned.ok_or_else(|| Error::failed(format!("no output {output}")))
    }

    /// An output and all those that it reads, by whatever way.
    pub fn with_read(&self, output: &str) -> Result<Vec<&PlannedOutput>> {
        let mut found = vec![self.planned(output)?];
        let mut at = 0;
        while let Some(planned) = found.get(at) {
            let mut names = Vec::new();
            outputs_read(&planned.plan, &mut names);
            for name in names {
                if found.iter().all(|each| each.name != name) {
                    found.push(self.planned(&name)?);
                }
            }
            at += 1;
        }
        Ok(found)
    }

    /// An output's rules. After the end of a bounded run every window is published.
    pub fn rules(&self, output: &str) -> Rules {
        let declared = self.pipeline.program.outputs.iter().find(|each| each.name == output);
        let lateness_us = declared.map_or(0, |output| output.lateness_us);
        let each_epoch = declared.is_some_and(|output| output.emit == Some(Emit::Changes) || output.state_ttl_us.is_some());
        Rules { lateness_us, closed_only: !self.manifest.ended && !each_epoch }
    }

    /// A table of the manifest by its folder.
    pub fn table(&self, folder: &str) -> Result<&TableEntry> {
        let found = self.manifest.tables.iter().find(|entry| entry.folder == folder);
        found.ok_or_else(|| Error::failed(format!("the manifest names no {folder}")))
    }

    /// Whether a scan's output has no table that a plan in `reading` could read.
    pub fn inlined(&self, scan: &TableScan, reading: u32) -> Option<LogicalPlan> {
        let table = scan.source.downcast_ref::<OutputTable>()?;
        if self.reading(&table.name) == reading { None } else { self.plan_of(scan) }
    }

    /// The plan of the output that a scan reads.
    pub fn plan_of(&self, scan: &TableScan) -> Option<LogicalPlan> {
        let table = scan.source.downcast_ref::<OutputTable>()?;
        self.planned(&table.name).ok().map(|planned| planned.analyzed.clone())
    }

    /// How far time has come for the rows of a plan: the least over its sources, less what outputs on the way hold back.
    fn closed(&self, plan: &LogicalPlan, reading: u32) -> i64 {
        if let LogicalPlan::TableScan(scan) = plan {
            if let Some(source) = scan.source.downcast_ref::<SourceTable>() {
                let index = self.manifest.sources.iter().position(|entry| entry.name == source.name && entry.reading == reading);
                return index.and_then(|index| self.manifest.watermarks.get(index).copied().flatten()).unwrap_or(i64::MIN);
            }
            if let Some(output) = scan.source.downcast_ref::<OutputTable>() {
                let Ok(planned) = self.planned(&output.name) else { return i64::MIN };
                let behind_us = self.flow.outputs.iter().find(|each| each.name == output.name).map_or(0, |each| each.behind_us);
                return self.closed(&planned.analyzed, reading).saturating_sub(behind_us);
            }
        }
        plan.inputs().into_iter().map(|input| self.closed(input, reading)).min().unwrap_or(i64::MAX)
    }
}

/// The names of the outputs that a plan scans.
fn outputs_read(plan: &LogicalPlan, into: &mut Vec<String>) {
    if let LogicalPlan::TableScan(scan) = plan
        && let Some(table) = scan.source.downcast_ref::<OutputTable>()
    {
        into.push(table.name.clone());
    }
    plan.inputs().into_iter().for_each(|input| outputs_read(input, into));
}

/// The world of one output: its reading, and what it sets aside of each source.
pub struct OutputWorld<'a> {
    /// All of it.
    pub batch: &'a Batch<'a>,
    /// The output's reading.
    pub reading: u32,
    /// By source.
    pub aside: BTreeMap<String, Arc<Aside>>,
}

impl World for OutputWorld<'_> {
    fn reads(&self, scan: &TableScan) -> DfResult<Reads> {
        if let Some(source) = scan.source.downcast_ref::<SourceTable>() {
            let log = self.batch.logs.get(&(source.name.clone(), self.reading));
            let log = log.ok_or_else(|| plan_datafusion_err!("source {} was not read", source.name))?;
            let aside = self.aside.get(&source.name).cloned().unwrap_or_default();
            return Ok(Reads::Rows(Arc::new(SpoolTable::new(&log.rows, &aside))));
        }
        let Some(output) = scan.source.downcast_ref::<OutputTable>() else {
            return Err(plan_datafusion_err!("{} is no source and no output", scan.table_name));
        };
        if let Some(plan) = self.batch.inlined(scan, self.reading) {
            return Ok(Reads::Plan(plan, self.batch.rules(&output.name)));
        }
        let entry = self.batch.table(&format!("tables/{}", output.name)).map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(Reads::Rows(output_table(self.batch.store, entry)))
    }

    fn closed(&self, plan: &LogicalPlan) -> i64 {
        self.batch.closed(plan, self.reading)
    }
}
