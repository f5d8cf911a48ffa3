//! Rows of a log on disk while a batch needs them: one Arrow stream a partition, in a folder that goes when the command ends.
//!
//! Always: a log is read once and its rows as often as plans scan them, so that all outputs are computed from the same records; only the columns
//! that a plan wants are decoded. What one output sets aside (`Aside`) is left out of its scans alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::error::Result as DfResult;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use tidemill_engine::error::{Error, Result};

use super::{OFFSET, PARTITION, WATERMARK};

/// Writes one partition's rows.
pub struct Writer {
    path: PathBuf,
    stream: StreamWriter<BufWriter<File>>,
}

impl Writer {
    /// A new file in `folder`.
    pub fn create(folder: &Path, name: &str, schema: &SchemaRef) -> Result<Self> {
        let path = folder.join(name);
        let wrong = |error: std::io::Error| Error::external(format!("writing {}: {error}", path.display()));
        let file = BufWriter::with_capacity(1 << 20, File::create(&path).map_err(wrong)?);
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let stream = StreamWriter::try_new_with_options(file, schema, options)?;
        Ok(Self { path, stream })
    }

    /// Adds rows.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.stream.write(rows).map_err(|error| Error::external(format!("writing {}: {error}", self.path.display())))
    }

    /// The finished file.
    pub fn finish(self) -> Result<PathBuf> {
        let wrong = |error: std::io::Error| Error::external(format!("writing {}: {error}", self.path.display()));
        self.stream.into_inner()?.flush().map_err(wrong)?;
        Ok(self.path)
    }
}

/// Rows that were written: a file a partition.
#[derive(Debug, Clone)]
pub struct Spool {
    /// Their columns.
    pub schema: SchemaRef,
    /// Where they lie.
    pub files: Vec<PathBuf>,
}

/// What one output does not count of a source, by partition and offset.
#[derive(Debug, Default, Clone)]
pub struct Aside {
    /// Records on which its expressions fail.
    pub dead: BTreeSet<(i64, i64)>,
    /// Records that were judged by the floor of a partition that had been idle, and that floor in microseconds.
    pub floors: BTreeMap<(i64, i64), i64>,
    /// Only `dead` is read, instead of all else.
    pub inverted: bool,
}

impl Aside {
    fn is_empty(&self) -> bool {
        self.dead.is_empty() && self.floors.is_empty() && !self.inverted
    }

    fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let ints = |name: &str| -> Result<&Int64Array> {
            let column = rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
            column.ok_or_else(|| Error::failed(format!("rows of a log without {name}")))
        };
        let (partitions, offsets, watermarks) = (ints(PARTITION)?, ints(OFFSET)?, ints(WATERMARK)?);
        let places = || partitions.values().iter().copied().zip(offsets.values().iter().copied());
        let met = places().zip(watermarks.iter()).map(|(place, own)| own.max(self.floors.get(&place).copied()));
        let met: ArrayRef = Arc::new(met.collect::<Int64Array>());
        let mut columns = rows.columns().to_vec();
        columns[rows.schema().index_of(WATERMARK)?] = met;
        let kept: BooleanArray = places().map(|place| Some(self.dead.contains(&place) == self.inverted)).collect();
        Ok(filter_record_batch(&RecordBatch::try_new(rows.schema(), columns)?, &kept)?)
    }
}

/// The rows as one output reads them.
#[derive(Debug, Clone)]
pub struct SpoolTable {
    spool: Spool,
    aside: Arc<Aside>,
}

impl SpoolTable {
    /// All rows but what is set aside.
    pub fn new(spool: &Spool, aside: &Arc<Aside>) -> Self {
        Self { spool: spool.clone(), aside: Arc::clone(aside) }
    }
}

#[async_trait]
impl TableProvider for SpoolTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spool.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.spool.schema.fields().len()).collect());
        let schema = Arc::new(self.spool.schema.project(&columns)?);
        if self.spool.files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let part = |file: &PathBuf| -> Arc<dyn PartitionStream> {
            Arc::new(Part {
                file: file.clone(),
                whole: Arc::clone(&self.spool.schema),
                columns: columns.clone(),
                schema: Arc::clone(&schema),
                aside: Arc::clone(&self.aside),
            })
        };
        let parts = self.spool.files.iter().map(part).collect();
        Ok(Arc::new(StreamingTableExec::try_new(Arc::clone(&schema), parts, None, Vec::new(), false, limit)?))
    }
}

/// One file as DataFusion reads it.
#[derive(Debug)]
struct Part {
    file: PathBuf,
    whole: SchemaRef,
    columns: Vec<usize>,
    schema: SchemaRef,
    aside: Arc<Aside>,
}

impl Part {
    fn open(&self) -> Result<Box<dyn Iterator<Item = Result<RecordBatch>> + Send>> {
        let judged = !self.aside.is_empty();
        let mut read = self.columns.clone();
        if judged {
            for name in [PARTITION, OFFSET, WATERMARK] {
                let index = self.whole.index_of(name)?;
                if !read.contains(&index) {
                    read.push(index);
                }
            }
        }
        // The reader gives columns in the file's order.
        let mut order = read.clone();
        order.sort_unstable();
        order.dedup();
        let wanted: Vec<usize> = self.columns.iter().filter_map(|column| order.iter().position(|each| each == column)).collect();
        let file = File::open(&self.file).map_err(|error| Error::external(format!("{}: {error}", self.file.display())))?;
        let reader = StreamReader::try_new(BufReader::with_capacity(1 << 20, file), Some(order))?;
        let (aside, schema) = (Arc::clone(&self.aside), Arc::clone(&self.schema));
        Ok(Box::new(reader.map(move |batch| {
            let batch = batch?;
            let batch = if judged { aside.apply(&batch)? } else { batch };
            Ok(batch.project(&wanted)?.with_schema(Arc::clone(&schema))?)
        })))
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let wrong = |error: Error| DataFusionError::External(Box::new(error));
        let rows: Box<dyn Iterator<Item = DfResult<RecordBatch>> + Send> = match self.open() {
            Ok(rows) => Box::new(rows.map(move |batch| batch.map_err(wrong))),
            Err(error) => Box::new(std::iter::once(Err(wrong(error)))),
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), futures::stream::iter(rows)))
    }
}
