//! Names to tables: a schema a pipeline, `state`, `tidemill`, and `information_schema` over all of them.
//!
//! Always: a table is found without reading more than its manifest; a bare name works when one pipeline has it, and otherwise the error
//! names what there is. Tables can't be added, so nothing but the data folder can be read.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::TableType;
use tidemill_engine::error::{Error, Result};

use super::snapshot::{Pipeline, Snapshot};
use super::{derived, internal, output, state};

/// The only catalog.
pub(super) const CATALOG: &str = "tidemill";
/// The schema of the engine's tables over all pipelines.
const INTERNAL: &str = "tidemill";
/// The schema of live state.
const STATE: &str = "state";
/// The ending of a change log's name.
const LOG: &str = "$log";

/// Finds tables in one snapshot.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) snapshot: Snapshot,
}

impl Tables {
    /// The table that `schema.name` or the bare `name` means, or why there is none.
    pub(super) fn find(&self, schema: Option<&str>, name: &str) -> Result<Arc<dyn TableProvider>> {
        let Some(schema) = schema else { return self.bare(name) };
        if let Some(table) = self.table(schema, name)? {
            return Ok(table);
        }
        let known = self.schemas();
        if !known.iter().any(|known| known == schema) {
            let mut message = format!("there is no pipeline {schema} in {}", self.snapshot.folder.display());
            message.push_str(&match known
                .iter()
                .filter(|known| ![STATE, INTERNAL].contains(&known.as_str()))
                .cloned()
                .collect::<Vec<_>>()
                .join(", ")
            {
                pipelines if pipelines.is_empty() => "; `tidemill run FILE.sql` makes one".to_owned(),
                pipelines => format!("; there is {pipelines}"),
            });
            return Err(Error::refused(message));
        }
        Err(unknown(&format!("{schema}.{name}"), name, &self.names(schema), self))
    }

    fn bare(&self, name: &str) -> Result<Arc<dyn TableProvider>> {
        let holders: Vec<&String> = self.snapshot.pipelines.keys().filter(|pipeline| self.has(pipeline, name)).collect();
        match holders.as_slice() {
            [] => Err(unknown(name, name, &self.every_name(), self)),
            [only] => self.find(Some(only), name),
            several => {
                let named: Vec<String> = several.iter().map(|pipeline| format!("{pipeline}.{}", quoted(name))).collect();
                Err(Error::refused(format!("{name} is in several pipelines: write {}", named.join(" or "))))
            }
        }
    }

    /// All schemas.
    pub(super) fn schemas(&self) -> Vec<String> {
        self.snapshot.pipelines.keys().cloned().chain([STATE.to_owned(), INTERNAL.to_owned()]).collect()
    }

    fn user_tables<'a>(&'a self, pipeline: &'a Pipeline) -> impl Iterator<Item = &'a tidemill_engine::epoch::manifest::TableEntry> {
        pipeline.manifest.tables.iter().filter(|entry| !entry.folder.starts_with("internal/"))
    }

    /// All tables of a schema but change logs, which would only double the list.
    fn names(&self, schema: &str) -> Vec<String> {
        match (self.snapshot.pipelines.get(schema), schema) {
            (Some(pipeline), _) => self.user_tables(pipeline).map(|entry| entry.name.clone()).collect(),
            (None, STATE) => self.states().into_keys().collect(),
            (None, INTERNAL) => internal::NAMES.iter().map(|name| (*name).to_owned()).collect(),
            _ => Vec::new(),
        }
    }

    fn every_name(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .schemas()
            .iter()
            .flat_map(|schema| {
                let short = self.snapshot.pipelines.contains_key(schema);
                self.names(schema).into_iter().map(move |name| if short { name } else { format!("{schema}.{name}") })
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn has(&self, pipeline: &str, name: &str) -> bool {
        let name = name.strip_suffix(LOG).unwrap_or(name);
        self.snapshot.pipelines.get(pipeline).is_some_and(|pipeline| self.user_tables(pipeline).any(|entry| entry.name == name))
    }

    fn states(&self) -> BTreeMap<String, Arc<dyn TableProvider>> {
        let all = self.snapshot.pipelines.iter().flat_map(|(name, pipeline)| {
            state::names(name, &pipeline.manifest).into_iter().map(|(name, entry)| (name, state::table(&pipeline.store, entry)))
        });
        all.collect()
    }

    fn table(&self, schema: &str, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(pipeline) = self.snapshot.pipelines.get(schema) else {
            return match schema {
                STATE => Ok(self.states().remove(name)),
                INTERNAL => internal::table(&self.snapshot, name),
                _ => Ok(None),
            };
        };
        if let Some(entry) = self.user_tables(pipeline).find(|entry| entry.name == name) {
            return Ok(Some(output::table(&pipeline.store, entry)));
        }
        let log = name.strip_suffix(LOG).and_then(|name| self.user_tables(pipeline).find(|entry| entry.name == name));
        Ok(log.and_then(|entry| output::log(&pipeline.store, entry)))
    }
}

/// A name as it must be written in SQL.
fn quoted(name: &str) -> String {
    let plain =
        name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn unknown(shown: &str, name: &str, known: &[String], tables: &Tables) -> Error {
    let folder = tables.snapshot.folder.display();
    if tables.snapshot.pipelines.is_empty() {
        return Error::refused(format!(
            "there is no table {shown}: {folder} holds no pipeline yet; `tidemill run FILE.sql` makes one, --data names another folder"
        ));
    }
    let mut near: Vec<(usize, &String)> =
        known.iter().map(|known| (distance(name, known.rsplit('.').next().unwrap_or(known)), known)).collect();
    near.sort();
    let close: Vec<String> =
        near.iter().filter(|(far, _)| *far <= name.len().max(3) / 3).take(3).map(|(_, name)| quoted_path(name)).collect();
    Error::refused(match (close.as_slice(), known) {
        ([], []) => format!("there is no table {shown}, nor any other there"),
        ([], _) => format!(
            "there is no table {shown}; there is {}",
            known.iter().take(20).map(|name| quoted_path(name)).collect::<Vec<_>>().join(", ")
        ),
        (close, _) => format!("there is no table {shown}; did you mean {}?", close.join(" or ")),
    })
}

fn quoted_path(path: &str) -> String {
    path.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut left = i + 1;
        next.push(left);
        for ((to, diagonal), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            left = (left + 1).min(above + 1).min(diagonal + usize::from(from != *to));
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// The catalog that `information_schema` lists.
#[derive(Debug)]
pub(super) struct Catalog(pub(super) Arc<Tables>);

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        self.0.schemas()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let known = self.0.schemas().iter().any(|schema| schema == name);
        known.then(|| Arc::new(OneSchema { tables: Arc::clone(&self.0), name: name.to_owned() }) as _)
    }
}

#[derive(Debug)]
struct OneSchema {
    tables: Arc<Tables>,
    name: String,
}

#[async_trait]
impl SchemaProvider for OneSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.names(&self.name)
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        self.tables.table(&self.name, name).map_err(derived::external)
    }

    async fn table_type(&self, name: &str) -> DfResult<Option<TableType>> {
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.table(&self.name, name).is_ok_and(|table| table.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        assert_eq!(
            [distance("clicks", "clicks"), distance("click", "clicks"), distance("", "abc"), distance("kitten", "sitting")],
            [0, 1, 3, 3]
        );
    }
}
