//! `state.<pipeline>_<operator>`: what operators keep, as rows, at the epoch of the snapshot.
//!
//! Always: the net rows of base and deltas, less what has expired; the engine's own columns (`_hash`, `_expires`) are left out. An
//! operator with several state tables has one table each, `state.<pipeline>_<operator>_<table>`; its first has the short name too.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::LogicalPlan;
use tidemill_engine::epoch::manifest::{Manifest, StateEntry};
use tidemill_engine::epoch::recover::load_table;
use tidemill_engine::epoch::store::LocalStore;
use tidemill_engine::error::Result;
use tidemill_engine::state::{EXPIRES_COLUMN, HASH_COLUMN};

use super::derived::{Assemble, Derived, conform, planning, rows, shown};

#[derive(Debug)]
struct State {
    store: LocalStore,
    entry: StateEntry,
    columns: Vec<usize>,
    schema: SchemaRef,
}

/// The names under which a manifest's state tables are shown, and their entries.
pub(super) fn names<'a>(pipeline: &str, manifest: &'a Manifest) -> Vec<(String, &'a StateEntry)> {
    let mut names = Vec::new();
    for (index, entry) in manifest.state.iter().enumerate() {
        let same = |other: &StateEntry| other.operator == entry.operator;
        let first = !manifest.state.iter().take(index).any(same);
        if first {
            names.push((format!("{pipeline}_{}", entry.operator), entry));
        }
        if manifest.state.iter().filter(|other| same(other)).count() > 1 {
            names.push((format!("{pipeline}_{}_{}", entry.operator, entry.table), entry));
        }
    }
    names
}

/// One state table.
pub(super) fn table(store: &LocalStore, entry: &StateEntry) -> Arc<dyn TableProvider> {
    let own = |name: &str| name == HASH_COLUMN || name == EXPIRES_COLUMN;
    let columns: Vec<usize> =
        entry.schema.fields().iter().enumerate().filter(|(_, field)| !own(field.name())).map(|(index, _)| index).collect();
    let fields: Vec<_> = columns.iter().filter_map(|index| entry.schema.fields().get(*index).cloned()).collect();
    let schema = shown(&Schema::new(fields));
    Derived::table(Arc::clone(&schema), State { store: store.clone(), entry: entry.clone(), columns, schema })
}

#[async_trait]
impl Assemble for State {
    async fn plan(&self) -> Result<LogicalPlan> {
        let batches = load_table(&self.store, &self.entry)?;
        let batches = batches.iter().map(|batch| conform(&batch.project(&self.columns)?, &self.schema)).collect::<Result<Vec<_>>>()?;
        rows(&self.schema, batches)?.build().map_err(planning)
    }
}
