//! A transactional producer: one transaction at a time, all of its records or none.
//!
//! Always: making one ends what a predecessor of the same id left open (`init_transactions`) and shuts it out; a record is in the
//! transaction that is open; after any error the producer is not used again: whoever made it makes a new one and asks what arrived.
//! Not here: what is sent and how it is known (`sink`).

use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaRespErr as Code;
use tidemill_engine::error::{Error, Result};

use super::client::{Client, Kind, c_string, describe, text_of};
use super::properties;
use super::status::KafkaStatus;

/// How long one request about a transaction may take; one that may be tried again is, until `PATIENCE_MS` is over.
const REQUEST_MS: i32 = 10_000;
const PATIENCE_MS: u64 = 30_000;
/// A transaction that takes longer is ended by the broker.
const TRANSACTION_MS_MAX: u64 = 60_000;
/// A record larger than this is refused here already.
const RECORD_BYTES_MAX: usize = 8 << 20;
const WAITING_KBYTES_MAX: usize = 64 << 10;
const WAITING_RECORDS_MAX: usize = 500_000;
/// Any partition: the key's hash says which, as Java's producers have it.
const BY_KEY: i32 = -1;
/// Callbacks are served once in so many records.
const POLL_EVERY: u32 = 1024;

/// See the module doc.
pub(super) struct Transactions {
    client: Arc<Client>,
    topics: Vec<(String, Topic)>,
    since_poll: u32,
}

/// A topic's handle.
struct Topic(*mut rd::rd_kafka_topic_t);

// SAFETY: librdkafka's topic handles are locked inside.
unsafe impl Send for Transactions {}

/// What went wrong, and whether a new producer may do better.
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) again: bool,
}

/// A record to send.
pub(super) struct Record<'a> {
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// Names and values.
    pub(super) headers: &'a [(&'a CString, &'a [u8])],
}

impl Transactions {
    /// Shuts out every other producer of this id and ends its transaction.
    pub(super) fn begin(
        brokers: &str,
        user: &[(String, String)],
        id: &str,
        status: &Arc<KafkaStatus>,
    ) -> std::result::Result<Self, Failure> {
        let own = [
            ("transactional.id", id.to_owned()),
            ("transaction.timeout.ms", TRANSACTION_MS_MAX.to_string()),
            ("partitioner", "murmur2_random".into()),
            ("compression.type", "lz4".into()),
            ("batch.size", (1 << 20).to_string()),
            ("queue.buffering.max.kbytes", WAITING_KBYTES_MAX.to_string()),
            ("queue.buffering.max.messages", WAITING_RECORDS_MAX.to_string()),
            ("message.max.bytes", RECORD_BYTES_MAX.to_string()),
            ("delivery.report.only.error", "true".into()),
        ];
        let stop = |error| Failure { error, again: false };
        let properties = properties(brokers, &own, user).map_err(stop)?;
        let client = Client::new(Kind::Producer, &properties, Arc::clone(status)).map_err(stop)?;
        let transactions = Self { client, topics: Vec::new(), since_poll: 0 };
        // SAFETY: the client lives through the call, as in each of these.
        transactions.patiently("a transaction can't be begun", |client| unsafe { rd::rd_kafka_init_transactions(client, REQUEST_MS) })?;
        status.answered();
        Ok(transactions)
    }

    /// Opens a transaction.
    pub(super) fn open(&self) -> std::result::Result<(), Failure> {
        // SAFETY: as above.
        self.patiently("a transaction can't be opened", |client| unsafe { rd::rd_kafka_begin_transaction(client) })
    }

    /// Commits it: everything sent since `open` is there at once.
    pub(super) fn commit(&self) -> std::result::Result<(), Failure> {
        // SAFETY: as above.
        self.patiently("a transaction can't be committed", |client| unsafe { rd::rd_kafka_commit_transaction(client, REQUEST_MS) })
    }

    /// Tries a request until it is done, can't be, or the time is up.
    fn patiently(
        &self,
        what: &str,
        mut request: impl FnMut(*mut rd::rd_kafka_t) -> *mut rd::rd_kafka_error_t,
    ) -> std::result::Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let error = request(self.client.raw());
            if error.is_null() {
                return Ok(());
            }
            // SAFETY: the error is ours, and is destroyed after it was read.
            let (code, text, retriable, fatal) = unsafe {
                let read = (
                    rd::rd_kafka_error_code(error),
                    text_of(rd::rd_kafka_error_string(error)),
                    rd::rd_kafka_error_is_retriable(error) != 0,
                    rd::rd_kafka_error_is_fatal(error) != 0,
                );
                rd::rd_kafka_error_destroy(error);
                read
            };
            self.client.poll(0);
            if retriable && begun.elapsed() < Duration::from_millis(PATIENCE_MS) {
                continue;
            }
            return Err(self.failure(code, &format!("{what}: {text}"), fatal));
        }
    }

    /// Adds a record to the open transaction; waits while too much is waiting.
    pub(super) fn send(&mut self, topic: &str, partition: Option<i32>, record: &Record<'_>) -> std::result::Result<(), Failure> {
        self.since_poll += 1;
        if self.since_poll >= POLL_EVERY {
            self.since_poll = 0;
            self.client.poll(0);
        }
        let handle = self.handle(topic).map_err(|error| Failure { error, again: false })?;
        let begun = Instant::now();
        loop {
            match self.try_send(handle, partition.unwrap_or(BY_KEY), record) {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => return Ok(()),
                Code::RD_KAFKA_RESP_ERR__QUEUE_FULL if begun.elapsed() < Duration::from_millis(TRANSACTION_MS_MAX) => self.client.poll(10),
                code => return Err(self.failure(code, &format!("topic {topic}: {}", describe(code)), false)),
            }
        }
    }

    fn failure(&self, code: Code, text: &str, fatal: bool) -> Failure {
        self.client.poll(0);
        let first = self.client.take_undelivered().map_or_else(String::new, |first| format!(" ({first})"));
        let trouble = self.client.status().trouble();
        let why = trouble.as_ref().map_or_else(String::new, |trouble| format!(" ({})", trouble.text));
        let shut_out = matches!(
            code,
            Code::RD_KAFKA_RESP_ERR__FENCED | Code::RD_KAFKA_RESP_ERR_PRODUCER_FENCED | Code::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH
        );
        let forbidden = matches!(
            code,
            Code::RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED
                | Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
                | Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED
                | Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
                | Code::RD_KAFKA_RESP_ERR_INVALID_RECORD
        ) || trouble.is_some_and(|trouble| trouble.refused);
        // A transaction that took too long is fenced by the broker, too; only an error that is final says that somebody else has come.
        let again = !(forbidden || shut_out && fatal);
        let hint = if shut_out && fatal {
            "; another run of this pipeline has taken over, or a transaction took longer than transaction.timeout.ms: run it again"
        } else {
            ""
        };
        Failure { error: Error::external(format!("{text}{first}{why}{hint}")), again }
    }

    fn handle(&mut self, topic: &str) -> Result<*mut rd::rd_kafka_topic_t> {
        if let Some((_, handle)) = self.topics.iter().find(|(name, _)| name == topic) {
            return Ok(handle.0);
        }
        let name = c_string(topic)?;
        // SAFETY: both live through the call; the handle is let go in `drop`, before the client.
        let handle = unsafe { rd::rd_kafka_topic_new(self.client.raw(), name.as_ptr(), std::ptr::null_mut()) };
        if handle.is_null() {
            return Err(Error::failed(format!("topic {topic}: librdkafka gave no handle")));
        }
        self.topics.push((topic.to_owned(), Topic(handle)));
        Ok(handle)
    }

    fn try_send(&self, topic: *mut rd::rd_kafka_topic_t, partition: i32, record: &Record<'_>) -> Code {
        use rd::rd_kafka_vtype_t as Tag;
        let parts = |bytes: Option<&[u8]>| bytes.map_or((std::ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()));
        let ((value, value_len), (key, key_len)) = (parts(record.value), parts(record.key));
        // SAFETY: the headers are ours until `producev` has taken them, which it does only if it succeeds; they copy names and values.
        // `rd_kafka_producev` takes tagged arguments up to END, of the types that rdkafka.h gives for each tag, and copies key and value.
        unsafe {
            let headers = rd::rd_kafka_headers_new(record.headers.len());
            for (name, value) in record.headers {
                rd::rd_kafka_header_add(headers, name.as_ptr(), -1, value.as_ptr().cast(), value.len() as isize);
            }
            let code = rd::rd_kafka_producev(
                self.client.raw(),
                Tag::RD_KAFKA_VTYPE_RKT,
                topic,
                Tag::RD_KAFKA_VTYPE_PARTITION,
                partition,
                Tag::RD_KAFKA_VTYPE_MSGFLAGS,
                rd::RD_KAFKA_MSG_F_COPY,
                Tag::RD_KAFKA_VTYPE_VALUE,
                value,
                value_len,
                Tag::RD_KAFKA_VTYPE_KEY,
                key,
                key_len,
                Tag::RD_KAFKA_VTYPE_HEADERS,
                headers,
                Tag::RD_KAFKA_VTYPE_END,
            );
            if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                rd::rd_kafka_headers_destroy(headers);
            }
            code
        }
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        for (_, topic) in self.topics.drain(..) {
            // SAFETY: ours, and the client still lives.
            unsafe { rd::rd_kafka_topic_destroy(topic.0) };
        }
    }
}
