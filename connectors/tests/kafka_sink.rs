//! A topic as a sink, against a real broker: what a predecessor left open is ended, what it committed is known, markers are read behind every
//! open transaction, and records are what a reader expects: key, tombstone, headers.
//!
//! Always: names nobody else has. Without a broker a test says `skipped: why`; where CI is set it fails. The mock shows aborted records, so
//! it is no use here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "deadlines of polls, and topic names nobody else has")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tidemill_connectors::kafka::{Admin, KafkaSink, KafkaStatus, WAIT_MS};
use tidemill_connectors::sink::{SinkSpec, Sinks};
use tidemill_engine::epoch::delivery::Deliver;
use tidemill_engine::epoch::manifest::{Manifest, SinkEntry};
use tidemill_tests::broker;

const SECONDS: Duration = Duration::from_secs(20);

/// A pipeline of its own and its topic.
struct Bed {
    brokers: String,
    pipeline: String,
    topic: String,
}

fn bed(name: &str) -> Option<Bed> {
    let brokers = match broker::broker() {
        Ok(brokers) => brokers,
        Err(why) if broker::required() => panic!("no broker: {why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            return None;
        }
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    let topic = format!("sink-{name}-{}-{now}", std::process::id());
    Admin::new(&brokers, &[], WAIT_MS).expect("good").create_topic(&topic, 1, &[], &mut |_| {}).expect("made");
    Some(Bed { brokers, pipeline: format!("t{now}"), topic })
}

impl Bed {
    fn sink(&self, key: &[usize]) -> Sinks {
        let spec = SinkSpec { output: "out".into(), names: vec!["Key".into(), "t".into()], key: key.to_vec(), key_as_json: false };
        let status = KafkaStatus::new(&self.brokers);
        Sinks::new(vec![Box::new(KafkaSink::new(self.brokers.clone(), Vec::new(), vec![(self.topic.clone(), spec)], status))])
    }

    fn manifest(&self, uuid: &str, epoch: u64, delivered: u64) -> Manifest {
        let text = serde_json::json!({
            "format": 1, "epoch": epoch, "pipeline": self.pipeline, "uuid": uuid, "incarnation": "", "build": "", "hash_id": "", "plan": [],
            "workers": 1, "committed_at_ms": 0, "sources": [], "watermarks": [], "accounts": [], "state": [], "tables": [], "journal": null,
            "ended": false
        });
        let mut manifest: Manifest = serde_json::from_value(text).expect("a manifest");
        let schema = rows(&[])[0].1.schema().as_ref().clone();
        manifest.sinks.push(SinkEntry { name: "out".into(), schema, delivered, sealed: Vec::new() });
        manifest
    }

    fn markers(&self) -> String {
        format!("tidemill-markers-{}", self.pipeline)
    }

    /// Everything in the topic: key, value, headers.
    fn read(&self) -> Vec<(Option<String>, Option<String>, String)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "test")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()
            .expect("a consumer");
        let mut at = TopicPartitionList::new();
        at.add_partition_offset(&self.topic, 0, Offset::Beginning).expect("fits");
        consumer.assign(&at).expect("assigns");
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"));
        let (mut all, begun) = (Vec::new(), Instant::now());
        loop {
            assert!(begun.elapsed() < SECONDS, "no end: {all:?}");
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return all,
                Some(Err(error)) => panic!("{error}"),
                Some(Ok(message)) => {
                    let headers = message.headers().map(|headers| {
                        let all = headers.iter().map(|header| format!("{}={}", header.key, text(header.value).unwrap_or_default()));
                        all.collect::<Vec<_>>().join(" ")
                    });
                    all.push((text(message.key()), text(message.payload()), headers.unwrap_or_default()));
                }
            }
        }
    }

    /// A producer with an open transaction, in which it has sent a record and the marker of an epoch.
    fn left_open(&self, id: &str, uuid: &str, epoch: u64) -> BaseProducer {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).set("transactional.id", id).create().expect("a producer");
        producer.init_transactions(SECONDS).expect("begins");
        producer.begin_transaction().expect("opens");
        producer.send(BaseRecord::<(), str>::to(&self.topic).payload("{\"open\":true}")).expect("sends");
        let (key, value) = (format!("out/{uuid}"), format!("{{\"epoch\":{epoch},\"pipeline\":\"{}\"}}", self.pipeline));
        producer.send(BaseRecord::to(&self.markers()).partition(0).key(&key).payload(&value)).expect("sends");
        producer.flush(SECONDS).expect("sent");
        producer
    }
}

fn rows(rows: &[(i64, &str, i64)]) -> Vec<(usize, RecordBatch)> {
    let columns: [(&str, ArrayRef); 3] = [
        ("k", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)))),
        ("t", Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.1)))),
        ("_weight", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))),
    ];
    vec![(0, RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("a batch"))]
}

#[test]
fn records_have_key_value_tombstone_and_headers() {
    let Some(bed) = bed("records") else { return };
    let (mut sink, stop) = (bed.sink(&[0]), AtomicBool::new(false));
    assert_eq!(sink.begin(&bed.manifest("u", 0, 0)).expect("begins"), [None]);
    sink.deliver(1, &rows(&[(1, "a", 1), (2, "b", 1)]), &stop).expect("delivers");
    sink.deliver(2, &rows(&[(1, "a", -1), (1, "c", 1), (2, "b", -1)]), &stop).expect("delivers");
    let record = |key: &str, value: Option<&str>, epoch: u64| {
        (Some(key.to_owned()), value.map(str::to_owned), format!("tidemill-pipeline={} tidemill-epoch={epoch}", bed.pipeline))
    };
    let expected = [
        record("1", Some(r#"{"Key":1,"t":"a"}"#), 1),
        record("2", Some(r#"{"Key":2,"t":"b"}"#), 1),
        record("1", Some(r#"{"Key":1,"t":"c"}"#), 2),
        record("2", None, 2),
    ];
    assert_eq!(bed.read(), expected);
}

#[test]
fn an_epoch_arrives_once_whatever_the_predecessor_left() {
    let Some(bed) = bed("once") else { return };
    let stop = AtomicBool::new(false);
    let mut first = bed.sink(&[]);
    first.begin(&bed.manifest("u", 0, 0)).expect("begins");
    first.deliver(3, &rows(&[(3, "x", 1)]), &stop).expect("delivers");
    // The predecessor died with epoch 4 in an open transaction: it never was.
    let dead = bed.left_open(&format!("tidemill-{}-u-out", bed.pipeline), "u", 4);
    let mut second = bed.sink(&[]);
    assert_eq!(second.begin(&bed.manifest("u", 5, 0)).expect("begins"), [Some(3)]);
    for epoch in [3, 4, 4, 5] {
        second.deliver(epoch, &rows(&[(epoch as i64, "y", 1)]), &stop).expect("delivers");
    }
    assert!(dead.commit_transaction(SECONDS).is_err(), "it is shut out");
    let values: Vec<String> = bed.read().into_iter().filter_map(|(_, value, _)| value).collect();
    assert_eq!(values, [r#"{"Key":3,"t":"x"}"#, r#"{"Key":4,"t":"y"}"#, r#"{"Key":5,"t":"y"}"#]);
    // So is the first one, which has not noticed yet.
    let error = first.deliver(6, &rows(&[(6, "x", 1)]), &stop).expect_err("shut out");
    assert!(error.message().contains("taken over"), "{error}");
    assert_eq!(bed.read().len(), 3);
}

#[test]
fn markers_are_read_behind_every_open_transaction() {
    let Some(bed) = bed("open") else { return };
    bed.sink(&[]).begin(&bed.manifest("u", 0, 0)).expect("makes the topic of markers");
    let open = bed.left_open("somebody-else", "u", 9);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| bed.sink(&[]).begin(&bed.manifest("u", 9, 0)));
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!reader.is_finished(), "a marker in an open transaction may still come");
        open.commit_transaction(SECONDS).expect("commits");
        assert_eq!(reader.join().expect("no panic").expect("begins"), [Some(9)]);
    });
}

#[test]
fn what_the_topic_knows_must_fit_the_manifest() {
    let Some(bed) = bed("fits") else { return };
    let stop = AtomicBool::new(false);
    let refused = |manifest: &Manifest| bed.sink(&[]).begin(manifest).expect_err("refused").message().to_owned();
    let gone = refused(&bed.manifest("u", 7, 7));
    assert!(gone.contains("epoch 7 has been delivered") && gone.contains("is gone"), "{gone}");
    let mut sink = bed.sink(&[]);
    sink.begin(&bed.manifest("u", 0, 0)).expect("begins");
    sink.deliver(7, &rows(&[(7, "x", 1)]), &stop).expect("delivers");
    assert!(refused(&bed.manifest("u", 6, 0)).contains("newest epoch is 6"));
    assert!(refused(&bed.manifest("u", 9, 8)).contains("knows only of epoch 7"));
    assert!(refused(&bed.manifest("v", 9, 0)).contains("another life"));
    assert_eq!(bed.sink(&[]).begin(&bed.manifest("u", 9, 7)).expect("fits"), [Some(7)]);
}
