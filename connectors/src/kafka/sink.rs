//! Topics as sinks: the rows of an epoch, of all INSERTs to the same brokers, in one transaction with their markers.
//!
//! Always, in this order: `init_transactions` (it ends what a predecessor left open), then the marker partition to its end, then what is
//! missing. After any error, an unknown outcome of a commit among them, a new producer takes the same three steps. The user's topic holds
//! nothing but results; a record's headers say pipeline and epoch. Used by the engine through `sink::Sinks`.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use tidemill_engine::epoch::delivery::check_arrived;
use tidemill_engine::epoch::manifest::{Manifest, SinkEntry};
use tidemill_engine::error::{Error, Result};

use super::admin::{Admin, WAIT_MS};
use super::markers;
use super::status::KafkaStatus;
use super::transactions::{Failure, Record, Transactions};
use crate::json::encode::JsonEncoder;
use crate::sink::{Change, SinkSpec, Target, net};

/// A broker may be away so long before the run ends.
const PATIENCE_MS: u64 = 60_000;
const PAUSE_MS: u64 = 200;

/// One INSERT and its topic.
struct Topic {
    name: String,
    spec: SinkSpec,
    value: JsonEncoder,
    /// The key's columns, under their names.
    key: JsonEncoder,
}

/// Who sends.
#[derive(Default)]
struct Sender {
    pipeline: String,
    uuid: String,
    /// The topic of the markers.
    markers: String,
}

/// See the module doc.
pub struct KafkaSink {
    brokers: String,
    user: Vec<(String, String)>,
    status: Arc<KafkaStatus>,
    topics: Vec<Topic>,
    sender: Sender,
    transactions: Option<Transactions>,
    /// The last epoch that each topic's markers name.
    arrived: Vec<Option<u64>>,
}

impl KafkaSink {
    /// Topics on these brokers, each with the INSERT that goes there. Contacts nobody yet.
    pub fn new(brokers: String, user: Vec<(String, String)>, topics: Vec<(String, SinkSpec)>, status: Arc<KafkaStatus>) -> Self {
        let topic = |(name, spec): (String, SinkSpec)| {
            let value = JsonEncoder::new(spec.names.iter().map(String::as_str));
            let key = JsonEncoder::new(spec.key.iter().filter_map(|column| spec.names.get(*column)).map(String::as_str));
            Topic { name, spec, value, key }
        };
        let topics: Vec<Topic> = topics.into_iter().map(topic).collect();
        let arrived = vec![None; topics.len()];
        Self { brokers, user, status, topics, sender: Sender::default(), transactions: None, arrived }
    }

    /// The first two steps: shut out the predecessor, then read what has arrived.
    fn recover(&mut self) -> std::result::Result<(), Failure> {
        self.transactions = None;
        let first = self.topics.first().map_or("", |topic| topic.spec.output.as_str());
        let id = format!("tidemill-{}-{}-{first}", self.sender.pipeline, self.sender.uuid);
        let transactions = Transactions::begin(&self.brokers, &self.user, &id, &self.status)?;
        let read = markers::read(&self.brokers, &self.user, &self.sender.markers, &self.status);
        let found = read.map_err(|error| Failure { error, again: true })?;
        let mut all = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let output = &topic.spec.output;
            let arrived = found.get(&(output.clone(), self.sender.uuid.clone())).copied();
            if arrived.is_none() && found.keys().any(|(each, _)| each == output) {
                return Err(Failure { error: self.another_life(topic), again: false });
            }
            all.push(arrived);
        }
        self.arrived = all;
        self.transactions = Some(transactions);
        Ok(())
    }

    fn another_life(&self, topic: &Topic) -> Error {
        Error::refused(format!(
            "sink {}: topic {} has results of another life of pipeline {} (its data folder was deleted), which would be sent again; name the \
             pipeline anew (SET pipeline), or, if they may be there twice, run it with --reset",
            topic.spec.output, topic.name, self.sender.pipeline
        ))
    }

    /// The third step.
    fn send(&mut self, epoch: u64, rows: &[(usize, RecordBatch)]) -> std::result::Result<(), Failure> {
        if self.transactions.is_none() {
            self.recover()?;
        }
        let missing = |sink: usize| self.arrived.get(sink).copied().flatten().is_none_or(|arrived| arrived < epoch);
        let rows: Vec<(&Topic, usize, &RecordBatch)> = rows
            .iter()
            .filter(|(sink, _)| missing(*sink))
            .filter_map(|(sink, batch)| Some((self.topics.get(*sink)?, *sink, batch)))
            .collect();
        let Some(transactions) = self.transactions.as_mut().filter(|_| !rows.is_empty()) else { return Ok(()) };
        let stop = |error| Failure { error, again: false };
        transactions.open()?;
        let sent: Vec<usize> = rows.iter().map(|(_, sink, _)| *sink).collect();
        let epoch_text = epoch.to_string();
        let headers = Headers::new().map_err(stop)?;
        let headers = [(&headers.pipeline, self.sender.pipeline.as_bytes()), (&headers.epoch, epoch_text.as_bytes())];
        for (topic, _, batch) in rows {
            topic.send(batch, &headers, transactions)?;
            let (key, value) = markers::marker(&topic.spec.output, &self.sender.uuid, &self.sender.pipeline, epoch).map_err(stop)?;
            transactions.send(&self.sender.markers, Some(0), &Record { key: Some(&key), value: Some(&value), headers: &[] })?;
        }
        transactions.commit()?;
        for sink in sent {
            if let Some(arrived) = self.arrived.get_mut(sink) {
                *arrived = Some(epoch);
            }
        }
        Ok(())
    }
}

/// The names of a record's headers.
struct Headers {
    pipeline: CString,
    epoch: CString,
}

impl Headers {
    fn new() -> Result<Self> {
        let name = |name: &str| super::client::c_string(name);
        Ok(Self { pipeline: name("tidemill-pipeline")?, epoch: name("tidemill-epoch")? })
    }
}

impl Topic {
    /// Adds the rows of an epoch to the open transaction.
    fn send(&self, batch: &RecordBatch, headers: &[(&CString, &[u8])], to: &mut Transactions) -> std::result::Result<(), Failure> {
        let stop = |error| Failure { error, again: false };
        let changes = net(batch, &self.spec.key).map_err(stop)?;
        let keys: Vec<ArrayRef> = self.spec.key.iter().filter_map(|column| batch.columns().get(*column).cloned()).collect();
        let values = self.value.rows(batch.columns()).map_err(stop)?;
        let keys = self.key.rows(&keys).map_err(stop)?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for change in changes {
            let (row, gone) = match change {
                Change::Row(row) => (row, false),
                Change::Gone(row) => (row, true),
            };
            key.clear();
            let keyed = match (self.spec.key.is_empty(), self.spec.key_as_json) {
                (true, _) => false,
                (false, true) => {
                    keys.write(row, &mut key);
                    true
                }
                (false, false) => keys.write_text(row, &mut key),
            };
            value.clear();
            values.write(row, &mut value);
            let record = Record { key: keyed.then_some(key.as_slice()), value: (!gone).then_some(value.as_slice()), headers };
            to.send(&self.name, None, &record)?;
        }
        Ok(())
    }
}

impl Target for KafkaSink {
    fn outputs(&self) -> Vec<&str> {
        self.topics.iter().map(|topic| topic.spec.output.as_str()).collect()
    }

    fn begin(&mut self, manifest: &Manifest, entries: &[&SinkEntry]) -> Result<Vec<Option<u64>>> {
        let markers = markers::topic_of(&manifest.pipeline);
        self.sender = Sender { pipeline: manifest.pipeline.clone(), uuid: manifest.uuid.clone(), markers: markers.clone() };
        let admin = Admin::new(&self.brokers, &self.user, WAIT_MS)?;
        let mut wait = |what: &str| tracing::warn!("{what}");
        if !admin.has_topic(&markers, &mut wait)? {
            if let Some(entry) = entries.iter().find(|entry| entry.delivered > 0) {
                check_arrived(entry, manifest.epoch, None, &format!("the broker, whose topic {markers} is gone,"))?;
            }
            admin.create_topic(&markers, 1, markers::SETTINGS, &mut wait)?;
        }
        self.recover().map_err(|failure| failure.error)?;
        for (entry, arrived) in entries.iter().zip(&self.arrived) {
            check_arrived(entry, manifest.epoch, *arrived, &format!("topic {markers}"))?;
        }
        Ok(self.arrived.clone())
    }

    fn deliver(&mut self, epoch: u64, rows: &[(usize, RecordBatch)], stop: &AtomicBool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let failure = match self.send(epoch, rows) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            // Whether anything arrived is for a new producer to find out.
            self.transactions = None;
            if !failure.again || stop.load(Ordering::Acquire) || begun.elapsed() >= Duration::from_millis(PATIENCE_MS) {
                let names: Vec<&str> =
                    rows.iter().filter_map(|(sink, _)| self.topics.get(*sink)).map(|topic| topic.name.as_str()).collect();
                return Err(failure.error.context(format!("epoch {epoch} for topic {}", names.join(", "))));
            }
            tracing::warn!("epoch {epoch}: {}; trying again", failure.error);
            std::thread::sleep(Duration::from_millis(PAUSE_MS));
        }
    }
}
