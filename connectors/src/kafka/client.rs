//! A librdkafka client: made from properties, with its errors and log lines caught, destroyed once nothing of it is in use.
//!
//! Always: nothing of librdkafka reaches stdout or stderr; its log goes to `tracing`, its global errors to `KafkaStatus` when the client
//! is polled. Queues and messages hold the client they come from. Not here: what is read or written (`source`, `admin`, `producer`).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaRespErr as Code;
use tidemill_engine::error::{Error, Result};

use super::status::KafkaStatus;

/// librdkafka's kinds of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Consumer,
    Producer,
}

/// What the callbacks see.
struct Shared {
    status: Arc<KafkaStatus>,
    undelivered: Mutex<Option<String>>,
}

/// See the module doc.
pub(super) struct Client {
    raw: NonNull<rd::rd_kafka_t>,
    shared: Arc<Shared>,
}

// SAFETY: librdkafka's clients may be used from any thread at the same time (its own documentation).
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    /// A client with these properties, later ones first in force. Contacts nobody yet.
    pub(super) fn new(kind: Kind, properties: &[(String, String)], status: Arc<KafkaStatus>) -> Result<Arc<Self>> {
        let shared = Arc::new(Shared { status, undelivered: Mutex::new(None) });
        let mut text = [0; 512];
        // SAFETY: `conf` is ours until `rd_kafka_new` takes it. The opaque pointer lives as long as `shared`, which `Client` keeps until
        // after `rd_kafka_destroy` has ended all threads that could call back.
        let raw = unsafe {
            let conf = rd::rd_kafka_conf_new();
            for (key, value) in properties {
                if let Err(error) = set(conf, key, value) {
                    rd::rd_kafka_conf_destroy(conf);
                    return Err(error);
                }
            }
            rd::rd_kafka_conf_set_opaque(conf, Arc::as_ptr(&shared).cast_mut().cast());
            rd::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            rd::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            if kind == Kind::Producer {
                rd::rd_kafka_conf_set_dr_msg_cb(conf, Some(on_delivery));
            }
            let kind = match kind {
                Kind::Consumer => rd::rd_kafka_type_t::RD_KAFKA_CONSUMER,
                Kind::Producer => rd::rd_kafka_type_t::RD_KAFKA_PRODUCER,
            };
            let raw = rd::rd_kafka_new(kind, conf, text.as_mut_ptr(), text.len());
            if raw.is_null() {
                rd::rd_kafka_conf_destroy(conf);
            }
            raw
        };
        let raw = NonNull::new(raw).ok_or_else(|| Error::refused(format!("Kafka client: {}", text_of(text.as_ptr()))))?;
        Ok(Arc::new(Self { raw, shared }))
    }

    pub(super) fn raw(&self) -> *mut rd::rd_kafka_t {
        self.raw.as_ptr()
    }

    pub(super) fn status(&self) -> &Arc<KafkaStatus> {
        &self.shared.status
    }

    /// Serves the callbacks, waiting for one up to `wait_ms`.
    pub(super) fn poll(&self, wait_ms: i32) {
        // SAFETY: the client lives.
        unsafe { rd::rd_kafka_poll(self.raw(), wait_ms) };
    }

    /// Takes the first error of a record that could not be delivered.
    pub(super) fn take_undelivered(&self) -> Option<String> {
        self.shared.undelivered.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A queue of our own for answers.
    pub(super) fn queue(self: &Arc<Self>) -> Result<Queue> {
        // SAFETY: the client lives.
        Queue::from_raw(self, unsafe { rd::rd_kafka_queue_new(self.raw()) })
    }

    /// The queue of one partition, cut off from the client's common one.
    pub(super) fn partition_queue(self: &Arc<Self>, topic: &CStr, partition: i32) -> Result<Queue> {
        // SAFETY: the client and the name live through the call. A null destination ends forwarding.
        let queue = Queue::from_raw(self, unsafe { rd::rd_kafka_queue_get_partition(self.raw(), topic.as_ptr(), partition) })?;
        // SAFETY: the queue lives; no destination ends forwarding.
        unsafe { rd::rd_kafka_queue_forward(queue.raw(), std::ptr::null_mut()) };
        Ok(queue)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: queues and messages hold an `Arc<Client>`, so none is left. No consumer close: there is no group to leave.
        unsafe { rd::rd_kafka_destroy_flags(self.raw(), rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE) };
    }
}

/// A queue of librdkafka's.
pub(super) struct Queue {
    raw: NonNull<rd::rd_kafka_queue_t>,
    _client: Arc<Client>,
}

// SAFETY: librdkafka's queues are locked inside.
unsafe impl Send for Queue {}

impl Queue {
    fn from_raw(client: &Arc<Client>, raw: *mut rd::rd_kafka_queue_t) -> Result<Self> {
        let raw = NonNull::new(raw).ok_or_else(|| Error::failed("librdkafka gave no queue"))?;
        Ok(Self { raw, _client: client.clone() })
    }

    pub(super) fn raw(&self) -> *mut rd::rd_kafka_queue_t {
        self.raw.as_ptr()
    }

    /// The next event within `wait_ms`.
    pub(super) fn event(&self, wait_ms: i32) -> Option<Event> {
        // SAFETY: the queue lives; the event is ours to destroy.
        NonNull::new(unsafe { rd::rd_kafka_queue_poll(self.raw(), wait_ms) }).map(Event)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: ours, and the client still lives.
        unsafe { rd::rd_kafka_queue_destroy(self.raw()) };
    }
}

/// An answer to an asynchronous request.
pub(super) struct Event(NonNull<rd::rd_kafka_event_t>);

impl Event {
    pub(super) fn raw(&self) -> *mut rd::rd_kafka_event_t {
        self.0.as_ptr()
    }

    /// The error of the request as a whole.
    pub(super) fn error(&self) -> std::result::Result<(), (Code, String)> {
        // SAFETY: the event lives; its text lives as long.
        let code = unsafe { rd::rd_kafka_event_error(self.raw()) };
        if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        // SAFETY: as above; the text is copied.
        Err((code, text_of(unsafe { rd::rd_kafka_event_error_string(self.raw()) })))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { rd::rd_kafka_event_destroy(self.raw()) };
    }
}

/// A topic's partitions with offsets, as librdkafka takes and returns them.
pub(super) struct Partitions(NonNull<rd::rd_kafka_topic_partition_list_t>);

impl Partitions {
    pub(super) fn new(topic: &CStr, offsets: &[(i32, i64)]) -> Result<Self> {
        // SAFETY: a fresh list; `add` copies the name and returns an element that lives in the list.
        unsafe {
            let list = NonNull::new(rd::rd_kafka_topic_partition_list_new(offsets.len() as c_int))
                .ok_or_else(|| Error::failed("librdkafka gave no list"))?;
            for (partition, offset) in offsets {
                let element = rd::rd_kafka_topic_partition_list_add(list.as_ptr(), topic.as_ptr(), *partition);
                (*element).offset = *offset;
            }
            Ok(Self(list))
        }
    }

    pub(super) fn raw(&self) -> *mut rd::rd_kafka_topic_partition_list_t {
        self.0.as_ptr()
    }
}

impl Drop for Partitions {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { rd::rd_kafka_topic_partition_list_destroy(self.raw()) };
    }
}

/// A name for librdkafka.
pub(super) fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::refused(format!("{text:?} holds a zero byte")))
}

/// A text of librdkafka's; empty for none.
pub(super) fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: librdkafka's texts end with a zero byte.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// What librdkafka calls an error.
pub(super) fn describe(code: Code) -> String {
    // SAFETY: a static text for any code.
    text_of(unsafe { rd::rd_kafka_err2str(code) })
}

/// Refuses what librdkafka does not know or take.
pub(super) fn check(properties: &[(String, String)]) -> Result<()> {
    // SAFETY: a fresh configuration, destroyed here.
    unsafe {
        let conf = rd::rd_kafka_conf_new();
        let checked = properties.iter().try_for_each(|(key, value)| set(conf, key, value));
        rd::rd_kafka_conf_destroy(conf);
        checked
    }
}

unsafe fn set(conf: *mut rd::rd_kafka_conf_t, key: &str, value: &str) -> Result<()> {
    let (name, setting) = (c_string(key)?, c_string(value)?);
    let mut text = [0; 512];
    // SAFETY: all pointers live through the call.
    let result = unsafe { rd::rd_kafka_conf_set(conf, name.as_ptr(), setting.as_ptr(), text.as_mut_ptr(), text.len()) };
    if result == rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
        return Ok(());
    }
    Err(Error::refused(format!("--kafka {key}: {}", text_of(text.as_ptr()))))
}

/// Runs on librdkafka's threads. A connection that fails is in `KafkaStatus` too, so its line is for those who look for it.
unsafe extern "C" fn on_log(_: *const rd::rd_kafka_t, level: c_int, facility: *const c_char, line: *const c_char) {
    let (facility, line) = (text_of(facility), text_of(line));
    if level <= 4 && !matches!(facility.as_str(), "FAIL" | "ERROR" | "CONFWARN") {
        tracing::warn!(target: "librdkafka", "{facility}: {line}");
    } else {
        tracing::debug!(target: "librdkafka", "{facility}: {line}");
    }
}

/// Runs in `poll`.
unsafe extern "C" fn on_error(_: *mut rd::rd_kafka_t, code: c_int, reason: *const c_char, shared: *mut c_void) {
    let reason = text_of(reason);
    tracing::debug!(target: "librdkafka", "{reason}");
    // SAFETY: `shared` is the opaque pointer of `Client::new`.
    let shared = unsafe { &*shared.cast::<Shared>() };
    let code = [
        Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
        Code::RD_KAFKA_RESP_ERR__RESOLVE,
        Code::RD_KAFKA_RESP_ERR__SSL,
        Code::RD_KAFKA_RESP_ERR__AUTHENTICATION,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID,
        Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
        Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
    ]
    .into_iter()
    .find(|known| *known as c_int == code)
    .unwrap_or(Code::RD_KAFKA_RESP_ERR__TRANSPORT);
    shared.status.failed(code, &reason);
}

/// Runs in `poll`, for records that could not be delivered only (`delivery.report.only.error`).
unsafe extern "C" fn on_delivery(_: *mut rd::rd_kafka_t, message: *const rd::rd_kafka_message_t, shared: *mut c_void) {
    // SAFETY: librdkafka lends the message for the call; `shared` is the opaque pointer of `Client::new`.
    let (shared, message) = unsafe { (&*shared.cast::<Shared>(), &*message) };
    if message.err == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
        return;
    }
    // SAFETY: the message holds its topic; the name is copied.
    let topic = text_of(unsafe { rd::rd_kafka_topic_name(message.rkt) });
    let mut first = shared.undelivered.lock().unwrap_or_else(PoisonError::into_inner);
    first.get_or_insert_with(|| format!("topic {topic}, partition {}: {}", message.partition, describe(message.err)));
}
