//! The schema `tidemill`: accounting and epochs of all pipelines, and the pipelines themselves.
//!
//! Always: one row format for all pipelines, with the pipeline's name in each row; the tables exist, empty, in an empty data folder.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use tidemill_engine::epoch::system;
use tidemill_engine::error::Result;

use super::derived::{Assemble, Derived, planning, rows, scan, shown};
use super::output;
use super::snapshot::Snapshot;

/// The tables of the schema.
pub(super) const NAMES: &[&str] = &["accounting", "epochs", "pipelines"];

/// The same internal table of all pipelines.
#[derive(Debug)]
struct All {
    schema: SchemaRef,
    parts: Vec<Arc<dyn TableProvider>>,
}

#[async_trait]
impl Assemble for All {
    async fn plan(&self) -> Result<LogicalPlan> {
        let mut parts = self.parts.iter().map(|part| scan(Arc::clone(part)));
        let Some(first) = parts.next() else { return rows(&self.schema, Vec::new())?.build().map_err(planning) };
        let all = parts.try_fold(first?, |all, part| all.union(part?.build().map_err(planning)?).map_err(planning))?;
        all.build().map_err(planning)
    }
}

/// A table of the schema, by name.
pub(super) fn table(snapshot: &Snapshot, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    Ok(match name {
        "accounting" => Some(all(snapshot, system::ACCOUNTING, &system::accounting_schema())),
        "epochs" => Some(all(snapshot, system::EPOCHS, &system::epochs_schema())),
        "pipelines" => Some(pipelines(snapshot)?),
        _ => None,
    })
}

fn all(snapshot: &Snapshot, folder: &str, schema: &Schema) -> Arc<dyn TableProvider> {
    let parts = snapshot.pipelines.values().flat_map(|pipeline| {
        let entries = pipeline.manifest.tables.iter().filter(|entry| entry.folder == folder);
        entries.map(|entry| output::table(&pipeline.store, entry))
    });
    let schema = shown(schema);
    Derived::table(Arc::clone(&schema), All { schema, parts: parts.collect() })
}

fn pipelines(snapshot: &Snapshot) -> Result<Arc<dyn TableProvider>> {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let count = |name: &str| Field::new(name, DataType::Int64, true);
    let at = |name: &str| Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, None), true);
    let schema = Arc::new(Schema::new(vec![
        text("pipeline"),
        count("epoch"),
        at("committed_at"),
        at("watermark"),
        text("uuid"),
        text("build"),
        count("workers"),
        count("sources"),
        count("partitions"),
        count("tables"),
    ]));
    let manifests: Vec<_> = snapshot.pipelines.iter().map(|(name, pipeline)| (name, &pipeline.manifest)).collect();
    let own = |folder: &str| folder.starts_with("internal/");
    let strings = |f: fn(&tidemill_engine::epoch::manifest::Manifest) -> &str| -> ArrayRef {
        Arc::new(manifests.iter().map(|(_, manifest)| Some(f(manifest).to_owned())).collect::<StringArray>())
    };
    let numbers = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let count_of = |f: &dyn Fn(&tidemill_engine::epoch::manifest::Manifest) -> usize| {
        numbers(manifests.iter().map(|(_, manifest)| f(manifest) as i64).collect())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(manifests.iter().map(|(name, _)| Some(name.as_str())).collect::<StringArray>()),
        numbers(manifests.iter().map(|(_, manifest)| manifest.epoch as i64).collect()),
        Arc::new(TimestampMicrosecondArray::from_iter_values(
            manifests.iter().map(|(_, manifest)| manifest.committed_at_ms.saturating_mul(1000)),
        )),
        Arc::new(
            manifests
                .iter()
                .map(|(_, manifest)| manifest.watermarks.iter().copied().flatten().min().filter(|at| *at != i64::MIN))
                .collect::<TimestampMicrosecondArray>(),
        ),
        strings(|manifest| &manifest.uuid),
        strings(|manifest| &manifest.build),
        count_of(&|manifest| manifest.workers),
        count_of(&|manifest| manifest.sources.len()),
        count_of(&|manifest| manifest.sources.iter().map(|source| source.partitions.len()).sum()),
        count_of(&|manifest| manifest.tables.iter().filter(|table| !own(&table.folder)).count()),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]]).map_err(planning)?))
}
