//! Segments: one file a worker and epoch, into which many Arrow IPC streams are written; a `Section` names each. Few files, few syncs.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

use crate::epoch::manifest::Section;
use crate::error::{Error, Result};

/// A segment being filled.
#[derive(Debug)]
pub struct Segment {
    path: String,
    bytes: Vec<u8>,
}

impl Segment {
    /// An empty segment that will lie at `path`.
    pub fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), bytes: Vec::new() }
    }

    /// Its path below the pipeline's folder.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What it holds so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends raw bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Section {
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        Section { file: self.path.clone(), offset, length: bytes.len() as u64, crc: crc32fast::hash(bytes) }
    }

    /// Appends batches of one schema as an IPC stream.
    pub fn append_batches(&mut self, schema: &Schema, batches: &[RecordBatch]) -> Result<Section> {
        let offset = self.bytes.len();
        let mut writer = StreamWriter::try_new_with_options(&mut self.bytes, schema, IpcWriteOptions::default())?;
        for batch in batches {
            writer.write(batch)?;
        }
        writer.finish()?;
        drop(writer);
        let written = self.bytes.get(offset..).unwrap_or_default();
        Ok(Section { file: self.path.clone(), offset: offset as u64, length: written.len() as u64, crc: crc32fast::hash(written) })
    }
}

/// Reads an IPC stream back.
pub fn read_batches(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| Error::failed(format!("not an Arrow stream: {error}")))?;
    let schema = reader.schema();
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok((schema, batches))
}
