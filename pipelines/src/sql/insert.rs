//! INSERT INTO a sink: the SELECT's columns put in the order, the names and the types of the sink's declaration.
//!
//! Always: a value is cast only where nothing can be lost, whatever it is; anything else is refused with the CAST to write. A column that
//! is not named is NULL. The PRIMARY KEY of a sink tells the results of each INSERT apart, or it is refused: one result would delete
//! another. Called by `plan` with the analysed SELECT.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, lit};

use super::context::OutputTable;
use super::error::{Checked, Complaint};
use super::explain::translate;
use super::keys::key_of;
use super::program::{Insert, Output, Place, Sink};
use super::shape::{Stored, stored};
use super::time::{TimeKind, time_kinds};
use super::types::sql_name;

/// The SELECT of an INSERT as rows of its sink. `place` says where an item of the SELECT stands.
pub(super) fn fit(
    plan: LogicalPlan,
    output: &Output,
    insert: &Insert,
    sink: &Sink,
    place: impl Fn(usize) -> Option<Place>,
) -> Checked<LogicalPlan> {
    let fed = feed(&plan, output, insert, sink)?;
    let mut exprs = Vec::with_capacity(sink.columns.len());
    let (columns, fields) = (plan.schema().columns(), plan.schema().fields().clone());
    for (column, from) in sink.columns.iter().zip(&fed) {
        let expr = match from.and_then(|index| Some((index, columns.get(index)?, fields.get(index)?))) {
            Some((index, from, field)) => {
                let expr = Expr::Column(from.clone());
                match loses_nothing(field.data_type(), &column.data_type) {
                    Some(false) => expr,
                    Some(true) => cast(expr, column.data_type.clone()),
                    None => {
                        let (is, wanted) = (sql_name(field.data_type()), sql_name(&column.data_type));
                        let plain = field.name().chars().all(|c| c.is_alphanumeric() || c == '_');
                        let (what, item) = if plain {
                            (field.name().clone(), field.name().as_str())
                        } else {
                            (format!("item {} of the SELECT", index + 1), "…")
                        };
                        let message = format!("column {} of {} is {wanted}, but {what} is {is}", column.name, sink.name);
                        return Err(Complaint::new(place(index).unwrap_or(output.at), message).help(format!(
                            "a cast could lose something: write CAST({item} AS {wanted}) if that is meant, or declare {} {is}",
                            column.spelled
                        )));
                    }
                }
            }
            None => {
                let null = ScalarValue::try_from(&column.data_type).map_err(|error| translate(&error))?;
                lit(null)
            }
        };
        exprs.push(expr.alias(&column.name));
    }
    key_tells_apart(&plan, output, sink, &fed)?;
    LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build).map_err(|error| translate(&error))
}

/// For each column of the sink the item of the SELECT that it gets.
fn feed(plan: &LogicalPlan, output: &Output, insert: &Insert, sink: &Sink) -> Checked<Vec<Option<usize>>> {
    let width = plan.schema().fields().len();
    let names: Vec<&str> = sink.columns.iter().map(|column| column.name.as_str()).collect();
    if insert.columns.is_empty() {
        if width != names.len() {
            let message = format!("{} has {} columns, the SELECT has {width}", sink.name, names.len());
            let help = format!("name those it writes: INSERT INTO {} ({})", sink.name, names.join(", "));
            return Err(Complaint::new(output.at, message).help(help));
        }
        return Ok((0..width).map(Some).collect());
    }
    if insert.columns.len() != width {
        let message = format!("INSERT INTO {} names {} columns, its SELECT has {width}", sink.name, insert.columns.len());
        return Err(Complaint::new(output.at, message));
    }
    let mut fed = vec![None; names.len()];
    for (index, (name, at)) in insert.columns.iter().enumerate() {
        let Some(slot) = names.iter().position(|each| each == name).and_then(|column| fed.get_mut(column)) else {
            let complaint = Complaint::new(*at, format!("{} has no column {name}", sink.name));
            return Err(complaint.suggest(name, names));
        };
        *slot = Some(index);
    }
    for (column, from) in sink.columns.iter().zip(&fed) {
        let key = sink.primary_key.contains(&column.name);
        if from.is_none() && (!column.nullable || key) {
            let why = if key { "part of the PRIMARY KEY" } else { "NOT NULL" };
            let message = format!("INSERT INTO {} leaves out {}, which is {why}", sink.name, column.name);
            return Err(Complaint::new(output.at, message).help(format!("add {} to the column list and to the SELECT", column.name)));
        }
    }
    Ok(fed)
}

/// Refuses a PRIMARY KEY under which two results of the SELECT could meet.
fn key_tells_apart(plan: &LogicalPlan, output: &Output, sink: &Sink, fed: &[Option<usize>]) -> Checked<()> {
    let Some(key) = key_of(plan).filter(|_| !sink.primary_key.is_empty()) else { return Ok(()) };
    let kinds = time_kinds(plan);
    let in_key = |index: usize| {
        let mut columns = sink.columns.iter().zip(fed);
        columns.any(|(column, from)| *from == Some(index) && sink.primary_key.contains(&column.name))
    };
    let is_bound = |name: &str, index: Option<usize>| match index {
        Some(index) => kinds.get(index).copied().flatten().is_some_and(TimeKind::is_window),
        None => names_bound(plan, name),
    };
    let (there, missing): (Vec<_>, Vec<_>) = key.iter().partition(|column| column.output.is_some_and(in_key));
    // Either bound of a window says the other.
    let bounded = there.iter().any(|column| is_bound(&column.name, column.output));
    match missing.into_iter().find(|column| !(bounded && is_bound(&column.name, column.output))) {
        None => Ok(()),
        Some(column) => {
            let message = format!(
                "PRIMARY KEY ({}) of {} does not tell the results apart: two may differ in {} alone",
                sink.primary_key.join(", "),
                sink.name,
                column.name
            );
            let help = format!("write {} to a column of {} that is part of its PRIMARY KEY", column.name, sink.name);
            Err(Complaint::new(output.at, message).help(help))
        }
    }
}

/// Whether a column of this name, further down, is a bound of a window.
fn names_bound(plan: &LogicalPlan, name: &str) -> bool {
    let here = plan
        .schema()
        .fields()
        .iter()
        .zip(time_kinds(plan))
        .any(|(field, kind)| field.name() == name && kind.is_some_and(TimeKind::is_window));
    let scanned = match plan {
        LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<OutputTable>(),
        _ => None,
    };
    let there = scanned.is_some_and(|table| {
        let mut columns = table.schema.fields().iter().zip(&table.times);
        columns.any(|(field, kind)| field.name() == name && kind.is_some_and(TimeKind::is_window))
    });
    here || there || plan.inputs().into_iter().any(|input| names_bound(input, name))
}

/// Whether every value of a type is one of another too: `Some(true)` if it has to be cast.
fn loses_nothing(from: &DataType, to: &DataType) -> Option<bool> {
    if same(from, to) {
        return Some(from != to);
    }
    // What tables would store it as is what it is.
    if let Ok(Stored::Cast(kept)) = stored(from)
        && loses_nothing(&kept, to).is_some()
    {
        return Some(true);
    }
    use DataType as T;
    let digits = |number: &DataType| match number {
        T::Int16 => Some(5),
        T::Int32 => Some(10),
        T::Int64 => Some(19),
        _ => None,
    };
    let fits = match (from, to) {
        (T::Null, _) => true,
        (T::Int16, T::Int32 | T::Int64 | T::Float32 | T::Float64) | (T::Int32, T::Int64 | T::Float64) | (T::Float32, T::Float64) => true,
        (_, T::Decimal128(precision, scale)) => match (digits(from), from) {
            (Some(digits), _) => i16::from(*precision) - i16::from(*scale) >= digits,
            (None, T::Decimal128(digits, behind)) => {
                scale >= behind && i16::from(*precision) - i16::from(*scale) >= i16::from(*digits) - i16::from(*behind)
            }
            _ => false,
        },
        (T::Date32, T::Timestamp(TimeUnit::Microsecond, None)) => true,
        (T::List(from), T::List(to)) => loses_nothing(from.data_type(), to.data_type()).is_some(),
        _ => false,
    };
    fits.then_some(true)
}

/// The same type but for how the engine lays it out.
fn same(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    let text = |kind: &DataType| matches!(kind, T::Utf8 | T::LargeUtf8 | T::Utf8View);
    let bytes = |kind: &DataType| matches!(kind, T::Binary | T::LargeBinary | T::BinaryView);
    match (from, to) {
        (T::List(from), T::List(to)) => same(from.data_type(), to.data_type()),
        (T::Struct(from), T::Struct(to)) => {
            from.len() == to.len()
                && from.iter().zip(to).all(|(from, to)| from.name() == to.name() && same(from.data_type(), to.data_type()))
        }
        _ => from == to || (text(from) && text(to)) || (bytes(from) && bytes(to)),
    }
}
