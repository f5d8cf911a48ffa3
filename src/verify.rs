//! `tidemill verify FILE.sql`: the tables against a batch over the same records, as a table of what was compared, then the rows that differ.
//!
//! Always: results on stdout, progress on stderr; exit 0 if all is equal, 1 if anything differs, 2 if there is nothing to compare with. The
//! comparison itself is `tidemill_pipelines::verify`'s.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use tidemill_engine::error::Result;
use tidemill_pipelines::runner::Pipeline;
use tidemill_pipelines::serve::format::{Format, Printer};
use tidemill_pipelines::verify::{self, Check, Options, Report, Told};

use crate::answers::line;
use crate::cli::{Common, VerifyArgs};
use crate::console::{self, LIVE, count, number, say};
use crate::describe;
use crate::exit::{self, Out, Outcome, Stop, refused};

const LIVE_EVERY: Duration = Duration::from_millis(250);
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// The column that says which side a differing row is on.
const SIDE: &str = "_only_in";

pub fn verify(args: &VerifyArgs, common: &Common) -> Outcome {
    let pipeline = Pipeline::read(&args.file)?;
    let folder = scratch()?;
    let options = Options {
        data: common.data(),
        brokers: common.brokers(),
        kafka: common.kafka.clone(),
        threads: common.workers(),
        memory_bytes_max: args.memory,
        folder: folder.clone(),
        rows_max: args.rows,
    };
    crate::signals::on_stop(|| exit::leave(130))?;
    let progress = Progress { quiet: common.quiet, inner: Mutex::new(Inner { of: 0, shown: Instant::now() }) };
    let outcome = verify::verify(&pipeline, &options, &progress);
    console::clear();
    let report = outcome?;
    print(&report)?;
    if report.differs() { Err(Stop::Code(1)) } else { Ok(()) }
}

/// A folder for the records, which goes with the command.
fn scratch() -> Outcome<PathBuf> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let path = std::env::temp_dir().join(format!("tidemill-verify-{}-{nanos:08x}", std::process::id()));
    std::fs::create_dir_all(&path).map_err(|error| refused(format!("{}: {error}", path.display())))?;
    exit::remove_at_exit(&path);
    Ok(path)
}

fn print(report: &Report) -> Result<()> {
    let row = |check: &Check| {
        let result = match (check.differs(), &check.note) {
            (true, _) => "differs".to_owned(),
            (false, Some(note)) if note.starts_with("not compared") => "not compared".to_owned(),
            (false, Some(_)) => "equal, within stated errors".to_owned(),
            (false, None) => "equal".to_owned(),
        };
        let numbers = [check.expected, check.found, check.missing.total, check.extra.total].map(number);
        let [expected, found, missing, extra] = numbers;
        [check.of.clone(), check.what.to_owned(), expected, found, missing, extra, result]
    };
    let rows: Vec<[String; 7]> = report.checks.iter().map(row).collect();
    describe::show(["of", "compared", "batch", "run", "missing", "extra", "result"], &rows)?;
    for check in &report.checks {
        if let Some(note) = &check.note {
            line(&format!("{}, {}: {note}", check.of, check.what))?;
        }
        if let Some(wrong) = &check.wrong {
            line(&format!("{}, {}: {wrong}", check.of, check.what))?;
        }
        differences(check)?;
    }
    for note in &report.notes {
        line(note)?;
    }
    let until = if report.ended { "" } else { "; windows that are still open are not compared" };
    let verdict = if report.differs() { "the tables differ from the batch" } else { "the tables are what the batch says" };
    line(&format!("pipeline {}, epoch {}, {}{until}: {verdict}", report.pipeline, report.epoch, count(report.records, "record")))
}

/// The first rows of each side.
fn differences(check: &Check) -> Result<()> {
    let sides = [("batch", &check.missing), ("run", &check.extra)];
    let mut parts = Vec::new();
    for (side, sample) in sides {
        if let Some(rows) = sample.batch()? {
            let mut fields = vec![Field::new(SIDE, DataType::Utf8, false)];
            let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from_iter_values((0..rows.num_rows()).map(|_| side)))];
            for (field, column) in
                rows.schema().fields().iter().zip(rows.columns()).filter(|(field, _)| !field.name().starts_with("__same"))
            {
                fields.push(field.as_ref().clone().with_nullable(true));
                columns.push(Arc::clone(column));
            }
            parts.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?);
        }
    }
    let Some(first) = parts.first() else { return Ok(()) };
    let all = concat_batches(&first.schema(), parts.iter().filter(|part| part.schema() == first.schema()))?;
    let total = check.missing.total + check.extra.total;
    let shown = all.num_rows() as u64;
    let which = if shown < total { format!("the first {} of {}", number(shown), count(total, "row")) } else { count(total, "row") };
    line(&format!("{}, {}: {which} that only one side has", check.of, check.what))?;
    let mut printer = Printer::new(Format::Table, &all.schema(), Out::new())?;
    printer.write(&all)?;
    printer.finish()?;
    Ok(())
}

/// What is going on, on stderr.
struct Progress {
    quiet: bool,
    inner: Mutex<Inner>,
}

struct Inner {
    of: u64,
    shown: Instant,
}

impl Progress {
    fn show(&self, text: &str, at_once: bool) {
        if self.quiet {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let every = if *LIVE { LIVE_EVERY } else { PLAIN_EVERY };
        if inner.shown.elapsed() < every && !(at_once && *LIVE) {
            return;
        }
        inner.shown = Instant::now();
        if *LIVE { console::rewrite(text) } else { say(text) }
    }
}

impl Told for Progress {
    fn waiting(&self, what: &str) {
        say(&format!("{what}; waiting for it, a minute at most"));
    }

    fn begins(&self, epoch: u64, records: u64) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).of = records;
        if !self.quiet {
            say(&format!("epoch {epoch}: {} to read again", count(records, "record")));
        }
    }

    fn read(&self, records: u64) {
        let of = self.inner.lock().unwrap_or_else(PoisonError::into_inner).of;
        self.show(&format!("{} of {} read", number(records), count(of, "record")), false);
    }

    fn comparing(&self, output: &str) {
        self.show(&format!("comparing {output}"), true);
    }
}
