//! Tests of `format`.

use super::*;
use crate::json::TimeUnitOption;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};

struct Nothing;

impl RawRecords for Nothing {
    fn record(&self, _: i64) -> Option<RawRecord<'_>> {
        None
    }
}

fn column(name: &str, data_type: DataType, build: bool) -> Column {
    Column { name: name.into(), path: vec![name.into()], data_type, nullable: false, unit: TimeUnitOption::Ms, build }
}

fn record<'a>(key: Option<&'a [u8]>, payload: Option<&'a [u8]>, timestamp_ms: Option<i64>) -> RawRecord<'a> {
    RawRecord { key, payload, timestamp_ms }
}

fn decoder(hidden: Vec<Hidden>) -> RecordDecoder {
    let columns = vec![column("a", DataType::Int64, true), column("unread", DataType::Int64, false)];
    RecordDecoder::new("a topic with a long name", &DecodeConfig { columns, hidden, ..DecodeConfig::default() }).expect("plain types")
}

#[test]
fn rows_carry_the_hidden_columns_and_bad_records_their_whole_bytes() {
    let mut decoder = decoder(Hidden::ALL.to_vec());
    decoder.begin(3);
    decoder.push(10, record(Some(b"k"), Some(br#"{"a":1,"unread":1}"#), Some(5)));
    decoder.push(12, record(Some(b"dead"), None, Some(6)));
    decoder.push(13, record(None, Some(b""), Some(7)));
    decoder.push(14, record(None, Some(br#"{"a":2,"unread":"no"}"#), Some(8)));
    decoder.push(20, record(None, Some(br#"{"a":3,"unread":1}"#), Some(9)));
    let read = decoder.finish(25, Arc::new(Nothing)).expect("a batch");
    assert_eq!((read.records, read.bytes, read.next), (5, 18 + 21 + 18, 25));
    assert_eq!((read.offsets.clone(), read.timestamps_ms.clone()), (vec![10, 20], vec![5, 9]));
    let batch = &read.batch;
    assert_eq!(batch.schema(), decoder.schema());
    assert_eq!(batch["a"].as_primitive::<Int64Type>().values(), &[1, 3]);
    assert_eq!(batch["_topic"].as_string_view().iter().collect::<Vec<_>>(), [Some("a topic with a long name"); 2]);
    assert_eq!(batch["_partition"].as_primitive::<Int32Type>().values(), &[3, 3]);
    assert_eq!(batch["_offset"].as_primitive::<Int64Type>().values(), &[10, 20]);
    assert_eq!(batch["_timestamp"].as_primitive::<TimestampMicrosecondType>().values(), &[5000, 9000]);
    assert_eq!(batch["_key"].as_binary::<i32>().iter().collect::<Vec<_>>(), [Some(&b"k"[..]), None]);
    let dead: Vec<_> =
        read.dead.iter().map(|letter| (letter.partition, letter.offset, letter.reason.as_str(), letter.timestamp_ms)).collect();
    assert_eq!(dead, [(3, 12, "null_payload", Some(6)), (3, 13, "empty", Some(7)), (3, 14, "type", Some(8))]);
    assert_eq!((read.dead[0].key.as_deref(), &read.dead[0].payload), (Some(&b"dead"[..]), &None));
    assert_eq!((&read.dead[1].key, read.dead[1].payload.as_deref()), (&None, Some(&b""[..])));
    assert_eq!(read.dead[2].payload.as_deref(), Some(&br#"{"a":2,"unread":"no"}"#[..]));
}

#[test]
fn a_batch_starts_anew_after_finish_and_may_be_empty() {
    let mut decoder = decoder(vec![Hidden::Key, Hidden::Timestamp]);
    decoder.begin(0);
    decoder.push(1, record(None, Some(br#"{"a":1,"unread":1}"#), None));
    let read = decoder.finish(2, Arc::new(Nothing)).expect("a batch");
    assert!(read.timestamps_ms.is_empty(), "the record has none");
    assert_eq!(read.batch["_timestamp"].null_count(), 1);
    let empty = decoder.finish(9, Arc::new(Nothing)).expect("an empty batch");
    assert_eq!((empty.batch.num_rows(), empty.records, empty.next, empty.dead.len()), (0, 0, 9, 0));
}

#[test]
fn rows_are_counted_when_no_column_is_read() {
    let config = DecodeConfig { columns: vec![column("a", DataType::Int64, false)], ..DecodeConfig::default() };
    let mut decoder = RecordDecoder::new("t", &config).expect("plain types");
    decoder.push(1, record(None, Some(br#"{"a":1}"#), None));
    assert_eq!(decoder.finish(2, Arc::new(Nothing)).expect("a batch").batch.num_rows(), 1);
}
