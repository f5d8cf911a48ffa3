//! What a plan may be made of: the last check, on the analysed plan, of what syntax alone can't tell.
//!
//! Always: a plan that passes has only nodes the lowering knows: scans, projections, filters, aggregates, our windows, as-of joins, joins
//! bounded in time, top-k, unions, unnest and DISTINCT. Called by `plan`.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use super::asof::AsofNode;
use super::context::SourceTable;
use super::error::{Checked, Complaint};
use super::explain::translate;
use super::join::{Unbounded, joined};
use super::keys::{is_row_number, rank_bound};
use super::program::Place;
use super::types::sql_name;
use super::windows::WindowNode;

/// Where things stand in a statement's text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places {
    /// Its first OVER.
    pub over: Option<Place>,
    /// The first table that is joined to another.
    pub join: Option<Place>,
}

/// Refuses nodes that nothing runs.
pub(super) fn check(plan: &LogicalPlan, at: Place, places: Places) -> Checked<()> {
    if asks_elsewhere(plan).map_err(|error| translate(&error))? {
        let help = "write WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '10 minutes') AND …";
        return Err(Complaint::new(at, "EXISTS and IN with a sub-query stand in WHERE, joined by AND").help(help));
    }
    walk(plan, false, &[], at, places)
}

/// `above`: conditions of a WHERE right above.
/// Whether an expression of the plan asks a sub-query.
pub(super) fn asks_elsewhere(plan: &LogicalPlan) -> datafusion::common::Result<bool> {
    let asks = |expr: &Expr| matches!(expr, Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_));
    let mut found = false;
    plan.apply(|plan| {
        plan.apply_expressions(|expr| {
            found |= expr.exists(|expr| Ok(asks(expr)))?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(found)
}

fn walk(plan: &LogicalPlan, bounded: bool, above: &[Expr], at: Place, places: Places) -> Checked<()> {
    let refuse = |what: &str, help: &str| Err(Complaint::new(at, format!("{what} is not supported yet")).help(help));
    let mut below = false;
    match plan {
        LogicalPlan::TableScan(_) | LogicalPlan::Aggregate(_) | LogicalPlan::Union(_) => {}
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => below = bounded,
        LogicalPlan::Distinct(Distinct::All(_)) => {}
        LogicalPlan::Filter(filter) => below = bounded || rank_bound(filter).is_some(),
        LogicalPlan::Window(window) => {
            let at = places.over.unwrap_or(at);
            let rows = window.window_expr.iter().all(|expr| match expr {
                Expr::WindowFunction(function) => is_row_number(function),
                Expr::Alias(alias) => matches!(alias.expr.as_ref(), Expr::WindowFunction(function) if is_row_number(function)),
                _ => false,
            });
            let help = "write SELECT … FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY x) AS rank FROM t) WHERE rank <= 10";
            if !rows || window.window_expr.len() != 1 {
                return Err(Complaint::new(at, "OVER is supported for one ROW_NUMBER at a time; more is not supported yet").help(help));
            }
            if unnests(&window.input) {
                let help = "GROUP BY in between: the elements of one record have no one order";
                return Err(Complaint::new(at, "ROW_NUMBER over the elements of unnest is not supported").help(help));
            }
            if !bounded {
                return Err(Complaint::new(at, "a ROW_NUMBER without a bound is not supported: every row would have to be kept").help(help));
            }
        }
        LogicalPlan::Extension(extension) if WindowNode::of(extension).is_some() => {
            if let Some(name) = plan.inputs().into_iter().find_map(changelog) {
                let message = format!("{name} is a changelog (it has a PRIMARY KEY): its rows are replaced, so they stay in no window");
                let help = format!("read {name} without windows; to count its changes, declare its topic again without PRIMARY KEY");
                return Err(Complaint::new(at, message).help(help));
            }
        }
        LogicalPlan::Extension(extension) if AsofNode::of(extension).is_some() => {}
        LogicalPlan::Join(_) if plan.inputs().into_iter().any(|input| changelog(input).is_some()) => {
            let name = plan.inputs().into_iter().find_map(changelog).unwrap_or_default();
            let message = format!("{name} is a changelog (it has a PRIMARY KEY): it is joined as of a time");
            let at = places.join.unwrap_or(at);
            let help = format!("write a ASOF JOIN {name} MATCH_CONDITION (a.ts >= {name}.ts) ON a.k = {name}.k");
            return Err(Complaint::new(at, message).help(help));
        }
        LogicalPlan::Join(join) => {
            let at = places.join.unwrap_or(at);
            if plan.inputs().into_iter().any(unnests) {
                let help = "join the rows first, and unnest the result";
                return Err(Complaint::new(at, "a join with the elements of unnest is not supported").help(help));
            }
            if plan.inputs().into_iter().any(united) {
                let help = "write one SELECT with CASE, or make the union a materialized view with a key";
                return Err(Complaint::new(at, "a join with a UNION ALL of one source with itself is not supported").help(help));
            }
            if matches!(join.join_type, JoinType::LeftMark | JoinType::RightMark) {
                let help = "write AND between it and the other conditions; OR is a UNION ALL of two queries";
                return Err(Complaint::new(at, "EXISTS and IN with a sub-query stand in WHERE, joined by AND").help(help));
            }
            joined(join, above).map_err(|why| unbounded(why, at))?;
        }
        LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => return refuse("ORDER BY or LIMIT in a view", "order when you read"),
        LogicalPlan::Unnest(unnest) => {
            if !unnest.struct_type_columns.is_empty() {
                return refuse("unnest of a struct", "name its fields: meta['city']");
            }
            if unnest.list_type_columns.iter().any(|(_, list)| list.depth != 1) {
                return refuse("unnest of a list of lists", "unnest once in a sub-query, and its elements above");
            }
        }
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => return refuse("a SELECT without a table", "read a source"),
        _ => return refuse("this form of query", "write it with FROM, WHERE, GROUP BY and the window functions"),
    }
    let conditions: Vec<Expr> = match plan {
        LogicalPlan::Filter(filter) => std::iter::once(&filter.predicate).chain(above).cloned().collect(),
        // A condition on a chain of joins belongs to the join whose sides it names.
        LogicalPlan::Join(_) => above.to_vec(),
        _ => Vec::new(),
    };
    plan.inputs().into_iter().try_for_each(|input| walk(input, below, &conditions, at, places))
}

/// What to write instead of a join that nothing bounds.
fn unbounded(why: Unbounded, at: Place) -> Complaint {
    match why {
        Unbounded::Open { left, right, half } => {
            let (Some(one), Some(other)) = (left.first(), right.first()) else {
                let help = "a time column is a source's WATERMARK column, or a window's end, passed on unchanged; join those of both sides";
                return Complaint::new(at, "a join of two streams needs a time column on both sides, which bounds what is kept").help(help);
            };
            let what = match half {
                true => "this join is bounded in time on one side only: rows would be kept for ever",
                false => "this join of two streams is bounded by nothing: rows would be kept for ever",
            };
            Complaint::new(at, what).help(format!(
                "add AND {other} BETWEEN {one} - INTERVAL '10 minutes' AND {one} + INTERVAL '10 minutes' to ON; for the latest value write ASOF JOIN"
            ))
        }
        Unbounded::Empty => Complaint::new(at, "no pair of rows can meet the bounds in time of this join").help("swap the bounds"),
        Unbounded::NullEquals => Complaint::new(at, "IS NOT DISTINCT FROM in a join is not supported").help("write =, which no NULL meets"),
    }
}

/// Rows of a plan are a source's, once more than they are there.
fn united(plan: &LogicalPlan) -> bool {
    fn sources<'a>(plan: &'a LogicalPlan, into: &mut Vec<&'a str>) {
        match plan {
            LogicalPlan::TableScan(scan) => into.extend(scan.source.downcast_ref::<SourceTable>().map(|source| source.name.as_str())),
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Window(_) => {}
            other => other.inputs().into_iter().for_each(|input| sources(input, into)),
        }
    }
    match plan {
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Window(_) => false,
        LogicalPlan::Union(union) => {
            let mut all = Vec::new();
            union.inputs.iter().for_each(|input| sources(input, &mut all));
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            all.len() < count || union.inputs.iter().any(|input| united(input))
        }
        other => other.inputs().into_iter().any(united),
    }
}

/// Rows of a plan are elements of lists.
fn unnests(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Unnest(_) => true,
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => false,
        other => other.inputs().into_iter().any(unnests),
    }
}

/// The changelog whose rows a plan's rows are, if there is one.
pub(super) fn changelog(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            scan.source.downcast_ref::<SourceTable>().filter(|source| source.is_changelog()).map(|source| source.name.clone())
        }
        // The versions that an as-of join reads are not its rows.
        LogicalPlan::Extension(extension) if AsofNode::of(extension).is_some() => plan.inputs().into_iter().take(1).find_map(changelog),
        other => other.inputs().into_iter().find_map(changelog),
    }
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
