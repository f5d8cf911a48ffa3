//! Durable writes below one pipeline's folder: put-if-absent, read back, list, delete.
//!
//! Always: when `put_new` returns `Ok(true)` the bytes and the name are on disk (write, fsync, link, fsync of the folder), so
//! whatever a manifest names is durable before the manifest. `object_store`'s local store never syncs, hence our own.
//! Paths are relative, `/`-separated, and come from the engine, never from users.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::epoch::manifest::Section;
use crate::error::{Error, Result};

/// Where epochs are kept. The local folder is one; the simulation has another that fails and forgets.
pub trait Store: Send + Sync {
    /// Writes `bytes` under a name nobody has used; `Ok(false)` when somebody has. Durable when it returns.
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<bool>;
    /// The whole file.
    fn get(&self, path: &str) -> Result<Vec<u8>>;
    /// A byte range, with its checksum checked.
    fn get_section(&self, section: &Section) -> Result<Vec<u8>>;
    /// File names in a folder, sorted; empty when there is no such folder.
    fn list(&self, folder: &str) -> Result<Vec<String>>;
    /// Removes a file; one that is gone already is fine.
    fn delete(&self, path: &str) -> Result<()>;
}

/// A folder on the local file system.
#[derive(Debug, Clone)]
pub struct LocalStore {
    root: PathBuf,
}

impl LocalStore {
    /// The folder, made if need be.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(|error| unwritable(&root, &error))?;
        Ok(Self { root })
    }

    /// The folder, which may not exist: for readers.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::refused(format!("can't write {}: {error}; name another folder with --data", path.display()))
}

impl Store for LocalStore {
    fn put_new(&self, path: &str, bytes: &[u8]) -> Result<bool> {
        let target = self.root.join(path);
        let folder = target.parent().unwrap_or(&self.root).to_path_buf();
        let wrong = |error: io::Error| Error::external(format!("writing {}: {error}", target.display()));
        if !folder.is_dir() {
            fs::create_dir_all(&folder).map_err(wrong)?;
            if let Some(above) = folder.parent() {
                sync_folder(above).map_err(wrong)?;
            }
        }
        let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let staged = folder.join(format!(".{name}.{}.staged", std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&staged)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            // A hard link fails if the name exists: put-if-absent without a race, unlike a rename.
            match fs::hard_link(&staged, &target) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            }
        })();
        let removed = fs::remove_file(&staged);
        let new = written.map_err(wrong)?;
        removed.map_err(wrong)?;
        sync_folder(&folder).map_err(wrong)?;
        Ok(new)
    }

    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let target = self.root.join(path);
        fs::read(&target).map_err(|error| Error::external(format!("reading {}: {error}", target.display())))
    }

    fn get_section(&self, section: &Section) -> Result<Vec<u8>> {
        let target = self.root.join(&section.file);
        let wrong = |error: io::Error| Error::external(format!("reading {}: {error}", target.display()));
        let mut file = File::open(&target).map_err(wrong)?;
        let held = file.metadata().map_err(wrong)?.len();
        let end = section.offset.checked_add(section.length).filter(|end| *end <= held);
        if end.is_none() {
            return Err(Error::failed(format!(
                "{} is cut short: {held} bytes, the manifest names {}+{}",
                target.display(),
                section.offset,
                section.length
            )));
        }
        file.seek(SeekFrom::Start(section.offset)).map_err(wrong)?;
        let mut bytes = vec![0; section.length as usize];
        file.read_exact(&mut bytes).map_err(wrong)?;
        check(section, &bytes)?;
        Ok(bytes)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.root.join(folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::external(format!("listing {}: {error}", path.display()))),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry
                .map_err(|error| Error::external(format!("listing {}: {error}", path.display())))?
                .file_name()
                .to_string_lossy()
                .into_owned();
            if !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn delete(&self, path: &str) -> Result<()> {
        let target = self.root.join(path);
        match fs::remove_file(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::external(format!("deleting {}: {error}", target.display())))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses bytes that are not what the manifest names.
pub fn check(section: &Section, bytes: &[u8]) -> Result<()> {
    let crc = crc32fast::hash(bytes);
    if crc != section.crc {
        return Err(Error::failed(format!("{} is damaged: checksum {crc:08x}, the manifest names {:08x}", section.file, section.crc)));
    }
    Ok(())
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(folder.path()).expect("opens");
        assert!(store.put_new("epochs/0/1.json", b"one").expect("writes"));
        assert!(!store.put_new("epochs/0/1.json", b"two").expect("looks"));
        assert_eq!(store.get("epochs/0/1.json").expect("reads"), b"one");
        assert_eq!(store.list("epochs/0").expect("lists"), vec!["1.json"]);
    }

    #[test]
    fn damage_and_truncation_are_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(folder.path()).expect("opens");
        store.put_new("a", b"abcdef").expect("writes");
        let section = Section { file: "a".into(), offset: 1, length: 3, crc: crc32fast::hash(b"bcd") };
        assert_eq!(store.get_section(&section).expect("reads"), b"bcd");
        let damaged = store.get_section(&Section { crc: 1, ..section.clone() }).expect_err("a wrong checksum");
        assert!(damaged.message().contains("damaged"), "{damaged}");
        let cut = store.get_section(&Section { length: 9, ..section }).expect_err("too long");
        assert!(cut.message().contains("cut short"), "{cut}");
    }
}
