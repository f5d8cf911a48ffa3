//! `tidemill.accounting` against the records themselves: each account balances, and says as many records and dead letters as there are.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use tidemill_engine::epoch::system::{ACCOUNTING, DEAD_LETTERS};
use tidemill_engine::error::{Error, Result};

use super::Verifier;
use super::compare::failed;
use super::report::{Check, Report};
use crate::serve::output_table;

/// All accounts, with the last level of what is held, and the records that an expression of the output failed on.
const SUMS: &str = "
    WITH last AS (SELECT source, output, max(epoch) AS epoch FROM accounting GROUP BY source, output),
         held AS (SELECT a.source, a.output, sum(a.in_state) AS in_state FROM accounting a
                  JOIN last l ON a.source = l.source AND a.output = l.output AND a.epoch = l.epoch GROUP BY a.source, a.output),
         failing AS (SELECT source, output, count(*) AS failing FROM dead_letters WHERE output IS NOT NULL GROUP BY source, output),
         sums AS (SELECT source, output, sum(rows_in) AS rows_in, sum(dead) AS dead,
                         sum(dead + duplicate + filtered + late + \"out\") AS settled FROM accounting GROUP BY source, output)
    SELECT CAST(s.source AS VARCHAR), CAST(s.output AS VARCHAR), s.rows_in, s.dead, s.settled, h.in_state, coalesce(f.failing, 0)
    FROM sums s JOIN held h ON s.source = h.source AND s.output = h.output
    LEFT JOIN failing f ON s.source = f.source AND s.output = f.output ORDER BY 1, 2";

impl Verifier<'_> {
    pub(super) async fn accounts(&self, report: &mut Report) -> Result<()> {
        let wrong = |error: datafusion::common::DataFusionError| failed(&error);
        for (name, folder) in [("accounting", ACCOUNTING), ("dead_letters", DEAD_LETTERS)] {
            let table = output_table(self.batch.store, self.batch.table(folder)?);
            self.context.register_table(name, table).map_err(wrong)?;
        }
        let rows = self.context.sql(SUMS).await.map_err(wrong)?.collect().await.map_err(wrong)?;
        for account in rows.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row))) {
            report.checks.push(self.account(account.0, account.1)?);
        }
        Ok(())
    }

    fn account(&self, batch: &RecordBatch, row: usize) -> Result<Check> {
        let text = |column: usize| -> Result<String> {
            let column = datafusion::arrow::compute::cast(batch.column(column), &datafusion::arrow::datatypes::DataType::Utf8)?;
            Ok(column.as_string::<i32>().value(row).to_owned())
        };
        let number = |column: usize| {
            let column = batch.column(column).as_primitive_opt::<Int64Type>().filter(|column| column.is_valid(row));
            column.map(|column| column.value(row)).ok_or_else(|| Error::failed("an account without its numbers"))
        };
        let (source, output) = (text(0)?, text(1)?);
        let [rows_in, dead, settled, held, failing] = [number(2)?, number(3)?, number(4)?, number(5)?, number(6)?];
        let mut check = Check::new(&output, "records");
        let log = self.batch.logs.get(&(source.clone(), self.batch.reading(&output)));
        let (records, bad) = log.map_or((0, 0), |log| (log.records as i64, log.dead_records as i64));
        (check.expected, check.found) = (records.unsigned_abs(), rows_in.unsigned_abs());
        let mut wrong = Vec::new();
        if rows_in != records {
            wrong.push(format!("it counts {rows_in} records in, and {records} were read"));
        }
        if dead != bad + failing {
            wrong.push(format!("it counts {dead} dead letters, and there are {}", bad + failing));
        }
        if rows_in != settled + held {
            wrong.push(format!(
                "{rows_in} records are in, {settled} are settled and {held} are held: {} are nowhere",
                rows_in - settled - held
            ));
        }
        if !wrong.is_empty() {
            check.wrong = Some(format!("the account of {source}: {}", wrong.join("; ")));
        }
        Ok(check)
    }
}
