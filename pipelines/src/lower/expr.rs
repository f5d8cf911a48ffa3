//! DataFusion's physical expressions behind the operators' `Expression`.
//!
//! Always: integer and decimal arithmetic that overflows is an error, not a wrapped number (CONTRACT §2: such a record is a dead
//! letter of that output); a result has exactly the type the plan says.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, Literal, NegativeExpr};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use tidemill_engine::error::{Error, Result};
use tidemill_operators::expression::Expression;

use crate::sql;

/// One compiled expression.
pub struct Compiled {
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    text: String,
}

impl Expression for Compiled {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let value = self.physical.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
        let array = value.map_err(|error| Error::failed(sql::data_error(&error)))?;
        if *array.data_type() == self.data_type { Ok(array) } else { Ok(cast(&array, &self.data_type)?) }
    }

    fn text(&self) -> &str {
        &self.text
    }
}

/// Compiles a logical expression over rows of `schema`.
pub fn compile(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn Expression>> {
    use datafusion::logical_expr::ExprSchemable;
    let wrong = |error: datafusion::error::DataFusionError| Error::refused(format!("{expr}: {}", error.strip_backtrace()));
    let mut props = ExecutionProps::new();
    props.config_options = Some(Arc::new(ConfigOptions::new()));
    let physical = create_physical_expr(expr, schema, &props, &PhysicalPlanningContext::default()).map_err(wrong)?;
    let data_type = expr.get_type(schema).map_err(wrong)?;
    Ok(Arc::new(Compiled { physical: checked(physical, schema).map_err(wrong)?, data_type, text: text(expr) }))
}

/// The column at `index`.
pub fn column(index: usize, data_type: DataType, name: &str) -> Arc<dyn Expression> {
    let physical = Arc::new(datafusion::physical_expr::expressions::Column::new(name, index));
    Arc::new(Compiled { physical, data_type, text: name.to_owned() })
}

/// The expression with the place in the SQL of the first column in it, for dead letters.
fn text(expr: &Expr) -> String {
    let bare = expr.clone().unalias();
    let mut place = None;
    // The visitor does not fail, so neither does the walk.
    let _ = bare.apply(|part| match part {
        Expr::Column(column) if column.spans.first().is_some_and(|span| span.start.line > 0) => {
            place = column.spans.first().map(|span| span.start);
            Ok(TreeNodeRecursion::Stop)
        }
        _ => Ok(TreeNodeRecursion::Continue),
    });
    let shown = bare.human_display();
    place.map_or_else(|| shown.to_string(), |at| format!("{shown} at {}:{}", at.line, at.column))
}

fn checked(physical: Arc<dyn PhysicalExpr>, schema: &DFSchema) -> datafusion::error::Result<Arc<dyn PhysicalExpr>> {
    let transformed = physical.transform_up(|expr| {
        // The negative of the smallest integer would wrap to itself.
        if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
            let data_type = negative.arg().data_type(schema.as_arrow())?;
            if data_type.is_signed_integer() {
                let zero = Arc::new(Literal::new(ScalarValue::new_zero(&data_type)?));
                let minus = BinaryExpr::new(zero, Operator::Minus, Arc::clone(negative.arg())).with_fail_on_overflow(true);
                return Ok(Transformed::yes(Arc::new(minus) as Arc<dyn PhysicalExpr>));
            }
        }
        let binary =
            expr.downcast_ref::<BinaryExpr>().filter(|binary| matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply));
        Ok(match binary {
            Some(binary) => Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>),
            None => Transformed::no(expr),
        })
    })?;
    Ok(transformed.data)
}

/// A timestamp column moved by a fixed length.
pub struct Shifted {
    /// The column.
    pub column: usize,
    /// Microseconds to add.
    pub by_us: i64,
}

impl Expression for Shifted {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        use datafusion::arrow::array::AsArray;
        use datafusion::arrow::datatypes::TimestampMicrosecondType;
        let column = batch.columns().get(self.column).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let column = column.ok_or_else(|| Error::failed("a window's bound is not a timestamp"))?;
        Ok(Arc::new(column.unary::<_, TimestampMicrosecondType>(|at| at.saturating_add(self.by_us))))
    }

    fn text(&self) -> &str {
        "a window's bound"
    }
}
