//! Whole numbers that do not wrap, where DataFusion's own do: an analyser rule for queries over tables and for the batch of `verify`.
//!
//! Always: behind the coercion of types, so that both sides have one; names of columns stay. A pipeline's expressions have their own way to the
//! same (`lower::expr`). Called by `serve` and `verify` when they make a session.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, Datum};
use datafusion::arrow::compute::kernels::numeric::{add, mul, sub};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, lit,
};
use datafusion::optimizer::AnalyzerRule;

use super::kept::of_whole_numbers;

/// Makes `+`, `-` and `*` of whole numbers fail where the result does not fit.
#[derive(Debug)]
pub struct Checked {
    /// Sums too.
    pub sums: bool,
}

impl AnalyzerRule for Checked {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let checked = plan.transform_up_with_subqueries(|plan| {
            let mut schema = merge_schema(&plan.inputs());
            if let LogicalPlan::TableScan(scan) = &plan {
                schema.merge(&scan.projected_schema);
            }
            let names = NamePreserver::new(&plan);
            let rewritten = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|expr| self.one(expr, &schema))?;
                Ok(rewritten.update_data(|expr| name.restore(expr)))
            })?;
            rewritten.map_data(|plan| plan.recompute_schema())
        })?;
        Ok(checked.data)
    }

    fn name(&self) -> &str {
        "checked_arithmetic"
    }
}

impl Checked {
    fn one(&self, expr: Expr, schema: &datafusion::common::DFSchema) -> Result<Transformed<Expr>> {
        let whole = |expr: &Expr| expr.get_type(schema).ok().filter(DataType::is_integer);
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if whole(&left).is_some() && whole(&left) == whole(&right) => {
                match function(op) {
                    Some(function) => Ok(Transformed::yes(function.call(vec![*left, *right]))),
                    None => Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
                }
            }
            // The negative of the smallest number would be itself.
            Expr::Negative(inner) if whole(&inner).is_some() && !matches!(*inner, Expr::Literal(..)) => {
                let zero = lit(ScalarValue::new_zero(&inner.get_type(schema)?)?);
                Ok(Transformed::yes(SUB.call(vec![zero, *inner])))
            }
            Expr::AggregateFunction(mut call) if self.sums => match of_whole_numbers(&call, schema)? {
                Some(checked) => {
                    let changed = call.func != checked;
                    call.func = checked;
                    Ok(Transformed::new_transformed(Expr::AggregateFunction(call), changed))
                }
                None => Ok(Transformed::no(Expr::AggregateFunction(call))),
            },
            other => Ok(Transformed::no(other)),
        }
    }
}

static ADD: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(Arithmetic::new(Operator::Plus))));
static SUB: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(Arithmetic::new(Operator::Minus))));
static MUL: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::new_from_impl(Arithmetic::new(Operator::Multiply))));

fn function(op: Operator) -> Option<&'static Arc<ScalarUDF>> {
    match op {
        Operator::Plus => Some(&ADD),
        Operator::Minus => Some(&SUB),
        Operator::Multiply => Some(&MUL),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    op: Operator,
    signature: Signature,
}

impl Arithmetic {
    fn new(op: Operator) -> Self {
        Self { op, signature: Signature::any(2, Volatility::Immutable) }
    }

    fn compute(&self, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
        match self.op {
            Operator::Plus => add(left, right),
            Operator::Minus => sub(left, right),
            _ => mul(left, right),
        }
    }
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "add",
            Operator::Minus => "subtract",
            _ => "multiply",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [left, right] if left == right => Ok(left.clone()),
            // Types that differ are those that the analyser leaves be; Arrow says which fit.
            _ => internal_err!("{} of different types", self.name()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else { return internal_err!("{} of two", self.name()) };
        let result = self.compute(left, right)?;
        if scalar { Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)) } else { Ok(ColumnarValue::Array(result)) }
    }
}
