//! The cold tier: output tables as Delta Lake, written so that a publish may be repeated, interrupted and read at any time.
//!
//! Always: a publish is one commit, marked `txn("tidemill-<uuid>/<table>", epoch)` and made on the snapshot that was asked for that mark;
//! everything is on disk before `publish` returns, so a manifest may name its version. Keyed tables hold one row a key: files that hold a
//! changed key are written again without it in the same commit. Foreign appends are kept. Nothing here knows manifests or queries: the
//! publisher of the engine calls `DeltaPublisher`, `tidemill sql` calls `files_at` and `net`.

mod cold;
mod durable;
pub mod net;
mod rewrite;
mod stored;
mod upkeep;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use deltalake::writer::DeltaWriter;
use tidemill_engine::epoch::manifest::TableEntry;
use tidemill_engine::epoch::{coordinator, system};
use tidemill_engine::error::{Error, Result};
use tokio::runtime::Runtime;

pub use cold::{ColdFile, files_at};

use cold::{Cold, Staged};
use net::Net;
use rewrite::{Keys, Ranges};

/// Tries of a publish while others commit to the same table.
const ATTEMPTS: usize = 8;

/// What a publish left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// The table's version, for the manifest.
    pub version: u64,
    /// The version of its change log, if one is kept.
    pub log_version: Option<u64>,
    /// Rows written to the table, those of rewritten files included.
    pub rows: u64,
    /// Bytes written to the table.
    pub bytes: u64,
}

/// Writes the Delta tables of one pipeline. Blocks: call it from a plain thread, never from an async task.
pub struct DeltaPublisher {
    folder: PathBuf,
    uuid: String,
    keep_logs: bool,
    runtime: Runtime,
    open: HashMap<String, (Cold, Ranges)>,
}

/// One Delta table that a publish brings up to date.
struct Target<'a> {
    name: String,
    folder: &'a str,
    schema: &'a Schema,
    made: Option<u64>,
    app: String,
}

impl DeltaPublisher {
    /// For the pipeline in `folder` that drew `uuid`. `keep_logs`: every change of a user's table is kept for `"table$log"`.
    pub fn new(folder: &Path, uuid: &str, keep_logs: bool) -> Result<Self> {
        // A multi-thread runtime, even of one thread: Delta's kernel starts a thread of its own for each call on any other.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("delta").enable_all().build()?;
        Ok(Self { folder: folder.to_owned(), uuid: uuid.to_owned(), keep_logs, runtime, open: HashMap::new() })
    }

    /// Makes the table (and its log), empty, if it is not there yet.
    pub fn create(&mut self, entry: &TableEntry) -> Result<Published> {
        self.publish(entry, entry.covered, &[])
    }

    /// Brings the table (and its log) up to epoch `to`, which must be committed. `changes` are (epoch, rows with `_weight` last) in epoch
    /// order; those that the table has already, by the manifest or by its own mark, are passed over, so a publish may be repeated.
    pub fn publish(&mut self, entry: &TableEntry, to: u64, changes: &[(u64, RecordBatch)]) -> Result<Published> {
        let app = format!("tidemill-{}/{}", self.uuid, entry.name);
        // A log that began late or was left out for a while would pass for a whole one.
        let whole = entry.covered == 0 || entry.log_version.is_some();
        let log_version = match log_folder(entry) {
            Some(folder) if self.keep_logs && whole => Some(self.publish_log(entry, &folder, &app, to, changes)?),
            _ => None,
        };
        let target = Target { name: entry.name.clone(), folder: &entry.folder, schema: &entry.schema, made: entry.version, app };
        let columns = entry.schema.fields().len();
        let stage = |rest: &[&(u64, RecordBatch)]| {
            let batches: Vec<RecordBatch> = rest.iter().map(|(_, batch)| batch.clone()).collect();
            net::net(&entry.key, columns, &batches)
        };
        Ok(Published { log_version, ..self.bring(&target, entry.covered, to, changes, stage)? })
    }

    fn publish_log(&mut self, entry: &TableEntry, folder: &str, app: &str, to: u64, changes: &[(u64, RecordBatch)]) -> Result<u64> {
        let target = Target {
            name: format!("{}$log", entry.name),
            folder,
            schema: &net::log_schema(&entry.schema),
            made: entry.log_version,
            app: format!("{app}$log"),
        };
        let stage = |rest: &[&(u64, RecordBatch)]| {
            let present =
                rest.iter().filter(|(_, batch)| batch.num_rows() > 0).map(|(epoch, batch)| net::log_batch(&entry.schema, *epoch, batch));
            Ok(Net { present: present.collect::<Result<_>>()?, touched: Vec::new() })
        };
        Ok(self.bring(&target, entry.covered, to, changes, stage)?.version)
    }

    fn bring(
        &mut self,
        target: &Target<'_>,
        covered: u64,
        to: u64,
        changes: &[(u64, RecordBatch)],
        stage: impl Fn(&[&(u64, RecordBatch)]) -> Result<Net>,
    ) -> Result<Published> {
        let folder = below(&self.folder, target.folder)?;
        let Self { runtime, open, uuid, .. } = self;
        runtime.block_on(async {
            if !open.contains_key(target.folder) {
                let cold = Cold::open(folder, &target.name, uuid, target.schema, target.made).await?;
                open.insert(target.folder.to_owned(), (cold, Ranges::default()));
            }
            let Some((cold, ranges)) = open.get_mut(target.folder) else { return Err(Error::failed("a table that was just opened is gone")) };
            let waits = |covered: u64| changes.iter().any(|(epoch, batch)| *epoch > covered && *epoch <= to && batch.num_rows() > 0);
            if to > covered && !waits(covered) {
                return Ok(Published { version: cold.version(), ..Published::default() });
            }
            let mut last = None;
            for attempt in 0..ATTEMPTS {
                cold.refresh().await?;
                let published = cold.published(&target.app).await?.unwrap_or(0);
                if published > to {
                    return Err(Error::refused(format!(
                        "table {} holds epoch {published}, but the newest epoch is {to}: the epochs folder is older than the tables; restore it, or run with --reset",
                        target.name
                    )));
                }
                let rest: Vec<_> = changes.iter().filter(|(epoch, _)| *epoch > covered.max(published) && *epoch <= to).collect();
                let net = stage(&rest)?;
                if published == to || (net.present.is_empty() && net.touched.is_empty()) {
                    return Ok(Published { version: cold.version(), ..Published::default() });
                }
                let (staged, rows) = write(cold, ranges, &net).await?;
                if staged.adds.is_empty() && staged.removes.is_empty() {
                    return Ok(Published { version: cold.version(), ..Published::default() });
                }
                let bytes = staged.adds.iter().map(|add| add.size.max(0) as u64).sum();
                match cold.commit(&staged, Some((&target.app, to))).await {
                    Ok(()) => {
                        if let Err(error) = upkeep::tend(cold).await {
                            tracing::warn!(table = target.name, "upkeep put off: {error}");
                            cold.refresh().await?;
                        }
                        return Ok(Published { version: cold.version(), log_version: None, rows, bytes });
                    }
                    // Another writer was faster, or the outcome is unknown: the mark of a new snapshot tells.
                    Err(error) => {
                        tracing::warn!(table = target.name, attempt, "publishing again: {error}");
                        last = Some(error);
                    }
                }
            }
            Err(last.unwrap_or_else(|| Error::external("no try was made")).context(format!("publishing table {}", target.name)))
        })
    }
}

impl coordinator::Publisher for DeltaPublisher {
    fn publish(&mut self, table: &TableEntry, to: u64, changes: &[(u64, RecordBatch)]) -> Result<coordinator::Published> {
        let Published { version, log_version, .. } = DeltaPublisher::publish(self, table, to, changes)?;
        Ok(coordinator::Published { version, log_version })
    }
}

/// Where the change log of a table lies, if it is one of the user's: the engine's own tables only grow, and have their epoch as a column.
pub fn log_folder(entry: &TableEntry) -> Option<String> {
    let own = entry.folder == system::DEAD_LETTERS || entry.folder == system::LATE_EVENTS;
    entry.folder.strip_prefix("tables/").filter(|_| !own).map(|name| format!("log/{name}"))
}

/// A folder below the pipeline's; names come from the manifest, and still can't lead out of it.
fn below(root: &Path, folder: &str) -> Result<PathBuf> {
    let safe = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '\0']);
    if folder.split('/').all(safe) { Ok(root.join(folder)) } else { Err(Error::refused(format!("{folder:?} can't be a table's folder"))) }
}

/// Writes the files of a commit: rows that are left of files that hold a changed key, and the new rows.
async fn write(cold: &Cold, ranges: &mut Ranges, net: &Net) -> Result<(Staged, u64)> {
    let schema = cold.schema()?;
    let mut staged = Staged::default();
    let mut rows = 0;
    let mut shared = cold.writer()?;
    for batch in &net.present {
        rows += batch.num_rows() as u64;
        shared.write(stored::to_stored(batch, &schema)?).await.map_err(|error| cold.wrong(&error))?;
    }
    if let Some(first) = net.touched.first() {
        let files = cold.files()?;
        ranges.keep(&files.iter().map(|file| file.name.clone()).collect::<HashSet<_>>());
        let keys = Keys::new(key_schema(&schema, &first.schema())?, &net.touched)?;
        for file in files {
            if !ranges.holds(&cold.folder, &file.name, &keys)? {
                continue;
            }
            // Large files keep their range of keys; what is left of small ones goes with the new rows, so that they grow together.
            let mut own = if file.size >= upkeep::SMALL_BYTES { Some(cold.writer()?) } else { None };
            for batch in rewrite::survivors(&cold.folder, &file.name, Some(&keys))? {
                let batch = stored::to_stored(&batch?, &schema)?;
                rows += batch.num_rows() as u64;
                if batch.num_rows() > 0 {
                    own.as_mut().unwrap_or(&mut shared).write(batch).await.map_err(|error| cold.wrong(&error))?;
                }
            }
            if let Some(own) = own {
                staged.adds.extend(cold.close(own).await?);
            }
            staged.removes.push(file);
        }
    }
    staged.adds.extend(cold.close(shared).await?);
    Ok((staged, rows))
}

/// The key columns in the types of the Delta table.
fn key_schema(stored: &SchemaRef, key: &SchemaRef) -> Result<SchemaRef> {
    let fields = key.fields().iter().map(|field| Ok(stored.field_with_name(field.name())?.clone())).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

#[cfg(test)]
#[path = "delta_tests.rs"]
mod tests;
