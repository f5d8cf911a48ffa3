//! A table that is a plan: what a query reads is put together when it is scanned, from files that its manifest names.
//!
//! Always: filters, columns and limits are put on that plan before it is optimised, so they reach the Parquet files; all columns are
//! nullable and carry no metadata, whatever files say. Each kind of table (`output`, `log`, `state`, `internal`) is an `Assemble`.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, DataFusionError};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use tidemill_engine::error::{Error, Result};

/// Puts a table together.
#[async_trait]
pub(super) trait Assemble: Debug + Send + Sync {
    /// The plan that gives the table's columns under their names.
    async fn plan(&self) -> Result<LogicalPlan>;
}

/// A table whose plan is made when it is scanned.
#[derive(Debug)]
pub(super) struct Derived<A> {
    schema: SchemaRef,
    parts: A,
}

impl<A: Assemble + 'static> Derived<A> {
    pub(super) fn table(schema: SchemaRef, parts: A) -> Arc<dyn TableProvider> {
        Arc::new(Self { schema, parts })
    }
}

#[async_trait]
impl<A: Assemble + 'static> TableProvider for Derived<A> {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let mut plan = LogicalPlanBuilder::from(self.parts.plan().await.map_err(external)?);
        for filter in filters {
            plan = plan.filter(filter.clone())?;
        }
        let columns = match projection {
            Some(indexes) => indexes.iter().map(|index| self.schema.field(*index).name().clone()).collect(),
            None => self.schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>(),
        };
        plan = plan.project(columns.into_iter().map(|name| Expr::Column(Column::new_unqualified(name))))?;
        if limit.is_some() {
            plan = plan.limit(0, limit)?;
        }
        state.create_physical_plan(&plan.build()?).await
    }
}

/// Our error inside DataFusion's; `session` takes it out again.
pub(super) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// DataFusion's error while a table is put together, which is never the user's.
pub(super) fn planning(error: DataFusionError) -> Error {
    Error::failed(error.strip_backtrace())
}

/// A column list as queries see it.
pub(super) fn shown(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true)).collect::<Vec<_>>()))
}

/// Rows as queries see them: the columns of `schema` by position.
pub(super) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(if column.data_type() == field.data_type() { Arc::clone(column) } else { cast(column, field.data_type())? });
    }
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &RecordBatchOptions::new().with_row_count(Some(batch.num_rows())))?)
}

/// Rows in memory as the start of a plan.
pub(super) fn rows(schema: &SchemaRef, batches: Vec<RecordBatch>) -> Result<LogicalPlanBuilder> {
    let table = MemTable::try_new(Arc::clone(schema), vec![batches]).map_err(planning)?;
    scan(Arc::new(table))
}

/// A table as the start of a plan.
pub(super) fn scan(table: Arc<dyn TableProvider>) -> Result<LogicalPlanBuilder> {
    LogicalPlanBuilder::scan("part", provider_as_source(table), None).map_err(planning)
}
