//! How far a run is behind its topics: end offsets, asked for by a thread of its own so that a slow broker delays nothing.
//!
//! Always: a figure for people, every other second; nothing depends on it. Sources that are not topics have no lag.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidemill_connectors::kafka::Admin;
use tidemill_engine::epoch::manifest::Manifest;
use tidemill_pipelines::runner::Pipeline;
use tidemill_pipelines::sources::Connections;
use tidemill_pipelines::sql::Connector;

const ASK_EVERY: Duration = Duration::from_secs(2);
const ANSWER_MS_MAX: u64 = 2_000;

/// Where a source's topic is.
#[derive(Debug, Clone)]
struct Topic {
    source: String,
    topic: String,
    brokers: String,
    properties: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Known {
    /// Offsets read, by source and partition, as of the newest epoch.
    read: BTreeMap<(String, i32), i64>,
    /// Ends, as last heard.
    ends: BTreeMap<(String, i32), i64>,
}

/// See the module doc. The thread ends when this is dropped.
pub struct Lag {
    known: Arc<Mutex<Known>>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Lag {
    /// Begins to ask; `None` if no source is a topic.
    pub fn watch(pipeline: &Pipeline, connections: &Connections) -> Option<Self> {
        let topics: Vec<Topic> = pipeline
            .program
            .sources
            .iter()
            .filter_map(|source| match &source.options.connector {
                Connector::Kafka { topic, brokers, properties } => Some(Topic {
                    source: source.name.clone(),
                    topic: topic.clone(),
                    brokers: brokers.clone().or_else(|| connections.brokers.clone())?,
                    properties: connections.properties.iter().chain(properties).cloned().collect(),
                }),
                _ => None,
            })
            .collect();
        if topics.is_empty() {
            return None;
        }
        let known: Arc<Mutex<Known>> = Arc::default();
        let done: Arc<AtomicBool> = Arc::default();
        let (theirs, over) = (Arc::clone(&known), Arc::clone(&done));
        let thread = thread::Builder::new().name("lag".to_owned()).spawn(move || ask(&topics, &theirs, &over)).ok()?;
        Some(Self { known, done, thread: Some(thread) })
    }

    /// An epoch has been committed.
    pub fn epoch(&self, manifest: &Manifest) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for source in &manifest.sources {
            for position in &source.partitions {
                known.read.insert((source.name.clone(), position.partition), position.next);
            }
        }
    }

    /// Records that are there and not yet in an epoch; `None` before the first epoch and the first answer.
    pub fn rows(&self) -> Option<u64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.ends.is_empty() || known.read.is_empty() {
            return None;
        }
        let behind = known.ends.iter().map(|(partition, end)| known.read.get(partition).map_or(0, |read| end.saturating_sub(*read).max(0)));
        u64::try_from(behind.sum::<i64>()).ok()
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only asks; if it broke down its last word stands.
            let _ = thread.join();
        }
    }
}

fn ask(topics: &[Topic], known: &Mutex<Known>, done: &AtomicBool) {
    let clients: Vec<Option<Admin>> =
        topics.iter().map(|topic| Admin::new(&topic.brokers, &topic.properties, ANSWER_MS_MAX).ok()).collect();
    let mut partitions: Vec<Vec<i32>> = vec![Vec::new(); topics.len()];
    while !done.load(Ordering::Relaxed) {
        for ((topic, client), partitions) in topics.iter().zip(&clients).zip(&mut partitions) {
            let Some(client) = client else { continue };
            // A broker in trouble is told by the readers; here the last answer stands.
            if partitions.is_empty()
                && let Ok(info) = client.topic(&topic.topic, &mut |_| ())
            {
                partitions.extend(0..info.partitions);
            }
            let Ok(ends) = client.end_offsets(&topic.topic, partitions, &mut |_| ()) else { continue };
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.ends.extend(ends.into_iter().map(|(partition, end)| ((topic.source.clone(), partition), end)));
        }
        thread::park_timeout(ASK_EVERY);
    }
}
