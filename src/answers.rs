//! An answer of the tables, printed as it comes.
//!
//! Always: results go to stdout and nowhere else; rows are written while they are computed. How a value looks is `serve::format`'s.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use tidemill_engine::error::{Error, Result};
use tidemill_pipelines::serve::format::Printer;
use tidemill_pipelines::serve::{Answer, QueryOptions, Serve};
use tokio::runtime::Runtime;

use crate::cli;
use crate::exit::Out;

/// How rows are printed.
pub use tidemill_pipelines::serve::format::Format;

impl From<cli::Format> for Format {
    fn from(format: cli::Format) -> Self {
        match format {
            cli::Format::Table => Self::Table,
            cli::Format::Csv => Self::Csv,
            cli::Format::Json => Self::Json,
            cli::Format::Arrow => Self::Arrow,
        }
    }
}

/// Answers over a data folder.
pub fn serve(folder: &Path, memory_bytes_max: usize, timeout: Option<Duration>, threads: usize) -> Result<Serve> {
    let options = QueryOptions { memory_bytes_max, timeout, threads, ..QueryOptions::default() };
    Serve::new(folder, Default::default(), options)
}

/// What queries run on.
pub fn runtime(threads: usize) -> Result<Runtime> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(threads.max(1)).enable_all().build();
    built.map_err(|error| Error::failed(format!("threads can't be started: {error}")))
}

/// Prints an answer; how many rows it had.
pub async fn print(mut answer: Answer, format: Format) -> Result<u64> {
    let mut printer = Printer::new(format, &answer.schema, Out::new())?;
    while let Some(batch) = answer.batches.next().await {
        printer.write(&batch?)?;
    }
    printer.finish()
}

/// Prints a line among the results.
pub fn line(text: &str) -> Result<()> {
    let mut out = Out::new();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
