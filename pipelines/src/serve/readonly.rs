//! Which statements `tidemill sql` takes: queries and what explains or lists. Everything else is refused before it is planned.
//!
//! Always: by what is allowed, not by what is forbidden; a query that hides a write (in a CTE, `SELECT INTO`) is refused too. The plan is
//! checked once more by `SQLOptions` in `session`.

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Query, SetExpr, Statement as Sql, TableFactor, TableWithJoins};
use tidemill_engine::error::{Error, Result};

/// Refuses what is not a query.
pub(super) fn check(statement: &Statement) -> Result<()> {
    match statement {
        Statement::Statement(statement) => check_sql(statement),
        Statement::Explain(explain) => check(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => Err(refusal(&statement.to_string())),
    }
}

fn check_sql(statement: &Sql) -> Result<()> {
    match statement {
        Sql::Query(query) => check_query(query),
        Sql::Explain { statement, .. } => check_sql(statement),
        Sql::ExplainTable { .. }
        | Sql::ShowTables { .. }
        | Sql::ShowColumns { .. }
        | Sql::ShowVariable { .. }
        | Sql::ShowFunctions { .. } => Ok(()),
        other => Err(refusal(&other.to_string())),
    }
}

fn check_query(query: &Query) -> Result<()> {
    for table in query.with.iter().flat_map(|with| &with.cte_tables) {
        check_query(&table.query)?;
    }
    if !query.locks.is_empty() {
        return Err(Error::refused("FOR UPDATE locks nothing here: this is read-only, leave it out"));
    }
    check_body(&query.body)
}

fn check_body(body: &SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(select) => {
            if select.into.is_some() {
                return Err(refusal("SELECT INTO"));
            }
            select.from.iter().try_for_each(check_from)
        }
        SetExpr::Query(query) => check_query(query),
        SetExpr::SetOperation { left, right, .. } => {
            check_body(left)?;
            check_body(right)
        }
        SetExpr::Values(_) | SetExpr::Table(_) => Ok(()),
        other => Err(refusal(&other.to_string())),
    }
}

fn check_from(from: &TableWithJoins) -> Result<()> {
    let factors = std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation));
    for factor in factors {
        match factor {
            TableFactor::Derived { subquery, .. } => check_query(subquery)?,
            TableFactor::NestedJoin { table_with_joins, .. } => check_from(table_with_joins)?,
            // The planner would drop these without a word.
            TableFactor::Table { version: Some(_), .. } => {
                return Err(Error::refused("FOR SYSTEM_TIME AS OF is refused: a query reads the newest epoch"));
            }
            TableFactor::Table { sample: Some(_), .. } => return Err(Error::refused("TABLESAMPLE is refused: use WHERE random() < 0.1")),
            _ => {}
        }
    }
    Ok(())
}

fn refusal(statement: &str) -> Error {
    let word = |c: &char| c.is_ascii_alphabetic() || *c == ' ';
    let words: String = statement.chars().take_while(word).collect();
    let words: Vec<&str> = words.split_whitespace().take(2).collect();
    let what = match words.as_slice() {
        [] => "this".to_owned(),
        [first @ ("CREATE" | "DROP" | "ALTER" | "SELECT"), second] => format!("{first} {second}"),
        [first, ..] => (*first).to_owned(),
    };
    Error::refused(format!(
        "this is read-only: {what} is refused, SELECT, EXPLAIN, SHOW and DESCRIBE work; tables are written by `tidemill run FILE.sql`"
    ))
}
