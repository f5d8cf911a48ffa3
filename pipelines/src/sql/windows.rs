//! `tumble`, `hop` and `session`: from FROM to one node of the logical plan.
//!
//! Always: the node keeps its input's columns and adds `window_start`, `window_end` at the end; its time column is a time column
//! (`time`), never NULL (a filter below it drops such rows, when it may be); lengths are fixed. Two lowerings read the node: to our
//! operators (`lower`) and to plain DataFusion (`batch`).

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::Field;
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, Result, plan_err};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, Spanned, TableFactor, TableFunctionArgs,
};

use super::duration::{self, show};
use super::error::{Checked, Complaint, place};
use super::program::Place;
use super::time::time_kinds;
use super::types::TIMESTAMP;

/// How rows get their windows. Lengths in microseconds; windows are half open and aligned to 1970-01-01T00:00Z.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Hash)]
pub enum WindowKind {
    /// One window of `size_us` a row; starts are `offset_us` behind multiples of the size.
    Tumble { size_us: i64, offset_us: i64 },
    /// Every window of `size_us` that holds the row; one starts at each multiple of `slide_us`. A row may be in none when the slide is
    /// longer than the size.
    Hop { slide_us: i64, size_us: i64 },
    /// A row joins a session it is at most `gap_us` away from, among rows of equal keys; the window ends `gap_us` behind the last row.
    Session { gap_us: i64, keys: Vec<Column> },
}

/// A window function over its input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WindowNode {
    pub input: LogicalPlan,
    /// A TIMESTAMP column of the input, without NULLs.
    pub time_column: Column,
    pub kind: WindowKind,
    schema: DFSchemaRef,
}

pub const WINDOW_START: &str = "window_start";
pub const WINDOW_END: &str = "window_end";

impl WindowNode {
    /// Adds the window's columns to an input that does not have them.
    pub fn try_new(input: LogicalPlan, time_column: Column, kind: WindowKind) -> Result<Self> {
        let schema = Arc::clone(input.schema());
        if schema.fields().iter().any(|field| field.name() == WINDOW_START || field.name() == WINDOW_END) {
            return plan_err!("window_start and window_end are there already");
        }
        // When all columns have one qualifier the window's columns share it, so `t.window_start` works as `t.x` does.
        let mut qualifiers = schema.iter().map(|(qualifier, _)| qualifier);
        let first = qualifiers.next().flatten();
        let shared = if qualifiers.all(|other| other == first) { first.cloned() } else { None };
        let mut fields: Vec<_> = schema.iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))).collect();
        for name in [WINDOW_START, WINDOW_END] {
            fields.push((shared.clone(), Arc::new(Field::new(name, TIMESTAMP, false))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { input, time_column, kind, schema })
    }

    /// The node inside an extension, if it is one.
    pub fn of(extension: &Extension) -> Option<&Self> {
        extension.node.as_any().downcast_ref()
    }

    /// Index of the time column in the input.
    pub fn time_index(&self) -> Result<usize> {
        self.input.schema().index_of_column(&self.time_column)
    }

    /// Indexes of a session's keys in the input.
    pub fn key_indexes(&self) -> Result<Vec<usize>> {
        match &self.kind {
            WindowKind::Session { keys, .. } => keys.iter().map(|key| self.input.schema().index_of_column(key)).collect(),
            _ => Ok(Vec::new()),
        }
    }
}

impl PartialOrd for WindowNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.time_column.partial_cmp(&other.time_column)? {
            Ordering::Equal => match self.kind.partial_cmp(&other.kind)? {
                Ordering::Equal => self.input.partial_cmp(&other.input),
                different => Some(different),
            },
            different => Some(different),
        }
    }
}

impl UserDefinedLogicalNodeCore for WindowNode {
    fn name(&self) -> &str {
        match self.kind {
            WindowKind::Tumble { .. } => "Tumble",
            WindowKind::Hop { .. } => "Hop",
            WindowKind::Session { .. } => "Session",
        }
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let keys = match &self.kind {
            WindowKind::Session { keys, .. } => keys.as_slice(),
            _ => &[],
        };
        std::iter::once(&self.time_column).chain(keys).cloned().map(Expr::Column).collect()
    }

    /// A condition on a row's own columns may be asked before its windows are made; one on a session's rows may not, because it would
    /// take rows out of the sessions, unless it speaks of the keys only.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let keys = match &self.kind {
            WindowKind::Session { keys, .. } => keys.as_slice(),
            _ => return [WINDOW_START, WINDOW_END].map(str::to_owned).into(),
        };
        let is_key = |name: &String| keys.iter().any(|key| key.name == *name);
        self.schema.fields().iter().map(|field| field.name().clone()).filter(|name| !is_key(name)).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time_column.flat_name();
        match &self.kind {
            WindowKind::Tumble { size_us, offset_us: 0 } => write!(f, "Tumble: {time} size={}", show(*size_us)),
            WindowKind::Tumble { size_us, offset_us } => write!(f, "Tumble: {time} size={} offset={}", show(*size_us), show(*offset_us)),
            WindowKind::Hop { slide_us, size_us } => write!(f, "Hop: {time} slide={} size={}", show(*slide_us), show(*size_us)),
            WindowKind::Session { gap_us, keys } => {
                let keys: Vec<String> = keys.iter().map(Column::flat_name).collect();
                write!(f, "Session: {time} gap={} keys=[{}]", show(*gap_us), keys.join(", "))
            }
        }
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut columns = exprs.into_iter().map(|expr| match expr {
            Expr::Column(column) => Ok(column),
            other => plan_err!("a window is made of columns, not of {other}"),
        });
        let Some(time_column) = columns.next() else { return plan_err!("a window needs its time column") };
        let keys = columns.collect::<Result<Vec<_>>>()?;
        let kind = match &self.kind {
            WindowKind::Session { gap_us, .. } => WindowKind::Session { gap_us: *gap_us, keys },
            other => other.clone(),
        };
        let Some(input) = inputs.into_iter().next() else { return plan_err!("a window needs its input") };
        Self::try_new(input, time_column?, kind)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input.schema().fields().len();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|index| *index < width).collect();
        needed.push(self.time_index().ok()?);
        needed.extend(self.key_indexes().ok()?);
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// Plans the window functions in FROM.
#[derive(Debug)]
pub(super) enum Windows {
    /// Of a pipeline: over time columns only, and no other table function is known.
    Pipeline,
    /// Of a query over tables that are there: any TIMESTAMP will do, and other table functions are DataFusion's business.
    Query,
}

/// The table functions and how each is written.
pub(super) const FUNCTIONS: &[(&str, &str)] = &[
    ("tumble", "tumble(t, ts, INTERVAL '1 minute')"),
    ("hop", "hop(t, ts, INTERVAL '1 minute', INTERVAL '10 minutes'): first the slide, then the size"),
    ("session", "session(t, ts, INTERVAL '10 minutes', key)"),
];

impl RelationPlanner for Windows {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> Result<RelationPlanning> {
        let original = relation.clone();
        let (name, alias, args) = match relation {
            TableFactor::Table { name, alias, args: Some(TableFunctionArgs { args, .. }), .. } => (name, alias, args),
            other => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let at = place(name.span());
        let function = name.to_string().to_lowercase();
        let Some((function, shape)) = FUNCTIONS.iter().find(|(known, _)| *known == function) else {
            if matches!(self, Self::Query) {
                return Ok(RelationPlanning::Original(Box::new(original)));
            }
            let complaint = Complaint::new(at, format!("there is no table function {function}; there are tumble, hop and session"));
            return Err(complaint.suggest(&function, FUNCTIONS.iter().map(|(name, _)| *name)).into());
        };
        let call = Call { function, shape, at, any_timestamp: matches!(self, Self::Query) };
        let node = call.plan(args, context).map_err(|error| match error {
            Problem::Ours(complaint) => complaint.into(),
            Problem::Theirs(error) => error,
        })?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

enum Problem {
    Ours(Complaint),
    Theirs(DataFusionError),
}

impl From<Complaint> for Problem {
    fn from(complaint: Complaint) -> Self {
        Self::Ours(complaint)
    }
}

impl From<DataFusionError> for Problem {
    fn from(error: DataFusionError) -> Self {
        Self::Theirs(error)
    }
}

/// One call of a window function.
struct Call<'a> {
    function: &'a str,
    shape: &'a str,
    at: Option<Place>,
    /// A column need not be a time column, only a TIMESTAMP.
    any_timestamp: bool,
}

impl Call<'_> {
    fn wrong(&self, message: impl fmt::Display) -> Complaint {
        Complaint::new(self.at, format!("{}: {message}", self.function)).help(format!("write {}", self.shape))
    }

    fn plan(&self, args: Vec<FunctionArg>, context: &mut dyn RelationPlannerContext) -> Result<WindowNode, Problem> {
        let mut exprs = Vec::with_capacity(args.len());
        for arg in args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => exprs.push(expr),
                other => {
                    return Err(self
                        .wrong("the arguments are given by position")
                        .or_at(place(other.span()).unwrap_or(Place::START))
                        .into());
                }
            }
        }
        let most = match self.function {
            "session" => usize::MAX,
            _ => 4,
        };
        let least = if self.function == "hop" { 4 } else { 3 };
        if exprs.len() < least || exprs.len() > most {
            return Err(self
                .wrong(format!("{} arguments are too {}", exprs.len(), if exprs.len() < least { "few" } else { "many" }))
                .into());
        }
        let mut exprs = exprs.into_iter();
        let (Some(table), Some(time), Some(first)) = (exprs.next(), exprs.next(), exprs.next()) else {
            return Err(self.wrong("it has too few arguments").into());
        };
        let shown = if matches!(table, SqlExpr::Subquery(_)) { "the sub-query".to_owned() } else { table.to_string() };
        let input = context.plan(self.relation(table)?)?;
        let time_at = place(time.span()).or(self.at);
        let time = self.time(&shown, time, &input, context)?;
        let kind = self.kind(first, exprs.collect(), &input, context)?;
        for name in [WINDOW_START, WINDOW_END] {
            if input.schema().fields().iter().any(|field| field.name() == name) {
                let message = format!("{} adds window_start and window_end, but {shown} has a column {name} already", self.function);
                let help = format!("rename it before: {}((SELECT {name} AS earlier, … FROM {shown}), …)", self.function);
                return Err(Complaint::new(time_at, message).help(help).into());
            }
        }
        let field = input.schema().qualified_field_from_column(&time)?.1;
        let input = match field.is_nullable() {
            true => LogicalPlanBuilder::from(input).filter(Expr::Column(time.clone()).is_not_null())?.build()?,
            false => input,
        };
        Ok(WindowNode::try_new(input, time, kind)?)
    }

    /// The first argument as something FROM can hold.
    fn relation(&self, table: SqlExpr) -> Checked<TableFactor> {
        let named = |name: ObjectName, args: Option<TableFunctionArgs>| TableFactor::Table {
            name,
            alias: None,
            args,
            with_hints: Vec::new(),
            version: None,
            with_ordinality: false,
            partitions: Vec::new(),
            json_path: None,
            sample: None,
            index_hints: Vec::new(),
        };
        let at = place(table.span()).or(self.at);
        match table {
            SqlExpr::Identifier(ident) => Ok(named(ObjectName::from(vec![ident]), None)),
            SqlExpr::CompoundIdentifier(idents) => Ok(named(ObjectName::from(idents), None)),
            SqlExpr::Subquery(subquery) => Ok(TableFactor::Derived { lateral: false, subquery, alias: None, sample: None }),
            SqlExpr::Nested(inner) => self.relation(*inner),
            SqlExpr::Function(function) => match function.args {
                FunctionArguments::List(list) => Ok(named(function.name, Some(TableFunctionArgs { args: list.args, settings: None }))),
                _ => Err(self.wrong("the first argument is a table").or_at(at.unwrap_or(Place::START))),
            },
            _ => {
                let mut complaint = self.wrong("the first argument is a table, a view or a sub-query in parentheses");
                complaint.at = at;
                Err(complaint)
            }
        }
    }

    fn time(&self, shown: &str, time: SqlExpr, input: &LogicalPlan, context: &mut dyn RelationPlannerContext) -> Result<Column, Problem> {
        let at = place(time.span()).or(self.at);
        let is_interval = matches!(time, SqlExpr::Interval(_));
        let written = time.to_string();
        if is_interval {
            let mut complaint = self.wrong("the second argument is the time column");
            complaint.at = at;
            return Err(complaint.into());
        }
        let column = match context.sql_to_expr(time, input.schema())? {
            Expr::Column(column) => column,
            _ => {
                let message = format!("{}: the time is a column, not an expression", self.function);
                return Err(Complaint::new(at, message)
                    .help("a time column is passed through views as it is; give expressions no window")
                    .into());
            }
        };
        let index = input.schema().index_of_column(&column)?;
        if self.any_timestamp {
            if *input.schema().field(index).data_type() == TIMESTAMP {
                return Ok(column);
            }
            return Err(Complaint::new(at, format!("{}: {written} is no TIMESTAMP", self.function)).into());
        }
        let kinds = time_kinds(input);
        if kinds.get(index).copied().flatten().is_some_and(|kind| kind.is_time()) {
            return Ok(column);
        }
        let names: Vec<&str> = kinds
            .iter()
            .zip(input.schema().fields())
            .filter(|(kind, _)| kind.is_some_and(|kind| kind.is_time()))
            .map(|(_, field)| field.name().as_str())
            .collect();
        let complaint = Complaint::new(at, format!("{}: {written} is not a time column of {shown}", self.function));
        Err(match names.as_slice() {
            [] => complaint.help("declare one on the source: WATERMARK FOR ts AS ts - INTERVAL '5 seconds', and pass it on unchanged"),
            names => complaint.help(format!("use {}", names.join(" or "))),
        }
        .into())
    }

    fn kind(
        &self,
        first: SqlExpr,
        rest: Vec<SqlExpr>,
        input: &LogicalPlan,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<WindowKind, Problem> {
        match self.function {
            "tumble" => {
                let size_us = self.length(&first)?;
                let offset_us = match rest.first() {
                    Some(offset) => duration::interval(offset).map_err(|complaint| self.placed(complaint))?.rem_euclid(size_us),
                    None => 0,
                };
                Ok(WindowKind::Tumble { size_us, offset_us })
            }
            "hop" => {
                let slide_us = self.length(&first)?;
                let size_us = match rest.first() {
                    Some(size) => self.length(size)?,
                    None => return Err(self.wrong("it needs a slide and a size").into()),
                };
                Ok(WindowKind::Hop { slide_us, size_us })
            }
            _ => {
                let gap_us = self.length(&first)?;
                let mut keys = Vec::with_capacity(rest.len());
                for key in rest {
                    let at = place(key.span()).or(self.at);
                    match context.sql_to_expr(key, input.schema())? {
                        Expr::Column(column) => keys.push(column),
                        _ => {
                            let complaint = Complaint::new(at, "session: a key is a column, not an expression");
                            return Err(complaint.help("name it first: session((SELECT …, expression AS k FROM t), ts, gap, k)").into());
                        }
                    }
                }
                Ok(WindowKind::Session { gap_us, keys })
            }
        }
    }

    fn placed(&self, complaint: Complaint) -> Complaint {
        complaint.or_at(self.at.unwrap_or(Place::START))
    }

    /// A length above nothing.
    fn length(&self, expr: &SqlExpr) -> Checked<i64> {
        let us = duration::interval(expr).map_err(|complaint| self.placed(complaint))?;
        if us <= 0 {
            return Err(
                self.placed(Complaint::new(place(expr.span()), format!("{}: the interval must be longer than nothing", self.function)))
            );
        }
        Ok(us)
    }
}
