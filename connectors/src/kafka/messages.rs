//! Records in librdkafka's own buffers: one that is on its way, and those of one batch, kept until its tick has judged them.
//!
//! Always: a message is destroyed once, after the last reader of its bytes, and before its client. Keeping the messages costs no copy;
//! what it pins is the fetch buffers of one tick. Made and read by `source`, read by the engine through `RawRecords`.

use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaRespErr as Code;
use tidemill_engine::rows::{RawRecord, RawRecords};

use super::client::{Client, text_of};

/// One message or one event in place of a message.
pub(super) struct Message(NonNull<rd::rd_kafka_message_t>);

// SAFETY: a message is plain memory with an atomic count on its fetch buffer; any thread may read it, the last one destroys it.
// `record` parses no headers, the one thing librdkafka does lazily inside a message.
unsafe impl Send for Message {}
// SAFETY: as above.
unsafe impl Sync for Message {}

impl Message {
    /// Takes over a message.
    ///
    /// # Safety
    /// `raw` is a message of a consumer that outlives it, and nobody else destroys it.
    pub(super) unsafe fn own(raw: *mut rd::rd_kafka_message_t) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    #[inline]
    fn get(&self) -> &rd::rd_kafka_message_t {
        // SAFETY: it lives until `drop`.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(super) fn offset(&self) -> i64 {
        self.get().offset
    }

    #[inline]
    pub(super) fn code(&self) -> Code {
        self.get().err
    }

    /// The words of an event.
    pub(super) fn error_text(&self) -> String {
        // SAFETY: it lives.
        text_of(unsafe { rd::rd_kafka_message_errstr(self.0.as_ptr()) })
    }

    #[inline]
    pub(super) fn record(&self) -> RawRecord<'_> {
        let message = self.get();
        let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: it lives.
        let timestamp_ms = unsafe { rd::rd_kafka_message_timestamp(self.0.as_ptr(), &mut kind) };
        RawRecord {
            key: bytes(message.key, message.key_len),
            payload: bytes(message.payload, message.len),
            timestamp_ms: (kind != rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && timestamp_ms >= 0)
                .then_some(timestamp_ms),
        }
    }
}

/// Null is a null pointer; empty is not.
#[inline]
fn bytes<'a>(at: *const std::ffi::c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: librdkafka gives a pointer to `len` bytes or null; the caller ties them to the message.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at.cast(), len) })
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: ours, and its client lives: `Messages` and `Partition` hold it.
        unsafe { rd::rd_kafka_message_destroy(self.0.as_ptr()) };
    }
}

/// The records of one batch, in offset order.
pub(super) struct Messages {
    // Dropped before the client: fields go in order.
    list: Vec<Message>,
    _client: Arc<Client>,
}

impl Messages {
    pub(super) fn new(client: Arc<Client>, capacity: usize) -> Self {
        Self { list: Vec::with_capacity(capacity), _client: client }
    }

    pub(super) fn push(&mut self, message: Message) {
        self.list.push(message);
    }
}

impl RawRecords for Messages {
    fn record(&self, offset: i64) -> Option<RawRecord<'_>> {
        let at = self.list.binary_search_by_key(&offset, Message::offset).ok()?;
        self.list.get(at).map(Message::record)
    }
}
