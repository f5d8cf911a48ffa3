//! The Kafka source, the admin part and the producer against brokers: librdkafka's mock, and a real one started on demand.
//!
//! Always: topics of the real broker have names of their own, so tests don't meet. Where no broker can be had the tests that need it say
//! that they were skipped; with CI set they fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "deadlines of polls, and topic names nobody else has")]

use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidemill_connectors::format::{DecodeConfig, Hidden};
use tidemill_connectors::json::{Column, TimeUnitOption};
use tidemill_connectors::kafka::{Admin, BUDGET_BYTES, KafkaConfig, KafkaProducer, KafkaStatus, MockBroker, WAIT_MS, kafka_source};
use tidemill_engine::error::{Error, Kind};
use tidemill_engine::source::{Limits, ReadBatch, Source};
use tidemill_tests::broker;

const LIMITS: Limits = Limits { rows_max: 1000, bytes_max: 1 << 20, end: i64::MAX };

fn brokers() -> Option<String> {
    match broker::broker() {
        Ok(brokers) => Some(brokers),
        Err(why) if broker::required() => panic!("no broker: {why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// A topic name nobody else has.
fn fresh(name: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    format!("test-{name}-{}-{}", std::process::id(), now.as_nanos())
}

fn quiet() -> impl FnMut(&str) {
    |text: &str| eprintln!("waiting: {text}")
}

fn config(brokers: &str, topic: &str) -> KafkaConfig {
    KafkaConfig {
        brokers: brokers.into(),
        topic: topic.into(),
        properties: Vec::new(),
        group: "tidemill-test".into(),
        budget_bytes: BUDGET_BYTES,
    }
}

fn decode() -> DecodeConfig {
    let column = Column {
        name: "n".into(),
        path: vec!["n".into()],
        data_type: DataType::Int64,
        nullable: false,
        unit: TimeUnitOption::Ms,
        build: true,
    };
    DecodeConfig { columns: vec![column], hidden: vec![Hidden::Offset, Hidden::Key], ..DecodeConfig::default() }
}

fn open_with(config: KafkaConfig, positions: &[(i32, i64)]) -> Box<dyn Source> {
    let status = KafkaStatus::new(&config.brokers);
    let open = kafka_source(config, decode(), status).expect("good properties");
    let mut source = open().expect("opens");
    source.assign(positions).expect("assigns");
    source
}

fn open(brokers: &str, topic: &str, positions: &[(i32, i64)]) -> Box<dyn Source> {
    open_with(config(brokers, topic), positions)
}

/// Reads a partition until the broker says that it ends.
fn read_to_end(source: &mut dyn Source, partition: i32, limits: Limits) -> Vec<ReadBatch> {
    let (begin, mut reads) = (Instant::now(), Vec::new());
    loop {
        let polled = source.poll(partition, limits).expect("no error");
        reads.extend(polled.read);
        if polled.at_end || reads.last().is_some_and(|read| read.next >= limits.end) {
            return reads;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "no end after 30 s, {} batches", reads.len());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Polls until it fails.
fn read_to_error(source: &mut dyn Source, partition: i32) -> Error {
    let begin = Instant::now();
    loop {
        if let Err(error) = source.poll(partition, LIMITS) {
            return error;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "no error after 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn numbers(reads: &[ReadBatch]) -> Vec<i64> {
    reads.iter().flat_map(|read| read.batch["n"].as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn next(reads: &[ReadBatch]) -> i64 {
    reads.last().expect("something was read").next
}

fn produce(brokers: &str, topic: &str, partition: i32, numbers: std::ops::Range<i64>) {
    let mut producer = KafkaProducer::new(brokers, &[]).expect("good properties");
    for n in numbers {
        let value = format!(r#"{{"n":{n}}}"#);
        producer.send(topic, partition, Some(b"key"), Some(value.as_bytes()), 1_767_225_600_000 + n).expect("sent");
    }
    producer.flush().expect("delivered");
}

#[test]
fn the_mock_broker_serves_partitions_apart() {
    let broker = MockBroker::start().expect("starts");
    broker.create_topic("t", 2).expect("made");
    let admin = Admin::new(broker.address(), &[], WAIT_MS).expect("good properties");
    let info = admin.topic("t", &mut quiet()).expect("there");
    assert_eq!(info.partitions, 2);
    produce(broker.address(), "t", 0, 0..5000);
    produce(broker.address(), "t", 1, 7000..7010);
    assert_eq!(admin.end_offsets("t", &[0, 1], &mut quiet()).expect("answers"), [(0, 5000), (1, 10)]);
    assert_eq!(admin.begin_offsets("t", &[1, 0], &mut quiet()).expect("answers"), [(0, 0), (1, 0)]);
    let mut source = open(broker.address(), "t", &[(0, 0), (1, 4)]);
    let one = read_to_end(source.as_mut(), 1, LIMITS);
    assert_eq!((numbers(&one), next(&one)), ((7004..7010).collect(), 10));
    let zero = read_to_end(source.as_mut(), 0, Limits { rows_max: 333, ..LIMITS });
    assert_eq!((numbers(&zero), next(&zero)), ((0..5000).collect(), 5000));
    assert!(zero.iter().all(|read| read.records <= 333));
    for read in &zero {
        let record = read.raw.record(read.offsets[0]).expect("kept");
        assert_eq!((record.key, record.timestamp_ms), (Some(&b"key"[..]), Some(1_767_225_600_000 + read.offsets[0])));
        assert_eq!(record.payload, Some(format!(r#"{{"n":{}}}"#, read.offsets[0]).as_bytes()));
        assert!(read.raw.record(read.next).is_none());
    }
    // What was read outlives its reader.
    drop(source);
    assert!(zero.last().expect("read").raw.record(4999).is_some());
}

#[test]
fn limits_stop_a_poll_and_nothing_is_lost_between_polls() {
    let broker = MockBroker::start().expect("starts");
    broker.create_topic("t", 1).expect("made");
    produce(broker.address(), "t", 0, 0..3000);
    let mut source = open(broker.address(), "t", &[(0, 0)]);
    let small = Limits { rows_max: 1000, bytes_max: 100, end: 2500 };
    let reads = read_to_end(source.as_mut(), 0, small);
    assert_eq!((numbers(&reads), next(&reads)), ((0..2500).collect(), 2500));
    assert!(reads.iter().all(|read| read.bytes < 100 + 20), "one record more at most");
    let again = source.poll(0, small).expect("no error");
    assert!(again.read.is_none() && !again.at_end, "it stays before its end");
    let rest = read_to_end(source.as_mut(), 0, LIMITS);
    assert_eq!(numbers(&rest), (2500..3000).collect::<Vec<_>>());
}

#[test]
fn an_end_is_an_end_only_until_more_comes() {
    let broker = MockBroker::start().expect("starts");
    broker.create_topic("t", 1).expect("made");
    let mut source = open(broker.address(), "t", &[(0, 0)]);
    assert!(read_to_end(source.as_mut(), 0, LIMITS).is_empty());
    assert!(source.poll(0, LIMITS).expect("no error").at_end, "it stays at the end");
    produce(broker.address(), "t", 0, 0..1);
    let begin = Instant::now();
    let read = loop {
        if let Some(read) = source.poll(0, LIMITS).expect("no error").read {
            break read;
        }
        assert!(begin.elapsed() < Duration::from_secs(10));
    };
    assert_eq!((numbers(&[read]), source.poll(0, LIMITS).is_ok()), (vec![0], true));
    assert!(read_to_end(source.as_mut(), 0, LIMITS).is_empty());
}

#[test]
fn offsets_that_retention_took_are_an_error_that_names_the_choice() {
    let broker = MockBroker::start().expect("starts");
    broker.create_topic("t", 1).expect("made");
    produce(broker.address(), "t", 0, 0..3);
    let error = read_to_error(open(broker.address(), "t", &[(0, 77)]).as_mut(), 0);
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.message().contains("topic t, partition 0: offset 77") && error.message().contains("--reset"), "{error}");
}

#[test]
fn an_absent_topic_is_named_with_its_neighbours() {
    let broker = MockBroker::start().expect("starts");
    broker.create_topic("clicks", 1).expect("made");
    let admin = Admin::new(broker.address(), &[], 700).expect("good properties");
    let mut said = Vec::new();
    let error = admin.topic("clikcs", &mut |text| said.push(text.to_string())).expect_err("not there");
    assert!(error.message().contains("topic clikcs does not exist") && error.message().contains("there is clicks"), "{error}");
    assert_eq!((error.kind(), said.len()), (Kind::External, 1));
}

#[test]
fn a_broker_that_does_not_answer_is_named_within_seconds() {
    let admin = Admin::new("127.0.0.1:1", &[], 3500).expect("good properties");
    let begin = Instant::now();
    let mut first = None;
    let mut tell = |text: &str| {
        first.get_or_insert_with(|| (text.to_string(), begin.elapsed()));
    };
    let error = admin.topic("t", &mut tell).expect_err("nobody there");
    let (text, after) = first.expect("told");
    assert!(after < Duration::from_secs(4), "{after:?}");
    assert!(text.contains("broker 127.0.0.1:1 does not answer") && text.contains("refused"), "{text}");
    assert!(error.message().contains("127.0.0.1:1"), "{error}");
}

#[test]
fn a_running_reader_says_that_its_broker_is_gone() {
    let broker = MockBroker::start().expect("starts");
    broker.create_topic("t", 1).expect("made");
    let status = KafkaStatus::new(broker.address());
    let open = kafka_source(config(broker.address(), "t"), decode(), status.clone()).expect("good properties");
    let mut source = open().expect("opens");
    source.assign(&[(0, 0)]).expect("assigns");
    assert!(read_to_end(source.as_mut(), 0, LIMITS).is_empty());
    assert_eq!(status.trouble(), None);
    let address = broker.address().to_string();
    drop(broker);
    let begin = Instant::now();
    let trouble = loop {
        let polled = source.poll(0, LIMITS).expect("retried for a minute");
        if let Some(trouble) = status.trouble() {
            assert!(!source.poll(0, LIMITS).expect("retried").at_end || polled.at_end, "an end nobody confirms is none");
            break trouble;
        }
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(trouble.text.contains(&address) && !trouble.refused, "{trouble:?}");
}

#[test]
fn unknown_and_forbidden_properties_are_refused() {
    for (key, word) in [("no.such.property", "no.such.property"), ("isolation.level", "read_committed"), ("group.id", "lag")] {
        let mut config = config("127.0.0.1:1", "t");
        config.properties = vec![(key.into(), "1".into())];
        let open = kafka_source(config, decode(), KafkaStatus::new("x")).and_then(|open| {
            let mut source = open()?;
            source.assign(&[(0, 0)])
        });
        let error = open.expect_err(key);
        assert!(error.kind() == Kind::Refused && error.message().contains(word), "{key}: {error}");
    }
}

#[test]
fn large_records_null_and_empty_ones_pass() {
    let Some(brokers) = brokers() else { return };
    let topic = fresh("large");
    let admin = Admin::new(&brokers, &[], WAIT_MS).expect("good properties");
    assert!(admin.create_topic(&topic, 1, &[("max.message.bytes", "8388608")], &mut quiet()).expect("made"));
    assert!(!admin.create_topic(&topic, 1, &[], &mut quiet()).expect("there already"));
    let large = format!(r#"{{"n":1,"padding":"{}"}}"#, "x".repeat(3 << 20));
    let mut producer = KafkaProducer::new(&brokers, &[("compression.type".into(), "none".into())]).expect("good properties");
    producer.send(&topic, 0, None, Some(large.as_bytes()), 5).expect("sent");
    producer.send(&topic, 0, Some(b""), None, 6).expect("sent");
    producer.send(&topic, 0, None, Some(b""), 7).expect("sent");
    producer.send(&topic, 0, None, Some(br#"{"n":2}"#), 8).expect("sent");
    producer.flush().expect("delivered");
    let reads = read_to_end(open(&brokers, &topic, &[(0, 0)]).as_mut(), 0, LIMITS);
    assert_eq!(numbers(&reads), [1, 2]);
    let dead: Vec<_> =
        reads.iter().flat_map(|read| &read.dead).map(|letter| (letter.offset, letter.reason.as_str(), letter.timestamp_ms)).collect();
    assert_eq!(dead, [(1, "null_payload", Some(6)), (2, "empty", Some(7))]);
    let info = admin.topic(&topic, &mut quiet()).expect("there");
    assert!(info.topic_id.is_some_and(|id| id.len() == 22), "Kafka's ids are 22 characters");
    let ends = admin.end_offsets(&topic, &[0], &mut quiet()).expect("answers");
    assert_eq!(ends, [(0, 4)]);
    let at = |ms| admin.offsets_for_time(&topic, &[0], ms, &mut quiet()).expect("answers");
    assert_eq!((at(7), at(9)), (vec![(0, 2)], vec![(0, 4)]));
}

#[test]
fn committed_offsets_are_there_for_lag_tools() {
    let Some(brokers) = brokers() else { return };
    let topic = fresh("lag");
    let admin = Admin::new(&brokers, &[], WAIT_MS).expect("good properties");
    admin.create_topic(&topic, 1, &[], &mut quiet()).expect("made");
    produce(&brokers, &topic, 0, 0..10);
    let group = fresh("group");
    let mut source = open_with(KafkaConfig { group: group.clone(), ..config(&brokers, &topic) }, &[(0, 0)]);
    read_to_end(source.as_mut(), 0, LIMITS);
    source.committed(&[(0, 3)]);
    source.committed(&[(0, 10)]);
    drop(source);
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &brokers).set("group.id", &group).create().expect("a consumer");
    let mut asked = rdkafka::TopicPartitionList::new();
    asked.add_partition(&topic, 0);
    let found = consumer.committed_offsets(asked, Duration::from_secs(10)).expect("answers");
    assert_eq!(found.elements()[0].offset(), rdkafka::Offset::Offset(10));
    Admin::commit_offsets(&brokers, &[], &group, &topic, &[(0, 7)]).expect("committed");
}

/// Transactions leave control records and aborted records in the log: neither is seen, and the end is the end all the same.
#[test]
fn aborted_records_are_not_seen_and_an_open_transaction_is_no_end() {
    let Some(brokers) = brokers() else { return };
    let topic = fresh("transactions");
    let admin = Admin::new(&brokers, &[], WAIT_MS).expect("good properties");
    admin.create_topic(&topic, 1, &[("cleanup.policy", "compact")], &mut quiet()).expect("made");
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &brokers).set("transactional.id", fresh("id")).create().expect("a producer");
    let wait = Duration::from_secs(10);
    let send = |numbers: std::ops::Range<i64>| {
        for n in numbers {
            let value = format!(r#"{{"n":{n}}}"#);
            producer.send(BaseRecord::to(&topic).partition(0).key(&n.to_string()).payload(&value)).expect("queued");
        }
        producer.flush(wait).expect("sent");
    };
    producer.init_transactions(wait).expect("ready");
    let mut source = open(&brokers, &topic, &[(0, 0)]);

    // Offsets 0 to 4, and the commit at 5.
    producer.begin_transaction().expect("begun");
    send(0..5);
    producer.commit_transaction(wait).expect("committed");
    let reads = read_to_end(source.as_mut(), 0, LIMITS);
    assert_eq!((numbers(&reads), next(&reads)), ((0..5).collect(), 6), "the control record is passed over");

    // Offsets 6 to 8, and the abort at 9: the position moves, no row comes.
    producer.begin_transaction().expect("begun");
    send(100..103);
    producer.abort_transaction(wait).expect("aborted");
    let begin = Instant::now();
    let mut reads = Vec::new();
    while reads.last().is_none_or(|read: &ReadBatch| read.next < 10) {
        reads.extend(source.poll(0, LIMITS).expect("no error").read);
        assert!(begin.elapsed() < wait, "the position did not pass the aborted records");
    }
    assert_eq!((numbers(&reads), next(&reads)), (vec![], 10));
    assert_eq!(admin.end_offsets(&topic, &[0], &mut quiet()).expect("answers"), [(0, 10)]);

    // An open transaction from 10 on: the stable end is 10, the high watermark is above it.
    producer.begin_transaction().expect("begun");
    send(200..202);
    let begin = Instant::now();
    while source.poll(0, LIMITS).expect("no error").at_end {
        assert!(begin.elapsed() < wait, "the open transaction was not noticed");
    }
    for _ in 0..50 {
        let polled = source.poll(0, LIMITS).expect("no error");
        assert!(!polled.at_end && polled.read.is_none(), "an open transaction is no end");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(admin.end_offsets(&topic, &[0], &mut quiet()).expect("answers"), [(0, 10)], "the last stable offset");
    producer.commit_transaction(wait).expect("committed");
    let mut reads = Vec::new();
    while numbers(&reads).len() < 2 {
        reads.extend(source.poll(0, LIMITS).expect("no error").read);
    }
    reads.extend(read_to_end(source.as_mut(), 0, LIMITS));
    assert_eq!((numbers(&reads), next(&reads)), (vec![200, 201], 13));

    // From the beginning again, in one go, up to an end that is a control record.
    let reads = read_to_end(open(&brokers, &topic, &[(0, 0)]).as_mut(), 0, Limits { end: 13, ..LIMITS });
    assert_eq!((numbers(&reads), next(&reads)), (vec![0, 1, 2, 3, 4, 200, 201], 13));
}
