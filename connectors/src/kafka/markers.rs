//! Markers: which epochs have arrived at a pipeline's topics, in a small topic beside them.
//!
//! Always: a marker is written in the transaction that it speaks of, so it is there if and only if the rows are; the topic has one
//! partition, is compacted and kept for ever. It is read to its end, behind every transaction that is still open. A marker's key is
//! `output/uuid`, its value the epoch and the pipeline as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaRespErr as Code;
use serde::{Deserialize, Serialize};
use tidemill_engine::error::{Error, Result};

use super::admin::{Admin, WAIT_MS};
use super::client::{Client, Kind, Partitions, c_string, describe};
use super::messages::Message;
use super::producer::KafkaProducer;
use super::properties;
use super::status::KafkaStatus;

/// How long the partition's end is waited for: longer than an open transaction may last.
const READ_MS_MAX: u64 = 90_000;
/// A record's timestamp of 0 is the time of sending.
const NOW: i64 = 0;
/// `OFFSET_BEGINNING`.
const BEGINNING: i64 = -2;

/// What the topic is made with. Small segments, so that old markers go soon.
pub(super) const SETTINGS: &[(&str, &str)] =
    &[("cleanup.policy", "compact"), ("retention.ms", "-1"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")];

/// A marker's value.
#[derive(Debug, Serialize, Deserialize)]
struct Value {
    epoch: u64,
    pipeline: String,
}

/// The name of a pipeline's marker topic.
pub(super) fn topic_of(pipeline: &str) -> String {
    format!("tidemill-markers-{pipeline}")
}

/// A marker to write.
pub(super) fn marker(output: &str, uuid: &str, pipeline: &str, epoch: u64) -> Result<(Vec<u8>, Vec<u8>)> {
    Ok((format!("{output}/{uuid}").into_bytes(), serde_json::to_vec(&Value { epoch, pipeline: pipeline.to_owned() })?))
}

/// The last epoch of each output and pipeline id.
pub(super) type Markers = BTreeMap<(String, String), u64>;

/// Reads the topic to its end.
pub(super) fn read(brokers: &str, user: &[(String, String)], topic: &str, status: &Arc<KafkaStatus>) -> Result<Markers> {
    let own = [
        ("group.id", topic.to_owned()),
        ("enable.auto.commit", "false".into()),
        ("enable.auto.offset.store", "false".into()),
        ("enable.partition.eof", "true".into()),
        ("auto.offset.reset", "error".into()),
        ("isolation.level", "read_committed".into()),
        ("fetch.wait.max.ms", "20".into()),
    ];
    let client = Client::new(Kind::Consumer, &properties(brokers, &own, user)?, Arc::clone(status))?;
    let name = c_string(topic)?;
    let queue = client.partition_queue(&name, 0)?;
    let positions = Partitions::new(&name, &[(0, BEGINNING)])?;
    // SAFETY: both live through the call.
    let code = unsafe { rd::rd_kafka_assign(client.raw(), positions.raw()) };
    if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(Error::failed(format!("topic {topic}: can't be assigned: {}", describe(code))));
    }
    let (mut markers, mut end, begun) = (Markers::new(), None, Instant::now());
    loop {
        if begun.elapsed() >= Duration::from_millis(READ_MS_MAX) {
            let why = status.trouble().map_or_else(|| "a transaction on it stays open".to_owned(), |trouble| trouble.text);
            return Err(Error::external(format!("topic {topic}: its end was not reached in {} s: {why}", READ_MS_MAX / 1000)));
        }
        client.poll(0);
        // SAFETY: the queue lives; the message is ours.
        let Some(message) = (unsafe { Message::own(rd::rd_kafka_consume_queue(queue.raw(), 100)) }) else {
            if end.is_some_and(|at| is_end(&client, &name, at)) {
                return Ok(markers);
            }
            continue;
        };
        match message.code() {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => {
                end = None;
                let record = message.record();
                note(&mut markers, record.key, record.payload);
            }
            Code::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                end = Some(message.offset());
                if is_end(&client, &name, message.offset()) {
                    return Ok(markers);
                }
            }
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART | Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => {
                return Err(Error::external(format!("topic {topic}: {}", message.error_text())));
            }
            _ => tracing::warn!(target: "librdkafka", "topic {topic}: {}; trying again", message.error_text()),
        }
    }
}

/// Forgets what has arrived at a pipeline's topics: it begins anew, and sends everything again. Does nothing where there are no markers.
pub fn forget_delivered(brokers: &str, user: &[(String, String)], pipeline: &str, on_wait: &mut dyn FnMut(&str)) -> Result<()> {
    let topic = topic_of(pipeline);
    if !Admin::new(brokers, user, WAIT_MS)?.has_topic(&topic, on_wait)? {
        return Ok(());
    }
    let found = read(brokers, user, &topic, &KafkaStatus::new(brokers))?;
    let mut producer = KafkaProducer::new(brokers, user)?;
    for (output, uuid) in found.keys() {
        producer.send(&topic, 0, Some(format!("{output}/{uuid}").as_bytes()), None, NOW)?;
    }
    producer.flush()
}

/// Is this offset behind every record, those of open transactions too? A question to the broker would be answered by what a committed
/// reader may see; the last answer to a fetch says where the partition ends.
fn is_end(client: &Client, topic: &std::ffi::CStr, offset: i64) -> bool {
    let (mut low, mut high) = (0, 0);
    // SAFETY: everything lives through the call, which reads librdkafka's memory and asks nobody.
    let code = unsafe { rd::rd_kafka_get_watermark_offsets(client.raw(), topic.as_ptr(), 0, &mut low, &mut high) };
    code == Code::RD_KAFKA_RESP_ERR_NO_ERROR && offset >= high
}

/// Takes a marker in; what is none is not ours.
fn note(markers: &mut Markers, key: Option<&[u8]>, value: Option<&[u8]>) {
    let key = key.and_then(|key| std::str::from_utf8(key).ok()).and_then(|key| key.split_once('/'));
    let Some((output, uuid)) = key else { return };
    let name = (output.to_owned(), uuid.to_owned());
    match value.map(serde_json::from_slice::<Value>) {
        Some(Ok(value)) => drop(markers.insert(name, value.epoch)),
        Some(Err(_)) => {}
        None => drop(markers.remove(&name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_marker_counts_and_a_tombstone_ends_it() {
        let mut markers = Markers::new();
        for epoch in [3, 7] {
            let (key, value) = marker("alerts", "u1", "p", epoch).expect("a marker");
            note(&mut markers, Some(&key), Some(&value));
        }
        note(&mut markers, Some(b"alerts/u2"), Some(br#"{"epoch":1,"pipeline":"p","more":true}"#));
        note(&mut markers, Some(b"other"), Some(b"{}"));
        note(&mut markers, Some(b"alerts/u3"), Some(b"no marker"));
        let all: Vec<_> = markers.iter().map(|((output, uuid), epoch)| format!("{output} {uuid} {epoch}")).collect();
        assert_eq!(all, ["alerts u1 7", "alerts u2 1"]);
        note(&mut markers, Some(b"alerts/u2"), None);
        assert_eq!(markers.len(), 1);
    }
}
