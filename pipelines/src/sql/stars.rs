//! Hidden columns and `*`: which statements see hidden columns, and stars that never show them.
//!
//! Always: a statement sees the hidden columns of its sources only if it names one; there every `*` over a source leaves them out. Names
//! behind EXCLUDE fold like all others. Called by `plan` on a copy of the query.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, TableFactor, TableFunctionArgs, TableWithJoins, VisitMut, VisitorMut, visit_expressions,
};

use super::context::{HIDDEN, hidden_fields};
use super::lex::fold;

/// Whether an expression of the query names a hidden column.
pub(super) fn names_hidden(query: &Query) -> bool {
    let is = |ident: &Ident| HIDDEN.contains(&fold(&ident.value, ident.quote_style).as_str());
    visit_expressions(query, |expr| match expr {
        Expr::Identifier(ident) if is(ident) => ControlFlow::Break(()),
        Expr::CompoundIdentifier(idents) if idents.iter().any(is) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// Takes the hidden columns of `sources` out of every star, when they are shown.
pub(super) fn settle(query: &mut Query, sources: &[&str], shown: bool) {
    let mut stars = Stars { sources: sources.iter().map(|name| (*name).to_owned()).collect(), shown };
    let _ = query.visit(&mut stars);
}

struct Stars {
    /// Names that mean a source: a WITH query may take one away.
    sources: Vec<String>,
    shown: bool,
}

impl VisitorMut for Stars {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = fold(&cte.alias.name.value, cte.alias.name.quote_style);
            self.sources.retain(|source| *source != name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if self.shown {
            self.part_stars(select);
        }
        let hides = self.shown && select.from.iter().any(|table| self.is_source(&table.relation));
        for item in &mut select.projection {
            let joined = matches!(item, SelectItem::QualifiedWildcard(..)).then(|| self.hidden_in(item, &select.from)).flatten();
            if let SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) = item {
                let given = match options.opt_exclude.take() {
                    Some(ExcludeSelectItem::Single(name)) => vec![name],
                    Some(ExcludeSelectItem::Multiple(names)) => names,
                    None => Vec::new(),
                };
                let mut names: Vec<ObjectName> = given.into_iter().map(folded).collect();
                if joined.unwrap_or(hides) {
                    for field in hidden_fields() {
                        let name = ObjectName::from(vec![Ident::with_quote('"', field.name())]);
                        if !names.contains(&name) {
                            names.push(name);
                        }
                    }
                }
                options.opt_exclude = (!names.is_empty()).then_some(ExcludeSelectItem::Multiple(names));
            }
        }
        ControlFlow::Continue(())
    }
}

/// The relations of FROM, and of the joins in it.
fn relations<'a>(from: &'a [TableWithJoins], into: &mut Vec<&'a TableFactor>) {
    for table in from {
        for factor in std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation)) {
            match factor {
                TableFactor::NestedJoin { table_with_joins, alias: None } => {
                    relations(std::slice::from_ref(table_with_joins.as_ref()), into)
                }
                other => into.push(other),
            }
        }
    }
}

/// What a relation's columns are qualified by.
fn qualifier(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::NestedJoin { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, args: None, .. } => name.0.last().and_then(|part| part.as_ident()).cloned(),
        _ => None,
    }
}

impl Stars {
    /// Over a join, `*` becomes a star of each side: hidden columns are left out of each by itself.
    fn part_stars(&self, select: &mut Select) {
        let mut all = Vec::new();
        relations(&select.from, &mut all);
        let names: Option<Vec<Ident>> = all.iter().map(|factor| qualifier(factor)).collect();
        let Some(names) = names.filter(|names| names.len() > 1) else { return };
        let mut items = Vec::with_capacity(select.projection.len());
        for item in std::mem::take(&mut select.projection) {
            match item {
                SelectItem::Wildcard(options) if options.opt_exclude.is_none() => items.extend(names.iter().map(|name| {
                    let of = SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![name.clone()]));
                    SelectItem::QualifiedWildcard(of, options.clone())
                })),
                other => items.push(other),
            }
        }
        select.projection = items;
    }

    /// Whether `t.*` is over a source; `None` if no relation of FROM is called so.
    fn hidden_in(&self, item: &SelectItem, from: &[TableWithJoins]) -> Option<bool> {
        let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item else { return None };
        let wanted = name.0.last().and_then(|part| part.as_ident()).map(|ident| fold(&ident.value, ident.quote_style))?;
        let mut all = Vec::new();
        relations(from, &mut all);
        let named = |factor: &&TableFactor| qualifier(factor).is_some_and(|ident| fold(&ident.value, ident.quote_style) == wanted);
        all.into_iter().find(named).map(|factor| self.shown && self.is_source(factor))
    }

    fn is_source(&self, factor: &TableFactor) -> bool {
        match factor {
            TableFactor::Table { name, args: None, .. } => self.names_source(name),
            TableFactor::Table { args: Some(TableFunctionArgs { args, .. }), .. } => self.first_is_source(args),
            TableFactor::NestedJoin { table_with_joins, .. } => self.is_source(&table_with_joins.relation),
            _ => false,
        }
    }

    fn first_is_source(&self, args: &[FunctionArg]) -> bool {
        match args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) => self.expr_is_source(expr),
            _ => false,
        }
    }

    fn expr_is_source(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Identifier(ident) => self.names_source(&ObjectName::from(vec![ident.clone()])),
            Expr::CompoundIdentifier(idents) => self.names_source(&ObjectName::from(idents.clone())),
            Expr::Nested(inner) => self.expr_is_source(inner),
            Expr::Function(Function { args: FunctionArguments::List(list), .. }) => self.first_is_source(&list.args),
            _ => false,
        }
    }

    fn names_source(&self, name: &ObjectName) -> bool {
        let last = name.0.last().and_then(|part| part.as_ident());
        last.is_some_and(|ident| self.sources.contains(&fold(&ident.value, ident.quote_style)))
    }
}

fn folded(name: ObjectName) -> ObjectName {
    let idents = name.0.iter().filter_map(|part| part.as_ident());
    ObjectName::from(
        idents
            .map(|ident| Ident { value: fold(&ident.value, ident.quote_style), quote_style: Some('"'), span: ident.span })
            .collect::<Vec<_>>(),
    )
}
