//! One Delta table in the data folder: open or make it, check that it is ours, list its files, commit to it.
//!
//! Always: a commit is made on the snapshot that was asked for its `txn`, or fails and is begun again; the table's folder carries the
//! pipeline's uuid, and the folder of another uuid is refused. Called by the publisher and by readers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, Remove, StructType, Transaction};
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::file::properties::WriterProperties;
use deltalake::protocol::DeltaOperation;
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use tidemill_engine::error::{Error, Result};
use url::Url;

use super::durable::DurableStore;
use super::stored::{check_schema, stored_schema};

/// The table property that says whose the folder is.
const OWNER: &str = "tidemill.uuid";
/// Files are cut at this size.
pub(super) const FILE_BYTES: u64 = 128 * 1024 * 1024;
/// Rows that share min and max: a key look-up reads at most this many.
const ROW_GROUP_ROWS: usize = 256 * 1024;
/// Commits between checkpoints: what a reader must read on top of one is bounded by it.
pub(super) const CHECKPOINT_COMMITS: u64 = 50;

/// A file of a Delta table at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdFile {
    /// Its name below the table's folder.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// Its rows, if its writer said so.
    pub rows: Option<u64>,
}

/// The files of a table at a version, oldest first. Needs a tokio runtime.
pub async fn files_at(folder: &Path, version: u64) -> Result<Vec<ColdFile>> {
    let wrong = |error: DeltaTableError| wrong(folder, &error);
    let table = DeltaTableBuilder::from_url(location(folder)?).map_err(wrong)?.with_version(version).load().await.map_err(wrong)?;
    files(folder, &table)
}

fn location(folder: &Path) -> Result<Url> {
    let folder = std::path::absolute(folder)?;
    Url::from_directory_path(&folder).map_err(|()| Error::refused(format!("{} can't be a table's folder", folder.display())))
}

fn wrong(folder: &Path, error: &DeltaTableError) -> Error {
    Error::external(format!("table {}: {error}", folder.display()))
}

fn files(folder: &Path, table: &DeltaTable) -> Result<Vec<ColdFile>> {
    let state = table.snapshot().map_err(|error| wrong(folder, &error))?;
    let mut files = Vec::new();
    for file in state.log_data().iter() {
        if file.deletion_vector_descriptor().is_some() {
            return Err(Error::refused(format!(
                "table {} was given deletion vectors by another writer, which Tidemill can't read",
                folder.display()
            )));
        }
        files.push((
            file.modification_time(),
            ColdFile { name: file.path().into_owned(), size: file.size() as u64, rows: file.num_records().map(|rows| rows as u64) },
        ));
    }
    files.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
    Ok(files.into_iter().map(|(_, file)| file).collect())
}

/// An open table that is written to.
pub(super) struct Cold {
    pub(super) folder: PathBuf,
    name: String,
    table: DeltaTable,
}

/// What a commit does.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) adds: Vec<Add>,
    pub(super) removes: Vec<ColdFile>,
}

impl Cold {
    /// The table in `folder`, made if there is none and `made` (the version readers rely on) allows it.
    pub(super) async fn open(folder: PathBuf, name: &str, uuid: &str, schema: &Schema, made: Option<u64>) -> Result<Self> {
        let wrong = |error: DeltaTableError| wrong(&folder, &error);
        let stored = stored_schema(name, schema)?;
        let log = folder.join("_delta_log");
        let exists = log.is_dir() && std::fs::read_dir(&log)?.next().is_some();
        if !exists && made.is_some() {
            return Err(lost(name, &folder));
        }
        std::fs::create_dir_all(&folder)?;
        if let Some(above) = folder.parent() {
            std::fs::File::open(above)?.sync_all()?;
        }
        let location = location(&folder)?;
        let builder =
            DeltaTableBuilder::from_url(location.clone()).map_err(wrong)?.with_storage_backend(Arc::new(DurableStore::new()), location);
        let mut table = builder.build().map_err(wrong)?;
        if exists {
            table.load().await.map_err(wrong)?;
        } else {
            table = create(table, name, uuid, &stored).await.map_err(wrong)?;
        }
        let cold = Self { folder, name: name.to_owned(), table };
        cold.check(uuid, &stored, made)?;
        Ok(cold)
    }

    fn check(&self, uuid: &str, stored: &Schema, made: Option<u64>) -> Result<()> {
        let state = self.table.snapshot().map_err(|error| self.wrong(&error))?;
        let owner = state.metadata().configuration().get(OWNER);
        if owner.is_none_or(|owner| owner != uuid) {
            return Err(Error::refused(format!(
                "table folder {} belongs to {}; move it away, run with --reset, or name another --data folder",
                self.folder.display(),
                if owner.is_some() { "another run of a pipeline of this name, whose epochs are gone" } else { "something else" }
            )));
        }
        if made.is_some_and(|made| made > self.version()) {
            return Err(lost(&self.name, &self.folder));
        }
        check_schema(&self.name, stored, self.schema()?.as_ref())
    }

    pub(super) fn wrong(&self, error: &DeltaTableError) -> Error {
        wrong(&self.folder, error)
    }

    /// Looks for commits of others.
    pub(super) async fn refresh(&mut self) -> Result<()> {
        self.table.update_state().await.map_err(|error| wrong(&self.folder, &error))
    }

    /// The version of the snapshot.
    pub(super) fn version(&self) -> u64 {
        self.table.version().unwrap_or(0)
    }

    /// The columns in the types of Delta.
    pub(super) fn schema(&self) -> Result<SchemaRef> {
        let state = self.table.snapshot().map_err(|error| self.wrong(&error))?;
        Ok(state.snapshot().arrow_schema())
    }

    /// The files of the snapshot, oldest first.
    pub(super) fn files(&self) -> Result<Vec<ColdFile>> {
        files(&self.folder, &self.table)
    }

    /// The epoch that `app` published last, by the snapshot.
    pub(super) async fn published(&self, app: &str) -> Result<Option<u64>> {
        let state = self.table.snapshot().map_err(|error| self.wrong(&error))?;
        let version = state.transaction_version(&*self.table.log_store(), app).await.map_err(|error| self.wrong(&error))?;
        Ok(version.map(|version| version.max(0) as u64))
    }

    /// A writer of new files, which are part of nothing until they are committed.
    pub(super) fn writer(&self) -> Result<RecordBatchWriter> {
        let level = ZstdLevel::try_new(1).map_err(|error| Error::failed(error.to_string()))?;
        let properties =
            WriterProperties::builder().set_compression(Compression::ZSTD(level)).set_max_row_group_row_count(Some(ROW_GROUP_ROWS)).build();
        let writer = RecordBatchWriter::for_table(&self.table).map_err(|error| self.wrong(&error))?;
        Ok(writer.with_target_file_size(FILE_BYTES).with_writer_properties(properties))
    }

    /// Ends a writer's files.
    pub(super) async fn close(&self, mut writer: RecordBatchWriter) -> Result<Vec<Add>> {
        writer.flush().await.map_err(|error| self.wrong(&error))
    }

    /// One commit on the snapshot; fails if there is a newer version. `txn` marks a publish, without one nothing of the data changes.
    pub(super) async fn commit(&mut self, staged: &Staged, txn: Option<(&str, u64)>) -> Result<()> {
        let state = self.table.snapshot().map_err(|error| self.wrong(&error))?;
        let changes = txn.is_some();
        let mut actions = Vec::with_capacity(staged.adds.len() + staged.removes.len());
        for file in state.log_data().iter() {
            if staged.removes.iter().any(|remove| remove.name == file.path()) {
                actions.push(Action::Remove(Remove { data_change: changes, ..file.remove_action(changes) }));
            }
        }
        if actions.len() != staged.removes.len() {
            return Err(Error::failed(format!("table {}: a file to replace is not in version {}", self.name, self.version())));
        }
        actions.extend(staged.adds.iter().map(|add| Action::Add(Add { data_change: changes, ..add.clone() })));
        let mut properties =
            CommitProperties::default().with_max_retries(0).with_create_checkpoint(true).with_cleanup_expired_logs(Some(false));
        let operation = match txn {
            Some((app, epoch)) => {
                properties = properties.with_application_transaction(Transaction::new(app, epoch as i64));
                DeltaOperation::Write { mode: deltalake::protocol::SaveMode::Append, partition_by: None, predicate: None }
            }
            None => DeltaOperation::Optimize { predicate: None, target_size: FILE_BYTES as i64 },
        };
        let commit = CommitBuilder::from(properties).with_actions(actions).build(Some(state), self.table.log_store(), operation).await;
        commit.map_err(|error| self.wrong(&error))?;
        self.refresh().await
    }

    /// Drops what the log needs no more: entries older than the retention before a checkpoint, and the newest is kept.
    pub(super) async fn clean_log(&self) -> Result<()> {
        deltalake::checkpoints::cleanup_metadata(&self.table, None).await.map_err(|error| self.wrong(&error))?;
        Ok(())
    }

    /// Names of files that a version dropped at or after `since_ms`.
    pub(super) async fn dropped_since(&self, since_ms: i64) -> Result<Vec<String>> {
        use futures::TryStreamExt;
        let state = self.table.snapshot().map_err(|error| self.wrong(&error))?;
        let store = self.table.log_store();
        let dropped: Vec<_> = state.all_tombstones(&*store).try_collect().await.map_err(|error| self.wrong(&error))?;
        Ok(dropped
            .iter()
            .filter(|file| file.deletion_timestamp().is_none_or(|at| at >= since_ms))
            .map(|file| file.path().into_owned())
            .collect())
    }
}

fn lost(name: &str, folder: &Path) -> Error {
    Error::refused(format!(
        "table {name}: the epochs name a version of {} that is not there; restore the folder, or run with --reset to begin again",
        folder.display()
    ))
}

async fn create(table: DeltaTable, name: &str, uuid: &str, stored: &Schema) -> std::result::Result<DeltaTable, DeltaTableError> {
    let columns: StructType = stored.try_into_kernel()?;
    let configuration = [
        (OWNER, uuid.to_owned()),
        ("delta.checkpointInterval", CHECKPOINT_COMMITS.to_string()),
        ("delta.logRetentionDuration", "interval 1 day".to_owned()),
        ("delta.deletedFileRetentionDuration", "interval 1 day".to_owned()),
        // Files are cleaned up and merged by Tidemill itself: a foreign writer must not do it under a running pipeline.
        ("delta.enableExpiredLogCleanup", "false".to_owned()),
    ];
    table
        .create()
        .with_table_name(name)
        .with_columns(columns.fields().cloned())
        .with_configuration(configuration.map(|(key, value)| (key, Some(value))))
        .with_raise_if_key_not_exists(false)
        .await
}
