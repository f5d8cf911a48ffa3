//! A `Program` to logical plans: DataFusion's planner over our catalog, its analyser, and a fixed list of its optimizer rules.
//!
//! Always: keys, time columns and bounds are read from the analysed plan, before any rule moves them; a rule that fails is an error;
//! output columns have types that tables store. The shape of each plan is a golden test, so an upgrade that moves something fails there.
//! Called by the command, `lower` and `verify`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::Schema;
use datafusion::common::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource, cast};
use datafusion::optimizer::{Analyzer, Optimizer, OptimizerContext, OptimizerRule};
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Query, Select, SetExpr, Spanned, Statement, Visit, Visitor, visit_expressions};

use super::asof::sink_filters;
use super::context::{Catalog, OutputTable, SourceTable, ViewTable, config};
use super::error::{Checked, Complaint, SqlError, place};
use super::explain::{explain, translate};
use super::insert;
use super::keys::{KeyColumn, key_of};
use super::order;
use super::program::{Output, Place, Program, View};
use super::sets;
use super::shape::{self, Places, Stored};
use super::stars;
use super::time::{TimeKind, time_kinds};
use super::ttl;

/// One output's logical plan.
#[derive(Debug, Clone)]
pub struct PlannedOutput {
    pub name: String,
    /// Analysed and optimised by the fixed list of rules.
    pub plan: LogicalPlan,
    /// Analysed only: keys, time columns and time bounds are read here.
    pub analyzed: LogicalPlan,
    /// `None`: the view appends. An empty key is one row (aggregates without GROUP BY).
    pub key: Option<Vec<KeyColumn>>,
    /// What each output column says about time.
    pub times: Vec<Option<TimeKind>>,
}

/// The optimizer's rules, in their order. Left out are those that move what the lowering looks for (distinct aggregates, constant keys,
/// common expressions, leaf projections, limits) and those for queries that are refused (scalar sub-queries, lateral joins).
pub const RULES: &[&str] = &[
    "optimize_unions",
    "simplify_expressions",
    "replace_distinct_aggregate",
    "extract_equijoin_predicate",
    "eliminate_filter",
    "eliminate_cross_join",
    "eliminate_outer_join",
    "push_down_filter",
    "optimize_projections",
];

/// What runs first, where a query has EXISTS or IN with a sub-query.
const DECORRELATE: &[&str] = &["decorrelate_predicate_subquery"];

static OPTIMIZER: LazyLock<Optimizer> = LazyLock::new(|| optimizer(RULES));
static DECORRELATOR: LazyLock<Optimizer> = LazyLock::new(|| optimizer(DECORRELATE));

fn optimizer(names: &[&str]) -> Optimizer {
    let all = Optimizer::new().rules;
    let named = |name: &&str| all.iter().find(|rule| rule.name() == *name).cloned();
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = names.iter().filter_map(named).collect();
    Optimizer::with_rules(rules)
}

/// Plans every output of a program, in file order.
pub fn plan(program: &Program) -> Result<Vec<PlannedOutput>, SqlError> {
    Planning::new(program).and_then(Planning::run).map_err(|complaint| complaint.in_file(&program.file))
}

/// Runs the fixed list of rules over an analysed plan.
pub fn optimize(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let context = OptimizerContext::new_with_config_options(Arc::new(config())).without_query_execution_start_time();
    OPTIMIZER.optimize(plan, &context, |_, _| {}).and_then(sink_filters)
}

/// EXISTS and IN with a sub-query as the joins that they are.
fn decorrelated(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    if !shape::asks_elsewhere(&plan)? {
        return Ok(plan);
    }
    let context = OptimizerContext::new_with_config_options(Arc::new(config())).without_query_execution_start_time();
    DECORRELATOR.optimize(plan, &context, |_, _| {})
}

/// Resolves types: the plan as keys and times are read from it.
pub fn analyze(plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    Analyzer::new().execute_and_check(plan, &config(), |_, _| {})
}

enum Item<'a> {
    View(&'a View),
    Output(&'a Output),
}

impl Item<'_> {
    fn name(&self) -> &str {
        match self {
            Self::View(view) => &view.name,
            Self::Output(output) => &output.name,
        }
    }

    fn at(&self) -> Place {
        match self {
            Self::View(view) => view.at,
            Self::Output(output) => output.at,
        }
    }

    fn query(&self) -> &Query {
        match self {
            Self::View(view) => &view.query,
            Self::Output(output) => &output.query,
        }
    }

    fn columns(&self) -> &[String] {
        match self {
            Self::View(view) => &view.columns,
            Self::Output(output) => &output.columns,
        }
    }
}

struct Planning<'a> {
    program: &'a Program,
    /// Views and outputs, in file order.
    items: Vec<Item<'a>>,
    /// Views and outputs planned so far.
    tables: BTreeMap<String, Arc<dyn TableSource>>,
    /// Where the last OVER and the last join stood: a plan has no places.
    places: Places,
    planned: Vec<PlannedOutput>,
}

impl<'a> Planning<'a> {
    fn new(program: &'a Program) -> Checked<Self> {
        let views = program.views.iter().map(Item::View);
        let mut items: Vec<Item<'a>> = views.chain(program.outputs.iter().map(Item::Output)).collect();
        items.sort_by_key(Item::at);
        Ok(Self { program, items, tables: BTreeMap::new(), places: Places::default(), planned: Vec::new() })
    }

    fn run(mut self) -> Checked<Vec<PlannedOutput>> {
        let items = std::mem::take(&mut self.items);
        for (index, item) in items.iter().enumerate() {
            let read = |item: &&Item<'_>| !matches!(item, Item::Output(output) if output.insert.is_some());
            let later = items.iter().skip(index + 1).filter(read).map(|item| item.name().to_owned()).collect();
            self.item(item, later).map_err(|complaint| complaint.or_at(item.at()))?;
        }
        if self.planned.is_empty() {
            let complaint = Complaint::new(Place::START, "the pipeline has no output");
            return Err(complaint.help("write CREATE MATERIALIZED VIEW name AS SELECT … FROM …, or INSERT INTO sink SELECT … FROM …"));
        }
        Ok(self.planned)
    }

    fn item(&mut self, item: &Item<'_>, later: Vec<String>) -> Checked<()> {
        let hidden = stars::names_hidden(item.query());
        let mut catalog = Catalog::new(&self.program.name);
        catalog.sinks = self.program.sinks.iter().map(|sink| sink.name.clone()).collect();
        catalog.later = later;
        catalog.tables.extend(self.tables.iter().map(|(name, table)| (name.clone(), Arc::clone(table))));
        for source in &self.program.sources {
            // A source may be declared anywhere: it depends on nothing.
            catalog.tables.insert(source.name.clone(), Arc::new(SourceTable::new(source, hidden)));
        }
        let mut query = item.query().clone();
        let sources: Vec<&str> = self.program.sources.iter().map(|source| source.name.as_str()).collect();
        stars::settle(&mut query, &sources, hidden);
        self.places = Places { over: over(&query).or(self.places.over), join: second(&query).or(self.places.join) };
        let statement = Statement::Query(Box::new(query.clone()));
        let complain = |error: DataFusionError| explain(&error, &query, &catalog);
        let plan = SqlToRel::new(&catalog).sql_statement_to_plan(statement).map_err(complain)?;
        let plan = renamed(plan, item.columns(), item)?;
        match item {
            Item::View(view) => {
                // Analysed for its errors only: where it is read it is planned again.
                analyze(plan.clone()).map_err(complain)?;
                let schema = Arc::new(plan.schema().as_arrow().clone());
                self.tables.insert(view.name.clone(), Arc::new(ViewTable { schema, plan }));
            }
            Item::Output(output) => {
                // Types are known for sure only behind the analyser.
                let complete = analyze(plan).and_then(decorrelated).and_then(sets::expand).and_then(order::complete).map_err(complain)?;
                let bounded = match output.state_ttl_us {
                    Some(ttl_us) => ttl::bound(complete, ttl_us, output.at)?,
                    None => complete,
                };
                let analyzed = match (&output.insert, self.program.sink_of(output)) {
                    (Some(insert), Some(sink)) => insert::fit(bounded, output, insert, sink, |index| item_place(&output.query, index))?,
                    _ => storable(bounded, output)?,
                };
                shape::check(&analyzed, output.at, self.places)?;
                let optimized = optimize(analyzed.clone()).map_err(complain)?;
                self.keep(output, analyzed, optimized);
            }
        }
        Ok(())
    }

    fn keep(&mut self, output: &Output, analyzed: LogicalPlan, plan: LogicalPlan) {
        let key = key_of(&analyzed);
        let times = time_kinds(&analyzed);
        let fields: Vec<_> = analyzed.schema().fields().iter().cloned().collect();
        let table =
            OutputTable { name: output.name.clone(), schema: Arc::new(Schema::new(fields)), times: times.clone(), key: key.clone() };
        if output.insert.is_none() {
            self.tables.insert(output.name.clone(), Arc::new(table));
        }
        self.planned.push(PlannedOutput { name: output.name.clone(), plan, analyzed, key, times });
    }
}

/// `CREATE VIEW v (a, b)`.
fn renamed(plan: LogicalPlan, names: &[String], item: &Item<'_>) -> Checked<LogicalPlan> {
    if names.is_empty() {
        return Ok(plan);
    }
    let width = plan.schema().fields().len();
    if names.len() != width {
        return Err(Complaint::new(item.at(), format!("{} names {} columns, its SELECT has {width}", item.name(), names.len())));
    }
    let exprs: Vec<Expr> = plan.schema().columns().into_iter().zip(names).map(|(column, name)| Expr::Column(column).alias(name)).collect();
    let built = LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build);
    built.map_err(|error| translate(&error))
}

/// Names and types that a table can have; types that differ in the engine only (strings, unsigned numbers) are cast.
fn storable(plan: LogicalPlan, output: &Output) -> Checked<LogicalPlan> {
    let mut exprs: Vec<Expr> = Vec::new();
    let mut changed = false;
    let mut names: Vec<String> = Vec::new();
    for (index, (column, field)) in plan.schema().columns().into_iter().zip(plan.schema().fields()).enumerate() {
        let at = item_place(&output.query, index).unwrap_or(output.at);
        let name = field.name();
        if name.is_empty() || name.contains(|c: char| " ,;{}()[]\n\t=.".contains(c)) {
            let message = format!("column {} of {} has no name that a table can have: {name}", index + 1, output.name);
            return Err(Complaint::new(at, message).help("write expression AS name"));
        }
        if ["_epoch", "_weight"].contains(&name.as_str()) {
            return Err(Complaint::new(at, format!("a table's log has a column {name} of its own")).help("rename it with AS"));
        }
        if let Some(other) = names.iter().find(|other| **other == name.to_lowercase()) {
            return Err(Complaint::new(at, format!("two columns of {} are called {other}", output.name)).help("rename one with AS"));
        }
        names.push(name.to_lowercase());
        let expr = Expr::Column(column);
        exprs.push(match shape::stored(field.data_type()) {
            Ok(Stored::AsIs) => expr,
            Ok(Stored::Cast(data_type)) => {
                changed = true;
                cast(expr, data_type).alias(name)
            }
            Err(help) => {
                let message = format!("the column {name} is {}, which a table can't hold", super::types::sql_name(field.data_type()));
                return Err(Complaint::new(at, message).help(help));
            }
        });
    }
    if !changed {
        return Ok(plan);
    }
    let built = LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build);
    built.map_err(|error| translate(&error))
}

/// Where the SELECT item of an output column stands, when no star comes before it.
fn item_place(query: &Query, index: usize) -> Option<Place> {
    use datafusion::sql::sqlparser::ast::SelectItem;
    let mut body = query.body.as_ref();
    loop {
        body = match body {
            SetExpr::Select(select) => {
                let plain = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
                let all_plain = select.projection.iter().take(index).all(plain);
                return select.projection.get(index).filter(|_| all_plain).and_then(|item| place(item.span()));
            }
            SetExpr::Query(inner) => inner.body.as_ref(),
            SetExpr::SetOperation { left, .. } => left.as_ref(),
            _ => return None,
        }
    }
}

/// The first table that is joined to another.
fn second(query: &Query) -> Option<Place> {
    struct Second(Option<Place>);
    impl Visitor for Second {
        type Break = ();

        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            let joined = select.from.iter().flat_map(|table| &table.joins).map(|join| &join.relation);
            let listed = select.from.iter().skip(1).map(|table| &table.relation);
            self.0 = joined.chain(listed).find_map(|relation| place(relation.span()));
            if self.0.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    let mut second = Second(None);
    let _ = query.visit(&mut second);
    second.0
}

/// The first function with OVER.
fn over(query: &Query) -> Option<Place> {
    let found = visit_expressions(query, |expr| match expr {
        SqlExpr::Function(function) if function.over.is_some() => ControlFlow::Break(place(function.name.span())),
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(place) => place,
        ControlFlow::Continue(()) => None,
    }
}
