//! Asking brokers for offsets: one request for all partitions of a topic, answered on a queue.
//!
//! Always: offsets are those a read_committed reader sees, so the end is the last stable offset (an open transaction hides what follows).
//! Used by `admin`, and by `source` to learn whether brokers answer again.

use std::ffi::CStr;
use std::sync::Arc;

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaRespErr as Code;
use tidemill_engine::error::{Error, Result};

use super::client::{Client, Event, Partitions, Queue, describe};

/// Which offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Begin,
    End,
    /// The first record stamped at or after this.
    TimestampMs(i64),
}

impl At {
    fn spec(self) -> i64 {
        match self {
            Self::Begin => rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_EARLIEST as i64,
            Self::End => rd::rd_kafka_OffsetSpec_t::RD_KAFKA_OFFSET_SPEC_LATEST as i64,
            Self::TimestampMs(at) => at.max(0),
        }
    }
}

/// Sends the question; the answer comes as an event of `queue` within `wait_ms`.
pub(super) fn ask(client: &Arc<Client>, topic: &CStr, partitions: &[i32], at: At, wait_ms: i32, queue: &Queue) -> Result<()> {
    let asked: Vec<(i32, i64)> = partitions.iter().map(|partition| (*partition, at.spec())).collect();
    let asked = Partitions::new(topic, &asked)?;
    // SAFETY: everything lives through the call, which copies what it needs.
    unsafe {
        let options = rd::rd_kafka_AdminOptions_new(client.raw(), rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS);
        let mut text = [0; 128];
        rd::rd_kafka_AdminOptions_set_request_timeout(options, wait_ms, text.as_mut_ptr(), text.len());
        let refused =
            rd::rd_kafka_AdminOptions_set_isolation_level(options, rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED);
        let wrong = !refused.is_null();
        if wrong {
            rd::rd_kafka_error_destroy(refused);
        } else {
            rd::rd_kafka_ListOffsets(client.raw(), asked.raw(), options, queue.raw());
        }
        rd::rd_kafka_AdminOptions_destroy(options);
        if wrong { Err(Error::failed("librdkafka knows no read_committed offsets")) } else { Ok(()) }
    }
}

/// The answer: an offset a partition, `-1` where there is no such record.
pub(super) fn answer(event: &Event) -> std::result::Result<Vec<(i32, i64)>, (Code, String)> {
    event.error()?;
    // SAFETY: the event lives; its parts live as long.
    let infos = unsafe {
        let result = rd::rd_kafka_event_ListOffsets_result(event.raw());
        if result.is_null() {
            return Err((Code::RD_KAFKA_RESP_ERR__FAIL, "not an answer to a question for offsets".into()));
        }
        let mut count = 0;
        let list = rd::rd_kafka_ListOffsets_result_infos(result, &mut count);
        if list.is_null() { &[][..] } else { std::slice::from_raw_parts(list, count) }
    };
    let mut offsets = Vec::with_capacity(infos.len());
    for info in infos {
        // SAFETY: as above.
        let found = unsafe { &*rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*info) };
        if found.err != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err((found.err, format!("partition {}: {}", found.partition, describe(found.err))));
        }
        offsets.push((found.partition, found.offset));
    }
    offsets.sort_unstable();
    Ok(offsets)
}
