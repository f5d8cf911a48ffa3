//! The cold tier as a table: the Parquet files of a Delta table at the version that a manifest names.
//!
//! Always: columns have the types of the pipeline, not of the file (a timestamp of the lake is UTC with a zone, ours has none). Row counts
//! come from Delta, so a plain count reads nothing; row groups and pages are pruned by DataFusion.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::common::stats::Precision;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableType};
use datafusion::object_store::ObjectMeta;
use datafusion::object_store::path::Path as StorePath;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use tidemill_connectors::delta::{ColdFile, files_at};
use tidemill_engine::error::{Error, Result};

use super::derived::scan;

/// The files of one version.
#[derive(Debug)]
struct ColdTable {
    schema: SchemaRef,
    folder: PathBuf,
    files: Vec<ColdFile>,
}

/// The start of a plan over the table in `folder` at `version`.
pub(super) async fn cold(folder: &Path, version: u64, schema: &SchemaRef) -> Result<LogicalPlanBuilder> {
    let files = files_at(folder, version).await?;
    let folder = std::path::absolute(folder)?;
    scan(Arc::new(ColdTable { schema: Arc::clone(schema), folder, files }))
}

impl ColdTable {
    fn file(&self, file: &ColdFile) -> Result<PartitionedFile> {
        let path = self.folder.join(&file.name);
        let location = StorePath::from_absolute_path(&path).map_err(|error| Error::failed(format!("{}: {error}", path.display())))?;
        let unknown = Statistics::new_unknown(&self.schema);
        let statistics = Statistics { num_rows: rows([file]), total_byte_size: Precision::Absent, ..unknown };
        // Names are never used twice, so the cache of footers needs no time of change to tell versions apart.
        let meta = ObjectMeta { location, last_modified: Default::default(), size: file.size, e_tag: None, version: None };
        Ok(PartitionedFile::new_from_meta(meta).with_statistics(Arc::new(statistics)))
    }
}

fn rows<'a>(files: impl IntoIterator<Item = &'a ColdFile>) -> Precision<usize> {
    let sum = files.into_iter().map(|file| file.rows).sum::<Option<u64>>();
    sum.map_or(Precision::Absent, |rows| Precision::Exact(rows as usize))
}

#[async_trait]
impl TableProvider for ColdTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        if self.files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => Arc::clone(&self.schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let url = ObjectStoreUrl::local_filesystem();
        let store = state.runtime_env().object_store(&url)?;
        let footers = state.runtime_env().cache_manager.get_file_metadata_cache();
        let options = state.table_options().parquet.clone();
        let source = ParquetSource::new(Arc::clone(&self.schema))
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(CachedParquetFileReaderFactory::new(store, footers)));
        let files = self.files.iter().map(|file| self.file(file)).collect::<Result<Vec<_>>>().map_err(super::derived::external)?;
        let groups = FileGroup::new(files).split_files(state.config().target_partitions().max(1));
        let statistics = Statistics { num_rows: rows(&self.files), ..Statistics::new_unknown(&self.schema) };
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
