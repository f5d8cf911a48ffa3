//! What a demo shows at its end: the case's questions with their answers, and that every record has its place.
//!
//! Always: on stdout, through the same SQL that users have.

use futures::StreamExt;
use tidemill_engine::error::Result;
use tidemill_pipelines::serve::Serve;
use tokio::runtime::Runtime;

use crate::answers::{self, Format};
use crate::demo::heading;
use crate::statements;

/// Asks every question of `text`; its `-- Q:` line is the heading.
pub fn questions(serve: &Serve, runtime: &Runtime, text: &str) -> Result<()> {
    for piece in statements::split(text) {
        if let Some(question) = piece.text.lines().rev().find_map(|line| line.trim().strip_prefix("-- Q:")) {
            heading(question.trim())?;
        }
        runtime.block_on(async { answers::print(serve.query(&piece.in_place()).await?, Format::Table).await })?;
    }
    Ok(())
}

/// Shows the accounts and says whether they balance.
pub fn accounting(serve: &Serve, runtime: &Runtime, pipeline: &str) -> Result<bool> {
    let accounts = format!(
        "SELECT source, output, sum(rows_in) AS rows_in, sum(dead) AS dead, sum(duplicate) AS duplicate, sum(filtered) AS filtered,
                sum(late) AS late, sum(\"out\") AS \"out\", last_value(in_state ORDER BY epoch) AS in_state
         FROM tidemill.accounting WHERE pipeline = '{pipeline}' GROUP BY source, output"
    );
    heading("The accounts: every record of every source, in each output")?;
    let shown = format!(
        "SELECT *, rows_in - dead - duplicate - filtered - late - \"out\" - in_state AS difference FROM ({accounts}) ORDER BY source, output"
    );
    runtime.block_on(async { answers::print(serve.query(&shown).await?, Format::Table).await })?;
    let wrong = format!("SELECT 1 FROM ({accounts}) WHERE rows_in <> dead + duplicate + filtered + late + \"out\" + in_state");
    let wrong = runtime.block_on(async {
        let mut answer = serve.query(&wrong).await?;
        let mut rows = 0;
        while let Some(batch) = answer.batches.next().await {
            rows += batch?.num_rows();
        }
        Result::Ok(rows)
    })?;
    if wrong == 0 {
        answers::line("Every record has its place: rows_in = dead + duplicate + filtered + late + out + in_state.")?;
    }
    Ok(wrong == 0)
}
