//! What keeps a table quick to read: small files are merged, old log entries and files that no reader can need are deleted.
//!
//! Always: nothing that a manifest of the last day names is deleted; a merge changes no row and says so in its commit. A failure here is
//! no failure of a publish: it is tried again at the next one.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use deltalake::writer::DeltaWriter;
use tidemill_engine::error::Result;

use super::cold::{CHECKPOINT_COMMITS, Cold, Staged};
use super::rewrite::survivors;
use super::stored::to_stored;

/// A file below this is small.
pub(super) const SMALL_BYTES: u64 = 16 * 1024 * 1024;
/// Small files that are left alone.
const SMALL_FILES: usize = 32;
/// What a version dropped stays this long; manifests live ten minutes.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Merges and cleans after a publish.
pub(super) async fn tend(cold: &mut Cold) -> Result<()> {
    merge(cold).await?;
    if (cold.version() + 1).is_multiple_of(CHECKPOINT_COMMITS) {
        cold.clean_log().await?;
        vacuum(cold).await?;
    }
    Ok(())
}

async fn merge(cold: &mut Cold) -> Result<()> {
    let small: Vec<_> = cold.files()?.into_iter().filter(|file| file.size < SMALL_BYTES).collect();
    if small.len() <= SMALL_FILES {
        return Ok(());
    }
    let schema = cold.schema()?;
    let mut writer = cold.writer()?;
    for file in &small {
        for batch in survivors(&cold.folder, &file.name, None)? {
            writer.write(to_stored(&batch?, &schema)?).await.map_err(|error| cold.wrong(&error))?;
        }
    }
    let adds = cold.close(writer).await?;
    cold.commit(&Staged { adds, removes: small }, None).await
}

#[allow(clippy::disallowed_methods, reason = "files are kept for a day of wall clock")]
/// Deletes data files that no version of the last day has: dropped ones, and those of publishes that never came to a commit.
async fn vacuum(cold: &Cold) -> Result<()> {
    let Some(before) = SystemTime::now().checked_sub(KEPT) else { return Ok(()) };
    let since_ms = before.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let mut kept: HashSet<String> = cold.files()?.into_iter().map(|file| file.name).collect();
    kept.extend(cold.dropped_since(since_ms).await?);
    for entry in std::fs::read_dir(&cold.folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.starts_with("part-") && name.ends_with(".parquet");
        if ours && !kept.contains(&name) && entry.metadata()?.modified()? < before {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "files are aged by the wall clock")]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use std::fs::File;
    use std::sync::Arc;

    #[test]
    fn only_old_files_that_no_version_of_the_last_day_has_are_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t");
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut cold = Cold::open(path.clone(), "t", "u", &schema, None).await.expect("opens");
            let mut names = Vec::new();
            for n in 0..2 {
                let row = RecordBatch::try_new(Arc::new(schema.clone()), vec![Arc::new(Int64Array::from(vec![n]))]).expect("a row");
                let mut writer = cold.writer().expect("a writer");
                writer.write(row).await.expect("writes");
                let adds = cold.close(writer).await.expect("closes");
                let removes = cold.files().expect("lists");
                cold.commit(&Staged { adds, removes }, Some(("app", n as u64 + 1))).await.expect("commits");
                names.extend(cold.files().expect("lists").into_iter().map(|file| file.name));
            }
            names.push("part-of-a-publish-that-died.parquet".to_owned());
            names.push("foreign.parquet".to_owned());
            let old = SystemTime::now().checked_sub(2 * KEPT).expect("a time");
            for name in &names {
                File::options().create(true).append(true).open(path.join(name)).expect("opens").set_modified(old).expect("ages");
            }
            vacuum(&cold).await.expect("vacuums");
            let left: Vec<bool> = names.iter().map(|name| path.join(name).exists()).collect();
            assert_eq!(left, [true, true, false, true]);
        });
    }
}
