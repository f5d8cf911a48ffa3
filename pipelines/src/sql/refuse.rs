//! Refuses, on the syntax tree and with their places, the clauses that parse but would be ignored, have no one answer, or aren't there yet.
//!
//! Always: the planner of DataFusion drops table versions, samples, ordinality, locks, settings, formats, PREWHERE, CONNECT BY and more
//! without a word; none of them gets that far. Functions are checked here too, by name, so that each error stands at its call. The test
//! beside lists every refusal. Called by `parse` for each query.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, GroupByExpr, JoinConstraint, JoinOperator, LimitClause, OrderByKind, Query, Select, SelectFlavor, SelectItem,
    SetExpr, SetOperator, Spanned, TableAlias, TableFactor, TableWithJoins, Visit, Visitor, WindowType, visit_expressions,
};

use super::asof;
use super::error::{Checked, Complaint, place};
use super::functions::{AGGREGATES, REGISTRY};
use super::lex::Tokens;
use super::order::ORDERED;
use super::program::Place;
use super::windows::FUNCTIONS;

/// Checks a query and everything in it.
pub(super) fn check(query: &Query, tokens: &Tokens) -> Checked<()> {
    let mut refuse = Refuse { tokens, tables: HashSet::new(), here: tokens.start() };
    match query.visit(&mut refuse) {
        ControlFlow::Break(complaint) => Err(*complaint),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Refuse<'a> {
    tokens: &'a Tokens,
    /// Addresses of expressions that stand where a table does: arguments of window functions.
    tables: HashSet<usize>,
    /// The innermost place seen: where something without a span is.
    here: Place,
}

type Step = ControlFlow<Box<Complaint>>;

fn no(at: Place, message: impl Into<String>, help: impl Into<String>) -> Step {
    ControlFlow::Break(Box::new(Complaint::new(at, message).help(help)))
}

const NOT_YET: &str = "is not supported yet";

impl Refuse<'_> {
    /// The place of the last `words` before `inner`: the keyword a clause begins with.
    fn keyword(&self, words: &[&str], inner: Option<Place>) -> Place {
        let Some(inner) = inner else { return self.tokens.find(words, self.here).unwrap_or(self.here) };
        let before =
            (0..self.tokens.all().len()).rev().find(|index| self.tokens.place(*index) <= inner && self.tokens.reads(*index, words));
        before.map_or(inner, |index| self.tokens.place(index))
    }

    fn at(&self, node: &impl Spanned) -> Place {
        place(node.span()).unwrap_or(self.here)
    }

    fn query(&self, query: &Query) -> Step {
        if let Some(with) = &query.with {
            if with.recursive {
                return no(
                    self.keyword(&["RECURSIVE"], None),
                    "a recursive WITH is not supported",
                    "its rounds have no bound; write the steps as views",
                );
            }
            for cte in &with.cte_tables {
                if cte.materialized.is_some() || cte.from.is_some() {
                    return no(self.at(&cte.alias), "a WITH query takes no MATERIALIZED or FROM here", "write WITH name AS (SELECT …)");
                }
            }
        }
        if let Some(order) = &query.order_by {
            let inner = match &order.kind {
                OrderByKind::Expressions(exprs) => exprs.first().and_then(|order| place(order.expr.span())),
                OrderByKind::All(_) => None,
            };
            let help = "order when you read the table; for the first rows of each key use ROW_NUMBER() OVER (PARTITION BY … ORDER BY …)";
            return no(self.keyword(&["ORDER", "BY"], inner), "a view has no order", help);
        }
        if let Some(limit) = &query.limit_clause {
            let (inner, word) = match limit {
                LimitClause::LimitOffset { limit: Some(limit), .. } => (place(limit.span()), "LIMIT"),
                LimitClause::LimitOffset { offset: Some(offset), .. } => (place(offset.value.span()), "OFFSET"),
                LimitClause::LimitOffset { limit_by, .. } => (limit_by.first().and_then(|by| place(by.span())), "LIMIT"),
                LimitClause::OffsetCommaLimit { offset, .. } => (place(offset.span()), "LIMIT"),
            };
            return self.limit(word, inner);
        }
        if let Some(fetch) = &query.fetch {
            return self.limit("FETCH", fetch.quantity.as_ref().and_then(|quantity| place(quantity.span())));
        }
        if !query.locks.is_empty() || query.for_clause.is_some() {
            return no(self.keyword(&["FOR"], None), "FOR UPDATE, FOR SHARE, FOR XML and FOR JSON are not read here", "leave it out");
        }
        if query.settings.is_some() {
            return no(self.keyword(&["SETTINGS"], None), "SETTINGS is not read here", "leave it out");
        }
        if query.format_clause.is_some() {
            return no(self.keyword(&["FORMAT"], None), "FORMAT is not read here", "leave it out");
        }
        if !query.pipe_operators.is_empty() {
            return no(self.keyword(&["|>"], None), "the pipe |> is not supported", "write SELECT … FROM …");
        }
        self.set(&query.body)
    }

    fn limit(&self, word: &str, inner: Option<Place>) -> Step {
        let help = "use ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= k, or limit when you read the table";
        no(self.keyword(&[word], inner), format!("{word} has no one answer in a view"), help)
    }

    fn set(&self, body: &SetExpr) -> Step {
        match body {
            SetExpr::Select(_) | SetExpr::Query(_) => ControlFlow::Continue(()),
            SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } => {
                self.set(left)?;
                self.set(right)
            }
            SetExpr::SetOperation { op, right, .. } => {
                let word = op.to_string();
                no(self.keyword(&[&word], place(right.span())), format!("{word} {NOT_YET}"), "use UNION ALL and GROUP BY")
            }
            SetExpr::Values(_) => no(self.keyword(&["VALUES"], Some(self.here)), format!("VALUES in a view {NOT_YET}"), "read a source"),
            _ => no(self.at(body), "a view is made of a SELECT", "write SELECT … FROM …"),
        }
    }

    fn select(&mut self, select: &Select) -> Step {
        self.here = place(select.select_token.0.span).unwrap_or(self.here);
        let here = self.here;
        let ignored: [(bool, &[&str]); 11] = [
            (select.top.is_some(), &["TOP"]),
            (select.into.is_some(), &["INTO"]),
            (!select.lateral_views.is_empty(), &["LATERAL"]),
            (select.prewhere.is_some(), &["PREWHERE"]),
            (!select.connect_by.is_empty(), &["CONNECT", "BY"]),
            (!select.cluster_by.is_empty(), &["CLUSTER", "BY"]),
            (!select.distribute_by.is_empty(), &["DISTRIBUTE", "BY"]),
            (!select.sort_by.is_empty(), &["SORT", "BY"]),
            (select.value_table_mode.is_some(), &["AS"]),
            (select.exclude.is_some(), &["EXCLUDE"]),
            (select.select_modifiers.is_some(), &["SELECT"]),
        ];
        if let Some((_, words)) = ignored.iter().find(|(found, _)| *found) {
            let at = self.tokens.find(words, here).unwrap_or(here);
            return no(at, format!("{} is not supported", words.join(" ")), "write SELECT … FROM … WHERE … GROUP BY … HAVING …");
        }
        if select.flavor != SelectFlavor::Standard {
            return no(here, "a query begins with SELECT", "write SELECT * FROM …");
        }
        if let Some(Distinct::On(exprs)) = &select.distinct {
            let help = "use ROW_NUMBER() OVER (PARTITION BY key ORDER BY …) = 1";
            return no(
                self.keyword(&["DISTINCT", "ON"], exprs.first().and_then(|expr| place(expr.span()))),
                format!("DISTINCT ON {NOT_YET}"),
                help,
            );
        }
        let modifiers = match &select.group_by {
            GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => modifiers,
        };
        if !modifiers.is_empty() {
            return no(
                self.tokens.find(&["GROUP", "BY"], here).unwrap_or(here),
                format!("GROUP BY … WITH {NOT_YET}"),
                "name the columns to group by",
            );
        }
        if let Some(at) = select.selection.as_ref().and_then(aggregate) {
            return no(at, "an aggregate can't stand in WHERE", "use HAVING");
        }
        let conditions = [select.selection.as_ref(), select.having.as_ref(), select.qualify.as_ref()];
        if let Some(at) = conditions.into_iter().flatten().find_map(unnest) {
            let help = "write SELECT …, unnest(list) AS element in a sub-query, and the condition above it";
            return no(at.unwrap_or(here), "unnest stands in SELECT only", help);
        }
        if let (Some(having), GroupByExpr::Expressions(group, _)) = (&select.having, &select.group_by) {
            let items = select.projection.iter().any(|item| visit_expressions(item, is_aggregate).is_break());
            if group.is_empty() && !items && aggregate(having).is_none() {
                return no(self.keyword(&["HAVING"], place(having.span())), "HAVING needs GROUP BY or an aggregate", "use WHERE");
            }
        }
        if let Some(qualify) = &select.qualify {
            let windows = select.projection.iter().any(|item| visit_expressions(item, is_window).is_break());
            if !windows && visit_expressions(qualify, is_window).is_continue() {
                let help = "use WHERE, or QUALIFY row_number() OVER (…) <= k";
                return no(self.keyword(&["QUALIFY"], place(qualify.span())), "QUALIFY needs a window function", help);
            }
        }
        for item in &select.projection {
            if let SelectItem::ExprWithAliases { expr, .. } = item {
                return no(self.at(expr), "a column has one name", "write expression AS name");
            }
        }
        match select.from.as_slice() {
            [] => no(here, format!("a SELECT without FROM {NOT_YET}"), "read a source or a view"),
            all => all.iter().try_for_each(|one| self.joins(one)),
        }
    }

    fn joins(&self, table: &TableWithJoins) -> Step {
        for join in &table.joins {
            if let JoinOperator::AsOf { constraint, .. } = &join.join_operator
                && !matches!(constraint, JoinConstraint::On(_))
            {
                let at = self.keyword(&["ASOF"], place(join.relation.span()));
                return no(at, "ASOF JOIN takes ON", format!("write {}", asof::SHAPE));
            }
        }
        for join in &table.joins {
            let at = self.join_keyword(place(join.relation.span()));
            let outer = matches!(join.join_operator, JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_));
            match &join.join_operator {
                JoinOperator::CrossApply | JoinOperator::OuterApply | JoinOperator::StraightJoin(_) => {
                    return no(at, format!("this join {NOT_YET}"), "write JOIN … ON");
                }
                JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
                    return no(at, format!("ARRAY JOIN {NOT_YET}"), "write SELECT id, unnest(tags) AS tag FROM …");
                }
                JoinOperator::Join(on)
                | JoinOperator::Inner(on)
                | JoinOperator::Left(on)
                | JoinOperator::LeftOuter(on)
                | JoinOperator::Right(on)
                | JoinOperator::RightOuter(on)
                | JoinOperator::FullOuter(on)
                | JoinOperator::CrossJoin(on)
                | JoinOperator::Semi(on)
                | JoinOperator::LeftSemi(on)
                | JoinOperator::RightSemi(on)
                | JoinOperator::Anti(on)
                | JoinOperator::LeftAnti(on)
                | JoinOperator::RightAnti(on) => match on {
                    JoinConstraint::Natural => {
                        return no(at, "NATURAL JOIN joins on whatever columns are called alike", "write ON a.k = b.k AND …");
                    }
                    JoinConstraint::Using(_) if outer => {
                        return no(at, "USING in a RIGHT or FULL JOIN is not supported", "write ON a.k = b.k AND …");
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }

    /// The first word of `LEFT OUTER JOIN` and the like.
    fn join_keyword(&self, inner: Option<Place>) -> Place {
        let join = self.keyword(&["JOIN"], inner);
        let words = ["LEFT", "RIGHT", "FULL", "INNER", "OUTER", "CROSS", "NATURAL", "SEMI", "ANTI", "GLOBAL", "STRAIGHT"];
        let Some(mut index) = (0..self.tokens.all().len()).find(|index| self.tokens.place(*index) == join) else { return join };
        while index > 0 && self.tokens.word(index - 1).is_some_and(|word| words.contains(&word.as_str())) {
            index -= 1;
        }
        self.tokens.place(index)
    }

    fn alias(&self, alias: Option<&TableAlias>) -> Step {
        match alias {
            Some(TableAlias { at: Some(ident), .. }) => no(place(ident.span).unwrap_or(self.here), "AT is not supported", "leave it out"),
            Some(alias) if alias.columns.iter().any(|column| column.data_type.is_some()) => {
                no(self.at(alias), "an alias takes names, not types", "write AS t (a, b)")
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn table(&mut self, factor: &TableFactor) -> Step {
        let at = self.at(factor);
        let refuse = |what: &str, help: &str| no(at, format!("{what} {NOT_YET}"), help);
        match factor {
            TableFactor::Table { name, alias, args, with_hints, version, with_ordinality, partitions, json_path, sample, index_hints } => {
                self.alias(alias.as_ref())?;
                let at = self.at(name);
                if sample.is_some() {
                    return no(
                        self.tokens.find(&["TABLESAMPLE"], at).or_else(|| self.tokens.find(&["SAMPLE"], at)).unwrap_or(at),
                        "a sample has no one answer",
                        "filter by a hash of a key: WHERE …",
                    );
                }
                if version.is_some() {
                    return no(
                        at,
                        "a table's past versions are not read here",
                        "for a value as of a time write ASOF JOIN … MATCH_CONDITION",
                    );
                }
                if *with_ordinality || !partitions.is_empty() || json_path.is_some() || !index_hints.is_empty() || !with_hints.is_empty() {
                    return no(
                        at,
                        format!("only a name, an alias and arguments are read behind FROM; {name} has more"),
                        "leave the rest out",
                    );
                }
                match args {
                    Some(args) if args.settings.is_some() => no(at, "SETTINGS is not read here", "leave it out"),
                    Some(args) => {
                        if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = args.args.first() {
                            self.stands_for_table(first);
                        }
                        ControlFlow::Continue(())
                    }
                    None => ControlFlow::Continue(()),
                }
            }
            TableFactor::Derived { lateral: true, .. } | TableFactor::Function { lateral: true, .. } => {
                no(self.keyword(&["LATERAL"], Some(at)), format!("LATERAL {NOT_YET}"), "write the sub-query without it")
            }
            TableFactor::Derived { sample: Some(_), .. } => no(at, "a sample has no one answer", "filter by a hash of a key: WHERE …"),
            TableFactor::Derived { alias, .. } => self.alias(alias.as_ref()),
            TableFactor::NestedJoin { table_with_joins, alias } => {
                self.alias(alias.as_ref())?;
                self.joins(table_with_joins)
            }
            TableFactor::UNNEST { .. } => {
                let help = "write it in SELECT: SELECT id, unnest(tags) AS tag FROM …";
                no(self.keyword(&["UNNEST"], Some(at)), format!("unnest in FROM {NOT_YET}"), help)
            }
            TableFactor::TableFunction { .. } => no(at, "TABLE(…) is not read here", "write FROM tumble(t, ts, INTERVAL '1 minute')"),
            TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => refuse("PIVOT", "write aggregates with FILTER (WHERE …)"),
            TableFactor::MatchRecognize { .. } => refuse("MATCH_RECOGNIZE", "write the steps with ROW_NUMBER and windowed aggregates"),
            _ => refuse("this in FROM", "read a table, a view, a sub-query or a window function"),
        }
    }

    /// Marks an argument that is a table, with the table inside it.
    fn stands_for_table(&mut self, expr: &Expr) {
        self.tables.insert(std::ptr::from_ref(expr) as usize);
        match expr {
            Expr::Nested(inner) => self.stands_for_table(inner),
            Expr::Function(Function { args: FunctionArguments::List(list), .. }) => {
                if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = list.args.first() {
                    self.stands_for_table(first);
                }
            }
            _ => {}
        }
    }

    fn expr(&mut self, expr: &Expr) -> Step {
        if let Some(at) = place(expr.span()) {
            self.here = at;
        }
        if self.tables.contains(&(std::ptr::from_ref(expr) as usize)) {
            return ControlFlow::Continue(());
        }
        let at = self.here;
        match expr {
            // In WHERE it is a join; `shape` knows where it stands.
            Expr::Exists { .. } | Expr::InSubquery { negated: false, .. } => ControlFlow::Continue(()),
            Expr::InSubquery { .. } => {
                no(at, "NOT IN with a sub-query is not supported: one NULL in it would leave no row", "write NOT EXISTS (SELECT 1 FROM …)")
            }
            Expr::Subquery(_) => no(at, format!("a sub-query outside FROM {NOT_YET}"), "put it into FROM, or make it a view"),
            Expr::AtTimeZone { .. } => no(at, "AT TIME ZONE is not supported: every timestamp is UTC", "add or subtract an INTERVAL"),
            Expr::Function(function) => self.function(function),
            _ => ControlFlow::Continue(()),
        }
    }

    fn function(&self, function: &Function) -> Step {
        let at = self.at(&function.name);
        let name = function.name.to_string().to_lowercase();
        let is = |known: &std::collections::BTreeMap<String, _>| known.contains_key(&name);
        if let Some((_, shape)) = FUNCTIONS.iter().find(|(window, _)| {
            name == *window || name.strip_prefix(window).is_some_and(|rest| ["_start", "_end", "_rowtime", "_proctime"].contains(&rest))
        }) {
            let help = format!("write FROM {shape} and GROUP BY window_start, window_end");
            return no(at, format!("{name}(…) stands in FROM, not in an expression"), help);
        }
        if REGISTRY.unsteady.contains(&name) {
            let help = "use the event's own time: the WATERMARK column or _timestamp";
            let help = if ["random", "rand", "uuid", "gen_random_uuid"].contains(&name.as_str()) {
                "use a hash of the row's columns, such as its _partition and _offset"
            } else {
                help
            };
            return no(at, format!("{name} has no one answer: the same rows must give the same result"), help);
        }
        if let Some(over) = &function.over {
            return self.over(&name, function, over, at);
        }
        if !matches!(function.parameters, FunctionArguments::None) {
            return no(at, format!("{name} takes its arguments in one pair of parentheses"), format!("write {name}(…)"));
        }
        if is(&REGISTRY.aggregate) {
            return self.aggregate(&name, function, at);
        }
        let plain = function.filter.is_none() && function.within_group.is_empty() && function.null_treatment.is_none();
        let plain = plain
            && !matches!(&function.args, FunctionArguments::List(list) if list.duplicate_treatment.is_some() || !list.clauses.is_empty());
        if REGISTRY.scalar.contains_key(&name) || REGISTRY.higher_order.contains_key(&name) {
            return if plain {
                ControlFlow::Continue(())
            } else {
                no(at, format!("{name} is no aggregate: it takes no DISTINCT, ORDER BY or FILTER"), format!("write {name}(…)"))
            };
        }
        if name == "row_number" || ["rank", "dense_rank", "lag", "lead", "ntile", "percent_rank", "cume_dist"].contains(&name.as_str()) {
            return no(at, format!("{name} needs OVER"), "write row_number() OVER (PARTITION BY … ORDER BY …)");
        }
        if name == "unnest" {
            let one = matches!(&function.args, FunctionArguments::List(list) if list.args.len() == 1);
            return match plain && one {
                true => ControlFlow::Continue(()),
                false => no(at, "unnest takes one list", "write SELECT unnest(list) AS element FROM …"),
            };
        }
        if REGISTRY.unsupported.contains(&name) {
            return no(at, format!("the aggregate {name} {NOT_YET}"), format!("there are {}", AGGREGATES.join(", ")));
        }
        let complaint = Complaint::new(at, format!("there is no function {name}"));
        ControlFlow::Break(Box::new(complaint.suggest(&name, REGISTRY.names())))
    }

    fn aggregate(&self, name: &str, function: &Function, at: Place) -> Step {
        debug_assert!(AGGREGATES.contains(&name));
        let ordered = ORDERED.contains(&name);
        let FunctionArguments::List(list) = &function.args else { return ControlFlow::Continue(()) };
        let clause = |clause: &FunctionArgumentClause| match clause {
            FunctionArgumentClause::OrderBy(_) => !ordered,
            FunctionArgumentClause::IgnoreOrRespectNulls(_) => false,
            _ => true,
        };
        let nulls = list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::IgnoreOrRespectNulls(_)));
        if (nulls || function.null_treatment.is_some()) && !["array_agg", "first_value", "last_value"].contains(&name) {
            let help = "aggregates leave NULLs out; array_agg, first_value and last_value do so with IGNORE NULLS";
            return no(at, format!("{name}: IGNORE NULLS is not read here"), help);
        }
        if let Some(found) = list.clauses.iter().find(|each| clause(each)) {
            return no(
                at,
                if matches!(found, FunctionArgumentClause::OrderBy(_)) {
                    format!("{name} gives the same in any order; it takes no clause behind its arguments")
                } else {
                    format!("{name} does not read {found}")
                },
                format!("write {name}(…)"),
            );
        }
        let within = ["approx_percentile_cont", "approx_median", "percentile_cont", "quantile_cont"].contains(&name);
        if !function.within_group.is_empty() && !within {
            return no(at, format!("{name} takes no WITHIN GROUP"), format!("write {name}(…)"));
        }
        if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
            self.distinct(name, list, at)?;
        }
        let arguments = list.args.len() + function.within_group.len();
        let pair = name == "corr" || name.starts_with("covar") || name.starts_with("regr_");
        if arguments != 2 && (pair || name == "nth_value") {
            let shape = if pair { "y, x" } else { "x, 2" };
            return no(at, format!("{name} takes two arguments"), format!("write {name}({shape})"));
        }
        if ["approx_percentile_cont", "percentile_cont", "quantile_cont"].contains(&name) && arguments != 2 {
            return no(at, format!("{name} takes a value and a fraction"), format!("write {name}(x, 0.99)"));
        }
        ControlFlow::Continue(())
    }

    /// `name(DISTINCT …)`.
    fn distinct(&self, name: &str, list: &FunctionArgumentList, at: Place) -> Step {
        if ["first_value", "last_value", "nth_value", "any_value"].contains(&name) {
            return no(at, format!("{name}(DISTINCT …) is not supported: it takes one row's value"), format!("write {name}(…)"));
        }
        let arguments = match name {
            "string_agg" | "corr" | "approx_percentile_cont" | "percentile_cont" | "quantile_cont" => 2,
            _ if name.starts_with("regr_") || name.starts_with("covar") => 2,
            _ => 1,
        };
        if list.args.len() > arguments {
            let (count, help) = match arguments {
                1 => ("one argument", "put several into one: count(DISTINCT struct(a, b))".to_owned()),
                _ => ("two arguments", format!("write {name}(DISTINCT …, …)")),
            };
            return no(at, format!("{name}(DISTINCT …) takes {count}"), help);
        }
        let by = list.clauses.iter().find_map(|clause| match clause {
            FunctionArgumentClause::OrderBy(by) => Some(by),
            _ => None,
        });
        let value = match list.args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(value))) => Some(value),
            _ => None,
        };
        match by.map(Vec::as_slice) {
            Some([one]) if value.is_some_and(|value| *value == one.expr) => ControlFlow::Continue(()),
            Some(_) => {
                let help = "ORDER BY the value itself: a value that occurs twice has no one place in another order";
                no(at, format!("{name}(DISTINCT … ORDER BY …) is ordered by its value only"), help)
            }
            None => ControlFlow::Continue(()),
        }
    }

    fn over(&self, name: &str, function: &Function, over: &WindowType, at: Place) -> Step {
        let help = "write row_number() OVER (PARTITION BY k ORDER BY x) and keep the first k of it with WHERE";
        match name {
            "row_number" => {
                if function.filter.is_some() || function.null_treatment.is_some() {
                    return no(at, "row_number takes no FILTER and no IGNORE NULLS", help);
                }
                match over {
                    WindowType::WindowSpec(spec) if spec.window_frame.is_some() => no(at, "row_number takes no frame", help),
                    _ => ControlFlow::Continue(()),
                }
            }
            "rank" | "dense_rank" | "percent_rank" | "cume_dist" | "ntile" => {
                no(at, format!("{name} is not supported: a change of one row would change every row behind it"), help)
            }
            _ if REGISTRY.aggregate.contains_key(name) || REGISTRY.unsupported.iter().any(|other| other == name) => {
                no(at, format!("{name} OVER (…) {NOT_YET}"), "use tumble, hop or session and GROUP BY, or row_number() OVER (…) <= k")
            }
            _ => {
                let complaint = Complaint::new(at, format!("there is no window function {name}"));
                ControlFlow::Break(Box::new(complaint.help(help)))
            }
        }
    }
}

/// Where an aggregate stands in an expression.
fn aggregate(expr: &Expr) -> Option<Place> {
    match visit_expressions(expr, is_aggregate) {
        ControlFlow::Break(place) => place,
        ControlFlow::Continue(()) => None,
    }
}

fn is_aggregate(expr: &Expr) -> ControlFlow<Option<Place>> {
    match expr {
        Expr::Function(function)
            if function.over.is_none() && REGISTRY.aggregate.contains_key(&function.name.to_string().to_lowercase()) =>
        {
            ControlFlow::Break(place(function.name.span()))
        }
        _ => ControlFlow::Continue(()),
    }
}

/// Where an expression unnests a list.
fn unnest(expr: &Expr) -> Option<Option<Place>> {
    let found = visit_expressions(expr, |expr| match expr {
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("unnest") => {
            ControlFlow::Break(place(function.name.span()))
        }
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Break(place) => Some(place),
        ControlFlow::Continue(()) => None,
    }
}

fn is_window(expr: &Expr) -> ControlFlow<()> {
    if matches!(expr, Expr::Function(function) if function.over.is_some()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

impl Visitor for Refuse<'_> {
    type Break = Box<Complaint>;

    fn pre_visit_query(&mut self, query: &Query) -> Step {
        self.here = place(query.span()).unwrap_or(self.here);
        self.query(query)
    }

    fn pre_visit_select(&mut self, select: &Select) -> Step {
        self.select(select)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Step {
        self.table(factor)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Step {
        self.expr(expr)
    }
}
