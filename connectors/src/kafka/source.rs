//! Reading a topic: one client a reader, one queue a partition, thousands of messages a call, decoded out of librdkafka's buffers.
//!
//! Always: only the partition that is polled moves (the others fill their share of the budget and stop); a record of a batch stays
//! readable until the batch's tick is done; the end of a partition is told by the broker's high watermark and by nothing else. A broker that
//! is away is waited for, up to `TROUBLE_SECONDS_MAX`. Not here: which partitions to read and how far (the engine says).

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaRespErr as Code;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::source::{Limits, Polled, Source};

use super::client::{Client, Kind, Partitions, Queue, c_string, describe};
use super::messages::{Message, Messages};
use super::offsets::{self, At};
use super::status::{KafkaStatus, no_topic};
use super::{KafkaConfig, properties_of_reader};
use crate::OpenSource;
use crate::format::{DecodeConfig, RecordDecoder};

/// Messages taken from librdkafka in one call.
const TAKE_MAX: usize = 4096;
/// After so long without an answer the run gives up.
const TROUBLE_SECONDS_MAX: u64 = 60;
/// After a topic has been gone for so long the run ends. librdkafka has waited half a minute before it says so.
const GONE_SECONDS_MAX: u64 = 10;
/// A reader that got nothing for so long asks whether its topic is still there.
const QUIET_SECONDS_MAX: u64 = 10;
/// How often, in trouble, the brokers are asked whether they are back, and how long they may take to say so.
const PROBE_MS: u64 = 500;
const PROBE_ANSWER_MS: i32 = 5000;
/// How long a reader that ends waits for its last commit of offsets.
const LAST_COMMIT_MS: i32 = 1000;

/// Readers of `config.topic`, whose health `status` shows. Refused: properties that librdkafka or `check_properties` won't take.
pub fn kafka_source(config: KafkaConfig, decode: DecodeConfig, status: Arc<KafkaStatus>) -> Result<OpenSource> {
    properties_of_reader(&config, 1)?;
    let decode = Arc::new(decode);
    Ok(Arc::new(move || Ok(Box::new(KafkaSource::new(config.clone(), &decode, status.clone())?))))
}

/// One reader of one topic.
pub struct KafkaSource {
    config: KafkaConfig,
    status: Arc<KafkaStatus>,
    decoder: RecordDecoder,
    taken: Vec<*mut rd::rd_kafka_message_t>,
    reader: Option<Reader>,
}

// SAFETY: `taken` is empty between calls; the rest is `Send`.
unsafe impl Send for KafkaSource {}

/// What there is once partitions are assigned. Fields drop in order: queues before the client.
struct Reader {
    partitions: Vec<Partition>,
    commits: Commits,
    probe: Probe,
    client: Arc<Client>,
    topic: CString,
}

struct Partition {
    id: i32,
    /// Taken from librdkafka and not yet given to the engine.
    waiting: VecDeque<Message>,
    queue: Queue,
    next: i64,
    /// Where the broker last said that the partition ends.
    eof: Option<i64>,
}

/// Commits of offsets: one on its way, the newest after it.
struct Commits {
    queue: Queue,
    open: bool,
    then: Option<Vec<(i32, i64)>>,
}

/// A question whose answer shows that the brokers are back.
struct Probe {
    queue: Queue,
    open: bool,
    asked: Instant,
    /// The last record or good answer.
    heard: Instant,
}

impl KafkaSource {
    /// A reader that contacts nobody before `assign`.
    pub fn new(config: KafkaConfig, decode: &DecodeConfig, status: Arc<KafkaStatus>) -> Result<Self> {
        let decoder = RecordDecoder::new(&config.topic, decode)?;
        Ok(Self { config, status, decoder, taken: Vec::with_capacity(TAKE_MAX), reader: None })
    }
}

impl Source for KafkaSource {
    fn assign(&mut self, partitions: &[(i32, i64)]) -> Result<()> {
        if self.reader.is_some() {
            return Err(Error::failed(format!("topic {}: partitions were assigned twice", self.config.topic)));
        }
        let properties = properties_of_reader(&self.config, partitions.len())?;
        let client = Client::new(Kind::Consumer, &properties, self.status.clone())?;
        let topic = c_string(&self.config.topic)?;
        let mut list = Vec::with_capacity(partitions.len());
        for (id, next) in partitions {
            // Before `assign`, so that nothing is forwarded to the common queue.
            let queue = client.partition_queue(&topic, *id)?;
            list.push(Partition { id: *id, waiting: VecDeque::new(), queue, next: *next, eof: None });
        }
        let positions = Partitions::new(&topic, partitions)?;
        // SAFETY: both live through the call.
        let code = unsafe { rd::rd_kafka_assign(client.raw(), positions.raw()) };
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(Error::failed(format!("topic {}: can't be assigned: {}", self.config.topic, describe(code))));
        }
        let commits = Commits { queue: client.queue()?, open: false, then: None };
        let probe = Probe { queue: client.queue()?, open: false, asked: Instant::now(), heard: Instant::now() };
        self.reader = Some(Reader { partitions: list, commits, probe, client, topic });
        Ok(())
    }

    fn poll(&mut self, partition: i32, limits: Limits) -> Result<Polled> {
        let name = self.config.topic.as_str();
        let not_ours = || Error::failed(format!("topic {name}: partition {partition} is not assigned to this reader"));
        let reader = self.reader.as_mut().ok_or_else(not_ours)?;
        reader.client.poll(0);
        reader.commits.serve(&reader.client, &reader.topic);
        let from = reader.partitions.iter_mut().find(|each| each.id == partition).ok_or_else(not_ours)?;
        let start = from.next;
        let mut kept = Messages::new(reader.client.clone(), from.waiting.len().min(limits.rows_max));
        self.decoder.begin(partition);
        while self.decoder.records() < limits.rows_max && self.decoder.bytes() < limits.bytes_max {
            if from.waiting.is_empty() {
                from.take((limits.rows_max - self.decoder.records()).min(TAKE_MAX), &mut self.taken);
            }
            let Some(message) = from.waiting.pop_front() else { break };
            match message.code() {
                Code::RD_KAFKA_RESP_ERR_NO_ERROR if message.offset() >= limits.end => {
                    // It proves that nothing before the end is missing.
                    from.next = from.next.max(limits.end);
                    from.waiting.push_front(message);
                    break;
                }
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    self.decoder.push(message.offset(), message.record());
                    from.next = message.offset() + 1;
                    kept.push(message);
                }
                Code::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                    from.eof = Some(message.offset());
                    // Control records and aborted ones before the end are passed over.
                    from.next = from.next.max(message.offset());
                }
                code => event(name, partition, from.next, code, &message.error_text())?,
            }
        }
        let read =
            if self.decoder.records() > 0 || from.next != start { Some(self.decoder.finish(from.next, Arc::new(kept))?) } else { None };
        let mut at_end = from.at_end(&reader.client, &reader.topic);
        if read.is_some() {
            reader.probe.heard = Instant::now();
        }
        let failing = self.status.failing();
        if failing || reader.probe.open || reader.probe.heard.elapsed() >= Duration::from_secs(QUIET_SECONDS_MAX) {
            at_end &= !failing;
            let waited = reader.wait_for_brokers(name, &self.status);
            if read.is_none() {
                waited?;
            }
        }
        Ok(Polled { read, at_end })
    }

    fn committed(&mut self, positions: &[(i32, i64)]) {
        if let Some(reader) = &mut self.reader
            && !positions.is_empty()
        {
            reader.commits.then = Some(positions.to_vec());
            reader.commits.serve(&reader.client, &reader.topic);
        }
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        let Some(reader) = &mut self.reader else { return };
        // The commit on its way and the newest one.
        for _ in 0..2 {
            reader.commits.finish_one();
            reader.commits.serve(&reader.client, &reader.topic);
        }
    }
}

impl Partition {
    /// Takes up to `count` messages that librdkafka has ready.
    fn take(&mut self, count: usize, taken: &mut Vec<*mut rd::rd_kafka_message_t>) {
        // SAFETY: `taken` has room for `TAKE_MAX` >= `count` pointers, of which librdkafka sets as many as it returns (-1 for an error);
        // each is ours from here on, and `queue` keeps their client.
        unsafe {
            let got = rd::rd_kafka_consume_batch_queue(self.queue.raw(), 0, taken.as_mut_ptr(), count.min(taken.capacity()));
            taken.set_len(usize::try_from(got).unwrap_or(0));
            self.waiting.extend(taken.drain(..).filter_map(|raw| Message::own(raw)));
        }
    }

    /// Is the position the end, as the last answer of the broker had it? With an open transaction the end that a reader may see is below
    /// the high watermark, and that is no end.
    fn at_end(&self, client: &Client, topic: &CString) -> bool {
        if !self.waiting.is_empty() || self.eof != Some(self.next) {
            return false;
        }
        let (mut low, mut high) = (0, 0);
        // SAFETY: everything lives through the call, which reads librdkafka's memory and asks nobody.
        let code = unsafe { rd::rd_kafka_get_watermark_offsets(client.raw(), topic.as_ptr(), self.id, &mut low, &mut high) };
        code == Code::RD_KAFKA_RESP_ERR_NO_ERROR && high == self.next
    }
}

impl Reader {
    /// In trouble, or after a long silence: asks whether brokers and topic are there, and gives up when they were away for too long.
    fn wait_for_brokers(&mut self, topic: &str, status: &KafkaStatus) -> Result<()> {
        let probe = &mut self.probe;
        if probe.open {
            if let Some(event) = probe.queue.event(0) {
                probe.open = false;
                match offsets::answer(&event) {
                    Ok(_) => {
                        probe.heard = Instant::now();
                        status.answered();
                    }
                    Err((code, _)) if no_topic(code) => status.gone(topic),
                    Err(_) => {}
                }
            }
        } else if probe.asked.elapsed() >= Duration::from_millis(PROBE_MS) {
            let partitions: Vec<i32> = self.partitions.iter().map(|each| each.id).collect();
            offsets::ask(&self.client, &self.topic, &partitions, At::End, PROBE_ANSWER_MS, &probe.queue)?;
            (probe.open, probe.asked) = (true, Instant::now());
        }
        match status.trouble() {
            Some(trouble) if trouble.gone && trouble.lasted >= Duration::from_secs(GONE_SECONDS_MAX) => Err(Error::failed(format!(
                "topic {topic} was deleted while it was read: the broker knows no such topic any more. What was read before is in the tables; \
                 a topic made anew under this name is another one: read it with --reset, or under another pipeline's name (SET pipeline)"
            ))),
            Some(trouble) if !trouble.gone && trouble.lasted >= Duration::from_secs(TROUBLE_SECONDS_MAX) => {
                Err(Error::external(format!("topic {topic}: {} (for {} s)", trouble.text, trouble.lasted.as_secs())))
            }
            _ => Ok(()),
        }
    }
}

impl Commits {
    /// Sends the newest offsets unless others are on their way.
    fn serve(&mut self, client: &Client, topic: &CString) {
        if self.open && self.queue.event(0).is_some_and(|event| committed(&event)) {
            self.open = false;
        }
        if self.open {
            return;
        }
        let Some(positions) = self.then.take() else { return };
        let Ok(list) = Partitions::new(topic, &positions) else { return };
        // SAFETY: everything lives through the call; the answer goes to the queue.
        let code = unsafe { rd::rd_kafka_commit_queue(client.raw(), list.raw(), self.queue.raw(), None, std::ptr::null_mut()) };
        self.open = code == Code::RD_KAFKA_RESP_ERR_NO_ERROR;
    }

    fn finish_one(&mut self) {
        if self.open && self.queue.event(LAST_COMMIT_MS).is_some_and(|event| committed(&event)) {
            self.open = false;
        }
    }
}

/// Lag tools see older offsets when it fails; nothing else depends on it.
fn committed(event: &super::client::Event) -> bool {
    if let Err((_, text)) = event.error() {
        tracing::debug!(target: "librdkafka", "offsets for lag tools were not committed: {text}");
    }
    true
}

/// What an event in place of a record means. Errors end the run; what librdkafka retries by itself is passed over.
fn event(topic: &str, partition: i32, next: i64, code: Code, text: &str) -> Result<()> {
    let place = format!("topic {topic}, partition {partition}");
    match code {
        Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE | Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET => Err(Error::failed(format!(
            "{place}: offset {next} is not in the log ({text}): retention deleted records that were not read yet, or the topic was made anew. \
             Run with --reset to start over from the records that are there"
        ))),
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION => Err(Error::failed(format!("{place} does not exist (any more): {text}"))),
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED | Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED => {
            Err(Error::failed(format!("{place}: the broker's access rules (ACL) don't let this user read it: {text}")))
        }
        // A batch that can't be read would be passed over: a loss.
        Code::RD_KAFKA_RESP_ERR__BAD_MSG
        | Code::RD_KAFKA_RESP_ERR__BAD_COMPRESSION
        | Code::RD_KAFKA_RESP_ERR_INVALID_MSG
        | Code::RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED
        | Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE => {
            Err(Error::failed(format!("{place}, offset {next}: records that can't be read: {text}")))
        }
        Code::RD_KAFKA_RESP_ERR__FATAL => Err(Error::failed(format!("{place}: {text}"))),
        _ => {
            tracing::warn!(target: "librdkafka", "{place}, offset {next}: {text}; trying again");
            Ok(())
        }
    }
}
