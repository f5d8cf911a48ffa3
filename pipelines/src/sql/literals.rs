//! Number literals: one with an exponent (`1e3`) is a DOUBLE, as in the SQL standard; every other one with a point is a DECIMAL.
//!
//! DataFusion reads both as decimals and refuses what no decimal can hold (`1e100`). Called by `parse` and for ad-hoc queries.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{CastKind, DataType, ExactNumberInfo, Expr, Value, VisitMut, visit_expressions_mut};

/// Makes every literal with an exponent a DOUBLE.
pub fn approximate(node: &mut impl VisitMut) {
    let _: ControlFlow<()> = visit_expressions_mut(node, |expr| {
        if let Expr::Value(value) = expr
            && let Value::Number(digits, _) = &value.value
            && digits.contains(['e', 'E'])
        {
            let text = Value::SingleQuotedString(digits.clone()).with_span(value.span);
            *expr = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(Expr::Value(text)),
                data_type: DataType::Double(ExactNumberInfo::None),
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    });
}
