//! A logical plan as the steps a reader can follow, sources first, and what each step keeps.
//!
//! Always: read from the same plan that is lowered; what is said of state is what the operators keep. Used by `check`.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use datafusion::sql::unparser::Unparser;
use datafusion::sql::unparser::dialect::Dialect;
use tidemill_pipelines::sql::{
    AsofNode, Joined, Output, OutputTable, PlannedOutput, SourceTable, TimeKind, WindowKind, WindowNode, joined, rank_bound, show_duration,
    time_kinds,
};

/// What there is to say of an output's plan.
#[derive(Debug, Default)]
pub struct Steps {
    /// In the order in which rows meet them.
    pub steps: Vec<String>,
    /// Each aggregate call, and what a group of it keeps.
    pub aggregates: Vec<(String, String)>,
    pub kept: Vec<Kept>,
}

/// State of one step.
#[derive(Debug)]
pub struct Kept {
    pub text: String,
    /// Nothing bounds it but the number of keys.
    pub for_ever: bool,
    pub windowed: bool,
}

/// Takes a planned output apart.
pub fn steps(planned: &PlannedOutput, output: &Output) -> Steps {
    let mut steps = Steps::default();
    steps.walk(&planned.plan, output);
    steps
}

impl Steps {
    fn walk(&mut self, plan: &LogicalPlan, output: &Output) {
        if let LogicalPlan::Extension(extension) = plan
            && let Some(node) = AsofNode::of(extension)
        {
            return self.asof(node, output);
        }
        for input in plan.inputs() {
            self.walk(input, output);
        }
        match plan {
            LogicalPlan::Join(join) => self.join(join, output),
            LogicalPlan::TableScan(scan) => {
                let columns: Vec<&str> = scan.projected_schema.fields().iter().map(|field| field.name().as_str()).collect();
                let what = match (scan.source.downcast_ref::<SourceTable>(), scan.source.downcast_ref::<OutputTable>()) {
                    (Some(source), _) => format!("read {}", source.name),
                    (_, Some(view)) => format!("read the results of {}", view.name),
                    _ => format!("read {}", scan.table_name),
                };
                self.steps.push(format!("{what}: {}", columns.join(", ")));
                if let Some(source) = scan.source.downcast_ref::<SourceTable>().filter(|source| source.is_changelog()) {
                    self.steps.push(format!("{LATEST} of {}; those before it are taken back", source.name));
                    self.kept.push(Kept {
                        text: format!(
                            "a row a key of {} (the columns read here), for ever; of a deleted key its place, so that nothing older brings it back",
                            source.name
                        ),
                        for_ever: true,
                        windowed: false,
                    });
                }
            }
            LogicalPlan::Filter(filter) => match rank_bound(filter) {
                Some(bound) => self.steps.push(if bound.exact {
                    format!("only row number {}", bound.limit)
                } else {
                    format!("the first {}", bound.limit)
                }),
                None => self.steps.push(format!("filter {}", shown(&filter.predicate))),
            },
            LogicalPlan::Projection(projection) => {
                let computed: Vec<String> = projection.expr.iter().filter(|expr| !is_passed_on(expr)).map(named).collect();
                if !computed.is_empty() {
                    self.steps.push(format!("compute {}", computed.join(", ")));
                }
            }
            LogicalPlan::Union(union) => self.steps.push(format!("UNION ALL of {} streams", union.inputs.len())),
            LogicalPlan::Extension(extension) => {
                if let Some(node) = WindowNode::of(extension) {
                    self.steps.push(window(node));
                }
            }
            LogicalPlan::Window(window) if output.state_ttl_us.is_some() => {
                let ttl = output.state_ttl_us.map_or_else(String::new, show_duration);
                self.steps.push(format!("of each key the latest run of rows at most {ttl} apart (state_ttl)"));
                if let Some(kind @ WindowKind::Session { .. }) = below(&window.input) {
                    self.keep("the first row a key", true, Some(kind), output);
                }
            }
            LogicalPlan::Window(window) => {
                for expr in &window.window_expr {
                    self.steps.push(format!("number rows {}", shown(expr)));
                }
                let windowed = time_kinds(&window.input).iter().flatten().any(|kind| kind.is_window());
                self.keep("the first rows of each partition", windowed, None, output);
            }
            LogicalPlan::Aggregate(aggregate) => {
                let keys: Vec<String> = aggregate.group_expr.iter().map(shown).collect();
                let calls: Vec<String> = aggregate.aggr_expr.iter().map(shown).collect();
                let by = if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(", ")) };
                self.steps.push(if calls.is_empty() { format!("distinct{by}") } else { format!("group{by}: {}", calls.join(", ")) });
                for expr in &aggregate.aggr_expr {
                    self.aggregates.push((shown(expr), cost(expr, revises(&aggregate.input)).to_owned()));
                }
                let windowed = time_kinds(plan).iter().flatten().any(|kind| kind.is_window());
                let session = below(&aggregate.input);
                let what = if keys.is_empty() { "one group" } else { "a group a key" };
                self.keep(what, windowed, session, output);
            }
            LogicalPlan::Distinct(_) => {
                self.steps.push("distinct".to_owned());
                let windowed = time_kinds(plan).iter().flatten().any(|kind: &TimeKind| kind.is_window());
                self.keep("a row a distinct row", windowed, None, output);
            }
            LogicalPlan::SubqueryAlias(_) => {}
            LogicalPlan::Unnest(_) => self.steps.push("a row for each element of a list (unnest)".to_owned()),
            other => self.steps.push(other.display().to_string()),
        }
    }

    /// A join bounded in time: the rows of both sides, for as long as a match may come.
    fn join(&mut self, join: &Join, output: &Output) {
        let Ok(Joined { span, keys, rest }) = joined(join, &[]) else { return };
        let name = |plan: &LogicalPlan, index: usize| Column::from(plan.schema().qualified_field(index)).flat_name();
        let (left, right) = (name(&join.left, span.left), name(&join.right, span.right));
        let mut on: Vec<String> = keys.iter().map(|(left, right)| format!("{left} = {right}")).collect();
        on.push(match (span.low_us, span.high_us) {
            (0, 0) => format!("{right} = {left}"),
            (low, high) => format!("{right} from {} to {}", moved(&left, low), moved(&left, high)),
        });
        on.extend(rest.iter().map(|condition| condition.human_display().to_string()));
        let kind = join.join_type.to_string().to_lowercase();
        self.steps.push(format!("{kind} join on {}", on.join(" and ")));
        if keys.is_empty() {
            self.steps.push("nothing is equal on both sides: one worker does all of this join".to_owned());
        }
        let lateness = if output.lateness_us == 0 { String::new() } else { format!(" + {}", show_duration(output.lateness_us)) };
        let (mut rows, mut others) = (Vec::new(), Vec::new());
        sources(&join.left, &mut rows);
        sources(&join.right, &mut others);
        let both = format!("{} and {}", rows.join(", "), others.join(", "));
        for (names, time, reach_us) in [(&rows, &left, span.high_us), (&others, &right, span.low_us.saturating_neg())] {
            self.kept.push(Kept {
                text: format!("rows of {}: each until the watermarks of {both} pass {}{lateness}", names.join(", "), moved(time, reach_us)),
                for_ever: false,
                windowed: false,
            });
        }
    }

    /// An as-of join: its rows wait, its versions stay.
    fn asof(&mut self, node: &AsofNode, output: &Output) {
        self.walk(&node.left, output);
        let kept = self.kept.len();
        self.walk(&node.right, output);
        // The changes of a changelog are versions here; its latest rows are not kept besides. On the left there is no changelog.
        self.kept.truncate(kept);
        self.steps.retain(|step| !step.starts_with(LATEST));
        let on: Vec<String> = node.on.iter().map(|(left, right)| format!("{left} = {right}")).collect();
        let than = if node.strict { "before" } else { "at or before" };
        self.steps.push(format!(
            "join each row with the last version {than} {} by {}; NULLs where there is none",
            node.left_time.flat_name(),
            on.join(", ")
        ));
        let lateness = if output.lateness_us == 0 { String::new() } else { format!(" + {}", show_duration(output.lateness_us)) };
        let (mut rows, mut versions) = (Vec::new(), Vec::new());
        sources(&node.left, &mut rows);
        sources(&node.right, &mut versions);
        self.kept.push(Kept {
            text: format!(
                "rows that wait: each until the watermarks of {} and {} have both passed its time{lateness}, so the one that is behind holds the join up",
                rows.join(", "),
                versions.join(", ")
            ),
            for_ever: false,
            windowed: false,
        });
        self.kept.push(Kept {
            text: format!(
                "versions of {}: those not yet passed, and of each key the newest before, for ever unless it is deleted",
                versions.join(", ")
            ),
            for_ever: true,
            windowed: false,
        });
    }

    fn keep(&mut self, what: &str, windowed: bool, window: Option<&WindowKind>, output: &Output) {
        let lateness = if output.lateness_us == 0 { String::new() } else { format!(" + {}", show_duration(output.lateness_us)) };
        let kept = match (windowed, window) {
            (true, Some(WindowKind::Session { gap_us, .. })) => {
                let gap = show_duration(gap_us.saturating_mul(2));
                Kept {
                    text: format!("{what} and open session, until the watermark passes its last row + {gap}{lateness}"),
                    for_ever: false,
                    windowed,
                }
            }
            (true, Some(WindowKind::Hop { .. })) => Kept {
                text: format!("{what} and pane (not each window), until the watermark passes the last window's end{lateness}"),
                for_ever: false,
                windowed,
            },
            (true, _) => {
                Kept { text: format!("{what} and window, until the watermark passes window_end{lateness}"), for_ever: false, windowed }
            }
            (false, _) if what == "one group" => Kept { text: format!("{what}, for ever"), for_ever: false, windowed },
            (false, _) => Kept {
                text: format!("{what}, for ever: it grows with the number of keys; windows, or WITH (state_ttl = '1 day'), would bound it"),
                for_ever: true,
                windowed,
            },
        };
        self.kept.push(kept);
    }
}

/// A time and a span.
fn moved(time: &str, by_us: i64) -> String {
    match by_us {
        0 => time.to_owned(),
        1.. => format!("{time} + {}", show_duration(by_us)),
        _ => format!("{time} - {}", show_duration(by_us.saturating_neg())),
    }
}

fn window(node: &WindowNode) -> String {
    let time = &node.time_column.name;
    match &node.kind {
        WindowKind::Tumble { size_us, offset_us: 0 } => format!("windows of {} over {time}", show_duration(*size_us)),
        WindowKind::Tumble { size_us, offset_us } => {
            format!("windows of {} over {time}, shifted by {}", show_duration(*size_us), show_duration(*offset_us))
        }
        WindowKind::Hop { slide_us, size_us } => {
            format!("windows of {} every {} over {time}", show_duration(*size_us), show_duration(*slide_us))
        }
        WindowKind::Session { gap_us, keys } => {
            let keys: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            let by = if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(", ")) };
            format!("sessions{by} over {time}, ended by {} without a row", show_duration(*gap_us))
        }
    }
}

/// What is said of a changelog whose rows are read.
const LATEST: &str = "the latest row of each key";

/// The names of what a plan reads.
fn sources(plan: &LogicalPlan, into: &mut Vec<String>) {
    if let LogicalPlan::TableScan(scan) = plan {
        let name = match (scan.source.downcast_ref::<SourceTable>(), scan.source.downcast_ref::<OutputTable>()) {
            (Some(source), _) => source.name.clone(),
            (_, Some(view)) => view.name.clone(),
            _ => scan.table_name.to_string(),
        };
        if !into.contains(&name) {
            into.push(name);
        }
    }
    plan.inputs().into_iter().for_each(|input| sources(input, into));
}

/// The window function that an aggregate's rows come from.
fn below(plan: &LogicalPlan) -> Option<&WindowKind> {
    match plan {
        LogicalPlan::Extension(extension) => WindowNode::of(extension).map(|node| &node.kind),
        LogicalPlan::Projection(projection) => below(&projection.input),
        LogicalPlan::Filter(filter) => below(&filter.input),
        LogicalPlan::SubqueryAlias(alias) => below(&alias.input),
        _ => None,
    }
}

fn is_passed_on(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Alias(alias) => is_passed_on(&alias.expr),
        _ => false,
    }
}

/// A computed column and its name.
fn named(expr: &Expr) -> String {
    match expr {
        Expr::Alias(alias) => format!("{} AS {}", shown(&alias.expr), alias.name),
        other => shown(other),
    }
}

/// An expression in SQL's words, without the names of tables.
fn shown(expr: &Expr) -> String {
    let expr = match expr {
        // Under the name it has above: the order that ties are broken by is not the user's text.
        Expr::Alias(alias) if matches!(alias.expr.as_ref(), Expr::AggregateFunction(_)) => &alias.expr,
        other => other,
    };
    let bare = expr.clone().transform(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(column.name))),
            Expr::ScalarFunction(call) if call.func.name() == "get_field" => match call.args.as_slice() {
                // `meta['ua']`, as it was written.
                [from, Expr::Literal(field, _)] => {
                    Transformed::yes(Expr::Column(Column::new_unqualified(format!("{}['{field}']", shown(from)))))
                }
                _ => Transformed::no(Expr::ScalarFunction(call)),
            },
            other => Transformed::no(other),
        })
    });
    let expr = bare.map_or_else(|_| expr.clone(), |bare| bare.data);
    let text = Unparser::new(&Plain).expr_to_sql(&expr).map_or_else(|_| expr.human_display().to_string(), |sql| sql.to_string());
    text.replace("count(1)", "count(*)")
}

/// Names are shown as they are, never quoted: the text is for people.
struct Plain;

impl Dialect for Plain {
    fn identifier_quote_style(&self, _identifier: &str) -> Option<char> {
        None
    }
}

/// Whether rows of a plan may be replaced or taken back later.
fn revises(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) | LogicalPlan::Window(_) => true,
        LogicalPlan::Extension(extension) if AsofNode::of(extension).is_some() => true,
        LogicalPlan::TableScan(scan) => {
            scan.source.downcast_ref::<OutputTable>().is_some_and(|view| view.key.is_some())
                || scan.source.downcast_ref::<SourceTable>().is_some_and(SourceTable::is_changelog)
        }
        other => other.inputs().into_iter().any(revises),
    }
}

/// What one group of a call keeps.
fn cost(expr: &Expr, revised: bool) -> &'static str {
    match expr {
        Expr::Alias(alias) => cost(&alias.expr, revised),
        Expr::AggregateFunction(AggregateFunction { func, params }) => match (func.name(), params.distinct) {
            ("count" | "sum" | "avg", true) => "every distinct value, exact",
            ("count" | "regr_count", false) => "a number",
            ("sum" | "avg" | "mean", false) => "an exact sum and a count",
            ("min" | "max" | "bit_and" | "bit_or", _) if revised => "every value, since those it reads may be taken back",
            ("min" | "max", _) => "one value",
            ("bit_and" | "bit_or", _) | ("bit_xor", false) => "a number and a count",
            ("approx_distinct", _) => "a sketch: up to 512 hashes, then 16 kB; within 3.3 %",
            ("approx_percentile_cont" | "approx_median", false) => "a histogram: a bucket for each 2 % of the values' range; within 1 %",
            ("bool_and" | "bool_or", _) => "two counts",
            ("median" | "percentile_cont", _) => "every different value and how often it came, at most 1,000,000",
            ("first_value" | "last_value", _) if !revised => "one row",
            ("nth_value", _) if !revised => "the n first rows",
            ("array_agg" | "string_agg", false) | ("first_value" | "last_value" | "nth_value", _) => "every row, at most 1,000,000",
            (_, true) => "every different value, at most 1,000,000",
            ("corr" | "covar_pop" | "covar_samp", _) => "five exact sums and a count",
            (name, _) if name.starts_with("regr_") => "five exact sums and a count",
            _ => "two exact sums and a count",
        },
        _ => "a value",
    }
}
