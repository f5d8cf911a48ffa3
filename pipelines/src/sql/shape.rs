//! What a plan may be made of: the last check, on the analysed plan, of what syntax alone can't tell.
//!
//! Always: a plan that passes has only nodes the lowering knows: scans, projections, filters, aggregates, our windows, top-k, unions and
//! DISTINCT. Called by `plan`.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use super::error::{Checked, Complaint};
use super::keys::{is_row_number, rank_bound};
use super::program::Place;
use super::types::sql_name;
use super::windows::WindowNode;

/// Refuses nodes that nothing runs. `over` is where the statement's first OVER stands.
pub(super) fn check(plan: &LogicalPlan, at: Place, over: Option<Place>) -> Checked<()> {
    walk(plan, false, at, over)
}

fn walk(plan: &LogicalPlan, bounded: bool, at: Place, over: Option<Place>) -> Checked<()> {
    let refuse = |what: &str, help: &str| Err(Complaint::new(at, format!("{what} is not supported yet")).help(help));
    let mut below = false;
    match plan {
        LogicalPlan::TableScan(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Union(_) => {}
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => below = bounded,
        LogicalPlan::Distinct(Distinct::All(_)) => {}
        LogicalPlan::Filter(filter) => below = bounded || rank_bound(filter).is_some(),
        LogicalPlan::Window(window) => {
            let at = over.unwrap_or(at);
            let rows = window.window_expr.iter().all(|expr| match expr {
                Expr::WindowFunction(function) => is_row_number(function),
                Expr::Alias(alias) => matches!(alias.expr.as_ref(), Expr::WindowFunction(function) if is_row_number(function)),
                _ => false,
            });
            let help = "write SELECT … FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY x) AS rank FROM t) WHERE rank <= 10";
            if !rows || window.window_expr.len() != 1 {
                return Err(Complaint::new(at, "OVER is supported for one ROW_NUMBER at a time; more is not supported yet").help(help));
            }
            if !bounded {
                return Err(Complaint::new(at, "a ROW_NUMBER without a bound is not supported: every row would have to be kept").help(help));
            }
        }
        LogicalPlan::Extension(extension) if WindowNode::of(extension).is_some() => {}
        LogicalPlan::Join(_) => return refuse("a join", "read one table"),
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => return refuse("ORDER BY or LIMIT in a view", "order when you read"),
        LogicalPlan::Unnest(_) => return refuse("unnest", "keep the list, or take elements by list[1]"),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => return refuse("a SELECT without a table", "read a source"),
        _ => return refuse("this form of query", "write it with FROM, WHERE, GROUP BY and the window functions"),
    }
    plan.inputs().into_iter().try_for_each(|input| walk(input, below, at, over))
}

/// How an output column of some type is stored.
pub(super) enum Stored {
    AsIs,
    Cast(DataType),
}

/// The type a column has to be cast to before a table can hold it, if any; or why there is none.
pub fn stored_type(data_type: &DataType) -> Result<Option<DataType>, String> {
    stored(data_type).map(|stored| match stored {
        Stored::AsIs => None,
        Stored::Cast(to) => Some(to),
    })
}

/// The stored type of a column, or why there is none.
pub(super) fn stored(data_type: &DataType) -> Result<Stored, String> {
    let refuse = |help: &str| Err(help.to_owned());
    match data_type {
        DataType::Boolean
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Utf8View
        | DataType::Binary
        | DataType::Date32
        | DataType::Timestamp(TimeUnit::Microsecond, None) => Ok(Stored::AsIs),
        DataType::Int8 | DataType::UInt8 => Ok(Stored::Cast(DataType::Int16)),
        DataType::UInt16 => Ok(Stored::Cast(DataType::Int32)),
        DataType::UInt32 | DataType::UInt64 => Ok(Stored::Cast(DataType::Int64)),
        DataType::Float16 => Ok(Stored::Cast(DataType::Float32)),
        DataType::Utf8 | DataType::LargeUtf8 => Ok(Stored::Cast(DataType::Utf8View)),
        DataType::LargeBinary | DataType::BinaryView => Ok(Stored::Cast(DataType::Binary)),
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, None) => {
            Ok(Stored::Cast(DataType::Timestamp(TimeUnit::Microsecond, None)))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, None) => refuse("write CAST(… AS TIMESTAMP(6)): tables hold microseconds"),
        DataType::Timestamp(_, Some(_)) => refuse("write CAST(… AS TIMESTAMP(6)): every timestamp is UTC"),
        DataType::Interval(_) | DataType::Duration(_) => refuse("write it as a number: date_part('epoch', …)"),
        DataType::Time32(_) | DataType::Time64(_) => refuse("keep the TIMESTAMP"),
        DataType::Null => refuse("say its type: CAST(NULL AS VARCHAR)"),
        DataType::Decimal256(..) => refuse("write CAST(… AS DECIMAL(38, s))"),
        DataType::List(item) => match stored(item.data_type())? {
            Stored::AsIs => Ok(Stored::AsIs),
            Stored::Cast(inner) => Ok(Stored::Cast(DataType::List(item.as_ref().clone().with_data_type(inner).into()))),
        },
        DataType::Struct(fields) => {
            let mut changed = false;
            let mut made = Vec::with_capacity(fields.len());
            for field in fields {
                made.push(match stored(field.data_type())? {
                    Stored::AsIs => field.as_ref().clone(),
                    Stored::Cast(inner) => {
                        changed = true;
                        field.as_ref().clone().with_data_type(inner)
                    }
                });
            }
            Ok(if changed { Stored::Cast(DataType::Struct(made.into())) } else { Stored::AsIs })
        }
        other => Err(format!("cast it to a type of this dialect; {} is none", sql_name(other))),
    }
}
