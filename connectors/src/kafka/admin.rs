//! Asking brokers before a run: does the topic exist, how many partitions, where do they begin and end; and making topics for a demo.
//!
//! Always: a broker that does not answer or a topic that is not there is told to `on_wait` within seconds, waited for up to the limit, and
//! then an error that names it. A login that is refused is not waited for. Called by the command before it starts, never while it runs.

use std::ffi::CString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaRespErr as Code;
use tidemill_engine::error::{Error, Result};

use super::client::{Client, Event, Kind, Partitions, c_string, describe, text_of};
use super::offsets::{self, At};
use super::properties;
use super::status::KafkaStatus;

/// How long the command waits for a broker or a topic.
pub const WAIT_MS: u64 = 60_000;
/// How long one question may take, and what lies between two.
const ANSWER_MS: i32 = 5000;
const PAUSE_MS: u64 = 500;
/// `on_wait` hears the same again after this.
const REMIND_MS: u64 = 10_000;
/// Topics that an error lists.
const SIMILAR_MAX: usize = 5;

/// A topic as the broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its partitions are 0 to this, exclusive.
    pub partitions: i32,
    /// Kafka's id, which a topic made anew under the same name does not share; `None` where the broker gives none.
    pub topic_id: Option<String>,
}

/// A client that asks.
pub struct Admin {
    client: Arc<Client>,
    brokers: String,
    wait_ms: u64,
}

impl Admin {
    /// For these brokers, with the user's librdkafka properties; every question waits up to `wait_ms` for an answer (`WAIT_MS` for the
    /// command). Contacts nobody yet.
    pub fn new(brokers: &str, user: &[(String, String)], wait_ms: u64) -> Result<Self> {
        let properties = properties(brokers, &[], user)?;
        let client = Client::new(Kind::Consumer, &properties, KafkaStatus::new(brokers))?;
        Ok(Self { client, brokers: brokers.to_string(), wait_ms })
    }

    /// The topic, waited for if it is not there yet.
    pub fn topic(&self, topic: &str, on_wait: &mut dyn FnMut(&str)) -> Result<TopicInfo> {
        let name = c_string(topic)?;
        let partitions = self.patiently(on_wait, |admin| admin.partitions_of(topic, &name))?;
        let topic_id = self.topic_id(&name);
        Ok(TopicInfo { partitions, topic_id })
    }

    /// Whether the topic is there.
    pub fn has_topic(&self, topic: &str, on_wait: &mut dyn FnMut(&str)) -> Result<bool> {
        let name = c_string(topic)?;
        self.patiently(on_wait, |admin| match admin.metadata(Some(&name))?.topics().first().map(|found| found.err) {
            Some(Code::RD_KAFKA_RESP_ERR_NO_ERROR) => Ok(true),
            Some(Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(false),
            Some(code) => Err(admin.problem(code, &format!("topic {topic}: {}", describe(code)))),
            None => Err(admin.problem(Code::RD_KAFKA_RESP_ERR__TIMED_OUT, "no answer")),
        })
    }

    /// The first offset of each partition that is still in the log.
    pub fn begin_offsets(&self, topic: &str, partitions: &[i32], on_wait: &mut dyn FnMut(&str)) -> Result<Vec<(i32, i64)>> {
        self.offsets(topic, partitions, At::Begin, on_wait)
    }

    /// The end of each partition for a read_committed reader: below the high watermark while a transaction is open.
    pub fn end_offsets(&self, topic: &str, partitions: &[i32], on_wait: &mut dyn FnMut(&str)) -> Result<Vec<(i32, i64)>> {
        self.offsets(topic, partitions, At::End, on_wait)
    }

    /// The first record of each partition stamped at or after `timestamp_ms`; the partition's end where there is none.
    pub fn offsets_for_time(
        &self,
        topic: &str,
        partitions: &[i32],
        timestamp_ms: i64,
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<Vec<(i32, i64)>> {
        let ends = self.offsets(topic, partitions, At::End, on_wait)?;
        let found = self.offsets(topic, partitions, At::TimestampMs(timestamp_ms), on_wait)?;
        Ok(ends.iter().zip(found).map(|((partition, end), (_, at))| (*partition, if at < 0 { *end } else { at })).collect())
    }

    fn offsets(&self, topic: &str, partitions: &[i32], at: At, on_wait: &mut dyn FnMut(&str)) -> Result<Vec<(i32, i64)>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let name = c_string(topic)?;
        self.patiently(on_wait, |admin| {
            let event = admin.ask(|queue| offsets::ask(&admin.client, &name, partitions, at, ANSWER_MS, queue))?;
            let offsets = match event {
                Some(event) => offsets::answer(&event).map_err(|(code, text)| admin.problem(code, &format!("topic {topic}: {text}")))?,
                None => return Err(admin.problem(Code::RD_KAFKA_RESP_ERR__TIMED_OUT, "no answer")),
            };
            if offsets.len() == partitions.len() {
                Ok(offsets)
            } else {
                Err(Problem::Wait(format!("topic {topic}: offsets of some partitions are missing")))
            }
        })
    }

    /// Makes a topic with this many partitions and settings (`("retention.ms", "-1")`), or leaves it if it exists; true if it was made.
    pub fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)], on_wait: &mut dyn FnMut(&str)) -> Result<bool> {
        let name = c_string(topic)?;
        let settings = settings.iter().map(|(key, value)| Ok((c_string(key)?, c_string(value)?))).collect::<Result<Vec<_>>>()?;
        let made = self.patiently(on_wait, |admin| admin.try_create(topic, &name, partitions, &settings))?;
        // Brokers learn of a new topic one after the other.
        self.patiently(on_wait, |admin| admin.partitions_of(topic, &name))?;
        Ok(made)
    }

    fn try_create(
        &self,
        topic: &str,
        name: &CString,
        partitions: i32,
        settings: &[(CString, CString)],
    ) -> std::result::Result<bool, Problem> {
        let mut text = [0; 256];
        // SAFETY: all pointers live through each call; the topic is ours to destroy.
        let event = self.ask(|queue| unsafe {
            let new = rd::rd_kafka_NewTopic_new(name.as_ptr(), partitions, -1, text.as_mut_ptr(), text.len());
            if new.is_null() {
                return Err(Error::refused(format!("topic {topic}: {}", text_of(text.as_ptr()))));
            }
            for (key, value) in settings {
                rd::rd_kafka_NewTopic_set_config(new, key.as_ptr(), value.as_ptr());
            }
            let options = rd::rd_kafka_AdminOptions_new(self.client.raw(), rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS);
            rd::rd_kafka_AdminOptions_set_request_timeout(options, ANSWER_MS, text.as_mut_ptr(), text.len());
            rd::rd_kafka_AdminOptions_set_operation_timeout(options, ANSWER_MS, text.as_mut_ptr(), text.len());
            let mut list = [new];
            rd::rd_kafka_CreateTopics(self.client.raw(), list.as_mut_ptr(), 1, options, queue.raw());
            rd::rd_kafka_AdminOptions_destroy(options);
            rd::rd_kafka_NewTopic_destroy(new);
            Ok(())
        })?;
        let Some(event) = event else { return Err(self.problem(Code::RD_KAFKA_RESP_ERR__TIMED_OUT, "no answer")) };
        event.error().map_err(|(code, text)| self.problem(code, &text))?;
        // SAFETY: the event lives; its parts live as long.
        let (code, text) = unsafe {
            let mut count = 0;
            let list = rd::rd_kafka_CreateTopics_result_topics(rd::rd_kafka_event_CreateTopics_result(event.raw()), &mut count);
            if list.is_null() || count == 0 {
                return Err(Problem::Stop(Error::failed(format!("topic {topic}: the broker did not say whether it was made"))));
            }
            (rd::rd_kafka_topic_result_error(*list), text_of(rd::rd_kafka_topic_result_error_string(*list)))
        };
        match code {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(true),
            Code::RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS => Ok(false),
            code => Err(self.problem(code, &format!("topic {topic} can't be made: {text}"))),
        }
    }

    /// Commits offsets of a group once (a reader commits its own: this is for tools).
    pub fn commit_offsets(brokers: &str, user: &[(String, String)], group: &str, topic: &str, positions: &[(i32, i64)]) -> Result<()> {
        let properties = properties(brokers, &[("group.id", group.to_string())], user)?;
        let client = Client::new(Kind::Consumer, &properties, KafkaStatus::new(brokers))?;
        let list = Partitions::new(&c_string(topic)?, positions)?;
        // SAFETY: both live through the call, which waits for the answer.
        match unsafe { rd::rd_kafka_commit(client.raw(), list.raw(), 0) } {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            code => Err(Error::external(format!("topic {topic}: offsets of group {group} were not committed: {}", describe(code)))),
        }
    }

    /// The topic's number of partitions, once.
    fn partitions_of(&self, topic: &str, name: &CString) -> std::result::Result<i32, Problem> {
        let metadata = self.metadata(Some(name))?;
        let Some(found) = metadata.topics().first() else { return Err(self.problem(Code::RD_KAFKA_RESP_ERR__TIMED_OUT, "no answer")) };
        match found.err {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR if found.partition_cnt > 0 => Ok(found.partition_cnt),
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => Err(Problem::Wait(self.missing(topic))),
            Code::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION => Err(Problem::Stop(Error::refused(format!("{topic:?} can't be a topic's name")))),
            code => Err(self.problem(code, &format!("topic {topic}: {}", describe(code)))),
        }
    }

    /// The sentence for a topic that is not there, with those that sound like it.
    fn missing(&self, topic: &str) -> String {
        let all = self.metadata(None).map(|metadata| metadata.names()).unwrap_or_default();
        let near = similar(topic, all);
        let hint = if near.is_empty() { String::new() } else { format!(" (there is {})", near.join(", ")) };
        format!("topic {topic} does not exist on broker {}{hint}", self.brokers)
    }

    fn metadata(&self, topic: Option<&CString>) -> std::result::Result<Metadata, Problem> {
        let mut metadata = std::ptr::null();
        // SAFETY: the topic handle is ours and is let go after the call; the metadata is ours to destroy.
        let code = unsafe {
            let handle = topic
                .map(|name| rd::rd_kafka_topic_new(self.client.raw(), name.as_ptr(), std::ptr::null_mut()))
                .unwrap_or(std::ptr::null_mut());
            let code = rd::rd_kafka_metadata(self.client.raw(), i32::from(topic.is_none()), handle, &mut metadata, ANSWER_MS / 2);
            if !handle.is_null() {
                rd::rd_kafka_topic_destroy(handle);
            }
            code
        };
        if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR && !metadata.is_null() {
            self.client.status().answered();
            return Ok(Metadata(metadata));
        }
        Err(self.problem(code, &describe(code)))
    }

    /// Kafka's id of the topic; brokers before 3.1 and those inside a test have none.
    fn topic_id(&self, name: &CString) -> Option<String> {
        // The question goes to the controller; a broker inside a process names one that is not there, and it would be waited for in vain.
        // SAFETY: the client lives. The metadata asked for just before holds the controller's number.
        let controller = unsafe { rd::rd_kafka_controllerid(self.client.raw(), 0) };
        if !self.metadata(Some(name)).is_ok_and(|metadata| metadata.has_broker(controller)) {
            return None;
        }
        let mut names = [name.as_ptr()];
        // SAFETY: all pointers live through each call; the collection is ours to destroy.
        let event = self
            .ask(|queue| unsafe {
                let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
                let options = rd::rd_kafka_AdminOptions_new(self.client.raw(), rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
                let mut text = [0; 128];
                rd::rd_kafka_AdminOptions_set_request_timeout(options, ANSWER_MS, text.as_mut_ptr(), text.len());
                rd::rd_kafka_DescribeTopics(self.client.raw(), topics, options, queue.raw());
                rd::rd_kafka_AdminOptions_destroy(options);
                rd::rd_kafka_TopicCollection_destroy(topics);
                Ok(())
            })
            .ok()??;
        event.error().ok()?;
        // SAFETY: the event lives; its parts live as long.
        let id = unsafe {
            let mut count = 0;
            let list = rd::rd_kafka_DescribeTopics_result_topics(rd::rd_kafka_event_DescribeTopics_result(event.raw()), &mut count);
            if list.is_null()
                || count == 0
                || rd::rd_kafka_error_code(rd::rd_kafka_TopicDescription_error(*list)) != Code::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                return None;
            }
            let id = rd::rd_kafka_TopicDescription_topic_id(*list);
            let zero =
                id.is_null() || (rd::rd_kafka_Uuid_most_significant_bits(id) == 0 && rd::rd_kafka_Uuid_least_significant_bits(id) == 0);
            if zero { String::new() } else { text_of(rd::rd_kafka_Uuid_base64str(id)) }
        };
        (!id.is_empty()).then_some(id)
    }

    /// Sends a question with a queue for its answer, which is waited for.
    fn ask(&self, send: impl FnOnce(&super::client::Queue) -> Result<()>) -> std::result::Result<Option<Event>, Problem> {
        let queue = self.client.queue().map_err(Problem::Stop)?;
        send(&queue).map_err(Problem::Stop)?;
        Ok(queue.event(ANSWER_MS + 1000))
    }

    /// Tries until it works, somebody must act, or the time is up.
    fn patiently<T>(&self, on_wait: &mut dyn FnMut(&str), mut attempt: impl FnMut(&Self) -> std::result::Result<T, Problem>) -> Result<T> {
        let (begin, mut said, mut last) = (Instant::now(), String::new(), Instant::now());
        loop {
            let text = match attempt(self) {
                Ok(found) => return Ok(found),
                Err(Problem::Stop(error)) => return Err(error),
                Err(Problem::Wait(text)) => text,
            };
            if begin.elapsed() >= Duration::from_millis(self.wait_ms) {
                return Err(Error::external(format!("{text}; gave up after {} s", begin.elapsed().as_secs())));
            }
            if said != text || last.elapsed() >= Duration::from_millis(REMIND_MS) {
                on_wait(&text);
                (said, last) = (text, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(PAUSE_MS));
        }
    }

    /// What an error code means for who waits.
    fn problem(&self, code: Code, text: &str) -> Problem {
        self.client.poll(100);
        if let Some(trouble) = self.client.status().trouble() {
            return if trouble.refused { Problem::Stop(Error::external(trouble.text)) } else { Problem::Wait(trouble.text) };
        }
        match code {
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
            | Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED
            | Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION
            | Code::RD_KAFKA_RESP_ERR_INVALID_PARTITIONS
            | Code::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION
            | Code::RD_KAFKA_RESP_ERR_INVALID_CONFIG => Problem::Stop(Error::external(format!("broker {}: {text}", self.brokers))),
            Code::RD_KAFKA_RESP_ERR__TIMED_OUT | Code::RD_KAFKA_RESP_ERR__TRANSPORT | Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN => {
                Problem::Wait(format!("broker {} does not answer: {text}", self.brokers))
            }
            _ => Problem::Wait(format!("broker {}: {text}", self.brokers)),
        }
    }
}

/// An attempt that failed.
enum Problem {
    Wait(String),
    Stop(Error),
}

struct Metadata(*const rd::rd_kafka_metadata);

impl Metadata {
    fn topics(&self) -> &[rd::rd_kafka_metadata_topic] {
        // SAFETY: it lives until `drop`.
        unsafe {
            let all = &*self.0;
            if all.topics.is_null() { &[] } else { std::slice::from_raw_parts(all.topics, usize::try_from(all.topic_cnt).unwrap_or(0)) }
        }
    }

    fn has_broker(&self, id: i32) -> bool {
        // SAFETY: it lives until `drop`.
        unsafe {
            let all = &*self.0;
            !all.brokers.is_null()
                && std::slice::from_raw_parts(all.brokers, usize::try_from(all.broker_cnt).unwrap_or(0))
                    .iter()
                    .any(|broker| broker.id == id)
        }
    }

    fn names(&self) -> Vec<String> {
        self.topics().iter().map(|topic| text_of(topic.topic)).collect()
    }
}

impl Drop for Metadata {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { rd::rd_kafka_metadata_destroy(self.0) };
    }
}

/// The topics whose names are nearest to `wanted`, nearest first; none that is further off than half its length.
fn similar(wanted: &str, all: Vec<String>) -> Vec<String> {
    let lower = wanted.to_lowercase();
    let near = |name: &String| {
        let name = name.to_lowercase();
        if name.contains(&lower) || lower.contains(&name) { 1 } else { distance(&lower, &name) }
    };
    let mut ranked: Vec<(usize, String)> = all.into_iter().filter(|name| !name.starts_with("__")).map(|name| (near(&name), name)).collect();
    ranked.retain(|(distance, _)| *distance <= wanted.chars().count().div_ceil(2));
    ranked.sort();
    ranked.into_iter().take(SIMILAR_MAX).map(|(_, name)| name).collect()
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut corner = i;
        let mut before = i + 1;
        for (right, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            before = (corner + usize::from(left != *right)).min(above + 1).min(before + 1);
            corner = above;
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_listed_nearest_first() {
        let all = ["clicks", "__consumer_offsets", "click", "payments", "human_clicks_2"].map(String::from).to_vec();
        assert_eq!(similar("clikcs", all.clone()), ["click", "clicks"]);
        assert_eq!(similar("CLICKS", all), ["click", "clicks", "human_clicks_2"]);
    }

    #[test]
    fn distances_are_levenshteins() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("abc", "abc")), (3, 3, 0));
    }
}
