//! A local object store whose writes are on disk when they return.
//!
//! Always: the bytes are synced before their name exists, and the folder after; a name is written once where put-if-absent is asked
//! for. `object_store`'s own local store never syncs, so a power cut could leave a log entry or a checkpoint that is named and empty.
//! Files being written start with a dot, which every Delta reader passes over. Used by the publisher, not by readers.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path as FsPath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};

static STAGED: AtomicU64 = AtomicU64::new(0);

/// The local file system from its root, with durable writes.
#[derive(Debug)]
pub(super) struct DurableStore {
    inner: LocalFileSystem,
}

impl DurableStore {
    /// The whole file system; Delta puts the table's folder in front.
    pub(super) fn new() -> Self {
        Self { inner: LocalFileSystem::new() }
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DurableStore")
    }
}

fn generic(error: io::Error) -> Error {
    Error::Generic { store: "DurableStore", source: Box::new(error) }
}

/// A hidden name beside `target` that no other write uses.
fn staged(target: &FsPath) -> PathBuf {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let number = STAGED.fetch_add(1, Ordering::Relaxed);
    target.with_file_name(format!(".{name}.{}-{number}.staged", std::process::id()))
}

fn sync_folder(path: &FsPath) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes the folder of `target`, and its name durable if it is new.
fn make_folder(target: &FsPath) -> io::Result<()> {
    let Some(folder) = target.parent() else { return Ok(()) };
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
        sync_folder(folder)?;
    }
    Ok(())
}

/// Writes, syncs, names, syncs the folder; `create` fails if the name exists.
fn put(target: &FsPath, payload: &PutPayload, create: bool) -> io::Result<()> {
    make_folder(target)?;
    let staging = staged(target);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&staging)?;
        for part in payload {
            file.write_all(part)?;
        }
        file.sync_all()?;
        // A hard link fails if the name exists, a rename does not.
        if create { fs::hard_link(&staging, target) } else { fs::rename(&staging, target) }
    })();
    if create || written.is_err() {
        // Only a leftover: readers pass over hidden names.
        let _ = fs::remove_file(&staging);
    }
    written?;
    sync_folder(target)
}

async fn blocking<T: Send + 'static>(task: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(task).await.map_err(|error| generic(io::Error::other(error)))?
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented { operation: "conditional update".into(), implementer: self.to_string() });
            }
        };
        let target = self.inner.path_to_filesystem(location)?;
        blocking(move || match put(&target, &payload, create) {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(error) if create && error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: target.display().to_string(), source: Box::new(error) })
            }
            Err(error) => Err(generic(error)),
        })
        .await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let target = self.inner.path_to_filesystem(location)?;
        make_folder(&target).map_err(generic)?;
        let staging = staged(&target);
        let inner = self.inner.put_multipart_opts(&Path::from_absolute_path(&staging)?, options).await?;
        Ok(Box::new(DurableUpload { inner, staging, target }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// An upload in parts that gets its name once it is on disk.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    staging: PathBuf,
    target: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let (staging, target) = (self.staging.clone(), self.target.clone());
        blocking(move || {
            (|| {
                File::open(&staging)?.sync_all()?;
                fs::rename(&staging, &target)?;
                sync_folder(&target)
            })()
            .map_err(generic)
        })
        .await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;

    #[test]
    fn a_log_entry_is_written_once_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let store = DurableStore::new();
            let path = Path::from_absolute_path(folder.path().join("log/1.json")).expect("a path");
            let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            store.put_opts(&path, "one".into(), create.clone()).await.expect("writes");
            let second = store.put_opts(&path, "two".into(), create).await;
            assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
            assert_eq!(store.get(&path).await.expect("is there").bytes().await.expect("reads").as_ref(), b"one");
            let mut upload =
                store.put_multipart(&Path::from_absolute_path(folder.path().join("log/2")).expect("a path")).await.expect("opens");
            upload.put_part("ab".into()).await.expect("writes");
            upload.put_part("cd".into()).await.expect("writes");
            upload.complete().await.expect("completes");
            assert_eq!(fs::read(folder.path().join("log/2")).expect("reads"), b"abcd");
            let names = fs::read_dir(folder.path().join("log")).expect("lists").count();
            assert_eq!(names, 2);
        });
    }
}
