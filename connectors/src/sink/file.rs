//! Files: for each INSERT and epoch with rows one, NDJSON or Parquet, in the sink's folder.
//!
//! Always: a file has its name only when all of it is on disk (written under a hidden name, synced, renamed, the folder synced), and the
//! name says pipeline, output, pipeline's id and epoch: an epoch sent again is the same file. A consumer may take files away; what has
//! arrived is then what the manifest says. Files of another life of the pipeline, or of epochs that its state does not know, are refused.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tidemill_engine::epoch::delivery::check_arrived;
use tidemill_engine::epoch::manifest::{Manifest, SinkEntry};
use tidemill_engine::error::{Error, Result};

use super::{Change, SinkSpec, Target, net};
use crate::json::encode::JsonEncoder;

/// Rows of one row group: what a reader holds at least, and the writer at most.
const ROWS_PER_GROUP_MAX: usize = 128 << 10;
/// Lines are written when so many bytes have come together.
const BUFFER_BYTES: usize = 1 << 20;
/// How much of the pipeline's id a name has.
const ID_LENGTH: usize = 8;

/// See the module doc.
pub struct FileSink {
    folder: PathBuf,
    parquet: bool,
    spec: SinkSpec,
    encoder: JsonEncoder,
    /// What names begin with: pipeline, output, id.
    prefix: String,
}

impl FileSink {
    /// Files in this folder, which is made when need be.
    pub fn new(folder: impl Into<PathBuf>, parquet: bool, spec: SinkSpec) -> Self {
        let encoder = JsonEncoder::new(spec.names.iter().map(String::as_str));
        Self { folder: folder.into(), parquet, spec, encoder, prefix: String::new() }
    }

    fn ending(&self) -> &'static str {
        if self.parquet { "parquet" } else { "ndjson" }
    }

    fn wrong(&self, error: &std::io::Error) -> Error {
        Error::external(format!("sink {}: writing to {}: {error}", self.spec.output, self.folder.display()))
    }

    /// The epochs whose files are there, and the id of another pipeline of this name.
    fn found(&self, mine: &str) -> Result<(Option<u64>, Option<String>)> {
        let (mut newest, mut foreign) = (None, None);
        for entry in fs::read_dir(&self.folder).map_err(|error| self.wrong(&error))? {
            let name = entry.map_err(|error| self.wrong(&error))?.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!(".{mine}")) {
                // Left by a run that was killed.
                fs::remove_file(self.folder.join(&name)).map_err(|error| self.wrong(&error))?;
            }
            let Some(rest) = name.strip_prefix(mine).and_then(|rest| rest.split_once('.')).map(|(rest, _)| rest) else { continue };
            match rest.split_once('-') {
                Some((id, epoch)) if self.prefix.ends_with(&format!("-{id}")) => newest = newest.max(epoch.parse().ok()),
                Some(_) => foreign = Some(name),
                None => {}
            }
        }
        Ok((newest, foreign))
    }

    fn write(&self, path: &Path, batch: &RecordBatch) -> Result<()> {
        let changes = net(batch, &self.spec.key)?;
        let row = |change: &Change| match change {
            Change::Row(row) | Change::Gone(row) => *row,
        };
        let rows: Vec<usize> = changes.iter().map(row).collect();
        let file = File::create(path).map_err(|error| self.wrong(&error))?;
        if self.parquet { self.write_parquet(file, batch, &rows) } else { self.write_lines(file, batch, &rows) }
    }

    fn write_lines(&self, file: File, batch: &RecordBatch, rows: &[usize]) -> Result<()> {
        let encoded = self.encoder.rows(batch.columns())?;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut line = Vec::new();
        for row in rows {
            line.clear();
            encoded.write(*row, &mut line);
            line.push(b'\n');
            file.write_all(&line).map_err(|error| self.wrong(&error))?;
        }
        let file = file.into_inner().map_err(|error| self.wrong(error.error()))?;
        file.sync_all().map_err(|error| self.wrong(&error))
    }

    fn write_parquet(&self, file: File, batch: &RecordBatch, rows: &[usize]) -> Result<()> {
        let wrong = |error: parquet::errors::ParquetError| Error::external(format!("sink {}: {error}", self.spec.output));
        let fields: Vec<Field> = self
            .spec
            .names
            .iter()
            .zip(batch.schema().fields())
            .map(|(name, field)| Field::new(name, field.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let columns = batch.columns().iter().take(self.spec.names.len()).cloned().collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
        let properties =
            WriterProperties::builder().set_compression(Compression::SNAPPY).set_max_row_group_row_count(Some(ROWS_PER_GROUP_MAX)).build();
        let mut writer =
            ArrowWriter::try_new(file.try_clone().map_err(|error| self.wrong(&error))?, schema, Some(properties)).map_err(wrong)?;
        for rows in rows.chunks(ROWS_PER_GROUP_MAX) {
            let at: Vec<(usize, usize)> = rows.iter().map(|row| (0, *row)).collect();
            writer.write(&interleave_record_batch(&[&batch], &at)?).map_err(wrong)?;
        }
        writer.close().map_err(wrong)?;
        file.sync_all().map_err(|error| self.wrong(&error))
    }
}

impl Target for FileSink {
    fn outputs(&self) -> Vec<&str> {
        vec![&self.spec.output]
    }

    fn begin(&mut self, manifest: &Manifest, entries: &[&SinkEntry]) -> Result<Vec<Option<u64>>> {
        let id = manifest.uuid.get(..ID_LENGTH).unwrap_or(&manifest.uuid);
        let mine = format!("{}-{}-", manifest.pipeline, self.spec.output);
        self.prefix = format!("{mine}{id}");
        fs::create_dir_all(&self.folder).map_err(|error| {
            Error::refused(format!("sink {}: can't make the folder {}: {error}", self.spec.output, self.folder.display()))
        })?;
        let (newest, foreign) = self.found(&mine)?;
        let place = format!("the folder {}", self.folder.display());
        if let Some(foreign) = foreign {
            return Err(Error::refused(format!(
                "sink {}: {place} has files of another life of pipeline {} ({foreign}), whose results would be there twice; move them away, or \
                 write to another folder",
                self.spec.output, manifest.pipeline
            )));
        }
        let mut arrived = Vec::with_capacity(entries.len());
        for entry in entries {
            let known = newest.max(Some(entry.delivered));
            check_arrived(entry, manifest.epoch, known, &place)?;
            arrived.push(known);
        }
        Ok(arrived)
    }

    fn deliver(&mut self, epoch: u64, rows: &[(usize, RecordBatch)], _stop: &AtomicBool) -> Result<()> {
        for (_, batch) in rows {
            let name = format!("{}-{epoch:012}.{}", self.prefix, self.ending());
            let staged = self.folder.join(format!(".{name}.staged"));
            self.write(&staged, batch)?;
            let named = fs::rename(&staged, self.folder.join(&name)).and_then(|()| File::open(&self.folder)?.sync_all());
            named.map_err(|error| self.wrong(&error))?;
        }
        Ok(())
    }
}
