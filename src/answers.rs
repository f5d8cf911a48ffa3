//! An answer of the tables, printed as it comes.
//!
//! Always: results go to stdout and nowhere else; rows are written while they are computed, a few batches apart; a query that is busy can be
//! ended all the same. How a value looks is `serve::format`'s.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use futures::StreamExt;
use tidemill_engine::error::{Error, Result};
use tidemill_pipelines::serve::format::Printer;
use tidemill_pipelines::serve::{QueryOptions, Serve};
use tokio::runtime::Runtime;

use crate::cli;
use crate::exit::Out;

/// Batches computed ahead of what is printed.
const BATCHES_WAITING_MAX: usize = 2;
/// A query that notices its limit itself says so first.
const GRACE: Duration = Duration::from_millis(500);

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

/// Answers over a data folder, and the threads that compute them.
pub struct Asking {
    serve: Arc<Serve>,
    runtime: Option<Runtime>,
    timeout: Option<Duration>,
}

impl Asking {
    /// Over `folder`; a query that takes longer than `timeout` is ended.
    pub fn open(folder: &Path, memory_bytes_max: usize, timeout: Option<Duration>, threads: usize) -> Result<Self> {
        Self::named(folder, memory_bytes_max, timeout, threads, "-c")
    }

    /// The same over texts that errors call `text_name`.
    pub fn named(
        folder: &Path,
        memory_bytes_max: usize,
        timeout: Option<Duration>,
        threads: usize,
        text_name: &'static str,
    ) -> Result<Self> {
        let options = QueryOptions { memory_bytes_max, timeout, threads, text_name, ..QueryOptions::default() };
        let serve = Arc::new(Serve::new(folder, Default::default(), options)?);
        let built = tokio::runtime::Builder::new_multi_thread().worker_threads(threads.max(1) + 1).enable_all().build();
        let runtime = built.map_err(|error| Error::failed(format!("threads can't be started: {error}")))?;
        Ok(Self { serve, runtime: Some(runtime), timeout })
    }

    /// Calls `each` with the columns, then with every batch of rows. False if `cancel` came first.
    pub fn ask(&self, query: &str, cancel: Cancel, mut each: impl FnMut(&SchemaRef, Option<&RecordBatch>) -> Result<()>) -> Result<bool> {
        let Some(runtime) = &self.runtime else { return Err(Error::failed("there are no threads")) };
        let (serve, query, timeout) = (Arc::clone(&self.serve), query.to_owned(), self.timeout);
        runtime.block_on(async {
            let (sender, mut receiver) = tokio::sync::mpsc::channel(BATCHES_WAITING_MAX);
            // A plan may compute for long before it yields: on a task of its own it holds up neither a cancel nor the limit.
            let task = tokio::spawn(async move {
                let mut answer = serve.query(&query).await?;
                let mut open = sender.send((Arc::clone(&answer.schema), None)).await.is_ok();
                while open && let Some(batch) = answer.batches.next().await {
                    open = sender.send((Arc::clone(&answer.schema), Some(batch?))).await.is_ok();
                }
                Result::Ok(())
            });
            let abort = task.abort_handle();
            let take = async {
                while let Some((schema, batch)) = receiver.recv().await {
                    each(&schema, batch.as_ref())?;
                }
                task.await.unwrap_or_else(|_| Err(Error::failed("the query broke down; this is a bug in Tidemill")))
            };
            let outcome = tokio::select! {
                taken = take => taken.map(|()| true),
                () = cancelled(cancel) => Ok(false),
                error = overdue(timeout) => Err(error),
            };
            abort.abort();
            outcome
        })
    }

    /// Prints an answer, behind a blank line if `parted`. False if `cancel` came first.
    pub fn print(&self, query: &str, format: Format, cancel: Cancel, parted: bool) -> Result<bool> {
        let mut printer: Option<Printer<Out>> = None;
        let finished = self.ask(query, cancel, |schema, batch| {
            let printer = match &mut printer {
                Some(printer) => printer,
                None => {
                    if parted {
                        line("")?;
                    }
                    printer.insert(Printer::new(format, schema, Out::new())?)
                }
            };
            batch.map_or(Ok(()), |batch| printer.write(batch))
        })?;
        if let Some(printer) = printer.filter(|_| finished) {
            printer.finish()?;
        }
        Ok(finished)
    }

    /// The rows of a query whose columns are read as texts.
    pub fn texts<const N: usize>(&self, query: &str) -> Result<Vec<[String; N]>> {
        let mut rows = Vec::new();
        self.ask(query, Cancel::Never, |_, batch| {
            let Some(batch) = batch else { return Ok(()) };
            let columns = batch.columns().iter().map(|column| Ok(cast(column, &DataType::Utf8)?)).collect::<Result<Vec<ArrayRef>>>()?;
            for row in 0..batch.num_rows() {
                rows.push(std::array::from_fn(|index| {
                    let text = columns.get(index).and_then(|column| column.as_any().downcast_ref::<StringArray>());
                    text.map(|text| text.value(row).to_owned()).unwrap_or_default()
                }));
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// The columns of a query.
    pub fn columns(&self, query: &str) -> Result<SchemaRef> {
        let mut columns = Arc::new(Schema::empty());
        self.ask(query, Cancel::Never, |schema, _| {
            columns = Arc::clone(schema);
            Ok(())
        })?;
        Ok(columns)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // A query that was ended may go on computing until it next yields: it is not waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What may end a query early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// Ctrl-C.
    Interrupt,
    /// Nothing.
    Never,
}

async fn cancelled(cancel: Cancel) {
    match cancel {
        Cancel::Interrupt if tokio::signal::ctrl_c().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// The limit, seen from outside: the query itself may be too busy to notice.
async fn overdue(timeout: Option<Duration>) -> Error {
    match timeout {
        Some(limit) => {
            tokio::time::sleep(limit + GRACE).await;
            Error::failed(format!(
                "the query took longer than {} s and was ended; narrow it, or use the prompt, which has no limit",
                limit.as_secs()
            ))
        }
        None => std::future::pending().await,
    }
}

/// Prints a line among the results.
pub fn line(text: &str) -> Result<()> {
    let mut out = Out::new();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
