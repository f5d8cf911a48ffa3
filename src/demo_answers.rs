//! What a demo shows at its end: the case's questions with their answers, and that every record has its place.
//!
//! Always: on stdout, through the same SQL that users have.

use tidemill_engine::error::Result;

use crate::answers::{self, Asking, Cancel, Format};
use crate::demo::heading;
use crate::statements;

/// Asks every question of `text`; its `-- Q:` line is the heading.
pub fn questions(asking: &Asking, text: &str) -> Result<()> {
    for piece in statements::split(text) {
        if let Some(question) = piece.text.lines().rev().find_map(|line| line.trim().strip_prefix("-- Q:")) {
            heading(question.trim())?;
        }
        asking.print(&piece.in_place(), Format::Table, Cancel::Never, false)?;
    }
    Ok(())
}

/// Shows the accounts and says whether they balance.
pub fn accounting(asking: &Asking, pipeline: &str) -> Result<bool> {
    let accounts = format!(
        "SELECT source, output, sum(rows_in) AS rows_in, sum(dead) AS dead, sum(duplicate) AS duplicate, sum(filtered) AS filtered,
                sum(late) AS late, sum(\"out\") AS \"out\", last_value(in_state ORDER BY epoch) AS in_state
         FROM tidemill.accounting WHERE pipeline = '{pipeline}' GROUP BY source, output"
    );
    heading("The accounts: every record of every source, in each output")?;
    let shown = format!(
        "SELECT *, rows_in - dead - duplicate - filtered - late - \"out\" - in_state AS difference FROM ({accounts}) ORDER BY source, output"
    );
    asking.print(&shown, Format::Table, Cancel::Never, false)?;
    let wrong = format!("SELECT 1 FROM ({accounts}) WHERE rows_in <> dead + duplicate + filtered + late + \"out\" + in_state");
    let balanced = asking.texts::<1>(&wrong)?.is_empty();
    if balanced {
        answers::line("Every record has its place: rows_in = dead + duplicate + filtered + late + out + in_state.")?;
    }
    Ok(balanced)
}
