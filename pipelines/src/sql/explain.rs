//! The planner's errors in SQL's words and at their places.
//!
//! Always: nothing of the planner's vocabulary gets out. Where an error carries no place (argument types, casts, everything the analyser
//! says), each sub-expression of the query is planned alone and the smallest that fails is reported; else the statement's start. Called
//! by `plan`.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, DataFusionError, SchemaError};
use datafusion::logical_expr::ExprSchemable;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, GroupByExpr, Ident, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Spanned, Statement, Visit,
    Visitor, visit_expressions,
};

use super::context::Catalog;
use super::error::{Complaint, place};
use super::fields;
use super::lex::{fold, sentence};
use super::program::Place;
use super::types::sql_name;
use super::windows::{WINDOW_END, WINDOW_START};

/// An error of a query as a complaint with the best place there is.
pub(super) fn explain(error: &DataFusionError, query: &Query, catalog: &Catalog) -> Complaint {
    let complaint = translate(error);
    if complaint.at.is_some() {
        return complaint;
    }
    let mut search = Search { catalog, query, found: None };
    let _ = query.visit(&mut search);
    let sides = complaint.message.contains("Union").then(|| other_side(&query.body)).flatten();
    search.found.unwrap_or_else(|| complaint.or_at(sides.or(place(query.span())).unwrap_or(Place::START)))
}

/// Where the second side of a UNION begins.
fn other_side(body: &SetExpr) -> Option<Place> {
    match body {
        SetExpr::SetOperation { right, .. } => place(right.span()),
        SetExpr::Query(query) => other_side(&query.body),
        _ => None,
    }
}

/// What an expression met in the data, in SQL's words.
pub fn data_error(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    match tidy(&text).split_once("Arithmetic overflow: ") {
        Some((_, what)) => format!("overflow: {}", what.trim_start_matches("Overflow happened on: ")),
        None if text.contains("Divide by zero") => "division by zero".to_owned(),
        None => sentence(&sql_types(&tidy(&text))),
    }
}

/// An error of a query over tables: its place if it has one, and the text.
pub fn query_error(error: &DataFusionError) -> (Option<Place>, String) {
    let Complaint { at, message, help } = translate(error);
    let help = help.map(|help| format!("\n  help: {help}")).unwrap_or_default();
    (at, format!("{message}{help}"))
}

/// An error in SQL's words, with the place it carries, if any.
pub(super) fn translate(error: &DataFusionError) -> Complaint {
    let first = error.iter().next().unwrap_or(error);
    let diagnostic = first.diagnostic();
    let at = diagnostic.and_then(|diagnostic| diagnostic.span).map(|span| Place { line: span.start.line, column: span.start.column });
    // Of a UNION's two sides the second is the odd one.
    let side = diagnostic
        .and_then(|diagnostic| diagnostic.notes.last()?.span)
        .map(|span| Place { line: span.start.line, column: span.start.column });
    let at = side.filter(|_| first.strip_backtrace().contains("different number of columns")).or(at).filter(|place| place.line > 0);
    let root = first.find_root();
    if let DataFusionError::External(inner) = root
        && let Some(complaint) = inner.downcast_ref::<Complaint>()
    {
        let mut complaint = complaint.clone();
        complaint.at = complaint.at.or(at);
        return complaint;
    }
    if let DataFusionError::SchemaError(inner, _) = root {
        return schema(inner, at);
    }
    worded(&root.strip_backtrace(), at)
}

fn schema(error: &SchemaError, at: Option<Place>) -> Complaint {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(|field| field.name.as_str()).collect();
            let complaint = match &field.relation {
                Some(relation) if !valid_fields.iter().any(|valid| valid.relation.as_ref() == Some(relation)) => {
                    let relations: Vec<String> =
                        valid_fields.iter().filter_map(|field| field.relation.as_ref()).map(ToString::to_string).collect();
                    let complaint = Complaint::new(at, format!("{relation}.{}: there is no table {relation} in FROM", field.name));
                    return complaint.suggest(&relation.to_string(), relations.iter().map(String::as_str));
                }
                Some(relation) => Complaint::new(at, format!("there is no column {} in {relation}", field.name)),
                None => Complaint::new(at, format!("there is no column {}", field.name)),
            };
            if [WINDOW_START, WINDOW_END].contains(&field.name.as_str()) {
                return complaint.help("read FROM tumble(t, ts, INTERVAL '1 minute'): it adds window_start and window_end");
            }
            let complaint = complaint.suggest(&field.name, names.iter().copied());
            match complaint.help {
                None if names.is_empty() => complaint,
                None => complaint.help(format!("there are {}", names.join(", "))),
                Some(_) => complaint,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            let message = format!("{} could be a column of several tables", field.name);
            Complaint::new(at, message).help(format!("write table.{}", field.name))
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            Complaint::new(at, format!("there are two columns {name}")).help("rename one with AS")
        }
    }
}

/// Known sentences of the planner in our words; others are cleaned.
fn worded(text: &str, at: Option<Place>) -> Complaint {
    let tidy = tidy(text);
    let quoted = |from: &str| tidy.split_once(from).and_then(|(_, rest)| rest.split(['"', '\'']).next()).map(bare);
    if tidy.contains("must appear in the GROUP BY clause") {
        let column = quoted("column \"").unwrap_or_default();
        let complaint = Complaint::new(at, format!("{column} is neither in GROUP BY nor inside an aggregate"));
        return complaint.help(format!("add {column} to GROUP BY, or write max({column})"));
    }
    if tidy.starts_with("Projections require unique expression names") {
        let name = tidy.rsplit_once("expression \"").map(|(_, rest)| bare(rest.split('"').next().unwrap_or_default()));
        let complaint = Complaint::new(
            at,
            match name {
                Some(name) => format!("two columns are called {name}"),
                None => "two columns have the same name".to_owned(),
            },
        );
        return complaint.help("rename one with AS");
    }
    if let Some((_, rest)) = tidy.split_once("Function '").filter(|_| tidy.contains("failed to match any signature")) {
        let name = rest.split('\'').next().unwrap_or_default();
        let counts = tidy.split_once(" expects ").and_then(|(_, rest)| rest.split_once(" arguments but received "));
        if let Some((wanted, found)) = counts {
            let found: String = found.chars().take_while(char::is_ascii_digit).collect();
            return Complaint::new(at, format!("{name} takes {wanted} arguments, not {found}"));
        }
        let found = tidy.split_once("(DataType: ").and_then(|(_, rest)| rest.split([')', ',']).next()).map(sql_types);
        let found = found.unwrap_or_else(|| "these arguments".to_owned());
        return Complaint::new(at, format!("{name} does not take {found}")).help("cast the argument: CAST(x AS DOUBLE)");
    }
    if let Some((_, rest)) = tidy.split_once("Incompatible inputs for Union: Previous inputs were of type ") {
        let (one, rest) = rest.split_once(", but got incompatible type ").unwrap_or((rest, ""));
        let (other, column) = rest.split_once(" on column ").unwrap_or((rest, ""));
        let (one, other) = (sql_types(one), sql_types(other));
        return Complaint::new(at, format!("Union: the column {} is {one} on one side and {other} on the other", column.replace('\'', "")))
            .help("cast one side");
    }
    if tidy.contains("queries have different number of columns") {
        return Complaint::new(at, "the sides of UNION have different numbers of columns").help("name the columns instead of *");
    }
    if tidy.starts_with("Aggregate functions are not allowed in the WHERE clause") {
        return Complaint::new(at, "an aggregate can't stand in WHERE").help("use HAVING");
    }
    if tidy.starts_with("QUALIFY clause requires window functions") {
        return Complaint::new(at, "QUALIFY needs a window function").help("use WHERE, or QUALIFY row_number() OVER (…) <= k");
    }
    if tidy.starts_with("HAVING clause references") {
        return Complaint::new(at, "HAVING needs GROUP BY or an aggregate").help("use WHERE");
    }
    if let Some((_, rest)) = tidy.split_once("No function matches the given name and argument types '") {
        let call = rest.split('\'').next().unwrap_or_default();
        return Complaint::new(at, format!("there is no {}", sql_types(call))).help("cast the arguments: CAST(x AS DOUBLE)");
    }
    if let Some((_, rest)) = tidy.split_once("Cannot coerce arithmetic expression ") {
        let shown = rest.split(" to valid types").next().unwrap_or_default();
        return Complaint::new(at, format!("{} can't be computed", sql_types(shown))).help("cast one side: CAST(x AS DOUBLE)");
    }
    if let Some((_, rest)) = tidy.split_once("Cannot infer common argument type for comparison operation ") {
        return Complaint::new(at, format!("{} can't be compared", sql_types(rest))).help("cast one side");
    }
    Complaint::new(at, sentence(&sql_types(&tidy)))
}

/// A column's name without its table.
fn bare(name: &str) -> String {
    name.rsplit('.').next().unwrap_or(name).to_owned()
}

/// Takes the planner's prefixes, lists of candidates and advice to file bugs away.
fn tidy(text: &str) -> String {
    let mut text = text;
    let prefixes = [
        "Error during planning: ",
        "Schema error: ",
        "This feature is not implemented: ",
        "Execution error: ",
        "Internal error: ",
        "Arrow error: ",
        "Optimizer rule ",
        "Invalid argument error: ",
        "Cast error: ",
        "External error: ",
        "type_coercion",
        "Error during function resolution: ",
        "Compute error: ",
        "Divide by zero error",
        "Parser error: ",
    ];
    while let Some(rest) = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)).filter(|rest| !rest.is_empty()) {
        text = rest.trim_start_matches(['\n', ' ']);
        text = text.strip_prefix("caused by\n").unwrap_or(text);
    }
    for end in [
        "\n\tCandidate functions",
        " You might need to add",
        "\nThis issue was likely",
        " This issue was likely",
        "\n\nbacktrace",
        " You may need",
    ] {
        text = text.split(end).next().unwrap_or(text);
    }
    text.trim().trim_end_matches('.').replace('\n', " ")
}

/// Arrow's names of types in SQL's words.
fn sql_types(text: &str) -> String {
    let types = [
        DataType::Utf8View,
        DataType::LargeUtf8,
        DataType::Utf8,
        DataType::Boolean,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::UInt64,
        DataType::Date32,
        DataType::Binary,
    ];
    let mut text = text.to_owned();
    for data_type in types {
        text = text.replace(&data_type.to_string(), &sql_name(&data_type));
    }
    for (long, short) in [
        ("Timestamp(µs)", "TIMESTAMP"),
        ("Timestamp(ns)", "TIMESTAMP"),
        ("Interval(MonthDayNano)", "INTERVAL"),
        ("Decimal128", "DECIMAL"),
        ("Struct", "STRUCT"),
        ("List", "ARRAY"),
        ("MonthDayNano", "INTERVAL"),
    ] {
        text = text.replace(long, short);
    }
    text
}

/// Looks for the smallest expression that fails, inner queries first.
struct Search<'a> {
    catalog: &'a Catalog,
    query: &'a Query,
    found: Option<Complaint>,
}

impl Visitor for Search<'_> {
    type Break = ();

    fn post_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        let Some(schema) = self.schema(select) else { return ControlFlow::Continue(()) };
        let mut exprs: Vec<&SqlExpr> = Vec::new();
        exprs.extend(select.selection.iter());
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => exprs.push(expr),
                _ => {}
            }
        }
        if let GroupByExpr::Expressions(group, _) = &select.group_by {
            exprs.extend(group);
        }
        exprs.extend(select.having.iter().chain(&select.qualify));
        if let Some(complaint) = names(select).or_else(|| positions(select)).or_else(|| self.stars(select, &schema)) {
            self.found = Some(complaint);
            return ControlFlow::Break(());
        }
        for expr in exprs {
            if let Some(complaint) = self.smallest(expr, &schema) {
                self.found = Some(complaint);
                return ControlFlow::Break(());
            }
        }
        let condition = select.selection.as_ref().and_then(|expr| self.no_condition(expr, &schema));
        self.found = condition;
        if self.found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Two columns of one name.
fn names(select: &Select) -> Option<Complaint> {
    let mut seen: Vec<String> = Vec::new();
    for item in &select.projection {
        let ident = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias,
            SelectItem::UnnamedExpr(SqlExpr::Identifier(ident)) => ident,
            SelectItem::UnnamedExpr(SqlExpr::CompoundIdentifier(idents)) => idents.last()?,
            _ => continue,
        };
        let name = fold(&ident.value, ident.quote_style);
        if seen.contains(&name) {
            return Some(Complaint::new(place(ident.span), format!("two columns are called {name}")).help("rename one with AS"));
        }
        seen.push(name);
    }
    None
}

/// GROUP BY a position that SELECT does not have.
fn positions(select: &Select) -> Option<Complaint> {
    let GroupByExpr::Expressions(group, _) = &select.group_by else { return None };
    let width = select.projection.len();
    let outside = |expr: &&SqlExpr| expr.to_string().parse::<usize>().is_ok_and(|position| position == 0 || position > width);
    let expr = group.iter().find(outside)?;
    Some(Complaint::new(place(expr.span()), format!("GROUP BY {expr}: SELECT has {width} columns")).help("name the column"))
}

impl Search<'_> {
    /// `x.*` of a table that is not there.
    fn stars(&self, select: &Select, schema: &DFSchema) -> Option<Complaint> {
        select.projection.iter().find_map(|item| {
            let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item else { return None };
            let last = name.0.last()?.as_ident()?;
            let table = fold(&last.value, last.quote_style);
            let tables: Vec<&str> = schema.iter().filter_map(|(qualifier, _)| qualifier.map(|qualifier| qualifier.table())).collect();
            if tables.contains(&table.as_str()) {
                return None;
            }
            let complaint = Complaint::new(place(name.span()), format!("{table}.*: there is no table {table} in FROM"));
            Some(match tables.first() {
                Some(known) => complaint.help(format!("write {known}.*")),
                None => complaint,
            })
        })
    }

    /// The columns a SELECT chooses from.
    fn schema(&self, select: &Select) -> Option<DFSchema> {
        let mut from = Select { distinct: None, selection: None, having: None, qualify: None, named_window: Vec::new(), ..select.clone() };
        from.projection = vec![SelectItem::Wildcard(Default::default())];
        from.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
        let mut query = self.query.clone();
        query.body = Box::new(SetExpr::Select(Box::new(from)));
        let planner = SqlToRel::new(self.catalog);
        let plan = planner.sql_statement_to_plan(Statement::Query(Box::new(query))).ok()?;
        // The projection on top is `*`: its input has the qualifiers.
        plan.inputs().first().map(|input| input.schema().as_ref().clone())
    }

    /// The complaint about the smallest failing part of an expression.
    fn smallest(&self, expr: &SqlExpr, schema: &DFSchema) -> Option<Complaint> {
        let mut parts: Vec<SqlExpr> = Vec::new();
        let _: ControlFlow<()> = visit_expressions(expr, |part| {
            parts.push(part.clone());
            ControlFlow::Continue(())
        });
        let mut smallest: Option<(usize, Complaint)> = None;
        for part in parts {
            let Some(complaint) = self.fails(&part, schema) else { continue };
            let size = part.to_string().len();
            if smallest.as_ref().is_none_or(|(other, _)| size < *other) {
                smallest = Some((size, complaint));
            }
        }
        smallest.map(|(_, complaint)| complaint)
    }

    /// A WHERE that is neither true nor false.
    fn no_condition(&self, expr: &SqlExpr, schema: &DFSchema) -> Option<Complaint> {
        let planned = SqlToRel::new(self.catalog).sql_to_expr(expr.clone(), schema, &mut PlannerContext::new()).ok()?;
        let data_type = planned.get_type(schema).ok()?;
        if matches!(data_type, DataType::Boolean | DataType::Null) {
            return None;
        }
        Some(Complaint::new(place(expr.span()), format!("WHERE takes a condition; {expr} is {}", sql_name(&data_type))))
    }

    /// What is wrong with an expression taken alone.
    fn fails(&self, expr: &SqlExpr, schema: &DFSchema) -> Option<Complaint> {
        let planner = SqlToRel::new(self.catalog);
        let coerced = planner.sql_to_expr(expr.clone(), schema, &mut PlannerContext::new()).and_then(|planned| {
            let info = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
            let simplifier = ExprSimplifier::new(info);
            let coerced = simplifier.coerce(planned, schema)?;
            coerced.get_type(schema)?;
            simplifier.simplify(coerced).map(|_| ())
        });
        let error = coerced.err()?;
        let complaint = match expr {
            SqlExpr::CompoundIdentifier(idents) => field(idents, schema).unwrap_or_else(|| translate(&error)),
            _ => translate(&error),
        };
        let here = place(expr.span());
        Some(match (complaint.at, here) {
            (None, Some(here)) => complaint.or_at(here),
            _ => complaint,
        })
    }
}

/// What is wrong with `column.field.…`.
fn field(idents: &[Ident], schema: &DFSchema) -> Option<Complaint> {
    let names: Vec<String> = idents.iter().map(|ident| fold(&ident.value, ident.quote_style)).collect();
    let (index, column) =
        names.iter().enumerate().take(2).find_map(|(index, name)| Some((index, schema.field_with_unqualified_name(name).ok()?)))?;
    let mut data_type = column.data_type().clone();
    for (ident, name) in idents.iter().zip(&names).skip(index + 1) {
        match fields::find(&data_type, name) {
            Ok(found) => {
                let DataType::Struct(fields) = &data_type else { return None };
                data_type = fields.find(&found)?.1.data_type().clone();
            }
            Err(mut complaint) => {
                complaint.at = place(ident.span);
                return Some(complaint);
            }
        }
    }
    None
}
