//! Topics that get partitions while a run reads them: found by a thread of its own, so that a slow broker delays nothing.
//!
//! Always: the run is only asked to end its epoch and begin again; whoever begins finds the partitions (`sources`), and what was closed
//! before they came stays closed to their rows. Not for bounded runs, whose ends are fixed at the start. Called by `runner`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidemill_engine::epoch::manifest::Manifest;
use tidemill_engine::worker::Shared;

use crate::runner::{Pipeline, Watch};
use crate::sources::Connections;
use crate::sql::{Connector, Source};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks, now and then, whether topics have got partitions. Ends when dropped.
pub struct Growth {
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Growth {
    /// Begins to look; `None` if no source is a topic.
    pub fn look(
        pipeline: &Pipeline,
        connections: &Connections,
        manifest: &Manifest,
        shared: &Arc<Shared>,
        watch: &Arc<dyn Watch>,
    ) -> Option<Self> {
        let known = |source: &Source| manifest.sources.iter().find(|entry| entry.name == source.name).map(|entry| entry.partitions.len());
        let topics = pipeline.program.sources.iter().filter(|source| matches!(source.options.connector, Connector::Kafka { .. }));
        let topics: Vec<(Source, usize)> = topics.filter_map(|source| Some((source.clone(), known(source)?))).collect();
        if topics.is_empty() {
            return None;
        }
        let done: Arc<AtomicBool> = Arc::default();
        let (over, shared, watch, connections) = (Arc::clone(&done), Arc::clone(shared), Arc::clone(watch), connections.clone());
        let look = move || {
            loop {
                thread::park_timeout(LOOK_EVERY);
                if over.load(Ordering::Acquire) {
                    return;
                }
                for (source, before) in &topics {
                    let now = connections.partitions(source).unwrap_or(*before);
                    if now > *before {
                        watch.notice(&format!(
                            "source {}: its topic has {now} partitions now, {} of them new; going on with all of them",
                            source.name,
                            now - before
                        ));
                        shared.again.store(true, Ordering::Release);
                        return;
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("partitions".to_owned()).spawn(look).ok()?;
        Some(Self { done, thread })
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        // It is not waited for: it may be asking a broker that does not answer.
        self.done.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }
}
