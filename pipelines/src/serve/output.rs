//! An output table at an epoch: the Delta version of its manifest with the changes since then on top, and its change log.
//!
//! Always: hot changes are netted by the function that the publisher uses. A keyed table is its cold rows less every key that changed
//! since, and the rows those keys end with; NULL keys are equal. Only the columns that the view selected are shown.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, JoinType, NullEquality};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use tidemill_connectors::delta::{log_folder, net};
use tidemill_engine::epoch::manifest::TableEntry;
use tidemill_engine::epoch::segment::read_batches;
use tidemill_engine::epoch::store::{LocalStore, Store};
use tidemill_engine::error::{Error, Result};

use super::cold::cold;
use super::derived::{Assemble, Derived, conform, planning, rows, shown};

/// The table itself.
#[derive(Debug)]
struct Output {
    store: LocalStore,
    entry: TableEntry,
    schema: SchemaRef,
}

/// Every change of the table.
#[derive(Debug)]
struct Log {
    store: LocalStore,
    entry: TableEntry,
    schema: SchemaRef,
}

/// The table under its plain name, as the manifest of `entry` has it.
pub fn table(store: &LocalStore, entry: &TableEntry) -> Arc<dyn TableProvider> {
    let schema = shown(&entry.schema);
    let visible: Vec<_> = schema.fields().iter().take(entry.visible).cloned().collect();
    Derived::table(Arc::new(Schema::new(visible)), Output { store: store.clone(), entry: entry.clone(), schema })
}

/// `"table$log"`, for tables that keep one.
pub(super) fn log(store: &LocalStore, entry: &TableEntry) -> Option<Arc<dyn TableProvider>> {
    log_folder(entry)?;
    let schema = shown(&net::log_schema(&entry.schema));
    let marks = schema.fields().iter().skip(entry.schema.fields().len());
    let visible: Vec<_> = schema.fields().iter().take(entry.visible).chain(marks).cloned().collect();
    Some(Derived::table(Arc::new(Schema::new(visible)), Log { store: store.clone(), entry: entry.clone(), schema }))
}

/// The changes after the Delta version: (epoch, rows with their weights last).
fn hot(store: &LocalStore, entry: &TableEntry) -> Result<Vec<(u64, RecordBatch)>> {
    let mut changes = Vec::new();
    for file in entry.hot.iter().filter(|file| file.epoch > entry.covered) {
        let (_, batches) = read_batches(&store.get_section(&file.section)?)?;
        changes.extend(batches.into_iter().filter(|batch| batch.num_rows() > 0).map(|batch| (file.epoch, batch)));
    }
    Ok(changes)
}

fn folder(store: &LocalStore, folder: &str) -> PathBuf {
    store.root().join(folder)
}

fn conform_all(batches: &[RecordBatch], schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    batches.iter().map(|batch| conform(batch, schema)).collect()
}

#[async_trait]
impl Assemble for Output {
    async fn plan(&self) -> Result<LogicalPlan> {
        let changes: Vec<_> = hot(&self.store, &self.entry)?.into_iter().map(|(_, batch)| batch).collect();
        let net = net::net(&self.entry.key, self.schema.fields().len(), &changes)?;
        let fresh = conform_all(&net.present, &self.schema)?;
        let Some(version) = self.entry.version else { return rows(&self.schema, fresh)?.build().map_err(planning) };
        let old = cold(&folder(&self.store, &self.entry.folder), version, &self.schema).await?;
        let old = if net.touched.is_empty() { old } else { self.without(old, &net.touched)? };
        let plan =
            if fresh.is_empty() { old } else { old.union(rows(&self.schema, fresh)?.build().map_err(planning)?).map_err(planning)? };
        plan.build().map_err(planning)
    }
}

impl Output {
    /// The rows of `old` with none of the keys.
    fn without(&self, old: LogicalPlanBuilder, keys: &[RecordBatch]) -> Result<LogicalPlanBuilder> {
        let mut fields = Vec::with_capacity(self.entry.key.len());
        let mut columns = Vec::with_capacity(self.entry.key.len());
        for index in &self.entry.key {
            let field =
                self.schema.fields().get(*index).ok_or_else(|| Error::failed(format!("table {}: key column {index}", self.entry.name)))?;
            // Names of their own: the join's condition could not tell the two sides apart.
            fields.push(Field::new(format!("changed_{index}"), field.data_type().clone(), true));
            columns.push(Column::new(Some("part"), field.name()));
        }
        let schema = Arc::new(Schema::new(fields));
        let changed = rows(&schema, conform_all(keys, &schema)?)?;
        let names: Vec<Column> = schema.fields().iter().map(|field| Column::new_unqualified(field.name())).collect();
        let alias: Vec<Expr> = names.iter().map(|name| Expr::Column(Column::new(Some("part"), &name.name)).alias(&name.name)).collect();
        let changed = changed.project(alias).map_err(planning)?;
        // The changed keys are the built side: they are few.
        let old = old.build().map_err(planning)?;
        changed.join_detailed(old, JoinType::RightAnti, (names, columns), None, NullEquality::NullEqualsNull).map_err(planning)
    }
}

#[async_trait]
impl Assemble for Log {
    async fn plan(&self) -> Result<LogicalPlan> {
        let fresh = hot(&self.store, &self.entry)?;
        let fresh = fresh
            .iter()
            .map(|(epoch, batch)| conform(&net::log_batch(&self.entry.schema, *epoch, batch)?, &self.schema))
            .collect::<Result<Vec<_>>>()?;
        let (Some(version), Some(place)) = (self.entry.log_version, log_folder(&self.entry)) else {
            if self.entry.covered > 0 && self.entry.version.is_some() {
                return Err(Error::refused(format!("\"{}$log\": this pipeline keeps no change log", self.entry.name)));
            }
            return rows(&self.schema, fresh)?.build().map_err(planning);
        };
        let old = cold(&folder(&self.store, &place), version, &self.schema).await?;
        let plan =
            if fresh.is_empty() { old } else { old.union(rows(&self.schema, fresh)?.build().map_err(planning)?).map_err(planning)? };
        plan.build().map_err(planning)
    }
}
