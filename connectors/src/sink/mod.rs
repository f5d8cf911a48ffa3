//! Sinks: where the results of INSERT INTO go, epoch by epoch. Files here, topics in `kafka`; `Sinks` is what the engine delivers to.
//!
//! Always: an epoch's rows arrive once, all of them, however often they are sent: a sink knows by itself what it has. A sink with a key
//! gets the net of an epoch: for each key its newest row, or that it is gone. Not here: which results a sink may get (`lower` decides).

#![allow(clippy::disallowed_methods, reason = "sinks are waited for: connectors own their clock")]

mod file;
mod net;

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;

use std::sync::atomic::AtomicBool;

use arrow::array::RecordBatch;
use tidemill_engine::epoch::delivery::Deliver;
use tidemill_engine::epoch::manifest::{Manifest, SinkEntry};
use tidemill_engine::error::{Error, Result};

pub use file::FileSink;
pub use net::{Change, net};

/// One INSERT as its sink must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSpec {
    /// The output's name: `SinkEntry::name`.
    pub output: String,
    /// The names of its columns, as the DDL spells them.
    pub names: Vec<String>,
    /// The columns of its key, in the order of PRIMARY KEY; empty: rows are only added.
    pub key: Vec<usize>,
    /// The key is written as a JSON object, not as a text.
    pub key_as_json: bool,
}

/// One place that takes the rows of one or more INSERTs.
pub trait Target: Send {
    /// The outputs whose rows it takes.
    fn outputs(&self) -> Vec<&str>;
    /// `Deliver::begin` for these entries, which stand in the order of `outputs`.
    fn begin(&mut self, manifest: &Manifest, entries: &[&SinkEntry]) -> Result<Vec<Option<u64>>>;
    /// `Deliver::deliver`; rows name their place in `outputs`.
    fn deliver(&mut self, epoch: u64, rows: &[(usize, RecordBatch)], stop: &AtomicBool) -> Result<()>;
}

/// All sinks of a run.
pub struct Sinks {
    targets: Vec<Box<dyn Target>>,
    /// The target of each of the manifest's sinks, and its place there.
    places: Vec<(usize, usize)>,
}

impl Sinks {
    /// These targets; each output has one.
    pub fn new(targets: Vec<Box<dyn Target>>) -> Self {
        Self { targets, places: Vec::new() }
    }
}

impl Deliver for Sinks {
    fn begin(&mut self, manifest: &Manifest) -> Result<Vec<Option<u64>>> {
        let of = |entry: &SinkEntry| {
            let mut all = self.targets.iter().enumerate();
            all.find_map(|(target, each)| Some((target, each.outputs().iter().position(|output| *output == entry.name)?)))
        };
        self.places = manifest
            .sinks
            .iter()
            .map(|entry| of(entry).ok_or_else(|| Error::failed(format!("sink {} goes nowhere", entry.name))))
            .collect::<Result<Vec<_>>>()?;
        let mut arrived = vec![None; manifest.sinks.len()];
        for (target, each) in self.targets.iter_mut().enumerate() {
            let mut mine: Vec<(usize, usize)> =
                (0..).zip(&self.places).filter(|(_, place)| place.0 == target).map(|(sink, place)| (place.1, sink)).collect();
            mine.sort_unstable();
            let entries: Vec<&SinkEntry> = mine.iter().filter_map(|(_, sink)| manifest.sinks.get(*sink)).collect();
            for ((_, sink), found) in mine.iter().zip(each.begin(manifest, &entries)?) {
                if let Some(slot) = arrived.get_mut(*sink) {
                    *slot = found;
                }
            }
        }
        Ok(arrived)
    }

    fn deliver(&mut self, epoch: u64, rows: &[(usize, RecordBatch)], stop: &AtomicBool) -> Result<()> {
        for (target, each) in self.targets.iter_mut().enumerate() {
            let place = |(sink, batch): &(usize, RecordBatch)| {
                self.places.get(*sink).filter(|place| place.0 == target).map(|place| (place.1, batch.clone()))
            };
            let mine: Vec<(usize, RecordBatch)> = rows.iter().filter_map(place).collect();
            if !mine.is_empty() {
                each.deliver(epoch, &mine, stop)?;
            }
        }
        Ok(())
    }
}

/// Takes rows and drops them.
pub struct Blackhole {
    output: String,
}

impl Blackhole {
    /// For this output.
    pub fn new(output: String) -> Self {
        Self { output }
    }
}

impl Target for Blackhole {
    fn outputs(&self) -> Vec<&str> {
        vec![&self.output]
    }

    fn begin(&mut self, _manifest: &Manifest, entries: &[&SinkEntry]) -> Result<Vec<Option<u64>>> {
        Ok(entries.iter().map(|entry| Some(entry.delivered)).collect())
    }

    fn deliver(&mut self, _epoch: u64, _rows: &[(usize, RecordBatch)], _stop: &AtomicBool) -> Result<()> {
        Ok(())
    }
}
