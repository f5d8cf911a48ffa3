//! What a Kafka client knows of its brokers' health: the last error in words, and since when nothing has answered.
//!
//! Always: trouble begins with librdkafka's first error and ends only with an answer that was asked for after it (`Source` probes), not
//! with a record that had been fetched before. Shared by all readers of a topic and by the command, which shows it. Prints nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaRespErr as Code;

/// The health of one set of brokers.
pub struct KafkaStatus {
    brokers: String,
    failing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    since: Option<Instant>,
    text: String,
    refused: bool,
    gone: bool,
}

/// Brokers that do not answer, or not as they should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One sentence that names the broker.
    pub text: String,
    /// How long it has lasted without a break.
    pub lasted: Duration,
    /// The broker answers and says no (login, certificate): waiting will not help.
    pub refused: bool,
    /// The broker answers that there is no such topic.
    pub gone: bool,
}

impl KafkaStatus {
    /// Nothing known yet of `brokers` (as in `bootstrap.servers`).
    pub fn new(brokers: &str) -> Arc<Self> {
        Arc::new(Self { brokers: brokers.to_string(), failing: AtomicBool::new(false), state: Mutex::default() })
    }

    /// The brokers it is about.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// What is wrong now, if anything.
    pub fn trouble(&self) -> Option<Trouble> {
        if !self.failing.load(Ordering::Relaxed) {
            return None;
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lasted = state.since?.elapsed();
        Some(Trouble { text: state.text.clone(), lasted, refused: state.refused, gone: state.gone })
    }

    /// Cheap enough for every poll.
    pub(super) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// An error of librdkafka's that belongs to no record.
    pub(super) fn failed(&self, code: Code, reason: &str) {
        if no_topic(code) {
            // `clicks [0]: topic does not exist (…)`, told half a minute after brokers first said so.
            let place = reason.split(" [").next().unwrap_or(reason);
            return self.gone(place.rsplit(": ").next().unwrap_or(place));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.since.get_or_insert_with(Instant::now);
        // "All brokers down" follows the error that says why: keep that one.
        if !state.gone && (state.text.is_empty() || code != Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
            let (broker, what) = split(reason, &self.brokers);
            state.refused = matches!(code, Code::RD_KAFKA_RESP_ERR__AUTHENTICATION | Code::RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED);
            state.text = match code {
                Code::RD_KAFKA_RESP_ERR__RESOLVE => format!("broker {broker}: its name can't be resolved: {what}"),
                Code::RD_KAFKA_RESP_ERR__SSL => format!("broker {broker}: TLS failed: {what}"),
                _ if state.refused => format!("broker {broker} refuses the login: {what}"),
                _ => format!("broker {broker} does not answer: {what}"),
            };
        }
        drop(state);
        self.failing.store(true, Ordering::Relaxed);
    }

    /// The brokers answer, and know no such topic.
    pub(super) fn gone(&self, topic: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.gone {
            *state = State {
                since: Some(Instant::now()),
                text: format!("topic {topic} is not there any more: broker {} knows no such topic", self.brokers),
                refused: false,
                gone: true,
            };
        }
        drop(state);
        self.failing.store(true, Ordering::Relaxed);
    }

    /// The brokers have answered a request.
    pub(super) fn answered(&self) {
        self.failing.store(false, Ordering::Relaxed);
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }
}

/// Whether an error says that there is no such topic or partition.
pub(super) fn no_topic(code: Code) -> bool {
    matches!(
        code,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
            | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
    )
}

/// The broker and the fault in librdkafka's sentence, e.g.
/// `ssl://kafka:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 1ms in state CONNECT)`.
fn split<'a>(reason: &'a str, brokers: &'a str) -> (&'a str, &'a str) {
    let text = reason.rfind(" (after ").and_then(|at| reason.get(..at)).unwrap_or(reason);
    let text = text.strip_prefix("GroupCoordinator: ").unwrap_or(text);
    let Some((name, what)) = text.split_once(": ") else { return (brokers, text) };
    let name = name.rsplit_once("://").map_or(name, |(_, host)| host);
    let host = name.rsplit_once('/').map_or(name, |(host, _)| host);
    if host.contains(':') { (host, what) } else { (brokers, text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_the_broker_and_the_fault_only() {
        let text = "sasl_ssl://kafka:9092/bootstrap: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 1ms in state CONNECT)";
        assert_eq!(split(text, "x"), ("kafka:9092", "Connect to ipv4#10.0.0.1:9092 failed: Connection refused"));
        assert_eq!(split("GroupCoordinator: 127.0.0.1:1: Disconnected", "x"), ("127.0.0.1:1", "Disconnected"));
        assert_eq!(split("1/1 brokers are down", "a:1,b:2"), ("a:1,b:2", "1/1 brokers are down"));
        assert_eq!(split("a: b", "x"), ("x", "a: b"));
    }

    #[test]
    fn trouble_lasts_until_an_answer_and_keeps_the_reason() {
        let status = KafkaStatus::new("a:1");
        assert_eq!(status.trouble(), None);
        status.failed(Code::RD_KAFKA_RESP_ERR__TRANSPORT, "a:1/bootstrap: Connection refused");
        status.failed(Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN, "1/1 brokers are down");
        let trouble = status.trouble().expect("in trouble");
        assert_eq!((trouble.text.as_str(), trouble.refused), ("broker a:1 does not answer: Connection refused", false));
        status.answered();
        assert_eq!(status.trouble(), None);
        status
            .failed(Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, "clicks [1]: topic does not exist (Broker: Unknown topic or partition)");
        let trouble = status.trouble().expect("in trouble");
        assert_eq!((trouble.text.as_str(), trouble.gone), ("topic clicks is not there any more: broker a:1 knows no such topic", true));
    }
}
