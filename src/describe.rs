//! `\d`: which tables there are, and what their columns are.
//!
//! Always: from the newest manifests, as any query; printed as tables on stdout. Used by the prompt.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tidemill_engine::error::Result;
use tidemill_pipelines::serve::format::{Format, Printer};
use tidemill_pipelines::serve::snapshot::Snapshot;
use tidemill_pipelines::sql::sql_name;

use crate::answers::Asking;
use crate::exit::Out;

/// Tables that no pipeline declares: their schema, name and number of columns.
const OTHERS: &str = "SELECT table_schema, table_name, CAST(count(*) AS VARCHAR) AS columns FROM information_schema.columns
    WHERE table_schema IN ('tidemill', 'state') GROUP BY table_schema, table_name ORDER BY table_schema DESC, table_name";

/// Every table's full name, and the bare names too.
const NAMES: &str =
    "SELECT DISTINCT table_schema || '.' || table_name AS name FROM information_schema.tables WHERE table_schema <> 'information_schema'
    UNION SELECT table_name FROM information_schema.tables WHERE table_schema NOT IN ('information_schema', 'tidemill', 'state')";

/// Lists all tables.
pub fn tables(asking: &Asking, data: &Path) -> Result<()> {
    let mut rows: Vec<[String; 5]> = Vec::new();
    for (pipeline, found) in &Snapshot::open(data)?.pipelines {
        for table in found.manifest.tables.iter().filter(|table| !table.folder.starts_with("internal/")) {
            let column = |index: &usize| table.schema.fields().get(*index).map(|field| field.name().clone()).unwrap_or_default();
            let key: Vec<String> = table.key.iter().filter(|index| **index < table.visible).map(column).collect();
            let declared = found.manifest.plan.iter().any(|plan| plan.output == table.name);
            let kind = match (declared, table.key.is_empty()) {
                (false, _) => "set aside",
                (true, true) => "append",
                (true, false) => "upsert",
            };
            rows.push([pipeline.clone(), table.name.clone(), kind.to_owned(), key.join(", "), table.visible.to_string()]);
        }
    }
    for [schema, name, columns] in asking.texts::<3>(OTHERS)? {
        let kind = if schema == "state" { "live state" } else { "engine" };
        rows.push([schema, name, kind.to_owned(), String::new(), columns]);
    }
    show(["pipeline", "table", "kind", "key", "columns"], &rows)
}

/// Lists a table's columns.
pub fn table(asking: &Asking, data: &Path, name: &str) -> Result<()> {
    let columns = asking.columns(&format!("SELECT * FROM {name} LIMIT 0"))?;
    let bare = name.rsplit('.').next().unwrap_or(name).trim_matches('"');
    let snapshot = Snapshot::open(data)?;
    let within = |pipeline: &str| name.split_once('.').is_none_or(|(schema, _)| schema.trim_matches('"') == pipeline);
    let entry = snapshot
        .pipelines
        .iter()
        .filter(|(pipeline, _)| within(pipeline))
        .find_map(|(_, found)| found.manifest.tables.iter().find(|table| table.name == bare));
    let rows: Vec<[String; 3]> = columns
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let key = entry.is_some_and(|entry| entry.key.contains(&index));
            [field.name().clone(), sql_name(field.data_type()), if key { "key".to_owned() } else { String::new() }]
        })
        .collect();
    show(["column", "type", ""], &rows)
}

/// Names to complete.
pub fn names(asking: &Asking) -> Result<Vec<String>> {
    Ok(asking.texts::<1>(NAMES)?.into_iter().flatten().collect())
}

/// Prints texts as a table.
pub fn show<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> Result<()> {
    let schema = Arc::new(Schema::new(names.map(|name| Field::new(name, DataType::Utf8, false)).to_vec()));
    let column = |index: usize| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().filter_map(|row| row.get(index)))) };
    let batch = RecordBatch::try_new(Arc::clone(&schema), (0..N).map(column).collect())?;
    let mut printer = Printer::new(Format::Table, &schema, Out::new())?;
    printer.write(&batch)?;
    printer.finish()?;
    Ok(())
}
