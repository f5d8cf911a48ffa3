//! What a statement can name: sources, views and outputs before it, functions and types. DataFusion's planner asks here.
//!
//! Always: synchronous and pure; a source shows its hidden columns only to a statement that names one; sources report no constraints,
//! so functional dependencies never shrink a key. `SourceTable` and `OutputTable` are how the lowering tells scans apart: it downcasts
//! `TableScan::source`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, TableReference};
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};

use super::asof::Asof;
use super::error::Complaint;
use super::fields::Fields;
use super::functions::REGISTRY;
use super::keys::KeyColumn;
use super::program::Source;
use super::time::TimeKind;
use super::types::{TIMESTAMP, Types};
use super::windows::Windows;

/// The hidden columns of a source, in their order behind the declared ones.
pub const HIDDEN: &[&str] = &["_topic", "_partition", "_offset", "_timestamp", "_key", "_headers"];

/// A source in a plan.
#[derive(Debug, Clone)]
pub struct SourceTable {
    pub name: String,
    schema: SchemaRef,
    /// How many of the schema's columns are declared; hidden ones follow.
    pub declared: usize,
    /// Index of the WATERMARK's column in the schema; `None` when the source has no WATERMARK, or a hidden one that is not shown.
    pub time_column: Option<usize>,
    /// The source has a WATERMARK.
    pub timed: bool,
    /// Indexes of the PRIMARY KEY's columns; empty when it is a plain stream.
    pub key: Vec<usize>,
}

impl SourceTable {
    /// A source with or without its hidden columns.
    pub fn new(source: &Source, hidden: bool) -> Self {
        let mut fields: Vec<Field> =
            source.columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), column.nullable)).collect();
        let declared = fields.len();
        if hidden {
            fields.extend(hidden_fields());
        }
        let watermark = source.watermark.as_ref().map(|watermark| watermark.column.as_str());
        let time_column = watermark.and_then(|column| fields.iter().position(|field| field.name() == column));
        let key = source.primary_key.iter().filter_map(|key| fields.iter().position(|field| field.name() == key)).collect();
        Self { name: source.name.clone(), schema: Arc::new(Schema::new(fields)), declared, time_column, timed: watermark.is_some(), key }
    }

    /// The source is a changelog: its rows are replaced and deleted by key.
    pub fn is_changelog(&self) -> bool {
        !self.key.is_empty()
    }
}

/// The fields of the hidden columns. `_headers` is refused before it can be read.
pub fn hidden_fields() -> Vec<Field> {
    vec![
        Field::new("_topic", DataType::Utf8View, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_timestamp", TIMESTAMP, false),
        Field::new("_key", DataType::Binary, true),
    ]
}

impl TableSource for SourceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// Another materialized view in a plan: its changelog is read.
#[derive(Debug, Clone)]
pub struct OutputTable {
    pub name: String,
    pub(super) schema: SchemaRef,
    pub times: Vec<Option<TimeKind>>,
    pub key: Option<Vec<KeyColumn>>,
}

impl TableSource for OutputTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// A plain view: DataFusion puts its plan where its name stands.
pub(super) struct ViewTable {
    pub schema: SchemaRef,
    pub plan: LogicalPlan,
}

impl TableSource for ViewTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

/// The names one statement sees.
pub(super) struct Catalog {
    pub pipeline: String,
    pub tables: BTreeMap<String, Arc<dyn TableSource>>,
    /// Defined further down: named so that the error can say it.
    pub later: Vec<String>,
    /// Written to, never read.
    pub sinks: Vec<String>,
    config: ConfigOptions,
    relations: Vec<Arc<dyn RelationPlanner>>,
    types: Arc<dyn TypePlanner>,
}

impl Catalog {
    pub fn new(pipeline: &str) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            tables: BTreeMap::new(),
            later: Vec::new(),
            sinks: Vec::new(),
            config: config(),
            relations: vec![Arc::new(Windows::Pipeline), Arc::new(Asof::Pipeline)],
            types: Arc::new(Types::Pipeline),
        }
    }
}

/// What queries over tables share with pipelines: types, the lookup of fields in structs, the window functions.
pub fn planners() -> (Arc<dyn TypePlanner>, Vec<Arc<dyn ExprPlanner>>, Vec<Arc<dyn RelationPlanner>>) {
    (Arc::new(Types::Query), vec![Arc::new(Fields)], vec![Arc::new(Windows::Query), Arc::new(Asof::Query)])
}

/// The planner's options: exact decimals, spans, views of strings; the rest as DataFusion has it.
pub(super) fn config() -> ConfigOptions {
    let mut config = ConfigOptions::new();
    config.sql_parser.parse_float_as_decimal = true;
    config.sql_parser.enable_ident_normalization = true;
    config.sql_parser.map_string_types_to_utf8view = true;
    config.sql_parser.collect_spans = true;
    config.optimizer.skip_failed_rules = false;
    config
}

impl ContextProvider for Catalog {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let mine = name.schema().is_none_or(|schema| schema == self.pipeline) && name.catalog().is_none();
        if let Some(table) = self.tables.get(name.table()).filter(|_| mine) {
            return Ok(Arc::clone(table));
        }
        if !mine {
            let message = format!("{name} is not in this pipeline");
            return Err(Complaint::new(None, message).help("a pipeline reads what its own file declares").into());
        }
        if self.sinks.iter().any(|sink| sink == name.table()) {
            let message = format!("{} is a sink (INSERT INTO writes to it), so nothing reads it", name.table());
            return Err(Complaint::new(None, message)
                .help("read what is inserted: a materialized view, or declare the topic once more as a source")
                .into());
        }
        if self.later.iter().any(|later| later == name.table()) {
            let message = format!("{} is defined further down", name.table());
            return Err(Complaint::new(None, message).help("define it before it is read").into());
        }
        let complaint = Complaint::new(None, format!("there is no table or view {}", name.table()));
        Err(complaint.suggest(name.table(), self.tables.keys().map(String::as_str)).into())
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &REGISTRY.planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relations
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::clone(&self.types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        REGISTRY.scalar.get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        REGISTRY.higher_order.get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        REGISTRY.aggregate.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        REGISTRY.window.get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn get_variable_field(&self, _names: &[String]) -> Option<FieldRef> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.config
    }

    fn udf_names(&self) -> Vec<String> {
        REGISTRY.scalar.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        REGISTRY.higher_order.keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        REGISTRY.aggregate.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        REGISTRY.window.keys().cloned().collect()
    }
}
