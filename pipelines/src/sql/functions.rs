//! The functions of the dialect: one registry for pipelines and for queries over tables.
//!
//! Always: what a pipeline may call has one answer for the same rows. Functions that read a clock, randomness or the session are left
//! out and known by name, so that using one says why; aggregates without a state of ours are known by name too.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, Volatility, WindowUDF};
use datafusion::{functions, functions_aggregate, functions_nested, functions_window};
use datafusion_functions_json::udfs as json;

use super::fields::Fields;

/// Aggregates that have a state of ours, by every name they are called by.
pub const AGGREGATES: &[&str] = &[
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "mean",
    "var_samp",
    "var",
    "var_sample",
    "var_pop",
    "var_population",
    "stddev",
    "stddev_samp",
    "stddev_pop",
    "approx_distinct",
    "approx_percentile_cont",
    "approx_median",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "corr",
    "covar",
    "covar_samp",
    "covar_pop",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "median",
    "percentile_cont",
    "quantile_cont",
    "array_agg",
    "string_agg",
    "first_value",
    "last_value",
    "nth_value",
    "any_value",
    "grouping",
];

/// Deterministic by their signature, yet about the process or its files, or with types that no table has.
const LEFT_OUT: &[&str] = &[
    "version",
    "arrow_metadata",
    "with_metadata",
    "arrow_field",
    "arrow_cast",
    "arrow_try_cast",
    "arrow_typeof",
    "union_extract",
    "union_tag",
    "file_row_index",
    "input_file_name",
    "to_local_time",
    "make_time",
];

/// Every function a statement can name.
pub(super) struct Registry {
    pub scalar: BTreeMap<String, Arc<ScalarUDF>>,
    pub higher_order: BTreeMap<String, Arc<HigherOrderUDF>>,
    pub aggregate: BTreeMap<String, Arc<AggregateUDF>>,
    pub window: BTreeMap<String, Arc<WindowUDF>>,
    pub planners: Vec<Arc<dyn ExprPlanner>>,
    /// Names of functions whose answer depends on when or where they run.
    pub unsteady: Vec<String>,
    /// Names of aggregates and window functions that exist elsewhere but not here.
    pub unsupported: Vec<String>,
}

/// Of the functions over JSON text those whose results have one type: what is not there, or is something else, is NULL.
const JSON: &[fn() -> Arc<ScalarUDF>] = &[
    json::json_get_str_udf,
    json::json_get_int_udf,
    json::json_get_float_udf,
    json::json_get_bool_udf,
    json::json_get_json_udf,
    json::json_as_text_udf,
    json::json_contains_udf,
    json::json_length_udf,
    json::json_object_keys_udf,
];

pub(super) static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

impl Registry {
    fn new() -> Self {
        let mut scalar = BTreeMap::new();
        let mut unsteady: Vec<String> = [
            "current_user",
            "session_user",
            "user",
            "localtime",
            "localtimestamp",
            "gen_random_uuid",
            "rand",
            "proctime",
            "clock_timestamp",
        ]
        .map(str::to_owned)
        .to_vec();
        let own = crate::functions::all();
        let json = JSON.iter().map(|function| function());
        for function in
            functions::all_default_functions().into_iter().chain(functions_nested::all_default_nested_functions()).chain(own).chain(json)
        {
            let names: Vec<String> = std::iter::once(function.name().to_owned()).chain(function.aliases().iter().cloned()).collect();
            if function.signature().volatility != Volatility::Immutable {
                unsteady.extend(names);
            } else if !LEFT_OUT.contains(&function.name()) {
                names.into_iter().for_each(|name| {
                    scalar.insert(name, Arc::clone(&function));
                });
            }
        }
        let mut higher_order = BTreeMap::new();
        for function in functions_nested::all_default_higher_order_functions() {
            higher_order.insert(function.name().to_owned(), Arc::clone(&function));
            for alias in function.aliases() {
                higher_order.insert(alias.clone(), Arc::clone(&function));
            }
        }
        let mut aggregate = BTreeMap::new();
        let mut unsupported = Vec::new();
        for function in functions_aggregate::all_default_aggregate_functions() {
            for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str)) {
                if AGGREGATES.contains(&name) {
                    aggregate.insert(name.to_owned(), Arc::clone(&function));
                } else {
                    unsupported.push(name.to_owned());
                }
            }
        }
        let mut window = BTreeMap::new();
        for function in functions_window::all_default_window_functions() {
            if function.name() == "row_number" {
                window.insert(function.name().to_owned(), function);
            } else {
                unsupported.push(function.name().to_owned());
            }
        }
        let planners: Vec<Arc<dyn ExprPlanner>> = vec![
            Arc::new(Fields),
            Arc::new(functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(functions_nested::planner::NestedFunctionPlanner),
            Arc::new(functions_nested::planner::FieldAccessPlanner),
            Arc::new(functions::datetime::planner::DatetimeFunctionPlanner),
            Arc::new(functions::unicode::planner::UnicodeFunctionPlanner),
            Arc::new(functions_aggregate::planner::AggregateFunctionPlanner),
            Arc::new(functions_window::planner::WindowFunctionPlanner),
        ];
        Self { scalar, higher_order, aggregate, window, planners, unsteady, unsupported }
    }

    /// Every name that can be called: for "did you mean".
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let window = self.window.keys();
        self.scalar.keys().chain(self.higher_order.keys()).chain(self.aggregate.keys()).chain(window).map(String::as_str)
    }
}
