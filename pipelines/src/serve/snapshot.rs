//! What a query sees: the newest manifest of every pipeline in the data folder, read once, so that all its tables stand at one epoch.
//!
//! Always: nothing but manifests is read here; what they name is kept for ten minutes after a newer manifest replaced them. Used in the
//! writing process and in any other alike.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tidemill_engine::epoch::manifest::{FORMAT, Manifest};
use tidemill_engine::epoch::store::{LocalStore, Store};
use tidemill_engine::error::{Error, Result};

/// The folder of a pipeline's manifests.
const EPOCHS: &str = "epochs/0";
/// Reads of a manifest that was replaced and deleted meanwhile, before giving up.
const ATTEMPTS: usize = 5;

/// A pipeline at one epoch.
#[derive(Debug)]
pub struct Pipeline {
    /// Where it lies.
    pub store: LocalStore,
    /// Its newest manifest.
    pub manifest: Manifest,
}

/// All pipelines of a data folder, each at one epoch.
#[derive(Debug)]
pub struct Snapshot {
    /// The data folder.
    pub folder: PathBuf,
    /// By name.
    pub pipelines: BTreeMap<String, Pipeline>,
}

impl Snapshot {
    /// Reads the newest manifests; no folder and an empty one are a snapshot without pipelines.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut pipelines = BTreeMap::new();
        let wrong = |error: std::io::Error| Error::external(format!("listing {}: {error}", folder.display()));
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries.collect::<std::io::Result<Vec<_>>>().map_err(wrong)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                return Err(Error::refused(format!("{} is a file, not a data folder; name another with --data", folder.display())));
            }
            Err(error) => return Err(wrong(error)),
        };
        for entry in entries {
            let store = LocalStore::at(entry.path());
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.starts_with('.')
                && entry.path().join(EPOCHS).is_dir()
                && let Some(manifest) = newest(&store)?
            {
                pipelines.insert(name, Pipeline { store, manifest });
            }
        }
        Ok(Self { folder: folder.to_owned(), pipelines })
    }
}

fn newest(store: &LocalStore) -> Result<Option<Manifest>> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let names = store.list(EPOCHS)?;
        let Some(name) = names.iter().filter(|name| name.strip_suffix(".json").is_some_and(|epoch| epoch.parse::<u64>().is_ok())).max()
        else {
            return Ok(None);
        };
        match store.get(&format!("{EPOCHS}/{name}")) {
            Ok(bytes) => return parse(store.root(), name, &bytes).map(Some),
            // Deleted between the list and the read: a newer one is there.
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::failed("no manifest was read")))
}

fn parse(root: &Path, name: &str, bytes: &[u8]) -> Result<Manifest> {
    let place = || root.join(EPOCHS).join(name).display().to_string();
    let damaged = |error: serde_json::Error| Error::failed(format!("{} is not a manifest: {error}", place()));
    // The format comes first: a newer one may not have our fields.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(damaged)?;
    let format = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if format > u64::from(FORMAT) {
        return Err(Error::refused(format!("{} has format {format}, this build reads up to {FORMAT}: use the newer tidemill", place())));
    }
    serde_json::from_value(value).map_err(damaged)
}
