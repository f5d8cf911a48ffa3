//! The batch floor: DataFusion in this process and DuckDB beside it, one thread each, over the same records as NDJSON.
//!
//! Not comparable in full: a batch engine sees the whole file, keeps no state past the end, judges no lateness, writes no epochs, and checks
//! only what it reads of a record.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use datafusion::prelude::{JsonReadOptions, SessionConfig, SessionContext};
use futures::StreamExt;
use tidemill_engine::error::{Error, Result};

use crate::usage;

/// What both can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Three of seven columns of every record.
    Project,
    /// Bids by window of 10 s and key.
    Tumble,
}

/// CPU seconds, seconds of wall clock, rows of the answer and bids in it.
pub type Answered = (f64, f64, i64, i64);

fn schema() -> Schema {
    let int = |name: &str| Field::new(name, DataType::Int64, true);
    let text = |name: &str| Field::new(name, DataType::Utf8View, true);
    let time = Field::new("dateTime", DataType::Timestamp(TimeUnit::Microsecond, None), true);
    Schema::new(vec![int("auction"), int("bidder"), int("price"), text("channel"), text("url"), time, text("extra")])
}

/// DataFusion, one partition.
pub fn datafusion(file: &Path, question: Question) -> Result<Answered> {
    let wrong = |error: datafusion::error::DataFusionError| Error::failed(error.strip_backtrace());
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let sql = match question {
        Question::Project => "SELECT auction, price, \"dateTime\" FROM bids",
        Question::Tumble => {
            "SELECT date_bin(INTERVAL '10 seconds', \"dateTime\") AS start, auction, count(*) AS bids FROM bids GROUP BY 1, 2"
        }
    };
    runtime.block_on(async {
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let schema = schema();
        let options = JsonReadOptions::default().schema(&schema).file_extension(".ndjson");
        session.register_json("bids", file.to_string_lossy(), options).await.map_err(wrong)?;
        let (cpu, began) = (usage::cpu_s(), Instant::now());
        let mut stream = session.sql(sql).await.map_err(wrong)?.execute_stream().await.map_err(wrong)?;
        let (mut rows, mut bids) = (0, 0);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(wrong)?;
            rows += batch.num_rows() as i64;
            bids += match batch.column_by_name("bids").and_then(|column| column.as_primitive_opt::<Int64Type>()) {
                Some(bids) => bids.values().iter().sum(),
                None => batch.num_rows() as i64,
            };
        }
        Ok((usage::cpu_s() - cpu, began.elapsed().as_secs_f64(), rows, bids))
    })
}

/// DuckDB, by `peers/duckdb_floor.py`; the reason when there is none.
pub fn duckdb(python: &str, file: &Path, question: Question) -> std::result::Result<Answered, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/duckdb_floor.py");
    let name = if question == Question::Project { "project" } else { "tumble" };
    let done =
        Command::new(python).arg(script).arg(file).arg(name).stdin(Stdio::null()).output().map_err(|error| format!("{python}: {error}"))?;
    let said = String::from_utf8_lossy(&done.stdout);
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers.as_slice() {
        [cpu, wall, rows, bids] if done.status.success() => Ok((*cpu, *wall, *rows as i64, *bids as i64)),
        _ => Err(String::from_utf8_lossy(&done.stderr).lines().last().unwrap_or("no answer").to_owned()),
    }
}
