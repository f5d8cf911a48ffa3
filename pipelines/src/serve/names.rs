//! What a query's names mean to the planner: tables of one snapshot, functions of the session.
//!
//! Always: synchronous, since a table is found by its manifest alone; so tables named inside table functions are found too, which
//! DataFusion's own session would have to fetch beforehand. Called by `session` for each statement.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::SchemaProvider;
use datafusion::catalog::information_schema::{INFORMATION_SCHEMA, InformationSchemaProvider};
use datafusion::common::{DFSchema, Result, TableReference, plan_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::datasource::cte_worktable::CteWorkTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use futures::FutureExt;

use super::catalog::{CATALOG, Tables};
use super::derived::external;

/// The names of one statement.
pub(super) struct Names<'a> {
    pub(super) state: &'a SessionState,
    pub(super) tables: &'a Tables,
    pub(super) types: Option<Arc<dyn TypePlanner>>,
}

impl ContextProvider for Names<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        if name.catalog().is_some_and(|catalog| catalog != CATALOG) {
            return Err(plan_datafusion_err!("there is no catalog {}: a table is pipeline.table", name.catalog().unwrap_or_default()));
        }
        if name.schema() == Some(INFORMATION_SCHEMA) {
            let provider = InformationSchemaProvider::new(Arc::clone(self.state.catalog_list()));
            // It is put together from memory, so it is never waited for.
            let table = provider.table(name.table()).now_or_never().transpose()?.flatten();
            let table =
                table.ok_or_else(|| plan_datafusion_err!("there is no table {name}; there is {}", provider.table_names().join(", ")))?;
            return Ok(provider_as_source(table));
        }
        let table = self.tables.find(name.schema(), name.table()).map_err(external)?;
        Ok(provider_as_source(table))
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        let function = self.state.table_functions().get(name).cloned();
        let function = function.ok_or_else(|| plan_datafusion_err!("there is no table function {name}"))?;
        let context = SimplifyContext::builder().with_config_options(Arc::clone(self.state.config_options())).build();
        let (simplifier, schema) = (ExprSimplifier::new(context), DFSchema::empty());
        let args = args.into_iter().map(|arg| simplifier.simplify(simplifier.coerce(arg, &schema)?)).collect::<Result<Vec<_>>>()?;
        let args = datafusion::catalog::TableFunctionArgs::new(&args, self.state);
        Ok(provider_as_source(function.create_table_provider_with_args(args)?))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        self.types.clone()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
