//! Kafka, through librdkafka: reading topics (`KafkaSource`), asking brokers (`Admin`), writing records (`KafkaProducer`), and a broker
//! inside the process for a demo (`MockBroker`).
//!
//! Always: partitions are assigned by the engine, never by a consumer group; offsets are committed for lag tools only. A user's
//! properties go through to librdkafka, but for those that exactness depends on. Not here: decoding (`crate::format`).

#![allow(clippy::disallowed_methods, reason = "brokers are waited for: this module owns its clock")]

mod admin;
mod client;
mod markers;
mod messages;
mod mock;
mod offsets;
mod producer;
mod sink;
mod source;
mod status;
mod transactions;

pub use admin::{Admin, TopicInfo, WAIT_MS};
pub use markers::forget_delivered;
pub use mock::{MOCK_PARTITION_BYTES_MAX, MockBroker};
pub use producer::KafkaProducer;
pub use sink::KafkaSink;
pub use source::{KafkaSource, kafka_source};
pub use status::{KafkaStatus, Trouble};

use tidemill_engine::error::{Error, Result};

/// Bytes of fetched, unread records one reader keeps if nothing else is said.
pub const BUDGET_BYTES: usize = 32 << 20;
/// No partition gets less than this to keep.
const PARTITION_BYTES_MIN: usize = 1 << 20;
/// What one fetch asks of a partition. A record that is larger comes all the same.
const FETCH_BYTES: usize = 1 << 20;

/// Which topic, where, and how to talk to it.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `HOST:PORT,…`.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// What the user gave for librdkafka (`--kafka key=value`), e.g. TLS and SASL.
    pub properties: Vec<(String, String)>,
    /// The consumer group that offsets are committed to.
    pub group: String,
    /// Bytes of fetched, unread records one reader may keep, over all its partitions.
    pub budget_bytes: usize,
}

/// Properties that are not the user's to set, with what to use instead.
const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "use --brokers"),
    ("metadata.broker.list", "use --brokers"),
    ("group.id", "it is the pipeline's name, and only lag tools read it"),
    ("enable.auto.commit", "the epoch decides what has been read"),
    ("enable.auto.offset.store", "the epoch decides what has been read"),
    ("enable.partition.eof", "idle partitions are told by it"),
    ("auto.offset.reset", "use the source's option start"),
    ("isolation.level", "topics are read as read_committed"),
    ("log.queue", "use --log"),
    ("test.mock.num.brokers", "use `tidemill demo`"),
];

/// Refuses properties that would break what Tidemill promises, and those that librdkafka does not know or take.
pub fn check_properties(properties: &[(String, String)]) -> Result<()> {
    for (key, _) in properties {
        if let Some((_, instead)) = OURS.iter().find(|(ours, _)| ours == key) {
            return Err(Error::refused(format!("--kafka {key}: not to be set ({instead})")));
        }
    }
    client::check(properties)
}

/// The properties of every client; the user's come last and win.
fn properties(brokers: &str, own: &[(&str, String)], user: &[(String, String)]) -> Result<Vec<(String, String)>> {
    check_properties(user)?;
    let common = [
        ("bootstrap.servers", brokers),
        ("client.id", "tidemill"),
        // A dead address is named within seconds, and a broker that is back is found within one.
        ("socket.connection.setup.timeout.ms", "5000"),
        ("socket.timeout.ms", "15000"),
        ("reconnect.backoff.max.ms", "1000"),
        ("log.connection.close", "false"),
    ];
    let common = common.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string()));
    let own = own.iter().map(|(key, value)| ((*key).to_string(), value.clone()));
    Ok(common.chain(own).chain(user.iter().cloned()).collect())
}

/// The properties of a reader that has `partitions` partitions.
fn properties_of_reader(config: &KafkaConfig, partitions: usize) -> Result<Vec<(String, String)>> {
    let kept = (config.budget_bytes / partitions.max(1)).max(PARTITION_BYTES_MIN);
    let own = [
        ("group.id", config.group.clone()),
        ("enable.auto.commit", "false".into()),
        ("enable.auto.offset.store", "false".into()),
        ("enable.partition.eof", "true".into()),
        ("auto.offset.reset", "error".into()),
        ("isolation.level", "read_committed".into()),
        ("check.crcs", "true".into()),
        ("statistics.interval.ms", "0".into()),
        // Bytes bound what is kept, not a count; with a queue per partition the limit is per partition.
        ("queued.min.messages", "10000000".into()),
        ("queued.max.messages.kbytes", (kept / 1024).to_string()),
        ("fetch.message.max.bytes", FETCH_BYTES.to_string()),
        // Data is answered at once (`fetch.min.bytes` = 1); a short wait lets a partition that was full rejoin the fetch soon.
        ("fetch.wait.max.ms", "20".into()),
        // A full queue is looked at again after this; librdkafka's own second would starve a fast reader.
        ("fetch.queue.backoff.ms", "2".into()),
        ("fetch.error.backoff.ms", "200".into()),
    ];
    properties(&config.brokers, &own, &config.properties)
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exactness_depends_on_is_refused_with_what_to_use() {
        let error = check_properties(&[("isolation.level".into(), "read_uncommitted".into())]).expect_err("refused");
        assert!(error.message().contains("read_committed"), "{error}");
        let login =
            [("security.protocol", "sasl_ssl"), ("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.username", "ann"), ("sasl.password", "x")];
        check_properties(&login.map(|(key, value)| (key.to_string(), value.to_string()))).expect("goes through");
        let error = check_properties(&[("fetch.wait.max.ms".into(), "soon".into())]).expect_err("refused");
        assert!(error.message().starts_with("--kafka fetch.wait.max.ms: "), "{error}");
    }

    #[test]
    fn the_users_property_wins_and_the_budget_is_shared() {
        let config = KafkaConfig {
            brokers: "a:1".into(),
            topic: "t".into(),
            properties: vec![("fetch.wait.max.ms".into(), "500".into())],
            group: "g".into(),
            budget_bytes: 8 << 20,
        };
        let of = |partitions, key: &str| {
            let all = properties_of_reader(&config, partitions).expect("fine");
            all.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.clone()).expect("set")
        };
        assert_eq!(of(4, "queued.max.messages.kbytes"), "2048");
        assert_eq!(of(64, "queued.max.messages.kbytes"), "1024");
        assert_eq!(of(4, "fetch.wait.max.ms"), "500");
    }
}
