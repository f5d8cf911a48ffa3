//! Fields of structs: `meta['userAgent']`, `meta['useragent']` and `meta.userAgent` are the same field.
//!
//! Always: a field is found by its exact spelling, else without regard to case when exactly one matches; the plan holds its exact
//! spelling. First in the list of expression planners, before DataFusion's.

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, DFSchema, Result, ScalarValue, TableReference};
use datafusion::functions::expr_fn::get_field;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess};

use super::error::Complaint;
use super::types::sql_name;

/// The expression planner.
#[derive(Debug)]
pub(super) struct Fields;

impl ExprPlanner for Fields {
    fn plan_field_access(&self, access: RawFieldAccessExpr, schema: &DFSchema) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let GetFieldAccess::NamedStructField { name } = &access.field_access else { return Ok(PlannerResult::Original(access)) };
        let Some(Some(name)) = name.try_as_str() else { return Ok(PlannerResult::Original(access)) };
        let found = find(&access.expr.get_type(schema)?, name)?;
        Ok(PlannerResult::Planned(get_field(access.expr, found)))
    }

    /// An error here would be swallowed by the planner, so an unknown field stays as written and fails with its type.
    fn plan_compound_identifier(
        &self,
        field: &Field,
        qualifier: Option<&TableReference>,
        nested: &[String],
    ) -> Result<PlannerResult<Vec<Expr>>> {
        let mut expr = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        let mut data_type = field.data_type().clone();
        for name in nested {
            let found = find(&data_type, name).unwrap_or_else(|_| name.clone());
            data_type = match &data_type {
                DataType::Struct(fields) => fields.find(&found).map_or(DataType::Null, |(_, field)| field.data_type().clone()),
                _ => DataType::Null,
            };
            expr = get_field(expr, ScalarValue::from(found));
        }
        Ok(PlannerResult::Planned(expr))
    }
}

/// The exact spelling of a field.
pub(super) fn find(data_type: &DataType, name: &str) -> Result<String, Complaint> {
    let DataType::Struct(fields) = data_type else {
        return Err(Complaint::new(None, format!("{} has no fields, so no field {name}", sql_name(data_type))));
    };
    if let Some((_, field)) = fields.find(name) {
        return Ok(field.name().clone());
    }
    let mut matching = fields.iter().filter(|field| field.name().to_lowercase() == name.to_lowercase());
    match (matching.next(), matching.next()) {
        (Some(field), None) => Ok(field.name().clone()),
        (Some(one), Some(other)) => {
            let message = format!("the field {name} could be {} or {}", one.name(), other.name());
            Err(Complaint::new(None, message).help(format!("write it exactly: ['{}']", one.name())))
        }
        (None, _) => {
            let known: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            let complaint = Complaint::new(None, format!("there is no field {name}; there are {}", known.join(", ")));
            Err(complaint.suggest(name, known))
        }
    }
}
